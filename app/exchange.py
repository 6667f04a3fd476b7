"""Conversations as ZIP files that people and programs can read, and back again.

    pack(store, [conversation], open("fox.zip", "wb"), TEXTS["en"]); unpack(store, "local", Path("fox.zip"))

Such a file holds, for each conversation, `conversation.json` (all of it, every branch), `pictures/`, and the active
path to read: `conversation.md` with links to the pictures, and `conversation.html`, which needs no other file. Of
several conversations each has a folder of its own. All that is read back is checked before anything of it is kept.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import secrets
import time
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from app.conversation import Mode
from app.errors import EaselError, InputRefused, NotFound, StoreError
from app.pictures import MOST_PIXELS
from app.profiles import PROFILES
from app.store import IN_FLIGHT, INTERRUPTED, Conversation, Rating, Seeds, Status, Store, Turn, Verdict, picture_id
from app.texts import Texts

FORMAT = "easel-conversation"
VERSION = 1
RECORD = "conversation.json"
MOST_ENTRIES = 100_000
MOST_BYTES = 8 * 2**30  # that a file may unpack to
MOST_RECORD_BYTES = 64 * 2**20
MOST_PICTURE_BYTES = 128 * 2**20
MOST_DIRECTORY = 16 * 2**20  # bytes of a file's list of entries
MOST_TITLE = 120
MOST_TURNS = 5_000  # of a conversation
MOST_TEXT = 20_000  # characters of anything that was said
LAST_SECOND = 253402300799.0  # of the year 9999


@dataclass(frozen=True)
class Packed:
    conversations: int
    pictures: int
    lost: tuple[str, ...]  # pictures that a turn shows and the data folder does not have


# Export


def pack(store: Store, conversations: Sequence[Conversation], file: IO[bytes], texts: Texts) -> Packed:
    """Write the conversations as one ZIP. A picture whose file is lost is left out, and its turns say so."""
    pictures = 0
    lost: list[str] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, conversation in enumerate(conversations, 1):
            folder = f"{number:03}-{file_name(conversation.title)}/" if len(conversations) > 1 else ""
            entries, gone = _pack_one(store, conversation, archive, folder, texts)
            pictures += entries
            lost += gone
    return Packed(len(conversations), pictures, tuple(lost))


def file_name(title: str) -> str:
    """A title as part of a file's name, on any system."""
    return re.sub(r"[^\w]+", "-", title).strip("-")[:40].rstrip("-") or "conversation"


def _pack_one(
    store: Store, conversation: Conversation, archive: zipfile.ZipFile, folder: str, texts: Texts
) -> tuple[int, list[str]]:
    turns = store.turns(conversation)
    pictures: dict[str, dict[str, Any]] = {}
    lost: list[str] = []
    for picture in dict.fromkeys(name for turn in turns for name in (*turn.uploads, turn.picture) if name):
        data = _read(store, picture)
        if data is None:
            lost.append(picture)
            continue
        file = f"pictures/{picture}.png"
        pictures[picture] = {"file": file, "sha256": hashlib.sha256(data).hexdigest()}
        archive.writestr(zipfile.ZipInfo(folder + file, _now()), data)  # a PNG is compressed already
    record = {
        "format": FORMAT,
        "version": VERSION,
        **{key: value for key, value in asdict(conversation).items() if key not in ("id", "owner")},
        "turns": [_turn_record(store, turn, pictures) for turn in turns],
        "pictures": pictures,
    }
    path = store.path(conversation.leaf)
    read = {
        RECORD: json.dumps(record, ensure_ascii=False, indent=1),
        "conversation.md": as_markdown(conversation, path, pictures, texts),
        "conversation.html": as_html(store, conversation, path, pictures, texts),
    }
    for name, text in read.items():
        archive.writestr(zipfile.ZipInfo(folder + name, _now()), text.encode("utf-8", "replace"), zipfile.ZIP_DEFLATED)
    return len(pictures), lost


def _turn_record(store: Store, turn: Turn, pictures: Mapping[str, Any]) -> dict[str, Any]:
    record = {key: value for key, value in asdict(turn).items() if key != "conversation"}
    record["uploads"] = [name for name in turn.uploads if name in pictures]
    record["picture"] = turn.picture if turn.picture in pictures else None
    rating = store.rating(turn.id)
    if rating is not None:
        record["rating"] = {"verdict": rating.verdict, "prompt": rating.prompt, "created": rating.created}
    return record


