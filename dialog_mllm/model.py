"""The bundled kind of dialog model: Idefics3 (SigLIP-style vision, pixel shuffle, Llama decoder), and how it grows.

    model, processor = build_base(tokenizer); save_base(model, processor, "weights/base")

A picture of 128 px becomes 8 x 8 patches (finer eyes: 16 x 16) and, after the pixel shuffle, 16 tokens. The folder is
one that both transformers and vLLM load without any code of ours.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    LlamaConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from dialog_mllm.errors import DialogError
from dialog_mllm.tokenizer import CONTEXT, IMAGE, SPECIAL_TOKENS, token_id

EYES = ("model.vision_model.", "model.connector.")  # how the names of their weights begin
ATTENTION_BLOCK = 128  # queries that are computed together


class ModelFolderError(DialogError):
    """A folder that should hold a dialog model does not."""


@dataclass(frozen=True)
class BaseConfig:
    """Sizes of a new model. The bundled one began so, or smaller, and has grown (weights/RECIPE.md)."""

    picture_size: int = 128
    patch_size: int = 16
    pixel_shuffle: int = 2
    vision_hidden: int = 256
    vision_layers: int = 3
    vision_heads: int = 4
    hidden: int = 256
    layers: int = 12
    heads: int = 4
    intermediate: int = 704
    positions: int = CONTEXT

    def __post_init__(self) -> None:
        side = self.picture_size // self.patch_size
        if self.picture_size % self.patch_size or side % self.pixel_shuffle:
            raise ValueError("picture_size must be a multiple of patch_size * pixel_shuffle")
        if self.hidden % self.heads or self.vision_hidden % self.vision_heads:
            raise ValueError("hidden sizes must be multiples of their numbers of heads")

    @property
    def picture_tokens(self) -> int:
        return (self.picture_size // self.patch_size // self.pixel_shuffle) ** 2


def build_processor(tokenizer: PreTrainedTokenizerFast, config: BaseConfig) -> Idefics3Processor:
    edge = {"longest_edge": config.picture_size}
    pictures = Idefics3ImageProcessorPil(
        do_image_splitting=False,
        size=edge,
        max_image_size=edge,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return Idefics3Processor(
        pictures, tokenizer, image_seq_len=config.picture_tokens, chat_template=tokenizer.chat_template
    )


def build_base(
    tokenizer: PreTrainedTokenizerFast, config: BaseConfig | None = None, seed: int = 0
) -> tuple[Idefics3ForConditionalGeneration, Idefics3Processor]:
    """A model with fresh weights and the processor that goes with it."""
    config = config or BaseConfig()
    missing = [token for token in SPECIAL_TOKENS if token not in tokenizer.get_vocab()]
    if missing:
        raise ValueError(f"the tokenizer lacks {', '.join(missing)}: train it with dialog_mllm.tokenizer")
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    text = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=config.hidden,
        intermediate_size=config.intermediate,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        head_dim=config.hidden // config.heads,
        max_position_embeddings=config.positions,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        pad_token_id=pad,
        bos_token_id=None,
        eos_token_id=end,
    )
    vision = Idefics3VisionConfig(
        hidden_size=config.vision_hidden,
        intermediate_size=4 * config.vision_hidden,
        num_hidden_layers=config.vision_layers,
        num_attention_heads=config.vision_heads,
        image_size=config.picture_size,
        patch_size=config.patch_size,
    )
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration(
        Idefics3Config(
            text_config=text,
            vision_config=vision,
            scale_factor=config.pixel_shuffle,
            image_token_id=token_id(tokenizer, IMAGE),
            pad_token_id=pad,
            bos_token_id=None,
            eos_token_id=end,
            tie_word_embeddings=True,
        )
    )
    model.generation_config = GenerationConfig(pad_token_id=pad, eos_token_id=end, do_sample=False)
    return model, build_processor(tokenizer, config)


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def save_base(model: Idefics3ForConditionalGeneration, processor: Idefics3Processor, folder: Path | str) -> None:
    """Written beside its place and renamed, so that no half-written model is ever loaded. Weights as fp16."""
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    tied = getattr(model, "_tied_weights_keys", None) or {} if model.config.tie_word_embeddings else {}
    state = model.state_dict().items()
    weights = {name: tensor.detach().to(torch.float16) for name, tensor in state if name not in tied}
    model.save_pretrained(partial, state_dict=weights)
    processor.save_pretrained(partial)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)


def load_base(folder: Path | str) -> tuple[Idefics3ForConditionalGeneration, Idefics3Processor]:
    """The model in float32 and its processor, from a folder that `save_base` wrote."""
    folder = Path(folder)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "processor_config.json"):
        if not (folder / name).is_file():
            raise ModelFolderError(f"{folder} is no dialog model: {name} is missing. Make one with `easel train mllm`.")
    try:
        model = Idefics3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelFolderError(f"the dialog model in {folder} cannot be read: {error}") from error
    return model, Idefics3Processor.from_pretrained(folder, local_files_only=True)


def grow(model: Idefics3ForConditionalGeneration, added: int) -> None:
    """Puts `added` layers into the language model by making two of a layer, spread evenly from the last one down. Each
    of the two goes half as far: it writes half of what the one wrote. So the model says nearly the same as before, as
    an integral does that is taken in smaller steps (Chang et al. 2018, arXiv 1710.10348, section 4).

    Layers that begin by writing nothing change nothing at all; but such were still idle after hours of training
    (weights/EXPERIMENTS.md; Du et al. 2024, arXiv 2405.15319, section 3, found them the slowest way to grow).
    """
    text: Any = model.model.text_model
    old = len(text.layers)
    if added < 0 or added > old:
        raise ValueError(f"a model of {old} layers can be given 0 to {old} more, not {added}")
    halved = {old - 1 - number * old // added for number in range(added)}
    layers: list[Any] = []
    for number, layer in enumerate(text.layers):
        layers.append(layer)
        if number in halved:
            with torch.no_grad():
                layer.self_attn.o_proj.weight /= 2
                layer.mlp.down_proj.weight /= 2
            layers.append(copy.deepcopy(layer))
    for number, layer in enumerate(layers):
        layer.self_attn.layer_idx = number  # its place in the cache of keys and values
    text.layers = nn.ModuleList(layers)
    text.config.num_hidden_layers = len(layers)


@dataclass(frozen=True)
class Eyes:
    """What makes tokens of a picture: a vision tower, and the connector to a language model."""

    tower: Any
    connector: Any

    @classmethod
    def of(cls, model: Idefics3ForConditionalGeneration) -> Eyes:
        return cls(model.model.vision_model, model.model.connector)

    @property
    def width(self) -> int:
        """Of a token."""
        return self.connector.modality_projection.proj.out_features

    @property
    def modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"tower": self.tower, "connector": self.connector})

    def tokens(self, pixels: Tensor) -> Tensor:
        """(P, 3, H, W) -> (P, n, hidden): what `model.get_image_features` computes of pictures of the model's own size,
        in about four fifths of its time in bf16 training, for it casts each normed state once."""
        tower = self.tower
        dtype, patch = _compute_dtype(pixels), tower.embeddings.patch_size
        pictures, _, height, width = pixels.shape
        rows, columns = height // patch, width // patch
        patches = pixels.view(pictures, 3, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)
        patches = patches.reshape(pictures, rows * columns, -1).to(dtype)  # (P, patches, 3 patch^2)
        embed = tower.embeddings.patch_embedding
        states = F.linear(patches, embed.weight.flatten(1), embed.bias) + tower.embeddings.position_embedding.weight
        for layer in tower.encoder.layers:
            attention, mlp = layer.self_attn, layer.mlp
            normed = layer.layer_norm1(states).to(dtype)
            q, k, v = (
                projection(normed).view(pictures, -1, attention.num_heads, attention.head_dim).transpose(1, 2)
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(normed.shape)  # (P, patches, width)
            states = states + attention.out_proj(seen)
            normed = layer.layer_norm2(states).to(dtype)
            states = states + mlp.fc2(mlp.activation_fn(mlp.fc1(normed)))
        return self.connector(tower.post_layernorm(states).to(dtype))


def widen_eyes(model: Idefics3ForConditionalGeneration, times: int, seed: int = 0) -> None:
    """Makes the vision tower so many times wider, heads and all, which changes nothing of what it computes: each unit
    stands there so many times, and what read it reads each of them in part (Net2Net, Chen et al. 2016, arXiv
    1511.05641, section 2.2.1). The parts are drawn at random, so that training makes the copies differ."""
    if times < 1:
        raise ValueError(f"eyes can be made 1, 2, 3 ... times wider, not {times}")
    if times == 1:
        return
    chance = torch.Generator().manual_seed(seed)

    def parts(weight: Tensor) -> Tensor:  # (out, in) -> (out, times * in)
        share = torch.rand(times, *weight.shape, generator=chance).to(weight)
        return torch.cat(tuple(weight * share / share.sum(0)), dim=1)

    config = copy.deepcopy(model.config)
    for size in ("hidden_size", "intermediate_size", "num_attention_heads"):
        setattr(config.vision_config, size, times * getattr(config.vision_config, size))
    eyes, wide = Eyes.of(model), Eyes.of(type(model)(config))
    weights = eyes.modules.state_dict()
    for name, weight in weights.items():
        if weight.ndim == 2 and "position_embedding" not in name:
            # The connector reads several patches side by side.
            read = model.config.vision_config.hidden_size if name.startswith("connector.") else weight.shape[1]
            weight = torch.cat([parts(one) for one in weight.split(read, dim=1)], dim=1)
        if name.startswith("tower."):
            weight = torch.cat([weight] * times, dim=1 if "position_embedding" in name else 0)
        weights[name] = weight
    wide.modules.load_state_dict(weights)
    model.config.vision_config = config.vision_config
    model.model.vision_model, model.model.connector = wide.tower, wide.connector


def finer_eyes(model: Idefics3ForConditionalGeneration, times: int) -> None:
    """Gives the vision tower patches so many times smaller each way, of which the connector reads as many more for each
    token: as many tokens as before. What the eyes see is then nearly the same, and is to be learnt again (`earlier` of
    `vision.train_vision`).

    The patch embedding answers a small patch as it answered the same at the old size (FlexiViT, Beyer et al. 2023,
    arXiv 2212.08013, section 3.4); positions are interpolated; the connector reads the mean of what replaced a patch.
    """
    old = model.config.vision_config
    if times < 1 or old.patch_size % times:
        raise ValueError(f"patches of {old.patch_size} pixels cannot be made {times} times smaller")
    if times == 1:
        return
    config = copy.deepcopy(model.config)
    config.vision_config.patch_size = old.patch_size // times
    config.scale_factor = model.config.scale_factor * times
    eyes, fine = Eyes.of(model), Eyes.of(type(model)(config))
    weights = eyes.modules.state_dict()
    name = "tower.embeddings.patch_embedding.weight"
    weights[name] = times**2 * F.avg_pool2d(weights[name], times)
    name = "tower.embeddings.position_embedding.weight"
    side = old.image_size // old.patch_size
    grid = weights[name].T.view(1, -1, side, side)
    weights[name] = F.interpolate(grid, scale_factor=times, mode="bilinear").flatten(2)[0].T
    name = "connector.modality_projection.proj.weight"
    shuffle = model.config.scale_factor
    parts = weights[name].view(-1, shuffle, shuffle, old.hidden_size)  # (out, row, column, width)
    parts = parts.repeat_interleave(times, 1).repeat_interleave(times, 2) / times**2
    weights[name] = parts.flatten(1)
    fine.modules.load_state_dict(weights)
    model.config.vision_config, model.config.scale_factor = config.vision_config, config.scale_factor
    model.model.vision_model, model.model.connector = fine.tower, fine.connector


def normed(states: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """RMSNorm of (..., hidden) states that are not rounded to bf16."""
    return (states * torch.rsqrt(states.square().mean(-1, keepdim=True) + epsilon) * weight).to(dtype)


def added_normed(
    states: Tensor, added: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The residual stream behind a branch, and what the next branch reads of it."""
    states = states + added
    return states, normed(states, weight, epsilon, dtype)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)  # (B, heads, T, head / 2)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


