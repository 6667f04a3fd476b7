"""The dialog model without vLLM: what the client's own tests (test_server.py) do not ask of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from dialog_mllm.plain_server import Model, _repeats, build_app
from dialog_mllm.server import ServerSettings, VllmServer
from tests.dialog_mllm.conftest import TinyModel
from tests.dialog_mllm.tiny import CONTEXT

HELLO = {"model": "base", "messages": [{"role": "user", "content": "hi"}], "skip_special_tokens": False}


@pytest.fixture(scope="module")
def model(tiny_model: TinyModel) -> Model:
    return Model(str(tiny_model.base), {}, 4, None)


@pytest.fixture
def http(model: Model) -> Iterator[TestClient]:
    with TestClient(build_app(model, "base", "key"), headers={"Authorization": "Bearer key"}) as client:
        yield client


def said(http: TestClient, **more: Any) -> str:
    answer = http.post("/v1/chat/completions", json=HELLO | more)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def test_a_seed_says_the_same_again(http: TestClient) -> None:
    hot = {"temperature": 5.0, "max_tokens": 20}
    replies = {seed: said(http, seed=seed, **hot) for seed in range(4)}
    assert len(set(replies.values())) > 1
    assert {seed: said(http, seed=seed, **hot) for seed in range(4)} == replies
    assert said(http) == said(http) == "<draw>fox"


def test_what_may_not_be_said(http: TestClient, model: Model) -> None:
    draw = model.tokenizer.convert_tokens_to_ids("<draw>")
    assert not said(http, logit_bias={str(draw): -100}, max_tokens=5).startswith("<draw>")
    assert not said(http, bad_words=["<draw>"], max_tokens=5).startswith("<draw>")
    assert "fox" not in said(http, bad_words=["x"], max_tokens=5)
    forced = {"messages": [*HELLO["messages"], {"role": "assistant", "content": "<draw>fox"}],  # type: ignore[misc]
              "continue_final_message": True, "add_generation_prompt": False}  # fmt: skip
    assert said(http, **forced) == ""
    assert said(http, **forced, min_tokens=1, max_tokens=1) != ""


def test_a_loop_ends() -> None:
    rule = {"min_pattern_size": 2, "max_pattern_size": 3, "min_count": 3}
    assert _repeats([9, 1, 2, 1, 2, 1, 2], rule)
    assert _repeats([1, 2, 3] * 3, rule)
    assert not _repeats([1, 2, 1, 2, 1], rule)
    assert not _repeats([1, 2, 1, 2, 1, 2], {})


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (HELLO | {"model": "other"}, 404, "The model `other` does not exist"),
        (HELLO | {"messages": [{"role": "user", "content": "x y " * CONTEXT}]}, 400, "maximum context length"),
        (HELLO | {"messages": None}, 400, "cannot be read"),
        (
            HELLO | {"messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}}]}]}, 400, "base64 data URL",
        ),
        (
            HELLO | {"messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]}, 400, "picture cannot",
        ),
        ([1], 400, "no JSON object"),
    ],
)  # fmt: skip
def test_what_is_refused(http: TestClient, body: Any, status: int, message: str) -> None:
    answer = http.post("/v1/chat/completions", json=body)
    assert (answer.status_code, message in answer.json()["error"]["message"]) == (status, True), answer.text


def test_keys_and_adapters(http: TestClient, tiny_model: TinyModel, tmp_path: Path) -> None:
    for path in ("/v1/models", "/tokenize", "/v1/load_lora_adapter"):
        assert http.request("POST", path, headers={"Authorization": "Bearer guess"}).status_code == 401
    assert http.get("/health", headers={"Authorization": ""}).status_code == 200
    name = {"lora_name": "dialog", "lora_path": str(tiny_model.adapter)}
    for status in (200, 400):
        assert http.post("/v1/load_lora_adapter", json=name).status_code == status
    assert "already been loaded" in http.post("/v1/load_lora_adapter", json=name).json()["error"]["message"]
    assert [one["id"] for one in http.get("/v1/models").json()["data"]] == ["base", "dialog"]
    assert said(http, model="dialog") == "<draw>fox"
    assert http.post("/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": str(tmp_path)}).status_code == 400
    assert http.post("/v1/unload_lora_adapter", json=name).status_code == 200
    assert http.post("/v1/unload_lora_adapter", json=name).status_code == 404
    assert said(http, model="base"), "it speaks on without any adapter"
    assert http.post("/v1/load_lora_adapter", json=name).status_code == 200
    assert said(http, model="dialog") == "<draw>fox"
    assert http.post("/v1/unload_lora_adapter", json=name).status_code == 200


def test_the_stream_ends_in_words_of_its_own(http: TestClient, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*arguments: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "_step", breaks)
    lines = http.post("/v1/chat/completions", json=HELLO | {"stream": True}).text.split("\n\n")
    assert json.loads(lines[0].removeprefix("data: ")) == {"error": {"message": "out of memory"}}
    assert lines[1] == "data: [DONE]"


def test_it_is_chosen_where_there_is_no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    server = VllmServer("some/model")
    assert server.by_vllm and "vllm_entry.py" in " ".join(server._command())
    assert not VllmServer("some/model", settings=ServerSettings(vllm=False)).by_vllm
    monkeypatch.setattr("dialog_mllm.server.find_spec", lambda name: None)
    assert not server.by_vllm and "plain_server.py" in " ".join(server._command())
