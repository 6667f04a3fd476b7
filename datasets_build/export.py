"""Exports: the canonical JSONL and its pictures, as four trainers' own loaders read them.

    easel data export --data data --format llamafactory --out data_lf --pictures copy

| format       | a row                                                        | laid out for                      |
| ------------ | ------------------------------------------------------------ | --------------------------------- |
| trl          | `messages` of content blocks, `{"type": "image"}`; `images`  | `datasets.load_dataset(OUT)`      |
| llamafactory | `messages` of text with `<image>`; `images`                  | `dataset_info.json`, sharegpt     |
| swift        | `messages` of text with `<image>`; `images`                  | `--dataset OUT/train.jsonl`       |
| axolotl      | `messages` of content blocks, `{"type": "image", "path": …}` | `axolotl.yaml`, `chat_template`   |

Followed were: TRL's page "Dataset formats and types" and its `prepare_multimodal_messages`, the page "Create an image
dataset" of `datasets` (a split's `metadata.jsonl` with `*_file_names`), LLaMA-Factory's `data/README.md`, ms-swift's
"Custom Dataset", and axolotl's "MultiModal / Vision Language Models".

The trainers' own code has read exports. To the very tokens of `dialog_mllm.data`: TRL 1.16.0 (`SFTTrainer` and its data
collator, which a test runs) and axolotl 0.19.0 (`load_dataset_with_config`, `MultiModalChatDataCollator`). To the same
messages and pictures: ms-swift 4.6.0 (`load_dataset`, `StdTemplateInputs.from_dict`, `load_image`) and LLaMA-Factory
0.9.5 (`_load_single_dataset`, with its sharegpt converter).

Every format holds what serving would show the model, by the one rule in `dialog_mllm.messages.arrange`: a drawn picture
stands at the front of the next user message, because none of the trainers expects pictures in an assistant's; the
draw and the topic token begin an assistant's text as they are; every other "<" has an invisible word joiner behind it,
so that a typed "<image>", "<video>" or "<draw>" is a placeholder or token in none of the formats. The joiner is also
put into a typed "{{" for LLaMA-Factory, which writes "{{image}}" for itself while it expands. Unlike serving, no
picture is left out of a long conversation; the manifest names the largest number.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from PIL import Image

from datasets_build.records import SPLITS
from datasets_build.shards import write_atomically
from dialog_mllm.messages import DRAW, JOINER, SWITCH, ImageBlock, Message, MessageError, TextBlock, arrange
from dialog_mllm.records import DataError, read_manifest, split_files

PICTURES = ("copy", "link", "absolute")
PLACEHOLDER = "<image>"  # of LLaMA-Factory and ms-swift alike
UNDER_WAY = "export.json"  # there while manifest.json is not: says which export it is that can be resumed
Row = dict[str, Any]


class ExportError(Exception):
    """The export cannot be made; the text says why, and names the record."""


# ------------------------------------------------------------------------------------------------ rows of each format
# Each takes the messages as `arrange` made them; a picture's `path` is already the one that the row shall hold.


def _blocks(messages: Sequence[Message], picture: Callable[[ImageBlock], dict[str, Any]]) -> list[Row]:
    return [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": block.text} if isinstance(block, TextBlock) else picture(block)
                for block in message.content
            ],
        }
        for message in messages
    ]


def _paths(messages: Sequence[Message]) -> list[str]:
    return [str(block.path) for message in messages for block in message.images]


def _trl(messages: Sequence[Message]) -> Row:
    return {"messages": _blocks(messages, lambda block: {"type": "image"}), "images": _paths(messages)}


def _trl_folder(messages: Sequence[Message]) -> Row:
    """`datasets` opens what a metadata file's `*_file_names` name, beside that file, and drops the ending."""
    row = _trl(messages)
    row["images_file_names"] = row.pop("images")
    return row


def _axolotl(messages: Sequence[Message]) -> Row:
    # No column `images`: axolotl would put the first of them into the first message once more.
    return {"messages": _blocks(messages, lambda block: {"type": "image", "path": str(block.path)})}


def _swift(messages: Sequence[Message]) -> Row:
    texts = [
        "".join(block.text if isinstance(block, TextBlock) else PLACEHOLDER for block in message.content)
        for message in messages
    ]
    return {
        "messages": [{"role": m.role, "content": text} for m, text in zip(messages, texts, strict=True)],
        "images": _paths(messages),
    }


def _llamafactory(messages: Sequence[Message]) -> Row:
    row = _swift(messages)
    for message in row["messages"]:
        message["content"] = message["content"].replace("{{", "{" + JOINER + "{")
    return row


# ------------------------------------------------------------------------------------- files beside the rows


