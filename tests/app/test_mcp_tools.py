"""The MCP endpoint as the mcp package's own client sees it, over a real socket, and as bare JSON-RPC."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from mcp import Client
from PIL import Image

from app import mcp_tools
from app.api import add_api
from app.guard import Access, Guard
from app.mcp_tools import McpTools
from app.profiles import Profile
from app.store import Store
from dialog_mllm.errors import DialogUnavailable
from tests.app.browser import serving
from tests.app.fakes import FakeGenerator, FakeModels


@pytest.fixture
def models() -> FakeModels:
    return FakeModels()


@pytest.fixture
def url(profile: Profile, store: Store, models: FakeModels) -> Iterator[str]:
    with serving(make_app(profile, store, models)) as url:
        yield f"{url}/mcp"


def make_app(profile: Profile, store: Store, models: FakeModels, access: Access | None = None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with tools.running():
            yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(Guard, access=access or Access())
    tools = McpTools(add_api(app, profile, store, models))  # type: ignore[arg-type]
    app.router.routes.append(tools.route)
    return app


def rpc(
    url: str, method: str, params: dict[str, Any] | None = None, patience: float = 60, **headers: str
) -> httpx.Response:
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18", **headers}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
    return httpx.post(url, json=body, headers=headers, trust_env=False, timeout=patience)


def answer(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    (data,) = [line[5:] for line in response.text.splitlines() if line.startswith("data:") and line[5:].strip()]
    return json.loads(data)


def test_the_protocol(url: str) -> None:
    about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    result = answer(rpc(url, "initialize", about))["result"]
    assert result["protocolVersion"] == "2025-06-18"
    assert result["serverInfo"]["name"] == "easel"
    assert "tools" in result["capabilities"]
    assert answer(rpc(url, "ping"))["result"] == {}
    assert answer(rpc(url, "tools/fly"))["error"]["code"] == -32601
    tools = {tool["name"]: tool for tool in answer(rpc(url, "tools/list"))["result"]["tools"]}
    assert set(tools) == {"draw_picture", "chat"}
    assert tools["draw_picture"]["inputSchema"]["required"] == ["prompt"]
    assert set(tools["draw_picture"]["inputSchema"]["properties"]) == {"prompt", "size", "seed"}
    assert set(tools["chat"]["inputSchema"]["properties"]) == {"message", "conversation"}


async def test_draw_picture(url: str, models: FakeModels) -> None:
    async with Client(url) as client:
        result = await client.call_tool("draw_picture", {"prompt": "a fox", "size": "64x96", "seed": 9})
    said, picture = result.content
    assert not result.is_error
    assert result.structured_content is not None
    assert (result.structured_content["seed"], result.structured_content["size"]) == (9, "64x96")
    assert picture.type == "image"
    assert picture.mime_type == "image/png"
    data = base64.b64decode(picture.data)
    assert Image.open(io.BytesIO(data)).size == (64, 96)
    assert said.type == "text"
    assert httpx.get(result.structured_content["url"], trust_env=False).content == data
    assert [request.prompt for request in models.generator.requests] == ["a fox"]


async def test_a_conversation(url: str, models: FakeModels) -> None:
    async with Client(url) as client:
        first = await client.call_tool("chat", {"message": "draw a red fox"})
        assert first.structured_content is not None
        conversation = first.structured_content["conversation"]
        second = await client.call_tool("chat", {"message": "give it a hat", "conversation": conversation})
        words = await client.call_tool("chat", {"message": "hello", "conversation": conversation})
        other = await client.call_tool("chat", {"message": "give it a hat"})
    assert [block.type for block in first.content] == ["text", "image"]
    assert second.structured_content["prompt"] == "A flat picture of a red fox, give it a hat."
    assert len({request.seed for request in models.generator.requests}) == 1
    assert [block.type for block in words.content] == ["text"]
    assert words.structured_content["draw"] is False
    assert "You said: give it a hat" in other.content[0].text
    assert other.structured_content["conversation"] != conversation


async def test_errors_are_results_that_say_what_to_do(url: str, models: FakeModels) -> None:
    calls = [
        ("draw_picture", {"prompt": " "}, "prompt is empty"),
        ("draw_picture", {"prompt": "a", "size": "huge"}, "WIDTHxHEIGHT"),
        ("draw_picture", {"prompt": "a", "seed": -1}, "malformed: seed"),
        ("draw_picture", {}, "malformed: prompt"),
        ("draw_picture", {"prompt": "a", "file": "/etc/passwd"}, "malformed: file"),
        ("chat", {"message": ""}, "message is empty"),
        ("chat", {"message": "x" * 5_000}, "at most 4,000"),
        ("chat", {"message": "hi", "conversation": "nobody's"}, "Leave it out for a new one"),
        ("fly", {}, "no tool 'fly' here. Choose draw_picture or chat"),
        ("chat", {"message": "hi"}, "The dialog model is gone."),
    ]
    models.dialog.replies = [DialogUnavailable("The dialog model is gone.")]
    async with Client(url) as client:
        for name, arguments, message in calls:
            result = await client.call_tool(name, arguments)
            assert result.is_error, name
            assert message in result.content[0].text


async def test_old_conversations_make_room(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_tools, "MOST_CONVERSATIONS", 2)
    async with Client(url) as client:
        made = [(await client.call_tool("chat", {"message": "hi"})).structured_content for _ in range(3)]
        again = [
            await client.call_tool("chat", {"message": "hi", "conversation": one["conversation"]})
            for one in made
            if one
        ]
    assert [result.is_error for result in again] == [True, False, False]


@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28"])
def test_a_client_that_hangs_up_stops_its_drawing(profile: Profile, store: Store, version: str) -> None:
    models = FakeModels(generator=FakeGenerator(pause=0.5))
    about = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    call = {"name": "draw_picture", "arguments": {"prompt": "a fox"}, "_meta": about}
    headers = {"MCP-Protocol-Version": version, "Mcp-Method": "tools/call", "Mcp-Name": "draw_picture"}
    with serving(make_app(profile, store, models)) as url:
        with pytest.raises(httpx.ReadTimeout):
            rpc(f"{url}/mcp", "tools/call", call, patience=1.0, **headers)
        (job,) = models.generator.jobs
        assert job.cancelled.wait(10)


def test_the_guard_is_before_it(profile: Profile, store: Store) -> None:
    key = "0123456789abcdef"
    with serving(make_app(profile, store, FakeModels(), Access((key,)))) as url:
        assert rpc(f"{url}/mcp", "ping").status_code == 401
        assert rpc(f"{url}/mcp", "ping", Authorization=f"Bearer {key}", Origin="http://evil.example").status_code == 403
        assert rpc(f"{url}/mcp", "ping", Authorization=f"Bearer {key}", Host="evil.example").status_code == 403
        assert answer(rpc(f"{url}/mcp", "ping", Authorization=f"Bearer {key}"))["result"] == {}
