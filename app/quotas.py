"""How much each user may ask for: turns in a minute, room for pictures; and tries to sign in.

    quotas = Quotas(accounts); await quotas.admit(owner)   # raises TooMany or QuotaExceeded

Counted in memory: a restart forgets at most a minute of turns, and the tries.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from app.accounts import Accounts
from app.errors import InputRefused, QuotaExceeded, TooMany

WINDOW = 60.0  # seconds
FREE_TRIES = 5  # from one address for one name
FREE_TRIES_FROM = 20  # from one address for any names
FREE_TRIES_FOR = 50  # for one name, from anywhere: high, or strangers could keep its owner out
LONGEST_WAIT = 900.0  # seconds, until the next try
MOST_WATCHED = 10_000  # the oldest are forgotten


class Quotas:
    def __init__(self, accounts: Accounts, clock: Callable[[], float] = time.monotonic) -> None:
        self._accounts = accounts
        self._clock = clock
        self._turns: dict[str, deque[float]] = {}

    async def admit(self, owner: str, turns: int = 1) -> None:
        """Before a turn, or before several pictures at once, each of which counts as one. Whoever is no user has no
        limits: the operator's own key."""
        user = self._accounts.user(owner)
        if user is None:
            return
        most = user.turns_per_minute
        now = self._clock()
        recent = self._turns.setdefault(owner, deque())
        while recent and recent[0] <= now - WINDOW:
            recent.popleft()
        if turns > max(1, most):
            raise InputRefused(f"That is {turns} pictures at once, and you may have {most:,} a minute. Ask for fewer.")
        if len(recent) + turns > most:
            oldest = recent[min(turns, len(recent)) - 1] if recent else now
            raise TooMany(
                f"That is more than {most:,} pictures and replies a minute. Wait a little, then try again.",
                oldest + WINDOW - now,
            )
        recent.extend([now] * turns)  # before anything is awaited: two requests at once are two
        await self.check_room(owner)

    async def check_room(self, owner: str, more: int = 0) -> None:
        """For so many more bytes."""
        user = self._accounts.user(owner)
        if user is not None:
            used = (await asyncio.to_thread(self._accounts.usage, owner)).bytes
            if used + more >= user.disk_mb * 2**20:
                raise QuotaExceeded(
                    f"Your pictures fill the {user.disk_mb:,} MB that you have. Export and delete conversations, or ask"
                    " an administrator for more."
                )


class Tries:
    """Failed tries to sign in. After a few, each must wait twice as long as the one before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()  # how often, and when last

    def check(self, name: str, address: str) -> None:
        """Raises TooMany."""
        waits = [self._wait(key, free) for key, free in _keys(name, address)]
        if max(waits) > 0:
            raise TooMany(f"Too many tries. Wait {max(waits):.0f} seconds, then try again.", max(waits))

    def fail(self, name: str, address: str) -> None:
        for key, _ in _keys(name, address):
            self._failed[key] = (self._failed.get(key, (0, 0.0))[0] + 1, self._clock())
            self._failed.move_to_end(key)
        while len(self._failed) > MOST_WATCHED:
            self._failed.popitem(last=False)

    def forget(self, name: str, address: str) -> None:
        """After a password that was right. What the address has tried for other names stays."""
        for key, _ in _keys(name, address)[:1]:
            self._failed.pop(key, None)

    def _wait(self, key: tuple[str, str], free: int) -> float:
        failed, last = self._failed.get(key, (0, 0.0))
        now = self._clock()
        if now - last > LONGEST_WAIT:
            self._failed.pop(key, None)
            return 0.0
        return last + min(2.0 ** min(failed - free, 30), LONGEST_WAIT) - now if failed >= free else 0.0


def _keys(name: str, address: str) -> list[tuple[tuple[str, str], int]]:
    name = name.casefold()[:100]
    return [((name, address), FREE_TRIES), (("", address), FREE_TRIES_FROM), ((name, ""), FREE_TRIES_FOR)]
