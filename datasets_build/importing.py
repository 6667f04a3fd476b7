"""Imports: public instruction sets, from the hub by name or from files of the same schema, as records of D_o.

    easel data import liuhaotian/LLaVA-Instruct-150K --file llava_instruct_150k.json --kind llava \\
        --images coco/train2017 --licence CC-BY-4.0 --n 20000 --out runs/llava --split train

| kind       | a row                                                                                             |
| ---------- | ------------------------------------------------------------------------------------------------- |
| llava      | `conversations` of `from` and `value`, with `<image>` where the pictures stand; `image`, a path   |
| sharegpt4v | the same                                                                                          |
| sharegpt   | `conversations` of `from` and `value`, text alone                                                 |
| chat       | `messages` of `role` and `content`, a text or parts as OpenAI's or TRL's; for the latter `images` |

A row becomes a record whose turns talk, about its pictures where it has some, and never draw. System text goes in front
of what the user says first; what one side says in several messages becomes one; a question without an answer at the
end is left out. Pictures are put in front of a message's text, as in the app, unless they stand amid it. A PNG or JPEG
that is sound and upright keeps its bytes; any other becomes a PNG. Text that spells a token of ours gets an invisible
word joiner.

What cannot be used is refused, and counted and named with the reason in `OUT/import/SPLIT.refused.jsonl`. A row's split
follows from its words, or from its pictures where it has some, so that no import puts a picture into two splits. Which
rows are taken follows from the seed alone.

JSON is read here, from the hub as well (`--file`): the library `datasets` makes numbers of texts such as "42" where
some row holds another type. It reads everything else, and is imported for that alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from datasets_build.foreign import KINDS, MAX_TOKENS, Kind, Refused, Row, split_of, to_record
from datasets_build.records import SPLITS
from datasets_build.shards import content_key, write_atomically, write_split
from dialog_mllm.records import read_manifest


class ImportFailed(Exception):
    """Nothing can be imported; the text says why and what to do."""


# ------------------------------------------------------------------------------------------------------- the import


@dataclass(frozen=True)
class Import:
    name: str  # on the hub, or the path of a .json, .jsonl or .parquet
    kind: str
    out: Path
    licence: str
    n: int | None = None  # None: all that there are
    seed: int = 0
    split: str = "train"
    images: Path | None = None
    subset: str | None = None
    file: str | None = None
    from_split: str = "train"
    revision: str | None = None
    max_tokens: int = MAX_TOKENS

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}")
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {self.split!r}")
        if (self.n is not None and self.n < 1) or self.max_tokens < 1:
            raise ValueError("--n and --max-tokens must be at least 1")
        if not self.licence.strip():
            raise ValueError("--licence names the licence of what is imported, such as CC-BY-4.0")
        if self.images is not None and not self.images.is_dir():
            raise ValueError(f"there is no folder {self.images} (--images)")
        if self.local and (self.subset or self.file or self.revision):
            raise ValueError("--subset, --file and --revision choose from a set on the hub, not from a file")

    @property
    def local(self) -> bool:
        return Path(self.name).suffix in ENDINGS or Path(self.name).exists()


def run(job: Import, progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Writes the split and what was refused; returns the manifest, which is written last. Raises ImportFailed."""
    rows, source, public = _open(job)
    kind = _checked_kind(job, rows)
    there = read_manifest(job.out)
    if there and (there["source"], there["licence"]) != (source, job.licence):
        raise ImportFailed(
            f"{job.out} holds data from {there['source']} ({there['licence']}), which must not be mixed with {source} "
            f"({job.licence}): name another --out"
        )
    images = job.images or (Path(job.name).parent if job.local else None)
    records: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    seen: set[int] = set()
    others = 0
    for tried, index in enumerate(np.random.default_rng(job.seed).permutation(len(rows)).tolist(), 1):
        if tried % 1000 == 0:
            progress(f"{len(records):,} {job.split} records of {tried:,} rows, {len(refused):,} refused")
        name = None
        try:
            row = rows[index]
            name = row.get("id")
            record, files = to_record(row, kind, images, job.max_tokens)
            if split_of(record) != job.split:
                others += 1
                continue
            if (key := content_key(record)) in seen:
                raise Refused("says what another says")
        except Refused as error:
            reasons[error.reason] += 1
            refused.append({"row": index, "id": name, "reason": str(error)})
            continue
        seen.add(key)
        for path, data in files.items():
            if not (job.out / path).exists():
                write_atomically(job.out / path, data)
        records.append(
            {
                "id": f"D_o-import-{job.split}-{index:08d}",
                "task": "D_o",
                "split": job.split,
                "source": source,
                "licence": job.licence,
                "origin": {"row": index, "id": name},
                "topic": None,
                "phrasings": [],
                **record,
            }
        )
        if len(records) == job.n:
            break
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in refused)
    write_atomically(job.out / "import" / f"{job.split}.refused.jsonl", lines.encode("utf-8", "replace"))
    if not records:
        first = f", the first as: {refused[0]['reason']}" if refused else ""
        raise ImportFailed(
            f"no {job.split} record came out of {len(rows):,} rows: {others:,} are of other splits, {len(refused):,} "
            f"were refused{first}"
        )
    made = {"seed": job.seed, "max_tokens": job.max_tokens, "public": {"kind": job.kind, **public}}
    told = {
        "refused": dict(reasons.most_common()),
        "command": f"easel data import {public['name']} --kind {job.kind} --split {job.split} --seed {job.seed}",
    }
    return write_split(job.out, job.split, records, made, source, job.licence, **told)


