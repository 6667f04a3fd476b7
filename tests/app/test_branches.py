from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from app.branches import VARIATIONS, alternatives, go_on_from, go_to, redraw, retry_of, reword, vary
from app.conversation import (
    STOPPED,
    UNEXPECTED,
    Accepted,
    Done,
    Event,
    Failed,
    Picture,
    Progress,
    UserMessage,
    base_of,
    take_turn,
)
from app.errors import InputRefused, NotFound
from app.profiles import Profile
from app.running import RunningTurns
from app.store import Conversation, Store, Turn
from generator.errors import DrawingCancelled, DrawingFailed
from generator.request import Upload
from tests.app.test_conversation import FOX, SCARF, World
from tests.app.test_pictures import encode

BLUE = "A flat picture of a blue fox in the snow by day."


class Garden(World):
    """A world whose turns grow branches."""

    async def draws(self, *replies: str) -> list[Turn]:
        """A conversation of these replies; its turns."""
        self.dialog.replies += replies
        for number, _ in enumerate(replies):
            await self.say(f"say {number}")
        return self.path

    @property
    def path(self) -> list[Turn]:
        return self.store.path(self.conversation.leaf)

    async def redraw(self, turn: Turn, prompt: str, **options: Any) -> list[Event]:
        events = redraw(self.conversation, turn, prompt, self.generator, self.store, self.profile, **options)
        return [event async for event in events]

    async def vary(self, turn: Turn, **options: Any) -> list[Event]:
        events = vary(self.conversation, turn, self.generator, self.store, self.profile, **options)
        return [event async for event in events]

    async def all_stopped(self) -> None:
        """Every drawing after the first one was given up, those that were only being submitted too."""
        while len(self.generator.jobs) < 1 + VARIATIONS:
            await asyncio.sleep(0.01)
        for job in self.generator.jobs[1:]:
            error = await asyncio.to_thread(job.future.exception, 60)
            assert isinstance(error, DrawingCancelled)


@pytest.fixture
def world(store: Store, conversation: Conversation, profile: Profile) -> Garden:
    return Garden(store, conversation, profile)


async def test_a_prompt_of_the_users_is_drawn_on_the_picture_that_was_there(world: Garden) -> None:
    (fox,) = await world.draws(FOX)
    events = await world.redraw(fox, f"  {BLUE}\n ")
    assert isinstance(events[0], Accepted) and isinstance(events[-1], Done)
    blue = events[-1].turn
    assert (blue.prompt, blue.said, blue.parent, blue.seed, blue.base) == (BLUE, fox.said, fox.parent, 7, fox.id)
    assert blue.picture and (blue.raw, blue.draw_probability) == ("", None)
    assert len(world.dialog.asked) == 1, "the dialog model is not asked"
    first, second = world.generator.requests
    assert second.source == first
    assert world.path == [blue]
    assert [turn.id for turn in world.store.siblings(fox)] == [fox.id, blue.id]
    await world.draws(SCARF.replace("red", "blue"))
    assert world.generator.requests[-1].source == second, "what follows is a change of that picture, source and all"


async def test_a_redrawn_edit_changes_whichever_picture_is_likest(world: Garden) -> None:
    _, scarf = await world.draws(FOX, SCARF)
    await world.redraw(scarf, SCARF.replace("day", "night").removeprefix("<draw>"))
    await world.redraw(scarf, FOX.replace("day", "dusk").removeprefix("<draw>"))
    fox_, scarf_, night, dusk = world.generator.requests
    assert night.source == scarf_ and dusk.source == fox_


async def test_a_redrawn_new_topic_knows_nothing_of_what_was_before(world: Garden) -> None:
    _, other = await world.draws(FOX, "<switch>" + SCARF)
    await world.redraw(other, FOX.replace("day", "night").removeprefix("<draw>"))
    assert world.generator.requests[-1].source == world.generator.requests[-2]


async def test_a_redrawn_upload_is_drawn_on_the_upload(world: Garden) -> None:
    world.dialog.replies.append(FOX)
    await world.say("this one", (encode(Image.new("RGB", (32, 32), "red"), "PNG"),))
    await world.redraw(world.path[0], BLUE)
    assert isinstance(world.generator.requests[-1].source, Upload)


