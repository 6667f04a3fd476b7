"""Edits: the changes that a person asks for, as small JSON-able dicts, and the scene that each one leads to.

    python -c "
    import random; from datasets_build.storybook.edits import *; from datasets_build.storybook.scene import sample_scene
    rng = random.Random(1); scene = sample_scene(rng); edit = sample_edit(scene, rng)
    print(edit, apply_edit(scene, edit))"

Every edit names its operation in "op". Subjects are named by index ("subject": 0 or 1, left to right in the scene
that is edited). "?" marks what may be left out:

    entity             subject, kind, colour?              another kind of thing; all the rest stays
    recolour           subject, colour
    resize             subject, size
    move               subject, position                   who stands there already swaps places
    add_subject        kind, colour?, size?, position?, accessories?
    remove_subject     subject
    add_accessory      subject, kind, colour?
    remove_accessory   subject, kind
    recolour_accessory subject, kind, colour
    replace_accessory  subject, old, kind, colour?         the new one has the old one's colour unless named
    background | sky | style | shot                        value
    combine            subject?, other_subject?            with `other`, an older picture: see `_combine`

The rule for accessories: a subject has room for one thing to hold, one thing on top of its head, and two accessories
in all. A newer one takes the place of the one that it excludes (same kind, same hand, same head), and where none is
excluded but both places are taken, of the older (first) one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from datasets_build.storybook.scene import (
    ACCESSORIES,
    BACKGROUNDS,
    COLOURS,
    HEADWEAR,
    HELD,
    KINDS,
    MAX_ACCESSORIES,
    MAX_SUBJECTS,
    NATURAL,
    NATURAL_ACCESSORY_COLOUR,
    POSITIONS,
    SHOTS,
    SIZES,
    SKIES,
    STYLES,
    Accessory,
    Scene,
    Subject,
)

Edit = dict[str, Any]

# Which of the paper's seven edits an operation is; "attribute" is our eighth.
EDIT_GROUP = {
    "entity": "entity",
    "recolour": "attribute",
    "resize": "attribute",
    "move": "attribute",
    "add_subject": "add",
    "remove_subject": "remove",
    "add_accessory": "add",
    "remove_accessory": "remove",
    "recolour_accessory": "attribute",
    "replace_accessory": "attribute",
    "background": "background",
    "sky": "background",
    "style": "style",
    "shot": "shot",
    "combine": "combine",
}

# How often `sample_edit` tries an operation. People mostly add things, recolour them and change the scenery.
WEIGHTS = {
    "entity": 10, "recolour": 12, "resize": 7, "move": 6, "add_subject": 9, "remove_subject": 6, "add_accessory": 14,
    "remove_accessory": 6, "recolour_accessory": 6, "replace_accessory": 3, "background": 12, "sky": 9, "style": 10,
    "shot": 6, "combine": 8,
}  # fmt: skip


def apply_edit(scene: Scene, edit: Mapping[str, Any], other: Scene | None = None) -> Scene:
    """The scene after `edit`. ValueError, saying why, when the world does not hold the result."""
    op = edit.get("op")
    if op not in _APPLY:
        raise ValueError(f"op must be one of {', '.join(_APPLY)}; got {op!r}")
    try:
        return _combine(scene, edit, other) if op == "combine" else _APPLY[op](scene, edit)
    except KeyError as error:
        raise ValueError(f"the edit {op!r} needs {error}") from error


def sample_edit(scene: Scene, rng: random.Random, other: Scene | None = None, ops: Sequence[str] | None = None) -> Edit:
    """A random edit that can be made and changes something; `combine` only where there is an `other` scene.

    `ops` narrows the choice; ValueError when none of them fits the scene."""
    names = list(ops or WEIGHTS)
    for _ in range(200):
        op = rng.choices(names, [WEIGHTS[name] for name in names])[0]
        edit = _sample(op, scene, rng)
        try:
            if edit and apply_edit(scene, edit, other) != scene:
                return edit
        except ValueError:
            continue  # for example a second fox of the same colour
    raise ValueError(f"no edit of {', '.join(names)} fits this scene")


def _subject(scene: Scene, index: Any) -> Subject:
    if not isinstance(index, int) or not 0 <= index < len(scene.subjects):
        raise ValueError(f"the picture has no subject number {index!r}: it has {len(scene.subjects)}")
    return scene.subjects[index]


def _with(scene: Scene, index: int, subject: Subject) -> Scene:
    return replace(scene, subjects=(*scene.subjects[:index], subject, *scene.subjects[index + 1 :]))


def in_order(subjects: Sequence[Subject]) -> tuple[Subject, ...]:
    """Subjects from left to right, as scenes hold them."""
    return tuple(sorted(subjects, key=lambda subject: POSITIONS.index(subject.position)))


def _change(*fields: str) -> Callable[[Scene, Mapping[str, Any]], Scene]:
    """An operation that sets these fields of one subject; those after the first are optional."""

    def apply(scene: Scene, edit: Mapping[str, Any]) -> Scene:
        values = {fields[0]: edit[fields[0]]} | {field: edit[field] for field in fields[1:] if field in edit}
        return _with(scene, edit["subject"], replace(_subject(scene, edit["subject"]), **values))

    return apply


def _move(scene: Scene, edit: Mapping[str, Any]) -> Scene:
    mover, goal = _subject(scene, edit["subject"]), edit["position"]
    moved = []
    for subject in scene.subjects:
        if subject is mover:
            moved.append(replace(subject, position=goal))
        else:
            moved.append(replace(subject, position=mover.position) if subject.position == goal else subject)
    return replace(scene, subjects=in_order(moved))


def _join(scene: Scene, new: Subject, position: str | None) -> Scene:
    """`scene` with one subject more, at `position`, where whoever stands there steps aside, or at a free place."""
    if len(scene.subjects) >= MAX_SUBJECTS:
        raise ValueError(f"the picture has {MAX_SUBJECTS} subjects already, and there is room for no more")
    taken = [subject.position for subject in scene.subjects]
    if position is None:
        position = next(place for place in ("right", "left", "middle") if place not in taken)
    aside = "right" if position == "left" else "left"
    old = [replace(s, position=aside) if s.position == position else s for s in scene.subjects]
    return replace(scene, subjects=in_order([*old, replace(new, position=position)]))


def _accessory(value: Mapping[str, Any]) -> Accessory:
    kind = value["kind"]
    return Accessory(kind, value.get("colour") or NATURAL_ACCESSORY_COLOUR.get(kind, COLOURS[0]))


def _add_subject(scene: Scene, edit: Mapping[str, Any]) -> Scene:
    kind = edit["kind"]
    if kind not in KINDS:
        raise ValueError(f"subject must be one of {', '.join(KINDS)}; got {kind!r}")
    taken = [subject.colour for subject in scene.subjects if subject.kind == kind]
    free = [colour for colour in (NATURAL[kind][0], *COLOURS) if colour not in taken]
    accessories = tuple(_accessory(accessory) for accessory in edit.get("accessories") or ())
    new = Subject(kind, edit.get("colour") or free[0], edit.get("size") or "normal", "middle", accessories)
    return _join(scene, new, edit.get("position"))


def _remove_subject(scene: Scene, edit: Mapping[str, Any]) -> Scene:
    gone = _subject(scene, edit["subject"])
    if len(scene.subjects) == 1:
        raise ValueError(f"the {gone.kind} is the only subject, and a picture needs one")
    return replace(scene, subjects=tuple(subject for subject in scene.subjects if subject is not gone))


def add_accessory(worn: Sequence[Accessory], new: Accessory) -> tuple[Accessory, ...]:
    """`worn` with `new`, which takes the place of what it excludes (the rule stands in the module's docstring)."""
    slot = next((slot for slot in (HELD, HEADWEAR) if new.kind in slot), (new.kind,))
    out = next((i for i, accessory in enumerate(worn) if accessory.kind in slot), None)
    if out is None and len(worn) >= MAX_ACCESSORIES:
        out = 0
    return (*worn, new) if out is None else (*worn[:out], new, *worn[out + 1 :])


def _add_accessory(scene: Scene, edit: Mapping[str, Any]) -> Scene:
    subject = _subject(scene, edit["subject"])
    accessories = add_accessory(subject.accessories, _accessory(edit))
    return _with(scene, edit["subject"], replace(subject, accessories=accessories))


def _alter_accessory(scene: Scene, edit: Mapping[str, Any]) -> Scene:
    """Removes, recolours or replaces one accessory, in its place."""
    subject, op = _subject(scene, edit["subject"]), edit["op"]
    old_kind = edit["old"] if op == "replace_accessory" else edit["kind"]
    at = next((i for i, accessory in enumerate(subject.accessories) if accessory.kind == old_kind), None)
    if at is None:
        raise ValueError(f"the {subject.kind} has no {old_kind}")
    old, rest = subject.accessories[at], subject.accessories[:at] + subject.accessories[at + 1 :]
    if op == "remove_accessory":
        accessories = rest
    elif op == "recolour_accessory":
        accessories = (*rest[:at], Accessory(old.kind, edit["colour"]), *rest[at:])
    else:
        accessories = (*rest[:at], Accessory(edit["kind"], edit.get("colour") or old.colour), *rest[at:])
    return _with(scene, edit["subject"], replace(subject, accessories=accessories))


def _sky(scene: Scene, edit: Mapping[str, Any]) -> Scene:
    return replace(scene, sky=edit["value"])


def _background(scene: Scene, edit: Mapping[str, Any]) -> Scene:
    return scene.with_background(edit["value"])


def _style(scene: Scene, edit: Mapping[str, Any]) -> Scene:
    return replace(scene, style=edit["value"])


def _shot(scene: Scene, edit: Mapping[str, Any]) -> Scene:
    return replace(scene, shot=edit["value"])


def _combine(scene: Scene, edit: Mapping[str, Any], other: Scene | None) -> Scene:
    """One subject of `scene`, the newer picture, and one of `other` together in the newer picture.

    Which ones may be left out where a picture has only one. Both keep their places; where that is one place,
    the older picture's subject goes to a free one."""
    if other is None:
        raise ValueError("combining needs a second picture")
    picked = []
    for name, picture in (("subject", scene), ("other_subject", other)):
        if name not in edit and len(picture.subjects) > 1:
            raise ValueError(f"a picture holds {MAX_SUBJECTS} subjects: say in {name!r} which one to take")
        picked.append(_subject(picture, edit.get(name, 0)))
    newer, older = picked
    place = older.position if older.position != newer.position else None
    return _join(replace(scene, subjects=(newer,)), older, place)


_APPLY: dict[str, Callable[..., Scene]] = {
    "entity": _change("kind", "colour"),
    "recolour": _change("colour"),
    "resize": _change("size"),
    "move": _move,
    "add_subject": _add_subject,
    "remove_subject": _remove_subject,
    "add_accessory": _add_accessory,
    "remove_accessory": _alter_accessory,
    "recolour_accessory": _alter_accessory,
    "replace_accessory": _alter_accessory,
    "background": _background,
    "sky": _sky,
    "style": _style,
    "shot": _shot,
    "combine": _combine,
}


def _sample(op: str, scene: Scene, rng: random.Random) -> Edit | None:
    """An edit of one operation, which may turn out to be impossible or to change nothing."""
    values = {"background": BACKGROUNDS, "sky": SKIES, "style": STYLES, "shot": SHOTS}
    if op in values:
        return {"op": op, "value": rng.choice(values[op])}
    if op == "combine":
        return {"op": op, "subject": rng.randrange(len(scene.subjects)), "other_subject": rng.randrange(MAX_SUBJECTS)}
    if op == "add_subject":
        optional = {
            "colour": rng.choice(COLOURS) if rng.random() < 0.8 else None,
            "size": rng.choice(SIZES) if rng.random() < 0.3 else None,
            "position": _free_place(scene, rng) if rng.random() < 0.4 else None,
        }
        return {"op": op, "kind": rng.choice(KINDS)} | {key: value for key, value in optional.items() if value}
    index = rng.randrange(len(scene.subjects))
    edit: Edit = {"op": op, "subject": index}
    if op == "remove_subject":
        return edit
    worn = [accessory.kind for accessory in scene.subjects[index].accessories]
    if op == "entity":
        edit["kind"] = rng.choice(KINDS)
        if rng.random() < 0.3:
            edit["colour"] = rng.choice(COLOURS)
        return edit if edit["kind"] != scene.subjects[index].kind else None
    if op in ("recolour", "resize", "move"):
        fields = {"recolour": ("colour", COLOURS), "resize": ("size", SIZES), "move": ("position", POSITIONS)}
        field, choice = fields[op]
        return edit | {field: rng.choice(choice)}
    if op == "add_accessory":
        kind = rng.choice(ACCESSORIES)
        colour = {"colour": rng.choice(COLOURS)} if rng.random() < 0.85 else {}
        return edit | {"kind": kind} | colour if kind not in worn else None
    if not worn:
        return None
    old = rng.choice(worn)
    if op == "remove_accessory":
        return edit | {"kind": old}
    if op == "recolour_accessory":
        return edit | {"kind": old, "colour": rng.choice(COLOURS)}
    kind = rng.choice(ACCESSORIES)
    colour = {"colour": rng.choice(COLOURS)} if rng.random() < 0.7 else {}
    return edit | {"old": old, "kind": kind} | colour if kind not in worn else None


def _free_place(scene: Scene, rng: random.Random) -> str:
    taken = [subject.position for subject in scene.subjects]
    return rng.choice([place for place in POSITIONS if place not in taken])
