"""Every training runs, at a tiny size, from rendered pictures to a folder that draws; and goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets_build.pictures import write_pictures
from datasets_build.storybook.scene import KINDS
from generator import preview
from generator.errors import GeneratorError
from generator.inspector import Inspector
from generator.pipeline import load_pipeline, load_vae
from generator.request import DrawRequest
from generator.training.clip import ClipConfig, train_clip
from generator.training.data import PictureShards
from generator.training.dit import DitConfig, train_dit
from generator.training.hints import IGNORE, SceneLabels
from generator.training.inspector import InspectorConfig, accuracy, train_inspector
from generator.training.preview import PreviewConfig, train_preview
from generator.training.reading import build_t5
from generator.training.vae import VaeConfig, train_vae

TINY = {"hidden": 32, "heads": 2, "layers": 4, "clip_width": 64, "clip_layers": 1, "t5_width": 64, "t5_layers": 1}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder, 24, "train", 1, 128, workers=1, shard=16)
    return folder


@pytest.fixture(scope="module")
def runs(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoencoder, then a denoiser with its encoders."""
    folder = tmp_path_factory.mktemp("runs")
    train_vae(VaeConfig(pictures, folder / "vae", steps=2, batch=2, channels=(8, 8, 8, 8), latent_channels=4))
    config = DitConfig(
        pictures,
        folder / "vae" / "vae",
        folder / "dit",
        steps=2,
        batch=4,
        vocabulary=512,
        reading_minutes=0.001,
        validation=pictures,
        **TINY,
    )
    assert train_dit(config)["steps"] == 2
    return folder


@pytest.mark.slow
def test_the_trained_folder_draws(runs: Path) -> None:
    pipeline = load_pipeline(runs / "dit" / "storybook")
    canvas = pipeline.begin(DrawRequest("a red fox in the snow", seed=1, steps=4))
    while not canvas.finished:
        pipeline.advance([canvas])
    assert pipeline.decode(canvas).size == (128, 128)
    assert list((runs / "dit").glob("sheet-*.png"))


@pytest.mark.slow
def test_a_decoder_trained_alone_keeps_the_latents(runs: Path, pictures: Path) -> None:
    base = runs / "vae" / "vae"
    train_vae(VaeConfig(pictures, runs / "decoder", steps=2, batch=2, base=base, decoder_only=True))
    before, after = (load_vae(folder) for folder in (base, runs / "decoder" / "vae"))
    assert after.config.scaling_factor == before.config.scaling_factor
    kept, now = before.state_dict(), after.state_dict()
    changed = {name.split(".")[0] for name in kept if not torch.equal(kept[name], now[name])}
    assert changed == {"decoder", "post_quant_conv"}
    with pytest.raises(GeneratorError, match="--base"):
        train_vae(VaeConfig(pictures, runs / "nothing", decoder_only=True))


@pytest.mark.slow
def test_a_preview_decoder_becomes_a_part_of_the_model_folder(runs: Path, pictures: Path) -> None:
    train_preview(PreviewConfig(pictures, runs / "vae" / "vae", runs / "preview", steps=2, batch=4))
    decoder = preview.load(runs / "preview", 4)
    assert decoder is not None
    decoder.save(runs / "dit" / "storybook")
    loaded = load_pipeline(runs / "dit" / "storybook").preview_decoder
    assert loaded is not None and torch.equal(loaded.conv_in.weight, decoder.conv_in.weight)


