"""`easel data recaption`: the world's own sets by their scenes, other pictures by a teacher with eyes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.cli import main as easel
from datasets_build.pictures import write_pictures
from datasets_build.storybook.reading import find_template, read_prompt
from datasets_build.storybook.scene import Scene
from tests.datasets_build.scripted import KEY, ScriptedEndpoint, serving


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ------------------------------------------------------------------------------------------------ the world's own sets


def test_every_text_becomes_a_refined_prompt_of_its_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write_pictures(old, 60, "train", 3, size=32, workers=1, shard=32)
    assert easel(["data", "recaption", "--pictures", str(old), "--out", str(new)]) == 0
    assert json.loads(capsys.readouterr().out) == {"out": str(new), "n": 60}
    forms: Counter[int] = Counter()
    for shard in ("pictures-00000", "pictures-00001"):
        before, after = lines(old / f"{shard}.jsonl"), lines(new / f"{shard}.jsonl")
        assert [line["scene"] for line in before] == [line["scene"] for line in after]
        assert (old / f"{shard}.npy").read_bytes() == (new / f"{shard}.npy").read_bytes()
        for line in after:
            for language in ("en", "zh"):
                for text in (line["prompt"][language], *line["captions"][language]):
                    form = find_template(text)
                    assert form is not None and form[0] == language
                    assert read_prompt(text) == Scene.from_json(line["scene"])
                    forms[form[1]] += 1
                assert len(line["captions"][language]) == 2
    assert 0.9 < forms[0] / forms.total() < 1.0  # as the dialog model's prompts
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (old, new)]
    assert manifests[1] == manifests[0] | {"recaptioned": True}
    before = (new / "pictures-00000.jsonl").read_bytes()
    assert easel(["data", "recaption", "--pictures", str(old), "--out", str(new)]) == 0
    assert (new / "pictures-00000.jsonl").read_bytes() == before
    write_pictures(tmp_path / "other", 4, "train", 4, size=32, workers=1)
    assert easel(["data", "recaption", "--pictures", str(tmp_path / "other"), "--out", str(new)]) == 1
    assert "holds other pictures" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ other pictures

GOOD = {
    "subject": "a small boat", "attributes": "red, with a white sail", "background": "on a lake at dusk",
    "style": "oil painting", "shot": "wide view",
    "prompt": "An oil painting of a small boat, red with a white sail, on a lake at dusk near Como, in a wide view.",
}  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    rows = []
    for n, tags in enumerate((["lake", "夜晚"], ["Como"], [])):
        Image.new("RGB", (20, 10), (n, 90, 90)).save(folder / "sub" / f"{n}.png")
        rows.append({"file_name": f"sub/{n}.png", "text": f"DSC_{n} Como", "tags": tags})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedEndpoint]:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    with serving(lambda body: json.dumps(GOOD)) as server:
        yield server


def recaption(photos: Path, out: Path, teacher: ScriptedEndpoint, *more: str) -> int:
    return easel([
        "data", "recaption", "--pictures", str(photos), "--out", str(out), "--teacher", teacher.url, "--language", "en",
        "--teacher-model", "eyes", "--teacher-key-env", "TEACHER_KEY", "--backoff", "0.01", *more,
    ])  # fmt: skip


def test_a_teacher_with_eyes_captions_photos(
    photos: Path, teacher: ScriptedEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert recaption(photos, out, teacher, "--licence", "CC0-1.0", "--concurrency", "1") == 0
    manifest = json.loads(capsys.readouterr().out)
    assert (manifest["captions"], manifest["left_out"], manifest["source"]) == (3, 0, "eyes")
    rows = lines(out / "metadata.jsonl")
    assert [row["file_name"] for row in rows] == ["sub/0.png", "sub/1.png", "sub/2.png"]
    assert rows[0]["text"] == GOOD["prompt"] and rows[0]["raw"] == "DSC_0 Como" and rows[0]["scores"] == {"attempts": 1}
    assert all((out / row["file_name"]).read_bytes() == (photos / row["file_name"]).read_bytes() for row in rows)
    parts = teacher.requests[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "text"]
    assert "lake" in parts[1]["text"] and "夜晚" not in parts[1]["text"] and "DSC_0 Como" in parts[1]["text"]
    assert recaption(photos, out, teacher, "--licence", "CC0-1.0") == 0
    assert len(teacher.requests) == 3  # nothing is paid twice


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"shot": "from high above the clouds"}, "does not say the shot"),
        ({"prompt": GOOD["prompt"].replace("lake", "pond")}, "does not name the tag 'lake'"),
        ({"prompt": "short"}, "characters"),
        ({"style": None}, "lacks 'style'"),
        ({"prompt": GOOD["prompt"] + " Do not mention this task. Answer with one JSON object"}, "speaks of the task"),
    ],
)
def test_captions_that_break_a_rule_are_asked_for_again(
    change: dict[str, Any], reason: str, photos: Path, teacher: ScriptedEndpoint, tmp_path: Path
) -> None:
    bad = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    teacher.answer = lambda body: json.dumps(bad if len(teacher.requests) == 1 else GOOD)
    assert recaption(photos, tmp_path / "out", teacher, "--concurrency", "1") == 0
    (refused,) = lines(tmp_path / "out" / "teacher" / "recaption.refused.jsonl")
    assert reason in refused["reason"] and refused["index"] == 0
    assert lines(tmp_path / "out" / "metadata.jsonl")[0]["scores"] == {"attempts": 2}


def test_pictures_that_cannot_be_read_are_left_out_and_said(
    photos: Path, teacher: ScriptedEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "sub" / "0.png").write_text("no picture")
    (photos / "sub" / "1.png").unlink()
    assert recaption(photos, tmp_path / "out", teacher) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == 2 and len(teacher.requests) == 1
    reasons = [line["reason"] for line in lines(tmp_path / "out" / "teacher" / "recaption.refused.jsonl")]
    assert "not a picture that can be read" in reasons[0] and "not there any more" in reasons[1]


def test_what_cannot_be_recaptioned_is_said(
    photos: Path, teacher: ScriptedEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path / "set", 2, "train", 3, size=32, workers=1)
    (tmp_path / "nothing").mkdir()
    offline = ["data", "recaption", "--out", str(tmp_path / "out"), "--pictures"]
    assert easel([*offline, str(photos)]) == 1
    assert "name a vision model with --teacher" in capsys.readouterr().err
    assert easel([*offline, str(tmp_path / "nothing")]) == 1
    assert "neither shards nor a metadata.jsonl" in capsys.readouterr().err
    assert easel([*offline, str(tmp_path / "out")]) == 1
    assert "name another --out" in capsys.readouterr().err
    assert recaption(tmp_path / "set", tmp_path / "out", teacher) == 1
    assert "leave out --teacher" in capsys.readouterr().err
    (photos / "metadata.jsonl").write_text('{"file_name": "../secret.png", "text": "x"}\n')
    assert recaption(photos, tmp_path / "out", teacher) == 1
    assert "line 1" in capsys.readouterr().err and not teacher.requests
    assert recaption(photos, tmp_path / "out", teacher, "--attempts", "0") == 2
    assert "--attempts must be at least 1" in capsys.readouterr().err
