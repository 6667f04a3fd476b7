"""The renderer: same scene, same picture; every combination draws; what differs in the scene differs to the eye."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets_build.storybook.render import render, render_with_covers
from datasets_build.storybook.scene import (
    ACCESSORIES,
    BACKGROUNDS,
    COLOURS,
    KINDS,
    POSITIONS,
    SHOTS,
    SIZES,
    SKIES,
    STYLES,
    Accessory,
    Scene,
    Subject,
    sample_scene,
)

CAT = Subject("cat", "orange")
SCENE = Scene((CAT,), "meadow")


def pixels(scene: Scene, size: int = 64, seed: int = 3) -> NDArray[np.float32]:
    return np.asarray(render(scene, size, seed), dtype=np.float32)


def skies(background: str) -> tuple[str, ...]:
    return ("night",) if background == "space" else SKIES


def apart(pictures: dict[str, NDArray[np.float32]], least: float) -> None:
    for a, b in itertools.combinations(pictures, 2):
        distance = np.abs(pictures[a] - pictures[b]).mean()
        assert distance > least, f"{a} and {b} look alike: {distance:.1f}"


def test_the_same_scene_and_seed_give_the_same_picture() -> None:
    rng = random.Random(5)
    for scene in (sample_scene(rng) for _ in range(10)):
        assert render(scene, 64, 9).tobytes() == render(scene, 64, 9).tobytes()


def test_the_seed_changes_details_only() -> None:
    first, second = render(SCENE, 64, 1), render(SCENE, 64, 2)
    assert first.tobytes() != second.tobytes()
    assert np.abs(np.asarray(first, float) - np.asarray(second, float)).mean() < 40


def test_an_edit_keeps_what_it_does_not_touch() -> None:
    before, after = pixels(SCENE), pixels(replace(SCENE, subjects=(replace(CAT, colour="blue"),)))
    changed = np.abs(before - after).max(axis=2) > 8
    assert 0.02 < changed.mean() < 0.35
    assert not changed[:, :6].any() and not changed[:, -6:].any()


@pytest.mark.parametrize("size", [64, 100, 128, 256])
@pytest.mark.parametrize("style", STYLES)
def test_every_size_shows_the_same_picture(size: int, style: str) -> None:
    scene = replace(SCENE, style=style)
    picture = render(scene, size, 4)
    assert picture.size == (size, size) and picture.mode == "RGB"
    small, other = (np.asarray(p.resize((16, 16), 4), float) for p in (picture, render(scene, 128, 4)))
    assert np.abs(small - other).mean() < 20


@pytest.mark.parametrize("size", [0, 31, 33, 5000])
def test_an_unusable_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="even number from 32 to 1024"):
        render(SCENE, size)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_everything_renders(background: str) -> None:
    for sky, style, shot in itertools.product(skies(background), STYLES, SHOTS):
        assert pixels(Scene((CAT,), background, sky, style, shot), 32).std() > 5


@pytest.mark.parametrize("kind", KINDS)
def test_every_subject_wears_everything_and_shows(kind: str) -> None:
    for accessory in ACCESSORIES:
        bare = Scene((Subject(kind, "red"),), "snow")
        worn = Scene((Subject(kind, "red", accessories=(Accessory(accessory, "blue"),)),), "snow")
        difference = np.abs(pixels(bare, 128) - pixels(worn, 128)).max(axis=2)
        assert (difference > 40).sum() > 60, accessory


@pytest.mark.parametrize("shot", SHOTS)
def test_subjects_stay_in_their_place(shot: str) -> None:
    for position, size in itertools.product(POSITIONS, SIZES):
        sketch = [
            pixels(Scene((Subject("cat", colour, size, position),), "snow", "day", "flat", shot))
            for colour in ("red", "blue")
        ]
        changed = np.abs(sketch[0] - sketch[1]).max(axis=2) > 40
        centre = np.nonzero(changed)[1].mean() / 64
        assert abs(centre - (0.24, 0.5, 0.76)[POSITIONS.index(position)]) < 0.15, (position, size)
        assert not changed[0].any()


@pytest.mark.parametrize("kind", KINDS)
def test_two_subjects_hold_their_things_outwards(kind: str) -> None:
    """Whose balloon it is must be plain."""
    subjects = [Subject(kind, colour, position=place) for colour, place in (("red", "left"), ("blue", "middle"))]
    for holder, side in ((0, -1), (1, 1)):
        pair = list(subjects)
        pair[holder] = replace(pair[holder], accessories=(Accessory("balloon", "green"),))
        cover = render_with_covers(Scene(tuple(pair), "meadow"), 64, 1)[1][holder]
        rows = np.flatnonzero(cover.max(1) > 0.5)
        balloon, body = (cover[part].sum(0) for part in (rows[: len(rows) // 6], rows[-len(rows) // 3 :]))
        across = np.arange(64)
        assert ((balloon * across).sum() / balloon.sum() - (body * across).sum() / body.sum()) * side > 0


@pytest.mark.parametrize("accessory", ACCESSORIES)
def test_what_is_worn_is_covered_where_it_shows(accessory: str) -> None:
    bare = replace(SCENE, subjects=(Subject("cat", "orange"),))
    dressed = replace(SCENE, subjects=(Subject("cat", "orange", accessories=(Accessory(accessory, "blue"),)),))
    assert not render_with_covers(bare, 64, 3)[2].any()
    worn = render_with_covers(dressed, 64, 3)[2]
    changed = np.abs(pixels(dressed) - pixels(bare)).max(axis=2) > 60
    assert worn.max() == 1 and 0.002 < worn.mean() < 0.1
    assert (worn[changed] > 0).mean() > 0.8


def test_a_bigger_size_is_bigger() -> None:
    for shot in SHOTS:
        areas = []
        for size in SIZES:
            a, b = (pixels(replace(SCENE, subjects=(Subject("cat", c, size),), shot=shot)) for c in ("red", "blue"))
            areas.append((np.abs(a - b).max(axis=2) > 40).sum())
        assert areas[0] * 1.2 < areas[1] and areas[1] * 1.1 < areas[2], (shot, areas)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_styles_and_shots_differ(background: str) -> None:
    sky = skies(background)[0]
    apart({style: pixels(Scene((CAT,), background, sky, style), 128) for style in STYLES}, 4)
    apart({shot: pixels(Scene((CAT,), background, sky, "flat", shot), 128) for shot in SHOTS}, 8)


@pytest.mark.parametrize("style", STYLES)
def test_places_and_skies_differ(style: str) -> None:
    for sky in SKIES:
        places = [place for place in BACKGROUNDS if sky in skies(place)]
        apart({place: pixels(Scene((CAT,), place, sky, style)) for place in places}, 6)
    for place in BACKGROUNDS:
        apart({sky: pixels(Scene((CAT,), place, sky, style)) for sky in skies(place)}, 10)


@pytest.mark.parametrize("style", STYLES)
def test_colours_are_told_apart(style: str) -> None:
    for sky in SKIES:
        pictures = {
            colour: pixels(Scene((Subject("car", colour, "big"),), "meadow", sky, style))[30:48, 20:44]
            for colour in COLOURS
        }
        apart(pictures, 7)
