"""Training the bundled base: its eyes on renders, then the whole of it on dialogues.

    easel train mllm --data D --validation D --pictures PICTURES --out RUN --minutes 60
    easel train mllm --eyes-only --base RUN/base --pictures PICTURES --out RUN2 --minutes 30

From nothing, or from an earlier base. `finetune.py` then puts a LoRA adapter on it; both use the loop in `fit.py`.
"""

from __future__ import annotations

import argparse
import copy
import os
import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from dialog_mllm.data import Batches, Encoder, PictureCache, Sample, load_samples
from dialog_mllm.errors import TrainingError
from dialog_mllm.fit import (
    FitConfig,
    add_fit_arguments,
    fit,
    fit_config,
    threads,
    write_settings,
)
from dialog_mllm.model import (
    BaseConfig,
    Eyes,
    Kernels,
    build_base,
    finer_eyes,
    grow,
    load_base,
    parameter_count,
    save_base,
    widen_eyes,
)
from dialog_mllm.objective import Dialogues, Dropout
from dialog_mllm.protocol import DRAW
from dialog_mllm.records import DataError, data_files
from dialog_mllm.tokenizer import VOCAB_SIZE, texts_of, token_id, train_tokenizer
from dialog_mllm.vision import HELD_OUT, Pictures, caption_samples, train_vision


@dataclass(frozen=True)
class MllmConfig:
    """What `easel train mllm` is asked for."""

    data: tuple[Path, ...]
    validation: tuple[Path, ...]
    fit: FitConfig
    model: BaseConfig
    # Go on from this model and its tokenizer; its eyes learn from `pictures` alone. `model`, `vocab_size` do not count.
    base: Path | None = None
    widen_eyes: int = 1  # so many times that model's
    finer_eyes: int = 1  # with patches so many times smaller
    add_layers: int = 0  # to that model's language model
    vocab_size: int = VOCAB_SIZE
    text_weight: float = 0.3  # what predicting users' words counts: a base from nothing learns language from them too
    validation_records: int = 200
    pictures: tuple[Path, ...] = ()  # of `easel data pictures`: the vision tower learns to read them first
    vision_minutes: float = 8.0
    caption_minutes: float = 8.0  # then the whole model puts them into words
    captions: int = 3000  # of those, how many stay among the dialogues
    dropout: Dropout | None = None  # among the dialogues
    compile: bool = False  # what lies between the matrix products, by torch.compile
    eyes_only: bool = False  # `base`'s language model stays as it is, and its eyes learn from `pictures` alone


def train_mllm(config: MllmConfig) -> dict[str, float]:
    """Tokenizer and model, from nothing or from an earlier base; the best by validation loss is in `run/base`."""
    if config.eyes_only:
        return _train_eyes(config)
    run = config.fit.run
    train_files, validation_files = data_files(config.data, "train"), data_files(config.validation, "validation")
    write_settings(run, config)
    if config.base is not None:
        model, processor = load_base(config.base)
        earlier = _grow(model, config)
    else:
        tokenizer = train_tokenizer(texts_of(train_files), config.vocab_size)
        model, processor = build_base(tokenizer, config.model, config.fit.seed)
        earlier = None
    train, pictures = load_samples(train_files, processor, run / "pictures", config.text_weight)
    held_out, held_out_pictures = load_samples(
        validation_files, processor, run / "pictures", limit=config.validation_records
    )
    if config.pictures:
        with threads(config.fit.threads):
            shards = _shards(config, pictures.size)
            _teach_eyes(config, model, pictures, shards, earlier)
        pictures.more = shards
        captions = caption_samples(shards, Encoder(processor), len(pictures.pixels))
        _train_captions(config, model, captions, pictures, _objective(config, model, processor))
        train += captions[: config.captions]
    if config.pictures or config.base is not None:
        # Once taught they see better than dialogues teach, which spoil them; and steps are a fifth faster.
        Eyes.of(model).modules.requires_grad_(False)
    size = parameter_count(model) / 1e6
    print(f"{size:.1f} M parameters, {len(processor.tokenizer)} tokens, {len(train)} conversations")
    return fit(
        config.fit,
        model,
        _objective(config, model, processor, config.dropout),
        Batches(train, pictures, config.fit.batch_tokens, config.fit.seed),
        Batches(held_out, held_out_pictures, config.fit.batch_tokens),
        save=lambda scores: save_base(model, processor, run / "base"),
        better=lambda scores: -scores["loss"],
    )


