"""`easel data …`: builds, checks, shows and exports data sets. What they hold, and how, is `datasets_build`'s business.

easel data mix --out data --n 20000 --split train && easel data check data
"""

from __future__ import annotations

import argparse

from datasets_build import check, export, mix, pictures, records, report

OTHERS = {"pictures": pictures, "check": check, "export": export, "report": report}
TASKS = {"o": "D_o", "p": "D_p", "pm": "D_pm", "tt": "D_tt", "n": "D_n", "c": "D_c"}


def add_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    if what == "mix":
        mix.add_mix_arguments(parser)
    else:
        OTHERS.get(what, records).add_arguments(parser)


def run(args: argparse.Namespace, what: str) -> int:
    if what in OTHERS:
        return OTHERS[what].run_arguments(args)
    return records.run_arguments(args, args.shares if what == "mix" else {TASKS[what]: 1.0})
