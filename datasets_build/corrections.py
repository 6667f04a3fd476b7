"""Corrections: replies that were wrong, and what should have been said, as records to learn from and as pairs.

    write(out, [(Case(record, root, turn=2, said="<draw>a red cat", error="prompt"), "<draw>a red fox", {})], made)

OUT's train split holds each dialogue up to and including the corrected turn. A record's `error` names what was wrong
(None: nothing, it is here so that the rest is not forgotten), `of` the dialogue that it is a part of, and `learn` its
last turn: only that reply counts in training. OUT/preferences.jsonl holds prompt, chosen and rejected reply in the
conversational form of TRL's preference datasets, the pictures by their paths beneath OUT.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets_build.export import TRL_ABSOLUTE
from datasets_build.shards import LICENCE, SOURCE, content_key, write_atomically, write_split
from dialog_mllm.messages import Message, arrange

PREFERENCES = "preferences.jsonl"
# The kinds of error, in the order in which one is named for a reply that has several.
ERRORS = ("no_reply", "refusal", "false_draw", "missed_draw", "prompt", "question", "topic", "reply")


class CorrectionError(Exception):
    """The data set cannot be written; the text says why."""


@dataclass(frozen=True)
class Case:
    """A reply to one turn of a record: what was said there, and what kind of error that is."""

    record: Mapping[str, Any]
    root: Path  # that its picture paths are relative to
    turn: int
    said: str  # "": nothing that can be read
    error: str | None  # of ERRORS; None: it was right

    @property
    def wanted(self) -> str:
        """The record's own reply."""
        return "".join(b["text"] for b in self.record["messages"][2 * self.turn + 1]["content"] if b["type"] == "text")


Correction = tuple[Case, str, Mapping[str, Any]]  # what is to be said in that case, and scores of that


def corrected_record(
    case: Case, reply: str, name: str, out: Path, source: str = SOURCE, licence: str = LICENCE, task: str = "D_e"
) -> dict[str, Any]:
    """The dialogue up to the turn, with `reply` in it. Its pictures are brought into `out`."""
    last = 2 * case.turn + 1
    messages = [_with_pictures(message, case.root, out) for message in case.record["messages"][:last]]
    messages.append({"role": "assistant", "content": [{"type": "text", "text": reply}]})
    of = case.record.get("of") or {"id": case.record["id"], "task": case.record["task"]}
    return {
        **{key: case.record[key] for key in ("language", "split", "topic", "phrasings")},
        "id": name,
        "task": task,
        "source": source,
        "licence": licence,
        "messages": messages,
        "turns": list(case.record["turns"][: case.turn + 1]),
        "learn": [case.turn],
        "error": case.error,
        "of": of | {"turn": case.turn},
    }


def _with_pictures(message: Mapping[str, Any], root: Path, out: Path) -> dict[str, Any]:
    blocks = [_picture(block, root, out) if block["type"] == "image" else block for block in message["content"]]
    return {"role": message["role"], "content": blocks}


def _picture(block: Mapping[str, Any], root: Path, out: Path) -> dict[str, Any]:
    try:
        data = (root / block["path"]).read_bytes()
    except OSError as error:
        raise CorrectionError(f"the picture {root / block['path']} cannot be read ({error.strerror})") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != block["sha256"]:
        raise CorrectionError(f"{root / block['path']} is not the picture that its record names by its SHA-256")
    path = Path("images") / digest[:2] / f"{digest}.png"
    if not (out / path).exists():
        write_atomically(out / path, data)
    return {"type": "image", "path": path.as_posix(), "sha256": digest}


def preference(record: Mapping[str, Any], rejected: str) -> dict[str, Any]:
    """A corrected record and the reply that it corrects, as TRL's preference datasets have them."""
    history = [Message.from_json(message, Path()) for message in record["messages"][:-1]]
    chosen = "".join(block["text"] for block in record["messages"][-1]["content"])
    # As serving shows it: the newest pictures only, each at the front of the next user message.
    rows = [TRL_ABSOLUTE.row(arrange([*history, Message.assistant(reply)])) for reply in (chosen, rejected)]
    return {
        "id": record["id"],
        "error": record["error"],
        "images": rows[0]["images"],
        "prompt": rows[0]["messages"][:-1],
        "chosen": rows[0]["messages"][-1:],
        "rejected": rows[1]["messages"][-1:],
    }


def write(
    out: Path,
    corrections: Sequence[Correction],
    made: Mapping[str, Any],
    source: str = SOURCE,
    licence: str = LICENCE,
    task: str = "D_e",
) -> dict[str, Any]:
    """Fills `out` and returns what it holds: counts of records, pairs and kinds of error."""
    records: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    seen: set[int] = set()
    counts: Counter[str] = Counter()
    for number, (case, reply, scores) in enumerate(corrections):
        name = f"{task}-train-{made['seed']}-{number:07d}"
        record = corrected_record(case, reply, name, out, source, licence, task) | {"scores": dict(scores)}
        key = content_key(record)
        if case.error is not None and case.said and case.said != reply:
            pairs.append(preference(record, case.said))
        if key not in seen:
            records.append(record)
            counts[case.error or "right"] += 1
        seen.add(key)
    if not records:
        raise CorrectionError("there is nothing to write")
    errors = dict(sorted(counts.items()))
    command = {"D_e": "easel data errors", "D_f": "easel data feedback"}[task]
    write_split(out, "train", records, made, source, licence, errors=errors, command=command)
    lines = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    write_atomically(out / PREFERENCES, lines.encode())
    return {"records": len(records), "preferences": len(pairs), "errors": errors}
