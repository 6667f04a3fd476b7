"""Which floating-point type the models compute in where nothing is said: the fastest that shows no difference.

python -c "from generator.precision import usual; print(usual('cpu'))"
"""

from __future__ import annotations

import torch


def usual(device: str | torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies matrices of it in hardware, else float32: on other processors bfloat16 takes
    3 to 10 times as long."""
    if torch.device(device).type == "cpu":
        return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
    return torch.bfloat16
