"""The bench on a tiny checkpoint: the same pictures as diffusers, and every figure that is promised."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from generator import bench, bench_full_size
from generator.errors import GeneratorError
from tests.generator.tiny import make_folder

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("meta_size", [False, True])
def test_bench(tmp_path: Path, meta_size: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "CROWDS", (1, 4))
    monkeypatch.setattr(bench, "STEPS", 3)
    make_folder(tmp_path / "tiny", use_style_cond_and_image_meta_size=meta_size)
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    result = bench.run(parser.parse_args(["--folder", str(tmp_path / "tiny"), "--rounds", "2"]))
    assert result["parity"] < 1e-4 and result["picture_parity"] <= 1 and result["crowd_parity"] <= 1
    ratios = ("step_ratio_64", "step_ratio_256", "picture_ratio", "picture_ratio_64", "edit_cost", "throughput_ratio_4")
    assert all(result[name] > 0 for name in ratios) and result["second_user_wait"] > -1


def test_full_size_in_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_full_size.torch, "compile", lambda function: function)  # minutes, on a CPU
    config = replace(
        bench_full_size.FULL, num_layers=4, hidden_size=64, num_attention_heads=2, attention_head_dim=32,
        cross_attention_dim=32, cross_attention_dim_t5=64, pooled_projection_dim=32,
    )  # fmt: skip
    result = bench_full_size.compare(config, 64, 4, 2, torch.device("cpu"), torch.float32)
    assert result["parity"] < 1e-4 and 0 < result["roofline"] < 1
    assert result["picture_ratio_eager"] > 0 and result["picture_ratio_compiled"] > 0


def test_the_floor_of_a_full_size_picture() -> None:
    assert 2 * 50 * bench_full_size.flops(bench_full_size.FULL, 64 * 64) == pytest.approx(1437e12, rel=0.01)


def test_full_size_says_that_it_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(GeneratorError, match="needs a GPU"):
        bench_full_size.run(3)
