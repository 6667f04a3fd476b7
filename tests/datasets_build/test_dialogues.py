"""The builders' dialogues keep their promises, and the banks have what they need, in both languages and all splits."""

from __future__ import annotations

import contextlib
import random
import re
from pathlib import Path

import pytest

from datasets_build import refusals, requests, talk
from datasets_build.banks import Speaker, bank, split_entries
from datasets_build.changes import edit_text
from datasets_build.dialogues import change_picture, put_new
from datasets_build.plans import Step
from datasets_build.records import SPLITS, Dialogue, NoSample, build_dialogue, builders, to_record
from datasets_build.references import refer
from datasets_build.refusals import limit, refuse, refuse_edit
from datasets_build.requests import request, request_text, sample_asked
from datasets_build.shards import DRAFTS
from datasets_build.storybook.edits import WEIGHTS, apply_edit, sample_edit
from datasets_build.storybook.language import partial
from datasets_build.storybook.reading import complete, find_template, read_prompt
from datasets_build.storybook.scene import Accessory, Scene, Subject, sample_scene
from datasets_build.storybook.vocabulary import LANGUAGES, NAMES
from datasets_build.surface import roughen
from datasets_build.table import Table
from datasets_build.talk import small_talk_pairs
from datasets_build.topics import TOPICS
from dialog_mllm.messages import DRAW, SWITCH

VALUED = ("sky", "shot")  # their phrasings stand under each value
NAMED = ("{it}", "{sub}", "{its}")


def made(task: str, language: str, split: str, n: int) -> list[Dialogue]:
    return [build_dialogue(builders()[task], language, split, random.Random(f"{task} {i}")) for i in range(n)]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", ["D_o", "D_p", "D_pm", "D_tt", "D_n", "D_c"])
def test_every_exchange_does_what_its_request_says(task: str, language: str, split: str) -> None:
    for dialogue in made(task, language, split, 12 if split == "train" else 4):
        for exchange in dialogue.exchanges:
            assert exchange.user.strip() and exchange.reply.strip()
            assert DRAW not in exchange.user and SWITCH not in exchange.user
            assert all(scene.split == split for scene in exchange.uploads)
            assert exchange.reply.startswith(DRAW) == (exchange.drawn is not None) == exchange.type.endswith("2i")
            if exchange.drawn is None:
                continue
            assert task != "D_o"
            prompt = exchange.reply.removeprefix(DRAW)
            assert read_prompt(prompt) == exchange.drawn and find_template(prompt) is not None
            assert exchange.drawn.split == split
            request = exchange.request
            assert request is not None
            if request["op"] == "draw":
                assert complete(request["asked"]) == exchange.drawn
            elif request["op"] == "edit":
                other = Scene.from_json(request["other"]) if "other" in request else None
                scene = apply_edit(Scene.from_json(request["base"]), request["edit"], other)
                for edit in request.get("then", ()):
                    scene = apply_edit(scene, edit)
                assert scene == exchange.drawn


def test_edits_keep_the_prompts_language_and_template_whatever_the_user_speaks() -> None:
    mixed = 0
    for dialogue in made("D_tt", "en", "train", 150):
        form = None
        forms: list[tuple[str, int] | None] = []  # of each turn
        for exchange in dialogue.exchanges:
            form = None if exchange.uploads else form  # what is changed next was not drawn by a prompt
            forms.append(form)
            if exchange.drawn is None:
                continue
            if "base_turn" in (exchange.request or {}):
                form = forms[exchange.request["base_turn"]]
            new = find_template(exchange.reply.removeprefix(DRAW))
            assert new is not None
            if exchange.type == "ti2i" and form is not None and not exchange.uploads:
                assert new == form
                mixed += not exchange.user.isascii() and new[0] == "en"
            form = forms[-1] = new
    assert mixed >= 3  # Chinese edits of English prompts are among them


