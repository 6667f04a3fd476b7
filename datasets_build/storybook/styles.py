"""Five ways of making a picture out of layers: flat, watercolour, pencil, pixel art, paper cut.

    python -c "from datasets_build.storybook.styles import STYLES; print(sorted(STYLES))"

A style gets the layers back to front at the picture's own size and returns the finished picture. Lengths inside are
in pixels of a 128-pixel picture times `unit`, so that a picture looks the same at every size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Array = NDArray[np.floating]


class Sheet(NamedTuple):
    """A layer reduced to the picture's size: colour (h, w, 3) and cover (h, w, 1), both 0 to 1."""

    colour: Array
    cover: Array
    role: str


Style = Callable[[Sequence[Sheet], np.random.Generator], Array]


def compose(sheets: Sequence[Sheet]) -> Array:
    picture = sheets[0].colour
    for sheet in sheets[1:]:
        picture = picture + (sheet.colour - picture) * sheet.cover
    return picture


def clouds(rng: np.random.Generator, size: int, cells: int) -> Array:
    """Smooth noise from -1 to 1, `cells` lumps across."""
    grid = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)


def soften(cover: Array, radius: float) -> Array:
    """A mask (h, w) or (h, w, 1), blurred."""
    grey = Image.fromarray((cover.reshape(cover.shape[:2]) * 255).astype(np.uint8))
    return np.asarray(grey.filter(ImageFilter.BoxBlur(radius)), dtype=np.float32) / 255


def shifted(array: Array, dx: int, dy: int) -> Array:
    """`array` moved right by dx and down by dy; the border repeats."""
    h, w = array.shape[:2]
    rows = np.clip(np.arange(h) - dy, 0, h - 1)
    columns = np.clip(np.arange(w) - dx, 0, w - 1)
    return array[rows][:, columns]


def luminance(picture: Array) -> Array:
    return picture @ np.array([0.3, 0.59, 0.11], dtype=np.float32)


def edges(picture: Array) -> Array:
    """How sharply the picture changes at each pixel (h, w)."""
    across = np.abs(picture[:, 1:] - picture[:, :-1]).max(axis=2)
    down = np.abs(picture[1:] - picture[:-1]).max(axis=2)
    found = np.zeros(picture.shape[:2], dtype=np.float32)
    found[:, 1:] = across
    found[1:] = np.maximum(found[1:], down)
    return found


def displaced(picture: Array, dx: Array, dy: Array) -> Array:
    """`picture` read at (x + dx, y + dy), between pixels linearly."""
    h, w = picture.shape[:2]
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    x, y = np.clip(x + dx, 0, w - 1.001), np.clip(y + dy, 0, h - 1.001)
    column, row = x.astype(np.int32), y.astype(np.int32)
    fx, fy = (x - column)[..., None], (y - row)[..., None]
    flat, at = picture.reshape(h * w, -1), row * w + column
    top = flat[at] * (1 - fx) + flat[at + 1] * fx
    return top * (1 - fy) + (flat[at + w] * (1 - fx) + flat[at + w + 1] * fx) * fy


def flat(sheets: Sequence[Sheet], rng: np.random.Generator) -> Array:
    return compose(sheets)


def watercolour(sheets: Sequence[Sheet], rng: np.random.Generator) -> Array:
    size = sheets[0].colour.shape[0]
    unit = size / 128
    picture = sheets[0].colour
    for sheet in sheets[1:]:
        if sheet.role in ("subject", "scenery"):  # the wash stops short of its neighbours, and dries darker at its rim
            near = soften(sheet.cover, 2.0 * unit)[..., None]
            picture = picture + (1 - picture) * ((0.55 if sheet.role == "subject" else 0.3) * near * (1 - sheet.cover))
            colour = sheet.colour * (1 - 0.22 * np.clip(2 * (1 - near), 0, 1))
        else:
            colour = sheet.colour
        picture = picture + (colour - picture) * sheet.cover
    sway = 1.7 * unit
    picture = displaced(picture, sway * clouds(rng, size, 15), sway * clouds(rng, size, 15))
    pigment = 0.78 + 0.17 * clouds(rng, size, 5) + 0.10 * clouds(rng, size, 13)
    grain = (0.03 + 0.02 * luminance(picture)) * rng.standard_normal((size, size), dtype=np.float32)
    picture = 1 - (1 - picture) * np.clip(pigment + grain, 0.3, 1.1)[..., None]
    place = np.arange(size, dtype=np.float32) / unit
    margin = np.minimum(place, place[::-1])
    border = np.minimum(margin[:, None], margin[None]) - 5.5 + 2.6 * clouds(rng, size, 12)
    painted = np.clip(border / 1.6, 0, 1)[..., None]
    rim = np.clip(1 - np.abs(border - 2.0) / 1.6, 0, 1)[..., None]  # pigment gathers where the wash ends
    paper = np.array([0.985, 0.98, 0.96], dtype=np.float32)
    return paper + (picture * (1 - 0.10 * rim) - paper) * painted


