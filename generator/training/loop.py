"""The loop that every picture model is trained with: schedule, averaging, checkpoints, curves.

What differs between the models is their loss, and `fit` asks for nothing else.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from generator import precision
from generator.errors import GeneratorError
from generator.training.muon import Muon, is_inner

Losses = dict[str, Tensor]  # "loss" is minimised, the rest is only logged
# T5 does not divide its attention's logits by sqrt(64): its query matrices are as much smaller, and so are their steps.
T5_QUERY = "SelfAttention.q.weight"


@dataclass(frozen=True)
class FitConfig:
    """`minutes` bounds the training time over all resumes; the learning rate falls to zero by then or by `steps`."""

    run: Path
    steps: int = 10_000
    minutes: float = 1e9
    learning_rate: float = 1e-3  # AdamW's
    matrix_rate: float = 0.02  # Muon's, for inner matrices
    warmup: int = 200
    decay_share: float = 0.35  # of the training, at its end, in which the learning rate falls (warm-up, stable, decay)
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    ema: float = 0.999
    seed: int = 0
    log_every: int = 50
    save_every: int = 500

    def __post_init__(self) -> None:
        if self.steps < 1 or self.minutes <= 0:
            raise GeneratorError("steps and minutes must be positive")


def mixed_precision() -> AbstractContextManager[object]:
    """bf16 matrix products where the processor has them in hardware: 8 times faster with AMX, else twice."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision.usual("cpu") == torch.bfloat16)


def schedule(progress: float, step: int, config: FitConfig) -> float:
    """The learning rate's factor at `progress` (0 to 1 of the training)."""
    warm = min(1.0, (step + 1) / config.warmup)
    left = (1 - progress) / config.decay_share
    return warm * (1.0 if left >= 1 else max(0.0, 1 - math.sqrt(1 - left)))


