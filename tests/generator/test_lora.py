"""LoRA on the denoiser against diffusers and PEFT with the same files; putting on, taking off, and broken files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanDiT2DModel
from diffusers.loaders import PeftAdapterMixin
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from generator import draw, lora
from generator.engine import Engine
from generator.errors import CheckpointError, GeneratorError, RequestError
from generator.lora import Adapters
from generator.model import HunyuanDiT
from generator.pipeline import Pipeline
from generator.request import LORA_FILES, DrawRequest, Lora
from tests.generator.test_engine import TIMEOUT, arguments, same
from tests.generator.test_model import denoise, inputs, oracle
from tests.generator.tiny import NATIVE, diffusers_dit

DIFFUSERS, PEFT = LORA_FILES
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
EVERYWHERE = [*ATTENTION, "net.0.proj", "net.2", "skip_linear", "norm1.linear", "extra_embedder.linear_1", "proj_out"]
FOX = DrawRequest("a red fox", seed=3, size=(NATIVE, NATIVE), steps=4)
Tensors = dict[str, Tensor]


class WithLora(HunyuanDiT2DModel, PeftAdapterMixin):
    """diffusers' model, with diffusers' way to load a LoRA."""


def write_peft(folder: Path, seed: int = 0, **settings: Any) -> Path:
    """A LoRA that PEFT has written, with every matrix away from zero."""
    torch.manual_seed(seed)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ATTENTION, **settings})
    model = get_peft_model(diffusers_dit(), config)
    torch.manual_seed(seed + 1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    return folder


def write_diffusers(folder: Path, change: Callable[[Tensors], Tensors], metadata: Any = None) -> Path:
    """The matrices of a PEFT folder in diffusers' layout."""
    tensors = {
        key.replace("base_model.model.", "transformer."): tensor
        for key, tensor in load_file(write_peft(folder / "peft", target_modules=EVERYWHERE) / PEFT).items()
    }
    packed = {"lora_adapter_metadata": json.dumps(metadata)} if metadata else {}
    save_file(change(tensors), folder / DIFFUSERS, metadata={"format": "pt", **packed})
    return folder


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformer")
    diffusers_dit().save_pretrained(folder)
    return folder


@pytest.fixture
def ours(transformer: Path) -> HunyuanDiT:
    return HunyuanDiT.from_pretrained(transformer).fuse()


def check(ours: HunyuanDiT, theirs: Any, path: Path, scale: float = 1.0) -> None:
    """The same as theirs with it; the very same as before without it."""
    x = inputs(ours.config, 8, 8)
    before = denoise(ours, x, 8, 8)
    adapters = Adapters(ours)
    adapters.wear(Lora(str(path), scale))
    worn = denoise(ours, x, 8, 8)
    assert (worn - before).abs().max() > 0.1
    torch.testing.assert_close(worn, oracle(theirs, ours, x, 8, 8), atol=1e-5, rtol=1e-5)
    adapters.wear(None)
    assert torch.equal(denoise(ours, x, 8, 8), before)
    assert not adapters.base


PEFT_SETTINGS: dict[str, dict[str, Any]] = {
    "attention": {},
    "every kind of layer": {"target_modules": EVERYWHERE, "r": 2},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"to_q": 6, r"blocks\.1\.attn2\.to_v": 3},
        "alpha_pattern": {"blocks.0.attn1.to_k": 1, "to_out.0": 16},
    },
}


@pytest.mark.parametrize("name", PEFT_SETTINGS)
def test_peft_folders(name: str, ours: HunyuanDiT, tmp_path: Path) -> None:
    write_peft(tmp_path, **PEFT_SETTINGS[name])
    check(ours, PeftModel.from_pretrained(diffusers_dit(), tmp_path).eval(), tmp_path)


def older(tensors: Tensors) -> Tensors:
    return {key.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): tensor for key, tensor in tensors.items()}


METADATA = {"r": 4, "lora_alpha": 6, "target_modules": EVERYWHERE, "alpha_pattern": {"to_q": 2}}
DIFFUSERS_FILES: dict[str, tuple[Callable[[Tensors], Tensors], Any]] = {
    "plain": (lambda tensors: tensors, None),
    "with settings": (lambda tensors: tensors, {f"transformer.{key}": value for key, value in METADATA.items()}),
    "older names": (older, None),
}


