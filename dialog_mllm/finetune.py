"""LoRA on the dialog model: reads the instruction data, writes a plain PEFT folder that vLLM loads.

    easel finetune --data DATA --out RUN --minutes 20      # RUN/adapter, and the run's curves
    easel finetune --data ERRORS DATA --validation DATA --adapter RUN/adapter --out RUN2

Only the language model's linear layers are adapted: vLLM ignores the rest and takes no new vocabulary from an adapter.
The best adapter by switch accuracy on the first DATA's validation split is kept, to a hundredth (some hundred records
tell no more than that); ties are decided by the loss, which is mostly the prompts'.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Idefics3ForConditionalGeneration, Idefics3Processor

from dialog_mllm.data import Batches, load_samples
from dialog_mllm.fit import FitConfig, TrainingError, add_fit_arguments, fit, fit_config, write_settings
from dialog_mllm.model import load_base
from dialog_mllm.protocol import DRAW
from dialog_mllm.records import DataError, data_files
from dialog_mllm.tokenizer import token_id

TARGETS = r".*text_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
WEIGHTS = Path(__file__).parent / "weights"
DEFAULTS = FitConfig(Path(), epochs=3.0, learning_rate=2e-3, optimizer="adamw", weight_decay=0.0, decay_share=0.7)


@dataclass(frozen=True)
class FinetuneConfig:
    """What `easel finetune` is asked for."""

    data: Path | Sequence[Path]  # data sets' folders, or JSONL files to train on
    fit: FitConfig
    validation: Path | None = None  # the data set to choose the best adapter by; None: the first of `data`
    base: Path = WEIGHTS / "base"
    adapter: Path | None = None  # start from this adapter instead of a fresh one
    rank: int = 64
    alpha: float = 64.0
    rslora: bool = False
    dropout: float = 0.0
    refusals: int = 1  # how often a record in which something is declined is seen, beside the others
    validation_records: int = 400

    def __post_init__(self) -> None:
        if self.refusals < 1:
            raise TrainingError("refusals must be at least 1")
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise TrainingError("rank and alpha must be positive, dropout from 0 to below 1")


def finetune(config: FinetuneConfig) -> dict[str, float]:
    """Train, keep the best adapter in `run/adapter`, return the last scores."""
    from peft import LoraConfig, PeftModel, get_peft_model

    run = config.fit.run
    sources = [config.data] if isinstance(config.data, Path) else list(config.data)
    train_files = data_files(sources, "train")
    if config.validation is None and not sources[0].is_dir():
        raise DataError(f"{sources[0]} is a file: name the one to measure on with --validation.")
    validation_files = data_files([config.validation or sources[0]], "validation")
    core, processor = load_base(config.base)
    train, pictures = load_samples(train_files, processor, run / "pictures", refusals=config.refusals)
    held_out, held_out_pictures = load_samples(
        validation_files, processor, run / "pictures", limit=config.validation_records
    )
    write_settings(run, config)
    torch.manual_seed(config.fit.seed)
    if config.adapter is not None:
        model = PeftModel.from_pretrained(core, _adapter_folder(config.adapter), is_trainable=True)
    else:
        lora = LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,  # type: ignore[arg-type]
            use_rslora=config.rslora,
            lora_dropout=config.dropout,
            target_modules=TARGETS,
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(core, lora)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    print(f"{trained / 1e6:.2f} M parameters to train, {len(train)} conversations")
    return fit(
        config.fit,
        model,
        core,  # get_peft_model put its layers into it
        Batches(train, pictures, config.fit.batch_tokens, config.fit.seed),
        Batches(held_out, held_out_pictures, config.fit.batch_tokens),
        token_id(processor.tokenizer, DRAW),
        save=lambda scores: save_adapter(model, run / "adapter", config.base.name),
        better=lambda scores: (round(scores["switch_accuracy"], 2), -scores["loss"]),
    )


def save_adapter(model: Any, folder: Path, base_name: str) -> None:
    """A PEFT folder, complete when it has its name. It names its base, not where that lay on this machine."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial, save_embedding_layers=False)  # the vocabulary is never adapted
    (partial / "README.md").unlink(missing_ok=True)
    file = partial / "adapter_config.json"
    settings = json.loads(file.read_text()) | {"base_model_name_or_path": base_name}
    file.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)


def load_adapted(base: Path, adapter: Path | None) -> tuple[Idefics3ForConditionalGeneration, Idefics3Processor]:
    """Base and adapter merged into one model, with the processor: for offline evaluation and for merged releases."""
    from peft import PeftModel

    model, processor = load_base(base)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, _adapter_folder(adapter)).merge_and_unload()
    return model.eval(), processor


def _adapter_folder(folder: Path) -> str:
    if not (folder / "adapter_config.json").is_file():
        raise TrainingError(f"{folder} is no LoRA adapter: adapter_config.json is missing.")
    return str(folder)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="data sets' folders, or JSONL files")
    parser.add_argument(
        "--validation", type=Path, help="another to measure on (default: the first DATA's validation split)"
    )
    parser.add_argument("--base", type=Path, default=WEIGHTS / "base", help="the model to adapt")
    parser.add_argument("--adapter", type=Path, help="an adapter to start from")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--alpha", type=float, default=64.0)
    parser.add_argument("--rslora", action="store_true", help="scale by the square root of the rank")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--refusals", type=int, default=1, help="times that a record which declines something is seen")
    add_fit_arguments(parser, DEFAULTS)


def run(args: argparse.Namespace) -> dict[str, float]:
    return finetune(
        FinetuneConfig(
            data=args.data,
            validation=args.validation,
            fit=fit_config(args, DEFAULTS),
            base=args.base,
            adapter=args.adapter,
            rank=args.rank,
            alpha=args.alpha,
            rslora=args.rslora,
            dropout=args.dropout,
            refusals=args.refusals,
        )
    )
