"""Reads text about pictures: refined prompts exactly, anything else as far as it uses the world's words; en and zh.

    python -c "from datasets_build.storybook.reading import *; print(read_prompt('A pencil sketch of a huge cat'))"

The text is scanned for every word of the vocabulary, longest first; then colours and sizes go to the noun that follows
them, accessories to their subject, and positions to the subjects in turn. All else is ignored, so that the reader
needs no grammar of its own for each phrasing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from itertools import permutations, product
from typing import Any, NamedTuple

from datasets_build.storybook.edits import in_order
from datasets_build.storybook.language import N_TEMPLATES, Partial, write_prompt
from datasets_build.storybook.scene import (
    COLOURS,
    MAX_SUBJECTS,
    NATURAL,
    NATURAL_ACCESSORY_COLOUR,
    Accessory,
    Scene,
    Subject,
)
from datasets_build.storybook.vocabulary import LANGUAGES, NAMES, PHRASES, UNDERSTOOD, normalise

_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_CLAUSE_END = re.compile(r"[,.;:，。；：！!？?]")
_AGAIN = {  # just before a noun: it speaks of something that may have been named already
    "en": re.compile(r"\b(?:the|this|that) (?:(?!an? )[a-z-]+ ){0,2}\Z"),
    "zh": re.compile(r"[这那]\S{0,4}\Z"),
}
_IS_IN = re.compile(" (?:dressed )?in (?:an? )?")  # between a girl and her colour
_WEARS = re.compile(" (?:(?:dressed )?in|wearing|with) (?:an? )?")  # between her and a dress of a colour
_REACH = {"en": 20, "zh": 4}  # how many characters a colour or size may stand before its noun


class _Hit(NamedTuple):
    attribute: str
    value: str
    start: int
    end: int


def language_of(text: str) -> str:
    """ "zh" for a text with any Chinese character, else "en"."""
    return "zh" if _CHINESE.search(text) else "en"


@cache
def _words(language: str) -> tuple[dict[str, tuple[str, str]], re.Pattern[str]]:
    """Every word of a language with what it means, and the pattern that finds them, longest first."""
    meaning: dict[str, tuple[str, str]] = {}
    for table in (NAMES, PHRASES, UNDERSTOOD):
        for attribute, values in table[language].items():
            for value, words in values.items():
                attribute = "style" if attribute in ("picture", "manner") else attribute
                meaning |= {word: (attribute, value) for word in words}
    by_length = "|".join(re.escape(word) for word in sorted(meaning, key=len, reverse=True))
    return meaning, re.compile(rf"(?<![a-z])(?:{by_length})(?=e?s?(?![a-z]))" if language == "en" else by_length)


def _scan(text: str, language: str) -> list[_Hit]:
    meaning, pattern = _words(language)
    return [_Hit(*meaning[match[0]], *match.span()) for match in pattern.finditer(text)]


def read_partial(text: str) -> Partial:
    """What `text` says, as a partial scene (see `language.partial`); "subjects" may be empty, or more than two."""
    language, text = language_of(text), normalise(text)
    hits = _scan(text, language)
    asked: Partial = {"subjects": []}
    subjects: list[Partial] = asked["subjects"]
    waiting: list[Partial] = []  # accessories whose owner is still to come
    places: list[tuple[_Hit, int]] = []
    modifiers: Partial = {}
    current, reach = -1, 0
    for i, hit in enumerate(hits):
        if hit.start - reach > _REACH[language]:
            modifiers = {}
        if hit.attribute in ("colour", "size"):
            if _is_dress(text, hits, i) and current >= 0:
                subjects[current]["colour"] = hit.value
            else:
                modifiers[hit.attribute], reach = hit.value, hit.end
            continue
        if hit.attribute == "kind":
            again = _AGAIN[language].search(text, 0, hit.start) is not None
            current = _meet(subjects, {"kind": hit.value, **modifiers}, again)
            if waiting:
                subjects[current]["accessories"], waiting = waiting, []
        elif hit.attribute == "accessory":
            accessory = {"kind": hit.value} | ({"colour": modifiers["colour"]} if "colour" in modifiers else {})
            if current < 0 or (language == "zh" and _stands_before_owner(text, hits, i)):
                waiting.append(accessory)
            else:
                subjects[current].setdefault("accessories", []).append(accessory)
        elif hit.attribute == "position":
            places.append((hit, current))
        else:
            asked.setdefault(hit.attribute, hit.value)
        modifiers = {}
    _place(subjects, places, text, language, hits)
    return asked


def _is_dress(text: str, hits: list[_Hit], i: int) -> bool:
    """Whether hit `i` is the colour in "a girl in pink" or "in a pink dress", and not in "a girl in a pink hat"."""
    if i == 0 or hits[i].attribute != "colour" or hits[i - 1].value != "girl":
        return False
    after = hits[i + 1] if i + 1 < len(hits) else None
    worn = after is not None and after.attribute == "accessory" and after.start - hits[i].end <= 1
    pattern = _WEARS if text.startswith(" dress", hits[i].end) else _IS_IN
    return not worn and pattern.fullmatch(text, hits[i - 1].end, hits[i].start) is not None


def _stands_before_owner(text: str, hits: list[_Hit], i: int) -> bool:
    """Whether the Chinese accessory `i`, or the last of its list, is followed by 的: 戴着帽子、拿着气球的狐狸."""
    last = i
    for j in range(i + 1, len(hits)):
        if _CLAUSE_END.search(text, hits[j - 1].end, hits[j].start) or hits[j].attribute not in ("colour", "accessory"):
            break
        if hits[j].attribute == "accessory":
            last = j
    return text.startswith("的", hits[last].end) or text.startswith(("、穿", "，穿"), hits[last].end)


def _meet(subjects: list[Partial], new: Partial, again: bool) -> int:
    """The index of a subject that the text names: "the fox" (`again`) is the fox that it named before."""
    for i, subject in enumerate(subjects):
        if again and subject["kind"] == new["kind"] and new.get("colour") in (None, subject.get("colour")):
            return i
    subjects.append(new)
    return len(subjects) - 1


def _place(subjects: list[Partial], places: list[tuple[_Hit, int]], text: str, language: str, hits: list[_Hit]) -> None:
    """Gives positions to subjects: in turn if there are as many, else each to the subject that it stands beside."""
    if len(places) == len(subjects):
        places = [(hit, i) for i, (hit, _) in enumerate(places)]
    elif language == "zh":  # 左边(有)一只狐狸: the subject follows in the same clause, or came before
        places = [(hit, owner + 1 if _leads(hit, hits, text) else owner) for hit, owner in places]
    for hit, owner in places:
        if subjects and owner < len(subjects):
            subjects[max(owner, 0)].setdefault("position", hit.value)


def _leads(place: _Hit, hits: list[_Hit], text: str) -> bool:
    following = next((hit for hit in hits if hit.start >= place.end and hit.attribute == "kind"), None)
    return following is not None and not _CLAUSE_END.search(text, place.end, following.start)


def complete(asked: Mapping[str, Any]) -> Scene:
    """The scene that a partial one asks for; what it leaves open is what comes naturally, always the same.

    ValueError where the world has no such scene (no subject, three of them, a sunny day in space)."""
    wanted = asked.get("subjects") or ()
    if not 1 <= len(wanted) <= MAX_SUBJECTS:
        raise ValueError(f"a scene has 1 to {MAX_SUBJECTS} subjects; got {len(wanted)}")
    subjects: list[Subject] = []
    places = _free_places([subject.get("position") for subject in wanted])
    for subject, place in zip(wanted, places, strict=True):
        kind = subject["kind"]
        if kind not in NATURAL:
            raise ValueError(f"the world holds no {kind!r}")
        taken = [other.get("colour") for other in wanted if other is not subject and other["kind"] == kind]
        taken += [done.colour for done in subjects if done.kind == kind]
        colour = subject.get("colour") or next(c for c in (NATURAL[kind][0], *COLOURS) if c not in taken)
        accessories = tuple(
            Accessory(a["kind"], a.get("colour") or NATURAL_ACCESSORY_COLOUR.get(a["kind"], COLOURS[0]))
            for a in subject.get("accessories") or ()
        )
        subjects.append(Subject(kind, colour, subject.get("size") or "normal", place, accessories))
    sky, background = asked.get("sky"), asked.get("background") or NATURAL[subjects[0].kind][1]
    if background == "space" and not asked.get("background") and sky not in (None, "night"):
        background = "city"  # a rocket in the rain has not left yet
    sky = sky or ("night" if background == "space" else "day")
    return Scene(in_order(subjects), background, sky, asked.get("style") or "flat", asked.get("shot") or "normal")


def _free_places(wanted: list[str | None]) -> list[str]:
    """A position for each subject: the middle for one, left and right for two, around those that are asked for."""
    if len(wanted) == 1:
        return [wanted[0] or "middle"]
    if wanted[0] is None and wanted[1] is None:
        return ["left", "right"]
    order = ("left", "right", "middle") if wanted[0] is None else ("right", "left", "middle")
    free = next(place for place in order if place not in wanted)
    return [place or free for place in wanted]


def read_prompt(text: str) -> Scene | None:
    """The scene of a prompt, exactly for every refined prompt; None where it names no scene of this world."""
    try:
        return complete(read_partial(text))
    except ValueError:
        return None


def find_template(text: str) -> tuple[str, int] | None:
    """Language and template of a refined prompt; None for text that `write_prompt` would not write.

    So the minimally edited prompt is write_prompt(apply_edit(read_prompt(old), edit), *find_template(old))."""
    scene, wanted = read_prompt(text), normalise(text)
    if scene is None:
        return None
    forms = product(LANGUAGES, range(N_TEMPLATES))
    return next((form for form in forms if normalise(write_prompt(scene, *form)) == wanted), None)


def matches(asked: Mapping[str, Any], scene: Scene, exactly: bool = False) -> bool:
    """Whether `scene` holds all that a partial scene asks for, in any order, and no subject more or fewer.

    `exactly`: nor does anybody wear or hold more than was asked for."""
    if any(asked.get(part) not in (None, getattr(scene, part)) for part in ("background", "sky", "style", "shot")):
        return False
    wanted = asked.get("subjects") or ()
    return len(wanted) == len(scene.subjects) and any(
        all(_is(want, subject, exactly) for want, subject in zip(wanted, order, strict=True))
        for order in permutations(scene.subjects)
    )


def _is(want: Mapping[str, Any], subject: Subject, exactly: bool) -> bool:
    if any(want.get(part) not in (None, getattr(subject, part)) for part in ("kind", "colour", "size", "position")):
        return False
    worn = {accessory.kind: accessory.colour for accessory in subject.accessories}
    asked = want.get("accessories") or ()
    if exactly and len(asked) < len(worn):
        return False
    return all(a["kind"] in worn and a.get("colour") in (None, worn[a["kind"]]) for a in asked)
