"""What a training step makes smaller: the loss of a batch, and how a run is measured.

    loss, figures = Dialogues(model, draw).loss(batch)

`Dialogues` learns to say what the records say; preferences.py has another objective. `fit.py` is the loop around both.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Idefics3ForConditionalGeneration

from dialog_mllm.data import TALK_WEIGHT, Batch, Batches
from dialog_mllm.errors import TrainingError
from dialog_mllm.model import Eyes, Kernels, text_states
from dialog_mllm.parallel import device, processes
from dialog_mllm.vlm import VlmBatch

PRECISIONS = ("auto", "bf16", "float32")


def mixed_precision(precision: str = "auto") -> AbstractContextManager[Any]:
    """bf16 matrix products, for "auto" where the processor has them in hardware; twice as fast as float32, with AMX 8
    times."""
    where = device().type
    if where == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(where, torch.bfloat16, enabled=precision == "bf16" or (precision == "auto" and fast))


@dataclass(frozen=True)
class Dropout:
    """Of the bundled kind of model, while it is trained. Users say things in ways that no training has seen."""

    states: float = 0.0  # of what each layer adds to the residual stream
    words: float = 0.0  # of the tokens that are read and not learnt to say

    def __post_init__(self) -> None:
        if not (0 <= self.states < 1 and 0 <= self.words < 1):
            raise TrainingError("dropout must be at least 0 and below 1")


def hidden_states(
    model: Idefics3ForConditionalGeneration,
    batch: Batch,
    dropout: Dropout | None = None,
    kernels: Kernels | None = None,
) -> Tensor:
    """(B, T) ids and their pictures -> (B, T, hidden). Padding is on the right, so causal attention needs no mask."""
    drop = dropout if dropout is not None and model.training else Dropout()
    embeddings = model.get_input_embeddings()(batch.ids)  # (B, T, hidden)
    if drop.words:
        kept = (batch.weights > 0) | (torch.rand_like(batch.weights) >= drop.words)  # (B, T)
        embeddings = embeddings * kept.unsqueeze(-1)
    if batch.pixels is not None:
        learn = any(parameter.requires_grad for parameter in model.model.vision_model.parameters())
        with torch.set_grad_enabled(learn and torch.is_grad_enabled()):
            features = Eyes.of(model).tokens(batch.pixels)  # (P, 16, hidden)
        embeddings = model.model.inputs_merger(batch.ids, embeddings, features)
    return text_states(model, embeddings, drop.states, kernels)


def decided_at(batch: Batch | VlmBatch) -> Tensor:
    """int64 (D,): where the batch's decisions stand among the N tokens that count."""
    counts = batch.weights[:, 1:] > 0
    place = (counts.flatten().cumsum(0) - 1).view_as(counts)  # (B, T - 1)
    at = torch.tensor([(row, decision.position - 1) for row, decision in batch.decisions], device=place.device)
    return place[*at.view(-1, 2).long().T]


def not_drawing_losses(logits: Tensor, draw: int) -> Tensor:
    """(D, vocabulary) -> -log(1 - p(draw)) (D,): what it costs not to be sure to talk, however the reply begins."""
    every = logits.float()
    others = every.index_fill(-1, torch.tensor(draw, device=logits.device), float("-inf"))
    return every.logsumexp(-1) - others.logsumexp(-1)


def token_losses(
    model: Any, batch: Batch | VlmBatch, dropout: Dropout | None = None, kernels: Kernels | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross entropies (N,) and weights (N,) of the N tokens that count, row by row, and the logits (N, vocabulary) that
    predict them. Only those tokens pay for logits."""
    weights = batch.weights[:, 1:]
    counts = weights > 0  # (B, T - 1)
    if isinstance(batch, VlmBatch):
        columns = counts.any(0).nonzero().squeeze(1)  # (C,)
        logits = model(**batch.inputs, logits_to_keep=columns, use_cache=False).logits  # (B, C, vocabulary)
        logits = logits[counts[:, columns]]
    else:
        logits = model.lm_head(hidden_states(model, batch, dropout, kernels)[:, :-1][counts])
    losses = F.cross_entropy(logits.float(), batch.ids[:, 1:][counts], reduction="none")
    return losses, weights[counts], logits


def batch_loss(
    model: Any, batch: Batch | VlmBatch, draw: int, dropout: Dropout | None = None, kernels: Kernels | None = None
) -> tuple[Tensor, Tensor]:
    """The sum of all that `Dialogues` counts, and the logits (N, vocabulary) of the N tokens that count."""
    losses, weights, logits = token_losses(model, batch, dropout, kernels)
    talks = torch.tensor([not decision.draws for _, decision in batch.decisions], dtype=torch.bool)
    not_drawing = not_drawing_losses(logits[decided_at(batch)[talks.to(logits.device)]], draw)
    return (losses * weights).sum() + TALK_WEIGHT * not_drawing.sum(), logits


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
    """Say what the records say: cross entropy, weighted by token; and where a reply talks, that it does not draw.

    That counts TALK_WEIGHT by itself. Were it put on the token with which the reply begins, most of the gradient would
    go into guessing whether small talk begins with "How" or with "I".
    """

    core: Any
    draw: int  # the draw token's id; where it is several tokens, the first one's
    precision: str = "auto"
    dropout: Dropout | None = None
    kernels: Kernels | None = None
    figures: ClassVar[tuple[str, ...]] = ()
    scores: ClassVar[tuple[str, ...]] = ("loss", "switch_accuracy", "false_draw", "missed_draw")
    rate: ClassVar[str] = "switch_accuracy"

    def weight(self, batch: Batch | VlmBatch) -> float:
        return float(batch.weights[:, 1:].sum())

    def loss(self, batch: Batch | VlmBatch) -> tuple[Tensor, dict[str, float]]:
        with mixed_precision(self.precision):
            return batch_loss(self.core, batch, self.draw, self.dropout, self.kernels)[0], {}

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
            total, logits = batch_loss(model, batch, draw)
        loss += float(total)
        weight += float(batch.weights[:, 1:].sum())
        likeliest = logits.argmax(-1).cpu()  # (N,)
        wanted = batch.ids[:, 1:][batch.weights[:, 1:] > 0].cpu()
        for first, (_, decision) in zip(decided_at(batch).tolist(), batch.decisions, strict=True):
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
