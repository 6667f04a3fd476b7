"""Text encoders and VAE that come to the device only while they work. To torch "cpu:0" is another device than "cpu"."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from generator.model import HunyuanDiT
from generator.offload import working
from generator.pipeline import Pipeline, load_pipeline
from generator.request import DrawRequest
from generator.text import TextEncoders
from tests.generator.tiny import NATIVE, make_folder

ELSEWHERE = torch.device("cpu:0")
FOX = DrawRequest("a red fox", seed=3, size=(NATIVE, NATIVE), steps=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_folder(folder)
    return folder


def places(module: Any) -> list[int]:
    return [tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers())]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_weights_come_and_go(mode: Any) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)).eval().requires_grad_(False)
    at_rest, x = places(module), torch.ones(2, 3)
    expected = module(x)
    for _ in range(2):
        with mode(), working(module, ELSEWHERE):
            assert not set(places(module)) & set(at_rest)
            assert torch.equal(module(x), expected)
        assert places(module) == at_rest
    with pytest.raises(ZeroDivisionError), working(module, ELSEWHERE):
        _ = 1 / 0
    assert places(module) == at_rest
    with working(module, torch.device("cpu")):
        assert places(module) == at_rest, "what is there already is left alone"


def test_on_the_cpu_it_changes_nothing(folder: Path) -> None:
    pictures = [np.asarray(load_pipeline(folder, offload=offload).draw(FOX)) for offload in (False, True)]
    assert (pictures[0] == pictures[1]).all()


def test_each_is_on_the_device_for_its_own_work(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load_pipeline(folder, offload=True)
    expected = np.asarray(pipeline.draw(FOX))
    text = TextEncoders(*(replace(encoder, device=ELSEWHERE) for encoder in (pipeline.text.clip, pipeline.text.t5)))
    moving: Pipeline = replace(pipeline, text=text)
    monkeypatch.setattr(HunyuanDiT, "device", property(lambda self: ELSEWHERE))
    parts = {"clip": text.clip.model, "t5": text.t5.model, "vae": moving.vae.decoder}
    at_rest = {name: places(part) for name, part in parts.items()}
    moved: list[str] = []

    for name, part in parts.items():

        def hook(module: Any, *_: Any, name: str = name) -> None:
            away = [other for other in parts if not set(places(parts[other])) & set(at_rest[other])]
            assert away == [name], "the others rest"
            moved.append(name)

        part.register_forward_pre_hook(hook)  # type: ignore[attr-defined]
    assert (np.asarray(moving.draw(FOX)) == expected).all()
    assert [name for name, _ in groupby(moved)] == ["clip", "t5", "vae"], "once for each picture"
    assert {name: places(part) for name, part in parts.items()} == at_rest
