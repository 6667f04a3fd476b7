"""Training the denoiser, with the two text encoders that read for it, on the latents of the pictures.

    easel train dit --pictures runs/pictures --vae runs/vae/vae --out runs/dit --minutes 150

v-prediction on a scaled-linear schedule (Hunyuan-DiT, arXiv 2405.08748, section 2.2), with timesteps drawn where there
is most to learn: log-normal in the signal-to-noise ratio, around more noise the larger the picture (arXiv 2403.03206,
sections 3.1 and 5.3.2). Pictures of two sizes may be mixed, each batch of one. A tenth of the prompts is left out, for
classifier-free guidance. In the paper both encoders come trained; here `reading.py` teaches them first
and the denoiser finds them locked; `hints.py` helps it along. `clip.py` later fits an image tower to the text tower.
Writes a whole model folder in the diffusers layout.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator import combinations, preview
from generator.checkpoint import read_json, write_json
from generator.model import HunyuanDiT, HunyuanDiTConfig
from generator.pipeline import Pipeline, load_vae, to_image
from generator.request import DrawRequest
from generator.sampling import Schedule
from generator.sheets import contact_sheet
from generator.text import Encoder, TextEncoders
from generator.training.data import Epochs, PictureShards, chance
from generator.training.hints import Heads, SceneLabels
from generator.training.loop import FitConfig, Losses, fit, mixed_precision
from generator.training.reading import EAGER, build_clip, build_t5, train_reading, try_reading
from generator.training.text import CaptionTokens, all_texts, train_tokenizer

SCHEDULER = {
    "_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_schedule": "scaled_linear",
    "beta_start": 0.00085, "beta_end": 0.03, "prediction_type": "v_prediction", "timestep_spacing": "leading",
    "steps_offset": 1, "clip_sample": False, "thresholding": False, "set_alpha_to_one": True,
    "variance_type": "fixed_small",
}  # fmt: skip
SHEET, SHEET_STEPS = 12, 12  # pictures that are drawn at every save
REFERENCE_TOKENS = 64  # of a picture whose timesteps are drawn around as much signal as noise


@dataclass(frozen=True)
class DitConfig:
    pictures: Path
    vae: Path
    out: Path
    small_pictures: Path | None = None  # of another size, half the side as a rule, that some of the batches are of
    small_share: float = 0.15  # of the batches
    validation: Path | None = None  # pictures whose prompts the text encoders are tried on after their phase
    minutes: float = 45.0
    steps: int = 1_000_000
    batch: int = 64
    learning_rate: float = 6e-4
    matrix_rate: float = 0.02  # Muon's; to go on from trained weights, half of it
    decay_share: float = 0.5
    base: Path | None = None  # a model folder of this architecture to go on from; it brings its tokenizer
    hidden: int = 320
    heads: int = 5
    layers: int = 8
    clip_width: int = 256
    clip_layers: int = 2
    t5_width: int = 256
    t5_layers: int = 3
    vocabulary: int = 2048
    text_len: int = 77  # tokens, of either encoder; the longest prompts have as many
    refined: float = 0.75  # share of refined prompts among the texts; the rest are looser captions
    empty: float = 0.1
    uniform: float = 0.15  # share of timesteps drawn uniformly; the others' signal-to-noise ratio is log-normal
    subject_weight: float = 5.0  # a latent that a subject covers counts 1 + this in the squared error
    accessory_weight: float = 15.0  # one that shows what it wears or holds counts this more
    hint_weight: float = 0.03
    reading_minutes: float = 8.0  # of the text encoders alone, before the denoiser's
    compile: bool = False  # by torch.compile, which takes some minutes at first
    seed: int = 0


def encode_latents(vae: Any, shards: PictureShards, cache: Path) -> np.ndarray:
    """All pictures' scaled latents, float16 (n, C, h, w); kept in `cache`, by the number of pictures and their size."""
    path = cache / f"latents-{len(shards)}-{shards.size}.npy"
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


class Pictures:
    """One set of pictures as the denoiser trains on it."""

    def __init__(self, config: DitConfig, shards: PictureShards, vae: Any, tokenizer: Any, patch: int) -> None:
        self.shards = shards
        self.latents = encode_latents(vae, shards, config.out)  # (n, C, h, w)
        self.tokens = CaptionTokens(shards, tokenizer, config.text_len)
        self.labels = SceneLabels(shards, patch)
        self.batches = Epochs(len(shards), config.batch, config.seed)
        # The logarithm of the signal-to-noise ratio around which timesteps are drawn. The more latents show one thing,
        # the more noise they bear before it cannot be told.
        tokens = self.latents[0, 0].size / patch**2
        self.middle = -0.5 * math.log(tokens / REFERENCE_TOKENS)

    def token_labels(self, indices: np.ndarray) -> dict[str, Tensor]:
        return self.labels.of_tokens(self.labels.of(indices), self.shards.covers(indices))


