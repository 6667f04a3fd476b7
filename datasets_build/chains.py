"""D_c: one picture asked for, or brought, and then changed many times, without showing what is drawn.

    easel data c --out data --n 100 --seed 1 --split train

A refined prompt that copies the one before it and changes what was asked is the hardest thing the dialog model does,
and it learns it by how many different changes it sees. Without renders they cost a hundredth of D_tt's time and a third
of its tokens. What the pictures add is D_tt's to teach; only what the user brings is shown, for it must be read.
"""

from __future__ import annotations

import random
from dataclasses import replace

from datasets_build.banks import Speaker
from datasets_build.dialogues import OTHER_LANGUAGE, ask_for_picture, change_picture, put_new
from datasets_build.negatives import DECLINES
from datasets_build.plans import IN_PAIRS, Step
from datasets_build.records import Dialogue, NoSample, require_split
from datasets_build.requests import request
from datasets_build.storybook.edits import WEIGHTS
from datasets_build.storybook.language import partial
from datasets_build.storybook.scene import Scene, sample_scene
from datasets_build.table import Table
from datasets_build.topics import TOPICS

CHANGES = (3, 4, 5, 6)
BROUGHT_SHARE = 0.2  # of the chains begin with a picture of the user's, to be changed
WHOLE_SHARE = 0.85  # of first requests say everything
TWO_SHARE = 0.9  # of those are about two subjects: to tell these apart is what goes wrong
TWIN_SHARE = 0.12  # of those two are of one kind, and only their looks tell them apart
SECOND_SHARE = 0.6  # of the chains begin another picture on the way, and may combine the two
DECLINED_SHARE = 0.1  # of the changes cannot be made
# Where another thing stands between the words and the right place in the prompt, or another prompt between the two that
# are to be alike, more is to be learnt.
OPERATIONS = {
    **WEIGHTS, "move": 13, "remove_subject": 16, "add_accessory": 16, "remove_accessory": 9, "recolour_accessory": 9,
    "replace_accessory": 6, "background": 6, "sky": 5, "style": 5, "shot": 7, "again": 3, "undo": 5, "return": 18,
    "correct": 16, "pair": 24, "earlier": 20, "back": 12,
}  # fmt: skip


def build(language: str, split: str, rng: random.Random) -> Dialogue:
    speaker, topic = Speaker(language, split, rng), rng.choice(TOPICS)
    table = Table(speaker, topic)
    wanted = 1 + rng.choice(CHANGES)
    if rng.random() >= BROUGHT_SHARE:
        _ask(table)
    second = rng.randrange(2, wanted) if rng.random() < SECOND_SHARE else None
    for _ in range(20 * wanted):
        if len(table.exchanges) >= wanted:
            return Dialogue(language, tuple(table.exchanges), tuple(speaker.used), topic.name, pictures=False)
        try:
            _next(table, second)
        except NoSample:
            continue  # an operation that this picture does not allow
    raise NoSample


def _next(table: Table, second: int | None) -> None:
    speaker = table.speaker
    if len(table.exchanges) == second:
        return _ask(table)
    if table.drawings and speaker.rng.random() < DECLINED_SHARE:
        decline = speaker.rng.choices(list(DECLINES), list(DECLINES.values()))[0]
        return table.exchanges.append(decline(speaker, table.current.scene))
    roots = {drawing.root for drawing in table.drawings}
    operations = {**OPERATIONS, "combine": 60 if len(roots) > 1 else 0}
    operation = speaker.rng.choices(list(operations), list(operations.values()))[0]
    if speaker.rng.random() < OTHER_LANGUAGE:
        speaker = speaker.in_language({"en": "zh", "zh": "en"}[speaker.language])
    change_picture(speaker, table, _step(speaker, operation))


def _step(speaker: Speaker, operation: str) -> Step:
    if operation == "back":
        return Step("ti2i", speaker.rng.choice(("add_accessory", "add_accessory", "add_subject")), "back")
    if operation not in ("pair", "earlier"):
        return Step("ti2i", operation)
    possible = IN_PAIRS if operation == "pair" else [op for op in WEIGHTS if op != "combine"]
    return Step("ti2i", speaker.rng.choices(possible, [WEIGHTS[op] for op in possible])[0], operation)


def _ask(table: Table) -> None:
    speaker, rng = table.speaker, table.speaker.rng
    if rng.random() >= WHOLE_SHARE:
        return ask_for_picture(speaker, table)
    scene = sample_scene(rng, speaker.split, TWO_SHARE)
    if len(scene.subjects) > 1 and rng.random() < TWIN_SHARE:
        scene = require_split(_twins(scene), speaker.split)
    put_new(table, request(speaker, partial(scene), scene, after_another=bool(table.drawings)))


def _twins(scene: Scene) -> Scene:
    first, second = scene.subjects
    if first.colour == second.colour:
        raise NoSample
    return replace(scene, subjects=(first, replace(second, kind=first.kind)))
