"""The adapters of one dialog model: numbered versions on disk, which of them is active, and which was before it.

    adapters = Adapters("~/.local/share/easel/adapters", "dialog_mllm/weights/base")
    version = adapters.add(Path("runs/lora2/adapter"))
    adapters.activate(version.name, anyway=True); adapters.roll_back()
    adapters.try_out(version.name, share=0.5, anyway=True)  # half of the conversations get it

The folder holds one folder a version, `v1/adapter` (a plain PEFT folder) and `v1/version.json`, and `adapters.json`
with each base's history of activations and the version that is being tried. The adapter that the app brings along has
no folder here: it is "original", is active where nothing else is, and cannot be removed. An adapter belongs to the base
that it was trained on, so several bases may share the folder, and each sees its own. Any process may change it: every
change is made under a lock and by rename, and a running app follows.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from dialog_mllm.bases import FILE, fingerprint, require_base, sha256
from dialog_mllm.errors import AdapterError, ServerFailed
from dialog_mllm.server import check_adapter

ORIGINAL = "original"
TRAINABLE = ("idefics3",)  # types of model
_VERSION = re.compile(r"v([1-9]\d*)")


class NotConfirmed(AdapterError):
    """An adapter that was measured to be worse, or not at all, is activated only by who insists."""


@dataclass(frozen=True)
class Version:
    name: str  # "v1", "v2", …; a number is never used twice
    base: str  # fingerprint of the model that it was trained on
    sha256: str  # of adapter_model.safetensors
    parent: str  # the version that its training started from; "" where that is not known
    created: float  # seconds since 1970
    settings: dict[str, Any] = field(default_factory=dict)  # of its training
    scores: dict[str, Any] = field(default_factory=dict)  # beside its parent's, as whoever measured wrote them
    worse: tuple[str, ...] | None = None  # in what it is worse than its parent, beyond chance; None: not measured


class Adapters:
    """The versions for `model`, a folder or a name on the hub. Raises AdapterError."""

    def __init__(self, folder: Path | str, model: Path | str) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self._model = str(model)
        self._state = self.folder / "adapters.json"

    @property
    def base(self) -> str:
        return fingerprint(self._model)

    def versions(self) -> list[Version]:
        """Oldest first."""
        found = [_read(folder) for folder in self.folder.glob("v*") if _VERSION.fullmatch(folder.name)]
        return sorted((version for version in found if version.base == self.base), key=_number)

    def version(self, name: str) -> Version:
        for version in self.versions():
            if version.name == name:
                return version
        known = ", ".join([ORIGINAL, *(version.name for version in self.versions())])
        raise AdapterError(f"There is no adapter {name!r} for this dialog model. There are: {known}.")

    def adapter(self, name: str) -> Path:
        """The PEFT folder of a version."""
        return self.folder / name / "adapter"

    @property
    def active(self) -> str:
        return ([ORIGINAL, *self._history()])[-1]

    @property
    def before(self) -> str | None:
        """What a roll back leads to."""
        return ([None, ORIGINAL, *self._history()])[-2]

    @property
    def trial(self) -> tuple[str, float] | None:
        """A version that some conversations get in the place of the active one, and their share."""
        trials = self._read_state()["trials"]
        name, share = trials.get(self.base, (None, 0.0)) if trials else (None, 0.0)
        return (name, share) if name is not None else None

    @property
    def written(self) -> bytes:
        """What says which is active or tried, as it lies on the disk: cheap enough to ask for once a second.

        Its time of change would not do: two changes within a tick of the file system's clock have the same."""
        try:
            return self._state.read_bytes()
        except FileNotFoundError:
            return b""

    def add(self, adapter: Path, parent: str = "", settings: Mapping[str, Any] | None = None) -> Version:
        """Copy a PEFT folder into a new version. It is not active, and not measured."""
        try:
            check_adapter(str(adapter))
        except ServerFailed as error:
            raise AdapterError(str(error)) from error
        require_base(adapter, self._model)
        with self._locked() as state:
            number = 1 + max([state["made"], *(_number(version) for version in self._all())])
            state["made"] = number
            folder = self.folder / f"v{number}"
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "adapter").mkdir(parents=True)
            for name in ("adapter_config.json", "adapter_model.safetensors", FILE):
                if (adapter / name).is_file():  # adapters that others made have no FILE
                    shutil.copyfile(adapter / name, partial / "adapter" / name)
            version = Version(
                folder.name, self.base, sha256(partial / "adapter" / "adapter_model.safetensors"), parent, time.time(),
                dict(settings or {}),
            )  # fmt: skip
            _write(partial / "version.json", asdict(version))
            partial.rename(folder)
        return version

    def record(self, name: str, scores: Mapping[str, Any], worse: tuple[str, ...]) -> Version:
        """Write down what was measured."""
        version = replace(self.version(name), scores=dict(scores), worse=worse)
        with self._locked():
            _write(self.folder / name / "version.json", asdict(version))
        return version

    def check(self, name: str, anyway: bool = False) -> None:
        """May it be activated? The gate: NotConfirmed is raised for what was not shown to be as good as what it came
        from, unless `anyway`."""
        if name == ORIGINAL:
            return
        version = self.version(name)
        try:
            check_adapter(str(self.adapter(name)))
        except ServerFailed as error:
            raise AdapterError(str(error)) from error
        if anyway:
            return
        if version.worse is None:
            raise NotConfirmed(f"{name} has not been measured. It may be worse than what it came from.")
        if version.worse:
            raise NotConfirmed(f"{name} is worse than {version.parent or 'its parent'}: {', '.join(version.worse)}.")

    def activate(self, name: str, anyway: bool = False) -> None:
        self.check(name, anyway)
        with self._locked() as state:
            history = state["history"].setdefault(self.base, [])
            if ([ORIGINAL, *history])[-1] != name:
                history.append(name)
            state["trials"].pop(self.base, None)  # that was the decision

    def try_out(self, name: str, share: float, anyway: bool = False) -> None:
        """From now on a share of the conversations, between 0 and 1, gets this version, until one is activated or the
        trial is ended."""
        if not 0 < share < 1:
            raise AdapterError(f"A share of {share:g} is no trial. Choose more than 0 and less than 1.")
        self.check(name, anyway)
        with self._locked() as state:
            if ([ORIGINAL, *state["history"].get(self.base, [])])[-1] == name:
                raise AdapterError(f"{name} is active. Try another adapter beside it.")
            state["trials"][self.base] = [name, share]

    def end_trial(self) -> None:
        with self._locked() as state:
            if state["trials"].pop(self.base, None) is None:
                raise AdapterError("No adapter is being tried.")

    def roll_back(self) -> str:
        """Return to what was active before; says what that is. A trial ends."""
        with self._locked() as state:
            history = state["history"].setdefault(self.base, [])
            if not history:
                raise AdapterError("There is nothing to go back to: no other adapter was active before.")
            history.pop()
            state["trials"].pop(self.base, None)
            return ([ORIGINAL, *history])[-1]

    def remove(self, name: str) -> None:
        if name == ORIGINAL:
            raise AdapterError("The original adapter comes with the app and cannot be removed.")
        self.version(name)
        with self._locked() as state:
            history = state["history"].setdefault(self.base, [])
            if ([ORIGINAL, *history])[-1] == name:
                raise AdapterError(f"{name} is active. Activate another adapter, or roll back, before it is removed.")
            if state["trials"].get(self.base, [None])[0] == name:
                raise AdapterError(f"{name} is being tried. End that before it is removed.")
            kept = [ORIGINAL, *(entry for entry in history if entry != name)]
            state["history"][self.base] = [after for last, after in pairwise(kept) if after != last]
            gone = (self.folder / name).with_name(f"{name}.removed")
            (self.folder / name).rename(gone)
        shutil.rmtree(gone)

    # Inside

    def _history(self) -> list[str]:
        history = self._read_state()["history"]
        return history.get(self.base, []) if history else []  # the fingerprint of a large model takes seconds

    def _all(self) -> list[Version]:
        return [_read(folder) for folder in self.folder.glob("v*") if _VERSION.fullmatch(folder.name)]

    def _read_state(self) -> dict[str, Any]:
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            state.setdefault("trials", {})  # of an older Easel
            if not isinstance(state["made"], int) or not isinstance(state["history"], dict):
                raise TypeError("a part is missing")
            for name, share in state["trials"].values():
                if not isinstance(name, str) or not 0 < share < 1:
                    raise TypeError("a trial is damaged")
            return state
        except FileNotFoundError:
            return {"made": 0, "history": {}, "trials": {}}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise AdapterError(
                f"{self._state} cannot be read ({error}). Delete it: the versions stay, and the original is active."
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[dict[str, Any]]:
        """The state, to be changed; written back when nothing went wrong."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                state = self._read_state()
                yield state
                _write(self._state, state)
        except OSError as error:
            raise AdapterError(
                f"The adapters in {self.folder} cannot be changed: {error.strerror or error}."
            ) from error


def takes_adapters(model: Path | str) -> bool:
    """Whether a folder holds a model that `easel finetune` makes adapters for."""
    try:
        return json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))["model_type"] in TRAINABLE
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _number(version: Version) -> int:
    return int(version.name.removeprefix("v"))


def _read(folder: Path) -> Version:
    try:
        values = json.loads((folder / "version.json").read_text(encoding="utf-8"))
        worse = values.pop("worse")
        return Version(**values, worse=None if worse is None else tuple(worse))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"The adapter in {folder} cannot be read ({error}). Remove that folder.") from error


def _write(file: Path, values: Mapping[str, Any]) -> None:
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(values, indent=1, ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(file)
