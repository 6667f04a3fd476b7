from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dialog_mllm.client import DialogClient
from dialog_mllm.errors import ProtocolError, TrainingError
from dialog_mllm.evaluation import turns_of
from dialog_mllm.finetune import FinetuneConfig, finetune
from dialog_mllm.fit import FitConfig
from dialog_mllm.lora import load_adapted
from dialog_mllm.model import ModelFolderError, build_base, load_base, save_base
from dialog_mllm.protocol import Reply
from dialog_mllm.records import DataError, read_records
from dialog_mllm.server import ServerSettings, VllmServer
from dialog_mllm.tokenizer import texts_of, train_tokenizer
from tests.dialog_mllm import toy
from tests.dialog_mllm.offline import answer_offline


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def base(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "base"
    tokenizer = train_tokenizer(texts_of([root / "train.jsonl"]), 400)
    save_base(*build_base(tokenizer, toy.SMALL), folder)
    return folder


@pytest.fixture(scope="module")
def tuned(root, base, tmp_path_factory) -> tuple[FinetuneConfig, dict[str, float]]:
    """An adapter of a base that knows nothing, so that all it does is the adapter's doing."""
    run = tmp_path_factory.mktemp("run")
    fit = FitConfig(run, epochs=40, batch_tokens=1200, learning_rate=5e-3, warmup=5, optimizer="adamw")
    config = FinetuneConfig(root, fit, base=base, rank=16, alpha=32)
    return config, finetune(config)


@pytest.mark.slow
def test_the_adapter_learns_and_the_run_is_complete(tuned):
    config, scores = tuned
    run = config.fit.run
    assert scores["switch_accuracy"] > 0.8
    assert json.loads((run / "settings.json").read_text())["rank"] == 16
    for name in ("curve.csv", "curve.png", "tensorboard", "checkpoint.pt"):
        assert (run / name).exists()


@pytest.mark.slow
def test_a_plain_peft_folder_of_language_linears(tuned):
    config, _ = tuned
    folder = config.fit.run / "adapter"
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["peft_type"] == "LORA" and settings["base_model_name_or_path"] == "base"
    assert not settings["modules_to_save"]
    names = set(load_file(folder / "adapter_model.safetensors"))
    assert names and all("text_model" in name and "lora_" in name for name in names)
    assert len(names) == 2 * 7 * toy.SMALL.layers


@pytest.mark.slow
def test_the_base_stays_as_it_was(tuned, base):
    config, _ = tuned
    adapted, _ = load_adapted(base, config.fit.run / "adapter")
    plain, _ = load_base(base)
    changed = {name for name, value in plain.state_dict().items() if not torch.equal(adapted.state_dict()[name], value)}
    assert changed and all(".layers." in name and "text_model" in name for name in changed)


@pytest.mark.slow
def test_training_goes_on_from_an_adapter_over_several_data_sets(tuned, root, tmp_path):
    config, scores = tuned
    (tmp_path / "more").mkdir()
    lines = (root / "train.jsonl").read_text(encoding="utf-8").splitlines()
    hello = [
        json.dumps({**(record := json.loads(line)), "messages": record["messages"][:2], "learn": [0]}) for line in lines
    ]
    (tmp_path / "more" / "train.jsonl").write_text("\n".join(hello))
    more = replace(
        config, data=[tmp_path / "more", root], validation=root / "validation.jsonl",
        adapter=config.fit.run / "adapter", fit=replace(config.fit, run=tmp_path / "run", epochs=0.1),
    )  # fmt: skip
    assert finetune(more)["switch_accuracy"] >= scores["switch_accuracy"] - 0.1


def test_what_is_missing_is_named(root, base, tmp_path):
    fit = FitConfig(tmp_path / "run")
    with pytest.raises(ModelFolderError, match="easel train mllm"):
        finetune(FinetuneConfig(root, fit, base=tmp_path))
    with pytest.raises(DataError, match=r"train\.jsonl"):
        finetune(FinetuneConfig(tmp_path, fit, base=base))
    with pytest.raises(DataError, match="--validation"):
        finetune(FinetuneConfig(root / "train.jsonl", fit, base=base))
    (tmp_path / "train.jsonl").write_bytes((root / "train.jsonl").read_bytes())
    with pytest.raises(DataError, match=r"validation\.jsonl"):
        finetune(FinetuneConfig(tmp_path, fit, base=base))
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes((root / "train.jsonl").read_bytes()[:-100])
    with pytest.raises(DataError, match=r"cut\.jsonl, line 24"):
        finetune(FinetuneConfig(cut, fit, base=base, validation=root))
    with pytest.raises(TrainingError, match="no LoRA adapter"):
        finetune(FinetuneConfig(root, fit, base=base, adapter=tmp_path))
    with pytest.raises(TrainingError, match="positive"):
        FinetuneConfig(root, fit, rank=0)


@pytest.mark.slow
def test_vllm_serves_base_and_adapter_as_transformers_computes_them(root, tuned, base, tmp_path):
    """Greedy replies, pictures and all, token for token."""
    config, _ = tuned
    adapter = config.fit.run / "adapter"
    turns = [turn for turn in turns_of(read_records([root / "test.jsonl"], 4))]
    expected = answer_offline(turns, *load_adapted(base, adapter), max_tokens=24)

    async def ask(client: DialogClient) -> list[Reply | None]:
        replies: list[Reply | None] = []
        for turn in turns:
            try:
                *_, reply = [event async for event in client.reply(turn.history)]
            except ProtocolError:
                reply = None
            replies.append(reply if isinstance(reply, Reply) else None)
        return replies

    with VllmServer(base, adapter, ServerSettings(threads=1, kv_cache_mb=64), tmp_path) as server:
        server.wait_ready(600)
        served = asyncio.run(ask(DialogClient(server.base_url, server.api_key, max_tokens=24)))
    assert [reply and reply.content for reply in served] == [turn.reply and turn.reply.content for turn in expected]
    assert any(reply and reply.kind == "draw" for reply in served)
