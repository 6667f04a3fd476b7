"""House, castle and pagoda."""

from __future__ import annotations

import random

from datasets_build.storybook.canvas import Canvas
from datasets_build.storybook.palette import Shades, mix
from datasets_build.storybook.subjects.shapes import (
    GLASS,
    GOLD,
    WHITE,
    WOOD,
    Anchors,
    Shape,
    both,
    box,
    edge,
    fill,
    mirrored,
    oval,
    paint,
    pale,
    ribbon,
    soft,
)

WARM = (255, 226, 120)  # windows with somebody at home
DOOR_LINE = (80, 46, 22)


def house(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """A cottage with a steep roof, two windows, a door and a smoking chimney."""
    base, light, dark, _ = shades
    line = edge(shades)
    puff = rng.choice((-0.02, 0.0, 0.02))
    paint(
        c,
        (150, 156, 172),
        ((238, 240, 246), oval(0.3 + puff, -0.43, 0.05, 0.045)),
        ((238, 240, 246), oval(0.37 + puff, -0.45, 0.04, 0.035)),
    )
    paint(c, line, (light, box(0.22, -0.36, 0.34, -0.1, 0.01)))
    paint(c, line, (base, box(-0.4, -0.08, 0.4, 0.48, 0.02)))
    roof = soft((0, -0.48), (0, -0.48), (0.27, -0.22), (0.53, 0.0), (0.53, 0.0), (0.5, 0.05), (0.5, 0.05), (0, 0.04),
                (-0.5, 0.05), (-0.5, 0.05), (-0.53, 0.0), (-0.53, 0.0), (-0.27, -0.22))  # fmt: skip
    paint(c, line, (dark, roof))
    tile = mix(dark, base, 0.55)
    for x, y in ((-0.3, -0.05), (-0.13, -0.05), (0.13, -0.05), (0.3, -0.05), (-0.15, -0.18), (0.15, -0.18)):
        fill(c, tile, ribbon(0.026, (x - 0.06, y), (x, y + 0.04), (x + 0.06, y)))
    paint(c, line, (WARM, oval(0, -0.2, 0.075, 0.075)))
    lamp = WARM if rng.random() < 0.5 else GLASS
    for x in (-0.25, 0.25):
        paint(c, line, (lamp, box(x - 0.085, 0.12, x + 0.085, 0.3, 0.01)))
        fill(c, WHITE, box(x - 0.012, 0.12, x + 0.012, 0.3, 0.002), box(x - 0.085, 0.2, x + 0.085, 0.222, 0.002))
    door = soft((-0.095, 0.48), (-0.095, 0.48), (-0.095, 0.24), (0, 0.16), (0.095, 0.24), (0.095, 0.48), (0.095, 0.48))
    paint(c, DOOR_LINE, (WOOD, door))
    fill(c, GOLD, oval(0.05, 0.34, 0.022, 0.022))
    paint(c, (40, 96, 40), *(((104, 176, 84), one) for x in (-0.3, 0.3) for one in both(oval(x, 0.45, 0.07, 0.035))))
    return Anchors((0, -0.42), 0.42, (0, 0.21), 0.5, (0, 0.07), 0.78, (0.44, 0.16))


def castle(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """Three towers, two with pointed roofs, battlements and a gate."""
    base, light, dark, _ = shades
    line = edge(shades)
    wave = rng.choice((-0.015, 0.0, 0.015))

    def battlements(x0: float, x1: float, y: float, teeth: int) -> list:
        step = (x1 - x0) / (2 * teeth - 1)
        return [box(x0 + 2 * i * step, y - 0.06, x0 + (2 * i + 1) * step, y + 0.04, 0.005) for i in range(teeth)]

    paint(c, line, (WOOD, box(-0.01, -0.47, 0.01, -0.2, 0.004)))
    paint(
        c,
        line,
        (
            (250, 96, 90),
            soft(
                (0.012, -0.47),
                (0.012, -0.47),
                (0.1, -0.43 + wave),
                (0.18, -0.43),
                (0.18, -0.43),
                (0.1, -0.37 + wave),
                (0.012, -0.36),
                (0.012, -0.36),
            ),
        ),
    )
    keep = [box(-0.16, -0.16, 0.16, 0.2, 0.005), *battlements(-0.18, 0.18, -0.16, 4)]
    paint(c, line, *((light, one) for one in keep))
    wall = [box(-0.3, 0.12, 0.3, 0.48, 0.005), *battlements(-0.26, 0.26, 0.1, 5)]
    paint(c, line, *((base, one) for one in wall))
    for side in (-1, 1):
        x = side * 0.36
        paint(c, line, (base, box(x - 0.13, -0.12, x + 0.13, 0.48, 0.005)))
        roof = soft((x, -0.45), (x, -0.45), (x + 0.09, -0.24), (x + 0.185, -0.09), (x + 0.185, -0.09), (x, -0.07),
                    (x - 0.185, -0.09), (x - 0.185, -0.09), (x - 0.09, -0.24))  # fmt: skip
        paint(c, line, (dark, roof))
        paint(
            c,
            line,
            (
                WARM,
                soft(
                    (x - 0.04, 0.14),
                    (x - 0.04, 0.14),
                    (x - 0.04, 0.06),
                    (x, 0.02),
                    (x + 0.04, 0.06),
                    (x + 0.04, 0.14),
                    (x + 0.04, 0.14),
                ),
            ),
        )
        fill(
            c,
            light,
            *(box(x + dx, y, x + dx + 0.07, y + 0.03, 0.005) for dx, y in ((-0.1, 0.22), (0.02, 0.3), (-0.08, 0.38))),
        )
    paint(c, line, (WARM, oval(0, -0.03, 0.05, 0.055)))
    gate = soft((-0.12, 0.48), (-0.12, 0.48), (-0.12, 0.3), (0, 0.19), (0.12, 0.3), (0.12, 0.48), (0.12, 0.48))
    paint(c, DOOR_LINE, (WOOD, gate))
    fill(c, DOOR_LINE, ribbon(0.02, (0, 0.22), (0, 0.47)), ribbon(0.02, (-0.1, 0.36), (0.1, 0.36)))
    return Anchors((0, -0.2), 0.4, (0, -0.02), 0.26, (0, 0.14), 0.6, (0.44, 0.12))


def pagoda(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """Three storeys, each under a roof whose corners turn up."""
    base, _, dark, _ = shades
    line = edge(shades)
    paint(c, (150, 104, 10), (GOLD, ribbon(0.035, (0, -0.47), (0, -0.36))), (GOLD, oval(0, -0.4, 0.04, 0.035)))
    wall = pale(shades)
    paint(c, line, ((196, 190, 184), box(-0.42, 0.42, 0.42, 0.48, 0.01)))
    lit = rng.random() < 0.5
    windows: tuple[Shape, ...]
    for y, half, roof in ((0.22, 0.32, 0.54), (-0.04, 0.23, 0.45), (-0.27, 0.15, 0.36)):
        top, foot = y, y + (0.2 if y > 0 else 0.17)
        paint(c, line, (wall, box(-half, top - 0.02, half, foot, 0.005)))
        fill(c, base, *both(box(half - 0.06, top, half, foot, 0.003)))
        windows = both(box(half * 0.3, top + 0.07, half * 0.3 + 0.07, foot - 0.02, 0.003))
        if half < 0.2:
            windows = (box(-0.04, top + 0.06, 0.04, foot - 0.02, 0.003),)
        paint(c, line, *((WARM if lit else dark, one) for one in windows))
        corner = (roof, top - 0.06)
        eaves = mirrored((0, top - 0.12), (half * 0.7, top - 0.11), (half + 0.06, top - 0.01), corner, corner,
                         (roof - 0.06, top + 0.05), (half, top + 0.065), (0, top + 0.06))  # fmt: skip
        paint(c, line, (base, eaves))
        fill(c, dark, ribbon(0.024, (-half - 0.08, top + 0.035), (0, top + 0.035), (half + 0.08, top + 0.035)))
    paint(c, DOOR_LINE, (WOOD, box(-0.07, 0.29, 0.07, 0.43, 0.01)))
    return Anchors((0, -0.38), 0.36, (0, 0.06), 0.26, (0, 0.19), 0.62, (0.4, 0.26))
