"""What the Improve page says of a run, its curve and the versions."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from app.improve_texts import IMPROVE_TEXTS
from app.improve_view import HEIGHT, WIDTH, show_curve, show_feedback, show_run, show_versions
from app.improving import STAGES, Curve, Run, RunSize
from dialog_mllm.adapters import ORIGINAL, Version

TEXTS = IMPROVE_TEXTS["en"]
ROW = {
    "measure": "prompt_correct", "n": 100, "a": 0.8, "a_interval": [0.71, 0.87], "b": 0.9, "b_interval": [0.82, 0.95],
    "only_a": 0, "only_b": 10, "p": 0.002, "says": "keep",
}  # fmt: skip
RUN = Run(1, RunSize(), ORIGINAL, 0.0, done=["feedback", "train", "validation", "test"])


def test_both_languages_say_the_same_things() -> None:
    for name, text in vars(IMPROVE_TEXTS["en"]).items():
        other = getattr(IMPROVE_TEXTS["zh"], name)
        if isinstance(text, dict):
            assert text.keys() == other.keys(), name
        else:
            assert re.findall(r"{\w+", text) == re.findall(r"{\w+", other), name
    assert set(TEXTS.stages) == set(STAGES)


def test_feedback_is_counted() -> None:
    assert '<li data-kind="edited"><b>3</b>' in show_feedback({"edited": 3}, TEXTS)
    assert TEXTS.no_feedback in show_feedback({}, TEXTS)


def test_a_run_under_way_and_a_failed_one() -> None:
    html = show_run(RUN, 0.25, Curve(), TEXTS)
    assert re.findall(r'data-mark="(\w+)"', html) == ["done", "done", "now", "next"]
    assert 'aria-valuenow="25"' in html and "<svg" not in html
    failed = show_run(replace(RUN, state="failed", error="<b>no luck</b>"), 0.0, Curve(), TEXTS)
    assert "&lt;b&gt;no luck" in failed and "<b>no" not in failed
    assert show_run(None, 0.0, Curve(), TEXTS) == ""


@pytest.mark.parametrize("train", [(), ((0.0, 2.0),), ((0.0, 2.0), (1.0, 0.5), (2.0, 0.25)), ((0.5, 0.0), (1.0, 0.0))])
def test_the_curve_stays_in_its_frame(train: tuple[tuple[float, float], ...]) -> None:
    html = show_curve(Curve(train, ((2.0, 0.4),), (), 30, 2.0), TEXTS)
    points = re.findall(r"([\d.]+),([\d.]+)", " ".join(re.findall(r'points="([^"]*)"', html)))
    assert len(points) == len(train) + 1
    assert all(0 <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT for x, y in points)
    assert "30 steps, 2.0 min" in html


@pytest.mark.parametrize(
    ("says", "worse", "found"),
    [("keep", [], "better"), ("no evidence", [], "same"), ("throw out", ["prompt_correct"], "worse")],
)
def test_before_and_after(says: str, worse: list[str], found: str) -> None:
    row = {**ROW, "says": says}
    run = replace(RUN, state="measured", version="v1", scores={"held_out": [row], "feedback": []}, worse=worse)
    html = show_run(run, 1.0, Curve(), TEXTS)
    assert f'data-found="{found}"' in html and TEXTS.verdicts[says] in html
    assert "<b>80.0%</b> <small>71%–87%" in html and "<b>90.0%</b>" in html
    assert (TEXTS.measures["prompt_correct"] in html.split("</p>")[1]) == bool(worse)


def test_versions() -> None:
    one = Version("v1", "base", "ab", ORIGINAL, 0.0, {"feedback": 7}, {"held_out": [ROW]}, ())
    two = replace(one, name="v2", scores={}, worse=None, parent="<v1>")
    html = show_versions([one, two], "v1", None, {}, TEXTS)
    assert re.findall(r'data-version="(\w+)"', html) == ["v2", "v1", ORIGINAL]
    assert re.search(r'data-version="v1"><th scope=row>v1 <span class="improve-active">', html)
    assert html.count("improve-active") == 1
    assert "80.0% → 90.0%" in html and "7 corrections" in html and TEXTS.not_measured in html
    assert "&lt;v1&gt;" in html
    html = show_versions([one, two], "v1", ("v2", 0.25), {"v2": {"replies": 9, "like": 2, "should_draw": 1}}, TEXTS)
    assert re.search(r'data-version="v2"><th scope=row>v2 <span class="improve-active">tried on 25%', html)
    assert "9 replies<br>Liked: 2<br>Should have drawn: 1" in html
