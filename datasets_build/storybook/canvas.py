"""An RGBA drawing surface in units of the picture's side: (0, 0) is the top left corner, (1, 1) the bottom right.

Pillow draws without anti-aliasing, so everything is drawn `SUPERSAMPLE` times larger and reduced once at the end.
A `Canvas` may carry a frame (origin and scale), so that a subject is drawn around its own (0, 0) at its own size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw

SUPERSAMPLE = 3
Point = tuple[float, float]
RGB = tuple[int, int, int]
Fill = RGB | tuple[int, int, int, int]  # with an opacity it replaces what the layer held, and is seen through


class Canvas:
    """Draws on one layer. `frame` gives a view of the same layer with another origin, scale and mirroring."""

    def __init__(self, size: int, image: Image.Image | None = None) -> None:
        self.size = size  # pixels a side, before reduction
        self.image = image or Image.new("RGBA", (size, size), (0, 0, 0, 0))
        self.draw = ImageDraw.Draw(self.image)
        self.x, self.y, self.scale, self.flip = 0.0, 0.0, 1.0, False

    def frame(self, x: float, y: float, scale: float, flip: bool = False) -> Canvas:
        """A view whose (0, 0) is this canvas's (x, y), whose unit is `scale` of this one's, mirrored when `flip`."""
        view = Canvas(self.size, self.image)
        view.draw = self.draw
        view.x, view.y = self._to_picture((x, y))
        view.scale = self.scale * scale
        view.flip = self.flip != flip
        return view

    def _to_picture(self, point: Point) -> Point:
        x = -point[0] if self.flip else point[0]
        return self.x + x * self.scale, self.y + point[1] * self.scale

    def pixel(self, point: Point) -> Point:
        x, y = self._to_picture(point)
        return x * self.size, y * self.size

    def polygon(self, points: Iterable[Point], fill: Fill) -> None:
        self.draw.polygon([self.pixel(point) for point in points], fill=fill)

    def blob(self, points: Sequence[Point], fill: Fill, steps: int = 8) -> None:
        """A closed smooth curve (Catmull-Rom) through `points`, filled."""
        self.polygon(smooth(points, steps, closed=True), fill)

    def ellipse(self, centre: Point, rx: float, ry: float, fill: Fill, angle: float = 0.0) -> None:
        """An ellipse of radii rx, ry, turned by `angle` degrees (clockwise as seen)."""
        turn = math.radians(angle)
        cos, sin = math.cos(turn), math.sin(turn)
        points = []
        for step in range(28):
            a = 2 * math.pi * step / 28
            x, y = rx * math.cos(a), ry * math.sin(a)
            points.append((centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos))
        self.polygon(points, fill)

    def line(self, points: Sequence[Point], width: float, fill: Fill) -> None:
        """A line through `points` with round ends and joints; `width` in units."""
        pixels = [self.pixel(point) for point in points]
        thick = max(1, round(width * self.scale * self.size))
        self.draw.line(pixels, fill=fill, width=thick, joint="curve")
        for x, y in (pixels[0], pixels[-1]):
            self.draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill=fill)

    def curve(self, points: Sequence[Point], width: float, fill: Fill) -> None:
        """A smooth open line through `points`."""
        self.line(smooth(points, 8, closed=False), width, fill)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, fill: Fill, radius: float = 0.0) -> None:
        (px0, py0), (px1, py1) = self.pixel((x0, y0)), self.pixel((x1, y1))
        box = (min(px0, px1), min(py0, py1), max(px0, px1), max(py0, py1))
        self.draw.rounded_rectangle(box, radius=radius * self.scale * self.size, fill=fill)


def smooth(points: Sequence[Point], steps: int, closed: bool) -> list[Point]:
    """Catmull-Rom interpolation: `steps` points for each stretch between two given ones."""
    n = len(points)
    curve: list[Point] = []
    for i in range(n if closed else n - 1):
        p0, p1, p2, p3 = (points[j % n] if closed else points[min(max(j, 0), n - 1)] for j in (i - 1, i, i + 1, i + 2))
        for step in range(steps):
            t = step / steps
            curve.append(tuple(  # type: ignore[arg-type]
                0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
                for a, b, c, d in zip(p0, p1, p2, p3, strict=True)
            ))  # fmt: skip
    if not closed:
        curve.append(points[-1])
    return curve
