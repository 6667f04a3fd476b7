"""The tiny checkpoint, and real servers that serve it to all tests of the session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dialog_mllm.server import ServerSettings, VllmServer


@dataclass(frozen=True)
class TinyModel:
    base: Path
    adapter: Path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    from tests.dialog_mllm.tiny import build_adapter, build_base

    folder = tmp_path_factory.mktemp("tiny")
    base = build_base(folder / "base")
    return TinyModel(base, build_adapter(base, folder / "adapter"))


@pytest.fixture(scope="session", params=["vllm", "transformers"])
def served(
    request: pytest.FixtureRequest, tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    """Base and adapter of the tiny model, by either server. Tests may read its state, not change it."""
    settings = ServerSettings(threads=1, kv_cache_mb=64, vllm=request.param == "vllm")
    with VllmServer(tiny_model.base, tiny_model.adapter, settings, tmp_path_factory.mktemp("logs")) as server:
        server.wait_ready(600)
        yield server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs vLLM, or has processes to kill, is slow."""
    for item in items:
        if "served" in getattr(item, "fixturenames", ()) or item.path.name == "test_server.py":
            item.add_marker(pytest.mark.slow)
