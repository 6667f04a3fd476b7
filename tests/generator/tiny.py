"""A tiny Hunyuan-DiT folder with random weights, made by diffusers and transformers themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, HunyuanDiT2DModel, HunyuanDiTPipeline
from transformers import BertConfig, BertModel, BertTokenizer, T5Config, T5EncoderModel, T5Tokenizer

LETTERS = [*"abcdefghijklmnopqrstuvwxyz", *"红狐狸雪地"]
NATIVE = 64  # pixels: sample_size 8, VAE factor 8

DIT: dict[str, Any] = {
    "num_attention_heads": 4,
    "attention_head_dim": 16,
    "hidden_size": 64,
    "in_channels": 4,
    "patch_size": 2,
    "num_layers": 4,
    "mlp_ratio": 3.0,
    "activation_fn": "gelu-approximate",
    "sample_size": 8,
    "cross_attention_dim": 32,
    "cross_attention_dim_t5": 24,
    "pooled_projection_dim": 20,
    "text_len": 77,
    "text_len_t5": 256,
    "use_style_cond_and_image_meta_size": False,
}
SCHEDULER: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.018,
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "steps_offset": 1,
}


def stirred(module: Any) -> Any:
    """With every weight away from its initial value: zeros and ones hide mistakes."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return module.eval()


def diffusers_dit(**changes: Any) -> Any:
    torch.manual_seed(0)
    return stirred(HunyuanDiT2DModel(**{**DIT, **changes}))


def diffusers_pipeline(**dit_changes: Any) -> Any:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in LETTERS)]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    tokenizer_2 = T5Tokenizer(vocab=pieces, extra_ids=0)
    torch.manual_seed(1)
    bert = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48
    )
    t5 = T5Config(vocab_size=len(pieces), d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=3)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.7,
    )
    return HunyuanDiTPipeline(
        vae=stirred(vae),
        text_encoder=stirred(BertModel(bert)),
        tokenizer=tokenizer,
        transformer=diffusers_dit(**dit_changes),
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        text_encoder_2=stirred(T5EncoderModel(t5)),
        tokenizer_2=tokenizer_2,
    )


def make_folder(folder: Path, **dit_changes: Any) -> Any:
    """Writes the folder, and gives diffusers' own pipeline on the same weights."""
    pipeline = diffusers_pipeline(**dit_changes)
    pipeline.save_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
