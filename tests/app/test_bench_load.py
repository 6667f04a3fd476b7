"""The load test itself: what it must notice, it notices."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI

from app.api import add_api
from app.cli import main
from app.commands.bench_load import Load, by_minute, growth, measure, memory
from app.metrics import Metered, Metrics
from app.profiles import Profile
from app.store import Store
from tests.app.fakes import FakeDialog, FakeGenerator, FakeModels
from tests.app.test_api import serving

SECONDS = 1.2  # of a load


def loaded(
    profile: Profile, store: Store, generator: FakeGenerator, dialog: FakeDialog | None = None, users: int = 4
) -> dict[str, Any]:
    app, metrics = FastAPI(), Metrics()
    add_api(app, profile, store, Metered(FakeModels(dialog, generator), metrics), metrics)
    with serving(app) as url:
        return asyncio.run(measure(Load(url, "", users, seed=3), SECONDS, None, seed=3))


def test_a_sound_server(profile: Profile, store: Store) -> None:
    result = loaded(profile, store, FakeGenerator(0.005))
    assert result["turns"] >= 4 and result["pictures"] >= 2
    assert (result["errors"], result["mixed_up"], result["users_without_a_turn"]) == (0, 0, 0), result
    assert result["queue_empty"]
    repeated = result["repeated"]
    assert repeated["same_words"] == repeated["turns"] > 0
    assert repeated["same_pixels"] == repeated["pictures"] > 0


def test_pictures_of_others_are_noticed(
    profile: Profile, store: Store, monkeypatch: pytest.MonkeyPatch, texts_of_others: Callable[..., dict[str, str]]
) -> None:
    monkeypatch.setattr("app.conversation.picture_texts", texts_of_others)
    result = loaded(profile, store, FakeGenerator(0.005))
    assert result["mixed_up"] > 0


def test_errors_are_noticed(profile: Profile, store: Store) -> None:
    broken = FakeGenerator(0.005, *[RuntimeError("no memory")] * 1000)
    result = loaded(profile, store, broken, FakeDialog(*["Let us talk."] * 3))
    assert result["errors"] > 0
    assert result["first_errors"][0].startswith("5")


def test_what_is_left_behind_is_noticed(profile: Profile, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: Load, patience: float = 60.0) -> bool:
        return await idle(self, 0.6)

    idle = Load.idle
    monkeypatch.setattr(Load, "idle", never)
    app, metrics = FastAPI(), Metrics()
    add_api(app, profile, store, Metered(FakeModels(), metrics), metrics)
    metrics.unfinished.inc()  # a drawing that nobody waits for
    with serving(app) as url:
        result = asyncio.run(measure(Load(url, "", 2, seed=3), SECONDS, None, seed=3))
    assert not result["queue_empty"]


def test_memory_is_told_by_process() -> None:
    waits = "print(flush=True); input()"
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {waits!r}])"
    with subprocess.Popen([sys.executable, "-c", starts], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the child of the child runs
        alone = memory(process.pid)
        process.communicate(b"\n")
    assert len(alone) == 2 and min(alone.values()) > 2**20 and "easel" in alone
    assert memory(process.pid) == Counter()  # they have ended


def test_what_grows_is_named() -> None:
    samples = [Counter(app=100 * 2**20, engine=(100 + 10 * second) * 2**20) for second in range(8)]
    told = growth(samples)
    assert told["memory_mb_of"] == {"app": [100, 100], "engine": [105, 165]}
    assert (told["memory_mb"], told["memory_ratio"]) == ([205, 265], 1.293)
    assert by_minute([(30.0 * i, sample) for i, sample in enumerate(samples)]) == [205, 225, 245, 265]


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--users", "0"], "at least 1"), (["--users", "97"], "at most 96"), (["--key-env", "NO_SUCH_KEY"], "is empty")],
)
def test_bad_options(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "load", *options]) == 1
    assert message in capsys.readouterr().err


@pytest.fixture
def texts_of_others() -> Callable[..., dict[str, str]]:
    from generator.metadata import picture_texts

    def texts(request: Any, provenance: Any, **more: str) -> dict[str, str]:
        return picture_texts(replace(request, seed=request.seed + 1), provenance, **more)

    return texts
