"""Places of the picture-book world: each paints layers of scenery, back to front, on a `Stage`.

    python -c "from datasets_build.storybook.backgrounds import BACKGROUNDS; print(sorted(BACKGROUNDS))"

The stage's `horizon` and `zoom` make the shot: near things grow and the horizon sinks in a close-up, and in a wide
shot the scenery is small and far.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from datasets_build.storybook.canvas import RGB, Canvas, Point
from datasets_build.storybook.palette import mix
from datasets_build.storybook.skies import GRADIENTS, LAMP, Stage, gradient, paint_rain, paint_sky, stars


def paint_background(stage: Stage, ground: float) -> None:
    """Everything behind the subjects, who stand at height `ground`."""
    BACKGROUNDS[stage.background](stage, ground)


def _ridge(c: Canvas, stage: Stage, y: float, swing: float, colour: RGB, bumps: int) -> list[Point]:
    """Rolling ground from edge to edge, filled down to the picture's end; returns its upper line."""
    points = [(-0.1, y + stage.rng.uniform(-1, 1) * swing)]
    for i, x in enumerate(stage.spread(bumps)):
        points.append((x, y + (swing if i % 2 else -swing) * stage.rng.uniform(0.4, 1.0)))
    points.append((1.1, y + stage.rng.uniform(-1, 1) * swing))
    c.blob([(-0.4, 1.3), (-0.4, y), *points, (1.4, y), (1.4, 1.3)], colour, steps=6)
    return points


def _birds(stage: Stage) -> None:
    """Tiny birds far away: only a wide shot has them."""
    if stage.shot != "wide" or stage.sky == "night":
        return
    c = stage.layer("light")
    x, y = stage.rng.uniform(0.35, 0.6), stage.rng.uniform(0.1, 0.2)
    for i in range(4):
        px, py, w = x + 0.055 * i - 0.01 * (i % 2), y + 0.03 * (i % 2) + 0.012 * i, 0.016
        c.curve([(px - w, py - 0.4 * w), (px, py), (px + w, py - 0.4 * w)], 0.006, (52, 56, 76))


def _round_tree(c: Canvas, x: float, y: float, h: float, leaf: RGB, trunk: RGB) -> None:
    c.rectangle(x - 0.06 * h, y - 0.45 * h, x + 0.06 * h, y + 0.04 * h, trunk)
    for px, py, r in ((-0.2, -0.55, 0.24), (0.2, -0.55, 0.24), (0.0, -0.78, 0.26)):
        c.ellipse((x + px * h, y + py * h), r * h, r * h, leaf)
    c.ellipse((x - 0.08 * h, y - 0.82 * h), 0.12 * h, 0.09 * h, mix(leaf, (255, 255, 220), 0.22))


def _fir(c: Canvas, x: float, y: float, h: float, leaf: RGB, trunk: RGB, cap: RGB | None = None) -> None:
    """A conifer of three tiers standing at (x, y), with snow on each when `cap` is given."""
    c.rectangle(x - 0.045 * h, y - 0.2 * h, x + 0.045 * h, y + 0.02 * h, trunk)
    for i, (low, top, half) in enumerate(((-0.14, -0.6, 0.3), (-0.36, -0.8, 0.24), (-0.6, -1.0, 0.17))):
        shade = mix(leaf, (255, 255, 255), 0.07 * i)
        c.polygon([(x - half * h, y + low * h), (x, y + top * h), (x + half * h, y + low * h)], shade)
        if cap:
            mid = top + (low - top) * 0.52
            points = [(-0.52, mid), (-0.25, mid - 0.05), (0.0, mid + 0.03), (0.25, mid - 0.05), (0.52, mid)]
            c.polygon([(x, y + top * h)] + [(x + px * half * h, y + py * h) for px, py in points], cap)


