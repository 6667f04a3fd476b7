"""Turns under way. A turn belongs to the app, not to the page that began it: a reload or a second page finds it again.

run = await turns.start(conversation, message, "auto", parent); async for _ in run.watch(): show(run)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from PIL import Image

from app import conversation as core
from app.errors import InputRefused, StoreError
from app.metrics import Metrics
from app.profiles import Profile
from app.store import Conversation, Store, Turn

GLANCE = 0.08  # seconds between two looks at a turn: faster is not seen


@dataclass
class Run:
    """What there is to show of a turn so far."""

    turn: Turn
    cancel: asyncio.Event
    text: str = ""
    prompt: str = ""
    drawing: bool = False
    step: int = 0
    steps: int = 0
    preview: Image.Image | None = None
    error: Exception | None = None
    finished: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, event: core.Event) -> None:
        match event:
            case core.TextDelta(text):
                self.text += text
            case core.DrawDecision():
                self.drawing = True
            case core.PromptDelta(text):
                self.prompt += text
            case core.Progress(step, steps, preview):
                self.step, self.steps, self.preview = step, steps, preview or self.preview
            case core.Done(turn):
                self.turn = turn
            case core.Failed(turn, _, error):
                self.turn, self.error = turn, error
        self.changed.set()

    async def watch(self) -> AsyncGenerator[Run]:
        """Yields at every change, but not faster than is seen, until the turn is over."""
        while not self.finished:
            yield self
            await self.changed.wait()
            await asyncio.sleep(GLANCE)
            self.changed.clear()


class RunningTurns:
    def __init__(
        self,
        profile: Profile,
        store: Store,
        dialog: core.Dialog,
        generator: core.Generator,
        metrics: Metrics | None = None,
    ) -> None:
        self._profile = profile
        self._store = store
        self._dialog = dialog
        self._generator = generator
        self._metrics = metrics or Metrics()
        self._runs: dict[str, Run] = {}  # by conversation
        self._starting: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, conversation: Conversation) -> Run | None:
        return self._runs.get(conversation.id)

    async def start(
        self, conversation: Conversation, message: core.UserMessage, mode: core.Mode, parent: str | None
    ) -> Run:
        """Returns once the message is stored. Raises InputRefused or StoreError, and nothing has happened."""
        if conversation.id in self._runs or conversation.id in self._starting:
            raise InputRefused("The last message is still being answered. Wait for it, or press Stop.")
        self._starting.add(conversation.id)
        try:
            cancel = asyncio.Event()
            events = core.take_turn(
                conversation, message, self._dialog, self._generator, self._store, self._profile, mode, cancel, parent
            )
            events = self._metrics.watch_turn("page", events)
            accepted = await anext(events)
            assert isinstance(accepted, core.Accepted)
            run = self._runs[conversation.id] = Run(accepted.turn, cancel)
        finally:
            self._starting.discard(conversation.id)
        task = asyncio.create_task(self._follow(conversation.id, run, events))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if not conversation.title:
            with suppress(StoreError):  # a full disk must not keep the turn from its end
                self._store.change_conversation(conversation, title=core.title_of(message.text))
        return run

    async def stop_all(self) -> None:
        for run in self._runs.values():
            run.cancel.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, conversation_id: str, run: Run, events: AsyncGenerator[core.Event]) -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    run.see(event)
        finally:
            del self._runs[conversation_id]
            run.finished = True
            run.changed.set()
