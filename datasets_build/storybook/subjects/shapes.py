"""Outlined shapes in a subject's own frame, made once and cached, so that painting is little more than filling.

    python -c "from datasets_build.storybook.subjects.shapes import oval; print(oval(0, 0, 1, 1).inner[0])"

A subject's frame: its height is 1, x = 0 is its middle, y = -0.5 its top and y = +0.5 the ground.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from datasets_build.storybook.canvas import RGB, Canvas, Point, smooth
from datasets_build.storybook.palette import Shades, mix

EDGE = 0.024  # width of the line around a shape
CURVE_STEPS = 6  # points on each stretch of a smooth outline
WHITE, INK, BLUSH, PINK_NOSE = (255, 255, 255), (38, 30, 36), (244, 132, 140), (232, 104, 128)
GOLD, WOOD, GLASS = (250, 200, 60), (140, 92, 54), (204, 234, 250)


@dataclass(frozen=True, slots=True)
class Anchors:
    """Where accessories go, in the subject's frame."""

    head_top: Point
    head_width: float
    eyes: Point  # the middle between the eyes
    eye_span: float  # from the middle of one eye to the other's
    neck: Point
    neck_width: float
    hand: Point


Painter = Callable[[Canvas, Shades, random.Random], Anchors]


class Shape(NamedTuple):
    inner: tuple[Point, ...]
    outer: tuple[Point, ...]  # `inner`, one line's width larger on all sides


def is_dark(shades: Shades) -> bool:
    return sum(shades.base) < 240


def is_white(shades: Shades) -> bool:
    return min(shades.base) > 190


def edge(shades: Shades) -> RGB:
    """The outline: dark, but light around black, which would be lost by night (and on black) otherwise."""
    return (150, 150, 166) if is_dark(shades) else shades.line


def pale(shades: Shades) -> RGB:
    """Nearly white, tinted; for bellies and cheeks. On white itself it must be darker to be seen."""
    return (222, 224, 234) if is_white(shades) else mix(shades.light, WHITE, 0.55)


def grown(points: tuple[Point, ...], by: float) -> tuple[Point, ...]:
    """The polygon moved outwards by `by`; pointed corners are cut so that they do not run away."""
    distinct = [p for i, p in enumerate(points) if math.dist(p, points[i - 1]) > 1e-6]
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(distinct, distinct[1:] + distinct[:1], strict=True))
    side = by if area > 0 else -by
    result = []
    for i, (x, y) in enumerate(distinct):
        (ax, ay), (bx, by_) = distinct[i - 1], distinct[(i + 1) % len(distinct)]
        before, after = math.hypot(x - ax, y - ay), math.hypot(bx - x, by_ - y)
        nx = (y - ay) / before + (by_ - y) / after
        ny = -(x - ax) / before - (bx - x) / after
        length = math.hypot(nx, ny) or 1.0
        reach = side / max(length / 2, 0.55)
        result.append((x + nx / length * reach, y + ny / length * reach))
    return tuple(result)


def shape(points: tuple[Point, ...], width: float = EDGE) -> Shape:
    return Shape(points, grown(points, width))


@lru_cache(maxsize=4096)
def poly(*points: Point) -> Shape:
    """Straight sides."""
    return shape(points)


@lru_cache(maxsize=4096)
def soft(*points: Point) -> Shape:
    """A smooth closed curve; a point given twice is a corner."""
    return shape(_curve(points))


