"""Exports: each format is read back, as its trainer reads it, and says what the canonical records say."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli import main as easel
from datasets_build import export
from datasets_build.export import FORMATS, PICTURES, Export, ExportError, run
from datasets_build.mix import SHARES
from datasets_build.records import Job
from datasets_build.records import run as build
from dialog_mllm.messages import DRAW, JOINER, SWITCH, Message
from tests.datasets_build.test_check import change
from tests.datasets_build.test_mix import digests

Said = list[tuple[str, list[str]]]  # role, and the text or a picture's SHA-256 of each block
TYPED = "what do <image> and <video> mean? And {{image}}, <draw>, <|image_pad|>?"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    build(Job(root, "train", 14, 1, SHARES, workers=1))
    build(Job(root, "validation", 3, 1, SHARES, workers=1))

    def type_tokens(records: list[dict[str, Any]]) -> None:
        for record in records[::2]:
            record["messages"][0]["content"][-1]["text"] = TYPED
            record["messages"][-1]["content"][0]["text"] += " <image>"

    change(root, type_tokens)
    return root


def canonical(data: Path, split: str) -> dict[str, Said]:
    """A reply's picture stands behind its text here, and where messages are compared."""
    lines = (data / f"{split}-00000.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        record["id"]: [(m["role"], [b.get("text") or b["sha256"] for b in m["content"]]) for m in record["messages"]]
        for record in map(json.loads, lines)
    }


