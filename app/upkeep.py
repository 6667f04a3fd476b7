"""The data folder's upkeep: is it whole, what can go, a copy of it while the app runs, and back again.

    python -c "from pathlib import Path; from app.upkeep import check; print(check(Path('/tmp/easel')))"

The order in which the store writes is what this relies on: a picture's file before its row, its row before the turn
that shows it. A crash between them leaves something that nobody shows, never a turn without its picture.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text

from app.database import FILE, SQLITE, Database, copy_rows, must_be_there, open_database, open_to_read
from app.errors import StoreError
from app.store import Store, picture_file, picture_id

_PICTURE = re.compile(r"pictures/([0-9a-f]{2})/(\1[0-9a-f]{30})\.png")
SNAPSHOTS = 50  # until nothing more was deleted while the pictures were copied; each copies what is new alone


@dataclass(frozen=True)
class Findings:
    conversations: int
    pictures: int  # that turns show, or programs were told of
    orphans: tuple[Path, ...]  # files that no row names
    unused: tuple[str, ...]  # pictures that no turn shows, and no program was told of
    missing: dict[str, list[str]]  # pictures whose files are not there, and the titles of the conversations with them
    altered: tuple[str, ...]  # pictures whose files are not what they were
    database: str  # what SQLite says is wrong with it; "" for nothing

    @property
    def sound(self) -> bool:
        return not (self.missing or self.altered or self.database)


def check(folder: Path, database: str = SQLITE, called: Path | None = None) -> Findings:
    """Looks, and changes nothing. The app may be running: what it is just writing may be among the orphans then.
    Errors speak of the folder as it is `called`."""
    with contextlib.closing(open_to_read(folder, database, called or folder)) as opened, opened.moment() as db:
        wrong = db.execute(text("PRAGMA quick_check")).scalars().all() if opened.is_sqlite else ["ok"]
        if wrong != ["ok"]:
            return Findings(0, 0, (), (), {}, (), "; ".join(wrong)[:500])
        titles = _shown(db)
        rows = {name: bool(kept) for name, kept in db.execute(text("SELECT id, kept FROM pictures"))}
        conversations = db.execute(text("SELECT count(*) FROM conversations")).scalar_one()
    named = set(titles) | set(rows)
    files = {path for path in (folder / "pictures").rglob("*") if path.is_file()}
    there = {name for name in named if picture_file(folder, name) in files}
    needed = set(titles) | {name for name, kept in rows.items() if kept}
    return Findings(
        conversations=conversations,
        pictures=len(needed & there),
        orphans=tuple(sorted(files - {picture_file(folder, name) for name in named})),
        unused=tuple(sorted(set(rows) - needed)),
        missing={name: sorted(titles.get(name, ())) for name in sorted(needed - there)},
        altered=tuple(sorted(name for name in there & needed if _is_altered(picture_file(folder, name)))),
        database="",
    )


def collect(folder: Path, database: str = SQLITE) -> tuple[Findings, int]:
    """Remove what nobody shows; returns what was found, and the bytes that were freed. The folder is ours meanwhile:
    StoreError where the app is running, so that no turn under way loses what it has not yet written down."""
    must_be_there(folder, database)
    store = Store(folder, database)
    try:
        found = check(folder, database)
        if found.database:
            raise StoreError(f"The database of {folder} is damaged ({found.database}). Restore a backup.")
        store.forget_pictures(found.unused)
        freed = 0
        for path in (*found.orphans, *(picture_file(folder, name) for name in found.unused)):
            with contextlib.suppress(FileNotFoundError):
                freed += path.stat().st_size
                path.unlink()
        return found, freed
    except OSError as error:
        raise StoreError(f"{folder} cannot be tidied: {error}.") from error
    finally:
        store.close()


def backup(folder: Path, out: Path, database: str = SQLITE) -> tuple[int, list[str]]:
    """Write all rows, as a SQLite database, and all their pictures as of one moment to `out`, a new folder or .zip
    file; returns how many pictures, and those that are lost. The app may be running."""
    must_be_there(folder, database)
    _must_be_new(out)
    beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        with tempfile.TemporaryDirectory(prefix=".easel-", dir=out.parent) as temporary:
            copy = Path(temporary) / "copy"
            with contextlib.closing(open_to_read(folder, database, folder)) as source:
                named, lost = _copy(source, folder, copy)
            if out.suffix == ".zip":
                _zip(copy, beside)
            else:
                copy.rename(beside)
            beside.rename(out)
    except OSError as error:
        raise StoreError(f"The backup {out} cannot be written: {error}.") from error
    finally:
        beside.unlink(missing_ok=True) if beside.is_file() else shutil.rmtree(beside, ignore_errors=True)
    return len(named) - len(lost), sorted(lost)


def restore(source: Path, folder: Path, database: str = SQLITE) -> Findings:
    """Make the data folder of a backup, with its rows in the `database`. A folder or a database that holds something is
    left alone; what the backup lacks is told."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} exists and is not empty. Nothing is overwritten: name a new folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".easel-", dir=folder.parent) as temporary:
            copy = Path(temporary) / "copy"
            (copy / "pictures").mkdir(parents=True)
            _unpack(source, copy)
            found = check(copy, called=source)
            if found.database:
                raise StoreError(f"The database of {source} is damaged ({found.database}). Restore an older backup.")
            if database == SQLITE:
                copy.rename(folder)
            else:
                _move_rows(copy, folder, database)
    except OSError as error:
        raise StoreError(f"{source} cannot be restored to {folder}: {error}.") from error
    return found


