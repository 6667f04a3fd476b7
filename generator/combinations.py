"""Which things a model was shown together in its training: held-out prompts can then ask for what it never saw.

    python -m generator.combinations generator/weights/storybook runs/pictures runs/pictures12

adds the pictures' combinations to a model folder; `easel train dit` does so by itself. A combination is two subjects in
one picture, or a subject and a thing that it wears or holds, each with its colour.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations as pairs
from pathlib import Path
from typing import Any

import numpy as np

from generator.errors import CheckpointError

FILE = "seen.npy"  # sorted codes, uint32: 35,000 combinations take 140 KB, and two share a code in one case of 100,000


def combinations(scene: dict[str, Any]) -> list[str]:
    """Of a scene in JSON form; none where one bare subject stands alone."""
    subjects = scene["subjects"]
    names = sorted(f"{subject['colour']} {subject['kind']}" for subject in subjects)
    together = [f"{one} + {other}" for one, other in pairs(names, 2)]
    worn = [
        f"{subject['colour']} {subject['kind']} with {thing['colour']} {thing['kind']}"
        for subject in subjects
        for thing in subject["accessories"]
    ]
    return together + worn


def code(combination: str) -> int:
    return int.from_bytes(hashlib.blake2s(combination.encode(), digest_size=4).digest(), "big")


def seen_in(scenes: Iterable[dict[str, Any]]) -> np.ndarray:
    """Sorted codes (n,) of every combination in these scenes."""
    found = {code(combination) for scene in scenes for combination in combinations(scene)}
    return np.array(sorted(found), dtype=np.uint32)


def load(folder: Path) -> np.ndarray:
    """Codes (n,), none where the model folder does not say. Raises CheckpointError for a broken file."""
    if not (folder / FILE).is_file():
        return np.zeros(0, dtype=np.uint32)
    try:
        codes: np.ndarray = np.load(folder / FILE)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / FILE} cannot be read ({error}). Fetch it again.") from error
    return codes


def add(folder: Path, more: np.ndarray) -> None:
    np.save(folder / FILE, np.union1d(load(folder), more))


def unseen(scene: dict[str, Any], seen: np.ndarray) -> bool:
    """Whether the scene combines what no training picture combined."""
    return not np.isin([code(combination) for combination in combinations(scene)], seen).all()


def scenes_of(pictures: Path) -> Iterator[dict[str, Any]]:
    shards = sorted(pictures.glob("pictures-*.jsonl"))
    if not shards:
        raise SystemExit(f"{pictures} holds no pictures. Make them with: easel data pictures --out {pictures}")
    for shard in shards:
        with shard.open(encoding="utf-8") as lines:
            yield from (json.loads(line)["scene"] for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="note in a model folder what its training pictures combine")
    parser.add_argument("folder", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+", help="folders that easel data pictures wrote")
    args = parser.parse_args(arguments)
    for pictures in args.pictures:
        add(args.folder, seen_in(scenes_of(pictures)))
    print(f"{len(load(args.folder))} combinations")


if __name__ == "__main__":
    main()
