"""What corrections hold, and that `check` finds what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.cli import main as easel
from datasets_build.check import check, violations
from datasets_build.corrections import Case, CorrectionError, corrected_record, write
from datasets_build.mix import SHARES
from datasets_build.records import Job, run
from datasets_build.shards import BuildError
from dialog_mllm.messages import JOINER


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    run(Job(root, "train", 24, 2, {**SHARES, "D_c": 0.3, "D_n": 0.3}, workers=1))
    return root


def records_of(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "train-00000.jsonl").read_text(encoding="utf-8").splitlines()]


def cases_of(root: Path, said: str = "No.", error: str = "question") -> list[tuple[Case, str, dict[str, Any]]]:
    cases = [Case(record, root, i, said, error) for record in records_of(root) for i in range(len(record["turns"]))]
    return [(case, case.wanted, {}) for case in cases]


def test_every_turn_of_every_task_makes_a_record_that_checks(data: Path, tmp_path: Path) -> None:
    written = write(tmp_path, cases_of(data), {"seed": 1})
    assert check(tmp_path).ok, dict(check(tmp_path).violations)
    records = records_of(tmp_path)
    assert {record["of"]["task"] for record in records} == {*SHARES, "D_c", "D_n"}
    assert written["records"] == len(records) and written["errors"] == {"question": len(records)}
    again = write(tmp_path / "again", cases_of(tmp_path), {"seed": 2})  # corrections of corrections
    assert again["records"] == len(records) and check(tmp_path / "again").ok
    for arguments in (
        ["report", "--out", str(tmp_path / "r.html")],
        ["export", "--format", "trl", "--out", str(tmp_path / "x")],
    ):
        assert easel(["data", arguments[0], "--data", str(tmp_path), *arguments[1:]]) == 0


def test_pairs_stand_beside_the_records_that_they_belong_to(data: Path, tmp_path: Path) -> None:
    write(tmp_path, cases_of(data), {"seed": 1})
    before = (tmp_path / "preferences.jsonl").read_bytes()
    with pytest.raises(BuildError, match="made with seed 1, and now it is 2"):
        write(tmp_path, cases_of(data, said="Perhaps."), {"seed": 2})
    assert (tmp_path / "preferences.jsonl").read_bytes() == before


def test_pairs_read_as_serving_shows_them(data: Path, tmp_path: Path) -> None:
    write(tmp_path, cases_of(data, said="<switch>I <3 <draw>ing"), {"seed": 1})
    pairs = [json.loads(line) for line in (tmp_path / "preferences.jsonl").read_text(encoding="utf-8").splitlines()]
    for pair in pairs:
        assert set(pair) == {"id", "error", "images", "prompt", "chosen", "rejected"}
        assert [message["role"] for message in pair["prompt"]][::2] == ["user"] * (len(pair["prompt"]) // 2 + 1)
        said = pair["rejected"][0]["content"][0]["text"]
        assert said == f"<switch>I <{JOINER}3 <{JOINER}draw>ing"  # a token where it means nothing is text
        assert len(pair["images"]) <= 4
    assert max(len(pair["images"]) for pair in pairs) > 1


def test_check_wants_the_last_reply_to_be_learnt(data: Path, tmp_path: Path) -> None:
    case, reply, _ = next(entry for entry in cases_of(data) if entry[0].turn == 1)
    record = corrected_record(case, reply, "one", tmp_path)
    assert violations(record, tmp_path) == []
    assert violations({**record, "learn": [0]}, tmp_path) == ["of a correction the last reply is learnt, and only that"]


def test_pictures_that_changed_are_named(data: Path, tmp_path: Path) -> None:
    shown = next(record for record in records_of(data) if record["messages"][0]["content"][0]["type"] == "image")
    path = tmp_path / shown["messages"][0]["content"][0]["path"]
    with pytest.raises(CorrectionError, match="cannot be read"):
        write(tmp_path / "out", [(Case(shown, tmp_path, 0, "", None), "x", {})], {"seed": 1})
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another")
    with pytest.raises(CorrectionError, match="by its SHA-256"):
        write(tmp_path / "out", [(Case(shown, tmp_path, 0, "", None), "x", {})], {"seed": 1})
    with pytest.raises(CorrectionError, match="nothing to write"):
        write(tmp_path / "out", [], {"seed": 1})
