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
            raise ValueError("steps and minutes must be positive")


def mixed_precision() -> AbstractContextManager[object]:
    """bf16 matrix products where the processor has them in hardware: 8 times faster with AMX, else twice."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision.usual(device) == torch.bfloat16)


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
    config.run.mkdir(parents=True, exist_ok=True)
    (config.run / "config.json").write_text(json.dumps({**asdict(config), "run": str(config.run)}, indent=1))
    both = optimizers(modules.values(), config)
    averages = {name: Average(module, config.ema) for name, module in modules.items()}
    step, spent = 0, 0.0
    checkpoint = config.run / "checkpoint.pt"
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(saved["modules"][name])
            averages[name].state = saved["averages"][name]
        for optimizer, state in zip(both, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        step, spent = saved["step"], saved["minutes"]
        print(f"resumed at step {step} after {spent:.1f} minutes", flush=True)

    trained = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    begun = time.monotonic()
    sums: dict[str, float] = {}
    seen = 0
    last = float("nan")

    def minutes() -> float:
        return spent + (time.monotonic() - begun) / 60

    def save() -> None:
        state = {
            "modules": {name: module.state_dict() for name, module in modules.items()},
            "averages": {name: average.state for name, average in averages.items()},
            "optimizers": [optimizer.state_dict() for optimizer in both], "step": step, "minutes": minutes(),
        }  # fmt: skip
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").rename(checkpoint)
        if sample:
            with averaged(modules, averages):
                sample(modules, step)

    with (config.run / "loss.csv").open("a", newline="") as file:
        log = csv.writer(file)
        while step < config.steps and minutes() < config.minutes:
            progress = max(step / config.steps, minutes() / config.minutes)
            if on_progress:
                on_progress(progress)
            factor = schedule(progress, step, config)
            for optimizer, rate in zip(both, (config.matrix_rate, config.learning_rate), strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = rate * factor * group.get("share", 1.0)
            losses = loss(step)
            losses["loss"].backward()
            torch.nn.utils.clip_grad_norm_(trained, config.clip_norm)
            for optimizer in both:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            for name, module in modules.items():
                averages[name].update(module, step)
            step, seen = step + 1, seen + 1
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.item()
            if step % config.log_every == 0:
                means = {name: total / seen for name, total in sums.items()}
                last = means["loss"]
                log.writerow([step, f"{minutes():.2f}", *(f"{name}={value:.5f}" for name, value in means.items())])
                file.flush()
                text = " ".join(f"{name} {value:.4f}" for name, value in means.items())
                print(f"step {step} {minutes():.1f} min lr {factor * config.learning_rate:.1e} {text}", flush=True)
                sums, seen = {}, 0
            if step % config.save_every == 0:
                save()
    save()
    for name, module in modules.items():
        module.load_state_dict(averages[name].state)
    return {"steps": step, "minutes": minutes(), "loss": sums["loss"] / seen if seen else last}


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
