"""Furry animals. They differ in ears, tails, muzzles and pose, so that colour never has to tell them apart."""

from __future__ import annotations

import random

from datasets_build.storybook.canvas import Canvas
from datasets_build.storybook.palette import Shades, mix
from datasets_build.storybook.subjects.shapes import (
    INK,
    PINK_NOSE,
    WHITE,
    Anchors,
    blush,
    both,
    box,
    edge,
    eyes,
    fill,
    is_dark,
    is_white,
    mirrored,
    oval,
    paint,
    pale,
    poly,
    ribbon,
    smile,
    soft,
    turned,
)


def cat(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """Upright, with pointed ears, whiskers, stripes and a thin curled tail."""
    base, light, dark, _ = shades
    line = edge(shades)
    swing = rng.choice((-8, -4, 0))
    path = ((0.14, 0.44), (0.36, 0.44), (0.46, 0.28), (0.38, 0.13), (0.43, -0.02), (0.51, -0.01))
    tail, tip = ribbon(0.095, *path, end=0.085), ribbon(0.095, *path[-3:], end=0.085)
    paint(c, line, (base, turned(tail, path[0], swing)), (dark, turned(tip, path[0], swing)))
    paint(c, line, (base, mirrored((0, -0.1), (0.15, 0), (0.25, 0.24), (0.26, 0.44), (0.12, 0.5))))
    fill(c, light, oval(0, 0.19, 0.1, 0.13))
    for leg in both(ribbon(0.12, (0.075, 0.28), (0.08, 0.44))):
        paint(c, line, (base, leg))
    paint(c, line, *((light, paw) for paw in both(oval(0.095, 0.455, 0.085, 0.045))))
    ear = soft((0.07, -0.36), (0.07, -0.36), (0.29, -0.5), (0.29, -0.5), (0.34, -0.18), (0.34, -0.18))
    head = mirrored((0, -0.38), (0.18, -0.37), (0.32, -0.24), (0.34, -0.1), (0.22, 0.03), (0, 0.06))
    paint(c, line, *((base, one) for one in (*both(ear), head)))
    fill(c, mix(PINK_NOSE, WHITE, 0.35), *both(poly((0.16, -0.36), (0.265, -0.445), (0.285, -0.27))))
    fill(c, dark, ribbon(0.036, (0, -0.37), (0, -0.27), end=0.02))
    fill(c, dark, *both(ribbon(0.036, (0.085, -0.36), (0.075, -0.285), end=0.02)))
    fill(c, light, *both(oval(0.06, -0.03, 0.085, 0.065)))
    whisker, lower = ribbon(0.018, (0.17, -0.05), (0.41, -0.1)), ribbon(0.018, (0.17, -0.015), (0.41, 0.0))
    fill(c, line, *both(whisker), *both(lower))
    eyes(c, shades, rng, 0, -0.15, 0.3, 0.055)
    fill(c, PINK_NOSE, soft((-0.04, -0.08), (0.04, -0.08), (0, -0.035)))
    smile(c, INK, -0.035, -0.02, 0.07, 0.03)
    smile(c, INK, 0.035, -0.02, 0.07, 0.03)
    return Anchors((0, -0.38), 0.46, (0, -0.15), 0.3, (0, 0.09), 0.36, (0.24, 0.2))


def dog(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """Standing sideways and looking at us, with hanging ears, a tongue and a wagging tail."""
    base, light, dark, _ = shades
    line = edge(shades)
    tail = ribbon(0.11, (0.4, 0.12), (0.49, 0.0), (0.49, -0.14), end=0.07)
    paint(c, line, (base, turned(tail, (0.4, 0.12), rng.choice((-14, -4, 6)))))
    paint(c, line, *((dark, ribbon(0.13, (x, 0.25), (x, 0.435))) for x in (0.0, 0.31)))
    body = soft((-0.24, 0.02), (0.1, 0.0), (0.36, 0.02), (0.46, 0.16), (0.43, 0.34), (0.2, 0.36), (-0.1, 0.36),
                (-0.26, 0.25))  # fmt: skip
    legs = [ribbon(0.14, (x, 0.25), (x, 0.43)) for x in (-0.13, 0.39)]
    paint(c, line, *((base, one) for one in (body, *legs)))
    fill(c, light, soft((0.02, 0.06), (0.16, 0.02), (0.3, 0.06), (0.2, 0.18)))
    fill(c, light, *(oval(x - 0.01, 0.46, 0.075, 0.035) for x in (-0.13, 0.39)))
    hx = -0.2
    head = soft((hx, -0.49), (hx + 0.2, -0.43), (hx + 0.27, -0.24), (hx + 0.24, -0.02), (hx, 0.09), (hx - 0.24, -0.02),
                (hx - 0.27, -0.24), (hx - 0.2, -0.43))  # fmt: skip
    paint(c, line, (base, head))
    fill(c, pale(shades), oval(hx + 0.12, -0.24, 0.11, 0.14, 10))
    right = ((0.17, -0.43), (0.3, -0.42), (0.35, -0.2), (0.33, 0.02), (0.25, 0.06), (0.2, -0.08), (0.19, -0.26))
    for side in (-1, 1):
        paint(c, line, (dark, soft(*((hx + side * x, y) for x, y in right))))
    paint(c, line, (PINK_NOSE, soft((hx - 0.055, 0.03), (hx + 0.055, 0.03), (hx + 0.05, 0.14), (hx, 0.17),
                                    (hx - 0.05, 0.14))))  # fmt: skip
    fill(c, pale(shades), oval(hx, -0.03, 0.16, 0.105))
    fill(c, INK, soft((hx - 0.07, -0.12), (hx + 0.07, -0.12), (hx, -0.045)))
    smile(c, INK, hx - 0.055, 0.0, 0.11, 0.05)
    smile(c, INK, hx + 0.055, 0.0, 0.11, 0.05)
    eyes(c, shades, rng, hx, -0.23, 0.22, 0.05)
    return Anchors((hx, -0.47), 0.42, (hx, -0.23), 0.24, (hx, 0.15), 0.34, (0.34, 0.05))


def rabbit(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """Long ears, big feet, two teeth and a ball of a tail."""
    base = shades.base
    line = edge(shades)
    inside = mix(PINK_NOSE, WHITE, 0.4)
    paint(c, line, (pale(shades), oval(0.31, 0.34, 0.11, 0.11)))
    paint(c, line, (base, mirrored((0, 0.06), (0.19, 0.12), (0.3, 0.32), (0.26, 0.47), (0.1, 0.5))))
    fill(c, pale(shades), oval(0, 0.34, 0.14, 0.13))
    paint(c, line, *((base, foot) for foot in both(oval(0.22, 0.435, 0.145, 0.065))))
    fill(c, inside, *both(oval(0.28, 0.435, 0.045, 0.034)))
    ear = soft((0.05, -0.13), (0.08, -0.4), (0.19, -0.535), (0.29, -0.48), (0.29, -0.25), (0.23, -0.08))
    inner = soft((0.12, -0.18), (0.14, -0.37), (0.2, -0.465), (0.243, -0.41), (0.235, -0.24), (0.19, -0.15))
    # Wide apart, so that they are still seen beside a hat.
    ear, inner = (turned(one, (0.13, -0.12), 14) for one in (ear, inner))
    tilt = rng.choice((-4, 0, 4))
    ears = [turned(one, (0, -0.1), tilt) for one in both(ear)]
    head = mirrored((0, -0.2), (0.19, -0.18), (0.33, -0.03), (0.32, 0.1), (0.18, 0.21), (0, 0.23))
    paint(c, line, *((base, one) for one in (*ears, head)))
    fill(c, inside, *(turned(one, (0, -0.1), tilt) for one in both(inner)))
    fill(c, base, head)
    paint(c, line, *((base, paw) for paw in both(oval(0.1, 0.29, 0.065, 0.085, 25))))
    paint(c, INK, (WHITE, box(-0.04, 0.11, 0.04, 0.185, 0.012)))
    fill(c, INK, ribbon(0.014, (0, 0.14), (0, 0.185)))
    fill(c, pale(shades), *both(oval(0.06, 0.095, 0.09, 0.06)))
    blush(c, shades, 0, 0.09, 0.48, 0.05)
    eyes(c, shades, rng, 0, -0.01, 0.3, 0.056)
    fill(c, PINK_NOSE, soft((-0.042, 0.045), (0.042, 0.045), (0, 0.095)))
    return Anchors((0, -0.18), 0.34, (0, -0.01), 0.29, (0, 0.25), 0.42, (0.18, 0.3))


def fox(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """A pointed face with white cheeks, dark socks, and a tail as big as the rest of it."""
    base, _, dark, _ = shades
    line = edge(shades)
    tail = soft((0.08, 0.46), (0.3, 0.5), (0.48, 0.4), (0.55, 0.16), (0.49, -0.1), (0.36, -0.26), (0.36, -0.26),
                (0.29, -0.06), (0.28, 0.14), (0.22, 0.3))  # fmt: skip
    tip = soft((0.36, -0.26), (0.36, -0.26), (0.49, -0.1), (0.535, 0.04), (0.46, -0.02), (0.43, 0.04), (0.37, -0.03),
               (0.295, 0.02), (0.3, -0.1))  # fmt: skip
    swing = rng.choice((-3, 0, 4))
    paint(c, line, (base, turned(tail, (0.1, 0.46), swing)), (pale(shades), turned(tip, (0.1, 0.46), swing)))
    paint(c, line, (base, mirrored((0, -0.08), (0.12, 0.02), (0.2, 0.26), (0.22, 0.44), (0.1, 0.5))))
    fill(c, pale(shades), mirrored((0, 0.04), (0.1, 0.08), (0.09, 0.22), (0, 0.34)))
    sock = mix(dark, INK, 0.45)
    paint(c, line, *((base, leg) for leg in both(ribbon(0.1, (0.075, 0.28), (0.08, 0.44)))))
    fill(c, sock, *both(ribbon(0.1, (0.078, 0.4), (0.08, 0.45))))
    ear = poly((0.06, -0.3), (0.25, -0.5), (0.33, -0.16))
    head = soft((0, -0.33), (0.18, -0.31), (0.31, -0.17), (0.38, -0.02), (0.38, -0.02), (0.2, 0.05), (0, 0.16),
                (0, 0.16), (-0.2, 0.05), (-0.38, -0.02), (-0.38, -0.02), (-0.31, -0.17), (-0.18, -0.31))  # fmt: skip
    paint(c, line, *((base, one) for one in (*both(ear), head)))
    fill(c, sock, *both(poly((0.165, -0.41), (0.25, -0.5), (0.285, -0.35))))
    cheek = soft((0.0, 0.0), (0.12, -0.09), (0.27, -0.08), (0.38, -0.02), (0.38, -0.02), (0.2, 0.05), (0, 0.16),
                 (0, 0.16))  # fmt: skip
    fill(c, pale(shades), *both(cheek))
    fill(c, INK, oval(0, 0.125, 0.05, 0.042))
    eyes(c, shades, rng, 0, -0.12, 0.24, 0.046)
    return Anchors((0, -0.33), 0.4, (0, -0.12), 0.26, (0, 0.16), 0.28, (0.2, 0.26))


def bear(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """Big and upright, with round ears, a light belly and muzzle, waving."""
    base, light, _, _ = shades
    line = edge(shades)
    paint(c, line, *((base, foot) for foot in both(oval(0.17, 0.43, 0.14, 0.07))))
    arm = turned(ribbon(0.16, (0.22, 0.06), (0.36, 0.0), (0.43, -0.08)), (0.22, 0.06), rng.choice((-8, 0, 8)))
    paint(c, line, (base, arm), (base, ribbon(0.16, (-0.24, 0.04), (-0.35, 0.16), (-0.37, 0.24))))
    paint(c, line, (base, mirrored((0, -0.15), (0.22, -0.05), (0.33, 0.18), (0.29, 0.38), (0.15, 0.47), (0, 0.48))))
    fill(c, light, oval(0, 0.22, 0.2, 0.2))
    ears = both(oval(0.22, -0.4, 0.1, 0.1))
    head = mirrored((0, -0.46), (0.18, -0.43), (0.3, -0.26), (0.27, -0.08), (0.13, 0.0), (0, 0.01))
    paint(c, line, *((base, one) for one in (*ears, head)))
    fill(c, light, *both(oval(0.235, -0.415, 0.05, 0.05)))
    fill(c, base, head)
    fill(c, light, oval(0, -0.11, 0.14, 0.1))
    fill(c, INK, oval(0, -0.155, 0.06, 0.042))
    smile(c, INK, 0, -0.085, 0.12, 0.04)
    blush(c, shades, 0, -0.13, 0.42)
    eyes(c, shades, rng, 0, -0.24, 0.25, 0.045)
    return Anchors((0, -0.45), 0.44, (0, -0.24), 0.26, (0, 0.0), 0.4, (0.4, -0.03))


def panda(c: Canvas, shades: Shades, rng: random.Random) -> Anchors:
    """Sitting, all round, with coloured ears, eye patches, arms and legs on pale fur, and a stick of bamboo."""
    base, light, _, _ = shades
    line = edge(shades)
    fur = mix(light, WHITE, 0.93 if is_dark(shades) else 0.8)
    if is_white(shades):  # pale grey marks on white fur, or there would be none
        base, light = (184, 188, 204), (222, 224, 234)
    paint(c, line, *((base, ear) for ear in both(oval(0.25, -0.39, 0.11, 0.11))))
    paint(c, line, (fur, oval(0, 0.2, 0.35, 0.28)))
    fill(c, base, mirrored((0, 0.0), (0.3, 0.0), (0.36, 0.2), (0.2, 0.16), (0, 0.14)))
    lean = rng.choice((-6, 0, 6))
    bamboo = turned(ribbon(0.055, (-0.4, 0.3), (-0.42, 0.0), (-0.44, -0.16)), (-0.36, 0.16), lean)
    leaf = turned(soft((-0.44, -0.14), (-0.5, -0.26), (-0.4, -0.26)), (-0.36, 0.16), lean)
    paint(c, (40, 96, 40), ((116, 178, 74), bamboo), ((116, 178, 74), leaf))
    paint(c, line, (base, ribbon(0.15, (-0.27, 0.06), (-0.35, 0.12), (-0.42, 0.1))))
    paint(c, line, (base, ribbon(0.15, (0.27, 0.05), (0.34, 0.14), (0.36, 0.24))))
    paint(c, line, *((base, foot) for foot in both(oval(0.25, 0.37, 0.15, 0.135))))
    fill(c, light, *both(oval(0.25, 0.395, 0.075, 0.06)))
    fill(c, light, *(oval(side * 0.25 + dx, 0.295 + dy, 0.028, 0.028)
                     for side in (-1, 1) for dx, dy in ((-0.07, 0.015), (0, 0), (0.07, 0.015))))  # fmt: skip
    paint(c, line, (fur, mirrored((0, -0.44), (0.2, -0.41), (0.35, -0.22), (0.33, -0.06), (0.18, 0.05), (0, 0.07))))
    fill(c, base, *both(oval(0.152, -0.16, 0.095, 0.125, 28)))
    for side in (-1, 1):
        ex = side * 0.135
        fill(c, WHITE, oval(ex, -0.165, 0.045, 0.05))
        fill(c, INK, oval(ex, -0.16, 0.034, 0.04))
    fill(c, INK, oval(0, -0.075, 0.05, 0.034))
    smile(c, INK, 0, -0.03, 0.1, 0.035)
    return Anchors((0, -0.43), 0.46, (0, -0.16), 0.3, (0, 0.07), 0.44, (0.36, 0.18))