@pytest.mark.parametrize("name", DIFFUSERS_FILES)
def test_diffusers_files(name: str, ours: HunyuanDiT, transformer: Path, tmp_path: Path) -> None:
    write_diffusers(tmp_path, *DIFFUSERS_FILES[name])
    theirs: Any = WithLora.from_pretrained(transformer)
    theirs.load_lora_adapter(tmp_path / DIFFUSERS, prefix="transformer", use_safetensors=True)
    check(ours, theirs.eval(), tmp_path / DIFFUSERS)


def test_alphas_among_the_matrices(ours: HunyuanDiT, tmp_path: Path) -> None:
    """As other trainers write them: the same as PEFT with that alpha."""

    def with_alphas(tensors: Tensors) -> Tensors:
        layers = {key.rpartition(".lora_")[0] for key in tensors}
        return {**tensors, **{f"{layer}.alpha": torch.tensor(8.0) for layer in layers}}

    write_diffusers(tmp_path, with_alphas)
    check(ours, PeftModel.from_pretrained(diffusers_dit(), tmp_path / "peft").eval(), tmp_path)


def test_official_names(ours: HunyuanDiT, tmp_path: Path) -> None:
    """Their one layer for q, k and v is three here: the first factor is shared, the second is cut."""
    tensors = {}
    for name, widths in {"attn1.Wqkv": (64, 192), "attn2.kv_proj": (32, 128), "mlp.fc1": (64, 192)}.items():
        tensors[f"base_model.model.blocks.1.{name}.lora_A.weight"] = torch.randn(3, widths[0])
        tensors[f"base_model.model.blocks.1.{name}.lora_B.weight"] = torch.randn(widths[1], 3)
    save_file(tensors, tmp_path / PEFT)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 3, "lora_alpha": 6}))
    theirs = diffusers_dit()
    for name, layers in {
        "attn1.Wqkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
        "attn2.kv_proj": ("attn2.to_k", "attn2.to_v"),
        "mlp.fc1": ("ff.net.0.proj",),
    }.items():
        down, up = (tensors[f"base_model.model.blocks.1.{name}.lora_{side}.weight"] for side in "AB")
        for layer, part in zip(layers, (2 * up @ down).chunk(len(layers)), strict=True):
            theirs.get_submodule(f"blocks.1.{layer}").weight.data += part
    check(ours, theirs, tmp_path)


def test_from_one_to_another(transformer: Path, tmp_path: Path) -> None:
    one = str(write_peft(tmp_path / "one"))
    two = str(write_peft(tmp_path / "two", 5, target_modules=["net.2", "to_q"]))
    choices = [Lora(one), Lora(two), None, Lora(one, 0.5), Lora(two), Lora(one, -1.0), Lora(one, 0.0), None]

    def outcome(model: HunyuanDiT, adapters: Adapters, choice: Lora | None) -> Tensor:
        adapters.wear(choice)
        x = inputs(model.config, 8, 8)
        return denoise(model, x, 8, 8)

    used = HunyuanDiT.from_pretrained(transformer).fuse()
    adapters = Adapters(used)
    seen = {}
    for choice in choices:
        if choice not in seen:
            fresh = HunyuanDiT.from_pretrained(transformer).fuse()
            seen[choice] = outcome(fresh, Adapters(fresh), choice)
        assert torch.equal(outcome(used, adapters, choice), seen[choice]), choice
    assert torch.equal(seen[None], seen[Lora(one, 0.0)])
    assert len({tensor.sum().item() for tensor in seen.values()}) == 5


def test_half_precision_is_rounded_once(transformer: Path, tmp_path: Path) -> None:
    model = HunyuanDiT.from_pretrained(transformer, torch.bfloat16).fuse()
    exact = HunyuanDiT.from_pretrained(transformer)
    adapter = Lora(str(write_peft(tmp_path)))
    base = model.blocks[0].attn1.to_q.weight.clone()
    Adapters(model).wear(adapter)
    change = lora.read_lora(adapter, exact)["blocks.0.attn1.to_q"]
    expected = (base.float() + change.scale * change.up @ change.down).bfloat16()
    assert torch.equal(model.blocks[0].attn1.to_q.weight, expected)


