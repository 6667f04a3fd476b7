"""`easel users add|list|password|limit|key|remove`: who may sign in to the page, and use the API in their own name.

easel users add anna --admin
easel users list
easel users limit anna --turns-per-minute 60 --disk-mb 10000

With the first user, `easel chat` asks for sign-in from its next start. All of this may be done while the app runs.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.accounts import Accounts, User
from app.config import add_database, data_dir_of, database_of
from app.database import must_be_there
from app.errors import InputRefused


def add_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    add = parser.add_argument
    if what != "list":
        add("name")
    if what == "add":
        add("--admin", action="store_true", help="may see the page with users, queue and disk, and change users there")
        add("--adopt", action="store_true", help="what was said and drawn without sign-in becomes theirs")
    if what in ("add", "password"):
        add("--password-stdin", action="store_true", help="read the password from standard input, and do not ask")
    if what == "limit":
        add("--turns-per-minute", type=int, metavar="N", help="without it, as everybody")
        add("--disk-mb", type=int, metavar="MB", help="of pictures; without it, as everybody")
    if what == "key":
        add("--for", dest="purpose", default="command line", metavar="PROGRAM", help="a name for it (%(default)s)")
    if what == "remove":
        add("--yes", action="store_true", help="do not ask")
    add("--data-dir", type=Path, help="the app's data folder (as `easel chat` has it)")
    add_database(parser)


def run(args: argparse.Namespace, what: str) -> dict[str, Any]:
    os.umask(0o077)  # as the app's: what is in the folder is nobody else's on this machine
    folder = data_dir_of(args)
    database = database_of(args)
    if what != "add":
        must_be_there(folder, database)
    with contextlib.closing(Accounts(folder, database)) as accounts:
        if what == "list":
            return {"users": [_facts(accounts, user) for user in accounts.users()]}
        if what == "add":
            first = not accounts.users()
            if first and not args.admin:
                raise InputRefused("The first user administers the others: add --admin.")
            user = accounts.add(args.name, _password(args), args.admin, args.adopt)
            note = {"note": "`easel chat` asks for sign-in from its next start."} if first else {}
            return {"added": user.name, "admin": user.admin, "data_dir": str(folder), **note}
        user = accounts.named(args.name)
        if what == "password":
            accounts.change_password(user, _password(args))
            return {"changed": user.name}
        if what == "limit":
            user = accounts.limit(user, args.turns_per_minute, args.disk_mb)
            return {"name": user.name, "turns_per_minute": user.turns_per_minute, "disk_mb": user.disk_mb}
        if what == "key":
            return {"key": accounts.add_key(user, args.purpose), "note": "It is not shown again."}
        return _remove(accounts, user, args.yes)


def _remove(accounts: Accounts, user: User, sure: bool) -> dict[str, Any]:
    usage = accounts.usage(user.id)
    if not sure:
        what = f"{user.name}, {usage.conversations:,} conversations and {usage.pictures:,} pictures"
        if not sys.stdin.isatty():
            raise InputRefused(f"This removes {what}. Say --yes, or first: easel export --owner {user.name} --all")
        if input(f"This removes {what}. Type the name to go on: ") != user.name:
            raise InputRefused("Nothing was removed.")
    accounts.remove(user)
    note = {} if accounts.users() else {"note": "Nobody is left: from its next start, the page asks for no sign-in."}
    return {"removed": user.name, "conversations": usage.conversations, "pictures": usage.pictures, **note}


def _facts(accounts: Accounts, user: User) -> dict[str, Any]:
    facts = {key: value for key, value in asdict(user).items() if key not in ("id", "created", "seen")}
    return {**facts, **asdict(accounts.usage(user.id))}


def _password(args: argparse.Namespace) -> str:
    if args.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InputRefused("There is no terminal to ask for the password. Say --password-stdin, and send it.")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != password:
        raise InputRefused("The two passwords differ. Nothing was changed.")
    return password
