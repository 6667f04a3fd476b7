"""Hunyuan-DiT, the denoiser: a transformer over latent patches that reads the prompt through cross-attention.

    python -c "from generator.model import HunyuanDiT; print(HunyuanDiT.from_pretrained('FOLDER/transformer'))"

v1.2 of the paper (arXiv 2405.08748), with the image-size and style conditioning of v1.1 as an option. Modules are
named as in diffusers, so both read each other's checkpoints. There are two ways in, over the same blocks:
- `forward` for training: everything from the inputs, in one call;
- `prepare` once per picture, then `denoise` at each step: what does not change between steps is computed once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.checkpoint import OUT_OF_MEMORY, read_json, read_tensors, write_json, write_tensors
from generator.errors import CheckpointError
from generator.linear import Linear
from generator.rope import rope_2d, rotate

CLASS_NAME = "HunyuanDiT2DModel"
ACTIVATIONS = {"gelu-approximate": "tanh", "gelu": "none"}
TIME_CHANNELS = 256  # sinusoid of the timestep, and of each of the six image-size numbers of v1.1
POOLER_HEADS = 8
FEW_QUERIES = 64
QUERY_KEY_VALUE = ("attn1.to_q", "attn1.to_k", "attn1.to_v")  # that `fuse` joins
EPS = 1e-6


@dataclass(frozen=True)
class HunyuanDiTConfig:
    """The transformer's config.json; the defaults are diffusers' own."""

    in_channels: int = 4
    patch_size: int = 2
    num_layers: int = 28
    hidden_size: int = 1152
    num_attention_heads: int = 16
    attention_head_dim: int = 72
    mlp_ratio: float = 4.0
    activation_fn: str = "gelu-approximate"
    learn_sigma: bool = True
    cross_attention_dim: int = 1024
    cross_attention_dim_t5: int = 2048
    pooled_projection_dim: int = 1024
    text_len: int = 77
    text_len_t5: int = 256
    sample_size: int = 32
    norm_type: str = "layer_norm"
    use_style_cond_and_image_meta_size: bool = True

    def __post_init__(self) -> None:
        checks = [
            (
                self.hidden_size == self.num_attention_heads * self.attention_head_dim,
                "hidden_size must be num_attention_heads * attention_head_dim",
            ),
            (self.attention_head_dim % 4 == 0, "attention_head_dim must be a multiple of 4 (two axes of pairs)"),
            (self.num_layers >= 2 and self.num_layers % 2 == 0, "num_layers must be even (long skips join halves)"),
            (self.cross_attention_dim_t5 % POOLER_HEADS == 0, f"cross_attention_dim_t5: a multiple of {POOLER_HEADS}"),
            (self.activation_fn in ACTIVATIONS, f"activation_fn must be one of {', '.join(ACTIVATIONS)}"),
            (self.norm_type == "layer_norm", "norm_type must be layer_norm"),
            (min(self.in_channels, self.patch_size, self.text_len, self.text_len_t5) >= 1, "sizes must be positive"),
        ]
        wrong = [message for fine, message in checks if not fine]
        if wrong:
            raise ValueError("; ".join(wrong))

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> HunyuanDiTConfig:
        """From config.json; keys with a leading underscore are diffusers' bookkeeping, other strangers are refused."""
        known = {field.name for field in dataclasses.fields(cls)}
        strangers = sorted(key for key in content if key not in known and not key.startswith("_"))
        if strangers:
            raise ValueError(f"unknown settings: {', '.join(strangers)}")
        return cls(**{key: value for key, value in content.items() if key in known})

    def to_dict(self) -> dict[str, Any]:
        return {"_class_name": CLASS_NAME, **dataclasses.asdict(self)}

    @property
    def out_channels(self) -> int:
        return self.in_channels * (2 if self.learn_sigma else 1)

    @property
    def skips(self) -> int:
        """How many blocks at the start hand their output to one at the end."""
        return self.num_layers // 2 - 1

    @property
    def rope_reference(self) -> int:
        """Side of the reference grid of positions: 64 latents (512 pixels of an 8x VAE), in patches."""
        return 64 // self.patch_size


