"""Packed linear layers give what torch's own give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from generator.linear import Linear


@pytest.mark.parametrize("approximate", [None, "none", "tanh"])
@pytest.mark.parametrize("rows", [1, 64, 300])
def test_packed_equals_torch(approximate: str | None, rows: int) -> None:
    torch.manual_seed(0)
    layer = Linear(24, 40, approximate)
    x = torch.randn(2, rows, 24)
    expected = F.linear(x, layer.weight, layer.bias)
    expected = expected if approximate is None else F.gelu(expected, approximate=approximate)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)
        torch.testing.assert_close(layer.pack()(x), expected, atol=1e-5, rtol=1e-5)
    layer(x).sum().backward()  # with gradients, packed or not, torch's own is taken
    assert layer.weight.grad is not None


def test_moving_unpacks_and_the_state_is_that_of_any_linear_layer() -> None:
    layer = Linear(8, 8).pack()
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert layer.to(torch.float64).packed is None
    assert layer.pack().packed is None, "float64 cannot be packed"


@pytest.mark.parametrize("width_in", [320, 640, 1280])
def test_in_bfloat16_a_row_does_not_depend_on_how_many_others_there_are(width_in: int) -> None:
    layer, x = Linear(width_in, 320).bfloat16().pack(), torch.randn(2048, width_in).bfloat16()
    with torch.inference_mode():
        expected = layer(x)
        for rows in (64, 128, 192, 256, 384, 512, 768):
            assert torch.equal(layer(x[:rows]), expected[:rows]), rows
