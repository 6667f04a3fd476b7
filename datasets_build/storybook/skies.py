"""The stage a picture is painted on, its light, and its sky: sun, moon, stars, clouds, rain.

    python -c "from datasets_build.storybook.skies import Stage, paint_sky; import random; \
s = Stage(384, 'meadow', 'night', 'normal', random.Random(1)); paint_sky(s); s.layers[0].canvas.image.save('sky.png')"

A `Stage` collects layers from back to front, so that a style can treat each (paper cut lets each throw a shadow).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from datasets_build.storybook.canvas import RGB, Canvas
from datasets_build.storybook.palette import mix


class Light(NamedTuple):
    """How a sky colours the scenery: less saturated by `grey`, times `gain`, then `veil` laid over by `amount`."""

    grey: float
    gain: tuple[float, float, float]
    veil: RGB
    amount: float


OUTDOORS = {
    "day": Light(0.0, (1.0, 1.0, 1.0), (255, 255, 255), 0.0),
    "night": Light(0.0, (0.52, 0.56, 0.72), (30, 40, 104), 0.18),
    "sunset": Light(0.0, (1.0, 0.82, 0.74), (255, 130, 84), 0.12),
    "rain": Light(0.45, (0.74, 0.78, 0.82), (128, 140, 156), 0.16),
}
INDOORS = {
    "day": Light(0.0, (1.0, 1.0, 1.0), (255, 255, 255), 0.0),
    "night": Light(0.1, (0.50, 0.44, 0.52), (44, 28, 60), 0.18),
    "sunset": Light(0.0, (1.0, 0.80, 0.64), (255, 130, 60), 0.20),
    "rain": Light(0.40, (0.76, 0.80, 0.86), (130, 142, 160), 0.15),
}
GRADIENTS: dict[str, tuple[RGB, ...]] = {
    "day": ((74, 168, 240), (128, 200, 248), (206, 236, 252)),
    "night": ((10, 14, 48), (22, 30, 84), (52, 66, 134)),
    "sunset": ((196, 92, 150), (250, 122, 92), (255, 176, 78), (255, 224, 134)),
    "rain": ((112, 122, 138), (146, 156, 170), (182, 190, 198)),
    "space": ((14, 6, 34), (30, 12, 62), (58, 26, 96)),
}
LAMP = (255, 226, 140)


@dataclass(frozen=True, slots=True)
class Layer:
    """One sheet of the picture; `role` is sky, light (sun, moon, clouds), scenery, subject, weather or frame."""

    canvas: Canvas
    role: str


class Stage:
    """What a painter of backgrounds needs: the sky, the shot's horizon and zoom, the dice, and layers to paint on."""

    def __init__(self, pixels: int, background: str, sky: str, shot: str, rng: random.Random) -> None:
        self.pixels, self.background, self.sky, self.shot, self.rng = pixels, background, sky, shot, rng
        self.zoom = {"close-up": 1.9, "normal": 1.0, "wide": 0.5}[shot]
        self.horizon = {"close-up": 0.74, "normal": 0.64, "wide": 0.54}[shot] + rng.uniform(-0.015, 0.015)
        self.light = (INDOORS if background == "room" else OUTDOORS)[sky]
        if background == "space":  # its colours are made for the dark already
            self.light = OUTDOORS["day"]
        self.layers: list[Layer] = []

    def layer(self, role: str = "scenery", image: Image.Image | None = None) -> Canvas:
        canvas = Canvas(self.pixels, image)
        self.layers.append(Layer(canvas, role))
        return canvas

    def tone(self, colour: RGB) -> RGB:
        """`colour` in this picture's light."""
        grey, gain, veil, amount = self.light
        mean = sum(colour) / 3
        r, g, b = (
            min(255.0, (c + (mean - c) * grey) * k) * (1 - amount) + v * amount
            for c, k, v in zip(colour, gain, veil, strict=True)
        )
        return round(r), round(g), round(b)

    def spread(self, count: int, low: float = 0.0, high: float = 1.0) -> list[float]:
        """`count` places between `low` and `high`, one in each equal stretch."""
        step = (high - low) / count
        return [low + step * (i + self.rng.uniform(0.15, 0.85)) for i in range(count)]


