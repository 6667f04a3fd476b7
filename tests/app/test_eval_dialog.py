"""`easel eval dialog`: scores with intervals, each turn's verdict in a file, and two of those compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli import main as easel
from app.commands import eval_dialog
from datasets_build.mix import SHARES
from datasets_build.records import Job, run
from dialog_mllm.errors import DialogUnavailable
from dialog_mllm.messages import DRAW
from tests.app.fakes import KnowingModel, Say


@pytest.fixture(scope="module")
def test_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    run(Job(root, "test", 12, 5, SHARES, workers=1))
    return root / "test-00000.jsonl"


def evaluate(test_set: Path, monkeypatch: pytest.MonkeyPatch, say: Say, *more: str) -> int:
    monkeypatch.setattr(eval_dialog, "start_client", lambda *arguments: KnowingModel(test_set, say))
    return easel(["eval", "dialog", "--data", str(test_set), "--json", *more])


def test_verdicts_can_be_compared(
    test_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    talks = "I would rather talk."
    assert evaluate(test_set, monkeypatch, lambda wanted: talks if DRAW in wanted else wanted, "--turns", files[0]) == 0
    poor = json.loads(capsys.readouterr().out)
    assert evaluate(test_set, monkeypatch, lambda wanted: wanted, "--turns", files[1]) == 0
    good = json.loads(capsys.readouterr().out)
    assert good["prompt_correct"] == good["question_accuracy"] == 1.0 and poor["prompt_correct"] == 0.0
    assert good["intervals"]["prompt_correct"][1] == 1.0 > good["intervals"]["prompt_correct"][0] > 0.5
    assert easel(["data", "compare", *files, "--by", "type", "edit,language", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["turns"] == good["turns"] and result["unpaired"] == 0
    assert result["categories"]["all"]["says"] == "keep"
    assert result["categories"]["type t2t"]["says"] == "no evidence"
    assert any(name.startswith("edit ") and " × language " in name for name in result["categories"])


def test_what_goes_wrong_is_said(
    test_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(test_set, monkeypatch, lambda wanted: DialogUnavailable("The server is away.")) == 1
    assert "easel eval dialog: The server is away." in capsys.readouterr().err
    assert evaluate(test_set, monkeypatch, lambda wanted: wanted, "--turns", str(tmp_path / "no" / "a.jsonl")) == 1
    assert "There is no folder" in capsys.readouterr().err


def test_the_page_and_the_tables(
    test_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    talks = "I would rather talk."
    say: Say = lambda wanted: talks if DRAW in wanted else wanted  # noqa: E731
    assert evaluate(test_set, monkeypatch, say, "--report", str(page)) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["confusion"]["draw"]["draw"] == 0 and set(result["by_depth"]) >= {"1", "2", "3"}
    html = page.read_text(encoding="utf-8")
    assert "talked, should have drawn" in html and "data:image/webp" in html
    assert easel(["eval", "dialog", "--data", str(test_set), "--report", str(tmp_path)]) == 0  # not a file to write
    said = capsys.readouterr()
    assert "cannot be written" in said.err
    assert "Turn of the dialogue  turns" in said.out and "cells" not in said.out


def test_a_report_in_no_folder_is_refused_before_anything_is_asked(
    test_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    assert evaluate(test_set, monkeypatch, lambda wanted: asked.append(wanted) or wanted, "--report",
                    str(tmp_path / "no" / "r.html")) == 1  # fmt: skip
    assert "There is no folder" in capsys.readouterr().err and not asked
