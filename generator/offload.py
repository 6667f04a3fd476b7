"""For small cards: what rests in the CPU's memory, and comes to the device only while it works.

with working(vae, device): picture = vae.decode(latents)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def working(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Does nothing for a module that is there. Weights never change here, so none is copied back."""
    tensors = [*module.parameters(), *module.buffers()]
    if all(tensor.device == device for tensor in tensors):
        yield
        return
    resting = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.to(device)
        yield
    finally:
        for tensor, data in zip(tensors, resting, strict=True):
            tensor.data = data
