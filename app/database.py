"""The data folder's database: its tables, version by version, and the way to open it.

    db = open_database(Path("~/.local/share/easel").expanduser())

Several processes may have it open (WAL): the app, which alone works on turns, and commands such as `easel users`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from app.errors import StoreError

# Numbered by their place; append, never change one that was released.
MIGRATIONS = (
    """
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL, profile TEXT NOT NULL, seed INTEGER NOT NULL,
        locked INTEGER NOT NULL, settings TEXT NOT NULL, leaf TEXT, created REAL NOT NULL, updated REAL NOT NULL
    );
    CREATE INDEX conversations_of_owner ON conversations (owner, updated);
    CREATE TABLE turns (
        id TEXT PRIMARY KEY,
        conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        parent TEXT REFERENCES turns (id) ON DELETE CASCADE,
        said TEXT NOT NULL, uploads TEXT NOT NULL, mode TEXT NOT NULL, status TEXT NOT NULL,
        text TEXT NOT NULL DEFAULT '', prompt TEXT NOT NULL DEFAULT '', picture TEXT, seed INTEGER NOT NULL,
        settings TEXT NOT NULL, switched INTEGER NOT NULL DEFAULT 0, raw TEXT NOT NULL DEFAULT '',
        draw_probability REAL, error TEXT NOT NULL DEFAULT '', timings TEXT NOT NULL DEFAULT '{}', created REAL NOT NULL
    );
    CREATE INDEX turns_of_conversation ON turns (conversation, parent);
    CREATE TABLE pictures (
        id TEXT PRIMARY KEY, width INTEGER NOT NULL, height INTEGER NOT NULL, kept INTEGER NOT NULL,
        created REAL NOT NULL
    );
    """,
    """
    CREATE TABLE ratings (
        turn TEXT PRIMARY KEY REFERENCES turns (id) ON DELETE CASCADE,
        verdict TEXT NOT NULL, prompt TEXT NOT NULL, created REAL NOT NULL
    );
    """,
    "ALTER TABLE turns ADD COLUMN base TEXT REFERENCES turns (id) ON DELETE SET NULL;",
    """
    ALTER TABLE conversations ADD COLUMN seeds TEXT NOT NULL DEFAULT 'inherit';
    UPDATE conversations SET seeds='lock' WHERE locked;
    ALTER TABLE conversations DROP COLUMN locked;
    ALTER TABLE turns ADD COLUMN seeds TEXT NOT NULL DEFAULT 'inherit';
    ALTER TABLE turns ADD COLUMN varies TEXT REFERENCES turns (id) ON DELETE SET NULL;
    CREATE TABLE scores (
        turn TEXT PRIMARY KEY REFERENCES turns (id) ON DELETE CASCADE,
        base TEXT, consistency REAL, asked INTEGER NOT NULL, seen INTEGER NOT NULL
    );
    """,
    # Who signs in (accounts.py); and whose programs were told of a picture, which is theirs then.
    """
    CREATE TABLE users (
        id TEXT PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE UNIQUE, password TEXT NOT NULL, admin INTEGER NOT NULL,
        turns_per_minute INTEGER, disk_mb INTEGER, created REAL NOT NULL, seen REAL
    );
    CREATE TABLE sessions (
        digest TEXT PRIMARY KEY, user TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE, created REAL NOT NULL
    );
    CREATE TABLE api_keys (
        id TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, user TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        name TEXT NOT NULL, created REAL NOT NULL, used REAL
    );
    CREATE TABLE told (
        picture TEXT NOT NULL REFERENCES pictures (id) ON DELETE CASCADE, owner TEXT NOT NULL,
        PRIMARY KEY (picture, owner)
    );
    INSERT INTO told SELECT id, 'api' FROM pictures WHERE kept;
    CREATE INDEX turns_with_picture ON turns (picture);
    """,
)


def open_database(folder: Path) -> sqlite3.Connection:
    """Brought to the newest version; nobody else on the machine may read it. Raises StoreError for one that is newer
    than this program."""
    path = folder / "easel.sqlite3"
    path.touch(0o600)
    path.chmod(0o600)
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        db.row_factory = sqlite3.Row
        db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;")
        _migrate(db, folder)
    except BaseException:
        db.close()
        raise
    return db


def _migrate(db: sqlite3.Connection, folder: Path) -> None:
    while (version := _version(db)) < len(MIGRATIONS):
        try:
            db.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[version]} PRAGMA user_version={version + 1}; COMMIT;")
        except sqlite3.OperationalError:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if _version(db) == version:  # else another process was faster
                raise
    if version > len(MIGRATIONS):
        raise StoreError(f"The data folder {folder} was written by a newer Easel. Update Easel.")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


@contextlib.contextmanager
def clearly(what: str) -> Iterator[None]:
    """Errors of disk and database in words."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        full = getattr(error, "errno", None) == 28 or "full" in str(error)
        advice = "The disk is full: free some space, then press Retry." if full else f"{error}."
        raise StoreError(f"{what}. {advice}") from error