@dataclass(frozen=True)
class Kernels:
    """What is computed element by element between the matrix products, a third of a step's time."""

    normed: Callable[..., Any] = normed
    added_normed: Callable[..., Any] = added_normed
    rotated: Callable[..., Any] = rotated
    gated: Callable[..., Any] = gated

    @classmethod
    @cache
    def fused(cls) -> Kernels:
        """Each of them, forward and backward, one pass over memory; compiled when first called."""
        return cls(*(torch.compile(one, dynamic=True) for one in (normed, added_normed, rotated, gated)))


def text_states(
    model: Idefics3ForConditionalGeneration, embeddings: Tensor, dropout: float = 0.0, kernels: Kernels | None = None
) -> Tensor:
    """What `model.model.text_model` computes of (B, T, hidden) embeddings, in about half its time in bf16 training.

    `dropout`: of what attention and MLP add to the residual stream (Vaswani et al. 2017, section 5.4).

    transformers casts each normed state once per matrix, rotates in float32, and its fused attention's backward pass is
    slow on CPUs. Padding must be on the right: attention is causal and knows no other mask.
    """
    kernels = kernels or Kernels()
    text = model.model.text_model
    dtype = _compute_dtype(embeddings)
    batch, length, _ = embeddings.shape
    positions = torch.arange(length, device=embeddings.device).unsqueeze(0)
    cos, sin = (half[..., : half.shape[-1] // 2].to(dtype) for half in text.rotary_emb(embeddings, positions))
    states = embeddings  # (B, T, hidden), the residual stream, not rounded to bf16
    first = text.layers[0].input_layernorm
    read = kernels.normed(states, first.weight, first.variance_epsilon, dtype)
    norms = [layer.input_layernorm for layer in text.layers[1:]]
    for layer, norm in zip(text.layers, [*norms, text.norm], strict=True):
        attention, mlp = layer.self_attn, layer.mlp
        q, k, v = (
            _linear(projection, read).view(batch, length, -1, attention.head_dim).transpose(1, 2)  # (B, heads, T, head)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = kernels.rotated(q, cos, sin), kernels.rotated(k, cos, sin)
        seen: Any = CausalAttention.apply(*(x.reshape(-1, length, attention.head_dim) for x in (q, k, v)))
        added = _linear(attention.o_proj, seen.view(q.shape).transpose(1, 2).reshape(batch, length, -1))
        added = F.dropout(added, dropout, training=dropout > 0)
        middle = layer.post_attention_layernorm
        states, read = kernels.added_normed(states, added, middle.weight, middle.variance_epsilon, dtype)
        units = kernels.gated(_linear(mlp.gate_proj, read), _linear(mlp.up_proj, read))  # (B, T, intermediate)
        added = F.dropout(_linear(mlp.down_proj, units), dropout, training=dropout > 0)
        kind = states.dtype if norm is text.norm else dtype
        states, read = kernels.added_normed(states, added, norm.weight, norm.variance_epsilon, kind)
    return read


def _compute_dtype(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _linear(layer: Any, x: Tensor) -> Tensor:
    """`layer(x)`; a LoRA layer without dropout as one product with the sum of its weights.

    The ranks that a small model needs make LoRA's two side products dearer than adding the matrices first.
    """
    adapters = getattr(layer, "active_adapters", ())
    if not adapters or any(getattr(layer.lora_dropout[name], "p", 0) for name in adapters):
        return layer(x)
    weight = layer.base_layer.weight
    for name in adapters:
        weight = weight + layer.get_delta_weight(name)
    return F.linear(x, weight, layer.base_layer.bias)


class CausalAttention(torch.autograd.Function):
    """(B heads, T, head) of queries, keys and values -> the same, block by block of queries: no work on keys that lie
    wholly in a block's future. Derived step by step, its gradient would be a tensor of zeros for each slice of keys."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scale, weights, seen = q.shape[-1] ** -0.5, [], []
        for start in range(0, q.shape[1], ATTENTION_BLOCK):
            block = q[:, start : start + ATTENTION_BLOCK]
            end = start + block.shape[1]
            future = torch.full((end - start, end), float("-inf"), dtype=q.dtype, device=q.device).triu(start + 1)
            scores = torch.baddbmm(future, block, k[:, :end].transpose(1, 2), alpha=scale)
            weights.append(scores.softmax(-1, dtype=scores.dtype))  # (B heads, block, keys)
            seen.append(torch.bmm(weights[-1], v[:, :end]))
        ctx.save_for_backward(q, k, v, *weights)
        return torch.cat(seen, dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (gradient,) = gradients
        q, k, v, *weights = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        to_q, to_k, to_v = (torch.zeros_like(x) for x in (q, k, v))
        for number, weight in enumerate(weights):
            start, end = number * ATTENTION_BLOCK, weight.shape[-1]
            block, of_block = q[:, start:end], gradient[:, start:end]
            of_weights = torch.bmm(of_block, v[:, :end].transpose(1, 2))
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weight, -1, weight.dtype)
            to_q[:, start:end] = torch.bmm(of_scores, k[:, :end]) * scale
            to_k[:, :end] += torch.bmm(of_scores.transpose(1, 2), block * scale)
            to_v[:, :end] += torch.bmm(weight.transpose(1, 2), of_block)
        return to_q, to_k, to_v
