"""The loop that trains the dialog model, the base and a LoRA adapter alike: optimisers, curves, checkpoints, stops.

    fit(FitConfig(run, minutes=20), model, Dialogues(core, draw), train, validation, save, better)

What is learnt is an `Objective`'s: `Dialogues` here, preferences in preferences.py.
A run folder holds settings.json, curve.csv, curve.png, TensorBoard events, checkpoint.pt (a run that was stopped goes
on from it, batch for batch) and what the run makes.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from threading import Event
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Idefics3ForConditionalGeneration

from dialog_mllm.data import Batch, Batches
from dialog_mllm.errors import DialogError
from dialog_mllm.model import text_states
from dialog_mllm.parallel import processes
from dialog_mllm.vlm import VlmBatch

PRECISIONS = ("auto", "bf16", "float32")


class TrainingError(DialogError):
    """Training cannot start or go on; the text says what to do."""


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


def device() -> torch.device:
    return processes().device


def mixed_precision(precision: str = "auto") -> AbstractContextManager[Any]:
    """bf16 matrix products, for "auto" where the processor has them in hardware; twice as fast as float32, with AMX 8
    times."""
    where = device().type
    fast = torch.cuda.is_bf16_supported() if where == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(where, torch.bfloat16, enabled=precision == "bf16" or (precision == "auto" and fast))


@dataclass(frozen=True)
class Dropout:
    """Of the bundled kind of model, while it is trained. Users say things in ways that no training has seen."""

    states: float = 0.0  # of what each layer adds to the residual stream
    words: float = 0.0  # of the tokens that are read and not learnt to say

    def __post_init__(self) -> None:
        if not (0 <= self.states < 1 and 0 <= self.words < 1):
            raise TrainingError("dropout must be at least 0 and below 1")


def hidden_states(model: Idefics3ForConditionalGeneration, batch: Batch, dropout: Dropout | None = None) -> Tensor:
    """(B, T) ids and their pictures -> (B, T, hidden). Padding is on the right, so causal attention needs no mask."""
    drop = dropout if dropout is not None and model.training else Dropout()
    embeddings = model.get_input_embeddings()(batch.ids)  # (B, T, hidden)
    if drop.words:
        kept = (batch.weights > 0) | (torch.rand_like(batch.weights) >= drop.words)  # (B, T)
        embeddings = embeddings * kept.unsqueeze(-1)
    if batch.pixels is not None:
        learn = any(parameter.requires_grad for parameter in model.model.vision_model.parameters())
        with torch.set_grad_enabled(learn and torch.is_grad_enabled()):
            features = model.model.get_image_features(batch.pixels.unsqueeze(1)).pooler_output  # (P, 16, hidden)
        embeddings = model.model.inputs_merger(batch.ids, embeddings, features)
    return text_states(model, embeddings, drop.states)


def token_losses(model: Any, batch: Batch | VlmBatch, dropout: Dropout | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Cross entropies (N,) and weights (N,) of the N tokens that count, row by row, and the logits (N, vocabulary) that
    predict them. Only those tokens pay for logits."""
    weights = batch.weights[:, 1:]
    counts = weights > 0  # (B, T - 1)
    if isinstance(batch, VlmBatch):
        columns = counts.any(0).nonzero().squeeze(1)  # (C,)
        logits = model(**batch.inputs, logits_to_keep=columns, use_cache=False).logits  # (B, C, vocabulary)
        logits = logits[counts[:, columns]]
    else:
        logits = model.lm_head(hidden_states(model, batch, dropout)[:, :-1][counts])
    losses = F.cross_entropy(logits.float(), batch.ids[:, 1:][counts], reduction="none")
    return losses, weights[counts], logits


class Objective(Protocol):
    """What a run learns. Losses and figures are sums, for a batch may be cut into several and lie on several GPUs."""

    @property
    def figures(self) -> tuple[str, ...]:
        """Of a training batch, beside its loss."""
        ...

    @property
    def scores(self) -> tuple[str, ...]:
        """Of what `measure` returns, for the curve."""
        ...

    @property
    def rate(self) -> str:
        """The score among them that the plot shows, from 0 to 1."""
        ...

    def weight(self, batch: Any) -> float:
        """What the batch counts; the step's loss is the sum of losses over the sum of these."""
        ...

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, float]]: ...

    def measure(self, batches: Batches) -> dict[str, float]: ...


@dataclass(frozen=True)
class Dialogues:
    """Say what the records say: cross entropy, weighted by token."""

    core: Any
    draw: int  # the draw token's id; where it is several tokens, the first one's
    precision: str = "auto"
    dropout: Dropout | None = None
    figures: ClassVar[tuple[str, ...]] = ()
    scores: ClassVar[tuple[str, ...]] = ("loss", "switch_accuracy", "false_draw", "missed_draw")
    rate: ClassVar[str] = "switch_accuracy"

    def weight(self, batch: Batch | VlmBatch) -> float:
        return float(batch.weights[:, 1:].sum())

    def loss(self, batch: Batch | VlmBatch) -> tuple[Tensor, dict[str, float]]:
        with mixed_precision(self.precision):
            losses, weights, _ = token_losses(self.core, batch, self.dropout)
            return (losses * weights).sum(), {}

    def measure(self, batches: Batches) -> dict[str, float]:
        return measure(self.core, batches, self.draw, self.precision)


