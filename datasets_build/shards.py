"""A split on the disk: shards that are whole or not there, of which a run that was stopped takes up the finished ones.

    with SplitFolder(out, "train", {"n": 20000, "seed": 1, "shard": 1000}) as folder:
        folder.write(0, lines)
        manifest = folder.finish()

While a split is being written, SPLIT.run.json says which run its shards are part of; a run with other options is
refused. The data card (README.md) and manifest.json, which names all shards, come last. Whatever is not whole yet lies
in one folder of drafts, which every run empties, so that a run killed at any moment leaves nothing behind.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from datasets_build.card import NAME, OURS, card
from dialog_mllm.records import DataError, read_manifest, run_file, shard_name, split_files

SHARD = 1000  # records of one: some 5 MB, and half a minute of one core's work
SOURCE, LICENCE = "storybook-offline", "Apache-2.0"
PICTURE_SIZE = 128  # pixels of a side
DRAFTS = ".drafts"
VERSION = 2  # of the manifest


class BuildError(RuntimeError):
    """A data set cannot be written as asked; the text says why and what to do."""


def write_atomically(path: Path, data: bytes, drafts: Path | None = None) -> None:
    """Writes the file by rename, from a draft beside it or in the folder `drafts`, which must be on the same disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drafts = drafts if drafts is not None and drafts.is_dir() else path.parent
    draft = drafts / f".{path.name}.{secrets.token_hex(8)}"
    try:
        draft.write_bytes(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def explained(error: OSError, out: Path) -> str:
    """What to do when writing to `out` failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk that holds {out} is full. Make room and run the same command again: what is finished is kept."
    return f"cannot write to {out}: {error}"


@cache
def builders_digest() -> str:
    """Of the sources that make the records: shards of different builders are never mixed."""
    root, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".py", ".toml", ".json"):
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def content_key(record: Mapping[str, Any]) -> int:
    """Equal for records of equal messages, pictures included. Eight bytes: among 10⁶ records, two others share one with
    a probability of 3 in 10⁸."""
    said = [[block.get("text") or block["sha256"] for block in message["content"]] for message in record["messages"]]
    return int.from_bytes(hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).digest()[:8])


def to_line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n").encode()


@dataclass(frozen=True)
class Line:
    """A record as it stands in its shard, and what the rest of the split must know of it."""

    text: bytes
    id: str
    key: int
    counted: tuple[str, ...]
    pictures: tuple[str, ...]

    @classmethod
    def read(cls, text: bytes) -> Line:
        """Raises ValueError, KeyError, TypeError or AttributeError where the text is no record."""
        record = json.loads(text)
        pictures = [
            block["path"] for message in record["messages"] for block in message["content"] if block["type"] == "image"
        ]
        counted = [f"task {record['task']}", f"language {record['language']}"]
        counted += [f"turn {turn['type']}" for turn in record["turns"]]
        return cls(text, record["id"], content_key(record), tuple(counted), tuple(pictures))

    @property
    def index(self) -> int:
        """In the builder's run."""
        return int(self.id.rpartition("-")[2])


class SplitFolder:
    """A split while it is written. `made` holds all that its records depend on, beside `n` and `shard`, their numbers
    in the split and in one shard. One run at a time writes into a folder."""

    def __init__(
        self, out: Path, split: str, made: Mapping[str, Any], source: str = SOURCE, licence: str = LICENCE
    ) -> None:
        self.out, self.split = out, split
        self._made = json.loads(json.dumps({**made, "source": source, "licence": licence}))
        n, shard = made["n"], made["shard"]
        self.sizes = [min(shard, n - start) for start in range(0, n, shard)]
        self._shards: list[dict[str, Any]] = []
        self._counts: Counter[str] = Counter()
        self._digest = hashlib.sha256()
        self._folder = -1

    def __enter__(self) -> SplitFolder:
        self.out.mkdir(parents=True, exist_ok=True)
        self._folder = os.open(self.out, os.O_RDONLY)
        self._lock()
        try:
            self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def _end(self) -> None:
        shutil.rmtree(self.out / DRAFTS, ignore_errors=True)
        os.close(self._folder)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._folder)
            raise BuildError(f"another run is writing to {self.out}: wait for it, or name another --out") from error
        except OSError:
            pass  # some network disks lock no folders

    def _begin(self) -> None:
        manifest = self._manifest()
        entry, path = manifest["splits"].pop(self.split, None), run_file(self.out, self.split)
        if path.exists():
            self._require_same(json.loads(path.read_text(encoding="utf-8")))
        elif entry is not None:
            self._require_same({**entry, "source": manifest["source"], "licence": manifest["licence"]})
        elif stray := split_files(self.out, self.split):
            raise BuildError(f"{stray[0]} is of no run that is known here: name another --out, or delete that file")
        shutil.rmtree(self.out / DRAFTS, ignore_errors=True)
        (self.out / DRAFTS).mkdir()
        self._put(path.name, json.dumps(self._made, ensure_ascii=False, indent=1))
        # While it is being written the split is not whole.
        if manifest["splits"]:
            self._put("manifest.json", _text(manifest))
        else:
            (self.out / "manifest.json").unlink(missing_ok=True)

    def _manifest(self) -> dict[str, Any]:
        source, licence = self._made["source"], self._made["licence"]
        try:
            manifest = read_manifest(self.out)
        except DataError as error:
            raise BuildError(str(error)) from error
        world = {"picture_size": PICTURE_SIZE} if source == SOURCE else {}  # all others draw nothing
        manifest = manifest or {"source": source, "licence": licence, **world, "splits": {}}
        if (manifest.get("source"), manifest.get("licence")) != (source, licence):
            raise BuildError(
                f"{self.out} holds data by {manifest.get('source')} ({manifest.get('licence')}), which what {source} "
                f"writes ({licence}) must not be mixed with: name another --out"
            )
        return {"version": VERSION, **{name: value for name, value in manifest.items() if name != "version"}}

    def _require_same(self, there: Mapping[str, Any]) -> None:
        """More records of the same run go on from its shards; all else would mix two runs."""
        for name, value in self._made.items():
            if name == "n" and there.get("n", 0) <= value:
                continue
            if there.get(name) != value:
                raise BuildError(
                    f"{self.out} holds {self.split} records that were made with {name} {json.dumps(there.get(name))}, "
                    f"and now it is {json.dumps(value)}: use the same options (or a larger --n), name another --out, "
                    "or delete that folder"
                )

    def path(self, number: int) -> Path:
        return self.out / shard_name(self.split, number)

    def finished(self, number: int) -> list[Line] | None:
        """The lines of a shard that an earlier run wrote; None where it is not there, not whole, or lacks a picture."""
        try:
            lines = [Line.read(text) for text in self.path(number).read_bytes().splitlines(keepends=True)]
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None
        pictures = {picture for line in lines for picture in line.pictures}
        if len(lines) != self.sizes[number] or not all((self.out / picture).is_file() for picture in pictures):
            return None
        self._take(number, lines)
        return lines

    def write(self, number: int, lines: Sequence[Line]) -> None:
        write_atomically(self.path(number), b"".join(line.text for line in lines), self.out / DRAFTS)
        self._take(number, lines)

    def _take(self, number: int, lines: Sequence[Line]) -> None:
        shard = hashlib.sha256()
        for line in lines:
            shard.update(line.text)
            self._digest.update(line.text)
            self._counts.update(line.counted)
            if line.pictures:
                self._counts["pictures"] += len(line.pictures)
        self._shards.append({"file": self.path(number).name, "n": len(lines), "sha256": shard.hexdigest()})

    def finish(self, **more: Any) -> dict[str, Any]:
        """Writes the data card and the manifest, and returns the manifest. `more` is said of the split as well."""
        manifest = self._manifest()
        made = {name: value for name, value in self._made.items() if name not in ("source", "licence")}
        manifest["splits"][self.split] = {
            **made,
            **more,
            "sha256": self._digest.hexdigest(),  # of all shards in a row
            "counts": dict(sorted(self._counts.items())),
            "shards": self._shards,
        }
        manifest["splits"] = dict(sorted(manifest["splits"].items()))
        readme = self.out / NAME
        if not readme.exists() or OURS in readme.read_text(encoding="utf-8", errors="replace"):
            self._put(NAME, card(manifest))  # nobody's own words are written over
        self._put("manifest.json", _text(manifest))
        run_file(self.out, self.split).unlink()
        return manifest

    def _put(self, name: str, text: str) -> None:
        write_atomically(self.out / name, text.encode(), self.out / DRAFTS)


def write_split(
    out: Path,
    split: str,
    records: Sequence[Mapping[str, Any]],
    made: Mapping[str, Any],
    source: str = SOURCE,
    licence: str = LICENCE,
    **more: Any,
) -> dict[str, Any]:
    """Writes a split of which all records are there, and returns the manifest."""
    with SplitFolder(out, split, {"n": len(records), "shard": SHARD, **made}, source, licence) as folder:
        for number, start in enumerate(range(0, len(records), SHARD)):
            folder.write(number, [Line.read(to_line(record)) for record in records[start : start + SHARD]])
        return folder.finish(**more)


def _text(manifest: Mapping[str, Any]) -> str:
    return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
