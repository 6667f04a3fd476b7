"""Checks a data set: every rule that the training relies on, splits without leaks, and the distribution.

    easel data check data

Exits with 1 and names each violation (the first ones of each rule) when the data set breaks a rule.

What an endpoint teacher wrote has neither scenes nor pictures. There, an edited prompt is held to the words of the one
before it instead (`consistency`). What was imported has no scenes and only talks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets_build.consistency import LEAST, kept_share
from datasets_build.likeness import Likeness
from datasets_build.plans import values
from datasets_build.records import SPLITS
from datasets_build.shards import SOURCE, content_key
from datasets_build.storybook.edits import apply_edit
from datasets_build.storybook.reading import complete, find_template, read_prompt
from datasets_build.storybook.scene import Scene
from dialog_mllm.messages import DRAW, SWITCH
from dialog_mllm.records import DataError, read_manifest, run_file, split_files

Drawn = tuple[Scene, tuple[str, int] | None]  # a scene, with the language and template of its prompt

TOLERANCE = 0.02  # how far a share may be from its target …
# … and for so many records or turns: few things cannot be shared out exactly, and edits, of which a dialogue has any
# number, are spread less evenly than dialogues.
ODD_ONES, ODD_EDITS = 5, 20
SHOWN = 5  # violations of one rule that are printed
TASKS = ("D_o", "D_p", "D_pm", "D_tt", "D_n", "D_c", "D_e", "D_f", "D_w")
TYPES = ("t2t", "t2i", "ti2t", "ti2i")


@dataclass
class Report:
    violations: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    values: dict[str, dict[str, Counter[str]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(Counter))
    )
    aimed: dict[str, list[str]] = field(default_factory=dict)  # split -> how near each distribution is to its target
    likeness: Likeness = field(default_factory=Likeness)

    @property
    def ok(self) -> bool:
        return not self.violations

    def add(self, rule: str, where: str) -> None:
        self.violations[rule].append(where)

    def lines(self) -> Iterator[str]:
        for split, counts in self.counts.items():
            yield f"{split}: {counts['records']:,} records, {counts['turns']:,} turns, {counts['pictures']:,} pictures"
            for key in sorted(set(counts) - {"records", "turns", "pictures"}):
                of = counts["records"] if key.startswith(("task", "language", "turns per")) else counts["turns"]
                yield f"  {key:<28} {counts[key]:>8,}  {counts[key] / of:6.1%}"
            yield from (f"  {line}" for line in self.aimed.get(split, ()))
            yield f"  near duplicates: {'; '.join(self.likeness.lines(split))}"
        for rule, places in sorted(self.violations.items()):
            yield f"VIOLATED in {len(places):,} places: {rule}"
            yield from (f"  {place}" for place in places[:SHOWN])


@dataclass
class _Seen:
    """What the splits must not share."""

    scenes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    phrasings: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    pictures: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    contents: dict[int, str] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    read: dict[str, str] = field(default_factory=dict)  # picture path -> its SHA-256
    origin: tuple[str, str] | None = None  # source and licence, as the manifest names them


def check(root: Path) -> Report:
    """Reads every split of the data set in `root`."""
    report, seen = Report(), _Seen()
    manifest = read_manifest(root)
    if manifest:
        seen.origin = manifest["source"], manifest["licence"]
    else:
        report.add("manifest.json is there", str(root))
    found = {split: files for split in SPLITS if (files := split_files(root, split))}
    if not found:
        report.add("there is at least one split", str(root))
    for split, files in found.items():
        entry = manifest.get("splits", {}).get(split, {})
        named = {shard["file"]: shard["sha256"] for shard in entry.get("shards", ())}
        for path in files:
            _check_file(path, split, named.get(path.name), report, seen)
        if entry.get("n") != report.counts[split]["records"]:
            report.add("the manifest counts the records", split)
        _check_targets(entry.get("targets", {}), split, report)
    for split in SPLITS:
        if run_file(root, split).exists():
            report.add("every split is finished: the command that makes it goes on where it was stopped", split)
        for path in sorted(root.glob(f"{split}-*.jsonl")):
            if path not in found.get(split, ()):
                report.add("the manifest names every shard", path.name)
    _check_leaks(seen, report)
    return report


def _check_targets(targets: Mapping[str, Mapping[str, float]], split: str, report: Report) -> None:
    """Every distribution that the manifest aims at: no share is further from its target than `TOLERANCE`."""
    report.aimed[split] = []
    for name, shares in targets.items():
        found = report.values[split][name]
        n = sum(found.values())
        if not n:
            continue
        gaps = {value: abs(found[value] / n - shares.get(value, 0.0)) for value in {*found, *shares}}
        furthest = max(gaps, key=lambda value: (gaps[value], value))
        told = f"{furthest} {found[furthest] / n:.1%}, target {shares.get(furthest, 0.0):.1%}"
        report.aimed[split].append(f"target {name}: {len(found)} of {len(shares)} values; furthest: {told}")
        odd = ODD_EDITS if name == "edit" else ODD_ONES
        if gaps[furthest] > TOLERANCE + odd / n:
            report.add("each share is the one that the manifest aims at", f"{split}: {name} {told}")
        for value, share in shares.items():
            if share * n > odd and not found[value]:
                report.add("everything that the manifest aims at occurs", f"{split}: {name} {value}")


def _check_file(path: Path, split: str, sha256: str | None, report: Report, seen: _Seen) -> None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        report.add("every shard is there: the command that made the data makes a missing one again", path.name)
        return
    if hashlib.sha256(data).hexdigest() != sha256:
        report.add("the file is the one that the manifest names", path.name)
    for number, line in enumerate(data.splitlines(), 1):
        _check_line(line, f"{path.name}:{number}", split, path.parent, report, seen)


def _check_line(line: bytes, where: str, split: str, root: Path, report: Report, seen: _Seen) -> None:
    try:
        record = json.loads(line)
        where = f"{where} {record['id']}"
        _check_record(record, where, split, root, report, seen)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        report.add("the record has the schema", f"{where}: {type(error).__name__}: {error}")


def _check_record(record: Mapping[str, Any], where: str, split: str, root: Path, report: Report, seen: _Seen) -> None:
    messages, turns, counts = record["messages"], record["turns"], report.counts[split]
    if record["split"] != split or record["task"] not in TASKS or record["language"] not in ("en", "zh"):
        report.add("split, task and language are named rightly", where)
    roles = [message["role"] for message in messages]
    if roles != ["user", "assistant"] * len(turns) or not turns:
        report.add("roles alternate, with one turn for each assistant message", where)
        return
    if seen.origin not in (None, (record["source"], record["licence"])):
        report.add("source and licence are those that the manifest names", where)
    if record["id"] in seen.ids:
        report.add("ids are unique", where)
    seen.ids.add(record["id"])
    first = seen.contents.setdefault(content_key(record), where)
    if first != where:
        report.add("no two records are the same", f"{where} is {first}")
    seen.phrasings[split].update(record["phrasings"])
    report.likeness.add(split, record)
    for name, value in values(record):
        report.values[split][name][value] += 1
    counts.update(("records", f"task {record['task']}", f"language {record['language']}"))
    counts[f"turns per record {len(turns)}"] += 1
    for message in messages:
        for block in message["content"]:
            if block["type"] == "image":
                counts["pictures"] += 1
                _check_picture(block, where, split, root, report, seen)
    drawn: list[Drawn] = []
    brought = False  # whether a picture of the user's is newer than what was drawn
    world = record["source"].startswith(SOURCE)  # of which every scene is known, and drawn
    kind = record.get("of", record)["task"]  # of the dialogue that a correction is taken from
    # D_c shows no drawn picture, and D_w's variations none either.
    shows = kind != "D_c" and (kind != "D_w" or any(map(_holds_picture, messages[1::2])))
    if record["task"] in ("D_e", "D_f") and record["learn"] != [len(turns) - 1]:
        report.add("of a correction the last reply is learnt, and only that", where)
    if record["task"] == "D_o" and not world:
        _check_imported(messages, turns, where, report)
    for i, turn in enumerate(turns):
        counts.update(("turns", f"type {turn['type']}", f"request {request_name(turn)}"))
        if form := (turn["request"] or {}).get("form"):
            counts[f"form {form}"] += 1
        user, reply = messages[2 * i], messages[2 * i + 1]
        here = f"{where} turn {i}"
        _check_tokens(user, reply, turn, here, counts, report)
        brought = brought or _holds_picture(user)
        if turn["type"] in ("t2i", "ti2i"):
            kept = i + 1 < len(turns) and (kind == "D_f" or (shows and world))  # the others show none
            if _holds_picture(reply) != kept:
                report.add("a drawn picture is kept where a later message can refer to it, and only there", here)
            if world:
                _check_base(turn["request"], drawn, brought, here, report)
                drawn.append(_check_drawn(reply, turn, drawn, here, report))
                brought = False
                if kind != "D_w":  # what people think of is of any split
                    _check_split(drawn[-1][0], split, here, report, seen)
                _check_correction(turns, i, here, report)
            elif kind != "D_f":  # people keep no rule
                _check_unseen(messages, turns, i, here, report)
        elif turn["scene"] is not None:
            report.add("only drawn turns have a scene", here)
        if world:
            _check_named(turns, i, here, report)


def request_name(turn: Mapping[str, Any]) -> str:
    request = turn["request"] or {"op": "talk"}
    if request["op"] != "edit":
        return request["op"]
    return f"edit {request['edit']['op']}{'+' if 'then' in request else ''}"


def _check_picture(block: Mapping[str, Any], where: str, split: str, root: Path, report: Report, seen: _Seen) -> None:
    path = block["path"]
    if path not in seen.read:
        file = root / path
        seen.read[path] = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    if seen.read[path] != block["sha256"]:
        report.add("pictures are there, with the content that the record names", f"{where} {path}")
    seen.pictures[split].add(block["sha256"])


def _text(message: Mapping[str, Any]) -> str:
    return "".join(block["text"] for block in message["content"] if block["type"] == "text")


def _check_tokens(
    user: Mapping[str, Any],
    reply: Mapping[str, Any],
    turn: Mapping[str, Any],
    where: str,
    counts: Counter[str],
    report: Report,
) -> None:
    said, text = _text(user), _text(reply)
    if not said.strip() or not text.strip():
        report.add("messages are not empty", where)
    if DRAW in said or SWITCH in said:
        report.add("users never type a token", where)
    body = text.removeprefix(SWITCH)
    counts["switches"] += body != text
    if SWITCH in body:
        report.add("the switch token stands at the very start only", where)
    draws = turn["type"] in ("t2i", "ti2i")
    if turn["type"] not in TYPES or body.count(DRAW) != draws or body.startswith(DRAW) != draws:
        report.add("the draw token begins each drawn turn, once, and is nowhere else", where)


def _check_drawn(
    reply: Mapping[str, Any],
    turn: Mapping[str, Any],
    drawn: Sequence[Drawn],
    where: str,
    report: Report,
) -> Drawn:
    scene, request = Scene.from_json(turn["scene"]), turn["request"]
    prompt = _text(reply).split(DRAW, 1)[-1]
    form = find_template(prompt)
    if read_prompt(prompt) != scene or form is None:
        report.add("the refined prompt says exactly the scene", where)
    if request["op"] == "draw":
        if complete(request["asked"]) != scene:
            report.add("a new picture holds what was asked and natural defaults", where)
        return scene, form
    base = Scene.from_json(request["base"])
    earlier = {drawn_form for drawn_scene, drawn_form in drawn if drawn_scene == base}
    if earlier and form not in earlier:
        report.add("an edited prompt keeps the language and the template of the one before", where)
    if request["op"] == "edit":
        expected = apply_edit(base, request["edit"], Scene.from_json(request["other"]) if "other" in request else None)
        for edit in request.get("then", ()):
            expected = apply_edit(expected, edit)
    else:
        expected = scene if request["op"] == "undo" else base
        if scene not in [drawn_scene for drawn_scene, _ in drawn]:
            report.add("an old picture that is drawn again was drawn before", where)
    if expected != scene:
        report.add("an edit changes what was asked, and nothing else", where)
    return scene, form


def _holds_picture(message: Mapping[str, Any]) -> bool:
    return any(block["type"] == "image" for block in message["content"])


def _check_base(request: Mapping[str, Any], drawn: Sequence[Drawn], brought: bool, where: str, report: Report) -> None:
    """A change that names no picture is made of the one on the table, which of a picture that was brought is not
    told."""
    latest = request["op"] in ("edit", "undo", "again") and "base_turn" not in request
    if latest and drawn and not brought and Scene.from_json(request["base"]) != drawn[-1][0]:
        report.add("a change is made of the picture on the table, or says of which", where)


def _check_split(scene: Scene, split: str, where: str, report: Report, seen: _Seen) -> None:
    if scene.split != split:
        report.add("every scene is of the record's split", where)
    seen.scenes[split].add(scene.digest)


def _check_named(turns: Sequence[Mapping[str, Any]], i: int, where: str, report: Report) -> None:
    """An earlier picture that a turn names: one that was drawn and, where it is built on, the one that the base is."""
    request = turns[i]["request"] or {}
    if "base_turn" not in request:
        if request.get("op") == "return" or request.get("form") in ("earlier", "correction"):
            report.add("a turn that goes back says to which picture", where)
        return
    turn = request["base_turn"]
    named = turns[turn] if isinstance(turn, int) and 0 <= turn < i else None
    if named is None or named["scene"] is None or request.get("base", named["scene"]) != named["scene"]:
        report.add("the picture that a turn goes back to was drawn before, and is its base", where)


def _check_correction(turns: Sequence[Mapping[str, Any]], i: int, where: str, report: Report) -> None:
    """A correction does the same kind of edit as the turn before, otherwise, to the picture that it was made of."""
    request = turns[i]["request"]
    if request.get("form") != "correction":
        return
    wrong = (turns[i - 1]["request"] or {}) if i else {}
    if wrong.get("op") != "edit" or request["op"] != "edit" or "then" in wrong or "then" in request:
        report.add("a correction is one edit, just after another", where)
    elif wrong["base"] != request["base"] or wrong["edit"]["op"] != request["edit"]["op"]:
        report.add("a correction is made of the picture before the edit that it corrects", where)
    elif turns[i]["scene"] == turns[i - 1]["scene"]:
        report.add("a correction leads elsewhere than what it corrects", where)


def _check_unseen(
    messages: Sequence[Mapping[str, Any]], turns: Sequence[Mapping[str, Any]], i: int, where: str, report: Report
) -> None:
    """A drawn turn of which nothing but the prompts is known."""
    turn = turns[i]
    if turn["scene"] is not None:
        report.add("only the picture-book world knows what a picture shows", where)
    if (turn["request"]["op"] == "edit") != (turn["type"] == "ti2i"):
        report.add("a turn that builds on a picture is an edit, and no other turn is", where)
    if turn["request"]["op"] != "edit":
        return
    prompt = _text(messages[2 * i + 1]).split(DRAW, 1)[-1]
    for name in ("base_turn", "other_turn"):
        base = turn["request"].get(name)
        if base is None and name == "other_turn":
            continue
        if not 0 <= base < i or turns[base]["type"] not in ("t2i", "ti2i"):
            report.add("an edit builds on a picture that was drawn before", where)
            continue
        earlier = _text(messages[2 * base + 1]).split(DRAW, 1)[-1]
        if kept_share(earlier, prompt) < LEAST[turn["request"]["edit"]["op"]] or earlier == prompt:
            report.add("an edited prompt keeps most of the words of the one before, and changes some", where)


def _check_imported(
    messages: Sequence[Mapping[str, Any]], turns: Sequence[Mapping[str, Any]], where: str, report: Report
) -> None:
    """Open data of others, of which nothing is known but who speaks, and where pictures stand."""
    looks = False
    for i, turn in enumerate(turns):
        looks = looks or any(block["type"] == "image" for block in messages[2 * i]["content"])
        if turn["type"] not in ("t2t", "ti2t") or turn["request"] is not None:
            report.add("imported records only talk", f"{where} turn {i}")
        elif (turn["type"] == "ti2t") != looks:
            report.add("a turn about a picture has one before it", f"{where} turn {i}")


def violations(record: Mapping[str, Any], root: Path = Path()) -> list[str]:
    """The rules that one record breaks by itself; its pictures are sought in `root`."""
    report = Report()
    _check_record(record, record["id"], record["split"], root, report, _Seen())
    return sorted(report.violations)


def _check_leaks(seen: _Seen, report: Report) -> None:
    for name, sets, pairs in (
        ("scene", seen.scenes, (("train", "test"), ("train", "validation"), ("validation", "test"))),
        ("picture", seen.pictures, (("train", "test"), ("train", "validation"), ("validation", "test"))),
        ("phrasing", seen.phrasings, (("train", "test"), ("validation", "test"))),
    ):
        for one, other in pairs:
            for shared in sorted(sets[one] & sets[other]):
                report.add(f"no {name} is in both {one} and {other}", shared)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="the data set's folder")


def run_arguments(args: argparse.Namespace) -> int:
    if not args.data.is_dir():
        print(f"easel data check: there is no folder {args.data}", file=sys.stderr)
        return 2
    try:
        report = check(args.data)
    except DataError as error:
        print(f"easel data check: {error}", file=sys.stderr)
        return 1
    print("\n".join(report.lines()))
    print("The data set keeps every rule." if report.ok else "The data set breaks rules.")
    return 0 if report.ok else 1
