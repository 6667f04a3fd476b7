"""Which floating-point type the models compute in where nothing is said: the fastest that shows no difference.

python -c "from generator.precision import usual; print(usual('cpu'))"
"""

from __future__ import annotations

import torch


def usual(device: str | torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies matrices of it in hardware, else float32: on other processors bfloat16 takes
    3 to 10 times as long."""
    supported = {
        "cpu": torch.cpu._is_avx512_bf16_supported,
        "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
    }.get(torch.device(device).type, lambda: True)
    return torch.bfloat16 if supported() else torch.float32