@dataclass(frozen=True)
class Conditioning:
    """All that stays the same while a batch of pictures is denoised; row b belongs to picture b."""

    modulation: Tensor  # (B, steps, num_layers + 2, hidden): a shift for each block, then the output's scale and shift
    keys: Tensor  # (num_layers, B, heads, text, head_dim)
    values: Tensor  # (num_layers, B, heads, text, head_dim)
    rope: Tensor  # (N, head_dim / 2)

    @property
    def batch(self) -> int:
        return len(self.modulation)

    def last(self) -> Conditioning:
        """The last row alone: outside the guidance interval only the prompt's own row is computed."""
        return Conditioning(self.modulation[-1:], self.keys[:, -1:], self.values[:, -1:], self.rope)


# Keys and values of one block, twice (rows, heads, S, head_dim), for one group of a batch's rows after another.
Texts = Sequence[tuple[Tensor, Tensor]]


def sinusoid(x: Tensor, channels: int = TIME_CHANNELS, max_period: float = 10_000.0) -> Tensor:
    """(B,) numbers -> (B, channels), cosines first; always float32, for a rounded timestep is another timestep."""
    half = channels // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=x.device) / half)
    angles = x.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k) v, each (B, heads, length, head_dim)."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
        # torch's fused CPU attention has a slow backward pass in bfloat16: written out, a training step takes 0.7x.
        return written_out(q, k, v)
    if q.device.type == "cpu" and q.shape[-2] <= FEW_QUERIES:
        return written_out(q, k, v)  # 0.7x there too; from 256 queries on, it takes twice as long
    return F.scaled_dot_product_attention(q, k, v)


def written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(-1) @ v


class SiluMLP(nn.Module):
    """Linear, SiLU, Linear."""

    def __init__(self, width_in: int, hidden: int, width_out: int):
        super().__init__()
        self.linear_1 = nn.Linear(width_in, hidden)
        self.linear_2 = nn.Linear(hidden, width_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class AttentionPool(nn.Module):
    """A prompt's T5 states as one vector: their mean looks at them all."""

    def __init__(self, length: int, width: int, width_out: int):
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(length + 1, width) / width**0.5)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, width_out)

    def forward(self, states: Tensor) -> Tensor:  # (B, S, width)
        x = torch.cat([states.mean(1, keepdim=True), states], dim=1) + self.positional_embedding  # (B, 1 + S, width)
        q, k, v = (
            projection(part).unflatten(-1, (POOLER_HEADS, -1)).transpose(1, 2)  # (B, 8, 1 or 1 + S, width / 8)
            for projection, part in ((self.q_proj, x[:, :1]), (self.k_proj, x), (self.v_proj, x))
        )
        pooled = F.scaled_dot_product_attention(q, k, v)  # (B, 8, 1, width / 8)
        return self.c_proj(pooled.flatten(1))  # (B, width_out)


class GlobalConditioning(nn.Module):
    """The vector c of the paper: the timestep plus what the whole prompt (and in v1.1 size and style) says."""

    def __init__(self, config: HunyuanDiTConfig):
        super().__init__()
        hidden = config.hidden_size
        self.timestep_embedder = SiluMLP(TIME_CHANNELS, hidden, hidden)
        self.pooler = AttentionPool(config.text_len_t5, config.cross_attention_dim_t5, config.pooled_projection_dim)
        self.with_style = config.use_style_cond_and_image_meta_size
        width = config.pooled_projection_dim
        if self.with_style:
            self.style_embedder = nn.Embedding(1, hidden)
            width += 6 * TIME_CHANNELS + hidden
        self.extra_embedder = SiluMLP(width, 4 * hidden, hidden)

    def time(self, timesteps: Tensor) -> Tensor:  # (any shape) -> (any shape, hidden)
        waves = sinusoid(timesteps.flatten()).to(self.timestep_embedder.linear_1.weight.dtype)
        return self.timestep_embedder(waves).unflatten(0, timesteps.shape)

    def extra(self, t5_states: Tensor, style: Tensor | None, meta_size: Tensor | None) -> Tensor:
        pooled = self.pooler(t5_states)  # (B, pooled)
        if self.with_style:
            if meta_size is None:
                raise ValueError("this model is conditioned on image sizes: pass meta_size (B, 6)")
            style = torch.zeros(len(pooled), dtype=torch.long, device=pooled.device) if style is None else style
            sizes = sinusoid(meta_size.flatten()).to(pooled.dtype).view(len(pooled), -1)  # (B, 6 * 256)
            pooled = torch.cat([pooled, sizes, self.style_embedder(style)], dim=1)
        return self.extra_embedder(pooled)  # (B, hidden)


