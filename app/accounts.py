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
import time
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from sqlalchemy import RowMapping

from app.database import SQLITE, add_row, clearly, open_database, sql
from app.errors import InputRefused, NotFound
from app.store import OWNER, PROGRAMS, delete_rows, delete_unshown, new_id, picture_file

SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 1024  # characters: hashing takes time
SESSION_DAYS = 30  # from signing in
MOST_KEYS = 50  # of one user
TURNS_PER_MINUTE = 20
DISK_MB = 2048  # of pictures
GLANCE = 60  # seconds; nearer than that, it is not written down when somebody was here
_NAME = re.compile(r"[^\W_][\w.@-]{0,39}")
_HASHER = PasswordHasher()


@cache
def _nobody() -> str:
    """What is checked for a name that nobody has: it takes as long as a real one."""
    return _HASHER.hash(secrets.token_hex(16))


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


# The columns, in SQL.
USER = ", ".join(f"users.{name}" for name in ("password", *(field.name for field in fields(User))))


class Accounts:
    def __init__(self, folder: Path, database: str = SQLITE) -> None:
        self.folder = folder.expanduser()
        with clearly(f"The data folder {self.folder} cannot be used"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._db = open_database(self.folder, database)

    def close(self) -> None:
        self._db.close()

    # Users

    def users(self) -> list[User]:
        return [_user(row) for row in self._db.all(f"SELECT {USER} FROM users ORDER BY {self._db.fold('name')}")]

    def user(self, user_id: str) -> User | None:
        row = self._db.one(f"SELECT {USER} FROM users WHERE id=:id", id=user_id)
        return _user(row) if row is not None else None

    def named(self, name: str) -> User:
        row = self._named(name)
        if row is None:
            raise NotFound(f"There is no user {name[:40]!r}.")
        return _user(row)

    def add(self, name: str, password: str, admin: bool = False, adopt: bool = False) -> User:
        """`adopt`: what was said and drawn without sign-in becomes theirs. Raises InputRefused."""
        if not _NAME.fullmatch(name) or name.lower() in (OWNER, PROGRAMS):
            raise InputRefused(
                f"{name[:40]!r} cannot be a user's name. Use 1 to 40 letters, digits and . _ - @, a letter or digit"
                f" first; {OWNER} and {PROGRAMS} are taken."
            )
        row = {"id": new_id(), "name": name, "password": _hash(password), "admin": admin, "created": time.time()}
        with self._db.write() as db:
            if db.execute(sql(self._whose_name), {"name": name}).first():
                raise InputRefused(f"There is a user {name} already.")
            add_row(db, "users", row)
            for table, before in (("conversations", OWNER), ("told", PROGRAMS)) if adopt else ():
                query = f"UPDATE {table} SET owner=:owner WHERE owner=:before"
                db.execute(sql(query), {"owner": row["id"], "before": before})
        return self.named(name)

    def remove(self, user: User) -> Usage:
        """With all that is theirs. Raises InputRefused for the last administrator, while there are other users."""
        usage = self.usage(user.id)
        with self._db.write() as db:
            values = {"user": user.id}
            others = db.execute(sql("SELECT admin FROM users WHERE id<>:user"), values).scalars().all()
            if user.admin and others and not any(others):
                raise InputRefused(f"{user.name} is the only administrator. Make another one first.")
            ids = db.execute(sql("SELECT id FROM conversations WHERE owner=:user"), values).scalars().all()
            told = db.execute(sql("SELECT picture FROM told WHERE owner=:user"), values).scalars().all()
            db.execute(sql("DELETE FROM told WHERE owner=:user"), values)
            orphans = [picture for conversation in ids for picture in delete_rows(db, conversation)]
            for picture in told:  # as long as another owner's programs know it too, it is kept
                kept = "EXISTS (SELECT 1 FROM told WHERE picture=:id)"
                db.execute(sql(f"UPDATE pictures SET kept={kept} WHERE id=:id"), {"id": picture})
                orphans += [picture] * delete_unshown(db, picture)
            db.execute(sql("DELETE FROM users WHERE id=:user"), values)
            for picture in orphans:  # in here: who adds one of them meanwhile must wait
                picture_file(self.folder, picture).unlink(missing_ok=True)
        return usage

    def change_password(self, user: User, password: str) -> None:
        """All their sessions end."""
        hashed = _hash(password)
        with self._db.write() as db:
            db.execute(sql("UPDATE users SET password=:password WHERE id=:id"), {"password": hashed, "id": user.id})
            db.execute(sql('DELETE FROM sessions WHERE "user"=:id'), {"id": user.id})

    def limit(self, user: User, turns_per_minute: int | None, disk_mb: int | None) -> User:
        """None: as everybody's."""
        if any(value is not None and not 0 <= value <= 10**9 for value in (turns_per_minute, disk_mb)):
            raise InputRefused("A limit is a whole number from 0 to 1,000,000,000.")
        with self._db.write() as db:
            values = {"turns": turns_per_minute, "disk": disk_mb, "id": user.id}
            db.execute(sql("UPDATE users SET turns_per_minute=:turns, disk_mb=:disk WHERE id=:id"), values)
        return self.named(user.name)

    # Signing in

    def check(self, name: str, password: str) -> User | None:
        """The user, if the password is theirs; takes as long whether there is such a user or not."""
        row, nobody = self._named(name), _nobody()
        try:
            _HASHER.verify(row["password"] if row else nobody, _bytes(password[:LONGEST_PASSWORD]))
        except VerifyMismatchError:
            return None
        if not row:
            return None
        if _HASHER.check_needs_rehash(row["password"]):
            values = {"password": _HASHER.hash(_bytes(password)), "id": row["id"]}
            with self._db.write() as db:
                db.execute(sql("UPDATE users SET password=:password WHERE id=:id"), values)
        return _user(row)

    def begin_session(self, user: User) -> str:
        """Returns the token for the user's cookie."""
        token, now = secrets.token_urlsafe(32), time.time()
        with self._db.write() as db:
            db.execute(sql("DELETE FROM sessions WHERE created < :last"), {"last": now - SESSION_DAYS * 86400})
            add_row(db, "sessions", {"digest": _digest(token), "user": user.id, "created": now})
            db.execute(sql("UPDATE users SET seen=:now WHERE id=:user"), {"user": user.id, "now": now})
        return token

    def of_session(self, token: str) -> User | None:
        query = f"""
            SELECT {USER} FROM sessions JOIN users ON users.id = sessions.user
            WHERE digest=:digest AND sessions.created > :last
        """
        row = self._db.one(query, digest=_digest(token), last=time.time() - SESSION_DAYS * 86400)
        if row is None:
            return None
        self._note("users", "seen", row["id"], row["seen"])
        return _user(row)

    def end_session(self, token: str) -> None:
        with self._db.write() as db:
            db.execute(sql("DELETE FROM sessions WHERE digest=:digest"), {"digest": _digest(token)})

    def end_sessions(self, user: User) -> None:
        with self._db.write() as db:
            db.execute(sql('DELETE FROM sessions WHERE "user"=:id'), {"id": user.id})

    # API keys

    def add_key(self, user: User, name: str) -> str:
        """Returns the key, which is shown this once."""
        name = " ".join(name.split())[:40]
        if not name:
            raise InputRefused("An API key needs a name, such as the program that it is for.")
        if len(self.keys(user)) >= MOST_KEYS:
            raise InputRefused(f"There are {MOST_KEYS} API keys. Delete one that is not used any more.")
        key = f"easel-{secrets.token_urlsafe(32)}"
        with self._db.write() as db:
            row = {"id": new_id(), "digest": _digest(key), "user": user.id, "name": name, "created": time.time()}
            add_row(db, "api_keys", row)
        return key

    def keys(self, user: User) -> list[ApiKey]:
        query = 'SELECT id, name, created, used FROM api_keys WHERE "user"=:user ORDER BY created'
        return [ApiKey(**row) for row in self._db.all(query, user=user.id)]

    def remove_key(self, user: User, key_id: str) -> None:
        with self._db.write() as db:
            query = 'DELETE FROM api_keys WHERE id=:id AND "user"=:user'
            if not db.execute(sql(query), {"id": key_id, "user": user.id}).rowcount:
                raise NotFound("There is no such API key.")

    def of_key(self, key: str) -> User | None:
        query = f"SELECT {USER}, api_keys.id AS key, used FROM api_keys JOIN users ON users.id = api_keys.user"
        row = self._db.one(f"{query} WHERE digest=:digest", digest=_digest(key))
        if row is None:
            return None
        self._note("api_keys", "used", row["key"], row["used"])
        return _user(row)

    # What is theirs

    def usage(self, owner: str) -> Usage:
        told = self._db.all("SELECT picture FROM told WHERE owner=:owner", owner=owner)
        pictures = {row["picture"] for row in told}
        joined = (
            "FROM turns JOIN conversations ON conversations.id = turns.conversation WHERE conversations.owner=:owner"
        )
        for row in self._db.all(f"SELECT picture, uploads {joined}", owner=owner):
            pictures.update(name for name in (row["picture"], *json.loads(row["uploads"])) if name)
        size = 0
        for name in pictures:
            with contextlib.suppress(OSError):
                size += picture_file(self.folder, name).stat().st_size
        conversations = self._db.all(f"SELECT count(DISTINCT conversations.id) AS n {joined}", owner=owner)[0]["n"]
        return Usage(conversations, len(pictures), size)

    # Inside

    def _note(self, table: str, column: str, row_id: str, before: float | None) -> None:
        now = time.time()
        if before is None or before < now - GLANCE:
            with contextlib.suppress(Exception), self._db.write() as db:  # on a full disk, people may still come in
                db.execute(sql(f"UPDATE {table} SET {column}=:now WHERE id=:id"), {"now": now, "id": row_id})

    def _named(self, name: str) -> RowMapping | None:
        return self._db.one(self._whose_name, name=name)

    @property
    def _whose_name(self) -> str:
        fold = self._db.fold
        return f"SELECT {USER} FROM users WHERE {fold('name')} = {fold(':name')}"


def owner_named(folder: Path, database: str, name: str) -> str:
    """The owner of a user's conversations, for commands; other owners' names are their own."""
    if name in (OWNER, PROGRAMS):
        return name
    with contextlib.closing(Accounts(folder, database)) as accounts:
        return accounts.named(name).id


def _user(row: RowMapping) -> User:
    values = {field.name: row[field.name] for field in fields(User)}
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
