"""The engine: requests in from any thread, pictures out; one worker thread owns the device.

    python -c "from generator.engine import Engine, DrawRequest; ..."   # see generator/draw.py for the shortest use

The worker's round is schedule, step, collect. Users take turns, each user's requests are drawn in their order, and
a drawing depends on nothing but its own request.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from PIL import Image

from generator.errors import DrawingCancelled, DrawingFailed, EngineClosed, GeneratorError
from generator.pipeline import Canvas, Pipeline
from generator.request import DrawRequest

__all__ = ["DrawRequest", "Drawing", "Engine", "Job", "Progress"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    step: int  # done, from 1
    steps: int
    preview: Image.Image | None = None


@dataclass(frozen=True)
class Drawing:
    image: Image.Image
    request: DrawRequest
    timings: dict[str, float]  # seconds: queue, text, denoise, vae, total
    truncated: bool = False  # the prompt was longer than the text encoders read


OnProgress = Callable[[Progress], None]


class Job:
    """One submitted request. Wait with `result`, or with `await`: cancelling the waiting task stops the drawing too."""

    def __init__(self, engine: Engine, request: DrawRequest, on_progress: OnProgress | None):
        self.engine = engine
        self.request = request
        self.on_progress = on_progress
        # Never marked as running, so that its own cancel() works at any time and the worker sees it at the next step.
        self.future: Future[Drawing] = Future()
        self.stopped: GeneratorError | None = None
        self.submitted = time.perf_counter()
        self.started = self.submitted

    def result(self, timeout: float | None = None) -> Drawing:
        return self.future.result(timeout)

    def __await__(self) -> Generator[Any, None, Drawing]:
        return asyncio.wrap_future(self.future).__await__()

    def cancel(self) -> None:
        """Takes effect within one step; `result` then raises DrawingCancelled."""
        self.stop(DrawingCancelled("The drawing was stopped."))

    @property
    def position(self) -> int:
        """How many drawings come first: 0 while it is being drawn, and afterwards."""
        return self.engine.position(self)

    def stop(self, error: GeneratorError) -> None:
        self.stopped = error
        if self.engine.withdraw(self):
            self.fail(error)

    def why_stopped(self) -> GeneratorError | None:
        return DrawingCancelled("The drawing was stopped.") if self.future.cancelled() else self.stopped

    def report(self, progress: Progress) -> None:
        if self.on_progress is None:
            return
        try:
            self.on_progress(progress)
        except Exception:  # a listener's mistake must not cost the picture
            log.exception("A progress listener failed; it hears no more of this drawing.")
            self.on_progress = None

    def succeed(self, drawing: Drawing) -> None:
        try:
            self.future.set_result(drawing)
        except InvalidStateError:
            log.debug("A drawing was finished just as it was cancelled.")

    def fail(self, error: Exception) -> None:
        try:
            self.future.set_exception(error)
        except InvalidStateError:
            log.debug("A drawing failed just as it was cancelled.")


class TurnQueue:
    """First come first served for each owner; owners take turns. Not thread-safe: the engine holds the lock."""

    def __init__(self) -> None:
        self.waiting: OrderedDict[str, deque[Job]] = OrderedDict()  # owners in the order of their turns

    def push(self, job: Job) -> None:
        self.waiting.setdefault(job.request.owner, deque()).append(job)

    def pop(self) -> Job | None:
        if not self.waiting:
            return None
        owner, jobs = self.waiting.popitem(last=False)
        job = jobs.popleft()
        if jobs:
            self.waiting[owner] = jobs  # behind the others
        return job

    def remove(self, job: Job) -> bool:
        jobs = self.waiting.get(job.request.owner)
        if jobs is None or job not in jobs:
            return False
        jobs.remove(job)
        if not jobs:
            del self.waiting[job.request.owner]
        return True

    def ahead_of(self, job: Job) -> int | None:
        """How many waiting jobs are drawn before this one; None if it does not wait."""
        jobs = self.waiting.get(job.request.owner)
        if jobs is None or job not in jobs:
            return None
        turn, ahead, before = jobs.index(job), 0, True
        for owner, others in self.waiting.items():
            if owner == job.request.owner:
                ahead, before = ahead + turn, False
            else:
                ahead += min(len(others), turn + 1 if before else turn)
        return ahead


class Engine:
    """`slots` drawings are under way at a time; with more than one they advance in turns, a step each."""

    def __init__(self, pipeline: Pipeline, slots: int = 1, preview_every: int = 4):
        self.pipeline = pipeline
        self.slots = slots
        self.preview_every = preview_every
        self.queue = TurnQueue()
        self.running: dict[Job, Canvas | None] = {}  # None until its prompt is encoded
        self.closed = False
        self.changed = threading.Condition()
        self.worker = threading.Thread(target=self.work, name="easel-generator", daemon=True)
        self.worker.start()

    def submit(self, request: DrawRequest, on_progress: OnProgress | None = None) -> Job:
        """`on_progress` is called by the worker: it should return at once. Raises RequestError and EngineClosed."""
        self.pipeline.check(request)
        job = Job(self, request, on_progress)
        with self.changed:
            if self.closed:
                raise EngineClosed("The generator was shut down. Start the app again.")
            self.queue.push(job)
            self.changed.notify()
        return job

    def position(self, job: Job) -> int:
        with self.changed:
            ahead = self.queue.ahead_of(job)
            return 0 if ahead is None else ahead + len(self.running)

    def withdraw(self, job: Job) -> bool:
        with self.changed:
            return self.queue.remove(job)

    def close(self) -> None:
        """Stops what is being drawn and what waits (EngineClosed), and ends the worker. May be called twice."""
        with self.changed:
            self.closed = True
            jobs = list(self.running)
            while (job := self.queue.pop()) is not None:
                jobs.append(job)
                job.fail(EngineClosed("The generator was shut down before this was drawn."))
            self.changed.notify()
        for job in jobs:
            job.stop(EngineClosed("The generator was shut down while this was drawn."))
        if threading.current_thread() is not self.worker:
            self.worker.join()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the worker's side

    def work(self) -> None:
        while self.schedule():
            for job in list(self.running):
                try:
                    finished = self.step(job)
                except GeneratorError as error:
                    self.collect(job, error)
                except Exception as error:  # one drawing's bad luck, such as memory, must not end the others
                    log.exception("A drawing broke off.")
                    self.collect(job, DrawingFailed(f"The drawing broke off: {error}. Try again, or a smaller size."))
                else:
                    if finished is not None:
                        self.collect(job, finished)

    def schedule(self) -> bool:
        """Fill the free slots, waiting while there is nothing to do; False once closed and idle."""
        with self.changed:
            while not self.running and not self.queue.waiting and not self.closed:
                self.changed.wait()
            while len(self.running) < self.slots and (job := self.queue.pop()) is not None:
                job.started = time.perf_counter()
                self.running[job] = None
            return bool(self.running)

    def step(self, job: Job) -> Drawing | None:
        """One step of one drawing; the picture when that was the last."""
        stopped = job.why_stopped()
        if stopped is not None:
            raise stopped
        canvas = self.running[job]
        if canvas is None:
            self.running[job] = self.pipeline.begin(job.request)
            return None
        self.pipeline.advance(canvas)
        if not canvas.finished:
            job.report(Progress(canvas.done, len(canvas.plan), self.preview(job, canvas)))
            return None
        before = time.perf_counter()
        image = self.pipeline.decode(canvas.latents)
        after = time.perf_counter()
        job.report(Progress(canvas.done, len(canvas.plan)))
        timings = {
            "queue": job.started - job.submitted,
            **canvas.seconds,
            "vae": after - before,
            "total": after - job.submitted,
        }
        return Drawing(image, job.request, timings, canvas.truncated)

    def preview(self, job: Job, canvas: Canvas) -> Image.Image | None:
        wanted = job.on_progress is not None and canvas.done % self.preview_every == 0
        return self.pipeline.preview(canvas) if wanted else None

    def collect(self, job: Job, outcome: Drawing | GeneratorError) -> None:
        with self.changed:
            del self.running[job]
        if isinstance(outcome, Drawing):
            job.succeed(outcome)
        else:
            job.fail(outcome)
