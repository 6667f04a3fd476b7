"""Profiles: which two models Easel runs, and their defaults. Nothing else in the code asks which profile it is.

    python -c "from app.profiles import load_profile; print(load_profile('storybook'))"

A profile is a built-in's name, or a TOML file with the same keys, all optional; `base` is the built-in to start from:

    base = "hunyuan"
    name = "mine"
    dialog = "./my-vlm"          # a folder beside the file, or a name on the hub
    steps = 30
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from app.errors import InputRefused, ProfileError
from app.styles import HUNYUAN, LONGEST, STORYBOOK, Style, check_styles, in_style
from dialog_mllm.bases import is_bundled_kind
from dialog_mllm.instructions import INSTRUCTIONS
from dialog_mllm.messages import BUNDLED_IMAGES, MAX_IMAGES, makes_squares
from generator.errors import RequestError
from generator.request import DrawRequest, EditSettings, Lora, sha256

_PACKAGES = Path(__file__).resolve().parent.parent
_BASE = _PACKAGES / "dialog_mllm" / "weights" / "base"
_STORYBOOK = _PACKAGES / "generator" / "weights" / "storybook"
_INSPECTOR = _PACKAGES / "generator" / "weights" / "inspector"

PRECISIONS = ("float32", "bfloat16", "float16")
MOST_STEPS = 200  # in the app; the engine itself allows more


@dataclass(frozen=True)
class Settings:
    """How the pictures of one conversation are drawn."""

    width: int
    height: int
    steps: int
    guidance: float
    style: str = ""  # one of the profile's; "": as the dialog model says

    def __post_init__(self) -> None:
        for name in ("width", "height", "steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise InputRefused(f"{name.capitalize()} must be a whole number; got {value!r}.")
        if not 1 <= self.steps <= MOST_STEPS:
            raise InputRefused(f"Steps must be from 1 to {MOST_STEPS}; got {self.steps}.")
        if (
            not isinstance(self.guidance, int | float)
            or not math.isfinite(self.guidance)
            or not 1 <= self.guidance <= 30
        ):
            raise InputRefused(f"Guidance must be a number from 1 to 30; got {self.guidance!r}.")
        for name in ("width", "height"):
            side = getattr(self, name)
            if not 16 <= side <= 4096 or side % 16:
                raise InputRefused(f"{name.capitalize()} must be a multiple of 16 from 16 to 4096; got {side}.")
        if not isinstance(self.style, str) or len(self.style) > LONGEST:
            raise InputRefused(f"A style is named by at most {LONGEST} characters; got {self.style!r}.")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Profile:
    name: str
    generator: str  # folder in the diffusers layout, or a name on the hub
    dialog: str  # folder of a vision-language model that vLLM serves, or a name on the hub
    adapter: str = ""  # PEFT folder for the dialog model; "" for none
    mllm_url: str = ""  # a running OpenAI-compatible server; "" and Easel starts vLLM itself
    mllm_key: str = ""
    width: int = 256
    height: int = 256
    sizes: tuple[str, ...] = ("256x256", "256x192", "192x256")  # offered in the interface, width x height
    steps: int = 10
    guidance: float = 3.0  # of 3 and 5, the better on the validation split in all but style (0.89, 0.91)
    sampler: str = "dpmpp"
    styles: Mapping[str, Style] = field(default_factory=dict, hash=False)  # offered in the interface; see styles.py
    # See generator.request.EditSettings; with both 0, every turn draws from nothing.
    edit_reuse: float = EditSettings.reuse
    edit_threshold: float = EditSettings.threshold
    edit_nearly_all: float = 0.9  # local edits changed 0.64 at most, nights with a second moon 0.95 and more
    upload_reuse: float = 0.4  # the same for an uploaded picture; 0: it is looked at, and a new one is drawn
    negative_prompt: str = ""
    lora: str = ""  # for the generator: a file, or the folder that holds one; "" for none
    lora_scale: float = 1.0
    precision: str = ""  # that the generator computes in, one of PRECISIONS; "": see generator/precision.py
    t5_8bit: bool = False  # half of the memory of the generator's larger text encoder
    offload: bool = False  # its text encoders and its VAE on the device only while they work
    inspector: str = ""  # folder of the recogniser that looks at what was drawn; "" for none
    max_images: int = MAX_IMAGES  # pictures that the dialog model sees at once, newest first
    max_model_len: int = 2048
    system_messages: bool = False  # whether the dialog model was taught to heed a system message
    prompt_only: bool = False  # whether it was not taught to draw, and is told by a system prompt with examples
    source: str = ""  # what `load_profile` has read it from, for other processes to do the same
    draw_bias: float = 0.0  # added to the logit of its draw token, see DialogClient

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, default = getattr(self, entry.name), entry.default
            if entry.name in ("name", "generator", "dialog") and not (isinstance(value, str) and value):
                raise ProfileError(f"Profile: {entry.name} must be a text that is not empty.")
            if isinstance(default, bool | str) and not isinstance(value, type(default)):
                raise ProfileError(f"Profile: {entry.name} must be a {type(default).__name__}; got {value!r}.")
            if type(default) is int and (type(value) is not int or value < 1):
                raise ProfileError(f"Profile: {entry.name} must be a whole number above 0; got {value!r}.")
        for name in ("guidance", "lora_scale", "draw_bias"):
            if not isinstance(value := getattr(self, name), int | float) or isinstance(value, bool):
                raise ProfileError(f"Profile: {name} must be a number; got {value!r}.")
        if self.precision not in ("", *PRECISIONS):
            known = ", ".join(PRECISIONS)
            raise ProfileError(f"Profile: precision must be one of {known}, or empty; got {self.precision!r}.")
        try:
            check_styles(self.styles)
        except ValueError as error:
            raise ProfileError(f"Profile {self.name}: {error}.") from error
        try:
            _ = self.adapted
        except RequestError as error:
            raise ProfileError(f"Profile {self.name}: {error}") from error
        try:
            _ = self.edit, self.upload_edit
        except (TypeError, RequestError) as error:
            raise ProfileError(
                f"Profile: edit_reuse, edit_threshold, edit_nearly_all or upload_reuse is wrong: {error}"
            ) from error
        try:
            _ = self.settings
            sizes = [replace(self.settings, **parse_size(size)) for size in self.sizes]
            object.__setattr__(self, "sizes", tuple(f"{size.width}x{size.height}" for size in sizes))
        except InputRefused as error:
            raise ProfileError(f"Profile {self.name}: {error}") from error

    @property
    def settings(self) -> Settings:
        return Settings(self.width, self.height, self.steps, float(self.guidance))

    @property
    def loading(self) -> dict[str, Any]:
        """How the generator is loaded."""
        return {"precision": self.precision, "t5_8bit": self.t5_8bit, "offload": self.offload}

    @property
    def adapted(self) -> Lora | None:
        return Lora(self.lora, float(self.lora_scale)) if self.lora else None

    @property
    def asking(self) -> dict[str, Any]:
        """How the dialog model is asked: of a `DialogClient`."""
        instructions = INSTRUCTIONS if self.prompt_only else ""
        return {
            "max_images": self.max_images,
            "instructions": instructions,
            "squares": makes_squares(self.dialog),
            "draw_bias": float(self.draw_bias),
        }

    @property
    def dialog_sha256(self) -> str:
        """Of the dialog model's weights as their file is now; "" where others serve it, or where it is no local folder
        with one file of weights."""
        weights = Path(self.dialog) / "model.safetensors"
        return sha256(weights) if not self.mllm_url and weights.is_file() else ""

    @property
    def adapter_sha256(self) -> str:
        """Of the dialog model's adapter as its file is now; "" where there is none, or where others serve the model."""
        weights = Path(self.adapter) / "adapter_model.safetensors"
        return sha256(weights) if self.adapter and not self.mllm_url and weights.is_file() else ""

    @property
    def edits(self) -> bool:
        """Whether a changed prompt is drawn as an edit of the picture before."""
        return bool(self.edit_reuse or self.edit_threshold)

    @property
    def edit(self) -> EditSettings:
        return EditSettings(self.edit_reuse, self.edit_threshold, nearly_all=self.edit_nearly_all)

    @property
    def upload_edit(self) -> EditSettings:
        return EditSettings(self.upload_reuse, 0.0)

    def request(self, prompt: str, seed: int, settings: Settings, owner: str = "") -> DrawRequest:
        """Raises RequestError."""
        return DrawRequest(
            prompt=self.in_style(prompt, settings.style),
            negative_prompt=self.negative_prompt,
            seed=seed,
            size=(settings.width, settings.height),
            steps=settings.steps,
            guidance=settings.guidance,
            sampler=self.sampler,
            owner=owner,
            edit=self.edit,
            lora=self.adapted,
        )

    def in_style(self, prompt: str, style: str) -> str:
        """The prompt as it is drawn; one of another profile's styles changes nothing."""
        return in_style(prompt, self.styles[style]) if style in self.styles else prompt

    def style_of(self, prompt: str, settings: Mapping[str, Any]) -> str:
        """The style of a turn's settings, where its prompt takes it; "" where the prompt names another."""
        style = str(settings.get("style") or "")
        return style if self.in_style(prompt, style) != prompt else ""

    def read_settings(self, values: Mapping[str, Any]) -> Settings:
        """Settings from what was stored or asked; what is not named is the profile's."""
        known = {entry.name for entry in fields(Settings)}
        if unknown := sorted(set(values) - known):
            raise InputRefused(f"Unknown settings {', '.join(unknown)}. There are {', '.join(sorted(known))}.")
        return replace(self.settings, **values)


