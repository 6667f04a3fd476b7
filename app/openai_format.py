"""OpenAI's request shapes, and the way from a list of chat messages to a conversation that `take_turn` continues.

past = read_messages(body.messages, store, settings, body.seed, caller)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from app.caller import PROGRAM, Caller
from app.conversation import UserMessage, check_message, check_unicode
from app.errors import InputRefused, NotFound
from app.pictures import MOST_BYTES, read_upload
from app.profiles import Settings, parse_size
from app.store import LARGEST_SEED, Conversation, Store, Turn
from dialog_mllm.messages import MAX_TEXT, escape_user_text
from dialog_mllm.protocol import DRAW, SWITCH

MOST_MESSAGES = 400
LONGEST_ADDRESS = 2_000
MOST_PICTURES = 64  # in one request: each is decoded, whatever the dialog model looks at
_PICTURE_ADDRESS = r"(?:https?://[^\s)/]+)?(?:/[^\s)]*)?/v1/pictures/([0-9a-f]{32})\.png"
_PICTURE = re.compile(r"!\[((?:\\.|[^\[\]\\])*)\]\(" + _PICTURE_ADDRESS + r"\)")  # no "[": else its time is quadratic
_OWN_ADDRESS = re.compile(_PICTURE_ADDRESS)
_DATA_URL = re.compile(r"data:image/(?:png|jpe?g|webp)(?:;[\w.=-]+)*;base64,", re.IGNORECASE)


class EaselOptions(BaseModel):
    """Ours, beside OpenAI's fields: "easel": {"mode": "draw", "size": "128x128", "steps": 20, "style": "pencil"}"""

    model_config = ConfigDict(extra="forbid")
    mode: Literal["auto", "draw", "talk"] = "auto"
    size: str | None = None
    steps: int | None = None
    guidance: float | None = None
    style: str | None = None

    def settings(self) -> dict[str, Any]:
        values = {"steps": self.steps, "guidance": self.guidance, "style": self.style}
        values |= parse_size(self.size) if self.size else {}
        return {name: value for name, value in values.items() if value is not None}


class ChatMessage(BaseModel):
    role: str
    content: str | list[dict[str, Any]] | None = None


class ChatRequest(BaseModel):
    """Fields of OpenAI's that make no sense here (temperature, tools, …) are let by."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "easel",
                    "messages": [
                        {"role": "user", "content": "draw a red fox in the snow"},
                        {"role": "assistant", "content": f"![A red fox.](http://…/v1/pictures/{'0' * 32}.png)"},
                        {"role": "user", "content": "give it a blue scarf"},
                    ],
                }
            ]
        }
    )
    model: str | None = None
    messages: list[ChatMessage] = Field(
        min_length=1,
        max_length=MOST_MESSAGES,
        description="role: system, user or assistant; content: text, or parts {type: text, text} and {type: image_url,"
        " image_url: {url}}, where url is data:image/png;base64,… or a picture of this server. Nothing is fetched",
    )
    seed: int | None = Field(
        default=None, ge=0, le=2**63 - 1, description="Else it follows from the first user message"
    )
    stream: bool | None = False
    n: int | None = Field(default=None, description="1, if anything")
    easel: EaselOptions = Field(
        default=EaselOptions(), description="Ours: mode is auto, draw or talk; size is WIDTHxHEIGHT"
    )


class ImagesRequest(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "a red fox in the snow", "seed": 7}]})
    prompt: str = Field(description="Drawn as it is: no model rewrites it")
    model: str | None = None
    n: int = Field(default=1, description="1 to 4 pictures, of seeds in a row")
    size: str | None = Field(default=None, description="WIDTHxHEIGHT, or auto")
    seed: int | None = Field(default=None, ge=0, le=2**63 - 1 - 16)
    response_format: str = Field(default="url", description="url or b64_json")
    negative_prompt: str = ""
    steps: int | None = None
    guidance: float | None = None


@dataclass(frozen=True)
class Past:
    """A request as `take_turn` wants it."""

    conversation: Conversation
    message: UserMessage
    turns: RequestTurns
    system: str


class RequestTurns:
    """The turns of one request. They live as long as it does; their pictures are the store's."""

    def __init__(self, store: Store, caller: Caller) -> None:
        self._store = store
        self._caller = caller
        self._turns: dict[str, Turn] = {}

    def begin_turn(
        self, conversation: Conversation, parent: str | None, said: str, uploads: tuple[str, ...], mode: str, seed: int
    ) -> Turn:
        turn = Turn(
            id=str(len(self._turns)), conversation=conversation.id, parent=parent, said=said, uploads=uploads,
            mode=mode, status="thinking", seed=seed, settings=conversation.settings, created=time.time(),
        )  # fmt: skip
        self._turns[turn.id] = turn
        return turn

    def update_turn(self, turn_id: str, **changes: Any) -> Turn:
        self._turns[turn_id] = turn = replace(self._turns[turn_id], **changes)
        return turn

    def turn(self, turn_id: str) -> Turn:
        return self._turns[turn_id]

    def path(self, leaf: str | None) -> list[Turn]:
        path: list[Turn] = []
        while leaf is not None:
            path.append(self._turns[leaf])
            leaf = path[-1].parent
        return path[::-1]

    def add_picture(self, picture: Image.Image, info: dict[str, str] | None = None) -> str:
        return self._store.add_picture(picture, info, keep=True, owner=self._caller.owner)  # the client is told of it

    def picture_path(self, picture_id: str) -> Path:
        return self._store.picture_path(picture_id, self._caller.viewer)