def _dataset_info(files: Mapping[str, str]) -> dict[str, str]:
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", "images": "images"}
    info = {
        f"easel_{split}": {"file_name": file, "formatting": "sharegpt", "columns": columns, "tags": tags}
        for split, file in files.items()
    }
    return {"dataset_info.json": json.dumps(info, indent=2) + "\n"}


def _axolotl_yaml(files: Mapping[str, str]) -> dict[str, str]:
    lines = [
        "# Put this into your configuration, and run axolotl in this folder: picture paths are relative to it.",
        "# The tokens must be the tokenizer's; where they are new, train the embeddings too (lora_modules_to_save).",
        "# Of a model whose roles axolotl does not know it trains the users' words too: name them by role_boundaries.",
        "processor_type: AutoProcessor",
        "skip_prepare_dataset: true",
        "remove_unused_columns: false",
        "sample_packing: false",
        f'tokens: ["{DRAW}", "{SWITCH}"]',
    ]
    for split, file in files.items():
        if key := {"train": "datasets", "validation": "test_datasets"}.get(split):
            lines += [f"{key}:", f"  - path: {file}", "    ds_type: json", "    split: train"]
            lines += ["    type: chat_template", "    field_messages: messages"]
    return {"axolotl.yaml": "\n".join(lines) + "\n"}


@dataclass(frozen=True)
class Format:
    row: Callable[[Sequence[Message]], Row]
    use: str  # how a trainer is told, in a line
    file: str = "{split}.jsonl"
    pictures: str = ""  # the folder that a split's picture paths are relative to
    beside: Callable[[Mapping[str, str]], dict[str, str]] = lambda files: {}


FORMATS = {
    "trl": Format(
        _trl_folder, 'datasets.load_dataset("OUT")["train"], to SFTTrainer', "{split}/metadata.jsonl", "{split}"
    ),
    "llamafactory": Format(
        _llamafactory,
        f"--dataset_dir OUT --dataset easel_train --add_special_tokens '{DRAW},{SWITCH}'",
        beside=_dataset_info,
    ),
    "swift": Format(
        _swift, f"ROOT_IMAGE_DIR=OUT swift sft --dataset OUT/train.jsonl --new_special_tokens '{DRAW}' '{SWITCH}'"
    ),
    "axolotl": Format(_axolotl, "in OUT, with the lines of OUT/axolotl.yaml", beside=_axolotl_yaml),
}
# `datasets` opens a metadata file's pictures below its own folder only: absolute paths are for the processor to open.
TRL_ABSOLUTE = Format(_trl, 'datasets.load_dataset("json", data_files="OUT/train.jsonl")["train"], to SFTTrainer')


# ------------------------------------------------------------------------------------------------------- the export


@dataclass(frozen=True)
class Export:
    data: Path
    out: Path
    format: str
    pictures: str = "copy"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {self.format!r}")
        if self.pictures not in PICTURES:
            raise ValueError(f"pictures must be one of {', '.join(PICTURES)}; got {self.pictures!r}")
        if self.data.resolve() == self.out.resolve():
            raise ValueError("an export is written beside the data set, not into it: give another --out")

    @property
    def layout(self) -> Format:
        return TRL_ABSOLUTE if (self.format, self.pictures) == ("trl", "absolute") else FORMATS[self.format]


