"""The client against a server that fails in every way; the real server is in test_server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dialog_mllm.client import ROOM, DialogClient, Mode, Timeouts
from dialog_mllm.errors import (
    ContextTooLong,
    DialogError,
    DialogRefused,
    DialogTimeout,
    DialogUnavailable,
    EmptyPrompt,
    MessageError,
    ProtocolError,
)
from dialog_mllm.messages import Message
from dialog_mllm.protocol import DrawStart, PromptDelta, Reply, TextDelta
from tests.dialog_mllm.fake_server import CONTEXT, DRAW_ID, Answer, Connection, fake_server

QUICK = Timeouts(first_token=1.0, between_tokens=0.3)
HELLO = [Message.user("hello")]


def say(*tokens: str, **options) -> Answer:
    async def answer(connection: Connection) -> None:
        await connection.head()
        await connection.tokens(*tokens, **options)

    return answer


def refuse(status: int, message: str) -> Answer:
    return lambda connection: connection.json({"error": {"message": message}}, status)


async def ask(client: DialogClient, mode: Mode = "auto", messages: list[Message] | None = None) -> list:
    return [event async for event in client.reply(messages or HELLO, mode)]


def exchange(
    *answers: Answer, mode: Mode = "auto", draw_ids: list[int] | None = None, **options: Any
) -> tuple[list, list]:
    """The client's events and the bodies that the server received."""

    async def run() -> tuple[list, list]:
        async with fake_server(*answers, draw_ids=draw_ids) as server:
            events = await ask(DialogClient(server.url, "key", **options), mode)
            return events, [request.body for request in server.requests]

    return asyncio.run(run())


def test_text() -> None:
    events, (body,) = exchange(say("Hel", "lo", "!"))
    assert events[:-1] == [TextDelta("Hel"), TextDelta("lo"), TextDelta("!")]
    reply = events[-1]
    assert (reply.kind, reply.text, reply.truncated) == ("text", "Hello!", False)
    assert reply.draw_probability == pytest.approx(math.exp(-0.5))
    assert 0 < reply.timings["first_token"] <= reply.timings["total"]
    assert body["skip_special_tokens"] is False
    assert body["temperature"] == 0
    assert "logit_bias" not in body


def test_draw_from_tokens_in_pieces() -> None:
    events, _ = exchange(say("<switch>", "<dr", "aw>", "a red", " fox"))
    assert events[:-1] == [DrawStart(), PromptDelta("a red"), PromptDelta(" fox")]
    assert (events[-1].prompt, events[-1].switched) == ("a red fox", True)


def test_draw_probability_is_read_behind_the_switch() -> None:
    async def answer(connection: Connection) -> None:
        await connection.head()
        await connection.tokens("<switch>", finish=None, draw=-9.0)
        await connection.tokens("<draw>", finish=None, draw=-0.25)
        await connection.tokens("fox", draw=-9.0)

    events, _ = exchange(answer)
    assert events[-1].draw_probability == pytest.approx(math.exp(-0.25))