async def test_the_users_prompt_is_kept_for_the_model_to_learn(world: Garden) -> None:
    (fox,) = await world.draws(FOX)
    world.store.rate(fox, "dislike")
    await world.redraw(fox, BLUE)
    (blue,) = world.path
    await world.redraw(blue, BLUE.replace("day", "night"))
    rating = world.store.rating(fox.id)
    assert rating is not None and (rating.verdict, rating.prompt) == ("dislike", BLUE.replace("day", "night"))
    assert world.store.rating(blue.id) is None, "the model did not write that one"
    world.store.rate(fox, "should_talk")
    await world.redraw(fox, BLUE)
    rating = world.store.rating(fox.id)
    assert rating is not None and (rating.verdict, rating.prompt) == ("", BLUE)


async def test_a_redrawing_that_fails_is_retried_with_the_users_prompt(world: Garden) -> None:
    (fox,) = await world.draws(FOX)
    world.generator.errors.append(DrawingFailed("the device gave up"))
    events = await world.redraw(fox, BLUE)
    assert isinstance(events[-1], Failed) and events[-1].message == "the device gave up"
    (failed,) = world.path
    assert (failed.status, failed.prompt) == ("failed", BLUE)
    turns = RunningTurns(world.profile, world.store, world.dialog, world.generator)
    async for _ in (await turns.retry(world.conversation, failed, "auto")).watch():
        pass
    (again,) = world.path
    assert (again.status, again.prompt, again.seed) == ("done", BLUE, 7)
    async for _ in (await turns.retry(world.conversation, again, "auto")).watch():
        pass
    (other,) = world.path
    assert other.prompt == BLUE and other.seed == world.conversation.seed != 7
    assert len(world.dialog.asked) == 1


@pytest.mark.parametrize(
    ("prompt", "message"),
    [(" \n", "prompt is empty"), ("x" * 5_000, "5,000 characters"), (FOX.removeprefix("<draw>"), "as it was")],
)
async def test_prompts_that_are_refused_leave_no_trace(world: Garden, prompt: str, message: str) -> None:
    (fox,) = await world.draws(FOX)
    with pytest.raises(InputRefused, match=message):
        await world.redraw(fox, prompt)
    assert world.store.siblings(fox) == [fox] and world.store.rating(fox.id) is None


async def test_turns_without_a_picture_are_refused(world: Garden) -> None:
    (talk,) = await world.draws("Hello.")
    waiting = world.store.add_sibling(talk, status="drawing", prompt="a fox")
    for turn, message in ((talk, "has no picture"), (waiting, "still being drawn")):
        with pytest.raises(InputRefused, match=message):
            await world.redraw(turn, BLUE)
        with pytest.raises(InputRefused, match=message):
            await world.vary(turn)
        with pytest.raises(InputRefused, match=message):
            go_on_from(world.conversation, turn, world.store)


async def test_turns_of_another_conversation_are_not_found(world: Garden, store: Store) -> None:
    (fox,) = await world.draws(FOX)
    other = store.create_conversation("local", world.profile.name, {})
    with pytest.raises(NotFound, match="does not exist any more"):
        store.turn_of(other, fox.id)
    assert store.turn_of(world.conversation, fox.id) == fox
    store.delete_conversation(world.conversation)
    with pytest.raises(NotFound, match="does not exist any more"):
        store.turn_of(other, fox.id)


async def test_variations_are_siblings_with_other_seeds(world: Garden) -> None:
    (fox,) = await world.draws(FOX)
    world.generator.pause = 0.01
    events = await world.vary(fox)
    assert isinstance(events[0], Accepted) and isinstance(events[-1], Done)
    assert {event.place for event in events if isinstance(event, Progress)} == {*range(VARIATIONS)}
    pictures = [event for event in events if isinstance(event, Picture)]
    assert len({picture.id for picture in pictures}) == len({picture.seed for picture in pictures}) == VARIATIONS
    requests = world.generator.requests[1:]
    assert {request.prompt for request in requests} == {fox.prompt} and all(r.source is None for r in requests)
    assert world.path == [fox] and world.conversation.seed == 7, "nothing is chosen yet"
    others = alternatives(fox, world.store.siblings(fox))
    assert {other.picture for other in others} == {picture.id for picture in pictures}
    assert all(world.store.picture_info(other.picture or "")["turns"] == other.id for other in others)
    chosen = others[2]
    go_on_from(world.conversation, chosen, world.store)
    assert world.path == [chosen] and world.conversation.seed == chosen.seed
    assert fox in alternatives(chosen, world.store.siblings(chosen))
    await world.draws(SCARF)
    edit = world.generator.requests[-1]
    assert edit.source is not None and edit.source.seed == edit.seed == chosen.seed, "an edit of the chosen one"


