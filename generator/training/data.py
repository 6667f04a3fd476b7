"""Reading the captioned picture shards that `easel data pictures` wrote.

    shards = PictureShards(Path("runs/pictures")); pixels = shards.pixels([0, 1, 2])

The pictures stay on disk (memory-mapped); scenes and captions are read once.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generator.errors import GeneratorError


class PictureShards:
    """All pictures of one folder. Raises GeneratorError when the folder is not a finished set of shards."""

    def __init__(self, folder: Path) -> None:
        manifest_path = Path(folder) / "manifest.json"
        if not manifest_path.is_file():
            raise GeneratorError(
                f"{folder} holds no manifest.json, so the pictures in it are not complete. "
                f"Make them with: easel data pictures --out {folder}"
            )
        self.manifest: dict[str, Any] = json.loads(manifest_path.read_text())
        self.size: int = self.manifest["size"]
        self.labels: dict[str, list[str]] = self.manifest["labels"]
        self.arrays: list[np.ndarray] = []
        self.covered: list[np.ndarray] = []
        self.records: list[dict[str, Any]] = []
        for shard in self.manifest["shards"]:
            name = shard["name"]
            self.arrays.append(np.load(Path(folder) / f"{name}.npy", mmap_mode="r"))
            self.covered.append(np.load(Path(folder) / f"{name.replace('pictures', 'covers')}.npy", mmap_mode="r"))
            with (Path(folder) / f"{name}.jsonl").open(encoding="utf-8") as lines:
                self.records.extend(json.loads(line) for line in lines)
        planes = len(self.labels["position"]) + 1  # of covers: every position's, and what is worn
        if any(covers.shape[1] != planes for covers in self.covered):
            raise GeneratorError(
                f"{folder} was made by an older Easel, which kept other covers. Delete it; make it anew."
            )
        self.starts = np.cumsum([0] + [len(array) for array in self.arrays])
        if len(self.records) != self.starts[-1]:
            raise GeneratorError(f"{folder}: {self.starts[-1]} pictures but {len(self.records)} records; make it anew")

    def __len__(self) -> int:
        return len(self.records)

    def pixels(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """The pictures at `indices` as float32 (n, 3, size, size) in -1 ... 1."""
        return self._rows(self.arrays, indices).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    def covers(self, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Share of each cell of 8 x 8 pixels that a subject covers: float32 (n, positions, size / 8, size / 8)."""
        return self._rows(self.covered, indices)[:, :-1].float().div_(255)

    def importance(self, indices: Sequence[int] | np.ndarray, subject: float, accessory: float) -> Tensor:
        """What the error in each cell counts: float32 (n, 1, size / 8, size / 8), 1 on the background, `subject` more
        on a subject and `accessory` more on what it wears or holds, for which there are few cells."""
        covers = self._rows(self.covered, indices).float().div_(255)
        return 1 + subject * covers[:, :-1].amax(1, keepdim=True) + accessory * covers[:, -1:]

    def _rows(self, arrays: list[np.ndarray], indices: Sequence[int] | np.ndarray) -> Tensor:
        shards = np.searchsorted(self.starts, indices, side="right") - 1
        return torch.from_numpy(np.stack([arrays[s][i - self.starts[s]] for s, i in zip(shards, indices, strict=True)]))


@dataclass(frozen=True)
class Epochs:
    """Batches of the indices of `n` pictures: each once an epoch, in an order that `seed` fixes. A batch follows from
    its number alone, so that a training that goes on sees what it has not seen yet."""

    n: int
    batch: int
    seed: int

    def __getitem__(self, step: int) -> np.ndarray:
        batch = min(self.batch, self.n)
        epoch, place = divmod(step, self.n // batch)
        return _order(self.n, self.seed, epoch)[place * batch : (place + 1) * batch]


@lru_cache(4)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(n)


def chance(seed: int, step: int) -> random.Random:
    """What is drawn by lot in one step, the same whenever that step is taken."""
    return random.Random(f"{seed} {step}")
