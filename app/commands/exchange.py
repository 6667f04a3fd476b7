"""`easel export` and `easel import`: conversations as ZIP files.

easel export --store ~/.local/share/easel --all --out mine.zip
easel import mine.zip --store ~/.local/share/easel

The page has buttons for both; these commands want the data folder for themselves, so the app must be stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import Any

from app.accounts import owner_named
from app.config import add_database, database_of
from app.database import must_be_there
from app.errors import EaselError
from app.exchange import pack, unpack
from app.store import OWNER, Store
from app.texts import TEXTS


def add_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    add = parser.add_argument
    if what == "import":
        add("file", type=Path, help="a ZIP that Easel exported")
    add("--store", type=Path, required=True, help="the app's data folder (`easel chat --data-dir`)")
    add_database(parser)
    add("--owner", default=OWNER, help="a user's name (%(default)s: what was said without sign-in)")
    if what == "export":
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--conversation", metavar="ID", help="one of them")
        which.add_argument("--all", action="store_true", help="all of them")
        add("--out", type=Path, required=True, help="the ZIP to write")
        add("--language", choices=sorted(TEXTS), default="en", help="of the words around the talk (%(default)s)")


def run(args: argparse.Namespace, what: str) -> dict[str, Any]:
    os.umask(0o077)  # as the app's: what was said and drawn is nobody else's on this machine
    database = database_of(args)
    if what == "export":
        must_be_there(args.store, database)
    with contextlib.closing(Store(args.store, database)) as store:
        owner = owner_named(args.store, database, args.owner)
        return _export(store, owner, args) if what == "export" else _import(store, owner, args)


def _export(store: Store, owner: str, args: argparse.Namespace) -> dict[str, Any]:
    one = args.conversation
    conversations = store.conversations(owner) if args.all else [store.conversation(owner, one)]
    if not conversations:
        raise EaselError(f"{args.owner} has no conversations in {args.store}.")
    if args.out.exists():
        raise EaselError(f"{args.out} exists already. Choose another name, or remove it.")
    beside = args.out.with_name(f".{args.out.name}.part")
    try:
        with beside.open("wb") as file:
            packed = pack(store, conversations, file, TEXTS[args.language])
        beside.rename(args.out)
    except OSError as error:
        raise EaselError(f"{args.out} cannot be written: {error.strerror or error}.") from error
    finally:
        beside.unlink(missing_ok=True)
    result: dict[str, Any] = {
        "file": str(args.out), "conversations": packed.conversations, "pictures": packed.pictures
    }  # fmt: skip
    return {**result, "lost_pictures": list(packed.lost)} if packed.lost else result


def _import(store: Store, owner: str, args: argparse.Namespace) -> dict[str, Any]:
    return {"conversations": {found.id: found.title for found in unpack(store, owner, args.file)}}
