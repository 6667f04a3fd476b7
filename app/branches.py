"""What a user does with a turn that is there: take it again, say it or have it drawn in other words, see variations,
go on from it. Each makes a branch of the conversation's tree, and what was there stays on its own.

    async for event in redraw(conversation, turn, "A blue fox.", generator, store, profile): ...

The seed: a locked one stays. Else a branch goes on with the seed of its latest picture, so that changes are made to
that picture; and a retry rolls a new one. What is varied or retried with a new seed is still a change of the picture
that it was a change of.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from app.conversation import (
    MAX_TEXT,
    STOPPED,
    UNEXPECTED,
    Accepted,
    Done,
    Event,
    Failed,
    Generator,
    Picture,
    Progress,
    Stopped,
    UserMessage,
    Work,
    check_message,
    draw,
    draw_request,
    draw_turn,
    keep,
    to_its_end,
    until,
)
from app.errors import EaselError, InputRefused
from app.profiles import Profile
from app.store import IN_FLIGHT, Conversation, Store, Turn, new_id, new_seed
from generator.errors import GeneratorError
from generator.request import DrawRequest

VARIATIONS = 4

log = logging.getLogger(__name__)


def go_to(conversation: Conversation, leaf: str | None, store: Store) -> Conversation:
    """Make `leaf` the end of the active path: what is said next is said there."""
    drawn = [turn for turn in store.path(leaf) if turn.picture]
    seed = {"seed": drawn[-1].seed} if drawn and conversation.seeds != "lock" else {}
    return store.change_conversation(conversation, leaf=leaf, **seed)


def go_on_from(conversation: Conversation, turn: Turn, store: Store) -> Conversation:
    """The picture of `turn` is what the next message changes, and the latest that the dialog model sees."""
    check_picture(turn)
    return go_to(conversation, turn.id, store)


def retry_of(turn: Turn, conversation: Conversation, store: Store) -> tuple[Conversation, UserMessage]:
    """What to take again to get a sibling of `turn`. A finished picture is retried for another one, so the seed of an
    unlocked conversation is rolled anew; a failed turn is retried as it was, be that such a retry."""
    if turn.picture and conversation.seeds != "lock":
        conversation = store.change_conversation(conversation, seed=new_seed())
    if (turn.picture or turn.seeds == "vary") and conversation.seeds != "lock":
        conversation = replace(conversation, seeds="vary")
    return conversation, UserMessage(turn.said, turn.uploads)


def reword(turn: Turn, text: str, conversation: Conversation, store: Store) -> tuple[Conversation, UserMessage]:
    """What to take to get a sibling of `turn` that says `text`, with the seed that held then."""
    if text.strip() == turn.said:
        raise InputRefused("The message is as it was. Change it first; Retry takes it again as it is.")
    message = UserMessage(text, turn.uploads)
    check_message(message)
    if conversation.seeds != "lock":
        conversation = store.change_conversation(conversation, seed=turn.seed)
    return conversation, message


def reopen(conversation: Conversation, store: Store) -> Conversation:
    """One of which every turn was taken back goes on from its newest."""
    first = [turn for turn in store.turns(conversation) if turn.parent is None]
    if conversation.leaf is not None or not first:
        return conversation
    return go_to(conversation, store.newest_leaf(first[-1]), store)


async def redraw(
    conversation: Conversation,
    turn: Turn,
    prompt: str,
    generator: Generator,
    store: Store,
    profile: Profile,
    cancel: asyncio.Event | None = None,
    seed: int | None = None,
) -> AsyncGenerator[Event]:
    """A sibling of `turn` with a prompt of the user's: the dialog model is not asked, and may learn from it. A given
    seed is for another picture; else the one that is there is changed. InputRefused is raised before anything is
    stored; later every error ends the turn with Failed."""
    check_picture(turn)
    prompt = " ".join(prompt.split())
    if not prompt:
        raise InputRefused("The prompt is empty. Say what to draw.")
    if len(prompt) > MAX_TEXT:
        raise InputRefused(f"The prompt has {len(prompt):,} characters. Use at most {MAX_TEXT:,}.")
    if seed is None and prompt == " ".join(turn.prompt.split()):
        raise InputRefused("The prompt is as it was. Change it first; Variations draws it with other seeds.")
    _correct(turn, prompt, store)
    sibling = store.add_sibling(
        turn, status="drawing", prompt=prompt, base=turn.id, varies=None, picture=None, raw="", draw_probability=None,
        timings={}, seed=turn.seed if seed is None else seed, seeds=conversation.seeds if seed is None else "vary",
    )  # fmt: skip
    conversation = store.change_conversation(
        conversation, leaf=sibling.id, seed=conversation.seed if conversation.seeds == "lock" else sibling.seed
    )
    work = Work(sibling, store)
    drawing = draw_turn(work, conversation, generator, profile, cancel or asyncio.Event())
    async with aclosing(to_its_end(work, drawing)) as events:
        async for event in events:
            yield event


async def vary(
    conversation: Conversation,
    turn: Turn,
    generator: Generator,
    store: Store,
    profile: Profile,
    cancel: asyncio.Event | None = None,
    number: int = VARIATIONS,
) -> AsyncGenerator[Event]:
    """More pictures of a turn's prompt, from other seeds, drawn together. Each becomes a sibling of the turn once it is
    drawn, whatever happens to the others; the path ends with `turn` until one of them is chosen (`go_on_from`)."""
    check_picture(turn)
    conversation = go_to(conversation, turn.id, store)
    turns = [replace(turn, id=new_id(), seed=new_seed(), varies=turn.id, draw_probability=None) for _ in range(number)]
    yield Accepted(turn)
    started = time.perf_counter()
    errors: list[Exception] = []
    try:
        before = store.path(turn.parent)
        requests = [draw_request([*before, each], conversation, profile, store) for each in turns]
        async with aclosing(until(cancel or asyncio.Event(), _draw_all(generator, requests))) as events:
            async for place, event in events:
                if isinstance(event, Progress):
                    yield replace(event, place=place)
                elif isinstance(event, Exception):
                    errors.append(event)
                else:
                    each = turns[place]
                    picture = await asyncio.to_thread(keep, event, [*before, each], profile, store)
                    timings = {"drawing": time.perf_counter() - started, **(event.timings or {})}
                    store.add_sibling(each, id=each.id, picture=picture, timings=timings)
                    yield Picture(picture, turn.prompt, each.seed, place)
    except Stopped:
        yield Failed(turn, STOPPED)
        return
    except Exception as error:
        errors.append(error)
    if not errors:
        yield Done(turn)
        return
    known = isinstance(errors[0], GeneratorError | EaselError)
    if not known:
        log.error("a variation failed", exc_info=errors[0])
    yield Failed(turn, str(errors[0]) if known else UNEXPECTED, errors[0])


def check_picture(turn: Turn) -> None:
    """Raises InputRefused where there is none to go on from."""
    if turn.status in IN_FLIGHT:
        raise InputRefused("This picture is still being drawn. Wait for it, or press Stop.")
    if not turn.picture:
        raise InputRefused("This turn has no picture. Choose one that has.")


def alternatives(turn: Turn, siblings: Sequence[Turn]) -> list[Turn]:
    """Other pictures of the same prompt at the same place: variations, and what they are variations of."""
    same = (turn.said, turn.uploads, turn.prompt)
    return [
        other
        for other in siblings
        if other.picture and other.id != turn.id and (other.said, other.uploads, other.prompt) == same
    ]


def _correct(turn: Turn, prompt: str, store: Store) -> None:
    """The model's own turn, from which the user's words set out, keeps them as the prompt that it should have had."""
    while turn.base:
        turn = store.turn(turn.base)
    if prompt == turn.prompt:
        return
    rating = store.rating(turn.id)
    verdict = rating.verdict if rating is not None and rating.verdict != "should_talk" else ""
    store.rate(turn, verdict, prompt)


async def _draw_all(generator: Generator, requests: Sequence[DrawRequest]) -> AsyncGenerator[tuple[int, Any]]:
    """What `draw` tells of each, with its place; of one that fails, its error."""
    told: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()

    async def one(place: int, request: DrawRequest) -> None:
        try:
            async with aclosing(draw(generator, request)) as events:
                async for event in events:
                    told.put_nowait((place, event))
        except Exception as error:
            told.put_nowait((place, error))

    tasks = [asyncio.create_task(one(place, request)) for place, request in enumerate(requests)]
    try:
        missing = len(tasks)
        while missing:
            place, event = await told.get()
            missing -= not isinstance(event, Progress)
            yield place, event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
