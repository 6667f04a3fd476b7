"""Small stand-ins for the two models, for tests only: a queue of replies, and an engine that paints a colour."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from dialog_mllm.evaluation import read_reply, turns_of
from dialog_mllm.messages import Message
from dialog_mllm.protocol import Parser, Reply
from dialog_mllm.records import read_records
from generator.errors import DrawingCancelled
from generator.request import DrawRequest, Limits

Says = str | Exception | Callable[[Sequence[Message]], str]


class FakeDialog:
    """Answers from its queue, then by echoing: "draw …" is drawn, all else is answered in words."""

    state, error = "ready", ""
    live = None  # no adapters
    server = ("", "")

    def __init__(self, *replies: Says, pause: float = 0.0) -> None:
        self.replies = list(replies)
        self.pause = pause
        self.asked: list[tuple[list[Message], str]] = []
        self.closed = 0

    async def reply(
        self, messages: Sequence[Message], mode: Any = "auto", conversation: str = ""
    ) -> AsyncGenerator[Any]:
        self.asked.append((list(messages), mode))
        said = self.replies.pop(0) if self.replies else echo
        output = said(messages) if callable(said) else said
        parser = Parser()
        try:
            if isinstance(output, Exception):
                raise output
            for piece in [output[i : i + 5] for i in range(0, len(output), 5)]:
                for event in parser.feed(piece):
                    yield event
                await asyncio.sleep(self.pause)
            events, reply = parser.finish()
            for event in events:
                yield event
            yield reply
        finally:
            self.closed += 1


def echo(messages: Sequence[Message]) -> str:
    said = messages[-1].text
    previous = [message.text for message in messages if message.text.startswith("<draw>")]
    if said.lower().startswith("draw "):
        return f"<draw>A flat picture of {said[5:]}."
    if previous and said.lower().startswith(("give", "make", "now")):
        return f"{previous[-1].rstrip('.')}, {said}."
    return f"You said: {said}"


@dataclass(frozen=True)
class FakeProgress:
    step: int
    steps: int
    preview: Image.Image | None = None


@dataclass(frozen=True)
class FakeDrawing:
    image: Image.Image
    request: DrawRequest
    timings: dict[str, float]
    provenance: dict[str, str] = field(default_factory=lambda: {"generator": "sha256:fa4e", "precision": "float32"})


class FakeJob:
    def __init__(self) -> None:
        self.future: Future[FakeDrawing] = Future()
        self.cancelled = threading.Event()
        self.position = 0

    def cancel(self) -> None:
        self.cancelled.set()


class FakeGenerator:
    """Paints the colour of the prompt's and the seed's hash, one thread a picture."""

    state, error = "ready", ""
    limits = Limits(16, 16, 512, ("dpmpp", "ddim"))

    def __init__(self, pause: float = 0.0, *errors: Exception) -> None:
        self.pause = pause
        self.errors = list(errors)
        self.requests: list[DrawRequest] = []
        self.jobs: list[FakeJob] = []
        self.ahead = 0  # pictures of others, for as long as the test says

    def submit(self, request: DrawRequest, on_progress: Callable[[Any], None] | None = None) -> FakeJob:
        self.limits.check(request)
        self.requests.append(request)
        job = FakeJob()
        job.position = self.ahead
        self.jobs.append(job)
        threading.Thread(target=self._paint, args=(job, request, on_progress), daemon=True).start()
        return job

    def _paint(self, job: FakeJob, request: DrawRequest, on_progress: Callable[[Any], None] | None) -> None:
        while job.position and not job.cancelled.is_set():
            time.sleep(0.02)
            job.position = self.ahead
        for step in range(1, 6):
            time.sleep(self.pause)
            if job.cancelled.is_set():
                job.future.set_exception(DrawingCancelled("The drawing was stopped."))
                return
            if on_progress is not None:
                on_progress(FakeProgress(step, 5, colour_of(request) if step % 2 else None))
        if self.errors:
            job.future.set_exception(self.errors.pop(0))
        else:
            job.future.set_result(FakeDrawing(colour_of(request), request, {"denoise": 0.01}))


class FakeModels:
    def __init__(self, dialog: FakeDialog | None = None, generator: FakeGenerator | None = None) -> None:
        self.dialog = dialog or FakeDialog()
        self.generator = generator or FakeGenerator()
        self.status = {"status": "ready", "dialog": "ready", "generator": "ready"}

    def stop(self) -> None:
        pass

    def health(self) -> dict[str, str]:
        return self.status


def colour_of(request: DrawRequest) -> Image.Image:
    digest = hashlib.sha256(f"{request.prompt}|{request.seed}".encode()).digest()
    return Image.new("RGB", request.size, (digest[0], digest[1], digest[2]))


Say = Callable[[str], str | Exception]


class KnowingModel:
    """A dialog client that answers what `say` makes of the record's own reply."""

    def __init__(self, file: Path, say: Say) -> None:
        turns = list(turns_of(read_records([file])))
        self.truth = {tuple(message.text for message in turn.history): turn.wanted for turn in turns}
        self.say = say
        self.asked = 0

    async def reply(self, messages: Sequence[Message]) -> AsyncGenerator[Reply | None]:
        self.asked += 1
        said = self.say(self.truth[tuple(message.text for message in messages)])
        if isinstance(said, Exception):
            raise said
        yield read_reply(said)
