from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from app.errors import InputRefused
from app.pictures import LONGEST_EDGE, MOST_BYTES, read_upload


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(side: int) -> bytes:
    """A small file that claims side × side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures_become_rgb(kind: str) -> None:
    picture = read_upload(encode(Image.new("RGB", (40, 30), (200, 30, 30)), kind))
    assert (picture.mode, picture.size) == ("RGB", (40, 30))
    for band, value in zip(picture.split(), (200, 30, 30), strict=True):
        assert abs(band.histogram().index(max(band.histogram())) - value) < 8


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_any_mode(mode: str) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert read_upload(encode(Image.new("RGB", (20, 20), "white").convert(mode), kind)).mode == "RGB"


def test_transparent_is_over_white() -> None:
    assert read_upload(encode(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG")).getpixel((4, 4)) == (255, 255, 255)


def test_phones_hold_pictures_sideways() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    assert read_upload(encode(Image.new("RGB", (60, 20)), "JPEG", exif=exif)).size == (20, 60)


def test_large_ones_are_kept_smaller() -> None:
    assert read_upload(encode(Image.new("RGB", (3000, 1500)), "PNG")).size == (LONGEST_EDGE, LONGEST_EDGE // 2)


def test_a_text_file_renamed_png(tmp_path: Path) -> None:
    file = tmp_path / "notes.png"
    file.write_text("this is no picture")
    with pytest.raises(InputRefused, match=r"notes.png is not a picture that can be read. Use a PNG, JPEG or WebP"):
        read_upload(file)


def test_a_bomb_is_refused_by_its_header() -> None:
    data = bomb(20_000)
    assert len(data) < 1_000_000
    with pytest.raises(InputRefused, match=r"too large. Use a picture of at most 40 megapixels"):
        read_upload(data)


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", encode(Image.new("RGB", (9, 9)), "GIF"), encode(Image.new("RGB", (64, 64)), "PNG")[:70]]
)
def test_other_things_are_refused(data: bytes) -> None:
    with pytest.raises(InputRefused, match="not a picture"):
        read_upload(data)


def test_too_many_bytes(tmp_path: Path) -> None:
    file = tmp_path / "big.png"
    with file.open("wb") as stream:
        stream.truncate(MOST_BYTES + 1)
    with pytest.raises(InputRefused, match="larger than 20 MB"):
        read_upload(file)
    with pytest.raises(InputRefused, match="Upload it again"):
        read_upload(tmp_path / "gone.png")
