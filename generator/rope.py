"""Two-dimensional rotary positions with centred interpolation (Hunyuan-DiT §2.1).

    python -c "from generator.rope import rope_2d; print(rope_2d(8, 8, head_dim=88).shape)"

Whatever the picture's shape, its longer side spans the whole reference grid and its shorter side is centred in it,
so a model meets the same range of positions at every resolution.
"""

from __future__ import annotations

import torch
from torch import Tensor

THETA = 10_000.0


def centred_span(height: int, width: int, reference: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The (start, stop) of the rows and of the columns that a height x width grid covers in the reference grid."""
    longer = max(height, width)

    def span(side: int) -> tuple[int, int]:
        length = round(reference / longer * side)  # half to even, which the weights were trained with
        start = round((reference - length) / 2)
        return start, start + length

    return span(height), span(width)


def rope_2d(height: int, width: int, head_dim: int, reference: int = 32, device: torch.device | None = None) -> Tensor:
    """Unit complex numbers (height * width, head_dim / 2): the first half turns with x, the second half with y."""
    (top, bottom), (left, right) = centred_span(height, width, reference)
    y = torch.linspace(top, top + (bottom - top) * (height - 1) / height, height, dtype=torch.float32, device=device)
    x = torch.linspace(left, left + (right - left) * (width - 1) / width, width, dtype=torch.float32, device=device)
    axis = head_dim // 2
    frequencies = THETA ** (-torch.arange(0, axis, 2, dtype=torch.float32, device=device) / axis)  # (head_dim / 4,)
    angles_y = torch.outer(y, frequencies)[:, None].expand(height, width, -1)
    angles_x = torch.outer(x, frequencies)[None].expand(height, width, -1)
    angles = torch.cat([angles_x, angles_y], dim=-1).flatten(0, 1)  # (height * width, head_dim / 2)
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turn each adjacent pair of x (B, N, heads, head_dim) by its position's angle, in float32."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))  # (B, N, heads, head_dim / 2)
    return torch.view_as_real(pairs * rope[:, None]).flatten(-2).to(x.dtype)
