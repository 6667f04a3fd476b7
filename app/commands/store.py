"""`easel store check|collect|backup|restore`: the data folder's upkeep.

easel store check --store ~/.local/share/easel
easel store backup --store ~/.local/share/easel --out easel-backup.zip
easel store restore --from easel-backup.zip --store ~/.local/share/easel-again

A check and a backup may be made while the app runs; `collect` wants the folder for itself. Pictures that are missing or
altered are named, and the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from app.config import add_database, database_of
from app.errors import StoreError
from app.upkeep import Findings, backup, check, collect, restore


def add_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    folder = "the new data folder" if what == "restore" else "the app's data folder (`easel chat --data-dir`)"
    parser.add_argument("--store", type=Path, required=True, help=folder)
    add_database(parser)
    if what == "backup":
        parser.add_argument("--out", type=Path, required=True, help="a new folder, or a .zip")
    if what == "restore":
        parser.add_argument("--from", dest="source", type=Path, required=True, help="a backup: its folder or .zip")


def run(args: argparse.Namespace, what: str) -> tuple[dict[str, Any], int]:
    os.umask(0o077)  # as the app's: what was said and drawn is nobody else's on this machine
    database = database_of(args)
    result: dict[str, Any]
    if what == "backup":
        pictures, lost = backup(args.store, args.out, database)
        result = {"backup": str(args.out), "pictures": pictures}
        return result | ({"missing": lost} if lost else {}), int(bool(lost))
    if what == "collect":
        found, freed = collect(args.store, database)
        result = {"removed": len(found.orphans) + len(found.unused), "bytes": freed}
        return result | _lost(found), int(not found.sound)
    restoring = what == "restore"
    found = restore(args.source, args.store, database) if restoring else check(args.store, database)
    if found.database:
        raise StoreError(f"The database of {args.store} is damaged ({found.database}). Restore a backup.")
    result = {
        "sound": found.sound, "conversations": found.conversations, "pictures": found.pictures,
        "to_collect": len(found.orphans) + len(found.unused),
    }  # fmt: skip
    return result | _lost(found), int(not found.sound)


def _lost(found: Findings) -> dict[str, Any]:
    lost: dict[str, Any] = {}
    if found.missing:
        lost["missing"] = found.missing
    if found.altered:
        lost["altered"] = list(found.altered)
    return lost