def meadow(stage: Stage, ground: float) -> None:
    paint_sky(stage)
    _birds(stage)
    rng, zoom, horizon, tone = stage.rng, stage.zoom, stage.horizon, stage.tone
    if stage.shot == "wide":
        _ridge(stage.layer(), stage, horizon - 0.06, 0.03, tone((146, 196, 172)), 7)
    _ridge(stage.layer(), stage, horizon - 0.03 * zoom, 0.035 * zoom, tone((150, 212, 104)), max(3, round(4 / zoom)))
    c = stage.layer()
    line = _ridge(c, stage, horizon + 0.03 * zoom, 0.025 * zoom, tone((116, 192, 78)), max(3, round(3 / zoom)))
    for x, y in line[1:-1]:
        tall = rng.uniform(0.16, 0.22) * zoom
        _round_tree(c, x, y + 0.01, tall, tone((74, 158, 66)), tone((132, 92, 56)))
    c = stage.layer()
    _ridge(c, stage, max(horizon + 0.08, ground - 0.10), 0.012, tone((92, 174, 62)), 3)
    petals: tuple[RGB, ...] = ((255, 255, 255), (255, 214, 64), (250, 120, 160), (190, 130, 232), (255, 120, 90))
    scale = {"close-up": 1.7, "normal": 1.0, "wide": 0.55}[stage.shot]
    top = ground - 0.06
    for i, x in enumerate(stage.spread({"close-up": 9, "normal": 20, "wide": 40}[stage.shot])):
        y = rng.uniform(top, 0.98)
        r = 0.0135 * scale * (0.6 + 0.9 * (y - top) / (1 - top))
        c.line([(x, y + 2.6 * r), (x, y)], 0.4 * r, tone((52, 128, 48)))
        _bloom(c, x, y, r, tone(petals[i % 5]), tone((255, 190, 40) if i % 5 != 1 else (240, 130, 30)))


def _bloom(c: Canvas, x: float, y: float, r: float, petal: RGB, heart: RGB) -> None:
    c.polygon([(x + r * k * math.cos(math.tau * i / 20), y + r * k * math.sin(math.tau * i / 20))
               for i, k in enumerate((1.25, 1.1, 0.7, 1.1) * 5)], petal)  # fmt: skip
    c.ellipse((x, y), 0.42 * r, 0.42 * r, heart)


def beach(stage: Stage, ground: float) -> None:
    sea = stage.horizon - 0.05
    paint_sky(stage, bottom=sea + 0.02)
    _birds(stage)
    rng, zoom, tone = stage.rng, stage.zoom, stage.tone
    shore = ground - {"close-up": 0.06, "normal": 0.08, "wide": 0.10}[stage.shot]
    c = stage.layer()
    c.polygon([(-0.1, sea), (1.1, sea), (1.1, 1.1), (-0.1, 1.1)], tone((38, 142, 202)))
    c.polygon([(-0.1, (sea + shore) / 2), (1.1, (sea + shore) / 2), (1.1, 1.1), (-0.1, 1.1)], tone((64, 182, 214)))
    for _ in range({"close-up": 4, "normal": 8, "wide": 14}[stage.shot]):
        x, y, w = rng.random(), rng.uniform(sea + 0.02, shore - 0.01), 0.045 * zoom**0.6
        c.curve([(x - w, y), (x - 0.4 * w, y - 0.2 * w), (x, y), (x + 0.4 * w, y - 0.2 * w), (x + w, y)],
                0.009 * zoom**0.5, tone((196, 236, 246)))  # fmt: skip
    if stage.shot == "wide":
        x = rng.uniform(0.3, 0.7)
        c.polygon([(x - 0.025, sea), (x + 0.025, sea), (x + 0.015, sea + 0.014), (x - 0.015, sea + 0.014)],
                  tone((180, 80, 60)))  # fmt: skip
        c.polygon([(x, sea - 0.045), (x, sea - 0.004), (x + 0.026, sea - 0.004)], tone((255, 250, 240)))
    c = stage.layer()
    _ridge(c, stage, shore - 0.012, 0.012, tone((240, 250, 250)), 4)
    _ridge(c, stage, shore + 0.012, 0.012, tone((246, 218, 152)), 4)
    for _ in range(16):
        x, y = rng.random(), rng.uniform(shore + 0.05, 1.0)
        c.ellipse((x, y), 0.008 * zoom**0.5, 0.004 * zoom**0.5, tone((224, 188, 116)))
    for i, x in enumerate(stage.spread(3)):
        y, r = rng.uniform(ground + 0.06, 0.96), 0.02 * zoom**0.6
        if i % 2:
            _starfish(c, x, y, 1.2 * r, tone((240, 110, 80)))
        else:
            c.ellipse((x, y), r, 0.8 * r, tone((255, 196, 190)))
            for k in (-0.5, 0.0, 0.5):
                c.line([(x, y + 0.7 * r), (x + k * r, y - 0.6 * r)], 0.14 * r, tone((214, 130, 130)))
    c = stage.layer()
    right = rng.random() < 0.5
    side = 0.93 if right else 0.07
    _palm(c, stage, side, shore + 0.05, {"close-up": 0.74, "normal": 0.46, "wide": 0.25}[stage.shot], right)
    tall = {"close-up": 0.36, "normal": 0.22, "wide": 0.12}[stage.shot]
    _parasol(c, stage, 0.14 if right else 0.86, shore + 0.02, tall)


