"""Two figures about a drawn picture, for the people who look at it: how much is as it was in the picture before, and
how much of what the prompt names is there. The inspector looks; both are estimates.

    before, after = inspector.read([picture, edited]); consistency(before, after)
    seen(after).intersection(asked("A red fox in the snow.", inspector.words))

They stand where others put CLIP-I and CLIP-T (arXiv 2104.08718): the inspector knows one small world, and knows it
better than a small CLIP would. Of a prompt, it knows the words for its own labels, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Attributes = dict[tuple[str, ...], str]
Words = Mapping[str, tuple[str, str]]  # what they mean: an attribute and its label
Scene = Mapping[str, Any]
WHOLE = ("background", "sky", "style", "shot")  # attributes of the picture; the others belong to a subject
UNSAID = ("normal", "middle")  # labels that a prompt need not name
THINGS = ("kind", "accessory")
BESIDE = ("", " ", "的")  # between a colour and its thing


def attributes(scene: Scene) -> Attributes:
    """A scene in JSON form, flat: {("subject", "left", "colour"): "red", …, ("sky",): "night"}."""
    return dict(_attributes(scene))


def consistency(before: Scene, after: Scene) -> float:
    """The share of all that is seen in either picture that is the same in both, 0 to 1."""
    old, new = attributes(before), attributes(after)
    names = {**old, **new}
    return sum(old.get(name) == new.get(name) for name in names) / len(names)


def asked(prompt: str, words: Words) -> list[tuple[str, ...]]:
    """What of the inspector's world the prompt names: ("snow",), or ("red", "fox") where a colour has its thing."""
    prompt = prompt.lower()
    by_length = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    matches = list(re.finditer(rf"(?<![a-z])(?:{by_length})(?![a-z])", prompt))
    meant = [words[match[0]] for match in matches]
    found: list[tuple[str, ...]] = []
    colour, since = "", 0  # one that waits for its thing
    for (attribute, value), match in zip(meant, matches, strict=True):
        between = prompt[since : match.start()]
        if colour and attribute == "size" and between in BESIDE:
            found.append((value,))  # 红色大蝴蝶
            since = match.end()
            continue
        if colour and attribute in THINGS and between in BESIDE:
            found.append((colour, value))
        elif attribute != "colour":
            found += [(colour,), (value,)] if colour else [(value,)]
        elif colour:
            found.append((colour,))
        colour, since = (value, match.end()) if attribute == "colour" else ("", 0)
    if colour:
        found.append((colour,))
    return list(dict.fromkeys(one for one in found if one[0] not in UNSAID))


def seen(scene: Scene) -> set[tuple[str, ...]]:
    """What is in the picture, in the form of `asked`."""
    subjects = scene["subjects"]
    things = [(one["colour"], one["kind"]) for subject in subjects for one in (subject, *subject["accessories"])]
    words = [word for thing in things for word in thing]
    words += [subject[name] for subject in subjects for name in ("size", "position")] + [scene[name] for name in WHOLE]
    return {*things, *((word,) for word in words)}


def _attributes(scene: Scene) -> Iterator[tuple[tuple[str, ...], str]]:
    for subject in scene["subjects"]:
        place = ("subject", subject["position"])
        yield from (((*place, name), subject[name]) for name in ("kind", "colour", "size"))
        for accessory in subject["accessories"]:
            yield (*place, accessory["kind"]), accessory["colour"]
    yield from (((name,), scene[name]) for name in WHOLE)
