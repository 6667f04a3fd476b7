"""The judge of pictures, against an endpoint that answers as a test says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from app import evaluation
from app.cli import main as easel
from app.evaluation import Verdict
from app.vlm_judge import Seen, VlmJudge, foil, look_at_all, questions, read_answer, tally
from datasets_build.endpoint import Endpoint, Settings, Stopped
from datasets_build.storybook.scene import Accessory, Scene, Subject
from tests.datasets_build.scripted import KEY, ScriptedEndpoint, completion, serving

FOX = Subject("fox", "red", "big", "left", (Accessory("scarf", "blue"), Accessory("glasses", "black")))
ALONE = Scene((FOX,), "snow", "night", "watercolour", "wide")
PAIR = Scene((Subject("cat", "orange", position="left"), Subject("cat", "black", position="right")),
             "space", "night", "pixel art", "normal")  # fmt: skip
PICTURE = Image.new("RGB", (32, 32), "red")


def asked(body: dict[str, Any]) -> str:
    """The question in a request."""
    image, text = body["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,") and body["max_tokens"] <= 16
    return text["text"].splitlines()[1]


def honest(scene: Scene, missing: str = "") -> Callable[[dict[str, Any]], str]:
    true = {question.text for question in questions(scene)}
    return lambda body: "Yes." if asked(body) in true and asked(body) != missing else "no"


def settings(endpoint: ScriptedEndpoint) -> Settings:
    return Settings(endpoint.url, "eyes", KEY, backoff=0.01, role="judge")


def test_each_thing_that_should_be_there_is_asked_for() -> None:
    assert [(question.element, question.text) for question in questions(ALONE)] == [
        ("kind", "Is there a fox in the picture?"),
        ("colour", "Is the fox red?"),
        ("size", "Is the fox big?"),
        ("position", "Is the fox on the left of the picture?"),
        ("accessory", "Does the fox have a blue scarf?"),
        ("accessory", "Does the fox have black glasses?"),
        ("background", "Does the picture show a scene in the snow?"),
        ("sky", "Does the picture show a scene at night?"),
        ("style", "Is it a watercolour picture?"),
        ("shot", "Is it a wide shot?"),
    ]
    assert [question.text for question in questions(PAIR)] == [
        "Is there a cat on the left of the picture?",
        "Is the cat on the left of the picture orange?",
        "Is there a cat on the right of the picture?",
        "Is the cat on the right of the picture black?",
        "Does the picture show a scene in space?",
        "Is it a pixel art picture?",
    ]


def test_the_foil_is_not_there_and_always_the_same() -> None:
    assert foil(ALONE) == foil(ALONE) and "fox" not in foil(ALONE).text and "cat" not in foil(PAIR).text


@pytest.mark.parametrize(
    ("text", "seen"),
    [("yes", True), ("No", False), (" YES.\n", True), ("**No**", False), ("'yes'", True), ("", None), ("yes no", None),
     ("Yes, there is a fox.", None), ("yesterday", None), ("maybe", None), ("nope", None), ("是", None)],
)  # fmt: skip
def test_answers_are_read_strictly(text: str, seen: bool | None) -> None:
    assert read_answer(text) is seen


async def test_an_honest_judge() -> None:
    with serving(honest(ALONE, missing="Is the fox red?")) as endpoint:
        async with Endpoint(settings(endpoint)) as asking:
            judge = VlmJudge(asking)
            seen = await judge.look(PICTURE, ALONE)
    assert dict(seen.answers)["colour"] is False and seen.foil is False and seen.all_there is False
    assert sum(answer is True for _, answer in seen.answers) == 9
    assert len(endpoint.requests) == 11 and (judge.tokens_in, judge.tokens_out) == (1100, 110)


async def test_a_judge_that_always_says_yes_is_found_out() -> None:
    with serving(lambda body: "yes") as endpoint:
        result = await look_at_all([(PICTURE, ALONE), (PICTURE, PAIR)], [True, False], settings(endpoint))
    assert result["judge_picture_correct"] == result["judge_foils_seen"] == 1.0
    assert result["judge_agreement"] == 0.5


async def test_what_is_neither_yes_nor_no_is_asked_again_and_then_left_out() -> None:
    said = {"Is the fox red?": ["It could be.", "Yes"], "Is the fox big?": ["?", "?", "?"]}
    truth = honest(ALONE)
    with serving(lambda body: said[asked(body)].pop(0) if asked(body) in said else truth(body)) as endpoint:
        result = await look_at_all([(PICTURE, ALONE)], [True], settings(endpoint), (2.0, 10.0))
    assert result["judge_by_element"]["colour"] == 1.0 and result["judge_by_element"]["size"] is None
    assert result["judge_picture_correct"] is None  # one answer is missing, the others are yes
    assert (result["judge_unanswered"], result["judge_refused"], result["judge_requests"]) == (1, 4, 14)
    assert result["judge_cost"] == pytest.approx((1400 * 2 + 140 * 10) / 1e6)
    again = [body for body in endpoint.requests if asked(body) == "Is the fox red?"]
    assert [body["temperature"] for body in again] == [0.0, 0.7] and "nothing else" in str(again[1]["messages"])


async def test_a_judge_that_goes_away_stops_everything() -> None:
    with serving(lambda body: "yes") as endpoint:
        endpoint.script = [lambda handler, body: handler.say(404, {"error": {"message": "no such model"}})]
        with pytest.raises(Stopped, match="no such model"):
            await look_at_all([(PICTURE, ALONE)] * 20, [True] * 20, settings(endpoint))
    assert len(endpoint.requests) < 40


def test_figures_by_hand() -> None:
    seen = [
        Seen((("kind", True), ("colour", True)), False),
        Seen((("kind", True), ("colour", False)), True),
        Seen((("kind", None), ("colour", True)), None),
    ]
    assert tally(seen, [True, True, False]) == {
        "judge_picture_correct": 0.5, "judge_element_correct": 0.8, "judge_by_element": {"kind": 1.0, "colour": 0.6667},
        "judge_foils_seen": 0.5, "judge_agreement": 0.5, "judge_unanswered": 1,
    }  # fmt: skip


@pytest.fixture
def dialogues(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No app is started; two pictures were drawn."""
    held: list[str] = []

    async def hold_all(url: str, *rest: Any) -> list[Verdict]:
        held.append(url)
        return [Verdict(turns=[True], pictures=[True, False], drawn=[(PICTURE, ALONE), (PICTURE, PAIR)])]

    monkeypatch.setattr(evaluation, "hold_all", hold_all)
    monkeypatch.setattr(evaluation, "read_dialogues", lambda data, n: [])
    monkeypatch.setenv("JUDGE_KEY", KEY)
    return held


