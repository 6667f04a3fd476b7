"""The loop that trains the dialog model, the base and a LoRA adapter alike: optimisers, checkpoints, stops.

    fit(FitConfig(run, minutes=20), model, Dialogues(core, draw), train, validation, save, better)

What is learnt is an `Objective`'s (objective.py, preferences.py). A run folder holds settings.json, curve.csv,
curve.png, TensorBoard events, checkpoint.pt (a run that was stopped goes on from it, batch for batch) and what the run
makes.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import nn

from dialog_mllm.curve import Curve
from dialog_mllm.data import Batches
from dialog_mllm.errors import TrainingError
from dialog_mllm.objective import PRECISIONS, Objective
from dialog_mllm.parallel import device, processes


@dataclass(frozen=True)
class FitConfig:
    """`epochs` and `minutes` both bound the training, whichever comes first; the learning rate is zero by then."""

    run: Path
    epochs: float = 10.0
    minutes: float = 1e9  # over all resumes
    learning_rate: float = 2e-3
    warmup: int = 50  # steps
    decay_share: float = 0.4  # warm-up, stable, decay: the share at the end in which the learning rate falls
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    optimizer: str = "muon"  # or "adamw"
    batch_tokens: int = 8192
    evaluate_every: float = 2.0  # minutes
    threads: int | None = None
    seed: int = 0
    accumulate: int = 1  # batches of each process in one step
    patience: int | None = None  # stop after so many evaluations that were no better than the best
    precision: str = "auto"  # of PRECISIONS, that matrix products compute in

    def __post_init__(self) -> None:
        if self.epochs <= 0 or self.minutes <= 0 or self.batch_tokens < 1 or self.learning_rate <= 0:
            raise TrainingError("epochs, minutes, batch_tokens and learning_rate must be positive")
        if self.optimizer not in ("muon", "adamw"):
            raise TrainingError(f"unknown optimizer {self.optimizer!r}: choose muon or adamw")
        if not 0 < self.decay_share <= 1:
            raise TrainingError("decay_share must lie above 0 and be at most 1")
        if self.accumulate < 1 or (self.patience is not None and self.patience < 1):
            raise TrainingError("accumulate and patience must be at least 1")
        if self.precision not in PRECISIONS:
            raise TrainingError(f"unknown precision {self.precision!r}: choose one of {', '.join(PRECISIONS)}")


def schedule(progress: float, step: int, config: FitConfig) -> float:
    """The learning rate's factor at `progress` (0 to 1 of the training): warm-up, stable, linear decay."""
    return min((step + 1) / max(1, config.warmup), 1.0, max(0.0, (1 - progress) / config.decay_share))


