"""Car, train, sailboat and rocket; all toys."""

from __future__ import annotations

import random

from datasets_build.storybook.canvas import Canvas
from datasets_build.storybook.palette import Shades, mix
from datasets_build.storybook.subjects.shapes import (
    GLASS,
    GOLD,
    INK,
    WHITE,
    WOOD,
    Anchors,
    both,
    box,
    edge,
    fill,
    mirrored,
    oval,
    paint,
    pale,
    poly,
    ribbon,
    soft,
    turned,
)

TYRE, HUB = (52, 52, 60), (206, 210, 218)
METAL_LINE = (70, 74, 86)


def wheel(c: Canvas, shades: Shades, x: float, y: float, radius: float) -> None:
    paint(c, (150, 150, 166), (TYRE, oval(x, y, radius, radius)))
    fill(c, HUB, oval(x, y, radius * 0.58, radius * 0.58))
    fill(c, shades.dark, oval(x, y, radius * 0.28, radius * 0.28))


def car(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """A round little car driving to the left."""
    base, light, dark, _ = shades
    line = edge(shades)
    aerial = turned(ribbon(0.022, (0.34, -0.2), (0.42, -0.42)), (0.34, -0.2), rng.choice((-10, 0, 10)))
    paint(c, METAL_LINE, (HUB, aerial))
    cabin = soft((-0.36, 0.06), (-0.27, -0.26), (-0.12, -0.42), (0.1, -0.45), (0.3, -0.36), (0.42, -0.1), (0.44, 0.08),
                 (0.0, 0.16))  # fmt: skip
    body = soft((-0.53, 0.2), (-0.5, 0.05), (-0.36, -0.03), (0.0, -0.05), (0.36, -0.04), (0.52, 0.08), (0.53, 0.28),
                (0.46, 0.36), (-0.44, 0.36), (-0.53, 0.3))  # fmt: skip
    paint(c, line, (base, cabin), (base, body))
    windows = (soft((-0.27, -0.05), (-0.21, -0.24), (-0.1, -0.35), (-0.02, -0.36), (-0.02, -0.36), (-0.02, -0.05),
                    (-0.02, -0.05), (-0.27, -0.05)),
               soft((0.06, -0.36), (0.06, -0.36), (0.2, -0.33), (0.3, -0.22), (0.34, -0.05), (0.34, -0.05),
                    (0.06, -0.05), (0.06, -0.05)))  # fmt: skip
    paint(c, line, *((GLASS, one) for one in windows))
    fill(c, WHITE, ribbon(0.03, (-0.16, -0.12), (-0.09, -0.27)), ribbon(0.03, (0.13, -0.12), (0.2, -0.27)))
    fill(c, light, ribbon(0.035, (-0.42, 0.07), (-0.2, 0.03), (0.1, 0.03)))
    fill(c, dark, ribbon(0.022, (0.02, 0.06), (0.02, 0.3)), ribbon(0.028, (0.08, 0.12), (0.15, 0.12)))
    paint(c, line, ((255, 240, 150), oval(-0.46, 0.14, 0.06, 0.07)), ((240, 70, 70), oval(0.505, 0.14, 0.03, 0.055)))
    paint(c, METAL_LINE, (HUB, ribbon(0.06, (-0.5, 0.33), (0.5, 0.33))))
    for x in (-0.28, 0.29):
        wheel(c, shades, x, 0.34, 0.145)
    return Anchors((0.04, -0.45), 0.46, (0.02, -0.19), 0.3, (0.02, 0.02), 0.74, (0.4, -0.06))


def train(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """A steam engine to the left: boiler, chimney with smoke, cab."""
    base, light, dark, _ = shades
    line = edge(shades)
    puff = rng.choice((-0.02, 0.0, 0.02))
    smoke = ((-0.3, -0.36, 0.07), (-0.2, -0.42, 0.085), (-0.09, -0.38, 0.06))
    paint(c, (150, 156, 172), *(((238, 240, 246), oval(x + puff, y, r, r * 0.85)) for x, y, r in smoke))
    paint(c, line, (dark, poly((-0.36, -0.02), (-0.25, -0.02), (-0.21, -0.26), (-0.4, -0.26))))
    paint(c, line, (GOLD, oval(-0.08, -0.08, 0.075, 0.08)))
    paint(c, line, (base, box(-0.48, -0.06, 0.16, 0.26, 0.1)))
    paint(c, line, (base, box(0.1, -0.36, 0.5, 0.26, 0.03)))
    paint(c, line, (dark, box(0.04, -0.47, 0.54, -0.36, 0.05)))
    paint(c, line, (GLASS, box(0.17, -0.26, 0.43, -0.02, 0.03)))
    fill(c, WHITE, ribbon(0.03, (0.23, -0.08), (0.31, -0.2)))
    fill(c, GOLD, box(-0.24, -0.06, -0.2, 0.26, 0.005), box(-0.04, -0.06, 0.0, 0.26, 0.005))
    fill(c, light, ribbon(0.04, (-0.4, -0.0), (-0.29, -0.0)), ribbon(0.04, (-0.15, 0), (-0.09, 0)))
    paint(c, line, (light, oval(-0.47, 0.1, 0.055, 0.12)))
    fill(c, GOLD, oval(-0.48, 0.1, 0.03, 0.07))
    paint(c, line, (dark, box(-0.5, 0.24, 0.53, 0.34, 0.02)))
    paint(c, METAL_LINE, ((196, 70, 58), poly((-0.44, 0.3), (-0.54, 0.47), (-0.36, 0.47))))
    for x, radius in ((-0.25, 0.105), (0.0, 0.105), (0.32, 0.15)):
        wheel(c, shades, x, 0.476 - radius, radius)
    fill(c, METAL_LINE, ribbon(0.03, (-0.25, 0.4), (0.32, 0.36)))
    return Anchors((0.29, -0.47), 0.48, (0.29, -0.14), 0.25, (0.29, 0.05), 0.44, (0.46, 0.06))


def sailboat(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """Two sails on a mast over a wooden hull, with a pennant."""
    base, light, dark, _ = shades
    line = edge(shades)
    wave = rng.choice((-0.02, 0.0, 0.02))
    paint(c, (80, 46, 22), (WOOD, box(-0.025, -0.48, 0.025, 0.28, 0.02)))
    paint(
        c,
        line,
        (
            dark,
            soft(
                (0.03, -0.48),
                (0.03, -0.48),
                (0.14, -0.455 + wave),
                (0.23, -0.44),
                (0.23, -0.44),
                (0.14, -0.39 + wave),
                (0.03, -0.37),
                (0.03, -0.37),
            ),
        ),
    )
    main = soft((0.05, -0.35), (0.05, -0.35), (0.3, -0.1), (0.47, 0.17), (0.47, 0.17), (0.26, 0.19), (0.05, 0.18),
                (0.05, 0.18))  # fmt: skip
    jib = soft((-0.06, -0.43), (-0.06, -0.43), (-0.06, 0.18), (-0.06, 0.18), (-0.26, 0.19), (-0.46, 0.17),
               (-0.46, 0.17), (-0.32, -0.1))  # fmt: skip
    paint(c, line, (base, main), (base, jib))
    fill(c, light, soft((-0.1, -0.25), (-0.1, 0.0), (-0.2, 0.02), (-0.24, -0.04)))
    fill(
        c,
        dark,
        ribbon(0.03, (0.08, 0.06), (0.24, 0.06), (0.37, 0.06)),
        ribbon(0.03, (-0.09, 0.1), (-0.26, 0.11), (-0.39, 0.1)),
    )
    hull = soft((-0.53, 0.25), (-0.53, 0.25), (0, 0.28), (0.53, 0.25), (0.53, 0.25), (0.42, 0.44), (0.24, 0.48),
                (-0.24, 0.48), (-0.42, 0.44))  # fmt: skip
    paint(c, (80, 46, 22), (WOOD, hull))
    fill(c, mix(WOOD, WHITE, 0.3), ribbon(0.035, (-0.46, 0.29), (0, 0.315), (0.46, 0.29)))
    fill(c, base, ribbon(0.06, (-0.41, 0.385), (0, 0.4), (0.41, 0.385)))
    return Anchors((0, -0.4), 0.38, (0.0, -0.02), 0.28, (0, 0.16), 0.5, (0.4, 0.2))


def rocket(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """Upright, with fins, a porthole and a flame."""
    base, light, dark, _ = shades
    line = edge(shades)
    length = rng.choice((0.46, 0.48, 0.5)) - 0.02
    paint(c, (190, 84, 10), ((255, 150, 40), mirrored((0, 0.26), (0.14, 0.28), (0.1, 0.38), (0, length), (0, length))))
    fill(c, (255, 224, 90), mirrored((0, 0.28), (0.07, 0.3), (0.05, 0.36), (0, 0.41)))
    fin = soft((0.16, 0.04), (0.16, 0.04), (0.34, 0.14), (0.4, 0.38), (0.4, 0.38), (0.26, 0.29), (0.14, 0.28))
    paint(c, line, *((dark, one) for one in both(fin)))
    paint(c, line, (dark, box(-0.13, 0.24, 0.13, 0.32, 0.03)))
    hull = mirrored(
        (0, -0.48), (0, -0.48), (0.13, -0.34), (0.22, -0.1), (0.22, 0.12), (0.15, 0.27), (0.15, 0.27), (0, 0.28)
    )
    paint(c, line, (base, hull))
    nose = mirrored((0, -0.48), (0, -0.48), (0.09, -0.39), (0.155, -0.285), (0.155, -0.285), (0, -0.26))
    fill(c, dark, nose)
    fill(c, light, ribbon(0.045, (-0.155, -0.1), (-0.165, 0.02), (-0.14, 0.14)))
    paint(c, line, (WHITE, oval(0, -0.08, 0.115, 0.115)))
    fill(c, (110, 190, 236), oval(0, -0.08, 0.08, 0.08))
    fill(c, WHITE, oval(-0.025, -0.11, 0.028, 0.022))
    fill(c, pale(shades), box(-0.19, 0.115, 0.19, 0.165, 0.01))
    paint(c, line, (dark, ribbon(0.06, (0, 0.2), (0, 0.36), end=0.04)))
    fill(c, INK, *both(oval(0.1, 0.215, 0.014, 0.014)))
    return Anchors((0, -0.42), 0.3, (0, -0.08), 0.24, (0, 0.1), 0.42, (0.3, 0.14))
