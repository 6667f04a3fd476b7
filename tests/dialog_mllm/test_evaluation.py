from __future__ import annotations

import asyncio
import json

import pytest

from dialog_mllm.errors import DialogUnavailable, EmptyPrompt
from dialog_mllm.evaluation import (
    ask_all,
    error_of,
    read_reply,
    score,
    turns_of,
    verdict,
)
from dialog_mllm.evaluation import judge as judge_turn
from dialog_mllm.messages import to_chat
from dialog_mllm.model import build_base
from dialog_mllm.records import DataError, data_files, read_records
from dialog_mllm.tokenizer import texts_of, train_tokenizer
from tests.dialog_mllm import toy
from tests.dialog_mllm.offline import answer_offline, evaluate


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("toy"), conversations=6)


@pytest.fixture
def records(root):
    return list(read_records([root / "test.jsonl"]))


class Answers:
    """A dialog client that answers what `say(last user text, record's history)` gives."""

    def __init__(self, say):
        self.say = say

    async def reply(self, messages):
        said = self.say([message.text for message in messages])
        if isinstance(said, Exception):
            raise said
        yield read_reply(said)


def truth(records):
    answers = {}
    for turn in turns_of(records):
        answers[tuple(message.text for message in turn.history)] = turn.wanted
    return lambda texts: answers[tuple(texts)]


def judge(turn, prompt, previous):
    request = turn["request"]
    colour = (request.get("asked") or request.get("edit"))["colour"]
    return (colour in prompt or toy.COLOURS[colour] in prompt) and (request["op"] == "draw" or previous is not None)


def test_the_records_own_replies_are_all_right(records):
    scores = evaluate(records, Answers(truth(records)), judge)
    assert scores["n"] == 6
    for key in ("switch_accuracy", "prompt_correct", "prompt_exact", "minimal_change", "question_accuracy",
                "topic_accuracy"):  # fmt: skip
        assert scores[key] == 1.0, key
    assert scores["false_draw"] == scores["missed_draw"] == scores["no_reply"] == 0.0
    assert set(scores["by_type"]) == {"t2t", "t2i", "ti2i", "ti2t"}
    assert set(scores["by_language"]) == {"en", "zh"}
    assert scores["by_type"]["t2i"]["false_draw"] is None


def test_always_drawing_and_always_talking(records):
    drawing = evaluate(records, Answers(lambda texts: "<draw>a pink square"), judge)
    assert drawing["false_draw"] == 1.0 and drawing["missed_draw"] == 0.0 and drawing["prompt_correct"] == 0.0
    talking = evaluate(records, Answers(lambda texts: "no"), judge)
    assert talking["missed_draw"] == 1.0 and talking["false_draw"] == 0.0 and talking["question_accuracy"] == 0.0


def test_a_broken_reply_is_wrong_but_no_end(records):
    scores = evaluate(records, Answers(lambda texts: EmptyPrompt()), judge)
    assert scores["no_reply"] == 1.0 and scores["switch_accuracy"] == 0.0


def test_a_server_that_is_away_is_an_error_and_no_score(records):
    with pytest.raises(DialogUnavailable, match="away"):
        evaluate(records, Answers(lambda texts: DialogUnavailable("away")), judge)


def test_answers_are_compared_by_words(records):
    turns = [turn for turn in turns_of(records) if turn.operation == "answer" and turn.language == "en"]
    accepted = turns[0].turn["request"]["accept"][0]
    for said, right in ((f"It is {accepted}.", 1.0), (f"un{accepted}ly", 0.0)):
        scores = evaluate(records[:0] + [r for r in records if r[0]["id"] == turns[0].record],
                          Answers(lambda texts, said=said: said), judge)  # fmt: skip
        assert scores["question_accuracy"] == right


def test_rewriting_more_than_was_asked_is_no_minimal_change(records):
    say = truth(records)

    def wordy(texts):
        wanted = say(texts)
        return wanted + ", beautiful, detailed" if wanted.startswith("<draw>") else wanted

    scores = evaluate(records, Answers(wordy), judge)
    assert scores["minimal_change"] == 0.0 and scores["prompt_correct"] == 1.0 and scores["prompt_exact"] < 1.0


def test_offline_answers_do_not_depend_on_the_batch(root, records):
    tokenizer = train_tokenizer(texts_of([root / "train.jsonl"]), 400)
    model, processor = build_base(tokenizer, toy.SMALL)
    model.eval()
    turns = list(turns_of(records))
    one = answer_offline(turns, model, processor, batch=1, max_tokens=12)
    many = answer_offline(turns, model, processor, batch=16, max_tokens=12)
    assert [turn.reply for turn in one] == [turn.reply for turn in many]


def test_a_picture_that_cannot_be_asked_about_is_named_with_its_record(tmp_path):
    data = toy.write(tmp_path, 2)
    for picture in data.rglob("*.png"):
        picture.unlink()
    lost = list(read_records(data_files([data], "test")))

    class Asking(Answers):
        async def reply(self, messages):
            to_chat(messages)
            async for event in super().reply(messages):
                yield event

    with pytest.raises(DataError, match=r"record test-\d: \S+\.png is not there .*easel data check"):
        evaluate(lost, Asking(lambda texts: "no"), judge)


def test_nothing_to_measure_on(records):
    with pytest.raises(DataError, match="no dialogue"):
        score([], judge)
    record, root = records[0]
    with pytest.raises(DataError, match="one entry in `turns`"):
        list(turns_of([({**record, "turns": []}, root)]))


def test_every_reply_has_a_verdict_with_the_kind_of_error(records):
    say = truth(records)
    kinds = {
        "<draw>a pink square": {"false_draw", "prompt"}, "no": {"missed_draw", "question", None},
        "": {"no_reply"},
    }  # fmt: skip
    for said, expected in kinds.items():
        turns = asyncio.run(ask_all(list(turns_of(records)), Answers(lambda texts, said=said: said or EmptyPrompt())))
        assert {verdict(turn, judge)["error"] for turn in turns} == expected
    switched = asyncio.run(ask_all(list(turns_of(records)), Answers(lambda texts: "<switch>" + say(texts))))
    assert {error_of(turn, judge_turn(turn, judge)) for turn in switched} == {"topic", None}
    line = verdict(switched[0], judge)
    assert (line["record"], line["turn"], line["type"], line["request"]) == (records[0][0]["id"], 0, "t2t", "talk")
    assert len({verdict(turn, judge)["asked"] for turn in switched if turn.record == line["record"]}) == 4
    assert json.loads(json.dumps(line)) == line


def test_answers_are_told_one_by_one_until_the_server_fails(records):
    kept = []

    def say(texts):
        return DialogUnavailable("away") if len(kept) == 3 else "no"

    with pytest.raises(ExceptionGroup):
        asyncio.run(ask_all(list(turns_of(records)), Answers(say), 1, on_answer=kept.append))
    assert len(kept) == 3 and all(turn.reply is not None for turn in kept)


def test_shares_have_intervals(records):
    scores = evaluate(records, Answers(truth(records)), judge)
    low, high = scores["intervals"]["switch_accuracy"]
    assert 0.8 < low < 1.0 == high
    assert "refusal_accuracy" not in scores["intervals"]  # nothing was declined
