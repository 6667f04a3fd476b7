"""`easel data …`: builds, imports, checks, shows and exports data sets. What is in them is `datasets_build`'s business.

easel data mix --out data --n 20000 --split train && easel data check data
easel data tt --out data_tt --n 2000 --teacher http://127.0.0.1:8000/v1 --teacher-model my-model --licence Apache-2.0
"""

from __future__ import annotations

import argparse

from datasets_build import check, export, filter, importing, mix, pictures, recaption, records, report, teacher, written

OTHERS = {
    "pictures": pictures, "import": importing, "check": check, "export": export, "report": report, "filter": filter,
    "recaption": recaption, "written": written,
}  # fmt: skip
TASKS = {"o": "D_o", "p": "D_p", "pm": "D_pm", "tt": "D_tt", "n": "D_n", "c": "D_c"}


def add_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    if what == "mix":
        mix.add_mix_arguments(parser)
    else:
        OTHERS.get(what, records).add_arguments(parser)
    if what in ("tt", "mix"):
        records.add_turns(parser)
    if TASKS.get(what) in teacher.TASKS:
        teacher.add_arguments(parser)


def run(args: argparse.Namespace, what: str) -> int:
    if what in OTHERS:
        return OTHERS[what].run_arguments(args)
    if getattr(args, "teacher", teacher.OFFLINE) != teacher.OFFLINE:
        return teacher.run_arguments(args, TASKS[what])
    return records.run_arguments(args, args.shares if what == "mix" else {TASKS[what]: 1.0})
