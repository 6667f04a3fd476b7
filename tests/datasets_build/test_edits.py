"""Edits change what they name and nothing else."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from datasets_build.storybook.edits import EDIT_GROUP, WEIGHTS, apply_edit, sample_edit
from datasets_build.storybook.scene import Accessory, Scene, Subject, sample_scene

FOX = Subject("fox", "red", "big", "left", (Accessory("hat", "blue"), Accessory("scarf", "green")))
CAT = Subject("cat", "black", position="right")
SCENE = Scene((FOX, CAT), "snow", "night", "pencil", "wide")
ALONE = replace(SCENE, subjects=(FOX,))


def test_an_entity_edit_keeps_all_the_rest():
    edited = apply_edit(SCENE, {"op": "entity", "subject": 0, "kind": "dog"})
    assert edited == replace(SCENE, subjects=(replace(FOX, kind="dog"), CAT))
    coloured = apply_edit(SCENE, {"op": "entity", "subject": 0, "kind": "dog", "colour": "pink"})
    assert coloured.subjects[0] == replace(FOX, kind="dog", colour="pink")


def test_moving_to_a_taken_place_swaps():
    edited = apply_edit(SCENE, {"op": "move", "subject": 0, "position": "right"})
    assert [(s.kind, s.position) for s in edited.subjects] == [("cat", "left"), ("fox", "right")]
    edited = apply_edit(SCENE, {"op": "move", "subject": 0, "position": "middle"})
    assert [(s.kind, s.position) for s in edited.subjects] == [("fox", "middle"), ("cat", "right")]


@pytest.mark.parametrize(
    ("position", "expected"),
    [(None, "fox left, tree right"), ("left", "tree left, fox right"), ("middle", "fox left, tree middle")],
)
def test_a_new_subject_finds_a_place(position, expected):
    edited = apply_edit(ALONE, {"op": "add_subject", "kind": "tree", "position": position})
    assert ", ".join(f"{s.kind} {s.position}" for s in edited.subjects) == expected


def test_a_new_twin_gets_another_colour():
    natural = replace(ALONE, subjects=(Subject("cat", "orange"),))
    assert apply_edit(natural, {"op": "add_subject", "kind": "cat"}).subjects[1].colour == "red"


@pytest.mark.parametrize(
    ("worn", "new", "expected"),
    [
        ("hat", "crown", "crown"),  # one head
        ("balloon", "umbrella", "umbrella"),  # one hand
        ("hat", "scarf", "hat scarf"),
        ("hat scarf", "crown", "crown scarf"),
        ("hat scarf", "glasses", "glasses scarf"),  # full: the older one gives way
        ("hat balloon", "umbrella", "hat umbrella"),
    ],
)
def test_a_newer_accessory_takes_the_place_of_the_one_it_excludes(worn, new, expected):
    subject = replace(FOX, accessories=tuple(Accessory(kind, "pink") for kind in worn.split()))
    edit = {"op": "add_accessory", "subject": 0, "kind": new, "colour": "white"}
    edited = apply_edit(replace(ALONE, subjects=(subject,)), edit)
    assert [accessory.kind for accessory in edited.subjects[0].accessories] == expected.split()
    assert Accessory(new, "white") in edited.subjects[0].accessories


def test_accessories_are_recoloured_replaced_and_removed_in_place():
    def worn(edit):
        return apply_edit(SCENE, {"subject": 0, **edit}).subjects[0].accessories

    assert worn({"op": "recolour_accessory", "kind": "hat", "colour": "pink"})[0] == Accessory("hat", "pink")
    assert worn({"op": "replace_accessory", "old": "hat", "kind": "glasses"})[0] == Accessory("glasses", "blue")
    assert worn({"op": "remove_accessory", "kind": "hat"}) == (Accessory("scarf", "green"),)


def test_space_brings_night_and_leaving_it_brings_day():
    away = apply_edit(replace(SCENE, sky="rain"), {"op": "background", "value": "space"})
    assert (away.background, away.sky) == ("space", "night")
    assert apply_edit(away, {"op": "background", "value": "beach"}).sky == "day"


def test_combining_keeps_the_newer_picture_and_takes_the_older_ones_subject():
    other = Scene((Subject("turtle", "green", position="left"),), "beach", style="watercolour")
    edited = apply_edit(ALONE, {"op": "combine"}, other)
    assert edited == replace(ALONE, subjects=(FOX, replace(other.subjects[0], position="right")))
    with pytest.raises(ValueError, match="say in 'subject' which"):
        apply_edit(SCENE, {"op": "combine"}, other)
    assert apply_edit(SCENE, {"op": "combine", "subject": 1}, other).subjects[1] == CAT


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"op": "paint"}, "op must be one of"),
        ({"op": "recolour", "colour": "red"}, "needs 'subject'"),
        ({"op": "recolour", "subject": 2, "colour": "red"}, "no subject number 2"),
        ({"op": "recolour", "subject": 0, "colour": "mauve"}, "colour must be one of"),
        ({"op": "add_subject", "kind": "tree"}, "room for no more"),
        ({"op": "add_subject", "kind": "boss"}, "subject must be one of"),
        ({"op": "remove_accessory", "subject": 1, "kind": "hat"}, "the cat has no hat"),
        ({"op": "add_accessory", "subject": 1, "kind": "tail"}, "accessory must be one of"),
        ({"op": "entity", "subject": 0, "kind": "cat", "colour": "black"}, "two colours"),
        ({"op": "combine", "subject": 0}, "second picture"),
    ],
)
def test_what_cannot_be_done_is_said(edit, message):
    with pytest.raises(ValueError, match=message):
        apply_edit(SCENE, edit)


def test_the_last_subject_stays():
    with pytest.raises(ValueError, match="a picture needs one"):
        apply_edit(ALONE, {"op": "remove_subject", "subject": 0})


def test_sampled_edits_change_something_and_every_operation_occurs():
    rng = random.Random(4)
    seen = set()
    for _ in range(1500):
        scene, other = sample_scene(rng), sample_scene(rng)
        edit = sample_edit(scene, rng, other)
        assert apply_edit(scene, json.loads(json.dumps(edit)), other) != scene
        seen.add(edit["op"])
    assert seen == set(WEIGHTS) == set(EDIT_GROUP)


def test_sampling_among_operations_that_do_not_fit_is_refused():
    with pytest.raises(ValueError, match="no edit of remove_subject"):
        sample_edit(ALONE, random.Random(0), ops=["remove_subject"])
