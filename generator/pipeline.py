"""A model folder in the diffusers layout, loaded, and the stages of a drawing: begin, advance step by step, decode.

    python -c "from generator.pipeline import load_pipeline; print(load_pipeline('generator/weights/storybook').limits)"

The pipeline keeps nothing of a drawing: that is all in a `Canvas`, so that an engine may have several under way and
advance them in one batch, each at a step of its own.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from generator import edits, preview, sampling
from generator.checkpoint import FETCH_AGAIN, read_json, reading
from generator.edits import Trajectory
from generator.errors import CheckpointError, DrawingFailed, RequestError
from generator.lanes import Lanes
from generator.lora import Adapters
from generator.model import Conditioning, HunyuanDiT
from generator.offload import working
from generator.preview import PreviewDecoder
from generator.provenance import provenance
from generator.request import DrawRequest, Limits, Lora, Upload
from generator.sampling import Plan, Schedule
from generator.text import TextEncoders

PIPELINE_CLASS = "HunyuanDiTPipeline"
FULL_SIZE = 1024.0  # v1.1 is told the size of the original picture; diffusers says this one


# On one canvas's latents: guided where guidance applies, and of the negative prompt, if it was asked; (1, C, h, w)
# float32 each.
Words = tuple[Tensor, Tensor | None]


@dataclass(eq=False)
class Canvas:
    """A drawing under way."""

    request: DrawRequest
    plan: Plan
    latents: Tensor  # (1, C, h, w) float32
    clean: Tensor  # the clean latents that the last step predicted
    # Two rows, negative prompt and prompt; only the prompt's without guidance. None until the first step.
    conditioning: Conditioning | None = None
    truncated: bool = False  # the prompt is longer than the encoders read
    done: int = 0  # steps
    seconds: dict[str, float] = field(default_factory=lambda: {"text": 0.0, "denoise": 0.0})
    failed: DrawingFailed | None = None
    past: list[Tensor] = field(default_factory=list)  # the latents before each step so far
    foreseen: list[Tensor] = field(default_factory=list)  # the clean latents of each
    unguided: list[Tensor | None] = field(default_factory=list)  # the model's word on the negative prompt at each
    source: Trajectory | None = None  # of the picture that is edited
    region: Tensor | None = None  # (1, 1, h, w), 0 to 1: what of that may change
    fresh: Tensor | None = None  # noise, (1, C, h, w): the edit's own, see `Pipeline.refresh`

    @property
    def steps(self) -> int:
        return len(self.plan)

    @property
    def finished(self) -> bool:
        return self.done == self.steps

    @property
    def trajectory(self) -> Trajectory:
        """Of the finished drawing, copied into one block of memory: dozens of small ones, kept for long among the large
        ones of the steps, leave holes that the allocator cannot use, and the process grows."""
        latents, known = (*self.past, self.latents), [word for word in self.unguided if word is not None]
        rows = torch.cat((*latents, *self.foreseen, *known)).split(1)
        words = iter(rows[len(latents) + self.done :])
        unguided = tuple(None if word is None else next(words) for word in self.unguided)
        return Trajectory(rows[: len(latents)], rows[len(latents) : len(latents) + self.done], unguided)

    def take(self, latents: Tensor, clean: Tensor, unguided: Tensor | None) -> None:
        """One step further."""
        edit = self.request.edit
        if self.source is not None and edit.threshold and not isinstance(self.request.source, Upload):
            before = self.source.clean[self.done]
            first = self.region is None
            region = latents.new_zeros(1, 1, *latents.shape[-2:]) if self.region is None else self.region
            self.region = edits.widened(region, clean, before, edit)
            fewer = edits.steps_reused(self.steps, edit, nearly_all=True)
            if first and fewer < self.done and self.fresh is None and edits.changes_nearly_all(self.region, edit):
                self.region = torch.zeros_like(self.region)
                return self.take_over(self.source, fewer)
            latents = edits.blended(self.region, latents, self.source.latents[self.done + 1])
            clean = edits.blended(self.region, clean, before)
        self.past.append(self.latents)
        self.foreseen.append(clean)
        self.unguided[self.done :] = [unguided]
        self.latents, self.clean = latents, clean
        self.done += 1

    def take_over(self, source: Trajectory, steps: int) -> None:
        """Stands where the source was after so many steps."""
        self.done, self.latents = steps, source.latents[steps]
        self.past, self.foreseen = [*source.latents[:steps]], [*source.clean[:steps]]
        # At the first step the latents are still the source's, and so is the word on the same negative prompt.
        known = source.unguided if same_negative(self.request) else (None,) * self.steps
        self.unguided = [*known[: steps + 1]]
        self.clean = self.foreseen[-1] if steps else torch.zeros_like(self.latents)


@dataclass(frozen=True, eq=False)
class Pipeline:
    dit: HunyuanDiT
    text: TextEncoders
    vae: Any  # diffusers' AutoencoderKL
    schedule: Schedule
    preview_decoder: PreviewDecoder | None = None  # see preview.py
    lanes: Lanes | None = None  # on a CPU
    adapters: Adapters | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def vae_factor(self) -> int:
        """Pixels per latent, along each side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def native(self) -> int:
        """The side, in pixels, of the square pictures that the model was made for."""
        return int(self.dit.config.sample_size * self.vae_factor)

    @property
    def limits(self) -> Limits:
        multiple = self.vae_factor * self.dit.config.patch_size
        smallest = max(self.native // 2 // multiple, 1) * multiple
        return Limits(multiple, smallest, 2 * self.native, tuple(sampling.SAMPLERS))

    def check(self, request: DrawRequest) -> None:
        """Raises RequestError, before any work, for what this model cannot draw."""
        self.limits.check(request)
        if request.lora is not None and self.adapters is None:
            raise RequestError("This model takes no LoRA. Draw without it, or choose another model.")
        sampling.plan(self.schedule, request.sampler, request.steps)

    @torch.inference_mode()
    def begin(self, request: DrawRequest, source: Trajectory | None = None) -> Canvas:
        """`source`: the trajectory of `request.source`, where that is a request. RequestError for a broken upload."""
        plan = sampling.plan(self.schedule, request.sampler, request.steps)
        width, height = (side // self.vae_factor for side in request.size)
        noise = sampling.initial_noise(request.seed, (1, self.dit.config.in_channels, height, width))
        latents = noise.to(self.dit.device)
        canvas = Canvas(request, plan, latents, torch.zeros_like(latents))
        if isinstance(request.source, Upload):
            source = self.way_to(request.source, request, plan, latents)
        if source is not None:
            canvas.source = source
            canvas.take_over(source, edits.steps_reused(len(plan), request.edit))
            if isinstance(request.source, DrawRequest) and request.seed != request.source.seed:
                canvas.fresh = latents
        return canvas

    def condition(self, canvas: Canvas) -> Conditioning:
        """Reads the prompts. A part of the first step, so that those of drawings in a batch are read side by side."""
        request, started = canvas.request, time.perf_counter()
        prompts = [request.prompt] if request.guidance == 1 else [request.negative_prompt, request.prompt]
        states = self.text.encode(prompts)
        canvas.truncated = states.truncated[-1]
        canvas.seconds["text"] = time.perf_counter() - started
        height, width = canvas.latents.shape[-2:]
        meta_size, timesteps = self.meta_size(request, len(prompts)), canvas.plan.timesteps
        return self.dit.prepare(
            states.clip, states.clip_mask, states.t5, states.t5_mask, timesteps, height, width, meta_size=meta_size
        )

    def way_to(self, upload: Upload, request: DrawRequest, plan: Plan, noise: Tensor) -> Trajectory:
        """One that could have led to a picture that was not drawn here: its own latents, noised (SDEdit)."""
        try:
            with Image.open(io.BytesIO(upload.data)) as opened:
                picture = ImageOps.fit(opened.convert("RGB"), request.size, Image.Resampling.LANCZOS)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise RequestError(f"The picture to edit cannot be read ({error}). Choose another.") from error
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].to(self.dit.device) / 127.5 - 1
        config = self.vae.config
        with working(self.vae, self.dit.device):
            clean = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode().float()
        clean = (clean - (getattr(config, "shift_factor", None) or 0.0)) * config.scaling_factor
        noised = [self.schedule.noised(clean, noise, t[None]) for t in plan.timesteps.round().long()]
        return Trajectory((*noised, clean), (clean,) * len(plan), (None,) * len(plan))

    def meta_size(self, request: DrawRequest, rows: int) -> Tensor | None:
        """(rows, 6) for models that are conditioned on it: the original size, the picture's, and where it was cut."""
        if not self.dit.config.use_style_cond_and_image_meta_size:
            return None
        sizes = [FULL_SIZE, FULL_SIZE, float(request.size[1]), float(request.size[0]), 0.0, 0.0]
        return torch.tensor([sizes] * rows, device=self.dit.device)

    def draw(self, request: DrawRequest) -> Image.Image:
        """A whole picture, alone."""
        canvas = self.begin(request)
        while not canvas.finished:
            self.advance([canvas])
        return self.decode(canvas)

    @torch.inference_mode()
    def advance(self, canvases: Sequence[Canvas]) -> None:
        """One step of each, in a batch for each LoRA; they share a size, and no canvas's picture depends on the others.

        Whatever overflows is marked as `failed` and harms no other.
        """
        started = time.perf_counter()
        for canvas, (output, unguided) in zip(canvases, self.predict(canvases), strict=True):
            latents, clean = sampling.step(canvas.plan.mix[canvas.done], canvas.latents, output, canvas.clean)
            canvas.take(latents, clean, unguided)
            self.refresh(canvas)
            if not torch.isfinite(canvas.latents).all():
                canvas.failed = overflow(canvas.done, canvas.steps)
        seconds = time.perf_counter() - started
        for canvas in canvases:
            first = canvas.seconds["denoise"] == 0
            canvas.seconds["denoise"] += seconds - (canvas.seconds["text"] if first else 0)

    def refresh(self, canvas: Canvas) -> None:
        """Where the edit has begun to differ from its source, the noise of its own seed takes the place of the
        source's, once: from there on it is another picture of the same change."""
        if canvas.fresh is None or canvas.finished or (canvas.region is not None and not canvas.region.any()):
            return
        timestep = canvas.plan.timesteps[canvas.done].round().long()[None]
        anew = self.schedule.noised(canvas.clean, canvas.fresh, timestep)
        canvas.latents = anew if canvas.region is None else edits.blended(canvas.region, anew, canvas.latents)
        canvas.fresh = None

    def predict(self, canvases: Sequence[Canvas]) -> list[Words]:
        """The model's word on each one's latents, guided where guidance applies."""
        by_lora: dict[Lora | None, list[Canvas]] = {}
        for canvas in canvases:
            by_lora.setdefault(canvas.request.lora, []).append(canvas)
        outputs: dict[Canvas, Words] = {}
        # The one that the model wears comes first: of two that take turns, each is put on once in two steps.
        for lora in sorted(by_lora, key=lambda lora: self.adapters is not None and lora != self.adapters.worn):
            self.wear(lora)
            group = by_lora[lora]
            parts = self.lanes.map(self.evaluate, group) if self.lanes else self.evaluate(group)
            outputs.update(zip(group, parts, strict=True))
        return [outputs[canvas] for canvas in canvases]

    def wear(self, lora: Lora | None) -> None:
        if self.adapters is not None:
            self.adapters.wear(lora)

    def evaluate(self, canvases: Sequence[Canvas]) -> list[Words]:
        rows, parts, words = [], [], []
        for canvas in canvases:
            if canvas.conditioning is None:
                canvas.conditioning = self.condition(canvas)
            needs = self.guided(canvas)
            word = canvas.unguided[canvas.done] if needs and len(canvas.unguided) > canvas.done else None
            both = needs and word is None
            conditioning = canvas.conditioning if both else canvas.conditioning.last()
            rows.append(canvas.latents.expand(conditioning.batch, -1, -1, -1))
            parts.append((conditioning, canvas.done))
            words.append(word)
        batch = torch.cat(rows).to(self.dit.dtype)
        outputs = self.dit.denoise(batch, parts)[:, : self.dit.config.in_channels].float().split([*map(len, rows)])
        result = []
        for canvas, output, word in zip(canvases, outputs, words, strict=True):
            unguided = output[:1] if len(output) == 2 else word
            guided = output if unguided is None else sampling.guide(unguided, output[-1:], canvas.request.guidance)
            result.append((guided, unguided))
        return result

    def guided(self, canvas: Canvas) -> bool:
        request, timestep = canvas.request, canvas.plan.timesteps[canvas.done].item()
        return sampling.guided(self.schedule, timestep, request.guidance, request.guidance_interval)

    def decode(self, canvas: Canvas) -> Image.Image:
        """The finished picture. Raises DrawingFailed where the decoder's numbers overflow."""
        pixels = self.pixels(canvas.latents)
        if not pixels.isfinite().all():
            raise DrawingFailed("The picture's numbers overflowed in the decoder. Compute in float32 or bfloat16.")
        return to_image(pixels)

    @torch.inference_mode()
    def pixels(self, latents: Tensor) -> Tensor:
        """Latents (1, C, h, w) -> (1, 3, H, W) in -1...1."""
        config = self.vae.config
        latents = latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
        with working(self.vae, self.dit.device):
            return self.vae.decode(latents.to(self.vae.dtype)).sample

    @torch.inference_mode()
    def preview(self, canvas: Canvas) -> Image.Image:
        """The picture that the last step was heading for, roughly, in the request's size."""
        if self.preview_decoder is not None:
            small = to_image(self.preview_decoder(canvas.clean))
        else:
            small = to_image(self.pixels(F.avg_pool2d(canvas.clean, 2, ceil_mode=True)))
        return small.resize(canvas.request.size, Image.Resampling.BILINEAR)


def overflow(step: int, steps: int) -> DrawingFailed:
    return DrawingFailed(
        f"The model's numbers overflowed at step {step} of {steps}. "
        "Try a lower guidance or another seed; with half precision, float32."
    )


def same_negative(request: DrawRequest) -> bool:
    """Whether the source of this edit was drawn with the same negative prompt, by the same weights."""
    source = request.source
    return (
        isinstance(source, DrawRequest)
        and source.negative_prompt == request.negative_prompt
        and source.lora == request.lora
    )


def to_image(pixels: Tensor) -> Image.Image:
    """(1, 3, H, W) in -1...1 -> a picture; rounds as diffusers does."""
    values = (pixels[0].float() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray((values * 255).round().astype(np.uint8))


def class_name(folder: Path) -> str:
    """The diffusers pipeline that a model folder was made for."""
    if not folder.is_dir():
        raise CheckpointError(f"There is no model folder {folder}. {FETCH_AGAIN}")
    return str(read_json(folder / "model_index.json").get("_class_name"))


def load_vae(folder: str | Path, dtype: torch.dtype = torch.float32) -> Any:
    from diffusers import AutoencoderKL

    folder = Path(folder)
    with reading(folder):
        vae, info = AutoencoderKL.from_pretrained(
            folder, torch_dtype=dtype, local_files_only=True, output_loading_info=True
        )
    if info["missing_keys"]:
        raise CheckpointError(f"The weights in {folder} lack {sorted(info['missing_keys'])[0]}. {FETCH_AGAIN}")
    return vae.eval().requires_grad_(False)


def load_pipeline(
    folder: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    t5_8bit: bool = False,
    offload: bool = False,
) -> Pipeline:
    """`offload`: the text encoders and the VAE rest on the CPU, and are on the device only while they work.

    Raises CheckpointError, naming the file, for a folder that is missing, incomplete, damaged or of another kind.
    """
    folder = Path(folder)
    kind = class_name(folder)
    if kind != PIPELINE_CLASS:
        raise CheckpointError(f"{folder} holds a {kind}; Easel draws with a {PIPELINE_CLASS}. Choose another folder.")
    schedule = Schedule.from_config(read_json(folder / "scheduler" / "scheduler_config.json"))
    dit = HunyuanDiT.from_pretrained(folder / "transformer", dtype, device)
    text = TextEncoders.load(folder, dit.config.text_len, dit.config.text_len_t5, dtype, device, t5_8bit, offload)
    vae = load_vae(folder / "vae", dtype)
    decoder = preview.load(folder, dit.config.in_channels)
    check_fit(folder, dit, text, vae)
    rest = torch.device("cpu") if offload else dit.device
    return Pipeline(
        dit=dit.fuse(),
        text=text,
        vae=vae.to(rest, memory_format=torch.channels_last),  # half the time in bfloat16 on a CPU
        schedule=schedule,
        preview_decoder=decoder and decoder.to(device),
        lanes=Lanes(torch.get_num_threads()) if dit.device.type == "cpu" else None,
        adapters=Adapters(dit, rest),
        provenance=provenance(folder, dit.device, dtype, t5_8bit),
    )


def check_fit(folder: Path, dit: HunyuanDiT, text: TextEncoders, vae: Any) -> None:
    """The parts of a folder must have been made for one another."""
    pairs = [
        ("vae", "latent_channels", vae.config.latent_channels, "in_channels", dit.config.in_channels),
        (
            "text_encoder",
            "hidden_size",
            text.clip.config.hidden_size,
            "cross_attention_dim",
            dit.config.cross_attention_dim,
        ),
        (
            "text_encoder_2",
            "d_model",
            text.t5.config.d_model,
            "cross_attention_dim_t5",
            dit.config.cross_attention_dim_t5,
        ),
    ]
    for part, name, theirs, ours_name, ours in pairs:
        if theirs != ours:
            raise CheckpointError(
                f"The parts of {folder} do not belong together: {part}/config.json has {name} {theirs}, "
                f"transformer/config.json has {ours_name} {ours}. {FETCH_AGAIN}"
            )
