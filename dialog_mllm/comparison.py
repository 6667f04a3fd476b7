"""`easel data compare`: is model B better than model A, and at what? Two evaluations of the same turns, in pairs.

    easel eval dialog --data d --turns a.jsonl                  # and b.jsonl, with --adapter
    easel data compare a.jsonl b.jsonl --by type language edit language,edit

So a part of the training data is judged by what it did: A was trained without it, B with it. For each category of turns
the line says what share of them each model got right (with Wilson's 95 % interval), how many only one of them did, and
the p value of McNemar's exact test on those. Over all categories of a run, the share of false findings is held below
5 % (Benjamini and Hochberg, 1995): "keep" where B is better, "throw out" where it is worse, else "no evidence".
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

from dialog_mllm.records import DataError

CATEGORIES = ("type", "language", "edit", "topic", "request")
FALSE_FINDINGS = 0.05
MEASURES = {"topic_accuracy", "question_accuracy", "refusal_accuracy", "prompt_correct", "prompt_exact",
            "minimal_change", "switch_accuracy"}  # fmt: skip
Verdict = dict[str, Any]


def wilson(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (1927) for the share of which `right` of `n` were seen."""
    if not 0 <= right <= n or n < 1:
        raise ValueError(f"{right} of {n} is no share")
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (right + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(right * (n - right) / n + z * z / 4)
    return round(max(0.0, centre - half), 4), round(min(1.0, centre + half), 4)


def mcnemar(only_a: int, only_b: int) -> float:
    """The two-sided p value of McNemar's exact test: were these turns, right in one model alone, a fair coin's?"""
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1))
    return min(1.0, 2 * tail / 2**n)


def found(ps: Sequence[float], share: float = FALSE_FINDINGS) -> list[bool]:
    """Which p values count when the false share of those that count is held below `share` (Benjamini, Hochberg)."""
    order = sorted(ps)
    limit = max((p for rank, p in enumerate(order, 1) if p <= share * rank / len(order)), default=-1.0)
    return [p <= limit for p in ps]


def read_verdicts(file: Path) -> dict[tuple[str, int, str], Verdict]:
    """The lines of `easel eval dialog --turns`, by what was asked."""
    verdicts: dict[tuple[str, int, str], Verdict] = {}
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read ({error}): write it with `easel eval dialog --turns`.") from error
    if not text.strip():
        raise DataError(f"{file} holds no verdict: write it with `easel eval dialog --turns`.")
    for number, line in enumerate(text.rstrip("\n").split("\n"), 1):  # a reply may hold what splitlines splits at
        try:
            verdict = json.loads(line)
            verdicts[verdict["record"], verdict["turn"], verdict["asked"]] = verdict
            if not isinstance(verdict["right"], dict) or not {"error", *CATEGORIES} <= set(verdict):
                raise ValueError("a part is missing")
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{file}, line {number}: this is no turn's verdict ({error!r}); "
                "write the file with `easel eval dialog --turns`."
            ) from error
    return verdicts


def compare(
    a: dict[tuple[str, int, str], Verdict],
    b: dict[tuple[str, int, str], Verdict],
    by: Iterable[Sequence[str]],
    measure: str | None = None,
) -> dict[str, Any]:
    """Every category of each of `by` (several names: every combination of them), and "all", on the turns that both
    hold. `measure` None: nothing is wrong in the reply; else one of MEASURES, on the turns that bear on it."""
    shared = [key for key in a if key in b]
    if not shared:
        raise DataError("the two files share no turn: evaluate both models on the same --data (or --n and --seed).")
    groups: dict[str, list[tuple[bool, bool]]] = {"all": []}
    for key in shared:
        pair = (_right(a[key], measure), _right(b[key], measure))
        if None in pair:
            continue
        groups["all"].append(pair)  # type: ignore[arg-type]
        for names in by:
            values = [a[key][name] for name in names]
            if None not in values:
                name = " × ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
                groups.setdefault(name, []).append(pair)  # type: ignore[arg-type]
    if not groups["all"]:
        raise DataError(f"no turn that both files hold bears on {measure}.")
    names = sorted(groups, key=lambda name: (name != "all", name))
    rows = {name: _row(groups[name]) for name in names}
    for row, counts in zip(rows.values(), found([row["p"] for row in rows.values()]), strict=True):
        better = row["only_b"] > row["only_a"]
        row["says"] = ("keep" if better else "throw out") if counts else "no evidence"
    return {
        "measure": measure or "nothing wrong",
        "turns": len(groups["all"]),
        "unpaired": len(a) + len(b) - 2 * len(shared),
        "categories": rows,
    }


def _right(verdict: Verdict, measure: str | None) -> bool | None:
    return verdict["error"] is None if measure is None else verdict["right"].get(measure)


def _row(pairs: Sequence[tuple[bool, bool]]) -> dict[str, Any]:
    n = len(pairs)
    only_a, only_b = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    row: dict[str, Any] = {"n": n}
    for name, right in (("a", sum(a for a, _ in pairs)), ("b", sum(b for _, b in pairs))):
        row |= {name: round(right / n, 4), f"{name}_interval": wilson(right, n)}
    return row | {"only_a": only_a, "only_b": only_b, "p": round(mcnemar(only_a, only_b), 6)}


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - set(CATEGORIES):
        raise argparse.ArgumentTypeError(f"there is no category {sorted(unknown)[0]!r}: {', '.join(CATEGORIES)}")
    return names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, help="of the model without, as `easel eval dialog --turns` wrote it")
    parser.add_argument("b", type=Path, help="of the model with what is in question")
    parser.add_argument(
        "--by", type=_names, nargs="+", default=[(name,) for name in CATEGORIES],
        help=f"of {', '.join(CATEGORIES)}; with commas between them, their combinations (default: each one)",
    )  # fmt: skip
    parser.add_argument("--measure", choices=sorted(MEASURES), help="default: nothing is wrong in the reply")


def run(args: argparse.Namespace) -> dict[str, Any]:
    result = compare(read_verdicts(args.a), read_verdicts(args.b), args.by, args.measure)
    if not args.json:
        _print(result["categories"])
        del result["categories"]
    return result


def _print(rows: dict[str, dict[str, Any]]) -> None:
    width = max(len(name) for name in rows)
    print(
        f"{'':{width}} {'turns':>7}  {'A':>6} {'95 %':>13}  {'B':>6} {'95 %':>13}  {'only A':>6} {'only B':>6} {'p':>8}"
    )
    for name, row in rows.items():
        shares = (
            f"{row[key]:6.1%} {row[f'{key}_interval'][0]:6.1%}–{row[f'{key}_interval'][1]:6.1%}" for key in ("a", "b")
        )
        counts = f"{row['only_a']:6} {row['only_b']:6} {row['p']:8.4f}"
        print(f"{name:{width}} {row['n']:7,}  {'  '.join(shares)}  {counts}  {row['says']}")
