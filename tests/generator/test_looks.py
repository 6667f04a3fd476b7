from __future__ import annotations

import random

import pytest

from datasets_build.storybook.language import write_prompt
from datasets_build.storybook.render import render
from datasets_build.storybook.scene import sample_scene
from generator.inspector import Inspector
from generator.looks import asked, attributes, consistency, seen

WORDS = Inspector.load().words
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
        ("a red big fox, a red and small dog", [("big",), ("red", "fox"), ("red",), ("small",), ("dog",)]),
        ("一只红色的狐狸", [("red", "fox")]),
        ("剪纸画：左边一只围着蓝色围巾的红色大狐狸，雪地里，夜晚。", [
            ("paper cut",), ("left",), ("blue", "scarf"), ("big",), ("red", "fox"), ("snow",), ("night",),
        ]),
    ],
)  # fmt: skip
def test_what_a_prompt_names(prompt: str, found: list[tuple[str, ...]]) -> None:
    assert asked(prompt, WORDS) == found


@pytest.mark.parametrize("box", [(0, 16, 128, 112), (16, 0, 112, 128)])
def test_a_window_of_a_picture_shows_the_same(box: tuple[int, int, int, int]) -> None:
    inspector, rng = Inspector.load(), random.Random(3)
    pictures = [render(sample_scene(rng, two_share=0.0)) for _ in range(24)]
    whole, cut = inspector.read(pictures), inspector.read([picture.crop(box) for picture in pictures])
    same = [a["subjects"] == b["subjects"] for a, b in zip(whole, cut, strict=True)]
    assert sum(same) >= 22, "squeezed, it would take a quarter of them for smaller or larger ones"


def test_a_colour_belongs_to_its_thing() -> None:
    named = asked("A red fox with a blue scarf in the snow at night", WORDS)
    assert seen(SCARF).issuperset(named)
    assert seen(FOX).intersection(named) == {("red", "fox"), ("snow",)}
    assert not seen(SCARF).intersection(asked("a blue fox, a red scarf", WORDS))


def test_both_languages_ask_for_the_same() -> None:
    """The prompts that the dialog model writes name as much in one language as in the other."""
    rng = random.Random(5)
    for _ in range(200):
        scene = sample_scene(rng)
        english, chinese = (set(asked(write_prompt(scene, language, 0), WORDS)) for language in ("en", "zh"))
        assert english == chinese and english <= seen(scene.to_json())
