"""Conversations out and in again; and files that were made to do harm."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app import exchange
from app import store as store_module
from app.cli import main
from app.errors import InputRefused, StoreError
from app.exchange import pack, unpack, unpacked_size
from app.store import INTERRUPTED, Conversation, Store, Turn
from app.texts import TEXTS

Files = dict[str, bytes]
EVIL = '<script>alert(1)</script> ![x](http://evil/x.png) *b* "q"'


def add(store: Store, conversation: Conversation, said: str, parent: Turn | None, **fields: Any) -> Turn:
    uploads = fields.pop("uploads", ())
    turn = store.begin_turn(conversation, parent.id if parent else None, said, uploads, "auto", conversation.seed)
    return store.update_turn(turn.id, **{"status": "done", **fields})


@pytest.fixture
def full(store: Store, conversation: Conversation) -> Conversation:
    """Two branches, one with a prompt in the user's words; an upload, a rating, hostile text, and a turn in flight."""
    red, blue = (
        store.add_picture(Image.new("RGB", (32, 16), colour), {"prompt": colour}) for colour in ("red", "blue")
    )
    first = add(store, conversation, EVIL, None, text=EVIL, timings={"dialog": 0.5}, draw_probability=0.25)
    drawn = add(
        store, conversation, "画一只狐狸", first, uploads=(blue,), prompt="a red <fox>", picture=red, raw="<draw>a fox",
        timings={"dialog": 0.5, "drawing": 1.0}, switched=True,
    )  # fmt: skip
    again = add(store, conversation, "画一只狐狸", first, prompt="a fox", picture=blue, base=drawn.id)
    store.begin_turn(conversation, again.id, "still thinking", (), "draw", 3)
    store.rate(drawn, "like", "a redder fox")
    store.rate(first, "dislike")
    return store.change_conversation(conversation, title="Fox / <b>", leaf=drawn.id, seeds="lock")


DATABASES = ("sqlite", "postgresql")


def packed(store: Store, *conversations: Conversation, language: str = "en") -> bytes:
    file = io.BytesIO()
    pack(store, conversations, file, TEXTS[language])
    return file.getvalue()