def _checked_kind(job: Import, rows: Rows) -> Kind:
    kind = KINDS[job.kind]
    if not len(rows):
        raise ImportFailed(f"{job.name} is empty")
    try:
        first = rows[0]
    except Refused as error:
        raise ImportFailed(f"{job.name}, row 0: {error}") from error
    if kind.column not in first:
        kinds = "; ".join(f"{name} ({known.about})" for name, known in KINDS.items())
        raise ImportFailed(
            f"{job.name} has no key {kind.column!r}, which --kind {job.kind} reads; its keys are "
            f"{', '.join(map(repr, first))}. The kinds are {kinds}"
        )
    return kind


# ------------------------------------------------------------------------------------------------- files and the hub


class Rows(Protocol):
    """Rows by their numbers; one that is no object is Refused when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Row: ...


class Lines:
    """A file's JSON lines, of which none is held."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._starts: list[int] = []
        place = 0
        for line in self._file:
            if line.strip():
                self._starts.append(place)
            place += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Row:
        self._file.seek(self._starts[index])
        try:
            return _object(json.loads(self._file.readline()))
        except ValueError as error:
            raise Refused("no JSON", str(error)) from error


class Items:
    """The items of one JSON list."""

    def __init__(self, path: Path) -> None:
        try:
            self._items = json.loads(path.read_bytes())
        except ValueError as error:
            raise ImportFailed(f"{path} is no JSON ({error})") from error

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Row:
        return _object(self._items[index])


def _object(value: Any) -> Row:
    if not isinstance(value, dict):
        raise Refused("another schema", f"a row is an object, not {type(value).__name__}")
    return value


ENDINGS = (".json", ".jsonl", ".parquet")


def _open(job: Import) -> tuple[Rows, str, dict[str, Any]]:
    """The rows, the source that records name, and what the manifest says of it."""
    if job.local:
        path = Path(job.name)
        if not path.is_file():
            raise ImportFailed(f"there is no file {path}")
        if path.suffix not in ENDINGS:
            raise ImportFailed(f"{path} is none of {', '.join(ENDINGS)}: give one, or a name on the hub")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        rows = _json_rows(path) if path.suffix != ".parquet" else _load(job, "parquet", data_files=str(path))
        return rows, f"{path.name}@{digest[:12]}", {"name": path.name, "sha256": digest}
    revision = _asked(job, lambda hub: str(hub.HfApi().dataset_info(job.name, revision=job.revision).sha))
    made = {"name": job.name, "revision": revision, "subset": job.subset, "file": job.file}
    if job.file and Path(job.file).suffix in (".json", ".jsonl"):
        options = {"repo_type": "dataset", "revision": revision}
        rows = _json_rows(Path(_asked(job, lambda hub: hub.hf_hub_download(job.name, job.file, **options))))
    else:
        more = {"data_files": job.file} if job.file else {}
        rows = _load(job, job.name, name=job.subset, revision=revision, **more)
        made["from_split"] = job.from_split
    return rows, f"{job.name}@{revision[:12]}", {key: value for key, value in made.items() if value is not None}