def as_markdown(conversation: Conversation, path: Sequence[Turn], pictures: Mapping[str, Any], texts: Texts) -> str:
    """The path, with relative links to the pictures."""

    def picture(name: str | None, words: str) -> list[str]:
        return [f"![{_plain(words)}]({pictures[name]['file']})"] if name and name in pictures else []

    parts = [f"# {_plain(conversation.title or texts.untitled)}", "*" + _plain(_facts(conversation, texts)) + "*"]
    for turn in path:
        parts += [f"**{texts.you}:**", _plain(turn.said), *(p for name in turn.uploads for p in picture(name, ""))]
        parts += ["**Easel:**", _plain(turn.text), *picture(turn.picture, turn.prompt)]
        if turn.prompt:
            parts.append(f"*{_plain(' '.join(turn.prompt.split()))}* ({texts.seed} {turn.seed})")
        parts.append(_plain(_ended(turn)))
    return "\n\n".join(part for part in parts if part) + "\n"


def as_html(
    store: Store, conversation: Conversation, path: Sequence[Turn], pictures: Mapping[str, Any], texts: Texts
) -> str:
    """The path as one page with its pictures inside."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    def data_url(name: str | None) -> str:
        data = _read(store, name) if name is not None and name in pictures else None
        return "data:image/png;base64," + base64.b64encode(data).decode("ascii") if data else ""

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "static"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    turns = [
        {
            "said": turn.said, "uploads": [url for url in map(data_url, turn.uploads) if url], "text": turn.text,
            "picture": data_url(turn.picture), "prompt": turn.prompt, "seed": turn.seed, "error": _ended(turn),
        }
        for turn in path
    ]  # fmt: skip
    return environment.get_template("conversation.html.jinja").render(
        title=conversation.title or texts.untitled, facts=_facts(conversation, texts), turns=turns, texts=texts
    )


def _facts(conversation: Conversation, texts: Texts) -> str:
    date = datetime.fromtimestamp(conversation.created, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{date} · {texts.seed} {conversation.seed} · {conversation.profile}"


def _ended(turn: Turn) -> str:
    """Why there is no reply, if there is none."""
    return turn.error or (INTERRUPTED if turn.status in IN_FLIGHT else "")


def _plain(text: str) -> str:
    """Text that Markdown shows as it stands, and that is still easy to read as it is."""
    text = re.sub(r"([\\`*_\[\]<&~|])", r"\\\1", text.strip())
    text = re.sub(r"^(\s*)([-+=>#:])", r"\1\\\2", text, flags=re.MULTILINE)
    text = re.sub(r"^(\s*\d+)(?=[.)])", r"\1\\", text, flags=re.MULTILINE)
    return text.replace("\n", "  \n")


def _read(store: Store, picture: str) -> bytes | None:
    try:
        return store.picture_path(picture).read_bytes()
    except (NotFound, FileNotFoundError):
        return None
    except OSError as error:
        raise StoreError(f"A picture cannot be read. {error}.") from error


def _now() -> tuple[int, int, int, int, int, int]:
    return time.localtime()[:6]


# Import

_Name = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
_Id = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_Seed = Annotated[int, Field(ge=0, lt=2**53, strict=True)]
_Time = Annotated[float, Field(ge=0, le=LAST_SECOND, allow_inf_nan=False)]
_Number = Annotated[float, Field(allow_inf_nan=False)]


_Text = Annotated[str, StringConstraints(max_length=MOST_TEXT)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _RatingRecord(_Part):
    verdict: Verdict
    prompt: str
    created: _Time


class _TurnRecord(_Part):
    id: _Id
    parent: _Id | None
    said: _Text
    uploads: Annotated[tuple[_Name, ...], Field(max_length=100)]
    mode: Mode
    status: Status
    seed: _Seed
    settings: dict[str, Any]
    created: _Time
    text: _Text
    prompt: _Text
    picture: _Name | None
    switched: bool
    raw: _Text
    draw_probability: Annotated[float, Field(ge=0, le=1)] | None
    error: _Text
    timings: dict[str, _Number] | None
    seeds: Seeds = "inherit"
    varies: _Id | None = None
    base: _Id | None = None
    adapter: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = ""
    rating: _RatingRecord | None = None

    @model_validator(mode="after")
    def _is_possible(self) -> _TurnRecord:
        _check_settings(self.settings)
        return self


class _PictureRecord(_Part):
    file: str
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Record(_Part):
    format: Literal["easel-conversation"]
    version: Literal[1]
    title: str
    profile: str
    seed: _Seed
    locked: bool = False  # so it was before there were three ways
    seeds: Seeds = "inherit"
    settings: dict[str, Any]
    leaf: _Id | None
    created: _Time
    updated: _Time
    turns: Annotated[tuple[_TurnRecord, ...], Field(max_length=MOST_TURNS)]
    pictures: dict[_Name, _PictureRecord]

    @model_validator(mode="after")
    def _is_possible(self) -> _Record:
        _check_settings(self.settings)
        known: dict[str, _TurnRecord] = {}
        for turn in self.turns:  # parents come first, so there is no cycle
            if turn.parent is not None and turn.parent not in known:
                raise ValueError(f"the turns are no tree: the parent of turn {turn.id} does not stand before it")
            if turn.id in known:
                raise ValueError(f"there are two turns {turn.id}")
            for other in filter(None, (turn.base, turn.varies)):
                if other not in known or known[other].parent != turn.parent:
                    raise ValueError(f"turn {turn.id} is made of another that is not beside it")
            known[turn.id] = turn
            if unnamed := {*turn.uploads, *filter(None, [turn.picture])} - set(self.pictures):
                raise ValueError(f"picture {min(unnamed)} is not listed")
        if not self.turns:
            raise ValueError("it has no turns")
        if self.leaf is not None and self.leaf not in known:
            raise ValueError(f"there is no turn {self.leaf} to end with")
        return self


def _check_settings(settings: Mapping[str, Any]) -> None:
    try:
        PROFILES["storybook"].read_settings(settings)
    except EaselError as error:
        raise ValueError(str(error)) from error


def _opened(source: Path) -> zipfile.ZipFile:
    try:
        with source.open("rb") as file:  # all of the directory would be read into memory
            file.seek(max(0, source.stat().st_size - 66_000))
            end = file.read()
        at = end.rfind(b"PK\5\6")
        if at >= 0 and int.from_bytes(end[at + 12 : at + 16], "little") > MOST_DIRECTORY:
            raise InputRefused(f"{source.name} holds too many entries. Export the conversations one by one.")
        return zipfile.ZipFile(source)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise InputRefused(f"{source.name} is no ZIP file. Choose a file that Easel exported.") from error
    except OSError as error:
        raise InputRefused(f"{source.name} cannot be read: {error.strerror or error}.") from error


def unpacked_size(source: Path) -> int:
    """The bytes that a file would unpack to, as its directory says; `unpack` reads no more of an entry than that.
    Raises InputRefused."""
    with _opened(source) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def unpack(store: Store, owner: str, source: Path) -> list[Conversation]:
    """The conversations of a file, as new ones of this user. Raises InputRefused or StoreError, and then nothing has
    been kept."""
    with _opened(source) as archive:
        _check_entries(archive)
        records = {name[: -len(RECORD)]: _read_record(archive, name) for name in _record_names(archive)}
        for _ in _pictures(archive, records):
            pass  # all are checked before one is kept
        rows = [_rows(owner, record) for record in records.values()]
        store.import_conversations(
            [conversation for conversation, _, _ in rows],
            [turn for _, turns, _ in rows for turn in turns],
            [rating for _, _, ratings in rows for rating in ratings],
            _pictures(archive, records),
        )
    return [store.conversation(owner, conversation.id) for conversation, _, _ in rows]


def _check_entries(archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in entry.filename:
            raise InputRefused(f"The file was made to do harm: it holds {entry.filename!r}, outside its own folder.")
    if len({entry.filename for entry in entries}) < len(entries):
        raise InputRefused("The file holds two entries of one name. Export it again.")
    if len(entries) > MOST_ENTRIES or sum(entry.file_size for entry in entries) > MOST_BYTES:
        raise InputRefused(
            f"The file would unpack to more than {MOST_BYTES // 2**30} GB or {MOST_ENTRIES:,} entries. "
            "Export the conversations one by one."
        )


def _record_names(archive: zipfile.ZipFile) -> list[str]:
    names = [name for name in archive.namelist() if PurePosixPath(name).name == RECORD]
    if not names:
        raise InputRefused(f"The file holds no conversation: {RECORD} is missing. Choose a file that Easel exported.")
    return sorted(names)


def _read_record(archive: zipfile.ZipFile, name: str) -> _Record:
    try:
        values = json.loads(_entry(archive, name, MOST_RECORD_BYTES))
    except (ValueError, RecursionError) as error:
        raise InputRefused(f"{name} is damaged. Export the conversation again.") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise InputRefused(f"{name} is no conversation of Easel's. Choose a file that Easel exported.")
    version = values.get("version")
    if isinstance(version, int) and version > VERSION:
        raise InputRefused("The file was written by a newer Easel. Update Easel, then import it.")
    try:
        return _Record.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        what = str(first["msg"]).removeprefix("Value error, ").rstrip(".")
        raise InputRefused(f"{name} is damaged ({where + ': ' if where else ''}{what}). Export it again.") from error


def _pictures(archive: zipfile.ZipFile, records: Mapping[str, _Record]) -> Iterator[tuple[bytes, int, int]]:
    for folder, record in records.items():
        for name, picture in record.pictures.items():
            if picture.file != f"pictures/{name}.png" or folder + picture.file not in archive.NameToInfo:
                raise InputRefused(f"A picture is missing: {folder}{picture.file}. Export the conversation again.")
            data = _entry(archive, folder + picture.file, MOST_PICTURE_BYTES)
            if hashlib.sha256(data).hexdigest() != picture.sha256 or picture_id(data) != name:
                raise InputRefused(f"A picture was altered: {folder}{picture.file}. Export the conversation again.")
            yield data, *_measure(folder + picture.file, data)


def _measure(file: str, data: bytes) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("PNG",)) as image:  # reads the header only
                if image.width * image.height > MOST_PIXELS:
                    raise InputRefused(f"{file} is too large: at most {MOST_PIXELS // 10**6} megapixels can be read.")
                image.load()
                return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputRefused(f"{file} is no PNG that can be read. Export the conversation again.") from error


def _entry(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    if archive.getinfo(name).file_size > most:
        raise InputRefused(f"{name} is too large: at most {most // 2**20} MB can be read.")
    try:
        return archive.read(name)
    except Exception as error:  # whatever the decompressors raise for damaged data
        raise InputRefused(f"{name} is damaged ({error}). Export the conversation again.") from error


def _rows(owner: str, record: _Record) -> tuple[Conversation, list[Turn], list[Rating]]:
    """With ids of their own: a conversation may be imported beside the one that it was exported from."""
    ids = {turn.id: secrets.token_hex(12) for turn in record.turns}
    leaf = record.leaf or record.turns[-1].id  # without one it would be listed nowhere
    conversation = Conversation(
        id=secrets.token_hex(12), owner=owner, title=record.title.strip()[:MOST_TITLE], profile=record.profile,
        seed=record.seed, seeds="lock" if record.locked else record.seeds, settings=record.settings, leaf=ids[leaf],
        created=record.created, updated=time.time(),
    )  # fmt: skip
    turns, ratings = [], []
    for turn in record.turns:
        values = turn.model_dump(exclude={"rating"})
        values.update(
            id=ids[turn.id],
            conversation=conversation.id,
            parent=ids[turn.parent] if turn.parent else None,
            base=ids[turn.base] if turn.base else None,
            varies=ids[turn.varies] if turn.varies else None,
            timings=turn.timings or {},
        )
        if turn.status in IN_FLIGHT:  # when it was exported; nobody works on it here
            values.update(status="failed", error=INTERRUPTED)
        turns.append(Turn(**values))
        if turn.rating is not None:
            ratings.append(Rating(ids[turn.id], turn.rating.verdict, turn.rating.prompt, turn.rating.created))
    return conversation, turns, ratings