def _starfish(c: Canvas, x: float, y: float, r: float, colour: RGB) -> None:
    c.polygon([(x + r * k * math.sin(math.tau * i / 10), y - r * k * 0.8 * math.cos(math.tau * i / 10))
               for i, k in enumerate((1.0, 0.42) * 5)], colour)  # fmt: skip


def _palm(c: Canvas, stage: Stage, x: float, y: float, h: float, right: bool) -> None:
    lean = -0.16 if right else 0.16
    top = (x + lean * h, y - h)
    c.curve([(x, y), (x + 0.1 * lean * h, y - 0.5 * h), top], 0.085 * h, stage.tone((158, 112, 66)))
    for i in range(6):
        a = math.radians(-205 + 46 * i)
        tip = (top[0] + 0.48 * h * math.cos(a), top[1] + 0.3 * h * math.sin(a) + 0.12 * h)
        mid = (top[0] + 0.26 * h * math.cos(a), top[1] + 0.24 * h * math.sin(a) - 0.08 * h)
        low = (top[0] + 0.24 * h * math.cos(a), top[1] + 0.24 * h * math.sin(a) + 0.04 * h)
        c.blob([top, mid, tip, low], stage.tone((48, 150, 72) if i % 2 else (70, 176, 84)), steps=4)
    for dx in (-0.05, 0.05):
        c.ellipse((top[0] + dx * h, top[1] + 0.04 * h), 0.05 * h, 0.05 * h, stage.tone((112, 72, 40)))


def _parasol(c: Canvas, stage: Stage, x: float, y: float, h: float) -> None:
    """A striped sunshade stuck in the sand."""
    c.line([(x, y), (x, y - 0.9 * h)], 0.05 * h, stage.tone((240, 240, 236)))
    for i in range(6):
        a, b = math.pi + math.pi * i / 6, math.pi + math.pi * (i + 1) / 6
        arc = [(x + 0.62 * h * math.cos(a + (b - a) * t), y - 0.55 * h + 0.45 * h * math.sin(a + (b - a) * t))
               for t in (0, 0.33, 0.67, 1)]  # fmt: skip
        c.polygon([*arc, (x, y - 0.55 * h)], stage.tone((236, 84, 84) if i % 2 else (255, 250, 240)))


def snow(stage: Stage, ground: float) -> None:
    paint_sky(stage)
    rng, zoom, horizon, tone = stage.rng, stage.zoom, stage.horizon, stage.tone
    c = stage.layer()
    for x in stage.spread(max(2, round(3 / zoom)), -0.05, 1.05):
        h, w = rng.uniform(0.14, 0.2) * zoom**0.7, 0.2 * zoom**0.7
        y = horizon + 0.05
        c.polygon([(x - w, y), (x, y - h - 0.05), (x + w, y)], tone((150, 182, 214)))
        peak = y - h - 0.05
        cap = ((0.0, 0.0), (-0.42, 0.42), (-0.15, 0.34), (0.0, 0.5), (0.18, 0.36), (0.42, 0.42))
        c.polygon([(x + px * w, peak + py * h) for px, py in cap], tone((248, 252, 255)))
    c = stage.layer()
    line = _ridge(c, stage, horizon + 0.02, 0.02 * zoom, tone((214, 230, 246)), max(3, round(4 / zoom)))
    for x, y in line[1:-1]:
        _fir(c, x + rng.uniform(-0.03, 0.03), y + 0.02, rng.uniform(0.17, 0.24) * zoom,
             tone((58, 122, 98)), tone((112, 84, 66)), tone((250, 253, 255)))  # fmt: skip
    c = stage.layer()
    _ridge(c, stage, ground - 0.09, 0.016, tone((246, 250, 255)), 3)
    for x in stage.spread({"close-up": 2, "normal": 4, "wide": 7}[stage.shot]):
        y, w = rng.uniform(ground + 0.03, 0.97), rng.uniform(0.06, 0.1) * zoom**0.5
        c.ellipse((x, y), w, 0.16 * w, tone((212, 228, 246)))
    c = stage.layer()
    side, tall = rng.choice((0.06, 0.94)), {"close-up": 0.8, "normal": 0.46, "wide": 0.24}[stage.shot]
    _fir(c, side, ground - 0.03, tall, tone((48, 112, 88)), tone((104, 76, 60)), tone((252, 254, 255)))
    _fir(c, 1 - side + (0.05 if side < 0.5 else -0.05) * zoom, ground - 0.06, 0.6 * tall,
         tone((56, 122, 98)), tone((104, 76, 60)), tone((252, 254, 255)))  # fmt: skip


