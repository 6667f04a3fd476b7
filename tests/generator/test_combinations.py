"""What counts as a combination, and that what was trained on is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.commands.eval_image import held_out_prompts
from generator import combinations
from generator.errors import CheckpointError


def subject(name: str, *worn: str) -> dict[str, Any]:
    colour, kind = name.split()
    things = [dict(zip(("colour", "kind"), thing.split(), strict=True)) for thing in worn]
    return {"colour": colour, "kind": kind, "accessories": things}


FOX, CAT = subject("red fox", "blue hat"), subject("white cat")


def test_two_subjects_in_any_order_are_one_combination() -> None:
    assert set(combinations.combinations({"subjects": [FOX, CAT]})) == {"red fox + white cat", "red fox with blue hat"}
    assert combinations.combinations({"subjects": [CAT, FOX]}) == combinations.combinations({"subjects": [FOX, CAT]})
    assert combinations.combinations({"subjects": [CAT]}) == []


def test_a_scene_is_unseen_when_one_of_its_combinations_is(tmp_path: Path) -> None:
    assert not len(combinations.load(tmp_path))
    combinations.add(tmp_path, combinations.seen_in([{"subjects": [FOX]}]))
    combinations.add(tmp_path, combinations.seen_in([{"subjects": [CAT, subject("red fox")]}]))
    seen = combinations.load(tmp_path)
    assert not combinations.unseen({"subjects": [FOX, CAT]}, seen)
    assert not combinations.unseen({"subjects": [CAT]}, seen)
    assert combinations.unseen({"subjects": [subject("red fox", "red hat")]}, seen)
    assert combinations.unseen({"subjects": [FOX, subject("red cat")]}, seen)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / combinations.FILE).write_text("no numbers")
    with pytest.raises(CheckpointError, match=r"seen\.npy cannot be read"):
        combinations.load(tmp_path)


def test_a_third_of_the_held_out_prompts_combine_what_the_bundled_model_never_saw() -> None:
    seen = combinations.load(Path(combinations.__file__).parent / "weights" / "storybook")
    prompts = held_out_prompts(60, 1, seen)
    assert sum(prompt.unseen for prompt in prompts) >= 20
    assert all(combinations.unseen(prompt.scene, seen) == prompt.unseen for prompt in prompts)
    assert prompts == held_out_prompts(60, 1, seen)
