"""Filters: of a data set, the records of a quality tier, or a selection in which no kind of edit is rare.

    easel data filter data --out data_gold --tier gold
    easel data filter data --out data_even --floor 0.02

TIERS says what each tier asks of a record's `scores`. A score that a record does not carry is not held against it, but
silver and gold want at least one; what the picture-book world's own grammar wrote is right by construction, and gold.

`--floor` leaves out records until each kind of edit in each language has that share of all edits. No record is
repeated: the common kinds become fewer. Records without edits stay, and so do the splits that measure. The choice
follows from `--seed` alone.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets_build.records import SPLITS
from datasets_build.shards import SOURCE, explained, write_split
from dialog_mllm.records import DataError, data_files, read_manifest, read_records

# score -> what a record of the tier has: (at least, at most).
#   attempts   answers that a teacher gave until one kept the rules
#   judge      the share of judges who found the replies right
#   inspector  the share of what was asked for that shows in the pictures
TIERS: dict[str, dict[str, tuple[float, float]]] = {
    "copper": {},
    "silver": {"attempts": (1, 2), "judge": (0.5, 1), "inspector": (0.8, 1)},
    "gold": {"attempts": (1, 1), "judge": (1, 1), "inspector": (0.95, 1)},
}
Record = dict[str, Any]


class FilterError(Exception):
    """The selection cannot be made; the text says why."""


def tier_of(record: Mapping[str, Any]) -> str:
    """The best tier that the record belongs to."""
    scores = record.get("scores") or {}
    if not scores and record["source"] == SOURCE:
        return "gold"
    for tier in ("gold", "silver"):
        asked = {name: limits for name, limits in TIERS[tier].items() if name in scores}
        if asked and all(least <= scores[name] <= most for name, (least, most) in asked.items()):
            return tier
    return "copper"


def of_tier(records: Sequence[Record], tier: str) -> list[Record]:
    """The records of the tier and of the better ones."""
    order = list(TIERS)
    return [record for record in records if order.index(tier_of(record)) >= order.index(tier)]


def edits(record: Mapping[str, Any]) -> Counter[tuple[str, str]]:
    """How many edits of each kind the record holds: (operation, language)."""
    requests = [turn.get("request") or {} for turn in record["turns"]]
    made = [
        edit
        for request in requests
        if request.get("op") == "edit"
        for edit in (request["edit"], *request.get("then", ()))
    ]
    return Counter((edit["op"], record["language"]) for edit in made)


def balanced(records: Sequence[Record], floor: float, seed: int = 0) -> list[Record]:
    """The records, in their order, without as many of those with common edits only as it takes. FilterError where the
    rarest kind stays below `floor` nevertheless."""
    held = [edits(record) for record in records]
    counts = sum(held, Counter[tuple[str, str]]())
    total = counts.total()
    if not total:
        raise FilterError("there is no edit in the data set, so no kind of them to balance")
    if floor * len(counts) > 1:
        raise FilterError(f"{len(counts)} kinds of edits cannot have a share of {floor:g} each: lower --floor")
    kept = set(range(len(records)))
    order = [i for i in random.Random(f"easel balance {seed}").sample(range(len(records)), len(records)) if held[i]]
    # The commonest kinds go first; a kind that would fall below the floor by it keeps its record.
    order.sort(key=lambda i: -min(counts[kind] for kind in held[i]))
    for i in order:
        if min(counts.values()) >= floor * total:
            break
        left = total - held[i].total()
        if left and all(counts[kind] - n >= floor * left for kind, n in held[i].items()):
            kept.remove(i)
            counts -= held[i]
            total = left
    rarest = min(counts, key=lambda kind: (counts[kind], kind))
    if counts[rarest] < floor * total:
        raise FilterError(
            f"the rarest kind of edit, {' in '.join(rarest)}, reaches {counts[rarest] / total:.2%} only: build more of "
            "it, or lower --floor"
        )
    return [record for i, record in enumerate(records) if i in kept]


def run(
    data: Path, out: Path, choose: Callable[[str, list[Record]], list[Record]], made: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes what `choose(split, records)` takes of every split of `data` to `out`, pictures included. Returns how
    many records that is of each split."""
    manifest = read_manifest(data)
    if not manifest.get("splits"):
        raise FilterError(f"{data} is no whole data set: its manifest.json is missing or names no split")
    if data.resolve() == out.resolve():
        raise FilterError("a selection needs a folder of its own: name another --out")
    if (out / "manifest.json").exists():
        raise FilterError(f"{out} holds a data set already: name another --out")
    counts: dict[str, Any] = {}
    for split in [split for split in SPLITS if split in manifest["splits"]]:
        records = [record for record, _ in read_records(data_files([data], split))]
        taken = choose(split, records)
        if not taken:
            raise FilterError(f"no record of the {split} split is left: ask for less")
        for record in taken:
            _bring_pictures(record, data, out)
        entry = {"seed": manifest["splits"][split].get("seed"), "of": manifest["splits"][split]["sha256"], **made}
        command = "easel data filter " + " ".join(f"--{name} {value}" for name, value in made.items())
        write_split(out, split, taken, entry, manifest["source"], manifest["licence"], command=command)
        counts[split] = {"records": len(taken), "of": len(records)}
    return counts


def _bring_pictures(record: Mapping[str, Any], data: Path, out: Path) -> None:
    for message in record["messages"]:
        for block in message["content"]:
            if block["type"] == "image" and not (out / block["path"]).exists():
                (out / block["path"]).parent.mkdir(parents=True, exist_ok=True)
                draft = out / f"{block['path']}.part"
                shutil.copyfile(data / block["path"], draft)
                draft.replace(out / block["path"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="the data set's folder")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--tier", choices=tuple(TIERS), default="copper", help="and better (%(default)s: all)")
    parser.add_argument("--floor", type=float, default=0.0, help="the share of each kind of edit in each language")
    parser.add_argument("--seed", type=int, default=0, help="of the choice that --floor makes")


def run_arguments(args: argparse.Namespace) -> int:
    if not 0 <= args.floor < 1:
        print("easel data filter: --floor is a share, from 0 to below 1", file=sys.stderr)
        return 2

    def choose(split: str, records: list[Record]) -> list[Record]:
        taken = of_tier(records, args.tier)
        return balanced(taken, args.floor, args.seed) if args.floor and taken and split == "train" else taken

    made = {"tier": args.tier, "floor": args.floor}
    try:
        counts = run(args.data, args.out, choose, made)
    except (FilterError, DataError, RuntimeError) as error:
        print(f"easel data filter: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"easel data filter: {explained(error, args.out)}", file=sys.stderr)
        return 1
    except (ValueError, KeyError, TypeError) as error:
        print(
            f"easel data filter: {args.data} holds something else than records ({error!r}): see `easel data check`",
            file=sys.stderr,
        )
        return 1
    print(json.dumps(counts))
    return 0
