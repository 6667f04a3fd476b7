"""`check` passes what the builders write, and finds each kind of damage."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.cli import main as easel
from datasets_build import dialogues
from datasets_build.banks import Speaker
from datasets_build.check import check, violations
from datasets_build.likeness import Likeness, key, likeness_text
from datasets_build.mix import SHARES
from datasets_build.plans import Step
from datasets_build.records import Dialogue, Job, NoSample, run, to_record
from datasets_build.storybook.scene import Scene
from datasets_build.table import Table
from datasets_build.topics import TOPICS

Records = list[dict[str, Any]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    run(Job(root, "train", 24, 1, SHARES, workers=1))
    run(Job(root, "test", 8, 1, SHARES, workers=1))
    return root


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "data")
    return tmp_path / "data"


def change(root: Path, damage: Callable[[Records], None], split: str = "train") -> None:
    """Rewrites a split, and its manifest with it, so that only the damage itself can be found."""
    path = root / f"{split}-00000.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    damage(records)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    manifest = json.loads((root / "manifest.json").read_text())
    digest, entry = hashlib.sha256(path.read_bytes()).hexdigest(), manifest["splits"][split]
    entry |= {"n": len(records), "sha256": digest}
    entry["shards"][0] |= {"n": len(records), "sha256": digest}
    (root / "manifest.json").write_text(json.dumps(manifest))


def turn_of(records: Records, *types: str) -> tuple[dict[str, Any], int]:
    return next((r, i) for r in records for i, turn in enumerate(r["turns"]) if turn["type"] in types)


def test_what_the_builders_write_is_right(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(whole).ok
    assert easel(["data", "check", str(whole)]) == 0
    out = capsys.readouterr().out
    assert "train: 24 records" in out and "task D_tt" in out and "keeps every rule" in out


def user_types_the_token(records: Records) -> None:
    records[0]["messages"][0]["content"][-1]["text"] += " <draw>"


def talk_draws(records: Records) -> None:
    record, i = turn_of(records, "t2t", "ti2t")
    record["messages"][2 * i + 1]["content"][0]["text"] = "<draw>a fox"


def drawn_turn_lost_its_token(records: Records) -> None:
    record, i = turn_of(records, "t2i", "ti2i")
    block = record["messages"][2 * i + 1]["content"][0]
    block["text"] = block["text"].replace("<draw>", "")


def two_users_in_a_row(records: Records) -> None:
    records[0]["messages"][1]["role"] = "user"


def other_scene(records: Records) -> None:
    record, i = turn_of(records, "t2i", "ti2i")
    scene = record["turns"][i]["scene"]
    scene["style"] = "pencil" if scene["style"] != "pencil" else "flat"


def edit_changed_more(records: Records) -> None:
    record, i = next(
        (r, i) for r in records for i, t in enumerate(r["turns"]) if (t["request"] or {}).get("op") == "edit"
    )
    request, drawn = record["turns"][i]["request"], record["turns"][i]["scene"]
    request["base"]["shot"] = "wide" if drawn["shot"] != "wide" else "normal"
    record["turns"][i]["request"]["edit"] = {"op": "style", "value": record["turns"][i]["scene"]["style"]}
    record["turns"][i]["request"].pop("then", None)
    record["turns"][i]["request"].pop("other", None)


def edit_of_another_picture(records: Records) -> None:
    record, i = next(
        (r, i) for r in records for i, t in enumerate(r["turns"])
        if i and (t["request"] or {}).get("op") == "edit" and "base_turn" not in t["request"]
        and r["turns"][i - 1]["scene"] is not None and r["messages"][2 * i]["content"][0]["type"] == "text"
    )  # fmt: skip
    before = record["turns"][i - 1]["scene"]
    before["shot"] = "wide" if before["shot"] != "wide" else "normal"


def same_record_twice(records: Records) -> None:
    records.append({**records[0], "id": "another"})


def same_id_twice(records: Records) -> None:
    records[1]["id"] = records[0]["id"]


def no_messages(records: Records) -> None:
    del records[0]["messages"]


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (user_types_the_token, "users never type a token"),
        (talk_draws, "the draw token begins each drawn turn"),
        (drawn_turn_lost_its_token, "the draw token begins each drawn turn"),
        (two_users_in_a_row, "roles alternate"),
        (other_scene, "the refined prompt says exactly the scene"),
        (edit_changed_more, "an edit changes what was asked, and nothing else"),
        (edit_of_another_picture, "a change is made of the picture on the table"),
        (same_record_twice, "no two records are the same"),
        (same_id_twice, "ids are unique"),
        (no_messages, "the record has the schema"),
    ],
)
def test_damage_is_found(data: Path, damage: Callable[[Records], None], rule: str) -> None:
    change(data, damage)
    report = check(data)
    assert any(found.startswith(rule) for found in report.violations), dict(report.violations)
    assert easel(["data", "check", str(data)]) == 1


def test_pictures_are_compared_with_their_names(data: Path) -> None:
    lost, *_, damaged = sorted((data / "images").rglob("*.png"))
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-10])
    places = check(data).violations["pictures are there, with the content that the record names"]
    assert any(lost.name in place for place in places) and any(damaged.name in place for place in places)


def test_leaks_between_the_splits_are_found(data: Path) -> None:
    train = [json.loads(line) for line in (data / "train-00000.jsonl").read_text(encoding="utf-8").splitlines()]
    stray = next(record for record in train if any(turn["scene"] for turn in record["turns"]))
    assert Scene.from_json(next(turn["scene"] for turn in stray["turns"] if turn["scene"])).split == "train"
    change(data, lambda records: records.append({**stray, "split": "test", "id": "stray"}), "test")
    rules = check(data).violations
    for rule in ("no scene is in both train and test", "no phrasing is in both train and test"):
        assert rule in rules
    assert "every scene is of the record's split" in rules and "no two records are the same" in rules


def plant(data: Path, damage: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Changes one test record by what the first drawn record of train has."""
    train = [json.loads(line) for line in (data / "train-00000.jsonl").read_text(encoding="utf-8").splitlines()]
    stray = turn_of(train, "t2i")[0]
    change(data, lambda records: damage(turn_of(records, "t2i")[0], stray), "test")


