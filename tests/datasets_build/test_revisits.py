"""Going back, correcting and speaking of one of two or of both: the right picture is meant, in every split's words."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from typing import Any

import pytest

from app.judging import judge_prompt
from datasets_build import dialogues
from datasets_build.banks import Speaker, bank, split_entries
from datasets_build.dialogues import change_picture, put_new
from datasets_build.even import EvenRandom
from datasets_build.plans import Step
from datasets_build.records import SPLITS, Exchange, NoSample, build_dialogue
from datasets_build.requests import request
from datasets_build.revisits import OF_EACH, corrected, name_picture, undone
from datasets_build.storybook.edits import WEIGHTS, apply_edit, sample_edit
from datasets_build.storybook.language import partial, write_prompt
from datasets_build.storybook.scene import Accessory, Scene, Subject, as_seen, sample_scene, sample_seen
from datasets_build.storybook.vocabulary import LANGUAGES
from datasets_build.surface import roughen
from datasets_build.table import Drawing, Table
from datasets_build.topics import TOPICS

OF_TWO = {"correction", "both", "other", "same", "vague"}
FORMS = {*OF_TWO, "earlier", "swap", "meant", "back", "each", "alike"}


def lists(entries: Any) -> list[list[str]]:
    if isinstance(entries, list):
        return [entries]
    return [found for name, part in entries.items() if name != "ordinals" for found in lists(part)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_form_has_many_phrasings_and_each_split_its_own(language: str) -> None:
    words = bank("revisits", language)
    for name in ("show", "resume", "but", "question", "correct", "both", "swap", "back", "each", "alike", "undone"):
        own = {split: [text for part in lists(words[name]) for text in split_entries(part, split)] for split in SPLITS}
        assert len(own["train"]) >= 25, name
        for split, others in (("validation", "train"), ("test", "train"), ("test", "validation")):
            assert own[split] and not set(own[split]) & set(own[others]), name
    for entries in lists(words):
        assert len(entries) == len(set(entries))


def test_dialogues_go_back_to_the_picture_that_they_name() -> None:
    forms: set[str] = set()
    for i in range(60):
        dialogue = build_dialogue(dialogues.build, "en", "train", EvenRandom.of_record(1, "train", i))
        for turn, exchange in enumerate(dialogue.exchanges):
            asked = exchange.request or {}
            forms |= {asked["form"]} if "form" in asked else set()
            forms |= {asked["op"]} if asked.get("op") == "return" else set()
            if "base_turn" not in asked:
                continue
            assert asked["base_turn"] < turn
            named = dialogue.exchanges[asked["base_turn"]].drawn
            assert named is not None and asked.get("base", named.to_json()) == named.to_json()
            if asked["op"] == "return":
                assert exchange.drawn == named
    assert {"earlier", "correction", "return"} <= forms <= FORMS | {"return"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_in_a_picture_of_two_it_is_clear_which_one_is_meant(language: str) -> None:
    made: set[str] = set()
    for seed in range(150):
        rng = random.Random(seed)
        scene = sample_scene(rng, "train", two_share=1.0)
        table = Table(Speaker(language, "train", rng), TOPICS[0])
        put_new(table, request(table.speaker, partial(scene), scene, after_another=False))
        try:
            change_picture(table.speaker, table, Step("ti2i", "recolour"), corrected_next=seed % 2 == 1)
            change_picture(table.speaker, table, Step("ti2i", rng.choice(("resize", "recolour", "correct"))))
        except NoSample:
            continue
        first, second = (dict(exchange.request or {}) for exchange in table.exchanges[1:])
        subject = first["edit"].get("subject") if "then" not in first else None
        made |= {asked["form"] for asked in (first, second) if "form" in asked}
        if first.get("form") == "vague":
            assert subject == 0  # nobody was spoken of: the left one
        if second.get("form") == "both":
            assert {edit["subject"] for edit in (second["edit"], *second["then"])} == {0, 1}
        if second.get("form") in ("other", "same"):
            assert (second["edit"]["subject"] == subject) == (second["form"] == "same")
        if second.get("form") == "correction":
            assert Scene.from_json(second["base"]) == scene
    assert made >= OF_TWO


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_picture_is_named_so_that_it_is_the_only_one(language: str) -> None:
    fox, cat, red = (
        Scene((Subject(kind, colour),), "snow")
        for kind, colour in (("fox", "orange"), ("cat", "black"), ("fox", "red"))
    )
    for seed in range(60):
        table = Table(Speaker(language, "train", random.Random(seed)), TOPICS[0])
        table.drawings = [
            Drawing(fox, language, 0, 0, 0),
            Drawing(red, language, 0, 0, 1),
            Drawing(cat, language, 0, 2, 2),
        ]
        which, drawing = name_picture(table.speaker, table)
        if "fox" in which or "狐" in which:
            assert drawing.scene == red  # its latest version
        table.drawings += [Drawing(fox, language, 0, 3, None)]  # brought by the user: now no number is clear, nor "fox"
        table.drawings = table.drawings[:2] + table.drawings[3:]
        with pytest.raises(NoSample):
            name_picture(table.speaker, table)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_correction_takes_the_place_of_the_edit_that_it_corrects(language: str) -> None:
    made = 0
    for seed in range(120):
        rng = random.Random(seed)
        scene = sample_scene(rng, "train", two_share=0.7)
        wrong = sample_edit(scene, rng, ops=[op for op in WEIGHTS if op != "combine"])
        try:
            edit, words = corrected(Speaker(language, "train", rng), scene, wrong)
        except NoSample:
            continue
        assert edit["op"] == wrong["op"] and words and "{" not in words
        assert apply_edit(scene, edit) not in (scene, apply_edit(scene, wrong))
        assert sum(edit.get(key) != wrong.get(key) for key in {*edit, *wrong}) == 1  # one thing was said wrongly
        made += 1
    assert made > 60


def test_a_judge_builds_on_the_picture_that_is_corrected_or_gone_back_to() -> None:
    pair = Scene((Subject("fox", "orange", position="left"), Subject("cat", "black", position="right")), "snow")
    recolour = {"op": "recolour", "subject": 1, "colour": "blue"}
    right = apply_edit(pair, recolour)
    on_top = apply_edit(apply_edit(pair, {**recolour, "subject": 0}), recolour)
    request = {"op": "edit", "edit": recolour, "base": pair.to_json(), "base_turn": 0, "form": "correction"}
    turn = {"type": "ti2i", "request": request, "scene": right.to_json()}
    wrong = write_prompt(apply_edit(pair, {**recolour, "subject": 0}), "en", 0)
    assert judge_prompt(turn, write_prompt(right, "en", 0), wrong)
    assert not judge_prompt(turn, write_prompt(on_top, "en", 0), wrong)
    # Where the conversation drew another first picture, that one is to be changed.
    other = Scene((Subject("dog", "red", position="left"), Subject("cat", "black", position="right")), "city")
    prompts = [write_prompt(other, "en", 0), wrong]
    assert judge_prompt(turn, write_prompt(apply_edit(other, recolour), "en", 0), wrong, prompts)
    assert not judge_prompt(turn, write_prompt(right, "en", 0), wrong, prompts)
    back = {
        "type": "ti2i",
        "request": {"op": "return", "base": pair.to_json(), "base_turn": 0},
        "scene": pair.to_json(),
    }
    assert judge_prompt(back, prompts[0], wrong, prompts) and not judge_prompt(back, wrong, wrong, prompts)


def two_things() -> Scene:
    hat, scarf = Accessory("hat", "green"), Accessory("scarf", "blue")
    return Scene(
        (Subject("fox", "red", "big", "left", (hat, scarf)), Subject("cat", "black", "normal", "right")), "snow"
    )


def after(language: str, scene: Scene, *steps: Step) -> list[Exchange]:
    """The exchanges of a dialogue that begins with `scene` and takes these steps, tried until they can be taken."""
    for seed in range(400):
        table = Table(Speaker(language, "train", random.Random(seed)), TOPICS[0])
        try:
            put_new(table, request(table.speaker, partial(scene), scene, after_another=False))
            for step in steps:
                change_picture(table.speaker, table, step)
        except NoSample:
            continue
        return table.exchanges
    raise AssertionError(f"no dialogue takes {steps}")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("things", ["accessory", "subject"])
def test_what_was_taken_away_comes_back_as_it_was(language: str, things: str) -> None:
    back = Step("ti2i", f"add_{things}", "back")
    scene = two_things()
    _, removed, restored = after(language, scene, Step("ti2i", f"remove_{things}"), back)
    assert removed.drawn is not None and restored.drawn is not None and removed.drawn != scene
    assert as_seen(restored.drawn) == as_seen(scene)
    assert restored.request is not None and restored.request["form"] == "back"
    # It comes back to a picture that has changed since, and only there.
    changed = after(language, scene, Step("ti2i", f"remove_{things}"), Step("ti2i", "background"), back)[-1].drawn
    assert changed is not None and as_seen(changed.with_background("snow")) == as_seen(scene)
    with pytest.raises(AssertionError, match="no dialogue takes"):
        after(language, scene, Step("ti2i", "background"), back)


@pytest.mark.parametrize("language", LANGUAGES)
def test_two_things_swap_their_places(language: str) -> None:
    scene = two_things()
    found = []
    for seed in range(60):
        table = Table(Speaker(language, "train", random.Random(seed)), TOPICS[0])
        put_new(table, request(table.speaker, partial(scene), scene, after_another=False))
        try:
            change_picture(table.speaker, table, Step("ti2i", "move"))
        except NoSample:
            continue
        found += [table.exchanges[-1]] if (table.exchanges[-1].request or {}).get("form") == "swap" else []
    assert len(found) > 8
    for exchange in found:
        assert exchange.drawn is not None
        assert [(s.kind, s.position) for s in exchange.drawn.subjects] == [("cat", "left"), ("fox", "right")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_another_thing_was_meant_than_the_one_just_drawn(language: str) -> None:
    scene, said = Scene((Subject("fox", "red", position="left"),), "snow"), []
    for seed in range(60):
        table = Table(Speaker(language, "train", random.Random(seed)), TOPICS[0])
        put_new(table, request(table.speaker, partial(scene), scene, after_another=False))
        change_picture(table.speaker, table, Step("ti2i", "entity"))
        exchange = table.exchanges[-1]
        if (exchange.request or {}).get("form") == "meant":
            assert exchange.drawn is not None and exchange.drawn.subjects[0].kind != "fox"
            assert exchange.drawn.subjects[0].position == "left" and exchange.drawn.background == "snow"
            said.append(exchange.user)
    assert len(said) > 8


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("op", OF_EACH)
def test_each_of_two_changes_in_its_own_way(language: str, op: str) -> None:
    found = []
    for seed in range(40):
        table = Table(Speaker(language, "train", random.Random(seed)), TOPICS[0])
        put_new(table, request(table.speaker, partial(two_things()), two_things(), after_another=False))
        with contextlib.suppress(NoSample):
            change_picture(table.speaker, table, Step("ti2i", op, "pair"))
            found += [table.exchanges[-1]] if (table.exchanges[-1].request or {}).get("form") == "each" else []
    assert len(found) > 5
    for exchange in found:
        assert exchange.request is not None and exchange.drawn is not None
        first, second = exchange.request["edit"], exchange.request["then"][0]
        assert first["op"] == second["op"] == op and {first["subject"], second["subject"]} == {0, 1}
        assert first | {"subject": second["subject"]} != second
        assert exchange.drawn == apply_edit(apply_edit(two_things(), first), second)


@pytest.mark.parametrize("language", LANGUAGES)
def test_another_one_of_the_kind_that_is_there_is_added(language: str) -> None:
    girl, said = Scene((Subject("girl", "red"),), "snow"), []
    for seed in range(60):
        table = Table(Speaker(language, "train", random.Random(seed)), TOPICS[0])
        put_new(table, request(table.speaker, partial(girl), girl, after_another=False))
        with contextlib.suppress(NoSample):
            change_picture(table.speaker, table, Step("ti2i", "add_subject"))
            exchange = table.exchanges[-1]
            if (exchange.request or {}).get("form") == "alike":
                assert exchange.drawn is not None and len({subject.colour for subject in exchange.drawn.subjects}) == 2
                assert [subject.kind for subject in exchange.drawn.subjects] == ["girl", "girl"]
                said.append(exchange.user)
    assert len(said) > 6


UNDONE = {  # an edit of a red fox with a hat in the snow, and what is named where it is undone
    "add_subject": ({"kind": "cat"}, "the cat"), "add_accessory": ({"subject": 0, "kind": "scarf"}, "the scarf"),
    "entity": ({"subject": 0, "kind": "bear"}, "the fox"), "recolour": ({"subject": 0, "colour": "green"}, "red"),
    "replace_accessory": ({"subject": 0, "old": "hat", "kind": "crown"}, "the hat"),
    "background": ({"value": "city"}, "the snow"), "style": ({"value": "pencil"}, "flat"),
}  # fmt: skip


@pytest.mark.parametrize("op", UNDONE)
def test_a_change_is_undone_by_what_it_was_about(op: str) -> None:
    base = Scene((Subject("fox", "red", accessories=(Accessory("hat", "blue"),)),), "snow")
    values, named = UNDONE[op]
    request = {"op": "edit", "edit": {"op": op} | values, "base": base.to_json()}
    said = [undone(Speaker("en", "train", random.Random(seed)), base, request).lower() for seed in range(30)]
    assert sum(named in text for text in said) > 5, said
    # A crown takes the hat's place: the picture before is not one without anything.
    request["edit"] = {"op": "add_accessory", "subject": 0, "kind": "crown", "colour": "red"}
    assert not undone(Speaker("en", "train", random.Random(1)), base, request)
    gone: dict[str, Any] = {"op": "remove_subject", "subject": 1}
    assert not undone(
        Speaker("en", "train", random.Random(1)), two_things(), request | {"edit": gone, "base": two_things().to_json()}
    )


def test_pictures_that_users_bring_wear_as_much_in_one_order() -> None:
    rng = random.Random(2)
    brought, any_scene = ([draw(rng, "train") for _ in range(1500)] for draw in (sample_seen, sample_scene))
    assert all(scene == as_seen(scene) and scene.split == "train" for scene in brought)
    shares = [
        sum(len(s.accessories) == 2 for scene in scenes for s in scene.subjects) / sum(len(x.subjects) for x in scenes)
        for scenes in (brought, any_scene)
    ]
    assert abs(shares[0] - shares[1]) < 0.03, shares


def test_the_order_of_what_is_worn_is_nobodys_mistake() -> None:
    scene = two_things()
    fox = scene.subjects[0]
    other_order = replace(scene, subjects=(replace(fox, accessories=fox.accessories[::-1]), scene.subjects[1]))
    less = replace(scene, subjects=(replace(fox, accessories=fox.accessories[:1]), scene.subjects[1]))
    edit = {"op": "background", "value": "beach"}
    asked = {"op": "edit", "edit": edit, "base": scene.to_json()}
    turn = {"type": "ti2i", "request": asked, "scene": apply_edit(scene, edit).to_json()}
    for other, right in ((scene, True), (other_order, True), (less, False)):
        assert judge_prompt(turn, write_prompt(apply_edit(other, edit), "en", 0), None) is right


def test_people_mix_languages_and_write_as_among_friends() -> None:
    english = {roughen("Draw a red fox, please.", "en", random.Random(seed)) for seed in range(600)}
    chinese = {roughen("画一只红色的狐狸", "zh", random.Random(seed)) for seed in range(600)}
    assert any("狐狸" in text for text in english) and any("pls" in text for text in english)
    assert any("fox" in text for text in chinese) and "画只红色的狐狸" in chinese
