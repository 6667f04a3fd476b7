"""LoRA adapters of the dialog model: put on, saved as PEFT's plain folders, merged.

    trainee = attach(AdapterSettings(base=Path("weights/base"), rank=32, alpha=32))
    save_adapter(trainee.model, Path("run/adapter"), Base.of(base)); model, processor = load_adapted(base, adapter)

Only the language model's linear layers are adapted: vLLM ignores the rest and takes no new vocabulary from an adapter.
The bundled base, and others that `easel train mllm` made, are trained by the faster path of data.py and model.py; every
other model, and what that path cannot do (DoRA, 4 bits, gradient checkpointing), by its own forward pass, vlm.py.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Idefics3ForConditionalGeneration, Idefics3Processor

from dialog_mllm.bases import Base, is_bundled_kind, require_base
from dialog_mllm.data import Batches, Encoder, collate, load_samples, read_samples
from dialog_mllm.errors import TrainingError
from dialog_mllm.model import ModelFolderError, load_base, save_base
from dialog_mllm.parallel import device, processes
from dialog_mllm.protocol import DRAW
from dialog_mllm.tokenizer import token_id
from dialog_mllm.vlm import VlmEncoder, collate_vlm, load_vlm

WEIGHTS = Path(__file__).parent / "weights"


# What an adapter is made with, and what PEFT calls it.
SHAPE = {"rank": "r", "alpha": "lora_alpha", "rslora": "use_rslora", "dora": "use_dora", "dropout": "lora_dropout"}


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """Which model learns, and what is put on it."""

    base: Path = WEIGHTS / "base"  # a folder, or a name on the hub
    adapter: Path | None = None  # start from this adapter instead of a fresh one
    rank: int = 64
    alpha: float = 64.0
    rslora: bool = False  # scale by alpha / sqrt(rank), arXiv 2312.03732
    dora: bool = False  # direction and size apart, arXiv 2402.09353; vLLM serves it merged only
    qlora: bool = False  # the base in 4 bits, arXiv 2305.14314
    dropout: float = 0.0
    gradient_checkpointing: bool = False  # compute activations twice instead of keeping them

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise TrainingError("rank and alpha must be positive, dropout from 0 to below 1")


@dataclass(frozen=True)
class Trainee:
    """A model with a LoRA on it, and how it reads records."""

    model: Any  # PEFT's, whose trained parameters are the adapter's
    core: Any  # what computes; `model` put its layers into it
    processor: Any
    encoder: Encoder | VlmEncoder
    draw: int  # the (first) token of <draw>

    @property
    def collate(self) -> Callable[[Sequence[Any], Any], Any]:
        return collate_vlm if isinstance(self.encoder, VlmEncoder) else collate

    def dialogues(
        self,
        files: Sequence[Path],
        cache: Path,
        budget: int,
        seed: int = 0,
        refusals: int = 1,
        limit: int | None = None,
    ) -> Batches:
        """The records' batches of at most `budget` tokens; pictures are kept resized in `cache` where that helps."""
        if isinstance(self.encoder, VlmEncoder):
            encoder = self.encoder
            samples: Sequence[Any] = read_samples(files, encoder.samples, limit, refusals)
            return Batches(samples, encoder, budget, seed, collate=collate_vlm)
        with processes().main_first():
            samples, pictures = load_samples(files, self.processor, cache, limit=limit, refusals=refusals)
        return Batches(samples, pictures, budget, seed)


def attach(settings: AdapterSettings, seed: int = 0, precision: str = "auto") -> Trainee:
    """Load the base and put a fresh adapter on it, or `settings.adapter`."""
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    dora = settings.dora or (settings.adapter is not None and _is_dora(settings.adapter))
    general = dora or settings.qlora or settings.gradient_checkpointing
    empty = settings.base.is_dir() and not (settings.base / "config.json").is_file()
    encoder: Encoder | VlmEncoder
    if empty or (is_bundled_kind(settings.base) and not general):
        core, processor = load_base(settings.base)
        encoder = Encoder(processor)
    else:
        # Frozen weights are read, not changed: half their size loses nothing that bf16 products would have kept.
        half = device().type == "cuda" and precision != "float32"
        core, processor = load_vlm(settings.base, torch.bfloat16 if half else torch.float32, settings.qlora, device())
        encoder = VlmEncoder.of(processor, core)
    if settings.qlora:
        core = prepare_model_for_kbit_training(core, use_gradient_checkpointing=False)
    if settings.gradient_checkpointing:
        core.config.use_cache = False
        core.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    torch.manual_seed(seed)
    if settings.adapter is not None:
        model = _with_adapter(core, settings.base, settings.adapter, trainable=True)
    else:
        lora = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,  # type: ignore[arg-type]
            use_rslora=settings.rslora,
            use_dora=settings.dora,
            lora_dropout=settings.dropout,
            target_modules=targets(core),
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(core, lora)
    draw = encoder.draw if isinstance(encoder, VlmEncoder) else token_id(processor.tokenizer, DRAW)
    return Trainee(model, core, processor, encoder, draw)