def files_of(data: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(tmp_path: Path, files: Files) -> Path:
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return tmp_path / "in.zip"


def shape(store: Store, conversation: Conversation) -> Any:
    """All that is kept of a conversation but its ids."""
    turns = store.turns(conversation)
    place = {turn.id: str(number) for number, turn in enumerate(turns)}
    rated = [store.rating(turn.id) for turn in turns]
    return (
        replace(conversation, id="", owner="", leaf=place[conversation.leaf or ""], updated=0),
        [
            replace(t, id="", conversation="", parent=place.get(t.parent or ""), base=place.get(t.base or ""))
            for t in turns
        ],
        [replace(rating, turn="") if rating is not None else None for rating in rated],
    )


def kept(store: Store) -> tuple[int, ...]:
    rows = [
        store._db.all(f"SELECT count(*) AS n FROM {name}")[0]["n"] for name in ("conversations", "turns", "pictures")
    ]
    return (*rows, len([path for path in (store.folder / "pictures").rglob("*") if path.is_file()]))


def test_a_conversation_goes_round(store: Store, full: Conversation, tmp_path: Path, other_database: str) -> None:
    source = tmp_path / "out.zip"
    source.write_bytes(packed(store, full))
    other = Store(tmp_path / "other", other_database)
    (found,) = unpack(other, "somebody", source)
    assert found.owner == "somebody" and other.conversations("local") == []
    thinking = store.turns(full)[-1]
    store.update_turn(thinking.id, status="failed", error=INTERRUPTED)  # as it is there: nobody works on it
    assert shape(other, found) == shape(store, full)
    for turn, original in zip(other.turns(found), store.turns(full), strict=True):
        for one, two in zip((*turn.uploads, turn.picture), (*original.uploads, original.picture), strict=True):
            assert one == two
            if one is not None and two is not None:
                assert other.picture_path(one).read_bytes() == store.picture_path(two).read_bytes()
    other.close()


def test_it_may_be_imported_beside_itself(store: Store, full: Conversation, tmp_path: Path) -> None:
    source = tmp_path / "out.zip"
    source.write_bytes(packed(store, full))
    before = kept(store)
    (found,) = unpack(store, "local", source)
    assert found.id != full.id
    assert kept(store) == (before[0] + 1, before[1] * 2, before[2], before[3])
    assert [entry.id for entry in store.conversations("local")] == [found.id, full.id]
    store.delete_conversation(found)
    assert store.picture_path(store.path(full.leaf)[-1].picture or "").exists()


def test_a_picture_that_is_deleted_while_it_is_imported_is_told(
    store: Store, full: Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "out.zip"
    source.write_bytes(packed(store, full))
    imports = store.import_conversations

    def late(conversations: Any, turns: Any, ratings: Any, pictures: Any) -> None:
        def then_deleted() -> Any:
            yield from pictures  # each is there already, so none is written
            store.delete_conversation(full)

        imports(conversations, turns, ratings, then_deleted())

    monkeypatch.setattr(store, "import_conversations", late)
    with pytest.raises(StoreError, match="deleted while it was being imported"):
        unpack(store, "local", source)
    assert kept(store) == (0, 0, 0, 0)
    monkeypatch.undo()
    (found,) = unpack(store, "local", source)
    assert all(store.picture_path(turn.picture).exists() for turn in store.turns(found) if turn.picture)


def test_what_a_file_unpacks_to_is_known_before(store: Store, full: Conversation, tmp_path: Path) -> None:
    (tmp_path / "out.zip").write_bytes(packed(store, full))
    again = tmp_path / "again.zip"
    with zipfile.ZipFile(tmp_path / "out.zip") as old, zipfile.ZipFile(again, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry) + b" " * 10_000)
    assert unpacked_size(again) == unpacked_size(tmp_path / "out.zip") + 10_000 * len(zipfile.ZipFile(again).namelist())
    assert unpacked_size(again) > 2 * again.stat().st_size
    again.write_bytes(b"no zip")
    with pytest.raises(InputRefused, match="is no ZIP file"):
        unpacked_size(again)


def test_what_is_too_much_for_a_conversation_is_refused(
    store: Store, full: Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "out.zip"
    source.write_bytes(packed(store, full))
    with monkeypatch.context() as patch:
        patch.setattr(exchange, "MOST_DIRECTORY", 10)
        with pytest.raises(InputRefused, match="holds too many entries"):
            unpack(store, "local", source)
    store.update_turn(store.turns(full)[0].id, said="x" * (exchange.MOST_TEXT + 1))
    source.write_bytes(packed(store, full))
    with pytest.raises(InputRefused, match=r"is damaged .*at most 20000 characters"):
        unpack(store, "local", source)


def test_several_conversations_in_one_file(store: Store, full: Conversation, tmp_path: Path) -> None:
    second = store.create_conversation("local", "storybook", {}, seed=1)
    add(store, second, "hello", None, text="hello")
    second = store.change_conversation(second, title="../../etc")
    data = packed(store, full, second)
    assert {name.split("/")[0] for name in files_of(data)} == {"001-Fox-b", "002-etc"}
    (tmp_path / "all.zip").write_bytes(data)
    assert [found.title for found in unpack(store, "local", tmp_path / "all.zip")] == ["Fox / <b>", "../../etc"]


def test_what_is_there_to_read(store: Store, full: Conversation) -> None:
    files = files_of(packed(store, full))
    page, text = files["conversation.html"].decode(), files["conversation.md"].decode()
    assert "<script" not in page and "alert(1)" in page and "http://evil" in page
    assert page.count("data:image/png;base64,") == 2 and not re.search(r'(src|href)="(?!data:)', page)
    assert "a red &lt;fox&gt;" in page and "still thinking" not in page  # the active path alone
    assert r"\<script>alert(1)\</script> !\[x\](http://evil/x.png) \*b\*" in text
    links = re.findall(r"(?<!\\)\]\((.*?)\)", text)
    assert len(links) == 2 and all(link in files for link in links)
    chinese = files_of(packed(store, full, language="zh"))
    assert "**你:**" in chinese["conversation.md"].decode() and 'lang="zh"' in chinese["conversation.html"].decode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [("# one\n- two\n3. three\n> four", "\\# one  \n\\- two  \n3\\. three  \n\\> four"), ("a_b & c", r"a\_b \& c")],
)
def test_plain_markdown(text: str, shown: str) -> None:
    assert exchange._plain(text) == shown


def test_a_lost_picture_is_left_out_and_told(store: Store, full: Conversation, tmp_path: Path) -> None:
    picture = store.path(full.leaf)[-1].picture or ""
    store.picture_path(picture).unlink()
    with (tmp_path / "out.zip").open("wb") as file:
        assert pack(store, [full], file, TEXTS["en"]).lost == (picture,)
    (found,) = unpack(store, "local", tmp_path / "out.zip")
    last = store.path(found.leaf)[-1]
    assert (last.picture, last.prompt) == (None, "a red <fox>")


Change = Callable[[dict[str, Any]], None]


def turn(number: int, **values: Any) -> Change:
    return lambda record: record["turns"][number].update(values)


def top(**values: Any) -> Change:
    return lambda record: record.update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (top(version=2), "newer Easel. Update Easel"),
        (top(format="something"), "no conversation of Easel's"),
        (top(format=None), "no conversation of Easel's"),
        (top(extra=1), "damaged .extra"),
        (top(turns=[]), "no turns"),
        (top(leaf="nobody"), "no turn nobody"),
        (top(seed=-1), "damaged .seed"),
        (top(seed="7"), "damaged .seed"),
        (top(created=1e300), "damaged .created"),
        (top(settings={"width": 17}), "multiple of 16"),
        (top(settings={"colour": 17}), "Unknown settings colour"),
        (turn(0, parent="nobody"), "no tree"),
        (lambda record: record["turns"][0].update(parent=record["turns"][1]["id"]), "no tree"),
        (lambda record: record["turns"][0].update(parent=record["turns"][0]["id"]), "no tree"),
        (lambda record: record["turns"][1].update(id=record["turns"][0]["id"]), "two turns|no tree"),
        (turn(0, picture="0" * 32), "is not listed"),
        (turn(0, picture="../../../etc/passwd"), "damaged .turns.0.picture"),
        (turn(0, status="loved"), "damaged .turns.0.status"),
        (turn(0, base="ff" * 12), "is made of another"),
        (turn(0, draw_probability=7), "damaged .turns.0.draw_probability"),
        (turn(0, settings={"steps": 10**9}), "Steps must be"),
        (turn(0, rating={"verdict": "like"}), "damaged .turns.0.rating"),
        (lambda record: next(iter(record["pictures"].values())).update(file="../x.png"), "A picture is missing"),
        (lambda record: next(iter(record["pictures"].values())).update(sha256="0" * 64), "A picture was altered"),
    ],
)
def test_hostile_records_are_refused(
    store: Store, full: Conversation, tmp_path: Path, change: Change, message: str
) -> None:
    files = files_of(packed(store, full))
    record = json.loads(files["conversation.json"])
    change(record)
    files["conversation.json"] = json.dumps(record).encode()
    refused(store, written(tmp_path, files), message)


