"""Shards: a run that was stopped or killed ends in the bytes of one that was not; nothing is made twice or mixed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli import main as easel
from datasets_build import records, workers
from datasets_build.card import OURS
from datasets_build.check import check
from datasets_build.records import Job, run
from datasets_build.shards import BuildError
from dialog_mllm.records import read_manifest
from tests.datasets_build.test_mix import digests

ROOT = Path(__file__).resolve().parents[2]
SHARES = {"D_o": 0.2, "D_p": 0.8}


def job(out: Path, n: int = 25, **more: Any) -> Job:
    return Job(**{"out": out, "split": "train", "n": n, "seed": 5, "shares": SHARES, "workers": 1, "shard": 10, **more})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    run(job(root))
    return root


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indices of the records that are made."""
    indices: list[int] = []
    make = records._record

    def record(job: Job, index: int) -> dict[str, Any]:
        indices.append(index)
        return make(job, index)

    monkeypatch.setattr(records, "_record", record)
    return indices


def stop_at(records_there: int) -> Callable[[str], None]:
    def progress(line: str) -> None:
        if line.startswith(f"{records_there} of"):
            raise KeyboardInterrupt

    return progress


def test_the_manifest_names_the_shards(whole: Path) -> None:
    entry = read_manifest(whole)["splits"]["train"]
    assert [(shard["file"], shard["n"]) for shard in entry["shards"]] == [
        ("train-00000.jsonl", 10), ("train-00001.jsonl", 10), ("train-00002.jsonl", 5),
    ]  # fmt: skip
    data = [(whole / shard["file"]).read_bytes() for shard in entry["shards"]]
    assert [shard["sha256"] for shard in entry["shards"]] == [hashlib.sha256(part).hexdigest() for part in data]
    assert entry["sha256"] == hashlib.sha256(b"".join(data)).hexdigest()
    assert entry["n"] == 25 == sum(n for key, n in entry["counts"].items() if key.startswith("task"))
    named = {b["path"] for line in b"".join(data).splitlines() for m in json.loads(line)["messages"]
             for b in m["content"] if b["type"] == "image"}  # fmt: skip
    assert named == {path.relative_to(whole).as_posix() for path in whole.rglob("*.png")} != set()
    assert not list(whole.rglob(".*")) and not list(whole.glob("*.run.json"))
    assert check(whole).ok, dict(check(whole).violations)


def test_a_stopped_run_goes_on_from_its_shards(whole: Path, tmp_path: Path, made: list[int]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(job(tmp_path), stop_at(10))
    assert (tmp_path / "train-00000.jsonl").exists() and not (tmp_path / "manifest.json").exists()
    assert "every split is finished" in " ".join(check(tmp_path).violations)
    (tmp_path / ".drafts").mkdir()
    (tmp_path / ".drafts" / ".left.by.a.kill").write_text("half a pic")
    made.clear()
    run(job(tmp_path))
    assert made == list(range(10, 25))
    assert digests(tmp_path) == digests(whole)
    made.clear()
    run(job(tmp_path))  # all is there
    assert made == [] and digests(tmp_path) == digests(whole)


def test_a_larger_n_goes_on_from_a_finished_run(whole: Path, tmp_path: Path, made: list[int]) -> None:
    run(job(tmp_path, 15))
    made.clear()
    run(job(tmp_path, 25))
    assert made == list(range(10, 25)) and digests(tmp_path) == digests(whole)


def test_only_what_is_missing_or_broken_is_made_again(whole: Path, tmp_path: Path, made: list[int]) -> None:
    data = Path(shutil.copytree(whole, tmp_path / "data"))
    (data / "train-00001.jsonl").unlink()
    assert "train-00001.jsonl" in str(check(data).violations)
    run(job(data))
    assert made == list(range(10, 20)) and digests(data) == digests(whole)
    made.clear()
    cut = data / "train-00002.jsonl"
    cut.write_bytes(cut.read_bytes()[:-100])
    assert "train-00002.jsonl:5" in str(check(data).violations["the record has the schema"])
    next(data.rglob("*.png")).unlink()
    run(job(data))
    assert {20, 21, 22, 23, 24} <= set(made) and len(made) < 25 and digests(data) == digests(whole)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"seed": 6}, "made with seed 5, and now it is 6"),
        ({"n": 20}, "made with n 25, and now it is 20"),
        ({"shares": {"D_p": 1.0}}, "made with shares"),
        ({"languages": ("zh",)}, "made with languages"),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_other_runs_are_refused_and_lose_nothing(
    whole: Path, tmp_path: Path, other: dict[str, Any], says: str, begun: bool
) -> None:
    data = Path(shutil.copytree(whole, tmp_path / "data"))
    if begun:
        (data / "train-00002.jsonl").unlink()
        with pytest.raises(KeyboardInterrupt):
            run(job(data), stop_at(20))
    before = digests(data)
    with pytest.raises(BuildError, match=says):
        run(job(data, **other))
    assert digests(data) == before