async def test_variations_of_an_edit_are_changes_of_the_same_picture(world: Garden) -> None:
    _, scarf = await world.draws(FOX, SCARF)
    fox_, scarf_ = world.generator.requests
    await world.vary(scarf)
    assert [replace(request, seed=7) for request in world.generator.requests[2:]] == [scarf_] * VARIATIONS
    assert scarf_.source == fox_
    first = alternatives(scarf, world.store.siblings(scarf))[0]
    asked = next(request for request in world.generator.requests if request.seed == first.seed)
    go_on_from(world.conversation, first, world.store)
    await world.draws(SCARF.replace("day", "night"))
    assert world.generator.requests[-1].source == asked, "what follows is a change of the chosen one, source and all"
    assert base_of(world.path[:2], world.conversation, world.profile, world.store) == world.path[0].picture
    assert base_of(world.path, world.conversation, world.profile, world.store) == first.picture
    await world.vary(first)
    assert world.generator.requests[-1].source == fox_, "and variations of a variation too"


async def test_a_retried_edit_is_another_change_of_the_same_picture(world: Garden) -> None:
    _, scarf = await world.draws(FOX, SCARF)
    fox_, scarf_ = world.generator.requests
    turns = RunningTurns(world.profile, world.store, world.dialog, world.generator)
    world.dialog.replies.append(SCARF)
    run = await turns.retry(world.conversation, scarf, "auto")
    async for _ in run.watch():
        pass
    again = world.generator.requests[-1]
    assert again == replace(scarf_, seed=again.seed) and again.seed != 7 and again.source == fox_


async def test_a_varied_seed_is_another_for_each_message(world: Garden) -> None:
    turns = RunningTurns(world.profile, world.store, world.dialog, world.generator)
    world.store.change_conversation(world.conversation, seeds="vary")
    world.dialog.replies += [FOX, SCARF, SCARF]
    for _ in range(3):
        conversation = world.conversation
        run = await turns.start(conversation, UserMessage("on"), "auto", conversation.leaf)
        async for _ in run.watch():
            pass
    fox_, scarf_, again = world.generator.requests
    assert fox_.seed == 7 and len({fox_.seed, scarf_.seed, again.seed}) == 3
    assert scarf_.source == fox_, "a change is still one of the picture before"
    assert again == replace(scarf_, seed=again.seed), "and the same once more is another of the same change"


async def test_variations_are_drawn_together(world: Garden) -> None:
    (fox,) = await world.draws(FOX)
    world.generator.pause = 0.05
    begun = [event.place for event in await world.vary(fox) if isinstance(event, Progress) and event.step == 1]
    assert sorted(begun) == [*range(VARIATIONS)]
    assert len(world.generator.jobs) == 1 + VARIATIONS


async def test_a_locked_seed_stays_whatever_is_chosen(world: Garden) -> None:
    (fox,) = await world.draws(FOX)
    world.store.change_conversation(world.conversation, seeds="lock")
    await world.vary(fox)
    go_on_from(world.conversation, alternatives(fox, world.store.siblings(fox))[0], world.store)
    assert world.conversation.seed == 7


async def test_variations_that_were_drawn_outlive_those_that_fail(world: Garden) -> None:
    (fox,) = await world.draws(FOX)
    world.generator.errors.append(DrawingFailed("the device gave up"))
    events = await world.vary(fox)
    assert isinstance(events[-1], Failed) and events[-1].message == "the device gave up"
    assert events[-1].turn == fox
    assert len(alternatives(fox, world.store.siblings(fox))) == VARIATIONS - 1


async def test_a_bug_in_a_variation_is_told(world: Garden, caplog: pytest.LogCaptureFixture) -> None:
    (fox,) = await world.draws(FOX)
    world.generator.errors += [ZeroDivisionError()] * VARIATIONS  # type: ignore[list-item]
    events = await world.vary(fox)
    assert isinstance(events[-1], Failed) and events[-1].message == UNEXPECTED
    assert "ZeroDivisionError" in caplog.text


