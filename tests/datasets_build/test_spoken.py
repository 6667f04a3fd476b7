"""Requests as they are spoken: nothing that was asked is lost, whatever stands behind it."""

from __future__ import annotations

import random
import re

import pytest

from datasets_build.banks import Speaker
from datasets_build.records import NoSample
from datasets_build.refusals import refuse
from datasets_build.requests import fresh, sample_asked
from datasets_build.spoken import WHOLE, spoken
from datasets_build.storybook.language import Partial
from datasets_build.storybook.vocabulary import LANGUAGES, NAMES, PHRASES, UNDERSTOOD
from datasets_build.topics import TOPICS


def _says(text: str, part: str, value: str, language: str) -> bool:
    words = [word for bank in (NAMES, UNDERSTOOD, PHRASES) for word in bank[language].get(part, {}).get(value, ())]
    if language == "zh" and part == "colour":
        words += [word[0] for word in words]  # 黑雨伞
    return any(word.lower() in text.lower() for word in words)


def _values(asked: Partial) -> list[tuple[str, str]]:
    said = [(part, asked[part]) for part in WHOLE if part in asked]
    for subject in asked["subjects"]:
        said += [(part, subject[part]) for part in ("kind", "colour", "size", "position") if part in subject]
        for worn in subject.get("accessories", ()):
            said += [
                (part, value) for part, value in (("accessory", worn["kind"]), ("colour", worn.get("colour"))) if value
            ]
    return said


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_everything_that_is_asked_is_said(language: str, split: str) -> None:
    rng = random.Random(2)
    speaker = Speaker(language, split, rng)
    for number in range(1500):
        asked = sample_asked(rng, TOPICS[number % len(TOPICS)], split)
        text = spoken(asked, speaker, inside=number % 2 == 0)
        assert "{" not in text
        for part, value in _values(asked):
            assert _says(text, part, value, language), (text, part, value)


@pytest.mark.parametrize(
    ("language", "forms"),
    [
        (
            "en",
            [r"^[a-z ,']*\ba \w+ and it", r"^a( \w+)* \w+,? (that's|which is) ", r"^\w+(\. |; | / )", "1. a .*2. a "],
        ),
        ("zh", ["只[猫狗]，(然后)?它", "^[猫狗]一只", "^[猫狗][，。 /]", "其一"]),
    ],
)
def test_it_is_said_as_people_speak(language: str, forms: list[str]) -> None:
    speaker = Speaker(language, "train", random.Random(1))
    dog = {"kind": "dog", "colour": "black", "size": "big"}
    both: list[Partial] = [{"subjects": [dog]}, {"subjects": [dog, {"kind": "cat"}]}]
    texts = [spoken(both[number % 2], speaker) for number in range(1500)]
    for form in forms:
        assert any(re.search(form, text) for text in texts), form


def test_two_of_a_kind_are_never_called_by_their_name() -> None:
    speaker = Speaker("en", "train", random.Random(1))
    asked = {"subjects": [{"kind": "dog", "colour": "black"}, {"kind": "dog", "colour": "white"}]}
    assert not any(re.search(r"\bthe dog\b|\bit\b", spoken(asked, speaker)) for _ in range(500))


@pytest.mark.parametrize(("language", "then"), [("en", r"\bthen\b"), ("zh", "那")])
def test_after_a_reply_in_words_the_request_takes_it_up(language: str, then: str) -> None:
    def share(after_words: bool) -> float:
        speaker, found, made = Speaker(language, "train", random.Random(4)), 0, 0
        for number in range(600):
            try:
                user = fresh(speaker, TOPICS[number % len(TOPICS)], after_words=after_words).user
            except NoSample:
                continue
            made += 1
            found += re.search(then, user.lower()) is not None
        return found / made

    assert share(after_words=True) > share(after_words=False) + 0.15


@pytest.mark.parametrize(
    ("language", "form"), [("en", r"^an? \w+( \w+)?, (that's|which is|in) "), ("zh", "^.+一[个只条架台]，")]
)
def test_what_cannot_be_drawn_is_spoken_of_alike(language: str, form: str) -> None:
    speaker = Speaker(language, "train", random.Random(6))
    assert any(re.search(form, refuse(speaker).user.lower()) for _ in range(3000))
