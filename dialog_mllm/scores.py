"""Shares of what was right, with their intervals: of all turns, and of the groups that a report is read by.

    scores = breakdown([(turn, judge(turn, judge_prompt)) for turn in turns])
    scores["by_type"]["ti2i"]["prompt_correct"], scores["cells"]["ti2i"]["zh"]["3"]["switch_accuracy"]

A share of nothing is None, and has no interval. Depth is a turn's number in its dialogue, from 1: DialogBen reports the
choice of modality (draw or talk) for each type of turn at each depth, which are the cells here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dialog_mllm.comparison import wilson

if TYPE_CHECKING:
    from dialog_mllm.evaluation import Turn

# A turn, and what `evaluation.judge` says was right in it.
Judged = tuple["Turn", dict[str, bool]]

KEYS = ("switch_accuracy", "false_draw", "missed_draw", "prompt_correct", "prompt_exact", "minimal_change",
        "question_accuracy", "refusal_accuracy", "topic_accuracy", "no_reply")  # fmt: skip
CELL_KEYS = ("switch_accuracy", "prompt_correct")
BINS = 10  # of the draw probability


def breakdown(judged: Sequence[Judged]) -> dict[str, Any]:
    """{"turns", each of KEYS, "intervals", "by_type", "by_language", "by_depth", "by_request", "cells", "confusion",
    "calibration"}"""
    return {
        **shares(judged),
        "by_type": _by(judged, lambda turn: turn.turn["type"]),
        "by_language": _by(judged, lambda turn: turn.language),
        "by_depth": _by(judged, lambda turn: turn.index + 1),
        "by_request": _by(judged, lambda turn: turn.request_name),
        "cells": _cells(judged),
        "confusion": confusion(turn for turn, _ in judged),
        "calibration": calibration([turn for turn, _ in judged]),
    }


def shares(judged: Sequence[Judged], keys: Sequence[str] = KEYS) -> dict[str, Any]:
    """{"turns": how many, each of `keys`: a share, "intervals": {key: its 95 % interval}}"""
    values = {key: [right[key] for _, right in judged if key in right] for key in keys}
    return {
        "turns": len(judged),
        **{key: round(sum(of) / len(of), 4) if of else None for key, of in values.items()},
        "intervals": {key: wilson(sum(of), len(of)) for key, of in values.items() if of},
    }


def confusion(turns: Iterable[Turn]) -> dict[str, dict[str, int]]:
    """What was to be done -> what was done -> how many turns."""
    table = {wanted: dict.fromkeys(("draw", "talk", "no_reply"), 0) for wanted in ("draw", "talk")}
    for turn in turns:
        done = "no_reply" if turn.drew is None else "draw" if turn.drew else "talk"
        table["draw" if turn.draws else "talk"][done] += 1
    return table


def calibration(turns: Sequence[Turn]) -> dict[str, Any] | None:
    """Is the probability that the model gives to drawing the share of turns that were to be drawn? None where the
    server tells no probability.

    `brier`: the mean squared difference (Brier, 1950); `expected_error`: the mean distance of a bin's probability from
    its share (ECE; Guo et al., 2017); `bins`: from each tenth that holds turns, "p" their mean probability and "drawn"
    the share that was to be drawn."""
    pairs = [
        (turn.reply.draw_probability, turn.draws)
        for turn in turns
        if turn.reply is not None and turn.reply.draw_probability is not None
    ]
    if not pairs:
        return None
    binned: dict[int, list[tuple[float, bool]]] = {}
    for p, draws in pairs:
        binned.setdefault(min(BINS - 1, int(p * BINS)), []).append((p, draws))
    bins = []
    for number, inside in sorted(binned.items()):
        n = len(inside)
        p, drawn = sum(p for p, _ in inside) / n, sum(draws for _, draws in inside) / n
        bins.append({"from": number / BINS, "turns": n, "p": round(p, 4), "drawn": round(drawn, 4)})
    return {
        "turns": len(pairs),
        "brier": round(sum((p - draws) ** 2 for p, draws in pairs) / len(pairs), 4),
        "expected_error": round(sum(b["turns"] * abs(b["p"] - b["drawn"]) for b in bins) / len(pairs), 4),
        "bins": bins,
    }


def _cells(judged: Sequence[Judged]) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Type of turn -> language -> depth -> shares."""
    return {
        kind: {
            language: {
                str(depth): shares(cell, CELL_KEYS) for depth, cell in _grouped(some, lambda turn: turn.index + 1)
            }
            for language, some in _grouped(of, lambda turn: turn.language)
        }
        for kind, of in _grouped(judged, lambda turn: turn.turn["type"])
    }


def _by(judged: Sequence[Judged], key: Callable[[Turn], Any]) -> dict[str, dict[str, Any]]:
    return {str(value): shares(of) for value, of in _grouped(judged, key)}


def _grouped(judged: Sequence[Judged], key: Callable[[Turn], Any]) -> list[tuple[Any, list[Judged]]]:
    groups: dict[Any, list[Judged]] = {}
    for turn, right in judged:
        groups.setdefault(key(turn), []).append((turn, right))
    return sorted(groups.items())