def targets(core: Any) -> str:
    """A pattern of the language model's linear layers, by which PEFT and vLLM find them again."""
    decoder = core.get_decoder()
    name = next((name for name, module in core.named_modules() if module is decoder), "")
    inside = {path.rsplit(".", 1)[-1] for path, module in decoder.named_modules() if isinstance(module, nn.Linear)}
    inside = {part for part in inside if part.endswith("_proj")} or inside  # no router of experts: vLLM adapts none
    if not name or not inside:
        raise ModelFolderError("the language model's linear layers cannot be told from the rest of this model")
    return rf".*{re.escape(name.rsplit('.', 1)[-1])}.*\.({'|'.join(sorted(inside))})"


def save_adapter(model: Any, folder: Path, base: Base, card: str = "") -> None:
    """A PEFT folder, complete when it has its name. It names its base, not where that lay on this machine."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial, save_embedding_layers=False)  # the vocabulary is never adapted
    (partial / "README.md").unlink(missing_ok=True)  # PEFT's own form, unfilled
    if card:
        (partial / "README.md").write_text(card, encoding="utf-8")
    file = partial / "adapter_config.json"
    settings = json.loads(file.read_text()) | {"base_model_name_or_path": base.name}
    file.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
    base.write(partial)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)


def load_adapted(base: Path, adapter: Path | None) -> tuple[Idefics3ForConditionalGeneration, Idefics3Processor]:
    """Base and adapter merged into one model, with the processor: for offline evaluation and for merged releases."""
    model, processor = load_base(base)
    if adapter is not None:
        model = _with_adapter(model, base, adapter).merge_and_unload()
    return model.eval(), processor


def merge(base: Path, adapter: Path, out: Path) -> None:
    """Writes base and adapter as one model, which vLLM and transformers load."""
    require_free(out)
    _adapter_folder(adapter)
    if is_bundled_kind(base):
        save_base(*load_adapted(base, adapter), out)
        return
    model, processor = load_vlm(base)
    merged = _with_adapter(model, base, adapter).merge_and_unload(safe_merge=True)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    merged.save_pretrained(partial)
    processor.save_pretrained(partial)
    if out.exists():
        out.rmdir()
    os.replace(partial, out)


def require_free(out: Path) -> None:
    """TrainingError where a merged model would overwrite something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TrainingError(f"{out} is there already: name another folder for the merged model.")


def _with_adapter(model: Any, base: Path, adapter: Path, trainable: bool = False) -> Any:
    """`model`, which was loaded from `base`, with the adapter."""
    from peft import PeftModel

    require_base(adapter, base)
    try:
        return PeftModel.from_pretrained(model, _adapter_folder(adapter), is_trainable=trainable)
    except (RuntimeError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise TrainingError(f"{adapter} is no adapter of this base: {first}") from error


def _adapter_folder(folder: Path) -> str:
    if not (folder / "adapter_config.json").is_file():
        raise TrainingError(f"{folder} is no LoRA adapter: adapter_config.json is missing.")
    return str(folder)


def _adapter_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((Path(_adapter_folder(folder)) / "adapter_config.json").read_text())
    return config


def _is_dora(folder: Path) -> bool:
    return bool(_adapter_config(folder).get("use_dora"))


def add_adapter_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `AdapterSettings` holds, spelled the same for dialogues and for preferences."""
    parser.add_argument(
        "--base", type=Path, default=WEIGHTS / "base", help="the model to adapt: a folder, or a name on the hub"
    )
    parser.add_argument("--adapter", type=Path, help="an adapter to start from")
    parser.add_argument("--rank", type=int, help=f"of a fresh adapter ({AdapterSettings.rank})")
    parser.add_argument("--alpha", type=float, help=f"of a fresh adapter ({AdapterSettings.alpha:g})")
    parser.add_argument("--rslora", action="store_true", default=None, help="scale by the square root of the rank")
    parser.add_argument("--dora", action="store_true", default=None, help="DoRA; vLLM serves it merged only (--merge)")
    parser.add_argument("--qlora", action="store_true", help="the base in 4 bits (bitsandbytes, on a GPU)")
    parser.add_argument("--dropout", type=float, help=f"of a fresh adapter ({AdapterSettings.dropout:g})")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory, a third slower")
    parser.add_argument(
        "--merge", type=Path, metavar="OUT", help="at the end, write base and best adapter as one model"
    )
    parser.add_argument("--dry-run", action="store_true", help="measure a few steps: memory and time; write nothing")


def adapter_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Raises TrainingError where an adapter is named, and shaped anew: it keeps its shape."""
    named = {field.name: getattr(args, field.name) for field in fields(AdapterSettings)}
    if args.adapter is not None:
        if given := [name for name in SHAPE if named[name] is not None]:
            raise TrainingError(f"--{given[0]} is for a fresh adapter, and {args.adapter} has its own: leave one out.")
        config = _adapter_config(args.adapter)
        named |= {name: config[key] for name, key in SHAPE.items() if key in config}
    return {name: value for name, value in named.items() if value is not None}
