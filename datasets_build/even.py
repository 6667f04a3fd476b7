"""Even draws: choices whose shares a run of records meets, where independent draws would only tend towards them.

    python -c "
    from datasets_build.even import EvenRandom, choose
    print([choose(EvenRandom.of_record(1, 'train', i), {'a': 0.75, 'b': 0.25}, 'task') for i in range(8)])"

A named choice of record i is made by the i-th point of an additive recurrence, start + i · step modulo 1. The steps are
powers of one number (Roberts's R sequence), so that the choices are spread evenly for every name and for names
together: of n records, all but a few are where the shares want them. They depend on the run's seed, the split and i
alone. A choice `within` another one takes the place that this one left it: its cells are parts of the other's, and as
evenly filled.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Self, TypeVar

Value = TypeVar("Value")

NAMES = ("task", "language", "topic", "way", "edit")
_ROOT = 1.1347241384015194  # of x^6 = x + 1: one more than there are names
_STEPS = {name: _ROOT ** -(i + 1) for i, name in enumerate(NAMES)}
_GOLDEN = 0.6180339887498949  # the step between the turns of one record


class EvenRandom(random.Random):
    """A record's generator, which knows the record's place in its run."""

    run = ""
    index = 0
    left: dict[str, float]  # by every name: where in its cell the last choice fell

    @classmethod
    def of_record(cls, seed: int, split: str, index: int) -> Self:
        rng = cls(f"easel {seed} {split} {index}")
        rng.run, rng.index, rng.left = f"{seed} {split}", index, {}
        return rng

    def even(self, name: str, turn: int) -> float:
        """A number in [0, 1)."""
        start = random.Random(f"{self.run} {name}").random()
        return (start + self.index * _STEPS[name] + turn * _GOLDEN) % 1.0


def choose(rng: random.Random, shares: Mapping[Value, float], name: str, turn: int = 0, within: str = "") -> Value:
    """A key of `shares`: evenly over a run's records where `rng` knows its record, else by lot.

    `name` is one of `NAMES` or, of a choice `within` another, a name of its own."""
    if isinstance(rng, EvenRandom) and within in ("", *rng.left):
        place = rng.left[within] if within else rng.even(name, turn)
    else:
        place = rng.random()
    place *= sum(shares.values())
    chosen = max(shares, key=lambda value: shares[value])  # stays only where rounding leads past the end
    for value, share in shares.items():
        if place < share:
            chosen = value
            break
        place -= share
    if isinstance(rng, EvenRandom):
        rng.left[name] = place / shares[chosen] % 1.0
    return chosen
