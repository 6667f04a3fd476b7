"""The ten colours of the world, each as the shades a painter needs."""

from __future__ import annotations

from typing import NamedTuple

from datasets_build.storybook.canvas import RGB


class Shades(NamedTuple):
    base: RGB
    light: RGB
    dark: RGB
    line: RGB  # outlines and details that must be seen on `base`


# Wide apart in hue and lightness, so that each is told from the others in every style and by night.
SHADES = {
    "red": Shades((222, 48, 48), (246, 120, 108), (168, 24, 36), (96, 12, 24)),
    "orange": Shades((247, 142, 30), (255, 190, 106), (205, 102, 10), (122, 56, 4)),
    "yellow": Shades((252, 214, 48), (255, 238, 142), (222, 170, 16), (130, 92, 4)),
    "green": Shades((72, 168, 74), (146, 210, 132), (40, 118, 52), (18, 66, 30)),
    "blue": Shades((54, 118, 220), (128, 180, 246), (28, 78, 164), (12, 40, 96)),
    "purple": Shades((142, 76, 190), (192, 144, 226), (98, 44, 140), (54, 20, 84)),
    "pink": Shades((250, 140, 184), (255, 194, 218), (222, 92, 146), (134, 40, 84)),
    "brown": Shades((144, 92, 52), (192, 146, 104), (102, 60, 30), (56, 30, 12)),
    "black": Shades((58, 58, 66), (106, 106, 118), (32, 32, 38), (12, 12, 16)),
    "white": Shades((250, 248, 242), (255, 255, 255), (210, 208, 208), (112, 112, 124)),
}


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """`a` with `share` of `b` in it."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]
