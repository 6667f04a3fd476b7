"""Linear layers that can be made ready for inference on a CPU: weights in oneDNN's own order, GELU in the same pass.

    python -c "import torch; from generator.linear import Linear; print(Linear(8, 8).pack()(torch.ones(1, 8)))"

The same float32 sums as torch's, which takes 1.1 to 1.3 times as long for them at the sizes of the bundled model.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor, nn

ROWS = 256  # that the order of the weights is chosen for; any other number works as well
# oneDNN cuts sums of over 512 products in bfloat16 otherwise for 300 rows and fewer than for 320 and more, and rounds
# the parts: of a picture drawn alone at 128 px eight pixels in a hundred were another than in company.
LONG, MANY = 512, 384


def can_pack(weight: Tensor) -> bool:
    """Whether torch, here, has the operations; what they cannot do is done as everywhere."""
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and (weight.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


class Linear(nn.Linear):
    """nn.Linear, or with `approximate` ("none", "tanh") its GELU. Once packed it runs without gradients only."""

    def __init__(self, width_in: int, width_out: int, approximate: str | None = None, device: str | None = None):
        super().__init__(width_in, width_out, device=device)
        self.approximate = approximate
        self.packed: Tensor | None = None

    @torch.no_grad()
    def pack(self) -> Linear:
        """Weights that change or move afterwards must be packed again; moving or casting unpacks."""
        if can_pack(self.weight):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous(), ROWS)
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> Linear:
        self.packed = None
        return super()._apply(*args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:  # (..., width_in) -> (..., width_out)
        if self.packed is None or torch.is_grad_enabled():
            x = super().forward(x)
            return x if self.approximate is None else nn.functional.gelu(x, approximate=self.approximate)
        rows = x.numel() // self.in_features
        if x.dtype == torch.bfloat16 and self.in_features > LONG and rows < MANY:
            padded = nn.functional.pad(x.reshape(rows, -1), (0, 0, 0, MANY - rows))
            return self.product(padded)[:rows].view(*x.shape[:-1], -1)
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        after, algorithm = ("none", "") if self.approximate is None else ("gelu", self.approximate)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, after, [], algorithm)
