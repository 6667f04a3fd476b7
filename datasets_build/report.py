"""A data set as one HTML page: what is in it, in numbers, and dialogues to read, with their pictures.

    easel data report --data data --out report.html --n 24

The page needs no network and no other file. Records are data: all that they say is escaped by the template.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import heapq
import io
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from datasets_build.check import request_name
from datasets_build.likeness import Likeness
from datasets_build.records import SPLITS
from datasets_build.shards import write_atomically
from dialog_mllm.messages import DRAW, MAX_IMAGE_PIXELS, SWITCH
from dialog_mllm.records import DataError, read_manifest, split_files

TEMPLATE = "report.html.jinja"
LARGEST = 256  # edge of a picture on the page
LENGTHS = (10, 20, 40, 80, 160, 320, 640)  # upper ends of the classes of characters in a message
KINDS = {  # what is counted, in the order of the page
    "task": "Tasks",
    "language": "Languages",
    "turn": "Turn types",
    "request": "What is asked for (+: several edits at once)",
    "form": "How it is asked for, where not plainly",
    "topic": "Topics",
    "turns": "Turns in a dialogue",
    "pictures": "Pictures in a dialogue",
    "said": "Characters in a user's message",
    "reply": "Characters in a reply",
}
ORDERED = ("turns", "pictures", "said", "reply")  # by size, the others by frequency


class ReportError(Exception):
    """The page cannot be made; the text says why."""


@dataclass
class Counts:
    """One split's numbers."""

    records: int = 0
    turns: int = 0
    pictures: int = 0
    repeated: int = 0  # records that say, but for case and punctuation, what an earlier one of any split says
    like: list[str] = field(default_factory=list)  # shares of near duplicates, in words
    of: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, record: Mapping[str, Any]) -> None:
        pictures = 0
        for message in record["messages"]:
            text = "".join(block["text"] for block in message["content"] if block["type"] == "text")
            pictures += sum(block["type"] == "image" for block in message["content"])
            self.of["said" if message["role"] == "user" else "reply"][_class(len(text))] += 1
        turns = record.get("turns") or ()
        self.records += 1
        self.turns += len(turns)
        self.pictures += pictures
        self.of["task"][str(record.get("task"))] += 1
        self.of["language"][str(record.get("language"))] += 1
        self.of["topic"][str(record.get("topic") or "none")] += 1
        self.of["turns"][str(len(turns))] += 1
        self.of["pictures"][str(pictures)] += 1
        self.of["turn"].update(str(turn["type"]) for turn in turns)
        self.of["request"].update(request_name(turn) for turn in turns)
        self.of["form"].update(form for turn in turns if (form := (turn["request"] or {}).get("form")))


@dataclass(frozen=True)
class Row:
    """One line of a table: a value, and its number and share in each split."""

    name: str
    numbers: tuple[int, ...]
    shares: tuple[float, ...]


def _class(length: int) -> str:
    low = 1
    for high in LENGTHS:
        if length <= high:
            return f"{low}–{high}"
        low = high + 1
    return f"{low} or more"


def _tables(splits: Mapping[str, Counts]) -> Iterator[tuple[str, list[Row]]]:
    for kind, title in KINDS.items():
        whole = sum((counts.of[kind] for counts in splits.values()), Counter[str]())
        totals = [max(1, sum(counts.of[kind].values())) for counts in splits.values()]
        if kind in ORDERED:
            names = sorted(whole, key=lambda name: int(name.split("–")[0].split()[0]))
        else:
            names = [name for name, _ in sorted(whole.items(), key=lambda item: (-item[1], item[0]))]
        rows = []
        for name in names:
            numbers = tuple(counts.of[kind][name] for counts in splits.values())
            rows.append(Row(name, numbers, tuple(n / of for n, of in zip(numbers, totals, strict=True))))
        yield title, rows


def _words(record: Mapping[str, Any]) -> bytes:
    said = "\n".join(block.get("text", "") for message in record["messages"] for block in message["content"])
    letters = "".join(letter for letter in said.casefold() if letter.isalnum() or letter == "\n")
    return hashlib.sha256(letters.encode()).digest()[:16]


