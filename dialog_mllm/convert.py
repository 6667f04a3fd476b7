"""DialogGen's released weights, or others in LLaVA's own layout, as transformers and vLLM load them.

    easel convert dialoggen ckpts/dialoggen runs/dialoggen     # then a profile with dialog = "runs/dialoggen"

DialogGen (the folder `dialoggen` of Tencent-Hunyuan/HunyuanDiT) is a LLaVA 1.6 on Mistral 7B: a
`LlavaMistralForCausalLM` with a CLIP tower in the same shards, a projector of two layers, and a newline vector between
the rows of a picture's tiles. transformers calls that LlavaNextForConditionalGeneration; without the newline (LLaVA
1.5) it is LlavaForConditionalGeneration. Tensors are copied one at a time and written shard by shard, so memory holds
one shard; no value changes. The vocabulary grows by "<image>" and is padded to a multiple of 64 rows, as in the
llava-hf models; the new rows are the mean of the old ones, so that none is ever the likeliest.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialog_mllm.errors import DialogError

if TYPE_CHECKING:
    import torch

IMAGE = "<image>"
ROWS = 64  # the vocabulary's size is a multiple of it
SHARD_BYTES = 2 << 30
CLIP = "openai/clip-vit-large-patch14-336"  # the only tower whose sizes transformers knows by itself
FAMILIES = {"LlavaMistralForCausalLM": "mistral", "LlavaLlamaForCausalLM": "llama"}
TEXT_KEYS = (
    "attention_dropout", "bos_token_id", "eos_token_id", "head_dim", "hidden_act", "hidden_size", "intermediate_size",
    "max_position_embeddings", "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "rms_norm_eps",
    "rope_scaling", "rope_theta", "sliding_window", "tie_word_embeddings",
)  # fmt: skip
NAMES = (  # LLaVA's name -> transformers'; what matches none is refused
    (r"model\.vision_tower\.vision_tower\.vision_model\.(.+)", r"vision_tower.vision_model.\1"),
    (r"model\.mm_projector\.0\.(weight|bias)", r"multi_modal_projector.linear_1.\1"),
    (r"model\.mm_projector\.2\.(weight|bias)", r"multi_modal_projector.linear_2.\1"),
    (r"model\.image_newline", r"image_newline"),
    (r"model\.((?:layers|norm|embed_tokens)\..+)", r"language_model.model.\1"),
    (r"lm_head\.(.+)", r"language_model.lm_head.\1"),
)
IGNORED = (".rotary_emb.inv_freq", ".embeddings.position_ids")  # computed, not learnt; old releases hold them
# What LLaVA calls "llava_v1", and DialogGen is asked in.
CHAT_TEMPLATE = (
    "{{ bos_token }}A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. "
    "{% for message in messages %}{% if message.role == 'assistant' %}ASSISTANT: {{ text(message) }}</s>"
    "{% elif message.role == 'system' %}{{ text(message) }} {% else %}USER: {{ text(message) }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_TEXT_MACRO = (
    "{% macro text(message) %}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}{% else %}<image>\n{% endif %}"
    "{% endfor %}{% endif %}{% endmacro %}"
)


class ConversionError(DialogError):
    """The folder is not what can be converted, or the result cannot be written; the text says why."""


def new_name(name: str) -> str | None:
    """transformers' name of a tensor; None for one that is not needed."""
    if name.endswith(IGNORED):
        return None
    for pattern, replacement in NAMES:
        if match := re.fullmatch(pattern, name):
            return match.expand(replacement)
    raise ConversionError(f"The weights hold {name}, which no LLaVA of the known layout has.")


def convert(
    source: Path,
    out: Path,
    shard_bytes: int = SHARD_BYTES,
    on_shard: Callable[[int, int], None] = lambda number, total: None,
) -> dict[str, Any]:
    """Writes the folder `out`; config.json, which vLLM asks for first, comes last. Raises ConversionError."""
    old = _read_config(source)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConversionError(f"{out} is there already: name a folder that is new or empty.")
    files = sorted(source.glob("*.safetensors"))
    if not files:
        raise ConversionError(f"{source} holds no *.safetensors.")
    names = [name for file in files for name in _names(file)]
    renamed = {name: new for name in names if (new := new_name(name)) is not None}
    if not any(new.startswith("vision_tower.") for new in renamed.values()):
        raise ConversionError(
            f"The weights in {source} hold no vision tower: use a release that does (LLaVA 1.6 does)."
        )
    processor = _processor(source, old)
    config = _config(source, old, processor.tokenizer, newline="image_newline" in renamed.values())
    try:
        out.mkdir(parents=True, exist_ok=True)
        processor.save_pretrained(out)
        total = _write_weights(files, renamed, out, config.text_config.vocab_size, shard_bytes, on_shard)
        config.save_pretrained(out)
    except OSError as error:
        raise ConversionError(f"{error.filename or out}: {error.strerror or error}.") from error
    return {"out": str(out), "model_type": config.model_type, "tensors": len(renamed), "bytes": total}


def _read_config(source: Path) -> dict[str, Any]:
    try:
        old = json.loads((source / "config.json").read_text(encoding="utf-8"))
        family = old["architectures"][0]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ConversionError(f"{source} holds no model's config.json ({error!r}).") from error
    if family not in FAMILIES:
        raise ConversionError(f"{source} holds a {family}; what can be converted is {' or '.join(FAMILIES)}.")
    if old.get("mm_projector_type") != "mlp2x_gelu":
        raise ConversionError(f"{source}: its projector is {old.get('mm_projector_type')!r}, not 'mlp2x_gelu'.")
    return old


