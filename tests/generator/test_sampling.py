"""The samplers against diffusers' schedulers: same noise and same model outputs give the same latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from generator import sampling
from generator.errors import CheckpointError, RequestError
from generator.sampling import Schedule
from tests.generator.tiny import SCHEDULER

SHAPE = (2, 4, 6, 5)
CONFIGS: dict[str, dict[str, Any]] = {
    "hunyuan": SCHEDULER,
    "epsilon": {**SCHEDULER, "prediction_type": "epsilon", "steps_offset": 0},
    "sample": {**SCHEDULER, "prediction_type": "sample", "beta_schedule": "linear"},
    "trailing to pure noise": {
        **SCHEDULER, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "steps_offset": 0,
    },
    "cosine": {**SCHEDULER, "beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing"},
}  # fmt: skip


def model(latents: Tensor, timestep: float) -> Tensor:
    """Any smooth function will do."""
    return torch.tanh(latents * 0.7 + timestep / 1000) + 0.1 * latents.roll(1, dims=-1)


def ours(config: dict[str, Any], sampler: str, steps: int) -> tuple[list[int], Tensor]:
    plan = sampling.plan(Schedule.from_config(config), sampler, steps)
    latents = sampling.initial_noise(5, SHAPE)
    clean = torch.zeros_like(latents)
    for timestep, mix in zip(plan.timesteps, plan.mix, strict=True):
        latents, clean = sampling.step(mix, latents, model(latents, timestep.item()), clean)
    return plan.timesteps.int().tolist(), latents


def theirs(scheduler: Any, steps: int | None, **chosen: Any) -> tuple[list[int], Tensor]:
    scheduler.set_timesteps(steps, **chosen)
    latents = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5))
    for timestep in scheduler.timesteps:
        output = model(latents, timestep.item())
        latents = scheduler.step(output, timestep, latents, return_dict=False)[0]
    return scheduler.timesteps.tolist(), latents


def check(ours: tuple[list[int], Tensor], theirs: tuple[list[int], Tensor]) -> None:
    assert ours[0] == theirs[0]
    torch.testing.assert_close(ours[1], theirs[1], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("steps", [1, 2, 8, 20, 50])
def test_ddim_equals_diffusers(name: str, steps: int) -> None:
    config = CONFIGS[name]
    check(ours(config, "ddim", steps), theirs(DDIMScheduler(**config), steps))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("spacing", sampling.SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 7, 15, 30])
def test_dpmpp_equals_diffusers(name: str, spacing: str, steps: int) -> None:
    config = {**CONFIGS[name], "timestep_spacing": spacing}
    known = {key: value for key, value in config.items() if key != "clip_sample"}
    check(ours(config, "dpmpp", steps), theirs(DPMSolverMultistepScheduler(**known), steps))


def test_dpmpp_that_ends_on_the_smallest_noise() -> None:
    config = {**SCHEDULER, "final_sigmas_type": "sigma_min", "timestep_spacing": "linspace"}
    known = {key: value for key, value in config.items() if key != "clip_sample"}
    for steps in (9, 20):
        check(ours(config, "dpmpp", steps), theirs(DPMSolverMultistepScheduler(**known), steps))


def test_ddim_that_ends_on_the_first_timestep() -> None:
    config = {**SCHEDULER, "set_alpha_to_one": False}
    check(ours(config, "ddim", 10), theirs(DDIMScheduler(**config), 10))


def test_each_sampler_heeds_its_own_key_of_how_the_way_ends() -> None:
    config = {**SCHEDULER, "set_alpha_to_one": False, "timestep_spacing": "leading"}
    known = {key: value for key, value in config.items() if key not in ("clip_sample", "set_alpha_to_one")}
    check(ours(config, "dpmpp", 25), theirs(DPMSolverMultistepScheduler(**known), 25))
    check(ours({**SCHEDULER, "final_sigmas_type": "sigma_min"}, "ddim", 10), theirs(DDIMScheduler(**SCHEDULER), 10))


@pytest.mark.parametrize(("spacing", "steps"), [("linspace", 10), ("trailing", 30)])
def test_ddim_steps_to_the_timestep_that_comes_next(spacing: str, steps: int) -> None:
    """Where the steps are uneven, diffusers' DDIM goes to t - 1000 // steps and then asks the model about another t.

    Ours goes where the next question is asked, as DPM-Solver of order one, the same method, does in diffusers too.
    """
    config = {**SCHEDULER, "timestep_spacing": spacing}
    result = ours(config, "ddim", steps)
    known = {key: value for key, value in config.items() if key != "clip_sample"}
    check(result, theirs(DPMSolverMultistepScheduler(**known, solver_order=1), None, timesteps=result[0]))


@pytest.mark.parametrize("name", CONFIGS)
def test_training_targets(name: str) -> None:
    config = CONFIGS[name]
    schedule = Schedule.from_config(config)
    reference: Any = DDIMScheduler(**config)
    torch.testing.assert_close(schedule.alphas_cumprod, reference.alphas_cumprod, atol=2e-6, rtol=2e-5)
    clean, noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    timesteps = torch.tensor([0, 998])
    noised = schedule.noised(clean, noise, timesteps)
    torch.testing.assert_close(noised, reference.add_noise(clean, noise, timesteps), atol=1e-5, rtol=1e-5)
    wanted = {"v_prediction": reference.get_velocity(clean, noise, timesteps), "epsilon": noise, "sample": clean}
    target = schedule.target(clean, noise, timesteps)
    torch.testing.assert_close(target, wanted[schedule.prediction], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
def test_a_perfect_model_is_followed_to_the_clean_latents(sampler: str) -> None:
    schedule = Schedule.from_config(CONFIGS["trailing to pure noise"])
    clean, latents = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    plan = sampling.plan(schedule, sampler, 12)
    before = torch.zeros_like(latents)
    for timestep, mix in zip(plan.timesteps, plan.mix, strict=True):
        t = timestep.long().expand(len(latents))
        alpha, sigma = schedule.alpha_sigma(t, latents)
        output = schedule.target(clean, (latents - alpha * clean) / sigma, t)
        latents, before = sampling.step(mix, latents, output, before)
    torch.testing.assert_close(latents, clean, atol=1e-4, rtol=0)


def test_rows_may_be_at_different_steps() -> None:
    plan = sampling.plan(Schedule.from_config(SCHEDULER), "dpmpp", 6)
    latents, output, clean = torch.randn(3, *SHAPE)
    both, _ = sampling.step(plan.mix[[1, 4]], latents, output, clean)
    for row, i in enumerate((1, 4)):
        alone, _ = sampling.step(plan.mix[i], latents[row : row + 1], output[row : row + 1], clean[row : row + 1])
        assert torch.equal(both[row : row + 1], alone)


def test_noise_depends_on_the_seed_alone() -> None:
    state = torch.get_rng_state()
    first = sampling.initial_noise(7, SHAPE)
    assert torch.equal(first, sampling.initial_noise(7, SHAPE))
    assert not torch.equal(first, sampling.initial_noise(8, SHAPE))
    assert torch.equal(state, torch.get_rng_state())


def test_guidance_and_its_interval() -> None:
    schedule = Schedule.from_config(SCHEDULER)
    assert sampling.guide(torch.tensor(1.0), torch.tensor(3.0), 5.0) == 11
    wanted = [sampling.guided(schedule, t, 5.0, (0.2, 0.8)) for t in (0, 100, 200, 500, 799, 900, 999)]
    assert wanted == [False, False, True, True, True, False, False]
    assert not sampling.guided(schedule, 500, 1.0, (0, 1))
    assert sampling.guided(schedule, 0, 2.0, (0, 1)) and sampling.guided(schedule, 999, 2.0, (0, 1))


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
@pytest.mark.parametrize("spacing", sampling.SPACINGS)
def test_every_number_of_steps_is_planned_or_refused(sampler: str, spacing: str) -> None:
    make: Callable[[int], Any] = lambda steps: sampling.plan(  # noqa: E731
        Schedule.from_config({**SCHEDULER, "timestep_spacing": spacing}), sampler, steps
    )
    for steps in (1, 3, 97, 333, 500, 499):
        plan = make(steps)
        assert len(plan) == len(plan.mix) == steps and torch.isfinite(plan.mix).all()
        assert (np.diff(plan.timesteps.numpy()) < 0).all()
    for steps in (1000, 1001):
        try:
            assert len(make(steps)) == 1000
        except RequestError as error:
            assert "too many" in str(error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_sample": True}, "clip_sample"),
        ({"thresholding": True}, "thresholding"),
        ({"prediction_type": "flow_prediction"}, "flow_prediction"),
        ({"timestep_spacing": "random"}, "random"),
        ({"beta_schedule": "sigmoid"}, "sigmoid"),
    ],
)
def test_schedules_of_another_kind_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Schedule.from_config({**SCHEDULER, **change})
