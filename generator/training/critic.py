"""A critic of pictures, patch by patch: it learns to tell renders from what an autoencoder restores of them.

Grain and hatching are finer than the latents: of all pictures that they allow, squared and absolute errors ask for the
mean, which is smooth, and a critic for one that looks drawn (PatchGAN, arXiv 1611.07004; with the distance between its
own features, arXiv 1711.11585).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Critic(nn.Module):
    """Pictures (B, 3, H, W) in -1...1 -> a score for each patch, and the features of each layer on the way to it."""

    def __init__(self, widths: tuple[int, ...] = (48, 96, 144)) -> None:
        super().__init__()
        # `stem` keeps the weights out of Muon's hands: its steps are of one size, and a critic's must shrink.
        pairs = zip((3, *widths), widths, strict=False)
        self.stem = nn.ModuleList(nn.Conv2d(before, width, 4, stride=2, padding=1) for before, width in pairs)
        self.stem_out = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, features = pictures, []
        for conv in self.stem:
            x = F.leaky_relu(conv(x), 0.2)
            features.append(x)
        return self.stem_out(x), features

    def losses(self, real: Tensor, restored: Tensor) -> dict[str, Tensor]:
        """What the restorer is to lessen, "adversarial" and "features", and "critic", what the critic is (hinge).

        The first two reach the restorer's weights alone, the last the critic's alone: one backward pass serves both.
        """
        score_real, features_real = self(real)
        score_restored, _ = self(restored.detach())
        critic = F.relu(1 - score_real).mean() + F.relu(1 + score_restored).mean()
        self.requires_grad_(False)
        score, features = self(restored)
        self.requires_grad_(True)
        apart = [(a - b.detach()).abs().mean() for a, b in zip(features, features_real, strict=True)]
        return {"adversarial": -score.mean(), "features": torch.stack(apart).mean(), "critic": critic}
