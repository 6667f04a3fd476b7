"""The data card: README.md in a data set's folder, which says what the manifest says to people and to model hubs.

text = card(manifest)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

NAME = "README.md"
OURS = "<!-- Written by `easel data` from manifest.json. -->"  # a card without this line is somebody's own
SPLITS_RULE = (
    "What decides is a hash of the scene, so no scene and no picture is in two splits, and the phrasings of the test "
    "split's users are in no other. `easel data check` proves it."
)
TEACHER_RULE = "No example that records of the test split were written after stands behind a record of another split."


def card(manifest: Mapping[str, Any]) -> str:
    """Markdown, behind the front matter that model hubs read."""
    splits = manifest["splits"]
    world = "picture_size" in manifest
    pictures = any(entry["counts"].get("pictures") for entry in splits.values())
    taught = any("teacher" in entry for entry in splits.values())
    languages = sorted(
        {key.split()[1] for entry in splits.values() for key in entry["counts"] if key.startswith("language")}
    )
    files = [{"split": split, "path": f"{split}-*.jsonl"} for split in splits]
    front = {
        "license": manifest["licence"].lower(),
        "language": languages,
        "configs": [{"config_name": "default", "data_files": files}],
    }
    # JSON is YAML as well.
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()), "---"]
    lines += [OURS, "", "# Dialogues in which pictures are asked for, changed and talked about", ""]
    lines += [
        "A line is a dialogue of one split: `messages` of text and picture blocks, a reply's text beginning with "
        "`<draw>` where it draws, and for each turn in `turns` its type and what was asked."
        + (" Pictures are files in `images/`, named by their SHA-256." if pictures else " There are no pictures."),
        "",
        f"- Source: {manifest['source']}" + (" (drawn and written by rules, without a model)" if world else ""),
        f"- Licence: {manifest['licence']}",
        *([f"- Splits: {SPLITS_RULE if world else TEACHER_RULE}"] if world or taught else []),
        "",
        "| split | records | shards | made by | builders |",
        "| --- | --- | --- | --- | --- |",
    ]
    for split, entry in splits.items():
        made = f"`{command(split, entry, manifest['source'] if taught else None)}`"
        lines.append(f"| {split} | {entry['n']:,} | {len(entry['shards'])} | {made} | {entry.get('builders', '')} |")
    lines += ["", f"| number of | {' | '.join(splits)} |", "| --- " * (len(splits) + 1) + "|"]
    for name in sorted({name for entry in splits.values() for name in entry["counts"]}):
        numbers = " | ".join(f"{entry['counts'].get(name, 0):,}" for entry in splits.values())
        lines.append(f"| {name} | {numbers} |")
    return "\n".join([*lines, ""])


def command(split: str, entry: Mapping[str, Any], teacher: str | None) -> str:
    """The line that makes a split, but for its folders and where the teacher answers."""
    if "command" in entry:
        return str(entry["command"])
    tasks = {task.removeprefix("D_"): share for task, share in entry["shares"].items() if share}
    words = ["easel data", next(iter(tasks)) if len(tasks) == 1 else "mix"]
    words.append(f"--split {split} --n {entry['n']} --seed {entry['seed']}")
    if len(tasks) > 1:
        words.append("--shares " + ",".join(f"{task}={share:g}" for task, share in tasks.items()))
    if len(entry.get("languages", ())) == 1:
        words.append(f"--language {entry['languages'][0]}")
    if teacher is not None:
        words.append(f"--teacher URL --teacher-model {teacher}")
    return " ".join(words)
