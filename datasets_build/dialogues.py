"""D_tt: dialogues of 2 to 6 turns (mostly three) in which pictures are asked for, changed, and talked about.

    easel data tt --out data --n 100 --seed 1 --split train

A plan fixes every turn's type and edit before any scene is chosen; then scenes are sought that are all of the wanted
split. So no kind of edit is rarer in the small splits. The consistency rule: an edited prompt keeps the language and
the template of the one before, and changes only the words that the edit changes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets_build import looking, refusals, talk
from datasets_build.banks import Speaker
from datasets_build.changes import edit_text, join_edits
from datasets_build.records import Dialogue, Exchange, NoSample, draw_exchange, require_split
from datasets_build.requests import fresh, surround
from datasets_build.storybook.edits import WEIGHTS, Edit, apply_edit, sample_edit
from datasets_build.storybook.language import write_prompt
from datasets_build.storybook.reading import find_template
from datasets_build.storybook.scene import Scene, sample_scene
from datasets_build.surface import roughen
from datasets_build.topics import TOPICS, Topic
from dialog_mllm.messages import DRAW

TYPES = ("t2t", "t2i", "ti2t", "ti2i")
LENGTHS = {2: 10, 3: 60, 4: 15, 5: 10, 6: 5}
EXTRA_OPS = {"again": 4, "undo": 4, "both": 16}  # beside the edits of the storybook
IN_PAIRS = ("recolour", "resize", "add_accessory", "background", "sky", "style", "shot")  # two of them in one message
OTHER_LANGUAGE = 0.05  # of the messages are in the other language


@dataclass(frozen=True)
class Drawing:
    """A picture on the table. A picture that the user brought has no prompt."""

    scene: Scene
    language: str
    template: int
    root: int  # drawings of one root come from each other by edits


@dataclass
class Table:
    """The state of a dialogue while it is made."""

    speaker: Speaker
    topic: Topic
    exchanges: list[Exchange] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)

    @property
    def current(self) -> Drawing:
        return self.drawings[-1]

    def put(self, exchange: Exchange, scene: Scene, language: str, template: int, new_root: bool) -> None:
        root = len(self.exchanges) if new_root or not self.drawings else self.current.root
        self.exchanges.append(exchange)
        self.drawings.append(Drawing(scene, language, template, root))


def build(language: str, split: str, rng: random.Random) -> Dialogue:
    plan, topic = sample_plan(rng), rng.choice(TOPICS)
    for _ in range(300):
        try:
            return _follow(plan, topic, Speaker(language, split, rng))
        except NoSample:
            continue
    raise NoSample


def sample_plan(rng: random.Random) -> list[tuple[str, str]]:
    """(type, operation) of each turn; the operation is "" but for ti2i. At least one turn draws."""
    length = rng.choices(list(LENGTHS), list(LENGTHS.values()))[0]
    while True:
        plan = _random_plan(rng, length)
        if any(kind in ("t2i", "ti2i") for kind, _ in plan):
            return plan


def _random_plan(rng: random.Random, length: int) -> list[tuple[str, str]]:
    plan: list[tuple[str, str]] = []
    roots = 0
    while len(plan) < length:
        weights = (14, 14, 16, 56) if roots else (20, 62, 8, 10)
        kind = rng.choices(TYPES, weights)[0]
        op = ""
        if kind == "ti2i":
            ops = {**WEIGHTS, **EXTRA_OPS}
            ops["combine"] = 50 if roots >= 2 else 0  # few dialogues have two pictures to combine
            if not roots:
                del ops["again"]
            if not roots or not plan or plan[-1][1] in ("", "again", "undo"):
                del ops["undo"]
            op = rng.choices(list(ops), list(ops.values()))[0]
        roots += kind == "t2i"
        plan.append((kind, op))
    return plan


def _follow(plan: Sequence[tuple[str, str]], topic: Topic, speaker: Speaker) -> Dialogue:
    table = Table(speaker, topic)
    for i, (kind, op) in enumerate(plan):
        foreign = speaker.rng.random() < (0.15 if op == "style" else OTHER_LANGUAGE)
        other = "zh" if speaker.language == "en" else "en"
        voice = speaker.in_language(other) if foreign else speaker
        last = i == len(plan) - 1
        if kind == "t2t":
            table.exchanges.append(_talk(voice, table, first=i == 0, last=last))
        elif kind == "t2i":
            ask_for_picture(voice, table)
        elif kind == "ti2t":
            _look(voice, table)
        else:
            change_picture(voice, table, op)
    return Dialogue(speaker.language, tuple(table.exchanges), tuple(speaker.used), topic.name)


# ------------------------------------------------------------------------------------------------- the four types


def _talk(voice: Speaker, table: Table, first: bool, last: bool) -> Exchange:
    rng = voice.rng
    if first and rng.random() < 0.4:
        return talk.greeting(voice)
    if table.drawings and last and rng.random() < 0.5:
        return talk.farewell(voice)
    if table.drawings and rng.random() < 0.4:
        return talk.praise(voice)
    chosen = rng.choices((talk.small_talk, talk.about_things, refusals.refuse), (35, 40, 25))[0]
    return chosen(voice)


def ask_for_picture(voice: Speaker, table: Table) -> None:
    put_new(table, fresh(voice, table.topic, after_another=bool(table.drawings)))


def put_new(table: Table, exchange: Exchange) -> None:
    """A new picture on the table, in the form in which the exchange's prompt is written."""
    form = find_template(exchange.reply.removeprefix(DRAW))
    if exchange.drawn is None or form is None:
        raise ValueError(f"no template wrote {exchange.reply!r}")
    table.put(exchange, exchange.drawn, *form, new_root=True)


