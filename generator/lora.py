"""LoRA for the denoiser: files that add a product of two thin matrices to the weights of some of its linear layers.

    easel draw "a red fox" --lora ./my-lora --lora-scale 0.8

Read in diffusers' layout (pytorch_lora_weights.safetensors) and in PEFT's (adapter_config.json beside
adapter_model.safetensors), with diffusers' names of the layers or the official ones. Every entry must find its layer:
what cannot be applied is refused by name, never left out.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from generator.checkpoint import each_tensor, opened, read_json
from generator.errors import CheckpointError
from generator.model import HunyuanDiT
from generator.request import Lora

KEPT = 4  # files in memory
DIFFUSERS_CONFIG = "lora_adapter_metadata"  # in the header of the file
PREFIX = re.compile(r"^(base_model\.model\.|transformer\.)+")
OLDER_NAMES = [  # that diffusers still reads
    (".processor.", "."),
    (".to_out_lora.", ".to_out.0.lora."),
    ("_lora.", ".lora."),
    (".lora_linear_layer.", ".lora."),
    (".lora.down.", ".lora_A."),
    (".lora.up.", ".lora_B."),
]
ENTRY = re.compile(r"(?P<layer>.+)\.(?:(?P<side>lora_A|lora_B)\.(?:default\.)?weight|(?P<alpha>alpha))")
OFFICIAL_NAMES = {  # of layers in a block, and what they are here, side by side
    "attn1.Wqkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn1.out_proj": ("attn1.to_out.0",),
    "attn2.q_proj": ("attn2.to_q",),
    "attn2.kv_proj": ("attn2.to_k", "attn2.to_v"),
    "attn2.out_proj": ("attn2.to_out.0",),
    "mlp.fc1": ("ff.net.0.proj",),
    "mlp.fc2": ("ff.net.2",),
}
# PEFT's ways to begin that change the base itself: without that change the adapter means something else.
CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, eq=False)
class LowRank:
    """What is added to a layer's weight: scale * up @ down."""

    down: Tensor  # (rank, width_in)
    up: Tensor  # (width_out, rank)
    scale: float

    def added(self, base: Tensor, strength: float) -> Tensor:
        """In float32: the sum is rounded once, to the type that the weights have."""
        return torch.addmm(base.float(), self.up.float(), self.down.float(), alpha=self.scale * strength)


def read_lora(lora: Lora, dit: HunyuanDiT) -> dict[str, LowRank]:
    """By the layers' names. Raises CheckpointError, naming the first entry that does not fit this denoiser."""
    config = read_config(lora)
    linear = {name: module for name, module in dit.named_modules() if isinstance(module, nn.Linear)}
    sides: dict[str, dict[str, Tensor]] = {}
    alphas: dict[str, float] = {}
    for key, tensor in each_tensor(lora.weights.parent, lora.weights.name):
        if key.startswith("text_encoder"):
            raise refused(lora, key, "is for a text encoder; Easel applies LoRA to the denoiser alone")
        name = PREFIX.sub("", key)
        for older, newer in OLDER_NAMES:
            name = name.replace(older, newer)
        entry = ENTRY.fullmatch(name)
        if entry is None:
            raise refused(
                lora, key, "is no pair of matrices for a linear layer (DoRA, biases and whole layers are not)"
            )
        for layer in layers(entry["layer"]):
            if layer not in linear:
                raise refused(lora, key, f"needs a linear layer {layer}, which this model does not have")
        if tensor.ndim != 2 and not (entry["alpha"] and tensor.numel() == 1):
            raise refused(lora, key, f"has the shape {tuple(tensor.shape)}")
        pair = sides.setdefault(entry["layer"], {})
        if entry["alpha"]:
            alphas[entry["layer"]] = tensor.item()
        else:
            pair[entry["side"]] = tensor.to(dit.device, copy=True)
    if not sides:
        raise CheckpointError(f"{lora.weights} holds no LoRA. Choose another file.")
    changes: dict[str, LowRank] = {}
    for name, pair in sides.items():
        for side in ("lora_A", "lora_B"):
            if side not in pair:
                raise refused(lora, f"{name}.{side}", "is missing")
        down, up = pair["lora_A"], pair["lora_B"]
        targets = [linear[layer] for layer in layers(name)]
        widths = (targets[0].in_features, sum(target.out_features for target in targets))
        if (down.shape[1], up.shape[0]) != widths or len(down) != up.shape[1]:
            raise refused(
                lora, name, f"has the shapes {tuple(down.shape)} and {tuple(up.shape)} for a layer from {widths[0]} to "
                f"{widths[1]}"
            )  # fmt: skip
        scale = scaling(lora, name, len(down), alphas.get(name), config)
        for layer, part in zip(layers(name), up.chunk(len(targets)), strict=True):
            changes[layer] = LowRank(down, part, scale)
    return changes


