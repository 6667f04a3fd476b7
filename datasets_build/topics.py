"""The 13 topics of the dialogues (the DialogGen paper's own are not public): what they are about, and what to draw.

    python -c "from datasets_build.topics import TOPICS; print([topic.name for topic in TOPICS])"

A topic leans the choice of subjects and places; it forbids nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from datasets_build.storybook.scene import BACKGROUNDS, KINDS

LEANING = 0.7  # how often a choice follows the topic


@dataclass(frozen=True)
class Topic:
    name: str
    about: str
    kinds: tuple[str, ...]
    backgrounds: tuple[str, ...]
    skies: tuple[str, ...] = ("day", "night", "sunset", "rain")

    def kind(self, rng: random.Random) -> str:
        return rng.choice(self.kinds if rng.random() < LEANING else KINDS)

    def background(self, rng: random.Random) -> str:
        return rng.choice(self.backgrounds if rng.random() < LEANING else BACKGROUNDS)


TOPICS = (
    Topic(
        "pets",
        "animals at home",
        ("cat", "dog", "rabbit", "fish", "turtle", "bird"),
        ("room", "meadow", "city"),
    ),
    Topic(
        "wild animals",
        "animals of the wood",
        ("fox", "bear", "panda", "rabbit", "bird"),
        ("forest", "meadow", "snow"),
    ),
    Topic(
        "seaside",
        "a day at the beach",
        ("fish", "turtle", "sailboat", "girl", "bird"),
        ("beach",),
        ("day", "sunset"),
    ),
    Topic(
        "winter",
        "snow and ice",
        ("snowman", "fox", "rabbit", "bear", "house"),
        ("snow", "forest"),
        ("day", "night"),
    ),
    Topic(
        "city life",
        "streets and houses",
        ("car", "train", "house", "dog", "girl"),
        ("city", "room"),
        ("day", "rain"),
    ),
    Topic(
        "journeys",
        "vehicles on the way",
        ("car", "train", "sailboat", "rocket"),
        ("meadow", "beach", "desert", "city"),
    ),
    Topic(
        "fairy tales",
        "castles and heroes",
        ("castle", "girl", "bear", "cat", "house"),
        ("forest", "meadow", "desert"),
    ),
    Topic(
        "space",
        "rockets and robots",
        ("rocket", "robot", "cat", "dog"),
        ("space",),
        ("night",),
    ),
    Topic(
        "parties",
        "birthdays and presents",
        ("cake", "girl", "dog", "rabbit", "lantern"),
        ("room", "meadow"),
    ),
    Topic(
        "festivals",
        "Chinese festivals",
        ("lantern", "pagoda", "panda", "cake", "girl"),
        ("city", "forest"),
        ("night",),
    ),
    Topic(
        "garden",
        "flowers and small animals",
        ("flower", "tree", "butterfly", "bird", "turtle"),
        ("meadow", "forest"),
    ),
    Topic(
        "bedtime",
        "quiet pictures for the night",
        ("cat", "bear", "lantern", "house"),
        ("room", "forest"),
        ("night",),
    ),
    Topic(
        "weather",
        "rain, sun and evening light",
        ("tree", "house", "girl", "snowman", "sailboat"),
        BACKGROUNDS,
    ),
)
