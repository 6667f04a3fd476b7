"""The text encoder in 8 bits against itself in float32, tiny and bundled; what it changes in a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import T5Config, T5EncoderModel

from generator.errors import CheckpointError
from generator.int8 import TRANSFORMERS_WEIGHTS, Int8, Int8Linear, load_t5, quantised
from generator.pipeline import load_pipeline
from generator.request import DrawRequest
from generator.text import TextEncoders
from tests.generator.tiny import NATIVE, make_folder

STORYBOOK = Path(__file__).parents[2] / "generator" / "weights" / "storybook"
IDS = torch.tensor([[5, 9, 60, 1], [7, 2, 1, 0]])


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=1500, d_model=48, d_kv=16, d_ff=96, num_layers=3, num_heads=3, feed_forward_proj="gated-gelu"
    )
    model = T5EncoderModel(config).eval()
    folder = tmp_path_factory.mktemp("t5")
    model.save_pretrained(folder)
    return folder, model


def relative_error(states: Tensor, expected: Tensor) -> float:
    return float((states.float() - expected).norm() / expected.norm())


def psnr(one: Image.Image, other: Image.Image) -> float:
    squared = (np.asarray(one, float) - np.asarray(other, float)) ** 2
    return float(10 * np.log10(255**2 / max(squared.mean(), 1e-9)))


def test_rows_are_rounded_by_their_own_scale() -> None:
    weight = torch.randn(2500, 7) * torch.logspace(-3, 2, 2500)[:, None]
    weight[3] = 0
    whole, unit = quantised(weight)
    assert whole.dtype == torch.int8 and whole.abs().amax(1)[4:].eq(127).all()
    assert ((whole * unit - weight).abs() <= unit * 0.5001).all()


def test_float16_does_not_overflow_where_its_result_does_not() -> None:
    layer = Int8Linear(2, 512, torch.float16)
    layer.weight.fill_(127)
    layer.unit.fill_(1e-3)
    assert torch.allclose(layer(torch.full((1, 512), 10.0)), torch.tensor(650.24).half(), rtol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_states_are_nearly_those_of_float32(t5: tuple[Path, Any], dtype: torch.dtype) -> None:
    folder, whole = t5
    small = load_t5(T5EncoderModel, folder, dtype, "cpu").eval()
    assert small.encoder.embed_tokens is small.shared
    with torch.inference_mode():
        states, expected = (model(IDS).last_hidden_state for model in (small, whole))
    assert states.dtype == dtype
    assert 0 < relative_error(states, expected) < 0.02
    eighths = sum(layer.weight.numel() for layer in small.modules() if isinstance(layer, Int8))
    assert eighths > 0.99 * sum(parameter.numel() for parameter in whole.parameters()) - 3 * 32


def test_weights_that_lack_something(t5: tuple[Path, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((t5[0] / "config.json").read_bytes())
    tensors = load_file(t5[0] / TRANSFORMERS_WEIGHTS)
    tensors.pop("encoder.final_layer_norm.weight")
    save_file({**tensors, "decoder.stranger": torch.zeros(2)}, tmp_path / TRANSFORMERS_WEIGHTS)
    with pytest.raises(CheckpointError, match=r"lack encoder\.final_layer_norm\.weight"):
        load_t5(T5EncoderModel, tmp_path, torch.float32, "cpu")


def test_a_pipeline_with_it(tmp_path: Path) -> None:
    make_folder(tmp_path)
    request = DrawRequest("a red fox", seed=3, size=(NATIVE, NATIVE), steps=4)
    small = load_pipeline(tmp_path, t5_8bit=True)
    assert any(isinstance(layer, Int8) for layer in small.text.t5.model.modules())
    assert not any(isinstance(layer, Int8) for layer in small.text.clip.model.modules())
    assert psnr(small.draw(request), load_pipeline(tmp_path).draw(request)) > 30


@pytest.mark.slow
def test_the_bundled_model_with_it() -> None:
    prompts = ["a red fox in the snow", "雪地里的红狐狸", "two blue birds above a house at night, watercolour"]
    whole, small = (load_pipeline(STORYBOOK, t5_8bit=t5_8bit) for t5_8bit in (False, True))
    encoders: list[TextEncoders] = [whole.text, small.text]
    with torch.inference_mode():
        expected, states = (encoder.encode(prompts) for encoder in encoders)
    real = expected.t5_mask.bool()
    error = relative_error(states.t5[real], expected.t5[real])
    cosine = torch.cosine_similarity(states.t5[real], expected.t5[real], dim=-1).min().item()
    requests = [DrawRequest(prompt, seed=i, steps=12, guidance=3.0) for i, prompt in enumerate(prompts)]
    likeness = [psnr(whole.draw(request), small.draw(request)) for request in requests]
    print(f"relative error {error:.4f}, smallest cosine {cosine:.5f}, PSNR {[f'{value:.1f}' for value in likeness]} dB")
    assert error < 0.02 and cosine > 0.999
    assert min(likeness) > 25
