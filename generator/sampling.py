"""Noise schedules and samplers as pure functions of tensors.

    python -c "from generator.sampling import *; print(plan(Schedule.from_config({}), 'ddim', 10).timesteps)"

Both samplers, DDIM (without added noise) and DPM-Solver++(2M), are one linear rule: the next latents are a mix of the
latents, the clean picture predicted now, and the one predicted a step before. `plan` works the numbers of the mix out
for all steps, and `step` applies them, to each row of a batch those of its own step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generator.errors import CheckpointError, RequestError

PREDICTIONS = ("v_prediction", "epsilon", "sample")
SPACINGS = ("leading", "trailing", "linspace")
# diffusers' floor for a schedule that ends in pure noise: DPM-Solver++ takes logarithms of the signal.
SMALLEST_SIGNAL = 2.0**-24


@dataclass(frozen=True, eq=False)
class Schedule:
    """How much signal (alphas_cumprod) is left at each training timestep, and what the model predicts."""

    alphas_cumprod: Tensor  # (train_steps,) float32
    prediction: str = "v_prediction"
    spacing: str = "leading"
    offset: int = 0  # added to the timesteps of "leading"
    # By sampler, whether the last step goes to no noise at all; else it goes to the schedule's first timestep.
    end_clean: Mapping[str, bool] = field(default_factory=lambda: dict.fromkeys(SAMPLERS, True))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Schedule:
        """From scheduler_config.json; the defaults are diffusers', and what this module does not do is refused."""
        refused = {
            "clip_sample": "clips pictures, which latents must not be",
            "thresholding": "clips pictures, which latents must not be",
            "use_karras_sigmas": "spaces its steps in another way",
            "use_exponential_sigmas": "spaces its steps in another way",
            "use_beta_sigmas": "spaces its steps in another way",
            "use_lu_lambdas": "spaces its steps in another way",
            "use_flow_sigmas": "is a flow-matching schedule",
        }
        for key, reason in refused.items():
            if config.get(key):
                raise CheckpointError(f"The scheduler's {key} is set, so that it {reason}. Set it to false to load it.")
        prediction = config.get("prediction_type", "epsilon")
        spacing = config.get("timestep_spacing", "leading")
        for value, known in ((prediction, PREDICTIONS), (spacing, SPACINGS)):
            if value not in known:
                raise CheckpointError(f"The scheduler's configuration says {value!r}; Easel knows {', '.join(known)}.")
        alphas_cumprod = torch.cumprod(1 - betas(config), dim=0)
        if config.get("rescale_betas_zero_snr"):
            alphas_cumprod = rescale_to_zero_signal(alphas_cumprod)
        end_clean = {  # diffusers' DDIM knows the one key, its DPM-Solver the other
            "ddim": bool(config.get("set_alpha_to_one", True)),
            "dpmpp": config.get("final_sigmas_type", "zero") == "zero",
        }
        return cls(alphas_cumprod, prediction, spacing, int(config.get("steps_offset", 0)), end_clean)

    @property
    def train_steps(self) -> int:
        return len(self.alphas_cumprod)

    def alpha_sigma(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """The shares of signal and noise at each row's timestep, shaped to multiply (B, ...)."""
        kept = self.alphas_cumprod.to(like.device)[timesteps].view(-1, *[1] * (like.ndim - 1))
        return kept.sqrt(), (1 - kept).sqrt()

    def noised(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """(B, ...) latents as they look at each row's timestep (B,), an integer."""
        alpha, sigma = self.alpha_sigma(timesteps, clean)
        return alpha * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the model is to say of `noised(clean, noise, timesteps)`."""
        if self.prediction == "v_prediction":
            alpha, sigma = self.alpha_sigma(timesteps, clean)
            return alpha * noise - sigma * clean
        return noise if self.prediction == "epsilon" else clean


def betas(config: dict[str, Any]) -> Tensor:
    """(train_steps,) float32, as diffusers makes them from the same settings."""
    if config.get("trained_betas") is not None:
        return torch.tensor(config["trained_betas"], dtype=torch.float32)
    steps = config.get("num_train_timesteps", 1000)
    start, end = config.get("beta_start", 0.0001), config.get("beta_end", 0.02)
    shape = config.get("beta_schedule", "linear")
    if shape == "linear":
        return torch.linspace(start, end, steps, dtype=torch.float32)
    if shape == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float32) ** 2
    if shape == "squaredcos_cap_v2":
        kept = torch.cos((torch.arange(steps + 1, dtype=torch.float64) / steps + 0.008) / 1.008 * torch.pi / 2) ** 2
        return (1 - kept[1:] / kept[:-1]).clamp(max=0.999).float()
    raise CheckpointError(
        f"The scheduler's beta_schedule is {shape!r}; Easel knows linear, scaled_linear and squaredcos_cap_v2."
    )


def rescale_to_zero_signal(alphas_cumprod: Tensor) -> Tensor:
    """Stretch the schedule so that its last timestep is pure noise (arXiv 2305.08891, algorithm 1)."""
    alphas = alphas_cumprod.sqrt()
    return ((alphas - alphas[-1]) * alphas[0] / (alphas[0] - alphas[-1])) ** 2


@dataclass(frozen=True, eq=False)
class Plan:
    """One picture's way from noise to latents: the timesteps, and per step the five numbers of `step`."""

    timesteps: Tensor  # (steps,) float32
    mix: Tensor  # (steps, 5) float32

    def __len__(self) -> int:
        return len(self.timesteps)


def ddim_timesteps(schedule: Schedule, steps: int) -> np.ndarray:
    """Which training timesteps are visited, from noise to clean."""
    total = schedule.train_steps
    if schedule.spacing == "linspace":
        return np.linspace(0, total - 1, steps).round()[::-1]
    if schedule.spacing == "trailing":
        return np.round(np.arange(total, 0, -total / steps))[:steps] - 1
    return np.arange(steps)[::-1] * (total // steps) + schedule.offset


def dpmpp_timesteps(schedule: Schedule, steps: int) -> np.ndarray:
    """As `ddim_timesteps`; "leading" and "linspace" leave room for one more step, as DPM-Solver is defined."""
    total = schedule.train_steps
    if schedule.spacing == "linspace":
        return np.linspace(0, total - 1, steps + 1).round()[::-1][:-1]
    if schedule.spacing == "trailing":
        return ddim_timesteps(schedule, steps)
    return np.arange(1, steps + 1)[::-1] * (total // (steps + 1)) + schedule.offset


def plan(schedule: Schedule, sampler: str, steps: int) -> Plan:
    timesteps = SAMPLERS[sampler](schedule, steps).astype(np.int64)
    if timesteps[0] >= schedule.train_steps or (np.diff(timesteps) >= 0).any():
        raise RequestError(f"{steps} steps are too many for the sampler {sampler} with this model. Ask for fewer.")
    kept = schedule.alphas_cumprod.double()
    end_clean = schedule.end_clean[sampler]
    kept_end = 1.0 if end_clean else kept[0].item()
    if sampler == "dpmpp" or schedule.prediction == "epsilon":  # both divide by the signal's share
        kept[kept == 0] = SMALLEST_SIGNAL
    path = np.append(kept.numpy()[timesteps], kept_end)
    alpha, sigma = np.sqrt(path), np.sqrt(1 - path)  # (steps + 1,)

    keep = sigma[1:] / sigma[:-1]
    now = alpha[1:] - alpha[:-1] * keep
    before = np.zeros(steps)
    if sampler == "dpmpp":
        with np.errstate(divide="ignore"):
            progress = np.diff(np.log(alpha) - np.log(sigma))  # in half log-SNR; infinite where the end is clean
        first_order = {0} | ({steps - 1} if end_clean or steps < 15 else set())
        for i in set(range(steps)) - first_order:
            before[i] = -0.5 * now[i] * progress[i] / progress[i - 1]
        now = now - before

    a, s = alpha[:-1], sigma[:-1]
    from_latents, from_output = {
        "v_prediction": lambda: (a, -s),
        "epsilon": lambda: (1 / a, -s / a),
        "sample": lambda: (0 * a, 0 * a + 1),
    }[schedule.prediction]()
    mix = np.stack([from_latents, from_output, keep, now, before], axis=1)
    return Plan(torch.from_numpy(timesteps).float(), torch.from_numpy(mix).float())


def step(mix: Tensor, latents: Tensor, output: Tensor, clean_before: Tensor) -> tuple[Tensor, Tensor]:
    """The next latents and the clean ones predicted on the way; all (B, C, H, W), mix (B, 5) or (5,)."""
    from_latents, from_output, keep, now, before = mix.to(latents.device).view(-1, 5, 1, 1, 1).unbind(1)
    clean = from_latents * latents + from_output * output
    return keep * latents + now * clean + before * clean_before, clean


def initial_noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    """Drawn on the CPU in float32, so that a picture depends neither on the device nor on who else is drawn."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


def guide(unconditional: Tensor, conditional: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance."""
    return unconditional + guidance * (conditional - unconditional)


def guided(schedule: Schedule, timestep: float, guidance: float, interval: tuple[float, float]) -> bool:
    """Whether guidance applies here: `interval` is the part of the way, from 0 (clean) to 1 (noise), where it does."""
    return guidance != 1 and interval[0] <= timestep / (schedule.train_steps - 1) <= interval[1]


SAMPLERS: dict[str, Callable[[Schedule, int], np.ndarray]] = {"dpmpp": dpmpp_timesteps, "ddim": ddim_timesteps}
