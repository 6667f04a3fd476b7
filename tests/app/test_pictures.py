from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from app.errors import InputRefused
from app.pictures import LONGEST_EDGE, MOST_BYTES, read_upload
from app.store import Store


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int) -> bytes:
    """A small file that claims side × side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


SMALL = encode(Image.new("RGB", (64, 64), "red"), "PNG")
NOISE = Image.effect_noise((300, 300), 50).convert("RGB")


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


def test_sixteen_bits_are_scaled() -> None:
    grey = Image.frombytes("I;16", (8, 8), struct.pack("<H", 0x8000) * 64)
    assert read_upload(encode(grey, "PNG")).getpixel((4, 4)) == (128, 128, 128)


def test_palette_and_ink() -> None:
    palette = Image.new("P", (8, 8))
    palette.putpalette([200, 30, 30, 0, 0, 0])
    assert read_upload(encode(palette, "PNG")).getpixel((4, 4)) == (200, 30, 30)
    inked = read_upload(encode(Image.new("RGB", (8, 8), "red").convert("CMYK"), "JPEG", quality=95))
    assert inked.getpixel((4, 4))[0] > 240 > 20 > max(inked.getpixel((4, 4))[1:])


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_picture_is_kept(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    red, _, blue = read_upload(encode(first, kind, save_all=True, append_images=[second])).getpixel((4, 4))
    assert red > 240 > 20 > blue


def test_transparent_is_over_white() -> None:
    assert read_upload(encode(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG")).getpixel((4, 4)) == (255, 255, 255)


def test_phones_hold_pictures_sideways() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    assert read_upload(encode(Image.new("RGB", (60, 20)), "JPEG", exif=exif)).size == (20, 60)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_nothing_but_pixels_is_kept(kind: str, store: Store) -> None:
    """No place, no comment, no colour profile, and nothing of a second file behind the picture."""
    exif = Image.Exif()
    exif[0x010E] = "SECRET"
    exif.get_ifd(0x8825)[1] = "SECRET"
    words = PngImagePlugin.PngInfo()
    words.add_text("Comment", "SECRET")
    options = {"pnginfo": words} if kind == "PNG" else {}
    data = encode(Image.new("RGB", (60, 20)), kind, exif=exif, icc_profile=b"SECRET" * 30, **options)
    picture = read_upload(data + b"<script>SECRET</script>PK\x03\x04SECRET")
    kept = store.picture_path(store.add_picture(picture)).read_bytes()
    assert data.count(b"SECRET")
    assert b"SECRET" not in kept
    assert not any(name in kept for name in (b"eXIf", b"iCCP", b"tEXt"))


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


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_bomb_beside_the_pixels(kind: bytes) -> None:
    unpacked = zlib.compress(bytes(100_000_000))
    head = b"a\0\0" if kind != b"iTXt" else b"a\0\1\0\0\0"
    with pytest.raises(InputRefused, match="not a picture"):
        read_upload(SMALL[:33] + chunk(kind, head + unpacked) + SMALL[33:])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        encode(Image.new("RGB", (9, 9)), "GIF"),
        encode(Image.new("RGB", (9, 9)), "BMP"),
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<!doctype html><script>alert(1)</script>",
        b"%PDF-1.4",
        b"#!/bin/sh\n" + SMALL,  # a polyglot whose picture comes second
        *(encode(NOISE, kind)[:2000] for kind in ("PNG", "JPEG", "WEBP")),  # cut off
        SMALL[:60] + b"xxxx" + SMALL[64:],  # damaged
        SMALL[:16] + struct.pack(">II", 0, 5) + SMALL[24:],  # no pixel
    ],
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
