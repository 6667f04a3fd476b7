"""The data folder's database: SQLite in a file there or, at an address that is named, PostgreSQL.

    db = open_database(Path("~/.local/share/easel").expanduser())
    db = open_database(folder, "postgresql+psycopg://easel@db.example/easel")
    with db.write() as rows: rows.execute(sql("DELETE FROM sessions WHERE digest=:digest"), {"digest": digest})

Several processes may have it open: the app, which alone works on turns, and commands such as `easel users`. With either
database one of them writes at a time, so that what a transaction has read holds until its end.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    MetaData,
    RowMapping,
    create_engine,
    event,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from app.errors import EaselError, StoreError
from app.migrations import MIGRATIONS, VERSION, migrate, version_of

SQLITE = "sqlite"  # the address of the file in the data folder
FILE = "easel.sqlite3"
MARK = "postgresql"  # a file in the data folder that says where the rows are, when they are not in it
POSTGRESQL = ("postgresql+psycopg", "postgresql", "postgres")
# For PostgreSQL's client, where the address says nothing else: a server that is gone is noticed.
USUAL = {"connect_timeout": "10", "keepalives_idle": "30", "tcp_user_timeout": "30000", "client_encoding": "utf8"}
LOCK = "hashtext('easel {}' || current_schema())"  # the number of a lock of PostgreSQL's, one in every schema
PATIENCE = 5  # seconds for another process that writes
GLANCE = 5  # seconds between two looks whether the database still knows that it is ours
FEW = 200  # statements that are kept ready

sql = functools.lru_cache(FEW)(text)


class Database:
    """Whatever goes wrong is a StoreError."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.name = name  # as people are told
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._engine = engine
        self._reading = engine if self.is_sqlite else engine.execution_options(isolation_level="AUTOCOMMIT")
        self._lock = threading.Lock()
        self._claim: Connection | None = None
        self._claimed = 0.0  # when it was last seen to hold; 0: it never did
        self._closed = False

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._claim is not None:
                self._claim.close()
            self._engine.dispose()

    def all(self, query: str, **values: Any) -> list[RowMapping]:
        with clearly("The data cannot be read"), self._connect() as db:
            return list(db.execute(sql(query), values).mappings())

    def one(self, query: str, **values: Any) -> RowMapping | None:
        return next(iter(self.all(query, **values)), None)

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, while nobody else has one."""
        with self._lock, clearly("Nothing could be saved"), self._connect(writing=True) as db, db.begin():
            self._keep_claim()
            lock = f"SELECT pg_advisory_xact_lock({LOCK.format('rows')})"
            db.exec_driver_sql("BEGIN IMMEDIATE" if self.is_sqlite else lock)
            yield db

    @contextlib.contextmanager
    def moment(self) -> Iterator[Connection]:
        """All that is read is of one moment, though others write."""
        with clearly(f"The database of {self.name} cannot be read"), self._connect(writing=True) as db:
            if self.is_sqlite:
                db.exec_driver_sql("BEGIN")
            else:
                db.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield db

    def claim(self) -> None:
        """For one process alone, until it is closed. SQLite's is the folder's."""
        if self.is_sqlite:
            return
        claim = self._connect()
        if not claim.exec_driver_sql(f"SELECT pg_try_advisory_lock({LOCK.format('app')})").scalar():
            claim.close()
            raise StoreError(
                f"Another Easel is using the database {self.name}. Stop it, or choose another with --database."
            )
        self._claim, self._claimed = claim, time.monotonic()

    def _keep_claim(self) -> None:
        """A server that was started again has forgotten it, and another app may have come first since."""
        if not self._claimed or (self._claim is not None and time.monotonic() - self._claimed < GLANCE):
            return
        if self._claim is not None:
            try:
                self._claim.exec_driver_sql("SELECT 1")
                self._claimed = time.monotonic()
                return
            except DBAPIError:
                self._claim.close()
                self._claim = None
        self.claim()

    def fold(self, expression: str) -> str:
        """SQL for a text, so that the case of ASCII letters does not count; that of others does."""
        return f"{expression} COLLATE NOCASE" if self.is_sqlite else f'lower({expression} COLLATE "C")'

    def check_version(self) -> int:
        with self._connect() as db:
            if (version := version_of(db)) > len(MIGRATIONS):
                raise StoreError(f"{self.name} was written by a newer Easel. Update Easel.")
            if not version and not self.is_sqlite:
                encoding = db.exec_driver_sql("SHOW server_encoding").scalar_one()
                if encoding != "UTF8":
                    raise StoreError(
                        f"The database {self.name} is in {encoding}, which does not hold every language. Make one with"
                        " `createdb --encoding UTF8 --template template0`."
                    )
            return version

    def bring_forward(self) -> None:
        if self.check_version() < len(MIGRATIONS):
            with self.write() as db:
                migrate(db)

    def copy_to(self, file: Path) -> Database:
        """All rows, as of one moment, as a SQLite database."""
        if self.is_sqlite:
            with (
                clearly("The database cannot be copied"),
                contextlib.closing(sqlite3.connect(file)) as copy,
                self._connect() as db,
            ):
                assert isinstance(db.connection.driver_connection, sqlite3.Connection)
                db.connection.driver_connection.backup(copy)
            return _sqlite(file, file.parent)
        copied = _sqlite(file, file.parent)
        try:
            copied.bring_forward()
            with self.moment() as source, copied.write() as target:
                copy_rows(source, target)
        except BaseException:
            copied.close()
            raise
        return copied

    def _connect(self, writing: bool = False) -> Connection:
        if self._closed:
            raise StoreError("The data folder is closed: Easel is being stopped.")
        return (self._engine if writing else self._reading).connect()


def open_database(folder: Path, address: str = SQLITE) -> Database:
    """Brought to the newest version; nobody else on the machine may read the file. Raises StoreError for one that is
    newer than this program, and where the folder's rows are elsewhere."""
    mark = folder / MARK
    if address == SQLITE:
        if mark.exists():
            where = mark.read_text(encoding="utf-8").strip()
            raise StoreError(f"The conversations of {folder} are in {where}: say so with --database.")
        path = folder / FILE
        path.touch(0o600)
        path.chmod(0o600)
        database = _sqlite(path, folder)
    else:
        if (folder / FILE).exists():
            raise StoreError(
                f"The conversations of {folder} are in {FILE} there. Move them: `easel store backup`, then `easel store"
                " restore` to another folder, with --database. Or choose another folder with --data-dir."
            )
        database = _postgresql(address)
    try:
        database.bring_forward()
        if not database.is_sqlite:
            mark.write_text(f"{database.name}\n", encoding="utf-8")
    except BaseException:
        database.close()
        raise
    return database