def load_base(folder: Path) -> tuple[Any, Any, Any, HunyuanDiT]:
    """The tokenizer, both text encoders and the denoiser of a model folder, float32, to train on."""
    from transformers import AutoTokenizer, BertModel, T5EncoderModel

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    bert = BertModel.from_pretrained(folder / "text_encoder", add_pooling_layer=False, dtype=torch.float32, **EAGER)
    t5 = T5EncoderModel.from_pretrained(folder / "text_encoder_2", dtype=torch.float32, **EAGER)
    return tokenizer, bert.train(), t5.train(), HunyuanDiT.from_pretrained(folder / "transformer")


def new_models(config: DitConfig, shards: PictureShards, channels: int) -> tuple[Any, Any, Any, HunyuanDiT]:
    """The same with fresh weights and a tokenizer of these pictures' texts, for latents of so many channels."""
    some_records = shards.records[:: max(1, len(shards) // 8000)]
    length = config.text_len
    tokenizer = train_tokenizer((t for r in some_records for t in all_texts(r)), config.vocabulary, length)
    bert = build_clip(config.clip_width, config.clip_layers, len(tokenizer), length)
    t5 = build_t5(config.t5_width, config.t5_layers, len(tokenizer))
    dit = HunyuanDiT(
        HunyuanDiTConfig(
            in_channels=channels, num_layers=config.layers, hidden_size=config.hidden,
            num_attention_heads=config.heads, attention_head_dim=config.hidden // config.heads,
            activation_fn="gelu", cross_attention_dim=config.clip_width, cross_attention_dim_t5=config.t5_width,
            pooled_projection_dim=config.t5_width, text_len=length, text_len_t5=length,
            sample_size=shards.size // 8, use_style_cond_and_image_meta_size=False,
        )
    ).initialise()  # fmt: skip
    return tokenizer, bert, t5, dit


class DenoiserLoss:
    """How far a prediction is from the velocity, more where subjects and what they wear are; and the hints' loss."""

    def __init__(self, config: DitConfig, sets: Sequence[Pictures], dit: HunyuanDiT, bert: Any, t5: Any) -> None:
        self.config, self.sets, self.bert, self.t5 = config, sets, bert, t5
        self.schedule = Schedule.from_config(SCHEDULER)
        kept = self.schedule.alphas_cumprod
        self.log_snr = torch.log(kept / (1 - kept)).flip(0)  # rising, for the search
        self.reader = Heads(sets[0].shards.labels, dit.config.hidden_size, whole=False)
        self.halfway: list[Tensor] = []  # what leaves the last block before the long skips arrive
        dit.blocks[dit.config.num_layers // 2].register_forward_hook(
            lambda module, args, output: self.halfway.append(output) if torch.is_grad_enabled() else None
        )
        self.predict: Any = torch.compile(dit) if config.compile else dit  # a set's shapes are the same at every step

    def __call__(self, step: int) -> Losses:
        config, rng = self.config, chance(self.config.seed, step)
        pictures = self.sets[len(self.sets) > 1 and rng.random() < config.small_share]
        indices = np.sort(pictures.batches[step])
        ids = pictures.tokens.pick(indices, rng, config.refined, config.empty)
        clean = torch.from_numpy(np.array(pictures.latents[indices])).float()  # (B, C, h, w)
        noise = torch.randn_like(clean)
        timesteps = self.timesteps(len(indices), pictures.middle)
        text = self.read(ids)
        with mixed_precision():
            noised = self.schedule.noised(clean, noise, timesteps)
            output = self.predict(noised, timesteps, *text)[:, : clean.shape[1]].float()
            seeing = self.reader.loss(self.halfway.pop(), pictures.token_labels(indices))
        errors = (output - self.schedule.target(clean, noise, timesteps)).square()  # (B, C, h, w)
        weights = pictures.shards.importance(indices, config.subject_weight, config.accessory_weight)  # (B, 1, h, w)
        total = (errors * weights / weights.mean()).mean() + config.hint_weight * seeing
        return {"loss": total, "mse": errors.mean().detach(), "seeing": seeing.detach()}

    def timesteps(self, n: int, middle: float) -> Tensor:
        """(n,), log-normal in the signal-to-noise ratio around the one whose logarithm is `middle`; some uniform."""
        steps = self.schedule.train_steps
        informative = steps - 1 - torch.searchsorted(self.log_snr, middle + 2 * torch.randn(n))
        uniform = torch.randint(0, steps, (n,))
        return torch.where(torch.rand(n) < self.config.uniform, uniform, informative.clamp(min=0))

    @torch.no_grad()
    def read(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens (B, text_len) -> CLIP's states (B, text_len, width) and mask, then T5's."""
        mask = (ids != 0).long()
        with mixed_precision():
            end = int(mask.any(0).nonzero().max()) + 1  # what stands behind is masked; T5's padding is pooled
            clip_states = self.bert(input_ids=ids[:, :end], attention_mask=mask[:, :end]).last_hidden_state
            clip_states = F.pad(clip_states, (0, 0, 0, self.config.text_len - end))
            return clip_states, mask, self.t5(input_ids=ids, attention_mask=mask).last_hidden_state, mask


def train_dit(config: DitConfig, score: Callable[[Pipeline], dict[str, float]] | None = None) -> dict[str, float]:
    """Trains and writes `config.out/storybook`. `score` measures the averaged weights at every save, for the log."""
    torch.manual_seed(config.seed)
    shards = PictureShards(config.pictures)
    vae = load_vae(config.vae)
    channels, length = vae.config.latent_channels, config.text_len
    tokenizer, bert, t5, dit = load_base(config.base) if config.base else new_models(config, shards, channels)
    dit.config = replace(dit.config, sample_size=shards.size // 8)  # a base's own may be another
    sets = [Pictures(config, shards, vae, tokenizer, dit.config.patch_size)]
    if config.small_pictures:
        small = PictureShards(config.small_pictures)
        sets.append(Pictures(config, small, vae, tokenizer, dit.config.patch_size))
    seen = combinations.seen_in(record["scene"] for pictures in sets for record in pictures.shards.records)
    if config.reading_minutes:
        encoders: dict[str, Any] = {"clip": bert, "t5": t5}
        schooling = FitConfig(config.out / "reading", minutes=config.reading_minutes, seed=config.seed)
        readers = train_reading(schooling, encoders, sets[0].tokens, sets[0].labels, config.refined)
        if config.validation:
            try_reading(readers, encoders, PictureShards(config.validation), tokenizer, length)
    bert.eval().requires_grad_(False)
    t5.eval().requires_grad_(False)
    loss = DenoiserLoss(config, sets, dit, bert, t5)
    text = TextEncoders(Encoder(tokenizer, bert, length), Encoder(tokenizer, t5, length))
    decoder = preview.load(config.base, channels) if config.base else None

    def sample(modules: dict[str, nn.Module], step: int) -> None:
        pipeline = Pipeline(dit, text, vae, loss.schedule, decoder)
        save_folder(config, pipeline, seen)
        if score:
            print(f"step {step} " + " ".join(f"{k} {v:.3f}" for k, v in score(pipeline).items()), flush=True)
        shown = range(min(SHEET, len(shards)))
        pictures = [to_image(pixels[None]) for pixels in shards.pixels(shown)]
        for i in shown:
            prompt = shards.records[i]["prompt"][("en", "zh")[i % 2]]
            pictures.append(pipeline.draw(DrawRequest(prompt, seed=i, size=2 * (shards.size,), steps=SHEET_STEPS)))
        contact_sheet(pictures, columns=SHEET // 2).save(config.out / f"sheet-{step:06d}.png")

    fit_config = FitConfig(
        config.out, config.steps, config.minutes, config.learning_rate, config.matrix_rate, seed=config.seed,
        ema=0.995, save_every=300, log_every=25, warmup=100, decay_share=config.decay_share,
    )  # fmt: skip
    result = fit(fit_config, {"dit": dit, "reader": loss.reader}, loss, sample)
    save_folder(config, Pipeline(dit, text, vae, loss.schedule, decoder), seen)
    return result


def save_folder(config: DitConfig, pipeline: Pipeline, seen: np.ndarray) -> None:
    """The diffusers layout, float16, at `config.out/storybook`; model_index.json comes last. `seen`: the combinations
    in these pictures, to which those come that the base saw."""
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
    if pipeline.preview_decoder is not None:
        pipeline.preview_decoder.save(folder)
    combinations.add(folder, np.union1d(seen, combinations.load(config.base)) if config.base else seen)
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
