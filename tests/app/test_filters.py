"""The operator's filter: what it lets through, and that nothing leads past it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app.branches import redraw, vary
from app.conversation import Failed, UserMessage, take_turn
from app.errors import EaselError, Filtered, FilterUnavailable
from app.filters import MESSAGE, PROMPT, Filter, FilteredModels, ModerationFilter, WordFilter, read_filters
from app.profiles import Profile
from app.serve import build_app
from app.store import Conversation, Store
from tests.app.fakes import FakeDialog, FakeGenerator, FakeModels

WORDS = ["knife", r"blood\w*", r"\bno\s+way\b"]
JSON = {"content-type": "application/json"}


def words(tmp_path: Path, text: str) -> Path:
    (tmp_path / "words.txt").write_text(text, encoding="utf-8")
    return tmp_path / "words.txt"


def test_words_phrases_and_expressions(tmp_path: Path) -> None:
    one = WordFilter.read(words(tmp_path, "\ufeff# not these\n\nKnife\nround  table\n/gr[ae]y-?scale/\n刀\nC++\n"))
    for text in ("a KNIFE.", "the\nround \n table", "Grayscale", "grey-scale", "一把刀子", "in c++"):
        assert not one.allows(text), text
    for text in ("a knifefish", "rounded tables", "grey", "C", ""):
        assert one.allows(text), text


def test_each_expression_stands_for_itself(tmp_path: Path) -> None:
    one = WordFilter.read(words(tmp_path, "/(foo|bar)baz/\n/(\\w)\\1\\1\\1/\n/(?i)bad/\n/(?P<a>x)y/\n/(?P<a>y)z/\n"))
    assert not any(one.allows(text) for text in ("aaaa", "barbaz", "BAD", "xy", "yz"))
    assert one.allows("abab")


@pytest.mark.parametrize(
    ("text", "says"), [("ok\n/(/\n", "line 2: no regular expression"), ("# nothing\n", "holds no words")]
)
def test_a_file_that_cannot_be_meant(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(EaselError, match=says):
        WordFilter.read(words(tmp_path, text))


def test_options_that_cannot_be_meant(tmp_path: Path) -> None:
    assert read_filters(None, "", "") == []
    with pytest.raises(EaselError, match="cannot be read"):
        read_filters(tmp_path / "none.txt", "", "")
    with pytest.raises(EaselError, match="takes an address"):
        read_filters(None, "localhost:9000", "")
    with pytest.raises(EaselError, match="EASEL_NO_SUCH_KEY holds no key"):
        read_filters(None, "http://localhost:9000", "EASEL_NO_SUCH_KEY")


def endpoint(answer: Any, status: int = 200) -> tuple[ModerationFilter, list[httpx.Request]]:
    asked: list[httpx.Request] = []

    def reply(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, json=answer)

    return ModerationFilter("http://filter/v1/moderations", "secret", httpx.MockTransport(reply)), asked


def test_an_endpoint_is_asked() -> None:
    one, asked = endpoint({"results": [{"flagged": True}]})
    assert not one.allows("a fox")
    assert json.loads(asked[0].content) == {"input": "a fox"} and asked[0].headers["authorization"] == "Bearer secret"
    assert endpoint({"results": [{"flagged": False}]})[0].allows("a fox")


@pytest.mark.parametrize(
    ("answer", "status"),
    [({}, 200), ({"results": []}, 200), ({"results": [{"flagged": "no"}]}, 200), ([], 200), ({}, 500)],
)
def test_what_cannot_be_asked_lets_nothing_through(answer: Any, status: int) -> None:
    with pytest.raises(FilterUnavailable, match="cannot be asked"):
        endpoint(answer, status)[0].allows("a fox")


def behind(dialog: FakeDialog, generator: FakeGenerator, *filters: Filter) -> FilteredModels:
    return FilteredModels(FakeModels(dialog, generator), filters or (WordFilter(WORDS),))


async def test_messages_and_prompts_of_the_page(store: Store, conversation: Conversation, profile: Profile) -> None:
    models = behind(FakeDialog(), FakeGenerator())

    async def say(text: str) -> Any:
        now = store.conversation("local", conversation.id)
        events = take_turn(now, UserMessage(text), models.dialog, models.generator, store, profile, parent=now.leaf)
        return [event async for event in events][-1]

    failed = await say("draw a knife")
    assert isinstance(failed, Failed) and isinstance(failed.error, Filtered) and failed.message == MESSAGE
    assert (failed.turn.status, failed.turn.error) == ("failed", MESSAGE)
    fox = (await say("draw a fox")).turn
    assert fox.picture, "a refused message does not stand in the way of the next"
    models.dialog._dialog.replies.append("<draw>A fox and blood.")  # type: ignore[attr-defined]
    failed = await say("and now?")
    assert isinstance(failed, Failed) and failed.message == PROMPT and not failed.turn.picture
    events = [e async for e in redraw(conversation, fox, "bloody", models.generator, store, profile)]
    assert isinstance(events[-1], Failed) and events[-1].message == PROMPT
    strict = behind(FakeDialog(), FakeGenerator(), WordFilter(["fox"]))
    events = [e async for e in vary(conversation, fox, strict.generator, store, profile)]
    assert isinstance(events[-1], Failed) and events[-1].message == PROMPT


def test_the_http_api_and_its_tools(store: Store, profile: Profile) -> None:
    models = FakeModels()
    app = build_app(profile, store, models, filters=[WordFilter(WORDS)])  # type: ignore[arg-type]
    with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:

        def chat(*messages: dict[str, str], **more: Any) -> httpx.Response:
            return client.post("/v1/chat/completions", json={"messages": list(messages), **more})

        refused = chat({"role": "user", "content": "draw a knife"})
        assert refused.status_code == 400
        assert refused.json()["error"] | {"param": None} == {
            "message": MESSAGE, "type": "invalid_request_error", "param": None, "code": "Filtered",
        }  # fmt: skip
        earlier = [{"role": "user", "content": "a knife"}, {"role": "assistant", "content": "ok"}]
        assert chat(*earlier, {"role": "user", "content": "draw it"}).status_code == 400
        assert MESSAGE in chat({"role": "user", "content": "a knife"}, stream=True).text
        refused = client.post("/v1/images/generations", json={"prompt": "No\nway"})
        assert (refused.status_code, refused.json()["error"]["message"]) == (400, PROMPT)
        call = {
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "draw_picture", "arguments": {"prompt": "a knife"}},
        }  # fmt: skip
        answer = client.post("/mcp", json=call, headers={**JSON, "accept": "application/json, text/event-stream"})
        assert PROMPT in answer.text
        assert models.dialog.asked == [] and models.generator.requests == []
        assert chat({"role": "user", "content": "draw a fox"}).status_code == 200
