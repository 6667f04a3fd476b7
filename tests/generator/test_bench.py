"""The bench on a tiny checkpoint: the same pictures as diffusers, and every figure that is promised."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from generator import bench
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
    ratios = ("step_ratio_16", "step_ratio_64", "picture_ratio", "edit_cost", "throughput_ratio_4")
    assert all(result[name] > 0 for name in ratios) and result["second_user_wait"] > -1
