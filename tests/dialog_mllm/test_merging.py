from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from app.cli import main as easel
from dialog_mllm.model import Eyes, build_base, grow, load_base, save_base, widen_eyes
from dialog_mllm.tokenizer import train_tokenizer
from tests.dialog_mllm.toy import SMALL


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A base, what could have been trained from it with a layer more, and one of another size."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer(["draw a red fox", "画一只狐狸"], 300)
    model, processor = build_base(tokenizer, SMALL)
    save_base(model, processor, root / "base")
    grow(model, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.25)
    save_base(model, processor, root / "trained")
    save_base(*build_base(tokenizer, replace(SMALL, intermediate=64)), root / "other")
    return root


def test_weights_between_two_models(models, tmp_path):
    arguments = ["merge", "--base", str(models / "base"), "--trained", str(models / "trained"), "--share", "0.4"]
    assert easel([*arguments, "--out", str(tmp_path / "out")]) == 0
    start, end = (load_base(models / name)[0] for name in ("base", "trained"))
    grow(start, 1)
    ends = end.state_dict()
    for name, value in load_base(tmp_path / "out")[0].state_dict().items():
        expected = 0.6 * start.state_dict()[name] + 0.4 * ends[name]
        torch.testing.assert_close(value, expected, atol=1e-3, rtol=1e-3)  # kept as fp16


def test_wider_eyes_are_taken_as_they_are(models, tmp_path):
    model, processor = load_base(models / "trained")
    widen_eyes(model, 2)
    save_base(model, processor, tmp_path / "seeing")
    arguments = ["merge", "--base", str(models / "base"), "--trained", str(tmp_path / "seeing"), "--share", "0.4"]
    assert easel([*arguments, "--out", str(tmp_path / "out")]) == 0
    (start, _), (end, _), (out, _) = (
        load_base(folder) for folder in (models / "base", tmp_path / "seeing", tmp_path / "out")
    )
    for name, value in Eyes.of(out).modules.state_dict().items():
        assert torch.equal(value, Eyes.of(end).modules.state_dict()[name])
    head = "model.text_model.embed_tokens.weight"
    expected = 0.6 * start.state_dict()[head] + 0.4 * end.state_dict()[head]
    torch.testing.assert_close(out.state_dict()[head], expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("trained", "more", "said"),
    [("other", [], "their sizes differ"), ("trained", ["--share", "1.5"], "from 0 (the base) to 1")],
)
def test_what_cannot_be_merged_is_said(models, tmp_path, capsys, trained, more, said):
    arguments = ["merge", "--base", str(models / "base"), "--trained", str(models / trained), *more]
    assert easel([*arguments, "--out", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_base_is_not_trained_from_a_deeper_one(models, tmp_path, capsys):
    arguments = ["merge", "--base", str(models / "trained"), "--trained", str(models / "base")]
    assert easel([*arguments, "--out", str(tmp_path / "out")]) == 1
    assert "was not trained from" in capsys.readouterr().err
