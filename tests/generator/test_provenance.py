"""The hash of a model's weights, and what else is told of a loaded model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from generator import provenance as module
from generator.pipeline import load_pipeline
from generator.provenance import hash_of_weights, provenance
from tests.generator import tiny_backbones
from tests.generator.tiny import make_folder


def write(folder: Path, **parts: bytes) -> Path:
    for part, weights in parts.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "model.safetensors").write_bytes(weights)
    return folder


def test_the_hash_is_of_what_makes_the_picture(tmp_path: Path) -> None:
    parts = {"transformer": b"dit", "vae": b"vae", "text_encoder": b"bert", "text_encoder_2": b"t5"}
    folder = write(tmp_path / "one", **parts)
    whole = hash_of_weights(folder)
    assert whole == "sha256:" + hashlib.sha256(b"bert" + b"t5" + b"dit" + b"vae").hexdigest()
    assert hash_of_weights(write(tmp_path / "two", **parts, preview=b"no matter")) == whole
    for part in parts:
        assert hash_of_weights(write(tmp_path / part, **{**parts, part: b"new"})) != whole


def test_of_a_large_model_samples_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 1000)
    monkeypatch.setattr(module, "SAMPLE", 4)
    weights = bytes(2000)
    seen = {hash_of_weights(write(tmp_path / "zeros", transformer=weights))}
    assert hash_of_weights(write(tmp_path / "zeros")) in seen
    for place in (0, 1999, 2000 - 4, (2000 - 4) * 30 // 63):  # the first and last byte, and within two samples
        changed = weights[:place] + b"1" + weights[place + 1 :]
        seen.add(hash_of_weights(write(tmp_path / str(place), transformer=changed)))
    seen |= {hash_of_weights(write(tmp_path / "longer", transformer=weights + b"\0"))}
    seen |= {hash_of_weights(write(tmp_path / "elsewhere", vae=weights))}
    assert len(seen) == 7
    assert all(found.startswith("sampled-sha256:") for found in seen)


def test_a_loaded_model_says_what_it_is(tmp_path: Path) -> None:
    make_folder(tmp_path / "tiny")
    told = load_pipeline(tmp_path / "tiny", t5_8bit=True).provenance
    assert told["generator"] == hash_of_weights(tmp_path / "tiny")
    assert told["precision"] == "float32, T5 in 8 bits"
    assert told["torch"] == torch.__version__
    assert told["threads"] == str(torch.get_num_threads())
    assert provenance(tmp_path / "tiny", torch.device("cpu"), torch.bfloat16)["precision"] == "bfloat16"


def test_so_does_one_of_diffusers(tmp_path: Path) -> None:
    from generator.backbones import load_backbone

    tiny_backbones.make_folder("PixArt-alpha", tmp_path / "model")
    told = load_backbone(tmp_path / "model").provenance
    assert told["generator"] == hash_of_weights(tmp_path / "model") and told["precision"] == "float32"
