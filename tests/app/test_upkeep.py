"""The data folder's upkeep: what can go goes, what is needed stays, and a backup is whole while the app writes."""

from __future__ import annotations

import json
import sqlite3
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app import store as store_module
from app import upkeep
from app.cli import main
from app.database import FILE, MARK, SQLITE
from app.errors import EaselError, StoreError
from app.migrations import MIGRATIONS
from app.store import Conversation, Store, picture_file
from app.upkeep import backup, check, collect, restore

DATABASES = ("sqlite", "postgresql")


def painted(store: Store, colour: Any, keep: bool = False) -> str:
    return store.add_picture(Image.new("RGB", (8, 8), colour), keep=keep)


def add(store: Store, conversation: Conversation, picture: str | None = None, uploads: tuple[str, ...] = ()) -> None:
    turn = store.begin_turn(conversation, None, "draw", uploads, "auto", 1)
    store.update_turn(turn.id, status="done", prompt="a fox", picture=picture)


@pytest.fixture
def full(store: Store, conversation: Conversation) -> dict[str, str]:
    """Pictures that are needed: drawn, uploaded, told to a program, and uploaded in a turn that is under way."""
    names = {
        name: painted(store, colour) for name, colour in (("drawn", "red"), ("upload", "green"), ("flight", "tan"))
    }
    names["told"] = painted(store, "blue", keep=True)
    add(store, conversation, names["drawn"], (names["upload"],))
    store.change_conversation(conversation, title="A fox")
    store.begin_turn(conversation, None, "and?", (names["flight"],), "auto", 1)
    return names


def files(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "pictures").rglob("*") if path.is_file()}


