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
import base64
import binascii
import hashlib
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from datasets_build.consistency import chinese_share
from datasets_build.records import SPLITS, content_key, read_manifest, write_atomically, write_split
from datasets_build.storybook.scene import TEST_SHARE, VALIDATION_SHARE
from dialog_mllm.messages import DRAW, MAX_IMAGE_PIXELS, MAX_TEXT, SWITCH, escape_user_text, upright

Row = Mapping[str, Any]
Blocks = list[str | bytes]  # texts, and pictures as the bytes of their files
Said = list[tuple[str, Blocks]]  # role and content of each message

PLACEHOLDER = "<image>"
ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
    "model": "assistant", "system": "system",
}  # fmt: skip
MAX_TOKENS = 2048  # what the bundled model reads: dialog_mllm.tokenizer.CONTEXT, whose module imports transformers
PICTURE_TOKENS, MESSAGE_TOKENS = 19, 2  # what a picture and a message take beside the text
CHINESE, ENGLISH = 0.3, 0.96  # shares from which a text is Chinese (of its words), or English (of its letters)
_LETTER = re.compile(r"[^\W\d_]")
_OTHER_SCRIPTS = re.compile(r"[぀-ヿ가-힣]")


class ImportFailed(Exception):
    """Nothing can be imported; the text says why and what to do."""


class Refused(Exception):
    """This row cannot be used. `reason` is one of few, and counted; the text says more."""

    def __init__(self, reason: str, more: str = "") -> None:
        super().__init__(f"{reason}: {more}" if more else reason)
        self.reason = reason


# ------------------------------------------------------------------------------------------------ rows of each kind


@dataclass(frozen=True)
class Kind:
    column: str  # that every row has
    about: str
    read: Callable[[Row, Path | None], Said]


def _conversations(row: Row, images: Path | None) -> Said:
    pictures = _pictures(row.get("image"), images)
    said: Said = []
    for turn in _turns(row, "conversations", ("from", "value")):
        first, *rest = _text(turn["value"]).split(PLACEHOLDER)
        blocks: Blocks = [first]
        for text in rest:
            if not pictures:
                raise Refused("more places for pictures than pictures")
            blocks += [pictures.pop(0), text]
        said.append((_role(turn["from"]), blocks))
    if pictures and any(isinstance(block, bytes) for _, blocks in said for block in blocks):
        raise Refused("more pictures than places for them")
    user = next((blocks for role, blocks in said if role == "user"), [])
    user[:0] = pictures  # a set that marks no place shows its pictures first
    return said


def _plain(row: Row, images: Path | None) -> Said:
    return [(_role(turn["from"]), [_text(turn["value"])]) for turn in _turns(row, "conversations", ("from", "value"))]


def _chat(row: Row, images: Path | None) -> Said:
    pictures = _pictures(row.get("images"), images)
    said: Said = []
    for message in _turns(row, "messages", ("role", "content")):
        if message.get("tool_calls") or message.get("function_call"):
            raise Refused("calls a tool")
        content = message["content"]
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        said.append((_role(message["role"]), [_part(part, pictures, images) for part in parts]))
    if pictures:
        raise Refused("more pictures than places for them")
    return said


KINDS = {
    "llava": Kind("conversations", "conversations of from and value, <image> in them, and image", _conversations),
    "sharegpt4v": Kind("conversations", "as llava", _conversations),
    "sharegpt": Kind("conversations", "conversations of from and value", _plain),
    "chat": Kind("messages", "messages of role and content", _chat),
}


def _turns(row: Row, column: str, keys: tuple[str, str]) -> list[Mapping[str, Any]]:
    turns = row.get(column)
    if not isinstance(turns, list):
        raise Refused("another schema", f"{column!r} is no list")
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict):
            raise Refused("another schema", f"entry {number} of {column!r} is no object")
        if missing := [key for key in keys if key not in turn]:
            raise Refused("another schema", f"entry {number} of {column!r} lacks {missing[0]!r}")
    return turns


