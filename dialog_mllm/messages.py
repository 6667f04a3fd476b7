"""The one message type, for training and for serving, and the rule that turns a conversation into model input.

    to_chat([Message.user("draw a red fox")])  # -> [{"role": "user", "content": [{"type": "text", "text": ...}]}]

The rule (`arrange`): the picture that a "<draw>prompt" reply drew stands in the record behind that reply. The model
sees it at the front of the next user message, because assistants carry no pictures in the OpenAI format. Only the
newest `max_images` pictures are kept. Text is escaped, so that a typed "<draw>" stays text.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from dialog_mllm.errors import MessageError
from dialog_mllm.protocol import DRAW, JOINER, SWITCH

MAX_IMAGES = 4  # that a dialog model sees at once, newest first
BUNDLED_IMAGES = 8  # the same of the bundled one, which reads a picture in 16 tokens
MAX_IMAGE_EDGE = 512  # what is sent; the model's own processor resizes further
MAX_IMAGE_PIXELS = 60_000_000  # checked in the header, before any pixel is decoded
MAX_TEXT = 8_000  # characters in one message

_LEADING_TOKENS = re.compile(f"(?:{SWITCH})?(?:{DRAW})?")


@dataclass(frozen=True)
class TextBlock:
    text: str


@dataclass(frozen=True)
class ImageBlock:
    """A picture, by path or as the bytes of its file."""

    path: str | Path | None = None
    data: bytes | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.data is None):
            raise MessageError("A picture is given either by its path or by its bytes.")

    @classmethod
    def from_picture(cls, picture: Image.Image) -> ImageBlock:
        return cls(data=_png(picture))

    def open(self) -> Image.Image:
        """The picture as RGB, upright, over white where it is transparent."""
        source = io.BytesIO(self.data) if self.data is not None else self.path
        name = Path(self.path).name if self.path is not None else "the picture"
        try:
            with Image.open(source) as picture:  # type: ignore[arg-type]
                if picture.width * picture.height > MAX_IMAGE_PIXELS:
                    raise MessageError(
                        f"{name} is too large ({picture.width}×{picture.height}). "
                        f"Use a picture of at most {MAX_IMAGE_PIXELS // 1_000_000} megapixels."
                    )
                return upright(picture)
        except Image.DecompressionBombError as error:
            raise MessageError(f"{name} is too large. Use a smaller picture.") from error
        except FileNotFoundError as error:
            raise MessageError(f"{name} is not there any more. Upload it again.") from error
        except (OSError, ValueError, SyntaxError) as error:
            raise MessageError(f"{name} is not a picture that can be read. Use PNG, JPEG or WebP.") from error


def upright(picture: Image.Image) -> Image.Image:
    """As RGB, turned as its EXIF data say, over white where it is transparent."""
    turned = ImageOps.exif_transpose(picture)
    if turned.has_transparency_data:
        turned = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", turned.size, "white"), turned)
    return turned.convert("RGB")


Block = TextBlock | ImageBlock
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    role: Role
    content: tuple[Block, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", tuple(self.content))
        if self.role not in ("system", "user", "assistant"):
            raise MessageError(f"Unknown role {self.role!r}: a message is from the system, the user or the assistant.")
        if not all(isinstance(block, TextBlock | ImageBlock) for block in self.content):
            raise MessageError("A message holds text blocks and picture blocks only.")
        if not self.text.strip() and not self.images:
            raise MessageError("The message is empty: write something or add a picture.")
        if len(self.text) > MAX_TEXT:
            raise MessageError(f"The message has {len(self.text):,} characters; at most {MAX_TEXT:,} can be read.")
        if self.role == "system" and self.images:
            raise MessageError("The system message holds text only.")

    @classmethod
    def user(cls, text: str = "", images: Iterable[ImageBlock] = ()) -> Message:
        return cls("user", (*images, *([TextBlock(text)] if text else [])))

    @classmethod
    def assistant(cls, text: str, picture: ImageBlock | None = None) -> Message:
        return cls("assistant", (TextBlock(text), *([picture] if picture else [])))

    @classmethod
    def from_json(cls, record: dict[str, Any], root: Path) -> Message:
        """A message of the data set's records; picture paths in it are relative to `root`."""
        blocks: list[Block] = []
        for block in record["content"]:
            if block["type"] == "text":
                blocks.append(TextBlock(block["text"]))
            elif block["type"] == "image":
                blocks.append(ImageBlock(path=root / block["path"], sha256=block.get("sha256")))
            else:
                raise MessageError(f"Unknown content block {block['type']!r} in a record.")
        return cls(record["role"], tuple(blocks))

    @property
    def text(self) -> str:
        return "".join(block.text for block in self.content if isinstance(block, TextBlock))

    @property
    def images(self) -> tuple[ImageBlock, ...]:
        return tuple(block for block in self.content if isinstance(block, ImageBlock))


