"""Other image models through the engine, against diffusers' own pipelines; and what can go wrong with them."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from generator.backbones import KINDS, DiffusersCanvas, DiffusersPipeline, load_backbone
from generator.edits import Trajectory
from generator.engine import DrawRequest, Engine, Progress
from generator.errors import CheckpointError, DrawingCancelled, DrawingFailed, RequestError
from generator.pipeline import Pipeline
from generator.request import Lora, Upload
from tests.generator import tiny
from tests.generator.test_engine import TIMEOUT, held, same
from tests.generator.tiny_backbones import MAKERS, make_folder

Made = Callable[[str], tuple[Path, Any, DiffusersPipeline]]
FAST: list[Any] = ["PixArt-alpha", "PixArt-delta", "SD3"]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in MAKERS if name not in FAST]
FOX = DrawRequest("a red fox", seed=3, size=(64, 48), steps=4, guidance=3.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """By the name of the model: its folder, diffusers' pipeline and ours."""

    @cache
    def make(name: str) -> tuple[Path, Any, DiffusersPipeline]:
        folder = tmp_path_factory.mktemp("backbone") / "model"
        theirs = make_folder(name, folder)
        ours = load_backbone(folder)
        assert isinstance(ours, DiffusersPipeline)
        return folder, theirs, ours

    return make


@pytest.fixture
def pixart(made: Made) -> DiffusersPipeline:
    return made("PixArt-alpha")[2]


def drawn(backbone: Any, request: DrawRequest) -> Image.Image:
    with Engine(backbone) as engine:
        return engine.submit(request).result(TIMEOUT).image


# --- against diffusers' own


def in_their_words(name: str, request: DrawRequest) -> dict[str, Any]:
    arguments: dict[str, Any] = {"guidance_scale": request.guidance, "negative_prompt": request.negative_prompt}
    if name == "Flux":
        arguments = {"guidance_scale": request.guidance}
    if name in ("Flux without guidance", "Qwen-Image"):
        arguments = {"true_cfg_scale": request.guidance, "negative_prompt": request.negative_prompt}
    if name.startswith(("PixArt", "Sana")):
        arguments |= {"use_resolution_binning": False}
    if name.startswith(("PixArt", "Lumina")) and name != "Lumina 2":
        arguments |= {"clean_caption": False}
    return arguments


@pytest.mark.parametrize("name", FAST + SLOW)
def test_same_seed_same_picture_as_diffusers(name: str, made: Made) -> None:
    _, theirs, ours = made(name)
    side, multiple = ours.limits.smallest, ours.limits.multiple
    guided = replace(FOX, negative_prompt="" if ours.distilled else "bad", size=(side + multiple, side), steps=3)
    pictures = []
    for request in (guided, replace(guided, guidance=1.0, seed=4)):
        pictures.append(drawn(ours, request))
        expected = theirs(
            request.prompt, width=request.size[0], height=request.size[1], num_inference_steps=request.steps,
            generator=torch.Generator().manual_seed(request.seed), **in_their_words(name, request),
        ).images[0]  # fmt: skip
        assert np.asarray(expected).std() > 3
        assert same(pictures[-1], expected)
    assert not same(*pictures)


@pytest.mark.slow
def test_every_kind_is_tested() -> None:
    assert len(FAST + SLOW) == len(MAKERS)
    assert {type(make()).__name__ for make in MAKERS.values()} == set(KINDS)


def test_a_folder_of_our_own_kind_is_drawn_by_our_own_code(tmp_path: Path) -> None:
    tiny.make_folder(tmp_path / "model")
    assert isinstance(load_backbone(tmp_path / "model"), Pipeline)


def test_half_precision(made: Made) -> None:
    folder = made("SD3")[0]
    half = load_backbone(folder, dtype=torch.bfloat16)
    assert half.pipeline.transformer.dtype == half.pipeline.text_encoder_3.dtype == torch.bfloat16
    picture = drawn(half, FOX)  # another one: diffusers draws the noise in the model's own precision
    assert np.asarray(picture).std() > 3 and same(picture, drawn(half, FOX))


@pytest.mark.slow
def test_lumina_by_its_old_name(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made("Lumina")[0], tmp_path / "model")
    edit_json(tmp_path / "model" / "model_index.json", _class_name="LuminaText2ImgPipeline")
    assert same(drawn(load_backbone(tmp_path / "model"), FOX), drawn(made("Lumina")[2], FOX))


@pytest.mark.parametrize(("name", "words"), [("PixArt-alpha", 40), ("SD3", 80), ("SD3 without T5", 30)])
def test_long_prompts_are_reported(name: str, words: int, made: Made) -> None:
    ours = made(name)[2]
    assert not ours.begin(FOX).truncated
    assert ours.begin(replace(FOX, prompt="fox " * words)).truncated


