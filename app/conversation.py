"""The heart of Easel: one turn of a conversation, from the user's message to the stored picture.

    async for event in take_turn(conversation, UserMessage("draw a red fox"), dialog, generator, store, profile): ...

The browser, the HTTP API and the tests all drive this one function; what else a user does with a turn is in
branches.py. It knows nothing of Gradio, HTTP or SQL: what it needs of the dialog model, the generator and the store
stands in the three protocols below.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args

from PIL import Image

from app.errors import EaselError, InputRefused
from app.pictures import read_upload
from app.profiles import Profile
from app.store import Conversation, Turn
from dialog_mllm import protocol
from dialog_mllm.errors import DialogError, DialogUnavailable
from dialog_mllm.messages import ImageBlock, Message
from generator.errors import GeneratorError
from generator.metadata import picture_texts
from generator.request import DrawRequest, Upload

Mode = Literal["auto", "draw", "talk"]
MODES = get_args(Mode)
MAX_TEXT = 4_000  # characters in one message
MAX_UPLOADS = 4  # pictures in one message
TITLE_LENGTH = 48
LOOK_EVERY = 0.3  # seconds between two looks at a waiting drawing's place in the queue
# Of the letters of two prompts, the share that stands in both, in order, from which on one is an edit of the other.
ALIKE = 0.6
MOST_COMPARED = 400  # letters of two prompts that are compared one by one
# Submitting waits while the generator loads: it must not take the threads that all else needs.
SUBMITTERS = ThreadPoolExecutor(64, "easel-submit")
STOPPED = "Stopped."
UNEXPECTED = "Something went wrong that should not have. Press Retry; the log says more."

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class UserMessage:
    text: str
    pictures: tuple[Path | bytes | str, ...] = ()  # uploads, and ids of pictures that the store has


@dataclass(frozen=True)
class Accepted:
    """The message is stored: whatever happens now, it is not lost."""

    turn: Turn


@dataclass(frozen=True)
class TextDelta:
    text: str


@dataclass(frozen=True)
class DrawDecision:
    """The model chose to draw. The probability is only known with the whole reply; `Done` carries it."""

    probability: float | None = None


@dataclass(frozen=True)
class PromptDelta:
    text: str


@dataclass(frozen=True)
class Progress:
    step: int  # 0: waiting to begin
    steps: int
    preview: Image.Image | None = None
    ahead: int = 0  # pictures that are drawn before it begins
    place: int = 0  # which one, of several that are drawn together


@dataclass(frozen=True)
class Picture:
    id: str
    prompt: str
    seed: int
    place: int = 0


@dataclass(frozen=True)
class Done:
    turn: Turn


@dataclass(frozen=True)
class Failed:
    """The turn ended without a reply: an error, or the user stopped it. It can be retried."""

    turn: Turn
    message: str
    error: Exception | None = None


Event = Accepted | TextDelta | DrawDecision | PromptDelta | Progress | Picture | Done | Failed


class Dialog(Protocol):
    def reply(
        self, messages: Sequence[Message], mode: Mode = "auto", conversation: str = ""
    ) -> AsyncGenerator[Any]: ...


class Job(Protocol):
    @property
    def future(self) -> Any: ...  # a concurrent.futures.Future of a Drawing
    @property
    def position(self) -> int: ...  # how many drawings come first; 0 once it has begun

    def cancel(self) -> Any: ...


class Generator(Protocol):
    def submit(self, request: DrawRequest, on_progress: Callable[[Any], None] | None = None) -> Job: ...


class Turns(Protocol):
    """What a turn needs of the store; the HTTP API brings a store of its own for conversations it does not keep."""

    def begin_turn(
        self, conversation: Conversation, parent: str | None, said: str, uploads: tuple[str, ...], mode: str, seed: int
    ) -> Turn: ...
    def update_turn(self, turn_id: str, **changes: Any) -> Turn: ...
    def turn(self, turn_id: str) -> Turn: ...
    def path(self, leaf: str | None) -> list[Turn]: ...
    def add_picture(self, picture: Image.Image, info: dict[str, str] | None = None) -> str: ...
    def picture_path(self, picture_id: str) -> Path: ...


async def take_turn(
    conversation: Conversation,
    message: UserMessage,
    dialog: Dialog,
    generator: Generator,
    store: Turns,
    profile: Profile,
    mode: Mode = "auto",
    cancel: asyncio.Event | None = None,
    parent: str | None = None,
    system: str = "",
) -> AsyncGenerator[Event]:
    """One turn after `parent` (None: the first). InputRefused is raised before anything is stored; later every error
    ends the turn with Failed."""
    cancel = cancel or asyncio.Event()
    check_message(message, mode)
    uploads = await asyncio.to_thread(_store_uploads, message, store)
    turn = store.begin_turn(conversation, parent, message.text.strip(), uploads, mode, conversation.seed)
    work = Work(turn, store)
    answer = _answer(work, conversation, dialog, generator, profile, mode, system, cancel)
    async with aclosing(to_its_end(work, answer)) as events:
        async for event in events:
            yield event


async def _answer(
    work: Work,
    conversation: Conversation,
    dialog: Dialog,
    generator: Generator,
    profile: Profile,
    mode: Mode,
    system: str,
    cancel: asyncio.Event,
) -> AsyncGenerator[Event]:
    started = time.perf_counter()
    reply: protocol.Reply | None = None
    async with aclosing(until(cancel, _ask(dialog, work.turn, work.store, profile, mode, system))) as events:
        async for event in events:
            if isinstance(event, protocol.Reply):
                reply = event
            else:
                work.hear(event)
                yield event
    if reply is None:
        raise DialogUnavailable("The dialog model broke off in mid-reply. Retry.")
    work.adapter = reply.adapter
    # The prompt is stored before it is drawn: a crash while drawing loses no word of it.
    work.update(
        status="drawing" if reply.kind == "draw" else "done", text=reply.text, prompt=reply.prompt,
        switched=reply.switched, raw=reply.raw, draw_probability=reply.draw_probability, adapter=reply.adapter or "",
        timings={"dialog": time.perf_counter() - started, **(reply.timings or {})},
    )  # fmt: skip
    if reply.kind == "draw":
        async with aclosing(draw_turn(work, conversation, generator, profile, cancel)) as steps:
            async for step in steps:
                yield step


async def draw_turn(
    work: Work, conversation: Conversation, generator: Generator, profile: Profile, cancel: asyncio.Event
) -> AsyncGenerator[Progress | Picture]:
    """Draws the prompt of a turn and stores the picture."""
    started = time.perf_counter()
    drawing = None
    path = work.store.path(work.turn.id)
    request = await asyncio.to_thread(draw_request, path, conversation, profile, work.store)
    async with aclosing(until(cancel, draw(generator, request))) as steps:
        async for step in steps:
            if isinstance(step, Progress):
                yield step
            else:
                drawing = step
    assert drawing is not None
    picture = await asyncio.to_thread(keep, drawing, path, profile, work.store, work.adapter)
    timings = {**(work.turn.timings or {}), "drawing": time.perf_counter() - started, **(drawing.timings or {})}
    turn = work.update(status="done", picture=picture, timings=timings)
    yield Picture(picture, turn.prompt, turn.seed)


async def to_its_end(work: Work, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
    """A turn that is stored, what happens to it, and how it ends."""
    try:
        yield Accepted(work.turn)
        async with aclosing(events):
            async for event in events:
                yield event
        yield Done(work.turn)
    except Stopped:
        yield Failed(work.end("cancelled", STOPPED), STOPPED)
    except (DialogError, GeneratorError, EaselError) as error:
        yield Failed(work.end("failed", str(error)), str(error), error)
    except (asyncio.CancelledError, GeneratorExit):
        work.end("cancelled", STOPPED)
        raise
    except Exception as error:
        log.exception("a turn failed")
        yield Failed(work.end("failed", UNEXPECTED), UNEXPECTED, error)


def title_of(text: str) -> str:
    """A conversation's title, from its first message."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"


