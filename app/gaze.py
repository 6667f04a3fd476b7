"""What an open page looks at, and in which order Gradio hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

MOST_WAITED = 200  # hundredths of a second


class Gaze:
    """What one open page looks at. Every look takes the place of the last one."""

    def __init__(self) -> None:
        self.turned = 0
        self._giving = 0

    async def turn(self) -> int:
        """The new look, once Gradio has sent on all that the last one gave: it would come over what this one gives."""
        self.turned += 1
        look, waited = self.turned, 0
        while self._giving and waited < MOST_WAITED:  # a page that has gone takes nothing more
            await asyncio.sleep(0.01)
            waited += 1
        return look

    @contextmanager
    def giving(self) -> Iterator[None]:
        """Around a `yield`, which returns when Gradio has sent on what it was given."""
        self._giving += 1
        try:
            yield
        finally:
            self._giving -= 1
