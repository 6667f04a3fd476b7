"""Records: exchanges put together to the canonical JSONL, with their pictures, by any number of workers alike.

    easel data p --out data --n 100 --seed 1 --split train     # and o, pm, tt, mix

Record i of a run depends on (seed, split, i) alone, so the bytes of a data set do not depend on the workers. Pictures
are named by their content and written by rename; so is the JSONL; `manifest.json` comes last.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets_build.even import EvenRandom, choose
from datasets_build.plans import targets
from datasets_build.storybook.scene import Scene
from datasets_build.storybook.vocabulary import LANGUAGES
from dialog_mllm.messages import DRAW, SWITCH

SPLITS = ("train", "validation", "test")
SOURCE, LICENCE = "storybook-offline", "Apache-2.0"
PICTURE_SIZE = 128
CHUNK = 32  # records that a worker makes at a time
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
    """Draws the scene into the data set's folder, once, and returns its content block."""
    from datasets_build.storybook.render import render

    buffer = io.BytesIO()
    render(scene, PICTURE_SIZE, seed).save(buffer, "PNG")
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    path = Path("images") / digest[:2] / f"{digest}.png"
    if not (root / path).exists():
        write_atomically(root / path, buffer.getvalue())
    return {"type": "image", "path": path.as_posix(), "sha256": digest}


def write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


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

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"the number of records must be at least 1; got {self.n}")
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {self.split!r}")
        if unknown := set(self.shares) - set(builders()):
            raise ValueError(f"unknown task {sorted(unknown)[0]!r}; there are {', '.join(builders())}")
        if not sum(self.shares.values()) > 0 or min(self.shares.values()) < 0:
            raise ValueError("shares must not be negative, and one of them must be above 0")


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
    dialogue = build_dialogue(builders()[task], language, job.split, rng)
    name = f"{task}-{job.split}-{job.seed}-{index:07d}"
    return to_record(dialogue, name, task, job.split, rng.randrange(2**31), job.out)


def _chunk(work: tuple[Job, range]) -> list[dict[str, Any]]:
    return [_record(work[0], index) for index in work[1]]


def generate(job: Job) -> Iterator[dict[str, Any]]:
    """`job.n` records that all differ in what is said; how many repetitions were left out does not change them."""
    seen: set[bytes] = set()
    done = tried = 0
    with contextlib.ExitStack() as stack:
        work_through: Callable[..., Iterable[list[dict[str, Any]]]] = map
        if job.workers > 1:
            work_through = stack.enter_context(multiprocessing.get_context("spawn").Pool(job.workers)).imap
        while done < job.n:
            # Exactly as many as are wanted: a record that was left out would leave its pictures behind.
            goal = tried + job.n - done
            chunks = [(job, range(start, min(start + CHUNK, goal))) for start in range(tried, goal, CHUNK)]
            for record in itertools.chain.from_iterable(work_through(_chunk, chunks)):
                key = content_key(record)
                if key not in seen:
                    seen.add(key)
                    done += 1
                    yield record
            tried = goal
            if tried > 20 * job.n + 1000:
                raise RuntimeError(f"there are only {done:,} different records in {tried:,}: ask for fewer")


def content_key(record: Mapping[str, Any]) -> bytes:
    """Equal for records of equal messages, pictures included."""
    said = [[block.get("text") or block["sha256"] for block in message["content"]] for message in record["messages"]]
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).digest()


def run(job: Job, progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Writes `job.split` of the data set in `job.out` and returns the manifest, which is written last."""

    def told() -> Iterator[dict[str, Any]]:
        for done, record in enumerate(generate(job), 1):
            yield record
            if done % 1000 == 0:
                progress(f"{done:,} of {job.n:,} {job.split} records")

    made = {"n": job.n, "seed": job.seed, "shares": dict(job.shares), "targets": targets(job.shares, job.languages)}
    return write_split(job.out, job.split, told(), made)


def write_split(
    out: Path,
    split: str,
    records: Iterable[dict[str, Any]],
    made: Mapping[str, Any],
    source: str = SOURCE,
    licence: str = LICENCE,
) -> dict[str, Any]:
    """Writes one split, by rename, and then the manifest, which says how it was `made`."""
    out.mkdir(parents=True, exist_ok=True)
    manifest_path = out / "manifest.json"
    manifest = read_manifest(out, source, licence)
    if (manifest["source"], manifest["licence"]) != (source, licence):
        raise RuntimeError(
            f"{out} holds data by {manifest['source']} ({manifest['licence']}), which what {source} writes ({licence}) "
            "must not be mixed with: name another --out"
        )
    manifest_path.unlink(missing_ok=True)  # while it is being written, the data set is not whole
    counts: Counter[str] = Counter()
    digest = hashlib.sha256()
    path = out / f"{split}.jsonl"
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            for record in records:
                line = (json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n").encode()
                file.write(line)
                digest.update(line)
                counts.update((f"task {record['task']}", f"language {record['language']}"))
                counts.update(f"turn {turn['type']}" for turn in record["turns"])
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    manifest["splits"][split] = {
        "file": path.name,
        **made,
        "sha256": digest.hexdigest(),
        "counts": dict(sorted(counts.items())),
    }
    write_atomically(manifest_path, json.dumps(manifest, indent=2, ensure_ascii=False).encode())
    return manifest


def read_manifest(root: Path, source: str = SOURCE, licence: str = LICENCE) -> dict[str, Any]:
    path = root / "manifest.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    manifest = {"version": 1, "source": source, "licence": licence, "picture_size": PICTURE_SIZE, "splits": {}}
    if source != SOURCE:
        del manifest["picture_size"]  # only the picture-book world draws
    return manifest


# ------------------------------------------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--n", type=int, default=1000, help="how many records")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--language", choices=(*LANGUAGES, "both"), default="both")
    parser.add_argument("--workers", type=int, default=2)


def run_arguments(args: argparse.Namespace, shares: Mapping[str, float]) -> int:
    """What a builder's command does with its parsed arguments; the result is the exit status."""
    languages = LANGUAGES if args.language == "both" else (args.language,)
    try:
        job = Job(args.out, args.split, args.n, args.seed, shares, languages, args.workers)
    except ValueError as error:
        print(f"easel data: {error}", file=sys.stderr)
        return 2
    try:
        manifest = run(job, lambda line: print(line, file=sys.stderr, flush=True))
    except OSError as error:
        print(f"easel data: cannot write to {args.out}: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        print(f"easel data: {error}", file=sys.stderr)
        return 1
    print(json.dumps(manifest["splits"][args.split], ensure_ascii=False))
    return 0
