"""Reading and writing one component of a diffusers-layout folder: a JSON config beside safetensors weights.

    python -c "from generator.checkpoint import read_json; print(read_json('FOLDER/vae/config.json'))"

Everything that can be wrong with files on a disk is found here and said in words.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from generator.errors import CheckpointError

WEIGHTS = "diffusion_pytorch_model.safetensors"
MAPPED = 1 << 25  # bytes of a file that are in memory beside their copies
FETCH_AGAIN = "Fetch the model folder again, or point to a complete one."
OUT_OF_MEMORY = (
    "The device has too little memory for {}. In the profile, offload = true keeps the text encoders and the VAE out of"
    ' it while they rest, t5_8bit = true halves the larger text encoder, and precision = "bfloat16" all of it.'
)


def read_json(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} is missing. {FETCH_AGAIN}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}). {FETCH_AGAIN}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object. {FETCH_AGAIN}")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def each_tensor(folder: Path, name: str = WEIGHTS) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a component, from one file or from the shards that its index names.

    Each lies in the mapped file: whoever keeps it makes a copy. What was read through one opening stays in memory until
    that is closed, so a large file is opened again and again.
    """
    index = folder / f"{name}.index.json"
    if not (folder / name).is_file() and index.is_file():
        shards = sorted({folder / shard for shard in read_json(index).get("weight_map", {}).values()})
    else:
        shards = [folder / name]
    for shard in shards:
        if not shard.is_file():
            raise CheckpointError(f"{shard} is missing. {FETCH_AGAIN}")
    for shard in shards:
        with opened(shard) as file:
            keys = deque(file.keys())
        while keys:
            with opened(shard) as file:
                read = 0
                while keys and read < MAPPED:
                    key = keys.popleft()
                    tensor = file.get_tensor(key)
                    read += tensor.nbytes
                    yield key, tensor


def read_tensors(
    folder: Path,
    dtype: torch.dtype,
    name: str = WEIGHTS,
    device: str | torch.device = "cpu",
    side_by_side: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Straight to their type and device. Layers of these names, which have one shape, lie in one piece of memory: to
    join them later would take as much again, and leave holes that nothing else fits in."""
    tensors: dict[str, Tensor] = {}
    pieces: dict[str, Tensor] = {}
    for key, tensor in each_tensor(folder, name):
        place = next((i for i, layer in enumerate(side_by_side) if f".{layer}." in key), None)
        if place is None:
            tensors[key] = tensor.to(device, dtype, copy=True)
            continue
        whole = key.replace(side_by_side[place], "")
        if whole not in pieces:
            pieces[whole] = torch.empty(len(side_by_side), *tensor.shape, dtype=dtype, device=device)
        if pieces[whole][place].shape != tensor.shape:
            raise CheckpointError(f"{folder}: {key} has the shape {tuple(tensor.shape)}. {FETCH_AGAIN}")
        tensors[key] = pieces[whole][place].copy_(tensor)
    return tensors


def write_tensors(folder: Path, tensors: dict[str, Tensor], dtype: torch.dtype, name: str = WEIGHTS) -> None:
    """Written under another name and then renamed, so that a file with the right name is always complete."""
    on_disk = {key: tensor.detach().to("cpu", dtype, copy=True).contiguous() for key, tensor in tensors.items()}
    unfinished = folder / f"{name}.part"
    save_file(on_disk, unfinished, metadata={"format": "pt"})
    unfinished.replace(folder / name)


@contextmanager
def reading(folder: Path, weights: bool = True) -> Iterator[None]:
    """Around another library's from_pretrained: checks the files first, and says in words what still goes wrong."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is missing. {FETCH_AGAIN}")
    if weights:
        read_json(folder / "config.json")
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise CheckpointError(f"{folder} has no weights (*.safetensors). {FETCH_AGAIN}")
        for file in files:
            check_complete(file)
    try:
        yield
    except CheckpointError:
        raise
    except torch.OutOfMemoryError as error:
        raise CheckpointError(OUT_OF_MEMORY.format(folder)) from error
    except Exception as error:  # another library's loader raises whatever it meets
        raise CheckpointError(f"{folder} cannot be loaded: {error}. {FETCH_AGAIN}") from error


def check_complete(file: Path) -> None:
    with opened(file):
        pass


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as content:
            yield content
    except (SafetensorError, OSError) as error:
        raise damaged(file, error) from error


def damaged(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{file} is damaged or was not downloaded to its end ({error}). {FETCH_AGAIN}")