def gradient(pixels: int, colours: tuple[RGB, ...], bottom: float) -> Image.Image:
    """Colours from the top down to `bottom`, the last one below it."""
    strip = Image.new("RGB", (1, len(colours)))
    strip.putdata(colours)
    image = Image.new("RGB", (pixels, pixels), colours[-1])
    image.paste(strip.resize((pixels, max(1, round(pixels * bottom))), Image.Resampling.BILINEAR))
    return image.convert("RGBA")


def paint_sky(stage: Stage, x0: float = 0.0, y0: float = 0.0, x1: float = 1.0, bottom: float | None = None) -> None:
    """The sky in the box from (x0, y0) to (x1, bottom) (through a window it is a small one), with all that is in it."""
    bottom = stage.horizon + 0.04 if bottom is None else bottom
    stage.layer("sky", gradient(stage.pixels, GRADIENTS[stage.sky], bottom))
    c = stage.layer("light")
    width, height = x1 - x0, bottom - y0
    unit = (0.62 if width < 0.9 else 1.0) * {"close-up": 1.35, "normal": 1.0, "wide": 0.72}[stage.shot]
    left = stage.rng.random() < 0.5
    x = x0 + width * (stage.rng.uniform(0.13, 0.22) if left else stage.rng.uniform(0.78, 0.87))
    if stage.sky == "day":
        _sun(c, x, y0 + height * 0.24, 0.075 * unit, (255, 214, 60), (255, 240, 150))
        for place in stage.spread(3, x0, x1):
            if abs(place - x) > 0.16 * width:
                _cloud(c, place, y0 + height * stage.rng.uniform(0.12, 0.42), 0.085 * unit, (255, 255, 255), stage)
    elif stage.sky == "night":
        stars(c, stage, 34 if width > 0.9 else 14, x0, y0, x1, bottom)
        _moon(c, x, y0 + height * 0.26, 0.078 * unit)
    elif stage.sky == "sunset":
        for place in stage.spread(4, x0, x1):
            y, w = y0 + height * stage.rng.uniform(0.08, 0.45), 0.13 * unit
            c.ellipse((place, y), w, 0.016 * unit, (255, 190, 150))
            c.ellipse((place + 0.4 * w, y - 0.02 * unit), 0.6 * w, 0.014 * unit, (255, 164, 150))
        y = bottom - (0.17 if stage.background != "room" else 0.12) * min(1.0, unit)
        c.ellipse((x, y), 0.185 * unit, 0.185 * unit, (255, 214, 120, 90))
        c.ellipse((x, y), 0.145 * unit, 0.145 * unit, (255, 224, 130, 150))
        c.ellipse((x, y), 0.108 * unit, 0.108 * unit, (255, 86, 48))
    else:
        tones: list[RGB] = [(92, 100, 116), (124, 132, 146), (84, 92, 108), (108, 116, 132)]
        for i, place in enumerate(stage.spread(5, x0 - 0.05, x1 + 0.05)):
            y = y0 + height * stage.rng.uniform(0.06, 0.24)
            _cloud(c, place, y, 0.12 * unit, tones[i % len(tones)], stage)


def _sun(c: Canvas, x: float, y: float, r: float, colour: RGB, rays: RGB) -> None:
    for i in range(12):
        a = math.tau * i / 12
        side = math.tau / 34
        c.polygon(
            [(x + 1.2 * r * math.cos(a + t), y + 1.2 * r * math.sin(a + t)) for t in (-side, side)]
            + [(x + 1.75 * r * math.cos(a), y + 1.75 * r * math.sin(a))],
            rays,
        )
    c.ellipse((x, y), 1.08 * r, 1.08 * r, rays)
    c.ellipse((x, y), r, r, colour)


