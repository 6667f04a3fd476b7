"""Conversations about other things: words and meaning change together, and only where the words are plain."""

from __future__ import annotations

import random
import re
import tomllib
from typing import Any

import pytest

from datasets_build.storybook.reading import language_of
from datasets_build.storybook.scene import COLOURS
from datasets_build.storybook.vocabulary import NAMES
from datasets_build.swapping import ALIKE, swapped
from datasets_build.written import bundled, read_conversations

ENGLISH = [
    {"said": "An orange fox and two PINK dogs? no, a fox and a pink dog", "draw": "an orange fox and a pink dog"},
    {"said": "is the dog red?", "answer": "No, the dog is pink.", "accept": ["pink", "no"]},
    {"said": "it barks... kidding. Blue hat for it", "edit": "an orange fox and a pink dog wearing a blue hat"},
]
CHINESE = [
    {"said": "画只红色的小狐狸，天黑了", "draw": "a small red fox at night"},
    {"said": "狐狸旁边加个绿帆船", "edit": "a small red fox and a green sailboat at night"},
]


def variants(turns: list[dict[str, Any]], language: str) -> list[list[dict[str, Any]]]:
    made = (swapped(turns, language, random.Random(seed)) for seed in range(300))
    return [other for other in made if other]


def test_words_and_meaning_change_together_in_english():
    found = variants(ENGLISH, "en")
    assert len({str(other) for other in found}) > 100
    for first, second, third in found:
        orange, fox, pink = re.fullmatch(r"(an? \w+) (\w+) and (an? \w+) dog", first["draw"]).groups()
        colour = pink.split()[1]
        assert first["said"] == (
            f"{orange.capitalize()} {fox} and two {colour.upper()} dogs? no, a {fox} and {pink} dog"
        )
        assert second["answer"] == f"No, the dog is {colour}." and second["accept"] == [colour, "no"]
        blue = re.match(r"it barks... kidding. (\w+) hat", third["said"])[1].lower()
        assert blue not in (colour, orange.split()[1])
        hat = f"{'an' if blue[0] in 'aeiou' else 'a'} {blue} hat"
        assert third["edit"] == f"{orange} {fox} and {pink} dog wearing {hat}"


@pytest.mark.parametrize("seed", range(50))
def test_words_and_meaning_change_together_in_chinese(seed):
    other = swapped(CHINESE, "zh", random.Random(seed))
    if other is None:
        return
    colour, kind = re.fullmatch(r"a small (\w+) (\w+) at night", other[0]["draw"]).groups()
    second = re.search(r"and an? (\w+) sailboat", other[1]["edit"])[1]
    word = NAMES["zh"]["kind"][kind][0]
    red, green = (NAMES["zh"]["colour"][name][0][0] for name in (colour, second))
    assert other[0]["said"] == f"画只{red}色的小{word}，天黑了"
    assert other[1]["said"] == f"{word}旁边加个{green}帆船"


@pytest.mark.parametrize(
    ("language", "said", "draw"),
    [
        ("en", "man's best friend, please", "a dog"),  # it is not named
        ("en", "a kitty. a cat!", "a cat"),  # it is also named otherwise
        ("en", "a dog that barks", "a dog"),
        ("en", "a fish in the colour of the sky", "a blue fish"),
        ("en", "a red fish, crimson!", "a red fish"),
        ("zh", "一只喵星人，就是猫", "a cat"),
        ("zh", "天黑了，黑黑的鱼", "a black fish"),
    ],
)
def test_what_is_not_plain_stays(language, said, draw):
    assert variants([{"said": said, "draw": draw}], language) == []


def test_all_that_comes_with_easel_means_what_it_says_when_it_is_varied():
    _, *every = re.split(r"^(?=\[\[conversation)", bundled("train").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(read_conversations("".join(every), "train")) == len(every) > 1000
    text = "".join(every[::10])
    rows = tomllib.loads(text)["conversation"]
    plain, varied = read_conversations(text, "train"), read_conversations(text, "train", variations=2)
    assert len(varied) > 2 * len(plain) and varied == read_conversations(text, "train", variations=2)
    for number, row in enumerate(rows):
        language = language_of(row["turns"][0]["said"])
        other = swapped(row["turns"], language, random.Random(number))
        for before, after in zip(row["turns"], other or (), strict=False):
            for value in (*ALIKE, *COLOURS):
                if language == "en" and "draw" in before and re.search(rf"\b{value}\b", before["said"].lower()):
                    # As often as the message named it and meant it, it now names and means one other.
                    assert _count(before, value) in {_count(after, new) for new in (*ALIKE, *COLOURS)}


def _count(turn: dict[str, Any], value: str) -> tuple[int, int]:
    said, meant = turn["said"].lower(), turn.get("draw", "")
    return len(re.findall(rf"\b{value}\b", said)), len(re.findall(rf"\b{value}\b", meant))
