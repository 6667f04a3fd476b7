"""`easel bench dit --full-size`: the released model's size, 1.5 B parameters, with random weights, on a GPU.

    easel bench dit --full-size --json

The denoiser's part of one 1024 x 1024 picture: 50 steps with guidance in bfloat16, our model and diffusers' on the same
weights, each as it is and compiled by torch, in turns within one run. `roofline` is the share that the picture's
arithmetic has of what the GPU does in large matrix products in the same run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from generator import sampling
from generator.bench import alternate, ratio, say
from generator.errors import GeneratorError
from generator.model import HunyuanDiT, HunyuanDiTConfig
from generator.sampling import Schedule

FULL = HunyuanDiTConfig(
    num_layers=40, hidden_size=1408, num_attention_heads=16, attention_head_dim=88, mlp_ratio=4.3637, sample_size=128,
    use_style_cond_and_image_meta_size=False,
)  # fmt: skip
SIDE, STEPS, GUIDANCE = 1024, 50, 5.0
VAE_FACTOR = 8
PRODUCT = 8192  # rows and columns of the matrices that the peak is measured with
SCHEDULE = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.02, "prediction_type": "v_prediction",
    "steps_offset": 1,
}  # fmt: skip


def run(rounds: int) -> dict[str, Any]:
    """Raises GeneratorError where there is no GPU."""
    if not torch.cuda.is_available():
        raise GeneratorError("--full-size needs a GPU with 16 GB or more, and torch built for it. Leave it out here.")
    return compare(FULL, SIDE, STEPS, rounds, torch.device("cuda"), torch.bfloat16)


def compare(
    config: HunyuanDiTConfig, side: int, steps: int, rounds: int, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """{"parity", "seconds", "picture_ratio_eager", "picture_ratio_compiled", "roofline", …}"""
    ours, theirs = both(config, device, dtype)
    inputs = random_inputs(config, side // VAE_FACTOR, device, dtype)
    plan = sampling.plan(Schedule.from_config(SCHEDULE), "dpmpp", steps)
    say("compiling")
    contestants = {
        "ours": own_picture(ours, inputs, plan), "theirs": diffusers_picture(theirs, inputs, plan, ours),
        "ours compiled": own_picture(ours, inputs, plan, compiled=True),
        "theirs compiled": diffusers_picture(theirs, inputs, plan, ours, compiled=True),
    }  # fmt: skip
    pictures = {name: draw().float() for name, draw in contestants.items()}
    spread = pictures["theirs"].std()
    apart = max(float((picture - pictures["theirs"]).abs().mean() / spread) for picture in pictures.values())
    say("whole pictures")
    times = alternate({name: synchronised(draw, device) for name, draw in contestants.items()}, rounds)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    best = min("ours", "ours compiled", key=lambda name: medians[name])
    tokens = (side // VAE_FACTOR // config.patch_size) ** 2
    work = 2 * steps * flops(config, tokens)  # two rows: guidance
    peak = peak_flops(device, dtype)
    return {
        "parity": apart, "seconds": round(medians[best], 3),
        "seconds_of_each": {name: round(seconds, 3) for name, seconds in medians.items()},
        **ratio("picture_ratio_eager", times["theirs"], times["ours"]),
        **ratio("picture_ratio_compiled", times["theirs compiled"], times[best]),
        "tflop": round(work / 1e12, 1), "peak_tflops": round(peak / 1e12, 1),
        "roofline": round(work / medians[best] / peak, 3), "memory_gb": memory_gb(device),
    }  # fmt: skip


def both(config: HunyuanDiTConfig, device: torch.device, dtype: torch.dtype) -> tuple[HunyuanDiT, Any]:
    """Our model and diffusers' on the same random weights, which lie on the device once."""
    from diffusers import HunyuanDiT2DModel

    theirs: Any
    with torch.device("meta"):
        ours, theirs = HunyuanDiT(config), HunyuanDiT2DModel(**asdict(config))
    generator = torch.Generator(device).manual_seed(0)
    weights = {
        name: random_weight(name, tensor, generator).to(dtype) for name, tensor in theirs.state_dict().items()
    }  # fmt: skip
    theirs.load_state_dict(weights, assign=True)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    return ours.fuse(), theirs.eval().requires_grad_(False)


