"""Tiny folders of the other image models, with random weights, made by diffusers and transformers themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing

from tests.generator.tiny import stirred

LETTERS = [*"abcdefghijklmnopqrstuvwxyz"]
WIDTH = 32  # of every text encoder


def numbered(*words: str) -> dict[str, int]:
    return {word: i for i, word in enumerate(words)}


def clip() -> tuple[Any, Any]:
    """Tokenizer and text encoder; so are the next three."""
    vocab = numbered("<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS))
    config = transformers.CLIPTextConfig(
        vocab_size=len(vocab), hidden_size=WIDTH, intermediate_size=37, num_attention_heads=2, num_hidden_layers=2,
        projection_dim=WIDTH, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    tokenizer = transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)
    return tokenizer, stirred(transformers.CLIPTextModelWithProjection(config))


def t5(width: int = WIDTH) -> tuple[Any, Any]:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in LETTERS)]
    config = transformers.T5Config(vocab_size=len(pieces), d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0), stirred(transformers.T5EncoderModel(config))


def gemma(config_class: Any, model_class: Any) -> tuple[Any, Any]:
    vocab = numbered("<pad>", "<eos>", "<bos>", "<unk>", "▁", *LETTERS, *(f"<0x{byte:02X}>" for byte in range(256)))
    config = config_class(
        vocab_size=len(vocab), hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    tokenizer = transformers.GemmaTokenizer(vocab=vocab, merges=[])
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<bos> $A", None, [("<bos>", vocab["<bos>"])])
    return tokenizer, stirred(model_class(config))


def qwen() -> tuple[Any, Any]:
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = numbered(*marks, *sorted(ByteLevel.alphabet()))
    text = {
        "vocab_size": len(vocab), "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "bos_token_id": None, "eos_token_id": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [0],
    }  # fmt: skip
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocab, merges=[], extra_special_tokens=marks[1:])
    return tokenizer, stirred(transformers.Qwen2_5_VLForConditionalGeneration(config))


def vae(levels: int = 4, channels: int = 4, **changes: Any) -> Any:
    return stirred(
        diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=(8,) * levels,
            layers_per_block=1,
            latent_channels=channels,
            norm_num_groups=4,
            scaling_factor=0.7,
            **changes,
        )
    )


def pixart(kind: Any, scheduler: Any = None) -> Any:
    tokenizer, encoder = t5()
    transformer = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, num_layers=2, cross_attention_dim=32, caption_channels=WIDTH,
        sample_size=8, use_additional_conditions=False,
    )  # fmt: skip
    return kind(
        tokenizer=tokenizer, text_encoder=encoder, vae=vae(), transformer=stirred(transformer),
        scheduler=scheduler or diffusers.DPMSolverMultistepScheduler(beta_schedule="linear"),
    )  # fmt: skip


def sd3(with_t5: bool = True) -> Any:
    (tokenizer, encoder), (tokenizer_2, encoder_2) = clip(), clip()
    tokenizer_3, encoder_3 = t5(2 * WIDTH) if with_t5 else (None, None)  # as wide as both CLIPs' states side by side
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=2 * WIDTH, caption_projection_dim=32, pooled_projection_dim=2 * WIDTH, pos_embed_max_size=6,
    )  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        transformer=stirred(transformer), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift_factor=0.1), text_encoder=encoder, tokenizer=tokenizer, text_encoder_2=encoder_2,
        tokenizer_2=tokenizer_2, text_encoder_3=encoder_3, tokenizer_3=tokenizer_3,
    )  # fmt: skip


def lumina() -> Any:
    tokenizer, encoder = gemma(transformers.GemmaConfig, transformers.GemmaForCausalLM)
    transformer = diffusers.LuminaNextDiT2DModel(
        sample_size=8, hidden_size=48, num_layers=2, num_attention_heads=3, num_kv_heads=1, multiple_of=16,
        cross_attention_dim=WIDTH,
    )  # fmt: skip
    return diffusers.LuminaPipeline(
        transformer=stirred(transformer), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), vae=vae(),
        text_encoder=encoder, tokenizer=tokenizer,
    )  # fmt: skip


def lumina2() -> Any:
    tokenizer, encoder = gemma(transformers.Gemma2Config, transformers.Gemma2Model)
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=8, in_channels=4, hidden_size=24, num_layers=2, num_refiner_layers=1, num_attention_heads=3,
        num_kv_heads=1, multiple_of=2, axes_dim_rope=(4, 2, 2), axes_lens=(256, 16, 16), cap_feat_dim=WIDTH,
    )  # fmt: skip
    return diffusers.Lumina2Pipeline(
        transformer=stirred(transformer), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=vae(shift_factor=0.1), text_encoder=encoder, tokenizer=tokenizer,
    )  # fmt: skip


def flux(guidance_embeds: bool = True) -> Any:
    (tokenizer, clip_model), (tokenizer_2, encoder_2) = clip(), t5()
    config = clip_model.config
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=vae(1, shift_factor=0.1),
        text_encoder=stirred(transformers.CLIPTextModel(config)), tokenizer=tokenizer, text_encoder_2=encoder_2,
        tokenizer_2=tokenizer_2, transformer=stirred(transformer),
    )  # fmt: skip


def qwen_image() -> Any:
    tokenizer, encoder = qwen()
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    decoder = diffusers.AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[0.1, -0.1, 0.0, 0.2], latents_std=[1.0, 2.0, 1.5, 0.5],
    )  # fmt: skip
    return diffusers.QwenImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=stirred(decoder),
        text_encoder=encoder, tokenizer=tokenizer, transformer=stirred(transformer),
    )  # fmt: skip


def sana() -> Any:
    tokenizer, encoder = gemma(transformers.Gemma2Config, transformers.Gemma2Model)
    transformer = diffusers.SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=2,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=WIDTH,
        sample_size=2,
    )  # fmt: skip
    levels: dict[str, Any] = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (
            ("block_out_channels", (8,) * 6), ("layers_per_block", (1,) * 6), ("qkv_multiscales", ((),) * 6),
        )
    }  # fmt: skip
    return diffusers.SanaPipeline(
        tokenizer=tokenizer, text_encoder=encoder, vae=stirred(diffusers.AutoencoderDC(latent_channels=4, **levels)),
        transformer=stirred(transformer),
        scheduler=diffusers.DPMSolverMultistepScheduler(
            algorithm_type="dpmsolver++", prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )  # fmt: skip


MAKERS: dict[str, Callable[[], Any]] = {
    "PixArt-alpha": lambda: pixart(diffusers.PixArtAlphaPipeline),
    "PixArt-delta": lambda: pixart(diffusers.PixArtAlphaPipeline, diffusers.LCMScheduler()),
    "PixArt-Sigma": lambda: pixart(diffusers.PixArtSigmaPipeline),
    "SD3": sd3,
    "SD3 without T5": lambda: sd3(with_t5=False),
    "Lumina": lumina,
    "Lumina 2": lumina2,
    "Flux": flux,
    "Flux without guidance": lambda: flux(guidance_embeds=False),
    "Qwen-Image": qwen_image,
    "Sana": sana,
}


def make_folder(name: str, folder: Path) -> Any:
    """Writes the folder, and gives diffusers' own pipeline on the same weights."""
    torch.manual_seed(2)
    pipeline = MAKERS[name]()
    pipeline.save_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
