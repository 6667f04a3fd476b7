"""Conversations written by hand: what their words come to, and what is said of those that cannot be used."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.cli import main as easel
from app.judging import judge_prompt
from datasets_build.check import check
from datasets_build.records import SPLITS
from datasets_build.written import WrittenError, bundled, read_conversations
from dialog_mllm.evaluation import judge, turns_of
from dialog_mllm.messages import DRAW, SWITCH
from dialog_mllm.protocol import Reply
from dialog_mllm.records import data_files, read_records

CONVERSATIONS = """
[[conversation]]
turns = [
    { said = "hi", talk = "Hello! What shall we draw?" },
    { said = "a fox and a cat", draw = "a fox on the left and a cat wearing a hat" },
    { said = "now black", edit = "a fox and a black cat, at night" },
    { said = "what colour is the cat?", answer = "It is black.", accept = ["black"] },
    { said = "a dragon too", refuse = "I cannot draw dragons." },
    { said = "then a rocket", draw = "a rocket" },
]
[[conversation]]
turns = [{ said = "放到海边", shows = ["a big red fox in the snow"], edit = "a fox on a beach" }]
"""


def built(folder: Path, text: str, split: str = "test") -> list[dict[str, Any]]:
    source = folder / "mine.toml"
    source.write_text(text, encoding="utf-8")
    assert easel(["data", "written", str(source), "--out", str(folder / "d"), "--split", split]) == 0
    return [record for record, _ in read_records(data_files([folder / "d"], split))]


def replies(record: dict[str, Any]) -> list[str]:
    return [message["content"][0]["text"] for message in record["messages"][1::2]]


def test_words_become_records_that_keep_every_rule(tmp_path):
    english, chinese = built(tmp_path, CONVERSATIONS)
    assert check(tmp_path / "d").ok, list(check(tmp_path / "d").lines())
    assert (english["language"], chinese["language"]) == ("en", "zh")
    assert [turn["type"] for turn in english["turns"]] == ["t2t", "t2i", "ti2i", "ti2t", "t2t", "t2i"]
    said = replies(english)
    assert said[0] == "Hello! What shall we draw?"
    assert said[1].startswith(DRAW) and "fox on the left and an orange cat wearing a blue hat" in said[1]
    # What an edit does not name stays; what is worn it names in full.
    assert "orange fox on the left and a black cat on the right" in said[2] and "night" in said[2]
    assert said[5].startswith(SWITCH + DRAW)
    # Whether a refusal turns to something new was not said, but at the very beginning nothing does.
    assert (english["learn"], chinese["learn"]) == ([0, 1, 2, 3, 5], [0])
    switched = judge(
        replace(next(turns_of([(english, tmp_path / "d")])), reply=Reply("text", "Hi!", "", True)), judge_prompt
    )
    assert "topic_accuracy" not in switched, "nobody has said where a topic ends"
    assert "big red fox" not in replies(chinese)[0] and "红色大狐狸，海滩上" in replies(chinese)[0]
    assert chinese["messages"][0]["content"][0]["type"] == "image"


def test_a_reply_is_judged_by_what_the_words_say_and_leave_open(tmp_path):
    turns = built(tmp_path, CONVERSATIONS)[0]["turns"]
    right = "A pencil picture of a pink fox on the left and a cat wearing a green hat on the right, in a city."
    assert judge_prompt(turns[1], right, None)
    for wrong in (
        right.replace("fox", "bear"),
        right.replace(" wearing a green hat", ""),
        right.replace("pink fox", "pink fox wearing a scarf"),
    ):
        assert not judge_prompt(turns[1], wrong, None), wrong
    kept = "A flat picture of an orange fox on the left and a black cat on the right, in a forest at night."
    assert judge_prompt(turns[2], kept, None)
    for wrong in (kept.replace("orange", "red"), kept.replace("forest", "city"), kept.replace("cat", "cat with a hat")):
        assert not judge_prompt(turns[2], wrong, None), wrong


def test_an_edit_of_a_picture_that_the_user_brings_is_not_judged_by_what_was_drawn_before(tmp_path):
    text = """[[conversation]]
turns = [{ said = "a tree", draw = "a green tree in a forest" },
         { said = "night", shows = ["a white panda in the snow"], edit = "a white panda in the snow at night" }]"""
    (record,) = built(tmp_path, text)
    night = record["turns"][1]["scene"]
    asked = {"op": "edit", "base": night | {"sky": "day"}, "edit": {"op": "sky", "value": "night"}}
    record["turns"][1]["request"] = asked  # as D_tt has it
    _, edit = turns_of([(record, tmp_path / "d")])
    judged = judge(replace(edit, reply=Reply("draw", "", edit.wanted_prompt)), judge_prompt)
    assert judged["prompt_correct"]
    assert "minimal_change" not in judged, "nobody knows the words of that picture"


def test_of_two_of_a_kind_those_belong_together_whose_colours_agree(tmp_path):
    text = """[[conversation]]
