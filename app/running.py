"""Turns under way. A turn belongs to the app, not to the page that began it: a reload or a second page finds it again.

run = await turns.start(conversation, message, "auto", parent); async for _ in run.watch(): show(run)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from PIL import Image

from app import branches
from app import conversation as core
from app.errors import InputRefused, StoreError
from app.metrics import Metrics
from app.profiles import Profile
from app.quotas import Quotas
from app.scores import Scorer
from app.store import INTERRUPTED, Conversation, Store, Turn, new_seed

LAST_WORDS = 5.0  # seconds that a turn has to end in once it was told to
GLANCE = 0.08  # seconds between two looks at a turn: faster is not seen

T = TypeVar("T")


@dataclass
class Canvas:
    """What there is to show of a picture so far."""

    step: int = 0
    steps: int = 0
    preview: Image.Image | None = None
    ahead: int = 0  # pictures that are drawn first
    picture: str = ""  # once it is stored


@dataclass
class Run:
    """What there is to show of a turn so far. Of variations, `turn` is what they are variations of."""

    turn: Turn
    cancel: asyncio.Event
    text: str = ""
    prompt: str = ""
    drawing: bool = False
    canvas: Canvas = field(default_factory=Canvas)
    variations: list[Canvas] = field(default_factory=list)
    error: Exception | None = None
    problem: str = ""  # why it ended without what was asked
    finished: bool = False
    scores: asyncio.Task[bool] | None = None  # under way once it is finished; true: there are new ones
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, event: core.Event) -> None:
        match event:
            case core.TextDelta(text):
                self.text += text
            case core.DrawDecision():
                self.drawing = True
            case core.PromptDelta(text):
                self.prompt += text
            case core.Progress(step, steps, preview, ahead, place):
                canvas = self.canvases[place]
                canvas.step, canvas.steps, canvas.ahead = step, steps, ahead
                canvas.preview = preview or canvas.preview
            case core.Picture(picture, place=place):
                self.canvases[place].picture = picture
            case core.Done(turn):
                self.turn = turn
            case core.Failed(turn, message, error):
                self.turn, self.problem, self.error = turn, message, error
        self.tell()

    def tell(self) -> None:
        """Every watcher waits on the event that was there when it looked last: none takes another's change away."""
        self.changed.set()
        self.changed = asyncio.Event()

    @property
    def canvases(self) -> list[Canvas]:
        return self.variations or [self.canvas]

    async def watch(self) -> AsyncGenerator[Run]:
        """Yields at every change, but not faster than is seen, until the turn is over."""
        while not self.finished:
            changed = self.changed
            yield self
            await changed.wait()
            await asyncio.sleep(GLANCE)


