"""Near duplicates: records that say the same but for case, punctuation and which thing or colour they say it of.

    likeness = Likeness(); likeness.add("train", record); likeness.within("train"), likeness.across("test", "train")

Each record costs eight bytes, and counting them a sort. Two records of one likeness are no fault: of a short request
there are only so many forms. How many there are says how much of a data set is new.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from datasets_build.storybook.vocabulary import LANGUAGES, NAMES, UNDERSTOOD, normalise

_CLASSES = {"kind": "<", "colour": ">"}  # what a thing's and a colour's word become: marks, which no text keeps

_ARTICLE = re.compile(r"\ban?\s+(?=[<>])")  # "a fox" is like "an orange fox"


class Likeness:
    """What the records of some splits have in common."""

    def __init__(self) -> None:
        self._keys: dict[str, array[int]] = defaultdict(lambda: array("Q"))

    def add(self, split: str, record: Mapping[str, Any]) -> None:
        self._keys[split].append(key(record))

    def within(self, split: str) -> float:
        """The share of the split's records that another, earlier one of it is like."""
        keys = self._array(split)
        return 1 - np.unique(keys).size / keys.size if keys.size else 0.0

    def across(self, split: str, other: str) -> float:
        """The share of the split's records that one of the other split is like."""
        keys = self._array(split)
        return float(np.isin(keys, self._array(other)).mean()) if keys.size else 0.0

    def splits(self) -> list[str]:
        return list(self._keys)

    def lines(self, split: str) -> list[str]:
        """The shares of a split, in words."""
        names = [("an earlier one of the split", self.within(split))]
        names += [(f"one of {other}", self.across(split, other)) for other in self._keys if other != split]
        return [f"{share:.1%} are like {name}" for name, share in names]

    def _array(self, split: str) -> np.ndarray:
        return np.frombuffer(self._keys[split], np.uint64) if self._keys[split] else np.empty(0, np.uint64)


def key(record: Mapping[str, Any]) -> int:
    """Equal for records that are near duplicates, in 64 bits."""
    said = "\n".join(
        "".join(block["text"] for block in message["content"] if block["type"] == "text")
        for message in record["messages"]
    )
    return int.from_bytes(hashlib.sha256(likeness_text(said).encode()).digest()[:8], "little")


def likeness_text(text: str) -> str:
    """`text` in lower case without spaces, punctuation and articles, "<" for each thing and ">" for each colour."""
    pattern, classes = _words()
    kept = "".join(char if char.isalnum() or char.isspace() else " " for char in normalise(text))
    marked = pattern.sub(lambda match: classes[match[0]], kept)
    return "".join(_ARTICLE.sub("", marked).split())


@cache
def _words() -> tuple[re.Pattern[str], dict[str, str]]:
    classes = {
        word.lower(): mark
        for part, mark in _CLASSES.items()
        for table in (NAMES, UNDERSTOOD)
        for language in LANGUAGES
        for words in table[language].get(part, {}).values()
        for word in words
    }
    # Chinese words stand without spaces around them.
    long_first = sorted(classes, key=len, reverse=True)
    english = "|".join(re.escape(word) for word in long_first if word.isascii())
    chinese = "|".join(re.escape(word) for word in long_first if not word.isascii())
    return re.compile(rf"\b(?:{english})\b|{chinese}"), classes
