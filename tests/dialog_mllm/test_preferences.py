from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from app.cli import main as easel
from dialog_mllm.data import Batches, PictureCache
from dialog_mllm.errors import TrainingError
from dialog_mllm.fit import FitConfig
from dialog_mllm.lora import AdapterSettings, attach
from dialog_mllm.model import build_base, save_base
from dialog_mllm.preferences import (
    Pair,
    PreferConfig,
    Preferences,
    collate_pairs,
    pair_files,
    pair_losses,
    prefer,
    read_pairs,
    reply_log_probs,
    split,
    with_reference,
)
from dialog_mllm.records import DataError
from dialog_mllm.tokenizer import texts_of, train_tokenizer
from tests.dialog_mllm import toy


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = toy.write(tmp_path_factory.mktemp("toy"), 12)
    toy.pairs(root, 12)
    return root


@pytest.fixture(scope="module")
def base(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "base"
    save_base(*build_base(train_tokenizer(texts_of([root / "train.jsonl"]), 400), toy.SMALL), folder)
    return folder


def pairs_of(root: Path, trainee, cache: Path) -> tuple[list[Pair], PictureCache]:
    pictures = PictureCache(trainee.processor)
    pairs = read_pairs(pair_files([root]), trainee, pictures)
    pictures.fill(cache)
    return pairs, pictures


def stream(trainee, pictures, pairs) -> Batches:
    return Batches(pairs, pictures, 4096, collate=partial(collate_pairs, collate=trainee.collate))


def test_the_losses_are_those_of_the_papers():
    log_probs = torch.tensor([[-4.0, -9.0], [-6.0, -8.0]])
    lengths = torch.tensor([[2.0, 3.0], [3.0, 4.0]])
    reference = torch.tensor([[-5.0, -8.5], [-5.5, -9.0]])

    def log_sigmoid(x: float) -> float:
        return -math.log1p(math.exp(-x))

    losses, rewards = pair_losses(log_probs, lengths, reference, "dpo", 0.1, 1.0, 0.0)
    assert losses.tolist() == pytest.approx([-log_sigmoid(0.1 * (1.0 + 0.5)), -log_sigmoid(0.1 * (-0.5 - 1.0))])
    assert (rewards[0] - rewards[1]).tolist() == pytest.approx([0.15, -0.15])
    losses, _ = pair_losses(log_probs, lengths, reference, "simpo", 2.0, 0.5, 0.0)
    assert losses.tolist() == pytest.approx([-log_sigmoid(2 * 0.0 - 0.5), -log_sigmoid(2 * (-3.0 + 2.0) - 0.5)])
    with_sft, _ = pair_losses(log_probs, lengths, reference, "simpo", 2.0, 0.5, 0.25)
    assert (with_sft - losses).tolist() == pytest.approx([0.25 * 2.0, 0.25 * 3.0])


def test_a_reply_counts_from_behind_the_prompt_to_its_end(root, base, tmp_path):
    trainee = attach(AdapterSettings(base=base))
    pairs, pictures = pairs_of(root, trainee, tmp_path)
    assert len(pairs) == 12
    for pair in pairs:
        texts = []
        for sample in (pair.chosen, pair.rejected):
            assert len(sample.pictures) == 1 and sample.pictures == pair.chosen.pictures
            texts.append(trainee.processor.tokenizer.decode(sample.ids[sample.weights > 0]))
        assert texts[0] != texts[1] and all(t.startswith("<draw>") and t.endswith("<end_of_utterance>") for t in texts)
    batch = collate_pairs(pairs[:3], pictures, trainee.collate)
    log_probs, lengths = reply_log_probs(trainee.core, batch, "float32")
    assert log_probs.shape == lengths.shape == (2, 3)
    assert lengths[0].tolist() == [float((pair.chosen.weights > 0).sum()) for pair in pairs[:3]]
    alone, _ = reply_log_probs(trainee.core, collate_pairs(pairs[:1], pictures, trainee.collate), "float32")
    torch.testing.assert_close(log_probs[:, :1], alone, atol=1e-4, rtol=1e-4)


def test_other_models_read_the_same_pairs(root, base):
    """By their own processor: the same tokens count."""
    fast, general = attach(AdapterSettings(base=base)), attach(AdapterSettings(base=base, gradient_checkpointing=True))
    ours = read_pairs(pair_files([root]), fast, PictureCache(fast.processor))
    theirs = read_pairs(pair_files([root]), general, None)
    batch = collate_pairs(theirs[:4], general.encoder, general.collate)
    for row, pair in enumerate([*(p.chosen for p in ours[:4]), *(p.rejected for p in ours[:4])]):
        counted = batch.rows.ids[row][batch.rows.weights[row] > 0]
        assert counted.tolist() == pair.ids[pair.weights > 0].tolist()


@pytest.mark.parametrize("loss", ["dpo", "simpo"])
def test_the_better_reply_gains_and_the_curve_says_so(root, base, tmp_path, loss):
    fit = FitConfig(
        tmp_path / "run",
        epochs=60,
        batch_tokens=2500,
        learning_rate=1e-2,
        warmup=2,
        optimizer="adamw",
        precision="float32",
    )
    config = PreferConfig(
        pairs=[root], fit=fit, base=base, rank=8, alpha=16, loss=loss, dialogues=root, validation_records=4
    )
    scores = prefer(config)
    with (tmp_path / "run" / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    train = [row for row in rows if row["train_loss"]]
    loss_fell, accuracy_rose, margin_rose = (
        [float(row[f"train_{name}"]) for row in train] for name in ("loss", "reward_accuracy", "reward_margin")
    )
    assert loss_fell[0] > loss_fell[1] > loss_fell[2] > loss_fell[-1]
    assert accuracy_rose[-1] > accuracy_rose[0] and margin_rose[-1] > 2 * margin_rose[0]
    measured = [row for row in rows if row["reward_accuracy"]]
    assert float(measured[-1]["reward_margin"]) == pytest.approx(scores["reward_margin"], rel=1e-3)
    assert "switch_accuracy" in scores
    for name in ("adapter/adapter_model.safetensors", "adapter/README.md", "curve.png", "settings.json"):
        assert (tmp_path / "run" / name).is_file()
    assert prefer(config)["steps"] == scores["steps"]  # a finished run is not begun anew


def test_pairs_of_one_prompt_stay_together():
    pairs = [Pair(None, None, f"{n // 2:064x}") for n in range(60)]  # type: ignore[arg-type]
    kept, held_out = split(pairs)
    assert len(kept) + len(held_out) == 60 and len(held_out) == 6
    assert not {pair.key for pair in kept} & {pair.key for pair in held_out}
    with pytest.raises(DataError, match="two prompts"):
        split([replace(pair, key="1") for pair in pairs])


def test_what_is_wrong_with_pairs_is_said(root, base, tmp_path, capsys):
    trainee = attach(AdapterSettings(base=base))
    good = json.loads((root / "preferences.jsonl").read_text(encoding="utf-8").splitlines()[0])

    def refused(match: str, **changed) -> None:
        file = root / "bad.jsonl"
        file.write_text(json.dumps(good | changed))
        with pytest.raises(DataError, match=match):
            pictures = PictureCache(trainee.processor)
            read_pairs([file], trainee, pictures)
            pictures.fill(tmp_path / "cache")
        file.unlink()

    refused("same", rejected=good["chosen"])
    refused("line 1", prompt="draw a fox")
    refused("names 0", images=[])
    refused("gone.png", images=["gone.png"])
    refused("<image>", prompt=[{"role": "user", "content": "an <image>"}], images=[])
    refused("tokens", prompt=[{"role": "user", "content": "a fox " * 4000}], images=[])
    with pytest.raises(DataError, match="easel data errors"):
        pair_files([tmp_path])
    with pytest.raises(TrainingError, match="simpo"):
        PreferConfig(pairs=[root], fit=FitConfig(tmp_path), loss="kto")
    with pytest.raises(TrainingError, match="beta"):
        PreferConfig(pairs=[root], fit=FitConfig(tmp_path), beta=0.0)
    assert easel(["prefer", "--pairs", str(tmp_path), "--base", str(base), "--out", str(tmp_path / "run")]) == 1
    assert "easel data errors" in capsys.readouterr().err


@pytest.mark.slow
def test_dpo_is_trls_on_the_same_model_and_pairs(root, base, tmp_path):
    """TRL's own collator shows the pictures, its trainer computes the loss and the rewards: ours are equal."""
    import datasets
    from peft import LoraConfig, get_peft_model
    from trl import DPOConfig, DPOTrainer

    from dialog_mllm.lora import targets

    trainee = attach(AdapterSettings(base=base))
    pairs, pictures = pairs_of(root, trainee, tmp_path)
    core = trainee.model.unload()
    torch.manual_seed(3)
    lora = LoraConfig(r=4, target_modules=targets(core), task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(core, lora)
    lines = (root / "preferences.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines][:4]
    for row in rows:
        row["images"] = [str(root / path) for path in row["images"]]
    fields = ("images", "prompt", "chosen", "rejected")
    data = datasets.Dataset.from_list([{name: row[name] for name in fields} for row in rows])
    data = data.cast_column("images", datasets.List(datasets.Image()))
    settings = DPOConfig(
        str(tmp_path / "trl"), per_device_train_batch_size=4, use_cpu=True, bf16=False, beta=0.3, report_to=[],
        max_length=None, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = DPOTrainer(model, args=settings, train_dataset=data, processing_class=trainee.processor)
    model.eval()
    inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    theirs = trainer.compute_loss(model, inputs).item()
    figures = {name: values[-1] for mode in trainer._metrics.values() for name, values in mode.items()}

    ours = replace(trainee, model=model, core=core)
    with model.disable_adapter():
        known = with_reference(pairs[:4], ours, partial(stream, ours, pictures), 4096, "float32")
    objective = Preferences(core, "dpo", 0.3, 0.0, 0.0, "float32")
    scores = objective.measure(stream(ours, pictures, known))
    # Pictures are kept as 8 bits, TRL's are not.
    assert scores["loss"] == pytest.approx(theirs, rel=2e-3)
    assert scores["reward_margin"] == pytest.approx(figures["rewards/margins"], rel=2e-2)
    assert scores["reward_accuracy"] == figures["rewards/accuracies"]


@pytest.mark.slow
def test_simpo_is_trls():
    from trl.experimental.cpo import CPOTrainer

    log_probs, lengths = -10 * torch.rand(2, 32), torch.randint(1, 30, (2, 32)).float()
    simpo = SimpleNamespace(
        alpha=0.0, loss_type="simpo", simpo_gamma=0.7, beta=2.5, label_smoothing=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )  # fmt: skip
    theirs, *rewards = CPOTrainer.cpo_loss(simpo, *(log_probs / lengths))
    ours, of_both = pair_losses(log_probs, lengths, torch.zeros(2, 32), "simpo", 2.5, 0.7, 0.0)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(of_both, torch.stack(rewards))


@pytest.mark.slow
def test_the_bundled_model_learns_from_pairs(root, tmp_path):
    """A few steps on the shipped weights: the loss on pairs falls and reward accuracy rises."""
    arguments = ["prefer", "--pairs", str(root), "--out", str(tmp_path / "run")]
    arguments += ["--epochs", "20", "--learning-rate", "5e-4", "--warmup", "2", "--batch-tokens", "2048"]
    assert easel(arguments) == 0
    with (tmp_path / "run" / "curve.csv").open() as file:
        train = [row for row in csv.DictReader(file) if row["train_loss"]]
    assert float(train[-1]["train_loss"]) < float(train[0]["train_loss"])
    assert float(train[-1]["train_reward_accuracy"]) >= float(train[0]["train_reward_accuracy"]) > 0
    assert float(train[-1]["train_reward_margin"]) > float(train[0]["train_reward_margin"])