def leaks(data: Path) -> set[str]:
    return {rule for rule in check(data).violations if rule.startswith("no ") and " is in both " in rule}


def test_a_scene_a_phrasing_or_a_picture_that_leaks_is_found_by_itself(data: Path) -> None:
    assert not leaks(data)
    plant(data, lambda record, stray: record["phrasings"].append(stray["phrasings"][0]))
    assert leaks(data) == {"no phrasing is in both train and test"}

    def take_scene(record: dict[str, Any], stray: dict[str, Any]) -> None:
        record["phrasings"].pop()
        turn_of([record], "t2i")[0]["turns"][turn_of([record], "t2i")[1]]["scene"] = stray["turns"][
            turn_of([stray], "t2i")[1]
        ]["scene"]

    plant(data, take_scene)
    assert leaks(data) == {"no scene is in both train and test"}


def test_a_picture_that_leaks_is_found(data: Path) -> None:
    def picture(records: Records) -> dict[str, Any]:
        blocks = (block for record in records for m in record["messages"] for block in m["content"])
        return next(block for block in blocks if block["type"] == "image")

    train = [json.loads(line) for line in (data / "train-00000.jsonl").read_text(encoding="utf-8").splitlines()]
    change(data, lambda records: picture(records).update(picture(train)), "test")
    assert "no picture is in both train and test" in leaks(data)