@torch.no_grad()
def measure(model: Any, batches: Batches, draw: int, precision: str = "auto") -> dict[str, float]:
    """Mean loss, and how often the more likely of "draw" and "not draw" is right where the reply decides.

    Where <draw> is several tokens, a reply that draws is right if each of them is the likeliest, and one that talks if
    its first token is more likely than theirs.
    """
    training = model.training
    model.eval()
    loss = weight = 0.0
    tally = {(drawn, said): 0 for drawn in (True, False) for said in (True, False)}
    group = processes()
    for batch in batches.once(group.rank, group.count):
        batch = batch.to(device())
        with mixed_precision(precision):
            losses, weights, logits = token_losses(model, batch)
        loss += float((losses * weights).sum())
        weight += float(weights.sum())
        counts = batch.weights[:, 1:] > 0
        place = (counts.flatten().cumsum(0) - 1).view_as(counts).cpu()  # (B, T - 1): of a token among those that count
        likeliest = logits.argmax(-1).cpu()  # (N,)
        wanted = batch.ids[:, 1:][counts].cpu()
        for row, decision in batch.decisions:
            first = int(place[row, decision.position - 1])
            span = slice(first, first + decision.width)
            said = bool((likeliest[span] == wanted[span]).all() if decision.draws else likeliest[first] == draw)
            tally[decision.draws, said] += 1
    model.train(training)
    loss, weight, *counted = group.sum([loss, weight, *tally.values()])
    tally = dict(zip(tally, map(int, counted), strict=True))
    drawn, talked = tally[True, True] + tally[True, False], tally[False, True] + tally[False, False]
    return {
        "loss": loss / max(weight, 1e-9),
        "switch_accuracy": (tally[True, True] + tally[False, False]) / max(1, drawn + talked),
        "false_draw": tally[False, True] / max(1, talked),
        "missed_draw": tally[True, False] / max(1, drawn),
    }


def schedule(progress: float, step: int, config: FitConfig) -> float:
    """The learning rate's factor at `progress` (0 to 1 of the training): warm-up, stable, linear decay."""
    return min((step + 1) / config.warmup, 1.0, max(0.0, (1 - progress) / config.decay_share))


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


