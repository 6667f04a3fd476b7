"""The tokenizer of both text encoders, and all captions of a set of pictures as token ids.

One byte-level BPE over the captions in both languages serves the CLIP tower and the T5 encoder.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generator.training.data import PictureShards

LANGUAGES = ("en", "zh")
SPECIAL = ("[PAD]", "[CLS]", "[SEP]")


def train_tokenizer(texts: Iterable[str], vocabulary: int, length: int) -> Any:
    """A transformers tokenizer that writes [CLS] text [SEP], padded with [PAD] to `length`."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    # Chinese has no spaces: each character is a word of its own, or whole phrases would become tokens.
    character = Regex(r"\p{Han}")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(character, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=True)]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip
    bpe.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, i) for i, token in enumerate(SPECIAL)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", model_max_length=length
    )


def all_texts(record: dict[str, Any]) -> list[str]:
    """A picture's texts: for each language the refined prompt, then the captions."""
    return [text for language in LANGUAGES for text in (record["prompt"][language], *record["captions"][language])]


class CaptionTokens:
    """Token ids of every text of every picture, so that a training step tokenizes nothing. 0 is padding."""

    def __init__(self, shards: PictureShards, tokenizer: Any, length: int) -> None:
        self.per_picture = len(all_texts(shards.records[0]))
        self.ids = np.zeros((len(shards) * self.per_picture, length), np.uint16)
        texts = [text for record in shards.records for text in all_texts(record)]
        for start in range(0, len(texts), 8192):
            part = tokenizer(texts[start : start + 8192], padding="max_length", max_length=length, truncation=True)
            self.ids[start : start + 8192] = part["input_ids"]
        empty = tokenizer([""], padding="max_length", max_length=length)["input_ids"][0]
        self.empty = np.array(empty, np.uint16)

    def __len__(self) -> int:
        return len(self.ids) // self.per_picture

    def pick(self, indices: Iterable[int], rng: random.Random, refined: float, empty: float = 0.0) -> Tensor:
        """One text for each picture: refined with probability `refined`, none with `empty`. -> (n, length) int64."""
        rows = []
        half = self.per_picture // len(LANGUAGES)
        for index in indices:
            if rng.random() < empty:
                rows.append(self.empty)
                continue
            place = 0 if rng.random() < refined else rng.randrange(1, half)
            rows.append(self.ids[index * self.per_picture + rng.choice((0, half)) + place])
        return torch.from_numpy(np.stack(rows).astype(np.int64))
