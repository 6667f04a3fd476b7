"""The loop that trains every picture model, on one of a few hundred weights."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from generator.errors import GeneratorError
from generator.training.data import Epochs, chance
from generator.training.loop import FitConfig, fit

BATCHES = Epochs(100, 8, 3)
seen: list[tuple[object, ...]] = []  # by the losses: the step, its batch, a lot and a number of its noise


def train(run: Path, steps: int, broken_at: int | None = None) -> tuple[Tensor, dict[str, float], list[int]]:
    """-> the weights, the result, and the steps at which samples were drawn"""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 16), nn.Linear(16, 4))

    def loss(step: int) -> dict[str, Tensor]:
        seen.append((step, tuple(BATCHES[step]), chance(0, step).random(), torch.rand(()).item()))
        x = torch.randn(32, 8, generator=torch.Generator().manual_seed(step))
        missed = (model(x) - x[:, :4].sin()).square().mean()
        return {"loss": missed * math.nan if step == broken_at else missed}

    drawn: list[int] = []

    def sample(modules: dict[str, nn.Module], step: int) -> None:
        assert not modules["model"].training
        drawn.append(step)

    config = FitConfig(run, steps=steps, learning_rate=5e-3, matrix_rate=0.05, warmup=5, log_every=5, save_every=10)
    result = fit(config, {"model": model}, loss, sample)
    return nn.utils.parameters_to_vector(model.parameters()).detach(), result, drawn


def test_it_learns_and_ends_with_averaged_weights(tmp_path: Path) -> None:
    weights, result, drawn = train(tmp_path, 60)
    lines = (tmp_path / "loss.csv").read_text().splitlines()
    losses = [float(line.rpartition("loss=")[2]) for line in lines]
    assert [int(line.split(",")[0]) for line in lines] == list(range(5, 61, 5))
    assert losses[-1] < 0.6 * losses[0] and result["loss"] == pytest.approx(losses[-1], abs=1e-5)
    assert drawn == [10, 20, 30, 40, 50, 60] and result["steps"] == 60
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    averages = torch.cat([value.flatten() for value in checkpoint["averages"]["model"].values()])
    assert torch.equal(weights, averages)


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    train(tmp_path, 20)
    before = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    again, result, _ = train(tmp_path, 20)
    assert result["steps"] == 20, "it had ended"
    averages = torch.cat([value.flatten() for value in before["averages"]["model"].values()])
    assert torch.equal(again, averages)
    assert train(tmp_path, 30)[1]["steps"] == 30


def test_a_run_that_goes_on_sees_what_it_would_have_seen(tmp_path: Path) -> None:
    seen.clear()
    train(tmp_path / "at once", 30)
    at_once = [*seen]
    seen.clear()
    train(tmp_path / "stopped", 20)
    train(tmp_path / "stopped", 30)
    assert seen == at_once and len({step for step, *_ in seen}) == 30


def test_batches_go_through_all_pictures_once_an_epoch() -> None:
    epoch, more = ([*np.concatenate([BATCHES[i] for i in range(start, start + 12)])] for start in (0, 12))
    assert len({*epoch}) == len(epoch) == 96 and more != epoch
    assert [*Epochs(5, 8, 0)[3]] != [*Epochs(5, 8, 0)[4]] and len(Epochs(5, 8, 0)[3]) == 5


def test_a_loss_that_is_no_number_ends_the_run_and_spares_its_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match=r"the loss is nan at step 23: use smaller learning rates"):
        train(tmp_path, 40, broken_at=23)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 20
    assert train(tmp_path, 40)[1]["steps"] == 40


def test_no_time_is_refused(tmp_path: Path) -> None:
    for options in ({"steps": 0}, {"minutes": 0.0}):
        with pytest.raises(GeneratorError, match="must be positive"):
            FitConfig(tmp_path, **options)