def read_messages(
    messages: Sequence[ChatMessage], store: Store, settings: Settings, seed: int | None, caller: Caller = PROGRAM
) -> Past:
    """The last user message, and before it the turns. Several messages in a row of one role are read as one."""
    system, spoken = _group(messages, store, caller)
    if not spoken or spoken[-1].role != "user":
        raise InputRefused("The last message must be the user's.")
    if spoken[0].role == "assistant":
        spoken = spoken[1:]  # a front end's greeting
    last = spoken[-1]
    message = UserMessage(last.text, tuple(last.pictures))
    check_message(message)  # before any of the pictures is kept
    first = spoken[0]
    conversation = Conversation(
        # Programs name no conversation: it is known by how it began.
        id=f"request-{derive_seed(first.text)}", owner=caller.owner, title="", profile="",
        seed=derive_seed(first.text) if seed is None else seed, seeds="lock", settings=settings.to_json(), leaf=None,
        created=0.0, updated=0.0,
    )  # fmt: skip
    turns = RequestTurns(store, caller)
    parent: str | None = None
    for user, assistant in zip(spoken[:-1:2], spoken[1::2], strict=True):
        uploads = tuple(
            turns.add_picture(read_upload(data)) if isinstance(data, bytes) else data for data in user.pictures
        )
        turn = turns.begin_turn(conversation, parent, user.text, uploads, "auto", conversation.seed)
        reply = _read_reply(assistant.text, store, caller)
        if reply:
            turns.update_turn(turn.id, status="done", **reply)
            parent = turn.id
    return Past(replace(conversation, leaf=parent), message, turns, system)


def derive_seed(first_message: str) -> int:
    """The seed of a conversation that nobody keeps: the same at every turn, since the first message is."""
    return int.from_bytes(hashlib.sha256(first_message.strip().encode()).digest()[:4]) & LARGEST_SEED


def picture_markdown(prompt: str, url: str) -> str:
    caption = re.sub(r"([\[\]\\])", r"\\\1", " ".join(prompt.split()))
    return f"![{caption}]({url})"


@dataclass
class _Spoken:
    role: str
    text: str
    pictures: list[bytes | str]  # uploads, and ids of pictures that are here


