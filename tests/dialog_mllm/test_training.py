from __future__ import annotations

import csv
import json
import math
import os
import signal
from dataclasses import asdict, replace

import pytest
import torch

from app.cli import main as easel
from datasets_build.pictures import write_pictures
from dialog_mllm import objective as learning
from dialog_mllm.data import TALK_WEIGHT, Batches, load_samples
from dialog_mllm.errors import TrainingError
from dialog_mllm.fit import FitConfig, fit, schedule
from dialog_mllm.model import build_base, load_base, save_base
from dialog_mllm.objective import Dialogues, Dropout
from dialog_mllm.protocol import DRAW
from dialog_mllm.tokenizer import texts_of, token_id, train_tokenizer
from dialog_mllm.training import MllmConfig, train_mllm
from tests.dialog_mllm import toy


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("toy"))


def fit_toy(root, config: FitConfig, cache, save=lambda scores: None):
    tokenizer = train_tokenizer(texts_of([root / "train.jsonl"]), 400)
    model, processor = build_base(tokenizer, toy.SMALL)
    train = Batches(*load_samples([root / "train.jsonl"], processor, cache, 0.3), config.batch_tokens)
    held_out = Batches(*load_samples([root / "validation.jsonl"], processor, cache), config.batch_tokens)
    draw = tokenizer.convert_tokens_to_ids("<draw>")
    objective = Dialogues(model, draw, dropout=Dropout(0.1, 0.1))
    return model, fit(config, model, objective, train, held_out, save, lambda scores: -scores["loss"])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_stopped_run_ends_like_one_that_was_not(root, tmp_path, monkeypatch, optimizer):
    config = FitConfig(tmp_path / "a", epochs=2, batch_tokens=600, optimizer=optimizer, warmup=3)
    whole, scores = fit_toy(root, config, tmp_path)
    assert scores["steps"] > 6

    calls = 0
    original = learning.token_losses

    def stops(model, batch, *rest):
        nonlocal calls
        calls += torch.is_grad_enabled()
        if calls == 5:
            raise KeyboardInterrupt
        return original(model, batch, *rest)

    config = replace(config, run=tmp_path / "b")
    monkeypatch.setattr(learning, "token_losses", stops)
    with pytest.raises(KeyboardInterrupt):
        fit_toy(root, config, tmp_path)
    monkeypatch.setattr(learning, "token_losses", original)
    resumed, again = fit_toy(root, config, tmp_path)
    assert again["steps"] == scores["steps"] and again["tokens"] == scores["tokens"]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_ctrl_c_waits_for_the_end_of_the_step(root, tmp_path, monkeypatch):
    original = learning.token_losses

    def pressed(model, batch, *rest):
        if torch.is_grad_enabled():
            os.kill(os.getpid(), signal.SIGINT)
        return original(model, batch, *rest)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(learning, "token_losses", pressed)
    with pytest.raises(KeyboardInterrupt):
        fit_toy(root, FitConfig(tmp_path / "run", epochs=2, batch_tokens=600), tmp_path)
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 1
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_train_mllm_learns_and_leaves_a_complete_run(root, tmp_path):
    config = MllmConfig(
        data=(root / "train.jsonl",),
        validation=(root / "validation.jsonl",),
        fit=FitConfig(tmp_path, epochs=25, batch_tokens=1500, learning_rate=5e-3, warmup=5),
        model=toy.SMALL,
        vocab_size=400,
    )
    scores = train_mllm(config)
    assert scores["switch_accuracy"] > 0.9
    assert scores["loss"] < 1.0
    load_base(tmp_path / "base")
    for name in ("curve.csv", "curve.png", "checkpoint.pt", "tensorboard"):
        assert (tmp_path / name).exists()
    assert json.loads((tmp_path / "settings.json").read_text())["fit"]["epochs"] == 25
    rows = list(csv.DictReader((tmp_path / "curve.csv").open()))
    assert float(rows[-1]["loss"]) == pytest.approx(scores["loss"], rel=1e-3)