class Curve:
    """curve.csv, curve.png and TensorBoard events of a run."""

    def __init__(self, run: Path, step: int, objective: Objective) -> None:
        from torch.utils.tensorboard import SummaryWriter

        figures = [f"train_{name}" for name in objective.figures]
        self.fields = ["step", "tokens", "minutes", "learning_rate", "train_loss", *figures, *objective.scores]
        self.rate = objective.rate
        self.file = run / "curve.csv"
        self.rows = [row for row in self._read() if int(row["step"]) <= step]  # a resume repeats what came after
        with self.file.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.fields)
            writer.writeheader()
            writer.writerows(self.rows)
        self.events = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def _read(self) -> list[dict[str, str]]:
        if not self.file.is_file():
            return []
        with self.file.open(newline="") as file:
            return list(csv.DictReader(file))

    def add(self, **values: float) -> None:
        row = {key: f"{value:.6g}" if isinstance(value, float) else str(value) for key, value in values.items()}
        self.rows.append(row)
        with self.file.open("a", newline="") as file:
            csv.DictWriter(file, self.fields).writerow(row)
        for key, value in values.items():
            if key != "step":
                self.events.add_scalar(key, value, int(values["step"]))

    def draw(self) -> None:
        import matplotlib.figure

        figure = matplotlib.figure.Figure(figsize=(8, 4), layout="constrained")
        losses = figure.subplots()
        rights = losses.twinx()
        for axis, key, style in (
            (losses, "train_loss", "C0-"),
            (losses, "loss", "C1o-"),
            (rights, self.rate, "C2s--"),
        ):
            points = [(int(row["step"]), float(row[key])) for row in self.rows if row.get(key)]
            axis.plot(*zip(*points, strict=True), style, label=key, ms=3) if points else None
        losses.set(xlabel="step", ylabel="loss", yscale="log")
        rights.set(ylabel=self.rate.replace("_", " "), ylim=(0, 1.02))
        if losses.lines or rights.lines:
            figure.legend(loc="outside upper center", ncols=3)
        figure.savefig(self.file.with_suffix(".png"), dpi=110)

    def close(self) -> None:
        self.draw()
        self.events.close()


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
    from tqdm import tqdm

    group = processes()
    with threads(config.threads), deferred_interrupt() as interrupted:
        config.run.mkdir(parents=True, exist_ok=True)
        model.to(device()).train()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        optimizers = Optimizers(model, config)
        step, tokens, spent, best, stale, position = 0, 0, 0.0, None, 0, train.position
        checkpoint = config.run / "checkpoint.pt"
        if checkpoint.is_file():
            state = torch.load(checkpoint, weights_only=True, map_location=device())
            # Older runs do not say what they learn: dialogues.
            if set(state["model"]) != set(trained) or state.get("objective", "Dialogues") != type(objective).__name__:
                raise TrainingError(f"{checkpoint} is of another kind of training: choose another --out.")
            with torch.no_grad():
                for name, parameter in trained.items():
                    parameter.copy_(state["model"][name])
            optimizers.load_state_dict(state["optimizers"])
            step, tokens, spent, best = state["step"], state["tokens"], state["minutes"], state["best"]
            stale = state.get("stale", 0)  # older runs have none
            torch.set_rng_state(state["rng"].cpu())
            position = tuple(state["position"])
            train.seek(*position)
        total = max(1, math.ceil(config.epochs * train.per_epoch / (config.accumulate * group.count)))
        curve = Curve(config.run, step, objective) if group.main else None
        begun = time.monotonic()
        sums, count, evaluated = dict.fromkeys(("loss", *objective.figures), 0.0), 0, spent
        scores: dict[str, float] = {}

        def minutes() -> float:
            return spent + (time.monotonic() - begun) / 60

        def keep() -> None:
            if not group.main:
                return
            state = {
                "model": {name: p.detach() for name, p in trained.items()}, "optimizers": optimizers.state_dict(),
                "step": step, "tokens": tokens, "minutes": minutes(), "best": best, "rng": torch.get_rng_state(),
                "position": list(position), "stale": stale, "objective": type(objective).__name__,
            }  # fmt: skip
            torch.save(state, checkpoint.with_suffix(".partial"))
            checkpoint.with_suffix(".partial").rename(checkpoint)

        def write(**values: float) -> None:
            if curve is not None:
                curve.add(step=step, tokens=tokens, minutes=minutes(), **values)

        bar = tqdm(total=total, initial=step, unit="step", dynamic_ncols=True, mininterval=2, disable=not group.main)
        ahead = Ahead(train, config.accumulate)
        try:
            while True:
                # Clocks and keys differ between processes; what they do must not.
                late, due, stop = group.max(
                    [minutes() / config.minutes, minutes() - evaluated >= config.evaluate_every, interrupted.is_set()]
                )
                if stop:
                    raise KeyboardInterrupt
                tired = config.patience is not None and stale >= config.patience
                progress = 1.0 if tired else max(step / total, late)
                if progress >= 1 or due:
                    scores = objective.measure(validation)
                    rank = better(scores)
                    stale = 0 if best is None or rank > best else stale + 1
                    if best is None or rank >= best:
                        best = rank
                        if group.main:
                            save(scores)
                    write(**{name: scores[name] for name in objective.scores})
                    if curve is not None:
                        curve.draw()
                    keep()
                    evaluated = minutes()
                    told = " ".join(f"{key} {value:.4f}" for key, value in scores.items())
                    bar.write(f"step {step}, {tokens / 1e6:.2f} M tokens, {minutes():.1f} min: {told}")
                    if progress < 1 and config.patience is not None and stale >= config.patience:
                        bar.write(f"No better than before in {stale} evaluations: the training ends here.")
                        break
                if progress >= 1:
                    break
                batches, behind = ahead.next()
                loss, figures = learn(objective, batches, list(trained.values()))
                if not math.isfinite(loss):
                    raise TrainingError(f"the loss is {loss} at step {step}: use a smaller --learning-rate.")
                nn.utils.clip_grad_norm_(trained.values(), config.clip_norm)
                learning_rate = config.learning_rate * schedule(progress, step, config)
                optimizers.step(learning_rate)
                (seen,) = group.sum([sum(batch.tokens for batch in batches)])
                step, tokens, count = step + 1, tokens + int(seen), count + 1
                for name, value in {"loss": loss, **figures}.items():
                    sums[name] += value
                position = behind  # what was made ahead is not learnt from yet
                bar.update()
                if step % 10 == 0:
                    means = {f"train_{name}": value / count for name, value in sums.items()}
                    write(learning_rate=learning_rate, **means)
                    bar.set_postfix(loss=f"{means['train_loss']:.3f}", minutes=f"{minutes():.1f}")
                    sums, count = dict.fromkeys(sums, 0.0), 0
        except KeyboardInterrupt:
            keep()
            bar.write(f"Stopped. The same command goes on from step {step}.")
            raise
        finally:
            bar.close()
            ahead.close()
            if curve is not None:
                curve.close()
        return {"steps": step, "tokens": tokens, "minutes": round(minutes(), 3), **scores}


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
