"""What is logged, and what is not."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app import logs
from app.profiles import Profile
from app.serve import build_app
from app.store import Store
from tests.app.fakes import FakeDialog, FakeModels


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    yield io.StringIO()
    root.handlers[:] = before
    root.setLevel(logging.WARNING)
    for name in logs.OURS:
        logging.getLogger(name).setLevel(logging.NOTSET)


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_requests_and_turns_as_json(out: io.StringIO, store: Store, profile: Profile) -> None:
    logs.set_up("json", "info", out)
    models = FakeModels(FakeDialog("<draw>A secretive fox.", RuntimeError("a bug")))
    app = build_app(profile, store, models)  # type: ignore[arg-type]
    local: dict[str, Any] = {"base_url": "http://127.0.0.1", "client": ("127.0.0.1", 1)}
    with TestClient(app, raise_server_exceptions=False, **local) as client:
        body = {"messages": [{"role": "user", "content": "draw a secretive fox"}]}
        answer = client.post("/v1/chat/completions?q=secretive", json=body, headers={"X-Request-ID": "mine-1"})
        assert answer.status_code == 200 and answer.headers["x-request-id"] == "mine-1"
        assert client.post("/v1/chat/completions", json=body, headers={"X-Request-ID": "a b"}).status_code == 500
        client.get("/health")
    turn, request, *rest = lines(out)
    assert turn["message"] == "turn" and turn["level"] == "info" and turn["request"] == "mine-1"
    assert (turn["source"], turn["outcome"]) == ("api", "picture")
    assert turn["conversation"] and turn["turn"] and {"dialog", "drawing"} <= turn["timings"].keys()
    assert (request["method"], request["path"], request["status"]) == ("POST", "/v1/chat/completions", 200)
    assert request["request"] == "mine-1" and request["seconds"] >= turn["seconds"] - 0.01
    error, failed, request = rest
    assert error["level"] == "error" and "RuntimeError: a bug" in error["traceback"]
    assert (failed["outcome"], failed["level"]) == ("failed", "warning")
    assert len(failed["request"]) == 16 and failed["request"] == request["request"], (
        "an id that cannot be one is replaced"
    )
    assert "secretive" not in out.getvalue()


def test_text_for_people(out: io.StringIO) -> None:
    logs.set_up("text", "info", out)
    log = logging.getLogger("app.somewhere")
    logs.say(log, "turn", outcome="picture", seconds=2.5, timings={"dialog": 1}, note="two\nlines")
    log.debug("hidden")
    logging.getLogger("httpx").info("hidden too")
    logging.getLogger("httpx").warning("shown")
    first, second = out.getvalue().splitlines()
    assert first[9:] == r'info    turn  outcome=picture seconds=2.5 timings=dialog:1 note="two\nlines"'
    assert second[9:] == "warning shown"


def test_no_terminal_obeys_a_log() -> None:
    assert logs._plain("/v1/\x1b[2J\x1b]0;owned\x07") == '"/v1/\\u001b[2J\\u001b]0;owned\\u0007"'
    assert logs._plain("/v1/\x9b2J") == '"/v1/\\u009b2J"' and logs._plain("/v1/models") == "/v1/models"


def test_the_page_is_quiet(out: io.StringIO, store: Store, profile: Profile) -> None:
    logs.set_up("json", "info", out)
    with TestClient(build_app(profile, store, FakeModels()), base_url="http://127.0.0.1") as client:  # type: ignore[arg-type]
        assert client.get("/health").headers["x-request-id"]
        assert lines(out) == []
        logs.set_up("json", "debug", out)
        client.get("/health")
    assert [line["path"] for line in lines(out)] == ["/health"]