def refused(store: Store, source: Path, message: str) -> None:
    before = kept(store)
    with pytest.raises(InputRefused, match=message):
        unpack(store, "local", source)
    assert kept(store) == before


def test_hostile_files_are_refused(store: Store, full: Conversation, tmp_path: Path) -> None:
    files = files_of(packed(store, full))
    picture = next(name for name in files if name.startswith("pictures/"))
    other = io.BytesIO()
    Image.new("RGB", (32, 16), "green").save(other, "PNG")
    for changed, message in (
        ({picture: other.getvalue()}, "A picture was altered"),
        ({picture: files[picture] + b"x"}, "A picture was altered"),
        ({"../../evil.sh": b"x"}, "made to do harm"),
        ({"/etc/evil": b"x"}, "made to do harm"),
        ({"..\\evil": b"x"}, "made to do harm"),
        ({"C:\\evil": b"x"}, "made to do harm"),
        ({"conversation.json": b"{"}, "conversation.json is damaged"),
        ({"conversation.json": b"[" * 100_000}, "conversation.json is damaged"),
        ({"conversation.json": b"\xff\xfe\x00"}, "conversation.json is damaged"),
        ({"conversation.json": b"[1]"}, "no conversation of Easel's"),
        ({"conversation.json": b" " * (exchange.MOST_RECORD_BYTES + 1)}, "too large: at most 64 MB"),
    ):
        refused(store, written(tmp_path, {**files, **changed}), message)
    refused(store, written(tmp_path, {name: data for name, data in files.items() if name != picture}), "is missing")
    refused(store, written(tmp_path, {picture: files[picture]}), "conversation.json is missing")
    refused(store, written(tmp_path, {}), "conversation.json is missing")
    assert not list(tmp_path.rglob("*evil*"))


