"""The denoiser against diffusers' on the same random weights, and its checkpoints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import HunyuanDiT2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from generator.checkpoint import WEIGHTS
from generator.errors import CheckpointError
from generator.model import HunyuanDiT, HunyuanDiTConfig
from generator.rope import centred_span, rope_2d
from tests.generator.tiny import DIT, diffusers_dit

SETTINGS: dict[str, dict[str, Any]] = {
    "v1.2": {},
    "v1.1": {"use_style_cond_and_image_meta_size": True},
    "deep": {"num_layers": 6, "mlp_ratio": 4.3637, "attention_head_dim": 24, "hidden_size": 96},
    "two layers, no variance": {"num_layers": 2, "learn_sigma": False, "in_channels": 8},
    "patches of one": {"patch_size": 1, "text_len": 5, "text_len_t5": 7},
}
GRIDS = {"square": (8, 8), "wide": (6, 10), "tall": (16, 4)}
Inputs = dict[str, Tensor]


def inputs(config: HunyuanDiTConfig, height: int, width: int, batch: int = 3) -> Inputs:
    generator = torch.Generator().manual_seed(2)
    return {
        "latents": torch.randn(batch, config.in_channels, height, width, generator=generator),
        "timestep": torch.tensor([3.0, 500.0, 999.0])[:batch],
        "clip_states": torch.randn(batch, config.text_len, config.cross_attention_dim, generator=generator),
        "clip_mask": torch.arange(config.text_len)[None] < torch.tensor([[2], [5], [77]])[:batch],
        "t5_states": torch.randn(batch, config.text_len_t5, config.cross_attention_dim_t5, generator=generator),
        "t5_mask": torch.arange(config.text_len_t5)[None] < torch.tensor([[256], [1], [4]])[:batch],
        "style": torch.zeros(batch, dtype=torch.long),
        "meta_size": torch.tensor([[1024.0, 1024.0, 8.0 * height, 8.0 * width, 0.0, 0.0]] * batch),
    }


def oracle(theirs: Any, ours: HunyuanDiT, x: Inputs, height: int, width: int) -> Tensor:
    rope = ours.rope(height, width)
    with torch.no_grad():
        return theirs(
            x["latents"],
            x["timestep"],
            encoder_hidden_states=x["clip_states"],
            text_embedding_mask=x["clip_mask"],
            encoder_hidden_states_t5=x["t5_states"],
            text_embedding_mask_t5=x["t5_mask"],
            image_meta_size=x["meta_size"],
            style=x["style"],
            image_rotary_emb=(rope.real.repeat_interleave(2, 1), rope.imag.repeat_interleave(2, 1)),
        ).sample


def denoise(model: HunyuanDiT, x: Inputs, height: int, width: int) -> Tensor:
    """The inference path: each row prepared alone, and at a step of its own."""
    parts = []
    for i in range(len(x["latents"])):
        text = {name: value[i : i + 1] for name, value in x.items() if name not in ("latents", "timestep")}
        parts.append((model.prepare(**text, timesteps=x["timestep"], height=height, width=width), i))
    return model.denoise(x["latents"], parts)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("grid", GRIDS)
def test_both_paths_equal_diffusers(name: str, grid: str, tmp_path: Path) -> None:
    height, width = GRIDS[grid]
    theirs = diffusers_dit(**SETTINGS[name])
    theirs.save_pretrained(tmp_path)
    ours = HunyuanDiT.from_pretrained(tmp_path)
    x = inputs(ours.config, height, width)
    expected = oracle(theirs, ours, x, height, width)
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(ours(**x).detach(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(denoise(ours.fuse(), x, height, width), expected, atol=1e-5, rtol=0)


def test_checkpoints_go_both_ways(tmp_path: Path) -> None:
    theirs = diffusers_dit()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = HunyuanDiT.from_pretrained(tmp_path / "theirs").fuse()
    ours.save_pretrained(tmp_path / "ours")
    again: Any
    again, info = HunyuanDiT2DModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for key, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_half_precision_on_disk_is_loaded_as_float32(tmp_path: Path) -> None:
    model = HunyuanDiT(HunyuanDiTConfig(**DIT))
    model.save_pretrained(tmp_path, torch.float16)
    assert load_file(tmp_path / WEIGHTS)["proj_out.weight"].dtype == torch.float16
    assert HunyuanDiT.from_pretrained(tmp_path).dtype == torch.float32


def test_shards_are_read(tmp_path: Path) -> None:
    theirs = diffusers_dit()
    theirs.save_pretrained(tmp_path, max_shard_size="100KB")
    assert not (tmp_path / WEIGHTS).exists()
    ours = HunyuanDiT.from_pretrained(tmp_path)
    assert torch.equal(ours.proj_out.weight, theirs.proj_out.weight)
    sorted(tmp_path.glob("*.safetensors"))[0].unlink()
    with pytest.raises(CheckpointError, match=r"00001-of-.* is missing"):
        HunyuanDiT.from_pretrained(tmp_path)


def test_a_cast_undoes_what_was_made_ready_for_inference() -> None:
    torch.manual_seed(0)
    model = HunyuanDiT(HunyuanDiTConfig(**DIT)).fuse()
    x = inputs(model.config, 8, 8)
    expected = denoise(model, x, 8, 8)
    attention = model.blocks[0].attn1
    assert attention.fused.linear.weight.data_ptr() == attention.to_q.weight.data_ptr(), "no weight is kept twice"
    model.to(torch.float64)
    assert attention.fused is None and model.blocks[0].ff.net[2].packed is None
    torch.testing.assert_close(denoise(model.float(), x, 8, 8), expected, atol=1e-5, rtol=0)


def test_training_reaches_every_weight_and_starts_from_zero() -> None:
    torch.manual_seed(0)
    model = HunyuanDiT(HunyuanDiTConfig(**DIT)).initialise()
    x = inputs(model.config, 8, 8)
    assert not model(**x).any()
    torch.nn.init.normal_(model.proj_out.weight)
    torch.nn.init.normal_(model.norm_out.linear.weight, std=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(**x)
    out.float().square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    for name in ("pos_embed.proj.weight", "text_embedding_padding", "text_embedder.linear_1.weight",
                 "time_extra_emb.pooler.v_proj.weight", "blocks.3.skip_linear.weight"):  # fmt: skip
        gradient = gradients[name]
        assert gradient is not None and gradient.any(), name


def test_autocast_stays_near_float32() -> None:
    torch.manual_seed(0)
    model = HunyuanDiT(HunyuanDiTConfig(**DIT))
    x = inputs(model.config, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(**x)
    torch.testing.assert_close(half.float(), model(**x), atol=0.1, rtol=0.1)


def test_rows_of_a_batch_are_independent() -> None:
    torch.manual_seed(0)
    model = HunyuanDiT(HunyuanDiTConfig(**DIT)).fuse()
    x = inputs(model.config, 8, 8)
    together = denoise(model, x, 8, 8)
    alone = denoise(model, {key: value[:1] for key, value in x.items()}, 8, 8)
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=0)


def test_centred_spans() -> None:
    assert centred_span(64, 64, 32) == ((0, 32), (0, 32))
    rows, columns = centred_span(48, 80, 32)
    assert (rows, columns) == ((6, 25), (0, 32))  # round(32 * 48 / 80) = 19 rows, from round(6.5)
    assert centred_span(80, 48, 32) == (columns, rows)


def test_positions_end_before_the_span_does() -> None:
    angles = rope_2d(48, 80, 88).angle().view(48, 80, 44)
    lowest = np.linspace(6, 25, 48, endpoint=False)  # of the rows; the pair with frequency 10000 ** -(42 / 44)
    np.testing.assert_allclose(angles[:, 0, -1].numpy(), lowest * 10_000 ** (-42 / 44), rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 5}, "num_layers must be even"),
        ({"hidden_size": 65}, "hidden_size must be"),
        ({"activation_fn": "geglu"}, "activation_fn must be"),
        ({"norm_type": "rms_norm"}, "norm_type"),
        ({"colour": "red"}, "unknown settings: colour"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**DIT, **change}))
    with pytest.raises(CheckpointError, match=message) as caught:
        HunyuanDiT.from_pretrained(tmp_path)
    assert "config.json" in str(caught.value)


def test_configuration_is_what_diffusers_writes(tmp_path: Path) -> None:
    diffusers_dit().save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    ours = HunyuanDiTConfig.from_dict(written)
    assert {key: value for key, value in written.items() if not key.startswith("_")} == dataclasses.asdict(ours)
    assert ours.to_dict()["_class_name"] == written["_class_name"]


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    HunyuanDiT(HunyuanDiTConfig(**DIT)).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    save_file({key: value for key, value in tensors.items() if key != "proj_out.bias"}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"do not fit.*proj_out\.bias"):
        HunyuanDiT.from_pretrained(tmp_path)
    (tmp_path / WEIGHTS).write_bytes((b"\x00" * 8) + b"nonsense")
    with pytest.raises(CheckpointError, match="damaged or was not downloaded"):
        HunyuanDiT.from_pretrained(tmp_path)
