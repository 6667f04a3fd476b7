"""Who may sign in, by password, cookie or API key, and what is theirs. The app asks for sign-in where there is a user.

    accounts = Accounts(folder); accounts.add("anna", "a long password", admin=True); accounts.check("anna", "…")

Passwords are kept as Argon2id hashes. Sessions and API keys are random, 256 bits, and kept as SHA-256: who reads the
database can use neither, both end when they are deleted, and a session survives a restart of the app. Commands may
change users while the app runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from app.database import clearly, open_database
from app.errors import InputRefused, NotFound
from app.store import OWNER, PROGRAMS, delete_rows, new_id, picture_file

SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 1024  # characters: hashing takes time
SESSION_DAYS = 30  # from signing in
MOST_KEYS = 50  # of one user
TURNS_PER_MINUTE = 20
DISK_MB = 2048  # of pictures
GLANCE = 60  # seconds; nearer than that, it is not written down when somebody was here
_NAME = re.compile(r"[^\W_][\w.@-]{0,39}")
_HASHER = PasswordHasher()
# What is checked for a name that nobody has: it takes as long as a real one.
_NOBODY = _HASHER.hash(secrets.token_hex(16))


@dataclass(frozen=True)
class User:
    id: str  # the owner of their conversations
    name: str
    admin: bool
    turns_per_minute: int
    disk_mb: int
    created: float
    seen: float | None


@dataclass(frozen=True)
class ApiKey:
    id: str
    name: str
    created: float
    used: float | None


@dataclass(frozen=True)
class Usage:
    conversations: int
    pictures: int
    bytes: int


class Accounts:
    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser()
        self._lock = threading.RLock()
        with clearly(f"The data folder {self.folder} cannot be used"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._db = open_database(self.folder)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # Users

    def users(self) -> list[User]:
        return [_user(row) for row in self._all("SELECT * FROM users ORDER BY name COLLATE NOCASE")]

    def user(self, user_id: str) -> User | None:
        rows = self._all("SELECT * FROM users WHERE id=?", user_id)
        return _user(rows[0]) if rows else None

    def named(self, name: str) -> User:
        rows = self._all("SELECT * FROM users WHERE name=?", name)
        if not rows:
            raise NotFound(f"There is no user {name[:40]!r}.")
        return _user(rows[0])

    def add(self, name: str, password: str, admin: bool = False, adopt: bool = False) -> User:
        """`adopt`: what was said and drawn without sign-in becomes theirs. Raises InputRefused."""
        if not _NAME.fullmatch(name) or name.lower() in (OWNER, PROGRAMS):
            raise InputRefused(
                f"{name[:40]!r} cannot be a user's name. Use 1 to 40 letters, digits and . _ - @, a letter or digit"
                f" first; {OWNER} and {PROGRAMS} are taken."
            )
        values = (new_id(), name, _hash(password), int(admin), time.time())
        try:
            with self._write() as db:
                db.execute("INSERT INTO users (id, name, password, admin, created) VALUES (?, ?, ?, ?, ?)", values)
                if adopt:
                    db.execute("UPDATE conversations SET owner=? WHERE owner=?", (values[0], OWNER))
                    db.execute("UPDATE told SET owner=? WHERE owner=?", (values[0], PROGRAMS))
        except sqlite3.IntegrityError as error:
            raise InputRefused(f"There is a user {name} already.") from error
        return self.named(name)

    def remove(self, user: User) -> Usage:
        """With all that is theirs. Raises InputRefused for the last administrator, while there are other users."""
        usage = self.usage(user.id)
        with self._write() as db:
            others = db.execute("SELECT admin FROM users WHERE id<>?", (user.id,)).fetchall()
            if user.admin and others and not any(row["admin"] for row in others):
                raise InputRefused(f"{user.name} is the only administrator. Make another one first.")
            rows = db.execute("SELECT id FROM conversations WHERE owner=?", (user.id,)).fetchall()
            told = [row[0] for row in db.execute("SELECT picture FROM told WHERE owner=?", (user.id,))]
            db.execute("DELETE FROM told WHERE owner=?", (user.id,))
            orphans = [picture for row in rows for picture in delete_rows(db, row["id"])]
            for picture in told:  # as long as another owner's programs know it too, it is kept
                kept = "EXISTS (SELECT 1 FROM told WHERE picture=id)"
                db.execute(f"UPDATE pictures SET kept={kept} WHERE id=?", (picture,))
                shown = "SELECT 1 FROM turns WHERE picture=:id OR instr(uploads, :id)"
                gone = f"DELETE FROM pictures WHERE id=:id AND NOT kept AND NOT EXISTS ({shown})"
                orphans += [picture] * db.execute(gone, {"id": picture}).rowcount
            db.execute("DELETE FROM users WHERE id=?", (user.id,))
        for picture in orphans:
            picture_file(self.folder, picture).unlink(missing_ok=True)
        return usage

    def change_password(self, user: User, password: str) -> None:
        """All their sessions end."""
        hashed = _hash(password)
        with self._write() as db:
            db.execute("UPDATE users SET password=? WHERE id=?", (hashed, user.id))
            db.execute("DELETE FROM sessions WHERE user=?", (user.id,))

    def limit(self, user: User, turns_per_minute: int | None, disk_mb: int | None) -> User:
        """None: as everybody's."""
        if any(value is not None and not 0 <= value <= 10**9 for value in (turns_per_minute, disk_mb)):
            raise InputRefused("A limit is a whole number from 0 to 1,000,000,000.")
        with self._write() as db:
            values = (turns_per_minute, disk_mb, user.id)
            db.execute("UPDATE users SET turns_per_minute=?, disk_mb=? WHERE id=?", values)
        return self.named(user.name)

    # Signing in

    def check(self, name: str, password: str) -> User | None:
        """The user, if the password is theirs; takes as long whether there is such a user or not."""
        rows = self._all("SELECT * FROM users WHERE name=?", name)
        try:
            _HASHER.verify(rows[0]["password"] if rows else _NOBODY, _bytes(password[:LONGEST_PASSWORD]))
        except VerifyMismatchError:
            return None
        if not rows:
            return None
        if _HASHER.check_needs_rehash(rows[0]["password"]):
            with self._write() as db:
                db.execute("UPDATE users SET password=? WHERE id=?", (_HASHER.hash(_bytes(password)), rows[0]["id"]))
        return _user(rows[0])

    def begin_session(self, user: User) -> str:
        """Returns the token for the user's cookie."""
        token, now = secrets.token_urlsafe(32), time.time()
        with self._write() as db:
            db.execute("DELETE FROM sessions WHERE created < ?", (now - SESSION_DAYS * 86400,))
            db.execute("INSERT INTO sessions VALUES (?, ?, ?)", (_digest(token), user.id, now))
            db.execute("UPDATE users SET seen=? WHERE id=?", (now, user.id))
        return token

    def of_session(self, token: str) -> User | None:
        query = (
            "SELECT users.* FROM sessions JOIN users ON users.id = sessions.user WHERE digest=? AND sessions.created>?"
        )
        rows = self._all(query, _digest(token), time.time() - SESSION_DAYS * 86400)
        if not rows:
            return None
        self._note("UPDATE users SET seen=?1 WHERE id=?2 AND coalesce(seen, 0) < ?1 - ?3", rows[0]["id"])
        return _user(rows[0])

    def end_session(self, token: str) -> None:
        with self._write() as db:
            db.execute("DELETE FROM sessions WHERE digest=?", (_digest(token),))

    def end_sessions(self, user: User) -> None:
        with self._write() as db:
            db.execute("DELETE FROM sessions WHERE user=?", (user.id,))

    # API keys

    def add_key(self, user: User, name: str) -> str:
        """Returns the key, which is shown this once."""
        name = " ".join(name.split())[:40]
        if not name:
            raise InputRefused("An API key needs a name, such as the program that it is for.")
        if len(self.keys(user)) >= MOST_KEYS:
            raise InputRefused(f"There are {MOST_KEYS} API keys. Delete one that is not used any more.")
        key = f"easel-{secrets.token_urlsafe(32)}"
        with self._write() as db:
            values = (new_id(), _digest(key), user.id, name, time.time())
            db.execute("INSERT INTO api_keys (id, digest, user, name, created) VALUES (?, ?, ?, ?, ?)", values)
        return key

    def keys(self, user: User) -> list[ApiKey]:
        query = "SELECT id, name, created, used FROM api_keys WHERE user=? ORDER BY created"
        return [ApiKey(**dict(row)) for row in self._all(query, user.id)]

    def remove_key(self, user: User, key_id: str) -> None:
        with self._write() as db:
            if not db.execute("DELETE FROM api_keys WHERE id=? AND user=?", (key_id, user.id)).rowcount:
                raise NotFound("There is no such API key.")

    def of_key(self, key: str) -> User | None:
        query = "SELECT users.*, api_keys.id AS key FROM api_keys JOIN users ON users.id = api_keys.user WHERE digest=?"
        rows = self._all(query, _digest(key))
        if not rows:
            return None
        values = dict(rows[0])
        self._note("UPDATE api_keys SET used=?1 WHERE id=?2 AND coalesce(used, 0) < ?1 - ?3", values.pop("key"))
        return _user(values)

    # What is theirs

    def usage(self, owner: str) -> Usage:
        pictures = {row[0] for row in self._all("SELECT picture FROM told WHERE owner=?", owner)}
        joined = "FROM turns JOIN conversations ON conversations.id = turns.conversation WHERE conversations.owner=?"
        for row in self._all(f"SELECT picture, uploads {joined}", owner):
            pictures.update(name for name in (row["picture"], *json.loads(row["uploads"])) if name)
        size = 0
        for name in pictures:
            with contextlib.suppress(OSError):
                size += picture_file(self.folder, name).stat().st_size
        count = self._all("SELECT count(*) FROM conversations WHERE owner=? AND leaf IS NOT NULL", owner)[0][0]
        return Usage(count, len(pictures), size)

    # Inside

    def _note(self, query: str, row_id: str) -> None:
        with contextlib.suppress(Exception), self._write() as db:  # on a full disk, people may still come in
            db.execute(query, (time.time(), row_id, GLANCE))

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.IntegrityError:
                raise
            except (OSError, sqlite3.Error) as error:
                with clearly("Nothing could be saved"):
                    raise error
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def _all(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock, clearly("The data cannot be read"):
            return self._db.execute(query, values).fetchall()


def owner_named(folder: Path, name: str) -> str:
    """The owner of a user's conversations, for commands; other owners' names are their own."""
    if name in (OWNER, PROGRAMS):
        return name
    with contextlib.closing(Accounts(folder)) as accounts:
        return accounts.named(name).id


def _user(row: sqlite3.Row | dict[str, Any]) -> User:
    values = dict(row)
    del values["password"]
    values["admin"] = bool(values["admin"])
    for name, usual in (("turns_per_minute", TURNS_PER_MINUTE), ("disk_mb", DISK_MB)):
        values[name] = usual if values[name] is None else values[name]
    return User(**values)


def _hash(password: str) -> str:
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise InputRefused(f"A password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters.")
    return _HASHER.hash(_bytes(password))


def _digest(secret: str) -> str:
    return hashlib.sha256(_bytes(secret)).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