class Attention(nn.Module):
    """Multi-head attention with normalised queries and keys, from (B, N, hidden) to itself or to the text."""

    def __init__(self, hidden: int, heads: int, source: int):
        super().__init__()
        self.heads = heads
        self.to_q = Linear(hidden, hidden)
        self.to_k = Linear(source, hidden)
        self.to_v = Linear(source, hidden)
        self.norm_q = nn.LayerNorm(hidden // heads, EPS)
        self.norm_k = nn.LayerNorm(hidden // heads, EPS)
        self.to_out = nn.ModuleList([Linear(hidden, hidden)])
        self.fused: FusedSelf | None = None

    def fuse(self) -> None:
        """For inference over one's own tokens: q, k and v of one product, q and k normalised and turned together."""
        self.fused = FusedSelf(self)

    def _apply(self, *args: Any, **kwargs: Any) -> Attention:
        self.fused = None  # moving or casting gives the three weights storage of their own again
        return super()._apply(*args, **kwargs)

    def split(self, x: Tensor) -> Tensor:  # (B, N, hidden) -> (B, N, heads, head_dim)
        return x.unflatten(-1, (self.heads, -1))

    def keys_values(self, text: Tensor) -> tuple[Tensor, Tensor]:  # (B, S, source) -> twice (B, heads, S, head_dim)
        k, v = self.norm_k(self.split(self.to_k(text))), self.split(self.to_v(text))
        return k.transpose(1, 2), v.transpose(1, 2)

    def to_self(self, x: Tensor, rope: Tensor) -> Tensor:
        if self.fused is not None and not torch.is_grad_enabled():
            q, k, v = self.fused(x, rope)
            return self.out(attention(q, k, v))
        k = rotate(self.norm_k(self.split(self.to_k(x))), rope)  # (B, N, heads, head_dim)
        return self.attend(self.to_q(x), [(k.transpose(1, 2), self.split(self.to_v(x)).transpose(1, 2))], rope)

    def to_text(self, x: Tensor, texts: Texts, rope: Tensor) -> Tensor:
        return self.attend(self.to_q(x), texts, rope)

    def attend(self, q: Tensor, sources: Texts, rope: Tensor) -> Tensor:
        q = rotate(self.norm_q(self.split(q)), rope).transpose(1, 2)  # (B, heads, N, head_dim)
        rows = q.split([len(keys) for keys, _ in sources])
        parts = [
            attention(part, keys.to(q.dtype), values.to(q.dtype))
            for part, (keys, values) in zip(rows, sources, strict=True)
        ]
        return self.out(parts[0] if len(parts) == 1 else torch.cat(parts))

    def out(self, x: Tensor) -> Tensor:  # (B, heads, N, head_dim) -> (B, N, hidden)
        return self.to_out[0](x.transpose(1, 2).flatten(2))


def joined(parts: Sequence[Tensor]) -> Tensor:
    """torch.cat of equal parts; where they lie side by side already, without a copy."""
    first, size = parts[0].detach(), parts[0].numel()
    starts = [first.data_ptr() + i * size * first.itemsize for i in range(len(parts))]
    if first.untyped_storage().nbytes() == len(parts) * size * first.itemsize and starts == [
        part.data_ptr() for part in parts
    ]:
        return first.as_strided((len(parts) * len(first), *first.shape[1:]), first.stride())
    return torch.cat([part.detach() for part in parts])


class FusedSelf:
    """The way to q, k and v of an `Attention`, laid side by side. Its three layers' weights become views of it."""

    @torch.no_grad()
    def __init__(self, layer: Attention):
        parts = (layer.to_q, layer.to_k, layer.to_v)
        self.heads = layer.heads
        self.linear = Linear(parts[0].in_features, 3 * parts[0].out_features, device="meta")
        self.linear.weight = nn.Parameter(joined([part.weight for part in parts]), requires_grad=False)
        self.linear.bias = nn.Parameter(joined([part.bias for part in parts]), requires_grad=False)
        pairs = zip(self.linear.weight.chunk(3), self.linear.bias.chunk(3), strict=True)
        for part, (weight, bias) in zip(parts, pairs, strict=True):
            part.weight.data, part.bias.data = weight, bias
        self.linear.pack()
        norms = (layer.norm_q, layer.norm_k)
        self.scale = torch.stack([norm.weight for norm in norms])[:, None].detach()  # (2, 1, head_dim)
        self.shift = torch.stack([norm.bias for norm in norms])[:, None].detach()

    def __call__(self, x: Tensor, rope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, hidden) -> three of (B, heads, N, head_dim)."""
        both, v = self.linear(x).unflatten(-1, (3, self.heads, -1)).split([2, 1], dim=2)  # (B, N, 2, heads, head_dim)
        both = torch.addcmul(self.shift, F.layer_norm(both, both.shape[-1:], eps=EPS), self.scale)
        q, k = rotate(both.flatten(2, 3), rope).unflatten(2, (2, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v[:, :, 0].transpose(1, 2)


class ShiftedNorm(nn.Module):
    """LayerNorm that the timestep shifts; v1.2 neither scales nor gates."""

    def __init__(self, hidden: int):
        super().__init__()
        self.linear = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden, EPS)

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        return self.norm(x) + shift


class GeluLinear(nn.Module):
    def __init__(self, width_in: int, width_out: int, approximate: str):
        super().__init__()
        self.proj = Linear(width_in, width_out, approximate)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class FeedForward(nn.Module):
    def __init__(self, hidden: int, inner: int, approximate: str):
        super().__init__()
        # The identity keeps diffusers' place for dropout, and with it the numbers in the key names.
        self.net = nn.Sequential(GeluLinear(hidden, inner, approximate), nn.Identity(), Linear(inner, hidden))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Block(nn.Module):
    """Self-attention, cross-attention to the prompt, MLP; in the second half, a long skip is merged first."""

    def __init__(self, config: HunyuanDiTConfig, skip: bool):
        super().__init__()
        hidden, heads = config.hidden_size, config.num_attention_heads
        self.norm1 = ShiftedNorm(hidden)
        self.attn1 = Attention(hidden, heads, hidden)
        self.norm2 = nn.LayerNorm(hidden, EPS)
        self.attn2 = Attention(hidden, heads, config.cross_attention_dim)
        self.norm3 = nn.LayerNorm(hidden, EPS)
        self.ff = FeedForward(hidden, int(hidden * config.mlp_ratio), ACTIVATIONS[config.activation_fn])
        if skip:
            self.skip_norm = nn.LayerNorm(2 * hidden, EPS)
            self.skip_linear = Linear(2 * hidden, hidden)

    def forward(self, x: Tensor, shift: Tensor, texts: Texts, rope: Tensor, skip: Tensor | None) -> Tensor:
        # x (B, N, hidden), shift (B, 1, hidden), skip (B, N, hidden)
        if skip is not None:
            x = self.skip_linear(self.skip_norm(torch.cat([x, skip], dim=-1))).to(x.dtype)
        x = x + self.attn1.to_self(self.norm1(x, shift), rope)
        x = x + self.attn2.to_text(self.norm2(x), texts, rope)
        return x + self.ff(self.norm3(x))


class PatchEmbed(nn.Module):
    def __init__(self, channels: int, patch: int, hidden: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, hidden, patch, stride=patch)

    def forward(self, latents: Tensor) -> Tensor:  # (B, C, H, W) -> (B, N, hidden)
        # A convolution that steps from patch to patch is a product, and as such it takes a fraction of the time.
        patch = self.proj.stride[0]
        x = latents.unflatten(-2, (-1, patch)).unflatten(-1, (-1, patch))  # (B, C, rows, patch, columns, patch)
        x = x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, N, C * patch * patch)
        return F.linear(x, self.proj.weight.flatten(1), self.proj.bias)


class OutputNorm(nn.Module):
    def __init__(self, hidden: int):
        super().__init__()
        self.linear = nn.Linear(hidden, 2 * hidden)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


class HunyuanDiT(nn.Module):
    def __init__(self, config: HunyuanDiTConfig):
        super().__init__()
        self.config = config
        self.pos_embed = PatchEmbed(config.in_channels, config.patch_size, config.hidden_size)
        self.text_embedder = SiluMLP(
            config.cross_attention_dim_t5, 4 * config.cross_attention_dim_t5, config.cross_attention_dim
        )
        self.text_embedding_padding = nn.Parameter(
            torch.randn(config.text_len + config.text_len_t5, config.cross_attention_dim)
        )
        self.time_extra_emb = GlobalConditioning(config)
        first_with_skip = config.num_layers - config.skips
        blocks = [Block(config, skip=i >= first_with_skip) for i in range(config.num_layers)]
        self.blocks: Any = nn.ModuleList(blocks)  # Any: to mypy the members of a ModuleList are plain modules
        self.norm_out = OutputNorm(config.hidden_size)
        self.proj_out = nn.Linear(config.hidden_size, config.patch_size**2 * config.out_channels)

    @property
    def dtype(self) -> torch.dtype:
        return self.proj_out.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.proj_out.weight.device

    # --- training: everything in one call

    def forward(
        self,
        latents: Tensor,  # (B, in_channels, H, W)
        timestep: Tensor,  # (B,)
        clip_states: Tensor,  # (B, text_len, cross_attention_dim)
        clip_mask: Tensor,  # (B, text_len)
        t5_states: Tensor,  # (B, text_len_t5, cross_attention_dim_t5)
        t5_mask: Tensor,  # (B, text_len_t5)
        style: Tensor | None = None,  # (B,), v1.1 only
        meta_size: Tensor | None = None,  # (B, 6), v1.1 only
    ) -> Tensor:
        height, width = latents.shape[-2:]
        vector = self.time_extra_emb.time(timestep) + self.time_extra_emb.extra(t5_states, style, meta_size)
        modulation = self.modulation(vector)  # (B, num_layers + 2, hidden)
        # Behind the longest prompt of the batch all rows hold the same learned padding: its keys are computed once.
        clip_end, t5_end = (int(mask.any(0).nonzero().max()) + 1 for mask in (clip_mask, t5_mask))
        words = self.text(
            clip_states[:, :clip_end], clip_mask[:, :clip_end], t5_states[:, :t5_end], t5_mask[:, :t5_end]
        )  # (B, longest, cross_attention_dim)
        learned = self.text_embedding_padding.split([self.config.text_len, self.config.text_len_t5])
        padding = torch.cat([learned[0][clip_end:], learned[1][t5_end:]])[None]  # (1, S - longest, ...)
        texts: list[Texts] = []
        for block in self.blocks:
            pairs = zip(block.attn2.keys_values(words), block.attn2.keys_values(padding), strict=True)
            keys, values = (torch.cat([word, pad.expand(len(word), -1, -1, -1)], dim=2) for word, pad in pairs)
            texts.append([(keys, values)])
        return self.run(latents, modulation, texts, self.rope(height, width))

    # --- inference: prepare once, denoise at each step

    @torch.no_grad()
    def prepare(
        self,
        clip_states: Tensor,
        clip_mask: Tensor,
        t5_states: Tensor,
        t5_mask: Tensor,
        timesteps: Tensor,  # (steps,) or (B, steps), as floats
        height: int,  # of the latents
        width: int,
        style: Tensor | None = None,
        meta_size: Tensor | None = None,
    ) -> Conditioning:
        text = self.text(clip_states, clip_mask, t5_states, t5_mask)
        extra = self.time_extra_emb.extra(t5_states, style, meta_size)[:, None]  # (B, 1, hidden)
        times = timesteps.to(self.device)[None] if timesteps.ndim == 1 else timesteps.to(self.device)
        keys, values = zip(*(block.attn2.keys_values(text) for block in self.blocks), strict=True)
        return Conditioning(
            modulation=self.modulation(self.time_extra_emb.time(times) + extra),  # (B, steps, num_layers + 2, hidden)
            keys=torch.stack(keys),
            values=torch.stack(values),
            rope=self.rope(height, width),
        )

    @torch.no_grad()
    def denoise(self, latents: Tensor, parts: Sequence[tuple[Conditioning, int]]) -> Tensor:
        """One evaluation of a batch (B, in_channels, H, W), which holds the rows of one part after those of the other.
        Each part is at its own step, an index into its prepared timesteps; all are prepared for the same size."""
        modulation = torch.cat([part.modulation[:, step] for part, step in parts])  # (B, num_layers + 2, hidden)
        texts = [[(part.keys[i], part.values[i]) for part, _ in parts] for i in range(self.config.num_layers)]
        return self.run(latents, modulation, texts, parts[0][0].rope)

    def fuse(self) -> HunyuanDiT:
        """Ready for inference: fixed weights, one product for q, k and v, layers in the order that the device likes."""
        for block in self.blocks:
            block.attn1.fuse()
            for layer in (block.attn1.to_out[0], block.attn2.to_q, block.attn2.to_out[0], *block.ff.modules()):
                if isinstance(layer, Linear):
                    layer.pack()
            if hasattr(block, "skip_linear"):
                block.skip_linear.pack()
        return self.eval().requires_grad_(False)

    def refresh(self, names: Collection[str]) -> None:
        """After the weights of these layers were written: what `fuse` made of them, made again."""
        for name in names:
            layer = self.get_submodule(name)
            if isinstance(layer, Linear) and layer.packed is not None:
                layer.pack()
        for parent in {name.rpartition(".")[0] for name in names}:
            attention = self.get_submodule(parent)
            if isinstance(attention, Attention) and attention.fused is not None:
                attention.fused.linear.pack()

    # --- the parts

    def text(self, clip_states: Tensor, clip_mask: Tensor, t5_states: Tensor, t5_mask: Tensor) -> Tensor:
        """Both encoders joined along length; padding gives way to learned tokens, so that attention needs no mask."""
        states = torch.cat([clip_states, self.text_embedder(t5_states)], dim=1)  # (B, S, cross_attention_dim)
        mask = torch.cat([clip_mask, t5_mask], dim=1).bool()[..., None]
        learned = self.text_embedding_padding.split([self.config.text_len, self.config.text_len_t5])
        padding = torch.cat([learned[0][: clip_states.shape[1]], learned[1][: t5_states.shape[1]]])
        return torch.where(mask, states, padding)

    def modulation(self, vector: Tensor) -> Tensor:
        """c (..., hidden) -> (..., num_layers + 2, hidden): every block's shift, then the output's scale and shift."""
        active = F.silu(vector.float()).to(vector.dtype)
        shifts = [block.norm1.linear(active) for block in self.blocks]
        return torch.stack([*shifts, *self.norm_out.linear(active).chunk(2, dim=-1)], dim=-2)

    def rope(self, height: int, width: int) -> Tensor:
        patch = self.config.patch_size
        return rope_2d(
            height // patch, width // patch, self.config.attention_head_dim, self.config.rope_reference, self.device
        )

    def run(
        self,
        latents: Tensor,  # (B, in_channels, H, W)
        modulation: Tensor,  # (B, num_layers + 2, hidden)
        texts: Sequence[Texts],  # per block
        rope: Tensor,  # (N, head_dim / 2)
    ) -> Tensor:
        config, patch = self.config, self.config.patch_size
        rows, columns = latents.shape[-2] // patch, latents.shape[-1] // patch
        # Under autocast the patches come out in half precision; the residual stream keeps the parameters' own.
        x = self.pos_embed(latents).to(self.dtype)  # (B, N, hidden)
        *shifts, scale, shift = modulation.unsqueeze(-2).unbind(1)  # each (B, 1, hidden)
        skips: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            skip = skips.pop() if i >= config.num_layers - config.skips else None
            x = block(x, shifts[i], texts[i], rope, skip)
            if i < config.skips:
                skips.append(x)
        x = self.proj_out(self.norm_out(x, scale, shift))  # (B, N, patch * patch * out_channels)
        x = x.view(len(x), rows, columns, patch, patch, config.out_channels)
        x = x.permute(0, 5, 1, 3, 2, 4)  # (B, out_channels, rows, patch, columns, patch)
        return x.reshape(len(x), config.out_channels, rows * patch, columns * patch)

    def initialise(self) -> HunyuanDiT:
        """Weights to start training from: each block begins as the identity of its timestep, the output as zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.pos_embed.proj.weight.data.flatten(1))
        nn.init.zeros_(cast(Tensor, self.pos_embed.proj.bias))
        for linear in (self.time_extra_emb.timestep_embedder.linear_1, self.time_extra_emb.timestep_embedder.linear_2):
            nn.init.normal_(linear.weight, std=0.02)
        for closed in (*(block.norm1.linear for block in self.blocks), self.norm_out.linear, self.proj_out):
            nn.init.zeros_(closed.weight)
        return self

    # --- checkpoints

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> HunyuanDiT:
        folder = Path(folder)
        try:
            config = HunyuanDiTConfig.from_dict(read_json(folder / "config.json"))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{folder / 'config.json'} is not a Hunyuan-DiT that Easel knows: {error}") from error
        with torch.device("meta"):  # the shapes; the values come from the file, read once
            model = cls(config)
        try:
            model.load_state_dict(read_tensors(folder, dtype, device=device, side_by_side=QUERY_KEY_VALUE), assign=True)
        except torch.OutOfMemoryError as error:
            raise CheckpointError(OUT_OF_MEMORY.format(folder)) from error
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"The weights in {folder} do not fit its config.json: {reason}") from error
        return model

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """The weights first, config.json last: a folder with a config is complete."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder, self.state_dict(), dtype)
        write_json(folder / "config.json", self.config.to_dict())
