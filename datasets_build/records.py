"""Records: exchanges put together to the canonical JSONL, with their pictures, by any number of workers alike.

    easel data p --out data --n 100 --seed 1 --split train     # and o, pm, tt, mix

Record i of a run depends on (seed, split, i) alone, so the bytes of a data set do not depend on the workers, nor on a
run that was killed and started again: that goes on from its finished shards (`shards`). Pictures are named by their
content. A larger --n goes on from a finished run as well.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from datasets_build.even import EvenRandom, choose
from datasets_build.plans import TURNS, lengths, targets
from datasets_build.shards import (
    DRAFTS,
    LICENCE,
    PICTURE_SIZE,
    SHARD,
    SOURCE,
    BuildError,
    Line,
    SplitFolder,
    builders_digest,
    explained,
    to_line,
    write_atomically,
)
from datasets_build.storybook.scene import Scene
from datasets_build.storybook.vocabulary import LANGUAGES
from datasets_build.workers import Mapped, workers
from dialog_mllm.messages import DRAW, SWITCH

SPLITS = ("train", "validation", "test")
MAX_TRIES = 200  # until a builder has found a record whose scenes are all of the wanted split


class NoSample(Exception):
    """This attempt led nowhere (a scene of another split, an edit or phrasing that does not fit): another is made."""


@dataclass(frozen=True)
class Exchange:
    """One message of the user's and its reply. `opens`: with it the user turns to something new."""

    user: str
    reply: str
    type: str  # t2t, t2i, ti2t or ti2i
    request: Mapping[str, Any] | None = None
    drawn: Scene | None = None
    uploads: tuple[Scene, ...] = ()
    opens: bool = False


@dataclass(frozen=True)
class Dialogue:
    language: str
    exchanges: tuple[Exchange, ...]
    phrasings: tuple[str, ...]
    topic: str | None = None
    pictures: bool = True  # whether those that are drawn are kept


Builder = Callable[[str, str, random.Random], Dialogue]  # (language, split, rng) -> a dialogue, or NoSample


def draw_exchange(user: str, prompt: str, request: Mapping[str, Any], scene: Scene, **more: Any) -> Exchange:
    kind = more.pop("type", "t2i")
    return Exchange(user, DRAW + prompt, kind, request, scene, **more)


def require_split(scene: Scene, split: str) -> Scene:
    if scene.split != split:
        raise NoSample
    return scene


# ----------------------------------------------------------------------------------------------------- one record


def _picture(scene: Scene, seed: int, root: Path) -> dict[str, Any]:
    """Draws the scene into the data set's folder, once, and returns its content block. The folder has DRAFTS."""
    from datasets_build.storybook.render import render

    buffer = io.BytesIO()
    render(scene, PICTURE_SIZE, seed).save(buffer, "PNG")
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    path = Path("images") / digest[:2] / f"{digest}.png"
    if not (root / path).exists():
        write_atomically(root / path, buffer.getvalue(), root / DRAFTS)
    return {"type": "image", "path": path.as_posix(), "sha256": digest}


def to_record(
    dialogue: Dialogue,
    name: str,
    task: str,
    split: str,
    picture_seed: int,
    root: Path,
    source: str = SOURCE,
    licence: str = LICENCE,
) -> dict[str, Any]:
    """The dialogue as a record; its pictures are drawn, as far as a later message can refer to them."""
    messages: list[dict[str, Any]] = []
    under_way = False  # whether a topic was opened before
    for i, exchange in enumerate(dialogue.exchanges):
        blocks = [_picture(scene, picture_seed + 1 + k, root) for k, scene in enumerate(exchange.uploads)]
        messages.append({"role": "user", "content": [*blocks, {"type": "text", "text": exchange.user}]})
        switch = SWITCH if exchange.opens and under_way else ""
        under_way = under_way or exchange.opens
        content: list[dict[str, Any]] = [{"type": "text", "text": switch + exchange.reply}]
        if dialogue.pictures and exchange.drawn is not None and i + 1 < len(dialogue.exchanges):
            content.append(_picture(exchange.drawn, picture_seed, root))
        messages.append({"role": "assistant", "content": content})
    return {
        "id": name,
        "task": task,
        "language": dialogue.language,
        "split": split,
        "source": source,
        "licence": licence,
        "topic": dialogue.topic,
        "phrasings": sorted(set(dialogue.phrasings)),
        "messages": messages,
        "turns": [
            {"type": e.type, "request": e.request, "scene": e.drawn and e.drawn.to_json()} for e in dialogue.exchanges
        ],
    }


def build_dialogue(builder: Builder, language: str, split: str, rng: random.Random) -> Dialogue:
    for _ in range(MAX_TRIES):
        try:
            return builder(language, split, rng)
        except NoSample:
            continue
    raise RuntimeError(f"no {split} sample found in {MAX_TRIES} tries")


# ------------------------------------------------------------------------------------------------- many records


