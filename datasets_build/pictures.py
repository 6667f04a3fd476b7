"""Rendered, captioned pictures of the picture-book world, in shards that the image models train on.

    easel data pictures --out shards --n 4096 --split train --seed 1

A folder holds pictures-00000.npy (uint8: n, size, size, 3), covers-00000.npy (uint8: n, positions + 1, size / 8, size /
8; 255 where the subject that stands there covers the whole cell, and in the last plane where things that are worn or
held do), pictures-00000.jsonl (a line per picture: its scene, its refined prompt and two looser captions in each
language), and so on, and manifest.json, which is written last. Picture i depends on (seed, split, i) alone, so the
bytes do not depend on the workers. Every file comes to its name whole, by rename: a run that was stopped goes on where
it was when it is started again with the same arguments.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import io
import json
import multiprocessing
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets_build.records import SPLITS
from datasets_build.shards import write_atomically
from datasets_build.storybook.language import N_TEMPLATES, write_caption, write_prompt
from datasets_build.storybook.render import LARGEST, SMALLEST, render_with_covers
from datasets_build.storybook.scene import (
    ACCESSORIES,
    BACKGROUNDS,
    COLOURS,
    KINDS,
    POSITIONS,
    SHOTS,
    SIZES,
    SKIES,
    STYLES,
    sample_scene,
)
from datasets_build.storybook.vocabulary import LANGUAGES, NAMES

SHARD = 2048
CAPTIONS = 2  # per language and picture
VERSION = 4
CELL = 8  # pixels of a side, of the grid on which subjects' covers are kept: one latent of an 8x autoencoder
LABELS = {
    "kind": KINDS, "colour": COLOURS, "size": SIZES, "position": POSITIONS, "accessory": ACCESSORIES,
    "background": BACKGROUNDS, "sky": SKIES, "style": STYLES, "shot": SHOTS,
}  # fmt: skip
_PLAN = "unfinished.json"  # what the run that fills the folder was asked for, until it is done


class DataError(Exception):
    """The pictures cannot be written as asked; the message says why and what to do."""


@dataclass(frozen=True)
class Plan:
    n: int
    size: int
    split: str
    seed: int
    shard: int = SHARD  # pictures of one

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise DataError(f"--split must be one of {', '.join(SPLITS)}; got {self.split!r}")
        if self.n < 1:
            raise DataError(f"--n must be 1 or more pictures; got {self.n}")
        if not SMALLEST <= self.size <= LARGEST or self.size % 2:
            raise DataError(f"--size must be an even number from {SMALLEST} to {LARGEST}; got {self.size}")

    def shards(self) -> list[range]:
        """The pictures of each shard."""
        return [range(start, min(start + self.shard, self.n)) for start in range(0, self.n, self.shard)]


def make_picture(plan: Plan, index: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Picture `index` of a plan, its subjects' covers and its line."""
    rng = random.Random(f"{plan.seed}/{plan.split}/{index}")
    scene = sample_scene(rng, plan.split)
    # A language's texts are its own draw, so that adding a language would leave the others' as they are.
    texts = {language: random.Random(f"{plan.seed}/{plan.split}/{index}/{language}") for language in LANGUAGES}
    line = {
        "scene": scene.to_json(),
        "prompt": {lang: write_prompt(scene, lang, draw.randrange(N_TEMPLATES)) for lang, draw in texts.items()},
        "captions": {
            lang: [write_caption(scene, lang, draw, plan.split) for _ in range(CAPTIONS)]
            for lang, draw in texts.items()
        },
    }
    image, covers, worn = render_with_covers(scene, plan.size, rng.getrandbits(31))
    cells = np.zeros((len(POSITIONS) + 1, plan.size // CELL, plan.size // CELL), np.uint8)
    for subject, cover in zip(scene.subjects, covers, strict=True):
        cells[POSITIONS.index(subject.position)] = _in_cells(cover)
    cells[-1] = _in_cells(worn)
    return np.asarray(image, dtype=np.uint8), cells, line


def _in_cells(cover: np.ndarray) -> np.ndarray:
    """Pixels (size, size), 0 to 1 -> the mean of each whole cell, 0 to 255."""
    n = len(cover) // CELL
    blocks = cover[: n * CELL, : n * CELL].reshape(n, CELL, n, CELL)
    return (blocks.mean((1, 3)) * 255 + 0.5).astype(np.uint8)


def _write_shard(job: tuple[Path, Plan, int]) -> int:
    """Writes one shard unless it is there, and returns how many pictures it holds."""
    out, plan, number = job
    members, paths = plan.shards()[number], _paths(out, number)
    array_path, covers_path, lines_path = paths
    if all(path.exists() for path in paths):
        return len(members)
    pixels = np.empty((len(members), plan.size, plan.size, 3), np.uint8)
    covers = np.empty((len(members), len(POSITIONS) + 1, plan.size // CELL, plan.size // CELL), np.uint8)
    lines = []
    for row, index in enumerate(members):
        pixels[row], covers[row], line = make_picture(plan, index)
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    for path, array in ((array_path, pixels), (covers_path, covers)):
        buffer = io.BytesIO()
        np.save(buffer, array)
        write_atomically(path, buffer.getvalue())
    write_atomically(lines_path, "".join(lines).encode())
    return len(members)


def _paths(out: Path, number: int) -> tuple[Path, Path, Path]:
    return out / f"pictures-{number:05}.npy", out / f"covers-{number:05}.npy", out / f"pictures-{number:05}.jsonl"


def write_pictures(
    out: Path, n: int, split: str, seed: int, size: int = 128, workers: int = 2, shard: int = SHARD
) -> dict[str, Any]:
    """Fills the folder `out` and returns its manifest. DataError where that cannot be done."""
    plan = Plan(n, size, split, seed, shard)
    if workers < 1:
        raise DataError(f"--workers must be 1 or more; got {workers}")
    try:
        return _write(out, plan, workers)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"the disk that holds {out} is full. Make room (about {plan.n * plan.size**2 * 3 // 2**20:,} MiB in "
                "all) and run the same command again: the finished shards are kept."
            ) from error
        raise DataError(f"cannot write to {out}: {error.strerror or error}. Choose another --out.") from error


def _write(out: Path, plan: Plan, workers: int) -> dict[str, Any]:
    from tqdm import tqdm

    out.mkdir(parents=True, exist_ok=True)
    manifest_path, plan_path = out / "manifest.json", out / _PLAN
    asked = {**asdict(plan), "version": VERSION}
    for path in (manifest_path, plan_path):
        if path.exists():
            there = json.loads(path.read_text(encoding="utf-8"))
            if any(there.get(key) != value for key, value in asked.items()):
                has = ", ".join(f"{key} {there.get(key)}" for key in asked)
                raise DataError(f"{out} holds other pictures ({has}). Delete that folder or choose another --out.")
    if not manifest_path.exists():
        write_atomically(plan_path, json.dumps(asked).encode())
    jobs = [(out, plan, number) for number in range(len(plan.shards()))]
    with tqdm(total=plan.n, unit="picture", desc=f"{plan.split} pictures", disable=None) as progress:
        for done in _map(jobs, min(workers, len(jobs))):
            progress.update(done)
    shards = []
    for number, members in enumerate(plan.shards()):
        array_path = _paths(out, number)[0]
        shards.append({"name": array_path.stem, "n": len(members), "sha256": _sha256(array_path)})
    labels = {name: list(values) for name, values in LABELS.items()}
    names = {name: {label: list(NAMES["zh"][name][label]) for label in labels[name]} for name in labels}
    manifest = {**asked, "shards": shards, "labels": labels, "names": names}
    write_atomically(manifest_path, json.dumps(manifest, indent=1, ensure_ascii=False).encode())
    plan_path.unlink(missing_ok=True)
    return manifest


def _map(jobs: list[tuple[Path, Plan, int]], workers: int) -> Iterator[int]:
    if workers == 1:
        yield from map(_write_shard, jobs)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        for future in as_completed([pool.submit(_write_shard, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker died, most likely for want of memory. Run the same command again with fewer --workers: the "
            "finished shards are kept."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="the folder to fill")
    parser.add_argument("--n", type=int, required=True, help="how many pictures")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=128, help="pixels of a side")
    parser.add_argument("--workers", type=int, default=2)


def run_arguments(args: argparse.Namespace) -> int:
    """What the command does with its parsed arguments; the result is the exit status."""
    try:
        manifest = write_pictures(args.out, args.n, args.split, args.seed, args.size, args.workers)
    except DataError as error:
        print(f"easel data pictures: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"out": str(args.out), "n": manifest["n"], "shards": len(manifest["shards"])}))
    return 0
