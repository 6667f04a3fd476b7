"""The same conversation about other things: the kinds and colours in its words, and in what they mean, exchanged.

    turns = [{"said": "a red fox pls", "draw": "a red fox"}, {"said": "now blue", "edit": "a blue fox"}]
    swapped(turns, "en", random.Random(1))  # "a green dog pls", "now white"

People say the same of a dog as of a fox. A model that reads a conversation several times learns so from it how things
are said, and not of what they were once said (counterfactual augmentation, Kaushik et al. 2020, arXiv 1909.12434).

A value is only exchanged where every word that names it is plain. "A frosty fellow", "man's best friend" or "as green
as its tree" stay what they are, and so do values that a message means and does not name.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets_build.storybook.scene import COLOURS
from datasets_build.storybook.vocabulary import NAMES, UNDERSTOOD

Turn = Mapping[str, Any]

# Kinds of which people say the same: the others fly, sail, or melt.
ALIKE = ("cat", "dog", "rabbit", "fox", "turtle", "panda")
MEANT = ("draw", "edit", "shows")  # keys in plain English words, whatever the user's language
SPOKEN = ("said", "answer", "accept", "refuse", "talk")
# Words that give a kind away, or are made of one: who barks stays a dog.
_TELLING = {
    "en": {
        "cat": "kit|puss|meow|purr|feline", "dog": "pup|hound|bark|woof|canine|leash", "rabbit": "bunn|hare|hop|carrot",
        "fox": "vixen", "turtle": "tortoise|shell", "panda": "bamboo",
    },
    "zh": {
        "cat": "喵|咪|猫头|鱼干", "dog": "汪|犬|旺|骨头", "rabbit": "兔|萝卜", "fox": "狐", "turtle": "龟|壳",
        "panda": "滚滚|竹|熊",
    },
}  # fmt: skip
_NOUNS = "[的色]|(?=[小大]?(?:猫|狗|兔|狐|鸟|鱼|乌|蝴|汽|火|帆|房|城|宝|树|花|蛋|灯|帽|围|眼|王|皇|气|雨伞|伞|裙|衣))"


def swapped(turns: Sequence[Turn], language: str, rng: random.Random) -> list[dict[str, Any]] | None:
    """The conversation about other things; None where nothing in it can be exchanged."""
    words: dict[str, str] = {}  # English value -> another
    for part, values in (("kind", ALIKE), ("colour", COLOURS)):
        plain = [value for value in values if _is_plain(part, value, turns, language)]
        free = [value for value in values if value in plain or not _is_mentioned(part, value, turns, language)]
        words |= dict(zip(plain, rng.sample(free, len(plain)), strict=True))
    if all(value == other for value, other in words.items()):
        return None

    def exchanged(text: str, key: str) -> str:
        return _exchanged(text, words, "en" if key in MEANT else language)

    return [
        {
            key: [exchanged(text, key) for text in value] if isinstance(value, list) else exchanged(value, key)
            for key, value in turn.items()
        }
        for turn in turns
    ]


def _texts(turn: Turn, keys: Sequence[str]) -> Iterator[str]:
    for key in keys:
        value = turn.get(key, ())
        yield from [value] if isinstance(value, str) else value


def _is_mentioned(part: str, value: str, turns: Sequence[Turn], language: str) -> bool:
    """Whether anything in the conversation could be of this value."""
    said = " ".join(text for turn in turns for text in _texts(turn, SPOKEN)).lower()
    meant = " ".join(text for turn in turns for text in _texts(turn, MEANT))
    names = [*NAMES[language][part][value], *UNDERSTOOD[language].get(part, {}).get(value, ())]
    stems = [re.escape(word[0] if language == "zh" and part == "colour" else word.lower()) for word in names]
    telling = [_TELLING[language][value]] if part == "kind" else []
    return re.search(rf"\b{value}", meant) is not None or re.search("|".join(stems + telling), said) is not None


def _is_plain(part: str, value: str, turns: Sequence[Turn], language: str) -> bool:
    """Whether the conversation means this value, and each time says so in its plainest word and in no other."""
    said = [" ".join(_texts(turn, SPOKEN)).lower() for turn in turns]
    plain = re.compile(_plainest(value, language))
    rest = " ".join(plain.sub("", text) for text in said)
    names = [*NAMES[language][part][value], *UNDERSTOOD[language].get(part, {}).get(value, ())]
    others = [re.escape(word[0] if language == "zh" and part == "colour" else word.lower()) for word in names]
    if part == "kind":
        others.append(_TELLING[language][value])
    if re.search("|".join(others), rest):
        return False
    seen = meant = False
    for turn, text in zip(turns, said, strict=True):
        seen = seen or plain.search(text) is not None
        if any(re.search(rf"\b{value}\b", words) for words in _texts(turn, MEANT)):
            if not seen:
                return False  # it is meant before it is named
            meant = True
    return meant


def _plainest(value: str, language: str) -> str:
    """A pattern of the word that names a value: its group "word" is what is exchanged."""
    if language == "en":
        return rf"\b(?P<word>{value})\b"
    if value in COLOURS:
        return rf"(?P<word>{_chinese(value)})(?:{_NOUNS})"
    return rf"(?P<word>{_chinese(value)})"


def _chinese(value: str) -> str:
    """猫, 狐狸; of a colour its first character."""
    return NAMES["zh"]["colour"][value][0][0] if value in COLOURS else NAMES["zh"]["kind"][value][0]


def _exchanged(text: str, words: Mapping[str, str], language: str) -> str:
    if not words:
        return text
    if language == "zh":
        other = {_chinese(value): _chinese(new) for value, new in words.items()}
        pattern = "|".join(_plainest(value, language).replace("?P<word>", "") for value in words)
        return re.sub(pattern, lambda match: _in_chinese(match[0], other), text)
    pattern = rf"\b(?P<article>an? )?(?P<word>{'|'.join(words)})\b"
    return re.sub(pattern, lambda match: _in_english(match, words), text, flags=re.IGNORECASE)


def _in_chinese(found: str, other: Mapping[str, str]) -> str:
    old = next(word for word in other if found.startswith(word))
    return other[old] + found[len(old) :]


def _in_english(match: re.Match[str], words: Mapping[str, str]) -> str:
    new = words[match["word"].lower()]
    if match["word"].isupper():
        new = new.upper()
    elif match["word"][0].isupper():
        new = new.capitalize()
    if not match["article"]:
        return new
    article = match["article"][0] + ("n " if new[0].lower() in "aeiou" else " ")
    return article + new
