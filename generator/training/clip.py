"""The bilingual CLIP pair: a BertModel that reads prompts and a ViT that sees pictures, brought together by contrast.

    easel train clip --pictures runs/pictures --out runs/clip --minutes 8

The text tower conditions the denoiser (Hunyuan-DiT, arXiv 2405.08748, section 2.1); the image tower stays for scores.
The loss is CLIP's symmetric cross-entropy (arXiv 2103.00020).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.checkpoint import read_json, read_tensors, write_json, write_tensors
from generator.training.data import PictureShards, epochs
from generator.training.loop import FitConfig, Losses, fit, mixed_precision
from generator.training.text import CaptionTokens, all_texts, train_tokenizer

HEADS = "heads.safetensors"


@dataclass(frozen=True)
class ClipConfig:
    pictures: Path
    out: Path
    minutes: float = 8.0
    steps: int = 100_000
    batch: int = 256
    learning_rate: float = 1e-3
    vocabulary: int = 3072
    text_len: int = 64
    width: int = 256
    layers: int = 4
    image_width: int = 192
    image_layers: int = 5
    joint: int = 256
    refined: float = 0.5
    seed: int = 0


class Clip(nn.Module):
    """Both towers with their projections into one space."""

    def __init__(self, text: Any, image: Any, joint: int) -> None:
        super().__init__()
        self.text, self.image = text, image
        self.text_head = nn.Linear(text.config.hidden_size, joint, bias=False)
        self.image_head = nn.Linear(image.config.hidden_size, joint, bias=False)
        self.temperature = nn.Parameter(torch.tensor(2.66))  # log(1 / 0.07)

    def embed_text(self, ids: Tensor) -> Tensor:  # (B, S) -> (B, joint), of length 1
        states = self.text(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
        return F.normalize(self.text_head(states[:, 0]).float(), dim=-1)

    def embed_image(self, pixels: Tensor) -> Tensor:  # (B, 3, 128, 128) in -1 ... 1 -> (B, joint), of length 1
        states = self.image(pixel_values=pixels).last_hidden_state
        return F.normalize(self.image_head(states[:, 1:].mean(1)).float(), dim=-1)

    @classmethod
    def build(cls, config: ClipConfig, vocabulary: int) -> Clip:
        from transformers import BertConfig, BertModel, CLIPVisionConfig, CLIPVisionModel

        text = BertConfig(
            vocab_size=vocabulary, hidden_size=config.width, num_hidden_layers=config.layers,
            num_attention_heads=config.width // 64, intermediate_size=4 * config.width, type_vocab_size=1,
            max_position_embeddings=config.text_len, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            pad_token_id=0,
        )  # fmt: skip
        image = CLIPVisionConfig(
            hidden_size=config.image_width, intermediate_size=4 * config.image_width, image_size=128, patch_size=16,
            num_hidden_layers=config.image_layers, num_attention_heads=config.image_width // 64, hidden_act="gelu",
        )  # fmt: skip
        return cls(BertModel(text, add_pooling_layer=False), CLIPVisionModel(image), config.joint)

    def save(self, folder: Path) -> None:
        self.text.save_pretrained(folder / "text")
        self.image.save_pretrained(folder / "image")
        heads = {"text_head": self.text_head.weight, "image_head": self.image_head.weight,
                 "temperature": self.temperature}  # fmt: skip
        write_tensors(folder, heads, torch.float32, HEADS)
        write_json(folder / "config.json", {"joint": self.text_head.out_features})

    @classmethod
    def load(cls, folder: Path) -> Clip:
        from transformers import BertModel, CLIPVisionModel

        joint = read_json(folder / "config.json")["joint"]
        text = BertModel.from_pretrained(folder / "text", add_pooling_layer=False)
        clip = cls(text, CLIPVisionModel.from_pretrained(folder / "image"), joint)
        heads = read_tensors(folder, torch.float32, HEADS)
        clip.text_head.weight.data = heads["text_head"]
        clip.image_head.weight.data = heads["image_head"]
        clip.temperature.data = heads["temperature"]
        return clip.eval()


def train_clip(config: ClipConfig) -> dict[str, float]:
    """Trains the tokenizer and both towers; writes `config.out/clip` (with `tokenizer/`) and returns last figures."""
    torch.manual_seed(config.seed)
    shards = PictureShards(config.pictures)
    some = shards.records[:: max(1, len(shards) // 8000)]
    tokenizer = train_tokenizer((t for r in some for t in all_texts(r)), config.vocabulary, config.text_len)
    tokens = CaptionTokens(shards, tokenizer, config.text_len)
    clip = Clip.build(config, len(tokenizer))
    rng = random.Random(config.seed)
    batches = epochs(len(shards), config.batch, config.seed)

    def loss(step: int) -> Losses:
        indices = next(batches)
        ids = tokens.pick(indices, rng, config.refined)
        with mixed_precision():
            text, image = clip.embed_text(ids), clip.embed_image(shards.pixels(indices))
        logits = clip.temperature.exp().clamp(max=100) * text @ image.T  # (B, B)
        right = torch.arange(len(indices))
        value = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
        top1 = (logits.argmax(1) == right).float().mean()
        return {"loss": value, "top1": top1.detach()}

    fit_config = FitConfig(
        config.out, config.steps, config.minutes, config.learning_rate, seed=config.seed, ema=0.995, save_every=200
    )
    result = fit(fit_config, {"clip": clip}, loss)
    clip.save(config.out / "clip")
    tokenizer.save_pretrained(config.out / "clip" / "tokenizer")
    return result