def _names(file: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as tensors:
            return list(tensors.keys())
    except (OSError, SafetensorError) as error:
        raise ConversionError(f"The weights {file} are damaged ({error}). Fetch the file again.") from error


def _write_weights(
    files: list[Path],
    renamed: dict[str, str],
    out: Path,
    rows: int,
    shard_bytes: int,
    on_shard: Callable[[int, int], None],
) -> int:
    """Returns the bytes of all tensors."""
    from safetensors.torch import save_file

    places: dict[str, int] = {}
    shard: dict[str, torch.Tensor] = {}
    held = total = number = 0

    def write() -> None:
        nonlocal held, number
        number += 1
        save_file(shard, _shard(out, number), metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, number))
        shard.clear()
        held = 0
        on_shard(number, total)

    for name, tensor in _tensors(files, renamed):
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            tensor = _with_rows(tensor, rows)
        size = tensor.numel() * tensor.element_size()
        if shard and held + size > shard_bytes:
            write()
        shard[name] = tensor
        held += size
        total += size
    write()
    final = {i: f"model-{i:05d}-of-{number:05d}.safetensors" for i in range(1, number + 1)}
    for i, file in final.items():
        _shard(out, i).replace(out / file)
    index = {"metadata": {"total_size": total}, "weight_map": {name: final[i] for name, i in sorted(places.items())}}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    return total


def _shard(out: Path, number: int) -> Path:
    return out / f"model-{number:05d}.partial"


def _tensors(files: list[Path], renamed: dict[str, str]) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors import safe_open

    for file in files:
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                if name in renamed:
                    yield renamed[name], tensors.get_tensor(name)


def _with_rows(weight: torch.Tensor, rows: int) -> torch.Tensor:
    """The matrix with so many rows, the new ones the mean of the others."""
    import torch

    mean = weight.float().mean(0, keepdim=True).to(weight.dtype)
    return torch.cat([weight, mean.expand(rows - len(weight), -1)])


def _processor(source: Path, old: dict[str, Any]) -> Any:
    """The tokenizer with "<image>", and what prepares pictures."""
    from transformers import AutoTokenizer
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
    from transformers.models.llava.processing_llava import LlavaProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
    from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise ConversionError(f"The tokenizer in {source} cannot be read: {error}") from error
    tokenizer.add_special_tokens({"extra_special_tokens": [IMAGE]})
    vision = _vision_config(source, old)
    side = vision.image_size
    pictures: dict[str, Any] = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    common = {
        "tokenizer": tokenizer, "patch_size": vision.patch_size, "vision_feature_select_strategy": _strategy(old),
        "num_additional_image_tokens": 1, "chat_template": _TEXT_MACRO + CHAT_TEMPLATE,
    }  # fmt: skip
    if _has_newline(old):
        pictures["image_grid_pinpoints"] = old["image_grid_pinpoints"]
        return LlavaNextProcessor(LlavaNextImageProcessorPil(**pictures), **common)
    pad = old.get("image_aspect_ratio") == "pad"
    return LlavaProcessor(LlavaImageProcessorPil(do_pad=pad, **pictures), **common)


def _has_newline(old: dict[str, Any]) -> bool:
    return "unpad" in old.get("mm_patch_merge_type", "flat")


def _strategy(old: dict[str, Any]) -> str:
    """LLaVA's "patch" leaves the class token out."""
    return "default" if old.get("mm_vision_select_feature", "patch") == "patch" else "full"


def _vision_config(source: Path, old: dict[str, Any]) -> Any:
    """The released folder holds the tower's own config beside its name."""
    from transformers import CLIPVisionConfig

    tower = str(old.get("mm_vision_tower", ""))
    path = source / tower / "config.json"
    if path.is_file():
        values = json.loads(path.read_text(encoding="utf-8"))
        return CLIPVisionConfig(**values.get("vision_config", values))
    if tower.endswith(CLIP.split("/")[-1]):
        return CLIPVisionConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
            patch_size=14, projection_dim=768,
        )  # fmt: skip
    raise ConversionError(f"{path} is missing: put the config.json of the vision tower {tower!r} there.")


def _config(source: Path, old: dict[str, Any], tokenizer: Any, newline: bool) -> Any:
    from transformers import LlamaConfig, LlavaConfig, LlavaNextConfig, MistralConfig

    if newline != _has_newline(old):
        raise ConversionError(f"{source}: its config.json and its weights disagree about image_newline.")
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    rows = -(-max(old["vocab_size"], image_id + 1) // ROWS) * ROWS
    text_class = MistralConfig if FAMILIES[old["architectures"][0]] == "mistral" else LlamaConfig
    text = text_class(**{key: old[key] for key in TEXT_KEYS if key in old}, vocab_size=rows)
    vision = _vision_config(source, old)
    config: dict[str, Any] = {
        "text_config": text, "vision_config": vision, "image_token_index": image_id,
        "vision_feature_layer": old.get("mm_vision_select_layer", -2), "vision_feature_select_strategy": _strategy(old),
        "image_seq_length": (vision.image_size // vision.patch_size) ** 2, "tie_word_embeddings": False,
        "dtype": old.get("torch_dtype") or old.get("dtype") or "float16",
    }  # fmt: skip
    if newline:
        config = {**config, "image_grid_pinpoints": old["image_grid_pinpoints"]}
        return LlavaNextConfig(**config, architectures=["LlavaNextForConditionalGeneration"])
    return LlavaConfig(**config, architectures=["LlavaForConditionalGeneration"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="the folder of the released weights")
    parser.add_argument("out", type=Path, help="the new folder")


def run(args: argparse.Namespace) -> dict[str, Any]:
    def show(number: int, total: int) -> None:
        print(f"\rshard {number}, {total / 1e9:.1f} GB", end="", file=sys.stderr, flush=True)

    try:
        return convert(args.source, args.out, on_shard=show)
    finally:
        print(file=sys.stderr)
