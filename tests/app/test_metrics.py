from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from app.api import add_api
from app.conversation import UserMessage
from app.guard import Access, Guard
from app.metrics import CountRequests, Metered, Metrics
from app.profiles import Profile
from app.running import RunningTurns
from app.store import Store
from dialog_mllm.errors import DialogTimeout
from dialog_mllm.protocol import Reply
from generator.errors import DrawingFailed, QueueFull
from tests.app.fakes import FakeDialog, FakeGenerator, FakeModels


@pytest.fixture
def models() -> FakeModels:
    return FakeModels()


@pytest.fixture
def http(profile: Profile, store: Store, models: FakeModels) -> Iterator[TestClient]:
    app, metrics = FastAPI(), Metrics()
    app.add_middleware(Guard, access=Access())
    app.add_middleware(CountRequests, metrics=metrics)
    app.mount("/page", FastAPI())
    add_api(app, profile, store, Metered(models, metrics), metrics)
    with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
        yield client


def chat(http: TestClient, said: str) -> int:
    return http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": said}]}).status_code


def read(http: TestClient) -> dict[str, float]:
    response = http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {  # labels in the order of their names
        ",".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_turns_by_outcome(http: TestClient, models: FakeModels) -> None:
    models.generator.errors = [DrawingFailed("overflow")]
    models.dialog.replies = ["hello", "<draw>a fox", DialogTimeout("slow"), "<draw>a cat"]
    assert [chat(http, "hi") for _ in range(4)] == [200, 500, 504, 200]
    assert chat(http, "") == 400
    seen = read(http)
    outcomes = {
        outcome: seen[f"easel_turns_total,{outcome},api"] for outcome in ("text", "picture", "failed", "refused")
    }
    assert outcomes == {"text": 1, "picture": 1, "failed": 2, "refused": 1}
    assert (seen["easel_drawings_total,drawn"], seen["easel_drawings_total,failed"]) == (1, 1)
    assert seen["easel_errors_total,DialogTimeout"] == 1
    assert seen["easel_drawings_unfinished"] == 0
    assert seen["easel_denoiser_step_seconds_count"] == 1
    assert seen["easel_denoiser_step_seconds_sum"] == pytest.approx(0.01 / 5)  # the fake's five steps
    assert seen["easel_drawing_seconds_count,denoise"] == 1


def test_requests_by_route(http: TestClient) -> None:
    for path in ("/v1/pictures/a.png", "/v1/pictures/b.png", "/page/x", "/page/y"):
        http.get(path)
    http.request("BREW", "/health")
    http.get("/health", headers={"Host": "evil.example"})
    seen = read(http)
    assert seen["easel_requests_total,GET,/v1/pictures/{picture}.png,404"] == 2
    assert seen["easel_requests_total,GET,page,404"] == 2
    assert seen["easel_requests_total,GET,none,403"] == 1
    assert not [name for name in seen if "BREW" in name or "evil" in name or "/page" in name]


async def test_tokens_and_seconds_of_the_dialog(profile: Profile, store: Store) -> None:
    class Says(FakeDialog):
        async def reply(self, messages, mode="auto", conversation=""):  # type: ignore[no-untyped-def]
            yield Reply("text", "hello", tokens=7, timings={"first_token": 0.1, "total": 0.5})

    metrics = Metrics()
    models = Metered(FakeModels(Says()), metrics)
    turns = RunningTurns(profile, store, models.dialog, models.generator, metrics)
    conversation = store.create_conversation("local", profile.name, profile.settings.to_json())
    run = await turns.start(conversation, UserMessage("hi"), "auto", None)
    async for _ in run.watch():
        pass
    value = metrics.registry.get_sample_value
    assert value("easel_dialog_tokens_total") == 7
    assert value("easel_dialog_seconds_sum", {"part": "total"}) == 0.5
    assert value("easel_turns_total", {"source": "page", "outcome": "text"}) == 1


def test_stopped_and_refused_drawings(profile: Profile) -> None:
    metrics = Metrics()
    generator = FakeGenerator(pause=0.05)
    metered = Metered(FakeModels(generator=generator), metrics).generator
    job = metered.submit(profile.request("a fox", 1, profile.settings))
    assert metrics.registry.get_sample_value("easel_drawings_unfinished") == 1
    job.cancel()
    with contextlib.suppress(Exception):
        job.future.result(10)

    def full(*_: object) -> None:
        raise QueueFull("busy")

    generator.submit = full  # type: ignore[assignment]
    with pytest.raises(QueueFull):
        metered.submit(profile.request("a fox", 1, profile.settings))
    value = metrics.registry.get_sample_value
    assert value("easel_drawings_total", {"outcome": "stopped"}) == 1
    assert value("easel_drawings_total", {"outcome": "refused"}) == 1
    assert value("easel_drawings_unfinished") == 0


def test_ready(http: TestClient, models: FakeModels) -> None:
    assert http.get("/ready").status_code == 200
    for status in ("warming up", "failed"):
        models.status = {**models.status, "status": status}
        assert http.get("/health").status_code == 200
        answer = http.get("/ready")
        assert (answer.status_code, answer.json()["status"]) == (503, status)
