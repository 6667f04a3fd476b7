"""The engine: requests in from any thread, pictures out; one worker thread owns the device.

    python -c "from generator.engine import Engine, DrawRequest; ..."   # see generator/draw.py for the shortest use

The worker's round is admit, choose, step. Drawings of one size share a batch, which each may join or leave at any
step; users share it equally, each user's requests are drawn in their order, and a drawing depends on nothing but its
own request.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, TypeVar

from PIL import Image

from generator.edits import Trajectories, Trajectory
from generator.errors import DrawingCancelled, DrawingFailed, EngineClosed, GeneratorError, QueueFull
from generator.request import DrawRequest, Limits
from generator.turns import TurnQueue

__all__ = ["Backbone", "DrawRequest", "Drawing", "Engine", "Job", "Progress", "Sketch"]

LONGEST_QUEUE = 100  # drawings of one user that may wait

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
    provenance: Mapping[str, str] = field(default_factory=dict)  # the model's, see generator/provenance.py


class Sketch(Protocol):
    """What the engine asks of a drawing under way."""

    @property
    def request(self) -> DrawRequest: ...
    @property
    def done(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def finished(self) -> bool: ...
    @property
    def failed(self) -> Exception | None: ...
    @property
    def truncated(self) -> bool: ...  # the prompt
    @property
    def seconds(self) -> dict[str, float]: ...  # text, denoise
    @property
    def trajectory(self) -> Trajectory | None: ...  # of the finished drawing; None where it cannot be edited


S = TypeVar("S", bound=Sketch)


class Backbone(Protocol[S]):
    """What the engine asks of a loaded model; `pipeline.py` and `backbones.py` answer. All but the first four are
    called by the worker alone."""

    @property
    def native(self) -> int: ...  # the side, in pixels, of the square pictures that it was made for
    @property
    def provenance(self) -> Mapping[str, str]: ...
    @property
    def limits(self) -> Limits: ...
    def check(self, request: DrawRequest) -> None: ...
    def begin(self, request: DrawRequest, source: Trajectory | None = None) -> S: ...
    def advance(self, canvases: Sequence[S]) -> None: ...  # one step of each; they share a size
    def decode(self, canvas: S) -> Image.Image: ...
    def preview(self, canvas: S) -> Image.Image | None: ...


OnProgress = Callable[[Progress], None]
T = TypeVar("T")


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


class Engine:
    """`batch` drawings of the model's own size advance together, fewer of a larger one. Who listens to a drawing's
    progress is shown about `previews` previews.

    A pipeline that is still to be loaded is loaded by the worker: OpenMP keeps a team of threads for every thread that
    ever computed, and with two teams on one machine each of a step's operations begins late: 1.5 times the time.
    """

    def __init__(self, source: Backbone[Any] | Callable[[], Backbone[Any]], batch: int = 8, previews: int = 5):
        self.source = source
        self.loading: Future[Backbone[Any]] = Future()
        self.batch = batch
        self.previews = previews
        self.queue: TurnQueue[Job] = TurnQueue()
        self.running: dict[Job, Sketch | None] = {}  # None until its prompt is encoded
        self.trajectories = Trajectories()
        self.tasks: deque[Callable[[], None]] = deque()
        self.rounds = 0
        self.closed = False
        self.changed = threading.Condition()
        self.worker = threading.Thread(target=self.work, name="easel-generator", daemon=True)
        self.worker.start()

    @property
    def pipeline(self) -> Backbone[Any]:
        """Waits until it is loaded; raises what went wrong with that."""
        return self.loading.result()

    def submit(self, request: DrawRequest, on_progress: OnProgress | None = None) -> Job:
        """`on_progress` is called by the worker: it should return at once.

        Raises RequestError, QueueFull and EngineClosed, and what went wrong with loading the pipeline.
        """
        self.pipeline.check(request)
        job = Job(self, request, on_progress)
        with self.changed:
            if self.closed:
                raise EngineClosed("The generator was shut down. Start the app again.")
            waiting = self.queue.count(request.owner)
            if waiting >= LONGEST_QUEUE:
                raise QueueFull(f"{waiting} of your pictures wait already. Let some be drawn first, or stop them.")
            self.queue.push(request.owner, job)
            self.changed.notify()
        return job

    def call(self, function: Callable[[], T]) -> T:
        """The result of `function`, which the worker runs between two steps. Raises what went wrong in loading."""
        _ = self.pipeline  # waits for it
        future: Future[T] = Future()

        def task() -> None:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        with self.changed:
            if self.closed:
                raise EngineClosed("The generator was shut down. Start the app again.")
            self.tasks.append(task)
            self.changed.notify()
        return future.result()

    def position(self, job: Job) -> int:
        with self.changed:
            ahead = self.queue.ahead_of(job.request.owner, job)
            return 0 if ahead is None else ahead + len(self.running)

    def withdraw(self, job: Job) -> bool:
        with self.changed:
            return self.queue.remove(job.request.owner, job)

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
        if self.loading.done() and threading.current_thread() is not self.worker:
            self.worker.join()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the worker's side

    def work(self) -> None:
        try:
            self.loading.set_result(self.source() if callable(self.source) else self.source)
        except Exception as error:
            self.loading.set_exception(error)
            return
        while self.admit():
            while self.tasks:
                self.tasks.popleft()()
            for jobs in self.chosen():
                self.step(jobs)

    def admit(self) -> bool:
        """Begin what there is room for, waiting while there is nothing to do; False once closed and idle.

        A user of whom nothing is under way need not wait for room: the others then pause instead.
        """
        with self.changed:
            while not (self.running or self.queue.waiting or self.tasks or self.closed):
                self.changed.wait()
            while len(self.running) < 2 * self.batch:
                full = len(self.running) >= self.batch
                busy = {job.request.owner for job in self.running} if full else set()
                job = self.queue.pop(skipping=busy)
                if job is None:
                    break
                job.started = time.perf_counter()
                self.running[job] = None
            return bool(self.running or self.tasks or not self.closed)

    def chosen(self) -> list[list[Job]]:
        """The next batches, one of each size: as many drawings of every user as of the one who has fewest."""
        owned: dict[str, list[Job]] = {}
        for job in self.running:
            owned.setdefault(job.request.owner, []).append(job)
        if not owned:
            return []
        self.rounds += 1
        first = self.rounds % len(owned)  # with more users than fit in a batch, another one begins in each round
        users = [*owned.values()][first:] + [*owned.values()][:first]
        share = max(1, min(min(map(len, users)), self.batch // len(users)))
        batches: dict[tuple[int, int], list[Job]] = {}
        for job in [job for jobs in users for job in jobs[:share]][: self.batch]:
            batches.setdefault(job.request.size, []).append(job)
        return [
            jobs[start : start + room]
            for size, jobs in batches.items()
            for room in [max(1, self.batch * self.pipeline.native**2 // (size[0] * size[1]))]
            for start in range(0, len(jobs), room)
        ]

    def step(self, jobs: Sequence[Job]) -> None:
        """One step of these drawings; those that end with it are handed out."""
        ready: dict[Job, Sketch] = {}
        for job in jobs:
            with self.minding(job):
                stopped = job.why_stopped()
                if stopped is not None:
                    raise stopped
                canvas = self.running[job]
                if canvas is None:
                    canvas = self.running[job] = self.begin(job.request)
                ready[job] = canvas
        if not ready:
            return
        try:
            self.pipeline.advance([*ready.values()])
        except Exception as error:
            if len(ready) > 1:  # whose fault it is shows when each is alone
                log.warning("A batch broke off (%s): its drawings go on one by one.", error)
                for job in ready:
                    self.step([job])
                return
            (job,) = ready
            self.collect(job, broken_off(error))
            return
        for job, canvas in ready.items():
            with self.minding(job):
                self.hand_out(job, canvas)

    def begin(self, request: DrawRequest) -> Sketch:
        """An edit of a picture whose trajectory is not here (any more) begins with drawing that one again."""
        while isinstance(source := request.source, DrawRequest):
            if source in self.trajectories:
                return self.pipeline.begin(request, self.trajectories.get(source))
            request = source
        return self.pipeline.begin(request)

    @contextmanager
    def minding(self, job: Job) -> Iterator[None]:
        """What goes wrong inside ends this job alone."""
        try:
            yield
        except Exception as error:
            self.collect(job, broken_off(error))

    def hand_out(self, job: Job, canvas: Sketch) -> None:
        """Tell how far the drawing is; the picture when it is finished."""
        if canvas.failed:
            raise canvas.failed
        if not canvas.finished:
            job.report(Progress(canvas.done, canvas.steps, self.preview(job, canvas)))
            return
        if (trajectory := canvas.trajectory) is not None:
            self.trajectories.keep(canvas.request, trajectory)
        if canvas.request != job.request:  # it was the source, or one of the source's own
            self.running[job] = None
            return
        before = time.perf_counter()
        image = self.pipeline.decode(canvas)
        after = time.perf_counter()
        job.report(Progress(canvas.done, canvas.steps))
        timings = {
            "queue": job.started - job.submitted,
            **canvas.seconds,
            "vae": after - before,
            "total": after - job.submitted,
        }
        self.collect(job, Drawing(image, job.request, timings, canvas.truncated, self.pipeline.provenance))

    def preview(self, job: Job, canvas: Sketch) -> Image.Image | None:
        wanted = job.on_progress is not None and canvas.done % max(1, canvas.steps // self.previews) == 0
        return self.pipeline.preview(canvas) if wanted else None

    def collect(self, job: Job, outcome: Drawing | GeneratorError) -> None:
        with self.changed:
            del self.running[job]
        if isinstance(outcome, Drawing):
            job.succeed(outcome)
        else:
            job.fail(outcome)


def broken_off(error: Exception) -> GeneratorError:
    """`error` as a user may read it."""
    if isinstance(error, GeneratorError):
        return error
    log.error("A drawing broke off.", exc_info=error)
    return DrawingFailed(f"The drawing broke off: {error}. Try again, or a smaller size.")
