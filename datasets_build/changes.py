"""How users ask for a change of the picture: from an edit (see storybook/edits.py) to their words.

python -c "
import random; from datasets_build.banks import Speaker; from datasets_build.changes import edit_text
from datasets_build.storybook.edits import sample_edit; from datasets_build.storybook.scene import sample_scene
rng = random.Random(1); scene = sample_scene(rng); edit = sample_edit(scene, rng)
print(edit, edit_text(scene, edit, Speaker('en', 'train', rng)))"
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from datasets_build.banks import Speaker, bank
from datasets_build.references import refer
from datasets_build.requests import add_flavour, wear_phrase
from datasets_build.storybook.language import accessory_phrase, describe_subjects, noun_phrase, with_article
from datasets_build.storybook.scene import HELD, Scene, Subject
from datasets_build.storybook.vocabulary import MEASURES, name, phrase
from datasets_build.surface import sentence

_FOR_IT = re.compile("[给帮]{it}{wear}")
_NAMED = ("{it}", "{sub}", "{its}")


def edit_text(
    scene: Scene,
    edit: Mapping[str, Any],
    speaker: Speaker,
    other: Scene | None = None,
    it: Mapping[str, str] | None = None,
) -> str:
    """A request that means `edit`, made of `scene`; `other` is the older picture of a "combine".

    `it` is what the thing that changes is called (`references.called`), where the words are not to be chosen here."""
    op, language = edit["op"], speaker.language
    path = _path(scene, edit, speaker)
    values = _values(scene, edit, speaker, other, path) | dict(it or {})
    of_subject = "subject" in edit and op != "combine"
    crowded = of_subject and len(scene.subjects) > 1 and not _told_apart(scene, edit)

    def fits(frame: str) -> bool:
        # In a picture of two, a change that could be meant for either has to name its thing.
        named = not crowded or any(slot in frame for slot in _NAMED)
        # 给它戴上帽子, but not 给它拿着气球.
        return named and not (edit.get("kind") in HELD and language == "zh" and _FOR_IT.search(frame))

    text = speaker.pick("edits", *path, fits=fits).format_map(values)
    return sentence(text) if language == "en" else text


def edit_both_text(scene: Scene, edits: Sequence[Mapping[str, Any]], speaker: Speaker) -> str:
    """A request that means the same edit of both subjects."""
    edit, language, op = edits[0], speaker.language, edits[0]["op"]
    steps = f"{scene.subjects[0].size}>{edit['size']}" if op == "resize" else ""
    far = language == "zh" and bool(steps) and steps not in bank("edits", "zh")["sizes"]
    values = _values(scene, edit, speaker, None, ("resize_far",) if far else (op,))
    text = speaker.pick("revisits", "both", op).format_map(values)
    return sentence(text) if language == "en" else text


def edit_each_text(scene: Scene, edits: Sequence[Mapping[str, Any]], speaker: Speaker) -> str:
    """A request that means one edit of each subject: the same operation, not the same value."""
    language, op = speaker.language, edits[0]["op"]
    part = "colour" if op == "recolour" else "acc" if language == "en" else "wear"
    said = [_values(scene, edit, speaker, None, (op,)) for edit in edits]
    words = {"one": said[0]["it"], "x": said[0][part], "two": said[1]["it"], "y": said[1][part]}
    text = speaker.pick("revisits", "each", op).format_map(words)
    return sentence(text) if language == "en" else text


def alike_text(edit: Mapping[str, Any], speaker: Speaker) -> str:
    """A request for another one of the kind that is there, which `edit` adds."""
    language, rng, kind = speaker.language, speaker.rng, edit["kind"]
    words = {"noun": name(kind, language, rng, "kind"), "m": MEASURES[kind]}
    if colour := edit.get("colour"):
        words["a"] = noun_phrase({"kind": kind, "colour": colour}, language, rng)
        words["c"] = name(colour, language, rng, "colour")
        words["ac"] = with_article("a", words["c"])
    # A girl's colour is her dress's: "a blue one" she is not.
    paths = ("plain",) if not colour else ("coloured",) if kind == "girl" or rng.random() < 0.4 else ("colour",)
    text = speaker.pick("revisits", "alike", *paths).format_map(words)
    return sentence(text) if language == "en" else text


def the_accessory(kind: str, speaker: Speaker) -> str:
    """ "the hat" / 帽子."""
    bare = name(kind, speaker.language, speaker.rng, "accessory")
    return f"the {bare}" if speaker.language == "en" else bare


def join_edits(texts: Sequence[str], speaker: Speaker) -> str:
    """Two or three requests in one message."""
    frame = speaker.pick("edits", "both" if len(texts) == 2 else "three")
    words = {}
    for slot, text in zip(("one", "two", "three"), texts, strict=False):
        bare = re.sub(r"[.!?。！？]+$", "", text)
        begins = frame.startswith(f"{{{slot}}}") or f". {{{slot}}}" in frame  # a sentence
        words[slot] = bare if begins else _within(bare)
    return frame.format(**words)


def _within(text: str) -> str:
    """Without the capital letter that begins a sentence."""
    return text if text.startswith(("I ", "I'")) else text[:1].lower() + text[1:]


def _path(scene: Scene, edit: Mapping[str, Any], speaker: Speaker) -> tuple[str, ...]:
    """Where in the bank the phrasings of this edit stand."""
    op, rng = edit["op"], speaker.rng
    if op == "sky":
        return ("sky", edit["value"])
    if op == "shot":
        steps = ("wide", "normal", "close-up")
        step = steps.index(edit["value"]) - steps.index(scene.shot)
        if abs(step) == 1 and rng.random() < 0.35:
            return ("shot", "in" if step > 0 else "out")
        return ("shot", edit["value"])
    if speaker.language == "zh":
        if op == "resize" and edit["size"] == "normal" and rng.random() < 0.4:
            return ("resize_normal",)
        if op == "resize" and edit["size"] != "normal":
            far = scene.subjects[edit["subject"]].size != "normal" or rng.random() < 0.5
            return ("resize_far",) if far else ("resize",)
        if op == "add_subject" and edit.get("position"):
            return ("add_subject_at",)
    return (op,)


def _told_apart(scene: Scene, edit: Mapping[str, Any]) -> bool:
    """Whether the edit can be meant for one of the subjects only: nobody else wears what it speaks of."""
    worn = edit.get("old") or (edit.get("kind") if edit["op"] in ("remove_accessory", "recolour_accessory") else None)
    return worn is not None and sum(worn == a.kind for s in scene.subjects for a in s.accessories) == 1


def _values(
    scene: Scene, edit: Mapping[str, Any], speaker: Speaker, other: Scene | None, path: tuple[str, ...]
) -> dict[str, str]:
    op, language, rng = edit["op"], speaker.language, speaker.rng
    words = bank("edits", language)
    index = edit.get("subject", rng.randrange(len(scene.subjects)))
    values = refer(scene, index, language, rng, dress=op == "recolour")
    if op in ("background", "add_subject", "shot") and len(scene.subjects) > 1 and rng.random() < 0.5:
        them = "them" if language == "en" else "它们"
        values = {"it": them, "sub": "they" if language == "en" else them, "its": "their" if language == "en" else them}
    if "colour" in edit and op in ("recolour", "recolour_accessory"):
        values["colour"] = name(edit["colour"], language, rng, "colour")
    if op == "entity":
        new = {"kind": edit["kind"], "colour": edit.get("colour")}
        add_flavour(new, speaker)
        values["a"] = noun_phrase(new, language, rng)
    elif op == "resize":
        step = f"{scene.subjects[index].size}>{edit['size']}"
        values["size"] = rng.choice(words["far"][edit["size"]] if path == ("resize_far",) else words["sizes"][step])
    elif op == "move":
        values["where"] = name(edit["position"], language, rng, "position")
    elif op == "add_subject":
        new = {key: value for key, value in edit.items() if key != "op"}
        if language == "zh":
            values["where"] = name(new.pop("position"), language, rng, "position") if "position" in new else ""
        add_flavour(new, speaker)
        values["a"] = describe_subjects([new], language, rng)
    elif op in ("add_accessory", "replace_accessory"):
        accessory = {"kind": edit["kind"], "colour": edit.get("colour")}
        add_flavour(accessory, speaker, "worn")
        values["acc"] = accessory_phrase(accessory, language, rng)
        values["wear"] = wear_phrase(accessory, language, rng)
        values["bare"] = name(edit["kind"], language, rng, "accessory")
        if op == "replace_accessory":
            values["old"] = name(edit["old"], language, rng, "accessory")
    elif op in ("remove_accessory", "recolour_accessory"):
        values["bare"] = name(edit["kind"], language, rng, "accessory")
    elif op == "background":
        values["where"] = phrase("background", edit["value"], language, rng)
        values["place"] = rng.choice(words["place"][edit["value"]])
        if edit["value"] == "snow" and language == "en" and rng.random() < 0.2:
            values["where"] = "in winter"
    elif op == "style":
        values["style"] = rng.choice(words["style_name"][edit["value"]])
    elif op == "combine" and other is not None:
        values["new"] = _the(scene.subjects[edit.get("subject", 0)], speaker)
        values["old"] = _the(other.subjects[edit.get("other_subject", 0)], speaker)
    return values


def _the(subject: Subject, speaker: Speaker) -> str:
    said = {"kind": subject.kind} | ({"colour": subject.colour} if speaker.rng.random() < 0.6 else {})
    return noun_phrase(said, speaker.language, speaker.rng, article="the" if speaker.language == "en" else "")