def _moon(c: Canvas, x: float, y: float, r: float) -> None:
    """A crescent: the outer arc, then back along a flatter one."""
    c.ellipse((x, y), 1.5 * r, 1.5 * r, (120, 136, 204, 80))
    turn = math.radians(-35)
    outer = [(r * math.cos(a), r * math.sin(a)) for a in (math.radians(100 + 10 * i) for i in range(27))]
    inner = [(0.42 * r + 0.78 * r * math.cos(a), 0.78 * r * math.sin(a))
             for a in (math.radians(285 - 10 * i) for i in range(22))]  # fmt: skip
    c.polygon(
        [(x + px * math.cos(turn) - py * math.sin(turn), y + px * math.sin(turn) + py * math.cos(turn))
         for px, py in outer + inner],
        (255, 244, 190),
    )  # fmt: skip


def stars(c: Canvas, stage: Stage, count: int, x0: float, y0: float, x1: float, y1: float) -> None:
    for i in range(count):
        x, y = stage.rng.uniform(x0, x1), stage.rng.uniform(y0, y1)
        r = stage.rng.uniform(0.004, 0.007)
        if i % 4:
            c.ellipse((x, y), r, r, (236, 240, 255))
        else:  # four points
            r *= 2.6
            points = [(x + k * math.cos(math.tau * j / 8), y + k * math.sin(math.tau * j / 8))
                      for j, k in enumerate((r, 0.3 * r) * 4)]  # fmt: skip
            c.polygon(points, (255, 248, 206))


def _cloud(c: Canvas, x: float, y: float, r: float, colour: RGB, stage: Stage) -> None:
    shade = mix(colour, (110, 140, 180), 0.14)
    puffs = [(-1.0, 0.1, 0.55), (-0.35, -0.25, 0.72), (0.4, -0.12, 0.66), (1.05, 0.14, 0.48)]
    wobble = stage.rng.uniform(-0.12, 0.12)
    for lift, fill in ((0.16, shade), (0.0, colour)):
        for px, py, pr in puffs:
            c.ellipse((x + px * r, y + (py + lift + wobble * px) * r), pr * r * 1.1, pr * r * 0.8, fill)


def paint_rain(stage: Stage, c: Canvas, x0: float = 0.0, y0: float = 0.0, x1: float = 1.0, y1: float = 1.0) -> None:
    """Slanting streaks; light and dark ones, so that they show on bright and on dim ground."""
    rng, scale = stage.rng, {"close-up": 1.25, "normal": 1.0, "wide": 0.8}[stage.shot]
    count = round(62 * (x1 - x0) * (y1 - y0) / scale) + 8
    columns = max(2, round(math.sqrt(count)))
    for i in range(count):  # one drop in each cell of a loose grid: an even rain without clumps
        x = x0 + (x1 - x0) * ((i % columns) + rng.random()) / columns
        y = y0 + (y1 - y0) * ((i // columns) + rng.random()) / math.ceil(count / columns)
        long = rng.uniform(0.05, 0.085) * scale
        if x0 > 0.0 and (x - 0.3 * long < x0 or y + long > y1):
            continue
        fill = (232, 240, 250, 215) if i % 2 else (70, 98, 150, 190)
        c.line([(x, y), (x - 0.3 * long, y + long)], 0.0075 * scale, fill)


def paint_puddles(stage: Stage, c: Canvas, ground: float) -> None:
    scale = {"close-up": 1.4, "normal": 1.0, "wide": 0.7}[stage.shot]
    for i, x in enumerate(stage.spread(3 if stage.shot != "wide" else 5)):
        y = ground + (0.09, 0.15, -0.04, 0.12, 0.05)[i] * (0.6 if stage.shot == "close-up" else 1.0)
        w = stage.rng.uniform(0.10, 0.14) * scale
        c.ellipse((x, y), w, 0.24 * w, (96, 112, 136))
        c.ellipse((x, y + 0.01 * scale), 0.92 * w, 0.18 * w, (162, 180, 202))
        c.ellipse((x + 0.2 * w, y), 0.36 * w, 0.075 * w, (218, 230, 242))
        c.ellipse((x + 0.2 * w, y), 0.22 * w, 0.042 * w, (162, 180, 202))
