"""The report: true numbers, dialogues with their pictures, and records that stay data."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from app.cli import main as easel
from datasets_build.mix import SHARES
from datasets_build.records import Job, run
from datasets_build.report import render

NASTY = "<script>alert('hello')</script>\"><img src=x onerror=alert(1)>{{ 7 * 7 }}&amp;"


class Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    run(Job(root, "train", 8, 1, SHARES, workers=1))
    run(Job(root, "test", 3, 1, SHARES, workers=1))
    return root


def records(data: Path) -> list[dict[str, Any]]:
    files = (data / "train-00000.jsonl", data / "test-00000.jsonl")
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def test_the_page_counts_and_shows_everything(data: Path) -> None:
    page, splits = render(data, 100)
    assert {split: counts.records for split, counts in splits.items()} == {"train": 8, "test": 3}
    assert sum(counts.turns for counts in splits.values()) == sum(len(record["turns"]) for record in records(data))
    parsed = Page(page)
    dialogues = [a for a in parsed.all("article") if "dialogue" in (a["class"] or "")]
    assert len(dialogues) == 11
    blocks = [block for record in records(data) for m in record["messages"] for block in m["content"]]
    pictures = parsed.all("img")
    assert len(pictures) == sum(block["type"] == "image" for block in blocks)
    assert all((picture["src"] or "").startswith("data:image/png;base64,") for picture in pictures)
    for record in records(data):
        assert record["id"] in parsed.text and record["messages"][0]["content"][-1]["text"] in parsed.text
    assert not [tag for tag, attributes in parsed.tags if tag == "link" or (tag == "script" and "src" in attributes)]


def test_a_sample_is_decided_by_its_seed(data: Path) -> None:
    assert render(data, 5, 1)[0] == render(data, 5, 1)[0] != render(data, 5, 2)[0]
    assert len([a for a in Page(render(data, 5, 1)[0]).all("article")]) == 5


def test_records_are_data_and_not_html(tmp_path: Path) -> None:
    run(Job(tmp_path, "train", 2, 1, {"D_p": 1.0}, workers=1))
    record = records_of(tmp_path)[0]
    for key in ("id", "task", "language", "topic"):
        record[key] = NASTY + key
    record["turns"][0]["type"] = NASTY
    record["messages"][0]["content"] = [
        {"type": "text", "text": NASTY},
        {"type": "image", "path": "../../etc/hostname", "sha256": NASTY},
        {"type": "image", "path": NASTY, "sha256": NASTY},
    ]
    (tmp_path / "train-00000.jsonl").write_text(json.dumps(record) + "\n" + json.dumps(record) + "\n")
    page, splits = render(tmp_path, 2)
    parsed = Page(page)
    assert NASTY in parsed.text and parsed.text.count("cannot be shown") == 4
    assert parsed.all("img") == [] and len(parsed.all("script")) == 1
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert splits["train"].repeated == 1


def records_of(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "train-00000.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_command_says_what_it_did_and_what_is_wrong(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pages" / "report.html"
    assert easel(["data", "report", "--data", str(data), "--out", str(out), "--n", "3"]) == 0
    assert "train: 8 records" in capsys.readouterr().out
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>") and len(list(out.parent.iterdir())) == 1
    assert easel(["data", "report", "--data", str(tmp_path), "--out", str(out)]) == 1
    assert "easel data mix" in capsys.readouterr().err
    assert easel(["data", "report", "--data", str(data), "--out", str(out), "--n", "-1"]) == 2
    (tmp_path / "train.jsonl").write_text("{}\n")
    assert easel(["data", "report", "--data", str(tmp_path), "--out", str(out)]) == 1
    assert "line 1: this is no record" in capsys.readouterr().err
