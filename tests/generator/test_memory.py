"""What loading takes at its peak, in processes of their own: the weights, and little beside them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from transformers import BertConfig, BertModel, T5Config, T5EncoderModel

from generator.checkpoint import MAPPED, WEIGHTS, read_tensors
from generator.model import QUERY_KEY_VALUE, HunyuanDiT
from tests.generator.tiny import DIT, diffusers_dit

MB = 1 << 20
SLACK = 16 * MB  # what torch and the allocator take for themselves
MEASURE = """
import ctypes, json, sys, torch
from pathlib import Path

torch.set_num_threads(1)
torch.ones(512, 512) @ torch.ones(512, 512)
kept = []

def status(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) * 1024

def measured(name, load):
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    kept.append(load())
    print(json.dumps([name, status("VmHWM") - before]))
"""


def peaks(code: str) -> dict[str, int]:
    """Of everything `measured` in the code, what it took at its peak, in bytes."""
    done = subprocess.run([sys.executable, "-c", MEASURE + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    print({name: f"{value / MB:.0f} MB" for name, value in found.items()})
    return found


def size(model: Any) -> int:
    return sum(parameter.numel() * 4 for parameter in model.parameters())


def largest(model: Any) -> int:
    return max(parameter.numel() * 4 for parameter in model.parameters())


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc"
)


@pytest.mark.slow
@needs_proc
def test_the_denoiser(tmp_path: Path) -> None:
    large = {"num_attention_heads": 8, "attention_head_dim": 64, "hidden_size": 512, "num_layers": 16}
    model = diffusers_dit(**large, mlp_ratio=4.0)
    model.save_pretrained(tmp_path, max_shard_size="100MB")
    assert len([*tmp_path.glob("*.safetensors")]) > 2
    found = peaks(f"""
from generator import linear
from generator.model import HunyuanDiT, HunyuanDiTConfig
with torch.device("meta"):  # what torch imports for that is no matter of weights
    HunyuanDiT(HunyuanDiTConfig())
pack, linear.can_pack = linear.can_pack, lambda weight: False
measured("half", lambda: HunyuanDiT.from_pretrained({str(tmp_path)!r}, torch.bfloat16))
measured("whole", lambda: HunyuanDiT.from_pretrained({str(tmp_path)!r}))
measured("fused", lambda: kept[1].fuse())
linear.can_pack = pack
measured("packed", lambda: kept[1].fuse())
""")
    print(f"{size(model) / MB:.0f} MB of weights, the largest {largest(model) / MB:.0f}")
    assert found["half"] < size(model) / 2 + MAPPED + largest(model) + SLACK
    assert found["whole"] < size(model) + MAPPED + largest(model) + SLACK
    assert found["fused"] < SLACK


@pytest.mark.slow
@needs_proc
def test_the_encoders_and_the_vae(tmp_path: Path) -> None:
    bert = BertModel(BertConfig(vocab_size=8000, hidden_size=768, num_hidden_layers=4, intermediate_size=3072))
    t5 = T5EncoderModel(T5Config(vocab_size=16000, d_model=768, d_kv=64, d_ff=2048, num_layers=6, num_heads=12))
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(64, 128, 256, 256), layers_per_block=2, latent_channels=4,
    )  # fmt: skip
    for name, model in (("bert", bert), ("t5", t5), ("vae", vae)):
        model.save_pretrained(tmp_path / name, max_shard_size="40MB" if name == "t5" else "1GB")
    found = peaks(f"""
from generator.int8 import load_t5
from generator.pipeline import load_vae
from transformers import BertModel, T5EncoderModel
with torch.device("meta"):
    torch.nn.Linear(2, 2)
folder = Path({str(tmp_path)!r})
measured("8 bits", lambda: load_t5(T5EncoderModel, folder / "t5", torch.float32, "cpu"))
measured("t5", lambda: T5EncoderModel.from_pretrained(folder / "t5", dtype=torch.float32))
measured("bert", lambda: BertModel.from_pretrained(folder / "bert", dtype=torch.float32))
measured("vae", lambda: load_vae(folder / "vae"))
""")
    for name, model in (("bert", bert), ("t5", t5), ("vae", vae)):
        print(f"{name}: {size(model) / MB:.0f} MB of weights, the largest {largest(model) / MB:.0f}")
        assert found[name] < size(model) + MAPPED + largest(model) + SLACK
    assert found["8 bits"] < size(t5) / 4 + MAPPED + largest(t5) + SLACK


def test_what_is_joined_later_lies_side_by_side(tmp_path: Path) -> None:
    diffusers_dit(num_layers=2).save_pretrained(tmp_path)
    tensors = read_tensors(tmp_path, torch.float32, WEIGHTS, "cpu", QUERY_KEY_VALUE)
    plain = read_tensors(tmp_path, torch.float32)
    assert tensors.keys() == plain.keys() and all(torch.equal(tensors[key], plain[key]) for key in plain)
    model = HunyuanDiT.from_pretrained(tmp_path)
    attention = model.blocks[1].attn1
    before = attention.to_v.weight.data_ptr(), attention.to_v.bias.data_ptr()
    model.fuse()
    assert before == (attention.to_v.weight.data_ptr(), attention.to_v.bias.data_ptr())
    assert attention.fused.linear.weight.data_ptr() == attention.to_q.weight.data_ptr()
    assert torch.equal(attention.fused.linear.weight[-64:], plain["blocks.1.attn1.to_v.weight"])
    assert DIT["hidden_size"] == 64
