"""The mix: the same bytes from any number of workers, a manifest that comes last, errors that say what to do."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import pytest

from app.cli import main as easel
from datasets_build import mix
from datasets_build.records import Job, run


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_workers_do_not_change_a_byte_and_the_manifest_tells_the_truth(tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        manifest = run(Job(tmp_path / name, "train", 20, 5, mix.SHARES, workers=workers))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    entry = manifest["splits"]["train"]
    lines = (tmp_path / "one" / "train-00000.jsonl").read_bytes()
    assert entry["n"] == 20 == lines.count(b"\n") and entry["seed"] == 5
    assert entry["sha256"] == hashlib.sha256(lines).hexdigest()
    assert sum(count for key, count in entry["counts"].items() if key.startswith("task")) == 20
    assert not list((tmp_path / "one").rglob(".*"))  # no drafts are left


def test_splits_share_a_folder_and_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        arguments = ["--out", str(tmp_path), "--n", "3", "--split", split, "--workers", "1", "--language", "zh"]
        assert easel(["data", "tt", *arguments]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["counts"]["task D_tt"] == 3
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert set(manifest["splits"]) == {"train", "test"}
    for line in (tmp_path / "test-00000.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        assert record["language"] == "zh" and record["split"] == "test" and record["licence"] == "Apache-2.0"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    assert easel(["data", "mix", "--out", str(blocker / "data"), "--n", "1"]) == 1
    assert "cannot write to" in capsys.readouterr().err


def test_wrong_numbers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert easel(["data", "mix", "--out", str(tmp_path), "--n", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err
    assert easel(["data", "tt", "--out", str(tmp_path), "--turns", "8", "7"]) == 2
    assert "--turns must be two numbers of 2 to 10" in capsys.readouterr().err
    with pytest.raises(ValueError, match="unknown task 'D_x'"):
        Job(tmp_path, "train", 1, 0, {"D_x": 1.0})
    with pytest.raises(ValueError, match="above 0"):
        Job(tmp_path, "train", 1, 0, {"D_o": 0.0})
    with pytest.raises(ValueError, match="split must be"):
        Job(tmp_path, "practice", 1, 0, {"D_o": 1.0})


def test_shares_are_read() -> None:
    assert mix.parse_shares("o=1,tt=3.5") == {"D_o": 1.0, "D_tt": 3.5}
    for wrong in ("o", "o=x", "zz=1"):
        with pytest.raises(argparse.ArgumentTypeError):
            mix.parse_shares(wrong)