def test_pictures_come_before_dialogues_and_their_eyes_are_locked_then(root, tmp_path):
    write_pictures(tmp_path / "pictures", 12, "train", 1, 128, workers=1)
    config = MllmConfig(
        data=(root / "train.jsonl",),
        validation=(root / "validation.jsonl",),
        fit=FitConfig(tmp_path, epochs=0.5, batch_tokens=1500, warmup=1),
        model=toy.SMALL,
        vocab_size=400,
        pictures=(tmp_path / "pictures",),
        vision_minutes=0.001,
        caption_minutes=0.02,
        captions=2,
    )
    assert train_mllm(config)["steps"] > 0
    told = torch.load(tmp_path / "captions" / "checkpoint.pt", weights_only=True)
    assert told["step"] > 0
    weights = load_base(tmp_path / "base")[0].state_dict()
    eyes = {name for name in weights if "vision_model" in name or "connector" in name}
    same = {name for name in told["model"] if torch.allclose(weights[name], told["model"][name], atol=1e-3, rtol=1e-3)}
    assert eyes <= same and not set(told["model"]) <= same


def test_pictures_of_another_size_are_refused(root, tmp_path, capsys):
    write_pictures(tmp_path / "pictures", 2, "train", 1, 64, workers=1)
    arguments = ["--data", str(root / "train.jsonl"), "--validation", str(root / "validation.jsonl")]
    sizes = [f"--{key.replace('_', '-')}={value}" for key, value in asdict(toy.SMALL).items()]
    more = ["--pictures", str(tmp_path / "pictures"), "--vocab-size=400", f"--out={tmp_path / 'run'}"]
    assert easel(["train", "mllm", *arguments, *sizes, *more]) != 0
    assert "--size 128" in capsys.readouterr().err


def test_a_second_stage_goes_on_from_a_base_with_its_tokenizer(root, tmp_path):
    arguments = ["--data", str(root), "--validation", str(root)]
    sizes = [f"--{key.replace('_', '-')}={value}" for key, value in asdict(toy.SMALL).items()]
    easel(["train", "mllm", *arguments, *sizes, "--vocab-size=400", "--epochs=4", f"--out={tmp_path / 'one'}"])
    first = tmp_path / "one" / "base"
    write_pictures(tmp_path / "pictures", 4, "train", 1, 128, workers=1)
    untaught = ["--pictures", str(tmp_path / "pictures"), "--vision-minutes=0", "--caption-minutes=0"]
    more = ["--base", str(first), "--epochs=0.01", "--learning-rate=1e-9", f"--out={tmp_path / 'two'}"]
    assert easel(["train", "mllm", *arguments, *more, *untaught]) == 0
    second = tmp_path / "two" / "base"
    assert (second / "tokenizer.json").read_text() == (first / "tokenizer.json").read_text()
    weights = load_base(first)[0].state_dict()
    for name, tensor in load_base(second)[0].state_dict().items():
        torch.testing.assert_close(tensor, weights[name], atol=1e-3, rtol=1e-3)


def test_layers_are_added_to_an_earlier_base(root, tmp_path, capsys):
    save_base(*build_base(train_tokenizer(texts_of([root / "train.jsonl"]), 400), toy.SMALL), tmp_path / "base")
    arguments = ["train", "mllm", "--data", str(root), "--validation", str(root), "--base", str(tmp_path / "base")]
    assert easel([*arguments, "--add-layers", "3", "--out", str(tmp_path / "run")]) != 0
    assert "can be given 0 to 2 more" in capsys.readouterr().err
    assert easel([*arguments, "--add-layers=1", "--epochs=0.01", f"--out={tmp_path / 'run'}"]) == 0
    assert load_base(tmp_path / "run" / "base")[0].config.text_config.num_hidden_layers == 3


def test_the_eyes_of_an_earlier_base_are_made_wider(root, tmp_path, capsys):
    save_base(*build_base(train_tokenizer(texts_of([root / "train.jsonl"]), 400), toy.SMALL), tmp_path / "base")
    arguments = ["train", "mllm", "--data", str(root), "--validation", str(root), "--base", str(tmp_path / "base")]
    assert easel([*arguments, "--widen-eyes", "0", "--out", str(tmp_path / "run")]) != 0
    assert "1, 2, 3 ... times wider, not 0" in capsys.readouterr().err
    assert easel([*arguments, "--widen-eyes", "2", "--epochs", "0.01", "--out", str(tmp_path / "run")]) == 0
    seeing = load_base(tmp_path / "run" / "base")[0].config.vision_config
    assert seeing.hidden_size == 2 * toy.SMALL.vision_hidden


