"""A picture in the making, for next to nothing: a decoder of 0.1 M parameters in the place of the VAE's.

    python -c "from generator.preview import PreviewDecoder; print(PreviewDecoder(8))"

Half the picture's size, and no fine grain; what is there and in which colours can be told. `easel train preview` makes
one; a model folder that brings none is previewed by its VAE, from latents of half the size.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.checkpoint import read_json, read_tensors, write_json, write_tensors
from generator.errors import CheckpointError

FOLDER = "preview"
PIXELS = 4  # a side, for each latent


class PreviewDecoder(nn.Module):
    """Latents, scaled as the denoiser sees them, to a picture of four pixels per latent and side."""

    def __init__(self, channels: int, width: int = 48, blocks: int = 3) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(blocks)
        )
        self.conv_out = nn.Conv2d(width, 3 * PIXELS**2, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:  # (B, C, h, w) -> (B, 3, 4 h, 4 w), about -1 to 1
        x = self.conv_in(latents)
        for block in self.blocks:
            x = x + block(F.gelu(x))
        return F.pixel_shuffle(self.conv_out(F.gelu(x)), PIXELS)

    def save(self, folder: Path) -> None:
        """In `folder`/preview, float16; its config comes last."""
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        write_tensors(folder / FOLDER, self.state_dict(), torch.float16)
        shape = {"channels": self.conv_in.in_channels, "width": self.conv_in.out_channels, "blocks": len(self.blocks)}
        write_json(folder / FOLDER / "config.json", shape)


def load(folder: Path, channels: int) -> PreviewDecoder | None:
    """None where the model folder brings none. Raises CheckpointError for one that is broken or of another model."""
    if not (folder / FOLDER / "config.json").is_file():
        return None
    try:
        decoder = PreviewDecoder(**read_json(folder / FOLDER / "config.json"))
        decoder.load_state_dict(read_tensors(folder / FOLDER, torch.float32))
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{folder / FOLDER} does not fit together: {reason}. Delete it.") from error
    if decoder.conv_in.in_channels != channels:
        raise CheckpointError(f"{folder / FOLDER} is made for other latents. Delete it, or train it anew.")
    return decoder.eval().requires_grad_(False)
