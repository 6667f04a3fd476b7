"""What vLLM is started with, told without starting it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dialog_mllm.errors import ServerFailed
from dialog_mllm.server import ServerSettings, VllmServer, adapter_rank


def adapter(folder: Path, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def options(adapter: Path | None, **settings: Any) -> dict[str, str]:
    command = VllmServer("some/model", adapter, ServerSettings(**settings))._command()
    return dict(zip(command, [*command[1:], ""], strict=True))


@pytest.mark.parametrize(
    ("config", "rank"),
    [({"r": 4}, 8), ({"r": 32}, 32), ({"r": 33}, 64), ({"r": 8, "rank_pattern": {"q_proj": 100}}, 128),
     ({"r": 8, "rank_pattern": None}, 8)],
)  # fmt: skip
def test_an_adapter_is_padded_no_further_than_need_be(config: dict[str, Any], rank: int, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "lora", **config)
    assert adapter_rank(str(folder)) == rank
    assert options(folder)["--max-lora-rank"] == str(rank)
    assert options(folder, runtime_adapters=True)["--max-lora-rank"] == "64"  # others may come


@pytest.mark.parametrize("config", [{}, {"r": "many"}, {"r": 1000}])
def test_an_adapter_without_a_rank_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="names no rank"):
        adapter_rank(str(adapter(tmp_path / "lora", **config)))


def test_steps_are_short_only_where_there_is_an_adapter(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "lora", r=8)
    assert options(folder)["--max-num-batched-tokens"] == "256"
    assert "--max-num-batched-tokens" not in options(None)
    on_a_gpu = options(folder, lora_step_tokens=None, block_size=None, picture_cache_mb=None)
    assert not {"--max-num-batched-tokens", "--block-size", "--mm-processor-cache-gb"} & set(on_a_gpu)


@pytest.mark.parametrize(("given", "threads"), [("3", "3"), ("4,2", "4"), ("", None), ("many", None)])
def test_openmp_s_threads_may_be_given_in_any_of_its_ways(
    given: str, threads: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert VllmServer("some/model")._environment()["OMP_NUM_THREADS"] == (threads or str(min(4, os.cpu_count() or 1)))


def test_a_server_that_cannot_even_be_tried_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = VllmServer("some/model", log_dir=tmp_path)

    def breaks() -> str:
        raise OSError("no more processes")

    monkeypatch.setattr(server, "_run_once", breaks)
    with server, pytest.raises(ServerFailed, match="could not be run: no more processes"):
        server.wait_ready(60)