turns = [{ said = "two cats", draw = "a black cat and a big white cat" },
         { said = "a hat for the black one", edit = "a cat and a black cat wearing a hat" }]"""
    (record,) = built(tmp_path, text)
    assert "black cat wearing a blue hat on the left and a big white cat on the right" in replies(record)[1]


@pytest.mark.parametrize(
    "edits",
    [
        [("a cat and a dog", "a white cat in the middle and a brown dog on the right")],
        [("a dog and a cat", "a white cat in the middle and a brown dog on the right")],
        [("a dog in the middle and a cat", "a white cat on the left and a brown dog in the middle")],
        [("a cat and a dog", None), ("a dog", "a brown dog on the right")],
        [("a cat and a dog", None), ("a cat", "a white cat")],
        [("a cat on the right and a dog", "a brown dog on the left and a white cat on the right")],
        [("a cat and a dog", None), ("a cat on the right and a dog", "a brown dog in the middle and a white cat on")],
        [("a cat and a dog", None), ("a bear and a dog", "a white bear in the middle and a brown dog on the right")],
        [("a big cat", None), ("a robot", "a big white robot,")],
        [("a fox and a tree", "an orange fox on the left and a green tree on the right")],
    ],
)
def test_who_was_there_stays_where_it_stands(edits, tmp_path):
    turns = ['{ said = "hi", draw = "a white cat" }', *(f'{{ said = "so", edit = "{words}" }}' for words, _ in edits)]
    (dialogue,) = read_conversations(f"[[conversation]]\nturns = [{', '.join(turns)}]", "here")
    for (_, expected), exchange in zip(edits, dialogue.exchanges[1:], strict=True):
        assert expected is None or expected in exchange.reply, exchange.reply


@pytest.mark.parametrize("split", ["validation", "test"])  # of the training split's, test_swapping.py reads the words
def test_those_that_come_with_easel_can_be_used(split, tmp_path):
    assert easel(["data", "written", "--split", split, "--out", str(tmp_path)]) == 0
    records = [record for record, _ in read_records(data_files([tmp_path], split))]
    assert sum(len(record["turns"]) for record in records) > 200
    assert {record["language"] for record in records} == {"en", "zh"}
    assert check(tmp_path).ok, list(check(tmp_path).lines())


def test_no_conversation_is_in_two_splits():
    def said(split: str) -> set[str]:
        dialogues = read_conversations(bundled(split).read_text(encoding="utf-8"), split)
        return {exchange.user.lower() for dialogue in dialogues for exchange in dialogue.exchanges}

    for one, other in itertools.combinations(SPLITS, 2):
        shared = said(one) & said(other)
        assert all(len(message) < 12 for message in shared), shared  # anybody says "bigger"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[conversation", "is no TOML"),
        ("", "holds no [[conversation]]"),
        ("[[conversation]]", "conversation 1: it needs `turns`"),
        ('[[conversation]]\nturns = [{ talk = "hi" }]', "message 1: it needs `said`"),
        ('[[conversation]]\nturns = [{ said = "hi" }]', "needs one of draw, edit, answer, refuse, talk"),
        ('[[conversation]]\nturns = [{ said = "hi", talk = "a", draw = "a fox" }]', "it has ['draw', 'talk']"),
        ('[[conversation]]\nturns = [{ said = "hi", tlak = "a" }]', "no key 'tlak'"),
        ('[[conversation]]\nturns = [{ said = "hi", draw = "a dragon" }]', "no picture is like this: a scene has 1"),
        ('[[conversation]]\nturns = [{ said = "hi", edit = "a fox" }]', "no picture that `edit` could change"),
        ('[[conversation]]\nturns = [{ said = "hi", answer = "red" }]', "`answer` and `accept`"),
        ('[[conversation]]\nturns = [{ said = "hi", answer = "red", accept = "red" }]', "`accept` is a list"),
        ('[[conversation]]\nturns = [{ said = "<draw>a", talk = "a" }]', "cannot type <draw>"),
    ],
)
def test_what_cannot_be_used_is_named(text, why, tmp_path, capsys):
    source = tmp_path / "mine.toml"
    source.write_text(text, encoding="utf-8")
    assert easel(["data", "written", str(source), "--out", str(tmp_path / "d")]) == 1
    assert why in capsys.readouterr().err
    assert not (tmp_path / "d" / "manifest.json").exists()
    with pytest.raises(WrittenError):
        read_conversations(text, "mine.toml")


def test_variations_are_more_records_about_other_things(tmp_path):
    source = tmp_path / "mine.toml"
    source.write_text(CONVERSATIONS, encoding="utf-8")
    command = ["data", "written", str(source), "--split", "train", "--variations", "3"]
    for folder in ("a", "b"):
        assert easel([*command, "--out", str(tmp_path / folder)]) == 0
    assert (tmp_path / "a/train-00000.jsonl").read_bytes() == (tmp_path / "b/train-00000.jsonl").read_bytes()
    records = [record for record, _ in read_records(data_files([tmp_path / "a"], "train"))]
    assert len(records) > 4 and len({json.dumps(record["messages"]) for record in records}) == len(records)
    assert check(tmp_path / "a").ok, list(check(tmp_path / "a").lines())


def test_files_that_are_not_there_are_named(tmp_path, capsys):
    assert easel(["data", "written", str(tmp_path / "no.toml"), "--out", str(tmp_path / "d")]) == 1
    assert "no.toml cannot be read" in capsys.readouterr().err


def test_they_can_be_trained_on(tmp_path):
    built(tmp_path, CONVERSATIONS, "train")
    entry = json.loads((tmp_path / "d" / "manifest.json").read_text())["splits"]["train"]
    assert (entry["n"], entry["command"]) == (2, "easel data written")
