"""A small random checkpoint in LLaVA's layout, converted: logits as LLaVA itself computes them, written out here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from app.cli import main as easel
from dialog_mllm.convert import ConversionError, convert, new_name

SIDE, PATCH = 28, 14  # a tile is 2 by 2 patches
TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_hidden_layers": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 256,
    "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2, "sliding_window": None, "tie_word_embeddings": False,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": SIDE,
    "patch_size": PATCH, "projection_dim": 16,
}  # fmt: skip
PINPOINTS = [[28, 56], [56, 28], [56, 56]]


def write_tokenizer(folder: Path) -> int:
    """A sentencepiece model and its settings, as LLaVA ships them. Returns the vocabulary's size."""
    import sentencepiece

    words = ["draw a red fox in the snow", "make it bigger", "USER ASSISTANT", "画一只红色的狐狸"]
    with (folder / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(words * 10), model_writer=file, vocab_size=320, model_type="bpe",
            byte_fallback=True, hard_vocab_limit=False, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2,
        )  # fmt: skip
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": False, **names})
    )
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).vocab_size()


def write_checkpoint(folder: Path, family: str, newline: bool) -> dict[str, Tensor]:
    """In the released layout, in three shards; the tower's config stands in a folder of its name."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, MistralConfig, MistralForCausalLM

    torch.manual_seed(3)
    folder.mkdir(parents=True)
    size = write_tokenizer(folder)
    language = MistralForCausalLM(MistralConfig(**TEXT, vocab_size=size))
    tower = CLIPVisionModel(CLIPVisionConfig(**VISION))
    weights = {name: value for name, value in language.state_dict().items()}
    for name, value in tower.state_dict().items():
        weights[f"model.vision_tower.vision_tower.vision_model.{name.removeprefix('vision_model.')}"] = value
    for layer, width in ((0, 16), (2, 32)):
        weights[f"model.mm_projector.{layer}.weight"] = torch.randn(32, width) / 4
        weights[f"model.mm_projector.{layer}.bias"] = torch.randn(32) / 4
    if newline:
        weights["model.image_newline"] = torch.randn(32)
    weights = {name: (value * (1 + torch.rand_like(value) / 10)).contiguous() if value.is_floating_point() else value
               for name, value in weights.items() if value.is_floating_point()}  # fmt: skip
    names = sorted(weights)
    for number in range(3):
        save_file({name: weights[name] for name in names[number::3]}, folder / f"model-{number}.safetensors")
    config = {
        **TEXT, "architectures": [family], "model_type": family.removesuffix("ForCausalLM").lower(),
        "vocab_size": size, "mm_projector_type": "mlp2x_gelu",
        "mm_vision_tower": "openai/clip", "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch",
        "torch_dtype": "float32",
        **({"mm_patch_merge_type": "spatial_unpad", "image_aspect_ratio": "anyres", "image_grid_pinpoints": PINPOINTS}
           if newline else {"mm_patch_merge_type": "flat", "image_aspect_ratio": "pad"}),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "openai" / "clip").mkdir(parents=True)
    (folder / "openai" / "clip" / "config.json").write_text(json.dumps({"vision_config": VISION}))
    return weights


class Reference:
    """LLaVA's forward pass in plain torch, from the released names alone."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.w = weights

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"))

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"], 1e-5)

    def tiles(self, pixels: Tensor) -> Tensor:
        """(tiles, 3, 28, 28) -> (tiles, 4, 32): the tower's last layer but one, without the class token, projected."""
        v = "model.vision_tower.vision_tower.vision_model"
        x = F.conv2d(pixels, self.w[f"{v}.embeddings.patch_embedding.weight"], stride=PATCH).flatten(2).transpose(1, 2)
        first = self.w[f"{v}.embeddings.class_embedding"].expand(len(x), 1, -1)
        x = torch.cat([first, x], 1) + self.w[f"{v}.embeddings.position_embedding.weight"]
        x = self.norm(x, f"{v}.pre_layrnorm")
        for i in range(VISION["num_hidden_layers"] - 1):
            layer = f"{v}.encoder.layers.{i}"
            y = self.norm(x, f"{layer}.layer_norm1")
            q, k, h = (
                self.linear(y, f"{layer}.self_attn.{n}_proj").unflatten(-1, (2, -1)).transpose(1, 2) for n in "qkv"
            )
            x = x + self.linear(F.scaled_dot_product_attention(q, k, h).transpose(1, 2).flatten(2),
                                f"{layer}.self_attn.out_proj")  # fmt: skip
            y = self.linear(self.norm(x, f"{layer}.layer_norm2"), f"{layer}.mlp.fc1")
            x = x + self.linear(y * torch.sigmoid(1.702 * y), f"{layer}.mlp.fc2")
        x = F.gelu(self.linear(x[:, 1:], "model.mm_projector.0"))
        return self.linear(x, "model.mm_projector.2")

    def picture(self, pixels: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        """The whole picture's tile, then the grid's patches row by row, without the padding, a newline behind each."""
        tiles = self.tiles(pixels)
        (rows, columns), (height, width) = grid, size
        patches = tiles[1:].reshape(rows, columns, 2, 2, 32).transpose(1, 2).reshape(rows * 2, columns * 2, 32)
        if width / height > columns / rows:
            cut = (rows * 2 - int(height * columns * 2 / width)) // 2
            patches = patches[cut : rows * 2 - cut]
        else:
            cut = (columns * 2 - int(width * rows * 2 / height)) // 2
            patches = patches[:, cut : columns * 2 - cut]
        newline = self.w["model.image_newline"].expand(len(patches), 1, 32)
        return torch.cat([tiles[0], torch.cat([patches, newline], 1).flatten(0, 1)])

    def language(self, x: Tensor) -> Tensor:
        """(tokens, 32) -> (tokens, vocabulary)"""
        n = len(x)
        angles = torch.arange(n)[:, None] * TEXT["rope_theta"] ** -(torch.arange(0, 8, 2) / 8)
        cos, sin = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()

        def turn(t: Tensor) -> Tensor:
            return t * cos + torch.cat([-t[..., 4:], t[..., :4]], -1) * sin

        def rms(t: Tensor, name: str) -> Tensor:
            return t * (t.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * self.w[f"{name}.weight"]

        for i in range(TEXT["num_hidden_layers"]):
            layer = f"model.layers.{i}"
            y = rms(x, f"{layer}.input_layernorm")
            q, k, v = (
                self.linear(y, f"{layer}.self_attn.{p}_proj").unflatten(-1, (-1, 8)).transpose(0, 1) for p in "qkv"
            )
            k, v = turn(k).repeat_interleave(2, 0), v.repeat_interleave(2, 0)
            mixed = F.scaled_dot_product_attention(turn(q)[None], k[None], v[None], is_causal=True)[0]
            x = x + self.linear(mixed.transpose(0, 1).flatten(1), f"{layer}.self_attn.o_proj")
            y = rms(x, f"{layer}.post_attention_layernorm")
            gated = F.silu(self.linear(y, f"{layer}.mlp.gate_proj")) * self.linear(y, f"{layer}.mlp.up_proj")
            x = x + self.linear(gated, f"{layer}.mlp.down_proj")
        return self.linear(rms(x, "model.norm"), "lm_head")


def load(folder: Path) -> Any:
    from transformers import AutoModelForImageTextToText

    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model.eval()


@pytest.mark.parametrize(("size", "grid"), [((28, 56), (1, 2)), ((56, 28), (2, 1)), ((56, 40), (2, 2))])
@torch.inference_mode()
def test_dialoggens_layout(tmp_path: Path, size: tuple[int, int], grid: tuple[int, int]) -> None:
    weights = write_checkpoint(tmp_path / "in", "LlavaMistralForCausalLM", newline=True)
    told = convert(tmp_path / "in", tmp_path / "out", shard_bytes=20_000)
    assert told["model_type"] == "llava_next" and len(list((tmp_path / "out").glob("*.safetensors"))) > 3
    model = load(tmp_path / "out")
    image = model.config.image_token_id
    assert model.config.text_config.vocab_size % 64 == 0 and image < model.config.text_config.vocab_size
    pixels = torch.randn(1 + grid[0] * grid[1], 3, SIDE, SIDE)
    reference = Reference(weights)
    features = reference.picture(pixels, size, grid)
    before, after = torch.tensor([1, 5, 9]), torch.tensor([7, 20, 30])
    embeddings = weights["model.embed_tokens.weight"]
    wanted = reference.language(torch.cat([embeddings[before], features, embeddings[after]]))
    ids = torch.cat([before, torch.full((len(features),), image), after])[None]
    got = model(input_ids=ids, pixel_values=pixels[None], image_sizes=torch.tensor([size])).logits[0]
    assert torch.allclose(got[:, : wanted.shape[1]], wanted, atol=1e-4)
    assert (got[:, wanted.shape[1] :].amax(1) < wanted.amax(1)).all()  # no new token is ever the likeliest


@torch.inference_mode()
def test_llava_15s_layout(tmp_path: Path) -> None:
    weights = write_checkpoint(tmp_path / "in", "LlavaLlamaForCausalLM", newline=False)
    assert convert(tmp_path / "in", tmp_path / "out")["model_type"] == "llava"
    model = load(tmp_path / "out")
    pixels = torch.randn(1, 3, SIDE, SIDE)
    reference = Reference(weights)
    text = torch.tensor([1, 5, 9])
    wanted = reference.language(torch.cat([reference.tiles(pixels)[0], weights["model.embed_tokens.weight"][text]]))
    ids = torch.cat([torch.full((4,), model.config.image_token_id), text])[None]
    got = model(input_ids=ids, pixel_values=pixels).logits[0, :, : wanted.shape[1]]
    assert torch.allclose(got, wanted, atol=1e-4)


def test_the_processor_prepares_what_the_model_takes(tmp_path: Path) -> None:
    from PIL import Image
    from transformers import AutoTokenizer
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
    from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

    write_checkpoint(tmp_path / "in", "LlavaMistralForCausalLM", newline=True)
    convert(tmp_path / "in", tmp_path / "out")
    out = tmp_path / "out"
    tokenizer = AutoTokenizer.from_pretrained(out)
    pictures = LlavaNextImageProcessorPil.from_pretrained(out)
    template = (out / "chat_template.jinja").read_text(encoding="utf-8")
    processor = LlavaNextProcessor(pictures, tokenizer, PATCH, "default", template, num_additional_image_tokens=1)
    content = [{"type": "image"}, {"type": "text", "text": "make it red"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "<draw>a fox"},
                {"role": "user", "content": [{"type": "text", "text": "bigger"}]}]  # fmt: skip
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.endswith("USER: <image>\nmake it red ASSISTANT: <draw>a fox</s>USER: bigger ASSISTANT:")
    inputs = processor(text=text, images=[Image.new("RGB", (56, 40), "red")], return_tensors="pt")
    with torch.inference_mode():
        logits = load(out)(**inputs).logits
    assert logits.isfinite().all() and logits.shape[1] == inputs["input_ids"].shape[1]


def test_what_cannot_be_converted_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert easel(["convert", "dialoggen", str(tmp_path / "no"), str(tmp_path / "out")]) == 1
    assert "holds no model's config.json" in capsys.readouterr().err
    source = tmp_path / "in"
    write_checkpoint(source, "LlavaMistralForCausalLM", newline=True)
    config = json.loads((source / "config.json").read_text())

    def fails(message: str, **changes: Any) -> None:
        (source / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(ConversionError, match=message):
            convert(source, tmp_path / "out")
        assert not (tmp_path / "out" / "config.json").exists()

    fails("holds a BertModel", architectures=["BertModel"])
    fails("projector is 'linear'", mm_projector_type="linear")
    fails("config.json is missing", mm_vision_tower="some/other-tower")
    with pytest.raises(ConversionError, match=r"model\.extra"):
        new_name("model.extra.weight")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(ConversionError, match="is there already"):
        convert(source, tmp_path / "full")
    (source / "model-0.safetensors").write_bytes(b"broken")
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConversionError, match="damaged"):
        convert(source, tmp_path / "out2")