def run(endpoint: ScriptedEndpoint, *more: str) -> int:
    return easel(["eval", "chat", "--url", "http://127.0.0.1:1", "--data", "x", "--json", "--judge", endpoint.url,
                  "--judge-model", "eyes", "--judge-key-env", "JUDGE_KEY", *more])  # fmt: skip


def test_the_command_reports_figures_and_cost(dialogues: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with serving(honest(ALONE)) as endpoint:
        assert run(endpoint, "--price-in", "1") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["dialogue_correct"] == 1.0 and result["judge_picture_correct"] == 0.5
    assert result["judge_agreement"] == 1.0 and result["judge_foils_seen"] == 0.0
    assert result["judge_requests"] == 18 and result["judge_cost"] == pytest.approx(0.0018)


def test_a_failing_judge_does_not_cost_the_dialogues(dialogues: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with serving(honest(ALONE)) as endpoint:
        endpoint.script = [
            lambda handler, body: handler.say(200, completion("no")),  # the question in the beginning
            lambda handler, body: handler.say(402, {"error": {"message": "no money left"}}),
        ]
        assert run(endpoint) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["dialogue_correct"] == 1.0 and "used up" in result["judge_error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--judge-key-env", "NOT_SET"], "NOT_SET .* holds no key"),
        (["--judge-model", ""], "--judge-model"),
        (["--judge", "eyes"], "the judge is an address"),
        (["--judge", ""], "--judge names the address"),
        (["--judge-key-env", "WRONG_KEY"], "does not accept the key .*--judge-key-env"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused_first(
    options: list[str], message: str, dialogues: list[str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("WRONG_KEY", "wrong")
    with serving(lambda body: "yes") as endpoint:
        assert run(endpoint, *options) == 1
    assert re.search(message, capsys.readouterr().err) and not dialogues
