from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli import main
from app.commands import bench_dialog
from datasets_build.records import Job
from datasets_build.records import run as build


def test_bad_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "dialog", "--users", "0"]) == 1
    assert "at least 1" in capsys.readouterr().err


def test_dialogues_that_are_too_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(Job(tmp_path / "p", "test", 2, 1, {"D_p": 1.0}))
    assert main(["bench", "dialog", "--data", str(tmp_path / "p")]) == 1
    assert "no two dialogues of 5 turns" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    build(Job(tmp_path / "d", "test", 12, 1, {"D_tt": 1.0}))
    monkeypatch.setattr(bench_dialog, "LONG", 3)
    assert (
        main(["bench", "dialog", "--data", str(tmp_path / "d"), "--dialogues", "3", "--users", "1", "4", "--json"]) == 0
    )
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["turns"] >= 9
    assert set(result["tokens_per_second"]) == {"1", "4"}
    assert min(result["tokens_per_second"].values()) > 0
    hits = result["prefix_hits_by_turn"]
    assert hits["3"] > hits["1"]  # the history is appended to, and never rewritten