def random_weight(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """Of a size that keeps the activations' scale, as trained weights do: times depend on the values, too."""
    if like.ndim < 2:
        return torch.full(like.shape, float("norm" in name and name.endswith("weight")), device=generator.device)
    return torch.randn(like.shape, generator=generator, device=generator.device) * like[0].numel() ** -0.5


def random_inputs(config: HunyuanDiTConfig, side: int, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Both prompts' states and the noise, as an engine would have them; a picture of side x side latents."""

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)

    return {
        "noise": some(1, config.in_channels, side, side).float(),
        "clip": some(2, config.text_len, config.cross_attention_dim),
        "clip_mask": torch.ones(2, config.text_len, dtype=torch.long, device=device),
        "t5": some(2, config.text_len_t5, config.cross_attention_dim_t5),
        "t5_mask": torch.ones(2, config.text_len_t5, dtype=torch.long, device=device),
    }


def own_picture(
    dit: HunyuanDiT, inputs: dict[str, Tensor], plan: sampling.Plan, compiled: bool = False
) -> Callable[[], Tensor]:
    run: Any = torch.compile(dit.run) if compiled else dit.run
    noise = inputs["noise"]

    def predict_all() -> Callable[[Tensor, int], Tensor]:
        height, width = noise.shape[-2:]
        ready = dit.prepare(
            inputs["clip"], inputs["clip_mask"], inputs["t5"], inputs["t5_mask"], plan.timesteps, height, width
        )
        keys_values = [[pair] for pair in zip(ready.keys, ready.values, strict=True)]
        return lambda latents, step: run(latents, ready.modulation[:, step], keys_values, ready.rope)

    return lambda: denoised(noise, plan, dit.dtype, predict_all())


def diffusers_picture(
    model: Any, inputs: dict[str, Tensor], plan: sampling.Plan, ours: HunyuanDiT, compiled: bool = False
) -> Callable[[], Tensor]:
    run: Any = torch.compile(model) if compiled else model
    rope = ours.rope(*inputs["noise"].shape[-2:])
    turned = tuple(part.repeat_interleave(2, 1) for part in (rope.real, rope.imag))

    def predict(latents: Tensor, step: int) -> Tensor:
        timesteps = plan.timesteps[step].to(latents.device).expand(2)
        output: Tensor = run(
            latents, timesteps, encoder_hidden_states=inputs["clip"], text_embedding_mask=inputs["clip_mask"],
            encoder_hidden_states_t5=inputs["t5"], text_embedding_mask_t5=inputs["t5_mask"], image_rotary_emb=turned,
            return_dict=False,
        )[0]  # fmt: skip
        return output

    return lambda: denoised(inputs["noise"], plan, ours.dtype, predict)


@torch.inference_mode()
def denoised(
    noise: Tensor, plan: sampling.Plan, dtype: torch.dtype, predict: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """The same loop around both models: two rows, guided, and the sampler's step."""
    latents, clean = noise, torch.zeros_like(noise)
    for step, mix in enumerate(plan.mix):
        output = predict(latents.expand(2, -1, -1, -1).to(dtype), step)[:, : noise.shape[1]].float()
        guided = sampling.guide(output[:1], output[1:], GUIDANCE)
        latents, clean = sampling.step(mix, latents, guided, clean)
    return latents


def synchronised(work: Callable[[], object], device: torch.device) -> Callable[[], None]:
    def whole() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return whole


def flops(config: HunyuanDiTConfig, tokens: int) -> float:
    """Of one evaluation of one row, multiplications and additions: what no implementation can leave out, when a
    picture's text is projected once."""
    hidden, inner = config.hidden_size, int(config.hidden_size * config.mlp_ratio)
    text = config.text_len + config.text_len_t5
    block = 8 * hidden**2 + 4 * hidden**2 + 4 * hidden * inner  # self-attention's four, cross-attention's two, the MLP
    attention = 4 * hidden * (tokens + text)
    ends = 2 * hidden * config.patch_size**2 * (config.in_channels + config.out_channels)
    skips = config.skips * 4 * hidden**2
    return float(tokens * (config.num_layers * (block + attention) + skips + ends))


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Per second, of the best of several large matrix products."""
    size = PRODUCT if device.type == "cuda" else PRODUCT // 16
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    multiply = synchronised(lambda: one @ other, device)
    multiply()
    best = float("inf")
    for _ in range(20):
        started = time.perf_counter()
        multiply()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def memory_gb(device: torch.device) -> float | None:
    """The most that was in use at once."""
    return round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if device.type == "cuda" else None