@pytest.mark.slow
def test_a_denoiser_goes_on_from_a_model_folder_and_from_its_checkpoint(runs: Path, pictures: Path) -> None:
    base, out = runs / "dit" / "storybook", runs / "more"
    config = {"pictures": pictures, "vae": runs / "vae" / "vae", "out": out, "batch": 4, "reading_minutes": 0, **TINY}
    assert train_dit(DitConfig(steps=1, base=base, **config))["steps"] == 1
    words = (base / "tokenizer" / "tokenizer.json").read_text()
    assert (out / "storybook" / "tokenizer" / "tokenizer.json").read_text() == words
    assert train_dit(DitConfig(steps=2, base=base, **config))["steps"] == 2
    before, after = (load_pipeline(folder).dit.state_dict() for folder in (base, out / "storybook"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    for encoder in ("clip", "t5"):
        locked, now = (
            getattr(load_pipeline(folder).text, encoder).model.state_dict() for folder in (base, out / "storybook")
        )
        learnt = [name for name in locked if not name.startswith("pooler")]  # a pooler is made, and never used
        assert all(torch.equal(locked[name], now[name]) for name in learnt), "the encoders are locked"


@pytest.mark.slow
def test_pictures_of_two_sizes_are_mixed_and_the_model_is_then_made_for_the_larger(
    runs: Path, pictures: Path, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "large", 8, "train", 2, 256, workers=1)
    config = DitConfig(
        tmp_path / "large", runs / "vae" / "vae", tmp_path / "dit", steps=4, batch=2, reading_minutes=0,
        base=runs / "dit" / "storybook", small_pictures=pictures, small_share=0.5, **TINY,
    )  # fmt: skip
    assert train_dit(config)["steps"] == 4
    latents = {np.load(path).shape for path in (tmp_path / "dit").glob("latents-*.npy")}
    assert latents == {(8, 4, 32, 32), (24, 4, 16, 16)}
    pipeline = load_pipeline(tmp_path / "dit" / "storybook")
    assert (pipeline.native, pipeline.limits.smallest) == (256, 128)
    for side in (128, 256):
        assert pipeline.draw(DrawRequest("a red fox", size=(side, side), steps=2)).size == (side, side)


@pytest.mark.slow
def test_clip_fits_an_image_tower(runs: Path, pictures: Path) -> None:
    config = ClipConfig(pictures, runs / "dit" / "storybook", runs / "clip", steps=1, batch=8, image_width=64)
    train_clip(config)
    assert (runs / "clip" / "clip" / "heads.safetensors").is_file()


def test_the_inspector_is_written_and_reads(pictures: Path, tmp_path: Path) -> None:
    scores = train_inspector(InspectorConfig(pictures, tmp_path, validation=pictures, steps=1, batch=4))
    train_inspector(InspectorConfig(pictures, tmp_path / "more", base=tmp_path / "inspector", steps=1, batch=4))
    inspector = Inspector.load(tmp_path / "inspector")
    again = accuracy(inspector, PictureShards(pictures))
    assert set(again) >= {"kind", "colour", "accessory", "background", "style"}
    assert all(scores[name] == pytest.approx(again[name], abs=0.1) for name in again)  # float16 on disk


def test_what_is_small_counts_more(pictures: Path) -> None:
    shards = PictureShards(pictures)
    rows = range(len(shards))
    weights = shards.importance(rows, subject=2, accessory=10)
    assert weights.shape == (len(shards), 1, 16, 16) and weights.min() == 1
    covered = shards.covers(rows).amax(1, keepdim=True)
    for row, record in enumerate(shards.records):
        worn = any(subject["accessories"] for subject in record["scene"]["subjects"])
        only = weights[row] - 1 - 2 * covered[row]
        assert bool((only > 1).any()) == worn
        assert only.min() > -1e-5


def test_pictures_of_an_older_version_are_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2, "train", 1, 32, workers=1)
    path = tmp_path / "covers-00000.npy"
    np.save(path, np.load(path)[:, :-1])
    with pytest.raises(GeneratorError, match="older Easel"):
        PictureShards(tmp_path)


def test_labels_name_what_covers_each_token(pictures: Path) -> None:
    shards = PictureShards(pictures)
    labels = SceneLabels(shards, patch=2)
    wanted = labels.of([0, 3])
    tokens = labels.of_tokens(wanted, shards.covers([0, 3]))
    assert tokens["kind"].shape == (2, 64) and tokens["accessories"].shape == (2, 64, 6)
    for row, index in enumerate((0, 3)):
        kinds = {subject["kind"] for subject in shards.records[index]["scene"]["subjects"]}
        seen = {KINDS[number] for number in tokens["kind"][row].tolist() if number < len(KINDS)}
        assert seen == kinds
        nobody = tokens["kind"][row] == len(KINDS)
        assert nobody.any() and (tokens["colour"][row][nobody] == IGNORE).all()


def test_an_unfinished_set_of_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeneratorError, match="easel data pictures"):
        PictureShards(tmp_path)


def test_t5_begins_with_a_sense_of_order() -> None:
    """Its heads look left, right, to both sides, and everywhere, before anything is learnt."""
    t5 = build_t5(256, 1, 64)
    attention = t5.encoder.block[0].layer[0].SelfAttention
    bias = attention.compute_bias(20, 20)[0]  # (heads, 20, 20)
    left, right, around, everywhere = (bias[head, 10] for head in range(4))
    assert left[9] > left[11] and left[9] > left[5] and left[10] > left[9]
    assert right[11] > right[9] and right[11] > right[15]
    assert around[9] == around[11] > around[4] == around[16]
    assert everywhere.abs().max() == 0
