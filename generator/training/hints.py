"""Auxiliary losses: every render's scene is known, so the image models are told what a prompt and a picture hold.

The squared error alone teaches the denoiser slowly: a wrong hat is a few latents of many. So readers are trained along,
and thrown away afterwards:
- of the text states (`TextReader`): which subject stands where, its colour and what it wears, the place, the style;
- of the denoiser's tokens half-way through its blocks (`Heads`): what covers each token, its colour, what it wears;
- of the cells of the inspector's last convolutions, the same.
The second is representation alignment (REPA, arXiv 2410.06940) with labels in the place of a vision model's features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.inspector import WHOLE
from generator.training.data import PictureShards

IGNORE = -100  # the class number of what is not asked
COVERED = 0.15  # share of a token from which on it shows a subject


def targets(scenes: list[dict[str, Any]], labels: dict[str, list[str]]) -> dict[str, Tensor]:
    """Class numbers for `InspectorModel`'s logits; what an absent subject would have is ignored."""
    n, places = len(scenes), len(labels["position"])
    kind = torch.full((n, places), len(labels["kind"]))
    colour, size = torch.full((n, places), IGNORE), torch.full((n, places), IGNORE)
    accessories = torch.full((n, places, len(labels["accessory"])), IGNORE)
    for i, scene in enumerate(scenes):
        for subject in scene["subjects"]:
            place = labels["position"].index(subject["position"])
            kind[i, place] = labels["kind"].index(subject["kind"])
            colour[i, place] = labels["colour"].index(subject["colour"])
            size[i, place] = labels["size"].index(subject["size"])
            accessories[i, place] = len(labels["colour"])
            for worn in subject["accessories"]:
                worn_at = labels["accessory"].index(worn["kind"])
                accessories[i, place, worn_at] = labels["colour"].index(worn["colour"])
    whole = {name: torch.tensor([labels[name].index(scene[name]) for scene in scenes]) for name in WHOLE}
    return {**whole, "kind": kind, "colour": colour, "size": size, "accessories": accessories}


def cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """(..., classes) and (...), of which those equal to IGNORE do not count. Zero when none counts."""
    total = F.cross_entropy(logits.flatten(0, -2).float(), wanted.flatten(), ignore_index=IGNORE, reduction="sum")
    return total / (wanted != IGNORE).sum().clamp(min=1)


class Heads(nn.Module):
    """A linear layer for each attribute of a subject, and with `whole` for those of the picture."""

    def __init__(self, labels: dict[str, list[str]], width: int, whole: bool) -> None:
        super().__init__()
        colours, worn = len(labels["colour"]), len(labels["accessory"])
        # The last class of a kind: nobody stands there; of an accessory's colour: not worn.
        self.classes = {"kind": (len(labels["kind"]) + 1,), "colour": (colours,), "size": (len(labels["size"]),),
                        "accessories": (worn, colours + 1)}  # fmt: skip
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(width, int(np.prod(shape))) for name, shape in self.classes.items()}
        )
        self.whole = nn.ModuleDict({name: nn.Linear(width, len(labels[name])) for name in WHOLE if whole})

    def subjects(self, states: Tensor) -> dict[str, Tensor]:
        """(..., width) -> logits (..., classes), of accessories (..., accessories, classes)."""
        states = self.norm(states)
        return {name: self.heads[name](states).unflatten(-1, shape) for name, shape in self.classes.items()}

    def loss(self, states: Tensor, wanted: dict[str, Tensor]) -> Tensor:
        """The summed cross-entropies of the attributes of subjects."""
        parts = {name: cross_entropy(logits, wanted[name]) for name, logits in self.subjects(states).items()}
        return torch.stack([*parts.values(), parts["accessories"]]).sum()  # accessories count twice: six in one


class TextReader(nn.Module):
    """Reads a text's states: one query for each position and one for the picture look at them, then linear layers."""

    def __init__(self, labels: dict[str, list[str]], width: int) -> None:
        super().__init__()
        self.places = len(labels["position"])
        self.queries = nn.Parameter(torch.randn(self.places + 1, width) * 0.02)
        self.look = nn.MultiheadAttention(width, 4, batch_first=True)
        self.heads = Heads(labels, width, whole=True)
        self.words = {name: len(labels[name]) for name in ("kind", "colour")}
        self.any = nn.Linear(width, sum(self.words.values()))  # whatever the position

    def vectors(self, states: Tensor, mask: Tensor) -> Tensor:
        """States (B, S, width), mask (B, S) -> (B, positions + 1, width)."""
        queries = self.queries.expand(len(states), -1, -1)
        return self.look(queries, states, states, key_padding_mask=mask == 0, need_weights=False)[0]

    def loss(self, states: Tensor, mask: Tensor, wanted: dict[str, Tensor]) -> Tensor:
        vectors = self.vectors(states, mask)
        subjects, whole = vectors[:, :-1], self.heads.norm(vectors[:, -1])
        losses = [cross_entropy(head(whole), wanted[name]) for name, head in self.heads.whole.items()]
        present = [
            F.one_hot(wanted[name].clamp(min=0), classes + 1).mul((wanted[name] >= 0)[..., None]).amax(1)[:, :classes]
            for name, classes in self.words.items()  # the class behind the last: nobody stands there
        ]
        # Which words there are is learnt at once, and only then which belong together.
        words = F.binary_cross_entropy_with_logits(self.any(whole).float(), torch.cat(present, 1).float())
        return torch.stack(losses).sum() + self.heads.loss(subjects, wanted) + 20 * words

    @torch.no_grad()
    def accuracy(self, states: Tensor, mask: Tensor, wanted: dict[str, Tensor]) -> dict[str, float]:
        """Shares of the subjects' attributes that are read right; accessories as exact sets with their colours."""
        there = wanted["colour"] != IGNORE  # (B, positions)
        logits = self.heads.subjects(self.vectors(states, mask)[:, :-1])
        right = {name: values.argmax(-1) == wanted[name] for name, values in logits.items()}
        right["accessories"] = right["accessories"].all(-1)
        return {name: values[there].float().mean().item() for name, values in right.items()}


class SceneLabels:
    """The class numbers of every picture's scene, for a whole picture and for each token."""

    def __init__(self, shards: PictureShards, patch: int) -> None:
        self.labels, self.patch = shards.labels, patch
        self.whole = targets([record["scene"] for record in shards.records], shards.labels)

    def of(self, indices: Any) -> dict[str, Tensor]:
        rows = torch.from_numpy(np.asarray(indices))
        return {name: values[rows] for name, values in self.whole.items()}

    def of_tokens(self, wanted: dict[str, Tensor], covers: Tensor) -> dict[str, Tensor]:
        """Picture labels (B, places, ...) and covers -> labels of each of the N tokens, (B, N, ...)."""
        share, place = F.avg_pool2d(covers, self.patch).flatten(2).max(1)  # each (B, N)
        shown = share > COVERED
        rows = torch.arange(len(place))[:, None]
        result = {}
        for name in ("kind", "colour", "size", "accessories"):
            values = wanted[name][rows, place]  # (B, N, ...)
            elsewhere = len(self.labels["kind"]) if name == "kind" else IGNORE
            mask = shown.view(*shown.shape, *[1] * (values.ndim - 2))
            result[name] = values.where(mask, elsewhere)
        return result