def _read(root: Path, splits: dict[str, Counts]) -> Iterator[Mapping[str, Any]]:
    """Each record of each split, counted on its way."""
    seen: set[bytes] = set()
    likeness = Likeness()
    for split in SPLITS:
        for path in split_files(root, split):
            counts = splits.setdefault(split, Counts())
            with path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        record = json.loads(line)
                        counts.add(record)
                        words, name = _words(record), str(record["id"])
                        likeness.add(split, record)
                    except (ValueError, KeyError, TypeError, AttributeError) as error:
                        raise ReportError(
                            f"{path}, line {number}: this is no record ({error!r}): see `easel data check {root}`"
                        ) from error
                    counts.repeated += words in seen
                    seen.add(words)
                    yield record | {"id": name}
    for split, counts in splits.items():
        counts.like = likeness.lines(split)


def _picture(block: Mapping[str, Any], root: Path) -> str | None:
    """The picture as a data URL, made smaller where it is large; None where it cannot be shown."""
    path = Path(str(block.get("path")))
    if path.is_absolute() or ".." in path.parts:
        return None
    with contextlib.suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        data = (root / path).read_bytes()
        with Image.open(io.BytesIO(data)) as picture:
            if picture.width * picture.height > MAX_IMAGE_PIXELS:
                return None
            if picture.format != "PNG" or max(picture.size) > LARGEST:
                shown = picture.convert("RGBA")
                shown.thumbnail((LARGEST, LARGEST))
                buffer = io.BytesIO()
                shown.save(buffer, "PNG")
                data = buffer.getvalue()
            else:
                picture.verify()
        return "data:image/png;base64," + base64.b64encode(data).decode("ascii")
    return None


def _dialogue(record: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """What the template shows of a record: each message with its tokens apart from its text."""
    messages = []
    kinds = [f"{turn['type']} · {request_name(turn)}" for turn in record.get("turns") or ()]
    for i, message in enumerate(record["messages"]):
        text = "".join(block["text"] for block in message["content"] if block["type"] == "text")
        tokens = []
        if message["role"] != "user":
            for token in (SWITCH, DRAW):
                if text.startswith(token):
                    text = text.removeprefix(token)
                    tokens.append(token)
        pictures = [_picture(block, root) for block in message["content"] if block["type"] == "image"]
        kind = kinds[i // 2] if i % 2 and i // 2 < len(kinds) else ""
        messages.append(
            {"user": message["role"] == "user", "text": text, "tokens": tokens, "pictures": pictures, "kind": kind}
        )
    names = {key: str(record.get(key) or "none") for key in ("split", "task", "language", "topic", "source", "licence")}
    return {"id": record["id"], "messages": messages, **names}


def render(root: Path, n: int, seed: int = 0) -> tuple[str, dict[str, Counts]]:
    """The page, with `n` dialogues drawn by lot; the seed and the records' ids decide which."""
    splits: dict[str, Counts] = {}

    def lot(record: Mapping[str, Any]) -> bytes:
        return hashlib.sha256(f"{seed} {record['id']}".encode()).digest()

    chosen = heapq.nsmallest(n, _read(root, splits), key=lot)
    if not splits:
        raise ReportError(f"there is no data set in {root}: make one with `easel data mix --out {root}`")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    dialogues = [_dialogue(record, root) for record in chosen]
    page = environment.get_template(TEMPLATE).render(
        name=root.resolve().name,
        manifest=read_manifest(root),
        splits=splits,
        tables=list(_tables(splits)),
        dialogues=dialogues,
        filters={key: sorted({d[key] for d in dialogues}) for key in ("split", "task", "language", "topic")},
        seed=seed,
    )
    return page, splits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--out", type=Path, required=True, help="the page, for example report.html")
    parser.add_argument("--n", type=int, default=24, help="how many dialogues are shown")
    parser.add_argument("--seed", type=int, default=0, help="which dialogues are shown")


def run_arguments(args: argparse.Namespace) -> int:
    if args.n < 0:
        print(f"easel data report: --n must not be negative; got {args.n}", file=sys.stderr)
        return 2
    try:
        page, splits = render(args.data, args.n, args.seed)
        write_atomically(args.out, page.encode())
    except (ReportError, DataError) as error:
        print(f"easel data report: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"easel data report: {error.filename or args.out}: {error.strerror or error}", file=sys.stderr)
        return 1
    for split, counts in splits.items():
        print(f"{split}: {counts.records:,} records, {counts.turns:,} turns, {counts.pictures:,} pictures")
    print(f"{args.out} is written: {len(page.encode()) / 1e6:.1f} MB. Open it in a browser.")
    return 0
