"""The database's tables, version by version.

    with engine.connect() as db: migrate(db)

The first five versions are SQLite's alone; PostgreSQL begins with the fifth. A row has a `rowid` in both, by which the
older of two is known.
"""

from __future__ import annotations

from sqlalchemy import Connection

# Numbered by their place; append, never change one that was released. The sixth and later ones are for both databases.
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
    # By which adapter the dialog model wrote a reply: two may be tried beside each other.
    "ALTER TABLE turns ADD COLUMN adapter TEXT NOT NULL DEFAULT '';",
)

VERSION = "easel_version"  # PostgreSQL's table of one number; SQLite has a place for it
# What the first five make. SQLite gives each row its rowid without being told.
BEGUN = 5
POSTGRESQL = """
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL, profile TEXT NOT NULL, seed BIGINT NOT NULL,
        settings TEXT NOT NULL, leaf TEXT, created DOUBLE PRECISION NOT NULL, updated DOUBLE PRECISION NOT NULL,
        seeds TEXT NOT NULL DEFAULT 'inherit', ROWID
    );
    CREATE INDEX conversations_of_owner ON conversations (owner, updated);
    CREATE TABLE turns (
        id TEXT PRIMARY KEY,
        conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        parent TEXT REFERENCES turns (id) ON DELETE CASCADE,
        said TEXT NOT NULL, uploads TEXT NOT NULL, mode TEXT NOT NULL, status TEXT NOT NULL,
        text TEXT NOT NULL DEFAULT '', prompt TEXT NOT NULL DEFAULT '', picture TEXT, seed BIGINT NOT NULL,
        settings TEXT NOT NULL, switched BOOLEAN NOT NULL DEFAULT FALSE, raw TEXT NOT NULL DEFAULT '',
        draw_probability DOUBLE PRECISION, error TEXT NOT NULL DEFAULT '', timings TEXT NOT NULL DEFAULT '{}',
        created DOUBLE PRECISION NOT NULL, base TEXT REFERENCES turns (id) ON DELETE SET NULL,
        seeds TEXT NOT NULL DEFAULT 'inherit', varies TEXT REFERENCES turns (id) ON DELETE SET NULL, ROWID
    );
    CREATE INDEX turns_of_conversation ON turns (conversation, parent);
    CREATE INDEX turns_with_picture ON turns (picture);
    CREATE INDEX turns_of_parent ON turns (parent);
    CREATE INDEX turns_of_base ON turns (base);
    CREATE INDEX turns_of_varies ON turns (varies);
    CREATE TABLE pictures (
        id TEXT PRIMARY KEY, width BIGINT NOT NULL, height BIGINT NOT NULL, kept BOOLEAN NOT NULL,
        created DOUBLE PRECISION NOT NULL, ROWID
    );
    CREATE TABLE ratings (
        turn TEXT PRIMARY KEY REFERENCES turns (id) ON DELETE CASCADE,
        verdict TEXT NOT NULL, prompt TEXT NOT NULL, created DOUBLE PRECISION NOT NULL, ROWID
    );
    CREATE TABLE scores (
        turn TEXT PRIMARY KEY REFERENCES turns (id) ON DELETE CASCADE,
        base TEXT, consistency DOUBLE PRECISION, asked BIGINT NOT NULL, seen BIGINT NOT NULL, ROWID
    );
    CREATE TABLE users (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, password TEXT NOT NULL, admin BOOLEAN NOT NULL,
        turns_per_minute BIGINT, disk_mb BIGINT, created DOUBLE PRECISION NOT NULL, seen DOUBLE PRECISION, ROWID
    );
    CREATE UNIQUE INDEX users_by_name ON users (lower(name COLLATE "C"));
    CREATE TABLE sessions (
        digest TEXT PRIMARY KEY, "user" TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        created DOUBLE PRECISION NOT NULL, ROWID
    );
    CREATE TABLE api_keys (
        id TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, "user" TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        name TEXT NOT NULL, created DOUBLE PRECISION NOT NULL, used DOUBLE PRECISION, ROWID
    );
    CREATE TABLE told (
        picture TEXT NOT NULL REFERENCES pictures (id) ON DELETE CASCADE, owner TEXT NOT NULL, ROWID,
        PRIMARY KEY (picture, owner)
    );
    CREATE TABLE easel_version (version BIGINT NOT NULL);
    INSERT INTO easel_version VALUES (0);
""".replace("ROWID", "rowid BIGINT GENERATED BY DEFAULT AS IDENTITY")


def version_of(db: Connection) -> int:
    """0: there are no tables yet."""
    if db.dialect.name == "sqlite":
        return int(db.exec_driver_sql("PRAGMA user_version").scalar_one())
    # to_regclass() may not know yet what another process has just made.
    there = f"SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = '{VERSION}'"
    if db.exec_driver_sql(there).scalar() is None:
        return 0
    return int(db.exec_driver_sql(f"SELECT version FROM {VERSION}").scalar_one())


def migrate(db: Connection) -> None:
    """To the newest version, in a transaction while nobody else writes."""
    sqlite = db.dialect.name == "sqlite"
    while (version := version_of(db)) < len(MIGRATIONS):
        begins = version == 0 and not sqlite
        for statement in (POSTGRESQL if begins else MIGRATIONS[version]).split(";"):
            if statement.strip():
                db.exec_driver_sql(statement)
        version = BEGUN if begins else version + 1
        db.exec_driver_sql(f"PRAGMA user_version={version}" if sqlite else f"UPDATE {VERSION} SET version={version}")