def parse_size(text: str) -> dict[str, Any]:
    """ "128x96" -> {"width": 128, "height": 96}"""
    width, _, height = str(text).lower().replace("×", "x").partition("x")
    if not (width.strip().isdecimal() and height.strip().isdecimal()):
        raise InputRefused(f"A size is written WIDTHxHEIGHT, like 128x128; got {text!r}.")
    return {"width": int(width), "height": int(height)}


PROFILES = {
    "storybook": Profile(
        name="storybook",
        source="storybook",
        generator=str(_STORYBOOK),
        dialog=str(_BASE),
        inspector=str(_INSPECTOR),
        max_images=BUNDLED_IMAGES,
        styles=STORYBOOK,
    ),
    "hunyuan": Profile(
        name="hunyuan",
        source="hunyuan",
        generator="Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers-Distilled",
        dialog="HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        width=1024,
        height=1024,
        sizes=("1024x1024", "1280x1280", "1024x768", "768x1024", "1280x768", "768x1280"),
        steps=25,
        guidance=5.0,
        edit_reuse=0.0,  # not measured yet on these weights
        edit_threshold=0.0,
        upload_reuse=0.0,
        max_model_len=8192,
        system_messages=True,
        prompt_only=True,
        styles=HUNYUAN,
    ),
}


