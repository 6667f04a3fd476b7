"""The app's dialog model and its adapters, over a scripted server: what is asked of vLLM, and who answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.conversation import keep
from app.models import DialogModel
from app.profiles import Profile
from app.store import Conversation, Store
from dialog_mllm.errors import DialogRefused
from dialog_mllm.messages import Message
from dialog_mllm.protocol import Reply
from dialog_mllm.server import VllmServer
from tests.app.fakes import FakeDrawing, colour_of
from tests.dialog_mllm.fake_server import Connection, fake_server
from tests.dialog_mllm.tiny import write_adapter

HELLO = [Message.user("hello")]


@pytest.fixture
def dialog(profile: Profile, tmp_path: Path) -> Iterator[DialogModel]:
    """As if vLLM were up."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "idefics3"}')
    profile = replace(profile, dialog=str(base), adapter=str(write_adapter(tmp_path / "original")))
    dialog = DialogModel(profile, tmp_path / "logs", tmp_path / "adapters")
    server_of(dialog)._set("ready")
    dialog._checked = True
    assert dialog.live is not None
    dialog.live.registry.add(write_adapter(tmp_path / "trained"))
    yield dialog
    dialog.stop()


def server_of(dialog: DialogModel) -> VllmServer:
    assert dialog._server is not None
    return dialog._server


async def done(connection: Connection) -> None:
    await connection.json("Success")


async def says_hi(connection: Connection) -> None:
    await connection.head()
    await connection.tokens("hi")


def refuses(message: str) -> Any:
    async def answer(connection: Connection) -> None:
        await connection.json({"error": {"message": message}}, 400)

    return answer


async def ask(dialog: DialogModel) -> Reply:
    *_, reply = [event async for event in dialog.reply(HELLO)]
    return reply


async def test_who_answers(dialog: DialogModel) -> None:
    live = dialog.live
    assert live is not None
    async with fake_server(says_hi, done, says_hi, done, says_hi) as fake:
        server_of(dialog)._port = int(fake.url.split(":")[2].removesuffix("/v1"))
        before = await ask(dialog)
        await asyncio.to_thread(live.activate, "v1", True)
        after = await ask(dialog)
        await asyncio.to_thread(live.roll_back)
        again = await ask(dialog)
    asked = [(request.path, request.body.get("model") or request.body["lora_name"]) for request in fake.requests]
    assert asked == [
        ("/v1/chat/completions", "dialog"), ("/v1/load_lora_adapter", "dialog-v1"),
        ("/v1/chat/completions", "dialog-v1"), ("/v1/unload_lora_adapter", "dialog-v1"),
        ("/v1/chat/completions", "dialog"),
    ]  # fmt: skip
    assert fake.requests[1].body["lora_path"] == str(live.registry.adapter("v1").absolute())
    assert after.adapter == live.registry.version("v1").sha256
    assert before.adapter == again.adapter and before.adapter


async def test_conversations_get_what_is_tried_on_them(dialog: DialogModel) -> None:
    live = dialog.live
    assert live is not None
    async with fake_server(done, *[says_hi] * 20) as fake:
        server_of(dialog)._port = int(fake.url.split(":")[2].removesuffix("/v1"))
        await asyncio.to_thread(live.try_out, "v1", 0.5, True)
        for i in range(20):
            *_, reply = [event async for event in dialog.reply(HELLO, "auto", f"conversation {i // 2}")]
            assert reply.adapter
    asked = [request.body["model"] for request in fake.requests[1:]]
    assert asked[::2] == asked[1::2] and set(asked) == {"dialog", "dialog-v1"}


async def test_what_the_server_says_of_an_adapter(dialog: DialogModel) -> None:
    live = dialog.live
    assert live is not None
    async with fake_server(refuses("rank 128 is too large"), refuses("'dialog-v1' has already been loaded")) as fake:
        server_of(dialog)._port = int(fake.url.split(":")[2].removesuffix("/v1"))
        with pytest.raises(DialogRefused, match=r"'dialog-v1': rank 128 is too large"):
            await asyncio.to_thread(live.activate, "v1", True)
        assert live.now.model == "dialog"
        await asyncio.to_thread(live.activate, "v1", True)
    assert live.now.model == "dialog-v1"
    assert "--lora-modules" in (command := server_of(dialog)._command())
    assert f"dialog-v1={live.registry.adapter('v1').absolute()}" in command, "a server that starts again has it"


def test_other_models_start_as_before(profile: Profile, tmp_path: Path) -> None:
    """Not every model that vLLM serves takes adapters."""
    for other in (replace(profile, dialog="org/model", adapter=""), replace(profile, mllm_url="http://127.0.0.1:1/v1")):
        assert DialogModel(other, tmp_path, tmp_path / "adapters").live is None
    plain = DialogModel(replace(profile, dialog="org/model", adapter=""), tmp_path, tmp_path / "adapters")
    assert "--enable-lora" not in server_of(plain)._command()


def test_a_picture_names_the_adapter_that_wrote_its_prompt(
    store: Store, conversation: Conversation, profile: Profile, tmp_path: Path
) -> None:
    profile = replace(profile, adapter=str(write_adapter(tmp_path / "original")))
    turn = store.begin_turn(conversation, None, "draw a fox", (), "auto", 7)
    request = profile.request("A red fox.", 7, profile.settings)
    drawing = FakeDrawing(colour_of(request), request, {})
    assert store.picture_info(keep(drawing, [turn], profile, store, "ab" * 32))["dialog_adapter"] == "ab" * 32
    named = store.picture_info(keep(drawing, [turn], profile, store))["dialog_adapter"]
    assert named == profile.adapter_sha256 != ""
