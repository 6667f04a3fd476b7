"""The journal of a teacher's answers: one line each, on the disk before the next step, so that none is paid twice.

    with Journal(path, {"model": "gpt-x", ...}) as journal:
        journal.add((index, attempt), answer, reason=None)

The first line says what the answers were made with; a run with other options is refused. A line that a kill or a full
disk cut off is dropped on opening. Only one process writes a journal at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Key = tuple[int, int]  # (index, attempt)


class JournalError(Exception):
    """The journal cannot be used; the text says why and what to do."""


@dataclass(frozen=True)
class Answer:
    """What the endpoint said, and the tokens that it counted."""

    text: str
    finish: str | None = "stop"
    tokens_in: int = 0
    tokens_out: int = 0


class Journal:
    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.answers: dict[Key, Answer] = {}
        self.tokens_in = self.tokens_out = 0
        self.header = dict(header)
        self._file = -1
        self._size = 0

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._lock()
            self._read()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._file)

    def add(self, key: Key, answer: Answer, reason: str | None) -> None:
        """On the disk when it returns. `reason` says why the answer was refused; None: it was accepted."""
        names = {
            "index": key[0],
            "attempt": key[1],
            "verdict": "refused" if reason else "accepted",
            "reason": reason,
        }
        identity: dict[str, Any] = {name: self.header[name] for name in ("seed", "split") if name in self.header}
        said = {"text": answer.text, "finish": answer.finish, "tokens": [answer.tokens_in, answer.tokens_out]}
        self._write({**identity, **names, **said})
        self._keep(key, answer)

    def _keep(self, key: Key, answer: Answer) -> None:
        self.answers[key] = answer
        self.tokens_in += answer.tokens_in
        self.tokens_out += answer.tokens_out

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JournalError(f"another run is writing {self.path}: wait for it, or name another --out") from error

    def _read(self) -> None:
        data = b""
        while piece := os.pread(self._file, 1 << 24, len(data)):
            data += piece
        self._size = data.rfind(b"\n") + 1
        os.ftruncate(self._file, self._size)  # a line that was cut off is an answer that nobody has used
        # Not splitlines: within a line there may be characters that it takes for a line's end.
        lines = data[: self._size].decode("utf-8", "replace").split("\n")[:-1]
        if not lines:
            self._write(self.header)
            return
        for number, line in enumerate(lines, 1):
            try:
                self._take(json.loads(line), number)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise JournalError(
                    f"{self.path}, line {number} is damaged ({error}): delete that line, and its answer is asked again"
                ) from error

    def _take(self, line: dict[str, Any], number: int) -> None:
        if number > 1:
            tokens_in, tokens_out = line["tokens"]
            answer = Answer(line["text"], line["finish"], int(tokens_in), int(tokens_out))
            self._keep((int(line["index"]), int(line["attempt"])), answer)
            return
        wanted = json.loads(json.dumps(self.header))
        if line != wanted:
            name = next(name for name in sorted({*line, *wanted}) if line.get(name) != wanted.get(name))
            raise JournalError(
                f"{self.path} holds answers that were made with {name} {line.get(name)!r}, and now it is "
                f"{wanted.get(name)!r}: use the same options, or name another --out"
            )

    def _write(self, line: Mapping[str, Any]) -> None:
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
        try:
            written = os.pwrite(self._file, data, self._size)
            if written < len(data):
                raise OSError("the disk is full")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)