def pencil(sheets: Sequence[Sheet], rng: np.random.Generator) -> Array:
    size = sheets[0].colour.shape[0]
    unit = size / 128
    subject = np.zeros((size, size), dtype=np.float32)
    contour: Array = np.zeros((size, size), dtype=np.float32)
    for sheet in sheets:
        if sheet.role == "subject":
            subject = np.maximum(subject, sheet.cover[..., 0])
            contour = np.maximum(contour, edges(sheet.cover))
        elif sheet.role == "frame":
            contour = contour * (1 - sheet.cover[..., 0])
    picture = compose(sheets)
    grey = luminance(picture)
    line = np.clip(edges(picture) * (1.25 - 0.95 * subject) - 0.10, 0, 1)
    line = np.maximum(line, 0.95 * np.clip(contour * 1.6, 0, 1))  # also where both sides agree in colour
    colourful = (0.55 + 0.20 * subject)[..., None]
    tint = grey[..., None] + colourful * (picture - grey[..., None])
    tint = np.clip(tint, 0, 1) ** 0.85  # graphite is never as dark as night
    tint = tint + (0.24 - 0.21 * subject)[..., None] * (0.95 - tint)  # what lies behind is drawn with a light hand
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / unit
    wobble = 2.2 * clouds(rng, size, 8)
    first = np.sin((x + 0.7 * y + wobble) * (2 * np.pi / 4.4))
    second = np.sin((x - 1.2 * y - wobble) * (2 * np.pi / 5.2))
    dark = np.clip(1.15 - 1.3 * grey, 0.1, 0.8)
    even = 0.35 + 0.65 * grey  # the gaps between strokes glare in the dark, so there they are filled more
    lead = 0.82 + 0.04 * subject + even * ((0.19 - 0.08 * subject) * first + (0.14 - 0.14 * subject) * dark * second)
    lead += 0.08 * clouds(rng, size, 16) + even * 0.08 * rng.standard_normal((size, size), dtype=np.float32)
    paper = np.array([0.965, 0.94, 0.875], dtype=np.float32)
    drawn = paper - (paper - np.minimum(tint, paper)) * np.clip(lead, 0.2, 1.0)[..., None]
    stroke = line * np.clip(0.9 + 0.35 * clouds(rng, size, 20), 0.3, 1)
    return drawn + (np.array([0.20, 0.19, 0.21], dtype=np.float32) - drawn) * (0.85 * stroke)[..., None]


BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]], dtype=np.float32) / 16 - 0.47
LEVELS, TINTS = 11, 14  # steps of lightness and of each channel's difference from it: few, and true to the hue