def open_to_read(folder: Path, address: str, called: Path) -> Database:
    """As it is, for looking at it alone. Raises EaselError where there is none. Errors speak of the folder as it is
    `called`."""
    must_be_there(folder, address)
    database = _sqlite(folder / FILE, called, read_only=True) if address == SQLITE else _postgresql(address)
    try:
        with clearly(f"The database of {called} cannot be read"):
            database.check_version()
    except BaseException:
        database.close()
        raise
    return database


def must_be_there(folder: Path, address: str) -> None:
    name = FILE if address == SQLITE else MARK
    if not (folder / name).is_file():
        raise EaselError(f"{folder} is no data folder of the app: {name} is missing.")


def add_row(db: Connection, table: str, values: Mapping[str, Any], otherwise: str = "") -> None:
    names, places = ", ".join(f'"{name}"' for name in values), ", ".join(f":{name}" for name in values)
    db.execute(sql(f"INSERT INTO {table} ({names}) VALUES ({places}) {otherwise}"), values)


def copy_rows(source: Connection, target: Connection) -> None:
    """Into tables that hold nothing; those that others refer to come first. Raises StoreError where they hold
    something."""
    tables = MetaData()
    tables.reflect(target)
    for table in tables.sorted_tables:
        if table.name == VERSION:
            continue
        if target.execute(select(1).select_from(table).limit(1)).first():
            raise StoreError("The database holds something already. Nothing is overwritten: name an empty one.")
        columns = [column for column in table.columns if column.name != "rowid"]
        rows = source.execute(select(*columns).order_by(text("rowid")), execution_options={"yield_per": 1000})
        for some in rows.mappings().partitions():
            target.execute(insert(table), [dict(row) for row in some])


