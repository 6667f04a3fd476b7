"""A girl, a robot and a snowman."""

from __future__ import annotations

import random

from datasets_build.storybook.canvas import Canvas
from datasets_build.storybook.palette import Shades, mix
from datasets_build.storybook.subjects.shapes import (
    INK,
    WHITE,
    WOOD,
    Anchors,
    blush,
    both,
    box,
    edge,
    eyes,
    fill,
    is_dark,
    mirrored,
    oval,
    paint,
    pale,
    ribbon,
    smile,
    soft,
    turned,
)

SKIN, HAIR, SKIN_LINE = (255, 218, 188), (84, 54, 46), (140, 82, 62)
METAL, METAL_LINE = (188, 196, 208), (88, 96, 112)


def girl(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """Two pigtails with bows, a wide dress and a hand that waves."""
    base, light, dark, _ = shades
    line = edge(shades)
    sway = rng.choice((-6, 0, 6))
    hair_line = (48, 28, 24)
    tails = both(soft((0.2, -0.34), (0.31, -0.36), (0.37, -0.22), (0.34, -0.08), (0.28, -0.08), (0.24, -0.18)))
    paint(c, hair_line, *((HAIR, turned(one, (0, -0.25), sway)) for one in tails), (HAIR, oval(0, -0.25, 0.245, 0.24)))
    paint(c, SKIN_LINE, *((SKIN, leg) for leg in both(ribbon(0.085, (0.085, 0.3), (0.085, 0.43)))))
    paint(c, line, *((dark, shoe) for shoe in both(oval(0.105, 0.455, 0.085, 0.045))))
    wave = rng.choice((-10, 0, 10))
    arm = turned(ribbon(0.085, (0.12, 0.04), (0.28, 0.05), (0.37, -0.05)), (0.12, 0.04), wave)
    sleeve = turned(ribbon(0.13, (0.1, 0.04), (0.24, 0.055)), (0.12, 0.04), wave)
    paint(c, SKIN_LINE, (SKIN, arm), (SKIN, ribbon(0.085, (-0.12, 0.04), (-0.25, 0.12), (-0.33, 0.2))))
    paint(c, line, (base, sleeve), (base, ribbon(0.13, (-0.1, 0.04), (-0.23, 0.1))))
    dress = mirrored((0, -0.04), (0.13, -0.02), (0.18, 0.1), (0.3, 0.24), (0.42, 0.37), (0.42, 0.37), (0.2, 0.41),
                     (0, 0.42))  # fmt: skip
    paint(c, line, (base, dress))
    fill(c, dark, ribbon(0.04, (-0.17, 0.12), (0, 0.14), (0.17, 0.12)))
    fill(
        c,
        pale(shades),
        *(
            oval(x, y, 0.028, 0.028)
            for x, y in (
                (-0.14, 0.28),
                (0.0, 0.24),
                (0.14, 0.28),
                (-0.05, 0.35),
                (0.08, 0.36),
                (0.24, 0.36),
                (-0.24, 0.36),
            )
        ),
    )
    paint(c, SKIN_LINE, (SKIN, oval(0, -0.21, 0.21, 0.19)))
    fringe = soft((-0.24, -0.22), (-0.22, -0.38), (0, -0.49), (0.22, -0.38), (0.24, -0.22), (0.17, -0.26), (0.1, -0.32),
                  (-0.02, -0.29), (-0.15, -0.27))  # fmt: skip
    fill(c, HAIR, fringe)
    fill(c, mix(HAIR, WHITE, 0.25), ribbon(0.03, (-0.12, -0.4), (-0.03, -0.435), (0.06, -0.43)))
    for side in (-1, 1):
        knot = side * 0.23
        paint(c, line, (base, soft((knot, -0.34), (knot - 0.09, -0.42), (knot - 0.08, -0.27))),
              (base, soft((knot, -0.34), (knot + 0.09, -0.42), (knot + 0.08, -0.27))))  # fmt: skip
    face = Shades(SKIN, light, dark, SKIN_LINE)
    eyes(c, face, rng, 0, -0.2, 0.2, 0.04)
    blush(c, face, 0, -0.12, 0.28, 0.045)
    smile(c, (178, 60, 62), 0, -0.11, 0.1, 0.045)
    return Anchors((0, -0.46), 0.44, (0, -0.2), 0.22, (0, 0.0), 0.28, (0.36, -0.03))


def robot(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """Boxes, an antenna, a screen for a face, lamps on the chest and claws."""
    base, light, dark, _ = shades
    line = edge(shades)
    paint(c, METAL_LINE, (METAL, ribbon(0.035, (0, -0.38), (0, -0.45))))
    lamp = rng.choice(((255, 90, 80), (255, 214, 70), (110, 224, 120)))
    paint(c, line, (lamp, oval(0, -0.455, 0.042, 0.042)))
    lift = rng.choice((-12, 0, 12))
    arms = (turned(ribbon(0.075, (0.24, 0.08), (0.36, 0.1), (0.42, -0.02)), (0.24, 0.08), lift),
            ribbon(0.075, (-0.24, 0.08), (-0.37, 0.14), (-0.4, 0.26)))  # fmt: skip
    paint(c, METAL_LINE, *((METAL, arm) for arm in arms))
    paint(
        c,
        line,
        (dark, turned(oval(0.43, -0.04, 0.075, 0.075), (0.24, 0.08), lift)),
        (dark, oval(-0.4, 0.28, 0.075, 0.075)),
    )
    paint(c, METAL_LINE, *((METAL, leg) for leg in both(ribbon(0.09, (0.12, 0.34), (0.12, 0.42)))),
          (METAL, ribbon(0.12, (0, -0.04), (0, 0.02))))  # fmt: skip
    paint(c, line, *((dark, foot) for foot in both(box(0.03, 0.41, 0.24, 0.48, 0.034))))
    paint(c, line, (base, box(-0.26, 0.0, 0.26, 0.36, 0.06)))
    paint(c, line, *((dark, knob) for knob in both(box(0.28, -0.28, 0.35, -0.14, 0.03))))
    paint(c, line, (base, box(-0.29, -0.39, 0.29, -0.03, 0.08)))
    fill(c, light, ribbon(0.03, (-0.2, -0.36), (0.1, -0.36)))
    screen = (46, 54, 74) if not is_dark(shades) else (226, 238, 246)
    fill(c, screen, box(-0.23, -0.325, 0.23, -0.085, 0.06))
    glow = (150, 244, 250) if not is_dark(shades) else INK
    if rng.random() < 0.15:
        fill(c, glow, *both(ribbon(0.036, (0.06, -0.22), (0.11, -0.255), (0.16, -0.22))))
    else:
        fill(c, glow, *both(oval(0.11, -0.23, 0.05, 0.056)))
    smile(c, glow, 0, -0.15, 0.13, 0.03)
    fill(c, pale(shades), box(-0.17, 0.07, 0.17, 0.24, 0.03))
    fill(c, (240, 84, 84), oval(-0.09, 0.155, 0.04, 0.04))
    fill(c, (250, 200, 60), oval(0.0, 0.155, 0.04, 0.04))
    fill(c, (86, 190, 110), oval(0.09, 0.155, 0.04, 0.04))
    fill(c, dark, *(ribbon(0.024, (-0.14, y), (0.14, y)) for y in (0.29, 0.325)))
    return Anchors((0, -0.39), 0.5, (0, -0.23), 0.24, (0, 0.01), 0.4, (0.42, -0.03))


def snowman(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """Two balls of (coloured) snow, a carrot, coal buttons and twigs for arms."""
    base, light, dark, _ = shades
    line = edge(shades)
    twig_line = (74, 44, 22)
    lift = rng.choice((-8, 0, 8))
    twig = (ribbon(0.032, (0.2, 0.1), (0.36, 0.0), (0.49, -0.1), end=0.02), ribbon(0.024, (0.4, -0.03), (0.5, 0.0)),
            ribbon(0.024, (0.41, -0.035), (0.43, -0.14)))  # fmt: skip
    for one in twig:
        right = turned(one, (0.2, 0.1), lift)
        paint(c, twig_line, *((WOOD, shape) for shape in both(right)))
    paint(c, line, (base, oval(0, 0.19, 0.33, 0.29)))
    fill(c, mix(base, dark, 0.6), soft((-0.25, 0.36), (0, 0.43), (0.27, 0.34), (0.17, 0.44), (0, 0.48), (-0.17, 0.44)))
    fill(c, light, oval(-0.14, 0.06, 0.08, 0.05, -35))
    coal = INK if not is_dark(shades) else (236, 236, 240)
    fill(c, coal, *(oval(0, y, 0.034, 0.034) for y in (0.08, 0.19, 0.3)))
    paint(c, line, (base, oval(0, -0.24, 0.25, 0.235)))
    fill(c, light, oval(-0.11, -0.37, 0.06, 0.035, -35))
    eyes(c, shades, rng, 0, -0.28, 0.2, 0.042)
    blush(c, shades, 0, -0.18, 0.33)
    fill(
        c,
        coal,
        *(
            oval(x, y, 0.02, 0.02)
            for x, y in ((-0.1, -0.125), (-0.052, -0.098), (0, -0.09), (0.052, -0.098), (0.1, -0.125))
        ),
    )
    paint(c, (150, 70, 10), ((250, 140, 40), soft((-0.02, -0.26), (-0.02, -0.18), (0.2, -0.19), (0.2, -0.19))))
    return Anchors((0, -0.45), 0.42, (0, -0.28), 0.24, (0, -0.05), 0.4, (0.4, -0.04))