def forest(stage: Stage, ground: float) -> None:
    paint_sky(stage)
    _birds(stage)
    rng, zoom, horizon, tone = stage.rng, stage.zoom, stage.horizon, stage.tone
    c = stage.layer()
    _ridge(c, stage, horizon, 0.012, tone((86, 148, 120)), 4)
    for x in stage.spread(round(9 / zoom**0.8), -0.03, 1.03):
        _fir(c, x, horizon + 0.02, rng.uniform(0.2, 0.28) * zoom**0.8, tone((92, 156, 124)), tone((92, 110, 90)))
    c = stage.layer()
    _ridge(c, stage, horizon + 0.04, 0.01, tone((62, 122, 66)), 4)
    for i, x in enumerate(stage.spread(round(6 / zoom**0.8), -0.03, 1.03)):
        y = horizon + 0.05 + 0.02 * (i % 2)
        if i % 2:
            _fir(c, x, y, rng.uniform(0.24, 0.32) * zoom**0.9, tone((40, 112, 70)), tone((96, 66, 42)))
        else:  # a bare trunk with a crown above
            h, w = rng.uniform(0.26, 0.32) * zoom**0.9, 0.02 * zoom
            c.polygon([(x - w, y), (x - 0.6 * w, y - h), (x + 0.6 * w, y - h), (x + w, y)], tone((118, 80, 50)))
            c.ellipse((x, y - h), 0.075 * zoom, 0.065 * zoom, tone((78, 140, 56)))
    c = stage.layer()
    _ridge(c, stage, ground - 0.09, 0.012, tone((70, 104, 46)), 4)
    for x in stage.spread({"close-up": 7, "normal": 14, "wide": 26}[stage.shot]):
        y, h = rng.uniform(ground, 0.99), 0.035 * zoom**0.6
        for k in (-0.6, 0.0, 0.6):
            c.polygon([(x - 0.15 * h, y), (x + k * h, y - h), (x + 0.15 * h, y)], tone((46, 82, 34)))
    for x in stage.spread(3, 0.05, 0.95):
        y, r = rng.uniform(ground + 0.05, 0.96), 0.02 * zoom**0.6
        c.rectangle(x - 0.4 * r, y - 0.2 * r, x + 0.4 * r, y + 1.1 * r, tone((244, 232, 208)))
        arc = [math.pi + math.pi * i / 8 for i in range(9)]
        c.polygon([(x + 1.2 * r * math.cos(a), y + 1.2 * r * math.sin(a)) for a in arc], tone((206, 60, 48)))
    c = stage.layer()
    wide = {"close-up": 0.075, "normal": 0.042, "wide": 0.02}[stage.shot]
    for x in (-0.01, 1.01) if stage.shot == "close-up" else (0.035, 0.965):
        foot = ground - 0.04
        bark = tone((104, 68, 42))
        height = foot - (0.0 if stage.shot != "wide" else 0.3)
        c.polygon([(x - 1.5 * wide, foot), (x - wide, foot - 0.1), (x - 0.8 * wide, foot - height),
                   (x + 0.8 * wide, foot - height), (x + wide, foot - 0.1), (x + 1.5 * wide, foot)], bark)  # fmt: skip
        groove = mix(bark, (0, 0, 0), 0.3)
        c.line([(x - 0.3 * wide, foot - 0.05), (x - 0.25 * wide, foot - 0.7 * height)], 0.18 * wide, groove)
        top = foot - height
        for dx, dy, r in ((-1.2, 0.3, 2.6), (1.4, 0.0, 2.4), (0.2, 1.6, 2.2)):
            c.ellipse((x + dx * wide, top + dy * wide), r * wide, 0.8 * r * wide, tone((52, 118, 48)))