def test_draw_mode_continues_from_the_token() -> None:
    events, (body,) = exchange(say("a", " fox"), mode="draw")
    assert events[0] == DrawStart()
    assert events[-1].content == "<draw>a fox"
    assert events[-1].draw_probability is None  # nothing was decided
    assert body["messages"][-1] == {"role": "assistant", "content": "<draw>"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_talk_mode_forbids_the_token() -> None:
    _, (body,) = exchange(say("hi"), mode="talk")
    assert body["logit_bias"] == {str(DRAW_ID): -100}
    _, (body,) = exchange(say("hi"), mode="talk", draw_ids=[1, 2, 3])  # a foreign model: the token is three
    assert body["bad_words"] == ["<draw>", "<画图>"]  # as DialogGen's released weights write it
    assert "logprobs" not in body


def test_a_bias_to_draw_is_asked_for_and_counts_in_the_probability() -> None:
    events, (body,) = exchange(say("hi"), draw_bias=1.5)
    assert body["logit_bias"] == {str(DRAW_ID): 1.5}
    odds = math.exp(-0.5) / (1 - math.exp(-0.5)) * math.exp(1.5)
    assert events[-1].draw_probability == pytest.approx(odds / (1 + odds))
    _, (body,) = exchange(say("a fox"), mode="draw", draw_bias=1.5)
    assert "logit_bias" not in body  # there is nothing to choose
    _, (body,) = exchange(say("hi"), mode="talk", draw_bias=1.5)
    assert body["logit_bias"] == {str(DRAW_ID): -100}
    _, (body,) = exchange(say("hi"), draw_bias=1.5, draw_ids=[1, 2, 3])
    assert "logit_bias" not in body


def test_a_long_reply_is_cut_and_says_so() -> None:
    events, (body,) = exchange(say("la", finish="length"), max_tokens=1)
    assert events[-1].truncated
    assert body["max_tokens"] == 1


def test_history_that_does_not_fit_is_forgotten() -> None:
    too_long = refuse(400, "This model's maximum context length is 512 tokens.")
    full = refuse(400, "max_tokens must be at least 1, got 0.")
    history = [Message.user("1"), Message.assistant("1"), Message.user("2"), Message.assistant("2"), Message.user("3")]

    async def run() -> tuple[list, list]:
        async with fake_server(too_long, full, say("ok")) as server:
            events = await ask(DialogClient(server.url), messages=history)
            return events, [len(request.body["messages"]) for request in server.requests]

    events, lengths = asyncio.run(run())
    assert lengths == [5, 3, 1]
    assert events[-1].forgotten == 4
    with pytest.raises(ContextTooLong, match="Shorten it"):
        exchange(too_long)


@pytest.mark.parametrize("mode", ["auto", "draw"])
def test_history_that_leaves_no_room_for_a_reply_is_forgotten(mode: Mode) -> None:
    def reading(tokens: int) -> Answer:
        async def answer(connection: Connection) -> None:
            await connection.head()
            usage = {"usage": {"prompt_tokens": tokens}}
            await connection.chunk({"choices": [{"delta": {"role": "assistant", "content": ""}}], **usage})
            await connection.tokens("a", " fox")

        return answer

    history = [Message.user("1"), Message.assistant("1"), Message.user("2")]

    async def run(*answers: Answer) -> tuple[list, list]:
        async with fake_server(*answers) as server:
            events = await ask(DialogClient(server.url), messages=history, mode=mode)
            return events, [len(request.body["messages"]) - (mode == "draw") for request in server.requests]

    events, lengths = asyncio.run(run(reading(CONTEXT - ROOM + 1), reading(CONTEXT - 1)))
    assert lengths == [3, 1] and events[-1].forgotten == 2, "the last message itself may fill it"
    assert [type(event) for event in events].count(DrawStart) == (mode == "draw")
    events, lengths = asyncio.run(run(reading(CONTEXT - ROOM)))
    assert lengths == [3] and events[-1].content == ("<draw>" if mode == "draw" else "") + "a fox"


def test_retries_before_the_first_token_only() -> None:
    async def hang_up(connection: Connection) -> None:
        return

    events, bodies = exchange(hang_up, refuse(503, "loading"), say("ok"))
    assert (events[-1].text, len(bodies)) == ("ok", 3)
    with pytest.raises(DialogUnavailable, match=r"503.*loading"):
        exchange(*[refuse(503, "loading")] * 3)
    with pytest.raises(DialogUnavailable, match="mid-reply"):
        exchange(say("Hel", finish=None), say("never asked"))


def answering(text: str, kind: str = "text/event-stream", status: int = 200) -> Answer:
    async def answer(connection: Connection) -> None:
        await connection.head(status, kind)
        await connection.write(text)

    return answer


async def stay_silent(connection: Connection) -> None:
    await connection.head()
    await connection.closed()


async def fall_silent(connection: Connection) -> None:
    await connection.head()
    await connection.tokens("Hel", finish=None)
    await connection.closed()


async def never_answer(connection: Connection) -> None:
    await connection.closed()


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (refuse(401, "Unauthorized"), DialogRefused, "API key"),
        (refuse(404, "The model `dialog` does not exist."), DialogRefused, "no model 'dialog'"),
        (answering("<html>nginx</html>", "text/html", 404), DialogRefused, "Is the address right"),
        (refuse(400, "At most 4 image(s) may be provided"), DialogRefused, r"\(400\): At most 4"),
        (answering("<html>hi</html>", "text/html"), DialogUnavailable, "Is the address right"),
        (answering("data: {broken\n\n"), DialogUnavailable, "malformed"),
        (answering('data: {"choices": 3}\n\n'), DialogUnavailable, "malformed"),
        (answering('data: {"choices": [{"delta": {"content": 3}}]}\n\n'), DialogUnavailable, "malformed"),
        (answering("data: 7\n\n"), DialogUnavailable, "malformed"),
        (answering('data: {"error": {"message": "engine died"}}\n\n'), DialogUnavailable, "engine died"),
        (answering("data: [DONE]\n\n"), DialogUnavailable, "mid-reply"),
        (stay_silent, DialogTimeout, "did not begin to answer"),
        (never_answer, DialogTimeout, "does not answer"),
        (fall_silent, DialogTimeout, "fell silent"),
        (say("<draw>", " "), EmptyPrompt, "did not say what"),
    ],
)
def test_failures_are_named(answer: Answer, error: type[DialogError], reason: str) -> None:
    silent = answer in (stay_silent, never_answer, fall_silent)
    with pytest.raises(error, match=reason):
        exchange(answer, retries=0, timeouts=QUICK if silent else None)


def test_server_down() -> None:
    async def run() -> None:
        async with fake_server() as server:
            url = server.url
        await ask(DialogClient(url, retries=0))

    with pytest.raises(DialogUnavailable, match="Is it running"):
        asyncio.run(run())


def test_a_bad_conversation_is_not_sent() -> None:
    async def run() -> None:
        async with fake_server() as server:
            await ask(DialogClient(server.url), messages=[Message.assistant("hi")])

    with pytest.raises(MessageError, match="out of order"):
        asyncio.run(run())


async def _cancel_the_task(client: DialogClient, started: asyncio.Event) -> None:
    task = asyncio.create_task(ask(client))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _close_the_generator(client: DialogClient, started: asyncio.Event) -> None:
    events = client.reply(HELLO)
    assert await anext(events) == TextDelta("Hel")
    await events.aclose()


@pytest.mark.parametrize("stop", [_cancel_the_task, _close_the_generator])
def test_stopping_closes_the_stream(stop: Callable[[DialogClient, asyncio.Event], Awaitable[None]]) -> None:
    async def run() -> bool:
        started, closed = asyncio.Event(), asyncio.get_running_loop().create_future()

        async def answer(connection: Connection) -> None:
            await connection.head()
            await connection.tokens("Hel", finish=None)
            started.set()
            closed.set_result(await connection.closed())

        async with fake_server(answer) as server:
            await stop(DialogClient(server.url), started)
            return await asyncio.wait_for(closed, 20)

    assert asyncio.run(run())


def test_check_protocol() -> None:
    def completing(content: str) -> Answer:
        return lambda connection: connection.json({"choices": [{"message": {"content": content}}]})

    async def run(answer: Answer, draw_ids: list[int]) -> int | None:
        async with fake_server(answer, draw_ids=draw_ids) as server:
            return (await DialogClient(server.url).check_protocol()).single

    assert asyncio.run(run(completing("<draw>"), [DRAW_ID])) == DRAW_ID
    assert asyncio.run(run(completing("not asked"), [1, 2, 3])) is None
    with pytest.raises(ProtocolError, match="does not survive"):
        asyncio.run(run(completing(""), [DRAW_ID]))
    with pytest.raises(DialogUnavailable, match="like a dialog model"):
        asyncio.run(run(lambda connection: connection.json({"choices": []}), [DRAW_ID]))


def test_one_client_serves_many_conversations_and_loops() -> None:
    async def run(client: DialogClient | None) -> DialogClient:
        answers = [say(str(number)) for number in range(8)]
        async with fake_server(*answers) as server:
            url = server.url
            client = client or DialogClient(lambda: urls[-1])
            urls.append(url)
            replies = await asyncio.gather(*(ask(client) for _ in answers))
            assert sorted(events[-1].text for events in replies) == list("01234567")
            assert all(isinstance(events[-1], Reply) for events in replies)
        return client

    urls: list[str] = []
    client = asyncio.run(run(None))
    asyncio.run(run(client))
