"""The mix D = D_o + D_p + D_pm + D_tt, in both languages.

easel data mix --out data --n 1000 --seed 1 --split train --shares o=2,p=2,pm=2,tt=4
"""

from __future__ import annotations

import argparse

from datasets_build.records import add_arguments, builders

# Copying attributes through edits is what takes the training's tokens, so D_tt has the largest share.
SHARES = {"D_o": 0.20, "D_p": 0.18, "D_pm": 0.12, "D_tt": 0.50}


def parse_shares(text: str) -> dict[str, float]:
    """ "o=1,tt=3" as shares of tasks; tasks that are not named have none."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        task, _, number = part.partition("=")
        task = f"D_{task.strip().removeprefix('D_')}"
        try:
            share = float(number)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part!r} is no share: write o=1,p=1,pm=1,tt=2") from None
        if task not in builders():
            raise argparse.ArgumentTypeError(f"{part!r} names no task: there are o, p, pm, tt, n and c")
        shares[task] = share
    return shares


def add_mix_arguments(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser)
    parser.add_argument("--shares", type=parse_shares, default=SHARES, help="for example o=1,p=1,pm=1,tt=2")