def desert(stage: Stage, ground: float) -> None:
    paint_sky(stage)
    _birds(stage)
    rng, zoom, horizon, tone = stage.rng, stage.zoom, stage.horizon, stage.tone
    c = stage.layer()
    for x in stage.spread(max(1, round(2 / zoom)), 0.0, 1.0):  # table mountains
        h, w, y = rng.uniform(0.11, 0.15) * zoom**0.7, rng.uniform(0.1, 0.14) * zoom**0.7, horizon + 0.03
        rock = ((-1.25, 0.0), (-0.9, 1.0), (0.85, 1.0), (1.25, 0.0))
        band = ((-1.0, 0.7), (-0.97, 0.8), (0.93, 0.8), (1.0, 0.7))
        for shape, colour in ((rock, tone((196, 110, 74))), (band, tone((222, 142, 98)))):
            c.polygon([(x + px * w, y - py * h) for px, py in shape], colour)
    _ridge(stage.layer(), stage, horizon + 0.01, 0.025 * zoom, tone((240, 190, 112)), max(2, round(3 / zoom)))
    c = stage.layer()
    line = _ridge(c, stage, horizon + 0.065, 0.025 * zoom, tone((228, 166, 84)), max(2, round(3 / zoom)))
    for x, y in line[1:-1]:
        _cactus(c, x, y + 0.02, rng.uniform(0.1, 0.13) * zoom, tone((86, 148, 78)))
    c = stage.layer()
    _ridge(c, stage, ground - 0.08, 0.02, tone((214, 142, 62)), 2)
    for _ in range({"close-up": 3, "normal": 5, "wide": 9}[stage.shot]):
        x, y, w = rng.random(), rng.uniform(ground + 0.01, 0.97), rng.uniform(0.05, 0.09) * zoom**0.4
        ripple = [(x - w, y), (x - 0.3 * w, y - 0.12 * w), (x + 0.3 * w, y + 0.1 * w), (x + w, y)]
        c.curve(ripple, 0.007, tone((186, 112, 42)))
    for x in stage.spread(3):
        y, r = rng.uniform(ground + 0.08, 0.97), rng.uniform(0.018, 0.028) * zoom**0.5
        stone = [(x - r, y), (x - 0.6 * r, y - 0.7 * r), (x + 0.3 * r, y - 0.8 * r), (x + r, y)]
        c.blob(stone, tone((150, 96, 66)), steps=4)
    c = stage.layer()
    side, tall = rng.choice((0.09, 0.91)), {"close-up": 0.66, "normal": 0.38, "wide": 0.2}[stage.shot]
    _cactus(c, side, ground - 0.02, tall, tone((58, 134, 72)))


def _cactus(c: Canvas, x: float, y: float, h: float, colour: RGB) -> None:
    light = mix(colour, (255, 255, 200), 0.25)
    c.line([(x, y - 0.05 * h), (x, y - 0.92 * h)], 0.17 * h, colour)
    for side, low, tip in ((-1, 0.36, 0.66), (1, 0.48, 0.80)):
        arm = ((0.0, low), (0.2, low + 0.02), (0.25, low + 0.12), (0.25, tip))
        c.curve([(x + side * px * h, y - py * h) for px, py in arm], 0.11 * h, colour)
    for dx in (-0.03, 0.03):
        c.line([(x + dx * h, y - 0.1 * h), (x + dx * h, y - 0.9 * h)], 0.018 * h, light)


def city(stage: Stage, ground: float) -> None:
    paint_sky(stage)
    _birds(stage)
    rng, zoom, horizon, tone = stage.rng, stage.zoom, stage.horizon, stage.tone
    c = stage.layer()
    for x in stage.spread(round(9 / zoom**0.7), -0.05, 1.05):
        w, h = 0.075 * zoom**0.7, rng.uniform(0.16, 0.32) * zoom**0.6
        c.rectangle(x - w, horizon - h, x + w, horizon + 0.1, tone((150, 170, 200)))
    c = stage.layer()
    pavement = ground - {"close-up": 0.05, "normal": 0.08, "wide": 0.12}[stage.shot]
    fronts: tuple[RGB, ...] = ((206, 120, 100), (120, 150, 190), (226, 190, 140), (150, 128, 168), (130, 176, 160))
    count = max(3, round(5 / zoom**0.8))
    shift = rng.randrange(5)
    for i in range(count):
        x0, x1 = i / count + 0.006 * zoom, (i + 1) / count - 0.006 * zoom
        if stage.shot == "wide" and i % 4 == 3:  # gaps let the far skyline through
            continue
        h = rng.uniform(0.2, 0.34) * zoom**0.55
        front = tone(fronts[(i + shift) % 5])
        y0, y1 = horizon + 0.02 - h, pavement + 0.01
        c.rectangle(x0, y0, x1, y1, front)
        c.rectangle(x0 - 0.004, y0 - 0.008, x1 + 0.004, y0 + 0.008, mix(front, (30, 30, 40), 0.35))
        _windows(c, stage, x0, y0, x1, y1, front)
    c = stage.layer()
    c.polygon([(-0.1, pavement), (1.1, pavement), (1.1, 1.1), (-0.1, 1.1)], tone((196, 194, 190)))
    kerb = pavement + {"close-up": 0.1, "normal": 0.06, "wide": 0.045}[stage.shot]
    c.polygon([(-0.1, kerb), (1.1, kerb), (1.1, 1.1), (-0.1, 1.1)], tone((150, 150, 154)))
    c.polygon([(-0.1, kerb + 0.012), (1.1, kerb + 0.012), (1.1, 1.1), (-0.1, 1.1)], tone((104, 106, 116)))
    y, w = {"close-up": 0.97, "normal": 0.92, "wide": 0.9}[stage.shot], 0.055 * zoom**0.5
    for x in (0.1, 0.37, 0.63, 0.9) if stage.shot != "wide" else (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95):
        dash = [(x - w, y), (x + w, y), (x + 1.1 * w, y + 0.28 * w), (x - 1.1 * w, y + 0.28 * w)]
        c.polygon(dash, tone((246, 242, 220)))
    if stage.shot != "close-up":
        c = stage.layer()
        for x in (0.04, 0.96) if stage.shot == "normal" else (0.06, 0.35, 0.65, 0.94):
            _street_lamp(c, stage, x, kerb, 0.34 * zoom**0.8)


