"""Adapters that change under a running server: who gets which, and what is unloaded when."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dialog_mllm.adapters import ORIGINAL, Adapters, NotConfirmed
from dialog_mllm.client import DialogClient
from dialog_mllm.errors import AdapterError, DialogError, DialogRefused, DialogUnavailable
from dialog_mllm.messages import Message
from dialog_mllm.protocol import Reply
from dialog_mllm.server import MODEL_NAME, ServerSettings, VllmServer
from dialog_mllm.switching import LiveAdapters
from tests.dialog_mllm.conftest import TinyModel
from tests.dialog_mllm.tiny import build_adapter, write_adapter
from tests.waiting import wait_until


class FakeVllm:
    """Notes what is loaded."""

    adapter = None

    def __init__(self) -> None:
        self.loaded: dict[str, Path] = {}
        self.error: DialogError | None = None

    def load_adapter(self, name: str, folder: Path) -> None:
        if self.error is not None:
            raise self.error
        assert name not in self.loaded
        self.loaded[name] = folder

    def unload_adapter(self, name: str) -> None:
        del self.loaded[name]

    def wait_ready(self, timeout: float | None = None) -> None:
        pass


@pytest.fixture
def registry(tmp_path: Path) -> Adapters:
    adapters = Adapters(tmp_path / "adapters", "org/model")
    trained = write_adapter(tmp_path / "trained")
    for _ in range(3):
        adapters.record(adapters.add(trained, ORIGINAL).name, {}, ())
    return adapters


@pytest.fixture
def live(registry: Adapters) -> Iterator[LiveAdapters]:
    live = LiveAdapters(FakeVllm(), registry, "0" * 64)
    yield live
    live.stop()


def loaded(live: LiveAdapters) -> set[str]:
    return set(live._server.loaded)  # type: ignore[attr-defined]


def test_a_reply_in_flight_keeps_its_adapter(live: LiveAdapters, registry: Adapters) -> None:
    with live.lease() as first:
        assert (first.name, first.model, first.sha256) == (ORIGINAL, MODEL_NAME, "0" * 64)
        live.activate("v1")
        with live.lease() as second, live.lease() as third:
            assert second == third and second.model == "dialog-v1"
            assert second.sha256 == registry.version("v1").sha256
            live.activate("v2")
            assert loaded(live) == {"dialog-v1", "dialog-v2"}
        wait_until(lambda: loaded(live) == {"dialog-v2"}, told="nobody uses v1 any more")
    assert live.roll_back() == "v1"
    assert (registry.active, live.now.name, loaded(live)) == ("v1", "v1", {"dialog-v1"})
    assert live.roll_back() == ORIGINAL
    assert (live.now.model, loaded(live)) == (MODEL_NAME, set())


def test_what_the_server_refuses_changes_nothing(live: LiveAdapters, registry: Adapters) -> None:
    live.activate("v1")
    live._server.error = DialogRefused("rank too large")  # type: ignore[attr-defined]
    with pytest.raises(DialogRefused, match="rank too large"):
        live.activate("v2")
    assert (registry.active, live.now.name, loaded(live)) == ("v1", "v1", {"dialog-v1"})
    live._server.error = None  # type: ignore[attr-defined]
    registry.record("v3", {}, ("prompt_correct",))
    with pytest.raises(NotConfirmed):
        live.activate("v3")
    assert loaded(live) == {"dialog-v1"}
    live.activate("v3", anyway=True)
    assert live.now.name == "v3"


def test_one_is_tried_beside_the_active_one(live: LiveAdapters) -> None:
    with live.lease("v2") as tried:
        assert tried.model == "dialog-v2" and live.now.name == ORIGINAL
    wait_until(lambda: loaded(live) == set())
    with pytest.raises(AdapterError, match="no adapter 'v9'"), live.lease("v9"):
        pass


def test_a_share_of_the_conversations_gets_another(live: LiveAdapters, registry: Adapters) -> None:
    live.activate("v1")
    live.try_out("v2", 0.25)
    assert (live.trial, registry.trial, live.now.name) == (("v2", 0.25), ("v2", 0.25), "v1")

    def given(conversation: str) -> str:
        with live.lease(conversation=conversation) as served:
            return served.name

    first = [given(f"conversation {i}") for i in range(400)]
    assert set(first) == {"v1", "v2"} and 60 < first.count("v2") < 140
    assert first == [given(f"conversation {i}") for i in range(400)], "each stays with its own"
    assert given("") == "v1" and loaded(live) == {"dialog-v1", "dialog-v2"}
    again = LiveAdapters(FakeVllm(), registry)
    again.prepare()
    assert (again.now.name, again.trial, loaded(again)) == ("v1", ("v2", 0.25), {"dialog-v1", "dialog-v2"})
    with live.lease(conversation=f"conversation {first.index('v2')}") as under_way:
        live.end_trial()
        assert (live.trial, under_way.name, loaded(live)) == (None, "v2", {"dialog-v1", "dialog-v2"})
    wait_until(lambda: loaded(live) == {"dialog-v1"})
    live.try_out("v3", 0.5)
    live.activate("v3")
    assert (live.now.name, live.trial, registry.trial) == ("v3", None, None), "that was the decision"
    live.try_out("v1", 0.5)
    live.roll_back()
    assert (live.now.name, live.trial, loaded(live)) == ("v1", None, {"dialog-v1"})


def test_a_trial_that_cannot_be(live: LiveAdapters, registry: Adapters) -> None:
    live.activate("v1")
    with pytest.raises(AdapterError, match="v1 is active"):
        live.try_out("v1", 0.5)
    registry.record("v3", {}, ("prompt_correct",))
    with pytest.raises(NotConfirmed):
        live.try_out("v3", 0.5)
    live._server.error = DialogRefused("rank too large")  # type: ignore[attr-defined]
    with pytest.raises(DialogRefused):
        live.try_out("v2", 0.5)
    with pytest.raises(AdapterError, match="No adapter is being tried"):
        live.end_trial()
    assert (live.trial, registry.trial, live.now.name, loaded(live)) == (None, None, "v1", {"dialog-v1"})


def test_a_change_by_another_process_is_followed(live: LiveAdapters, registry: Adapters) -> None:
    follower = threading.Thread(target=live.follow, daemon=True)
    follower.start()
    Adapters(registry.folder, "org/model").activate("v1")
    wait_until(lambda: live.now.name == "v1")
    live._server.error = DialogUnavailable("it is starting again")  # type: ignore[attr-defined]
    Adapters(registry.folder, "org/model").activate("v2")
    wait_until(lambda: "starting again" in live.error)
    assert live.now.name == "v1"
    live._server.error = None  # type: ignore[attr-defined]
    wait_until(lambda: (live.now.name, live.error) == ("v2", ""))
    Adapters(registry.folder, "org/model").try_out("v3", 0.5)
    wait_until(lambda: live.trial == ("v3", 0.5))
    assert live.now.name == "v2"
    live.stop()
    follower.join(5)
    assert not follower.is_alive()


def test_a_change_while_another_is_loaded_is_not_lost(live: LiveAdapters, registry: Adapters) -> None:
    server, elsewhere = live._server, Adapters(registry.folder, "org/model")
    load = server.load_adapter

    def slowly(name: str, folder: Path) -> None:
        load(name, folder)
        if name == "dialog-v1":
            elsewhere.activate("v2")

    server.load_adapter = slowly  # type: ignore[method-assign]
    elsewhere.activate("v1")
    live.look()
    live.look()
    assert live.now.name == "v2"


def test_a_restart_serves_the_active_one(registry: Adapters) -> None:
    registry.activate("v2")
    again = LiveAdapters(FakeVllm(), registry)
    again.prepare()
    assert (again.now.name, loaded(again), again.error) == ("v2", {"dialog-v2"}, "")


def test_a_broken_one_leaves_the_original(registry: Adapters) -> None:
    registry.activate("v2")
    (registry.adapter("v2") / "adapter_model.safetensors").unlink()
    again = LiveAdapters(FakeVllm(), registry)
    again.prepare()
    assert again.now.name == ORIGINAL and "adapter_model.safetensors is missing" in again.error


@pytest.mark.slow
@pytest.mark.parametrize("vllm", [True, False])
def test_the_real_server(tiny_model: TinyModel, tmp_path: Path, vllm: bool) -> None:
    """Load, switch while a reply streams, roll back; and what was loaded is there after the server died."""
    registry = Adapters(tmp_path / "adapters", tiny_model.base)
    registry.add(build_adapter(tiny_model.base, tmp_path / "second", seed=2))
    settings = ServerSettings(threads=1, kv_cache_mb=64, runtime_adapters=True, vllm=vllm)
    with VllmServer(tiny_model.base, tiny_model.adapter, settings, tmp_path) as server:
        live = LiveAdapters(server, registry)
        server.wait_ready(600)
        client = DialogClient(lambda: server.base_url, server.api_key, max_tokens=300)

        async def ask(model: str, mode: str = "auto") -> Reply:
            *_, reply = [event async for event in client.reply([Message.user("hi")], mode, model=model)]  # type: ignore[arg-type]
            assert isinstance(reply, Reply)
            return reply

        async def switch_in_mid_reply() -> tuple[Reply, set[str]]:
            with live.lease() as served:
                events = client.reply([Message.user("hi")], "talk", model=served.model)
                await anext(events)
                await asyncio.to_thread(live.activate, "v1", True)
                with live.lease() as now:
                    assert (await ask(now.model)).draw_probability == pytest.approx(second, abs=1e-3)
                *_, reply = [event async for event in events]
            return reply, await models()

        async def models() -> set[str]:
            async with httpx.AsyncClient(trust_env=False, headers=key) as http:
                answer = await http.get(f"{server.base_url}/models")
            return {model["id"] for model in answer.json()["data"]}

        key = {"Authorization": f"Bearer {server.api_key}"}
        first = asyncio.run(ask(MODEL_NAME)).draw_probability
        with live.lease("v1") as tried:
            second = asyncio.run(ask(tried.model)).draw_probability
        assert first is not None and second is not None and abs(first - second) > 0.005, "two adapters that differ"
        alone = asyncio.run(ask(MODEL_NAME, "talk"))
        wait_until(lambda: asyncio.run(models()) == {"base", MODEL_NAME}, told="the one that was tried is unloaded")

        reply, served = asyncio.run(switch_in_mid_reply())
        assert (reply.text, reply.tokens) == (alone.text, alone.tokens), "not a token is missing, nor another model's"
        assert served == {"base", MODEL_NAME, "dialog-v1"}

        for path in ("v1/load_lora_adapter", "v1/unload_lora_adapter", "adapters"):
            body = {"lora_name": "x", "lora_path": "/tmp", "name": "x", "src": "/tmp"}
            url = f"{server.base_url.removesuffix('/v1')}/{path}"
            assert httpx.post(url, json=body, trust_env=False).status_code in (401, 404), f"{path} without the key"

        process = server._process
        assert process is not None
        process.terminate()  # as if it had crashed
        process.wait(60)
        wait_until(lambda: server._process is not process and server.state == "ready", 300)
        assert asyncio.run(models()) == served
        assert asyncio.run(ask(live.now.model)).draw_probability == pytest.approx(second, abs=1e-3)

        assert live.roll_back() == ORIGINAL
        assert asyncio.run(ask(live.now.model)).draw_probability == pytest.approx(first, abs=1e-3)
        assert asyncio.run(models()) == {"base", MODEL_NAME}

        broken = registry.add(write_adapter(tmp_path / "broken"))
        with pytest.raises(DialogRefused, match="dialog-v2"):
            live.activate(broken.name, anyway=True)
        assert (registry.active, live.now.name) == (ORIGINAL, ORIGINAL)
        assert asyncio.run(ask(live.now.model)).draw_probability == pytest.approx(first, abs=1e-3)