def read_config(lora: Lora) -> dict[str, Any] | None:
    """What stands beside the matrices: PEFT's settings, in a file of their own or in the header of diffusers' file."""
    if lora.config is not None:
        config = read_json(lora.config)
    else:
        with opened(lora.weights) as file:
            text = (file.metadata() or {}).get(DIFFUSERS_CONFIG)
        if text is None:
            return None
        try:
            config = {PREFIX.sub("", key): value for key, value in json.loads(text).items()}
        except (ValueError, AttributeError) as error:
            raise CheckpointError(f"{lora.weights}: its {DIFFUSERS_CONFIG} cannot be read ({error}).") from error
    begun = str(config.get("init_lora_weights")).lower()
    if config.get("peft_type", "LORA") != "LORA" or begun.startswith(CHANGE_THE_BASE):
        kind = config.get("peft_type", "LORA")
        raise CheckpointError(f"{lora.path} is {kind} begun with {begun}; Easel applies plain LoRA. Choose another.")
    return config


def scaling(lora: Lora, layer: str, rank: int, alpha: float | None, config: dict[str, Any] | None) -> float:
    if config is not None:
        wanted = by_pattern(config.get("rank_pattern"), layer, config.get("r", rank))
        if wanted != rank:
            raise refused(lora, layer, f"has rank {rank}, but {wanted} in the settings beside it")
        alpha = by_pattern(config.get("alpha_pattern"), layer, config.get("lora_alpha")) if alpha is None else alpha
    if alpha is None:
        return 1.0
    return alpha / (rank**0.5 if config is not None and config.get("use_rslora") else rank)


def by_pattern(patterns: dict[str, Any] | None, layer: str, default: Any) -> Any:
    """PEFT's rule: the first whose end matches, as a regular expression."""
    found = (value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", layer))
    return next(found, default)


def layers(name: str) -> list[str]:
    """The layers, here, of one that may have its official name."""
    for official, ours in OFFICIAL_NAMES.items():
        if name.endswith(f".{official}"):
            return [name.removesuffix(official) + part for part in ours]
    return [name]


def refused(lora: Lora, key: str, why: str) -> CheckpointError:
    return CheckpointError(f"{lora.weights}: {key} {why}. Choose a LoRA that was made for this model.")


class Adapters:
    """Puts one LoRA at a time on a denoiser, by writing its weights; taken off, they are what they were, bit for bit.

    `rest`: where exact copies of the weights that are changed are kept meanwhile.
    """

    def __init__(self, dit: HunyuanDiT, rest: str | torch.device | None = None):
        self.dit = dit
        self.rest = dit.device if rest is None else torch.device(rest)
        self.worn: Lora | None = None
        self.settled = True  # False after a breakdown between two of them
        self.base: dict[str, Tensor] = {}
        self.files: dict[str, dict[str, LowRank]] = {}  # by their SHA-256, the latest last

    @torch.inference_mode(False)
    @torch.no_grad()
    def wear(self, lora: Lora | None) -> None:
        """What is wrong with a file is raised before any weight is written."""
        if lora == self.worn and self.settled:
            return
        changes = {} if lora is None else self.read(lora)
        names = [*self.base, *(name for name in changes if name not in self.base)]
        self.settled = False
        for name in names:
            weight = self.dit.get_parameter(f"{name}.weight")
            if name not in self.base:
                self.base[name] = weight.to(self.rest, copy=True)
            base = self.base[name].to(weight.device)
            weight.copy_(base if lora is None or name not in changes else changes[name].added(base, lora.scale))
        self.dit.refresh(names)
        self.base = {name: self.base[name] for name in changes}
        self.worn, self.settled = lora, True

    def read(self, lora: Lora) -> dict[str, LowRank]:
        if Lora(lora.path).sha256 != lora.sha256:
            raise CheckpointError(f"{lora.path} has changed since it was asked for. Ask again.")
        changes = self.files.pop(lora.sha256, None) or read_lora(lora, self.dit)
        self.files[lora.sha256] = changes
        while len(self.files) > KEPT:
            del self.files[next(iter(self.files))]
        return changes
