"""`easel doctor`: is this machine ready for Easel, and if not, what is to do? No model is loaded.

easel doctor --profile storybook --port 7860

Every line is ok, warn or fail; the exit status is 1 when one failed. What could take this process down with it, torch
and vLLM, is imported by processes of their own, side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import InvalidRequirement, Requirement

from app.config import add_database, data_dir_of, database_of
from app.database import SQLITE, named, server_version
from app.errors import EaselError, StoreError
from app.profiles import Profile, load_profile

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"
OLDEST_PYTHON = (3, 11)
OLDEST_SQLITE = (3, 35, 0)  # the first with DROP COLUMN
GB = 2**30
LEAST_MEMORY, GOOD_MEMORY = 2 * GB, 4 * GB  # vLLM takes 1.3 GB with the bundled model, the app about as much
LEAST_DISK, GOOD_DISK = GB // 10, GB
PATIENCE = 300  # seconds for an import; a cold disk and a busy machine take their time
SHOWN = 4  # packages named in one line
SETUP = "Run `make setup`."

TORCH = """
import json, torch
from generator.precision import usual
gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads(),
    "cpu": str(usual("cpu")).removeprefix("torch."),
    "gpu": gpu and gpu.name, "gpu_memory": gpu and gpu.total_memory}))
"""
VLLM = """
import json, vllm
from vllm.platforms import current_platform
print(json.dumps({"version": vllm.__version__, "device": current_platform.device_type}))
"""

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    name: str
    state: State
    found: str
    advice: str = ""  # what to do; "" where nothing is


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="storybook", help="storybook, hunyuan, or a .toml file (%(default)s)")
    parser.add_argument("--data-dir", type=Path, help="where conversations would be kept (as `easel chat` has it)")
    add_database(parser)
    parser.add_argument("--port", type=int, default=7860, help="that the app would listen at (%(default)s)")


def run(args: argparse.Namespace) -> int | tuple[dict[str, Any], int]:
    data_dir = data_dir_of(args)
    checks = list(examine(load_profile(args.profile), data_dir, args.port, database_of(args)))
    status = int(any(check.state == "fail" for check in checks))
    if args.json:
        return {"ready": not status, "checks": [asdict(check) for check in checks]}, status
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{check.state:4}  {check.name:{width}}  {check.found}")
        if check.advice:
            print(f"{'':4}  {'':{width}}  → {check.advice}")
    print("\nEasel cannot start well here yet." if status else "\nReady: `make chat`, or `easel chat`.")
    return status


def examine(profile: Profile, data_dir: Path, port: int, address: str = SQLITE) -> Iterator[Check]:
    with ThreadPoolExecutor() as pool:
        torch, vllm = pool.submit(_facts, TORCH), pool.submit(_facts, VLLM)
        yield python()
        yield packages()
        found = torch.result()
        yield from torch_and_gpu(found, profile)
        if not profile.mllm_url:
            yield serving(vllm.result())
    yield memory(available_memory())
    yield from disk(data_dir.expanduser())
    if address != SQLITE:
        yield database(address)
    yield free_port(port)
    for role in ("generator", "dialog", "adapter"):
        source = getattr(profile, role)
        if source and not (profile.mllm_url and role != "generator"):
            yield weights({"dialog": "dialog model"}.get(role, role), source)


def python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, SQLite {sqlite3.sqlite_version}"
    if sys.version_info < OLDEST_PYTHON:
        return Check("Python", "fail", found, "Install Python 3.11 or newer, then `make PYTHON=python3.12 setup`.")
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        return Check("Python", "fail", found, "Its SQLite is too old: install a newer Python.")
    if platform.system() != "Linux":
        return Check(
            "Python", "warn", found, "Easel is tested on Linux alone; in WSL or a container it runs elsewhere."
        )
    return Check("Python", "ok", found)


def packages(folder: Path = REQUIREMENTS) -> Check:
    """Those that Easel imports must be there; others than the pinned versions may do."""
    direct = [Requirement(line) for line in importlib.metadata.requires("easel") or () if "extra ==" not in line]
    files = ("gpu.txt",) if _nvidia() else ("torch.txt", "cpu.txt")
    pinned = [requirement for name in files for requirement in _read_requirements(folder / name)]
    wrong = [_state(requirement) for requirement in direct if not _met(requirement)]
    other = [_state(requirement) for requirement in pinned if not _met(requirement)]
    if wrong:
        return Check("packages", "fail", _listed(wrong), SETUP)
    if (
        _version("torchvision")
        and "+cpu" in (_version("torch") or "")
        and "+cpu" not in (_version("torchvision") or "")
    ):
        advice = "It breaks transformers here: `pip uninstall torchvision torchaudio torchcodec`."
        return Check("packages", "fail", "torchvision is built for CUDA, and torch is not", advice)
    if other:
        return Check("packages", "warn", f"not as pinned: {_listed(other)}", SETUP)
    return Check("packages", "ok", f"{len(pinned) or len(direct)} as required")


def torch_and_gpu(facts: dict[str, Any] | str, profile: Profile) -> Iterator[Check]:
    if isinstance(facts, str):
        yield Check("torch", "fail", facts, SETUP)
        return
    found = f"{facts['version']}, {facts['threads']} threads, computes in {facts['cpu']} on the CPU"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if facts["threads"] < min(cores, 4) and not facts["gpu"]:
        named = os.environ.get("OMP_NUM_THREADS")
        advice = f"OMP_NUM_THREADS is {named}: unset it." if named else "Give this process more of the cores."
        yield Check("torch", "warn", f"{found}; there are {cores} cores", advice)
    else:
        yield Check("torch", "ok", found)
    if facts["gpu"]:
        yield Check("GPU", "ok", f"{facts['gpu']}, {facts['gpu_memory'] / GB:.0f} GB")
    elif not Path(profile.generator).is_dir():
        advice = "Its models are large: use a machine with a GPU of 24 GB and more, or the storybook profile."
        yield Check("GPU", "warn", f"none that torch can use, and the profile is {profile.name}", advice)


def serving(facts: dict[str, Any] | str) -> Check:
    if isinstance(facts, str) and "No module named 'vllm'" in facts:
        advice = f"transformers serves the dialog model instead: many users at once wait longer. {SETUP}"
        return Check("vLLM", "warn", "not installed", advice)
    if isinstance(facts, str):
        return Check("vLLM", "fail", facts, f"{SETUP} Or name a server with `easel chat --mllm-url`.")
    if not facts["device"]:
        return Check("vLLM", "fail", f"{facts['version']}, built for no device of this machine", SETUP)
    return Check("vLLM", "ok", f"{facts['version']} for {facts['device']}")


def memory(free: int | None) -> Check:
    if free is None:
        return Check("memory", "warn", "unknown", f"Easel needs about {GOOD_MEMORY // GB} GB.")
    found = f"{free / GB:.1f} GB free"
    state: State = "ok" if free >= GOOD_MEMORY else "warn" if free >= LEAST_MEMORY else "fail"
    advice = "" if state == "ok" else f"Easel needs about {GOOD_MEMORY // GB} GB: close other programs."
    return Check("memory", state, found, advice)


def available_memory(root: Path = Path("/")) -> int | None:
    """Of the machine, or of the container that holds us."""
    free: list[int] = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text().splitlines()
        free.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        group = root / "sys/fs/cgroup"
        used = int((group / "memory.current").read_text())
        cache = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        free.append(int((group / "memory.max").read_text()) - used + int(cache.get("inactive_file", 0)))
    return max(0, min(free)) if free else None


def disk(folder: Path) -> Iterator[Check]:
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield Check("data folder", "fail", f"{folder} cannot be written", "Choose another one with --data-dir.")
        return
    yield Check("data folder", "ok", f"{folder}" if folder.exists() else f"{folder} (will be made)")
    free = shutil.disk_usage(there).free
    state: State = "ok" if free >= GOOD_DISK else "warn" if free >= LEAST_DISK else "fail"
    advice = "" if state == "ok" else "Free some space, or choose another folder with --data-dir."
    yield Check("disk", state, f"{free / GB:.1f} GB free", advice)


def database(address: str) -> Check:
    try:
        return Check("database", "ok", f"{named(address)}, PostgreSQL {server_version(address)}")
    except StoreError as error:
        return Check("database", "fail", named(address), str(error))


def free_port(port: int) -> Check:
    try:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            advice = f"Perhaps Easel runs already. Else choose another one: `easel chat --port {port + 1}`."
            return Check("port", "warn", f"{port} is in use", advice)
        return Check("port", "fail", f"{port}: {error}", "Choose another one with --port, from 1024 to 65535.")
    return Check("port", "ok", f"{port} is free")


def weights(name: str, source: str) -> Check:
    """A folder's JSON files can be read, and its safetensors are as long as their headers say."""
    folder = Path(source)
    if not folder.is_absolute() and not folder.exists():
        return _from_hub(name, source)
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors", ".bin", ".model"))
    if not any(path.suffix in (".safetensors", ".bin") for path in files):
        return Check(name, "fail", f"{folder} holds no weights", "Restore the folder, or name another in the profile.")
    for path in files:
        try:
            _read_weights(path)
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            advice = "Fetch the file again (`git checkout`, or `git lfs pull` where it is a pointer)."
            return Check(name, "fail", f"{path} cannot be read: {error or type(error).__name__}", advice)
    size = sum(path.stat().st_size for path in files)
    return Check(name, "ok", f"{folder}: {len(files)} files, {size / 2**20:,.0f} MB")