def blocks_of(row: dict[str, Any], pictures: Iterator[str]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each message's blocks, whichever way the format writes them: ("text" or "image", text or path)."""
    for message in row["messages"]:
        content, blocks = message["content"], []
        if isinstance(content, str):
            first, *rest = content.split("<image>")  # what LLaMA-Factory and ms-swift look for
            blocks = [("text", first)]
            for text in rest:
                blocks += [("image", next(pictures)), ("text", text)]
        for block in [] if isinstance(content, str) else content:
            picture = block["type"] == "image"
            blocks.append((block["type"], (block.get("path") or next(pictures)) if picture else block["text"]))
        yield message["role"], [block for block in blocks if block[1]]


def read_back(row: dict[str, Any], root: Path) -> Said:
    """The row as a canonical record: drawn pictures go back to their replies, typed text loses its joiners."""
    pictures = iter(row.get("images", row.get("images_file_names", ())))
    said: Said = []
    for role, blocks in blocks_of(row, pictures):
        content = []
        for kind, value in blocks:
            if kind == "image":
                content.append(hashlib.sha256((root / value).read_bytes()).hexdigest())
            else:
                content.append(value.replace("<" + JOINER, "<").replace("{" + JOINER + "{", "{{"))
        if said and role == "user" and said[-1][1][0].removeprefix(SWITCH).startswith(DRAW) and len(content) > 1:
            said[-1][1].append(content.pop(0))
        said.append((role, content))
    assert next(pictures, None) is None  # as many pictures as places for them
    return said


@pytest.mark.parametrize("pictures", PICTURES)
@pytest.mark.parametrize("name", FORMATS)
def test_what_was_exported_reads_back_as_the_canonical_messages(
    data: Path, tmp_path: Path, name: str, pictures: str
) -> None:
    manifest = run(Export(data, tmp_path / "out", name, pictures))
    shutil.move(tmp_path / "out", tmp_path / "moved")  # copied and linked, an export can be moved
    shown = 0
    for split in ("train", "validation"):
        entry = manifest["splits"][split]
        file = tmp_path / "moved" / entry["file"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == entry["sha256"]
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        read = {row["id"]: read_back(row, file.parent) for row in rows}
        assert read == canonical(data, split)
        assert entry["n"] == len(rows)
        shown += entry["pictures"]
    assert shown > 10
    assert bool(list((tmp_path / "moved").rglob("*.png"))) == (pictures != "absolute")


@pytest.mark.parametrize("name", FORMATS)
def test_tokens_arrive_and_what_users_type_is_never_one(data: Path, tmp_path: Path, name: str) -> None:
    manifest = run(Export(data, tmp_path / "out", name, "absolute"))
    text = (tmp_path / "out" / manifest["splits"]["train"]["file"]).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    drawn = switched = 0
    for row in rows:
        texts = [
            (role, "".join(value for kind, value in blocks if kind == "text"))
            for role, blocks in blocks_of(row, iter(row.get("images", ())))
        ]
        for role, said in texts:
            own = said.removeprefix(SWITCH) if role == "assistant" else said
            switched += own != said
            drawn += role == "assistant" and own.startswith(DRAW)
            body = own.removeprefix(DRAW) if role == "assistant" else own
            assert not any(token in body for token in (DRAW, SWITCH, "<image>", "<video>", "<|image_pad|>"))
            assert name != "llamafactory" or "{{" not in body
    assert drawn > 10 and switched > 0
    assert f"<{JOINER}image>" in text


def test_llamafactory_finds_its_columns_and_tags(data: Path, tmp_path: Path) -> None:
    run(Export(data, tmp_path / "out", "llamafactory"))
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert set(info) == {"easel_train", "easel_validation"}
    for entry in info.values():
        assert entry["formatting"] == "sharegpt"
        row = json.loads((tmp_path / "out" / entry["file_name"]).read_text(encoding="utf-8").splitlines()[0])
        assert set(entry["columns"].values()) <= set(row)
        for i, message in enumerate(row[entry["columns"]["messages"]]):
            role = entry["tags"]["assistant_tag" if i % 2 else "user_tag"]
            assert message[entry["tags"]["role_tag"]] == role and isinstance(message[entry["tags"]["content_tag"]], str)


def test_axolotl_is_given_its_lines(data: Path, tmp_path: Path) -> None:
    run(Export(data, tmp_path / "out", "axolotl"))
    settings = yaml.safe_load((tmp_path / "out" / "axolotl.yaml").read_text())
    assert settings["tokens"] == [DRAW, SWITCH]
    assert [entry["path"] for entry in settings["datasets"] + settings["test_datasets"]] == [
        "train.jsonl",
        "validation.jsonl",
    ]
    assert "images" not in json.loads((tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8").splitlines()[0])


@pytest.mark.slow
def test_trl_reads_what_serving_shows_and_its_lora_loads(data: Path, tmp_path: Path) -> None:
    """TRL's own data collator makes each record's tokens; one step of its SFTTrainer makes an adapter for `easel`."""
    import datasets
    import torch
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from dialog_mllm.data import Encoder
    from dialog_mllm.lora import WEIGHTS, load_adapted, targets
    from dialog_mllm.model import load_base
    from dialog_mllm.server import check_adapter

    run(Export(data, tmp_path / "out", "trl"))
    rows = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    model, processor = load_base(WEIGHTS / "base")
    adapter = tmp_path / "adapter"
    settings = SFTConfig(
        str(adapter), max_steps=1, learning_rate=1e-3, per_device_train_batch_size=4, use_cpu=True, bf16=False,
        max_length=None, save_strategy="no", report_to=[],
    )  # fmt: skip
    lora = LoraConfig(r=4, target_modules=targets(model), task_type="CAUSAL_LM")
    trainer = SFTTrainer(model, settings, train_dataset=rows, processing_class=processor, peft_config=lora)
    encoder = Encoder(processor, max_images=99)
    lines = (data / "train-00000.jsonl").read_text(encoding="utf-8").splitlines()
    records = {record["id"]: record for record in map(json.loads, lines)}
    shown = 0
    for row in trainer.train_dataset:
        messages = [Message.from_json(message, data) for message in records.pop(row["id"])["messages"]]
        batch = trainer.data_collator([row])
        assert batch["input_ids"][0].tolist() == encoder.ids(messages)[0]
        shown += batch["pixel_values"].shape[1] if "pixel_values" in batch else 0
    assert not records and shown == sum(len(row["images"]) for row in rows) > 10
    assert 0 < trainer.train().training_loss < 20
    trainer.save_model(str(adapter))
    check_adapter(str(adapter))
    adapted = dict(load_adapted(WEIGHTS / "base", adapter)[0].named_parameters())
    changed = [name for name, weight in load_base(WEIGHTS / "base")[0].named_parameters()
               if not torch.equal(weight, adapted[name])]  # fmt: skip
    assert changed and all("text_model" in name for name in changed)


def test_the_same_export_is_resumed_to_the_same_bytes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(Export(data, tmp_path / "whole", "swift"))
    rows: list[int] = []

    def stop(messages: Any) -> dict[str, Any]:
        rows.append(1)
        if len(rows) == 5:
            raise OSError(28, "No space left on device")
        return export._swift(messages)

    with monkeypatch.context() as patch:
        patch.setitem(FORMATS, "swift", export.Format(stop, FORMATS["swift"].use))
        with pytest.raises(OSError, match="No space"):
            run(Export(data, tmp_path / "out", "swift"))
    assert not (tmp_path / "out" / "manifest.json").exists() and not list((tmp_path / "out").glob("*.jsonl"))
    for _ in range(2):  # what was begun, and what is whole already
        run(Export(data, tmp_path / "out", "swift"))
        assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_a_folder_with_anything_else_in_it_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["data", "export", "--data", str(data), "--out", str(tmp_path / "out"), "--format"]
    assert easel([*arguments, "swift"]) == 0
    assert f"ROOT_IMAGE_DIR={tmp_path / 'out'} swift sft" in capsys.readouterr().out
    before = digests(tmp_path / "out")
    assert easel([*arguments, "llamafactory"]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert digests(tmp_path / "out") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ExportError, match="not empty"):
        run(Export(data, tmp_path / "mine", "swift"))


def missing(picture: Path) -> None:
    picture.unlink()


def cut_short(picture: Path) -> None:
    picture.write_bytes(picture.read_bytes()[:40])


def another(picture: Path) -> None:
    other = next(path for path in picture.parent.parent.rglob("*.png") if path != picture)
    picture.write_bytes(other.read_bytes())


@pytest.mark.parametrize(("damage", "says"), [(missing, "missing"), (cut_short, "broken"), (another, "not the one")])
@pytest.mark.parametrize("pictures", PICTURES)
def test_a_bad_picture_is_named_with_its_record(
    data: Path, tmp_path: Path, damage: Callable[[Path], None], says: str, pictures: str
) -> None:
    root = Path(shutil.copytree(data, tmp_path / "data"))
    lines = (root / "train-00000.jsonl").read_text(encoding="utf-8").splitlines()
    name, path = next(
        (record["id"], block["path"])
        for record in map(json.loads, lines)
        for message in record["messages"]
        for block in message["content"]
        if block["type"] == "image"
    )
    damage(root / path)
    with pytest.raises(ExportError, match=says) as error:
        run(Export(root, tmp_path / "out", "trl", pictures))
    assert name in str(error.value) and path in str(error.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_wrong_sources_are_named(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(shutil.copytree(data, tmp_path / "data"))
    arguments = ["data", "export", "--data", str(root), "--format", "trl", "--out"]
    assert easel([*arguments, str(root)]) == 2
    assert "beside the data set" in capsys.readouterr().err

    def climb(records: list[dict[str, Any]]) -> None:
        records[3]["messages"][0]["content"].insert(0, {"type": "image", "path": "../secret.png", "sha256": "0"})

    change(root, climb)
    assert easel([*arguments, str(tmp_path / "a")]) == 1
    assert "../secret.png leads out of the data set" in capsys.readouterr().err
    (root / "train-00000.jsonl").write_text('{"id": "x", "messages": [{"role": "user"}]}\n')
    assert easel([*arguments, str(tmp_path / "b")]) == 1
    assert "train-00000.jsonl:1 x: this is no record" in capsys.readouterr().err
    shutil.copy(data / "validation-00000.jsonl", root / "train-00000.jsonl")
    assert easel([*arguments, str(tmp_path / "c")]) == 1
    assert "easel data check" in capsys.readouterr().err
    (root / "manifest.json").unlink()
    assert easel([*arguments, str(tmp_path / "d")]) == 1
    assert "no whole data set" in capsys.readouterr().err
