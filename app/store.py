"""The store: conversations, their turns as a tree, what users thought of them, and the pictures, in one folder.

    python -c "from app.store import Store; print(Store('/tmp/easel').conversations('local'))"

What it holds is written before it is shown. Pictures are files named by their content, written beside, synced and
renamed; everything else is SQLite in WAL mode. A turn that was in flight when the program died is found as failed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, get_args

from PIL import Image

from app.database import clearly, open_database
from app.errors import InputRefused, NotFound, StoreError
from app.pictures import png_bytes

Verdict = Literal["", "like", "dislike", "should_draw", "should_talk"]
VERDICTS = get_args(Verdict)
Status = Literal["thinking", "drawing", "done", "failed", "cancelled"]
# Of what a conversation draws next. "inherit": a branch goes on with the seed of its picture, a retry rolls one;
# "lock": one for everything; "vary": each message rolls one, and an edit is a new picture of the change.
Seeds = Literal["inherit", "lock", "vary"]
SEEDS = get_args(Seeds)
IN_FLIGHT = ("thinking", "drawing")
INTERRUPTED = "Easel was stopped while it worked on this. Nothing is lost: press Retry."
OWNER = "local"  # of the conversations in the page where nobody signs in
PROGRAMS = "api"  # of what programs draw there
LONGEST_SEARCH = 500  # characters; more are not looked at
LARGEST_SEED = 2**31 - 1  # of the seeds that Easel chooses; short enough to read aloud


@dataclass(frozen=True)
class Conversation:
    id: str
    owner: str
    title: str
    profile: str
    seed: int
    seeds: Seeds
    settings: dict[str, Any]
    leaf: str | None  # the turn that the active path ends with
    created: float
    updated: float


@dataclass(frozen=True)
class Turn:
    id: str
    conversation: str
    parent: str | None
    said: str  # the user's text
    uploads: tuple[str, ...]  # ids of the user's pictures
    mode: str
    status: Status
    seed: int
    settings: dict[str, Any]
    created: float
    text: str = ""  # the reply, or what stood before the draw token
    prompt: str = ""
    picture: str | None = None
    switched: bool = False
    raw: str = ""
    draw_probability: float | None = None
    error: str = ""
    timings: dict[str, float] | None = None
    seeds: Seeds = "inherit"  # the policy that it was drawn by
    varies: str | None = None  # the sibling that it is another picture of
    base: str | None = None  # the sibling whose prompt the user put into other words; None: the model wrote the prompt


@dataclass(frozen=True)
class Rating:
    """What the user thinks of a turn's reply."""

    turn: str
    verdict: Verdict  # "": none, only the prompt was put right
    prompt: str  # the refined prompt as it should have been, in the user's words; "": nothing is said of it
    created: float


@dataclass(frozen=True)
class Score:
    """What the inspector says of a turn's picture; see generator/looks.py."""

    turn: str
    base: str | None  # the picture that it is a change of
    consistency: float | None  # with that one, 0 to 1
    asked: int  # things that the prompt names …
    seen: int  # … and those of them that are in the picture


@dataclass(frozen=True)
class Drawn:
    """A picture of a user's, with the newest turn that shows it."""

    turn: Turn
    title: str  # of its conversation
    width: int
    height: int


