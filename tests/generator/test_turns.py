"""Turns: first come first served for each owner, and owners one after the other."""

from __future__ import annotations

import random

from generator.turns import TurnQueue


def test_positions_are_the_order_of_the_turns() -> None:
    rng = random.Random(0)
    for _ in range(50):
        queue: TurnQueue[int] = TurnQueue()
        jobs = [(str(rng.randrange(4)), number) for number in range(rng.randrange(1, 12))]
        for owner, job in jobs:
            queue.push(owner, job)
            if rng.random() < 0.2:
                queue.pop()
        places = {job: queue.ahead_of(owner, job) for owner, job in jobs}
        expected = sorted((place, job) for job, place in places.items() if place is not None)
        order = []
        while (popped := queue.pop()) is not None:
            order.append(popped)
        assert order == [job for _, job in expected]


def test_who_is_passed_over_keeps_their_turn() -> None:
    queue: TurnQueue[str] = TurnQueue()
    for owner in ("ann", "ann", "ben"):
        queue.push(owner, f"{owner} {queue.count(owner)}")
    assert queue.pop(skipping={"ann"}) == "ben 0"
    assert queue.pop(skipping={"ann"}) is None
    assert queue.pop() == "ann 0"
    assert queue.remove("ann", "ann 1") and not queue.remove("ann", "ann 1")
    assert queue.count("ann") == 0 and queue.ahead_of("ann", "ann 1") is None
