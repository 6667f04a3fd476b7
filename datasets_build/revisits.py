"""How users come back: to an earlier picture, to what they just said wrongly, and to the other one of two things.

    which, drawing = name_picture(speaker, table)         # "the fox picture", 第二张
    edit, words = corrected(speaker, scene, edit)         # "No, I meant the left one."

Right after an edit that went wrong, a correction is made of the picture before that edit, and not on top of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from datasets_build.banks import Speaker, bank
from datasets_build.changes import the_accessory
from datasets_build.records import NoSample
from datasets_build.references import called, refer
from datasets_build.storybook.edits import Edit, apply_edit, sample_edit
from datasets_build.storybook.language import accessory_phrase, describe_subjects, noun_phrase, partial_subject
from datasets_build.storybook.scene import ACCESSORIES, Scene, Subject
from datasets_build.storybook.vocabulary import MEASURES, name, phrase
from datasets_build.surface import sentence
from datasets_build.table import Drawing, Table

# Edits that need not say which of two subjects they mean, though they mean one.
OF_ONE = (
    "entity", "recolour", "resize", "move", "remove_subject", "add_accessory", "remove_accessory",
    "recolour_accessory", "replace_accessory",
)  # fmt: skip
VAGUE = ("entity", "recolour", "resize", "move", "add_accessory")  # of them, those that a bare "it" leaves open
OF_BOTH = ("recolour", "resize", "add_accessory")
OF_EACH = ("recolour", "add_accessory")
_THE = {"en": "the", "zh": ""}
VALUED = ("background", "sky", "style", "shot")
# What users get wrong about an edit, beside the subject: all else of it stays as it was asked for.
CORRECTED = {
    "entity": ("kind",), "recolour": ("colour",), "resize": ("size",), "move": ("position",), "add_subject": ("kind",),
    "add_accessory": ("kind", "colour"), "remove_accessory": ("kind",),
    "recolour_accessory": ("colour",), "replace_accessory": ("kind",), "background": ("value",), "sky": ("value",),
    "style": ("value",), "shot": ("value",),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------ earlier pictures


def name_picture(speaker: Speaker, table: Table) -> tuple[str, Drawing]:
    """An earlier drawing that differs from the latest picture, and what this user calls it: by number or subject."""
    rng = speaker.rng
    brought = any(drawing.turn is None for drawing in table.drawings)
    brought = brought or any(exchange.uploads for exchange in table.exchanges)  # then no one knows which is the second
    named = [
        *((number, "", drawing) for number, drawing in table.earlier() if not brought),
        *((0, kind, drawing) for kind, drawing in _by_kind(table)),
    ]
    if not named:
        raise NoSample
    # Subjects come to mind before numbers do.
    number, kind, drawing = rng.choices(named, [1 if number else 3 for number, _, _ in named])[0]
    if kind:
        subject = next(subject for subject in drawing.scene.subjects if subject.kind == kind)
        said = {"kind": kind} | ({"colour": subject.colour} if rng.random() < 0.2 else {})
        noun = noun_phrase(said, speaker.language, rng, article="")
        return speaker.pick("revisits", "which", "kind").format(kind=noun), drawing
    if number == 1 and rng.random() < 0.4:
        return speaker.pick("revisits", "which", "first"), drawing
    ordinal = bank("revisits", speaker.language)["which"]["ordinals"][number - 1]
    n = number if speaker.language == "en" or rng.random() < 0.2 else ordinal
    return speaker.pick("revisits", "which", "number").format(nth=ordinal, n=n), drawing


def _by_kind(table: Table) -> list[tuple[str, Drawing]]:
    """The latest drawing of each earlier picture, by each kind of thing that no other picture ever showed."""
    latest = {drawing.root: drawing for drawing in table.drawings}
    kinds = {
        root: {subject.kind for drawing in table.drawings if drawing.root == root for subject in drawing.scene.subjects}
        for root in latest
    }
    found = []
    for root, drawing in latest.items():
        others = set().union(*(seen for other, seen in kinds.items() if other != root))
        if root != table.current.root and drawing.turn is not None and drawing.scene != table.current.scene:
            found += [(s.kind, drawing) for s in drawing.scene.subjects if s.kind not in others]
    return found


def what_else(edit: Mapping[str, str], speaker: Speaker) -> str:
    """The value of an edit of the whole picture after "but": "at night", "in watercolour" / 夜晚, 水彩风格."""
    op, value, language, rng = edit["op"], edit["value"], speaker.language, speaker.rng
    if language == "zh":
        return name(value, "zh", rng, op) + ("风格" if op == "style" else "")
    if op == "shot":
        said = name(value, "en", rng, "shot")
        return f"as a {said}"
    return phrase("manner" if op == "style" else op, value, "en", rng)


# ------------------------------------------------------------------------------------------------------- corrections


def corrected(speaker: Speaker, scene: Scene, wrong: Edit) -> tuple[Edit, str]:
    """What was meant instead of the edit `wrong` of `scene`, and how it is said; a scene of the speaker's split."""
    only = wrong["op"] == "remove_subject"
    if wrong["op"] in OF_ONE and len(scene.subjects) > 1 and (only or speaker.rng.random() < 0.7):
        edit = {**wrong, "subject": 1 - wrong["subject"]}
        _require(scene, edit, wrong, speaker)
        return edit, _said(speaker, "subject", it=_which_one(speaker, scene, edit["subject"]))
    for _ in range(40):
        try:
            other = sample_edit(scene, speaker.rng, ops=(wrong["op"],))
        except ValueError as error:
            raise NoSample from error
        part = speaker.rng.choice(CORRECTED[wrong["op"]])
        if part not in other or other[part] == wrong.get(part) or other.get("subject") != wrong.get("subject"):
            continue
        edit = wrong | {part: other[part]}
        with contextlib.suppress(NoSample):
            _require(scene, edit, wrong, speaker)
            return edit, _said(speaker, "value", x=meant(speaker, scene, edit))
    raise NoSample