def _windows(c: Canvas, stage: Stage, x0: float, y0: float, x1: float, y1: float, front: RGB) -> None:
    dark = stage.sky in ("night", "sunset")
    columns = 3 if stage.shot != "wide" else 2
    cell = (x1 - x0) / (columns + 0.35)
    for row in range(int((y1 - y0 - 0.03) / (1.25 * cell))):
        for column in range(columns):
            x, y = x0 + cell * (column + 0.4), y0 + 0.025 + 1.25 * cell * row
            lit = stage.rng.random() < (0.62 if dark else 0.15 if stage.sky == "day" else 0.45)
            pane = LAMP if lit else mix(front, (40, 50, 90), 0.55) if dark else mix(front, (222, 242, 255), 0.65)
            c.rectangle(x, y, x + 0.56 * cell, y + 0.72 * cell, pane)


def _street_lamp(c: Canvas, stage: Stage, x: float, y: float, h: float) -> None:
    post = stage.tone((60, 66, 84))
    if stage.sky == "night":
        c.ellipse((x, y - h), 0.3 * h, 0.3 * h, (255, 226, 140, 80))
    c.line([(x, y), (x, y - 0.95 * h)], 0.045 * h, post)
    c.ellipse((x, y - h), 0.1 * h, 0.1 * h, LAMP if stage.sky in ("night", "sunset") else stage.tone((244, 244, 230)))
    c.rectangle(x - 0.09 * h, y - 1.12 * h, x + 0.09 * h, y - 1.06 * h, post)


