"""The API's description is true: what it promises is what the routes take and answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api import add_api
from app.profiles import Profile
from app.reference import ChatCompletion, ErrorReply, Health, Images, ModelEntry, ModelList
from app.store import Store
from tests.app.fakes import FakeModels


@pytest.fixture
def http(profile: Profile, store: Store) -> Iterator[TestClient]:
    app = FastAPI(title="Easel", docs_url=None)
    add_api(app, profile, store, FakeModels())  # type: ignore[arg-type]
    with TestClient(app) as client:
        yield client


@pytest.fixture
def schema(http: TestClient) -> dict[str, Any]:
    return http.get("/openapi.json").json()


def test_every_route_is_described(schema: dict[str, Any]) -> None:
    routes = {f"{method.upper()} {path}" for path, methods in schema["paths"].items() for method in methods}
    assert routes == {
        "GET /health", "GET /ready", "GET /metrics", "GET /v1/models", "GET /v1/models/{model}",
        "GET /v1/pictures/{picture}.png", "POST /v1/chat/completions", "POST /v1/images/generations",
    }  # fmt: skip
    for path, methods in schema["paths"].items():
        for route in methods.values():
            assert route["description"], path
            assert {"200", "4XX", "5XX"} <= set(route["responses"])
            assert "422" not in route["responses"]  # we answer 400
            keyless = path in ("/health", "/ready", "/v1/pictures/{picture}.png")
            assert ("security" in route) != keyless


def test_the_examples_work(http: TestClient, schema: dict[str, Any]) -> None:
    for path, name in (("/v1/chat/completions", "ChatRequest"), ("/v1/images/generations", "ImagesRequest")):
        for example in schema["components"]["schemas"][name]["examples"]:
            assert http.post(path, json=example).status_code == 200


@pytest.mark.parametrize("said", ["hello", "draw a fox"])
def test_replies_are_as_described(http: TestClient, said: str) -> None:
    Health.model_validate(http.get("/health").json())
    Health.model_validate(http.get("/ready").json())
    ModelList.model_validate(http.get("/v1/models").json())
    ModelEntry.model_validate(http.get("/v1/models/easel").json())
    chat = {"messages": [{"role": "user", "content": said}]}
    ChatCompletion.model_validate(http.post("/v1/chat/completions", json=chat).json())
    for kind in ("url", "b64_json"):
        body = {"prompt": said, "response_format": kind}
        Images.model_validate(http.post("/v1/images/generations", json=body).json())
    for bad in ({}, {"messages": []}, {"model": "x", **chat}):
        ErrorReply.model_validate(http.post("/v1/chat/completions", json=bad).json())
    streamed = http.post("/v1/chat/completions", json={**chat, "stream": True})
    described = http.get("/openapi.json").json()["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    assert streamed.headers["content-type"].partition(";")[0] in described


def test_the_page_loads_nothing(http: TestClient, schema: dict[str, Any]) -> None:
    html = http.get("/docs").text
    assert not re.search(r"<(script|link|img|iframe)|@import|url\(", html)
    assert re.findall(r'(?:href|src)="([^"]*)"', html) == ["openapi.json"]
    for path in schema["paths"]:
        assert path in html
    for field in ("messages", "response_format", "negative_prompt", "easel", "give it a blue scarf"):
        assert field in html