def load_profile(source: str) -> Profile:
    """A built-in profile by its name, or one from a TOML file."""
    if source in PROFILES:
        return PROFILES[source]
    path = Path(source).expanduser()
    if path.suffix != ".toml":
        raise ProfileError(f"There is no profile {source!r}. Choose {' or '.join(PROFILES)}, or name a .toml file.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ProfileError(f"There is no profile file {path}.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProfileError(f"The profile file {path} cannot be read: {error}") from error
    return _from_values(values, path)


def _from_values(values: dict[str, Any], path: Path) -> Profile:
    base = values.pop("base", "storybook")
    if base not in PROFILES:
        raise ProfileError(
            f"{path}: there is no built-in profile {base!r} to start from. Choose {' or '.join(PROFILES)}."
        )
    known = [entry.name for entry in fields(Profile) if entry.name != "source"]
    if unknown := sorted(set(values) - set(known)):
        raise ProfileError(f"{path}: unknown keys {', '.join(unknown)}. A profile has base, {', '.join(known)}.")
    values.setdefault("name", path.stem)
    if "dialog" in values:
        values.setdefault("adapter", "")  # an adapter belongs to its base
    if values.get("adapter"):
        values.setdefault("prompt_only", False)  # it was trained on the protocol, and without instructions
    if "generator" in values:
        values.setdefault("inspector", "")  # it knows one generator's world
        values.setdefault("styles", HUNYUAN)  # in words that any model of pictures may know
    for name in ("generator", "dialog", "adapter", "lora", "inspector"):
        if isinstance(values.get(name), str) and (path.parent / values[name]).exists() and values[name]:
            values[name] = str((path.parent / values[name]).resolve())
    if "dialog" in values:  # as it was trained; one of the bundled kind reads a picture in few tokens
        bundled = isinstance(values["dialog"], str) and is_bundled_kind(Path(values["dialog"]))
        values.setdefault("max_images", BUNDLED_IMAGES if bundled else MAX_IMAGES)
    if "sizes" in values:
        values["sizes"] = tuple(values["sizes"]) if isinstance(values["sizes"], list) else (values["sizes"],)
    elif {"width", "height"} & set(values):
        width, height = (values.get(name, getattr(PROFILES[base], name)) for name in ("width", "height"))
        values["sizes"] = (f"{width}x{height}",)
    return replace(PROFILES[base], **values, source=str(path.absolute()))