# --- several at once, and stopping


@pytest.mark.parametrize("name", FAST)
def test_the_same_request_gives_the_same_picture_in_any_company(name: str, made: Made) -> None:
    requests = [
        replace(FOX, owner=f"user {i}", seed=i, steps=3 + i, size=[(64, 64), (96, 48)][i % 2]) for i in range(4)
    ]
    alone = [drawn(made(name)[2], request) for request in requests]
    heard: list[str] = []
    all_there = Event()
    with Engine(made(name)[2]) as engine:

        def listener(request: DrawRequest) -> Callable[[Progress], None]:
            def hear(progress: Progress) -> None:
                all_there.wait(TIMEOUT)  # the engine waits as long
                heard.append(f"{request.owner}: {progress.step} of {progress.steps}")

            return hear

        jobs = [engine.submit(request, listener(request)) for request in requests]
        all_there.set()
        together = [job.result(TIMEOUT).image for job in jobs]
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))
    assert heard.index("user 3: 1 of 6") < heard.index("user 0: 3 of 3"), "they advanced together"
    assert [line for line in heard if "user 0" in line] == [f"user 0: {i} of 3" for i in (1, 2, 3)]


def test_progress_and_timings(pixart: DiffusersPipeline) -> None:
    heard: list[Progress] = []
    with Engine(pixart, previews=100) as engine:
        drawing = engine.submit(FOX, heard.append).result(TIMEOUT)
        engine.submit(FOX).result(TIMEOUT)
        assert engine.call(torch.is_grad_enabled) and not engine.running and not engine.trajectories.kept
    assert [(progress.step, progress.preview) for progress in heard] == [(i, None) for i in (1, 2, 3, 4)]
    assert set(drawing.timings) == {"queue", "text", "denoise", "vae", "total"}
    assert all(seconds > 0 for seconds in drawing.timings.values())


def test_cancel_stops_within_a_step_and_leaves_no_trace(pixart: DiffusersPipeline) -> None:
    with Engine(pixart) as engine:
        other = engine.submit(replace(FOX, steps=30))
        job, gate = held(engine, replace(FOX, seed=1, steps=500))
        job.cancel()
        gate.opened.set()
        with pytest.raises(DrawingCancelled):
            job.result(TIMEOUT)
        picture = other.result(TIMEOUT).image
        assert len(gate.seen) == 1 and not engine.running and engine.call(torch.is_grad_enabled)
    assert same(picture, drawn(pixart, replace(FOX, steps=30)))


@pytest.mark.parametrize("name", FAST + SLOW)
def test_a_dropped_drawing_ends_at_once(name: str, made: Made) -> None:
    ours = made(name)[2]
    canvas = ours.begin(replace(FOX, size=(ours.limits.smallest, ours.limits.smallest)))
    ours.advance([canvas])
    frame = canvas.call.gr_frame
    while "prompt_embeds" not in frame.f_locals:
        frame = frame.f_back
    states = weakref.ref(frame.f_locals["prompt_embeds"])  # as long as the call is under way it holds them
    del frame
    assert canvas.failed is None and states() is not None and torch.is_grad_enabled()
    del canvas
    assert states() is None and torch.is_grad_enabled()


