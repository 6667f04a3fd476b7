"""Training the denoiser, with the two text encoders that read for it, on the latents of the pictures.

    easel train dit --pictures runs/pictures --vae runs/vae/vae --out runs/dit --minutes 45

v-prediction on a scaled-linear schedule (Hunyuan-DiT, arXiv 2405.08748, section 2.2), with min-SNR weights
(arXiv 2303.09556). A tenth of the prompts is left out, for classifier-free guidance. In the paper both encoders come
trained; here they learn to read from the denoiser's own loss, which teaches far more a minute than contrast does, and
`clip.py` then fits an image tower to the text tower.
Writes a whole model folder in the diffusers layout.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from generator import preview
from generator.checkpoint import read_json, write_json
from generator.model import HunyuanDiT, HunyuanDiTConfig
from generator.pipeline import Pipeline, load_vae
from generator.request import DrawRequest
from generator.sampling import Schedule
from generator.text import Encoder, TextEncoders
from generator.training.data import PictureShards, epochs
from generator.training.loop import FitConfig, Losses, fit, mixed_precision
from generator.training.sheets import contact_sheet
from generator.training.text import CaptionTokens, all_texts, train_tokenizer

SCHEDULER = {
    "_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "beta_end": 0.03, "prediction_type": "v_prediction", "timestep_spacing": "leading",
    "steps_offset": 1, "clip_sample": False, "thresholding": False, "set_alpha_to_one": True,
    "variance_type": "fixed_small",
}  # fmt: skip
SHEET_STEPS = 16
# Torch's fused attention on CPUs has a slow backward pass in bfloat16.
EAGER: dict[str, Any] = {"attn_implementation": "eager"}


@dataclass(frozen=True)
class DitConfig:
    pictures: Path
    vae: Path
    out: Path
    minutes: float = 45.0
    steps: int = 1_000_000
    batch: int = 64
    learning_rate: float = 6e-4
    hidden: int = 320
    heads: int = 5
    layers: int = 8
    clip_width: int = 256
    clip_layers: int = 2
    t5_width: int = 256
    t5_layers: int = 3
    vocabulary: int = 3072
    text_len: int = 56  # tokens, of either encoder
    refined: float = 0.6  # share of refined prompts among the texts; the rest are looser captions
    empty: float = 0.1
    min_snr: float = 5.0
    seed: int = 0


def encode_latents(vae: Any, shards: PictureShards, cache: Path) -> np.ndarray:
    """All pictures' scaled latents, float16 (n, C, h, w); kept in `cache`, beside the size of the set."""
    path = cache / f"latents-{len(shards)}.npy"
    if path.is_file():
        return np.asarray(np.load(path, mmap_mode="r"))
    rows = []
    vae.to(memory_format=torch.channels_last)  # a third faster
    with torch.inference_mode(), mixed_precision():
        for start in range(0, len(shards), 64):
            pixels = shards.pixels(range(start, min(start + 64, len(shards))))
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            latents = vae.encode(pixels).latent_dist.mode().float() * vae.config.scaling_factor
            rows.append(latents.half().numpy())
    cache.mkdir(parents=True, exist_ok=True)
    vae.to(memory_format=torch.contiguous_format)
    np.save(path.with_suffix(".tmp.npy"), np.concatenate(rows))
    path.with_suffix(".tmp.npy").rename(path)
    return np.asarray(np.load(path, mmap_mode="r"))


def build_encoders(config: DitConfig, vocabulary: int) -> tuple[Any, Any]:
    """The CLIP text tower, a BertModel, and the encoder of a T5."""
    from transformers import BertConfig, BertModel, T5Config, T5EncoderModel

    bert = BertConfig(
        vocab_size=vocabulary, hidden_size=config.clip_width, num_hidden_layers=config.clip_layers,
        num_attention_heads=config.clip_width // 64, intermediate_size=4 * config.clip_width, type_vocab_size=1,
        max_position_embeddings=config.text_len, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        pad_token_id=0, **EAGER,
    )  # fmt: skip
    return BertModel(bert, add_pooling_layer=False), T5EncoderModel(
        T5Config(
            vocab_size=vocabulary, d_model=config.t5_width, d_kv=64, num_heads=config.t5_width // 64,
            d_ff=3 * config.t5_width, num_layers=config.t5_layers, feed_forward_proj="gated-gelu", dropout_rate=0.0,
            pad_token_id=0, **EAGER,
        )
    )  # fmt: skip


