"""Training the decoder of previews, on renders and their latents.

    easel train preview --pictures runs/pictures --vae runs/vae/vae --out runs/preview --minutes 5
    cp -r runs/preview/preview runs/dit/storybook

The denoiser foresees blurred pictures at first, and from averaged latents this decoder makes averaged colours by
itself: it needs to see clean ones only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from generator.pipeline import load_vae, to_image
from generator.preview import PIXELS, PreviewDecoder
from generator.sheets import contact_sheet
from generator.training.data import Epochs, PictureShards
from generator.training.dit import encode_latents
from generator.training.loop import FitConfig, Losses, fit
from generator.training.vae import CELL, distance


@dataclass(frozen=True)
class PreviewConfig:
    pictures: Path
    vae: Path
    out: Path
    minutes: float = 5.0
    steps: int = 100_000
    batch: int = 32
    learning_rate: float = 2e-3
    matrix_rate: float = 0.01
    subject_weight: float = 3.0  # a pixel that a subject covers counts 1 + this
    seed: int = 0


def train_preview(config: PreviewConfig) -> dict[str, float]:
    """Trains and writes `config.out/preview`, a part of a model folder."""
    torch.manual_seed(config.seed)
    shards = PictureShards(config.pictures)
    latents = encode_latents(load_vae(config.vae), shards, config.out)
    decoder = PreviewDecoder(latents.shape[1])
    batches = Epochs(len(shards), config.batch, config.seed)

    def loss(step: int) -> Losses:
        indices = np.sort(batches[step])
        wanted = F.avg_pool2d(shards.pixels(list(indices)), CELL // PIXELS)
        weights = F.interpolate(shards.importance(indices, config.subject_weight, 0.0), scale_factor=PIXELS)
        restored = decoder(torch.from_numpy(np.array(latents[indices])).float())
        total, absolute, squared = distance(restored - wanted, weights, edge_weight=1.0)
        return {"loss": total, "l1": absolute.detach(), "mse": squared.detach()}

    def sample(modules: dict[str, nn.Module], step: int) -> None:
        with torch.no_grad():
            restored = decoder(torch.from_numpy(np.array(latents[:24])).float())
        pictures = torch.cat([F.avg_pool2d(shards.pixels(range(len(restored))), CELL // PIXELS), restored])
        sheet = contact_sheet([to_image(picture[None]) for picture in pictures], columns=12)
        sheet.save(config.out / f"sheet-{step:06d}.png")

    fit_config = FitConfig(
        config.out, config.steps, config.minutes, config.learning_rate, config.matrix_rate, seed=config.seed,
        weight_decay=0.0, save_every=1000, log_every=100, warmup=50,
    )  # fmt: skip
    result = fit(fit_config, {"preview": decoder}, loss, sample)
    decoder.save(config.out)
    return result