def room(stage: Stage, ground: float) -> None:
    rng, tone, shot = stage.rng, stage.tone, stage.shot
    left = rng.random() < 0.5
    x0, y0, x1, y1 = {  # the window
        "close-up": (0.06, -0.06, 0.80, 0.56), "normal": (0.09, 0.07, 0.60, 0.48), "wide": (0.20, 0.16, 0.52, 0.42)
    }[shot]  # fmt: skip
    if not left:
        x0, x1 = 1 - x1, 1 - x0
    paint_sky(stage, x0, max(0.0, y0), x1, y1)
    outside = stage.layer("light")
    hill = {"day": (120, 190, 96), "night": (30, 44, 84), "sunset": (150, 92, 84), "rain": (104, 122, 118)}[stage.sky]
    outside.ellipse(((x0 + x1) / 2 - 0.1, y1 + 0.06), 0.5, 0.11, hill)
    if stage.sky == "rain":
        paint_rain(stage, outside, x0, max(0.0, y0), x1, y1)
    wall = stage.layer()
    paper = tone((250, 226, 190))
    floor = {"close-up": 0.80, "normal": 0.68, "wide": 0.62}[shot]
    wall.polygon([(-0.1, -0.1), (1.1, -0.1), (1.1, 1.1), (-0.1, 1.1)], paper)
    step = {"close-up": 0.17, "normal": 0.1, "wide": 0.055}[shot]
    for i in range(int(1.1 / step) + 1):
        wall.rectangle(i * step, -0.1, i * step + 0.4 * step, floor, tone((246, 206, 166)))
    if stage.sky == "night":
        lamp_x = (x1 + 1.06) / 2 if left else (x0 - 0.06) / 2
        for r, share in ((0.42, 0.16), (0.32, 0.32), (0.22, 0.5)):
            wall.ellipse((lamp_x, 0.2), r, r * 0.9, mix(paper, (255, 214, 130), share))
    frame, sill = tone((255, 252, 244)), tone((206, 170, 130))
    bar = {"close-up": 0.035, "normal": 0.022, "wide": 0.013}[shot]
    wall.rectangle(x0 - bar, y0 - bar, x1 + bar, y1 + bar, frame)
    wall.rectangle(x0, y0, x1, y1, (0, 0, 0, 0))  # the hole the sky is seen through
    wall.rectangle((x0 + x1) / 2 - bar / 3, y0, (x0 + x1) / 2 + bar / 3, y1, frame)
    wall.rectangle(x0, y0 + (y1 - y0) * 0.5 - bar / 3, x1, y0 + (y1 - y0) * 0.5 + bar / 3, frame)
    _room_furniture(stage, (x0, y0, x1, y1), bar, floor, left, sill)
    c = stage.layer()
    c.polygon([(-0.1, floor), (1.1, floor), (1.1, 1.1), (-0.1, 1.1)], tone((196, 138, 86)))
    c.polygon([(-0.1, floor - 0.025), (1.1, floor - 0.025), (1.1, floor), (-0.1, floor)], tone((255, 248, 236)))
    for i in range(-2, 14):
        x = i / 11
        c.line([(0.5 + (x - 0.5) * 0.8, floor + 0.005), (0.5 + (x - 0.5) * 1.7, 1.02)], 0.005, tone((166, 110, 62)))
    rug = {"close-up": (0.72, 0.16), "normal": (0.46, 0.125), "wide": (0.30, 0.085)}[shot]
    y = ground + 0.045
    blue, cream = tone((96, 140, 196)), tone((246, 236, 214))
    for k, colour in ((1.0, blue), (0.86, cream), (0.78, blue), (0.4, cream), (0.34, blue)):
        c.ellipse((0.5, y), rug[0] * k, rug[1] * k, colour)
    if shot == "wide":  # side walls and a ceiling: the whole room is seen
        c = stage.layer()
        for side in (0.0, 1.0):
            inner = abs(side - 0.1)
            c.polygon([(side, -0.05), (inner, 0.08), (inner, floor), (side, floor + 0.2)], tone((224, 186, 146)))
        c.polygon([(-0.1, -0.1), (1.1, -0.1), (0.9, 0.08), (0.1, 0.08)], tone((255, 246, 232)))


def _room_furniture(
    stage: Stage, window: tuple[float, float, float, float], bar: float, floor: float, left: bool, sill: RGB
) -> None:
    """Curtains, window sill, a shelf with books and a pot, a picture and a lamp."""
    x0, y0, x1, y1 = window
    tone, shot, rng = stage.tone, stage.shot, stage.rng
    c = stage.layer()
    cloth = tone((232, 112, 104))
    for edge, sign in ((x0 - bar, 1), (x1 + bar, -1)):
        w = 0.16 * (x1 - x0) * sign
        c.blob([(edge - 0.4 * w, y0 - 2 * bar), (edge + w, y0 - 2 * bar), (edge + 0.55 * w, (y0 + y1) / 2),
                (edge + 0.9 * w, y1 + bar), (edge - 0.4 * w, y1 + bar)], cloth, steps=4)  # fmt: skip
        c.line([(edge + 0.2 * w, y0), (edge + 0.1 * w, y1)], bar / 4, mix(cloth, (120, 20, 30), 0.3))
    c.line([(x0 - 3 * bar, y0 - 1.8 * bar), (x1 + 3 * bar, y0 - 1.8 * bar)], 0.7 * bar, sill)
    c.rectangle(x0 - 2 * bar, y1 + bar, x1 + 2 * bar, y1 + 2.2 * bar, sill)
    unit = {"close-up": 1.5, "normal": 1.0, "wide": 0.56}[shot]
    corner = 0.1 if shot == "wide" else 0.0
    middle = (x1 + 1 - corner) / 2 + bar if left else (x0 + corner) / 2 - bar
    half, y = 0.13 * unit, (0.40 if shot != "close-up" else 0.44)
    c.rectangle(middle - half, y, middle + half, y + 0.022 * unit, sill)
    books: tuple[RGB, ...] = ((78, 142, 96), (222, 168, 60), (80, 110, 180), (190, 80, 90), (130, 96, 160))
    for i in range(5):
        x, h = middle - 0.8 * half + i * 0.026 * unit, rng.uniform(0.065, 0.095) * unit
        c.rectangle(x, y - h, x + 0.023 * unit, y, tone(books[i]))
    x = middle + 0.6 * half
    c.ellipse((x, y - 0.065 * unit), 0.035 * unit, 0.04 * unit, tone((84, 160, 84)))
    c.polygon([(x - 0.024 * unit, y - 0.045 * unit), (x + 0.024 * unit, y - 0.045 * unit), (x + 0.018 * unit, y),
               (x - 0.018 * unit, y)], tone((200, 112, 70)))  # fmt: skip
    top = 0.08 if shot == "wide" else 0.0
    low = top + 0.12 * max(unit, 0.8)
    c.line([(middle, top - 0.02), (middle, low)], 0.008 * unit, tone((90, 70, 60)))
    shade = (255, 196, 84) if stage.sky == "night" else tone((90, 160, 160))
    c.polygon([(middle - 0.03 * unit, low), (middle + 0.03 * unit, low), (middle + 0.085 * unit, low + 0.075 * unit),
               (middle - 0.085 * unit, low + 0.075 * unit)], shade)  # fmt: skip
    if stage.sky == "night":
        c.ellipse((middle, low + 0.08 * unit), 0.035 * unit, 0.025 * unit, (255, 250, 210))


