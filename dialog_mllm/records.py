"""Reading the canonical dialogue records (JSONL), for training and for evaluation.

for record, root in read_records(["data/test.jsonl"]): ...
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dialog_mllm.errors import DialogError

Record = dict[str, Any]


class DataError(DialogError):
    """A data file or a record in it cannot be used; the text says which and why."""


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