def run(export: Export, progress: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Writes the export and returns its manifest, which is written last. Memory holds one record at a time."""
    source = read_manifest(export.data)
    splits = [split for split in SPLITS if split in source.get("splits", {})]
    if not splits:
        raise ExportError(f"{export.data} is no whole data set: its manifest.json is missing or names no split")
    layout = export.layout
    manifest: dict[str, Any] = {
        "version": 1,
        "format": export.format,
        "pictures": export.pictures,
        "source": {key: source.get(key) for key in ("source", "licence")},
        "of": {split: source["splits"][split]["sha256"] for split in splits},
    }
    _begin(export.out, manifest)
    files = {split: layout.file.format(split=split) for split in splits}
    manifest |= {"use": layout.use, "splits": {}}
    for split, file in files.items():
        manifest["splits"][split] = {"file": file, **_write_split(export, split, manifest["of"][split], progress)}
    for name, text in layout.beside(files).items():
        write_atomically(export.out / name, text.encode())
    write_atomically(export.out / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False).encode())
    (export.out / UNDER_WAY).unlink()
    return manifest


def _begin(out: Path, identity: Mapping[str, Any]) -> None:
    """Refuses a folder with anything but this very export in it, whole or begun."""
    whole, begun = out / "manifest.json", out / UNDER_WAY
    if out.exists() and any(out.iterdir()):
        found: Any = None
        for path in (begun, whole):
            if found is None and path.is_file():
                with contextlib.suppress(ValueError):
                    found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or any(found.get(key) != value for key, value in identity.items()):
            raise ExportError(f"{out} is not empty, and holds something else than this export: give another --out")
    write_atomically(begun, json.dumps(identity, ensure_ascii=False).encode())
    whole.unlink(missing_ok=True)  # while it is being written, the export is not whole


def _write_split(export: Export, split: str, sha256: str, progress: Callable[[str], None]) -> dict[str, Any]:
    layout = export.layout
    counts: Counter[str] = Counter()
    most = 0
    read, written = hashlib.sha256(), hashlib.sha256()
    folder = export.out / layout.pictures.format(split=split)
    number = 0
    with _draft(export.out / layout.file.format(split=split)) as file:
        for where, line in _source_lines(export.data, split):
            read.update(line)
            number += 1
            try:
                record = json.loads(line)
                where += f" {record['id']}"
                messages = [Message.from_json(message, Path()) for message in record["messages"]]
                pictures = [block for message in messages for block in message.images]
                for block in pictures:
                    _put_picture(block, export, folder, where)
                row = layout.row([_placed(message, export) for message in arrange(messages, len(pictures))])
            except (KeyError, TypeError, ValueError, AttributeError, MessageError) as error:
                raise ExportError(f"{where}: this is no record to export ({type(error).__name__}: {error})") from error
            out = (json.dumps({"id": record["id"], **row}, ensure_ascii=False) + "\n").encode()
            file.write(out)
            written.update(out)
            counts.update(n=1, pictures=len(pictures))
            most = max(most, len(pictures))
            if number % 1000 == 0:
                progress(f"{number:,} {split} records")
        if read.hexdigest() != sha256:
            raise ExportError(
                f"the {split} split is not the one that manifest.json names: see `easel data check {export.data}`"
            )
    return {**counts, "most_pictures": most, "sha256": written.hexdigest()}


def _source_lines(data: Path, split: str) -> Iterator[tuple[str, bytes]]:
    """Each line with the place where it stands."""
    for path in split_files(data, split):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield f"{path.name}:{number}", line


@contextlib.contextmanager
def _draft(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")  # the same at every run, so that a resumed one leaves none
    try:
        with draft.open("wb") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _placed(message: Message, export: Export) -> Message:
    if export.pictures != "absolute":
        return message
    root = export.data.resolve()
    blocks = [ImageBlock(path=root / str(b.path)) if isinstance(b, ImageBlock) else b for b in message.content]
    return Message(message.role, tuple(blocks))


def _put_picture(block: ImageBlock, export: Export, folder: Path, where: str) -> None:
    """Looks at the picture, whether it is the one that the record names, and brings it where the row will name it."""
    path = PurePosixPath(str(block.path))
    if path.is_absolute() or ".." in path.parts:
        raise ExportError(f"{where}: {path} leads out of the data set")
    source, target = export.data / path, folder / path
    try:
        data = source.read_bytes()
        with Image.open(io.BytesIO(data)) as picture:
            picture.verify()
    except FileNotFoundError as error:
        raise ExportError(f"{where}: its picture {path} is missing") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ExportError(f"{where}: its picture {path} is broken ({error})") from error
    if hashlib.sha256(data).hexdigest() != block.sha256:
        raise ExportError(f"{where}: its picture {path} is not the one that the record names by its SHA-256")
    if export.pictures == "absolute" or (target.is_file() and target.read_bytes() == data):
        return
    if export.pictures == "copy":
        write_atomically(target, data)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        raise ExportError(
            f"{where}: {path} cannot be linked ({error.strerror}): links need one disk; use --pictures copy"
        ) from error


# ----------------------------------------------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--out", type=Path, required=True, help="a new folder, or the one where this export was begun")
    parser.add_argument("--format", choices=tuple(FORMATS), required=True, help="the trainer that shall read it")
    parser.add_argument(
        "--pictures", choices=PICTURES, default="copy",
        help="copied into the new folder, linked there (hard links), or left and named by absolute path",
    )  # fmt: skip


def run_arguments(args: argparse.Namespace) -> int:
    try:
        export = Export(args.data, args.out, args.format, args.pictures)
    except ValueError as error:
        print(f"easel data export: {error}", file=sys.stderr)
        return 2
    try:
        manifest = run(export, lambda line: print(line, file=sys.stderr, flush=True))
    except (ExportError, DataError) as error:
        print(f"easel data export: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"easel data export: {error.filename or args.out}: {error.strerror or error}", file=sys.stderr)
        return 1
    print(json.dumps(manifest["splits"], ensure_ascii=False))
    print(manifest["use"].replace("OUT", str(args.out)))
    return 0