def _said(speaker: Speaker, path: str, **slots: str) -> str:
    text = speaker.pick("revisits", "correct", path).format(**slots)
    return sentence(text) if speaker.language == "en" else text


def _require(scene: Scene, edit: Edit, wrong: Edit, speaker: Speaker) -> None:
    """NoSample, unless the edit can be made, and leads elsewhere and to a scene of the split."""
    try:
        meant = apply_edit(scene, edit)
    except ValueError as error:
        raise NoSample from error
    if meant in (scene, apply_edit(scene, wrong)) or meant.split != speaker.split:
        raise NoSample


def _which_one(speaker: Speaker, scene: Scene, index: int) -> str:
    if speaker.rng.random() < 0.25:
        return call(speaker, scene, index, "other")["it"]
    return refer(scene, index, speaker.language, speaker.rng)["it"]


def meant(speaker: Speaker, scene: Scene, edit: Edit) -> str:
    """The value of an edit by itself: "blue", "a crown", "on the left"."""
    op, language, rng = edit["op"], speaker.language, speaker.rng
    if op in ("recolour", "recolour_accessory"):
        return name(edit["colour"], language, rng, "colour")
    if op in ("background", "sky") and language == "en":
        return phrase(op, edit["value"], "en", rng)
    if op == "style":
        style = name(edit["value"], language, rng, "style")
        return f"{style}风格" if language == "zh" else style
    if op in VALUED:
        return name(edit["value"], language, rng, op)
    if op == "resize":
        if language == "zh":
            words = bank("edits", "zh")["far"].get(edit["size"], ["正常大小", "普通大小", "一般大小"])
            return rng.choice(words)
        return name(edit["size"], "en", rng, "size")
    if op == "move":
        return name(edit["position"], language, rng, "position")
    if op == "remove_accessory":
        return the_accessory(edit["kind"], speaker)
    thing = {"kind": edit["kind"], "colour": edit.get("colour")}
    if op == "entity":
        return noun_phrase(thing, language, rng)
    if op == "add_subject":
        return describe_subjects([thing | {"size": edit.get("size")}], language, rng)
    return accessory_phrase(thing, language, rng)


# -------------------------------------------------------------------------------------------------- what was taken away


def taken_away(speaker: Speaker, table: Table, op: str) -> tuple[Edit, str] | None:
    """The edit of the latest picture that brings back what an edit took away from it last, and that thing's name.

    None where there is none, or where nobody could say whose it was."""
    now, root = table.current.scene, table.current.root
    request = _last_removal(table, root, {"add_accessory": "remove_accessory", "add_subject": "remove_subject"}[op])
    if request is None:
        return None
    gone = Scene.from_json(request["base"]).subjects[request["edit"]["subject"]]
    if op == "add_subject":
        edit = {"op": op} | partial_subject(gone)
        if gone.position in {subject.position for subject in now.subjects}:
            del edit["position"]
        return edit, _named(gone.kind, speaker)
    kind = request["edit"]["kind"]
    owners = [i for i, subject in enumerate(now.subjects) if subject.kind == gone.kind]
    if len(owners) != 1 or any(kind == worn.kind for subject in now.subjects for worn in subject.accessories):
        return None
    colour = next(worn.colour for worn in gone.accessories if worn.kind == kind)
    return {"op": op, "subject": owners[0], "kind": kind, "colour": colour}, the_accessory(kind, speaker)