def test_what_breaks_off_between_two_is_made_good(
    ours: HunyuanDiT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = Lora(str(write_peft(tmp_path)))
    x = inputs(ours.config, 8, 8)
    before = denoise(ours, x, 8, 8)
    adapters, calls = Adapters(ours), []

    def breaks(self: lora.LowRank, base: Tensor, strength: float) -> Tensor:
        calls.append(strength)
        if len(calls) == 5:
            raise MemoryError("not enough")
        return base + 1

    with monkeypatch.context() as patched:
        patched.setattr(lora.LowRank, "added", breaks)
        with pytest.raises(MemoryError):
            adapters.wear(adapter)
    adapters.wear(None)
    assert torch.equal(denoise(ours, x, 8, 8), before)


# --- files that are wrong


def with_tensor(key: str, *shape: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        save_file({**load_file(folder / PEFT), key: torch.zeros(shape)}, folder / PEFT)

    return damage


def without_tensor(key: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        save_file({k: v for k, v in load_file(folder / PEFT).items() if k != key}, folder / PEFT)

    return damage


def with_settings(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return damage


def cut(folder: Path) -> None:
    (folder / PEFT).write_bytes((folder / PEFT).read_bytes()[:5000])


BLOCK = "base_model.model.blocks.0"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another width in": (with_tensor(f"{BLOCK}.attn1.to_q.lora_A.weight", 4, 63), r"to_q has the shapes \(4, 63"),
    "another width out": (with_tensor(f"{BLOCK}.attn1.to_k.lora_B.weight", 65, 4), r"attn1\.to_k has the shapes"),
    "other ranks": (with_tensor(f"{BLOCK}.attn1.to_v.lora_B.weight", 64, 3), r"attn1\.to_v has the shapes"),
    "half a pair": (without_tensor(f"{BLOCK}.attn2.to_v.lora_B.weight"), r"attn2\.to_v\.lora_B is missing"),
    "a layer too many": (
        with_tensor("base_model.model.blocks.7.attn1.to_q.lora_A.weight", 4, 64), r"blocks\.7.*does not have"
    ),
    "a convolution": (with_tensor("base_model.model.pos_embed.proj.lora_A.weight", 4, 4, 2, 2), "layer pos_embed"),
    "a norm": (with_tensor(f"{BLOCK}.norm2.lora_A.weight", 4, 4), "needs a linear layer"),
    "DoRA": (with_tensor(f"{BLOCK}.attn1.to_q.lora_magnitude_vector.weight", 64), "magnitude_vector.*is no pair"),
    "a bias": (with_tensor(f"{BLOCK}.attn1.to_q.lora_B.bias", 64), r"lora_B\.bias is no pair"),
    "a whole layer": (with_tensor("base_model.model.proj_out.weight", 32, 64), r"proj_out\.weight is no pair"),
    "LoHa": (with_tensor(f"{BLOCK}.attn1.to_q.hada_w1_a", 64, 4), "hada_w1_a is no pair"),
    "a text encoder": (with_tensor("text_encoder.layer.0.lora_A.weight", 4, 4), "is for a text encoder"),
    "no settings": (lambda f: (f / "adapter_config.json").unlink(), r"adapter_config\.json is missing"),
    "broken settings": (lambda f: (f / "adapter_config.json").write_text("{"), "cannot be read as JSON"),
    "another rank in the settings": (with_settings(r=8), "has rank 4, but 8 in the settings"),
    "another method": (with_settings(peft_type="LOHA"), "is LOHA"),
    "another base": (with_settings(init_lora_weights="pissa_niter_4"), "begun with pissa"),
    "half a file": (cut, "adapter_model.safetensors is damaged"),
    "nothing": (lambda f: save_file({}, f / PEFT), "holds no LoRA"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_wrong_with_a_file_is_said(name: str, tmp_path: Path, pipeline: Pipeline, peft: Path) -> None:
    for file in peft.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damage, message = DAMAGE[name]
    damage(tmp_path)
    adapters = Adapters(pipeline.dit)
    with pytest.raises(CheckpointError, match=message) as caught:
        adapters.wear(Lora(str(tmp_path)))
    assert str(tmp_path) in str(caught.value)
    assert adapters.settled and not adapters.base, "no weight was written"


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "lora.ckpt").write_bytes(b"pickle")
    for path, message in (("gone", "There is no LoRA"), ("", "There is no LoRA"), ("lora.ckpt", "no .safetensors")):
        with pytest.raises(RequestError, match=message):
            Lora(str(tmp_path / path))
    with pytest.raises(RequestError, match="must be a number"):
        Lora(str(tmp_path), float("nan"))


# --- pictures


@pytest.fixture(scope="module")
def peft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_peft(tmp_path_factory.mktemp("peft"))


def test_requests_with_different_adapters_at_once(
    engine: Engine, pipeline: Pipeline, peft: Path, tmp_path: Path
) -> None:
    other = write_peft(tmp_path, 5, target_modules=["net.2", "to_q"])
    loras = [None, Lora(str(peft)), Lora(str(other)), Lora(str(peft), 0.5)]
    requests = [replace(FOX, lora=lora, owner=f"user {i}", steps=4 + i) for i, lora in enumerate(loras)]
    assert len({*requests}) == 4, "requests are keys"
    alone = [pipeline.draw(request) for request in requests]
    together = [job.result(TIMEOUT).image for job in [engine.submit(request) for request in requests * 2]]
    assert all(same(image, alone[i % 4]) for i, image in enumerate(together))
    assert not any(same(alone[0], image) for image in alone[1:])


def test_an_edit_may_wear_another_than_its_source(engine: Engine, pipeline: Pipeline, peft: Path) -> None:
    source = replace(FOX, lora=Lora(str(peft)))
    edit = replace(FOX, prompt="a red fox in snow", source=source)
    beside = replace(FOX, seed=9)
    jobs = [engine.submit(edit), engine.submit(beside)]
    first, second = (job.result(TIMEOUT).image for job in jobs)
    canvas = pipeline.begin(source)
    while not canvas.finished:
        pipeline.advance([canvas])
    again = pipeline.begin(edit, canvas.trajectory)
    while not again.finished:
        pipeline.advance([again])
    assert same(first, pipeline.decode(again)) and same(second, pipeline.draw(beside))


def test_a_broken_adapter_costs_its_own_request_alone(engine: Engine, pipeline: Pipeline, tmp_path: Path) -> None:
    write_peft(tmp_path)
    cut(tmp_path)
    jobs = [engine.submit(FOX), engine.submit(replace(FOX, lora=Lora(str(tmp_path))))]
    with pytest.raises(GeneratorError, match="damaged"):
        jobs[1].result(TIMEOUT)
    assert same(jobs[0].result(TIMEOUT).image, pipeline.draw(FOX))


def test_a_file_that_changes_is_another_adapter(pipeline: Pipeline, tmp_path: Path) -> None:
    first = replace(FOX, lora=Lora(str(write_peft(tmp_path, 1))))
    picture = pipeline.draw(first)
    second = replace(FOX, lora=Lora(str(write_peft(tmp_path, 7))))
    assert first != second and not same(picture, pipeline.draw(second))
    with pytest.raises(CheckpointError, match="has changed since"):
        pipeline.draw(first)


def test_a_model_that_takes_none_says_so(pipeline: Pipeline, peft: Path) -> None:
    with pytest.raises(RequestError, match="takes no LoRA"):
        replace(pipeline, adapters=None).check(replace(FOX, lora=Lora(str(peft))))


def test_easel_draw_says_which_lora_it_was(pipeline: Pipeline, peft: Path, tmp_path: Path) -> None:
    line = ["a fox", "-o", str(tmp_path / "fox.png"), "--size", "64x64", "--steps", "2", "--lora", str(peft)]
    assert draw.run(arguments(*line, "--lora-scale", "0.5"), lambda: pipeline) == 0
    written = json.loads(Image.open(tmp_path / "fox.png").info["lora"])
    assert written == {"name": peft.name, "sha256": Lora(str(peft)).sha256, "scale": 0.5}
    assert len(written["sha256"]) == 64
