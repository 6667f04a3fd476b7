"""A tiny Idefics3 checkpoint that says what it is told to, and a LoRA adapter for it: what vLLM serves in the tests.

    python -m tests.dialog_mllm.tiny OUT_DIR     # writes OUT_DIR/base and OUT_DIR/adapter

The next token follows from the last one by SCRIPT: a reply draws "fox"; kept from drawing, it talks without end. The
layers' random weights move the probabilities a little, so that pictures and the adapter can be told from nothing.
"""

from __future__ import annotations

import itertools
import json
import struct
import sys
from pathlib import Path

from dialog_mllm.protocol import DRAW, SWITCH

END = "<|im_end|>"
SPECIAL_TOKENS = [
    "<|pad|>", END, "<|im_start|>", DRAW, SWITCH,
    "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>",
]  # fmt: skip
CHAT_TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}<image>{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""
CONTEXT = 512
TALK = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
# (last token, next token, logit)
SCRIPT = [
    ("Ċ", DRAW, 8.0), ("Ċ", TALK[0], 7.0), (DRAW, "f", 12.0), ("f", "o", 12.0), ("o", "x", 12.0), ("x", END, 12.0),
    *((here, there, 12.0) for here, there in zip(TALK, TALK[1:] + TALK[0], strict=True)),
]  # fmt: skip
# A model that was never taught the protocol, to which "<draw>" is four tokens, and a context for its instructions.
FOREIGN_SPECIAL_TOKENS = [token for token in SPECIAL_TOKENS if token not in (DRAW, SWITCH)]
FOREIGN_SCRIPT = [
    (here, there, 12.0) for here, there in itertools.pairwise(("Ċ", "<", "dr", "aw", ">", "fo", "x", END))
]
FOREIGN_CONTEXT = 4096
IMAGE_TOKENS = 16  # (128 / 16)² patches, 2 by 2 shuffled into one


def build_tokenizer(special_tokens: list[str], context: int):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["draw a red fox in the snow", "画一只红色的狐狸", "user assistant"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token=END,
        extra_special_tokens=special_tokens[2:],
        chat_template=CHAT_TEMPLATE,
        model_max_length=context,
    )


def build_foreign(folder: Path) -> Path:
    return build_base(folder, FOREIGN_SPECIAL_TOKENS, FOREIGN_SCRIPT, FOREIGN_CONTEXT)


def build_base(
    folder: Path,
    special_tokens: list[str] = SPECIAL_TOKENS,
    script: list[tuple[str, str, float]] = SCRIPT,
    context: int = CONTEXT,
) -> Path:
    import torch
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessorPil,
        Idefics3Processor,
    )

    tokenizer = build_tokenizer(special_tokens, context)
    end = tokenizer.convert_tokens_to_ids(END)
    config = Idefics3Config(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 128,
            "patch_size": 16,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": context,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": end,
            "eos_token_id": end,
        },
    )
    torch.manual_seed(0)
    model = Idefics3ForConditionalGeneration(config)
    _write_script(model, tokenizer, script)
    processor = Idefics3Processor(
        Idefics3ImageProcessorPil(
            size={"longest_edge": 128}, max_image_size={"longest_edge": 128}, do_image_splitting=False
        ),
        tokenizer,
        image_seq_len=IMAGE_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _write_script(model, tokenizer, script: list[tuple[str, str, float]]) -> None:
    """Gives each scripted token an axis of the embedding, and the LM head a weight from axis to next token."""
    import torch

    axes = {token: axis for axis, token in enumerate(dict.fromkeys(here for here, _, _ in script))}
    embedding = model.model.text_model.embed_tokens.weight
    head = model.lm_head.weight
    width = head.shape[1]
    with torch.no_grad():
        head.zero_()
        for token, axis in axes.items():
            embedding[tokenizer.convert_tokens_to_ids(token)] = torch.eye(width)[axis]
        for here, there, logit in script:
            # The final RMSNorm makes the lone 1 of the axis sqrt(width).
            head[tokenizer.convert_tokens_to_ids(there), axes[here]] = logit / width**0.5


def build_adapter(base: Path, folder: Path, seed: int = 1) -> Path:
    """A LoRA adapter with random weights, large enough to show."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Idefics3ForConditionalGeneration

    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration.from_pretrained(base)
    targets = r".*text_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=1, target_modules=targets, init_lora_weights=False))
    tuned.save_pretrained(str(folder))
    return folder


def write_adapter(folder: Path) -> Path:
    """The files of an adapter, for what does not look into them."""
    folder.mkdir()
    header = json.dumps({"lora": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    return folder


if __name__ == "__main__":
    out = Path(sys.argv[1])
    build_adapter(build_base(out / "base"), out / "adapter")
    print(json.dumps({"base": str(out / "base"), "adapter": str(out / "adapter")}))