class Optimizers:
    """AdamW, and Muon for the matrices inside the layers if it was asked for."""

    def __init__(self, model: nn.Module, config: FitConfig) -> None:
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        inner = [p for name, p in trained if config.optimizer == "muon" and p.ndim == 2 and ".layers." in name]
        chosen = {id(p) for p in inner}
        rest = [(name, p) for name, p in trained if id(p) not in chosen]
        decayed = [p for name, p in rest if p.ndim > 1 and "embed" not in name]
        others = [p for name, p in rest if not (p.ndim > 1 and "embed" not in name)]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self.all: list[torch.optim.Optimizer] = []
        if groups:
            self.all.append(torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True))
        if inner:
            self.all.append(
                torch.optim.Muon(
                    inner, lr=config.learning_rate, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"
                )
            )

    def step(self, learning_rate: float) -> None:
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self.all]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for optimizer, state in zip(self.all, states, strict=True):
            optimizer.load_state_dict(state)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deferred_interrupt() -> Iterator[Event]:
    """The first Ctrl-C only sets the event, so that no step is cut in two; the second is a KeyboardInterrupt."""
    asked = Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals are the main thread's
        return

    def ask(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


class Ahead:
    """This process's batches of one step after the other, the next step's made while one is computed.

    `next()` returns them with the stream's position behind them.
    """

    def __init__(self, train: Batches, accumulate: int) -> None:
        self._train, self._accumulate = train, accumulate
        self._pool = ThreadPoolExecutor(1)
        self._next = self._pool.submit(self._make)

    def _make(self) -> tuple[list[Any], tuple[int, int]]:
        group, mine = processes(), []
        for number in range(self._accumulate * group.count):
            if number % group.count == group.rank:
                mine.append(self._train.next())
            else:
                self._train.skip()
        return mine, self._train.position

    def next(self) -> tuple[list[Any], tuple[int, int]]:
        made = self._next.result()
        self._next = self._pool.submit(self._make)
        return made

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def learn(
    objective: Objective, batches: Sequence[Any], trained: Sequence[nn.Parameter]
) -> tuple[float, dict[str, float]]:
    """Adds a step's gradients to the parameters: the batches of all processes as if they were one. -> loss, figures"""
    group = processes()
    (weight,) = group.sum([sum(objective.weight(batch) for batch in batches)])
    total, figures = 0.0, dict.fromkeys(objective.figures, 0.0)
    for batch in batches:
        loss, told = objective.loss(batch.to(device()))
        (loss / weight).backward()
        total += float(loss.detach())
        for name in figures:
            figures[name] += told[name]
    group.sum_gradients(trained)
    total, *told_by_all = group.sum([total, *figures.values()])
    return total / weight, {name: value / weight for name, value in zip(figures, told_by_all, strict=True)}


@dataclass
class Progress:
    """How far a run has come."""

    position: tuple[int, int]  # in the stream of batches, behind the last one learnt from
    step: int = 0
    tokens: int = 0
    minutes: float = 0.0  # of the sessions before this one
    best: Any = None  # the highest rank of an evaluation
    stale: int = 0  # evaluations since then


class Training:
    """A run under way: the parameters that learn, their optimisers, and how far they have come."""

    def __init__(self, config: FitConfig, model: nn.Module, objective: Objective, train: Batches) -> None:
        """Goes on from the run's checkpoint, if it has one. Raises TrainingError for that of another training."""
        from tqdm import tqdm

        group = processes()
        config.run.mkdir(parents=True, exist_ok=True)
        model.to(device()).train()
        self.config, self.objective = config, objective
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizers = Optimizers(model, config)
        self.checkpoint = config.run / "checkpoint.pt"
        self.at = Progress(train.position)
        if self.checkpoint.is_file():
            self._resume()
            train.seek(*self.at.position)
        self.total = max(1, math.ceil(config.epochs * train.per_epoch / (config.accumulate * group.count)))  # steps
        self.begun = time.monotonic()
        self.evaluated = self.at.minutes
        self.scores: dict[str, float] = {}
        self.sums, self.count = self._no_sums(), 0  # of the steps since the curve's last point
        self.curve = Curve(config.run, self.at.step, objective) if group.main else None
        self.bar = tqdm(
            total=self.total, initial=self.at.step, unit="step", dynamic_ncols=True, mininterval=2,
            disable=not group.main,
        )  # fmt: skip
        self.ahead = Ahead(train, config.accumulate)

    @property
    def minutes(self) -> float:
        return self.at.minutes + (time.monotonic() - self.begun) / 60

    @property
    def tired(self) -> bool:
        return self.config.patience is not None and self.at.stale >= self.config.patience

    @property
    def due(self) -> bool:
        """Whether it is time to evaluate."""
        return self.minutes - self.evaluated >= self.config.evaluate_every

    def advance(self, progress: float) -> None:
        """One step, with the learning rate of `progress`. Raises TrainingError where the loss is no number."""
        at, config = self.at, self.config
        batches, behind = self.ahead.next()
        loss, figures = learn(self.objective, batches, list(self.trained.values()))
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} at step {at.step}: use a smaller --learning-rate.")
        nn.utils.clip_grad_norm_(self.trained.values(), config.clip_norm)
        learning_rate = config.learning_rate * schedule(progress, at.step, config)
        self.optimizers.step(learning_rate)
        (seen,) = processes().sum([sum(batch.tokens for batch in batches)])
        at.step, at.tokens = at.step + 1, at.tokens + int(seen)
        at.position = behind  # what was made ahead is not learnt from yet
        for name, value in {"loss": loss, **figures}.items():
            self.sums[name] += value
        self.count += 1
        self.bar.update()
        if at.step % 10 == 0:
            means = {f"train_{name}": value / self.count for name, value in self.sums.items()}
            self._write(learning_rate=learning_rate, **means)
            self.bar.set_postfix(loss=f"{means['train_loss']:.3f}", minutes=f"{self.minutes:.1f}")
            self.sums, self.count = self._no_sums(), 0

    def evaluate(
        self,
        validation: Batches,
        save: Callable[[dict[str, float]], None],
        better: Callable[[dict[str, float]], Any],
    ) -> None:
        at, group = self.at, processes()
        self.scores = self.objective.measure(validation)
        rank = better(self.scores)
        at.stale = 0 if at.best is None or rank > at.best else at.stale + 1
        if at.best is None or rank >= at.best:
            at.best = rank
            if group.main:
                save(self.scores)
        self._write(**{name: self.scores[name] for name in self.objective.scores})
        if self.curve is not None:
            self.curve.draw()
        self.keep()
        self.evaluated = self.minutes
        told = " ".join(f"{key} {value:.4f}" for key, value in self.scores.items())
        self.bar.write(f"step {at.step}, {at.tokens / 1e6:.2f} M tokens, {self.minutes:.1f} min: {told}")

    def keep(self) -> None:
        """Writes the checkpoint, by rename."""
        if not processes().main:
            return
        state = {
            **vars(self.at), "minutes": self.minutes, "position": list(self.at.position), "rng": torch.get_rng_state(),
            "model": {name: p.detach() for name, p in self.trained.items()},
            "optimizers": self.optimizers.state_dict(), "objective": type(self.objective).__name__,
        }  # fmt: skip
        torch.save(state, self.checkpoint.with_suffix(".partial"))
        self.checkpoint.with_suffix(".partial").rename(self.checkpoint)

    def close(self) -> None:
        self.bar.close()
        self.ahead.close()
        if self.curve is not None:
            self.curve.close()

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True, map_location=device())
        # Older runs do not say what they learn: dialogues.
        learns = state.get("objective", "Dialogues")
        if set(state["model"]) != set(self.trained) or learns != type(self.objective).__name__:
            raise TrainingError(f"{self.checkpoint} is of another kind of training: choose another --out.")
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(state["model"][name])
        self.optimizers.load_state_dict(state["optimizers"])
        torch.set_rng_state(state["rng"].cpu())
        self.at = Progress(
            tuple(state["position"]), state["step"], state["tokens"], state["minutes"], state["best"],
            state.get("stale", 0),  # older runs have none
        )  # fmt: skip

    def _no_sums(self) -> dict[str, float]:
        return dict.fromkeys(("loss", *self.objective.figures), 0.0)

    def _write(self, **values: float) -> None:
        if self.curve is not None:
            self.curve.add(step=self.at.step, tokens=self.at.tokens, minutes=self.minutes, **values)


