"""The loaded folder against diffusers' own pipeline, and every way in which a folder or a request can be wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.models.embeddings import get_2d_rotary_pos_embed_from_grid
from diffusers.pipelines.hunyuandit import pipeline_hunyuandit
from PIL import Image
from safetensors.torch import load_file, save_file

from generator import preview
from generator.checkpoint import write_json
from generator.errors import CheckpointError, DrawingFailed, RequestError
from generator.pipeline import Pipeline, load_pipeline
from generator.preview import PreviewDecoder
from generator.request import DrawRequest
from generator.text import REMEMBERED, Encoder
from tests.generator.tiny import NATIVE, SCHEDULER, make_folder

FOX = DrawRequest("a red fox 红狐狸", negative_prompt="bad", seed=3, size=(NATIVE, NATIVE), steps=5, sampler="ddim")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return folder, make_folder(folder)


@pytest.fixture(scope="module")
def pipeline(both: tuple[Path, Any]) -> Pipeline:
    return load_pipeline(both[0])


def draw(pipeline: Pipeline, request: DrawRequest) -> Image.Image:
    pipeline.check(request)
    canvas = pipeline.begin(request)
    while not canvas.finished:
        pipeline.advance([canvas])
    return pipeline.decode(canvas)


def diffusers_draw(pipeline: Any, request: DrawRequest) -> Image.Image:
    width, height = request.size
    return pipeline(
        request.prompt,
        negative_prompt=request.negative_prompt,
        width=width,
        height=height,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance,
        generator=torch.Generator().manual_seed(request.seed),
        use_resolution_binning=False,
    ).images[0]


def difference(one: Image.Image, other: Image.Image) -> int:
    """The largest, in steps of 1/255."""
    assert one.size == other.size
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


@pytest.mark.parametrize("change", [{}, {"guidance": 1.0}, {"seed": 4}, {"negative_prompt": ""}, {"steps": 11}])
def test_same_seed_same_picture_as_diffusers(both: tuple[Path, Any], pipeline: Pipeline, change: Any) -> None:
    request = replace(FOX, **change)
    picture = draw(pipeline, request)
    assert np.asarray(picture).std() > 3
    assert difference(picture, diffusers_draw(both[1], request)) <= 1


# 1024 x 1024, 1280 x 1280, 1024 x 768, 1280 x 768 and their portraits, for a model of 64 pixels
SHAPES = [(64, 64), (80, 80), (64, 48), (48, 64), (80, 48), (48, 80), (96, 64)]
VERSIONS: dict[str, dict[str, Any]] = {
    "v1.1": {"use_style_cond_and_image_meta_size": True},
    "v1.2": {},
    "without variance": {"learn_sigma": False},
    "v1.1 without variance": {"use_style_cond_and_image_meta_size": True, "learn_sigma": False},
}


def official_positions(head_dim: int, crop: Any, grid: tuple[int, int], **_: Any) -> Any:
    """diffusers 0.42 scales the end of each axis by (n - 1) / n, which leaves the end out only where an axis begins at
    0: never along the shorter side. The official model, and diffusers before it left NumPy, do this."""
    axes = [
        torch.from_numpy(np.linspace(start, stop, n, endpoint=False, dtype=np.float32))
        for start, stop, n in zip(*crop, grid, strict=True)
    ]
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    return get_2d_rotary_pos_embed_from_grid(head_dim, torch.stack([columns, rows]).reshape(2, 1, *grid), use_real=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_and_shapes(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_hunyuandit, "get_2d_rotary_pos_embed", official_positions)
    theirs = make_folder(tmp_path / "model", **VERSIONS[version])
    ours = load_pipeline(tmp_path / "model")
    if not ours.dit.config.learn_sigma:  # diffusers' pipeline drops half of the channels without asking
        forward = theirs.transformer.forward
        theirs.transformer.forward = lambda *args, **more: (forward(*args, **more)[0].repeat(1, 2, 1, 1),)
    for shape in SHAPES if ours.dit.config.learn_sigma else SHAPES[-1:]:
        request = replace(FOX, size=shape, steps=3, guidance=5.0 if shape != (96, 64) else 1.0)
        assert difference(draw(ours, request), diffusers_draw(theirs, request)) <= 1, shape


def test_what_a_distilled_folder_says_of_itself(both: tuple[Path, Any], tmp_path: Path) -> None:
    """-Distilled has v1.2's layout, half precision, no safety checker, and a scheduler of another kind."""
    folder = tmp_path / "distilled"
    theirs = make_folder(folder)
    theirs.scheduler = DDPMScheduler.from_config({**SCHEDULER, "beta_end": 0.03})
    theirs.to(torch.float16).save_pretrained(folder)
    theirs.to(torch.float32)
    theirs.scheduler = DDIMScheduler.from_config({**SCHEDULER, "beta_end": 0.03})
    assert difference(draw(load_pipeline(folder), FOX), diffusers_draw(theirs, FOX)) <= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_draws_nearly_the_same(both: tuple[Path, Any], pipeline: Pipeline, dtype: torch.dtype) -> None:
    picture = draw(load_pipeline(both[0], dtype=dtype), FOX)
    assert difference(picture, draw(pipeline, FOX)) <= 16


