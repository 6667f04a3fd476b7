"""Base and adapter as one model folder.

easel merge --base runs/base/base --adapter runs/lora/adapter --out runs/merged

For servers that take no adapters, for DoRA (which vLLM does not serve apart), and to train another adapter on top.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dialog_mllm.lora import WEIGHTS, merge


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", type=Path, default=WEIGHTS / "base", help="a folder, or a name on the hub")
    parser.add_argument("--adapter", type=Path, required=True, help="a PEFT folder, such as `easel finetune` writes")
    parser.add_argument("--out", type=Path, required=True, help="the merged model's folder")


def run(args: argparse.Namespace) -> dict[str, Any]:
    merge(args.base, args.adapter, args.out)
    return {"model": str(args.out)}
