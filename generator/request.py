"""What to draw, and whether it can be drawn. Light: imports no torch.

python -c "from generator.request import DrawRequest; print(DrawRequest('a red fox', seed=7))"
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, astuple, dataclass, field, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from generator.errors import RequestError

LONGEST_PROMPT = 10_000  # characters
MOST_STEPS = 1_000
STRONGEST_GUIDANCE = 50.0
LORA_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")  # as diffusers and PEFT name them
LARGEST_SEED = 2**63 - 1  # the largest integer that SQLite keeps


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def exactly(number: float) -> str:
    """As short as it can be read back from, bit for bit."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


@dataclass(frozen=True)
class EditSettings:
    """How much of its source an edited picture keeps, see generator/edits.py."""

    reuse: float = 0.3  # share of the source's steps that are taken over
    threshold: float = 0.5  # latents that differ by more may change; 0: all may
    margin: int = 1  # latents around them that may change too
    nearly_all: float = 1.0  # an edit whose first step changes a larger share of them takes fewer steps over

    def __post_init__(self) -> None:
        if not 0 <= self.reuse < 1:
            raise RequestError(f"An edit can reuse 0 to 1 of its source's steps, but not all; got {self.reuse}.")
        if not self.threshold >= 0 or not is_whole(self.margin) or self.margin < 0:
            raise RequestError("An edit's threshold and margin must be 0 or more.")
        if not 0 <= self.nearly_all <= 1:
            raise RequestError(f"What is nearly all of a picture is a share from 0 to 1; got {self.nearly_all}.")


@dataclass(frozen=True)
class Upload:
    """A picture that was not drawn here: the content of its file, in a format that Pillow reads."""

    data: bytes

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Lora:
    """A LoRA of the denoiser, see generator/lora.py: a file, or the folder that holds one. Known by its content."""

    path: str
    scale: float = 1.0  # 0: as if it were not there
    sha256: str = ""  # of what the file holds now

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise RequestError(f"The scale of a LoRA must be a number; got {self.scale}.")
        if not self.weights.is_file():
            names = " or ".join(LORA_FILES)
            raise RequestError(f"There is no LoRA {self.path}. Name a .safetensors file, or a folder with {names}.")
        if self.weights.suffix != ".safetensors":
            raise RequestError(f"{self.path} is no .safetensors file. Other formats can hold programs: convert it.")
        if not self.sha256:
            files = [self.weights, *([self.config] if self.config and self.config.is_file() else [])]
            object.__setattr__(self, "sha256", sha256(*files))

    @property
    def weights(self) -> Path:
        path = Path(self.path)
        inside = [path / name for name in LORA_FILES if (path / name).is_file()]
        return inside[0] if inside else path

    @property
    def config(self) -> Path | None:
        """Beside PEFT's weights, which mean nothing without it."""
        return self.weights.with_name("adapter_config.json") if self.weights.name == LORA_FILES[1] else None


