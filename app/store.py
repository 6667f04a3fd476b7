"""The store: conversations, their turns as a tree, what users thought of them, and the pictures, in one folder.

    python -c "from app.store import Store; print(Store('/tmp/easel').conversations('local'))"

What it holds is written before it is shown. Pictures are files named by their content, written beside, synced and
renamed; everything else is rows of the database (database.py). A turn that was in flight when the program died is found
as failed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO, Any, Literal, get_args

from PIL import Image
from sqlalchemy import Connection, RowMapping

from app.database import SQLITE, Database, add_row, clearly, open_database, sql
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
    adapter: str = ""  # SHA-256 of the one that the model wrote the reply with
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


# Their columns, in SQL.
CONVERSATION, TURN, RATING, SCORE = (
    ", ".join(f"{table}.{field.name}" for field in fields(kind))
    for kind, table in ((Conversation, "conversations"), (Turn, "turns"), (Rating, "ratings"), (Score, "scores"))
)
# Whether a turn shows the picture :id.
SHOWS = "(turns.picture=:id OR turns.uploads LIKE '%' || :id || '%')"
_TURN = tuple(field.name for field in fields(Turn))


class Store:
    def __init__(self, folder: str | Path, database: str = SQLITE) -> None:
        self.folder = Path(folder).expanduser()
        with clearly(f"The data folder {self.folder} cannot be used"), contextlib.ExitStack() as stack:
            (self.folder / "pictures").mkdir(parents=True, exist_ok=True)
            stack.enter_context(_claim(self.folder))
            self._db: Database = stack.enter_context(contextlib.closing(open_database(self.folder, database)))
            self._db.claim()
            with self._db.write() as db:
                died = f"UPDATE turns SET status='failed', error=:error WHERE status IN {IN_FLIGHT}"
                db.execute(sql(died), {"error": INTERRUPTED})
            self._open = stack.pop_all()

    def close(self) -> None:
        self._open.close()

    def copy_rows(self, file: Path) -> None:
        """As of now, as a SQLite database."""
        self._db.copy_to(file).close()

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
        with self._db.write() as db:
            add_row(db, "conversations", values)
        return self.conversation(owner, values["id"])

    def conversation(self, owner: str, conversation_id: str) -> Conversation:
        query = f"SELECT {CONVERSATION} FROM conversations WHERE id=:id AND owner=:owner"
        row = self._db.one(query, id=conversation_id, owner=owner)
        if row is None:
            raise NotFound("This conversation does not exist any more. Start a new one.")
        return _conversation(row)

    def conversations(self, owner: str) -> list[Conversation]:
        """Those that hold something, newest first."""
        return self.search_conversations(owner, "")

    def search_conversations(self, owner: str, words: str) -> list[Conversation]:
        """Those in whose title, messages and prompts each of the words stands, wherever, newest first."""
        holds, values = self._holds(("conversations.title", "turns.said", "turns.text", "turns.prompt"), words)
        # IS TRUE: else PostgreSQL plans a join of as many tables as there are words, for minutes.
        found = "".join(
            f" AND EXISTS (SELECT 1 FROM turns WHERE turns.conversation = conversations.id AND {one}) IS TRUE"
            for one in holds
        )
        query = f"""
            SELECT {CONVERSATION} FROM conversations WHERE owner=:owner
            AND EXISTS (SELECT 1 FROM turns WHERE turns.conversation = conversations.id){found}
            ORDER BY updated DESC, rowid DESC
        """
        return [_conversation(row) for row in self._db.all(query, owner=owner, **values)]

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
        rows: list[dict[str, Any]] = []
        try:
            for data, width, height in pictures:
                picture = picture_id(data)
                rows.append(_picture(picture, width, height))
                if not self._file(picture).exists():
                    with clearly("The picture could not be saved"):
                        _write_whole(self._file(picture), data)
                    written.append(picture)
            with self._db.write() as db:
                for row in rows:
                    add_row(db, "pictures", row, "ON CONFLICT (id) DO NOTHING")
                    if not self._file(row["id"]).exists():
                        raise StoreError("A picture was deleted while it was being imported. Import the file again.")
                for table, entries in (("conversations", conversations), ("turns", turns), ("ratings", ratings)):
                    for entry in entries:
                        add_row(db, table, _columns(entry))
        except BaseException:
            for picture in written:
                if self._db.one("SELECT id FROM pictures WHERE id=:id", id=picture) is None:
                    self._file(picture).unlink(missing_ok=True)
            raise

    def change_conversation(self, conversation: Conversation, **changes: Any) -> Conversation:
        """Change title, seed, seeds, settings or leaf."""
        if "settings" in changes:
            changes["settings"] = json.dumps(dict(changes["settings"]))
        with self._db.write() as db:
            _update(db, "conversations", conversation.id, changes)
        return self.conversation(conversation.owner, conversation.id)

    def delete_conversation(self, conversation: Conversation) -> None:
        """Its turns go with it, and the pictures that no other turn shows and no program was told of."""
        with self._db.write() as db:
            for picture in delete_rows(db, conversation.id):  # in here: who adds one of them meanwhile must wait
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
        with self._db.write() as db:
            add_row(db, "turns", values)
            _update(db, "conversations", conversation.id, {"leaf": values["id"], "updated": now})
        return self.turn(values["id"])

    def add_sibling(self, turn: Turn, **changes: Any) -> Turn:
        """Store `turn` once more, with `changes`, as another answer to the same place. The active path stays."""
        sibling = replace(turn, **{"id": new_id(), "created": time.time(), **changes})
        values = asdict(sibling)
        for name in ("uploads", "settings", "timings"):
            values[name] = json.dumps(values[name])
        with self._db.write() as db:
            add_row(db, "turns", values)
        return self.turn(sibling.id)

    def update_turn(self, turn_id: str, **changes: Any) -> Turn:
        if "timings" in changes:
            changes["timings"] = json.dumps(changes["timings"])
        with self._db.write() as db:
            _update(db, "turns", turn_id, changes)
        return self.turn(turn_id)

    def turn(self, turn_id: str) -> Turn:
        row = self._db.one(f"SELECT {TURN} FROM turns WHERE id=:id", id=turn_id)
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
        rows = self._db.all(
            f"""
            WITH RECURSIVE path (id, parent, depth) AS (
                SELECT id, parent, 0 FROM turns WHERE id=:leaf
                UNION ALL SELECT turns.id, turns.parent, depth + 1 FROM turns JOIN path ON turns.id = path.parent
            ) SELECT {TURN} FROM path JOIN turns ON turns.id = path.id ORDER BY depth DESC
            """,
            leaf=leaf,
        )
        return [_turn(row) for row in rows]

    def turns(self, conversation: Conversation) -> list[Turn]:
        """All of them, of every branch, parents before their children."""
        query = f"SELECT {TURN} FROM turns WHERE conversation=:id ORDER BY rowid"
        return [_turn(row) for row in self._db.all(query, id=conversation.id)]

    def siblings(self, turn: Turn) -> list[Turn]:
        """The turns that answer the same place of the conversation, `turn` among them, oldest first."""
        parent = "parent IS NULL" if turn.parent is None else "parent=:parent"
        query = f"SELECT {TURN} FROM turns WHERE conversation=:id AND {parent} ORDER BY created, rowid"
        return [_turn(row) for row in self._db.all(query, id=turn.conversation, parent=turn.parent)]

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
        with self._db.write() as db:
            db.execute(sql("DELETE FROM ratings WHERE turn=:turn"), {"turn": turn.id})
            if verdict or prompt:
                row = {"turn": turn.id, "verdict": verdict, "prompt": prompt, "created": time.time()}
                add_row(db, "ratings", row)

    def opine(self, turn: Turn, verdict: Verdict) -> None:
        """Keep a verdict beside the prompt that was put right earlier, as far as both can be true."""
        rating = self.rating(turn.id)
        self.rate(turn, verdict, rating.prompt if rating is not None and verdict != "should_talk" else "")

    def rating(self, turn_id: str) -> Rating | None:
        row = self._db.one(f"SELECT {RATING} FROM ratings WHERE turn=:turn", turn=turn_id)
        return Rating(**row) if row is not None else None

    def ratings(self, owner: str | None = None) -> list[Rating]:
        """All of them, or those in one owner's conversations, oldest first."""
        query = f"""
            SELECT {RATING} FROM ratings JOIN turns ON turns.id = ratings.turn
            JOIN conversations ON conversations.id = turns.conversation
            {"" if owner is None else "WHERE conversations.owner=:owner"} ORDER BY ratings.created, ratings.rowid
        """
        return [Rating(**row) for row in self._db.all(query, owner=owner)]

    def opinions(self) -> dict[str, Counter[str]]:
        """By the adapter that wrote them: how many replies were finished ("replies"), and how many of each verdict."""
        found: dict[str, Counter[str]] = {}
        rows = self._db.all("""
            SELECT turns.adapter, ratings.verdict, COUNT(*) AS n FROM turns LEFT JOIN ratings ON ratings.turn = turns.id
            WHERE turns.status='done' AND turns.base IS NULL AND turns.varies IS NULL
            GROUP BY turns.adapter, ratings.verdict
        """)
        for row in rows:
            counts = found.setdefault(row["adapter"], Counter())
            counts["replies"] += row["n"]
            if row["verdict"]:
                counts[row["verdict"]] += row["n"]
        return found

    def add_score(self, score: Score) -> None:
        with self._db.write() as db:
            db.execute(sql("DELETE FROM scores WHERE turn=:turn"), {"turn": score.turn})
            add_row(db, "scores", asdict(score))

    def scores(self, turns: Sequence[Turn]) -> dict[str, Score]:
        """By turn, of those that have one."""
        query = f"SELECT {SCORE} FROM scores JOIN turns ON turns.id = scores.turn WHERE turns.conversation=:id"
        rows = [row for name in {turn.conversation for turn in turns} for row in self._db.all(query, id=name)]
        wanted = {turn.id for turn in turns}
        return {row["turn"]: Score(**row) for row in rows if row["turn"] in wanted}

    def newest_leaf(self, turn: Turn) -> str:
        """Where the path through `turn` ends when every step takes the newest branch."""
        leaf = turn.id
        query = "SELECT id FROM turns WHERE parent=:leaf ORDER BY created DESC, rowid DESC LIMIT 1"
        while row := self._db.one(query, leaf=leaf):
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
        with self._db.write() as db:
            known = "ON CONFLICT (id) DO UPDATE SET kept = pictures.kept OR excluded.kept"
            add_row(db, "pictures", _picture(name, picture.width, picture.height, keep), known)
            if not path.exists():  # deleted meanwhile
                with clearly("The picture could not be saved"):
                    _write_whole(path, data)
            if keep:
                add_row(db, "told", {"picture": name, "owner": owner}, "ON CONFLICT DO NOTHING")
        return name

    def picture_path(self, picture_id: str, viewer: str | None = None) -> Path:
        """For a `viewer`, only what stands in this owner's conversations, or their programs were told of. Raises
        NotFound."""
        query = "SELECT id FROM pictures WHERE id=:id"
        if viewer is not None:
            query += f"""
                AND (id IN (SELECT picture FROM told WHERE owner=:viewer) OR EXISTS (
                    SELECT 1 FROM turns JOIN conversations ON conversations.id = turns.conversation
                    WHERE conversations.owner=:viewer AND {SHOWS}
                ))
            """
        if self._db.one(query, id=picture_id, viewer=viewer) is None:
            raise NotFound("This picture does not exist here.")
        return self._file(picture_id)

    def picture_info(self, picture_id: str, viewer: str | None = None) -> dict[str, str]:
        """What `add_picture` was told of it."""
        with clearly("The picture cannot be read"), Image.open(self.picture_path(picture_id, viewer)) as picture:
            return {str(key): str(value) for key, value in picture.info.items() if isinstance(value, str)}

    def forget_pictures(self, names: Iterable[str]) -> None:
        """Their rows; the files stay."""
        with self._db.write() as db:
            for name in names:
                db.execute(sql("DELETE FROM pictures WHERE id=:id"), {"id": name})

    def drawn(self, owner: str, words: str = "", limit: int = sys.maxsize, offset: int = 0) -> list[Drawn]:
        """The pictures drawn for a user, of every branch, each once, newest first: those whose prompts hold all of the
        words."""
        where, values = self._drawn_for(owner, words)
        newest = "PARTITION BY turns.picture ORDER BY turns.created DESC, turns.rowid DESC"
        query = f"""
            SELECT * FROM (
                SELECT {TURN}, turns.rowid AS number, conversations.title, pictures.width, pictures.height,
                row_number() OVER ({newest}) AS place {where}
            ) AS found WHERE place=1 ORDER BY created DESC, number DESC LIMIT :limit OFFSET :offset
        """
        rows = self._db.all(query, **values, limit=limit, offset=offset)
        return [Drawn(_turn(row), row["title"], row["width"], row["height"]) for row in rows]

    def count_drawn(self, owner: str, words: str = "") -> int:
        where, values = self._drawn_for(owner, words)
        return self._db.all(f"SELECT count(DISTINCT turns.picture) AS n {where}", **values)[0]["n"]

    # Inside

    def _file(self, picture_id: str) -> Path:
        return picture_file(self.folder, picture_id)

    def _drawn_for(self, owner: str, words: str) -> tuple[str, dict[str, str]]:
        holds, values = self._holds(("turns.prompt",), words)
        joined = """
            FROM turns JOIN conversations ON conversations.id = turns.conversation
            JOIN pictures ON pictures.id = turns.picture
        """
        return f"{joined} WHERE {' AND '.join(['conversations.owner=:owner', *holds])}", {"owner": owner, **values}

    def _holds(self, columns: Sequence[str], words: str) -> tuple[list[str], dict[str, str]]:
        """One condition a word, that it stands in one of the columns, and their values. Case counts outside ASCII
        alone."""
        found = dict.fromkeys(words[:LONGEST_SEARCH].split())
        values = {f"word{i}": "%" + re.sub("([!%_])", r"!\1", word) + "%" for i, word in enumerate(found)}
        fold = self._db.fold
        conditions = []
        for name in values:
            one = (f"{fold(column)} LIKE {fold(f':{name}')} ESCAPE '!'" for column in columns)
            conditions.append(f"({' OR '.join(one)})")
        return conditions, values


