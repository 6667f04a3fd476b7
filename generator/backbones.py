"""Other image models behind the engine's interface: a folder of any of KINDS, drawn by diffusers' own pipeline.

    python -c "from generator.backbones import load_backbone; print(load_backbone('FOLDER').limits)"

Such a pipeline is one long call. It is made in a greenlet, which is left after each step and entered again for the
next: so several drawings may be under way, each at a step of its own, and any of them may be dropped. All of this
happens in one thread; a helper thread for each call would have an OpenMP team of its own (see `Engine`).
"""

from __future__ import annotations

import copy
import functools
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from greenlet import getcurrent, greenlet
from PIL import Image
from torch import Tensor

from generator.checkpoint import FETCH_AGAIN, read_json, reading
from generator.edits import Trajectory
from generator.errors import CheckpointError, DrawingFailed, RequestError
from generator.pipeline import PIPELINE_CLASS, class_name, load_pipeline, overflow
from generator.provenance import provenance
from generator.request import DrawRequest, Limits

if TYPE_CHECKING:
    from generator.engine import Backbone

WITHOUT_WEIGHTS = ("tokenizer", "scheduler", "feature_extractor")  # how the names of such parts begin
LIBRARIES = ("diffusers", "transformers")


@dataclass(frozen=True)
class Kind:
    """What the adapter must know of a pipeline class."""

    reads: int  # tokens of the prompt …
    tokenizer: str = "tokenizer"  # … that this one makes, of several the one that reads furthest
    patch: int = 2  # latents along each side
    distilled: bool = False  # guidance may be an input of the denoiser; else the class calls it true_cfg_scale
    options: Mapping[str, Any] = field(default_factory=dict)


# Cleaning a prompt needs packages that Easel does not have, and binning draws another size than was asked for.
AS_ASKED = {"clean_caption": False, "use_resolution_binning": False}
KINDS = {
    "PixArtAlphaPipeline": Kind(120, options=AS_ASKED),  # PixArt-delta too, whose scheduler is LCM's
    "PixArtSigmaPipeline": Kind(300, options=AS_ASKED),
    "StableDiffusion3Pipeline": Kind(256, "tokenizer_3"),
    "LuminaPipeline": Kind(256, options={"clean_caption": False}),
    "Lumina2Pipeline": Kind(256),
    "FluxPipeline": Kind(512, "tokenizer_2", distilled=True),
    "QwenImagePipeline": Kind(512, distilled=True),
    "SanaPipeline": Kind(300, patch=1, options=AS_ASKED),
}


def pause(value: Any = None) -> None:
    """Leave the call in which this is called, until it is let go on; who did that last is given `value`."""
    parent = getcurrent().parent
    assert parent is not None, "only a call that was begun by `DiffusersPipeline.begin` can pause"
    parent.switch(value)