def test_chains_change_a_picture_many_times_and_show_only_what_was_brought(tmp_path: Path) -> None:
    (tmp_path / DRAFTS).mkdir()
    brought = declined = 0
    for number, dialogue in enumerate(made("D_c", "en", "train", 40)):
        assert 4 <= len(dialogue.exchanges) <= 7
        changes = [exchange for exchange in dialogue.exchanges if exchange.type == "ti2i"]
        assert len(changes) >= 1
        declined += sum(exchange.type == "ti2t" for exchange in dialogue.exchanges)
        uploads = [exchange.uploads for exchange in dialogue.exchanges]
        assert not any(uploads[1:])
        brought += bool(uploads[0])
        record = to_record(dialogue, f"D_c-train-0-{number}", "D_c", "train", 1, tmp_path)
        pictures = [[b["type"] for b in message["content"]].count("image") for message in record["messages"]]
        assert pictures == [len(uploads[0]), *[0] * (len(record["messages"]) - 1)]
    assert brought > 2 and declined > 5


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_edits_and_turn_types_occur(language: str) -> None:
    dialogues = made("D_tt", language, "train", 200)
    exchanges = [exchange for dialogue in dialogues for exchange in dialogue.exchanges]
    requests = [exchange.request for exchange in exchanges if exchange.request]
    assert {exchange.type for exchange in exchanges} == {"t2t", "t2i", "ti2t", "ti2i"}
    assert {request["edit"]["op"] for request in requests if request["op"] == "edit"} == set(WEIGHTS)
    assert {"draw", "edit", "answer", "refuse", "again", "undo"} <= {request["op"] for request in requests}
    assert sum(len(dialogue.exchanges) == 3 for dialogue in dialogues) > 80


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_banks_are_rich(language: str) -> None:
    assert len(bank("requests", language)["draw"]) >= 60
    assert len(small_talk_pairs(language)) >= 115
    assert len(bank("refusals", language)["nouns"]) >= 80
    edits = bank("edits", language)
    for op in WEIGHTS:
        lists = edits[op].values() if op in VALUED else [edits[op]]
        assert sum(len(entries) for entries in lists) >= 25, op


@pytest.mark.parametrize("language", LANGUAGES)
def test_test_phrasings_are_the_test_splits_alone_and_can_name_their_subject(language: str) -> None:
    edits = bank("edits", language)
    for op in WEIGHTS:
        for entries in edits[op].values() if op in VALUED else [edits[op]]:
            train, test = split_entries(entries, "train"), split_entries(entries, "test")
            assert test and not set(train) & set(test)
            if op in ("entity", "recolour", "resize", "move", "remove_subject") or "accessory" in op:
                assert any(slot in text for text in test for slot in NAMED), op
    for pair in small_talk_pairs(language):
        assert not set(split_entries(pair["ask"], "train")) & set(split_entries(pair["ask"], "test"))