class Stumbling(DiffusersPipeline):
    """Overflows or breaks at the second step for the prompts that ask for it."""

    def begin(self, request: DrawRequest, source: Trajectory | None = None) -> DiffusersCanvas:
        canvas = super().begin(request, source)
        step = canvas.scheduler.step

        def stumble(output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if canvas.done and request.prompt == "memory":
                raise MemoryError("not enough")
            return step(output * float("nan") if canvas.done and request.prompt == "nan" else output, *args, **kwargs)

        canvas.scheduler.step = stumble
        return canvas


def test_what_goes_wrong_stays_with_its_request(pixart: DiffusersPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(Stumbling(pixart.pipeline, pixart.kind)) as engine:
        jobs = {prompt: engine.submit(replace(FOX, prompt=prompt)) for prompt in ("nan", "memory", "a red fox")}
        with pytest.raises(DrawingFailed, match="overflowed at step 2 of 4"):
            jobs["nan"].result(TIMEOUT)
        with pytest.raises(DrawingFailed, match=r"broke off: not enough\. Try again"):
            jobs["memory"].result(TIMEOUT)
        picture = jobs["a red fox"].result(TIMEOUT).image
    assert same(picture, drawn(pixart, FOX))
    decode = pixart.pipeline.vae.decode
    monkeypatch.setattr(pixart.pipeline.vae, "decode", lambda *args, **kwargs: (decode(*args, **kwargs)[0] / 0 * 0,))
    with pytest.raises(DrawingFailed, match="decoder's numbers overflowed"):
        drawn(pixart, FOX)


# --- what is refused


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("PixArt-alpha", {"sampler": "ddim"}, "a sampler of its own.*'dpmpp'"),
        ("PixArt-alpha", {"size": (64, 72)}, "multiples of 16. Instead of 72 choose 64 or 80"),
        ("PixArt-alpha", {"size": (256, 256)}, "from 32 to 128"),
        ("SD3", {"size": (128, 128)}, "from 32 to 96"),
        pytest.param("Sana", {"size": (64, 48)}, "multiples of 32", marks=pytest.mark.slow),
        ("PixArt-alpha", {"source": FOX}, "edit_reuse, edit_threshold and upload_reuse to 0"),
        ("PixArt-alpha", {"source": Upload(b"")}, "edit_reuse, edit_threshold and upload_reuse to 0"),
        ("PixArt-alpha", {"guidance_interval": (0.0, 0.5)}, "guidance interval at 0 to 1"),
        ("PixArt-delta", {"steps": 60}, "60 steps cannot be drawn: .*smaller than 50"),
        pytest.param("Flux", {"size": (64, 64), "negative_prompt": "bad"}, "heeds no negative", marks=pytest.mark.slow),
    ],
)
def test_impossible_requests_are_refused(name: str, change: Any, message: str, made: Made) -> None:
    with Engine(made(name)[2]) as engine, pytest.raises(RequestError, match=message):
        engine.submit(replace(FOX, **change))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_a_tensor(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    del tensors["proj_out.weight"]
    save_file(tensors, path, metadata={"format": "pt"})


WEIGHTS = "diffusion_pytorch_model.safetensors"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, "There is no model folder"),
    "another pipeline": (
        lambda f: edit_json(f / "model_index.json", _class_name="KolorsPipeline"),
        "holds a KolorsPipeline.* HunyuanDiTPipeline, PixArtAlphaPipeline, .*SanaPipeline",
    ),
    "another library": (
        lambda f: edit_json(f / "model_index.json", transformer=["my_code", "MyModel"]), "transformer wants code from"
    ),
    "an unknown class": (
        lambda f: edit_json(f / "model_index.json", transformer=["diffusers", "MyModel"]), "transformer cannot.*MyModel"
    ),
    "an unnamed part": (
        lambda f: edit_json(f / "model_index.json", vae="lost"), "model cannot be loaded: .*vae"
    ),
    "no transformer": (lambda f: shutil.rmtree(f / "transformer"), "transformer is missing"),
    "half a transformer": (lambda f: cut(f / "transformer" / WEIGHTS), rf"transformer/{WEIGHTS} is damaged"),
    "a tensor too few": (
        lambda f: without_a_tensor(f / "transformer" / WEIGHTS), r"weights in .*transformer lack proj_out\.weight"
    ),
    "no vae weights": (lambda f: (f / "vae" / WEIGHTS).unlink(), "vae has no weights"),
    "half an encoder": (lambda f: cut(f / "text_encoder/model.safetensors"), "text_encoder/model.* is damaged"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), "tokenizer is missing"),
    "no scheduler": (lambda f: (f / "scheduler/scheduler_config.json").unlink(), "scheduler cannot be loaded"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_wrong_with_a_folder_is_said(name: str, made: Made, tmp_path: Path) -> None:
    damage, message = DAMAGE[name]
    folder = tmp_path / "model"
    shutil.copytree(made("PixArt-alpha")[0], folder)
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_backbone(folder)
    assert str(folder) in str(caught.value)


def test_a_missing_package_is_named(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ImportError("T5Tokenizer requires the SentencePiece library.")

    monkeypatch.setattr(transformers.T5Tokenizer, "from_pretrained", refuse)
    with pytest.raises(CheckpointError, match=r"needs a Python package that is missing: .*SentencePiece.*Install it"):
        load_backbone(made("PixArt-alpha")[0])


def test_what_only_our_own_model_can_do_is_refused(made: Made, tmp_path: Path) -> None:
    folder, _, pipeline = made("PixArt-alpha")
    file = tmp_path / "some.safetensors"
    file.write_bytes(b"a LoRA")
    with pytest.raises(RequestError, match="LoRA can be had for a Hunyuan-DiT alone"):
        pipeline.check(replace(FOX, lora=Lora(str(file))))
    with pytest.raises(CheckpointError, match="Set t5_8bit to false"):
        load_backbone(folder, t5_8bit=True)
