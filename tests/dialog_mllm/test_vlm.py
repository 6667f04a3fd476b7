from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer

from dialog_mllm.data import Encoder, PictureCache, collate
from dialog_mllm.errors import MessageError
from dialog_mllm.finetune import FinetuneConfig, finetune
from dialog_mllm.fit import FitConfig, learn
from dialog_mllm.lora import AdapterSettings, attach, targets
from dialog_mllm.messages import ImageBlock, Message
from dialog_mllm.model import ModelFolderError, build_base, load_base, save_base
from dialog_mllm.objective import Dialogues, token_losses
from dialog_mllm.protocol import DRAW, SWITCH
from dialog_mllm.records import DataError
from dialog_mllm.tokenizer import texts_of, train_tokenizer
from dialog_mllm.vlm import VlmEncoder, collate_vlm, load_vlm
from tests.dialog_mllm import toy
from tests.dialog_mllm.tiny import CHAT_TEMPLATE, CONTEXT, SPECIAL_TOKENS, build_tokenizer

needs_torchvision = pytest.mark.skipif(
    not transformers.utils.is_torchvision_available(), reason="its processor needs torchvision; the CPU set-up has none"
)
TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 2048,
}  # fmt: skip


def tokenizer_with(*tokens: str):
    """Of the tiny model's words; <draw> and <switch> are no tokens of it, as in any open model."""
    tokenizer = build_tokenizer(SPECIAL_TOKENS, CONTEXT)
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] not in (DRAW, SWITCH)]
    renamed = {DRAW: "<unused0>", SWITCH: "<unused1>"}
    data["model"]["vocab"] = {renamed.get(word, word): i for word, i in data["model"]["vocab"].items()}
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(data)), pad_token="<|pad|>", eos_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE, model_max_length=2048,
    )  # fmt: skip
    made.add_special_tokens({"additional_special_tokens": list(tokens)})
    return made


def llava_next(folder: Path) -> Path:
    tokenizer = tokenizer_with("<image>")
    config = transformers.LlavaNextConfig(
        vision_config={
            "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 16, "projection_dim": 32,
        },
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **TEXT},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=[[32, 64], [64, 32], [64, 64]],
        vision_feature_layer=-1,
    )  # fmt: skip
    processor = transformers.LlavaNextProcessor(
        transformers.LlavaNextImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=[[64, 64]]
        ),
        tokenizer, patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )  # fmt: skip
    return save(transformers.LlavaNextForConditionalGeneration, config, processor, folder)


def qwen2_vl(folder: Path, kind: str = "Qwen2VL") -> Path:
    tokenizer = tokenizer_with("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end", "image_pad")}
    vision = {"depth": 2, "num_heads": 2, "patch_size": 14, "hidden_size": 32}
    vision |= {"embed_dim": 32} if kind == "Qwen2VL" else {"intermediate_size": 64, "out_hidden_size": 32}
    config = getattr(transformers, f"{kind}Config".replace("2_5VL", "2_5_VL"))(
        vision_config=vision,
        text_config={
            "vocab_size": len(tokenizer), **TEXT,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
        },
        image_token_id=ids["image_pad"], vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"], video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
    )  # fmt: skip
    name = "Qwen2VL" if kind == "Qwen2VL" else "Qwen2_5_VL"
    edges = {"shortest_edge": 28 * 28, "longest_edge": 112 * 112}
    processor = getattr(transformers, f"{name}Processor")(
        transformers.Qwen2VLImageProcessorPil(size=edges), tokenizer,
        transformers.Qwen2VLVideoProcessor(size=edges),
        chat_template=CHAT_TEMPLATE.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>"),
    )  # fmt: skip
    return save(getattr(transformers, f"{name}ForConditionalGeneration"), config, processor, folder)


def smolvlm(folder: Path) -> Path:
    tokenizer = tokenizer_with("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    config = transformers.SmolVLMConfig(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), scale_factor=2, pad_token_id=0,
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 64, "patch_size": 16,
        },
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **TEXT},
    )  # fmt: skip
    edge = {"longest_edge": 64}
    processor = transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessorPil(size=edge, max_image_size=edge, do_image_splitting=False), tokenizer,
        transformers.SmolVLMVideoProcessor(size=edge, max_image_size=edge, num_frames=4, fps=1), image_seq_len=4,
        chat_template=CHAT_TEMPLATE,
    )  # fmt: skip
    return save(transformers.SmolVLMForConditionalGeneration, config, processor, folder)


