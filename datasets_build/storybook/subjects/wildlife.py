"""Bird, fish, turtle and butterfly: each has a silhouette of its own."""

from __future__ import annotations

import random

from datasets_build.storybook.canvas import Canvas
from datasets_build.storybook.palette import Shades, mix
from datasets_build.storybook.subjects.shapes import (
    BLUSH,
    INK,
    Anchors,
    blush,
    both,
    edge,
    eyes,
    fill,
    is_white,
    oval,
    paint,
    pale,
    poly,
    ribbon,
    smile,
    soft,
    turned,
)

BEAK = (250, 168, 40)


def bird(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """A round little bird with a crest, a wing and a cocked tail."""
    base, _, dark, _ = shades
    line = edge(shades)
    leg_line = (150, 84, 10)
    for x in (-0.1, 0.1):
        paint(c, leg_line, (BEAK, ribbon(0.03, (x, 0.34), (x, 0.46))),
              (BEAK, ribbon(0.03, (x - 0.08, 0.475), (x, 0.455), (x + 0.06, 0.475))))  # fmt: skip
    tail = soft((0.22, 0.04), (0.53, -0.2), (0.53, -0.2), (0.54, -0.02), (0.46, 0.12), (0.28, 0.26))
    paint(c, line, (dark, tail))
    crest = [ribbon(0.06, (-0.08, -0.36), (x, y), end=0.04) for x, y in ((-0.15, -0.47), (-0.04, -0.48), (0.06, -0.45))]
    body = soft((-0.08, -0.4), (0.12, -0.35), (0.25, -0.18), (0.36, 0.06), (0.28, 0.28), (0.08, 0.39), (-0.18, 0.37),
                (-0.36, 0.2), (-0.39, -0.06), (-0.3, -0.3))  # fmt: skip
    paint(c, line, *((dark, one) for one in crest))
    paint(c, line, (base, body))
    fill(c, pale(shades), soft((-0.34, 0.06), (-0.14, 0.08), (0.0, 0.2), (-0.02, 0.36), (-0.2, 0.34), (-0.32, 0.2)))
    wing = soft((0.04, 0.0), (0.2, -0.04), (0.36, 0.1), (0.42, 0.24), (0.42, 0.24), (0.24, 0.25), (0.08, 0.17))
    wing = turned(wing, (0.06, 0.04), rng.choice((-24, -8, 0)))
    paint(c, line, (dark, wing))
    paint(c, leg_line, (BEAK, soft((-0.25, -0.11), (-0.14, -0.14), (-0.03, -0.1), (-0.16, 0.04), (-0.16, 0.04))))
    fill(c, leg_line, ribbon(0.014, (-0.22, -0.075), (-0.14, -0.06), (-0.07, -0.075)))
    eyes(c, shades, rng, -0.14, -0.18, 0.26, 0.055)
    blush(c, shades, -0.14, -0.07, 0.4)
    return Anchors((-0.08, -0.38), 0.4, (-0.14, -0.18), 0.27, (-0.06, 0.06), 0.58, (0.3, 0.08))


def fish(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """Swimming to the left: a round body with a fan of a tail, fins and scales."""
    base, light, dark, _ = shades
    line = edge(shades)
    tail = soft((0.24, 0.0), (0.4, -0.22), (0.54, -0.34), (0.54, -0.34), (0.47, 0.0), (0.54, 0.34), (0.54, 0.34),
                (0.4, 0.22))  # fmt: skip
    tail = turned(tail, (0.26, 0), rng.choice((-7, 0, 7)))
    top = soft((-0.24, -0.26), (-0.1, -0.46), (0.1, -0.48), (0.26, -0.38), (0.26, -0.38), (0.2, -0.2))
    low = soft((-0.12, 0.28), (0.02, 0.46), (0.16, 0.48), (0.16, 0.48), (0.14, 0.24))
    paint(c, line, *((dark, one) for one in (tail, top, low)))
    fill(c, light, *(ribbon(0.02, (0.34, y), (0.46, 2.2 * y)) for y in (-0.08, 0.0, 0.08)))
    fill(c, light, *(ribbon(0.02, (x, -0.32), (x + 0.05, -0.43)) for x in (-0.06, 0.04, 0.14)))
    body = soft((-0.53, 0.04), (-0.44, -0.16), (-0.24, -0.31), (0.02, -0.33), (0.24, -0.18), (0.34, 0.0), (0.24, 0.2),
                (0.02, 0.35), (-0.26, 0.33), (-0.46, 0.2))  # fmt: skip
    paint(c, line, (base, body))
    fill(c, pale(shades), soft((-0.42, 0.2), (-0.2, 0.2), (0.04, 0.22), (0.16, 0.24), (0.02, 0.335), (-0.24, 0.32)))
    scale = [(0.0, -0.16), (0.0, 0.0), (0.13, -0.08), (0.13, 0.08), (-0.06, 0.16)]
    fill(c, light, *(ribbon(0.028, (x, y - 0.06), (x + 0.05, y), (x, y + 0.06)) for x, y in scale))
    fill(c, dark, ribbon(0.026, (-0.16, -0.2), (-0.11, -0.02), (-0.17, 0.18)))
    paint(c, line, (dark, soft((-0.09, 0.06), (0.07, 0.08), (0.12, 0.18), (0.0, 0.22), (-0.09, 0.14))))
    fill(c, (255, 255, 255), oval(-0.31, -0.07, 0.09, 0.1))
    fill(c, INK, oval(-0.325, -0.06, 0.06, 0.07))
    fill(c, (255, 255, 255), oval(-0.35, -0.09, 0.025, 0.028))
    fill(c, mix(base, BLUSH, 0.6), oval(-0.26, 0.09, 0.05, 0.035))
    fill(c, INK, ribbon(0.026, (-0.49, 0.1), (-0.43, 0.13), (-0.37, 0.09)))
    return Anchors((-0.12, -0.33), 0.4, (-0.3, -0.07), 0.24, (-0.12, 0.2), 0.52, (0.12, 0.16))


def turtle(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """A high patterned shell on short legs, the head held up at the left."""
    base, light, dark, _ = shades
    line = edge(shades)
    skin = mix(light, (250, 226, 150), 0.4) if not is_white(shades) else (222, 216, 200)
    tail = turned(ribbon(0.12, (0.44, 0.24), (0.55, 0.3), end=0.03), (0.44, 0.24), rng.choice((-24, -8, 8)))
    paint(c, line, (skin, tail))
    legs = [ribbon(0.16, (x, 0.28), (x + dx, 0.42)) for x, dx in ((-0.14, -0.03), (0.34, 0.03))]
    head = soft((-0.4, -0.38), (-0.25, -0.32), (-0.2, -0.16), (-0.28, -0.02), (-0.42, 0.0), (-0.53, -0.07),
                (-0.545, -0.22))  # fmt: skip
    neck = ribbon(0.19, (-0.1, 0.2), (-0.27, 0.12), (-0.33, -0.08), end=0.17)
    paint(c, line, *((skin, one) for one in (*legs, neck, head)))
    shell = soft((-0.28, 0.26), (-0.24, 0.0), (-0.1, -0.3), (0.12, -0.46), (0.34, -0.34), (0.5, -0.04), (0.53, 0.26),
                 (0.53, 0.26), (0.12, 0.29), (-0.28, 0.26))  # fmt: skip
    paint(c, line, (base, shell))
    plates = (poly((0.02, -0.24), (0.22, -0.26), (0.3, -0.1), (0.2, 0.04), (0.04, 0.05), (-0.05, -0.08)),
              poly((-0.12, -0.04), (-0.04, 0.1), (-0.1, 0.22), (-0.22, 0.22), (-0.2, 0.06)),
              poly((0.04, 0.12), (0.2, 0.11), (0.26, 0.22), (-0.02, 0.22)),
              poly((0.28, 0.06), (0.37, -0.06), (0.44, 0.02), (0.47, 0.21), (0.34, 0.22)),
              poly((-0.02, -0.31), (0.1, -0.4), (0.24, -0.36), (0.22, -0.31)))  # fmt: skip
    fill(c, dark, *plates)
    fill(c, light, oval(0.08, -0.17, 0.05, 0.03, -20))
    paint(c, line, (dark, ribbon(0.085, (-0.28, 0.27), (0.12, 0.3), (0.51, 0.27))))
    on_skin = Shades(skin, light, dark, line)
    eyes(c, on_skin, rng, -0.38, -0.21, 0.19, 0.045)
    blush(c, on_skin, -0.38, -0.11, 0.27, 0.035)
    smile(c, INK, -0.39, -0.1, 0.12, 0.04)
    return Anchors((-0.38, -0.36), 0.34, (-0.38, -0.21), 0.23, (-0.3, 0.07), 0.26, (0.3, -0.16))


def butterfly(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """Four wings with spots, and curled feelers."""
    base, light, dark, _ = shades
    line = edge(shades)
    lift = rng.choice((-5, 0, 5))
    upper = soft((0.04, 0.06), (0.1, -0.2), (0.3, -0.4), (0.48, -0.4), (0.53, -0.22), (0.45, -0.02), (0.26, 0.1))
    lower = soft((0.04, 0.06), (0.26, 0.06), (0.42, 0.18), (0.42, 0.36), (0.3, 0.48), (0.16, 0.4), (0.06, 0.22))
    upper = turned(upper, (0, 0.05), lift)
    lower = turned(lower, (0, 0.05), -lift)
    paint(c, line, *((base, one) for wing in (lower, upper) for one in both(wing)))
    spot = turned(oval(0.36, -0.22, 0.1, 0.115, 40), (0, 0.05), lift)
    small = [turned(oval(x, y, 0.035, 0.035), (0, 0.05), lift) for x, y in ((0.22, -0.25), (0.25, 0.0))]
    low = turned(oval(0.28, 0.29, 0.085, 0.1, -30), (0, 0.05), -lift)
    fill(c, dark, *(one for shape in (spot, low) for one in both(shape)))
    inner = turned(oval(0.36, -0.22, 0.058, 0.07, 40), (0, 0.05), lift)
    centre = turned(oval(0.28, 0.29, 0.045, 0.06, -30), (0, 0.05), -lift)
    fill(c, pale(shades), *(one for shape in (inner, centre, *small) for one in both(shape)))
    fill(
        c,
        line,
        *both(ribbon(0.026, (0.03, -0.2), (0.07, -0.37), (0.15, -0.46))),
        *both(oval(0.155, -0.46, 0.035, 0.035)),
    )
    body = mix(dark, INK, 0.35)
    paint(c, line, (body, ribbon(0.13, (0, -0.04), (0, 0.16), (0, 0.36), end=0.06)))
    fill(c, light, *(ribbon(0.026, (-0.035, y), (0, y + 0.012), (0.035, y)) for y in (0.08, 0.17, 0.26)))
    face = mix(light, (255, 236, 214), 0.5)
    paint(c, line, (face, oval(0, -0.16, 0.14, 0.125)))
    on_face = Shades(face, light, dark, line)
    eyes(c, on_face, rng, 0, -0.17, 0.13, 0.036)
    smile(c, INK, 0, -0.11, 0.07, 0.03)
    blush(c, on_face, 0, -0.115, 0.2, 0.028)
    return Anchors((0, -0.28), 0.3, (0, -0.17), 0.2, (0, -0.02), 0.22, (0.1, 0.14))
