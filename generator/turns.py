"""Whose turn it is: first come first served for each owner, and owners take turns.

python -c "from generator.turns import TurnQueue; queue = TurnQueue(); queue.push('ann', 1); print(queue.pop())"
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection
from typing import Generic, TypeVar

T = TypeVar("T")


class TurnQueue(Generic[T]):
    """Not thread-safe: the engine holds the lock."""

    def __init__(self) -> None:
        self.waiting: OrderedDict[str, deque[T]] = OrderedDict()  # owners in the order of their turns

    def push(self, owner: str, job: T) -> None:
        self.waiting.setdefault(owner, deque()).append(job)

    def pop(self, skipping: Collection[str] = ()) -> T | None:
        """The next job; None if nobody waits but owners in `skipping`, who keep their turn."""
        owner = next((owner for owner in self.waiting if owner not in skipping), None)
        if owner is None:
            return None
        jobs = self.waiting.pop(owner)
        job = jobs.popleft()
        if jobs:
            self.waiting[owner] = jobs  # behind the others
        return job

    def remove(self, owner: str, job: T) -> bool:
        jobs = self.waiting.get(owner)
        if jobs is None or job not in jobs:
            return False
        jobs.remove(job)
        if not jobs:
            del self.waiting[owner]
        return True

    def count(self, owner: str) -> int:
        return len(self.waiting.get(owner, ()))

    def ahead_of(self, owner: str, job: T) -> int | None:
        """How many waiting jobs come before this one; None if it does not wait."""
        jobs = self.waiting.get(owner)
        if jobs is None or job not in jobs:
            return None
        turn, ahead, before = jobs.index(job), 0, True
        for name, others in self.waiting.items():
            if name == owner:
                ahead, before = ahead + turn, False
            else:
                ahead += min(len(others), turn + 1 if before else turn)
        return ahead
