"""Intervals and tests against numbers from the literature, and two evaluations of the same turns in pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.cli import main as easel
from dialog_mllm.comparison import compare, found, mcnemar, read_verdicts, wilson


def test_wilson_is_that_of_the_literature() -> None:
    assert wilson(81, 263) == (0.2553, 0.3662)  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    assert wilson(15, 148) == (0.0624, 0.1605)
    assert wilson(0, 20) == (0.0, 0.1611)
    assert wilson(29, 29)[1] == 1.0
    with pytest.raises(ValueError, match="3 of 2"):
        wilson(3, 2)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 6) == mcnemar(6, 0) == 2 / 64
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(2, 10) == pytest.approx(2 * (1 + 12 + 66) / 4096)


def test_false_findings_are_held_down() -> None:
    assert found([0.001, 0.8, 0.9, 0.02]) == [True, False, False, True]
    assert found([0.04] + [0.5] * 9) == [False] * 10
    assert found([]) == []


def line(number: int, error: str | None, **of: Any) -> dict[str, Any]:
    categories = {"type": "t2i", "language": "en", "request": "draw", "edit": None, "topic": "winter", **of}
    return {
        "record": f"r{number}", "turn": 0, "asked": "ab", **categories, "error": error,
        "right": {"switch_accuracy": error != "missed_draw"}, "reply": "",
    }  # fmt: skip


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_each_category_is_kept_thrown_out_or_undecided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zh = {"language": "zh", "type": "ti2i", "request": "edit", "edit": "style"}
    a = [line(i, "prompt" if i < 12 else None) for i in range(20)]
    b = [line(i, None) for i in range(20)]
    a += [line(i, None, **zh) for i in range(20, 40)]
    b += [line(i, "prompt" if i < 34 else None, **zh) for i in range(20, 40)]
    a += [line(99, None)]  # B was not asked this
    files = [str(write(tmp_path / name, lines)) for name, lines in (("a", a), ("b", b))]
    assert easel(["data", "compare", *files, "--by", "language", "type,edit", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = result["categories"]
    assert result["turns"] == 40 and result["unpaired"] == 1
    assert set(rows) == {"all", "language en", "language zh", "type ti2i × edit style"}
    assert [rows[name]["says"] for name in ("all", "language en", "language zh")] == [
        "no evidence",
        "keep",
        "throw out",
    ]
    assert (rows["language en"]["a"], rows["language en"]["b"], rows["language en"]["only_b"]) == (0.4, 1.0, 12)
    assert rows["language en"]["a_interval"] == list(wilson(8, 20))
    assert easel(["data", "compare", *files]) == 0
    assert "throw out" in capsys.readouterr().out
    same = compare(read_verdicts(tmp_path / "a"), read_verdicts(tmp_path / "b"), [], "switch_accuracy")
    assert same["categories"]["all"]["says"] == "no evidence"


def test_what_cannot_be_compared_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write(tmp_path / "a", [line(1, None)]), write(tmp_path / "b", [line(2, None)])
    (tmp_path / "bad").write_text("{}\n")
    (tmp_path / "empty").write_text("")
    for files, reason in (
        ((a, b), "share no turn"),
        ((a, tmp_path / "bad"), "line 1: this is no turn's verdict"),
        ((a, tmp_path / "empty"), "holds no verdict"),
        ((a, tmp_path / "gone"), "easel eval dialog --turns"),
    ):
        assert easel(["data", "compare", *map(str, files)]) == 1
        assert reason in capsys.readouterr().err
    assert easel(["data", "compare", str(a), str(a), "--measure", "prompt_correct"]) == 1
    assert "bears on prompt_correct" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        easel(["data", "compare", str(a), str(b), "--by", "colour"])
    assert "no category 'colour'" in capsys.readouterr().err
