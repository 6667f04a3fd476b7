"""Two models in one folder: base and adapter, or the weights between a base and what was trained from it.

easel merge --base runs/base/base --adapter runs/lora/adapter --out runs/merged
easel merge --base runs/base/base --trained runs/base2/base --share 0.6 --out runs/between

The first is for servers that take no adapters, for DoRA (which vLLM does not serve apart), and to train another adapter
on top.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dialog_mllm.errors import TrainingError
from dialog_mllm.lora import WEIGHTS, merge, require_free
from dialog_mllm.model import EYES, grow, load_base, save_base


def between(base: Path, trained: Path, share: float, out: Path) -> None:
    """Writes the weights that lie `share` of the way from a bundled kind of base to a model that was trained from it:
    often better than both on what the training did not show (WiSE-FT, arXiv 2109.01903, section 3). Layers may have
    been added on the way; eyes that were made wider are taken as they are."""
    require_free(out)
    if not 0 <= share <= 1:
        raise TrainingError(f"--share must be from 0 (the base) to 1 (the trained model); got {share}")
    (start, _), (end, processor) = load_base(base), load_base(trained)
    unlike = TrainingError(f"{trained} was not trained from {base}: their sizes differ.")
    try:
        grow(start, end.config.text_config.num_hidden_layers - start.config.text_config.num_hidden_layers)
    except ValueError:
        raise unlike from None
    ours, theirs = start.state_dict(), end.state_dict()
    if start.config.vision_config.to_dict() != end.config.vision_config.to_dict():  # wider: nothing lies between
        ours |= {name: theirs[name] for name in theirs if name.startswith(EYES)}
    if {name: value.shape for name, value in ours.items()} != {name: value.shape for name, value in theirs.items()}:
        raise unlike
    end.load_state_dict({name: (1 - share) * ours[name] + share * theirs[name] for name in theirs})
    save_base(end, processor, out)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", type=Path, default=WEIGHTS / "base", help="a folder, or a name on the hub")
    other = parser.add_mutually_exclusive_group(required=True)
    other.add_argument("--adapter", type=Path, help="a PEFT folder, such as `easel finetune` writes")
    other.add_argument("--trained", type=Path, help="a model that `easel train mllm --base` made of the base")
    parser.add_argument("--share", type=float, default=0.5, help="of the way to --trained (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the merged model's folder")


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.adapter:
        merge(args.base, args.adapter, args.out)
    else:
        between(args.base, args.trained, args.share, args.out)
    return {"model": str(args.out)}
