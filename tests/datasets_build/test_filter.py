"""`easel data filter`: quality tiers, and selections in which no kind of edit is rare."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from app.cli import main as easel
from datasets_build.check import check
from datasets_build.filter import FilterError, balanced, edits, of_tier, tier_of
from datasets_build.records import Job, run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    run(Job(root, "train", 40, 3, {"D_c": 3.0, "D_p": 1.0}, workers=1))
    run(Job(root, "validation", 3, 3, {"D_o": 1.0}, workers=1))
    return root


def records_of(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "train-00000.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("scores", "tier"),
    [
        ({}, "copper"),
        ({"attempts": 1}, "gold"),
        ({"attempts": 2}, "silver"),
        ({"attempts": 3}, "copper"),
        ({"attempts": 1, "judge": 1, "inspector": 0.96}, "gold"),
        ({"attempts": 1, "judge": 0.5}, "silver"),
        ({"attempts": 1, "inspector": 0.7}, "copper"),
        ({"unheard of": 1}, "copper"),
    ],
)
def test_a_tier_follows_from_the_scores(scores: dict[str, float], tier: str) -> None:
    assert tier_of({"source": "my-model", "scores": scores}) == tier


def test_the_grammar_s_records_are_gold_and_better_ones_belong_to_the_lower_tiers() -> None:
    records = [{"source": "x", "scores": {"attempts": n}} for n in (1, 2, 3)] + [{"source": "storybook-offline"}]
    assert [len(of_tier(records, tier)) for tier in ("copper", "silver", "gold")] == [4, 3, 2]


def test_rare_edits_reach_the_floor_and_the_choice_checks(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = records_of(data)
    counts = sum(map(edits, before), Counter[tuple[str, str]]())
    floor = round(1.3 * min(counts.values()) / counts.total(), 4)
    for name in ("one", "two"):
        assert easel(["data", "filter", str(data), "--out", str(tmp_path / name), "--floor", str(floor)]) == 0
    assert (tmp_path / "one" / "train-00000.jsonl").read_bytes() == (
        tmp_path / "two" / "train-00000.jsonl"
    ).read_bytes()
    assert check(tmp_path / "one").ok, dict(check(tmp_path / "one").violations)
    after = records_of(tmp_path / "one")
    kept = sum(map(edits, after), Counter[tuple[str, str]]())
    assert min(kept.values()) >= floor * kept.total() and set(kept) == set(counts)
    assert 0 < len(after) < len(before)
    assert [r for r in before if not edits(r)] == [r for r in after if not edits(r)]
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["train"] == {"records": len(after), "of": 40} and said["validation"] == {"records": 3, "of": 3}


def test_what_cannot_be_chosen_is_said(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, more, reason in (
        (data, ("--floor", "0.9"), "cannot have a share of 0.9 each"),
        (tmp_path, (), "no whole data set"),
    ):
        assert easel(["data", "filter", str(folder), "--out", str(tmp_path / "out"), *more]) == 1
        assert reason in capsys.readouterr().err
    assert easel(["data", "filter", str(data), "--out", str(data)]) == 1
    assert "a folder of its own" in capsys.readouterr().err
    assert easel(["data", "filter", str(data), "--out", str(tmp_path / "out"), "--floor", "2"]) == 2
    records = records_of(data)
    with pytest.raises(FilterError, match="no edit"):
        balanced([record for record in records if not edits(record)], 0.01)
    common, rare = ({"request": {"op": "edit", "edit": {"op": op}}} for op in ("style", "shot"))
    records = [{"language": "en", "turns": [*[common] * 9, rare]}, *[{"language": "en", "turns": [common]}] * 5]
    assert balanced(records, 0.1) == records[:1]
    with pytest.raises(FilterError, match=r"the rarest kind of edit, shot in en, reaches 10.00% only"):
        balanced(records, 0.2)


def test_a_set_is_not_written_over(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert easel(["data", "filter", str(data), "--out", str(tmp_path / "out"), "--tier", "gold"]) == 0
    assert check(tmp_path / "out").ok
    assert easel(["data", "filter", str(data), "--out", str(tmp_path / "out")]) == 1
    assert "holds a data set already" in capsys.readouterr().err
