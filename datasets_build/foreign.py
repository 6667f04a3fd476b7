"""Rows of public instruction sets, of four schemas, as the messages of our records, with their pictures made sound.

    record, files = to_record({"conversations": [...]}, KINDS["sharegpt"], None)

What cannot be used is Refused, with a reason. `importing.py` says what becomes of what.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from datasets_build.consistency import chinese_share
from datasets_build.shards import content_key
from datasets_build.storybook.scene import TEST_SHARE, VALIDATION_SHARE
from dialog_mllm.messages import DRAW, MAX_IMAGE_PIXELS, MAX_TEXT, SWITCH, escape_user_text, upright

Row = Mapping[str, Any]
Blocks = list[str | bytes]  # texts, and pictures as the bytes of their files
Said = list[tuple[str, Blocks]]  # role and content of each message

PLACEHOLDER = "<image>"
ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant",
    "model": "assistant", "system": "system",
}  # fmt: skip
MAX_TOKENS = 2048  # what the bundled model reads: dialog_mllm.tokenizer.CONTEXT, whose module imports transformers
PICTURE_TOKENS, MESSAGE_TOKENS = 19, 2  # what a picture and a message take beside the text
CHINESE, ENGLISH = 0.3, 0.96  # shares from which a text is Chinese (of its words), or English (of its letters)
_LETTER = re.compile(r"[^\W\d_]")
_OTHER_SCRIPTS = re.compile(r"[぀-ヿ가-힣]")


class Refused(Exception):
    """This row cannot be used. `reason` is one of few, and counted; the text says more."""

    def __init__(self, reason: str, more: str = "") -> None:
        super().__init__(f"{reason}: {more}" if more else reason)
        self.reason = reason


# ------------------------------------------------------------------------------------------------ rows of each kind


@dataclass(frozen=True)
class Kind:
    column: str  # that every row has
    about: str
    read: Callable[[Row, Path | None], Said]


def _conversations(row: Row, images: Path | None) -> Said:
    pictures = _pictures(row.get("image"), images)
    said: Said = []
    for turn in _turns(row, "conversations", ("from", "value")):
        first, *rest = _text(turn["value"]).split(PLACEHOLDER)
        blocks: Blocks = [first]
        for text in rest:
            if not pictures:
                raise Refused("more places for pictures than pictures")
            blocks += [pictures.pop(0), text]
        said.append((_role(turn["from"]), blocks))
    if pictures and any(isinstance(block, bytes) for _, blocks in said for block in blocks):
        raise Refused("more pictures than places for them")
    user = next((blocks for role, blocks in said if role == "user"), [])
    user[:0] = pictures  # a set that marks no place shows its pictures first
    return said


def _plain(row: Row, images: Path | None) -> Said:
    return [(_role(turn["from"]), [_text(turn["value"])]) for turn in _turns(row, "conversations", ("from", "value"))]


def _chat(row: Row, images: Path | None) -> Said:
    pictures = _pictures(row.get("images"), images)
    said: Said = []
    for message in _turns(row, "messages", ("role", "content")):
        if message.get("tool_calls") or message.get("function_call"):
            raise Refused("calls a tool")
        content = message["content"]
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        said.append((_role(message["role"]), [_part(part, pictures, images) for part in parts]))
    if pictures:
        raise Refused("more pictures than places for them")
    return said


KINDS = {
    "llava": Kind("conversations", "conversations of from and value, <image> in them, and image", _conversations),
    "sharegpt4v": Kind("conversations", "as llava", _conversations),
    "sharegpt": Kind("conversations", "conversations of from and value", _plain),
    "chat": Kind("messages", "messages of role and content", _chat),
}


def _turns(row: Row, column: str, keys: tuple[str, str]) -> list[Mapping[str, Any]]:
    turns = row.get(column)
    if not isinstance(turns, list):
        raise Refused("another schema", f"{column!r} is no list")
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict):
            raise Refused("another schema", f"entry {number} of {column!r} is no object")
        if missing := [key for key in keys if key not in turn]:
            raise Refused("another schema", f"entry {number} of {column!r} lacks {missing[0]!r}")
    return turns


def _role(name: Any) -> str:
    if not isinstance(name, str) or name.lower() not in ROLES:
        raise Refused("a role that is neither the user's nor the assistant's", repr(name))
    return ROLES[name.lower()]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Refused("another schema", f"a text is wanted, not {type(value).__name__}")
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise Refused("half a character", repr(value)[:60])
    return value


def _part(part: Any, pictures: list[bytes], images: Path | None) -> str | bytes:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        return _text(part.get("text"))
    if kind == "image_url":
        url = part.get("image_url")
        return _picture(url.get("url") if isinstance(url, dict) else url, images)
    if kind == "image":
        given = [part[key] for key in ("image", "path", "url", "data") if part.get(key) is not None]
        if given:
            return _picture(given[0], images)
        if not pictures:
            raise Refused("more places for pictures than pictures")
        return pictures.pop(0)
    raise Refused("a part that is neither text nor picture", repr(kind))


# ---------------------------------------------------------------------------------------------------------- pictures


def _pictures(value: Any, images: Path | None) -> list[bytes]:
    if value is None or value == "":
        return []
    return [_picture(one, images) for one in (value if isinstance(value, list) else [value])]


def _picture(value: Any, images: Path | None) -> bytes:
    """The picture's file: a path in `images`, a data URL, or what `datasets` holds in place of one."""
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return value["bytes"]
    path = value.get("path") if isinstance(value, dict) else value
    if not isinstance(path, str):
        raise Refused("another schema", f"a picture is wanted, not {type(path).__name__}")
    if path.startswith("data:"):
        try:
            return base64.b64decode(path.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise Refused("a picture is broken", "its data URL is no base64") from error
    if path.startswith(("http://", "https://")):
        raise Refused("a picture is on the web", f"{path[:200]}: download it, and name it by its path")
    if images is None:
        raise Refused("a picture is missing", f"{path}: name its folder with --images")
    file = images / path
    if not file.resolve().is_relative_to(images.resolve()):
        raise Refused("a picture is missing", f"{path} leads out of {images}")
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:
        raise Refused("a picture is missing", f"there is no {path} in {images} (--images)") from error


def sound(data: bytes) -> tuple[bytes, str]:
    """The picture, upright, as the bytes and the ending of a file that every reader knows."""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.width * picture.height > MAX_IMAGE_PIXELS:
                raise Refused("a picture is too large", f"{picture.width}×{picture.height}")
            picture.load()
            turned = picture.getexif().get(0x0112, 1) != 1
            if picture.format in ("PNG", "JPEG") and not turned and getattr(picture, "n_frames", 1) == 1:
                return data, {"PNG": ".png", "JPEG": ".jpg"}[picture.format]
            buffer = io.BytesIO()
            upright(picture).save(buffer, "PNG")
            return buffer.getvalue(), ".png"
    except Image.DecompressionBombError as error:
        raise Refused("a picture is too large") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise Refused("a picture is broken", str(error)) from error


# ----------------------------------------------------------------------------------------------------------- records


def to_record(
    row: Row, kind: Kind, images: Path | None, max_tokens: int = MAX_TOKENS
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Messages, turns and language of the row's record, and its pictures by their paths in the data set."""
    files: dict[str, bytes] = {}
    messages: list[dict[str, Any]] = [
        {"role": role, "content": _content(blocks, role, files)} for role, blocks in _alternate(kind.read(row, images))
    ]
    turns, looks = [], False
    for message in messages:
        if message["role"] == "user":
            looks = looks or any(block["type"] == "image" for block in message["content"])
        else:
            turns.append({"type": "ti2t" if looks else "t2t", "request": None, "scene": None})
    texts = [block["text"] for message in messages for block in message["content"] if block["type"] == "text"]
    shown = sum(block["type"] == "image" for message in messages for block in message["content"])
    tokens = _count_tokens(texts) + shown * PICTURE_TOKENS + len(messages) * MESSAGE_TOKENS
    if tokens > max_tokens:
        raise Refused("too long", f"{tokens:,} tokens, where {max_tokens:,} can be read (--max-tokens)")
    return {"language": language_of(" ".join(texts)), "messages": messages, "turns": turns}, files


def _alternate(said: Said) -> Said:
    """The user's and the assistant's messages by turns."""
    told: Said = []
    system: Blocks = []
    for role, blocks in said:
        if role == "system":
            if told or any(isinstance(block, bytes) for block in blocks):
                raise Refused("a system message amid the conversation, or with a picture")
            system += ["\n\n", *blocks]
        elif told and told[-1][0] == role:
            told[-1][1].extend(["\n\n", *blocks])
        else:
            told.append((role, list(blocks)))
    if told and told[0][0] != "user":
        raise Refused("the assistant speaks first")
    if len(told) % 2:
        told.pop()
    if not told:
        raise Refused("no question with an answer")
    if "".join(map(str, system)).strip():
        told[0][1][:0] = [*system, "\n\n"]
    return told


def _content(blocks: Blocks, role: str, files: dict[str, bytes]) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    for block in blocks:
        if isinstance(block, bytes):
            if role != "user":
                raise Refused("a reply holds a picture")
            data, ending = sound(block)
            digest = hashlib.sha256(data).hexdigest()
            path = f"images/{digest[:2]}/{digest}{ending}"
            files[path] = data
            content.append({"type": "image", "path": path, "sha256": digest})
        elif content and content[-1]["type"] == "text":
            content[-1]["text"] += block
        else:
            content.append({"type": "text", "text": block})
    texts = [part for part in content if part["type"] == "text"]
    for part in texts:
        part["text"] = part["text"].strip()
    said = "".join(part["text"] for part in texts)
    if not said:
        raise Refused("a message without text")
    if len(said) > MAX_TEXT:
        raise Refused("too long", f"a message of {len(said):,} characters, where {MAX_TEXT:,} can be read")
    if DRAW in said or SWITCH in said:
        for part in texts:
            part["text"] = escape_user_text(part["text"])
    content = [part for part in content if part["type"] == "image" or part["text"]]
    if sum(part["type"] == "text" for part in content) == 1:
        content.sort(key=lambda part: part["type"] == "text")
    return content


def language_of(text: str) -> str:
    """Told by the script, so that French passes for English unless it is full of accents."""
    letters = _LETTER.findall(text)
    if chinese_share(text) >= CHINESE and len(_OTHER_SCRIPTS.findall(text)) < 0.02 * len(letters):
        return "zh"
    if letters and sum(letter.isascii() for letter in letters) >= ENGLISH * len(letters):
        return "en"
    raise Refused("neither English nor Chinese")


@cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(
        str(Path(__file__).parent.parent / "dialog_mllm" / "weights" / "base" / "tokenizer.json")
    )


def _count_tokens(texts: list[str]) -> int:
    """As training writes them."""
    written = [escape_user_text(text) for text in texts]
    return sum(len(encoding.ids) for encoding in _tokenizer().encode_batch(written, add_special_tokens=False))


def split_of(record: Mapping[str, Any]) -> str:
    """By the pictures where there are some, else by the words; Refused where its pictures are of several splits."""
    blocks = [block for message in record["messages"] for block in message["content"]]
    pictures = {block["sha256"] for block in blocks if block["type"] == "image"}
    splits = {_split_of(bytes.fromhex(picture)) for picture in pictures or {content_key(record).to_bytes(8).hex()}}
    if len(splits) > 1:
        raise Refused("pictures of several splits")
    return splits.pop()


def _split_of(digest: bytes) -> str:
    place = int.from_bytes(digest[:4]) / 2**32
    if place < TEST_SHARE:
        return "test"
    return "validation" if place < TEST_SHARE + VALIDATION_SHARE else "train"
