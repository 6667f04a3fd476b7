"""A foreign model, told of the protocol by a system prompt: what it is sent, and that its plain text draws."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dialog_mllm.client import DialogClient, Mode
from dialog_mllm.evaluation import ask_all, score, turns_of
from dialog_mllm.instructions import INSTRUCTIONS
from dialog_mllm.messages import Message
from dialog_mllm.protocol import DRAW, DrawStart, Reply
from dialog_mllm.records import read_records
from dialog_mllm.server import ServerSettings, VllmServer
from tests.dialog_mllm import toy
from tests.dialog_mllm.fake_server import Answer, Connection, fake_server

PIECES = [5, 6, 7]  # ids of "<", "draw", ">": the draw token is plain text to this server's tokenizer


def say(text: str) -> Answer:
    async def answer(connection: Connection) -> None:
        await connection.head()
        for piece in [text[i : i + 3] for i in range(0, len(text), 3)]:
            await connection.chunk({"choices": [{"delta": {"content": piece}}]})
        await connection.chunk({"choices": [{"delta": {}, "finish_reason": "stop"}]})

    return answer


async def reply_to(client: DialogClient, messages: list[Message], mode: Mode = "auto") -> list[object]:
    return [event async for event in client.reply(messages, mode)]


async def test_the_instructions_stand_in_front_and_plain_text_draws() -> None:
    async with fake_server(say(f"{DRAW} a red fox</draw>"), draw_ids=PIECES) as fake:
        client = DialogClient(fake.url, None, "vlm", instructions=INSTRUCTIONS)
        events = await reply_to(client, [Message.user(f"what does {DRAW} mean?")])
    reply = events[-1]
    assert isinstance(reply, Reply) and (reply.kind, reply.prompt, reply.text) == ("draw", "a red fox", "")
    assert reply.draw_probability is None and events.count(DrawStart()) == 1
    body = fake.requests[0].body
    system, user = body["messages"]
    assert system == {"role": "system", "content": INSTRUCTIONS} and DRAW in INSTRUCTIONS
    assert DRAW not in user["content"][0]["text"]  # what a user types is never the token
    assert "logprobs" not in body


async def test_a_system_message_joins_the_instructions() -> None:
    async with fake_server(say("Ahoy!"), say("Ahoy!"), draw_ids=PIECES) as fake:
        client = DialogClient(fake.url, None, "vlm", instructions=INSTRUCTIONS)
        pirate = Message("system", Message.user("Talk like a pirate.").content)
        await reply_to(client, [pirate, Message.user("hello")])
        await reply_to(client, [Message.user("hello")], "draw")
    assert [message["role"] for message in fake.requests[0].body["messages"]] == ["system", "user"]
    assert fake.requests[0].body["messages"][0]["content"] == f"{INSTRUCTIONS}\n\nTalk like a pirate."
    assert fake.requests[1].body["messages"][-1] == {"role": "assistant", "content": DRAW}


async def test_a_foreign_model_is_measured_like_ours(tmp_path: Path) -> None:
    turns = list(turns_of(read_records([toy.write(tmp_path, 3) / "test.jsonl"])))
    async with fake_server(*[say(f"{DRAW}a red square")] * len(turns), draw_ids=PIECES) as fake:
        client = DialogClient(fake.url, None, "vlm", instructions=INSTRUCTIONS)
        scores = score(await ask_all(turns, client), lambda turn, prompt, previous: prompt == "a red square")
    assert all(connection.body["messages"][0]["content"] == INSTRUCTIONS for connection in fake.requests)
    assert (scores["missed_draw"], scores["false_draw"], scores["prompt_correct"]) == (0.0, 1.0, 1.0)
    assert scores["calibration"] is None


@pytest.mark.slow
def test_vllm_serves_a_foreign_checkpoint(tmp_path: Path) -> None:
    from tests.dialog_mllm.tiny import build_foreign

    turns = list(turns_of(read_records([toy.write(tmp_path / "data", 2) / "test.jsonl"])))
    settings = ServerSettings(threads=1, kv_cache_mb=64)
    with VllmServer(build_foreign(tmp_path / "model"), None, settings, tmp_path / "logs") as server:
        server.wait_ready(600)

        async def everything() -> tuple[int, list[Reply | None], Reply, Reply]:
            client = DialogClient(server.base_url, server.api_key, server.model_name, instructions=INSTRUCTIONS)
            draw = await client.check_protocol()
            answered = await ask_all(turns, client)
            forced, talk = [(await reply_to(client, [Message.user("hello")], mode))[-1] for mode in ("draw", "talk")]
            assert isinstance(forced, Reply) and isinstance(talk, Reply)
            return len(draw.ids), [turn.reply for turn in answered], forced, talk

        pieces, replies, forced, talk = asyncio.run(everything())
    assert pieces > 1
    assert all(reply is not None and (reply.kind, reply.prompt) == ("draw", "fox") for reply in replies)
    assert (forced.kind, forced.prompt) == ("draw", "fox")
    assert talk.kind == "text" and DRAW not in talk.raw
