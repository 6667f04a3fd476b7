"""The small autoencoder: 128 px pictures to 16 x 16 latents of 8 channels and back.

    easel train vae --pictures runs/pictures --out runs/vae --minutes 12

Latents with 8 channels (SDXL's have 4) keep the glasses of a small turtle; the denoiser hardly notices the difference.
Being convolutional throughout, it is trained on 64 px crops (four times as many a second), then on whole pictures.
The squared error brings the colours, the absolute one and the edges make them crisp.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.training.data import PictureShards, epochs
from generator.training.loop import FitConfig, Losses, fit, mixed_precision
from generator.training.sheets import contact_sheet

CROP = 64
PATH = ("conv_in", "conv_out", "samplers", "shortcut", "quant_conv")
WHOLE_SHARE = 0.25  # of the training, at its end, on whole pictures: group norms see other statistics there


@dataclass(frozen=True)
class VaeConfig:
    pictures: Path
    out: Path
    minutes: float = 12.0
    steps: int = 100_000
    batch: int = 8
    learning_rate: float = 3e-3
    channels: tuple[int, ...] = (32, 48, 64, 96)
    latent_channels: int = 8
    kl_weight: float = 1e-5
    edge_weight: float = 1.0
    seed: int = 0


def build_vae(channels: tuple[int, ...], latent_channels: int) -> Any:
    """diffusers' AutoencoderKL at a small size, without its attention, whose cost grows with the picture's square."""
    from diffusers import AutoencoderKL

    n = len(channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * n, up_block_types=("UpDecoderBlock2D",) * n,
        block_out_channels=channels, layers_per_block=1, latent_channels=latent_channels, norm_num_groups=4,
        sample_size=128, mid_block_add_attention=False,
    )  # fmt: skip


def initialise(vae: Any) -> Any:
    """Residual branches begin at zero and the path around them keeps distances: colours pass from the first step.

    With torch's own initialisation the picture is lost on its way through the bottleneck for hundreds of steps.
    """
    from diffusers.models.resnet import ResnetBlock2D

    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
            nn.init.constant_(cast(Tensor, module.conv2.bias), 0.0)
    for name, module in vae.named_modules():
        if isinstance(module, nn.Conv2d) and any(part in name for part in PATH):
            nn.init.orthogonal_(module.weight)
            nn.init.constant_(cast(Tensor, module.bias), 0.0)
    vae.quant_conv.bias.data[vae.config.latent_channels :] = -6.0  # log-variance: hardly any noise at first
    return vae


def edge_loss(a: Tensor, b: Tensor, scales: int = 3) -> Tensor:
    """Difference of the horizontal and vertical gradients, over `scales` octaves: what makes outlines crisp."""
    total = a.new_zeros(())
    for _ in range(scales):
        d = a - b
        total = total + d.diff(dim=-1).abs().mean() + d.diff(dim=-2).abs().mean()
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return total / scales


def train_vae(config: VaeConfig) -> dict[str, float]:
    """Trains, measures the latents' scale, and writes a diffusers AutoencoderKL folder to `config.out/vae`."""
    torch.manual_seed(config.seed)
    shards = PictureShards(config.pictures)
    vae = initialise(build_vae(config.channels, config.latent_channels))
    rng = random.Random(config.seed)
    small = epochs(len(shards), config.batch, config.seed)
    whole = epochs(len(shards), max(1, config.batch // 2), config.seed + 1)
    progress = {"share": 0.0}

    def loss(step: int) -> Losses:
        if progress["share"] < 1 - WHOLE_SHARE:
            x, y = rng.randrange(0, shards.size - CROP + 1, 2), rng.randrange(0, shards.size - CROP + 1, 2)
            pixels = shards.pixels(next(small))[:, :, y : y + CROP, x : x + CROP]
        else:
            pixels = shards.pixels(next(whole))  # (B, 3, 128, 128)
        with mixed_precision():
            latents = vae.encode(pixels).latent_dist
            restored = vae.decode(latents.sample()).sample.float()
        absolute, squared = (restored - pixels).abs().mean(), (restored - pixels).square().mean()
        edges = edge_loss(restored, pixels)
        kl = latents.kl().float().mean() / latents.mean[0].numel()
        total = absolute + squared + config.edge_weight * edges + config.kl_weight * kl
        return {"loss": total, "l1": absolute.detach(), "mse": squared.detach(), "kl": kl.detach()}

    def sample(modules: dict[str, nn.Module], step: int) -> None:
        with torch.no_grad():
            pixels = shards.pixels(range(24))
            restored = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
        contact_sheet(torch.cat([pixels, restored]), config.out / f"sheet-{step:06d}.png", columns=12)

    fit_config = FitConfig(
        config.out, config.steps, config.minutes, config.learning_rate, seed=config.seed, weight_decay=0.0,
        save_every=500, log_every=100, warmup=50,
    )  # fmt: skip
    result = fit(fit_config, {"vae": vae}, loss, sample, lambda share: progress.update(share=share))
    with torch.no_grad():
        latents = vae.encode(shards.pixels(range(min(256, len(shards))))).latent_dist.mode()
    vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    vae.save_pretrained(config.out / "vae")
    return result
