"""Which model an adapter was made for, and of which kind that is.

    Base.of("weights/base").write(Path("run/adapter")); require_base(Path("run/adapter"), "weights/base")

PEFT's settings name a base, and two models of one size may bear one name: on the wrong one an adapter loads, and talks
nonsense. So the base's fingerprint lies beside the settings. Adapters that others made have none, and pass.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dialog_mllm.errors import AdapterError
from dialog_mllm.protocol import ASSISTANT

FILE = "easel.json"


@dataclass(frozen=True)
class Base:
    name: str  # a hub's name whole, a folder's without the way to it
    sha256: str  # fingerprint; "" of a hub's name

    @classmethod
    def of(cls, model: Path | str) -> Base:
        folder = Path(model)
        return cls(folder.name, fingerprint(str(model))) if folder.is_dir() else cls(folder.as_posix(), "")

    def write(self, adapter: Path) -> None:
        (adapter / FILE).write_text(json.dumps({"base_sha256": self.sha256}) + "\n", encoding="utf-8")


def require_base(adapter: Path, model: Path | str) -> None:
    """AdapterError if the adapter is known to have been made for another model than this folder's."""
    try:
        made_for = json.loads((adapter / FILE).read_text(encoding="utf-8"))["base_sha256"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{adapter / FILE} cannot be read ({error}). Restore it, or delete it.") from error
    if made_for and Path(model).is_dir() and made_for != fingerprint(str(model)):
        raise AdapterError(
            f"{adapter} was made for another base than {model}. Name the base that it was trained on"
            " (--base, or `dialog` in the profile), or train it again on this one."
        )


def is_bundled_kind(base: Path) -> bool:
    """Whether `easel train mllm` made the model."""
    try:
        kind = json.loads((base / "config.json").read_text(encoding="utf-8")).get("model_type")
        return kind == "idefics3" and ASSISTANT in (base / "tokenizer.json").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False


def fingerprint(model: str) -> str:
    """The same for the same weights, wherever they lie; a hub's name stands for itself."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    try:
        files = sorted([folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("*.bin")])
        return _fingerprint(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))
    except OSError as error:
        raise AdapterError(f"The model in {folder} cannot be read: {error.strerror or error}.") from error


@cache  # a large model takes seconds
def _fingerprint(files: tuple[tuple[Path, int, int], ...]) -> str:
    whole = hashlib.sha256()
    for file, *_ in files:
        whole.update(f"{file.name} {sha256(file)}\n".encode())
    return whole.hexdigest()


def sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise AdapterError(f"{file} cannot be read: {error.strerror or error}.") from error
