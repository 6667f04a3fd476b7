"""Subjects and accessories: each is inside its frame, repeatable, of its own colour, and seen."""

from __future__ import annotations

import random

import numpy as np
import pytest

from datasets_build.storybook.accessories import draw_accessory
from datasets_build.storybook.canvas import Canvas
from datasets_build.storybook.palette import SHADES
from datasets_build.storybook.scene import ACCESSORIES, COLOURS, KINDS
from datasets_build.storybook.subjects import SUBJECTS, Anchors

SIDE, SCALE, MIDDLE = 200, 0.5, (0.5, 0.55)  # the frame's unit is 100 pixels


def drawn(
    kind: str, colour: str, seed: int = 0, worn: tuple[tuple[str, str], ...] = (), flip: bool = False
) -> np.ndarray:
    """Red, green, blue and cover of the subject (SIDE, SIDE, 4), not reduced."""
    front, back = Canvas(SIDE), Canvas(SIDE)
    anchors = SUBJECTS[kind](front.frame(*MIDDLE, SCALE, flip), SHADES[colour], random.Random(seed))
    for behind, canvas in ((True, back), (False, front)):
        for accessory, tint in worn:
            view = canvas.frame(*MIDDLE, SCALE, flip)
            draw_accessory(view, accessory, SHADES[tint], anchors, random.Random(seed), behind=behind)
    back.image.alpha_composite(front.image)
    return np.asarray(back.image).astype(int)


def bounds(picture: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what is drawn, in the subject's units."""
    rows, columns = np.nonzero(picture[..., 3])
    unit = SIDE * SCALE
    x, y = MIDDLE[0] * SIDE, MIDDLE[1] * SIDE
    return (columns.min() - x) / unit, (rows.min() - y) / unit, (columns.max() - x) / unit, (rows.max() - y) / unit


def shares(picture: np.ndarray) -> dict[str, float]:
    """For each colour, the share of the drawn pixels that are nearest to one of its three body shades."""
    pixels = picture[picture[..., 3] > 0][:, :3]
    distances = [
        np.min([np.abs(pixels - np.array(shade)).sum(axis=1) for shade in SHADES[name][:3]], axis=0) for name in COLOURS
    ]
    counts = np.bincount(np.argmin(distances, axis=0), minlength=len(COLOURS))
    return dict(zip(COLOURS, counts / counts.sum(), strict=True))


def test_there_is_a_painter_for_every_kind() -> None:
    assert tuple(SUBJECTS) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_subject_fills_its_frame_and_stays_inside(kind: str) -> None:
    for seed in range(12):
        left, top, right, bottom = bounds(drawn(kind, "red", seed))
        assert left >= -0.6 and right <= 0.6 and top >= -0.57 and bottom <= 0.54
        assert bottom - top > 0.9 and right - left > 0.5 and bottom > 0.4


@pytest.mark.parametrize("accessory", ACCESSORIES)
@pytest.mark.parametrize("kind", KINDS)
def test_accessory_is_inside_large_and_does_not_hide_the_subject(kind: str, accessory: str) -> None:
    bare = drawn(kind, "green", 3)
    dressed = drawn(kind, "green", 3, ((accessory, "purple"),))
    left, top, right, bottom = bounds(dressed)
    assert left >= -0.66 and right <= 0.66 and top >= -0.96 and bottom <= 0.54
    changed = (dressed != bare).any(axis=2)
    assert changed.sum() > 250  # of 10,000 pixels in the subject's square: at 38 pixels a height still 36
    assert (changed & (bare[..., 3] > 0)).sum() < 0.36 * (bare[..., 3] > 0).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_drawing_and_other_seeds_vary(kind: str) -> None:
    worn = (("scarf", "red"), ("balloon", "blue"))
    assert (drawn(kind, "yellow", 5, worn) == drawn(kind, "yellow", 5, worn)).all()
    assert len({drawn(kind, "yellow", seed).tobytes() for seed in range(12)}) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_mirrored_drawing_is_the_mirror_image(kind: str) -> None:
    cover, mirror = drawn(kind, "blue")[..., 3] > 0, drawn(kind, "blue", flip=True)[..., 3] > 0
    assert (cover != mirror[:, ::-1]).mean() < 0.02  # a pixel's width along the outline


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("kind", KINDS)
def test_body_has_the_colour(kind: str, colour: str) -> None:
    own = shares(drawn(kind, colour))
    rest = [share for name, share in own.items() if name not in (colour, "black", "white")]
    # Outlines, tyres and hair count as black, fur and clouds as white: the rule is for the hues.
    assert own[colour] > max(rest), own
    assert own[colour] > 0.22, own


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("accessory", ACCESSORIES)
def test_accessory_is_seen_on_a_body_of_its_own_colour(accessory: str, colour: str) -> None:
    bare, dressed = drawn("cat", colour), drawn("cat", colour, 0, ((accessory, colour),))
    assert (np.abs(dressed - bare).sum(axis=2) > 60).sum() > 200


def test_silhouettes_differ() -> None:
    covers = {kind: drawn(kind, "red")[..., 3] > 0 for kind in KINDS}
    for a in KINDS:
        for b in KINDS:
            if a < b:
                same = (covers[a] & covers[b]).sum() / (covers[a] | covers[b]).sum()
                assert same < 0.9, (a, b, same)


def test_anchors_lie_on_or_near_the_subject() -> None:
    for kind, painter in SUBJECTS.items():
        anchors = painter(Canvas(SIDE).frame(*MIDDLE, SCALE), SHADES["red"], random.Random(0))
        assert isinstance(anchors, Anchors)
        for x, y in (anchors.head_top, anchors.eyes, anchors.neck, anchors.hand):
            assert abs(x) <= 0.5 and abs(y) <= 0.5, kind
        assert anchors.head_top[1] < min(anchors.eyes[1], anchors.neck[1]), kind  # a house has its scarf above its eyes
        assert min(anchors.head_width, anchors.eye_span, anchors.neck_width) > 0.15, kind