def _look(voice: Speaker, table: Table) -> None:
    rng = voice.rng
    if not table.drawings or rng.random() < 0.08:
        scene = sample_scene(rng, voice.split)
        exchange = looking.look(voice, scene, uploaded=True)
        table.put(exchange, scene, voice.language, 0, new_root=True)
    elif rng.random() < 0.3:
        decline = voice.rng.choice((refusals.refuse_edit, refusals.refuse_edit, refusals.limit))
        table.exchanges.append(decline(voice, table.current.scene))
    else:
        table.exchanges.append(looking.look(voice, table.current.scene))


def change_picture(voice: Speaker, table: Table, op: str) -> None:
    rng = voice.rng
    uploads: tuple[Scene, ...] = ()
    if table.drawings:
        base = table.current
    else:
        uploads = (sample_scene(rng, voice.split),)
        base = Drawing(uploads[0], voice.language, 0, len(table.exchanges))
    if op in ("again", "undo"):
        return _go_back(voice, table, op)
    scene, request, user = _change(voice, table, base, op)
    prompt = write_prompt(scene, base.language, base.template)
    user = roughen(surround(user, voice, 0.0 if uploads else 0.12, 0.04), voice.language, rng)
    exchange = draw_exchange(user, prompt, request, scene, type="ti2i", uploads=uploads, opens=bool(uploads))
    table.put(exchange, scene, base.language, base.template, new_root=False)


def _change(voice: Speaker, table: Table, base: Drawing, op: str) -> tuple[Scene, Mapping[str, Any], str]:
    """The edited scene, the request and its words."""
    if op == "both":
        first_op, second_op = voice.rng.sample(IN_PAIRS, 2)
        first, between = edit_within(voice, base.scene, first_op)
        second, scene = edit_within(voice, between, second_op, voice.split)
        words = join_edits(edit_text(base.scene, first, voice), edit_text(between, second, voice), voice)
        return scene, {"op": "edit", "edit": first, "then": [second], "base": base.scene.to_json()}, words
    other = None
    if op == "combine":
        older = [drawing.scene for drawing in table.drawings if drawing.root != base.root]
        if not older:
            raise NoSample
        other = older[-1]
    edit, scene = edit_within(voice, base.scene, op, voice.split, other)
    request = {"op": "edit", "edit": edit, "base": base.scene.to_json()}
    if other is not None:
        subjects = base.scene.subjects[edit["subject"]], other.subjects[edit["other_subject"]]
        if subjects[0].kind == subjects[1].kind:
            raise NoSample
        request["other"] = other.to_json()
    return scene, request, edit_text(base.scene, edit, voice, other)


def edit_within(
    voice: Speaker, scene: Scene, op: str, split: str | None = None, other: Scene | None = None
) -> tuple[Edit, Scene]:
    """An edit of one operation and the scene that it leads to, of `split` where one is named."""
    for _ in range(40 if split not in (None, "train") else 4):
        try:
            edit = sample_edit(scene, voice.rng, other, (op,))
        except ValueError as error:
            raise NoSample from error
        edited = apply_edit(scene, edit, other)
        if split is None or edited.split == split:
            return edit, edited
    raise NoSample


def _go_back(voice: Speaker, table: Table, op: str) -> None:
    """The same picture again, or the one before it."""
    if not table.drawings:
        raise NoSample
    current = table.current
    steps = [drawing for drawing in table.drawings if drawing.root == current.root]
    if op == "undo" and (len(steps) < 2 or steps[-1] == steps[-2]):
        raise NoSample
    goal = current if op == "again" else steps[-2]
    if not any(exchange.drawn == goal.scene for exchange in table.exchanges):
        raise NoSample  # a picture that the user brought was never drawn by a prompt
    user = roughen(voice.pick("edits", op), voice.language, voice.rng)
    prompt = write_prompt(goal.scene, goal.language, goal.template)
    request = {"op": op, "base": current.scene.to_json()}
    exchange = draw_exchange(user, prompt, request, require_split(goal.scene, voice.split), type="ti2i")
    table.put(exchange, goal.scene, goal.language, goal.template, new_root=False)
