"""Reading the canonical dialogue records (JSONL), for training and for evaluation, and finding a split's files.

    for record, root in read_records(data_files(["data"], "test")): ...

A data set is a folder. Its manifest.json names the shards of each split that is whole, SPLIT-00000.jsonl and so on; one
that was put together by hand needs no manifest, and may hold a plain SPLIT.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dialog_mllm.errors import DialogError, MessageError

Record = dict[str, Any]


class DataError(DialogError):
    """A data file or a record in it cannot be used; the text says which and why."""


def unreadable(record: str, error: MessageError) -> DataError:
    """For a picture that a record names, and that is missing or broken."""
    what = str(error).partition(". ")[0]  # what follows is advice to somebody who chats
    return DataError(f"record {record}: {what}. `easel data check` names all such; make those data again.")


def shard_name(split: str, number: int) -> str:
    return f"{split}-{number:05d}.jsonl"


def run_file(data: Path, split: str) -> Path:
    """Is there while the split is being written, or after that was stopped."""
    return data / f"{split}.run.json"


def read_manifest(data: Path) -> dict[str, Any]:
    """What `easel data` says of the whole splits in the folder; nothing where there is no manifest."""
    path = data / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        for entry in manifest.setdefault("splits", {}).values():
            if "shards" not in entry:  # version 1: one file
                entry["shards"] = [{"file": entry["file"], "n": entry["n"], "sha256": entry["sha256"]}]
        return manifest
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error!r}): delete it, and build the data set again.") from error


def split_files(data: Path, split: str) -> list[Path]:
    """The files of a split, in order: those that the manifest names, there or not; else those that lie there."""
    entry = read_manifest(data).get("splits", {}).get(split)
    if entry is not None:
        return [data / Path(shard["file"]).name for shard in entry["shards"]]
    plain = data / f"{split}.jsonl"
    return [plain] if plain.exists() else sorted(data.glob(f"{split}-*.jsonl"))


def data_files(places: Iterable[Path | str], split: str) -> list[Path]:
    """Folders and single JSONL files -> files: of each folder those of the split. DataError where one is missing."""
    files: list[Path] = []
    for place in map(Path, places):
        found = split_files(place, split) if place.is_dir() else [place]
        if place.is_dir() and run_file(place, split).exists():
            raise DataError(
                f"The {split} split in {place} is not finished: run the command that makes it again, and it goes on."
            )
        if not found:
            raise DataError(
                f"{place} holds no {shard_name(split, 0)} and no {split}.jsonl. Make data with `easel data`."
            )
        for file in found:
            if not file.is_file():
                way = "Run the command that made it again" if place.is_dir() else "Name a data set: folder or files"
                raise DataError(f"{file} is not there. {way}.")
        files += found
    return files


def read_records(files: Iterable[Path | str], limit: int | None = None) -> Iterator[tuple[Record, Path]]:
    """Each record with the folder that its picture paths are relative to."""
    read = 0
    for file in map(Path, files):
        try:
            lines = file.open(encoding="utf-8")
        except OSError as error:
            raise DataError(f"{file} cannot be read ({error.strerror}). Make data with `easel data mix`.") from error
        with lines:
            for number, line in enumerate(lines, 1):
                if read == limit:
                    return
                try:
                    record = json.loads(line)
                    if not isinstance(record["messages"], list):
                        raise TypeError("messages is no list")
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(f"{file}, line {number}: this is no dialogue record ({error!r}).") from error
                read += 1
                yield record, file.parent
