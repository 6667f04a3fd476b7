"""LoRA on the dialog model: reads the instruction data, writes a plain PEFT folder that vLLM loads.

    easel finetune --data DATA --out RUN --minutes 20      # RUN/adapter, and the run's curves
    easel finetune --data ERRORS DATA --validation DATA --adapter RUN/adapter --out RUN2
    easel finetune --data DATA --out RUN --base Qwen/Qwen2.5-VL-3B-Instruct --rank 16 --learning-rate 2e-4 --dry-run

The best adapter by switch accuracy on the first DATA's validation split is kept, to a hundredth (some hundred records
tell no more than that); ties are decided by the loss, which is mostly the prompts'. lora.py says which models can
be trained and how, parallel.py how on several GPUs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialog_mllm.bases import Base
from dialog_mllm.card import adapter_card, source
from dialog_mllm.data import Batches
from dialog_mllm.errors import TrainingError
from dialog_mllm.estimate import estimate
from dialog_mllm.fit import (
    FitConfig,
    add_fit_arguments,
    fit,
    fit_config,
    write_settings,
)
from dialog_mllm.lora import (
    AdapterSettings,
    Trainee,
    adapter_settings,
    add_adapter_arguments,
    attach,
    merge,
    require_free,
    save_adapter,
)
from dialog_mllm.objective import Dialogues, Objective
from dialog_mllm.parallel import processes
from dialog_mllm.records import DataError, data_files

# On the bundled base 1e-3 made the validation's loss rise, where 2e-4 made it fall.
DEFAULTS = FitConfig(Path(), epochs=3.0, learning_rate=3e-4, optimizer="adamw", weight_decay=0.0, decay_share=0.7)


@dataclass(frozen=True)
class FinetuneConfig(AdapterSettings):
    """What `easel finetune` is asked for."""

    data: Path | Sequence[Path]  # data sets' folders, or JSONL files to train on
    fit: FitConfig
    validation: Path | None = None  # the data set to choose the best adapter by; None: the first of `data`
    refusals: int = 1  # how often a record in which something is declined is seen, beside the others
    validation_records: int = 400

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refusals < 1:
            raise TrainingError("refusals must be at least 1")


def finetune(config: FinetuneConfig, dry_run: bool = False) -> dict[str, Any]:
    """Train, keep the best adapter in `run/adapter`, return the last scores; with `dry_run`, what that will take."""
    sources = [config.data] if isinstance(config.data, Path) else list(config.data)
    train_files = data_files(sources, "train")
    if config.validation is None and not sources[0].is_dir():
        raise DataError(f"{sources[0]} is a file: name the one to measure on with --validation.")
    validation_files = data_files([config.validation or sources[0]], "validation")
    trainee = attach(config, config.fit.seed, config.fit.precision)
    budget = config.fit.batch_tokens
    with pictures_folder(config.fit.run, dry_run) as cache:
        train = trainee.dialogues(train_files, cache, budget, config.fit.seed, config.refusals)
        objective = Dialogues(trainee.core, trainee.draw, config.fit.precision)
        if dry_run:
            return estimate(config.fit, trainee.model, objective, train)
        held_out = trainee.dialogues(validation_files, cache, budget, limit=config.validation_records)
    return train_adapter(
        config,
        config.fit,
        trainee,
        objective,
        train,
        held_out,
        sources,
        better=lambda scores: (round(scores["switch_accuracy"], 2), -scores["loss"]),
    )


def pictures_folder(run: Path, dry_run: bool) -> AbstractContextManager[Any]:
    """Where resized pictures are kept: with the run, or for a while."""
    return tempfile.TemporaryDirectory() if dry_run else nullcontext(run / "pictures")


def train_adapter(
    config: AdapterSettings,
    settings: FitConfig,
    trainee: Trainee,
    objective: Objective,
    train: Batches,
    held_out: Batches,
    sources: Sequence[Path],
    better: Callable[[dict[str, float]], Any],
) -> dict[str, float]:
    """The training itself, alike for dialogues and for preferences; the best adapter and its card in `run/adapter`."""
    if processes().main:
        base = Base.of(config.base)
        write_settings(settings.run, config)
        made_of = [source(Path(place)) for place in sources]
        trained = sum(parameter.numel() for parameter in trainee.model.parameters() if parameter.requires_grad)
        print(f"{trained / 1e6:.2f} M parameters to train, {len(train.samples)} samples")

    def save(scores: dict[str, float]) -> None:
        save_adapter(trainee.model, settings.run / "adapter", base, adapter_card(base.name, made_of, config, scores))

    return fit(settings, trainee.model, objective, train, held_out, save, better)


def merge_best(args: argparse.Namespace) -> None:
    """What --merge asks for, once the training is done."""
    if args.merge and not args.dry_run and processes().main:
        merge(args.base, args.out / "adapter", args.merge)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="data sets' folders, or JSONL files")
    parser.add_argument(
        "--validation", type=Path, help="another to measure on (default: the first DATA's validation split)"
    )
    add_adapter_arguments(parser)
    parser.add_argument("--refusals", type=int, default=1, help="times that a record which declines something is seen")
    add_fit_arguments(parser, DEFAULTS)


def run(args: argparse.Namespace) -> dict[str, Any] | int:
    config = FinetuneConfig(
        data=args.data,
        validation=args.validation,
        fit=fit_config(args, DEFAULTS),
        refusals=args.refusals,
        **adapter_settings(args),
    )
    if args.merge:
        require_free(args.merge)
    scores = finetune(config, args.dry_run)
    merge_best(args)
    return scores if processes().main else 0
