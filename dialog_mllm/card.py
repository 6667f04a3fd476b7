"""The README.md of an adapter: what it adapts, what it has learnt from, how, and what it scores.

    card = adapter_card("base", [source(Path("runs/d"))], config, scores)

Nothing in it depends on where the files lay: data sets are told by the SHA-256 of their manifests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dialog_mllm.records import read_manifest


@dataclass(frozen=True)
class Source:
    """A data set, or a file of records, by what is in it."""

    name: str
    sha256: str  # of its manifest, which holds its shards' digests; of the file where there is none
    licence: str  # "" if nobody says


def source(place: Path) -> Source:
    """A folder or a file. Of a folder without a manifest, the digest is that of its JSONL files, in order."""
    files = [place] if place.is_file() else [place / "manifest.json"]
    if not files[0].is_file():
        files = sorted(place.glob("*.jsonl"))
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    manifest = read_manifest(place if place.is_dir() else place.parent)
    return Source(place.name, digest.hexdigest(), str(manifest.get("licence", "")))


def adapter_card(base: str, sources: Sequence[Source], config: Any, scores: Mapping[str, float]) -> str:
    """`config`: the run's dataclass; `base`: as the adapter's own settings name it."""
    licences = sorted({entry.licence or "unknown" for entry in sources})
    lines = ["---", "library_name: peft", "tags: [lora, easel, vllm]"]
    if "/" in base:  # a name on the hub
        lines.append(f"base_model: {base}")
    if len(licences) == 1 and licences[0] != "unknown":
        lines.append(f"license: {licences[0].lower()}")
    lines += [
        "---",
        "",
        "# A dialog model's adapter",
        "",
        f"A LoRA for `{base}`, made by Easel. The base's own licence holds beside that of the data.",
        "",
        "| data | SHA-256 | licence |",
        "| --- | --- | --- |",
        *(f"| {entry.name} | `{entry.sha256}` | {entry.licence or 'unknown'} |" for entry in sources),
        "",
        "| score | on held-out records |",
        "| --- | --- |",
        *(f"| {name.replace('_', ' ')} | {value:.4f} |" for name, value in scores.items()),
        "",
        "```json",
        json.dumps(_settings(asdict(config)), indent=1, default=str, ensure_ascii=False),
        "```",
        "",
    ]
    return "\n".join(lines)


def _settings(value: Any) -> Any:
    """Settings with each path cut to its name: the way to it is this machine's."""
    if isinstance(value, dict):
        return {key: _settings(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [_settings(of) for of in value]
    return value.name if isinstance(value, Path) and value.is_absolute() else value