async def test_stop_while_variations_are_drawn(world: Garden) -> None:
    (fox,) = await world.draws(FOX)
    world.generator.ahead = 1
    cancel = asyncio.Event()
    asyncio.get_running_loop().call_later(0.2, cancel.set)
    events = await world.vary(fox, cancel=cancel)
    assert isinstance(events[-1], Failed) and events[-1].message == STOPPED
    await world.all_stopped()
    assert world.store.siblings(fox) == [fox] and world.path == [fox]


async def test_any_picture_can_be_what_the_next_message_changes(world: Garden) -> None:
    fox, scarf, castle = await world.draws(FOX, SCARF, "<switch><draw>A blue castle on the beach, in pencil.")
    go_on_from(world.conversation, fox, world.store)
    *_, night = await world.draws(FOX.replace("day", "night"))
    messages, _ = world.dialog.asked[-1]
    assert [message.text for message in messages if message.role == "assistant"] == [FOX], "the latest it sees"
    assert world.generator.requests[-1].source == world.generator.requests[0]
    assert night.parent == fox.id and world.store.newest_leaf(scarf) == castle.id, "what was there stays"


async def test_a_branch_goes_on_with_the_seed_of_its_picture(world: Garden) -> None:
    (fox,) = await world.draws(FOX)
    conversation, message = retry_of(fox, world.conversation, world.store)
    world.dialog.replies.append(FOX)
    await world.take(conversation, message, parent=None)
    assert world.conversation.seed != 7
    go_to(world.conversation, fox.id, world.store)
    assert world.conversation.seed == 7
    go_to(world.conversation, None, world.store)
    assert (world.conversation.seed, world.path) == (7, [])


async def test_a_message_is_said_in_other_words(world: Garden) -> None:
    fox, scarf = await world.draws(FOX, SCARF)
    world.store.change_conversation(world.conversation, seed=8)
    conversation, message = reword(fox, "draw a blue fox", world.conversation, world.store)
    assert conversation.seed == 7, "as it was then"
    await world.take(conversation, message, parent=fox.parent)
    (blue,) = world.path
    assert (blue.said, blue.prompt) == ("draw a blue fox", "A flat picture of a blue fox.")
    assert world.store.newest_leaf(fox) == scarf.id, "later turns stay where they were"
    locked = world.store.change_conversation(world.conversation, seeds="lock", seed=9)
    assert reword(fox, "draw a castle", locked, world.store)[0].seed == 9


@pytest.mark.parametrize(("text", "message"), [("", "message is empty"), ("say 0 ", "as it was"), ("x" * 5_000, "5,0")])
async def test_words_that_are_refused_change_nothing(world: Garden, text: str, message: str) -> None:
    (fox,) = await world.draws(FOX)
    world.store.change_conversation(world.conversation, seed=8)
    with pytest.raises(InputRefused, match=message):
        reword(fox, text, world.conversation, world.store)
    assert world.conversation.seed == 8


async def test_nothing_is_begun_while_a_turn_is_under_way(world: Garden) -> None:
    (fox,) = await world.draws(FOX)
    world.generator.ahead = 1
    turns = RunningTurns(world.profile, world.store, world.dialog, world.generator)
    run = await turns.vary(world.conversation, fox)
    for begin in (
        turns.vary(world.conversation, fox),
        turns.redraw(world.conversation, fox, BLUE),
        turns.reword(world.conversation, fox, "draw a castle", "auto"),
        turns.retry(world.conversation, fox, "auto"),
    ):
        with pytest.raises(InputRefused, match="still being answered"):
            await begin
    assert world.conversation.seed == 7 and world.store.siblings(fox) == [fox]
    assert world.store.rating(fox.id) is None
    run.cancel.set()
    async for _ in run.watch():
        pass
    await world.all_stopped()


async def test_the_place_in_the_queue_is_told(world: Garden) -> None:
    world.generator.ahead = 3
    heard: list[int] = []
    events = take_turn(
        world.conversation, UserMessage("draw a fox"), world.dialog, world.generator, world.store, world.profile
    )
    async for event in events:
        if isinstance(event, Progress):
            heard.append(event.ahead)
            world.generator.ahead = {3: 1}.get(event.ahead, 0) if event.ahead else world.generator.ahead
    assert heard == [0, 3, 1, *[0] * 5]
