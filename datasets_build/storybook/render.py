"""Draws a `Scene`: background, subjects with their shadows and accessories, weather, then the style.

    python -c "from datasets_build.storybook.scene import *; from datasets_build.storybook.render import render; \
import random; render(sample_scene(random.Random(7)), 256).save('scene.png')"

The same scene, size and seed give the same picture. The seed drives only what a scene does not name (poses, where a
flower grows), and each part has its own dice, so that an edited scene keeps all that the edit did not touch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from datasets_build.storybook.accessories import draw_accessory
from datasets_build.storybook.backgrounds import paint_background
from datasets_build.storybook.canvas import RGB, SUPERSAMPLE, Canvas
from datasets_build.storybook.palette import SHADES, Shades, mix
from datasets_build.storybook.scene import SIZES, Scene, Subject
from datasets_build.storybook.skies import Layer, Stage, paint_puddles, paint_rain
from datasets_build.storybook.styles import STYLES, Array, Sheet
from datasets_build.storybook.subjects import SUBJECTS

SMALLEST, LARGEST = 32, 1024
PLACES = {"left": 0.24, "middle": 0.5, "right": 0.76}
HEIGHTS = {"small": 0.34, "normal": 0.46, "big": 0.60}
SHOT_SCALE = {"close-up": 1.3, "normal": 1.0, "wide": 0.82}
GROUND = {"close-up": 0.88, "normal": 0.82, "wide": 0.80}
TALLEST = 0.76
BLUR = {"flat": 0.012, "watercolour": 0.006, "pencil": 0.006}  # behind a close-up; the other styles need sharp edges
MARGIN = 0.03  # kept free at the picture's edges
INWARDS, OUTSIDE = 0.09, 0.07  # how far a subject moves from its place, and the share of its width left outside
GLOW: dict[str, tuple[RGB, float]] = {  # what the light adds to a subject's colours: little, for they must be told
    "day": ((255, 255, 255), 0.0), "night": ((20, 30, 90), 0.15),
    "sunset": ((255, 130, 50), 0.10), "rain": ((120, 130, 150), 0.10),
}  # fmt: skip
PAPER: RGB = (250, 246, 236)


def render(scene: Scene, size: int = 128, seed: int = 0) -> Image.Image:
    """The picture of `scene`, `size` pixels a side (an even number)."""
    return render_with_covers(scene, size, seed)[0]


def render_with_covers(scene: Scene, size: int = 128, seed: int = 0) -> tuple[Image.Image, Array, Array]:
    """The picture, and how much of each pixel is covered, 0 to 1: by each subject (subjects, size, size), and by what
    they wear and hold (size, size)."""
    if not SMALLEST <= size <= LARGEST or size % 2:
        raise ValueError(f"size must be an even number from {SMALLEST} to {LARGEST}; got {size}")
    pixels = size * SUPERSAMPLE
    ground = GROUND[scene.shot] + random.Random(f"{seed} ground").uniform(-0.012, 0.012)
    stage = Stage(pixels, scene.background, scene.sky, scene.shot, random.Random(f"{seed} {scene.background}"))
    paint_background(stage, ground)
    wet = scene.sky == "rain" and scene.background != "room"
    if wet:
        paint_puddles(stage, stage.layer(), ground)
    sheets = [_sheet(layer, size) for layer in stage.layers]
    if scene.shot == "close-up" and scene.style in BLUR:
        sheets = [_out_of_focus(sheet, BLUR[scene.style] * size) for sheet in sheets]
    covers, worn = {}, np.zeros((size, size), np.float32)
    for subject in sorted(scene.subjects, key=lambda subject: -SIZES.index(subject.size)):  # the small ones in front
        layer, things = _subject_layer(scene, subject, pixels, ground, seed)
        sheet = _sheet(layer, size)
        covers[subject.position] = sheet.cover[..., 0]
        worn = np.maximum(worn * (1 - sheet.cover[..., 0]), _reduced(things, size))
        _shade_ground(sheets, sheet, ground)
        sheets.append(sheet)
    front = Stage(pixels, scene.background, scene.sky, scene.shot, random.Random(f"{seed} front"))
    if wet:
        paint_rain(front, front.layer("weather"))
    if scene.shot == "close-up":
        _paint_frame(front.layer("frame"))
    sheets += [_sheet(layer, size) for layer in front.layers]
    noise = np.random.default_rng([seed & 0xFFFFFFFF, 77])
    picture = STYLES[scene.style](sheets, noise)
    image = Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))
    return image, np.stack([covers[subject.position] for subject in scene.subjects]), worn


def _reduced(mask: Image.Image | None, size: int) -> Array:
    """A black and white picture at the picture's size, 0 to 1."""
    if mask is None:
        return np.zeros((size, size), np.float32)
    return np.asarray(mask.reduce(SUPERSAMPLE), dtype=np.float32) / 255