def test_the_request_matters(pipeline: Pipeline) -> None:
    picture = draw(pipeline, FOX)
    assert difference(picture, draw(pipeline, FOX)) == 0
    for change in ({"prompt": "snow"}, {"seed": 4}, {"guidance": 2.0}, {"guidance_interval": (0.3, 0.6)}):
        assert difference(picture, draw(pipeline, replace(FOX, **change))) > 0, change
    assert draw(pipeline, replace(FOX, size=(96, 48))).size == (96, 48)


def test_a_latents_shift_is_added(pipeline: Pipeline) -> None:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = pipeline.pixels(latents + 0.5 * 0.7)
    try:
        pipeline.vae.register_to_config(shift_factor=0.5)
        assert torch.allclose(pipeline.pixels(latents), expected, atol=1e-4)
    finally:
        pipeline.vae.register_to_config(shift_factor=None)


def test_long_prompts_are_reported(pipeline: Pipeline) -> None:
    for prompt, truncated in (("a red fox", False), ("fox " * 200, True)):
        canvas = pipeline.begin(replace(FOX, prompt=prompt))
        pipeline.advance([canvas])
        assert canvas.truncated == truncated


def test_an_overflow_is_its_own_canvas_s_error(pipeline: Pipeline) -> None:
    sick, healthy = pipeline.begin(FOX), pipeline.begin(FOX)
    sick.latents = sick.latents * float("nan")
    pipeline.advance([sick, healthy])
    assert isinstance(sick.failed, DrawingFailed) and "overflowed at step 1 of 5" in str(sick.failed)
    assert healthy.failed is None and healthy.latents.isfinite().all()


def test_an_overflow_of_the_decoder_fails_the_picture_and_no_preview(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    canvas = pipeline.begin(FOX)
    pipeline.advance([canvas])
    decode = pipeline.vae.decode
    monkeypatch.setattr(pipeline.vae, "decode", lambda z: type(decode(z))(sample=decode(z).sample * float("inf")))
    with pytest.raises(DrawingFailed, match="overflowed in the decoder"):
        pipeline.decode(canvas)
    assert replace(pipeline, preview_decoder=None).preview(canvas).size == FOX.size


def test_canvases_of_one_batch_are_independent(pipeline: Pipeline) -> None:
    requests = [
        FOX, replace(FOX, seed=1, steps=7, guidance=1.0), replace(FOX, prompt="snow", guidance_interval=(0.3, 0.8)),
    ]  # fmt: skip
    together = [pipeline.begin(request) for request in requests]
    pipeline.advance(together[:1])  # the others join later
    while unfinished := [canvas for canvas in together if not canvas.finished]:
        pipeline.advance(unfinished)
    for request, canvas in zip(requests, together, strict=True):
        alone = pipeline.begin(request)
        while not alone.finished:
            pipeline.advance([alone])
        torch.testing.assert_close(canvas.latents, alone.latents, atol=1e-4, rtol=0)


def test_prompts_are_read_once_and_the_latest_remembered(pipeline: Pipeline) -> None:
    text = replace(pipeline.text, known={})
    first = text.encode(["", "a fox"])
    read: list[str] = []
    counting = replace(text, clip=replace(text.clip), known=text.known)
    object.__setattr__(counting.clip, "ids", lambda prompts: read.extend(prompts) or Encoder.ids(text.clip, prompts))
    again = counting.encode(["", "a fox"])
    assert not read and torch.equal(again.t5, first.t5) and torch.equal(again.clip, first.clip)
    counting.encode([f"fox {i}" for i in range(REMEMBERED - 1)])
    counting.encode(["a fox", "", "a fox"])
    assert read == [f"fox {i}" for i in range(REMEMBERED - 1)] + [""], "the oldest is forgotten first"
    assert len(counting.known) == REMEMBERED


def test_threads_may_read_prompts_at_once(pipeline: Pipeline) -> None:
    """A tokenizer keeps how its last call wanted it to pad."""
    encoder = pipeline.text.t5
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            (pool.submit(encoder.truncates, "fox " * 100), pool.submit(encoder.ids, ["a red fox"])) for _ in range(500)
        ]
    assert all(truncated.result() for truncated, _ in jobs)
    assert {read.result()[0].shape for _, read in jobs} == {(1, encoder.length)}