def test_pictures_that_are_none(store: Store, full: Conversation, tmp_path: Path) -> None:
    """Named and hashed as they should be, but no PNG, or one that unpacks to too much."""
    huge = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(huge, "PNG")
    for data, message in ((b"<svg onload='x'/>", "no PNG"), (huge.getvalue(), "no PNG|too large")):
        files = files_of(packed(store, full))
        record = json.loads(files["conversation.json"])
        name = store_module.picture_id(data)
        record["pictures"][name] = {"file": f"pictures/{name}.png", "sha256": exchange.hashlib.sha256(data).hexdigest()}
        record["turns"][0]["picture"] = name
        files |= {"conversation.json": json.dumps(record).encode(), f"pictures/{name}.png": data}
        refused(store, written(tmp_path, files), message)


def test_files_that_are_no_zip(store: Store, full: Conversation, tmp_path: Path, monkeypatch: Any) -> None:
    whole = packed(store, full)
    for data in (b"", b"hello", whole[: len(whole) // 2]):
        (tmp_path / "in.zip").write_bytes(data)
        refused(store, tmp_path / "in.zip", r"in\.zip is no ZIP file")
    refused(store, tmp_path / "gone.zip", "cannot be read")
    (tmp_path / "in.zip").write_bytes(whole)
    monkeypatch.setattr(exchange, "MOST_BYTES", 1000)
    refused(store, tmp_path / "in.zip", "would unpack to more than")
    monkeypatch.undo()
    broken = bytearray(whole)
    at = whole.index(b"IDAT")
    broken[at : at + 8] = b"\0" * 8
    (tmp_path / "in.zip").write_bytes(bytes(broken))
    refused(store, tmp_path / "in.zip", "is damaged")


def test_a_full_disk_leaves_nothing_half(
    store: Store, full: Conversation, tmp_path: Path, other_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out.zip").write_bytes(packed(store, full))
    other = Store(tmp_path / "other", other_database)
    add, added = store_module.add_row, []

    def fails(db: Any, table: str, *values: Any) -> None:
        added.append(table)
        if added.count("turns") == 3:
            raise sqlite3.OperationalError("database or disk is full")
        add(db, table, *values)

    monkeypatch.setattr(store_module, "add_row", fails)
    with pytest.raises(StoreError, match="The disk is full"):
        unpack(other, "local", tmp_path / "out.zip")
    assert kept(other) == (0, 0, 0, 0)
    monkeypatch.undo()
    assert len(unpack(other, "local", tmp_path / "out.zip")) == 1
    other.close()


def test_the_commands(
    store: Store,
    full: Conversation,
    tmp_path: Path,
    database: str,
    other_database: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EASEL_DATABASE", database)
    out = str(tmp_path / "out.zip")
    folder = str(store.folder)
    assert main(["export", "--store", folder, "--all", "--out", out]) == 1
    assert "Another Easel is using" in capsys.readouterr().err
    store.close()
    for which in (["--all"], ["--conversation", full.id]):
        assert main(["export", "--store", folder, *which, "--out", out, "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"file": out, "conversations": 1, "pictures": 2}
        assert main(["export", "--store", folder, *which, "--out", out]) == 1
        assert "exists already" in capsys.readouterr().err
        other = ["--store", str(tmp_path / "other"), "--database", other_database]
        assert main(["import", out, *other, "--json"]) == 0
        assert list(json.loads(capsys.readouterr().out)["conversations"].values()) == ["Fox / <b>"]
        assert Path(out).stat().st_mode & 0o077 == 0, "nobody else's on this machine"
        Path(out).unlink()
    for wrong, message in (
        (["export", "--store", str(tmp_path), "--all", "--out", out], "no data folder"),
        (["export", "--store", folder, "--conversation", "x", "--out", out], "does not exist"),
        (["export", "--store", folder, "--all", "--out", str(tmp_path / "no" / "x.zip")], "cannot be written"),
        (["export", "--store", folder, "--all", "--owner", "api", "--out", out], "api has no conversations"),
        (["export", "--store", folder, "--all", "--owner", "anna", "--out", out], "There is no user 'anna'"),
        (["import", str(tmp_path / "gone.zip"), "--store", folder], "cannot be read"),
    ):
        assert main(wrong) == 1
        assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []
