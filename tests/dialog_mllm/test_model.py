from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from dialog_mllm.lora import targets
from dialog_mllm.model import (
    BaseConfig,
    Eyes,
    Kernels,
    ModelFolderError,
    build_base,
    finer_eyes,
    grow,
    load_base,
    parameter_count,
    save_base,
    text_states,
    widen_eyes,
)
from dialog_mllm.tokenizer import train_tokenizer
from tests.dialog_mllm.toy import SMALL


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["draw a red fox in the snow", "画一只红色的狐狸"], 300)


@pytest.fixture(scope="module")
def small(tokenizer):
    return build_base(tokenizer, SMALL)


def test_size_of_a_new_model(tokenizer):
    model, _ = build_base(tokenizer)
    assert 12e6 < parameter_count(model) < 14e6
    assert BaseConfig().picture_tokens == 16


@pytest.mark.parametrize("length", [1, 7, 128, 300])
def test_lean_decoder_computes_what_transformers_computes(small, length):
    model, _ = small
    embeddings = torch.randn(2, length, SMALL.hidden, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ours = text_states(model, embeddings)
    theirs = model.model.text_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    (ours_gradient,) = torch.autograd.grad(ours.square().sum(), embeddings)
    (theirs_gradient,) = torch.autograd.grad(theirs.square().sum(), embeddings)
    torch.testing.assert_close(ours_gradient, theirs_gradient, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="fused kernels take a C++ compiler")
def test_fused_kernels_compute_the_same(tokenizer):
    model, _ = build_base(tokenizer, SMALL)
    for length in (9, 150):
        embeddings = torch.randn(2, length, SMALL.hidden, generator=torch.Generator().manual_seed(0))
        states, gradients = [], []
        for kernels in (Kernels(), Kernels.fused()):
            model.zero_grad()
            states.append(text_states(model, embeddings, kernels=kernels))
            states[-1].square().sum().backward()
            text = model.model.text_model
            gradients.append({name: p.grad for name, p in text.named_parameters() if p.grad is not None})
        torch.testing.assert_close(*states, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("patch", [8, 16])
def test_lean_eyes_see_what_transformers_sees(tokenizer, patch):
    model, _ = build_base(tokenizer, replace(SMALL, patch_size=patch, pixel_shuffle=32 // patch))
    pixels = torch.randn(3, 3, 128, 128, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ours, theirs = Eyes.of(model).tokens(pixels), model.model.get_image_features(pixels.unsqueeze(1)).pooler_output
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(tokens.square().sum(), pixels)[0] for tokens in (ours, theirs)]
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_wider_eyes_see_the_same_until_they_are_trained(tokenizer, tmp_path, times):
    model, processor = build_base(tokenizer, replace(SMALL, vision_heads=2, vision_layers=2))
    pixels = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    before = Eyes.of(model).tokens(pixels)
    widen_eyes(model, times)
    torch.testing.assert_close(Eyes.of(model).tokens(pixels), before, atol=1e-5, rtol=1e-4)
    save_base(model, processor, tmp_path / "base")
    loaded, _ = load_base(tmp_path / "base")
    theirs = loaded.model.get_image_features(pixels.unsqueeze(1)).pooler_output
    torch.testing.assert_close(theirs, before, atol=1e-2, rtol=1e-2)  # kept as fp16
    assert loaded.config.vision_config.hidden_size == times * SMALL.vision_hidden
    Eyes.of(model).tokens(pixels).square().sum().backward()
    read = model.model.vision_model.encoder.layers[0].mlp.fc1.weight.grad
    copies = read.chunk(times)
    assert all(not torch.allclose(copies[0], copy) for copy in copies[1:]), "the copies learn to differ"


def test_eyes_grow_wider_by_whole_times(small):
    with pytest.raises(ValueError, match="not 0"):
        widen_eyes(small[0], 0)


def test_finer_eyes_answer_a_picture_magnified_as_the_earlier_ones_did(tokenizer, tmp_path):
    """Without positions, and in one layer of the mean of all patches alone, what a patch shows is all that counts."""
    model, processor = build_base(tokenizer, replace(SMALL, patch_size=16, pixel_shuffle=2))
    eyes = Eyes.of(model)
    tokens = SMALL.picture_size**2 // 32**2
    with torch.no_grad():
        eyes.tower.embeddings.position_embedding.weight.zero_()
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    pattern = pixels[:, :, :8, :8]  # one small patch, everywhere; before, the same at twice its size
    before = eyes.tokens(pattern.repeat_interleave(2, 2).repeat_interleave(2, 3).tile(8, 8))
    finer_eyes(model, 2)
    after = Eyes.of(model).tokens(pattern.tile(16, 16))
    assert after.shape == before.shape == (2, tokens, SMALL.hidden)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    save_base(model, processor, tmp_path / "base")
    loaded, _ = load_base(tmp_path / "base")
    assert loaded.config.vision_config.patch_size == 8 and loaded.config.scale_factor == 4
    theirs = loaded.model.get_image_features(pattern.tile(16, 16).unsqueeze(1)).pooler_output
    torch.testing.assert_close(theirs, after, atol=1e-2, rtol=1e-2)  # kept as fp16
    with pytest.raises(ValueError, match="cannot be made 3 times smaller"):
        finer_eyes(model, 3)


@pytest.mark.parametrize("added", [0, 1, 2])
def test_two_layers_of_one_go_half_as_far_each(tokenizer, tmp_path, added):
    model, processor = build_base(tokenizer, SMALL)
    embeddings = torch.randn(2, 9, SMALL.hidden, generator=torch.Generator().manual_seed(0))
    before = text_states(model, embeddings)
    last = model.model.text_model.layers[-1].mlp.down_proj.weight.detach().clone()
    grow(model, added)
    after = text_states(model, embeddings)
    layers = model.model.text_model.layers
    assert len(layers) == SMALL.layers + added
    if added == 0:
        assert torch.equal(after, before)
    else:
        assert all(torch.equal(layer.mlp.down_proj.weight, last / 2) for layer in layers[-2:])
        assert 0 < (after - before).norm() < 0.01 * before.norm()
    cached = model.model.text_model(inputs_embeds=embeddings, use_cache=True)
    torch.testing.assert_close(cached.last_hidden_state, after, atol=1e-5, rtol=1e-5)
    assert cached.past_key_values.get_seq_length() == 9
    save_base(model, processor, tmp_path / "base")
    loaded, _ = load_base(tmp_path / "base")
    assert len(loaded.model.text_model.layers) == len(layers) == loaded.config.text_config.num_hidden_layers
    after.square().sum().backward()
    learnt = [layer.self_attn.q_proj.weight.grad for layer in layers]
    assert all(gradient is not None and gradient.any() for gradient in learnt), "all of a layer learns from the first"


def test_no_more_layers_than_there_are(small):
    with pytest.raises(ValueError, match="not 3"):
        grow(small[0], 3)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_lean_decoder_with_a_lora_adapter(tokenizer, dropout):
    from peft import LoraConfig, get_peft_model

    model, _ = build_base(tokenizer, SMALL)
    lora = LoraConfig(r=4, target_modules=targets(model), lora_dropout=dropout, init_lora_weights=False)
    adapted = get_peft_model(model, lora)
    embeddings = torch.randn(2, 9, SMALL.hidden, generator=torch.Generator().manual_seed(0))
    states, gradients = [], []
    for decoder in (lambda: text_states(model, embeddings), lambda: model.model.text_model(
        inputs_embeds=embeddings, use_cache=False
    ).last_hidden_state):  # fmt: skip
        torch.manual_seed(1)  # the same dropout
        states.append(decoder())
        adapted.zero_grad()
        states[-1].square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in adapted.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*states, atol=1e-4, rtol=1e-4)
    assert gradients[0] and all("lora_" in name for name in gradients[0])
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-3)


def test_saved_model_is_the_same_in_half_precision(small, tmp_path):
    model, processor = small
    save_base(model, processor, tmp_path / "base")
    again, again_processor = load_base(tmp_path / "base")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor.half().float())
    text = "<|user|>画一只 fox<end_of_utterance>"
    assert again_processor.tokenizer(text)["input_ids"] == processor.tokenizer(text)["input_ids"]
    assert again_processor.image_seq_len == SMALL.picture_tokens
    assert again_processor.tokenizer.chat_template == processor.tokenizer.chat_template
    assert not (tmp_path / "base.partial").exists()


def test_embeddings_that_are_tied_are_kept_once(small, tmp_path):
    save_base(*small, tmp_path / "base")
    with safe_open(tmp_path / "base" / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
    assert "model.text_model.embed_tokens.weight" in names and "lm_head.weight" not in names
    loaded, _ = load_base(tmp_path / "base")
    assert loaded.lm_head.weight is loaded.model.text_model.embed_tokens.weight


def test_saving_again_replaces(small, tmp_path):
    for _ in range(2):
        save_base(*small, tmp_path / "base")
    load_base(tmp_path / "base")


def test_missing_and_truncated_folders_say_so(small, tmp_path):
    with pytest.raises(ModelFolderError, match="easel train mllm"):
        load_base(tmp_path)
    save_base(*small, tmp_path / "base")
    weights = tmp_path / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelFolderError, match="cannot be read"):
        load_base(tmp_path / "base")


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="multiple"):
        replace(SMALL, picture_size=120)
    with pytest.raises(ValueError, match="heads"):
        replace(SMALL, heads=3)
