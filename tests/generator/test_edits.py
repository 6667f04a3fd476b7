"""Edits: what is taken over from the source, what may change, and sources that have to be drawn again."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from generator.edits import Trajectories, Trajectory, steps_reused, widened
from generator.engine import Engine, Progress
from generator.errors import RequestError
from generator.pipeline import Canvas, Pipeline
from generator.request import DrawRequest, EditSettings, Upload
from tests.generator.tiny import NATIVE

FOX = DrawRequest("a red fox", seed=3, size=(NATIVE, NATIVE), steps=10)
SNOW = replace(FOX, prompt="snow", source=FOX, edit=EditSettings(reuse=0.4))
FREE = EditSettings(reuse=0, threshold=0)


def drawn(pipeline: Pipeline, request: DrawRequest) -> Canvas:
    source = drawn(pipeline, request.source).trajectory if isinstance(request.source, DrawRequest) else None
    canvas = pipeline.begin(request, source)
    while not canvas.finished:
        pipeline.advance([canvas])
    return canvas


def test_the_same_prompt_gives_the_same_picture(pipeline: Pipeline) -> None:
    source, again = drawn(pipeline, FOX), drawn(pipeline, replace(SNOW, prompt=FOX.prompt))
    torch.testing.assert_close(again.latents, source.latents, atol=1e-5, rtol=0)
    assert again.region is not None and not again.region.any()


def test_a_trajectory_keeps_nothing_of_its_neighbours(pipeline: Pipeline) -> None:
    canvases = [pipeline.begin(replace(FOX, seed=seed)) for seed in range(3)]
    while not canvases[0].finished:
        pipeline.advance(canvases)
    way = canvases[0].trajectory
    kept = [tensor for tensor in (*way.latents, *way.clean, *way.unguided) if tensor is not None]
    assert any(word is not None for word in way.unguided)
    held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    assert sum(held.values()) == way.bytes


def test_requests_are_equal_when_their_numbers_are() -> None:
    assert replace(SNOW, guidance=5) == replace(SNOW, guidance=5.0, guidance_interval=(0, 1))
    big = 2**60
    assert replace(FOX, seed=big) != replace(FOX, seed=big + 1), "floats cannot tell them apart"


def test_an_edit_that_takes_nothing_over_is_a_fresh_picture(pipeline: Pipeline) -> None:
    free, fresh = drawn(pipeline, replace(SNOW, edit=FREE)), drawn(pipeline, replace(SNOW, source=None))
    torch.testing.assert_close(free.latents, fresh.latents)
    assert len(free.trajectory.latents) == 11 and len(free.trajectory.clean) == 10


def test_outside_the_region_the_source_stays(pipeline: Pipeline) -> None:
    source = drawn(pipeline, FOX)
    free = drawn(pipeline, replace(SNOW, edit=EditSettings(0.4, threshold=0)))
    apart = (free.trajectory.clean[-1] - source.trajectory.clean[-1]).abs().mean(1)
    settings = EditSettings(
        0.4, threshold=2 * apart.median().item(), margin=0
    )  # a random model changes a little everywhere
    edit = drawn(pipeline, replace(SNOW, edit=settings))
    assert edit.region is not None
    kept = (edit.region == 0).expand_as(edit.latents)
    assert 0 < kept.float().mean() < 1
    assert torch.equal(edit.latents[kept], source.latents[kept])
    assert not torch.equal(edit.latents, source.latents)
    for before, after in zip(source.trajectory.latents[:5], edit.trajectory.latents, strict=False):
        assert torch.equal(before, after)


def test_a_seed_of_its_own_gives_another_picture_of_the_same_change(pipeline: Pipeline) -> None:
    source, free = drawn(pipeline, FOX), drawn(pipeline, replace(SNOW, edit=EditSettings(0.4, threshold=0)))
    apart = (free.trajectory.clean[-1] - source.trajectory.clean[-1]).abs().mean(1)
    edit = replace(SNOW, edit=EditSettings(0.4, threshold=2 * apart.median().item(), margin=0))
    first, other = drawn(pipeline, edit), drawn(pipeline, replace(edit, seed=4))
    assert other.region is not None and not torch.equal(first.latents, other.latents)
    kept = (other.region == 0).expand_as(other.latents)
    assert 0 < kept.float().mean() < 1
    assert torch.equal(other.latents[kept], source.latents[kept]), "what the words do not concern stays"
    torch.testing.assert_close(drawn(pipeline, replace(edit, seed=4)).latents, other.latents)
    same = drawn(pipeline, replace(edit, prompt=FOX.prompt, seed=4))
    torch.testing.assert_close(same.latents, source.latents, atol=1e-5, rtol=0)  # no change, so no other one either
    whole = drawn(pipeline, replace(SNOW, edit=EditSettings(0.4, threshold=0), seed=4))
    assert (whole.latents != free.latents).float().mean() > 0.9


def test_an_edit_that_changes_nearly_everything_takes_fewer_steps_over(pipeline: Pipeline) -> None:
    source, settings = drawn(pipeline, FOX), EditSettings(0.4, threshold=1e-4, nearly_all=0.8)
    edit = replace(SNOW, edit=settings)
    went_back = drawn(pipeline, edit)
    assert went_back.done == len(went_back.past) == len(went_back.foreseen) == len(went_back.unguided) == 10
    few, many = (drawn(pipeline, replace(edit, edit=EditSettings(reuse, threshold=1e-4))) for reuse in (0.3, 0.4))
    torch.testing.assert_close(went_back.latents, few.latents)
    assert not torch.equal(went_back.latents, many.latents)
    local = drawn(pipeline, replace(edit, prompt=FOX.prompt))
    torch.testing.assert_close(local.latents, source.latents, atol=1e-5, rtol=0)
    varied = drawn(pipeline, replace(edit, seed=4))
    assert torch.equal(varied.past[3], source.past[3]), "a variation shares its composition with the picture it varies"


@pytest.mark.parametrize(("negative", "first"), [("", 1), ("blurred", 2)])
def test_the_first_step_asks_only_for_what_is_not_known(
    pipeline: Pipeline, negative: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    denoise = type(pipeline.dit).denoise
    monkeypatch.setattr(
        type(pipeline.dit), "denoise", lambda self, batch, parts: rows.append(len(batch)) or denoise(self, batch, parts)
    )
    request = replace(SNOW, negative_prompt=negative)
    source = drawn(pipeline, FOX).trajectory
    rows.clear()
    canvas = pipeline.begin(request, source)
    while not canvas.finished:
        pipeline.advance([canvas])
    assert rows == [first, 2, 2, 2, 2, 2]
    forgetful = replace(source, unguided=(None,) * 10)
    again = pipeline.begin(request, forgetful)
    while not again.finished:
        pipeline.advance([again])
    torch.testing.assert_close(canvas.latents, again.latents, atol=1e-5, rtol=0)
    for one, other in zip(canvas.unguided[4:], again.unguided[4:], strict=True):
        assert one is not None and other is not None
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_the_region_is_soft_and_grows() -> None:
    settings = EditSettings(threshold=0.4, margin=1)
    old = torch.zeros(1, 2, 5, 5)
    new = old.clone()
    new[..., 2, 2], new[..., 0, 4] = 0.4, 0.1
    region = widened(torch.zeros(1, 1, 5, 5), new, old, settings)
    assert torch.equal(region[0, 0, 1:4, 1:4], torch.full((3, 3), 0.5)), "half open at the threshold, and its margin"
    assert region.sum() == 4.5, "less than half the threshold is no difference"
    assert torch.equal(widened(region, old, old, settings), region)


@pytest.mark.parametrize(("steps", "reuse", "reused"), [(20, 0.4, 8), (10, 0.0, 0), (1, 0.9, 0), (2, 0.99, 1)])
def test_at_least_one_step_is_its_own(steps: int, reuse: float, reused: int) -> None:
    assert steps_reused(steps, EditSettings(reuse=reuse)) == reused


def test_a_forgotten_source_is_drawn_again(pipeline: Pipeline) -> None:
    chain = replace(FOX, prompt="red snow", source=SNOW)
    begun: list[str] = []

    class Watched(Pipeline):
        def begin(self, request: DrawRequest, source: Trajectory | None = None) -> Canvas:
            begun.append(request.prompt)
            return super().begin(request, source)

    watched = Watched(pipeline.dit, pipeline.text, pipeline.vae, pipeline.schedule, None)
    with Engine(watched) as engine:
        pictures = [engine.submit(request).result(20).image for request in (FOX, SNOW, chain)]
        assert begun == ["a red fox", "snow", "red snow"]
    with Engine(watched) as engine:
        engine.trajectories = Trajectories(most_bytes=0)
        begun.clear()
        heard: list[Progress] = []
        again = engine.submit(chain, heard.append).result(20).image
        assert begun == ["a red fox", "snow", "red snow"] and len(engine.trajectories.kept) == 1
    assert np.array_equal(np.asarray(again), np.asarray(pictures[2]))
    assert [progress.step for progress in heard][-6:] == [5, 6, 7, 8, 9, 10]


def test_chains_of_edits_may_be_long() -> None:
    """The app builds them anew at every turn, and looks for what it has of them."""

    def chain(length: int) -> DrawRequest:
        request = FOX
        for number in range(length):
            request = replace(request, prompt=f"a fox {number}", source=request)
        return request

    kept = Trajectories()
    kept.keep(chain(2000), Trajectory((torch.zeros(1),), (), (None,)))
    assert chain(2000) in kept and chain(1999) not in kept and chain(1999) != chain(2000)
    assert replace(FOX, guidance=2) == replace(FOX, guidance=2.0) != replace(FOX, guidance=2.5)


def test_the_latest_trajectories_are_kept() -> None:
    def of(size: int) -> Trajectory:
        return Trajectory((torch.zeros(size // 4),), (), (None,))

    kept = Trajectories(most_bytes=100)
    requests: Sequence[DrawRequest] = [replace(FOX, seed=i) for i in range(4)]
    kept.keep(requests[0], of(40))
    kept.keep(requests[1], of(40))
    kept.get(requests[0])
    kept.keep(requests[2], of(40))
    assert [request in kept for request in requests] == [True, False, True, False]
    kept.keep(requests[2], of(60))
    assert len(kept.kept) == 2 and kept.bytes == 100
    kept.keep(requests[3], of(400))
    assert [request in kept for request in requests] == [False, False, False, True] and kept.bytes == 400


@pytest.mark.parametrize(
    ("change", "message"),
    [({"steps": 4}, "steps of its source, 10"), ({"size": (32, 32)}, "size of its"), ({"sampler": "ddim"}, "dpmpp")],
)  # fmt: skip
def test_an_edit_fits_its_source(change: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        replace(SNOW, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"reuse": 1.0}, {"reuse": -0.1}, {"threshold": -1.0}, {"margin": 0.5}, {"nearly_all": 2.0}]
)
def test_impossible_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(RequestError):
        EditSettings(**wrong)  # type: ignore[arg-type]


def png(size: tuple[int, int], colour: str) -> Upload:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return Upload(file.getvalue())


def test_an_uploaded_picture_is_set_out_from(pipeline: Pipeline) -> None:
    red, blue = (replace(FOX, source=png((100, 50), colour), edit=SNOW.edit) for colour in ("red", "blue"))
    canvas = pipeline.begin(red)
    assert canvas.done == 4 and canvas.source is not None
    mean = torch.stack([pipeline.begin(replace(red, seed=i)).latents for i in range(64)]).mean(0)
    signal = pipeline.schedule.alphas_cumprod[int(canvas.plan.timesteps[4])].sqrt()
    torch.testing.assert_close(mean, signal * canvas.source.latents[-1], atol=0.6, rtol=0)
    assert not torch.equal(drawn(pipeline, red).latents, drawn(pipeline, blue).latents)
    with Engine(pipeline) as engine:
        assert engine.submit(red).result(20).image.size == FOX.size
        with pytest.raises(RequestError, match="cannot be read"):
            engine.submit(replace(red, source=Upload(b"no picture"))).result(20)


def test_the_metadata_names_the_source() -> None:
    metadata = SNOW.metadata()
    assert json.loads(metadata["source"])["prompt"] == "a red fox"
    assert json.loads(metadata["edit"])["reuse"] == SNOW.edit.reuse
    assert "sha256" in json.loads(replace(SNOW, source=png((8, 8), "red")).metadata()["source"])
