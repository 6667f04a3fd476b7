"""Plans of dialogues: the type of every turn and what is done to which picture, before any scene is chosen.

    python -c "
    import random; from datasets_build.plans import sample_plan
    print(*sample_plan(random.Random(3)), sep='\n')"

The shares that a run is held to (`targets`) stand here, and `easel data check` counts what was made (`values`).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets_build.even import choose
from datasets_build.storybook.edits import EDIT_GROUP, WEIGHTS
from datasets_build.topics import TOPICS

TYPES = ("t2t", "t2i", "ti2t", "ti2i")
DRAWN = ("t2i", "ti2i")
LENGTHS = {2: 0.09, 3: 0.58, 4: 0.14, 5: 0.09, 6: 0.05, 7: 0.02, 8: 0.015, 9: 0.01, 10: 0.005}
TURNS = (min(LENGTHS), max(LENGTHS))

# How often a turn is of each of `TYPES`, without and with a picture on the table.
START, LATER = (18, 66, 8, 8), (9, 12, 15, 64)
FLOOR = 0.004  # of the dialogues of three turns have each of the 64 compositions, whatever the weights say

# Of the edits: the paper's seven, and changes of colour, size and place.
EDITS = {
    "entity": 0.09, "attribute": 0.27, "add": 0.20, "remove": 0.10, "background": 0.15, "style": 0.09, "shot": 0.06,
    "combine": 0.04,
}  # fmt: skip
# Only beside two pictures there is something to combine; of these edits so many, then of all as many as `EDITS` says.
COMBINED_OF_TWO = 0.34

# What a turn does to a picture that is there, as far as the turns before allow it. The first is an edit like any other.
WAYS = {"edit": 0.60, "again": 0.03, "undo": 0.05, "return": 0.12, "correct": 0.20}
# In what form an edit is asked for: two at once, or one of an earlier picture.
IN_PAIRS = ("recolour", "resize", "add_accessory", "background", "sky", "style", "shot")
# Edits that lead to few scenes: of these two that are both of a small split are not to be found.
NARROW = (
    "resize", "move", "remove_subject", "remove_accessory", "replace_accessory", "sky", "style", "shot",
)  # fmt: skip
PAIR_SHARE, EARLIER_SHARE = 0.18, 0.30


@dataclass(frozen=True)
class Step:
    """A turn. Of ti2i turns, `op` is an edit's operation or one of `WAYS`, and `form` is "", "pair", "earlier" or
    "back", which D_c alone has."""

    type: str
    op: str = ""
    form: str = ""


@dataclass
class _State:
    """What the turns so far have put on the table."""

    pictures: int = 0  # that do not come from each other by edits
    drawn: int = 0  # of them, by Easel
    different: int = 0  # drawings that differ
    current_drawn: bool = False  # whether the latest picture is a drawing, not one that the user brought
    brought: bool = False
    edit: Step | None = None  # the turn just before, where it is an edit of a drawing
    subjects: int = 0  # of the latest picture; 0 where the plan does not say

    @property
    def returnable(self) -> bool:
        """Whether an earlier drawing has a name: by its number, or by what the others do not show."""
        return self.drawn > 1 or (self.different > 1 and not self.brought)


def compositions() -> dict[tuple[str, ...], float]:
    """The share of each of the 4³ compositions among the dialogues of three turns."""
    weights = {}
    for types in itertools.product(TYPES, repeat=3):
        odds, seen = 1.0, False
        for kind in types:
            table = LATER if seen else START
            odds *= table[TYPES.index(kind)] / sum(table)
            seen = seen or kind != "t2t"
        weights[types] = FLOOR + (1 - FLOOR * len(TYPES) ** 3) * odds
    return weights


_COMPOSITIONS = compositions()


def lengths(least: int, most: int) -> dict[int, float]:
    """Of `LENGTHS` those, whose shares need not sum to 1."""
    return {length: share for length, share in LENGTHS.items() if least <= length <= most}


def sample_plan(rng: random.Random, split: str = "train", of_lengths: Mapping[int, float] = LENGTHS) -> list[Step]:
    """The steps of a dialogue. Only in train, any edit may be corrected, or be of an earlier picture (see `NARROW`)."""
    length = choose(rng, of_lengths, "length", within="task")
    types = choose(rng, _COMPOSITIONS, "composition", within="length") if length == 3 else _sample_types(rng, length)
    state, plan = _State(), []
    for turn, kind in enumerate(types):
        step = _change(rng, state, turn, split) if kind == "ti2i" else Step(kind)
        _advance(state, step)
        plan.append(step)
    return plan


def _sample_types(rng: random.Random, length: int) -> tuple[str, ...]:
    types: list[str] = []
    for _ in range(length):
        types += rng.choices(TYPES, LATER if set(types) - {"t2t"} else START)
    return tuple(types)


def _change(rng: random.Random, state: _State, turn: int, split: str) -> Step:
    last = state.edit
    unfit = ("combine",) if split == "train" else ("combine", *NARROW)
    possible = {
        "edit": True,
        "again": state.current_drawn,
        "undo": last is not None and last.form != "earlier",
        "return": state.returnable,
        "correct": last is not None and last.form != "pair" and last.op not in unfit,
    }
    way = choose(rng, {way: share for way, share in WAYS.items() if possible[way]}, "way", turn)
    if way != "edit":
        return Step("ti2i", way)
    op = choose(rng, _OPS_OF_TWO if state.pictures > 1 else _OPS_OF_ONE, "edit", turn)
    if (op, state.subjects) in _FULL:
        op = _FULL[op, state.subjects]
    if op in IN_PAIRS and rng.random() < PAIR_SHARE:
        return Step("ti2i", op, "pair")
    if state.returnable and op not in unfit and rng.random() < EARLIER_SHARE:
        return Step("ti2i", op, "earlier")
    return Step("ti2i", op)


# A picture of two takes no third subject, and one stays: then there is another edit of the same group.
_FULL = {("add_subject", 2): "add_accessory", ("remove_subject", 1): "remove_accessory"}
_LEAVES = {"add_subject": 2, "combine": 2, "remove_subject": 1}


def _operations(combined: float) -> dict[str, float]:
    """The share of each operation, where that of combining is `combined`."""
    groups = {group: share * (1 - combined) / (1 - EDITS["combine"]) for group, share in EDITS.items()}
    groups["combine"] = combined
    of_group = {group: sum(WEIGHTS[op] for op in WEIGHTS if EDIT_GROUP[op] == group) for group in groups}
    return {op: groups[EDIT_GROUP[op]] * weight / of_group[EDIT_GROUP[op]] for op, weight in WEIGHTS.items()}


_OPS_OF_ONE, _OPS_OF_TWO = _operations(0.0), _operations(COMBINED_OF_TWO)


def _advance(state: _State, step: Step) -> None:
    base_drawn = state.current_drawn or step.form == "earlier"
    if step.type in ("ti2t", "ti2i") and not state.pictures:
        state.pictures, state.brought = 1, True
    if step.type == "t2i":
        state.pictures += 1
        state.drawn += 1
    if step.type in DRAWN:
        state.current_drawn = True
        state.different += step.op not in ("again", "undo", "return")
        kept = step.type == "ti2i" and step.form != "earlier" and step.op not in ("undo", "return")
        state.subjects = _LEAVES.get(step.op, state.subjects if kept else 0)
    edited = step.type == "ti2i" and step.op in WEIGHTS and base_drawn
    state.edit = step if edited else None


# ------------------------------------------------------------------------------------------------- what is aimed at


def targets(
    shares: Mapping[str, float], languages: Sequence[str], of_lengths: Mapping[int, float] = LENGTHS
) -> dict[str, dict[str, float]]:
    """The shares that a run with these shares of tasks is held to, by what they are shares of."""
    whole = sum(shares.values())
    goals = {
        "task": {task: share / whole for task, share in shares.items() if share},
        "language": {language: 1 / len(languages) for language in languages},
    }
    if shares.get("D_tt"):
        goals["length"] = {str(length): share / sum(of_lengths.values()) for length, share in of_lengths.items()}
        goals["topic"] = {topic.name: 1 / len(TOPICS) for topic in TOPICS}
        if 3 in of_lengths:
            goals["composition"] = {" ".join(types): share for types, share in _COMPOSITIONS.items()}
        if dict(of_lengths) == LENGTHS:  # among long dialogues alone more have two pictures that can be combined
            goals["edit"] = EDITS
    return {goal: {key: round(share, 6) for key, share in of.items()} for goal, of in goals.items()}


def values(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a record adds to the counts that `targets` speaks of: (what the share is of, the value)."""
    yield "task", record["task"]
    yield "language", record["language"]
    if record["task"] != "D_tt":
        return
    turns = record["turns"]
    yield "length", str(len(turns))
    if len(turns) == 3:
        yield "composition", " ".join(turn["type"] for turn in turns)
    yield "topic", record["topic"]
    for turn in turns:
        request = turn["request"] or {}
        if request.get("op") == "edit" and request.get("form") != "correction":  # a correction is of the edit before it
            op = request["edit"]["op"]
            yield "edit", EDIT_GROUP.get(op, op)  # teachers name the group itself