def _grow(model: Any, config: MllmConfig) -> Eyes | None:
    """Makes of an earlier base what is asked for; returns its eyes where new ones are to see what they saw."""
    if config.finer_eyes != 1 and not (config.pictures and config.vision_minutes):
        raise TrainingError(
            "--finer-eyes must learn to see again: give them --pictures, and minutes with --vision-minutes."
        )
    earlier = copy.deepcopy(Eyes.of(model)) if config.finer_eyes != 1 else None
    for option, change in (
        ("--add-layers", lambda: grow(model, config.add_layers)),
        ("--widen-eyes", lambda: widen_eyes(model, config.widen_eyes, config.fit.seed)),
        ("--finer-eyes", lambda: finer_eyes(model, config.finer_eyes)),
    ):
        try:
            change()
        except ValueError as error:
            raise TrainingError(f"{option}: {error}.") from None
    return earlier


def _teach_eyes(config: MllmConfig, model: Any, pictures: PictureCache, shards: Pictures, earlier: Eyes | None) -> None:
    train_vision(
        Eyes.of(model), pictures.normalised, shards, config.fit.run, config.vision_minutes, config.fit.seed,
        taught=config.base is not None, earlier=earlier,
    )  # fmt: skip


def _train_eyes(config: MllmConfig) -> dict[str, float]:
    """The eyes learn to show the language model what it puts into words wrongly. It is locked, so that whatever it does
    without pictures stays as it was, and what reads the eyes needs not be taught anew."""
    if config.base is None or not config.pictures:
        raise TrainingError("--eyes-only teaches an earlier base's eyes from pictures: name it with --base, and them.")
    if config.add_layers:
        raise TrainingError("--eyes-only leaves the language model as it is: no --add-layers.")
    write_settings(config.fit.run, config)
    model, processor = load_base(config.base)
    earlier = _grow(model, config)
    pictures = PictureCache(processor)
    pictures.more = shards = _shards(config, pictures.size)
    with threads(config.fit.threads):
        _teach_eyes(config, model, pictures, shards, earlier)
    captions = caption_samples(shards, Encoder(processor), len(pictures.pixels))
    learnt = len(captions) - min(HELD_OUT, len(captions) // 4)
    model.requires_grad_(False)
    Eyes.of(model).modules.requires_grad_(True)
    return fit(
        config.fit,
        model,
        _objective(config, model, processor),
        Batches(captions[:learnt], pictures, config.fit.batch_tokens, config.fit.seed),
        Batches(captions[learnt:], pictures, config.fit.batch_tokens),
        save=lambda scores: save_base(model, processor, config.fit.run / "base"),
        better=lambda scores: -scores["loss"],
    )


def _shards(config: MllmConfig, size: int) -> Pictures:
    shards = Pictures.open(*config.pictures)
    if shards.size != size:
        raise DataError(
            f"{config.pictures[0]} holds pictures of {shards.size} pixels, and the model sees {size}. "
            f"Make others with `easel data pictures --size {size}`."
        )
    return shards


def _objective(config: MllmConfig, model: Any, processor: Any, dropout: Dropout | None = None) -> Dialogues:
    kernels = Kernels.fused() if config.compile else None
    return Dialogues(model, token_id(processor.tokenizer, DRAW), config.fit.precision, dropout, kernels)


def _train_captions(
    config: MllmConfig, model: Any, captions: list[Sample], pictures: PictureCache, objective: Dialogues
) -> None:
    """The phase of captions alone. Its run lies in `run/captions`; a finished one only gives its weights."""
    if config.caption_minutes <= 0:
        return
    settings = replace(
        config.fit, run=config.fit.run / "captions", minutes=config.caption_minutes, epochs=1000.0, decay_share=0.3,
        patience=None,  # nothing there is better or worse
    )  # fmt: skip
    held_out = max(1, min(256, len(captions) // 10))
    train, validation = (
        Batches(part, pictures, settings.batch_tokens, settings.seed)
        for part in (captions[:-held_out], captions[-held_out:])
    )
    fit(settings, model, objective, train, validation, save=lambda scores: None, better=lambda scores: 0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, nargs="+", default=[], help="data sets to train on: folders or JSONL files"
    )
    parser.add_argument("--validation", type=Path, nargs="+", default=[], help="to measure on, alike")
    parser.add_argument(
        "--base", type=Path, help="go on from this model, its tokenizer and its eyes (which only --pictures teach more)"
    )
    parser.add_argument("--widen-eyes", type=int, default=1, help="so many times; they see the same until trained")
    parser.add_argument(
        "--finer-eyes",
        type=int,
        default=1,
        help="patches so many times smaller: they learn to see again, with --pictures",
    )
    parser.add_argument("--add-layers", type=int, default=0, help="to that model, of whose layers some become two")
    parser.add_argument("--text-weight", type=float, default=0.3, help="weight of the loss on users' words")
    parser.add_argument(
        "--pictures",
        type=Path,
        nargs="+",
        default=[],
        help="of `easel data pictures`: the eyes learn to read them first",
    )
    parser.add_argument(
        "--eyes-only", action="store_true", help="--base's words stay as they are: its eyes learn from --pictures alone"
    )
    parser.add_argument("--vision-minutes", type=float, help="for that (8; with --eyes-only 0)")
    parser.add_argument("--caption-minutes", type=float, default=8.0, help="then, to put them into words")
    parser.add_argument("--dropout", type=float, default=0.0, help="of what each layer adds")
    parser.add_argument("--word-dropout", type=float, default=0.0, help="of the tokens that are read, not said")
    parser.add_argument(
        "--compile", action="store_true", help="what lies between matrix products: a fifth faster; takes a C++ compiler"
    )
    parser.add_argument("--captions", type=int, default=3000, help="how many of those stay among the dialogues")
    for size in fields(BaseConfig):
        parser.add_argument(f"--{size.name.replace('_', '-')}", type=int, default=size.default, help="of a new model")
    parser.add_argument("--vocab-size", type=int, default=VOCAB_SIZE)
    add_fit_arguments(parser, FitConfig(Path()))


def run(args: argparse.Namespace) -> dict[str, float]:
    if args.word_dropout and args.text_weight:
        raise TrainingError("--word-dropout drops what is not learnt to be said: use it with --text-weight 0.")
    if args.compile and not shutil.which(os.environ.get("CXX", "g++")):
        raise TrainingError("--compile takes a C++ compiler, and there is none. Install g++, or leave it out.")
    if not args.eyes_only and not (args.data and args.validation):
        raise TrainingError("Name the dialogues with --data and --validation (or, with --base, teach --eyes-only).")
    vision_minutes = args.vision_minutes
    if vision_minutes is None:
        vision_minutes = 0.0 if args.eyes_only else MllmConfig.vision_minutes
    return train_mllm(
        MllmConfig(
            data=tuple(args.data),
            validation=tuple(args.validation),
            fit=fit_config(args, FitConfig(Path())),
            model=BaseConfig(**{size.name: getattr(args, size.name) for size in fields(BaseConfig)}),
            base=args.base,
            widen_eyes=args.widen_eyes,
            finer_eyes=args.finer_eyes,
            add_layers=args.add_layers,
            vocab_size=args.vocab_size,
            text_weight=args.text_weight,
            pictures=tuple(args.pictures),
            vision_minutes=vision_minutes,
            caption_minutes=args.caption_minutes,
            captions=args.captions,
            dropout=Dropout(args.dropout, args.word_dropout),
            compile=args.compile,
            eyes_only=args.eyes_only,
        )
    )