@dataclass(frozen=True)
class Job:
    """What a run builds: `shares` of tasks, named as in `builders()`."""

    out: Path
    split: str
    n: int
    seed: int
    shares: Mapping[str, float]
    languages: Sequence[str] = LANGUAGES
    workers: int = 2
    ray: str | None = None  # the address of a Ray cluster, all of whose nodes see `out` and have Easel
    shard: int = SHARD
    turns: tuple[int, int] = TURNS  # the fewest and the most of a dialogue of D_tt

    def __post_init__(self) -> None:
        for name in ("n", "workers", "shard"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1; got {getattr(self, name)}")
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {self.split!r}")
        if not lengths(*self.turns):
            raise ValueError(
                f"--turns must be two numbers of {TURNS[0]} to {TURNS[1]}, the fewest and the most; got {self.turns}"
            )
        if unknown := set(self.shares) - set(builders()):
            raise ValueError(f"unknown task {sorted(unknown)[0]!r}; there are {', '.join(builders())}")
        if not sum(self.shares.values()) > 0 or min(self.shares.values()) < 0:
            raise ValueError("shares must not be negative, and one of them must be above 0")

    @property
    def made(self) -> dict[str, Any]:
        """All that the records depend on, and how many there are."""
        return {
            "n": self.n,
            "shard": self.shard,
            "seed": self.seed,
            "shares": dict(self.shares),
            "languages": list(self.languages),
            "turns": list(self.turns),
            "builders": builders_digest(),
        }


def builders() -> dict[str, Builder]:
    """The tasks and what builds them."""
    from datasets_build import chains, dialogues, negatives, open_data, prompts, pseudo

    return {
        "D_o": open_data.build, "D_p": prompts.build, "D_pm": pseudo.build, "D_tt": dialogues.build,
        "D_n": negatives.build, "D_c": chains.build,
    }  # fmt: skip


def _record(job: Job, index: int) -> dict[str, Any]:
    rng = EvenRandom.of_record(job.seed, job.split, index)
    task = choose(rng, job.shares, "task")
    language = choose(rng, dict.fromkeys(job.languages, 1.0), "language")
    build: Callable[..., Dialogue] = builders()[task]
    if task == "D_tt":
        build = partial(build, of_lengths=lengths(*job.turns))
    dialogue = build_dialogue(build, language, job.split, rng)
    name = f"{task}-{job.split}-{job.seed}-{index:07d}"
    return to_record(dialogue, name, task, job.split, rng.randrange(2**31), job.out)


def _lines(job: Job, indices: Sequence[int]) -> list[bytes]:
    return [to_line(_record(job, index)) for index in indices]


def generate(job: Job, work_through: Mapped, seen: set[int], first: int, wanted: int) -> Generator[Line]:
    """`wanted` records from index `first` on whose content differs from all that was `seen`, which is added to."""
    done = 0
    while done < wanted:
        # Exactly as many as are wanted: a record that was left out would leave its pictures behind.
        goal = first + wanted - done
        for line in map(Line.read, work_through(range(first, goal))):
            if line.key not in seen:
                seen.add(line.key)
                done += 1
                yield line
        first = goal
        if first > 20 * job.n + 1000:
            raise BuildError(
                f"there are only {len(seen):,} different records in {first:,}: ask for fewer, in another folder"
            )


def run(job: Job, progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Writes `job.split` of the data set in `job.out` and returns the manifest, which is written last."""
    seen: set[int] = set()  # 10⁶ keys take 80 MB
    number = index = 0
    folder = SplitFolder(job.out, job.split, job.made)
    with folder, workers(partial(_lines, job), job.workers, job.ray) as work_through:
        while number < len(folder.sizes):
            lines = folder.finished(number)
            if lines is not None:
                seen.update(line.key for line in lines)
                number, index = number + 1, lines[-1].index + 1
                continue
            # All missing shards in a row at once, so that no worker waits at a shard's end.
            end = number + 1
            while end < len(folder.sizes) and not folder.path(end).exists():
                end += 1
            if index:
                progress(f"{sum(folder.sizes[:number]):,} of {job.n:,} {job.split} records were there")
            records = generate(job, work_through, seen, index, sum(folder.sizes[number:end]))
            while number < end:
                lines = list(islice(records, folder.sizes[number]))
                folder.write(number, lines)
                number, index = number + 1, lines[-1].index + 1
                progress(f"{sum(folder.sizes[:number]):,} of {job.n:,} {job.split} records")
            records.close()  # and with it what Ray still holds
        return folder.finish(targets=targets(job.shares, job.languages, lengths(*job.turns)))


# ------------------------------------------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--n", type=int, default=1000, help="how many records")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--language", choices=(*LANGUAGES, "both"), default="both")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--ray", metavar="ADDRESS",
        help="build on a Ray cluster (or `auto`, or `local`: one of --workers here); all its nodes must see --out",
    )  # fmt: skip


def add_turns(parser: argparse.ArgumentParser) -> None:
    """Of the commands that build D_tt."""
    parser.add_argument(
        "--turns", type=int, nargs=2, metavar=("FEWEST", "MOST"), default=TURNS, help="of the dialogues of D_tt"
    )


def run_arguments(args: argparse.Namespace, shares: Mapping[str, float]) -> int:
    """What a builder's command does with its parsed arguments; the result is the exit status."""
    languages = LANGUAGES if args.language == "both" else (args.language,)
    try:
        job = Job(args.out, args.split, args.n, args.seed, shares, languages, args.workers, args.ray)
        if "turns" in args:
            job = replace(job, turns=tuple(args.turns))
    except ValueError as error:
        print(f"easel data: {error}", file=sys.stderr)
        return 2
    try:
        manifest = run(job, lambda line: print(line, file=sys.stderr, flush=True))
    except OSError as error:
        print(f"easel data: {explained(error, args.out)}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        print(f"easel data: {error}", file=sys.stderr)
        return 1
    entry = manifest["splits"][args.split]
    print(json.dumps(entry | {"shards": len(entry["shards"])}, ensure_ascii=False))
    return 0
