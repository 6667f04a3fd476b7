"""Shares in groups, the confusion table and the calibration: against figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dialog_mllm.comparison import wilson
from dialog_mllm.evaluation import Turn, score
from dialog_mllm.messages import Message
from dialog_mllm.protocol import Reply
from dialog_mllm.scores import calibration, confusion, shares

DRAWS = Reply("draw", prompt="a red fox")
TALKS = Reply("text", text="Hello!")


def turn(kind: str, index: int, wanted: str, reply: Reply | None, language: str = "en", **request: object) -> Turn:
    asked = {"type": kind, "request": request or None, "scene": None}
    return Turn(f"r{language}", index, language, asked, (Message.user("x"),), wanted, None, reply=reply)


TURNS = [
    turn("t2t", 0, "Hello!", TALKS),
    turn("t2i", 1, "<draw>a red fox", DRAWS, op="draw"),
    turn("t2i", 1, "<draw>a red fox", TALKS, "zh", op="draw"),
    turn("ti2i", 2, "<draw>a red fox", DRAWS, op="edit", edit={"op": "colour"}),
    turn("ti2i", 2, "<draw>a red fox", None, op="edit", edit={"op": "colour"}, then=[{"op": "sky"}]),
    turn("ti2t", 9, "It is red.", DRAWS, "zh", op="answer", accept=["red"]),
]


def test_groups_hold_the_turns_that_they_name() -> None:
    scores = score(TURNS, lambda turn, prompt, previous: prompt == "a red fox")
    assert scores["turns"] == 6 and scores["n"] == 2
    assert scores["switch_accuracy"] == 0.5 and scores["intervals"]["switch_accuracy"] == wilson(3, 6)
    assert list(scores["by_depth"]) == ["1", "2", "3", "10"]
    third = scores["by_depth"]["3"]
    assert (third["turns"], third["switch_accuracy"], third["prompt_correct"]) == (2, 0.5, 0.5)
    assert third["intervals"]["prompt_correct"] == wilson(1, 2) and third["false_draw"] is None
    assert set(scores["by_request"]) == {"talk", "draw", "edit colour", "edit colour+", "answer"}
    assert set(scores["cells"]) == {"t2t", "t2i", "ti2i", "ti2t"}
    assert scores["cells"]["t2i"]["zh"] == {
        "2": {"turns": 1, "switch_accuracy": 0.0, "prompt_correct": 0.0,
              "intervals": {"switch_accuracy": wilson(0, 1), "prompt_correct": wilson(0, 1)}}
    }  # fmt: skip
    cells = [cell for kind in scores["cells"].values() for language in kind.values() for cell in language.values()]
    assert sum(cell["turns"] for cell in cells) == 6


def test_what_was_wanted_and_what_was_done() -> None:
    assert confusion(TURNS) == {
        "draw": {"draw": 2, "talk": 1, "no_reply": 1},
        "talk": {"draw": 1, "talk": 1, "no_reply": 0},
    }


def test_calibration_by_hand() -> None:
    sure = [replace(one, reply=one.reply and replace(one.reply, draw_probability=p))
            for one, p in zip(TURNS, (0.0, 1.0, 0.25, 0.75, 0.5, 0.75), strict=True)]  # fmt: skip
    result = calibration(sure)  # the turn without a reply does not count
    assert result is not None and result["turns"] == 5
    assert result["brier"] == pytest.approx((0 + 0 + 0.75**2 + 0.25**2 + 0.75**2) / 5, abs=1e-4)
    assert result["expected_error"] == pytest.approx((0 + 0.75 + 2 * 0.25 + 0) / 5, abs=1e-4)
    assert [(b["from"], b["turns"], b["p"], b["drawn"]) for b in result["bins"]] == [
        (0.0, 1, 0.0, 0.0), (0.2, 1, 0.25, 1.0), (0.7, 2, 0.75, 0.5), (0.9, 1, 1.0, 1.0),
    ]  # fmt: skip


def test_a_server_without_probabilities_has_no_calibration() -> None:
    assert calibration(TURNS) is None


def test_a_share_of_nothing_is_none() -> None:
    assert shares([])["switch_accuracy"] is None and shares([])["intervals"] == {}