def test_the_eyes_of_an_earlier_base_are_made_finer(root, tmp_path, capsys):
    save_base(*build_base(train_tokenizer(texts_of([root / "train.jsonl"]), 400), toy.SMALL), tmp_path / "base")
    write_pictures(tmp_path / "pictures", 12, "train", 1, 128, workers=1)
    arguments = ["train", "mllm", "--eyes-only", "--base", str(tmp_path / "base"), "--finer-eyes", "2"]
    arguments += ["--pictures", str(tmp_path / "pictures"), "--out", str(tmp_path / "run"), "--epochs", "0.1"]
    assert easel(arguments) != 0
    assert "--finer-eyes must learn to see again" in capsys.readouterr().err
    assert easel([*arguments, "--vision-minutes", "0.01"]) == 0
    before, after = (load_base(tmp_path / name)[0] for name in ("base", "run/base"))
    assert after.config.vision_config.patch_size == toy.SMALL.patch_size // 2
    words = {name: weight for name, weight in before.state_dict().items() if "text_model" in name}
    assert all(torch.equal(weight, after.state_dict()[name]) for name, weight in words.items())


def test_without_pictures_the_eyes_of_an_earlier_base_stay_as_they_are(root, tmp_path):
    common = {"data": (root / "train.jsonl",), "validation": (root / "validation.jsonl",), "model": toy.SMALL,
              "vocab_size": 400}  # fmt: skip
    for name, base in (("one", None), ("two", tmp_path / "one" / "base")):
        config = FitConfig(tmp_path / name, epochs=0.5, batch_tokens=1500, warmup=1, learning_rate=1e-2)
        train_mllm(MllmConfig(fit=config, base=base, **common))
    one, two = (load_base(tmp_path / name / "base")[0].state_dict() for name in ("one", "two"))
    changed = {name for name in one if not torch.equal(one[name], two[name])}
    assert changed and not any("vision_model" in name or "connector" in name for name in changed)


