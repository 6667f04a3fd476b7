"""What counts as drawn: `compare` on scenes that differ in one thing."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from generator.evaluation import compare, tally


def subject(kind: str, colour: str, position: str, *worn: tuple[str, str]) -> dict[str, Any]:
    accessories = [{"kind": kind, "colour": colour} for kind, colour in worn]
    return {"kind": kind, "colour": colour, "size": "normal", "position": position, "accessories": accessories}


ASKED = {
    "subjects": [subject("fox", "red", "left", ("hat", "blue")), subject("cake", "pink", "right")],
    "background": "snow", "sky": "day", "style": "flat", "shot": "normal",
}  # fmt: skip


def wrong(seen: dict[str, Any]) -> dict[str, int]:
    """How many answers are no, by attribute."""
    return {name: values.count(False) for name, values in compare(ASKED, seen).items() if not all(values)}


def test_the_same_scene_is_all_right() -> None:
    assert wrong(deepcopy(ASKED)) == {}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("kind", "dog", {"subject": 1, "binding": 1}),  # still red, on the left, with its hat
        ("colour", "blue", {"colour": 1, "binding": 1}),
        ("size", "big", {"size": 1}),
        ("position", "middle", {"position": 1}),
        ("accessories", [], {"accessory": 1}),
        ("accessories", [{"kind": "hat", "colour": "red"}], {"accessory": 1, "nothing_added": 1}),
    ],
)
def test_one_attribute_of_a_subject_is_wrong(name: str, value: Any, expected: dict[str, int]) -> None:
    seen = deepcopy(ASKED)
    seen["subjects"][0][name] = value
    assert wrong(seen) == expected


def test_what_belongs_to_a_missing_subject_is_missing() -> None:
    seen = deepcopy(ASKED)
    del seen["subjects"][0]
    expected = {"count": 1, "subject": 1, "colour": 1, "size": 1, "position": 1, "accessory": 1, "binding": 1}
    assert wrong(seen) == expected


def test_one_subject_cannot_stand_for_two() -> None:
    seen = deepcopy(ASKED)
    seen["subjects"][1] = subject("fox", "red", "right")
    assert wrong(seen) == {"subject": 1, "colour": 1, "binding": 1}


def test_a_subject_that_was_asked_for_does_not_stand_in_for_another() -> None:
    seen = deepcopy(ASKED)
    seen["subjects"] = [subject("cake", "pink", "left")]
    expected = {"count": 1, "subject": 1, "colour": 1, "size": 1, "position": 2, "accessory": 1, "binding": 1}
    assert wrong(seen) == expected


def test_shares_count_every_subject() -> None:
    seen = deepcopy(ASKED) | {"background": "beach"}
    seen["subjects"][0]["colour"] = "white"
    shares = tally([compare(ASKED, seen), compare(ASKED, ASKED)])
    assert shares["background"] == 0.5 and shares["colour"] == 0.75 and shares["subject"] == 1.0
