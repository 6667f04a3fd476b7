"""Edits that keep the subject: a picture is drawn as a change of one that was drawn before.

    DrawRequest("a red fox with a scarf", seed=7, source=DrawRequest("a red fox", seed=7))

The way from the noise to the source's picture is known exactly, because we went it. Two things are taken from it, and
neither costs an evaluation (the first step even costs but half: what the model says there without the prompt is known):
- its beginning: the edit sets out from where the source was after a share of its steps (as in SDEdit, arXiv 2108.01073,
  but without noise of its own: the same composition, and fewer steps);
- everything that the new prompt does not ask to change: at each step the two clean pictures foreseen, the source's and
  the edit's, are compared (the contrast of two prompts' predictions shows where they differ: DiffEdit, arXiv
  2210.11427), and outside the region where they have differed the source's latents are put back (Blended Diffusion,
  arXiv 2111.14818).
To an edit that changes nearly everything (a style, a shot, day and night) a long beginning leaves traces: a second moon
where the sun was. Its first step shows how much changes, and it goes back some steps then.
An edit with a seed of its own is another picture of the same change: where it begins to differ from its source, that
seed's noise takes the place of the source's, and all else stays (`Pipeline.refresh`).
For a picture that was not drawn here (`Upload`) a way is made up from its latents and the seed's noise; nothing was
foreseen on it, so there is no second part.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from generator.request import DrawRequest, EditSettings

OF_NEARLY_ALL = 2 / 3  # of the steps otherwise taken over; with none, a style or a shot would cost a whole picture


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A picture's way: its latents before each step and after the last, the clean ones foreseen at each step, and what
    the model said there of the negative prompt, if it was asked."""

    latents: tuple[Tensor, ...]  # steps + 1 of (1, C, h, w)
    clean: tuple[Tensor, ...]  # steps
    unguided: tuple[Tensor | None, ...]  # steps

    @property
    def bytes(self) -> int:
        tensors = (*self.latents, *self.clean, *self.unguided)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def steps_reused(steps: int, settings: EditSettings, nearly_all: bool = False) -> int:
    """How many steps an edit takes over, or one that changes nearly everything; at least one is its own."""
    return min(round(settings.reuse * steps * (OF_NEARLY_ALL if nearly_all else 1)), steps - 1)


def widened(region: Tensor, clean: Tensor, source: Tensor, settings: EditSettings) -> Tensor:
    """`region` (1, 1, h, w), 0 to 1, with where the foreseen pictures (1, C, h, w) differ now.

    The edge is soft, so that a rounding error never decides over a whole latent.
    """
    apart = (clean - source).abs().mean(1, keepdim=True) / settings.threshold - 0.5
    return torch.maximum(region, F.max_pool2d(apart.clamp(0, 1), 1 + 2 * settings.margin, 1, settings.margin))


def changes_nearly_all(region: Tensor, settings: EditSettings) -> bool:
    """Whether `region` says so after an edit's first step."""
    return bool(region.mean() > settings.nearly_all)


def blended(region: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return old + region * (new - old)


class Trajectories:
    """The latest trajectories, by their requests: the last one, and more while they fit into `most_bytes`. What is not
    here any more can be drawn again, and an edit mostly follows upon its picture."""

    def __init__(self, most_bytes: int = 128 * 2**20) -> None:
        self.most_bytes = most_bytes
        self.kept: OrderedDict[DrawRequest, Trajectory] = OrderedDict()
        self.bytes = 0

    def __contains__(self, request: DrawRequest) -> bool:
        return request in self.kept

    def get(self, request: DrawRequest) -> Trajectory:
        self.kept.move_to_end(request)
        return self.kept[request]

    def keep(self, request: DrawRequest, trajectory: Trajectory) -> None:
        if request in self.kept:
            self.bytes -= self.kept.pop(request).bytes
        self.kept[request] = trajectory
        self.bytes += trajectory.bytes
        while len(self.kept) > 1 and self.bytes > self.most_bytes:
            self.bytes -= self.kept.popitem(last=False)[1].bytes