def _group(messages: Sequence[ChatMessage], store: Store, caller: Caller) -> tuple[str, list[_Spoken]]:
    system: list[str] = []
    spoken: list[_Spoken] = []
    for number, message in enumerate(messages):
        role = "system" if message.role == "developer" else message.role
        text, pictures = _read_content(message.content, store, caller, f"messages.{number}")
        check_unicode(text, f"messages.{number}")
        if len(text) > MAX_TEXT and role != "user":  # a user's text has its own, closer limit and message
            raise InputRefused(f"messages.{number} has {len(text):,} characters; at most {MAX_TEXT:,} can be read.")
        if role == "system":
            system.append(text)
        elif role not in ("user", "assistant"):
            raise InputRefused(
                f"messages.{number}: there is no role {message.role!r} here. Use system, user or assistant."
            )
        elif spoken and spoken[-1].role == role:
            spoken[-1].text = "\n".join(part for part in (spoken[-1].text, text) if part)
            spoken[-1].pictures += pictures
        else:
            spoken.append(_Spoken(role, text, pictures))
    if sum(len(message.pictures) for message in spoken) > MOST_PICTURES:
        raise InputRefused(f"A request can hold at most {MOST_PICTURES} pictures. Leave out the oldest.")
    return "\n".join(system), spoken


def _read_content(
    content: str | list[dict[str, Any]] | None, store: Store, caller: Caller, where: str
) -> tuple[str, list[bytes | str]]:
    if content is None or isinstance(content, str):
        return content or "", []
    texts: list[str] = []
    pictures: list[bytes | str] = []
    for part in content:
        kind = part.get("type")
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url":
            address = part.get("image_url")
            url = address.get("url") if isinstance(address, dict) else address
            pictures.append(_read_url(url, store, caller, where))
        else:
            raise InputRefused(f"{where}: a content part is {{type: text, text}} or {{type: image_url, image_url}}.")
    return "\n".join(texts), pictures


def _read_url(url: Any, store: Store, caller: Caller, where: str) -> bytes | str:
    """Data URLs and our own pictures. No other address is ever opened: the server fetches nothing for anybody."""
    if isinstance(url, str) and url[:5].lower() == "data:":
        if (head := _DATA_URL.match(url)) is None:
            raise InputRefused(
                f"{where}: a picture's data URL begins with data:image/png;base64, (or image/jpeg, image/webp)."
            )
        if len(url) > MOST_BYTES * 4 // 3 + 100:
            raise InputRefused(f"{where}: the picture is larger than {MOST_BYTES // 2**20} MB. Send it smaller.")
        try:
            return base64.b64decode(url[head.end() :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise InputRefused(f"{where}: the data URL is not valid base64.") from error
    if isinstance(url, str) and len(url) < LONGEST_ADDRESS and (match := _OWN_ADDRESS.fullmatch(url)):
        store.picture_path(match[1], caller.viewer)
        return match[1]
    raise InputRefused(f"{where}: send the picture itself, as data:image/png;base64,… Other addresses are not fetched.")


def _read_reply(text: str, store: Store, caller: Caller) -> dict[str, Any]:
    """An assistant's text as the fields of a turn: drawn if it holds one of our pictures."""
    text = text.strip()
    match = _PICTURE.search(text)
    if match is None:
        # Our own replies never begin with a token: who sends one back typed it.
        text = escape_user_text(text) if text.startswith((DRAW, SWITCH)) else text
        return {"text": text} if text else {}
    prompt = re.sub(r"\\(.)", r"\1", match[1]).strip()
    try:
        # The picture itself knows its prompt, whatever a front end made of the Markdown.
        prompt = store.picture_info(match[2], caller.viewer).get("prompt", prompt)
    except NotFound:
        return {"text": f"[{prompt}]"} if prompt else {}
    return {"text": text[: match.start()].strip(), "prompt": prompt, "picture": match[2]} if prompt else {}
