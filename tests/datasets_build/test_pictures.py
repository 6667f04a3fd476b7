"""Shards: whole, true, the same bytes for any number of workers, and resumable."""

from __future__ import annotations

import errno
import hashlib
import json
import os

import numpy as np
import pytest

from app.cli import main as easel
from datasets_build import pictures
from datasets_build.storybook.reading import read_prompt
from datasets_build.storybook.scene import KINDS, POSITIONS, Scene


def write(folder, n, seed=0, workers=1):
    return pictures.write_pictures(folder, n, "test", seed, 32, workers, shard=4)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_folder_is_as_the_manifest_says(tmp_path):
    manifest = write(tmp_path, 6)
    assert manifest == json.loads((tmp_path / "manifest.json").read_text())
    sizes = {shard["name"]: shard["n"] for shard in manifest["shards"]}
    assert sizes == {"pictures-00000": 4, "pictures-00001": 2}
    assert manifest["labels"]["kind"] == list(KINDS)
    for shard in manifest["shards"]:
        array = tmp_path / f"{shard['name']}.npy"
        assert hashlib.sha256(array.read_bytes()).hexdigest() == shard["sha256"]
        pixels = np.load(array)
        lines = [json.loads(line) for line in (tmp_path / f"{shard['name']}.jsonl").read_text("utf-8").splitlines()]
        assert pixels.shape == (shard["n"], 32, 32, 3) and pixels.dtype == np.uint8
        assert len(lines) == shard["n"]
        covers = np.load(tmp_path / f"{shard['name'].replace('pictures', 'covers')}.npy")
        assert covers.shape == (shard["n"], len(POSITIONS) + 1, 4, 4) and covers.dtype == np.uint8
        for line, cells in zip(lines, covers, strict=True):
            scene = Scene.from_json(line["scene"])
            there = {POSITIONS.index(subject.position) for subject in scene.subjects}
            assert {place for place in range(len(POSITIONS)) if cells[place].any()} == there
            assert bool(cells[-1].any()) == any(subject.accessories for subject in scene.subjects)
            assert scene.split == "test"
            assert read_prompt(line["prompt"]["en"]) == read_prompt(line["prompt"]["zh"]) == scene
            assert {lang: len(captions) for lang, captions in line["captions"].items()} == {"en": 2, "zh": 2}
    assert not list(tmp_path.glob(".*")) and not (tmp_path / "unfinished.json").exists()


def test_the_bytes_do_not_depend_on_the_workers(tmp_path):
    write(tmp_path / "one", 10, workers=1)
    write(tmp_path / "two", 10, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_full_disk_is_said_and_finished_shards_are_kept(tmp_path, monkeypatch):
    really_write = pictures.write_atomically

    def full(path, data):
        if path.name.startswith("pictures-00001"):
            raise OSError(errno.ENOSPC, "No space left on device")
        really_write(path, data)

    monkeypatch.setattr(pictures, "write_atomically", full)
    with pytest.raises(pictures.DataError, match=r"is full\. Make room .* run the same command again"):
        write(tmp_path / "a", 8)
    assert not (tmp_path / "a" / "manifest.json").exists()
    kept = (tmp_path / "a" / "pictures-00000.npy").stat().st_mtime_ns
    monkeypatch.setattr(pictures, "write_atomically", really_write)
    write(tmp_path / "a", 8)
    assert (tmp_path / "a" / "pictures-00000.npy").stat().st_mtime_ns == kept
    write(tmp_path / "b", 8)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def _die(job):
    os._exit(1)


def test_a_worker_that_dies_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_write_shard", _die)
    with pytest.raises(pictures.DataError, match="fewer --workers"):
        write(tmp_path, 8, workers=2)


def test_other_pictures_are_not_overwritten(tmp_path):
    write(tmp_path, 2)
    with pytest.raises(pictures.DataError, match="holds other pictures"):
        write(tmp_path, 2, seed=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [("--n 0", "--n must be"), ("--n 1 --size 8", "--size must be"), ("--n 1 --workers 0", "--workers must be")],
)
def test_bad_arguments_are_said(tmp_path, capsys, arguments, message):
    assert easel(["data", "pictures", "--out", str(tmp_path / "new"), *arguments.split()]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert easel(["data", "pictures", "--out", str(tmp_path / "file"), "--n", "1", "--workers", "1"]) == 1
    assert "Choose another --out" in capsys.readouterr().err


def test_the_command_prints_its_result(tmp_path, capsys):
    assert easel(["data", "pictures", "--out", str(tmp_path), "--n", "1", "--size", "32"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["n"] == 1