class Store:
    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self._lock = threading.RLock()
        with clearly(f"The data folder {self.folder} cannot be used"):
            (self.folder / "pictures").mkdir(parents=True, exist_ok=True)
            self._claim: IO[str] = _claim(self.folder)
            self._db = open_database(self.folder)
            self._db.execute(
                f"UPDATE turns SET status='failed', error=? WHERE status IN ({_marks(IN_FLIGHT)})",
                (INTERRUPTED, *IN_FLIGHT),
            )

    def close(self) -> None:
        with self._lock:
            self._db.close()
            self._claim.close()

    # Conversations

    def create_conversation(
        self, owner: str, profile: str, settings: Mapping[str, Any], seed: int | None = None, seeds: Seeds = "inherit"
    ) -> Conversation:
        now = time.time()
        values: dict[str, Any] = {
            "id": new_id(), "owner": owner, "title": "", "profile": profile,
            "seed": new_seed() if seed is None else seed, "seeds": seeds, "settings": json.dumps(dict(settings)),
            "leaf": None, "created": now, "updated": now,
        }  # fmt: skip
        with self._write() as db:
            _insert(db, "conversations", values)
        return self.conversation(owner, values["id"])

    def conversation(self, owner: str, conversation_id: str) -> Conversation:
        row = self._one("SELECT * FROM conversations WHERE id=? AND owner=?", conversation_id, owner)
        if row is None:
            raise NotFound("This conversation does not exist any more. Start a new one.")
        return _conversation(row)

    def conversations(self, owner: str) -> list[Conversation]:
        """Those that hold something, newest first."""
        rows = self._all(
            "SELECT * FROM conversations WHERE owner=? AND leaf IS NOT NULL ORDER BY updated DESC, rowid DESC", owner
        )
        return [_conversation(row) for row in rows]

    def search_conversations(self, owner: str, words: str) -> list[Conversation]:
        """Those in whose title, messages and prompts each of the words stands, wherever, newest first."""
        holds, values = _holds(("conversations.title", "turns.said", "turns.text", "turns.prompt"), words)
        found = " AND ".join(
            f"EXISTS (SELECT 1 FROM turns WHERE turns.conversation = conversations.id AND ({one}))" for one in holds
        )
        query = f"""
            SELECT * FROM conversations WHERE owner=? AND leaf IS NOT NULL AND ({found or "1"})
            ORDER BY updated DESC, rowid DESC
        """
        return [_conversation(row) for row in self._all(query, owner, *values)]

    def import_conversations(
        self,
        conversations: Sequence[Conversation],
        turns: Sequence[Turn],
        ratings: Sequence[Rating],
        pictures: Iterable[tuple[bytes, int, int]],
    ) -> None:
        """Keep conversations from elsewhere: all of them or, when anything goes wrong, nothing. Parents come before
        their children; a picture is a PNG file's bytes with its width and height."""
        written: list[str] = []
        rows: list[tuple[str, int, int, int, float]] = []
        try:
            for data, width, height in pictures:
                picture = picture_id(data)
                rows.append((picture, width, height, 0, time.time()))
                if not self._file(picture).exists():
                    with clearly("The picture could not be saved"):
                        _write_whole(self._file(picture), data)
                    written.append(picture)
            with self._write() as db:
                db.executemany("INSERT INTO pictures VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING", rows)
                for table, entries in (("conversations", conversations), ("turns", turns), ("ratings", ratings)):
                    for entry in entries:
                        _insert(db, table, _columns(entry))
        except BaseException:
            for picture in written:
                if self._one("SELECT 1 FROM pictures WHERE id=?", picture) is None:
                    self._file(picture).unlink(missing_ok=True)
            raise

    def change_conversation(self, conversation: Conversation, **changes: Any) -> Conversation:
        """Change title, seed, seeds, settings or leaf."""
        if "settings" in changes:
            changes["settings"] = json.dumps(dict(changes["settings"]))
        with self._write() as db:
            _update(db, "conversations", conversation.id, changes)
        return self.conversation(conversation.owner, conversation.id)

    def delete_conversation(self, conversation: Conversation) -> None:
        """Its turns go with it, and the pictures that no other turn shows and no program was told of."""
        with self._write() as db:
            orphans = delete_rows(db, conversation.id)
        for picture in orphans:
            self._file(picture).unlink(missing_ok=True)

    # Turns

    def begin_turn(
        self, conversation: Conversation, parent: str | None, said: str, uploads: tuple[str, ...], mode: str, seed: int
    ) -> Turn:
        """Store what the user said and make it the end of the active path."""
        now = time.time()
        values: dict[str, Any] = {
            "id": new_id(), "conversation": conversation.id, "parent": parent, "said": said,
            "uploads": json.dumps(uploads), "mode": mode, "status": "thinking", "seed": seed,
            "settings": json.dumps(conversation.settings), "seeds": conversation.seeds, "created": now,
        }  # fmt: skip
        with self._write() as db:
            _insert(db, "turns", values)
            _update(db, "conversations", conversation.id, {"leaf": values["id"], "updated": now})
        return self.turn(values["id"])

    def add_sibling(self, turn: Turn, **changes: Any) -> Turn:
        """Store `turn` once more, with `changes`, as another answer to the same place. The active path stays."""
        sibling = replace(turn, **{"id": new_id(), "created": time.time(), **changes})
        values = asdict(sibling)
        for name in ("uploads", "settings", "timings"):
            values[name] = json.dumps(values[name])
        with self._write() as db:
            _insert(db, "turns", values)
        return self.turn(sibling.id)

    def update_turn(self, turn_id: str, **changes: Any) -> Turn:
        if "timings" in changes:
            changes["timings"] = json.dumps(changes["timings"])
        with self._write() as db:
            _update(db, "turns", turn_id, changes)
        return self.turn(turn_id)

    def turn(self, turn_id: str) -> Turn:
        row = self._one("SELECT * FROM turns WHERE id=?", turn_id)
        if row is None:
            raise NotFound("This turn does not exist any more.")
        return _turn(row)

    def turn_of(self, conversation: Conversation, turn_id: str) -> Turn:
        """The turn, where it is one of the conversation's."""
        turn = self.turn(turn_id)
        if turn.conversation != conversation.id:
            raise NotFound("This turn does not exist any more.")
        return turn

    def path(self, leaf: str | None) -> list[Turn]:
        """The turns from the first to `leaf`."""
        rows = self._all(
            """
            WITH RECURSIVE path (id, parent, depth) AS (
                SELECT id, parent, 0 FROM turns WHERE id=?
                UNION ALL SELECT turns.id, turns.parent, depth + 1 FROM turns JOIN path ON turns.id = path.parent
            ) SELECT turns.* FROM path JOIN turns ON turns.id = path.id ORDER BY depth DESC
            """,
            leaf,
        )
        return [_turn(row) for row in rows]

    def turns(self, conversation: Conversation) -> list[Turn]:
        """All of them, of every branch, parents before their children."""
        return [
            _turn(row) for row in self._all("SELECT * FROM turns WHERE conversation=? ORDER BY rowid", conversation.id)
        ]

    def siblings(self, turn: Turn) -> list[Turn]:
        """The turns that answer the same place of the conversation, `turn` among them, oldest first."""
        rows = self._all(
            "SELECT * FROM turns WHERE conversation=? AND parent IS ? ORDER BY created, rowid",
            turn.conversation,
            turn.parent,
        )
        return [_turn(row) for row in rows]

    def rate(self, turn: Turn, verdict: Verdict = "", prompt: str = "") -> None:
        """Keep the user's opinion of a finished reply, in the place of an earlier one; of neither, none is kept.
        Raises InputRefused where it does not fit the reply."""
        prompt = " ".join(prompt.split())
        if verdict not in VERDICTS:
            raise InputRefused(f"There is no rating {verdict!r}. Choose {', '.join(VERDICTS[1:])}.")
        if turn.status != "done":
            raise InputRefused("Only a finished reply can be rated. Wait for it, or press Retry.")
        if verdict == ("should_draw" if turn.prompt else "should_talk"):
            raise InputRefused("The reply is already of that kind. Rate it with a like or a dislike.")
        if prompt and (not (turn.prompt or verdict == "should_draw") or verdict == "should_talk"):
            raise InputRefused("Only the prompt of a picture can be put right.")
        with self._write() as db:
            db.execute("DELETE FROM ratings WHERE turn=?", (turn.id,))
            if verdict or prompt:
                row = {"turn": turn.id, "verdict": verdict, "prompt": prompt, "created": time.time()}
                _insert(db, "ratings", row)

    def rating(self, turn_id: str) -> Rating | None:
        row = self._one("SELECT * FROM ratings WHERE turn=?", turn_id)
        return Rating(**dict(row)) if row is not None else None

    def ratings(self, owner: str | None = None) -> list[Rating]:
        """All of them, or those in one owner's conversations, oldest first."""
        query = """
            SELECT ratings.* FROM ratings JOIN turns ON turns.id = ratings.turn
            JOIN conversations ON conversations.id = turns.conversation
            WHERE ?1 IS NULL OR conversations.owner = ?1 ORDER BY ratings.created, ratings.rowid
        """
        return [Rating(**dict(row)) for row in self._all(query, owner)]

    def add_score(self, score: Score) -> None:
        with self._write() as db:
            db.execute("DELETE FROM scores WHERE turn=?", (score.turn,))
            _insert(db, "scores", asdict(score))

    def scores(self, turns: Sequence[Turn]) -> dict[str, Score]:
        """By turn, of those that have one."""
        names = json.dumps([turn.id for turn in turns])
        rows = self._all("SELECT * FROM scores WHERE turn IN (SELECT value FROM json_each(?))", names)
        return {row["turn"]: Score(**dict(row)) for row in rows}

    def newest_leaf(self, turn: Turn) -> str:
        """Where the path through `turn` ends when every step takes the newest branch."""
        leaf = turn.id
        while row := self._one("SELECT id FROM turns WHERE parent=? ORDER BY created DESC, rowid DESC LIMIT 1", leaf):
            leaf = row["id"]
        return leaf

    # Pictures

    def add_picture(
        self, picture: Image.Image, info: Mapping[str, str] | None = None, keep: bool = False, owner: str = PROGRAMS
    ) -> str:
        """Write the picture as a PNG that carries `info`; `keep` it for `owner` even when no conversation shows it any
        more."""
        data = png_bytes(picture, info)
        name = picture_id(data)
        path = self._file(name)
        with clearly("The picture could not be saved"):
            if not path.exists():
                _write_whole(path, data)
        with self._write() as db:
            db.execute(
                "INSERT INTO pictures VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET kept=max(kept, excluded.kept)",
                (name, picture.width, picture.height, int(keep), time.time()),
            )
            if keep:
                db.execute("INSERT OR IGNORE INTO told VALUES (?, ?)", (name, owner))
        return name

    def picture_path(self, picture_id: str, viewer: str | None = None) -> Path:
        """For a `viewer`, only what stands in this owner's conversations, or their programs were told of. Raises
        NotFound."""
        known = "SELECT id FROM pictures WHERE id=?1 AND (?2 IS NULL OR id IN (SELECT picture FROM told WHERE owner=?2)"
        shown = "OR EXISTS (SELECT 1 FROM turns JOIN conversations ON conversations.id = turns.conversation WHERE"
        whose = "conversations.owner=?2 AND (turns.picture=?1 OR instr(turns.uploads, ?1))))"
        if self._one(f"{known} {shown} {whose}", picture_id, viewer) is None:
            raise NotFound("This picture does not exist here.")
        return self._file(picture_id)

    def picture_info(self, picture_id: str, viewer: str | None = None) -> dict[str, str]:
        """What `add_picture` was told of it."""
        with clearly("The picture cannot be read"), Image.open(self.picture_path(picture_id, viewer)) as picture:
            return {str(key): str(value) for key, value in picture.info.items() if isinstance(value, str)}

    def forget_pictures(self, names: Iterable[str]) -> None:
        """Their rows; the files stay."""
        with self._write() as db:
            db.executemany("DELETE FROM pictures WHERE id=?", [(name,) for name in names])

    def drawn(self, owner: str, words: str = "", limit: int = -1, offset: int = 0) -> list[Drawn]:
        """The pictures drawn for a user, of every branch, each once, newest first: those whose prompts hold all of the
        words."""
        where, values = _drawn_for(owner, words)
        query = f"""
            SELECT turns.*, conversations.title, pictures.width, pictures.height, max(turns.created) AS latest
            {where} GROUP BY turns.picture ORDER BY latest DESC, turns.rowid DESC LIMIT ? OFFSET ?
        """
        drawn = []
        for row in self._all(query, *values, limit, offset):
            *turn, title, width, height, _ = row
            drawn.append(Drawn(_turn(dict(zip(row.keys(), turn, strict=False))), title, width, height))
        return drawn

    def count_drawn(self, owner: str, words: str = "") -> int:
        where, values = _drawn_for(owner, words)
        row = self._one(f"SELECT count(DISTINCT turns.picture) {where}", *values)
        return row[0] if row is not None else 0

    # Inside

    def _file(self, picture_id: str) -> Path:
        return picture_file(self.folder, picture_id)

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock, clearly("Nothing could be saved"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite may have rolled back by itself
                    self._db.execute("ROLLBACK")
                raise

    def _one(self, query: str, *values: Any) -> sqlite3.Row | None:
        with self._lock, clearly("The data cannot be read"):
            return self._db.execute(query, values).fetchone()

    def _all(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock, clearly("The data cannot be read"):
            return self._db.execute(query, values).fetchall()


def delete_rows(db: sqlite3.Connection, conversation_id: str) -> list[str]:
    """A conversation's, within a transaction. Returns the pictures whose files nobody needs any more."""
    rows = db.execute("SELECT picture, uploads FROM turns WHERE conversation=?", (conversation_id,)).fetchall()
    pictures = {picture for row in rows for picture in (row["picture"], *json.loads(row["uploads"])) if picture}
    # SQLite cascades from parent to child only so deep: a tree of a thousand turns would stay.
    db.execute("UPDATE turns SET parent=NULL WHERE conversation=?", (conversation_id,))
    db.execute("DELETE FROM conversations WHERE id=?", (conversation_id,))
    orphans = [picture for picture in pictures if not _shown(db, picture)]
    db.executemany("DELETE FROM pictures WHERE id=?", [(picture,) for picture in orphans])
    return orphans


def new_id() -> str:
    return secrets.token_hex(12)


def default_data_dir() -> Path:
    if named := os.environ.get("EASEL_DATA"):
        return Path(named)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "easel"


def new_seed() -> int:
    return secrets.randbelow(LARGEST_SEED + 1)


def picture_id(data: bytes) -> str:
    """A picture is named by its content."""
    return hashlib.sha256(data).hexdigest()[:32]


def picture_file(folder: Path, name: str) -> Path:
    return folder / "pictures" / name[:2] / f"{name}.png"


def _conversation(row: sqlite3.Row) -> Conversation:
    return Conversation(**{**dict(row), "settings": json.loads(row["settings"])})


def _turn(row: sqlite3.Row | dict[str, Any]) -> Turn:
    values = dict(row)
    for name in ("settings", "timings"):
        values[name] = json.loads(values[name])
    values.update(uploads=tuple(json.loads(values["uploads"])), switched=bool(values["switched"]))
    return Turn(**values)


def _insert(db: sqlite3.Connection, table: str, values: Mapping[str, Any]) -> None:
    db.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({_marks(values)})", tuple(values.values()))


def _update(db: sqlite3.Connection, table: str, row_id: str, changes: Mapping[str, Any]) -> None:
    columns = ", ".join(f"{name}=?" for name in changes)
    db.execute(f"UPDATE {table} SET {columns} WHERE id=?", (*changes.values(), row_id))


def _columns(row: object) -> dict[str, Any]:
    """A Conversation, Turn or Rating as its table has it."""
    return {name: json.dumps(value) if isinstance(value, dict | tuple) else value for name, value in vars(row).items()}


def _drawn_for(owner: str, words: str) -> tuple[str, list[str]]:
    holds, values = _holds(("turns.prompt",), words)
    joined = """
        FROM turns JOIN conversations ON conversations.id = turns.conversation
        JOIN pictures ON pictures.id = turns.picture
    """
    return f"{joined} WHERE {' AND '.join(['conversations.owner=?', *holds])}", [owner, *values]


def _holds(columns: Sequence[str], words: str) -> tuple[list[str], list[str]]:
    """One condition a word, that it stands in one of the columns, and their values. Case counts outside ASCII alone."""
    condition = " OR ".join(f"{column} LIKE ? ESCAPE '!'" for column in columns)
    conditions, values = [], []
    for word in words[:LONGEST_SEARCH].split():
        conditions.append(f"({condition})")
        values += ["%" + re.sub("([!%_])", r"!\1", word) + "%"] * len(columns)
    return conditions, values


def _marks(values: Any) -> str:
    return ", ".join("?" * len(values))


def _shown(db: sqlite3.Connection, picture: str) -> bool:
    query = """
        SELECT 1 FROM turns WHERE picture=:id OR instr(uploads, :id)
        UNION SELECT 1 FROM pictures WHERE id=:id AND kept
    """
    return db.execute(query, {"id": picture}).fetchone() is not None


def _write_whole(path: Path, data: bytes) -> None:
    """The file is there whole or not at all, also after a power cut."""
    path.parent.mkdir(exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _claim(folder: Path) -> IO[str]:
    """One process per folder: another's turns in flight must not be taken for dead."""
    file = (folder / "in-use").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise StoreError(
            f"Another Easel is using the data folder {folder}. Stop it, or choose another folder with --data-dir."
        ) from error
    return file
