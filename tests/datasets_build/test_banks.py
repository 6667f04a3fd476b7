"""The banks: what replies name of the world, and what remains of a phrasing."""

from __future__ import annotations

import random

import pytest

from datasets_build.banks import THREES, examples
from datasets_build.storybook.language import noun_phrase
from datasets_build.storybook.scene import KINDS
from datasets_build.storybook.vocabulary import LANGUAGES
from datasets_build.surface import roughen


def test_every_kind_belongs_to_one_three() -> None:
    assert sorted(kind for three in THREES for kind in three) == sorted(KINDS)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_after_its_first_thing_a_list_can_only_go_one_way(language: str) -> None:
    rng = random.Random(0)
    lists = {examples(language, rng)["some"] for _ in range(400)}
    assert len(lists) == len(THREES)
    for text in lists:
        assert sum(noun_phrase({"kind": kind}, language) in text for kind in KINDS) >= 3


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("text", ["...", "？？？", "!", "画。", "ok."])
def test_slips_of_the_fingers_leave_something(text: str, language: str) -> None:
    assert all(roughen(text, language, random.Random(seed)).strip() for seed in range(200))
