"""The engine over a tiny real pipeline: order, progress, stopping, isolation; and `easel draw`."""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generator import draw
from generator.engine import DrawRequest, Engine, Job, Progress
from generator.errors import (
    CheckpointError,
    DrawingCancelled,
    DrawingFailed,
    EngineClosed,
    QueueFull,
    RequestError,
)
from generator.pipeline import Canvas, Pipeline
from tests.generator.tiny import NATIVE

FOX = DrawRequest("a red fox", seed=3, size=(NATIVE, NATIVE), steps=4)
TIMEOUT = 20  # seconds: what would hang fails instead


class Gate:
    """A progress listener that holds the worker after its first step until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self.seen: list[Progress] = []

    def __call__(self, progress: Progress) -> None:
        self.seen.append(progress)
        self.reached.set()
        assert self.opened.wait(TIMEOUT)


def held(engine: Engine, request: DrawRequest = FOX) -> tuple[Job, Gate]:
    """A job that is being drawn and waits at its first step."""
    gate = Gate()
    job = engine.submit(request, gate)
    assert gate.reached.wait(TIMEOUT)
    return job, gate


def same(one: Image.Image, other: Image.Image) -> bool:
    """Within 1 of 255: sums of another order are rounded otherwise."""
    return bool((np.abs(np.asarray(one, int) - np.asarray(other, int)) <= 1).all())


def test_a_drawing_with_progress_and_timings(engine: Engine) -> None:
    heard: list[Progress] = []
    drawing = engine.submit(replace(FOX, steps=11), heard.append).result(TIMEOUT)
    assert drawing.image.size == FOX.size and drawing.request.seed == 3
    assert [(p.step, p.steps) for p in heard] == [(i, 11) for i in range(1, 12)]
    assert [p.step for p in heard if p.preview is not None] == [2, 4, 6, 8, 10]
    assert set(drawing.timings) == {"queue", "text", "denoise", "vae", "total"}
    parts = sum(seconds for name, seconds in drawing.timings.items() if name != "total")
    assert 0 < parts <= drawing.timings["total"]


@pytest.mark.parametrize("batch", [1, 4])
def test_the_same_request_gives_the_same_picture_in_any_company(pipeline: Pipeline, batch: int) -> None:
    requests = [
        replace(FOX, owner=f"user {i}", seed=i, steps=3 + i, size=[(64, 64), (96, 48)][i % 2]) for i in range(4)
    ]
    with Engine(pipeline, batch) as engine:
        alone = [engine.submit(request).result(TIMEOUT).image for request in requests]
        together = [job.result(TIMEOUT).image for job in [engine.submit(request) for request in requests]]
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))
    assert not same(alone[0], alone[2])


def test_users_take_turns_and_know_their_position(pipeline: Pipeline) -> None:
    with Engine(pipeline, batch=1) as engine:
        take_turns(engine)


def take_turns(engine: Engine) -> None:
    first, gate = held(engine)
    jobs = {}
    for name in ("ann 1", "ann 2", "ann 3", "ben 1", "cid 1", "ben 2"):
        jobs[name] = engine.submit(replace(FOX, owner=name[:3], steps=1))
    turns = ["ann 1", "ben 1", "cid 1", "ann 2", "ben 2", "ann 3"]
    assert first.position == 0
    assert [jobs[name].position for name in turns] == [1, 2, 3, 4, 5, 6]
    jobs["ben 1"].cancel()
    assert [jobs[name].position for name in ("ann 1", "cid 1", "ben 2", "ann 2", "ann 3")] == [1, 3, 2, 4, 5]
    gate.opened.set()
    turns.remove("ben 1")
    for name in turns:
        jobs[name].result(TIMEOUT)
    assert sorted(turns, key=lambda name: jobs[name].started) == ["ann 1", "ben 2", "cid 1", "ann 2", "ann 3"]


def test_a_second_user_does_not_wait_for_the_first_one_s_pictures(pipeline: Pipeline) -> None:
    batches: list[list[str]] = []

    class Watched(Pipeline):
        def advance(self, canvases: Sequence[Canvas]) -> None:
            batches.append([canvas.request.owner for canvas in canvases])
            super().advance(canvases)

    watched = Watched(pipeline.dit, pipeline.text, pipeline.vae, pipeline.schedule, None)
    with Engine(watched) as engine:
        gate = Gate()
        many = [engine.submit(replace(FOX, owner="ann", seed=i), gate if i == 0 else None) for i in range(20)]
        assert gate.reached.wait(TIMEOUT)
        begun = len(batches)
        one = engine.submit(replace(FOX, owner="ben"))
        gate.opened.set()
        one.result(TIMEOUT)
        steps = sum(len(batch) for batch in batches[begun:] if "ben" in batch)
        assert steps == 2 * FOX.steps, "each of them advances one picture at a time"
        for job in many:
            job.result(TIMEOUT)
    assert max(len(batch) for batch in batches) == engine.batch


def test_no_user_can_fill_the_queue(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generator.engine.LONGEST_QUEUE", 2)
    _, gate = held(engine)
    engine.batch = 1
    jobs = [engine.submit(FOX) for _ in range(2)]
    with pytest.raises(QueueFull, match="2 of your pictures wait already"):
        engine.submit(FOX)
    engine.submit(replace(FOX, owner="somebody else")).cancel()
    gate.opened.set()
    for job in jobs:
        job.result(TIMEOUT)


def test_cancel_stops_within_a_step(engine: Engine) -> None:
    job, gate = held(engine, replace(FOX, steps=500))
    job.cancel()
    gate.opened.set()
    with pytest.raises(DrawingCancelled):
        job.result(TIMEOUT)
    assert len(gate.seen) == 1
    job.cancel()  # once more does no harm
    assert engine.submit(FOX).result(TIMEOUT).image.size == FOX.size


def test_cancel_of_a_waiting_job_is_immediate(engine: Engine) -> None:
    _, gate = held(engine)
    waiting = engine.submit(FOX)
    waiting.cancel()
    with pytest.raises(DrawingCancelled):
        waiting.result(0)
    gate.opened.set()


def test_cancelling_the_task_that_awaits_stops_the_drawing(engine: Engine) -> None:
    async def main() -> Job:
        job, gate = await asyncio.to_thread(held, engine, replace(FOX, steps=500))

        async def wait() -> None:
            await job

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.opened.set()
        drawing = await asyncio.wait_for(engine.submit(FOX), TIMEOUT)
        assert drawing.image.size == FOX.size and len(gate.seen) == 1
        return job

    assert asyncio.run(main()).future.cancelled()


class Stumbling(Pipeline):
    """Overflows or breaks for the prompts that ask for it."""

    def advance(self, canvases: Sequence[Canvas]) -> None:
        for canvas in canvases:
            if canvas.request.prompt == "nan":
                canvas.latents = canvas.latents * float("nan")
            if canvas.request.prompt == "memory":
                raise MemoryError("not enough")
        super().advance(canvases)


def test_what_goes_wrong_stays_with_its_request(pipeline: Pipeline) -> None:
    stumbling = Stumbling(pipeline.dit, pipeline.text, pipeline.vae, pipeline.schedule, None)
    with Engine(stumbling) as engine:
        jobs = {prompt: engine.submit(replace(FOX, prompt=prompt)) for prompt in ("nan", "memory", "a red fox")}
        with pytest.raises(DrawingFailed, match="overflowed"):
            jobs["nan"].result(TIMEOUT)
        with pytest.raises(DrawingFailed, match=r"broke off: not enough\. Try again"):
            jobs["memory"].result(TIMEOUT)
        with Engine(pipeline) as calm:
            assert same(jobs["a red fox"].result(TIMEOUT).image, calm.submit(FOX).result(TIMEOUT).image)


def test_what_went_wrong_in_loading_is_told_to_whoever_calls() -> None:
    def fails() -> Pipeline:
        raise CheckpointError("no such folder")

    with Engine(fails) as engine, pytest.raises(CheckpointError, match="no such folder"):
        engine.call(lambda: None)


def test_a_failing_listener_does_not_cost_the_picture(engine: Engine) -> None:
    calls = []

    def listener(progress: Progress) -> None:
        calls.append(progress)
        raise RuntimeError("the browser went away")

    assert engine.submit(FOX, listener).result(TIMEOUT).image.size == FOX.size
    assert len(calls) == 1


def test_impossible_requests_never_enter_the_queue(engine: Engine) -> None:
    with pytest.raises(RequestError, match="multiples of 16"):
        engine.submit(replace(FOX, size=(64, 65)))
    assert not engine.queue.waiting


def test_close_ends_everything(pipeline: Pipeline) -> None:
    engine = Engine(pipeline)
    running, gate = held(engine, replace(FOX, steps=500))
    waiting = engine.submit(FOX)
    closing = threading.Thread(target=engine.close)
    closing.start()
    with pytest.raises(EngineClosed):
        waiting.result(TIMEOUT)
    gate.opened.set()
    closing.join(TIMEOUT)
    assert not closing.is_alive() and not engine.worker.is_alive()
    with pytest.raises(EngineClosed):
        running.result(0)
    with pytest.raises(EngineClosed):
        engine.submit(FOX)
    engine.close()


# --- easel draw


def arguments(*line: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    draw.add_arguments(parser)
    return parser.parse_args(line)


def test_draw_writes_a_png_that_says_how_it_was_made(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fox.png"
    line = ["a red fox 红狐狸", "-o", str(path), "--seed", "7", "--size", "64x48", "--steps", "3", "--json"]
    assert draw.run(arguments(*line), lambda: pipeline) == 0
    picture = Image.open(path)
    assert picture.size == (64, 48)
    wanted = {"prompt": "a red fox 红狐狸", "seed": "7", "steps": "3", "guidance": "5", "size": "64x48"}
    assert wanted.items() <= picture.info.items()
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["output"] == str(path) and summary["timings"]["total"] > 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["fox", "-o", "fox.jpg"], "ends in .png"),
        (["fox", "-o", "nowhere/fox.png"], "The folder nowhere does not exist"),
        ([""], "prompt is empty"),
        (["fox", "--steps", "0"], "from 1 to 1,000"),
    ],
)
def test_draw_refuses_before_it_loads_the_model(line: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        draw.run(arguments(*line), lambda: pytest.fail("the model was loaded"))


def test_draw_explains_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments("fox", "--size", "large")
    assert "write it like 128x128" in capsys.readouterr().err


def test_a_picture_that_cannot_be_written(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "taken.png").mkdir()
    line = ["fox", "-o", str(tmp_path / "taken.png"), "--size", "64x64", "--steps", "1"]
    with pytest.raises(RequestError, match="cannot be written"):
        draw.run(arguments(*line), lambda: pipeline)