def _last_removal(table: Table, root: int, op: str) -> Mapping[str, Any] | None:
    """The latest request of a single edit `op` that led to a picture of this root."""
    for drawing in reversed(table.drawings):
        if drawing.root == root and drawing.turn is not None:
            request = table.exchanges[drawing.turn].request
            if request and request["op"] == "edit" and "then" not in request and request["edit"]["op"] == op:
                return request
    return None


def undone(speaker: Speaker, base: Scene, request: Mapping[str, Any]) -> str:
    """An undo of the edit that led here from `base`, by what it was about: "the fox was nicer", "better without".

    "" where there is nothing of the kind to say."""
    if request["op"] != "edit" or "then" in request or Scene.from_json(request["base"]) != base:
        return ""
    edit, op = request["edit"], request["edit"]["op"]
    subject, old = base.subjects[edit.get("subject", 0)], ""
    if op == "add_subject" or (op == "add_accessory" and _grows(base, edit)):
        new = _named(edit["kind"], speaker)
    elif op == "entity":
        old, new = _named(subject.kind, speaker), _named(edit["kind"], speaker)
    elif op == "replace_accessory":
        old, new = _named(edit["old"], speaker), _named(edit["kind"], speaker)
    elif op == "recolour":
        old, new = _value("colour", subject.colour, speaker), _value("colour", edit["colour"], speaker)
    elif op in ("background", "style"):
        old, new = _value(op, getattr(base, op), speaker), _value(op, edit["value"], speaker)
    else:
        return ""
    path = "replaced" if old else "added"
    text = speaker.pick("revisits", "undone", path).format(old=old, new=new)
    return sentence(text) if speaker.language == "en" else text


def _grows(base: Scene, edit: Edit) -> bool:
    """Whether what an edit puts on takes no other thing's place."""
    before, after = (scene.subjects[edit["subject"]].accessories for scene in (base, apply_edit(base, edit)))
    return len(after) > len(before)


def _named(kind: str, speaker: Speaker) -> str:
    """ "the fox", "the hat" / 狐狸, 帽子."""
    if kind in ACCESSORIES:
        return the_accessory(kind, speaker)
    return noun_phrase({"kind": kind}, speaker.language, speaker.rng, article=_THE[speaker.language])


def _value(part: str, value: str, speaker: Speaker) -> str:
    """ "red", "the beach", "watercolour" / 红色, 海滩, 水彩."""
    said = name(value, speaker.language, speaker.rng, part)
    return f"the {said}" if speaker.language == "en" and part == "background" and value != "space" else said


# ------------------------------------------------------------------------------------------------ the one and the other


def call(speaker: Speaker, scene: Scene, index: int, reference: str, dress: bool = False) -> dict[str, str]:
    """One of two subjects as "the other one" or, with the reference "same", as "it" or "that one"."""
    subject, language = scene.subjects[index], speaker.language
    if reference == "same" and speaker.rng.random() < 0.6:
        return called("", subject, language, dress)
    words = speaker.pick("revisits", "reference", reference)
    return called(words.format(m=MEASURES[subject.kind]), subject, language, dress)


def spoken_of(table: Table) -> int | None:
    """Which subject of the latest picture the turn just before was about, where it was one."""
    request = table.exchanges[-1].request if table.exchanges else None
    if request is None or request["op"] != "edit" or "then" in request or len(table.current.scene.subjects) < 2:
        return None
    edit, base = request["edit"], Scene.from_json(request["base"])
    if edit["op"] not in (*OF_ONE, "add_subject"):
        return None
    others: list[Subject] = list(base.subjects)
    if edit["op"] != "add_subject":
        del others[edit["subject"]]
    known = {(subject.kind, subject.colour) for subject in others}
    about = [i for i, s in enumerate(table.current.scene.subjects) if (s.kind, s.colour) not in known]
    return about[0] if len(about) == 1 else None