def delete_rows(db: Connection, conversation_id: str) -> list[str]:
    """A conversation's, within a transaction. Returns the pictures whose files nobody needs any more."""
    values = {"id": conversation_id}
    query = "SELECT picture, uploads FROM turns WHERE conversation=:id"
    rows = db.execute(sql(query), values).mappings().all()
    pictures = {picture for row in rows for picture in (row["picture"], *json.loads(row["uploads"])) if picture}
    # SQLite cascades from parent to child only so deep: a tree of a thousand turns would stay.
    db.execute(sql("UPDATE turns SET parent=NULL WHERE conversation=:id"), values)
    db.execute(sql("DELETE FROM conversations WHERE id=:id"), values)
    return [picture for picture in pictures if delete_unshown(db, picture)]


def delete_unshown(db: Connection, picture: str) -> bool:
    """A picture's row, where no turn shows it and no program was told of it."""
    query = f"DELETE FROM pictures WHERE id=:id AND NOT kept AND NOT EXISTS (SELECT 1 FROM turns WHERE {SHOWS})"
    return db.execute(sql(query), {"id": picture}).rowcount > 0


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


def _conversation(row: RowMapping) -> Conversation:
    return Conversation(**{**row, "settings": json.loads(row["settings"])})


def _turn(row: RowMapping) -> Turn:
    values = {name: row[name] for name in _TURN}
    for name in ("settings", "timings"):
        values[name] = json.loads(values[name])
    values.update(uploads=tuple(json.loads(values["uploads"])), switched=bool(values["switched"]))
    return Turn(**values)


def _picture(name: str, width: int, height: int, keep: bool = False) -> dict[str, Any]:
    return {"id": name, "width": width, "height": height, "kept": keep, "created": time.time()}


def _update(db: Connection, table: str, row_id: str, changes: Mapping[str, Any]) -> None:
    columns = ", ".join(f"{name}=:{name}" for name in changes)
    db.execute(sql(f"UPDATE {table} SET {columns} WHERE id=:row_id"), {**changes, "row_id": row_id})


def _columns(row: object) -> dict[str, Any]:
    """A Conversation, Turn or Rating as its table has it."""
    return {name: json.dumps(value) if isinstance(value, dict | tuple) else value for name, value in vars(row).items()}


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
            f"Another Easel is using the data folder {folder}. Stop it, or choose another folder: --data-dir of `easel"
            " chat`, --store of other commands."
        ) from error
    return file
