"""The two text encoders from nothing: how they begin, and the phase in which they learn to read.

A first phase of `easel train dit`. The denoiser's loss teaches words very slowly; here every attribute of a scene is
asked of the encoders' states directly (`TextReader`), and minutes are enough.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from generator.training.data import Epochs, PictureShards, chance
from generator.training.hints import SceneLabels, TextReader
from generator.training.loop import FitConfig, Losses, fit, mixed_precision
from generator.training.text import LANGUAGES, CaptionTokens

# Torch's fused attention on CPUs has a slow backward pass in bfloat16.
EAGER: dict[str, Any] = {"attn_implementation": "eager"}


def build_clip(width: int, layers: int, vocabulary: int, length: int) -> Any:
    """CLIP's text tower, a BertModel."""
    from transformers import BertConfig, BertModel

    bert = BertConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64,
        intermediate_size=4 * width, type_vocab_size=1, max_position_embeddings=length, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, pad_token_id=0, **EAGER,
    )  # fmt: skip
    clip = BertModel(bert, add_pooling_layer=False)
    # BERT's own 0.02 leaves words nearly equal beside what an optimiser's first steps add to all of them.
    nn.init.normal_(clip.embeddings.word_embeddings.weight, std=0.5)
    return clip


def build_t5(width: int, layers: int, vocabulary: int) -> Any:
    """The encoder of a T5."""
    from transformers import T5Config, T5EncoderModel

    t5 = T5EncoderModel(
        T5Config(
            vocab_size=vocabulary, d_model=width, d_kv=64, num_heads=width // 64, d_ff=3 * width, num_layers=layers,
            feed_forward_proj="gated-gelu", dropout_rate=0.0, pad_token_id=0, **EAGER,
        )
    )  # fmt: skip
    attention = t5.encoder.block[0].layer[0].SelfAttention  # its position biases serve all layers
    attention.relative_attention_bias.weight.data.copy_(near_words_first(attention))
    return t5


def near_words_first(attention: Any) -> Tensor:
    """Position biases (buckets, heads) with which words look at their neighbours before anything is learnt.

    T5's only sense of order is these biases. Begun at random they are small, and stay so for hundreds of steps: which
    colour is whose cannot be told meanwhile. The heads look left, right, to both sides and everywhere, in turn.
    """
    distances = torch.arange(-64, 65)
    buckets = attention._relative_position_bucket(
        distances, num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )  # fmt: skip
    near = -distances.abs().float()
    behind, before = near - 20.0 * (distances > 0), near - 20.0 * (distances < 0)
    shapes = [torch.maximum(shape, near.new_tensor(-6.0)) for shape in (behind, before, 0.5 * near, 0 * near)]
    biases = torch.zeros_like(attention.relative_attention_bias.weight)
    for head in range(biases.shape[1]):
        for bucket in buckets.unique():
            biases[bucket, head] = shapes[head % len(shapes)][buckets == bucket].mean()
    return biases


def train_reading(
    config: FitConfig, encoders: dict[str, Any], tokens: CaptionTokens, labels: SceneLabels, refined: float
) -> dict[str, TextReader]:
    """Teaches the encoders what the words mean: every attribute of the scene is read from their states.

    `config` names the run's folder, minutes and seed; `refined` is the share of refined prompts among the texts.
    """
    readers = {name: TextReader(labels.labels, encoder.config.hidden_size) for name, encoder in encoders.items()}
    batches = Epochs(len(tokens), 512, config.seed)
    waiting: list[tuple[Tensor, Any]] = []

    def next_batch(step: int) -> tuple[Tensor, Any]:
        """Texts of like length: little padding is read."""
        if not waiting:
            indices, rng = batches[step], chance(config.seed, step)
            ids = tokens.pick(indices, rng, refined)
            order = (ids != 0).sum(1).argsort()
            waiting.extend((ids[part], indices[part.numpy()]) for part in order.split(128))
            rng.shuffle(waiting)
        return waiting.pop()

    def loss(step: int) -> Losses:
        ids, indices = next_batch(step)
        ids = ids[:, : int((ids != 0).sum(1).max())]
        mask, wanted, losses = (ids != 0).long(), labels.of(indices), {}
        with mixed_precision():
            for name, encoder in encoders.items():
                states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
                losses[name] = readers[name].loss(states, mask, wanted)
        return {"loss": torch.stack(list(losses.values())).sum(), **{k: v.detach() for k, v in losses.items()}}

    config = replace(config, learning_rate=1e-3, ema=0.99, save_every=200, log_every=20, warmup=20, decay_share=0.5)
    fit(config, encoders | {f"{name}-reader": reader for name, reader in readers.items()}, loss)
    return readers


@torch.no_grad()
def try_reading(
    readers: dict[str, TextReader], encoders: dict[str, Any], shards: PictureShards, tokenizer: Any, length: int
) -> None:
    """Prints what each encoder lets its reader tell from refined prompts in both languages: shares read right."""
    rows = range(min(256, len(shards)))
    labels = SceneLabels(shards, patch=2).of(rows)
    wanted = {name: torch.cat([values, values]) for name, values in labels.items()}
    texts = [shards.records[i]["prompt"][language] for language in LANGUAGES for i in rows]
    ids = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    mask = (ids != 0).long()
    for name, reader in readers.items():
        states = encoders[name](input_ids=ids, attention_mask=mask).last_hidden_state
        shares = reader.accuracy(states, mask, wanted)
        print(f"{name} reads " + " ".join(f"{key} {value:.3f}" for key, value in shares.items()), flush=True)
