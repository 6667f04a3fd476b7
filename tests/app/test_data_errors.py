"""`easel data errors`: each kind of error is found, corrected, written, checked and learnt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.cli import main as easel
from app.commands import data_errors
from datasets_build.check import check
from datasets_build.mix import SHARES
from datasets_build.records import Job, run
from dialog_mllm.errors import DialogUnavailable
from dialog_mllm.evaluation import turns_of
from dialog_mllm.messages import DRAW, SWITCH
from dialog_mllm.records import read_records
from tests.app.fakes import KnowingModel
from tests.datasets_build.scripted import KEY, ScriptedEndpoint, serving

WRONG = "<draw>A flat picture of a purple castle and a black pagoda, in the desert at sunset."


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    run(Job(root, "train", 16, 5, SHARES, workers=1))
    return root


@pytest.fixture
def model(data: Path, monkeypatch: pytest.MonkeyPatch) -> KnowingModel:
    """Right in what it says, and draws the same wrong picture always."""
    model = KnowingModel(data / "train-00000.jsonl", lambda wanted: WRONG if DRAW in wanted else wanted)
    monkeypatch.setattr(data_errors, "start_client", lambda *arguments: model)
    return model


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def errors(data: Path, out: Path, *more: str) -> int:
    return easel(["data", "errors", "--data", str(data), "--out", str(out), "--json", *more])


def test_wrong_replies_become_corrections_and_pairs(
    data: Path, model: KnowingModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert errors(data, tmp_path, "--keep-right", "0.5") == 0
    result = json.loads(capsys.readouterr().out)
    records, pairs = lines(tmp_path / "train-00000.jsonl"), lines(tmp_path / "preferences.jsonl")
    assert check(tmp_path).ok, dict(check(tmp_path).violations)
    assert result["turns"] == model.asked and result["records"] == len(records)
    right = [record for record in records if record["error"] is None]
    assert {record["error"] for record in records} == {None, "prompt"}
    assert len(right) <= 0.5 * result["wrong"] + 1
    assert len(pairs) == result["wrong"] >= result["errors"]["prompt"]
    held = {record["id"]: record for record in lines(data / "train-00000.jsonl")}
    for record in records:
        turn = record["of"]["turn"]
        whole = held[record["of"]["id"]]
        assert record["task"] == "D_e" and record["learn"] == [turn] and record["of"]["task"] == whole["task"]
        assert record["messages"][: 2 * turn + 1] == whole["messages"][: 2 * turn + 1]
        assert record["messages"][-1]["content"] == whole["messages"][2 * turn + 1]["content"][:1]
    for pair in pairs:
        shown = [block for message in pair["prompt"] for block in message["content"] if block["type"] == "image"]
        assert len(shown) == len(pair["images"]) and all((tmp_path / path).is_file() for path in pair["images"])
        assert pair["rejected"] == [{"role": "assistant", "content": [{"type": "text", "text": WRONG}]}]
        assert pair["chosen"][0]["content"][0]["text"].removeprefix(SWITCH).startswith(DRAW)
        assert pair["prompt"][-1]["role"] == "user"


def test_a_data_set_is_held_whole_unless_n_is_named(
    data: Path, model: KnowingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_errors, "DIALOGUES", 2)
    held = [len(record["turns"]) for record in lines(data / "train-00000.jsonl")]
    assert errors(data, tmp_path / "all") == 0 and model.asked == sum(held)
    model.asked = 0
    assert errors(data, tmp_path / "three", "--n", "3") == 0 and model.asked == sum(held[:3])


def test_a_run_that_broke_off_is_taken_up(
    data: Path, model: KnowingModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = model.say
    model.say = lambda wanted: DialogUnavailable("The server is away.") if model.asked == 9 else good(wanted)
    assert errors(data, tmp_path) == 1
    assert "The server is away." in capsys.readouterr().err
    assert not (tmp_path / "train-00000.jsonl").exists()
    kept = len(lines(tmp_path / "answers.journal.jsonl")) - 1
    assert kept > 0
    model.say, model.asked = good, 0
    assert errors(data, tmp_path) == 0
    turns = json.loads(capsys.readouterr().out)["turns"]
    assert model.asked == turns - kept
    before = (tmp_path / "train-00000.jsonl").read_bytes()
    assert errors(data, tmp_path) == 0
    assert model.asked == turns - kept and (tmp_path / "train-00000.jsonl").read_bytes() == before
    assert errors(data, tmp_path, "--url", "http://127.0.0.1:9", "--model", "other") == 1
    assert "name another --out" in capsys.readouterr().err


def test_every_kind_of_error_is_named(
    data: Path, model: KnowingModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for say, expected in (
        (lambda wanted: WRONG, {"prompt", "false_draw"}),
        (lambda wanted: "no", {"missed_draw", "question"}),
        (lambda wanted: "", {"no_reply"}),
        (lambda wanted: wanted.removeprefix(SWITCH), {"topic"}),
    ):
        model.say = say
        out = tmp_path / str(sorted(expected)[0])
        assert errors(data, out, "--keep-right", "0") == 0
        kinds = json.loads(capsys.readouterr().out)["errors"]
        assert expected <= set(kinds) and "right" not in kinds
        assert check(out).ok
    assert lines(tmp_path / "no_reply" / "preferences.jsonl") == []


def test_what_cannot_be_done_is_said(
    data: Path, model: KnowingModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(Job(tmp_path / "test", "test", 2, 5, {"D_p": 1.0}, workers=1))
    (tmp_path / "test" / "test-00000.jsonl").rename(tmp_path / "test" / "train-00000.jsonl")
    (tmp_path / "twice").mkdir()
    (tmp_path / "twice" / "manifest.json").write_bytes((data / "manifest.json").read_bytes())
    line = next(line for line in (data / "train-00000.jsonl").read_bytes().splitlines(True) if b'"image"' not in line)
    (tmp_path / "twice" / "train-00000.jsonl").write_bytes(2 * line)
    model.say = lambda wanted: wanted
    for folder, more, reason in (
        (data, (), "All 38 replies were right"),
        (data, ("--n", "0"), "--n and --workers must be at least 1"),
        (data, ("--teacher", "gpt"), "`offline` or an address"),
        (tmp_path / "gone", (), "manifest.json is missing"),
        (tmp_path / "test", (), "of the split 'test'"),
        (tmp_path / "twice", (), "have one id: see `easel data check"),
    ):
        assert errors(folder, tmp_path / "out", *more) == 1
        error = capsys.readouterr().err
        assert reason in error.replace(str(model.asked), "38"), error
    assert errors(data, data) == 1
    assert "name another --out" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- the teacher


@pytest.fixture
def teacher(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedEndpoint]:
    """Knows the right replies by the last thing that the user said; English prompts it spoils at the first attempt."""
    right: dict[str, str] = {}
    for turn in turns_of(read_records([data / "train-00000.jsonl"])):
        right[turn.history[-1].text] = turn.wanted.removeprefix(SWITCH).removeprefix(DRAW)

    def answer(body: dict[str, Any]) -> str:
        content = body["messages"][0]["content"]
        brief = content if isinstance(content, str) else content[0]["text"]
        key = next(iter(json.loads(brief.splitlines()[-1])))
        asked = next(said for said in sorted(right, key=len, reverse=True) if f"{said}\n\n" in brief)
        if asked not in spoilt and right[asked].isascii():
            spoilt.add(asked)
            return json.dumps({key: "A flat picture of a green robot, in space at night."})
        return json.dumps({key: right[asked]})

    spoilt: set[str] = set()
    monkeypatch.setenv("TEACHER_KEY", KEY)
    with serving(answer) as server:
        yield server


def test_a_teacher_corrects_and_is_judged_itself(
    data: Path, model: KnowingModel, teacher: ScriptedEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--teacher", teacher.url, "--teacher-model", "scripted", "--teacher-key-env", "TEACHER_KEY"]
    more += ["--licence", "CC0-1.0", "--attempts", "9"]
    assert errors(data, tmp_path, *more) == 0
    result = json.loads(capsys.readouterr().out)
    assert check(tmp_path).ok, dict(check(tmp_path).violations)
    records = lines(tmp_path / "train-00000.jsonl")
    assert {(record["source"], record["licence"]) for record in records} == {
        ("storybook-offline, corrected by scripted", "CC0-1.0")
    }
    assert {record["scores"].get("attempts") for record in records} == {None, 1, 2}
    assert result["teacher"]["refused"] > 0 and result["teacher"]["not_seen"] > 0
    reasons = {line["reason"] for line in lines(next((tmp_path / "teacher").glob("*.refused.jsonl")))}
    assert "the correction is wrong as well: prompt" in reasons
    asked = len(teacher.requests)
    assert asked == result["teacher"]["answers"]
    assert errors(data, tmp_path, *more) == 0
    assert len(teacher.requests) == asked  # nothing is paid twice
    teacher.requests.clear()
    assert errors(data, tmp_path / "seen", *more, "--teacher-pictures") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["teacher"]["not_seen"] == 0
    shown = [part for request in teacher.requests for part in request["messages"][0]["content"][1:]]
    assert shown and {part["type"] for part in shown} == {"image_url"}


def test_a_teacher_that_never_corrects_is_given_up(
    data: Path, model: KnowingModel, teacher: ScriptedEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--teacher", teacher.url, "--teacher-model", "scripted", "--teacher-key-env", "TEACHER_KEY"]
    teacher.answer = lambda body: json.dumps({"prompt": WRONG.removeprefix(DRAW)})
    assert errors(data, tmp_path, *more, "--give-up", "3", "--concurrency", "1") == 1
    error = capsys.readouterr().err
    assert "3 answers in a row were refused" in error and "answers are kept" in error
    assert not (tmp_path / "train-00000.jsonl").exists()


# ---------------------------------------------------------------------------------------------- the model of the chat


@pytest.mark.slow
def test_the_bundled_model_learns_from_its_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "errors"
    assert easel(["data", "errors", "--out", str(out), "--n", "40", "--workers", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 < result["wrong"] < result["turns"] / 2 and result["errors"]["right"] > 0
    assert easel(["data", "check", str(out)]) == 0
    run(Job(tmp_path / "d", "validation", 8, 1, SHARES, workers=1))
    validation = ["--validation", str(tmp_path / "d" / "validation-00000.jsonl"), "--minutes", "0.2"]
    assert easel(["finetune", "--data", str(out), *validation, "--rank", "4", "--out", str(tmp_path / "lora")]) == 0
    assert (tmp_path / "lora" / "adapter" / "adapter_model.safetensors").is_file()
