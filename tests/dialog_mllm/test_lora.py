from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from app.cli import main as easel
from dialog_mllm.adapters import Adapters
from dialog_mllm.bases import FILE, Base
from dialog_mllm.card import source
from dialog_mllm.client import DialogClient
from dialog_mllm.data import Batches, PictureCache
from dialog_mllm.errors import AdapterError, ServerFailed, TrainingError
from dialog_mllm.evaluation import turns_of
from dialog_mllm.finetune import FinetuneConfig, finetune
from dialog_mllm.fit import FitConfig, learn
from dialog_mllm.lora import WEIGHTS, AdapterSettings, attach, load_adapted, merge, save_adapter
from dialog_mllm.model import build_base, load_base, save_base
from dialog_mllm.objective import Dialogues
from dialog_mllm.protocol import Reply
from dialog_mllm.records import read_records
from dialog_mllm.server import ServerSettings, VllmServer
from dialog_mllm.tokenizer import texts_of, train_tokenizer
from tests.dialog_mllm import toy
from tests.dialog_mllm.offline import answer_offline


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("toy"), 8)


@pytest.fixture(scope="module")
def base(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "base"
    save_base(*build_base(train_tokenizer(texts_of([root / "train.jsonl"]), 400), toy.SMALL), folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory) -> Path:
    """With weights that show."""
    trainee = attach(AdapterSettings(base=base, rank=4))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in trainee.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    folder = tmp_path_factory.mktemp("run") / "adapter"
    save_adapter(trainee.model, folder, Base.of(base))
    return folder


def fitting(run: Path, **more) -> FitConfig:
    return FitConfig(run, **{"epochs": 2, "batch_tokens": 800, "learning_rate": 5e-3, "warmup": 1,
                             "optimizer": "adamw", **more})  # fmt: skip


def test_a_merged_model_is_base_and_adapter(base, adapter, tmp_path, capsys):
    out = tmp_path / "merged"
    assert easel(["merge", "--base", str(base), "--adapter", str(adapter), "--out", str(out)]) == 0
    merged, expected = load_base(out)[0].state_dict(), load_adapted(base, adapter)[0].state_dict()
    plain = load_base(base)[0].state_dict()
    assert any(not torch.equal(merged[name], plain[name]) for name in plain)
    for name, value in expected.items():
        torch.testing.assert_close(merged[name], value, atol=1e-3, rtol=1e-3)  # kept as fp16
    assert easel(["merge", "--base", str(base), "--adapter", str(adapter), "--out", str(out)]) == 1
    assert "name another folder" in capsys.readouterr().err
    with pytest.raises(TrainingError, match="no LoRA adapter"):
        merge(base, base, tmp_path / "other")
    larger = replace(toy.SMALL, hidden=128, heads=2)
    save_base(*build_base(load_base(base)[1].tokenizer, larger), tmp_path / "larger")
    foreign = Path(shutil.copytree(adapter, tmp_path / "foreign"))
    (foreign / FILE).unlink()  # as PEFT alone writes it
    with pytest.raises(TrainingError, match="no adapter of this base"):
        merge(tmp_path / "larger", foreign, tmp_path / "other")


def test_an_adapter_is_not_put_on_another_base_of_its_size(base, adapter, tmp_path, capsys):
    model, processor = load_base(base)
    with torch.no_grad():
        model.lm_head.weight.add_(0.01)
    other = tmp_path / "base"
    save_base(model, processor, other)
    out = str(tmp_path / "out")
    assert easel(["merge", "--base", str(other), "--adapter", str(adapter), "--out", out]) == 1
    assert "was made for another base than" in capsys.readouterr().err
    with pytest.raises(AdapterError, match="Name the base that it was trained on"):
        attach(AdapterSettings(base=other, adapter=adapter))
    with pytest.raises(AdapterError, match="another base"):
        Adapters(tmp_path / "adapters", other).add(adapter)
    with (
        VllmServer(other, adapter, ServerSettings(threads=1), tmp_path) as server,
        pytest.raises(ServerFailed, match="another base"),
    ):
        server.wait_ready(60)
    moved = Path(shutil.copytree(base, tmp_path / "moved"))
    assert Adapters(tmp_path / "adapters", moved).add(adapter).name == "v1"
    assert (tmp_path / "adapters" / "v1" / "adapter" / FILE).read_text() == (adapter / FILE).read_text()
    damaged = Path(shutil.copytree(adapter, tmp_path / "damaged"))
    (damaged / FILE).write_text("{")
    with pytest.raises(AdapterError, match="cannot be read"):
        attach(AdapterSettings(base=base, adapter=damaged))


def test_an_open_model_is_merged_too(tmp_path):
    from tests.dialog_mllm.test_vlm import llava_next

    folder = llava_next(tmp_path / "base")
    trainee = attach(AdapterSettings(base=folder, rank=2))
    save_adapter(trainee.model, tmp_path / "adapter", Base.of(folder))
    merge(folder, tmp_path / "adapter", tmp_path / "merged")
    assert (tmp_path / "merged" / "config.json").is_file() and not list(tmp_path.glob("*.partial"))
    attach(AdapterSettings(base=tmp_path / "merged", rank=2))  # with its processor


def test_the_card_says_what_the_adapter_is_and_not_where_it_lay(root, base, tmp_path):
    (root / "manifest.json").write_text(json.dumps({"source": "toy", "licence": "Apache-2.0"}))
    run = tmp_path / "run"
    scores = finetune(FinetuneConfig(root, fitting(run), base=base, rank=2))
    card = (run / "adapter" / "README.md").read_text(encoding="utf-8")
    assert source(root).sha256 in card and "license: apache-2.0" in card and '"rank": 2' in card
    assert f"{scores['switch_accuracy']:.4f}" in card
    assert str(tmp_path) not in card and str(root.parent) not in card and str(base.parent) not in card


def test_an_adapter_that_goes_on_keeps_its_shape_and_the_card_says_it(root, base, tmp_path, capsys):
    first = tmp_path / "first"
    finetune(FinetuneConfig(root, fitting(first), base=base, rank=2, alpha=3.0))
    arguments = ["finetune", "--data", str(root), "--base", str(base), "--adapter", str(first / "adapter")]
    arguments += ["--batch-tokens", "800", "--epochs", "1", "--out", str(tmp_path / "second")]
    assert easel([*arguments, "--rank", "4"]) == 1
    assert "--rank is for a fresh adapter" in capsys.readouterr().err
    assert easel(arguments) == 0
    card = (tmp_path / "second" / "adapter" / "README.md").read_text(encoding="utf-8")
    assert '"rank": 2' in card and '"alpha": 3.0' in card


def test_a_dry_run_measures_and_keeps_nothing(root, base, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = ["finetune", "--data", str(root), "--base", str(base), "--out", str(run), "--rank", "4", "--dry-run"]
    assert easel([*arguments, "--batch-tokens", "800", "--epochs", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert not run.exists()
    assert told["steps"] > 1 and told["seconds_per_step"] > 0 and told["peak_gb"] > 0.1
    sizes = 2 * (64 + 64) * 4 * 4 + 2 * 3 * (64 + 128) * 4
    assert told["trained_million"] == round(sizes / 1e6, 2)


def test_a_training_that_no_longer_improves_ends(root, base, tmp_path, monkeypatch):
    monkeypatch.setattr("dialog_mllm.objective.measure", lambda *_: {"loss": 1.0, "switch_accuracy": 0.5,
                                                               "false_draw": 0.0, "missed_draw": 0.0})  # fmt: skip
    config = fitting(tmp_path / "run", epochs=100, evaluate_every=1e-9, patience=2)
    assert finetune(FinetuneConfig(root, config, base=base, rank=2))["steps"] == 2
    with (tmp_path / "run" / "curve.csv").open() as file:
        assert sum(bool(row["loss"]) for row in csv.DictReader(file)) == 3
    with pytest.raises(TrainingError, match="patience"):
        fitting(tmp_path, patience=0)


def test_accumulated_batches_are_one_larger_batch(root, base, tmp_path):
    """Same gradients, whatever a step is cut into; DPO's pairs alike, since losses are sums."""
    trainee = attach(AdapterSettings(base=base, rank=4))
    pictures = trainee.dialogues([root / "train.jsonl"], tmp_path, 10**6)
    assert isinstance(pictures.pictures, PictureCache) and pictures.per_epoch == 1
    objective = Dialogues(trainee.core, trainee.draw, "float32")
    trained = [p for p in trainee.model.parameters() if p.requires_grad]
    found = []
    for budget in (10**6, 600):
        batches = list(Batches(pictures.samples, pictures.pictures, budget).once())
        loss, _ = learn(objective, batches, trained)
        found.append((loss, [p.grad.clone() for p in trained]))
        trainee.model.zero_grad()
    assert len(batches) > 1
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_do_what_one_does_with_twice_the_batches(root, base, tmp_path):
    """Started as `accelerate launch` starts them: the same number of steps, and the same adapter."""
    command = [
        "finetune", "--data", str(root), "--base", str(base), "--rank", "4", "--batch-tokens", "700", "--epochs", "4",
        "--threads", "1", "--precision", "float32", "--learning-rate", "1e-3", "--warmup", "1",
    ]  # fmt: skip
    assert easel([*command, "--accumulate", "2", "--out", str(tmp_path / "one")]) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    done = subprocess.run(
        [*launch, "-m", "app.cli", *command, "--out", str(tmp_path / "two")],
        capture_output=True, text=True, timeout=1000, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("\nmissed_draw ") == 1  # one of them reports
    one, two = (load_adapted(base, tmp_path / run / "adapter")[0].state_dict() for run in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=2e-4, rtol=1e-3)
    states = [torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("one", "two")]
    assert states[0]["step"] == states[1]["step"] > 3 and states[0]["tokens"] == states[1]["tokens"]


@pytest.mark.slow
async def test_vllm_serves_the_merged_model(root, tmp_path):
    """The shipped base and an adapter as one folder: replies as transformers computes them, token for token."""
    trainee = attach(AdapterSettings(base=WEIGHTS / "base", rank=8))
    with torch.no_grad():
        for name, value in trainee.model.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.01)
    save_adapter(trainee.model, tmp_path / "adapter", Base.of(WEIGHTS / "base"))
    merge(WEIGHTS / "base", tmp_path / "adapter", tmp_path / "merged")
    turns = list(turns_of(read_records([root / "test.jsonl"], 1)))
    expected = answer_offline(turns, *load_base(tmp_path / "merged"), max_tokens=40)
    with VllmServer(tmp_path / "merged", None, ServerSettings(threads=1, kv_cache_mb=64), tmp_path) as server:
        server.wait_ready(600)
        client = DialogClient(server.base_url, server.api_key, max_tokens=40)
        for turn in expected:
            assert turn.reply is not None
            *_, reply = [event async for event in client.reply(turn.history)]
            assert isinstance(reply, Reply) and reply.content == turn.reply.content
