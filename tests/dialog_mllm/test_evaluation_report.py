"""The page of an evaluation: what is in it, what is marked, and what it survives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dialog_mllm.evaluation import Turn, read_reply, score, turns_of
from dialog_mllm.evaluation_report import render, worst_dialogues
from dialog_mllm.messages import ImageBlock
from dialog_mllm.records import read_records
from tests.dialog_mllm import toy


def answered(root: Path, say) -> list[Turn]:
    turns = turns_of(read_records([toy.write(root, 6) / "test.jsonl"]))
    return [replace(turn, reply=read_reply(say(turn))) for turn in turns]


def right(turn: dict, prompt: str, previous: str | None) -> bool:
    return "purple" not in prompt


def test_the_worst_dialogues_are_shown_with_what_is_wrong(tmp_path: Path) -> None:
    def say(turn: Turn) -> str:
        if turn.record == "test-2" and turn.draws:
            return "<draw>a purple <script>alert(1)</script> square"
        return "Hello." if turn.record == "test-4" and turn.index == 1 else turn.wanted

    turns = answered(tmp_path, say)
    worst = worst_dialogues(turns, right)
    assert [dialogue[0].record for dialogue in worst] == ["test-2", "test-4"]
    assert [turn.index for turn in worst[0]] == list(range(len(worst[0])))
    page = render(turns, score(turns, right), right)
    assert page.index("test-2") < page.index("test-4") and "test-1" not in page
    assert "wrong prompt" in page and "talked, should have drawn" in page
    assert "<script" not in page and "&lt;script&gt;" in page.replace("<mark>", "").replace("</mark>", "")
    assert "<mark>purple" in page
    assert page.count("data:image/webp;base64,") == sum(len(turn.shown) for of in worst for turn in of)
    assert "cannot be shown" not in page.split("</style>")[1]


def test_all_right_is_said(tmp_path: Path) -> None:
    turns = answered(tmp_path, lambda turn: turn.wanted)
    page = render(turns, score(turns, right), right)
    assert "Not one reply is wrong" in page and "Is the probability" not in page


def test_a_lost_picture_and_no_reply_are_shown_as_such(tmp_path: Path) -> None:
    turns = answered(tmp_path, lambda turn: "")
    lost = [replace(turn, shown=(ImageBlock(path=tmp_path / "gone.png"),)) for turn in turns]
    page = render(lost, score(lost, right), right)
    assert "cannot be shown" in page and ">nothing<" in page and "no reply" in page
