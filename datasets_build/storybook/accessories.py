"""What subjects wear and hold, drawn large: a hat must be seen on the smallest subject of the widest picture.

    python -c "from datasets_build.storybook.accessories import FRONT; print(*FRONT)"

Everything hangs on the subject's `Anchors` and stays within x = -0.65 ... 0.65 and above y = -0.95 of its frame.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from datasets_build.storybook.canvas import Canvas
from datasets_build.storybook.palette import Shades, mix
from datasets_build.storybook.subjects.shapes import (
    INK,
    WHITE,
    Anchors,
    edge,
    fill,
    is_white,
    oval,
    paint,
    ribbon,
    soft,
)

LEFT, RIGHT, TOP = -0.62, 0.62, -0.92  # how far an accessory's inside may reach; its outline goes a little further
STICK, STICK_LINE = (176, 134, 92), (70, 44, 24)


def _hat(c: Canvas, shades: Shades, anchors: Anchors, rng: random.Random) -> None:
    (x, y), half = anchors.head_top, min(max(anchors.head_width * 0.6, 0.24), 0.3)
    y -= 0.015
    line = edge(shades)
    x = min(max(x, LEFT + half + 0.05), RIGHT - half - 0.05)
    top = half * 0.56
    crown = soft((x - top, y), (x - top, y), (x - top * 0.96, y - 0.2), (x - top * 0.8, y - 0.29), (x, y - 0.31),
                 (x + top * 0.8, y - 0.29), (x + top * 0.96, y - 0.2), (x + top, y), (x + top, y))  # fmt: skip
    brim = ribbon(0.085, (x - half, y - 0.01), (x, y + 0.025), (x + half, y - 0.01))
    paint(c, line, (shades.base, crown))
    band = mix(shades.light, WHITE, 0.5) if not is_white(shades) else shades.dark
    fill(c, band, ribbon(0.065, (x - top + 0.025, y - 0.075), (x, y - 0.055), (x + top - 0.025, y - 0.075)))
    paint(c, line, (shades.base, brim))
    fill(c, shades.light, ribbon(0.035, (x - top * 0.5, y - 0.25), (x - top * 0.55, y - 0.15)))


def _crown(c: Canvas, shades: Shades, anchors: Anchors, rng: random.Random) -> None:
    (x, y), half = anchors.head_top, min(max(anchors.head_width * 0.46, 0.2), 0.24)
    line = edge(shades)
    x = min(max(x, LEFT + half * 1.15 + 0.034), RIGHT - half * 1.15 - 0.034)
    y += 0.03
    tips = ((-1.15, -0.26), (-0.56, -0.3), (0, -0.34), (0.56, -0.3), (1.15, -0.26))
    points = [(x - half, y)]
    for i, (dx, dy) in enumerate(tips):
        points.append((x + dx * half, y + dy))
        if i < 4:
            points.append((x + (-0.72 + 0.48 * i) * half, y - 0.13))
    points.append((x + half, y))
    doubled = [p for point in points for p in (point, point)]
    paint(
        c,
        line,
        (shades.base, soft(*doubled)),
        *((shades.light, oval(x + dx * half, y + dy, 0.034, 0.034)) for dx, dy in tips),
    )
    fill(c, shades.dark, ribbon(0.05, (x - half + 0.03, y - 0.03), (x, y - 0.025), (x + half - 0.03, y - 0.03)))
    jewel = (96, 226, 240) if shades.base[2] < 180 else (250, 90, 110)
    fill(c, jewel, *(oval(x + dx * half, y - 0.095, 0.03, 0.036) for dx in (-0.55, 0, 0.55)))


def _scarf(c: Canvas, shades: Shades, anchors: Anchors, rng: random.Random) -> None:
    (x, y), half = anchors.neck, max(anchors.neck_width, 0.3) / 2
    line = edge(shades)
    side = -1
    kx = x + side * half * 0.45
    end = (kx + side * 0.05 + rng.choice((-0.02, 0.0, 0.02)), min(y + 0.3, 0.44))
    stripe = mix(shades.light, WHITE, 0.5) if not is_white(shades) else shades.dark
    tail = ribbon(0.13, (kx, y + 0.02), (kx + side * 0.01, y + 0.14), end, end=0.15)
    paint(c, line, (shades.base, tail))
    fill(c, stripe, ribbon(0.035, (end[0] - 0.065, end[1] - 0.03), (end[0] + 0.065, end[1] - 0.03)))
    wrap = ribbon(0.13, (x - half, y - 0.025), (x, y + 0.03), (x + half, y - 0.025))
    paint(c, line, (shades.base, wrap))
    for dx in (-0.1, 0.35, 0.72):
        fill(
            c,
            stripe,
            ribbon(0.035, (x + dx * half + 0.012, y - 0.035), (x + dx * half - 0.012, y + 0.05 - 0.035 * abs(dx))),
        )
    paint(c, line, (shades.base, oval(kx, y + 0.02, 0.07, 0.07)))


def _glasses(c: Canvas, shades: Shades, anchors: Anchors, rng: random.Random) -> None:
    (x, y), span = anchors.eyes, min(max(anchors.eye_span, 0.29), 0.42)
    line = edge(shades)
    radius = min(span * 0.49, 0.155)
    x = min(max(x, LEFT + span / 2 + radius), RIGHT - span / 2 - radius)
    frame = [oval(x + side * span / 2, y, radius, radius) for side in (-1, 1)]
    bridge = ribbon(0.05, (x - span * 0.2, y - 0.03), (x + span * 0.2, y - 0.03))
    paint(c, line, (shades.base, bridge), *((shades.base, one) for one in frame))
    lens = radius - 0.058
    look = rng.choice((-0.012, 0.0, 0.012))
    for side in (-1, 1):
        ex = x + side * span / 2
        fill(c, (238, 248, 255), oval(ex, y, lens, lens))
        fill(c, INK, oval(ex + look, y + 0.005, lens * 0.52, lens * 0.6))
        fill(c, WHITE, oval(ex + look - 0.014, y - 0.018, lens * 0.22, lens * 0.22))


def _balloon_place(anchors: Anchors) -> tuple[float, float]:
    return min(max(anchors.hand[0] + 0.1, LEFT + 0.17), RIGHT - 0.17), TOP + 0.21


def _string(c: Canvas, shades: Shades, anchors: Anchors, rng: random.Random) -> None:
    (hx, hy), (x, y) = anchors.hand, _balloon_place(anchors)
    bend = -0.03 + rng.choice((-0.02, 0.0, 0.02))
    path = ((hx, hy), (x + bend, (hy + y + 0.22) / 2), (x, y + 0.23))
    fill(c, (98, 92, 100), ribbon(0.03, *path))
    fill(c, (244, 242, 240), ribbon(0.014, *path))


def _balloon(c: Canvas, shades: Shades, anchors: Anchors, rng: random.Random) -> None:
    x, y = _balloon_place(anchors)
    line = edge(shades)
    paint(c, line, (shades.dark, soft((x, y + 0.18), (x + 0.035, y + 0.235), (x - 0.035, y + 0.235))))
    skin = soft((x, y - 0.2), (x + 0.12, y - 0.165), (x + 0.165, y - 0.03), (x + 0.11, y + 0.12), (x, y + 0.195),
                (x - 0.11, y + 0.12), (x - 0.165, y - 0.03), (x - 0.12, y - 0.165))  # fmt: skip
    paint(c, line, (shades.base, skin))
    fill(c, shades.light, oval(x - 0.07, y - 0.09, 0.03, 0.055, 25))


def _umbrella_handle(c: Canvas, shades: Shades, anchors: Anchors, rng: random.Random) -> None:
    hx, hy = anchors.hand
    hook = ((hx + 0.015, hy - 0.05), (hx, hy + 0.03), (hx + 0.03, hy + 0.085), (hx + 0.075, hy + 0.06))
    paint(c, STICK_LINE, (STICK, ribbon(0.035, *hook)))


def _umbrella(c: Canvas, shades: Shades, anchors: Anchors, rng: random.Random) -> None:
    hx, hy = anchors.hand
    line = edge(shades)
    half = 0.34
    x = min(max(hx + 0.06, LEFT + half), RIGHT - half)
    foot, top = -0.54, TOP + 0.04
    paint(c, STICK_LINE, (STICK, ribbon(0.035, (x, top - 0.02), (x, foot), (hx, hy - 0.02))))
    dome = ((x - half, foot), (x - half * 0.86, foot - 0.16), (x - half * 0.5, top + 0.035), (x, top),
            (x + half * 0.5, top + 0.035), (x + half * 0.86, foot - 0.16), (x + half, foot))  # fmt: skip
    hem = [
        (x + half * k, foot - (0.055 if i % 2 == 0 else 0.0))
        for i, k in enumerate((0.75, 0.5, 0.25, 0.0, -0.25, -0.5, -0.75))
    ]
    corners = [p for i, point in enumerate(hem) for p in ((point, point) if i % 2 else (point,))]
    paint(c, line, (shades.base, soft(dome[0], *dome, dome[-1], *corners)))
    gore = soft((x, top + 0.02), (x, top + 0.02), (x + half * 0.42, foot - 0.13), (x + half * 0.5, foot),
                (x + half * 0.5, foot), (x + half * 0.25, foot - 0.055), (x, foot), (x, foot))  # fmt: skip
    left = soft((x, top + 0.02), (x, top + 0.02), (x - half * 0.62, foot - 0.18), (x - half, foot), (x - half, foot),
                (x - half * 0.75, foot - 0.055), (x - half * 0.5, foot), (x - half * 0.5, foot),
                (x - half * 0.42, foot - 0.13))  # fmt: skip
    fill(c, shades.light if not is_white(shades) else shades.dark, gore, left)


Drawer = Callable[[Canvas, Shades, Anchors, random.Random], None]
FRONT: dict[str, Drawer] = {
    "hat": _hat, "scarf": _scarf, "glasses": _glasses, "crown": _crown, "balloon": _string,
    "umbrella": _umbrella_handle,
}  # fmt: skip
BACK: dict[str, Drawer] = {"balloon": _balloon, "umbrella": _umbrella}


def draw_accessory(
    c: Canvas, kind: str, shades: Shades, anchors: Anchors, rng: random.Random, behind: bool = False
) -> None:
    """Draws what lies before the subject, or `behind` it, in the subject's frame `c`. A whole accessory needs both."""
    drawer = (BACK if behind else FRONT).get(kind)
    if drawer is not None:
        drawer(c, shades, anchors, rng)