def test_without_a_compiler_nothing_is_compiled(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    arguments = ["train", "mllm", "--data", str(root), "--validation", str(root), "--out", str(tmp_path / "run")]
    assert easel([*arguments, "--compile"]) != 0
    assert "Install g++" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_only_the_eyes_of_an_earlier_base_learn(root, tmp_path, capsys):
    save_base(*build_base(train_tokenizer(texts_of([root / "train.jsonl"]), 400), toy.SMALL), tmp_path / "base")
    write_pictures(tmp_path / "pictures", 12, "train", 1, 128, workers=1)
    arguments = ["train", "mllm", "--eyes-only", "--epochs", "2", "--learning-rate", "1e-2", "--warmup", "1"]
    base, pictures = ["--base", str(tmp_path / "base")], ["--pictures", str(tmp_path / "pictures")]
    assert easel([*arguments, *base, *pictures, "--out", str(tmp_path / "run")]) == 0
    before, after = (load_base(tmp_path / name)[0].state_dict() for name in ("base", "run/base"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "vision_model" in name or "connector" in name}
    for given, told in ((base, "name it with --base"), ([*base, *pictures, "--add-layers", "1"], "no --add-layers")):
        assert easel([*arguments, *given, "--out", str(tmp_path / "other")]) != 0
        assert told in capsys.readouterr().err
    assert easel(["train", "mllm", *base, "--out", str(tmp_path / "other")]) != 0
    assert "--data and --validation" in capsys.readouterr().err


@pytest.mark.slow
def test_time_is_a_limit_over_all_resumes(root, tmp_path):
    config = FitConfig(tmp_path / "run", epochs=1e6, minutes=0.05, batch_tokens=600)
    _, scores = fit_toy(root, config, tmp_path)
    assert scores["minutes"] < 0.5
    _, again = fit_toy(root, config, tmp_path)
    assert again["steps"] == scores["steps"]


def test_a_loss_that_is_no_number_stops_the_run(root, tmp_path):
    config = FitConfig(tmp_path / "run", epochs=5, batch_tokens=600, learning_rate=1e12, warmup=1, optimizer="adamw")
    with pytest.raises(TrainingError, match="smaller --learning-rate"):
        fit_toy(root, config, tmp_path)


def test_a_run_of_something_else_is_not_resumed(root, tmp_path):
    (tmp_path / "run").mkdir()
    torch.save({"model": {"other": torch.zeros(1)}}, tmp_path / "run" / "checkpoint.pt")
    with pytest.raises(TrainingError, match="another --out"):
        fit_toy(root, FitConfig(tmp_path / "run", epochs=1, batch_tokens=600), tmp_path)


def test_dropout_is_for_training_and_spares_what_is_learnt(root, tmp_path):
    tokenizer = train_tokenizer(texts_of([root / "train.jsonl"]), 400)
    model, processor = build_base(tokenizer, toy.SMALL)
    batch = Batches(*load_samples([root / "train.jsonl"], processor, tmp_path), 600).next()

    def losses(dropout):
        with torch.no_grad():
            return learning.token_losses(model, batch, dropout)[0]

    plain = losses(None)
    assert not torch.equal(losses(Dropout(0.2)), plain) and not torch.equal(losses(Dropout(words=0.5)), plain)
    all_learnt = replace(batch, weights=torch.ones_like(batch.weights))
    batch = all_learnt
    assert torch.equal(losses(Dropout(words=0.5)), losses(None)), "only what is read is dropped"
    model.eval()
    assert torch.equal(losses(Dropout(0.2, 0.5)), losses(None))
    with pytest.raises(TrainingError, match="below 1"):
        Dropout(1.0)


def test_to_talk_is_learnt_apart_from_how_the_reply_begins(root, tmp_path):
    model, processor = build_base(train_tokenizer(texts_of([root / "train.jsonl"]), 400), toy.SMALL)
    batch = Batches(*load_samples([root / "train.jsonl"], processor, tmp_path), 600).next()
    draw = token_id(processor.tokenizer, DRAW)
    with torch.no_grad():
        losses, weights, logits = learning.token_losses(model, batch)
        total, _ = learning.batch_loss(model, batch, draw)
    at = learning.decided_at(batch)
    wanted = batch.ids[:, 1:][batch.weights[:, 1:] > 0]
    draws = torch.tensor([decision.draws for _, decision in batch.decisions])
    assert draws.any() and not draws.all() and torch.equal(wanted[at] == draw, draws)
    drawn = logits[at[~draws]].softmax(-1)[:, draw]
    expected = (losses * weights).sum() - TALK_WEIGHT * (1 - drawn).log().sum()
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    sure = torch.zeros(1, 8).index_fill(1, torch.tensor(3), -200.0)
    assert learning.not_drawing_losses(sure, 3).item() == pytest.approx(0.0, abs=1e-6)
    assert learning.not_drawing_losses(-sure, 3).item() == pytest.approx(200.0 - math.log(7), rel=1e-4)


def test_schedule_warms_up_holds_and_decays():
    config = FitConfig(run=None, warmup=10, decay_share=0.5)  # type: ignore[arg-type]
    assert schedule(0.0, 0, config) == pytest.approx(0.1)
    assert schedule(0.3, 100, config) == 1.0
    assert schedule(0.75, 200, config) == pytest.approx(0.5)
    assert schedule(1.0, 300, config) == 0.0


def test_no_warm_up_is_possible():
    assert schedule(0.0, 0, FitConfig(run=None, warmup=0)) == 1.0  # type: ignore[arg-type]


def test_words_that_are_learnt_to_be_said_cannot_be_dropped(root, tmp_path, capsys):
    arguments = ["train", "mllm", "--data", str(root), "--validation", str(root), "--out", str(tmp_path / "run")]
    assert easel([*arguments, "--word-dropout", "0.1"]) == 1
    assert "use it with --text-weight 0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"minutes": -1}, {"optimizer": "sgd"}, {"decay_share": 0}])
def test_impossible_settings_are_refused(tmp_path, bad):
    with pytest.raises(TrainingError):
        FitConfig(tmp_path, **bad)