def pausing_before(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def paused(*args: Any, **kwargs: Any) -> Any:
        pause()
        return function(*args, **kwargs)

    return paused


def pausing_after(step: Callable[..., Any], generator: torch.Generator) -> Callable[..., Any]:
    """A scheduler's `step` that hands out the new latents. What noise it adds is the request's, asked for or not."""
    if "generator" in inspect.signature(step).parameters:
        step = functools.wraps(step)(functools.partial(step, generator=generator))

    @functools.wraps(step)  # pipelines look at its signature
    def paused(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        pause(result[0])
        return result

    return paused


@dataclass(eq=False)
class DiffusersCanvas:
    """A drawing under way. Nothing that the call holds refers to it: dropped, it ends the call at once."""

    request: DrawRequest
    call: greenlet
    scheduler: Any  # this drawing's own, for it counts the steps
    truncated: bool
    steps: int
    done: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    failed: Exception | None = None
    trajectory: None = None  # such a picture cannot be edited

    @property
    def finished(self) -> bool:
        return self.done == self.steps

    def go_on(self) -> Any:
        """To the call's next pause, and what that gives; after the last, what the call returns."""
        with torch.no_grad():
            return self.call.switch()

    def take(self, latents: Tensor) -> None:
        """One step further."""
        self.done += 1
        self.steps = len(self.scheduler.timesteps)  # some schedulers take more than they were asked for
        if not torch.isfinite(latents).all():
            self.failed = overflow(self.done, self.steps)


@dataclass(frozen=True, eq=False)
class DiffusersPipeline:
    pipeline: Any  # never called itself: each drawing has a copy that shares the models
    kind: Kind
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def native(self) -> int:
        """The side, in pixels, of the square pictures that the model was made for."""
        pipeline = self.pipeline
        latents = getattr(pipeline, "default_sample_size", None) or pipeline.transformer.config.sample_size
        return int(latents * pipeline.vae_scale_factor)

    @property
    def limits(self) -> Limits:
        """A model that brings its own scheduler draws with that; it goes by the name that requests have by default."""
        multiple = self.pipeline.vae_scale_factor * self.kind.patch
        smallest = max(self.native // 2 // multiple, 1) * multiple
        places = self.pipeline.transformer.config.get("pos_embed_max_size")  # SD3 has a table of so many
        largest = min(2 * self.native, places * multiple) if places else 2 * self.native
        return Limits(multiple, smallest, largest, (DrawRequest.sampler,))

    @property
    def distilled(self) -> bool:
        return self.kind.distilled and bool(self.pipeline.transformer.config.guidance_embeds)

    def check(self, request: DrawRequest) -> None:
        """Raises RequestError, before any work, for what this model cannot draw."""
        if request.sampler != DrawRequest.sampler:
            raise RequestError(
                f"This model brings a sampler of its own, so {request.sampler!r} cannot be had. "
                f"Leave the sampler at {DrawRequest.sampler!r}, which here means the model's."
            )
        self.limits.check(request)
        if request.source is not None:
            raise RequestError(
                "This model cannot change a picture, only draw a new one. "
                "Set edit_reuse, edit_threshold and upload_reuse to 0 in the profile."
            )
        if request.lora is not None:
            raise RequestError("LoRA can be had for a Hunyuan-DiT alone. Draw without it, or choose another model.")
        if request.guidance_interval != (0.0, 1.0):
            raise RequestError("This model is guided at every step. Leave the guidance interval at 0 to 1.")
        if self.distilled and request.negative_prompt:
            raise RequestError("Guidance is a part of this model, so it heeds no negative prompt. Leave that empty.")
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        shift = {"mu": 1.0} if scheduler.config.get("use_dynamic_shifting") else {}  # any will do here
        try:
            scheduler.set_timesteps(request.steps, **shift)
        except Exception as error:  # each scheduler has its own word for it
            raise RequestError(f"{request.steps} steps cannot be drawn: {error}. Choose another number.") from error

    def begin(self, request: DrawRequest, source: Trajectory | None = None) -> DiffusersCanvas:
        """Reads the prompt: the call is left where it asks for its first latents."""
        started = time.perf_counter()
        generator = torch.Generator().manual_seed(request.seed)  # a CPU's: the noise is the same on every device
        own = copy.copy(self.pipeline)
        own.scheduler = scheduler = copy.deepcopy(own.scheduler)
        own.prepare_latents = pausing_before(own.prepare_latents)
        scheduler.step = pausing_after(scheduler.step, generator)
        # Without its no_grad: that would end wherever the call is dropped, and set the mode of whoever runs there.
        call = functools.partial(inspect.unwrap(type(own).__call__), own, **self.arguments(request))
        canvas = DiffusersCanvas(
            request, greenlet(functools.partial(call, generator=generator)), scheduler,
            self.truncates(request.prompt), request.steps,
        )  # fmt: skip
        canvas.go_on()
        canvas.seconds = {"text": time.perf_counter() - started, "denoise": 0.0}
        return canvas

    def arguments(self, request: DrawRequest) -> dict[str, Any]:
        """The request in the class's own words."""
        width, height = request.size
        guidance: dict[str, Any] = {"guidance_scale": request.guidance, "negative_prompt": request.negative_prompt}
        if self.distilled:
            guidance = {"guidance_scale": request.guidance, "true_cfg_scale": 1.0}
        elif self.kind.distilled:
            negative = request.negative_prompt if request.guidance > 1 else None
            guidance = {"true_cfg_scale": request.guidance, "negative_prompt": negative}
        return {
            "prompt": request.prompt, "width": width, "height": height, "num_inference_steps": request.steps,
            "max_sequence_length": self.kind.reads, "output_type": "pt", "return_dict": False,
            **guidance, **self.kind.options,
        }  # fmt: skip

    def truncates(self, prompt: str) -> bool:
        """Whether the prompt is longer than the text encoder reads that reads furthest."""
        tokenizer, reads = getattr(self.pipeline, self.kind.tokenizer), self.kind.reads
        if tokenizer is None:  # SD3 is often used without its T5
            tokenizer, reads = self.pipeline.tokenizer, self.pipeline.tokenizer_max_length
        before = getattr(self.pipeline, "system_prompt", "")  # Lumina 2 reads this first
        return len(tokenizer(f"{before}{prompt}", verbose=False).input_ids) > reads

    def advance(self, canvases: Sequence[DiffusersCanvas]) -> None:
        """One step of each, one after the other. Whatever goes wrong is marked as `failed` and harms no other."""
        for canvas in canvases:
            started = time.perf_counter()
            try:
                canvas.take(canvas.go_on())
            except Exception as error:
                canvas.failed = error
            canvas.seconds["denoise"] += time.perf_counter() - started

    def decode(self, canvas: DiffusersCanvas) -> Image.Image:
        """The finished picture: the rest of the call."""
        (pixels,) = canvas.go_on()  # (1, 3, H, W), 0 to 1
        if not torch.isfinite(pixels).all():
            raise DrawingFailed("The decoder's numbers overflowed. Try another seed; with half precision, float32.")
        processor = self.pipeline.image_processor
        picture: Image.Image = processor.numpy_to_pil(processor.pt_to_numpy(pixels))[0]
        return picture

    def preview(self, canvas: DiffusersCanvas) -> None:
        """There is none: what the latents mean only the decoder knows, and these are large."""


def load_backbone(
    folder: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    t5_8bit: bool = False,
    offload: bool = False,
) -> Backbone[Any]:
    """Any model folder that Easel draws with: a Hunyuan-DiT, by our own code, or one of KINDS.

    `offload`: parts stay in the computer's memory, and visit the GPU in turn. Raises CheckpointError.
    """
    folder = Path(folder)
    name = class_name(folder)
    if name == PIPELINE_CLASS:
        return load_pipeline(folder, device, dtype, t5_8bit, offload)
    name = name.replace("Text2Img", "")  # as Lumina's classes were once called
    if name not in KINDS:
        raise CheckpointError(
            f"{folder} holds a {name}, which Easel does not draw with. "
            f"Choose a folder of one of these: {', '.join((PIPELINE_CLASS, *KINDS))}."
        )
    if t5_8bit:
        raise CheckpointError(
            f"{folder} holds a {name}, and only a Hunyuan-DiT's T5 can be had in 8 bits. Set t5_8bit to false."
        )
    pipeline = load_parts(folder, name, dtype)
    pipeline.set_progress_bar_config(disable=True)
    if offload:
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.to(device)
    return DiffusersPipeline(pipeline, KINDS[name], provenance(folder, torch.device(device), dtype))


def load_parts(folder: Path, name: str, dtype: torch.dtype) -> Any:
    """As the class's from_pretrained, but strict: that one fills in with random numbers what a file lacks."""
    parts = {part: entry for part, entry in read_json(folder / "model_index.json").items() if isinstance(entry, list)}
    loaded = {
        part: load_part(folder / part, library, kind, dtype) if kind else None
        for part, (library, kind) in parts.items()
    }
    with reading(folder, weights=False):
        return getattr(import_module("diffusers"), name)(**loaded)


def load_part(folder: Path, library: str, name: str, dtype: torch.dtype) -> Any:
    weights = not folder.name.startswith(WITHOUT_WEIGHTS)
    with reading(folder, weights):
        if library not in LIBRARIES:
            raise CheckpointError(
                f"{folder} wants code from {library!r}; Easel runs that of {', '.join(LIBRARIES)} only."
            )
        try:
            kind = getattr(import_module(library), name)
            if not weights:
                return kind.from_pretrained(folder, local_files_only=True)
            model, info = kind.from_pretrained(folder, dtype=dtype, local_files_only=True, output_loading_info=True)
        except ImportError as error:
            raise CheckpointError(f"{folder} needs a Python package that is missing: {error} Install it.") from error
    if info["missing_keys"]:
        raise CheckpointError(f"The weights in {folder} lack {sorted(info['missing_keys'])[0]}. {FETCH_AGAIN}")
    return model.eval().requires_grad_(False)
