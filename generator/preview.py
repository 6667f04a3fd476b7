"""A picture in the making, for next to nothing: latents to colours by one small matrix instead of the VAE.

python -c "from generator.preview import fit; print(fit.__doc__)"
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from generator.checkpoint import read_json, write_json
from generator.errors import CheckpointError

FILE = "preview.json"


def fit(latents: Tensor, pictures: Tensor) -> Tensor:
    """The matrix (C + 1, 3) that best turns scaled latents (B, C, h, w) into pictures (B, 3, H, W) in -1...1."""
    small = F.adaptive_avg_pool2d(pictures.float(), (latents.shape[2], latents.shape[3]))
    inputs = with_constant(latents.float()).flatten(0, 2)  # (B * h * w, C + 1)
    return torch.linalg.lstsq(inputs, small.permute(0, 2, 3, 1).flatten(0, 2)).solution


def project(latents: Tensor, matrix: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, 3, h, w) in -1...1."""
    colours = with_constant(latents.float()) @ matrix.to(latents.device)  # (B, h, w, 3)
    return colours.clamp(-1, 1).permute(0, 3, 1, 2)


def with_constant(latents: Tensor) -> Tensor:  # (B, C, h, w) -> (B, h, w, C + 1)
    return F.pad(latents.permute(0, 2, 3, 1), (0, 1), value=1.0)


def save(folder: Path, matrix: Tensor) -> None:
    write_json(folder / FILE, {"matrix": [[round(value, 5) for value in row] for row in matrix.tolist()]})


def load(folder: Path, channels: int) -> Tensor | None:
    """None where the model folder brings no matrix."""
    if not (folder / FILE).is_file():
        return None
    try:
        matrix = torch.tensor(read_json(folder / FILE)["matrix"], dtype=torch.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / FILE} holds no matrix. Delete it, or fetch it again.") from error
    if matrix.shape != (channels + 1, 3):
        raise CheckpointError(f"{folder / FILE} is made for other latents. Delete it, or fetch it again.")
    return matrix