def sha256(*files: Path) -> str:
    """Of the files' content, one after the other; size and time tell when one has to be read again."""
    return _sha256(*((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache
def _sha256(*files: tuple[Path, int, int]) -> str:
    digest = hashlib.sha256()
    for path, _, _ in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class DrawRequest:
    """One picture to draw. What does not depend on the model is checked on construction, the rest by `Limits.check`.

    Requests are equal that have the same digest. It is computed once, from that of the source: comparing two chains of
    hundreds of edits would go as deep as they are long."""

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    size: tuple[int, int] = (128, 128)  # (width, height)
    steps: int = 20
    guidance: float = 5.0
    sampler: str = "dpmpp"  # the default; a model that brings its own sampler takes it for that one
    guidance_interval: tuple[float, float] = (0.0, 1.0)  # from clean to noise; outside it a step costs half
    owner: str = ""  # users take turns
    source: DrawRequest | Upload | None = None  # the picture that this one is an edit of
    edit: EditSettings = EditSettings()
    lora: Lora | None = None
    digest: str = field(init=False, repr=False, default="")

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise RequestError("The prompt is empty. Say what to draw.")
        for name, text in (("prompt", self.prompt), ("negative prompt", self.negative_prompt)):
            if len(text) > LONGEST_PROMPT:
                raise RequestError(f"The {name} has {len(text):,} characters. Use at most {LONGEST_PROMPT:,}.")
        if not is_whole(self.seed) or not 0 <= self.seed <= LARGEST_SEED:
            raise RequestError(f"The seed {self.seed} is out of range. Choose a whole number from 0 to {LARGEST_SEED}.")
        if not is_whole(self.steps) or not 1 <= self.steps <= MOST_STEPS:
            raise RequestError(f"{self.steps} steps cannot be drawn. Choose a whole number from 1 to {MOST_STEPS:,}.")
        if not math.isfinite(self.guidance) or not 1 <= self.guidance <= STRONGEST_GUIDANCE:
            raise RequestError(
                f"The guidance {self.guidance} is out of range. Choose 1 (none) to {STRONGEST_GUIDANCE:g}."
            )
        start, stop = self.guidance_interval
        if not 0 <= start <= stop <= 1:
            raise RequestError(f"The guidance interval is {start} to {stop}. Choose 0 ≤ start ≤ stop ≤ 1.")
        if len(self.size) != 2 or not all(is_whole(side) for side in self.size):
            raise RequestError(f"The size {self.size} is not a width and a height in whole pixels.")
        if isinstance(self.source, DrawRequest):
            for name in ("size", "steps", "sampler"):
                if getattr(self, name) != getattr(self.source, name):
                    raise RequestError(f"An edit must have the {name} of its source, {getattr(self.source, name)}.")
        source = self.source.digest if isinstance(self.source, DrawRequest) else self.source and self.source.sha256
        own = [getattr(self, one.name) for one in fields(self) if one.name not in ("source", "edit", "digest")]
        told = repr(_plain([*own, *astuple(self.edit), source]))
        object.__setattr__(self, "digest", hashlib.sha256(told.encode()).hexdigest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DrawRequest) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def metadata(self) -> dict[str, str]:
        """Everything needed to draw it again, as texts for a PNG file; generator/metadata.py reads them back."""
        return {
            name: fact if isinstance(fact, str) else json.dumps(fact, ensure_ascii=False)
            for name, fact in self._facts().items()
        }

    def _facts(self) -> dict[str, Any]:
        """The sources of a source are nested as they are: texts of texts would double their quotes at every edit."""
        facts: dict[str, Any] = {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "seed": str(self.seed),
            "size": f"{self.size[0]}x{self.size[1]}",
            "steps": str(self.steps),
            "guidance": exactly(self.guidance),
            "guidance_interval": "-".join(map(exactly, self.guidance_interval)),
            "sampler": self.sampler,
        }
        if self.lora is not None:
            name = Path(self.lora.path).name  # where it lies is nobody else's business
            facts["lora"] = {"name": name, "sha256": self.lora.sha256, "scale": self.lora.scale}
        if isinstance(self.source, DrawRequest):
            facts["source"] = self.source._facts()
        elif self.source is not None:
            facts["source"] = {"sha256": self.source.sha256}
        if self.source is not None:
            facts["edit"] = asdict(self.edit)
        return facts


def _plain(value: Any) -> Any:
    """The same for equal numbers: 1 for 1.0. No other way round, for floats cannot tell large seeds apart."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() else float(value)
    return value


@dataclass(frozen=True)
class Limits:
    """What one model can draw."""

    multiple: int  # both sides are multiples of this many pixels
    smallest: int
    largest: int
    samplers: tuple[str, ...]

    def check(self, request: DrawRequest) -> None:
        width, height = request.size
        for side in request.size:
            if not self.smallest <= side <= self.largest:
                raise RequestError(
                    f"{width}x{height} is outside what this model draws. "
                    f"Choose sides from {self.smallest} to {self.largest} pixels."
                )
            if side % self.multiple:
                lower = side // self.multiple * self.multiple
                raise RequestError(
                    f"{width}x{height} does not fit: sides must be multiples of {self.multiple}. "
                    f"Instead of {side} choose {lower} or {lower + self.multiple}."
                )
        if request.sampler not in self.samplers:
            raise RequestError(f"There is no sampler {request.sampler!r}. Choose one of {', '.join(self.samplers)}.")
