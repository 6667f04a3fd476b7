"""The small autoencoder: 128 px pictures to 16 x 16 latents of 8 channels and back.

    easel train vae --pictures runs/pictures --out runs/vae --minutes 12

Latents with 8 channels (SDXL's have 4) keep the glasses of a small turtle; the denoiser hardly notices the difference.
Being convolutional throughout, it is trained on 64 px crops (four times as many a second), then on whole pictures.
The squared error brings the colours, the absolute one and the edges make them crisp; what a subject covers counts more,
for a crown is a few pixels of many. Half-sized latents must decode to the half-sized picture: latents that keep to
this have less noise in their fine details, and a denoiser learns them sooner (scale equivariance, arXiv 2502.14831).
`critic.py` brings back what is finer than the latents, grain and hatching.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.errors import GeneratorError
from generator.pipeline import load_vae, to_image
from generator.sheets import contact_sheet
from generator.training.critic import Critic
from generator.training.data import Epochs, PictureShards, chance
from generator.training.loop import FitConfig, Losses, fit, mixed_precision

CELL = 8  # pixels a side that one latent stands for
CROP = 64
FEATURES = 10.0  # the critic's features count this much more than its score
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
    matrix_rate: float = 0.02  # Muon's; to go on from trained weights, half of it
    base: Path | None = None  # an autoencoder of this architecture to go on from
    decoder_only: bool = False  # with `base`: latents stay as they are, so the denoiser made for them still fits
    channels: tuple[int, ...] = (32, 48, 64, 96)
    latent_channels: int = 8
    kl_weight: float = 1e-5
    edge_weight: float = 1.0
    subject_weight: float = 3.0  # a pixel that a subject covers counts 1 + this
    accessory_weight: float = 6.0  # and one that shows what it wears or holds this more
    half_weight: float = 0.25  # of what half-sized latents decode to
    critic_weight: float = 0.0  # of a critic's word on the restored pictures; better once they are nearly right
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


def distance(difference: Tensor, weights: Tensor, edge_weight: float, scales: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted mean absolute and squared (B, 3, H, W) differences, and what is minimised: both, and `edge_weight` times
    the difference of the horizontal and vertical gradients over `scales` octaves, which makes outlines crisp."""
    weights = weights / weights.mean()  # (B, 1, H, W)
    absolute, squared = (difference.abs() * weights).mean(), (difference.square() * weights).mean()
    edges = difference.new_zeros(())
    d, w = difference, weights
    for _ in range(scales):
        edges = edges + (d.diff(dim=-1).abs() * w[..., 1:]).mean() + (d.diff(dim=-2).abs() * w[..., 1:, :]).mean()
        d, w = F.avg_pool2d(d, 2), F.avg_pool2d(w, 2)
    return absolute + squared + edge_weight * edges / scales, absolute, squared


class VaeLoss:
    """How far a restored picture is from the one that was given, what its latents cost, and the critic's word."""

    def __init__(self, config: VaeConfig, shards: PictureShards, vae: Any) -> None:
        self.config, self.shards, self.vae, self.critic = config, shards, vae, Critic()
        self.many = Epochs(len(shards), config.batch, config.seed)  # rows of crops
        self.few = Epochs(len(shards), max(1, config.batch // 2), config.seed + 1)  # of whole pictures
        self.share = 0.0  # of the training that is done

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What is trained."""
        return {"vae": self.vae, "critic": self.critic} if self.config.critic_weight else {"vae": self.vae}

    def __call__(self, step: int) -> Losses:
        config = self.config
        pixels, weights = self.pick(step)
        with mixed_precision():
            latents = self.vae.encode(pixels.contiguous(memory_format=torch.channels_last)).latent_dist
            sampled = latents.sample()
            restored = self.vae.decode(sampled).sample.float()
        total, absolute, squared = distance(restored - pixels, weights, config.edge_weight)
        shown = {"l1": absolute, "mse": squared}
        if not config.decoder_only:
            with mixed_precision():
                half = self.vae.decode(F.avg_pool2d(sampled, 2)).sample.float()
            shown["half"], *_ = distance(half - F.avg_pool2d(pixels, 2), F.avg_pool2d(weights, 2), config.edge_weight)
            shown["kl"] = latents.kl().float().mean() / latents.mean[0].numel()
            total = total + config.half_weight * shown["half"] + config.kl_weight * shown["kl"]
        if config.critic_weight:
            with mixed_precision():
                words = self.critic.losses(pixels, restored)
            total = total + config.critic_weight * (words["adversarial"] + FEATURES * words["features"])
            total = total + words["critic"]
            shown |= words
        return {"loss": total, **{name: value.detach() for name, value in shown.items()}}

    def pick(self, step: int) -> tuple[Tensor, Tensor]:
        """Pixels (B, 3, H, W) and their weights (B, 1, H, W), of crops that lie on the latents' grid."""
        config, shards = self.config, self.shards
        crops = self.share < 1 - WHOLE_SHARE
        indices = (self.many if crops else self.few)[step]
        importance = shards.importance(indices, config.subject_weight, config.accessory_weight)
        pixels, weights = shards.pixels(indices), F.interpolate(importance, scale_factor=CELL)
        if not crops:
            return pixels, weights
        rng = chance(config.seed, step)
        y, x = (CELL * rng.randint(0, (shards.size - CROP) // CELL) for _ in range(2))
        return pixels[..., y : y + CROP, x : x + CROP], weights[..., y : y + CROP, x : x + CROP]

    def told(self, share: float) -> None:
        self.share = share

    @torch.no_grad()
    def sample(self, modules: dict[str, nn.Module], step: int) -> None:
        """Draws a sheet of pictures above what becomes of them."""
        pixels = self.shards.pixels(range(24))
        restored = self.vae.decode(self.vae.encode(pixels).latent_dist.mode()).sample
        pictures = [to_image(picture[None]) for picture in torch.cat([pixels, restored])]
        contact_sheet(pictures, columns=12).save(self.config.out / f"sheet-{step:06d}.png")


def train_vae(config: VaeConfig) -> dict[str, float]:
    """Trains and writes a diffusers AutoencoderKL folder, `config.out/vae`, with the latents' scale in its config."""
    if config.decoder_only and not config.base:
        raise GeneratorError("decoder_only goes on from an autoencoder: name its folder with --base.")
    torch.manual_seed(config.seed)
    shards = PictureShards(config.pictures)
    vae = (
        load_vae(config.base).train().requires_grad_(True)
        if config.base
        else initialise(build_vae(config.channels, config.latent_channels))
    )
    if config.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    loss = VaeLoss(config, shards, vae.to(memory_format=torch.channels_last))
    fit_config = FitConfig(
        config.out, config.steps, config.minutes, config.learning_rate, config.matrix_rate,
        seed=config.seed, weight_decay=0.0, save_every=500, log_every=100, warmup=50,
    )  # fmt: skip
    result = fit(fit_config, loss.modules, loss, loss.sample, loss.told)
    if not config.decoder_only:
        with torch.no_grad():
            latents = vae.encode(shards.pixels(range(min(256, len(shards))))).latent_dist.mode()
        vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    vae.save_pretrained(config.out / "vae")
    return result