def space(stage: Stage, ground: float) -> None:
    rng, zoom, shot = stage.rng, stage.zoom, stage.shot
    stage.layer("sky", gradient(stage.pixels, GRADIENTS["space"], stage.horizon + 0.1))
    c = stage.layer("light")
    for _ in range(3):
        c.ellipse((rng.random(), rng.uniform(0.1, 0.5)), 0.3, 0.05, (120, 60, 170, 50), angle=rng.uniform(-30, 10))
    stars(c, stage, {"close-up": 26, "normal": 55, "wide": 100}[shot], 0.0, 0.0, 1.0, stage.horizon)
    left = rng.random() < 0.5
    c = stage.layer("light")
    near, unit = 0.17 if left else 0.83, zoom**0.75
    _planet(c, near, 0.2, 0.095 * unit, (240, 164, 92), (214, 120, 70), (250, 220, 160))
    _planet(c, 0.99 - near, 0.13 + 0.06 * rng.random(), 0.06 * unit, (84, 190, 190), (50, 140, 160), None)
    _planet(c, 0.52, 0.10, 0.028 * unit, (230, 110, 140), (180, 70, 110), None)
    rim = {"close-up": 0.78, "normal": 0.66, "wide": 0.60}[shot]
    bend = {"close-up": 3.2, "normal": 1.7, "wide": 1.05}[shot]
    if shot != "close-up":
        c = stage.layer()
        _ridge(c, stage, rim + 0.03, 0.035 * zoom, (92, 84, 132), round(6 / zoom))
    c = stage.layer()
    c.ellipse((0.5, rim + bend), 1.15 * bend, bend, (150, 144, 178))
    c.ellipse((0.5, rim + bend + 0.05), 1.15 * bend, bend, (134, 128, 166))
    for x in stage.spread({"close-up": 5, "normal": 9, "wide": 18}[shot], 0.0, 1.0):
        y = rng.uniform(rim + 0.1, 0.98)
        r = rng.uniform(0.03, 0.06) * zoom**0.6 * (0.4 + 1.2 * (y - rim))
        c.ellipse((x, y), r, 0.36 * r, (98, 92, 132))
        c.ellipse((x, y + 0.09 * r), 0.86 * r, 0.26 * r, (116, 110, 148))


def _planet(c: Canvas, x: float, y: float, r: float, colour: RGB, band: RGB, ring: RGB | None) -> None:
    c.ellipse((x, y), r, r, colour)
    for k in (-0.35, 0.3):
        half = math.sqrt(1 - k * k) * 0.98
        c.ellipse((x, y + k * r), half * r, 0.1 * r, band)
    c.ellipse((x - 0.35 * r, y - 0.55 * r), 0.22 * r, 0.12 * r, mix(colour, (255, 255, 255), 0.4), angle=-30)
    if ring:
        points = [(x + 1.75 * r * math.cos(a) , y + 0.42 * r * math.sin(a) - 0.35 * r * math.cos(a)) for a in
                  (math.radians(-20 + 10 * i) for i in range(23))]  # fmt: skip
        c.line(points, 0.15 * r, ring)


BACKGROUNDS: dict[str, Callable[[Stage, float], None]] = {
    "meadow": meadow, "beach": beach, "snow": snow, "forest": forest,
    "desert": desert, "city": city, "room": room, "space": space,
}  # fmt: skip