def test_a_list_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be split"):
        split_entries(["hello"], "train")


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_refused_is_not_in_the_world(language: str) -> None:
    words = {word for synonyms in NAMES[language]["kind"].values() for word in synonyms}
    for noun in bank("refusals", language)["nouns"]:
        bare = noun.split(" ", 1)[-1] if language == "en" else noun[2:] if noun[0] == "一" else noun
        assert bare not in words, noun


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("split", SPLITS)
def test_talk_is_short_and_complete(language: str, split: str) -> None:
    for i in range(150):
        rng = random.Random(i)
        speaker, scene = Speaker(language, split, rng), sample_scene(rng)
        for say in (talk.small_talk, talk.praise, talk.greeting, talk.farewell, talk.about_things, refuse):
            exchange = say(speaker)
            assert "{" not in exchange.user + exchange.reply
            assert len(exchange.reply.split()) <= 40 and len(exchange.reply) <= 240
        for decline in (refuse_edit, limit):
            try:
                exchange = decline(speaker, scene)
            except NoSample:
                continue
            assert "{" not in exchange.user + exchange.reply and exchange.request == {"op": "refuse"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_edit_in_a_picture_of_two_says_which_one_is_meant(language: str) -> None:
    rng = random.Random(8)
    for _ in range(60):
        scene = sample_scene(rng, two_share=1.0)
        edit = sample_edit(scene, rng, ops=("recolour", "resize", "move", "remove_subject"))
        try:
            text = edit_text(scene, edit, Speaker(language, "train", rng))
        except NoSample:
            continue
        assert not text.lower().startswith(("make it ", "把它")), text


@pytest.mark.parametrize(("language", "number"), [("en", "three|five|dozen|, "), ("zh", "[三四五六七十百]|好多|、")])
def test_more_things_than_a_picture_holds_are_refused(language: str, number: str) -> None:
    speaker = Speaker(language, "train", random.Random(6))
    replies = set(bank("refusals", language)["say"]["many"])
    refused = [exchange for exchange in (refuse(speaker) for _ in range(3000)) if exchange.reply in replies]
    assert len(refused) > 100
    assert sum(re.search(number, exchange.user.lower()) is not None for exchange in refused) > 0.6 * len(refused)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_cannot_be_drawn_cannot_be_drawn_cute_either(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [word.rstrip("的") for word in bank("requests", language)["flavour"]["creature"] if " " not in word]
    called = re.compile(rf"\b(?:{'|'.join(words)}) [a-z]" if language == "en" else f"(?:{'|'.join(words)})的")

    def share() -> float:
        speaker = Speaker(language, "train", random.Random(8))
        return sum(called.search(refuse(speaker).user.lower()) is not None for _ in range(2000)) / 2000

    with_flavour = share()
    monkeypatch.setattr(refusals, "FLAVOUR_SHARE", 0)
    monkeypatch.setattr(requests, "FLAVOUR_SHARE", 0)
    assert with_flavour > share() + 0.03


@pytest.mark.parametrize(("language", "doing"), [("en", "swimming in the woods"), ("zh", "鱼在树林里游泳")])
def test_what_somebody_does_at_a_place_is_said_with_the_place(language: str, doing: str) -> None:
    speaker = Speaker(language, "train", random.Random(5))
    asked = {"subjects": [{"kind": "fish", "colour": "red"}], "background": "forest"}
    texts = [request_text(asked, speaker) for _ in range(2000)]
    assert any(doing in text for text in texts)
    placed = {"subjects": [{"kind": "fish", "position": "left"}], "background": "forest"}
    left = {"en": r"\bleft\b", "zh": "左"}[language]
    assert all(re.search(left, request_text(placed, speaker)) for _ in range(300))  # nothing that was asked is lost


def test_the_surface_changes_but_repeats() -> None:
    text = "Draw a red fox in the snow, please."
    versions = {roughen(text, "en", random.Random(seed)) for seed in range(1500)}
    assert len(versions) > 20 and text in versions and text.lower() in versions
    assert roughen(text, "en", random.Random(7)) == roughen(text, "en", random.Random(7))
    assert {"Sketch a red fox in the snow, please.", "Draw a red fox in the snow, would you."} <= versions
    assert "画一只红狐狸" in {roughen("画一只红色的狐狸", "zh", random.Random(seed)) for seed in range(50)}


SAID_OF_TWO = {  # of a fox with a blue hat and a white cat: forms that come up, and what is never lost
    "en": (("holding hands", r"The fox has a blue hat\.", r"Make the cat white\."), (r"hat\b|cap\b", "blue", "white")),
    "zh": (("肩并肩的", "狐狸要戴", "猫是白色的"), ("帽", "蓝", "白")),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_asked_of_two_may_follow_in_sentences_of_their_own(language: str) -> None:
    speaker = Speaker(language, "train", random.Random(7))
    fox = {"kind": "fox", "accessories": [{"kind": "hat", "colour": "blue"}]}
    texts = [request_text({"subjects": [fox, {"kind": "cat", "colour": "white"}]}, speaker) for _ in range(3000)]
    forms, kept = SAID_OF_TWO[language]
    for form in forms:
        assert any(re.search(form, text) for text in texts), form
    for word in kept:
        assert all(re.search(word, text, re.IGNORECASE) for text in texts), word


def test_many_requests_are_what_is_wanted_and_nothing_else() -> None:
    speaker = Speaker("en", "train", random.Random(3))
    asked = {"subjects": [{"kind": "fox", "colour": "red"}], "background": "snow"}
    texts = [request_text(asked, speaker).lower() for _ in range(500)]
    bare = sum(re.match(r"a ([\w-]+ )*(red|crimson|scarlet) fox\b", text) is not None for text in texts)
    assert 0.15 < bare / len(texts) < 0.4


@pytest.mark.parametrize(("language", "cute", "many"), [("en", r"\bcute\b", "love cats"), ("zh", "可爱的", "喜欢猫")])
def test_what_no_picture_shows_is_said_and_changes_nothing(language: str, cute: str, many: str) -> None:
    speaker = Speaker(language, "train", random.Random(9))
    asked = {"subjects": [{"kind": "cat", "colour": "black", "accessories": [{"kind": "hat"}]}], "background": "forest"}
    texts = [request_text(asked, speaker) for _ in range(4000)]
    assert any(re.search(cute, text) for text in texts) and any(many in text for text in texts)
    assert asked["subjects"] == [{"kind": "cat", "colour": "black", "accessories": [{"kind": "hat"}]}]
    black, hat = {"en": ("black", r"hat\b|cap\b"), "zh": ("黑", "帽")}[language]
    assert all(re.search(black, text.lower()) and re.search(hat, text) for text in texts)


def test_several_changes_at_once_are_all_made() -> None:
    told: set[int] = set()
    scene = Scene((Subject("fox", "red"),), "snow")
    for seed in range(60):
        table = Table(Speaker("en", "train", random.Random(seed)), TOPICS[0])
        put_new(table, request(table.speaker, partial(scene), scene, after_another=False))
        with contextlib.suppress(NoSample):
            change_picture(table.speaker, table, Step("ti2i", "recolour", "pair"))
            asked = table.exchanges[-1].request or {}
            edits = (asked["edit"], *asked["then"])
            told.add(len(edits))
            assert len({edit["op"] for edit in edits}) == len(edits)
            edited = scene
            for edit in edits:
                edited = apply_edit(edited, edit)
            assert table.exchanges[-1].drawn == edited
    assert told == {2, 3}


@pytest.mark.parametrize(("language", "pair"), [("en", r"(two|a pair of|2) (rabbits|bunnies)\b"), ("zh", "两只兔子")])
def test_two_of_a_kind_are_asked_for_as_one_says_it(language: str, pair: str) -> None:
    speaker = Speaker(language, "train", random.Random(4))
    coloured = {"subjects": [{"kind": "rabbit", "colour": "brown"}, {"kind": "rabbit", "colour": "white"}]}
    bare = {"subjects": [{"kind": "rabbit"}, {"kind": "rabbit"}]}
    for asked in (coloured, bare):
        texts = [request_text(asked, speaker).lower() for _ in range(200)]
        assert sum(re.search(pair, text) is not None for text in texts) > 60
    asked_for = (sample_asked(speaker.rng, TOPICS[0], "train")["subjects"] for _ in range(3000))
    pairs = [subjects for subjects in asked_for if len(subjects) == 2]
    assert 0.1 < sum(one["kind"] == two["kind"] for one, two in pairs) / len(pairs) < 0.4


@pytest.mark.parametrize(
    ("language", "own", "others"),
    [
        ("en", {"the red one", "the one with the hat"}, {"the one with the scarf", "the one with the umbrella"}),
        ("zh", {"红色那只", "红色的那只", "戴着帽子的那只"}, {"围着围巾的那只", "打着雨伞的那只"}),
    ],
)
def test_a_thing_is_told_by_a_look_that_is_its_alone(language: str, own: set[str], others: set[str]) -> None:
    both, hat = Accessory("scarf", "blue"), Accessory("hat", "green")
    fox, cat = Subject("fox", "red", "normal", "left", (both, hat)), Subject("cat", "black", "normal", "right", (both,))
    said = {refer(Scene((fox, cat), "snow"), 0, language, random.Random(seed))["it"] for seed in range(400)}
    assert own <= said and not others & said
    alone = Scene((Subject("fox", "red", "normal", "middle", (hat,)),), "snow")
    assert not own & {refer(alone, 0, language, random.Random(seed))["it"] for seed in range(400)}


def many(task: str, language: str, n: int = 250, split: str = "train") -> list[Dialogue]:
    rng = random.Random(f"{task} {language}")
    return [build_dialogue(builders()[task], language, split, rng) for _ in range(n)]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_is_offered_is_possible_and_what_is_combined_plain(language: str) -> None:
    offer = ("Shall I add one?", "要加一个吗")
    for dialogue in [*many("D_c", language), *many("D_n", language)]:
        scene = None
        for exchange in dialogue.exchanges:
            scene = exchange.drawn or (exchange.uploads or (scene,))[-1]
            if scene is not None and any(words in exchange.reply for words in offer):
                assert len(scene.subjects) == 1, exchange
            request = exchange.request or {}
            if request.get("op") == "edit" and "other" in request:
                kinds = [s["kind"] for name in ("base", "other") for s in request[name]["subjects"]]
                edit = request["edit"]
                combined = request["other"]["subjects"][edit["other_subject"]]["kind"]
                assert kinds.count(combined) == 1