def _json_rows(path: Path) -> Rows:
    with path.open("rb") as file:
        start = file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()
    return Items(path) if start.startswith(b"[") else Lines(path)


def _load(job: Import, path: str, **arguments: Any) -> Rows:
    """Through `datasets`, pictures as the bytes of their files."""
    try:
        import datasets
    except ImportError as error:
        raise ImportFailed(
            f"{job.name} is read by the library `datasets`, which is not installed: pip install datasets"
        ) from error
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(path, split="train" if job.local else job.from_split, **arguments)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ImportFailed(f"{job.name} cannot be read: {_first_line(error)}") from error
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
        elif isinstance(getattr(feature, "feature", None), datasets.Image):
            rows = rows.cast_column(name, datasets.List(datasets.Image(decode=False)))
    return rows


def _asked(job: Import, ask: Callable[[Any], str]) -> str:
    """What the hub says. The records name the commit, and it is the one that is read."""
    import huggingface_hub as hub
    from huggingface_hub import errors

    try:
        return ask(hub)
    except errors.GatedRepoError as error:
        raise ImportFailed(
            f"{job.name} asks for consent on its page: give it there, and log in with `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ImportFailed(f"{job.name} has no revision {job.revision!r} (--revision)") from error
    except errors.RemoteEntryNotFoundError as error:
        raise ImportFailed(f"{job.name} has no file {job.file!r} (--file)") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ImportFailed(
            f"there is no data set {job.name!r} on the hub: give OWNER/NAME as its page has it (log in with `hf auth "
            f"login` if it is private), or the path of a {', '.join(ENDINGS)}"
        ) from error
    except Exception as error:  # the library's HTTP client differs between its versions, and so do its errors
        raise ImportFailed(
            f"the hub cannot be reached ({_first_line(error)}): download {job.name} where there is a network, and give "
            f"the path of its {', '.join(ENDINGS)} instead"
        ) from error


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ if error.__cause__ is not None else error
    return (str(cause) or type(cause).__name__).strip().splitlines()[0][:300]


# ----------------------------------------------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", metavar="NAME_OR_PATH", help="a data set on the hub, or the path of a .json, .jsonl or .parquet")
    add("--kind", choices=tuple(KINDS), required=True, help="the schema of its rows")
    add("--out", type=Path, required=True, help="the data set's folder")
    add("--licence", required=True, help="of the public set, for the records and the manifest")
    add("--n", type=int, help="how many records, at most (default: all)")
    add("--seed", type=int, default=0, help="decides which")
    add("--split", choices=SPLITS, default="train", help="which of its rows: each belongs to one split")
    add("--images", type=Path, help="the folder that picture paths are relative to (default: a file's own)")
    add("--subset", help="of a set on the hub: its configuration")
    add("--file", help="of a set on the hub: the file in it, where it has several")
    add("--from-split", default="train", help="of a set on the hub: its own split that is read")
    add("--revision", help="of a set on the hub: a branch, tag or commit")
    add("--max-tokens", type=int, default=MAX_TOKENS, help="of a record, as the bundled model's tokenizer counts them")


def run_arguments(args: argparse.Namespace) -> int:
    try:
        job = Import(
            args.name, args.kind, args.out, args.licence, args.n, args.seed, args.split, args.images, args.subset,
            args.file, args.from_split, args.revision, args.max_tokens,
        )  # fmt: skip
    except ValueError as error:
        print(f"easel data import: {error}", file=sys.stderr)
        return 2
    try:
        manifest = run(job, lambda line: print(line, file=sys.stderr, flush=True))
    except (ImportFailed, RuntimeError) as error:
        print(f"easel data import: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"easel data import: {error.filename or args.out}: {error.strerror or error}", file=sys.stderr)
        return 1
    made = manifest["splits"][args.split]
    if args.n is not None and made["n"] < args.n:
        print(f"easel data import: there are only {made['n']:,} {args.split} records in it", file=sys.stderr)
    print(json.dumps(made, ensure_ascii=False))
    return 0