# Inside


def _move_rows(copy: Path, folder: Path, database: str) -> None:
    """Out of a data folder's own database, and the folder to its place: both, or neither."""
    packed = Path(f"{copy}-rows")
    packed.mkdir()
    (copy / FILE).rename(packed / FILE)
    try:
        with (
            contextlib.closing(open_database(packed)) as rows,
            contextlib.closing(open_database(copy, database)) as target,
            rows.moment() as source,
            target.write() as empty,
        ):
            copy_rows(source, empty)
            copy.rename(folder)
    except BaseException:
        if not copy.exists():
            folder.rename(copy)
        raise


def _shown(db: Connection) -> dict[str, set[str]]:
    """The pictures that turns show, each with the titles of their conversations."""
    titles: dict[str, set[str]] = {}
    joined = "FROM turns JOIN conversations ON conversations.id = turns.conversation"
    rows = db.execute(text(f"SELECT turns.picture, turns.uploads, conversations.title {joined}"))
    for picture, uploads, title in rows:
        for name in (*json.loads(uploads), picture):
            if name:
                titles.setdefault(name, set()).add(title)
    return titles


def _is_altered(path: Path) -> bool:
    try:
        return picture_id(path.read_bytes()) != path.stem
    except OSError:
        return True


def _copy(source: Database, folder: Path, copy: Path) -> tuple[set[str], set[str]]:
    """The rows first, then the pictures that they name: these never change, but a conversation that is deleted
    meanwhile takes them along. Then the rows are copied once more, and do not name them any more."""
    (copy / "pictures").mkdir(parents=True)
    lost: set[str] = set()
    for _ in range(SNAPSHOTS):
        (copy / FILE).unlink(missing_ok=True)
        with contextlib.closing(source.copy_to(copy / FILE)) as copied, copied.moment() as db:
            named = set(_shown(db)) | set(db.execute(text("SELECT id FROM pictures")).scalars())
        before, lost = lost, {name for name in named if not _copy_picture(folder, copy, name)}
        if lost == before:
            break
    for path in [path for path in (copy / "pictures").rglob("*.png") if path.stem not in named]:
        path.unlink()
    return named, lost


def _copy_picture(folder: Path, copy: Path, name: str) -> bool:
    source, target = picture_file(folder, name), picture_file(copy, name)
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        try:
            shutil.copyfile(source, target)
        except FileNotFoundError:
            return False
    return True


def _zip(folder: Path, out: Path) -> None:
    with zipfile.ZipFile(out, "w") as archive:
        archive.write(folder / FILE, FILE, zipfile.ZIP_DEFLATED)
        for path in sorted((folder / "pictures").rglob("*.png")):
            archive.write(path, path.relative_to(folder).as_posix())


def _must_be_new(out: Path) -> None:
    if out.exists():
        raise StoreError(f"{out} exists already. Nothing is overwritten: choose another name.")
    if not out.parent.is_dir():
        raise StoreError(f"There is no folder {out.parent} to write {out.name} to. Make it first.")


def _unpack(source: Path, copy: Path) -> None:
    if source.is_dir():
        files = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
        for name in _known(files, source):
            _room(copy, (source / name).stat().st_size)
            _place(copy, name).write_bytes((source / name).read_bytes())
        return
    try:
        with zipfile.ZipFile(source) as archive:
            names = _known([entry.filename for entry in archive.infolist() if not entry.is_dir()], source)
            _room(copy, sum(archive.getinfo(name).file_size for name in names))
            for name in names:
                with archive.open(name) as packed, _place(copy, name).open("wb") as file:
                    shutil.copyfileobj(packed, file)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise StoreError(f"{source} is no backup that can be restored: {error}.") from error


def _known(names: Iterable[str], source: Path) -> list[str]:
    """What of a backup belongs to one. Nothing else is written, so nothing can lead out of the folder."""
    known = sorted({name for name in names if name == FILE or _PICTURE.fullmatch(name)})
    if FILE not in known:
        raise StoreError(f"{source} is no backup: {FILE} is missing.")
    return known


def _place(copy: Path, name: str) -> Path:
    path = copy / name
    path.parent.mkdir(exist_ok=True)
    return path


def _room(folder: Path, size: int) -> None:
    if shutil.disk_usage(folder).free < size:
        raise StoreError(f"The disk is too full: {size / 2**20:,.0f} MB are needed. Free some space, then try again.")