def _sheet(layer: Layer, size: int) -> Sheet:
    """The layer at the picture's size. Only the painted box is reduced: most layers are mostly empty."""
    image = layer.canvas.image
    pixels = np.zeros((size, size, 4), dtype=np.float32)
    if found := image.getbbox():
        x0, y0 = (edge // SUPERSAMPLE for edge in found[:2])
        x1, y1 = (-(-edge // SUPERSAMPLE) for edge in found[2:])
        box = image.crop((x0 * SUPERSAMPLE, y0 * SUPERSAMPLE, x1 * SUPERSAMPLE, y1 * SUPERSAMPLE)).reduce(SUPERSAMPLE)
        pixels[y0:y1, x0:x1] = np.asarray(box, dtype=np.float32) / 255
    return Sheet(pixels[..., :3], pixels[..., 3:], layer.role)


def _out_of_focus(sheet: Sheet, radius: float) -> Sheet:
    """In a close-up what lies behind is blurred."""
    if sheet.role == "sky":
        return sheet
    whole = np.concatenate([sheet.colour * sheet.cover, sheet.cover], axis=2)
    blurred = Image.fromarray((whole * 255).astype(np.uint8), "RGBA").filter(ImageFilter.BoxBlur(radius))
    pixels = np.asarray(blurred, dtype=np.float32) / 255
    return Sheet(pixels[..., :3] / np.maximum(pixels[..., 3:], 1 / 255), pixels[..., 3:], sheet.role)


def _subject_layer(
    scene: Scene, subject: Subject, pixels: int, ground: float, seed: int
) -> tuple[Layer, Image.Image | None]:
    """The subject with all it wears, as large as its size says and its place allows; and where it shows what it wears:
    white on black, None where it wears nothing."""
    dice = random.Random(f"{seed} {subject.position}")
    x = PLACES[subject.position] + dice.uniform(-0.02, 0.02)
    height = min(HEIGHTS[subject.size] * SHOT_SCALE[scene.shot], TALLEST)
    if len(scene.subjects) == 2:
        neighbours = {s.position for s in scene.subjects} != {"left", "right"}
        height *= 0.80 if neighbours else 0.90
        if neighbours:  # step apart a little
            x += -0.045 if subject is scene.subjects[0] else 0.045
        flip = subject is scene.subjects[0]  # hands outwards: whose balloon it is must be plain
    else:
        flip = subject.position == "left"  # by rule: a side left to chance teaches the denoiser to draw a thing on both
    while True:
        image = _paint_subject(scene, subject, pixels, ground, height, flip, seed)
        left, top, right, _ = (edge / pixels for edge in image.getbbox() or (0, pixels, pixels, pixels))
        # It may move inwards, but its place must still be told; then a little of it may lie outside.
        shift = x - 0.5
        shift += min(max(MARGIN - left - shift, 0), INWARDS) - min(max(right + shift - 1 + MARGIN, 0), INWARDS)
        outside = max(-left - shift, right + shift - 1) / (right - left)
        if (top > MARGIN and left > 0 and right < 1 and outside < OUTSIDE) or height < 0.2:
            break
        height *= 0.93
    place = (round(shift * pixels), 0)
    moved = Image.new("RGBA", image.size, (0, 0, 0, 0))
    moved.paste(image, place)
    things = None
    if subject.accessories:
        bare = _paint_subject(scene, replace(subject, accessories=()), pixels, ground, height, flip, seed)
        changed = ImageChops.difference(image, bare).split()
        things = Image.new("L", image.size)
        things.paste(reduce(ImageChops.lighter, changed).point(lambda value: 255 if value else 0), place)
    return Layer(Canvas(pixels, moved), "subject"), things


def _paint_subject(
    scene: Scene, subject: Subject, pixels: int, ground: float, height: float, flip: bool, seed: int
) -> Image.Image:
    """The subject in the middle of a layer of its own."""
    body = Canvas(pixels)
    frame = (0.5, ground - height / 2, height, flip)
    place = f"{seed} {subject.kind} {subject.position}"
    anchors = SUBJECTS[subject.kind](body.frame(*frame), _lit(subject.colour, scene), random.Random(place))
    if not subject.accessories:
        return body.image
    back = Canvas(pixels)
    for behind, canvas in ((True, back), (False, body)):
        for worn in subject.accessories:
            rng = random.Random(f"{place} {worn.kind}")
            draw_accessory(canvas.frame(*frame), worn.kind, _lit(worn.colour, scene), anchors, rng, behind=behind)
    back.image.alpha_composite(body.image)
    return back.image


def _lit(colour: str, scene: Scene) -> Shades:
    glow, share = GLOW[scene.sky]
    return Shades(*(mix(shade, glow, share) for shade in SHADES[colour]))


def _shade_ground(sheets: Sequence[Sheet], subject: Sheet, ground: float) -> None:
    """Darkens the scenery where the subject stands: a soft flat ellipse as wide as its feet."""
    size = subject.cover.shape[0]
    low = subject.cover[int((ground - 0.10) * size) : int((ground + 0.02) * size)].max(axis=(0, 2))
    columns = np.flatnonzero(low > 0.3)
    if not len(columns):
        columns = np.flatnonzero(subject.cover.max(axis=(0, 2)) > 0.3)
    first, last = float(columns[0]), float(columns[-1])
    middle, half = (first + last) / 2, max(4.0, (last - first) / 2 + 0.02 * size)
    place = np.arange(size, dtype=np.float32)
    across = ((place - middle) / (1.12 * half)) ** 2
    down = ((place - (ground + 0.004) * size) / max(0.022 * size, 0.14 * half)) ** 2
    dark: Array = 0.42 * np.clip(1.5 * (1 - across[None] - down[:, None]), 0, 1)[..., None]
    for sheet in sheets:
        if sheet.role == "scenery":
            sheet.colour[...] *= 1 - dark


def _paint_frame(c: Canvas) -> None:
    """A close-up is a vignette: a picture with round corners on the bare page."""
    c.image.paste((*PAPER, 255), (0, 0, c.size, c.size))
    c.rectangle(0.025, 0.025, 0.975, 0.975, (0, 0, 0, 0), radius=0.25)