def _role(name: Any) -> str:
    if not isinstance(name, str) or name.lower() not in ROLES:
        raise Refused("a role that is neither the user's nor the assistant's", repr(name))
    return ROLES[name.lower()]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Refused("another schema", f"a text is wanted, not {type(value).__name__}")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise Refused("half a character", repr(value)[:60])
    return value


def _part(part: Any, pictures: list[bytes], images: Path | None) -> str | bytes:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return _text(part.get("text"))
    if kind == "image_url":
        url = part.get("image_url")
        return _picture(url.get("url") if isinstance(url, dict) else url, images)
    if kind == "image":
        given = [part[key] for key in ("image", "path", "url", "data") if part.get(key) is not None]
        if given:
            return _picture(given[0], images)
        if not pictures:
            raise Refused("more places for pictures than pictures")
        return pictures.pop(0)
    raise Refused("a part that is neither text nor picture", repr(kind))


# ---------------------------------------------------------------------------------------------------------- pictures


def _pictures(value: Any, images: Path | None) -> list[bytes]:
    if value is None or value == "":
        return []
    return [_picture(one, images) for one in (value if isinstance(value, list) else [value])]


def _picture(value: Any, images: Path | None) -> bytes:
    """The picture's file: a path in `images`, a data URL, or what `datasets` holds in place of one."""
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return value["bytes"]
    path = value.get("path") if isinstance(value, dict) else value
    if not isinstance(path, str):
        raise Refused("another schema", f"a picture is wanted, not {type(path).__name__}")
    if path.startswith("data:"):
        try:
            return base64.b64decode(path.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise Refused("a picture is broken", "its data URL is no base64") from error
    if path.startswith(("http://", "https://")):
        raise Refused("a picture is on the web", f"{path[:200]}: download it, and name it by its path")
    if images is None:
        raise Refused("a picture is missing", f"{path}: name its folder with --images")
    file = images / path
    if not file.resolve().is_relative_to(images.resolve()):
        raise Refused("a picture is missing", f"{path} leads out of {images}")
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:
        raise Refused("a picture is missing", f"there is no {path} in {images} (--images)") from error


def sound(data: bytes) -> tuple[bytes, str]:
    """The picture, upright, as the bytes and the ending of a file that every reader knows."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.width * picture.height > MAX_IMAGE_PIXELS:
                raise Refused("a picture is too large", f"{picture.width}×{picture.height}")
            picture.load()
            turned = picture.getexif().get(0x0112, 1) != 1
            if picture.format in ("PNG", "JPEG") and not turned and getattr(picture, "n_frames", 1) == 1:
                return data, {"PNG": ".png", "JPEG": ".jpg"}[picture.format]
            buffer = io.BytesIO()
            upright(picture).save(buffer, "PNG")
            return buffer.getvalue(), ".png"
    except Image.DecompressionBombError as error:
        raise Refused("a picture is too large") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise Refused("a picture is broken", str(error)) from error


# ----------------------------------------------------------------------------------------------------------- records


def to_record(
    row: Row, kind: Kind, images: Path | None, max_tokens: int = MAX_TOKENS
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Messages, turns and language of the row's record, and its pictures by their paths in the data set."""
    files: dict[str, bytes] = {}
    messages: list[dict[str, Any]] = [
        {"role": role, "content": _content(blocks, role, files)} for role, blocks in _alternate(kind.read(row, images))
    ]
    turns, looks = [], False
    for message in messages:
        if message["role"] == "user":
            looks = looks or any(block["type"] == "image" for block in message["content"])
        else:
            turns.append({"type": "ti2t" if looks else "t2t", "request": None, "scene": None})
    texts = [block["text"] for message in messages for block in message["content"] if block["type"] == "text"]
    shown = sum(block["type"] == "image" for message in messages for block in message["content"])
    tokens = _count_tokens(texts) + shown * PICTURE_TOKENS + len(messages) * MESSAGE_TOKENS
    if tokens > max_tokens:
        raise Refused("too long", f"{tokens:,} tokens, where {max_tokens:,} can be read (--max-tokens)")
    return {"language": language_of(" ".join(texts)), "messages": messages, "turns": turns}, files


def _alternate(said: Said) -> Said:
    """The user's and the assistant's messages by turns."""
    told: Said = []
    system: Blocks = []
    for role, blocks in said:
        if role == "system":
            if told or any(isinstance(block, bytes) for block in blocks):
                raise Refused("a system message amid the conversation, or with a picture")
            system += ["\n\n", *blocks]
        elif told and told[-1][0] == role:
            told[-1][1].extend(["\n\n", *blocks])
        else:
            told.append((role, list(blocks)))
    if told and told[0][0] != "user":
        raise Refused("the assistant speaks first")
    if len(told) % 2:
        told.pop()
    if not told:
        raise Refused("no question with an answer")
    if "".join(map(str, system)).strip():
        told[0][1][:0] = [*system, "\n\n"]
    return told


def _content(blocks: Blocks, role: str, files: dict[str, bytes]) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    for block in blocks:
        if isinstance(block, bytes):
            if role != "user":
                raise Refused("a reply holds a picture")
            data, ending = sound(block)
            digest = hashlib.sha256(data).hexdigest()
            path = f"images/{digest[:2]}/{digest}{ending}"
            files[path] = data
            content.append({"type": "image", "path": path, "sha256": digest})
        elif content and content[-1]["type"] == "text":
            content[-1]["text"] += block
        else:
            content.append({"type": "text", "text": block})
    texts = [part for part in content if part["type"] == "text"]
    for part in texts:
        part["text"] = part["text"].strip()
    said = "".join(part["text"] for part in texts)
    if not said:
        raise Refused("a message without text")
    if len(said) > MAX_TEXT:
        raise Refused("too long", f"a message of {len(said):,} characters, where {MAX_TEXT:,} can be read")
    if DRAW in said or SWITCH in said:
        for part in texts:
            part["text"] = escape_user_text(part["text"])
    content = [part for part in content if part["type"] == "image" or part["text"]]
    if sum(part["type"] == "text" for part in content) == 1:
        content.sort(key=lambda part: part["type"] == "text")
    return content


def language_of(text: str) -> str:
    """Told by the script, so that French passes for English unless it is full of accents."""
    letters = _LETTER.findall(text)
    if chinese_share(text) >= CHINESE and len(_OTHER_SCRIPTS.findall(text)) < 0.02 * len(letters):
        return "zh"
    if letters and sum(letter.isascii() for letter in letters) >= ENGLISH * len(letters):
        return "en"
    raise Refused("neither English nor Chinese")


@cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(
        str(Path(__file__).parent.parent / "dialog_mllm" / "weights" / "base" / "tokenizer.json")
    )


def _count_tokens(texts: list[str]) -> int:
    """As training writes them."""
    written = [escape_user_text(text) for text in texts]
    return sum(len(encoding.ids) for encoding in _tokenizer().encode_batch(written, add_special_tokens=False))


def split_of(record: Mapping[str, Any]) -> str:
    """By the pictures where there are some, else by the words; Refused where its pictures are of several splits."""
    blocks = [block for message in record["messages"] for block in message["content"]]
    pictures = {block["sha256"] for block in blocks if block["type"] == "image"}
    splits = {_split_of(bytes.fromhex(picture)) for picture in pictures or {content_key(record).hex()}}
    if len(splits) > 1:
        raise Refused("pictures of several splits")
    return splits.pop()


def _split_of(digest: bytes) -> str:
    place = int.from_bytes(digest[:4]) / 2**32
    if place < TEST_SHARE:
        return "test"
    return "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train"


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
    there = read_manifest(job.out, source, job.licence)
    if (there["source"], there["licence"]) != (source, job.licence):
        raise ImportFailed(
            f"{job.out} holds data from {there['source']} ({there['licence']}), which must not be mixed with {source} "
            f"({job.licence}): name another --out"
        )
    images = job.images or (Path(job.name).parent if job.local else None)
    records: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    reasons: Counter[str] = Counter()
    seen: set[bytes] = set()
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
    made: dict[str, Any] = {"n": len(records), "seed": job.seed, "max_tokens": job.max_tokens}
    made |= {"public": {"kind": job.kind, **public}, "refused": dict(reasons.most_common())}
    return write_split(job.out, job.split, records, made, source, job.licence)


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
