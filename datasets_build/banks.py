"""The banks: what users and Easel say, as TOML files beside this module, and the speaker who picks from them.

    python -c "
    import random; from datasets_build.banks import Speaker
    print(Speaker('en', 'train', random.Random(1)).pick('requests', 'draw'))"

Every list of things that *users* say is split: the test split has entries that training never sees. A speaker keeps
the ids of what it picked, so that `check` can prove it.
"""

from __future__ import annotations

import hashlib
import random
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from datasets_build.records import NoSample
from datasets_build.storybook.language import accessory_phrase, noun_phrase
from datasets_build.storybook.scene import ACCESSORIES, BACKGROUNDS, COLOURS, KINDS, NATURAL, STYLES
from datasets_build.storybook.vocabulary import HELD_OUT_EVERY, LANGUAGES, name, of_split, phrase

# Things that replies name together. With any three of all, each would be a guess of its own, and a model that always
# says the likeliest would say one twice: "a house, a house or a snowman".
THREES = (
    ("fox", "castle", "rocket"), ("cat", "train", "flower"), ("dog", "robot", "tree"), ("rabbit", "sailboat", "cake"),
    ("bear", "car", "lantern"), ("panda", "house", "butterfly"), ("bird", "snowman", "pagoda"),
    ("fish", "girl", "turtle"),
)  # fmt: skip


@cache
def bank(name: str, language: str) -> dict[str, Any]:
    """The parsed bank `name` of a language."""
    if language not in LANGUAGES:
        raise ValueError(f"language must be one of {', '.join(LANGUAGES)}; got {language!r}")
    return tomllib.loads((files(__package__) / "banks" / f"{name}_{language}.toml").read_text(encoding="utf-8"))


def split_entries(entries: Sequence[str], split: str) -> list[str]:
    """The entries that `split` may use: as everywhere every sixth is the test split's, of a shorter list the last."""
    if len(entries) >= HELD_OUT_EVERY:
        return of_split(entries, split)
    if len(entries) < 2:
        raise ValueError(f"a list of {len(entries)} phrasings cannot be split: {list(entries)}")
    return list(entries[-1:]) if split == "test" else list(entries[:-1])


@dataclass
class Speaker:
    """One user of one split, who speaks one language and is driven by `rng`. `used` are the phrasings' ids so far."""

    language: str
    split: str
    rng: random.Random
    used: list[str] = field(default_factory=list)

    def pick(self, bank_name: str, *path: str, fits: Callable[[str], bool] = lambda text: True) -> str:
        """A phrasing of the list at `path` of a bank that `fits`; where none does, NoSample."""
        entries: Any = bank(bank_name, self.language)
        for key in path:
            entries = entries[key]
        return self.pick_from(entries, ".".join((bank_name, *path)), fits)

    def pick_from(self, entries: Sequence[str], where: str, fits: Callable[[str], bool] = lambda text: True) -> str:
        fitting = [text for text in split_entries(entries, self.split) if fits(text)]
        if not fitting:
            raise NoSample(f"no phrasing of {where} fits")
        text = self.rng.choice(fitting)
        self.used.append(f"{self.language}.{where}.{hashlib.sha256(text.encode()).hexdigest()[:8]}")
        return text

    def in_language(self, language: str) -> Speaker:
        """The same user, who now speaks another language."""
        return Speaker(language, self.split, self.rng, self.used)


def joined(words: Sequence[str], language: str, last: str = "and") -> str:
    """ "a, b and c" / "a、b和c"."""
    if len(words) < 2:
        return "".join(words)
    if language == "zh":
        return "、".join(words[:-1]) + {"and": "和", "or": "或者"}[last] + words[-1]
    return ", ".join(words[:-1]) + f" {last} " + words[-1]


def examples(language: str, rng: random.Random) -> dict[str, str]:
    """What replies name of the world: {some}, {styles}, {colours}, {places}, {accessories}, {idea}."""
    first = rng.sample(KINDS, 3)[0]
    kinds = next(three for three in THREES if first in three)
    some = [noun_phrase({"kind": kind}, language) for kind in kinds]
    article = "a" if language == "en" else ""
    things = [accessory_phrase({"kind": kind}, language, article=article) for kind in ACCESSORIES]
    return {
        "some": joined(some, language, "or"),
        "styles": joined([name(style, language, attribute="style") for style in STYLES], language),
        "colours": joined([name(colour, language, attribute="colour") for colour in COLOURS], language),
        "places": joined([name(place, language, attribute="background") for place in BACKGROUNDS], language),
        "accessories": joined(things, language),
        "idea": idea(rng.choice(KINDS), language, rng),
    }


def idea(kind: str, language: str, rng: random.Random) -> str:
    """Something that one could draw."""
    subject = {"kind": kind, "colour": rng.choice(COLOURS)}
    place = phrase("background", NATURAL[kind][1], language)
    text = noun_phrase(subject, language)
    return f"{text} {place}" if language == "en" else f"{place}的{text}"
