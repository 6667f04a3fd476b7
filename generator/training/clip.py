"""The bilingual CLIP pair: the BertModel that reads prompts for the denoiser, and a ViT that sees pictures.

    easel train clip --pictures runs/pictures --model runs/dit/storybook --out runs/clip --minutes 8

The text tower has learnt to read already (`reading.py`), and stays as it is: locked-text tuning, the
mirror of LiT (arXiv 2111.07991). The loss is CLIP's symmetric cross-entropy (arXiv 2103.00020).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.checkpoint import write_json, write_tensors
from generator.training.data import Epochs, PictureShards, chance
from generator.training.loop import FitConfig, Losses, fit, mixed_precision
from generator.training.reading import EAGER
from generator.training.text import CaptionTokens

HEADS = "heads.safetensors"


@dataclass(frozen=True)
class ClipConfig:
    pictures: Path
    model: Path
    out: Path
    minutes: float = 8.0
    steps: int = 100_000
    batch: int = 256
    learning_rate: float = 1e-3
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
        mask = (ids != 0)[..., None]
        states = self.text(input_ids=ids, attention_mask=mask[..., 0].long()).last_hidden_state
        mean = (states * mask).sum(1) / mask.sum(1)  # [CLS] says nothing by itself to the denoiser
        return F.normalize(self.text_head(mean).float(), dim=-1)

    def embed_image(self, pixels: Tensor) -> Tensor:  # (B, 3, 128, 128) in -1 ... 1 -> (B, joint), of length 1
        states = self.image(pixel_values=pixels).last_hidden_state
        return F.normalize(self.image_head(states[:, 1:].mean(1)).float(), dim=-1)

    @classmethod
    def build(cls, text: Any, config: ClipConfig) -> Clip:
        from transformers import CLIPVisionConfig, CLIPVisionModel

        image = CLIPVisionConfig(
            hidden_size=config.image_width, intermediate_size=4 * config.image_width, image_size=128, patch_size=16,
            num_hidden_layers=config.image_layers, num_attention_heads=config.image_width // 64, hidden_act="gelu",
            **EAGER,
        )  # fmt: skip
        return cls(text, CLIPVisionModel(image), config.joint)

    def save(self, folder: Path) -> None:
        """The image tower and both projections; the text tower stands in the model folder."""
        self.image.save_pretrained(folder / "image")
        heads = {"text_head": self.text_head.weight, "image_head": self.image_head.weight,
                 "temperature": self.temperature}  # fmt: skip
        write_tensors(folder, heads, torch.float32, HEADS)
        write_json(folder / "config.json", {"joint": self.text_head.out_features})


def train_clip(config: ClipConfig) -> dict[str, float]:
    """Fits image tower and projections to the model folder's text tower; writes `config.out/clip`."""
    from transformers import AutoTokenizer, BertModel

    torch.manual_seed(config.seed)
    shards = PictureShards(config.pictures)
    tokenizer = AutoTokenizer.from_pretrained(config.model / "tokenizer")
    text = BertModel.from_pretrained(config.model / "text_encoder", add_pooling_layer=False, dtype=torch.float32)
    tokens = CaptionTokens(shards, tokenizer, tokenizer.model_max_length)
    clip = Clip.build(text.eval().requires_grad_(False), config)
    batches = Epochs(len(shards), config.batch, config.seed)

    def loss(step: int) -> Losses:
        indices = batches[step]
        ids = tokens.pick(indices, chance(config.seed, step), config.refined)
        ids = ids[:, : int((ids != 0).sum(1).max())]  # padding that no text of the batch needs
        with mixed_precision():
            text, image = clip.embed_text(ids), clip.embed_image(shards.pixels(indices))
        logits = clip.temperature.exp().clamp(max=100) * text @ image.T  # (B, B)
        right = torch.arange(len(indices))
        value = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
        top1 = (logits.argmax(1) == right).float().mean()
        return {"loss": value, "top1": top1.detach()}

    fit_config = FitConfig(
        config.out, config.steps, config.minutes, config.learning_rate, seed=config.seed, ema=0.98, save_every=200,
        log_every=20, warmup=20,
    )  # fmt: skip
    result = fit(fit_config, {"clip": clip}, loss)
    clip.save(config.out / "clip")
    return result