def train_dit(config: DitConfig, score: Callable[[Pipeline], dict[str, float]] | None = None) -> dict[str, float]:
    """Trains and writes `config.out/storybook`. `score` measures the averaged weights at every save, for the log."""
    torch.manual_seed(config.seed)
    shards = PictureShards(config.pictures)
    vae = load_vae(config.vae)
    length = config.text_len
    some_records = shards.records[:: max(1, len(shards) // 8000)]
    tokenizer = train_tokenizer((t for r in some_records for t in all_texts(r)), config.vocabulary, length)
    bert, t5 = build_encoders(config, len(tokenizer))
    dit = HunyuanDiT(
        HunyuanDiTConfig(
            in_channels=vae.config.latent_channels, num_layers=config.layers, hidden_size=config.hidden,
            num_attention_heads=config.heads, attention_head_dim=config.hidden // config.heads,
            activation_fn="gelu", cross_attention_dim=bert.config.hidden_size,
            cross_attention_dim_t5=config.t5_width, pooled_projection_dim=config.t5_width,
            text_len=length, text_len_t5=length, sample_size=shards.size // 8,
            use_style_cond_and_image_meta_size=False,
        )
    ).initialise()  # fmt: skip
    latents = encode_latents(vae, shards, config.out)
    tokens = CaptionTokens(shards, tokenizer, length)
    schedule = Schedule.from_config(SCHEDULER)
    kept = schedule.alphas_cumprod
    snr = kept / (1 - kept)
    weights = snr.clamp(max=config.min_snr) / (snr + 1)  # of the squared error in v
    weights = weights / weights.mean()
    rng = random.Random(config.seed)
    batches = epochs(len(shards), config.batch, config.seed)

    def loss(step: int) -> Losses:
        indices = np.sort(next(batches))
        ids = tokens.pick(indices, rng, config.refined, config.empty)
        clean = torch.from_numpy(latents[indices]).float()  # (B, C, h, w)
        noise = torch.randn_like(clean)
        timesteps = torch.randint(0, schedule.train_steps, (len(indices),))
        mask = (ids != 0).long()
        with mixed_precision():
            clip_states = bert(input_ids=ids, attention_mask=mask).last_hidden_state
            t5_states = t5(input_ids=ids, attention_mask=mask).last_hidden_state
            noised = schedule.noised(clean, noise, timesteps)
            output = dit(noised, timesteps, clip_states, mask, t5_states, mask)[:, : clean.shape[1]].float()
        errors = (output - schedule.target(clean, noise, timesteps)).square().mean((1, 2, 3))  # (B,)
        return {"loss": (weights[timesteps] * errors).mean(), "mse": errors.mean().detach()}

    some = range(min(512, len(shards)))
    matrix = preview.fit(torch.from_numpy(latents[: len(some)]).float(), shards.pixels(some))

    def sample(modules: dict[str, nn.Module], step: int) -> None:
        encoders = TextEncoders(Encoder(tokenizer, bert, length), Encoder(tokenizer, t5, length))
        pipeline = Pipeline(dit, encoders, vae, schedule, matrix)
        save_folder(config, pipeline)
        if score:
            print(f"step {step} " + " ".join(f"{k} {v:.3f}" for k, v in score(pipeline).items()), flush=True)
        pictures = []
        for i in range(24):
            language = ("en", "zh")[i % 2]
            request = DrawRequest(shards.records[i]["prompt"][language], seed=i, steps=SHEET_STEPS)
            canvas = pipeline.begin(request)
            while not canvas.finished:
                pipeline.advance(canvas)
            pictures.append(torch.from_numpy(np.array(pipeline.decode(canvas.latents))).permute(2, 0, 1))
        drawn = torch.stack(pictures).float().div(127.5).sub(1)  # (24, 3, H, W)
        contact_sheet(torch.cat([shards.pixels(range(24)), drawn]), config.out / f"sheet-{step:06d}.png", columns=12)

    fit_config = FitConfig(
        config.out, config.steps, config.minutes, config.learning_rate, seed=config.seed, ema=0.995,
        save_every=300, log_every=25, warmup=100,
    )  # fmt: skip
    result = fit(fit_config, {"dit": dit, "clip": bert, "t5": t5}, loss, sample)
    encoders = TextEncoders(Encoder(tokenizer, bert, length), Encoder(tokenizer, t5, length))
    save_folder(config, Pipeline(dit, encoders, vae, schedule, matrix))
    return result


def save_folder(config: DitConfig, pipeline: Pipeline) -> None:
    """The diffusers layout, float16, at `config.out/storybook`; model_index.json comes last."""
    folder = config.out / "storybook"
    folder.mkdir(parents=True, exist_ok=True)
    write_json_in(folder / "scheduler", "scheduler_config.json", SCHEDULER)
    for number, encoder in (("", pipeline.text.clip), ("_2", pipeline.text.t5)):
        half_precision(encoder.model, folder / f"text_encoder{number}")
        encoder.tokenizer.save_pretrained(folder / f"tokenizer{number}")
    half_precision(pipeline.vae, folder / "vae")
    vae_config = read_json(folder / "vae" / "config.json")
    vae_config.pop("_name_or_path", None)  # where it lay on the machine that trained it
    write_json(folder / "vae" / "config.json", vae_config)
    pipeline.dit.save_pretrained(folder / "transformer", torch.float16)
    if pipeline.preview_matrix is not None:
        preview.save(folder, pipeline.preview_matrix)
    tokenizer_class = type(pipeline.text.clip.tokenizer).__name__
    index = {
        "_class_name": "HunyuanDiTPipeline", "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "BertModel"], "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", tokenizer_class], "tokenizer_2": ["transformers", tokenizer_class],
        "transformer": ["diffusers", "HunyuanDiT2DModel"], "vae": ["diffusers", "AutoencoderKL"],
        "safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False,
    }  # fmt: skip
    write_json(folder / "model_index.json", index)


def write_json_in(folder: Path, name: str, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / name, content)


def half_precision(model: Any, folder: Path) -> None:
    """Saves a copy in float16: half the bytes in the repository, and the same pictures to the eye."""
    copy.deepcopy(model).half().save_pretrained(folder)
