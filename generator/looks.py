"""Two figures about a drawn picture, for the people who look at it: how much is as it was in the picture before, and
how much of what the prompt names is there. The inspector looks; both are estimates.

    before, after = inspector.read([picture, edited]); consistency(before, after)
    seen(after).intersection(asked("A red fox in the snow.", inspector.labels))

They stand where others put CLIP-I and CLIP-T (arXiv 2104.08718): the inspector knows one small world, and knows it
better than a small CLIP would. Of a prompt, it knows the English words of its own labels, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Attributes = dict[tuple[str, ...], str]
Labels = Mapping[str, Sequence[str]]
Scene = Mapping[str, Any]
WHOLE = ("background", "sky", "style", "shot")  # attributes of the picture; the others belong to a subject
UNSAID = ("normal", "middle")  # labels that are no words of a prompt


def attributes(scene: Scene) -> Attributes:
    """A scene in JSON form, flat: {("subject", "left", "colour"): "red", …, ("sky",): "night"}."""
    return dict(_attributes(scene))


def consistency(before: Scene, after: Scene) -> float:
    """The share of all that is seen in either picture that is the same in both, 0 to 1."""
    old, new = attributes(before), attributes(after)
    names = {**old, **new}
    return sum(old.get(name) == new.get(name) for name in names) / len(names)


def asked(prompt: str, labels: Labels) -> list[tuple[str, ...]]:
    """What of the inspector's world the prompt names: ("snow",), or ("red", "fox") where a colour has its thing."""
    things = (*labels["kind"], *labels["accessory"])
    words = {word for values in labels.values() for word in values if word not in UNSAID}
    colours = "|".join(map(re.escape, labels["colour"]))
    pairs = rf"({colours}) ({'|'.join(map(re.escape, things))})"
    alone = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    found = re.findall(rf"\b(?:{pairs}|({alone}))\b", prompt.lower())
    return list(dict.fromkeys(tuple(word for word in match if word) for match in found))


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