def save(kind, config, processor, folder: Path) -> Path:
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


FAMILIES = {
    "llava_next": llava_next,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": lambda folder: qwen2_vl(folder, "Qwen2_5_VL"),
    "smolvlm": smolvlm,
}
needs_num2words = pytest.mark.skipif(not find_spec("num2words"), reason="its processor needs num2words")
WHERE = [
    pytest.param("llava_next"),
    pytest.param("qwen2_vl", marks=needs_torchvision),
    pytest.param("qwen2_5_vl", marks=needs_torchvision),
    pytest.param("smolvlm", marks=[needs_torchvision, needs_num2words]),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("toy"), 6)


@pytest.fixture(scope="module")
def base(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "base"
    save_base(*build_base(train_tokenizer(texts_of([root / "train.jsonl"]), 400), toy.SMALL), folder)
    return folder


def conversation(root: Path, number: int = 0) -> list[Message]:
    return [Message.from_json(message, root) for message in toy.record(root, number, 2)["messages"]]


def told(encoder: VlmEncoder, messages: list[Message], learn=None) -> tuple[list[str], list[str]]:
    """The runs of tokens that count, and those that decide, as text."""
    (*_, sample) = encoder.samples(messages, learn, "en", "r")
    batch = collate_vlm([sample], encoder)
    ids, counts = batch.ids[0].tolist(), (batch.weights[0] > 0).tolist()
    runs, run = [], []
    for token, counted in zip([*ids, 0], [*counts, False], strict=True):
        if counted:
            run.append(token)
        elif run:
            runs.append(encoder.processor.tokenizer.decode(run))
            run = []
    spans = [ids[d.position : d.position + d.width] for _, d in batch.decisions]
    return runs, [encoder.processor.tokenizer.decode(span) for span in spans]


@pytest.mark.parametrize("family", WHERE)
def test_replies_and_their_ends_count_and_nothing_else(family, root, tmp_path):
    model, processor = load_vlm(FAMILIES[family](tmp_path / family))
    encoder = VlmEncoder.of(processor, model)
    messages = [
        Message.user("draw a fox in the snow"),
        Message.assistant(SWITCH + DRAW + "a fox", ImageBlock.from_picture(Image.new("RGB", (90, 60), "red"))),
        Message.user("make it red", [ImageBlock.from_picture(Image.new("RGB", (64, 64)))]),
        Message.assistant(DRAW + "a red fox", ImageBlock.from_picture(Image.new("RGB", (64, 64), "blue"))),
        Message.user("a red fox, is it a fox?"),
        Message.assistant("a red fox, 一只"),
    ]
    runs, deciding = told(encoder, messages)
    end = "<|im_end|>"
    assert runs == [SWITCH + DRAW + "a fox" + end, DRAW + "a red fox" + end, "a red fox, 一只" + end]
    assert deciding[:2] == [DRAW, DRAW] and "a red fox".startswith(deciding[2])
    assert told(encoder, messages, dict.fromkeys([1], 1.0))[0] == [DRAW + "a red fox" + end]
    (sample,) = encoder.samples(messages, None, "en", "r")
    assert sample.length == collate_vlm([sample], encoder).tokens


@pytest.mark.parametrize("family", WHERE)
def test_any_model_learns_in_its_language_model_alone(family, root, tmp_path):
    base = FAMILIES[family](tmp_path / family)
    fit = FitConfig(tmp_path / "run", epochs=2, batch_tokens=1500, learning_rate=5e-3, warmup=1, optimizer="adamw")
    scores = finetune(FinetuneConfig(root, fit, base=base, rank=4, alpha=8, validation_records=3))
    assert scores["loss"] < 6 and 0 <= scores["switch_accuracy"] <= 1
    weights = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert len(weights) == 2 * 7 * 2 and all("language_model" in n or "text_model" in n for n in weights)
    assert any(value.any() for name, value in weights.items() if "lora_B" in name)
    again = attach(AdapterSettings(base=base, adapter=tmp_path / "run" / "adapter"))
    kept = dict(again.model.named_parameters())
    assert all(torch.equal(kept[n.replace(".weight", ".default.weight")], value) for n, value in weights.items())


def test_the_general_path_computes_what_the_bundled_one_does(root, base, tmp_path):
    """Same tokens, same weights, same decisions, same losses: the two ways to read a record are one."""
    model, processor = load_base(base)
    ours, theirs, pictures = Encoder(processor), VlmEncoder.of(processor, model), PictureCache(processor)
    assert theirs.draw == processor.tokenizer.convert_tokens_to_ids(DRAW)
    for number in range(3):
        messages = conversation(root, number)
        samples = list(ours.samples(messages, pictures.row, 0.0, "en"))
        pictures.fill(tmp_path)
        fast, general = collate(samples, pictures), collate_vlm(list(theirs.samples(messages, None, "en", "r")), theirs)
        assert torch.equal(fast.ids, general.ids) and torch.equal(fast.weights, general.weights)
        assert fast.decisions == general.decisions
        for one, other in zip(token_losses(model, fast), token_losses(model, general), strict=True):
            torch.testing.assert_close(one, other, atol=2e-2, rtol=2e-2)  # pictures are kept as 8 bits


@pytest.mark.parametrize("option", [{"dora": True}, {"gradient_checkpointing": True}, {"rslora": True}])
def test_every_way_of_adapting_gives_gradients_to_the_adapter_alone(root, base, option):
    trainee = attach(AdapterSettings(base=base, rank=4, alpha=8, **option))
    encoder = trainee.encoder
    objective = Dialogues(trainee.core, trainee.draw, "float32")
    trained = [p for p in trainee.model.parameters() if p.requires_grad]
    if isinstance(encoder, VlmEncoder):
        batch = collate_vlm(list(encoder.samples(conversation(root), None, "en", "r")), encoder)
    else:
        pictures = PictureCache(trainee.processor)
        samples = list(encoder.samples(conversation(root), pictures.row, 0.0, "en"))
        pictures.fill(base.parent / "pictures")
        batch = collate(samples, pictures)
    assert isinstance(encoder, VlmEncoder) == ("rslora" not in option)
    trainee.model.train()
    loss, _ = learn(objective, [batch], trained)
    assert 0 < loss < 20 and all(p.grad is not None for p in trained)
    names = {name for name, p in trainee.model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in names)
    assert any("magnitude" in name for name in names) == ("dora" in option)


def test_targets_are_the_language_models_linears(base):
    core, _ = load_base(base)
    pattern = targets(core)
    assert pattern.startswith(".*text_model") and "q_proj" in pattern and "down_proj" in pattern
    assert "lm_head" not in pattern and "out_proj" not in pattern


def test_what_cannot_be_trained_is_said(root, base, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # else it tries for long
    with pytest.raises(ModelFolderError, match=r"vision-language|torchvision"):
        load_vlm("no/such-model-here")
    with pytest.raises(ModelFolderError, match=r"bitsandbytes|CUDA"):
        attach(AdapterSettings(base=base, qlora=True))
    model, processor = load_base(base)
    short = VlmEncoder(processor, 20, 0)
    with pytest.raises(DataError, match="reads 20"):
        list(short.samples(conversation(root), None, "en", "r"))
    processor.chat_template = "{% for message in messages %}{{ message.role }}{% endfor %}"
    with pytest.raises(ModelFolderError, match="chat template"):
        VlmEncoder.of(processor, model)
    broken = ImageBlock(path=tmp_path / "gone.png")
    with pytest.raises((DataError, MessageError), match="gone"):
        list(VlmEncoder(load_base(base)[1], 2048, 0).samples(
            [Message.user("look", [broken]), Message.assistant("hm")], None, "en", "r"))  # fmt: skip


@pytest.mark.skipif(transformers.utils.is_torchvision_available(), reason="torchvision is there")
def test_a_model_that_needs_torchvision_says_so(tmp_path):
    transformers.Qwen2VLConfig().save_pretrained(tmp_path)
    tokenizer_with("<|image_pad|>").save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({
        "processor_class": "Qwen2VLProcessor", "image_processor_type": "Qwen2VLImageProcessor",
    }))  # fmt: skip
    with pytest.raises(ModelFolderError, match="torchvision"):
        load_vlm(tmp_path)
