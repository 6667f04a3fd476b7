"""`easel eval edit` on pictures of which the truth is known: renders."""

from __future__ import annotations

import io
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from app.cli import main
from app.commands.eval_edit import KINDS, judge, make_cases, psnr, untouched
from app.profiles import PROFILES
from datasets_build.storybook.render import render
from generator.engine import Engine
from generator.inspector import Inspector
from generator.request import DrawRequest, Upload


def test_cases_are_of_every_kind_in_both_languages_and_change_something() -> None:
    cases = make_cases(2, seed=3, split="validation")
    assert [case.kind for case in cases] == [kind for kind in KINDS for _ in range(2)]
    for case in cases:
        assert case.before != case.after and case.before.split == "validation"
        assert case.prompts[0] != case.prompts[1]
    assert {case.prompts[0].isascii() for case in cases} == {True, False}
    assert make_cases(2, seed=3, split="validation") == cases


def test_a_right_edit_a_copy_and_a_new_picture() -> None:
    cases = make_cases(1, seed=1, split="validation")
    before = [render(case.before, 128, case.seed % 1000) for case in cases]
    after = [render(case.after, 128, case.seed % 1000) for case in cases]
    inspector = Inspector.load()
    right, copied = judge(cases, before, after, inspector), judge(cases, before, before, inspector)
    assert right["all"]["success"] >= 0.85 and right["all"]["preservation"] >= 0.97
    assert right["all"]["psnr"] > 40
    assert copied["all"] == {"success": pytest.approx(0, abs=0.05), "preservation": 1.0, "psnr": 100.0}


def test_psnr_is_of_what_need_not_change() -> None:
    case = make_cases(1, seed=1, split="validation")[0]
    where = untouched(case, (64, 64))
    assert where.size == (64, 64) and 0 < sum(where.histogram()[1:]) < 64 * 64
    grey = Image.new("RGB", (64, 64), (100, 100, 100))
    lighter = Image.composite(grey, Image.new("RGB", (64, 64), "white"), where)
    assert psnr(grey, lighter, where) == 100.0
    assert psnr(grey, Image.new("RGB", (64, 64), (101, 101, 101)), where) == pytest.approx(48.13, abs=0.01)


def test_uploads_of_the_profile_s_size_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a generator that draws nothing but grey: what is drawn for, and judged, fits together."""
    sizes: list[tuple[int, int]] = []

    def draw(engine: Engine, requests: Sequence[DrawRequest]) -> list[Any]:
        sizes.extend(Image.open(io.BytesIO(r.source.data)).size for r in requests if isinstance(r.source, Upload))
        return [SimpleNamespace(image=Image.new("RGB", r.size, "grey"), timings={"denoise": 1.0}) for r in requests]

    monkeypatch.setattr("generator.evaluation.draw_all", draw)
    assert main(["eval", "edit", "--uploads", "--n", "1", "--json"]) == 0
    assert set(sizes) == {(PROFILES["storybook"].width, PROFILES["storybook"].height)}