def test_shares_that_miss_their_targets_are_found(data: Path) -> None:
    manifest = json.loads((data / "manifest.json").read_text())
    goals = manifest["splits"]["train"]["targets"]
    assert len(goals["composition"]) == 64 and len(goals["topic"]) == 13 and len(goals["edit"]) == 8
    goals["language"] = {"en": 0.05, "zh": 0.55, "fr": 0.4}
    (data / "manifest.json").write_text(json.dumps(manifest))
    report = check(data)
    assert "train: language" in report.violations["each share is the one that the manifest aims at"][0]
    assert report.violations["everything that the manifest aims at occurs"] == ["train: language fr"]
    assert any("target language: 2 of 3 values" in line for line in report.lines())


def going_back() -> dict[str, Any]:
    """A dialogue that corrects a change and goes back to its first picture."""
    for seed in range(50):
        rng = random.Random(seed)
        table = Table(Speaker("en", "train", rng), TOPICS[0])
        try:
            dialogues.ask_for_picture(table.speaker, table)
            for step in ("recolour", "correct", "return"):
                dialogues.change_picture(table.speaker, table, Step("ti2i", step))
        except NoSample:
            continue
        if table.exchanges[3].drawn == table.exchanges[0].drawn:
            dialogue = Dialogue("en", tuple(table.exchanges), tuple(table.speaker.used), pictures=False)
            return to_record(dialogue, "D_c-train-0-0", "D_c", "train", 1, Path("unused"))
    raise AssertionError("no such dialogue")


def test_turns_that_go_back_are_held_to_the_picture_that_they_name() -> None:
    record = going_back()
    assert violations(record) == []
    back, corrected = 3, 2

    def broken(turn: int, **changed: Any) -> list[str]:
        damaged = json.loads(json.dumps(record))
        damaged["turns"][turn]["request"].update(changed)
        return violations(damaged)

    there = "the picture that a turn goes back to was drawn before, and is its base"
    assert there in broken(back, base_turn=back) and there in broken(back, base_turn="first")
    assert "an edit changes what was asked, and nothing else" in broken(
        back, base=record["turns"][1]["scene"], base_turn=1
    )
    on_top = record["turns"][corrected - 1]
    assert "a correction is made of the picture before the edit that it corrects" in broken(
        corrected, base=on_top["scene"], base_turn=corrected - 1
    )
    damaged = json.loads(json.dumps(record))
    del damaged["turns"][back]["request"]["base_turn"]
    assert "a turn that goes back says to which picture" in violations(damaged)


def test_near_duplicates_are_counted_and_are_no_violation(data: Path) -> None:
    said = [{"messages": [{"content": [{"type": "text", "text": text}]}]} for text in (
        "Draw a red fox, please!", "draw an orange  CAT please", "Draw a red fox on the beach", 
        "画一只红色的狐狸。", "画一只蓝色的乌龟",
    )]  # fmt: skip
    keys = [key(record) for record in said]
    assert keys[0] == keys[1] != keys[2] and keys[3] == keys[4] != keys[0]
    assert likeness_text("a firefox in the snow") == "afirefoxinthesnow"
    likeness = Likeness()
    for record in said[:3]:
        likeness.add("train", record)
    likeness.add("test", said[1])
    assert likeness.within("train") == pytest.approx(1 / 3) and likeness.across("test", "train") == 1.0
    assert likeness.across("train", "test") == pytest.approx(2 / 3) and likeness.within("validation") == 0.0
    assert "near duplicates: 0.0% are like an earlier one of the split" in "\n".join(check(data).lines())


def test_a_changed_file_and_a_lost_manifest_are_found(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (data / "train-00000.jsonl").open("a") as file:
        file.write("\n")
    assert "the file is the one that the manifest names" in check(data).violations
    (data / "manifest.json").unlink()
    assert "manifest.json is there" in check(data).violations
    assert easel(["data", "check", str(data / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_records_keep_pictures_only_where_a_later_message_follows(whole: Path) -> None:
    for line in (whole / "train-00000.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        assert [block["type"] for block in record["messages"][-1]["content"]] == ["text"]