def check_address(address: str) -> str:
    """Raises EaselError, which does not repeat it: there may be a password in it."""
    if address == SQLITE:
        return address
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.drivername not in POSTGRESQL or not url.database:
        raise EaselError("A database is sqlite, or an address like postgresql+psycopg://user@host/name")
    return address


def named(address: str) -> str:
    """The address as it may be shown."""
    if address == SQLITE:
        return address
    url = make_url(address)
    return URL.create("postgresql", url.username, None, url.host, url.port, url.database).render_as_string()


def server_version(address: str) -> str:
    """Of a PostgreSQL that an Easel could use."""
    database = _postgresql(address)
    with contextlib.closing(database), clearly("The database cannot be used"), database._connect() as db:
        database.check_version()
        return str(db.exec_driver_sql("SHOW server_version").scalar_one())


@contextlib.contextmanager
def clearly(what: str) -> Iterator[None]:
    """Errors of disk and database in words."""
    try:
        yield
    except (OSError, sqlite3.Error, SQLAlchemyError) as error:
        raise StoreError(f"{what}. {_advice(error)}") from error


def _advice(error: Exception) -> str:
    cause = (isinstance(error, DBAPIError) and error.orig) or error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    said = " ".join(" ".join(lines).split())
    if not hasattr(cause, "sqlstate"):
        full = getattr(cause, "errno", None) == 28 or "full" in said
        return "The disk is full: free some space, then press Retry." if full else f"{said}."
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "The connection to the database was lost: press Retry."
    if cause.sqlstate:  # the server answered; what follows is where in the SQL
        full = cause.sqlstate == "53100"
        return (
            "The database server's disk is full: free some space there, then press Retry." if full else f"{lines[0]}."
        )
    if "password" in said:
        return "The database server refuses the user or the password: see --database, or set PGPASSWORD."
    if "database" in said and "does not exist" in said:
        return f"There is no such database ({said}): make it with `createdb`, or see --database."
    return f"The database server cannot be reached ({said}): start it, or see --database."


def _sqlite(path: Path, folder: Path, read_only: bool = False) -> Database:
    url = URL.create("sqlite", database=str(path))
    if read_only:
        url = URL.create("sqlite", database=path.resolve().as_uri(), query={"mode": "ro", "uri": "true"})
    settings = {"isolation_level": None, "timeout": PATIENCE}
    engine = create_engine(url, connect_args=settings, query_cache_size=FEW, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        if not read_only:
            _switch_to_wal(connection)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")

    return Database(engine, str(folder))


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait by itself here for another process that does the same."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _postgresql(address: str) -> Database:
    url = make_url(address)
    try:
        from psycopg.types.string import StrDumper

        engine = create_engine(
            url.set(drivername=POSTGRESQL[0], query={**USUAL, **url.query}),
            pool_pre_ping=True, query_cache_size=FEW, hide_parameters=True,
        )  # fmt: skip
    except ImportError as error:
        raise StoreError(f"PostgreSQL needs psycopg ({error}): pip install 'psycopg[binary]'") from error

    class WithoutNul(StrDumper):
        """PostgreSQL's texts hold every character but this one."""

        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\ufffd"))

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        connection.adapters.register_dumper(str, WithoutNul)
        connection.execute(f"SET lock_timeout='{PATIENCE}s'")
        connection.commit()

    return Database(engine, named(address))
