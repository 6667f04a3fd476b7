"""Messages: what is refused, and the rule that makes model input of a conversation."""

from __future__ import annotations

import base64
import io
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dialog_mllm.errors import MessageError
from dialog_mllm.messages import MAX_TEXT, ImageBlock, Message, TextBlock, arrange, escape_user_text, to_chat
from dialog_mllm.protocol import TOKENS


def picture(colour: str, size: tuple[int, int] = (32, 32)) -> ImageBlock:
    return ImageBlock.from_picture(Image.new("RGB", size, colour))


def colours(message: Message) -> list[tuple[int, ...]]:
    return [block.open().getpixel((0, 0)) for block in message.images]  # type: ignore[misc]


RED, GREEN, BLUE = picture("#f00"), picture("#0f0"), picture("#00f")


def test_a_drawn_picture_moves_to_the_front_of_the_next_user_message() -> None:
    conversation = [
        Message.user("draw a fox"),
        Message.assistant("<draw>a fox", RED),
        Message.user("like this?", [BLUE]),
        Message.assistant("<draw>a blue fox", GREEN),
    ]
    arranged = arrange(conversation)
    assert [message.role for message in arranged] == ["user", "assistant", "user", "assistant"]
    assert arranged[2].content == (RED, BLUE, TextBlock("like this?"))
    assert not any(message.images for message in arranged if message.role == "assistant")


def test_only_the_newest_pictures_are_kept() -> None:
    conversation = [
        Message.user("", [RED, RED]),
        Message.assistant("<draw>a fox", GREEN),
        Message.user("and this", [BLUE]),
    ]
    arranged = arrange(conversation, max_images=2)
    assert colours(arranged[2]) == [(0, 255, 0), (0, 0, 255)]
    assert not arranged[0].images
    assert arranged[0].text.strip()
    assert not any(message.images for message in arrange(conversation, max_images=0))


def test_typed_tokens_stay_text() -> None:
    typed = "what does <draw> do? a<b <|im_end|><image><"
    chat = to_chat([Message.user(typed), Message.assistant("<switch><draw>a fox <draw>"), Message.user("ok")])
    sent = chat[0]["content"][0]["text"]
    assert not any(token in sent for token in TOKENS)
    assert sent.replace("\u2060", "") == typed  # looks the same
    assert chat[1]["content"] == "<switch><draw>a fox <\u2060draw>"  # the leading tokens are meant


def test_escaping_leaves_no_token_even_across_blocks() -> None:
    rng = random.Random(0)
    for _ in range(2_000):
        parts = rng.choices(["<", "<dr", "aw>", "draw>", "<draw>", "\u2060", " "], k=4)
        assert not any(token in "".join(map(escape_user_text, parts)) for token in TOKENS)


def test_pictures_are_sent_small_upright_and_opaque() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    stream = io.BytesIO()
    Image.new("RGB", (1600, 800), "red").save(stream, "JPEG", exif=exif)
    clear = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(clear, "PNG")
    chat = to_chat([Message.user("", [ImageBlock(data=stream.getvalue()), ImageBlock(data=clear.getvalue())])])
    urls = [part["image_url"]["url"] for part in chat[0]["content"]]
    assert all(url.startswith("data:image/png;base64,") for url in urls)
    large, white = (Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls)
    assert large.size == (256, 512)
    assert (white.mode, white.getpixel((0, 0))) == ("RGB", (255, 255, 255))


@pytest.mark.parametrize("size", [(8, 6), (6, 8), (9, 2), (5, 1)])
def test_for_a_model_of_squares_a_picture_is_mirrored_at_its_edges(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), np.uint8)
    message = Message.user("", [ImageBlock.from_picture(Image.fromarray(pixels))])
    sent = []
    for squares in (False, True):
        url = to_chat([message], squares=squares)[0]["content"][0]["image_url"]["url"]
        sent.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))))
    plain, square = sent
    assert np.array_equal(plain, pixels) and square.shape == (max(size), max(size), 3)
    left, top = ((max(size) - side) // 2 for side in size)
    assert np.array_equal(square[top : top + size[1], left : left + size[0]], pixels)
    if size == (8, 6):
        assert np.array_equal(square[0], pixels[1]) and np.array_equal(square[-1], pixels[-2])


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "empty"),
        ([Message.assistant("hi")], "out of order"),
        ([Message.user("a"), Message.user("b")], "out of order"),
        ([Message("system", (TextBlock("be kind"),))], "empty"),
        ([Message.user("a"), Message("system", (TextBlock("b"),))], "out of order"),
    ],
)
def test_the_order_is_checked(messages: list[Message], reason: str) -> None:
    with pytest.raises(MessageError, match=reason):
        to_chat(messages)


def test_a_system_message_may_come_first() -> None:
    assert to_chat([Message("system", (TextBlock("be kind"),)), Message.user("hi")])[0]["content"] == "be kind"


def test_what_is_no_message() -> None:
    with pytest.raises(MessageError, match="empty"):
        Message.user("  \n")
    with pytest.raises(MessageError, match="20,000 characters"):
        Message.user("x" * 20_000)
    assert Message.user("x" * MAX_TEXT)
    with pytest.raises(MessageError, match="Unknown role"):
        Message("robot", (TextBlock("hi"),))  # type: ignore[arg-type]
    with pytest.raises(MessageError, match="blocks"):
        Message("user", ("hi",))  # type: ignore[arg-type]
    with pytest.raises(MessageError, match="either"):
        ImageBlock()


def huge_png(edge: int) -> bytes:
    """A valid PNG of edge x edge pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", edge, edge, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((edge // 8 + 1) * edge))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_bad_pictures(tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    with pytest.raises(MessageError, match=r"notes\.png is not a picture"):
        ImageBlock(path=text).open()
    with pytest.raises(MessageError, match="not there any more"):
        ImageBlock(path=tmp_path / "gone.png").open()
    with pytest.raises(MessageError, match="too large"):
        ImageBlock(data=huge_png(20_000)).open()
    with pytest.raises(MessageError, match="too large"):
        ImageBlock(data=huge_png(9_000)).open()
    with pytest.raises(MessageError, match="not a picture"):
        ImageBlock(data=RED.data[:60]).open()  # type: ignore[index]


def test_records_read_back(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), "blue").save(tmp_path / "x.png")
    record = {
        "role": "assistant",
        "content": [{"type": "text", "text": "<draw>a fox"}, {"type": "image", "path": "x.png", "sha256": "abc"}],
    }
    message = Message.from_json(record, tmp_path)
    assert (message.text, colours(message), message.images[0].sha256) == ("<draw>a fox", [(0, 0, 255)], "abc")
    with pytest.raises(MessageError, match="Unknown content block"):
        Message.from_json({"role": "user", "content": [{"type": "sound"}]}, tmp_path)


def test_messages_and_client_are_light() -> None:
    heavy = "{'torch', 'vllm', 'transformers'}"
    code = f"import sys, dialog_mllm.client, dialog_mllm.server; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
