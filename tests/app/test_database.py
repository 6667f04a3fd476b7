"""Both databases: folders of earlier versions, processes that race, and what is said when something is wrong."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import Connection, MetaData

from app import config, database
from app.accounts import Accounts
from app.cli import main
from app.commands import doctor
from app.conversation import UserMessage
from app.database import FILE, SQLITE, Database, add_row, check_address, named, open_database, sql
from app.errors import EaselError, StoreError
from app.migrations import MIGRATIONS
from app.profiles import PROFILES
from app.running import RunningTurns
from app.store import Conversation, Store
from tests.app.fakes import FakeDialog, FakeGenerator
from tests.app.postgresql import GUARDED, PASSWORD, Cluster
from tests.waiting import wait_until

BOTH = pytest.mark.parametrize("database", [SQLITE, "postgresql"], indirect=True)
POSTGRESQL = pytest.mark.parametrize("database", ["postgresql"], indirect=True)
SECRET = "s3cret-w0rd"
CLAIMS = "FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"


@pytest.fixture
def opened(tmp_path: Path, database: str) -> Iterator[Database]:
    with contextlib.closing(open_database(tmp_path, database)) as db:
        yield db


# Versions


def test_what_was_released_is_not_changed() -> None:
    released = hashlib.sha256("".join(MIGRATIONS[:5]).encode()).hexdigest()
    assert released == "a5b200190f20d09d022822b1b6848c5e46dbee5d266fdf80e36713b956bf95a5"


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
def test_a_folder_of_every_version_is_brought_forward(tmp_path: Path, version: int) -> None:
    """Made as Easel made it until then: by sqlite3, version by version."""
    with contextlib.closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as old:
        old.executescript("PRAGMA journal_mode=WAL; PRAGMA foreign_keys=ON;")
        for number, migration in enumerate(MIGRATIONS[:version]):
            old.executescript(f"BEGIN IMMEDIATE; {migration} PRAGMA user_version={number + 1}; COMMIT;")
        policy = ("locked", 1) if version < 4 else ("seeds", "lock")
        chat = {
            "id": "c", "owner": "local", "title": "狐狸", "profile": "storybook", "seed": 2**40, policy[0]: policy[1],
            "settings": '{"steps": 5}', "leaf": "t2", "created": 1700000000.123456, "updated": 1700000001.5,
        }  # fmt: skip
        turn = {
            "id": "t1", "conversation": "c", "parent": None, "said": "draw a fox", "uploads": "[]", "mode": "auto",
            "status": "done", "text": "", "prompt": "a fox", "picture": "a" * 32, "seed": 7, "settings": "{}",
            "switched": 1, "raw": "<draw>", "draw_probability": 0.75, "error": "", "timings": '{"dialog": 0.5}',
            "created": 1700000000.25,
        }  # fmt: skip
        other = {**turn, "id": "t2", "parent": "t1", "status": "drawing"}
        picture = {"id": "a" * 32, "width": 8, "height": 16, "kept": 1, "created": 1.0}
        rows = [("conversations", chat), ("turns", turn), ("turns", other), ("pictures", picture)]
        if version >= 2:
            rows.append(("ratings", {"turn": "t1", "verdict": "like", "prompt": "a red fox", "created": 2.0}))
        if version >= 3:
            rows.append(("turns", {**turn, "id": "t3", "base": "t1"}))
        for table, row in rows:
            places = ", ".join("?" * len(row))
            old.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", tuple(row.values()))
        if version >= 5:
            old.execute("INSERT INTO told VALUES (?, 'api')", ("a" * 32,))
    with contextlib.closing(Store(tmp_path)) as store:
        (found,) = store.conversations("local")
        assert (found.title, found.seed, found.seeds, found.created) == ("狐狸", 2**40, "lock", 1700000000.123456)
        first, second = store.path("t2")
        assert (first.prompt, first.switched, first.draw_probability) == ("a fox", True, 0.75)
        assert (first.timings, first.created, first.seeds) == ({"dialog": 0.5}, 1700000000.25, "inherit")
        assert second.status == "failed"
        assert [rating.prompt for rating in store.ratings()] == (["a red fox"] if version >= 2 else [])
        assert [turn.base for turn in store.siblings(first)] == ([None, "t1"] if version >= 3 else [None])
        assert store.picture_path("a" * 32, "api")
        store.rate(first, "dislike")
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []


def test_both_have_the_same_tables(tmp_path: Path, new_database: Callable[[str], str]) -> None:
    def columns(kind: str) -> set[tuple[str, str, bool]]:
        (tmp_path / kind).mkdir()
        with contextlib.closing(open_database(tmp_path / kind, new_database(kind))) as db:
            tables = MetaData()
            tables.reflect(db._engine)
            return {
                (table.name, column.name, column.nullable and not column.primary_key)
                for table in tables.sorted_tables
                for column in table.columns
                if column.name != "rowid" and table.name != "easel_version"
            }

    assert columns("sqlite") == columns("postgresql")


@BOTH
def test_many_open_a_new_one_at_once(tmp_path: Path, database: str) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with contextlib.closing(Accounts(tmp_path, database)) as accounts:
                accounts.users()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


# Writing


def add_picture(db: Connection) -> None:
    add_row(db, "pictures", {"id": "a", "width": 0, "height": 0, "kept": False, "created": 0.0})


@BOTH
def test_one_writes_at_a_time_and_what_was_read_holds(tmp_path: Path, database: str, opened: Database) -> None:
    with opened.write() as db:
        add_picture(db)

    def count(own: Database) -> None:
        for _ in range(20):
            with own.write() as db:
                width = db.execute(sql("SELECT width FROM pictures")).scalar_one()
                db.execute(sql("UPDATE pictures SET width=:width"), {"width": width + 1})

    with contextlib.closing(open_database(tmp_path, database)) as other:
        threads = [threading.Thread(target=count, args=(own,)) for own in (opened, opened, other, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert opened.all("SELECT width FROM pictures")[0]["width"] == 80


@BOTH
def test_what_fails_half_way_is_not_written(opened: Database) -> None:
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), opened.write() as db:
            add_picture(db)
            raise error
    with pytest.raises(StoreError, match=r"Nothing could be saved\. .*pictures"), opened.write() as db:
        add_picture(db)
        add_picture(db)
    assert opened.all("SELECT id FROM pictures") == []


@BOTH
def test_nothing_is_written_after_the_end(opened: Database) -> None:
    opened.close()
    with pytest.raises(StoreError, match="is being stopped"):
        opened.all("SELECT id FROM pictures")
    with pytest.raises(StoreError, match="is being stopped"), opened.write():
        pass


def test_a_full_disk(store: Store, conversation: Conversation) -> None:
    pages = store._db.all("PRAGMA page_count")[0]["page_count"]
    store._db.all(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreError, match="The disk is full: free some space"):
        store.begin_turn(conversation, None, "x" * 100_000, (), "auto", 1)
    store._db.all("PRAGMA max_page_count=1000000")
    assert store.conversation("local", conversation.id).leaf is None  # neither half was written
    assert store.begin_turn(conversation, None, "after", (), "auto", 1).said == "after"


@BOTH
def test_texts_and_numbers_of_every_kind(store: Store, database: str) -> None:
    said = "你好 \U0001f98a :colon %s %(x)s ' \" \\ \r\n\t"
    conversation = store.create_conversation("local", "storybook", {"a": said}, seed=2**62)
    turn = store.begin_turn(conversation, None, said + "\0", (), "auto", 2**62)
    held = "\ufffd" if database != SQLITE else "\0"  # PostgreSQL has no place for it
    assert store.turn(turn.id).said == said + held
    assert (turn.seed, conversation.seed, conversation.settings) == (2**62, 2**62, {"a": said})
    found = store.update_turn(turn.id, draw_probability=0.1 + 0.2, created=1e-300)
    assert (found.draw_probability, found.created) == (0.1 + 0.2, 1e-300)
    assert [one.id for one in store.search_conversations("local", "你好 :COLON %(x)s \\")] == [conversation.id]


@BOTH
@pytest.mark.timeout(60)
def test_a_search_for_many_words(store: Store) -> None:
    conversation = store.create_conversation("local", "storybook", {})
    words = [chr(0x4E00 + i) for i in range(250)]
    store.begin_turn(conversation, None, "".join(words), (), "auto", 1)
    assert len(store.search_conversations("local", " ".join(words))) == 1


# PostgreSQL: what is said when it does not answer


@pytest.mark.parametrize("place", ["127.0.0.1:1", "no.such.host.example"])
def test_a_server_that_cannot_be_reached(tmp_path: Path, place: str) -> None:
    address = f"postgresql+psycopg://easel:{SECRET}@{place}/easel"
    with pytest.raises(StoreError, match=r"cannot be used\. The database server cannot be reached.*start it") as error:
        Store(tmp_path, address)
    assert SECRET not in str(error.value)
    assert not (tmp_path / database.MARK).exists()


def test_the_server_refuses(postgresql: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    postgresql.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # as it is from PostgreSQL 15 on
    wrong = postgresql.address(user=f"{GUARDED}:{SECRET}")
    for address, message in (
        (wrong, r"refuses the user or the password: see --database, or set PGPASSWORD"),
        (postgresql.address(user=GUARDED), r"refuses the user or the password"),
        (postgresql.address("nothing"), r'There is no such database \(.*"nothing" does not exist\): make it with `cre'),
        (postgresql.address(user=f"{GUARDED}:{PASSWORD}"), r"permission denied for schema public\."),
    ):
        with pytest.raises(StoreError, match=message) as error:
            Store(tmp_path, address)
        assert SECRET not in str(error.value) and PASSWORD not in str(error.value)
    assert main(["users", "list", "--data-dir", str(tmp_path), "--database", wrong]) == 1
    check = doctor.database(wrong)
    assert (check.name, check.state) == ("database", "fail") and "PGPASSWORD" in check.advice
    out = capsys.readouterr()
    assert SECRET not in out.out + out.err + str(check)
    postgresql.execute("CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0")
    with pytest.raises(StoreError, match="is in SQL_ASCII, which does not hold every language"):
        Store(tmp_path, postgresql.address("bytes"))


def test_the_database_as_the_doctor_finds_it(postgresql: Cluster, tmp_path: Path) -> None:
    check = doctor.database(postgresql.new_schema())
    assert check.state == "ok" and check.found.startswith("postgresql://easel@/postgres, PostgreSQL 1")


@POSTGRESQL
async def test_a_connection_that_is_lost(store: Store, conversation: Conversation, postgresql: Cluster) -> None:
    turns = RunningTurns(PROFILES["storybook"], store, FakeDialog(stops(postgresql)), FakeGenerator())
    run = await turns.start(conversation, UserMessage("hello"), "auto", None)
    async for _ in run.watch():
        pass
    assert "The database server cannot be reached" in run.problem
    with pytest.raises(StoreError, match="The database server cannot be reached"):
        store.turn(run.turn.id)
    postgresql.start()
    again = await turns.retry(conversation, store.turn(run.turn.id), "auto")
    async for _ in again.watch():
        pass
    assert (again.turn.status, again.turn.text) == ("done", "You said: hello")


def stops(server: Cluster) -> Callable[[Any], str]:
    def reply(_: Any) -> str:
        server.stop()
        return "Hello!"

    return reply


@POSTGRESQL
def test_a_connection_that_is_lost_while_it_writes(opened: Database, postgresql: Cluster) -> None:
    with (
        pytest.raises(
            StoreError, match=r"Nothing could be saved\. The connection to the database was lost: press Retry"
        ),
        opened.write() as db,
    ):
        postgresql.execute(f"SELECT pg_terminate_backend({db.execute(sql('SELECT pg_backend_pid()')).scalar_one()})")
        add_picture(db)
    assert opened.all("SELECT id FROM pictures") == []


@POSTGRESQL
def test_a_server_that_was_started_again_is_claimed_again(
    database: str, tmp_path: Path, postgresql: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "one", database)
    monkeypatch.setattr("app.database.GLANCE", 0.0)

    def forget() -> None:
        """As a server that starts again does."""
        postgresql.execute(f"SELECT pg_terminate_backend(pid) {CLAIMS}")

    forget()
    store.add_picture(Image.new("RGB", (8, 8)))
    with pytest.raises(StoreError, match="Another Easel is using"):
        Store(tmp_path / "two", database)
    forget()
    other = Store(tmp_path / "two", database)
    for _ in range(2):
        with pytest.raises(StoreError, match="Another Easel is using"):
            store.add_picture(Image.new("RGB", (8, 8), "red"))
    other.close()
    wait_until(
        lambda: not postgresql.execute(f"SELECT pid {CLAIMS}")
    )  # the server does not see at once that the other has left
    store.add_picture(Image.new("RGB", (8, 8), "red"))
    store.close()


def test_without_psycopg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg.types.string", None)
    with pytest.raises(StoreError, match=r"PostgreSQL needs psycopg .*: pip install 'psycopg\[binary\]'"):
        Store(tmp_path, "postgresql+psycopg://easel@/easel")


# The address


def test_addresses() -> None:
    for address in ("sqlite", "postgresql+psycopg://easel@db.example:5433/easel", "postgres:///easel?host=/run"):
        assert check_address(address) == address
    assert named(f"postgresql+psycopg://easel:{SECRET}@db:5433/easel?sslpassword={SECRET}") == (
        "postgresql://easel@db:5433/easel"
    )
    for wrong in ("", "mysql://a/b", "easel", f"postgresql://u:{SECRET}@h", f"postgresql://u:1/{SECRET}@h:x/y"):
        with pytest.raises(EaselError, match=r"A database is sqlite, or an address like postgresql\+psycopg") as error:
            check_address(wrong)
        assert SECRET not in str(error.value)


def test_flags_over_the_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(*flags: str) -> str:
        parser = argparse.ArgumentParser()
        config.add_database(parser)
        return config.database_of(parser.parse_args(flags))

    assert found() == SQLITE
    (tmp_path / "config.toml").write_text('port = 1\ndatabase = "postgresql://file/easel"\n')
    monkeypatch.setenv("EASEL_CONFIG", str(tmp_path / "config.toml"))
    assert found() == "postgresql://file/easel"
    monkeypatch.setenv("EASEL_DATABASE", f"postgresql://easel:{SECRET}@environment/easel")
    assert found() == f"postgresql://easel:{SECRET}@environment/easel"
    assert found("--database", "sqlite") == SQLITE
    assert main(["config", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["database"] == {"value": "postgresql://easel@environment/easel", "from": "environment"}
    assert SECRET not in out
    monkeypatch.setenv("EASEL_DATABASE", f"mysql://{SECRET}")
    for command in (["config"], ["users", "list"], ["store", "check", "--store", str(tmp_path)]):
        assert main(command) == 1
        assert "EASEL_DATABASE: A database is sqlite, or" in (err := capsys.readouterr().err) and SECRET not in err
    with pytest.raises(SystemExit):
        found("--database", f"mysql://{SECRET}")
    assert SECRET not in capsys.readouterr().err


@POSTGRESQL
def test_no_password_is_logged(
    postgresql: Cluster, database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        postgresql.execute(f"GRANT ALL ON SCHEMA t{postgresql.schemas} TO {GUARDED}")
        Store(tmp_path, database.replace("easel@", f"{GUARDED}:{PASSWORD}@")).close()
    assert PASSWORD not in caplog.text
    assert PASSWORD not in (tmp_path / "postgresql").read_text()
