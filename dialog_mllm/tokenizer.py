"""The bundled dialog model's tokenizer: a byte-level BPE over both languages, with the chat template inside it.

    tokenizer = train_tokenizer(texts_of(data_files(["data"], "train"))); tokenizer.save_pretrained("weights/base")

A word is one pre-token and a Chinese character is one pre-token of its own, so that no merge ever glues a colour to an
animal: what an edit replaces is then a whole number of tokens, in both languages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dialog_mllm.protocol import ASSISTANT, DRAW, SWITCH
from dialog_mllm.records import read_records

PAD = "<pad>"
END = "<end_of_utterance>"
USER = "<|user|>"
IMAGE = "<image>"
# The spelling of the last three and of END is Idefics3Processor's.
SPECIAL_TOKENS = (PAD, END, USER, ASSISTANT, DRAW, SWITCH, "<fake_token_around_image>", "<global-img>", IMAGE)

VOCAB_SIZE = 4096
CONTEXT = 2048

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role not in ['user', 'assistant'] %}"
    "{{ raise_exception('The bundled dialog model knows the roles user and assistant, not ' + message.role) }}"
    "{% endif %}"
    "{{ '<|' + message.role + '|>' }}"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% else %}{{ '" + IMAGE + "' }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ '" + END + "' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + ASSISTANT + "' }}{% endif %}"
)

# A Chinese character, an English contraction, a word with its leading space, one digit, one mark, white space.
_PIECES = r"\p{Han}|'(?:s|t|re|ve|m|ll|d)\b| ?[^\s\p{Han}\p{N}\p{P}\p{S}]+| ?\p{N}| ?[\p{P}\p{S}]|\s+(?!\S)|\s+"


def texts_of(files: Iterable[Path | str]) -> Iterator[str]:
    """Every text block of canonical JSONL files, without the control tokens."""
    control = re.compile("|".join(map(re.escape, (DRAW, SWITCH))))
    for record, _ in read_records(files):
        for message in record["messages"]:
            for block in message["content"]:
                if block["type"] == "text":
                    yield control.sub("", block["text"])


def train_tokenizer(texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> PreTrainedTokenizerFast:
    """Deterministic: the same texts give the same tokenizer."""
    smallest = 256 + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise ValueError(f"vocab_size {vocab_size} is below {smallest}, the bytes and the special tokens")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[token for token in SPECIAL_TOKENS if token not in (PAD, END)],
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
        padding_side="right",
        chat_template=CHAT_TEMPLATE,
    )


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def render_chat(tokenizer: PreTrainedTokenizerFast, chat: Sequence[dict], add_generation_prompt: bool = False) -> str:
    """The text that serving renders from the same messages: the tokenizer's own template, nothing else."""
    text = tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=add_generation_prompt)
    assert isinstance(text, str)
    return text
