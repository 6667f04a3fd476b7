"""Tree, flower, cake and lantern."""

from __future__ import annotations

import random

from datasets_build.storybook.canvas import Canvas
from datasets_build.storybook.palette import Shades, mix
from datasets_build.storybook.subjects.shapes import (
    GOLD,
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
    mirrored,
    oval,
    paint,
    pale,
    ribbon,
    smile,
    soft,
    turned,
)

LEAF, LEAF_LINE = (92, 172, 76), (30, 88, 34)
BARK_LINE = (78, 46, 22)
GOLD_LINE = (150, 104, 10)


def tree(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """A crown like a cloud on a stout trunk, with a smile and some fruit."""
    base, light, dark, _ = shades
    line = edge(shades)
    trunk = mirrored((0, 0.1), (0.09, 0.12), (0.09, 0.34), (0.18, 0.48), (0.18, 0.48), (0, 0.46))
    paint(c, BARK_LINE, (WOOD, trunk), (WOOD, ribbon(0.06, (0.04, 0.26), (0.2, 0.14))))
    fill(c, mix(WOOD, INK, 0.3), ribbon(0.02, (-0.03, 0.3), (-0.04, 0.42)), ribbon(0.02, (0.03, 0.26), (0.04, 0.38)))
    clouds = ((0, -0.27, 0.22, 0.2), (-0.22, -0.18, 0.2, 0.18), (0.22, -0.18, 0.2, 0.18), (-0.31, 0.02, 0.2, 0.17),
              (0.31, 0.02, 0.2, 0.17), (0, 0.06, 0.3, 0.17), (0, -0.1, 0.3, 0.22))  # fmt: skip
    paint(c, line, *((base, oval(*one)) for one in clouds))
    fill(
        c,
        dark,
        *(
            ribbon(0.03, (x - 0.06, y), (x, y + 0.045), (x + 0.06, y))
            for x, y in ((-0.3, 0.1), (0.3, 0.1), (0.0, 0.16))
        ),
    )
    fill(
        c,
        light,
        oval(-0.1, -0.37, 0.1, 0.05, -20),
        oval(-0.3, -0.24, 0.06, 0.04, -35),
        oval(0.26, -0.26, 0.06, 0.035, 25),
    )
    fruit = (250, 208, 70) if base[0] > 170 and base[1] < 90 else (232, 62, 58)
    spots = ((-0.38, -0.04), (0.36, -0.08), (0.12, -0.32), (-0.2, -0.3), (0.27, 0.09), (-0.22, 0.11))
    for x, y in rng.sample(spots, 4):
        paint(c, line, (fruit, oval(x, y, 0.035, 0.035)))
    eyes(c, shades, rng, 0, -0.08, 0.22, 0.042)
    smile(c, WHITE if sum(base) < 330 else INK, 0, 0.0, 0.1, 0.045)
    blush(c, shades, 0, -0.0, 0.32)
    return Anchors((0, -0.44), 0.42, (0, -0.08), 0.26, (0, 0.22), 0.3, (0.36, 0.02))


def flower(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """Eight petals around a smiling face, on a stalk with two leaves."""
    base, light, dark, _ = shades
    line = edge(shades)
    sway = rng.choice((-0.03, 0.0, 0.03))
    paint(c, LEAF_LINE, (LEAF, ribbon(0.06, (0, 0.1), (sway, 0.3), (0, 0.465))))
    leaf = soft(
        (0.0, 0.46), (0.0, 0.46), (0.08, 0.36), (0.2, 0.31), (0.3, 0.33), (0.3, 0.33), (0.24, 0.43), (0.12, 0.48)
    )
    paint(c, LEAF_LINE, *((LEAF, one) for one in both(leaf)))
    fill(c, mix(LEAF, WHITE, 0.35), *both(ribbon(0.02, (0.06, 0.43), (0.15, 0.38), (0.23, 0.36))))
    spin = rng.choice((0.0, 22.5))
    petal = oval(0, -0.345, 0.12, 0.15)
    petals = [turned(petal, (0, -0.09), spin + 45 * i) for i in range(8)]
    for one in petals:
        paint(c, line, (base, one))
    fill(c, light, *(turned(ribbon(0.03, (0, -0.36), (0, -0.43)), (0, -0.09), spin + 45 * i) for i in range(8)))
    yellowish = base[0] > 190 and base[1] > 110 and base[2] < 80
    heart = (150, 92, 48) if yellowish else (252, 208, 74)
    paint(c, (96, 56, 20) if yellowish else GOLD_LINE, (heart, oval(0, -0.09, 0.165, 0.165)))
    face = Shades(heart, light, dark, INK)
    eyes(c, face, rng, 0, -0.12, 0.14, 0.036)
    smile(c, WHITE if yellowish else INK, 0, -0.05, 0.1, 0.04)
    blush(c, face, 0, -0.06, 0.23, 0.03)
    return Anchors((0, -0.42), 0.4, (0, -0.12), 0.22, (0, 0.24), 0.28, (0.24, 0.32))


def cake(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """Two tiers with dripping icing, candles and a smile, on a stand."""
    base, light, dark, _ = shades
    line = edge(shades)
    for i, x in enumerate((-0.16, 0.0, 0.16)):
        paint(c, (110, 110, 130), ((255, 246, 250), box(x - 0.025, -0.36, x + 0.025, -0.18, 0.01)))
        fill(
            c,
            ((92, 160, 236), (240, 96, 120), (120, 196, 104))[i],
            ribbon(0.02, (x - 0.015, -0.22), (x + 0.015, -0.25)),
            ribbon(0.02, (x - 0.015, -0.29), (x + 0.015, -0.32)),
        )
        lean = rng.choice((-0.012, 0.0, 0.012))
        paint(
            c,
            (214, 100, 20),
            (
                (255, 202, 66),
                soft((x, -0.37), (x + 0.034, -0.41), (x + lean, -0.475), (x + lean, -0.475), (x - 0.034, -0.41)),
            ),
        )
    paint(c, (110, 116, 134), ((226, 230, 240), box(-0.53, 0.415, 0.53, 0.475, 0.03)))
    icing = pale(shades)
    for half, top, foot, drip in ((0.44, 0.1, 0.41, 0.06), (0.3, -0.2, 0.1, 0.05)):
        paint(c, line, (base, box(-half, top, half, foot, 0.04)))
        fill(c, dark, box(-half + 0.01, foot - 0.06, half - 0.01, foot - 0.025, 0.01))
        step = half / 4
        drops = [(-half + step * (i + 0.0), top + drip * (1.0 if i % 2 else 1.9)) for i in range(9)]
        run = soft((-half, top), (-half, top), *drops, (half, top), (half, top), (0, top - 0.025))
        paint(c, line, (icing, run))
    fill(c, ((250, 96, 110)), *(oval(x, 0.33, 0.024, 0.024) for x in (-0.3, 0.3)))
    fill(c, light, *(oval(x, y, 0.02, 0.02) for x, y in ((-0.2, 0.31), (0.2, 0.31), (-0.37, 0.27), (0.37, 0.27))))
    eyes(c, shades, rng, 0, -0.02, 0.2, 0.038)
    smile(c, WHITE if sum(base) < 330 else INK, 0, 0.03, 0.08, 0.03)
    blush(c, shades, 0, 0.035, 0.34, 0.03)
    return Anchors((0, -0.34), 0.4, (0, -0.01), 0.26, (0, 0.13), 0.6, (0.42, 0.2))


def lantern(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """A round Chinese lantern with gold caps, ribs and a tassel."""
    base, light, dark, _ = shades
    line = edge(shades)
    paint(c, GOLD_LINE, (GOLD, ribbon(0.03, (-0.06, -0.38), (-0.04, -0.46), (0.04, -0.46), (0.06, -0.38))))
    sway = rng.choice((-0.03, 0.0, 0.03))
    paint(c, GOLD_LINE, (GOLD, ribbon(0.024, (0, 0.26), (0, 0.36))))
    paint(
        c,
        line,
        (
            dark,
            soft(
                (-0.03, 0.35),
                (0.03, 0.35),
                (0.06 + sway, 0.475),
                (0.06 + sway, 0.475),
                (sway - 0.06, 0.475),
                (sway - 0.06, 0.475),
            ),
        ),
    )
    paint(c, GOLD_LINE, (GOLD, oval(0, 0.35, 0.045, 0.035)))
    body = mirrored((0, -0.32), (0.22, -0.31), (0.42, -0.2), (0.49, -0.03), (0.42, 0.14), (0.22, 0.25), (0, 0.26))
    paint(c, line, (base, body))
    fill(c, mix(base, light, 0.55), mirrored((0, -0.31), (0.13, -0.28), (0.2, -0.03), (0.13, 0.22), (0, 0.25)))
    for x in (0.2, 0.38):
        fill(
            c,
            dark,
            *both(
                ribbon(
                    0.024,
                    (x * 0.6, -0.31 + x * 0.1),
                    (x, -0.16),
                    (x * 1.06, -0.03),
                    (x, 0.1),
                    (x * 0.6, 0.25 - x * 0.1),
                )
            ),
        )
    paint(c, GOLD_LINE, (GOLD, box(-0.2, -0.39, 0.2, -0.3, 0.025)), (GOLD, box(-0.2, 0.235, 0.2, 0.315, 0.025)))
    fill(c, mix(GOLD, WHITE, 0.5), ribbon(0.022, (-0.15, -0.345), (0.05, -0.345)))
    eyes(c, shades, rng, 0, -0.07, 0.22, 0.042)
    smile(c, WHITE if sum(base) < 330 else INK, 0, 0.02, 0.1, 0.045)
    blush(c, shades, 0, 0.02, 0.33)
    return Anchors((0, -0.38), 0.42, (0, -0.07), 0.25, (0, 0.24), 0.4, (0.4, 0.1))