def _curve(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Catmull-Rom, but without the loop that it would make of the stretch between two equal points."""
    curve = smooth(points, CURVE_STEPS, closed=True)
    following = (*points[1:], points[0])
    return tuple(
        point
        for i, point in enumerate(curve)
        if i % CURVE_STEPS == 0 or points[i // CURVE_STEPS] != following[i // CURVE_STEPS]
    )


@lru_cache(maxsize=4096)
def mirrored(*right: Point) -> Shape:
    """`soft` for a shape that is its own mirror image, from its right half (top to bottom)."""
    left = tuple((-x, y) for x, y in reversed(right) if x > 1e-9)
    return shape(_curve(right + left))


@lru_cache(maxsize=4096)
def oval(x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> Shape:
    def ring(a: float, b: float) -> tuple[Point, ...]:
        n = 24 if max(rx, ry) > 0.06 else 14
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        turns = [(a * math.cos(t), b * math.sin(t)) for t in (2 * math.pi * i / n for i in range(n))]
        return tuple((x + p * cos - q * sin, y + p * sin + q * cos) for p, q in turns)

    return Shape(ring(rx, ry), ring(rx + EDGE, ry + EDGE))


@lru_cache(maxsize=4096)
def box(x0: float, y0: float, x1: float, y1: float, radius: float = 0.03) -> Shape:
    points = []
    corners = ((x1 - radius, y0 + radius, -90), (x1 - radius, y1 - radius, 0),
               (x0 + radius, y1 - radius, 90), (x0 + radius, y0 + radius, 180))  # fmt: skip
    for x, y, start in corners:
        for step in range(4):
            turn = math.radians(start + 30 * step)
            points.append((x + radius * math.cos(turn), y + radius * math.sin(turn)))
    return shape(tuple(points))


@lru_cache(maxsize=4096)
def ribbon(width: float, *points: Point, end: float | None = None) -> Shape:
    """A smooth stroke with round ends, `width` wide at its start and `end` at its other end."""
    path = smooth(points, 5, closed=False)
    n = len(path)
    left: list[Point] = []
    right: list[Point] = []
    for i, (x, y) in enumerate(path):
        (ax, ay), (bx, by) = path[max(i - 1, 0)], path[min(i + 1, n - 1)]
        length = math.hypot(bx - ax, by - ay) or 1.0
        half = (width + ((width if end is None else end) - width) * i / (n - 1)) / 2
        nx, ny = -(by - ay) / length * half, (bx - ax) / length * half
        left.append((x + nx, y + ny))
        right.append((x - nx, y - ny))
    points = (*left, *_cap(left[-1], right[-1]), *reversed(right), *_cap(right[0], left[0]))
    return shape(points)


def _cap(a: Point, b: Point) -> list[Point]:
    """Points of the half circle that closes a ribbon from side `a` to side `b`."""
    mx, my = (a[0] + b[0]) / 2, (a[1] + b[1]) / 2
    dx, dy = a[0] - mx, a[1] - my
    return [(mx + dx * math.cos(t) + dy * math.sin(t), my + dy * math.cos(t) - dx * math.sin(t))
            for t in (math.pi * k / 5 for k in range(1, 5))]  # fmt: skip


@lru_cache(maxsize=4096)
def flipped(one: Shape) -> Shape:
    return Shape(tuple((-x, y) for x, y in one.inner), tuple((-x, y) for x, y in one.outer))


def both(one: Shape) -> tuple[Shape, Shape]:
    """A shape and its mirror image."""
    return one, flipped(one)


@lru_cache(maxsize=4096)
def turned(one: Shape, pivot: Point, degrees: float) -> Shape:
    """The shape turned clockwise (as seen) about `pivot`."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    px, py = pivot

    def turn(points: tuple[Point, ...]) -> tuple[Point, ...]:
        return tuple((px + (x - px) * cos - (y - py) * sin, py + (x - px) * sin + (y - py) * cos) for x, y in points)

    return Shape(turn(one.inner), turn(one.outer))


def _fill(c: Canvas, colour: RGB, points: tuple[Point, ...]) -> None:
    # Canvas.polygon, but without a function call for each of the many points.
    sy = c.scale * c.size
    sx = -sy if c.flip else sy
    x0, y0 = c.x * c.size, c.y * c.size
    c.draw.polygon([(x0 + x * sx, y0 + y * sy) for x, y in points], fill=colour)


def fill(c: Canvas, colour: RGB, *shapes: Shape) -> None:
    """Without outlines."""
    for one in shapes:
        _fill(c, colour, one.inner)


def paint(c: Canvas, line: RGB, *parts: tuple[RGB, Shape]) -> None:
    """Fills the shapes, with one outline around all of them together."""
    for _, one in parts:
        _fill(c, line, one.outer)
    for colour, one in parts:
        _fill(c, colour, one.inner)


def eyes(c: Canvas, shades: Shades, rng: random.Random, x: float, y: float, span: float, size: float = 0.05) -> None:
    """Two big eyes with a glint; now and then they are closed in a smile."""
    dark_face = sum(shades.base) < 330
    shut = rng.random() < 0.12
    for side in (-1, 1):
        ex = x + side * span / 2
        if shut:
            arc = ((ex - size, y + 0.01), (ex, y - 0.03), (ex + size, y + 0.01))
            fill(c, WHITE if dark_face else INK, ribbon(0.028, *arc))
            continue
        if dark_face:
            fill(c, WHITE, oval(ex, y, size * 1.4, size * 1.6))
        fill(c, INK, oval(ex, y, size, size * 1.2))
        fill(c, WHITE, oval(ex - size * 0.3, y - size * 0.45, size * 0.42, size * 0.45))


def smile(c: Canvas, colour: RGB, x: float, y: float, width: float = 0.1, deep: float = 0.035) -> None:
    fill(c, colour, ribbon(0.024, (x - width / 2, y), (x, y + deep), (x + width / 2, y)))


def blush(c: Canvas, shades: Shades, x: float, y: float, span: float, size: float = 0.04) -> None:
    """Two rosy cheeks."""
    for side in (-1, 1):
        fill(c, mix(shades.base, BLUSH, 0.6), oval(x + side * span / 2, y, size, size * 0.65))
