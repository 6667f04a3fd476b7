"""bfloat16 where it is fast: nearly float32's pictures, and the same alone as in company."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import generator
from generator.pipeline import Canvas, load_pipeline
from generator.precision import usual
from generator.request import DrawRequest

BUNDLED = Path(generator.__file__ or "").parent / "weights" / "storybook"


@pytest.mark.parametrize(("device", "fast", "expected"), [
    ("cpu", True, torch.bfloat16), ("cpu", False, torch.float32), ("cuda", True, torch.bfloat16),
    ("cuda", False, torch.float32),
])  # fmt: skip
def test_usual(device: str, fast: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: fast or including_emulation)
    assert usual(device) == expected


@pytest.mark.slow
@pytest.mark.skipif(usual("cpu") == torch.float32, reason="takes minutes where bfloat16 is not in hardware")
def test_the_bundled_model_in_bfloat16() -> None:
    prompts = [f"a {colour} fox on the left, snow, day, flat style" for colour in ("red", "blue", "white", "black")]
    requests = [DrawRequest(prompt, seed=i, steps=10, guidance=3.0) for i, prompt in enumerate(prompts)]
    pipeline = load_pipeline(BUNDLED, dtype=torch.bfloat16)
    alone = [pipeline.draw(request) for request in requests]
    canvases: list[Canvas] = []
    while len(canvases) < len(requests) or not canvases[-1].finished:
        canvases += [pipeline.begin(request) for request in requests[len(canvases) : len(canvases) + 1]]
        pipeline.advance([canvas for canvas in canvases if not canvas.finished])  # of one to four, and fewer again
    together = [pipeline.decode(canvas) for canvas in canvases]
    assert max(difference(one, other).max() for one, other in zip(together, alone, strict=True)) <= 1
    exact = load_pipeline(BUNDLED)
    noise = [difference(exact.draw(request), picture) for request, picture in zip(requests, alone, strict=True)]
    assert np.median([10 * np.log10(255**2 / np.square(apart).mean()) for apart in noise]) > 35


def difference(one: Image.Image, other: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float))