def test_changed_builders_and_foreign_files_are_refused(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(shutil.copytree(whole, tmp_path / "data"))
    with monkeypatch.context() as patch, pytest.raises(BuildError, match="made with builders"):
        patch.setattr(records, "builders_digest", lambda: "other")
        run(job(data))
    (tmp_path / "train.jsonl").write_text("{}\n")
    with pytest.raises(BuildError, match=r"train\.jsonl is of no run"):
        run(job(tmp_path))
    (data / "manifest.json").write_text("{")
    with pytest.raises(BuildError, match="is damaged"):
        run(job(data))
    (tmp_path / "locked").mkdir()
    lock = os.open(tmp_path / "locked", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(BuildError, match="another run is writing"):
        run(job(tmp_path / "locked"))
    os.close(lock)


def test_the_other_splits_stay_while_one_is_written(whole: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(whole, tmp_path / "data"))
    entry = read_manifest(data)["splits"]["train"]
    with pytest.raises(KeyboardInterrupt):
        run(job(data, split="test"), stop_at(10))
    assert read_manifest(data)["splits"] == {"train": entry}
    manifest = run(job(data, split="test"))
    assert manifest["splits"]["train"] == entry and set(manifest["splits"]) == {"train", "test"}
    assert check(data).ok


def test_repetitions_are_left_out_across_shards_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = records._record
    monkeypatch.setattr(
        records, "_record", lambda job, i: make(job, i // 2 * 2) | {"id": f"D_p-train-5-{i:07d}", "again": i}
    )
    shares = {"D_p": 1.0}
    run(job(tmp_path / "calm", shares=shares))
    with pytest.raises(KeyboardInterrupt):
        run(job(tmp_path / "stopped", shares=shares), stop_at(10))
    run(job(tmp_path / "stopped", shares=shares))
    assert digests(tmp_path / "calm") == digests(tmp_path / "stopped")
    lines = b"".join(path.read_bytes() for path in sorted((tmp_path / "calm").glob("train-*"))).splitlines()
    assert [json.loads(line)["again"] for line in lines] == list(range(0, 50, 2))
    monkeypatch.setattr(records, "_record", lambda job, i: make(job, 0) | {"id": f"D_p-train-5-{i:07d}"})
    with pytest.raises(BuildError, match="only 1 different records"):
        run(job(tmp_path / "poor", shares=shares))


@contextlib.contextmanager
def full_disk(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    """Half of a file of this name fits on it."""
    write = Path.write_bytes

    def fill(path: Path, data: bytes) -> int:
        if name in path.name:
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fill)
        yield


def test_a_full_disk_keeps_the_finished_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["data", "p", "--n", "1100", "--workers", "1", "--out", str(tmp_path)]
    with full_disk(monkeypatch, "train-00001.jsonl"):
        assert easel(arguments) == 1
    assert "is full. Make room and run the same command again" in capsys.readouterr().err
    assert (tmp_path / "train-00000.jsonl").read_bytes().count(b"\n") == 1000
    assert not (tmp_path / "manifest.json").exists() and not list(tmp_path.rglob(".*"))
    assert easel(arguments) == 0
    assert "1,000 of 1,100 train records were there" in capsys.readouterr().err


def test_wherever_the_disk_is_full_the_same_bytes_follow(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".png", "train.run.json", "train-00002.jsonl", "README.md", "manifest.json"):
        with full_disk(monkeypatch, name), pytest.raises(OSError, match="No space"):
            run(job(tmp_path))
        assert not (tmp_path / "manifest.json").exists() and not list(tmp_path.rglob(".*"))
    run(job(tmp_path))
    assert digests(tmp_path) == digests(whole)


def test_the_card_says_what_the_manifest_says_and_spares_ones_own(whole: Path, tmp_path: Path) -> None:
    card = (whole / "README.md").read_text(encoding="utf-8")
    entry = read_manifest(whole)["splits"]["train"]
    assert card.startswith('---\nlicense: "apache-2.0"\nlanguage: ["en", "zh"]\n') and OURS in card
    assert "`easel data mix --split train --n 25 --seed 5 --shares o=0.2,p=0.8`" in card
    assert entry["builders"] in card and f"| task D_p | {entry['counts']['task D_p']} |" in card
    (tmp_path / "README.md").write_text("mine")
    run(job(tmp_path, 2))
    assert (tmp_path / "README.md").read_text() == "mine"


def test_ray_is_asked_for_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ["data", "p", "--out", str(tmp_path), "--n", "2", "--ray", "auto"]
    assert easel(arguments) == 1
    assert "pip install 'ray[data]'" in capsys.readouterr().err
    assert easel([*arguments, "--teacher", "http://127.0.0.1:1/v1", "--teacher-model", "x"]) == 2
    assert "--ray is for the offline teacher" in capsys.readouterr().err


@pytest.mark.slow
def test_on_ray_the_bytes_are_the_same(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))  # not into the home folder
    (tmp_path / "token").write_text("0" * 64)
    monkeypatch.setattr(workers, "RAY_BLOCK", 4)
    data = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt):
        run(job(data, ray="local", workers=2), stop_at(10))
    assert (data / "train-00000.jsonl").exists() and not (data / "train-00002.jsonl").exists()
    run(job(data, ray="local", workers=2))
    assert digests(data) == digests(whole)


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_run_and_not_its_shards(whole: Path, tmp_path: Path) -> None:
    def kill(line: str) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    many = job(tmp_path, 2000, workers=2, shares={"D_p": 1.0})
    with pytest.raises(BuildError, match="a worker died"):
        run(many, kill)
    assert (tmp_path / "train-00000.jsonl").exists() and not (tmp_path / "manifest.json").exists()


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """kill -9 to the run alone: its workers must notice."""
    code = "import sys; from pathlib import Path; from datasets_build.records import Job, run\n"
    code += "run(Job(Path(sys.argv[1]), 'train', 128, 5, {'D_o': 1.0}, workers=2, shard=8))"
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    command = [sys.executable, "-c", code]
    subprocess.run([*command, str(calm)], cwd=ROOT, check=True)
    pictures = len(list(calm.rglob("*.png")))
    dice = random.Random(7)
    finished: list[dict[str, int]] = []
    for share in sorted(dice.uniform(0.1, 0.95) for _ in range(5)):
        with subprocess.Popen([*command, str(killed)], cwd=ROOT) as process:
            while len(list(killed.glob("images/*/*.png"))) < share * pictures:
                assert process.poll() is None
                time.sleep(dice.uniform(0.01, 0.05))
            process.send_signal(signal.SIGKILL)
        assert not (killed / "manifest.json").exists()
        finished.append({path.name: path.stat().st_mtime_ns for path in killed.glob("train-*.jsonl")})
    subprocess.run([*command, str(killed)], cwd=ROOT, check=True)
    assert digests(killed) == digests(calm)
    finished.append({path.name: path.stat().st_mtime_ns for path in killed.glob("train-*.jsonl")})
    for earlier, later in itertools.pairwise(finished):
        assert earlier.items() <= later.items()  # none was made again
    assert 0 < len(finished[-2]) < len(finished[-1])