class RunningTurns:
    def __init__(
        self,
        profile: Profile,
        store: Store,
        dialog: core.Dialog,
        generator: core.Generator,
        metrics: Metrics | None = None,
        scorer: Scorer | None = None,
        quotas: Quotas | None = None,
    ) -> None:
        self._profile = profile
        self._store = store
        self._dialog = dialog
        self._generator = generator
        self._metrics = metrics or Metrics()
        self._scorer = scorer
        self._closing = False
        self.hurried = False  # the end has no patience any more
        self._quotas = quotas  # None: nobody signs in, and nobody is limited
        self._runs: dict[str, Run] = {}  # by conversation
        self._starting: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    def of(self, conversation: Conversation) -> Run | None:
        return self._runs.get(conversation.id)

    def count(self) -> int:
        return len(self._runs)

    def check_idle(self, conversation: Conversation) -> None:
        """Raises InputRefused while a turn is under way, or at the end."""
        if self._closing:
            raise InputRefused("Easel is being stopped. Send this again once it runs.")
        if conversation.id in self._runs or conversation.id in self._starting:
            raise InputRefused("The last message is still being answered. Wait for it, or press Stop.")

    async def start(
        self, conversation: Conversation, message: core.UserMessage, mode: core.Mode, parent: str | None
    ) -> Run:
        """Returns once the message is stored. Raises InputRefused or StoreError, and nothing has happened."""
        core.check_message(message, mode)
        async with self._admitted(conversation):
            return await self._start(conversation, message, mode, parent)

    async def _start(
        self, conversation: Conversation, message: core.UserMessage, mode: core.Mode, parent: str | None
    ) -> Run:
        if conversation.seeds == "vary" and any(turn.picture for turn in self._store.path(parent)):
            conversation = replace(self._store.change_conversation(conversation, seed=new_seed()), seeds="vary")
        cancel = asyncio.Event()
        run = await self._begin(
            conversation,
            core.take_turn(
                conversation, message, self._dialog, self._generator, self._store, self._profile, mode, cancel, parent
            ),
            cancel,
        )
        if not conversation.title:
            with suppress(StoreError):  # a full disk must not keep the turn from its end
                self._store.change_conversation(conversation, title=core.title_of(message.text))
        return run

    async def retry(self, conversation: Conversation, turn: Turn, mode: core.Mode) -> Run:
        self.check_idle(conversation)
        if turn.base:  # the prompt is the user's
            anew = bool(turn.picture) and conversation.seeds != "lock"
            base = self._store.turn(turn.base)
            return await self.redraw(conversation, base, turn.prompt, new_seed() if anew else turn.seed)
        async with self._admitted(conversation):
            conversation, message = branches.retry_of(turn, conversation, self._store)
            return await self._start(conversation, message, mode, turn.parent)

    async def paint(self, conversation: Conversation, turn: Turn) -> Run:
        """Takes a message that was answered in words again, with a picture: what the user thinks right is kept."""
        run = await self.retry(conversation, turn, "draw")
        self._store.opine(turn, "should_draw")
        return run

    async def reword(self, conversation: Conversation, turn: Turn, text: str, mode: core.Mode) -> Run:
        async with self._admitted(conversation):
            conversation, message = branches.reword(turn, text, conversation, self._store)
            return await self._start(conversation, message, mode, turn.parent)

    async def redraw(self, conversation: Conversation, turn: Turn, prompt: str, seed: int | None = None) -> Run:
        cancel = asyncio.Event()
        events = branches.redraw(conversation, turn, prompt, self._generator, self._store, self._profile, cancel, seed)
        async with self._admitted(conversation):
            return await self._begin(conversation, events, cancel)

    async def vary(self, conversation: Conversation, turn: Turn) -> Run:
        cancel = asyncio.Event()
        events = branches.vary(conversation, turn, self._generator, self._store, self._profile, cancel)
        async with self._admitted(conversation, branches.VARIATIONS):
            return await self._begin(conversation, events, cancel, branches.VARIATIONS)

    async def stop_all(self, patience: float = 0.0) -> None:
        """The end. Nothing begins any more; what is under way may end within `patience` seconds, and what does not is
        failed, to be retried."""
        self._closing = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while self._tasks and not self.hurried and (left_over := deadline - loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=min(left_over, 0.2))
        left = list(self._runs.values())
        for run in left:
            run.cancel.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_WORDS)
        for run in left:
            if run.turn.status == "cancelled":
                with suppress(StoreError):
                    run.turn = self._store.update_turn(run.turn.id, status="failed", error=INTERRUPTED)

    @asynccontextmanager
    async def _admitted(self, conversation: Conversation, turns: int = 1) -> AsyncGenerator[None]:
        """While a turn begins, no other does. Before anything is changed, its user's quota is asked."""
        self.check_idle(conversation)
        self._starting.add(conversation.id)
        try:
            if self._quotas is not None:
                await self._quotas.admit(conversation.owner, turns)
            yield
        finally:
            self._starting.discard(conversation.id)

    async def _begin(
        self, conversation: Conversation, events: AsyncGenerator[core.Event], cancel: asyncio.Event, variations: int = 0
    ) -> Run:
        events = self._metrics.watch_turn("page", events)
        accepted = await anext(events)
        assert isinstance(accepted, core.Accepted)
        turn = accepted.turn
        run = Run(turn, cancel, turn.text, turn.prompt, drawing=bool(turn.prompt))
        run.variations = [Canvas() for _ in range(variations)]
        self._runs[conversation.id] = run
        self._in_background(self._follow(conversation, run, events))
        return run

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _follow(self, conversation: Conversation, run: Run, events: AsyncGenerator[core.Event]) -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    run.see(event)
        finally:
            del self._runs[conversation.id]
            if self._scorer is not None and any(canvas.picture for canvas in run.canvases):
                run.scores = self._in_background(self._scorer.score(conversation, run.turn))
            run.finished = True
            run.tell()