def test_a_crash_between_file_and_row_leaves_nothing_behind(
    store: Store, database: str, full: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # the file is there, its row is not
        patch.setattr(store._db, "write", crash)
        with pytest.raises(KeyboardInterrupt):
            painted(store, "yellow")
    with monkeypatch.context() as patch:  # half of a file is there
        patch.setattr(store_module.Path, "replace", crash)
        patch.setattr(store_module.Path, "unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            painted(store, "orange")
    row_alone = painted(store, "purple")  # file and row are there, the turn was never told of it
    found = check(store.folder, database)
    assert (len(found.orphans), found.unused, found.pictures, found.sound) == (2, (row_alone,), 4, True)

    before = files(store.folder)
    with pytest.raises(StoreError, match="Another Easel is using"):
        collect(store.folder, database)  # the turn under way is safe
    assert files(store.folder) == before
    store.close()
    assert collect(store.folder, database)[1] > 0
    assert files(store.folder) == set(full.values())
    again, freed = collect(store.folder, database)
    assert (again.orphans, again.unused, freed) == ((), (), 0)
    opened = Store(store.folder, database)
    assert {row["id"] for row in opened._db.all("SELECT id FROM pictures")} == set(full.values())
    opened.close()


def test_what_is_missing_or_altered_is_told(store: Store, database: str, full: dict[str, str]) -> None:
    store.picture_path(full["drawn"]).unlink()
    store.picture_path(full["told"]).unlink()
    store.picture_path(full["upload"]).write_bytes(b"altered")
    found = check(store.folder, database)
    assert found.missing == {full["drawn"]: ["A fox"], full["told"]: []}
    assert found.altered == (full["upload"],)
    assert not found.sound
    store.close()
    collect(store.folder, database)
    assert check(store.folder, database).missing == found.missing  # their rows stay: a backup may have the files


@pytest.mark.parametrize(
    ("name", "kind"), [("backup", "sqlite"), ("backup.zip", "sqlite"), ("backup.zip", "postgresql")]
)
def test_backup_and_restore(
    store: Store, database: str, full: dict[str, str], tmp_path: Path, name: str, kind: str, new_database: Any
) -> None:
    into = new_database(kind)
    row_alone = painted(store, "purple")
    out = tmp_path / name
    assert backup(store.folder, out, database) == (5, [])  # the app is running
    assert [path.name for path in tmp_path.iterdir()].count(name) == 1
    assert not list(tmp_path.glob(".*"))
    if out.is_dir():
        assert {path.name for path in out.iterdir()} == {"easel.sqlite3", "pictures"}
    with pytest.raises(StoreError, match="exists already"):
        backup(store.folder, out, database)
    with pytest.raises(StoreError, match=r"not empty\. Nothing is overwritten"):
        restore(out, store.folder)

    conversation = store.conversations("local")[0]
    (tmp_path / "again").mkdir()
    found = restore(out, tmp_path / "again", into)
    assert (found.sound, found.conversations, found.pictures) == (True, 1, 4)
    again = Store(tmp_path / "again", into)
    assert again.conversations("local") == [conversation]
    assert files(again.folder) == {*full.values(), row_alone}
    for picture in full.values():
        assert again.picture_path(picture).read_bytes() == store.picture_path(picture).read_bytes()
    done, flight = again.turns(conversation)
    assert done == store.turns(conversation)[0]
    assert flight.status == "failed"  # the turn under way, as after a crash
    assert again.picture_path(full["told"], "api")
    add(again, conversation)
    again.close()
    if into != SQLITE:
        with pytest.raises(StoreError, match=r"The database holds something already\. Nothing is overwritten"):
            restore(out, tmp_path / "once more", into)
        assert not (tmp_path / "once more").exists()
        with pytest.raises(StoreError, match=r"conversations of .*again are in postgresql://easel@.*--database"):
            Store(tmp_path / "again")
        with pytest.raises(StoreError, match=r"conversations of .*plain are in easel\.sqlite3 there\. Move them"):
            Store(tmp_path / "plain").close()
            Store(tmp_path / "plain", into)


def test_a_backup_is_whole_while_others_write_and_delete(store: Store, database: str, tmp_path: Path) -> None:
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            conversation = store.create_conversation("local", "storybook", {})
            add(store, conversation, painted(store, (number % 256, number // 256, 0)))
            if number % 2:
                store.delete_conversation(conversation)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for number in range(5):
            assert backup(store.folder, tmp_path / f"b{number}.zip", database)[1] == []
            assert restore(tmp_path / f"b{number}.zip", tmp_path / f"r{number}").sound
    finally:
        stop.set()
        worker.join()


def test_a_conversation_that_is_deleted_under_a_backup(
    store: Store, database: str, full: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, done = upkeep._copy_picture, []

    def delete_first(*args: Any) -> bool:
        if not done:
            done.append(True)
            store.delete_conversation(store.conversations("local")[0])
        return copy(*args)

    monkeypatch.setattr(upkeep, "_copy_picture", delete_first)
    assert backup(store.folder, tmp_path / "backup", database) == (1, [])
    assert files(tmp_path / "backup") == {full["told"]}


def test_a_backup_tells_what_is_lost(store: Store, database: str, full: dict[str, str], tmp_path: Path) -> None:
    store.picture_path(full["drawn"]).unlink()
    assert backup(store.folder, tmp_path / "backup", database) == (3, [full["drawn"]])
    assert restore(tmp_path / "backup", tmp_path / "again").missing == {full["drawn"]: ["A fox"]}


def test_backups_that_are_none(store: Store, database: str, full: dict[str, str], tmp_path: Path) -> None:
    backup(store.folder, tmp_path / "good.zip", database)
    whole = (tmp_path / "good.zip").read_bytes()
    (tmp_path / "no.zip").write_bytes(b"nothing")
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("../evil", "x")
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as archive:
        archive.writestr("easel.sqlite3", "no database" * 1000)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        with sqlite3.connect(tmp_path / "other.sqlite3") as db:
            db.execute("CREATE TABLE t (a)")
        db.close()
        archive.write(tmp_path / "other.sqlite3", "easel.sqlite3")
    for name, message in (
        ("no.zip", "no backup that can be restored"), ("half.zip", "no backup that can be restored"),
        ("empty.zip", "easel.sqlite3 is missing"), ("text.zip", "text.zip cannot be read. file is not a database"),
        ("other.zip", "other.zip cannot be read. no such table"), ("gone.zip", "cannot be restored"),
    ):  # fmt: skip
        with pytest.raises(StoreError, match=message):
            restore(tmp_path / name, tmp_path / "again")
        assert not (tmp_path / "again").exists()
    assert not list(tmp_path.rglob("evil"))


def test_what_a_hostile_backup_holds_beside_is_not_written(
    store: Store, database: str, full: dict[str, str], tmp_path: Path
) -> None:
    backup(store.folder, tmp_path / "b.zip", database)
    with zipfile.ZipFile(tmp_path / "b.zip", "a") as archive:
        for name in ("../evil.png", "/tmp/evil.png", "pictures/../../evil.png", "pictures/aa/evil.png", "evil"):
            archive.writestr(name, "x")
    assert restore(tmp_path / "b.zip", tmp_path / "again").sound
    assert not list(tmp_path.rglob("evil*"))


def test_a_newer_backup_and_a_full_disk(
    store: Store, database: str, full: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup(store.folder, tmp_path / "backup", database)
    monkeypatch.setattr(upkeep.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(StoreError, match="The disk is too full"):
        restore(tmp_path / "backup", tmp_path / "again")
    monkeypatch.undo()
    with sqlite3.connect(tmp_path / "backup" / "easel.sqlite3") as db:
        db.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(StoreError, match="backup was written by a newer Easel"):
        restore(tmp_path / "backup", tmp_path / "again")


def test_folders_that_are_none(tmp_path: Path, database: str) -> None:
    for work in (check, collect, lambda folder, database: backup(folder, tmp_path / "b", database)):
        with pytest.raises(EaselError, match="no data folder of the app"):
            work(tmp_path, database)
    Store(tmp_path / "data", database).close()
    with pytest.raises(StoreError, match="There is no folder"):
        backup(tmp_path / "data", tmp_path / "no" / "b.zip", database)
    with pytest.raises(StoreError, match="not empty"):
        restore(tmp_path / "b", tmp_path / "data" / (FILE if database == SQLITE else MARK), database)


def test_the_commands(
    store: Store, database: str, full: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = str(store.folder), str(tmp_path / "b.zip")
    where = ("--database", database)

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        status = main(["store", *arguments, "--json"])
        return status, json.loads(capsys.readouterr().out.splitlines()[-1])

    whole = {"sound": True, "conversations": 1, "pictures": 4, "to_collect": 0}
    assert run("check", "--store", folder, *where) == (0, whole)
    assert run("backup", "--store", folder, "--out", out, *where) == (0, {"backup": out, "pictures": 4})
    assert run("restore", "--from", out, "--store", str(tmp_path / "again")) == (0, whole)
    picture_file(tmp_path / "again", full["drawn"]).unlink()
    lost = {"missing": {full["drawn"]: ["A fox"]}}
    for private in (tmp_path / "b.zip", tmp_path / "again", tmp_path / "again" / "easel.sqlite3"):
        assert private.stat().st_mode & 0o077 == 0, private
    assert run("check", "--store", str(tmp_path / "again")) == (1, {**whole, "sound": False, "pictures": 3, **lost})
    assert run("collect", "--store", str(tmp_path / "again")) == (1, {"removed": 0, "bytes": 0, **lost})
    assert main(["store", "collect", "--store", folder, *where]) == 1
    assert "Another Easel is using" in capsys.readouterr().err
