"""What Prometheus reads at /metrics: requests, turns, drawings and their queue, denoiser steps, dialog tokens.

    metrics = Metrics(); models = Metered(models, metrics); app.add_middleware(CountRequests, metrics=metrics)

Counted at the borders of the two models, of `take_turn` and of HTTP, so that none of these knows of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import conversation as core
from app.errors import EaselError
from app.logs import rounded, say
from dialog_mllm.messages import Message as Said
from dialog_mllm.protocol import Reply
from generator.errors import DrawingCancelled
from generator.request import DrawRequest

log = logging.getLogger(__name__)

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
STEP_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
TURN_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 150, 600)


class Metrics:
    """A registry of its own: two servers in one process count apart."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"easel_{name}", what, labels, registry=registry)

        def histogram(name: str, what: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"easel_{name}", what, labels, buckets=buckets, registry=registry)

        self.requests = counter("requests", "HTTP requests; route: the API's, or page", "route", "method", "status")
        self.turns = counter("turns", "Turns; outcome: text, picture, failed, stopped or refused", "source", "outcome")
        self.errors = counter("errors", "What turns and drawings failed of", "kind")
        self.drawings = counter("drawings", "Drawings; outcome: drawn, failed, stopped or refused", "outcome")
        self.unfinished = Gauge("easel_drawings_unfinished", "Drawings that wait or are drawn", registry=registry)
        self.step_seconds = histogram("denoiser_step_seconds", "Of each drawing, the mean time of a step", STEP_BUCKETS)
        self.drawing_seconds = histogram(
            "drawing_seconds", "Drawings; part: queue, text, denoise, vae, total", TURN_BUCKETS, "part"
        )
        self.dialog_seconds = histogram(
            "dialog_seconds", "Replies of the dialog model; part: first_token, total", TURN_BUCKETS, "part"
        )
        self.dialog_tokens = counter("dialog_tokens", "Tokens that the dialog model wrote, where its server tells")

    def response(self) -> Response:
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def watch_turn(self, source: str, events: AsyncGenerator[core.Event]) -> AsyncGenerator[core.Event]:
        """The events of `take_turn`, and how it ended is counted."""
        outcome, started, turn = "stopped", time.perf_counter(), None
        try:
            async with aclosing(events):
                async for event in events:
                    turn = getattr(event, "turn", turn)
                    if isinstance(event, core.Done):
                        outcome = "picture" if event.turn.picture else "text"
                    elif isinstance(event, core.Failed) and event.error is not None:
                        outcome = "failed"
                        self.errors.labels(type(event.error).__name__).inc()
                    yield event
        except EaselError:
            outcome = "refused"
            raise
        finally:
            self.turns.labels(source, outcome).inc()
            if turn is not None:
                say(
                    log, "turn", logging.WARNING if outcome == "failed" else logging.INFO, source=source,
                    outcome=outcome, conversation=turn.conversation, turn=turn.id,
                    seconds=round(time.perf_counter() - started, 4), timings=rounded(turn.timings),
                )  # fmt: skip


class Metered:
    """The models, counted."""

    def __init__(self, models: Any, metrics: Metrics) -> None:
        self.dialog = MeteredDialog(models.dialog, metrics)
        self.generator = MeteredGenerator(models.generator, metrics)
        self.health: Callable[[], dict[str, str]] = models.health
        self.stop: Callable[[], None] = models.stop


class MeteredDialog:
    def __init__(self, dialog: core.Dialog, metrics: Metrics) -> None:
        self._dialog = dialog
        self._metrics = metrics

    async def reply(
        self, messages: Sequence[Said], mode: core.Mode = "auto", conversation: str = ""
    ) -> AsyncGenerator[Any]:
        async with aclosing(self._dialog.reply(messages, mode, conversation)) as events:
            async for event in events:
                if isinstance(event, Reply):
                    for part, seconds in (event.timings or {}).items():
                        self._metrics.dialog_seconds.labels(part).observe(seconds)
                    self._metrics.dialog_tokens.inc(event.tokens)
                yield event


class MeteredGenerator:
    def __init__(self, generator: core.Generator, metrics: Metrics) -> None:
        self._generator = generator
        self._metrics = metrics

    def submit(self, request: DrawRequest, on_progress: Callable[[Any], None] | None = None) -> core.Job:
        metrics, steps = self._metrics, 0

        def listen(progress: Any) -> None:
            nonlocal steps
            steps += 1
            if on_progress is not None:
                on_progress(progress)

        def end(future: Future[Any]) -> None:
            metrics.unfinished.dec()
            error = future.exception() if not future.cancelled() else DrawingCancelled()
            if error is None:
                for part, seconds in (future.result().timings or {}).items():
                    metrics.drawing_seconds.labels(part).observe(seconds)
                    if part == "denoise":  # an edit takes over some of the steps that were asked for
                        metrics.step_seconds.observe(seconds / max(1, steps or request.steps))
            elif not isinstance(error, DrawingCancelled):
                metrics.errors.labels(type(error).__name__).inc()
            outcome = "drawn" if error is None else "stopped" if isinstance(error, DrawingCancelled) else "failed"
            metrics.drawings.labels(outcome).inc()

        try:
            # Who does not listen is not made to: the engine draws previews for a listener.
            job = self._generator.submit(request, listen if on_progress is not None else None)
        except Exception:
            metrics.drawings.labels("refused").inc()
            raise
        metrics.unfinished.inc()
        job.future.add_done_callback(end)
        return job


class CountRequests:
    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        server, status = scope.get("app"), 500

        async def see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, see)
        finally:
            # The pattern and never the path, and no method that somebody made up: each new label costs memory.
            if "route" in scope and scope.get("app") is server:
                route = getattr(scope["route"], "path", "none")
            elif scope["path"] == "/mcp":
                route = "/mcp"
            else:
                route = "page" if "endpoint" in scope else "none"
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.metrics.requests.labels(route, method, str(status)).inc()