class Average:
    """Exponential moving average of a module's floating-point state."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))  # young averages forget the random start
        now = module.state_dict()
        smooth = [name for name, value in now.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.state[name] for name in smooth], [now[name] for name in smooth], 1 - decay)
        for name in now.keys() - set(smooth):
            self.state[name].copy_(now[name])


def optimizers(modules: Iterable[nn.Module], config: FitConfig) -> list[torch.optim.Optimizer]:
    """Muon for the inner matrices, AdamW for the rest, which decays matrices (embeddings, first and last layers)."""
    named = [(name, p) for module in modules for name, p in module.named_parameters() if p.requires_grad]
    inner = [p for name, p in named if is_inner(name, p) and T5_QUERY not in name]
    queries = [p for name, p in named if T5_QUERY in name]
    outer = [p for name, p in named if not is_inner(name, p)]
    groups = [
        {"params": [p for p in outer if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in outer if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)
    muon = Muon([{"params": inner}, {"params": queries, "share": 1 / 8}], config.matrix_rate, decay=config.weight_decay)
    return [muon, adamw]


class Training:
    """A run under way: modules that learn, their optimisers and averages, and how far they have come."""

    def __init__(
        self,
        config: FitConfig,
        modules: dict[str, nn.Module],
        loss: Callable[[int], Losses],
        sample: Callable[[dict[str, nn.Module], int], None] | None,
    ) -> None:
        """Goes on from the run's checkpoint, if it has one."""
        config.run.mkdir(parents=True, exist_ok=True)
        (config.run / "config.json").write_text(json.dumps({**asdict(config), "run": str(config.run)}, indent=1))
        self.config, self.modules, self.loss, self.sample = config, modules, loss, sample
        self.optimizers = optimizers(modules.values(), config)
        self.averages = {name: Average(module, config.ema) for name, module in modules.items()}
        self.trained = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
        self.checkpoint = config.run / "checkpoint.pt"
        self.step, self.spent = 0, 0.0  # minutes of the sessions before this one
        if self.checkpoint.is_file():
            self._resume()
        self.begun = time.monotonic()
        self.log = (config.run / "loss.csv").open("a", newline="")
        self.sums: dict[str, float] = {}  # of the losses since the log's last line
        self.seen = 0  # steps since then
        self.last = math.nan  # the last line's loss

    @property
    def minutes(self) -> float:
        return self.spent + (time.monotonic() - self.begun) / 60

    @property
    def progress(self) -> float:
        """1 at the end."""
        return max(self.step / self.config.steps, self.minutes / self.config.minutes)

    def advance(self, progress: float) -> None:
        """One step, with the learning rates of `progress`. GeneratorError where the loss is no number."""
        factor = schedule(progress, self.step, self.config)
        for optimizer, rate in zip(self.optimizers, (self.config.matrix_rate, self.config.learning_rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor * group.get("share", 1.0)
        # Noise too is the same whenever a step is taken: a training that was stopped and goes on draws no lot twice.
        torch.manual_seed(1_000_003 * self.config.seed + self.step)
        losses = self.loss(self.step)
        losses["loss"].backward()
        told = {name: value.item() for name, value in losses.items()}
        if not math.isfinite(told["loss"]):
            raise GeneratorError(f"the loss is {told['loss']} at step {self.step}: use smaller learning rates.")
        nn.utils.clip_grad_norm_(self.trained, self.config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for name, module in self.modules.items():
            self.averages[name].update(module, self.step)
        self.step, self.seen = self.step + 1, self.seen + 1
        for name, value in told.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if self.step % self.config.log_every == 0:
            self._tell(factor)

    def save(self) -> None:
        """Writes the checkpoint, by rename, and draws samples with the averaged weights."""
        state = {
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "averages": {name: average.state for name, average in self.averages.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step, "minutes": self.minutes,
        }  # fmt: skip
        torch.save(state, self.checkpoint.with_suffix(".tmp"))
        self.checkpoint.with_suffix(".tmp").rename(self.checkpoint)
        if self.sample:
            with averaged(self.modules, self.averages):
                self.sample(self.modules, self.step)

    def finish(self) -> dict[str, float]:
        if self.step % self.config.save_every or not self.checkpoint.is_file():
            self.save()
        for name, module in self.modules.items():
            module.load_state_dict(self.averages[name].state)
        loss = self.sums["loss"] / self.seen if self.seen else self.last
        return {"steps": self.step, "minutes": self.minutes, "loss": loss}

    def _resume(self) -> None:
        saved = torch.load(self.checkpoint, weights_only=True)
        for name, module in self.modules.items():
            module.load_state_dict(saved["modules"][name])
            self.averages[name].state = saved["averages"][name]
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.spent = saved["step"], saved["minutes"]
        print(f"resumed at step {self.step} after {self.spent:.1f} minutes", flush=True)

    def _tell(self, factor: float) -> None:
        means = {name: total / self.seen for name, total in self.sums.items()}
        self.last = means["loss"]
        minutes = self.minutes
        line = [self.step, f"{minutes:.2f}", *(f"{name}={value:.5f}" for name, value in means.items())]
        csv.writer(self.log).writerow(line)
        self.log.flush()
        text = " ".join(f"{name} {value:.4f}" for name, value in means.items())
        rate = factor * self.config.learning_rate
        print(f"step {self.step} {minutes:.1f} min lr {rate:.1e} {text}", flush=True)
        self.sums, self.seen = {}, 0


def fit(
    config: FitConfig,
    modules: dict[str, nn.Module],
    loss: Callable[[int], Losses],
    sample: Callable[[dict[str, nn.Module], int], None] | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, float]:
    """Minimises `loss(step)` over `modules`, which end up holding their averaged weights.

    Resumes from `config.run/checkpoint.pt` when there is one. `sample(modules, step)` is called with the averaged
    weights at every save: it draws what a person looks at. `on_progress` hears the share that is done.
    Returns {"steps", "minutes", "loss"}.
    """
    training = Training(config, modules, loss, sample)
    with training.log:
        while (progress := training.progress) < 1:
            if on_progress:
                on_progress(progress)
            training.advance(progress)
            if training.step % config.save_every == 0:
                training.save()
        return training.finish()


class averaged:
    """Inside `with averaged(modules, averages)`, the modules hold their averaged weights."""

    def __init__(self, modules: dict[str, nn.Module], averages: dict[str, Average]) -> None:
        self.modules, self.averages = modules, averages

    def __enter__(self) -> None:
        self.kept = {name: {k: v.clone() for k, v in m.state_dict().items()} for name, m in self.modules.items()}
        for name, module in self.modules.items():
            module.load_state_dict(self.averages[name].state)
            module.eval()

    def __exit__(self, *exc: object) -> None:
        for name, module in self.modules.items():
            module.load_state_dict(self.kept[name])
            module.train()
