from __future__ import annotations

import pytest

from generator.checkpoint import read_json
from generator.inspector import WEIGHTS
from generator.looks import asked, attributes, consistency, seen

LABELS = read_json(WEIGHTS / "config.json")["labels"]
FOX = {
    "subjects": [{"kind": "fox", "colour": "red", "size": "normal", "position": "middle", "accessories": []}],
    "background": "snow", "sky": "day", "style": "flat", "shot": "normal",
}  # fmt: skip
WORN = [{"kind": "scarf", "colour": "blue"}]
SCARF = {**FOX, "subjects": [{**FOX["subjects"][0], "accessories": WORN}], "sky": "night"}  # type: ignore[dict-item,index]


def test_what_is_as_it_was() -> None:
    assert consistency(FOX, FOX) == 1
    assert consistency(FOX, SCARF) == consistency(SCARF, FOX) == 6 / 8, "the night and the scarf are new"
    assert attributes(SCARF)["subject", "middle", "scarf"] == "blue"


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("A flat picture of a red fox, in the snow by day.", [("flat",), ("red", "fox"), ("snow",), ("day",)]),
        ("A paper cut of a big Red Fox, blue scarf", [("paper cut",), ("big",), ("red", "fox"), ("blue", "scarf")]),
        ("a red fox, a red fox, and foxes", [("red", "fox")]),
        ("a catfish that is reddish", []),
        ("一只红色的狐狸", []),
    ],
)  # fmt: skip
def test_what_a_prompt_names(prompt: str, found: list[tuple[str, ...]]) -> None:
    assert asked(prompt, LABELS) == found


def test_a_colour_belongs_to_its_thing() -> None:
    named = asked("A red fox with a blue scarf in the snow at night", LABELS)
    assert seen(SCARF).issuperset(named)
    assert seen(FOX).intersection(named) == {("red", "fox"), ("snow",)}
    assert not seen(SCARF).intersection(asked("a blue fox, a red scarf", LABELS))
