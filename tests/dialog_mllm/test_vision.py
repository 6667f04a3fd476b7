"""The vision phase of the base: what is asked of a picture, and that the tower learns it."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets_build.pictures import write_pictures
from dialog_mllm.data import Encoder, PictureCache, collate
from dialog_mllm.model import Eyes, build_base
from dialog_mllm.records import DataError
from dialog_mllm.tokenizer import train_tokenizer
from dialog_mllm.vision import (
    IGNORE,
    Pictures,
    Reader,
    caption_samples,
    read_accuracy,
    read_loss,
    train_vision,
)
from tests.dialog_mllm import toy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder, 12, "train", 1, 128, workers=1, shard=8)
    return folder


def test_every_question_has_the_scenes_answer(folder: Path) -> None:
    pictures = Pictures.open(folder)
    scenes = [
        json.loads(line)["scene"]
        for shard in sorted(folder.glob("*.jsonl"))
        for line in shard.read_text(encoding="utf-8").splitlines()
    ]
    assert len(pictures) == len(scenes) == 12 and pictures.pixels([0, 11]).shape == (2, 128, 128, 3)
    labels = pictures.labels
    for scene, rows, whole in zip(scenes, pictures.subjects, pictures.whole, strict=True):
        assert labels["style"][whole[2]] == scene["style"]
        by_position = {subject["position"]: subject for subject in scene["subjects"]}
        for position, row in zip(labels["position"], rows.tolist(), strict=True):
            subject = by_position.get(position)
            if subject is None:
                assert row[0] == len(labels["kind"]) and set(row[1:]) == {IGNORE}
                continue
            worn = {accessory["kind"]: accessory["colour"] for accessory in subject["accessories"]}
            assert labels["kind"][row[0]] == subject["kind"] and labels["colour"][row[1]] == subject["colour"]
            for kind, answer in zip(labels["accessory"], row[3:], strict=True):
                assert (labels["colour"][answer - 1] if answer else None) == worn.get(kind)


def test_the_reader_can_read_what_the_tokens_say(folder: Path) -> None:
    """From tokens of which each picture has its own, all is learnt by heart."""
    torch.manual_seed(0)
    pictures = Pictures.open(folder)
    tokens = torch.randn(12, 16, 64)
    reader = Reader(pictures.labels, 64)
    optimizer = torch.optim.Adam(reader.parameters(), 0.01)
    for _ in range(100):
        loss = read_loss(reader, tokens, pictures.subjects, pictures.whole)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    shares = read_accuracy(reader, tokens, pictures.subjects, pictures.whole)
    assert set(shares) == {"kind", "colour", "accessories", "whole"} and min(shares.values()) > 0.9


def test_the_tower_is_trained_once(folder: Path, tmp_path: Path) -> None:
    model, processor = build_base(train_tokenizer(["a red fox", "一只狐狸"], 320), toy.SMALL)
    cache = PictureCache(processor)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert train_vision(Eyes.of(model), cache.normalised, Pictures.open(folder), tmp_path, minutes=0.001)["whole"] >= 0
    changed = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    assert changed and all("vision_model" in name or "connector" in name for name in changed)

    again, _ = build_base(train_tokenizer(["a red fox", "一只狐狸"], 320), toy.SMALL)
    assert train_vision(Eyes.of(again), cache.normalised, Pictures.open(folder), tmp_path, minutes=0.001) == {}
    for name in changed:
        assert torch.equal(again.state_dict()[name], model.state_dict()[name])


def test_eyes_that_were_taught_wait_for_the_reader(folder: Path, tmp_path: Path) -> None:
    model, processor = build_base(train_tokenizer(["a red fox", "一只狐狸"], 320), toy.SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_vision(
        Eyes.of(model), PictureCache(processor).normalised, Pictures.open(folder), tmp_path, 0.001, taught=True
    )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_eyes_in_the_place_of_earlier_ones_learn_to_make_their_tokens(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, processor = build_base(train_tokenizer(["a red fox", "一只狐狸"], 320), toy.SMALL)
    earlier = copy.deepcopy(Eyes.of(model))
    pixels = PictureCache(processor).normalised(Pictures.open(folder).pixels(range(12)))

    def apart() -> float:
        return (Eyes.of(model).tokens(pixels) - earlier.tokens(pixels)).square().mean().item()

    with torch.no_grad():
        Eyes.of(model).tower.embeddings.position_embedding.weight.normal_()
        before = apart()
    settings = {"minutes": 0.1, "taught": True, "earlier": earlier}
    train_vision(Eyes.of(model), PictureCache(processor).normalised, Pictures.open(folder), tmp_path, **settings)
    assert apart() < 0.5 * before
    assert "of their variance from the earlier tokens" in capsys.readouterr().out


def test_a_caption_is_a_reply_to_its_own_picture(folder: Path) -> None:
    _, processor = build_base(train_tokenizer(["a red fox", "一只狐狸"], 320), toy.SMALL)
    pictures, cache = Pictures.open(folder), PictureCache(processor)
    cache.pixels, cache.more = np.zeros((5, 128, 128, 3), np.uint8), pictures
    samples = caption_samples(pictures, Encoder(processor), first_row=5)
    kinds = pictures.labels["accessory"]
    rows = []
    for row, scene in enumerate(pictures.scenes):
        worn = [[kinds.index(accessory["kind"]) for accessory in s["accessories"]] for s in scene["subjects"]]
        rows += [row] if worn == [sorted(each) for each in worn] else []
    assert len(rows) < len(pictures)  # in which order things were put on does not show
    assert [sample.pictures for sample in samples] == [(5 + row,) for row in rows]
    for sample, row in zip(samples, rows, strict=True):
        prompts = pictures.prompts[row]
        said = processor.tokenizer.decode(sample.ids[sample.weights > 0], skip_special_tokens=True)
        assert said.strip() == prompts[sample.language]
    assert {sample.language for sample in samples} == {"en", "zh"}
    batch = collate(samples[2:4], cache)
    assert batch.pixels is not None
    assert torch.equal(batch.pixels, cache.normalised(pictures.pixels(rows[2:4])))


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="easel data pictures"):
        Pictures.open(tmp_path)


def test_folders_are_joined(folder: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "more", 3, "train", 2, 128, workers=1)
    one, two, both = Pictures.open(folder), Pictures.open(tmp_path / "more"), Pictures.open(folder, tmp_path / "more")
    assert len(both) == 15 and np.array_equal(both.pixels([3, 14]), [one.pixels([3])[0], two.pixels([2])[0]])
    assert torch.equal(both.whole, torch.cat((one.whole, two.whole)))
    write_pictures(tmp_path / "small", 3, "train", 2, 64, workers=1)
    with pytest.raises(DataError, match="differ in size"):
        Pictures.open(folder, tmp_path / "small")
