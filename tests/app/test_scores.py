"""Scores over fakes: colours as pictures, and the real inspector's labels over a scene that the test names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from app.branches import vary
from app.conversation import UserMessage
from app.profiles import Profile, load_profile
from app.running import RunningTurns
from app.scores import Scorer
from app.store import Conversation, Store
from app.texts import TEXTS
from app.view import show_scores, show_turns
from tests.app.test_conversation import FOX, SCARF, World


@pytest.mark.slow
async def test_pictures_are_scored_once_they_are_shown(
    store: Store, conversation: Conversation, profile: Profile
) -> None:
    world = World(store, conversation, profile)
    scorer = Scorer(profile, store)
    world.dialog.replies += [FOX, SCARF]
    for _ in range(2):
        await world.say("on")
    fox, scarf = store.path(world.conversation.leaf)
    assert await scorer.score(world.conversation, fox) and await scorer.score(world.conversation, scarf)
    assert not await scorer.score(world.conversation, scarf), "nothing is new"
    scores = store.scores([fox, scarf])
    assert (scores[fox.id].base, scores[fox.id].consistency) == (None, None)
    assert scores[scarf.id].base == fox.picture and 0 <= (scores[scarf.id].consistency or 0) <= 1
    assert scores[scarf.id].asked > scores[fox.id].asked > 0
    async for _ in vary(world.conversation, scarf, world.generator, store, profile):
        pass
    assert await scorer.score(world.conversation, scarf)
    siblings = store.siblings(scarf)
    assert len(store.scores(siblings)) == len(siblings) == 5
    assert {score.base for score in store.scores(siblings).values()} == {fox.picture}
    shown = show_scores(store.scores([fox, scarf]), TEXTS["en"])
    first, second = shown.split("<p")[1:]
    assert fox.id in first and "like the picture before" not in first
    assert scarf.id in second and "like the picture before" in second and "of the prompt seen (estimate)" in second
    assert all(
        f"easel-of-{turn.id}" in place["content"]
        for turn, place in zip([fox, scarf], show_turns([fox, scarf], None, TEXTS["en"])[1::2], strict=True)
    )
    store.delete_conversation(world.conversation)
    assert store.scores(siblings) == {}


async def test_without_an_inspector_there_are_none(store: Store, conversation: Conversation, profile: Profile) -> None:
    world = World(store, conversation, replace(profile, inspector=""))
    world.dialog.replies.append(FOX)
    turns = RunningTurns(world.profile, store, world.dialog, world.generator, scorer=Scorer(world.profile, store))
    run = await turns.start(conversation, UserMessage("on"), "auto", None)
    async for _ in run.watch():
        pass
    assert run.scores is not None and not await run.scores
    assert store.scores([run.turn]) == {} == store.scores([]) and show_scores({}, TEXTS["en"]) == ""


async def test_a_damaged_inspector_harms_nobody(
    store: Store, conversation: Conversation, profile: Profile, tmp_path: Path
) -> None:
    world = World(store, conversation, replace(profile, inspector=str(tmp_path / "none")))
    world.dialog.replies.append(FOX)
    await world.say("on")
    assert not await Scorer(world.profile, store).score(conversation, store.path(world.conversation.leaf)[0])


def test_another_generator_is_another_world(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('generator = "someone/else"\n')
    assert load_profile(str(tmp_path / "mine.toml")).inspector == ""
    (tmp_path / "mine.toml").write_text("steps = 12\n")
    assert load_profile(str(tmp_path / "mine.toml")).inspector
