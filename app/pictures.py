"""Pictures that come from outside, the checks before a pixel of them is decoded, and what is kept of them.

from app.pictures import read_upload; read_upload(b"...")  # PIL image, RGB, upright, at most 1024 px
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from app.errors import InputRefused
from dialog_mllm.messages import upright
from generator.metadata import png_info

FORMATS = ("PNG", "JPEG", "WEBP")
MOST_BYTES = 20 * 2**20
MOST_PIXELS = 40_000_000
LONGEST_EDGE = 1024  # what is kept of an upload


def read_upload(source: Path | bytes) -> Image.Image:
    """The picture as RGB, upright, over white where it is transparent, scaled down to what is kept."""
    name = source.name if isinstance(source, Path) else "The picture"
    try:
        data = source.read_bytes() if isinstance(source, Path) and source.stat().st_size <= MOST_BYTES else source
    except OSError as error:
        raise InputRefused(f"{name} could not be read. Upload it again.") from error
    if isinstance(data, Path) or len(data) > MOST_BYTES:
        raise InputRefused(f"{name} is larger than {MOST_BYTES // 2**20} MB. Save it smaller and try again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:  # reads the header only
                _check_size(name, picture.width, picture.height)
                picture.draft("RGB", (LONGEST_EDGE, LONGEST_EDGE))  # JPEG decodes smaller right away
                picture.load()
                kept = _eight_bits(picture)
                kept.thumbnail((LONGEST_EDGE, LONGEST_EDGE), Image.Resampling.LANCZOS)
                kept = upright(kept)
                kept.info = {}  # pixels only: no place, no name, no colour profile of somebody else's making
                return kept
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name) from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputRefused(f"{name} is not a picture that can be read. Use a PNG, JPEG or WebP file.") from error


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Pillow cuts 16-bit greys off at 255 instead of scaling them: all but the darkest would be white."""
    return picture.point(lambda grey: grey / 256).convert("L") if picture.mode.startswith("I") else picture


def png_bytes(picture: Image.Image, texts: Mapping[str, str] | None = None) -> bytes:
    """The file that the store keeps of a picture."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=png_info(texts or {}))
    return buffer.getvalue()


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise _too_large(f"{name} ({width:,}×{height:,} pixels)")


def _too_large(name: str) -> InputRefused:
    return InputRefused(f"{name} is too large. Use a picture of at most {MOST_PIXELS // 10**6} megapixels.")