def escape_user_text(text: str) -> str:
    """Text that looks the same and holds no special token of any tokenizer. Only the model sees it."""
    return text.replace("<", "<" + JOINER)


def arrange(messages: Sequence[Message], max_images: int = MAX_IMAGES) -> list[Message]:
    """The messages as the model sees them: pictures moved and thinned by the rule, text escaped.

    Pictures drawn by a last assistant message belong to no user message yet and are left out.
    """
    _check_order(messages)
    drawn: tuple[ImageBlock, ...] = ()
    contents: list[list[Block]] = []
    for message in messages:
        if message.role == "user":
            contents.append([*drawn, *message.content])
            drawn = ()
        else:
            contents.append([TextBlock(message.text)])
            drawn = message.images
    surplus = sum(isinstance(block, ImageBlock) for content in contents for block in content) - max_images
    arranged = []
    for message, content in zip(messages, contents, strict=True):
        blocks: list[Block] = []
        for block in content:
            if isinstance(block, TextBlock):
                blocks.append(TextBlock(_escape(block.text, message.role)))
            elif surplus > 0:
                surplus -= 1
            else:
                blocks.append(block)
        # A message that was a dropped picture alone is still a turn of the conversation.
        arranged.append(Message(message.role, tuple(blocks) or (TextBlock("…"),)))
    return arranged


def to_chat(messages: Sequence[Message], max_images: int = MAX_IMAGES, squares: bool = False) -> list[dict[str, Any]]:
    """The messages in the OpenAI format, pictures as data URLs; `squares`: see `makes_squares`."""
    chat: list[dict[str, Any]] = []
    for message in arrange(messages, max_images):
        if message.role == "user":
            chat.append({"role": "user", "content": [_part(block, squares) for block in message.content]})
        else:
            chat.append({"role": message.role, "content": message.text})
    return chat


def shown(block: ImageBlock) -> Image.Image:
    """The picture as it is sent to the model, whose processor resizes it further."""
    picture = block.open()
    picture.thumbnail((MAX_IMAGE_EDGE, MAX_IMAGE_EDGE), Image.Resampling.LANCZOS)
    return picture


def makes_squares(model: Path | str) -> bool:
    """Whether a folder's processor squeezes each picture into a square, as Idefics3's does unless it cuts them up."""
    try:
        told = json.loads((Path(model) / "processor_config.json").read_text(encoding="utf-8"))["image_processor"]
        return told["image_processor_type"] == "Idefics3ImageProcessor" and not told["do_image_splitting"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def squared(picture: Image.Image) -> Image.Image:
    """The picture in the middle of a square, mirrored at its edges, for models whose processor would squeeze it: a
    squeezed fox is not what they know."""
    across, down = (max(picture.size) - side for side in picture.size)
    if not across and not down:
        return picture
    around = [(missing // 2, missing - missing // 2) for missing in (down, across)]
    return Image.fromarray(np.pad(np.asarray(picture), (*around, (0, 0)), mode="reflect"))


def _check_order(messages: Sequence[Message]) -> None:
    turns = [message.role for message in messages]
    if turns[:1] == ["system"]:
        turns = turns[1:]
    if not turns:
        raise MessageError("The conversation is empty: write something first.")
    expected: Role = "user"
    for turn in turns:
        if turn != expected:
            raise MessageError(f"Messages out of order: before the {turn}'s there must be one of the {expected}'s.")
        expected = "assistant" if expected == "user" else "user"


def _escape(text: str, role: Role) -> str:
    """An assistant's leading protocol tokens are meant; every other "<" is text."""
    meant = _LEADING_TOKENS.match(text).end() if role == "assistant" else 0  # type: ignore[union-attr]
    return text[:meant] + escape_user_text(text[meant:])


def _part(block: Block, squares: bool) -> dict[str, Any]:
    if isinstance(block, TextBlock):
        return {"type": "text", "text": block.text}
    picture = squared(shown(block)) if squares else shown(block)
    url = "data:image/png;base64," + base64.b64encode(_png(picture)).decode("ascii")
    return {"type": "image_url", "image_url": {"url": url}}


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)  # loopback: bytes are cheaper than time
    return buffer.getvalue()