def _read_weights(path: Path) -> None:
    with path.open("rb") as file:
        first = file.read(8)
        if first.startswith(b"version "):
            raise ValueError("it is a pointer of Git LFS, not the file")
        if path.suffix == ".json":
            json.loads(first + file.read())
        if path.suffix == ".safetensors":
            length = struct.unpack("<Q", first)[0]
            if length > path.stat().st_size:
                raise ValueError("its header is damaged, or it is truncated")
            header = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
            if path.stat().st_size != 8 + length + end:
                raise ValueError(f"it has {path.stat().st_size:,} bytes of {8 + length + end:,}")


def _from_hub(name: str, source: str) -> Check:
    from huggingface_hub.constants import HF_HUB_CACHE

    cached = Path(HF_HUB_CACHE) / f"models--{source.replace('/', '--')}" / "snapshots"
    if cached.is_dir() and any(cached.iterdir()):
        return Check(name, "ok", f"{source}, in the hub's cache")
    return Check(name, "warn", f"{source} is not on this machine", "The first start fetches it from the hub.")


def _facts(code: str) -> dict[str, Any] | str:
    """What the code prints as its last line; or, in one line, why it does not."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=REQUIREMENTS.parent, capture_output=True, text=True, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return f"not imported within {PATIENCE} s"
    if done.returncode == 0:
        with contextlib.suppress(ValueError, IndexError):
            return json.loads(done.stdout.splitlines()[-1])
    last = (done.stderr.strip().splitlines() or [f"the import ended with status {done.returncode}"])[-1]
    return f"cannot be imported: {last[:200]}"


def _read_requirements(path: Path) -> list[Requirement]:
    if not path.is_file():  # not a checkout: what the package itself asks for must do
        return []
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    try:
        return [Requirement(line) for line in lines if line]
    except InvalidRequirement as error:
        raise EaselError(f"{path} is damaged: {error}. Restore it.") from error


def _met(requirement: Requirement) -> bool:
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    version = _version(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _state(requirement: Requirement) -> str:
    return f"{requirement.name} {_version(requirement.name) or 'missing'} ({requirement.specifier or 'any'})"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _nvidia() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))
