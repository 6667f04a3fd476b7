"""The text encoder in 8 bits: weights as whole numbers from -127 to 127, with a scale for each row.

    python -c "from generator.pipeline import load_pipeline; load_pipeline('FOLDER', t5_8bit=True)"

Half of bfloat16's memory and a quarter of float32's, at the same types of activations; rows are rounded to 1/254 of
their largest weight. Nothing but torch is needed, on any device.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.checkpoint import FETCH_AGAIN, each_tensor
from generator.errors import CheckpointError

TRANSFORMERS_WEIGHTS = "model.safetensors"
TABLE = ("shared", "encoder.embed_tokens")  # the words', one table; a checkpoint has either name or both
ROWS = 1024  # quantised at once
FEWEST_ROWS = 64  # tables with fewer, like T5's of distances, stay as they are


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, width) -> the same in int8, and (rows, 1) what one of its units is worth."""
    whole = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    unit = torch.empty(len(weight), 1, device=weight.device)
    for start in range(0, len(weight), ROWS):  # the table of words, all at once, would take four times its size
        rows = weight[start : start + ROWS].float()
        unit[start : start + ROWS] = rows.abs().amax(1, keepdim=True).clamp(min=1e-30) / 127
        whole[start : start + ROWS] = (rows / unit[start : start + ROWS]).round().to(torch.int8)
    return whole, unit


class Int8(nn.Module):
    """`weight` and `unit` of a layer whose rows are quantised."""

    weight: Tensor
    unit: Tensor

    def __init__(self, rows: int, width: int, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.register_buffer("weight", torch.empty(rows, width, dtype=torch.int8))
        self.register_buffer("unit", torch.empty(rows, 1))


class Int8Linear(Int8):
    """Of T5, whose linear layers have no bias."""

    def forward(self, x: Tensor) -> Tensor:  # (..., width) -> (..., rows)
        x = x.to(self.dtype)
        weight, unit = self.weight.to(x.dtype), self.unit.to(x.dtype)
        if x.dtype == torch.float16:  # ends at 65,504, which sums of products with whole numbers pass
            return F.linear(x, weight * unit)
        return F.linear(x, weight) * unit[:, 0]  # the weights are whole: not rounded once more


class Int8Embedding(Int8):
    def forward(self, ids: Tensor) -> Tensor:  # (B, length) -> (B, length, width)
        return (self.weight[ids] * self.unit[ids]).to(self.dtype)


def shrink(model: nn.Module, dtype: torch.dtype) -> None:
    """Layers that hold most of the weights give way to empty ones in 8 bits."""
    for parent in [*model.modules()]:
        for name, layer in [*parent.named_children()]:
            if isinstance(layer, nn.Linear) and layer.bias is None:
                overflows = name == "wo" and dtype == torch.float16  # transformers keeps that one in float32 too
                works_in = torch.float32 if overflows else dtype
                setattr(parent, name, Int8Linear(layer.out_features, layer.in_features, works_in))
            elif isinstance(layer, nn.Embedding) and layer.num_embeddings >= FEWEST_ROWS:
                setattr(parent, name, Int8Embedding(layer.num_embeddings, layer.embedding_dim, dtype))


def load_t5(kind: Any, folder: Path, dtype: torch.dtype, device: str | torch.device) -> Any:
    """transformers' `kind` of encoder, converted as it is read: nothing but the largest tensor comes on top."""
    with torch.device("meta"):
        model = kind(kind.config_class.from_pretrained(folder))
        shrink(model, dtype)
    model.encoder.embed_tokens = model.shared
    wanted, state = model.state_dict(), {}
    for key, tensor in each_tensor(folder, TRANSFORMERS_WEIGHTS):
        unit = key.removesuffix("weight") + "unit"
        if key in wanted and unit in wanted:
            state[key], state[unit] = quantised(tensor.to(device))
        elif key in wanted:
            state[key] = tensor.to(device, dtype, copy=True)
    for one, other in (TABLE, TABLE[::-1]):
        for name in ("weight", "unit"):
            if f"{one}.{name}" in state:
                state.setdefault(f"{other}.{name}", state[f"{one}.{name}"])
    missing = sorted(wanted.keys() - state.keys())
    if missing:
        raise CheckpointError(f"The weights in {folder} lack {missing[0]}. {FETCH_AGAIN}")
    model.load_state_dict(state, assign=True)
    return model