def fit(
    config: FitConfig,
    model: nn.Module,
    objective: Objective,
    train: Batches,
    validation: Batches,
    save: Callable[[dict[str, float]], None],
    better: Callable[[dict[str, float]], Any],
) -> dict[str, float]:
    """Train the parameters of `model` that require gradients. -> steps, tokens, minutes, and the last scores

    `better` is a sort key: after each evaluation that it ranks highest so far, `save(scores)` is called, by the main
    process alone.
    """
    with threads(config.threads), deferred_interrupt() as interrupted:
        training = Training(config, model, objective, train)
        try:
            while True:
                # Clocks and keys differ between processes; what they do must not.
                late, due, stop = processes().max(
                    [training.minutes / config.minutes, training.due, interrupted.is_set()]
                )
                if stop:
                    raise KeyboardInterrupt
                progress = 1.0 if training.tired else max(training.at.step / training.total, late)
                if progress >= 1 or due:
                    training.evaluate(validation, save, better)
                if progress >= 1:
                    break
                if training.tired:
                    told = f"No better than before in {training.at.stale} evaluations: the training ends here."
                    training.bar.write(told)
                    break
                training.advance(progress)
        except KeyboardInterrupt:
            training.keep()
            training.bar.write(f"Stopped. The same command goes on from step {training.at.step}.")
            raise
        finally:
            training.close()
        at = training.at
        return {"steps": at.step, "tokens": at.tokens, "minutes": round(training.minutes, 3), **training.scores}


def write_settings(run: Path, config: Any) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / "settings.json").write_text(json.dumps(asdict(config), indent=1, default=str, ensure_ascii=False) + "\n")


def add_fit_arguments(parser: argparse.ArgumentParser, defaults: FitConfig) -> None:
    """The loop's settings, spelled the same for the base and for LoRA."""
    parser.add_argument("--out", type=Path, required=True, help="the run's folder; an unfinished run in it goes on")
    parser.add_argument("--epochs", type=float, default=defaults.epochs)
    parser.add_argument("--minutes", type=float, default=defaults.minutes, help="stop by then, over all resumes")
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--warmup", type=int, default=defaults.warmup, help="steps")
    parser.add_argument(
        "--decay-share", type=float, default=defaults.decay_share, help="of the run, learning rate falling"
    )
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default=defaults.optimizer)
    parser.add_argument("--batch-tokens", type=int, default=defaults.batch_tokens)
    parser.add_argument("--weight-decay", type=float, default=defaults.weight_decay)
    parser.add_argument("--evaluate-every", type=float, default=defaults.evaluate_every, help="minutes")
    parser.add_argument("--patience", type=int, help="stop after so many evaluations that were no better")
    parser.add_argument("--accumulate", type=int, default=1, help="batches of each process in one step")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="of matrix products; auto: bf16 where that is fast"
    )
    parser.add_argument("--threads", type=int, help="processor cores to use; default: all")
    parser.add_argument("--seed", type=int, default=defaults.seed)


def fit_config(args: argparse.Namespace, defaults: FitConfig) -> FitConfig:
    given = {field.name: getattr(args, field.name) for field in fields(FitConfig) if hasattr(args, field.name)}
    return replace(defaults, run=args.out, **given)
