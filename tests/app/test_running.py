from __future__ import annotations

import asyncio

import pytest

from app.conversation import UserMessage
from app.errors import InputRefused, TooMany
from app.profiles import Profile
from app.running import Run, RunningTurns
from app.store import INTERRUPTED, Conversation, Store
from tests.app.fakes import FakeDialog, FakeGenerator


@pytest.fixture
def turns(profile: Profile, store: Store) -> RunningTurns:
    return RunningTurns(profile, store, FakeDialog(pause=0.01), FakeGenerator(0.02))


async def finish(run: Run) -> list[tuple[str, int]]:
    return [(run.prompt, run.canvas.step) async for _ in run.watch()]


async def test_a_turn_goes_on_without_a_watcher(turns: RunningTurns, store: Store, conversation: Conversation) -> None:
    run = await turns.start(conversation, UserMessage("draw a fox"), "auto", None)
    async for _ in run.watch():
        break  # the page went away
    assert turns.of(conversation) is run
    await asyncio.gather(finish(run), finish(run))  # two pages came
    assert turns.of(conversation) is None
    assert (run.turn.status, run.drawing, run.canvas.step) == ("done", True, 5)
    assert store.path(store.conversation("local", conversation.id).leaf) == [run.turn]
    assert store.conversation("local", conversation.id).title == "draw a fox"


async def test_a_slow_watcher_misses_no_end(turns: RunningTurns, conversation: Conversation) -> None:
    run = await turns.start(conversation, UserMessage("draw a fox"), "auto", None)
    slow = run.watch()
    await anext(slow)
    await finish(run)
    async with asyncio.timeout(5):
        assert [None async for _ in slow] == []


async def test_one_turn_at_a_time(turns: RunningTurns, conversation: Conversation) -> None:
    run = await turns.start(conversation, UserMessage("draw a fox"), "auto", None)
    with pytest.raises(InputRefused, match="still being answered"):
        await turns.start(conversation, UserMessage("and now?"), "auto", None)
    run.cancel.set()
    await finish(run)
    assert run.turn.status == "cancelled"
    run = await turns.start(conversation, UserMessage("hello"), "auto", None)
    await finish(run)
    assert run.turn.text == "You said: hello"


async def test_a_refused_message_blocks_nothing(turns: RunningTurns, conversation: Conversation) -> None:
    with pytest.raises(InputRefused):
        await turns.start(conversation, UserMessage(""), "auto", None)
    assert turns.of(conversation) is None
    await finish(await turns.start(conversation, UserMessage("hello"), "auto", None))


async def test_what_the_quota_refuses_changes_nothing(
    turns: RunningTurns, store: Store, conversation: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await turns.start(conversation, UserMessage("draw a fox"), "auto", None)
    await finish(run)

    class Full:
        async def admit(self, owner: str, turns: int = 1) -> None:
            raise TooMany("Wait a little.", 1.0)

    monkeypatch.setattr(turns, "_quotas", Full())
    before = store.conversation("local", conversation.id)
    for taken in (turns.retry(before, run.turn, "auto"), turns.reword(before, run.turn, "draw a cat", "auto")):
        with pytest.raises(TooMany):
            await taken
    assert store.conversation("local", conversation.id) == before
    turns.check_idle(before)


async def test_conversations_do_not_mix(turns: RunningTurns, store: Store, conversation: Conversation) -> None:
    other = store.create_conversation("local", "storybook", conversation.settings, seed=8)
    runs = [await turns.start(one, UserMessage("draw a fox"), "auto", None) for one in (conversation, other)]
    await asyncio.gather(*map(finish, runs))
    assert [run.turn.seed for run in runs] == [7, 8]
    assert runs[0].turn.picture != runs[1].turn.picture


async def test_stopping_all_leaves_nothing_under_way(turns: RunningTurns, conversation: Conversation) -> None:
    run = await turns.start(conversation, UserMessage("draw a fox"), "auto", None)
    await turns.stop_all()
    assert run.finished
    assert (run.turn.status, run.turn.error) == ("failed", INTERRUPTED), "to be retried"
    with pytest.raises(InputRefused, match="is being stopped"):
        await turns.start(conversation, UserMessage("draw a fox"), "auto", None)


async def test_what_ends_in_time_is_not_lost_at_the_end(turns: RunningTurns, conversation: Conversation) -> None:
    run = await turns.start(conversation, UserMessage("draw a fox"), "auto", None)
    await turns.stop_all(60)
    assert run.turn.status == "done" and run.turn.picture
