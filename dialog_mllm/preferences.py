"""Learning from pairs of a better and a worse reply: DPO and SimPO, on the model that `easel finetune` made.

    easel prefer --pairs runs/errors --dialogues runs/d --adapter runs/lora/adapter --out runs/prefer

The pairs are the preferences.jsonl of `easel data errors` and `easel data feedback`, in TRL's conversational form:
`prompt` as serving showed it, pictures included, and `chosen` and `rejected`, a reply each. log π(y) is the sum of the
log-probabilities of a reply's tokens, its end included, given the prompt.

- DPO (arXiv 2305.18290, eq. 7): -log σ(β (log π(y_w)/π_ref(y_w) - log π(y_l)/π_ref(y_l))). π_ref is the model before
  its first step, so its log-probabilities are computed once and no second model is held.
- SimPO (arXiv 2405.14734, eq. 6): -log σ(β (log π(y_w)/|y_w| - log π(y_l)/|y_l|) - γ), without a reference.
- To either, `sft_weight` times -log π(y_w)/|y_w| is added, as in iterative RPO (arXiv 2404.19733, eq. 2): both losses
  are content when the better reply becomes unlikely too, as long as the worse one does so faster.

The best adapter is the one whose switch accuracy on the DIALOGUES' validation split (if they are given), then whose
reward accuracy on the pairs held out, is highest.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dialog_mllm.data import Batch, Batches, PictureCache, Sample, plan_batches
from dialog_mllm.errors import MessageError, TrainingError
from dialog_mllm.estimate import estimate
from dialog_mllm.finetune import merge_best, pictures_folder, train_adapter
from dialog_mllm.fit import (
    FitConfig,
    add_fit_arguments,
    fit_config,
)
from dialog_mllm.lora import (
    AdapterSettings,
    Trainee,
    adapter_settings,
    add_adapter_arguments,
    attach,
    require_free,
)
from dialog_mllm.messages import ImageBlock
from dialog_mllm.objective import measure, mixed_precision, token_losses
from dialog_mllm.parallel import device, processes
from dialog_mllm.records import DataError, data_files
from dialog_mllm.tokenizer import CONTEXT, IMAGE
from dialog_mllm.vlm import VlmBatch, VlmEncoder, VlmSample

PAIRS = "preferences.jsonl"
HELD_OUT = 10  # one pair in so many is measured on, where no other file of pairs is named
LOSSES = ("dpo", "simpo")
BETA = {"dpo": 0.1, "simpo": 2.0}  # the papers' usual values
DEFAULTS = FitConfig(
    Path(), epochs=2.0, learning_rate=1e-4, optimizer="adamw", weight_decay=0.0, decay_share=0.7, warmup=10
)


@dataclass(frozen=True)
class PreferConfig(AdapterSettings):
    """What `easel prefer` is asked for."""

    pairs: Sequence[Path]  # files of pairs, or folders that hold a preferences.jsonl
    fit: FitConfig
    validation: Sequence[Path] = ()  # the same, to measure on; empty: a tenth of `pairs`, by their prompts
    dialogues: Path | None = None  # a data set on whose validation split switch accuracy must not fall
    loss: str = "dpo"
    beta: float | None = None  # None: BETA's
    gamma: float = 1.0  # SimPO's margin
    sft_weight: float = 0.2
    validation_records: int = 400

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in LOSSES:
            raise TrainingError(f"unknown loss {self.loss!r}: choose {' or '.join(LOSSES)}")
        if (self.beta is not None and self.beta <= 0) or self.gamma < 0 or self.sft_weight < 0:
            raise TrainingError("beta must be positive, gamma and the SFT weight not negative")


@dataclass(frozen=True)
class Pair:
    """The two replies to one prompt, each with it."""

    chosen: Sample | VlmSample
    rejected: Sample | VlmSample
    key: str  # the prompt's digest: pairs of one prompt are not torn apart
    reference: tuple[float, float] = (0.0, 0.0)  # log π_ref of both

    @property
    def length(self) -> int:
        """Tokens that it takes in a padded batch."""
        return 2 * max(self.chosen.length, self.rejected.length)


@dataclass(frozen=True)
class PairBatch:
    rows: Batch | VlmBatch  # P chosen, then P rejected
    reference: Tensor  # float32 (2, P)

    def to(self, device: torch.device) -> PairBatch:
        return PairBatch(self.rows.to(device), self.reference.to(device))

    @property
    def tokens(self) -> int:
        return self.rows.tokens


# --------------------------------------------------------------------------------------------------------- the losses


def pair_losses(
    log_probs: Tensor, lengths: Tensor, reference: Tensor, loss: str, beta: float, gamma: float, sft_weight: float
) -> tuple[Tensor, Tensor]:
    """(2, P) log-probabilities and lengths of chosen and rejected replies -> losses (P,) and rewards (2, P)."""
    rewards = beta * (log_probs - reference if loss == "dpo" else log_probs / lengths)
    margin = rewards[0] - rewards[1] - (gamma if loss == "simpo" else 0.0)
    return -F.logsigmoid(margin) - sft_weight * log_probs[0] / lengths[0], rewards


def reply_log_probs(core: Any, batch: PairBatch, precision: str = "auto") -> tuple[Tensor, Tensor]:
    """log π of each reply and its number of tokens, (2, P) each."""
    with mixed_precision(precision):
        losses, _, _ = token_losses(core, batch.rows)  # (N,)
    rows = (batch.rows.weights[:, 1:] > 0).nonzero()[:, 0]  # (N,): whose token it is
    zeros = torch.zeros(len(batch.rows.weights), device=losses.device)
    log_probs = zeros.index_add(0, rows, -losses)
    lengths = zeros.index_add(0, rows, torch.ones_like(losses))
    return log_probs.view(2, -1), lengths.view(2, -1)


@dataclass(frozen=True)
class Preferences:
    """The objective: the better reply above the worse one."""

    core: Any
    kind: str
    beta: float
    gamma: float
    sft_weight: float
    precision: str = "auto"
    dialogues: Batches | None = None
    draw: int = 0
    figures: ClassVar[tuple[str, ...]] = ("reward_accuracy", "reward_margin")
    rate: ClassVar[str] = "reward_accuracy"

    @property
    def scores(self) -> tuple[str, ...]:
        return ("loss", *self.figures, *(["switch_accuracy"] if self.dialogues else []))

    def weight(self, batch: PairBatch) -> float:
        return batch.reference.shape[1]

    def loss(self, batch: PairBatch) -> tuple[Tensor, dict[str, float]]:
        log_probs, lengths = reply_log_probs(self.core, batch, self.precision)
        losses, rewards = pair_losses(
            log_probs, lengths, batch.reference, self.kind, self.beta, self.gamma, self.sft_weight
        )
        margins = (rewards[0] - rewards[1]).detach()
        return losses.sum(), {"reward_accuracy": float((margins > 0).sum()), "reward_margin": float(margins.sum())}

    @torch.no_grad()
    def measure(self, batches: Batches) -> dict[str, float]:
        training = self.core.training
        self.core.eval()
        sums = dict.fromkeys(("loss", *self.figures), 0.0)
        group, count = processes(), 0.0
        for batch in batches.once(group.rank, group.count):
            loss, figures = self.loss(batch.to(device()))
            count += self.weight(batch)
            for name, value in {"loss": float(loss), **figures}.items():
                sums[name] += value
        self.core.train(training)
        count, *values = group.sum([count, *sums.values()])
        scores = {name: value / count for name, value in zip(sums, values, strict=True)}
        if self.dialogues:
            scores["switch_accuracy"] = measure(self.core, self.dialogues, self.draw, self.precision)["switch_accuracy"]
        return scores


# ---------------------------------------------------------------------------------------------------------- the pairs


def read_pairs(files: Sequence[Path], trainee: Trainee, pictures: PictureCache | None) -> list[Pair]:
    """Every pair of the files. `pictures` is filled with what the bundled path shows, and None for other models."""
    pairs = []
    for file, number, row in _rows(files):
        name = str(row.get("id", f"{file.name}, line {number}"))
        try:
            pairs.append(_pair(row, file.parent, name, trainee, pictures))
        except (DataError, MessageError, KeyError, TypeError, IndexError) as error:
            raise DataError(f"pair {name}: {error if isinstance(error, DataError) else repr(error)}") from error
    return pairs


def pair_files(places: Sequence[Path]) -> list[Path]:
    files = [place / PAIRS if place.is_dir() else place for place in places]
    for file in files:
        if not file.is_file():
            raise DataError(f"{file} is not there. Make pairs with `easel data errors` or `easel data feedback`.")
    return files


def _rows(files: Sequence[Path]) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    for file in files:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    row = json.loads(line)
                    if not all(isinstance(row[part], list) for part in ("prompt", "chosen", "rejected")):
                        raise TypeError("prompt, chosen and rejected must be lists of messages")
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(f"{file}, line {number}: this is no preference pair ({error!r}).") from error
                yield file, number, row


def _pair(row: dict[str, Any], root: Path, name: str, trainee: Trainee, pictures: PictureCache | None) -> Pair:
    if row["chosen"] == row["rejected"]:
        raise DataError("both replies are the same")
    blocks = [ImageBlock(path=root / path) for path in row.get("images") or ()]
    prompt = [_message(message) for message in row["prompt"]]
    shown = sum(part["type"] == "image" for message in prompt for part in message["content"])
    if shown != len(blocks):
        raise DataError(f"it shows {shown} pictures and names {len(blocks)}")
    chats = [[*prompt, _message(row[side][0])] for side in ("chosen", "rejected")]
    key = hashlib.sha256(json.dumps([row["prompt"], list(map(str, row.get("images") or ()))]).encode()).hexdigest()
    if isinstance(trainee.encoder, VlmEncoder):
        turn = sum(message["role"] == "assistant" for message in prompt)
        better, worse = (trainee.encoder.sample(chat, blocks, {turn: 1.0}, name) for chat in chats)
        return Pair(better, worse, key)
    assert pictures is not None
    rows = tuple(pictures.row(block, name) for block in blocks)
    chosen, rejected = (_sample(trainee, chat, rows) for chat in chats)
    return Pair(chosen, rejected, key)


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """Content as parts; a plain string is one of text."""
    content = message["content"]
    return {
        "role": message["role"],
        "content": [{"type": "text", "text": content}] if isinstance(content, str) else content,
    }


def _sample(trainee: Trainee, chat: Sequence[dict[str, Any]], rows: tuple[int, ...]) -> Sample:
    assert not isinstance(trainee.encoder, VlmEncoder)
    ids, history = trainee.encoder.chat_ids(chat), trainee.encoder.chat_ids(chat[:-1], reply=True)
    if len(ids) > CONTEXT:
        raise DataError(f"it has {len(ids)} tokens; the model reads {CONTEXT}")
    if ids.count(trainee.encoder.token(IMAGE)) != len(rows) * trainee.processor.image_seq_len:
        raise DataError(f"a message holds the text {IMAGE}")
    weights = np.zeros(len(ids), np.float32)
    weights[len(history) :] = 1.0
    return Sample(np.array(ids, np.int32), weights, rows, (), "")


def collate_pairs(
    pairs: Sequence[Pair], pictures: Any, collate: Callable[[Sequence[Any], Any], Batch | VlmBatch]
) -> PairBatch:
    rows = collate([*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)], pictures)
    return PairBatch(rows, torch.tensor([pair.reference for pair in pairs], dtype=torch.float32).T)


def split(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """(to learn from, to measure on): one prompt in HELD_OUT by its digest, at least one."""
    held_out = sorted({pair.key for pair in pairs})
    held_out = [key for key in held_out if int(key, 16) % HELD_OUT == 0] or held_out[:1]
    kept = [pair for pair in pairs if pair.key not in held_out]
    if not kept:
        raise DataError("there must be pairs of at least two prompts: make more with `easel data errors`")
    return kept, [pair for pair in pairs if pair.key in held_out]


@torch.no_grad()
def with_reference(
    pairs: Sequence[Pair], trainee: Trainee, batches: Callable[[Sequence[Pair]], Batches], budget: int, precision: str
) -> list[Pair]:
    """The pairs with the log-probabilities that the model, as it is now, gives their replies."""
    from tqdm import tqdm

    trainee.model.to(device()).eval()
    known = list(pairs)
    plan = plan_batches([pair.length for pair in pairs], budget, 0, 0)
    stream = batches(pairs)
    for rows in tqdm(plan, desc="reference", unit="batch", dynamic_ncols=True, disable=not processes().main):
        batch = stream.collate([pairs[i] for i in rows], stream.pictures).to(device())
        log_probs, _ = reply_log_probs(trainee.core, batch, precision)
        for i, both in zip(rows, log_probs.T.tolist(), strict=True):
            known[i] = replace(pairs[i], reference=tuple(both))
    return known


# ------------------------------------------------------------------------------------------------------- the training


def prefer(config: PreferConfig, dry_run: bool = False) -> dict[str, Any]:
    """Train, keep the best adapter in `run/adapter`, return the last scores; with `dry_run`, what that will take."""
    files, other_files = pair_files(config.pairs), pair_files(config.validation)
    records = data_files([config.dialogues], "validation") if config.dialogues else []
    trainee = attach(config, config.fit.seed, config.fit.precision)
    budget, precision = config.fit.batch_tokens, config.fit.precision
    with pictures_folder(config.fit.run, dry_run) as cache:
        bundled = not isinstance(trainee.encoder, VlmEncoder)
        pictures = PictureCache(trainee.processor) if bundled else None
        pairs, others = (read_pairs(of, trainee, pictures) for of in (files, other_files))
        train, held_out = (pairs, others) if other_files else split(pairs)
        if not train or not held_out:
            raise DataError("there are no pairs in the file: make some with `easel data errors` or `feedback`")
        if pictures is not None:
            with processes().main_first():
                pictures.fill(cache)
        collate = partial(collate_pairs, collate=trainee.collate)

        def batches(of: Sequence[Pair], seed: int = 0) -> Batches:
            return Batches(of, pictures if bundled else trainee.encoder, budget, seed, collate=collate)

        dialogues = None
        if records and not dry_run:
            dialogues = trainee.dialogues(records, cache, budget, limit=config.validation_records)
        beta = config.beta if config.beta is not None else BETA[config.loss]
        objective = Preferences(
            trainee.core, config.loss, beta, config.gamma, config.sft_weight, precision, dialogues, trainee.draw
        )
        if dry_run:
            return estimate(config.fit, trainee.model, objective, batches(train))
        if config.loss == "dpo":
            train, held_out = (with_reference(of, trainee, batches, budget, precision) for of in (train, held_out))
    sources = [*config.pairs, *config.validation, *([config.dialogues] if config.dialogues else [])]
    return train_adapter(
        config,
        config.fit,
        trainee,
        objective,
        batches(train, config.fit.seed),
        batches(held_out),
        sources,
        better=lambda scores: (
            round(scores.get("switch_accuracy", 0.0), 2),
            round(scores["reward_accuracy"], 2),
            -scores["loss"],
        ),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", type=Path, nargs="+", required=True, help=f"files, or folders with a {PAIRS}")
    parser.add_argument(
        "--validation", type=Path, nargs="+", default=[], help="others to measure on (default: a tenth of the pairs)"
    )
    parser.add_argument("--dialogues", type=Path, help="a data set: its validation split watches the switch accuracy")
    parser.add_argument("--loss", choices=LOSSES, default="dpo")
    parser.add_argument("--beta", type=float, help=f"defaults: {', '.join(f'{k} {v}' for k, v in BETA.items())}")
    parser.add_argument("--gamma", type=float, default=1.0, help="SimPO's margin")
    parser.add_argument("--sft-weight", type=float, default=0.2, help="of the better replies' own likelihood")
    add_adapter_arguments(parser)
    add_fit_arguments(parser, DEFAULTS)


def run(args: argparse.Namespace) -> dict[str, Any] | int:
    config = PreferConfig(
        pairs=args.pairs,
        validation=args.validation,
        fit=fit_config(args, DEFAULTS),
        dialogues=args.dialogues,
        loss=args.loss,
        beta=args.beta,
        gamma=args.gamma,
        sft_weight=args.sft_weight,
        **adapter_settings(args),
    )
    if args.merge:
        require_free(args.merge)
    scores = prefer(config, args.dry_run)
    merge_best(args)
    return scores if processes().main else 0
