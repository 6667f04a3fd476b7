"""Briefs: what an endpoint teacher is asked for each record of D_p and D_tt.

    python -c "
    from datasets_build.briefs import Plan, brief; from datasets_build.seeds import seeds
    print(brief(Plan('D_tt', 'train', 1, ('en',)), 4, 0, seeds('en', 'train')).text)"

What record i is about follows from (seed, split, i) and goes round in even turns: language, topic, and for D_tt the
composition of turn types and the edit. Another attempt at the record keeps that and shows other examples. The words
stand in banks/teacher_*.toml.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from datasets_build.banks import bank
from datasets_build.seeds import Pair
from datasets_build.topics import TOPICS

EDITS = ("entity", "add_subject", "remove_subject", "background", "style", "shot", "combine")  # the paper's seven
TYPES = ("t2t", "t2i", "ti2t", "ti2i")
TURNS = 3

# (fewest, most) characters.
LENGTHS = {
    "en": {"user": (2, 600), "prompt": (30, 1200), "reply": (2, 800)},
    "zh": {"user": (2, 250), "prompt": (12, 500), "reply": (2, 350)},
}


def _possible(types: Sequence[str]) -> bool:
    """A picture is drawn before one is talked about or changed: this teacher has none that a user could bring."""
    return any(kind.endswith("2i") for kind in types) and next(k for k in types if k != "t2t") == "t2i"


COMPOSITIONS = tuple(types for types in itertools.product(TYPES, repeat=TURNS) if _possible(types))


@dataclass(frozen=True)
class Plan:
    """What all briefs of a run have in common."""

    task: str
    split: str
    seed: int
    languages: Sequence[str]
    examples: int = 4


@dataclass(frozen=True)
class Step:
    """One turn that is asked for. `base` is the turn whose picture it is about, `other` the one to combine it with."""

    type: str
    edit: str | None = None
    base: int | None = None
    other: int | None = None

    @property
    def draws(self) -> bool:
        return self.type in ("t2i", "ti2i")

    @property
    def keys(self) -> tuple[str, str]:
        return "user", "prompt" if self.draws else "reply"


@dataclass(frozen=True)
class Brief:
    task: str
    language: str
    topic: str
    steps: tuple[Step, ...]
    examples: tuple[Pair, ...]
    text: str  # all that the teacher reads
    rules: str  # the same without the examples and the form of the answer: must not come back
    schema: dict[str, Any]  # of the answer


def language_of(plan: Plan, index: int) -> str:
    return plan.languages[index % len(plan.languages)]


def brief(plan: Plan, index: int, attempt: int, pool: Sequence[Pair]) -> Brief:
    """The brief of one attempt at one record; `pool` holds the examples that may be shown."""
    rng = random.Random(f"easel brief {plan.task} {plan.seed} {plan.split} {index} {attempt}")
    language = language_of(plan, index)
    words = bank("teacher", language)
    topic, steps = _subject(plan, index)
    shown = tuple(rng.sample(list(pool), min(plan.examples, len(pool))))
    values = {"topic": words["topics"][topic], "register": rng.choice(words["registers"])}
    if plan.task == "D_p":
        keys: dict[str, Any] = {key: words["shape"][key] for key in ("instruction", "prompt")}
        values["length"] = rng.choice(words["lengths"])
        schema = _texts(keys, language)
    else:
        keys = {f"turn{n}": {key: words["shape"][key] for key in step.keys} for n, step in enumerate(steps, 1)}
        values["turns"] = "\n".join(_say(step, n, steps, words) for n, step in enumerate(steps, 1))
        schema = _object({name: _texts(part, language) for name, part in keys.items()})
    template = words["task_p" if plan.task == "D_p" else "task_tt"].strip()
    pairs = "\n".join(_json({"instruction": pair.instruction, "prompt": pair.prompt}) for pair in shown) or "-"
    text = template.format_map({**values, "examples": pairs, "shape": _json(keys)})
    rules = template.format_map({**values, "topic": "", "examples": "", "shape": ""})
    return Brief(plan.task, language, topic, steps, shown, text, rules, schema)


def _texts(keys: Iterable[str], language: str) -> dict[str, Any]:
    limits = {key: LENGTHS[language]["user" if key == "instruction" else key] for key in keys}
    return _object(
        {k: {"type": "string", "minLength": least, "maxLength": most} for k, (least, most) in limits.items()}
    )


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# ------------------------------------------------------------------------------------- what a record is to be about


def _subject(plan: Plan, index: int) -> tuple[str, tuple[Step, ...]]:
    """The topic and the turns of record `index`: each block of records holds every combination once."""
    cells = _cells(plan.task)
    # Over the languages, so that each of them goes round on its own.
    block, place = divmod(index // len(plan.languages), len(cells))
    order = _order(f"{plan.task} {plan.seed} {plan.split} {index % len(plan.languages)} {block}", len(cells))
    topic, composition, edit = cells[order[place]]
    if plan.task == "D_p":
        return topic, (Step("t2i"),)
    return topic, _steps(composition, edit + block)


@cache
def _cells(task: str) -> tuple[tuple[str, tuple[str, ...], int], ...]:
    """(topic, composition, the edit to begin with); blocks begin with the next edit each."""
    topics = [topic.name for topic in TOPICS]
    if task == "D_p":
        return tuple((topic, ("t2i",), 0) for topic in topics)
    return tuple((topic, types, t + c) for t, topic in enumerate(topics) for c, types in enumerate(COMPOSITIONS))


@cache
def _order(name: str, n: int) -> tuple[int, ...]:
    return tuple(random.Random(f"easel order {name}").sample(range(n), n))


def _steps(types: Sequence[str], edit: int) -> tuple[Step, ...]:
    steps: list[Step] = []
    pictures: list[int] = []  # the turn of each picture that has its own subject, in its newest form
    for n, kind in enumerate(types):
        if kind == "ti2i":
            # Where there are two pictures to combine, that is asked for: of three turns there seldom are.
            chosen = EDITS[-1] if len(pictures) > 1 else EDITS[edit % (len(EDITS) - 1)]
            steps.append(Step(kind, chosen, pictures[-1], pictures[-2] if chosen == "combine" else None))
            pictures = [*pictures[:-2], n] if chosen == "combine" else [*pictures[:-1], n]
            edit += 1
        elif kind == "t2i":
            steps.append(Step(kind))
            pictures.append(n)
        else:
            steps.append(Step(kind, base=pictures[-1] if kind == "ti2t" else None))
    return tuple(steps)


def _say(step: Step, n: int, steps: Sequence[Step], words: dict[str, Any]) -> str:
    key = "t2i_again" if step.type == "t2i" and any(earlier.draws for earlier in steps[: n - 1]) else step.type
    other = step.other + 1 if step.other is not None else ""
    edit = words["edits"][step.edit].format(other=other) if step.edit else ""
    return words["turns"][key].format(n=n, base=step.base + 1 if step.base is not None else "", edit=edit)