def test_preview_with_a_decoder_of_its_own_and_without(pipeline: Pipeline, tmp_path: Path) -> None:
    canvas = pipeline.begin(FOX)
    pipeline.advance([canvas])
    assert pipeline.preview_decoder is None
    assert pipeline.preview(canvas).size == FOX.size
    PreviewDecoder(4).save(tmp_path)
    decoder = preview.load(tmp_path, 4)
    assert decoder is not None and decoder(torch.randn(2, 4, 8, 6)).shape == (2, 3, 32, 24)
    assert replace(pipeline, preview_decoder=decoder).preview(canvas).size == FOX.size
    with pytest.raises(CheckpointError, match="made for other latents"):
        preview.load(tmp_path, 8)
    write_json(tmp_path / "preview" / "config.json", {"channels": 4, "width": 8})
    with pytest.raises(CheckpointError, match=r"preview does not fit together: .* Delete it"):
        preview.load(tmp_path, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "  \n"}, "prompt is empty. Say what to draw"),
        ({"prompt": "x" * 10_001}, "10,001 characters"),
        ({"negative_prompt": "x" * 10_001}, "negative prompt has 10,001"),
        ({"steps": 0}, "from 1 to 1,000"),
        ({"steps": 1001}, "from 1 to 1,000"),
        ({"steps": 2.5}, "whole number"),
        ({"steps": 1000}, "too many"),
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance": float("inf")}, "guidance"),
        ({"guidance": 0.5}, "guidance"),
        ({"guidance_interval": (0.8, 0.2)}, "interval"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": True}, "seed"),
        ({"size": (64, 72)}, "multiples of 16. Instead of 72 choose 64 or 80"),
        ({"size": (64, 16)}, "from 32 to 128"),
        ({"size": (1024, 1024)}, "from 32 to 128"),
        ({"size": (64.0, 64)}, "whole pixels"),
        ({"sampler": "euler"}, "dpmpp, ddim"),
    ],
)
def test_impossible_requests_are_refused(pipeline: Pipeline, change: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        pipeline.check(replace(FOX, **change))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty_tokenizer(folder: Path) -> None:
    for file in (folder / "tokenizer_2").iterdir():
        file.unlink()


WEIGHTS = "diffusion_pytorch_model.safetensors"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, "There is no model folder"),
    "no index": (lambda f: (f / "model_index.json").unlink(), r"model_index\.json is missing"),
    "another pipeline": (
        lambda f: edit_json(f / "model_index.json", _class_name="FluxPipeline"), "holds a FluxPipeline"
    ),
    "another encoder": (
        lambda f: edit_json(f / "model_index.json", text_encoder=["transformers", "CLIPTextModel"]), "CLIPTextModel"
    ),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), r"scheduler_config\.json is missing"),
    "no denoiser": (lambda f: (f / "transformer" / WEIGHTS).unlink(), rf"transformer/{WEIGHTS} is missing"),
    "half a denoiser": (lambda f: cut(f / "transformer" / WEIGHTS), rf"transformer/{WEIGHTS} is damaged"),
    "half a vae": (lambda f: cut(f / "vae" / WEIGHTS), rf"vae/{WEIGHTS} is damaged"),
    "no vae": (lambda f: shutil.rmtree(f / "vae"), "vae is missing"),
    "no vae weights": (lambda f: (f / "vae" / WEIGHTS).unlink(), "vae has no weights"),
    "half an encoder": (lambda f: cut(f / "text_encoder_2/model.safetensors"), "text_encoder_2/model.* is damaged"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), "tokenizer is missing"),
    "an empty tokenizer": (empty_tokenizer, "tokenizer_2 cannot be loaded"),
    "broken json": (lambda f: (f / "vae" / "config.json").write_text("{"), r"vae/config\.json cannot be read as JSON"),
    "other widths": (
        lambda f: edit_json(f / "transformer" / "config.json", cross_attention_dim=40), "do not fit its config"
    ),
    "other latents": (
        lambda f: edit_json(f / "vae" / "config.json", latent_channels=8), "vae.*(cannot be loaded|latent_channels)"
    ),
    "a foreign setting": (
        lambda f: edit_json(f / "scheduler" / "scheduler_config.json", use_flow_sigmas=True), "use_flow_sigmas"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_wrong_with_a_folder_is_said(name: str, both: tuple[Path, Any], tmp_path: Path) -> None:
    damage, message = DAMAGE[name]
    folder = tmp_path / "model"
    shutil.copytree(both[0], folder)
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_pipeline(folder)
    assert str(folder) in str(caught.value) or "scheduler" in str(caught.value)


def test_loading_says_nothing_of_a_pooler_that_nobody_asks(
    both: tuple[Path, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(both[0], tmp_path / "model")
    (weights,) = (folder / "text_encoder").glob("*.safetensors")
    save_file({k: t for k, t in load_file(weights).items() if "pooler" not in k}, weights, {"format": "pt"})
    capfd.readouterr()
    load_pipeline(folder)
    assert capfd.readouterr() == ("", "")