def pixel_art(sheets: Sequence[Sheet], rng: np.random.Generator) -> Array:
    size = sheets[0].colour.shape[0]
    blocks = min(64, size // 2)
    side = size // blocks
    blocks = size // side
    rest = size - blocks * side  # a size that does not divide repeats its last row and column
    picture = np.zeros((blocks, blocks, 3), dtype=np.float32)
    dither = np.ones((blocks, blocks), dtype=np.float32)
    ink = np.array([0.10, 0.08, 0.16], dtype=np.float32)
    for sheet in sheets:
        cover = _blocks(sheet.cover, blocks, side)[..., 0]
        colour = _blocks(sheet.colour * sheet.cover, blocks, side) / np.maximum(cover, 1e-4)[..., None]
        if sheet.role in ("weather", "light"):
            hard = np.where(cover > 0.5, 1.0, np.where(cover > 0.2, 0.65, 0.0)).astype(np.float32)
        else:
            hard = (cover > (0.42 if sheet.role == "subject" else 0.5)).astype(np.float32)
        if sheet.role in ("subject", "scenery", "frame"):
            around = np.zeros_like(hard)
            around[1:] = hard[:-1]
            around[:-1] = np.maximum(around[:-1], hard[1:])
            around[:, 1:] = np.maximum(around[:, 1:], hard[:, :-1])
            around[:, :-1] = np.maximum(around[:, :-1], hard[:, 1:])
            ring = (around * (1 - hard))[..., None]
            picture = picture + (ink - picture) * ring * (1.0 if sheet.role == "subject" else 0.38)
        picture = picture + (colour - picture) * hard[..., None]
        dither = dither * (1 - hard) + (0.8 if sheet.role == "sky" else 0.0) * hard
    tile = np.tile(BAYER, (blocks // 4 + 1, blocks // 4 + 1))[:blocks, :blocks] * dither
    grey = luminance(picture)
    tint = np.round((picture - grey[..., None]) * TINTS) / TINTS
    steps = np.round(grey * LEVELS + tile)[..., None] / LEVELS + tint
    large = np.repeat(np.repeat(steps, side, axis=0), side, axis=1)
    return np.pad(large, ((0, rest), (0, rest), (0, 0)), mode="edge") if rest else large


def _blocks(array: Array, blocks: int, side: int) -> Array:
    """The mean of each block of side x side pixels."""
    cut = array[: blocks * side, : blocks * side]
    return cut.reshape(blocks, side, blocks, side, -1).mean(axis=(1, 3))


def paper_cut(sheets: Sequence[Sheet], rng: np.random.Generator) -> Array:
    size = sheets[0].colour.shape[0]
    unit = size / 128
    drop = max(1, round(2.4 * unit))
    nib = max(1, round(unit))
    fibre = clouds(rng, size, 40) * 0.5 + 0.5 * rng.standard_normal((size, size), dtype=np.float32)
    texture = (1 + 0.030 * fibre + 0.035 * clouds(rng, size, 7))[..., None]
    # The sky is five torn sheets, each below the next.
    tear = clouds(rng, size, 6)[size // 2] * 0.022 * size
    picture = sheets[0].colour
    bands = [0.144 * size * i for i in range(6)]
    rows = np.arange(size, dtype=np.float32)[:, None]
    sky = np.broadcast_to(picture[round(bands[1]) // 2], picture.shape)
    for i in range(1, 5):
        below = (rows - (bands[i] + tear * (1 if i % 2 else -1))[None])[..., None]  # how far under the torn edge
        cut, shade = np.clip(below + 0.5, 0, 1), np.clip(1 + below / (5 * unit), 0, 1)
        tone = picture[min(size - 1, round((bands[i] + bands[i + 1]) / 2)), size // 2]
        sky = sky * (1 - 0.22 * shade * (1 - cut))
        sky = sky + (tone - sky) * cut
    picture = sky * texture
    for sheet in sheets[1:]:
        cover = sheet.cover[..., 0]
        strength = {"subject": 0.62, "weather": 0.30, "light": 0.35}.get(sheet.role, 0.52)
        shadow = shifted(soften(cover, 1.6 * unit), drop, drop + nib // 2)
        picture = picture * (1 - strength * (shadow * (1 - cover))[..., None])
        rim = np.clip(cover - shifted(cover, nib, nib), 0, 1)[..., None]  # the cut edge catches the light
        low = np.clip(cover - shifted(cover, -nib, -nib), 0, 1)[..., None]
        relief = luminance(sheet.colour) * cover
        relief = np.clip((relief - shifted(relief, nib, nib)), -0.25, 0.25)[..., None] * (0.28 * sheet.cover)
        colour = sheet.colour * texture + relief
        colour = colour + (1 - colour) * (0.75 * rim) - colour * (0.14 * low)
        picture = picture + (colour - picture) * sheet.cover
    return picture


STYLES: dict[str, Style] = {
    "flat": flat, "watercolour": watercolour, "pencil": pencil, "pixel art": pixel_art, "paper cut": paper_cut,
}  # fmt: skip
