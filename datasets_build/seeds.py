"""The hand-written pairs of a loose wish and the full drawing prompt that answers it: what a teacher learns from.

    python -c "from datasets_build.seeds import seeds; print(seeds('en', 'train')[0])"

They stand in seeds.toml, half English and half Chinese, and are split as users' phrasings are: no example that the
test split was written after stands behind a training record. Samples of a D_p that is already built serve as well.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from datasets_build.banks import split_entries
from dialog_mllm.messages import DRAW
from dialog_mllm.records import data_files


@dataclass(frozen=True)
class Pair:
    instruction: str
    prompt: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.instruction}\n{self.prompt}".encode()).hexdigest()[:8]


@cache
def all_seeds(language: str) -> tuple[Pair, ...]:
    text = (files(__package__) / "seeds.toml").read_text(encoding="utf-8")
    return tuple(Pair(pair["instruction"], pair["prompt"]) for pair in tomllib.loads(text)[language])


def seeds(language: str, split: str) -> tuple[Pair, ...]:
    """The pairs of a language that records of `split` may be written after."""
    pairs = {pair.digest: pair for pair in all_seeds(language)}
    return tuple(pairs[digest] for digest in split_entries(list(pairs), split))


def samples(path: Path, split: str) -> dict[str, tuple[Pair, ...]]:
    """The pairs of a D_p that is already built (its folder, or a file of it), by language. ValueError or DataError says
    what is wrong with it."""
    pairs: dict[str, list[Pair]] = {"en": [], "zh": []}
    for file in data_files([path], split):
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    record = json.loads(line)
                    if record["split"] != split:
                        raise ValueError(f"it is of the split {record['split']!r}, and {split!r} is being built")
                    if record["task"] == "D_p" and record["turns"][0]["type"] == "t2i":
                        pairs[record["language"]].append(_pair(record["messages"]))
                except (KeyError, IndexError, TypeError, ValueError) as error:
                    raise ValueError(f"{file}, line {number}: no sample can be read ({error})") from error
    return {language: tuple(found) for language, found in pairs.items()}


def _pair(messages: list[Mapping[str, Any]]) -> Pair:
    user, reply = ("".join(block.get("text", "") for block in message["content"]) for message in messages[:2])
    return Pair(user, reply.split(DRAW, 1)[1])