def check_message(message: UserMessage, mode: str = "auto") -> None:
    """Raises InputRefused, with what to do about it."""
    if mode not in MODES:
        raise InputRefused(f"There is no mode {mode!r}. Choose {', '.join(MODES)}.")
    if not message.text.strip() and not message.pictures:
        raise InputRefused("The message is empty. Write what you would like to see, or add a picture.")
    check_unicode(message.text, "The message")
    if len(message.text) > MAX_TEXT:
        raise InputRefused(
            f"The message has {len(message.text):,} characters; at most {MAX_TEXT:,} can be read. Shorten it first."
        )
    if len(message.pictures) > MAX_UPLOADS:
        raise InputRefused(f"A message can hold at most {MAX_UPLOADS} pictures. Remove some and send again.")


def check_unicode(text: str, what: str) -> None:
    """JSON can write half of a character that UTF-16 writes in two; no file, database or model can hold it."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InputRefused(f"{what} holds half a character (a lone surrogate). Type it again, or send valid Unicode.")


def history(turns: Sequence[Turn], store: Turns) -> list[Message]:
    """The turns as the dialog model reads them. A turn that got no reply is left out, its message with it."""
    messages: list[Message] = []
    for turn in turns:
        if turn.picture:
            picture = ImageBlock(path=store.picture_path(turn.picture))
        elif turn.prompt or not turn.text:
            continue
        else:
            picture = None
        reply = protocol.Reply("draw" if turn.prompt else "text", turn.text, turn.prompt, turn.switched)
        messages += [_user(turn, store), Message.assistant(reply.content, picture)]
    return messages


class Stopped(Exception):
    """The user pressed Stop."""


class Work:
    """A turn under way, as it is stored; and what was shown of its reply so far."""

    def __init__(self, turn: Turn, store: Turns) -> None:
        self.turn = turn
        self.store = store
        self.text = self.prompt = ""
        self.adapter: str | None = None  # see Reply

    def hear(self, event: TextDelta | DrawDecision | PromptDelta) -> None:
        if isinstance(event, TextDelta):
            self.text += event.text
        elif isinstance(event, PromptDelta):
            self.prompt += event.text

    def update(self, **changes: Any) -> Turn:
        self.turn = self.store.update_turn(self.turn.id, **changes)
        return self.turn

    def end(self, status: str, error: str) -> Turn:
        """Write how the turn ended, with what was shown until then. With a full disk that fails too; the store then
        finds the turn as failed at its next start."""
        text, prompt = self.turn.text or self.text, self.turn.prompt or self.prompt
        try:
            self.update(status=status, error=error, text=text, prompt=prompt)
        except EaselError:
            log.exception("the end of a turn could not be stored")
        return self.turn


def _store_uploads(message: UserMessage, store: Turns) -> tuple[str, ...]:
    # All are read before one is stored.
    pictures = [picture if isinstance(picture, str) else read_upload(picture) for picture in message.pictures]
    return tuple(picture if isinstance(picture, str) else store.add_picture(picture) for picture in pictures)


def _user(turn: Turn, store: Turns) -> Message:
    return Message.user(turn.said, [ImageBlock(path=store.picture_path(picture)) for picture in turn.uploads])


async def _ask(
    dialog: Dialog, turn: Turn, store: Turns, profile: Profile, mode: Mode, system: str
) -> AsyncGenerator[TextDelta | DrawDecision | PromptDelta | protocol.Reply]:
    """The reply to `turn`, piece by piece and then whole."""
    past = history(store.path(turn.parent), store)
    first = [Message("system", Message.user(system).content)] if system and profile.system_messages else []
    async with aclosing(dialog.reply([*first, *past, _user(turn, store)], mode, turn.conversation)) as events:
        async for event in events:
            if isinstance(event, protocol.TextDelta):
                yield TextDelta(event.text)
            elif isinstance(event, protocol.DrawStart):
                yield DrawDecision()
            elif isinstance(event, protocol.PromptDelta):
                yield PromptDelta(event.text)
            else:
                yield event


def draw_request(turns: Sequence[Turn], conversation: Conversation, profile: Profile, store: Turns) -> DrawRequest:
    """What the last of `turns`, a path, asks to draw: a change of the picture that was uploaded with it or of that
    one before it whose prompt is most like its own, one of these once more, or a picture of its own."""
    return _requests(turns, conversation, profile, store)[-1][1]


def base_of(turns: Sequence[Turn], conversation: Conversation, profile: Profile, store: Turns) -> str | None:
    """The id of the picture that the last of `turns`, a path, is a change of; None: it was drawn from nothing."""
    *before, (turn, request) = _requests(turns, conversation, profile, store)
    if isinstance(request.source, Upload):
        return turn.uploads[-1]
    while beside := turn.varies or turn.base:
        turn = store.turn(beside)
        before.append((turn, _request(turn, [one for _, one in before], conversation, profile, store)))
    return next((earlier.picture for earlier, one in reversed(before) if one == request.source), None)


def _requests(
    turns: Sequence[Turn], conversation: Conversation, profile: Profile, store: Turns
) -> list[tuple[Turn, DrawRequest]]:
    """What each of the turns that drew asked for; the last one may still be at it."""
    found: list[tuple[Turn, DrawRequest]] = []
    for turn in turns:
        if turn.prompt and (turn.picture or turn is turns[-1]):
            drawn = [request for _, request in found]
            found.append((turn, _request(turn, drawn, conversation, profile, store)))
    return found


def _request(
    turn: Turn, drawn: Sequence[DrawRequest], conversation: Conversation, profile: Profile, store: Turns
) -> DrawRequest:
    """What `turn` asks to draw after the pictures that were `drawn`."""
    if turn.varies:  # the same once more, and what it is a change of is the same too
        return replace(_request(store.turn(turn.varies), drawn, conversation, profile, store), seed=turn.seed)
    request = profile.request(turn.prompt, turn.seed, profile.read_settings(turn.settings), conversation.owner)
    if turn.uploads:
        if profile.upload_reuse:
            upload = Upload(store.picture_path(turn.uploads[-1]).read_bytes())
            request = replace(request, source=upload, edit=profile.upload_edit)
        return request
    before = [] if turn.switched else list(drawn)
    if turn.base:  # it stands where this turn stands, and was drawn before it
        before.append(_request(store.turn(turn.base), drawn, conversation, profile, store))
    if before and profile.edits:
        # The consistency rule keeps a prompt word by word but for the change, so the likest one is what is changed:
        # mostly the latest, but users go back as well.
        seed: dict[str, Any] = {"seed": request.seed} if turn.seeds == "vary" else {}
        likest = max(reversed(before), key=lambda earlier: likeness(replace(earlier, **seed), request))
        if replace(likest, source=None, edit=request.edit, **seed) == request:
            request = replace(likest, **seed)
        elif likeness(replace(likest, **seed), request) >= ALIKE:
            request = replace(request, source=likest)
    return request


def likeness(before: DrawRequest, after: DrawRequest) -> float:
    """Of two prompts, 0 to 1; 0 where the seed, the size, the steps or the sampler asks for a picture of its own."""
    if any(getattr(before, name) != getattr(after, name) for name in ("seed", "size", "steps", "sampler")):
        return 0.0
    old, new = before.prompt, after.prompt
    if max(len(old), len(new)) > MOST_COMPARED:  # the time grows with the third power: of long ones, the words
        return SequenceMatcher(None, old.split()[:MOST_COMPARED], new.split()[:MOST_COMPARED], autojunk=False).ratio()
    return SequenceMatcher(None, old, new, autojunk=False).ratio()


async def draw(generator: Generator, request: DrawRequest) -> AsyncGenerator[Any]:
    """Progress, then the Drawing. Leaving it early cancels the job."""
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[Any] = asyncio.Queue()
    events.put_nowait(Progress(0, request.steps))

    def tell(event: Any) -> None:  # called by the engine's thread
        with suppress(RuntimeError):  # the app has ended: nobody listens any more
            loop.call_soon_threadsafe(events.put_nowait, event)

    def look(before: int = 0) -> None:  # how the queue moves: nobody tells
        if ahead := job.position:
            if ahead != before:
                events.put_nowait(Progress(0, request.steps, ahead=ahead))
            loop.call_later(LOOK_EVERY, look, ahead)

    submitted = asyncio.ensure_future(
        loop.run_in_executor(
            SUBMITTERS, generator.submit, request,
            lambda progress: tell(Progress(progress.step, progress.steps, progress.preview)),
        )
    )  # fmt: skip
    try:
        job = await asyncio.shield(submitted)
    except asyncio.CancelledError:
        submitted.add_done_callback(_withdraw)
        raise
    job.future.add_done_callback(tell)
    look()
    try:
        while (event := await events.get()) is not job.future:
            yield event
        yield job.future.result()
    finally:
        if not job.future.done():
            job.cancel()


def _withdraw(submitted: asyncio.Future[Job]) -> None:
    """Nobody waits any more for a drawing that was being submitted."""
    if not submitted.cancelled() and submitted.exception() is None:
        submitted.result().cancel()


def keep(drawing: Any, turns: Sequence[Turn], profile: Profile, store: Turns, adapter: str | None = None) -> str:
    """The id of the picture that the last of `turns`, a path, ends with. `adapter`: the dialog model's, by its SHA-256,
    where it is not the profile's."""
    texts = picture_texts(
        drawing.request, drawing.provenance, profile=profile.name, dialog_model=profile.dialog_sha256,
        dialog_adapter=profile.adapter_sha256 if adapter is None else adapter,
        turns=" ".join(turn.id for turn in turns),
    )  # fmt: skip
    return store.add_picture(drawing.image, texts)


async def until(cancel: asyncio.Event, events: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """The events, until the user presses Stop: then Stopped, at once, whatever is being waited for."""
    stop = asyncio.ensure_future(cancel.wait())
    upcoming: asyncio.Task[T] | None = None
    try:
        while True:
            upcoming = asyncio.ensure_future(anext(events))
            await asyncio.wait({upcoming, stop}, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                raise Stopped
            try:
                yield upcoming.result()
            except StopAsyncIteration:
                return
    finally:
        stop.cancel()
        if upcoming is not None and not upcoming.done():
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
        await events.aclose()
