"""Scenes of the picture-book world: everything a picture holds, as one small frozen value.

    python -c "from random import Random; from datasets_build.storybook.scene import *; print(sample_scene(Random(7)))"

A scene says *what* is in a picture; `render.py` says how it looks and `language.py` how people speak of it.
Values that the renderer could not draw exactly are refused on construction.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

KINDS = (
    "cat", "dog", "rabbit", "fox", "bear", "panda", "bird", "fish", "turtle", "butterfly", "girl", "robot",
    "snowman", "car", "train", "sailboat", "rocket", "house", "castle", "pagoda", "tree", "flower", "cake", "lantern",
)  # fmt: skip
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
SIZES = ("small", "normal", "big")
POSITIONS = ("left", "middle", "right")
ACCESSORIES = ("hat", "scarf", "glasses", "crown", "balloon", "umbrella")
BACKGROUNDS = ("meadow", "beach", "snow", "forest", "desert", "city", "room", "space")
SKIES = ("day", "night", "sunset", "rain")
STYLES = ("flat", "watercolour", "pencil", "pixel art", "paper cut")
SHOTS = ("close-up", "normal", "wide")

MAX_SUBJECTS = 2
MAX_ACCESSORIES = 2  # per subject, of different kinds
HELD = ("balloon", "umbrella")  # accessories that take the hand: at most one of them
HEADWEAR = ("hat", "crown")  # accessories that take the top of the head: at most one of them

# What a picture holds when nobody asked for anything else (colour and place of a kind, then of the whole picture).
NATURAL = {
    "cat": ("orange", "room"), "dog": ("brown", "meadow"), "rabbit": ("white", "meadow"), "fox": ("orange", "forest"),
    "bear": ("brown", "forest"), "panda": ("black", "forest"), "bird": ("blue", "forest"), "fish": ("orange", "beach"),
    "turtle": ("green", "beach"), "butterfly": ("purple", "meadow"), "girl": ("pink", "meadow"),
    "robot": ("blue", "city"), "snowman": ("white", "snow"), "car": ("red", "city"), "train": ("green", "meadow"),
    "sailboat": ("white", "beach"), "rocket": ("red", "space"), "house": ("yellow", "meadow"),
    "castle": ("purple", "desert"), "pagoda": ("red", "forest"), "tree": ("green", "meadow"),
    "flower": ("pink", "meadow"), "cake": ("pink", "room"), "lantern": ("red", "city"),
}  # fmt: skip
NATURAL_ACCESSORY_COLOUR = {
    "hat": "blue", "scarf": "red", "glasses": "black", "crown": "yellow", "balloon": "red", "umbrella": "purple",
}  # fmt: skip

TEST_SHARE, VALIDATION_SHARE = 0.05, 0.02  # of all scenes, by hash of the scene


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")


def _values(part: Any) -> dict[str, Any]:
    return {name: getattr(part, name) for name in part.__slots__}


@dataclass(frozen=True, slots=True)
class Accessory:
    kind: str
    colour: str

    def __post_init__(self) -> None:
        _one_of("accessory", self.kind, ACCESSORIES)
        _one_of("accessory colour", self.colour, COLOURS)


@dataclass(frozen=True, slots=True)
class Subject:
    kind: str
    colour: str
    size: str = "normal"
    position: str = "middle"
    accessories: tuple[Accessory, ...] = ()

    def __post_init__(self) -> None:
        _one_of("subject", self.kind, KINDS)
        _one_of("colour", self.colour, COLOURS)
        _one_of("size", self.size, SIZES)
        _one_of("position", self.position, POSITIONS)
        kinds = [accessory.kind for accessory in self.accessories]
        if len(kinds) > MAX_ACCESSORIES or len(set(kinds)) < len(kinds):
            raise ValueError(f"a subject has at most {MAX_ACCESSORIES} accessories, each of another kind; got {kinds}")
        for slot in (HELD, HEADWEAR):
            if sum(kind in slot for kind in kinds) > 1:
                raise ValueError(f"a subject has room for one of {', '.join(slot)}; got {kinds}")


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture. Subjects stand in reading order (left to right); two subjects have two positions."""

    subjects: tuple[Subject, ...]
    background: str
    sky: str = "day"
    style: str = "flat"
    shot: str = "normal"

    def __post_init__(self) -> None:
        if not 1 <= len(self.subjects) <= MAX_SUBJECTS:
            raise ValueError(f"a scene has 1 to {MAX_SUBJECTS} subjects; got {len(self.subjects)}")
        places = [POSITIONS.index(subject.position) for subject in self.subjects]
        if sorted(set(places)) != places:
            raise ValueError("subjects stand in different positions, from left to right")
        if len({(subject.kind, subject.colour) for subject in self.subjects}) < len(self.subjects):
            raise ValueError("two subjects of one kind need two colours, or nobody could tell them apart")
        _one_of("background", self.background, BACKGROUNDS)
        _one_of("sky", self.sky, SKIES)
        _one_of("style", self.style, STYLES)
        _one_of("shot", self.shot, SHOTS)
        if self.background == "space" and self.sky != "night":
            raise ValueError("in space it is always night")

    def to_json(self) -> dict[str, Any]:
        # By hand, for `asdict` takes half of the search for a scene of a small split.
        subjects = (_values(s) | {"accessories": tuple(map(_values, s.accessories))} for s in self.subjects)
        return _values(self) | {"subjects": tuple(subjects)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scene:
        """The inverse of `to_json`. Raises ValueError on anything the world does not hold."""
        try:
            subjects = tuple(
                Subject(**{**subject, "accessories": tuple(Accessory(**a) for a in subject.get("accessories", ()))})
                for subject in value["subjects"]
            )
            return cls(**{**value, "subjects": subjects})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a scene: {error}") from error

    @property
    def digest(self) -> str:
        """A hexadecimal SHA-256 of the scene, equal on every machine: the split key."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    @property
    def split(self) -> str:
        """ "train", "validation" or "test": fixed for a scene, whoever draws or speaks of it."""
        place = int(self.digest[:8], 16) / 2**32
        if place < TEST_SHARE:
            return "test"
        return "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train"

    def with_background(self, background: str) -> Scene:
        """The same scene elsewhere. Space brings night; coming back from space brings day."""
        if background == self.background:
            return self
        if background == "space":
            return replace(self, background=background, sky="night")
        return replace(self, background=background, sky="day" if self.background == "space" else self.sky)


def as_seen(scene: Scene) -> Scene:
    """The scene with everyone's accessories in one order, for a picture does not show which came first."""
    subjects = tuple(replace(s, accessories=tuple(sorted(s.accessories, key=_place_in_order))) for s in scene.subjects)
    return replace(scene, subjects=subjects)


def _place_in_order(accessory: Accessory) -> int:
    return ACCESSORIES.index(accessory.kind)


def sample_seen(rng: random.Random, split: str) -> Scene:
    """A random scene of `split` whose prompt can be told from its picture alone (see `as_seen`)."""
    while True:
        scene = as_seen(sample_scene(rng))
        if scene.split == split:
            return scene


def sample_accessories(rng: random.Random) -> tuple[Accessory, ...]:
    count = rng.choices((0, 1, 2), weights=(35, 50, 15))[0]
    while True:
        kinds = rng.sample(ACCESSORIES, count)
        if all(sum(kind in slot for kind in kinds) <= 1 for slot in (HELD, HEADWEAR)):
            return tuple(Accessory(kind, rng.choice(COLOURS)) for kind in kinds)


def sample_subject(rng: random.Random, position: str) -> Subject:
    return Subject(
        kind=rng.choice(KINDS),
        colour=rng.choice(COLOURS),
        size=rng.choices(SIZES, weights=(1, 2, 1))[0],
        position=position,
        accessories=sample_accessories(rng),
    )


def sample_scene(rng: random.Random, split: str | None = None, two_share: float = 0.35) -> Scene:
    """A random scene, of `split` when one is named; `two_share` is the share of scenes with two subjects."""
    if split not in (None, "train", "validation", "test"):
        raise ValueError(f"split must be train, validation or test; got {split!r}")
    while True:
        two = rng.random() < two_share
        positions = sorted(rng.sample(range(len(POSITIONS)), 2)) if two else [rng.choices(range(3), (1, 2, 1))[0]]
        subjects = tuple(sample_subject(rng, POSITIONS[place]) for place in positions)
        if len({(subject.kind, subject.colour) for subject in subjects}) < len(subjects):
            continue
        background = rng.choice(BACKGROUNDS)
        scene = Scene(
            subjects=subjects,
            background=background,
            sky="night" if background == "space" else rng.choices(SKIES, weights=(4, 2, 2, 2))[0],
            style=rng.choice(STYLES),
            shot=rng.choices(SHOTS, weights=(1, 2, 1))[0],
        )
        if split is None or scene.split == split:
            return scene
