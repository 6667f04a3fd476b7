"""Any vision-language model of transformers that vLLM serves: records as its own processor encodes them.

    model, processor = load_vlm("Qwen/Qwen2.5-VL-3B-Instruct"); encoder = VlmEncoder.of(processor, model)
    samples = read_samples(files, encoder.samples); batches = Batches(samples, encoder, 8192, collate=collate_vlm)

The model's chat template renders the conversation, its processor makes tokens and pixels of that, and its own forward
pass computes. Which tokens the assistant said is found by rendering the history of each reply: the reply is what the
template adds to it. (The bundled base has a faster way: data.py, model.py.)
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dialog_mllm.data import DRAW_WEIGHT, Decision, counted, views
from dialog_mllm.errors import MessageError
from dialog_mllm.messages import MAX_IMAGE_EDGE, MAX_IMAGES, ImageBlock, Message, TextBlock, arrange, shown
from dialog_mllm.model import ModelFolderError
from dialog_mllm.protocol import DRAW, SWITCH
from dialog_mllm.records import DataError, unreadable


@dataclass(frozen=True)
class Said:
    """A reply's place in a rendered conversation, in characters; `decides` is behind an optional <switch>."""

    start: int
    end: int
    decides: int
    draws: bool
    weight: float = 1.0  # of its words


@dataclass(frozen=True)
class VlmSample:
    text: str  # as the chat template renders it, one placeholder for each picture
    pictures: tuple[ImageBlock, ...]
    replies: tuple[Said, ...]  # that count
    length: int  # tokens, pictures included
    record: str


@dataclass(frozen=True)
class VlmBatch:
    inputs: dict[str, torch.Tensor]  # what the model's forward takes: input_ids (B, T), padded on the right, pixels, …
    weights: torch.Tensor  # float32 (B, T)
    decisions: tuple[tuple[int, Decision], ...]  # row, decision

    @property
    def ids(self) -> torch.Tensor:
        return self.inputs["input_ids"]

    def to(self, device: torch.device) -> VlmBatch:
        inputs = {name: value.to(device) for name, value in self.inputs.items()}
        return VlmBatch(inputs, self.weights.to(device), self.decisions)

    @property
    def tokens(self) -> int:
        return int(self.inputs["attention_mask"].sum())


def load_vlm(
    base: str | Path, dtype: torch.dtype | None = None, four_bits: bool = False, device: torch.device | None = None
) -> tuple[Any, Any]:
    """Model and processor from a folder or the hub. dtype None: as published. ModelFolderError says what is missing.

    `four_bits`: the weights as QLoRA has them (arXiv 2305.14314): NormalFloat4, their scales quantised too.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    name = str(base)
    try:
        config = AutoConfig.from_pretrained(name)
        # transformers does the same but for a class that torchvision's absence hides; it says so in a page of text.
        processor = AutoProcessor.from_pretrained(name)
    except ImportError as error:
        raise ModelFolderError(_missing(name, error)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if not _has_torchvision():
            raise ModelFolderError(_missing(name, error)) from error
        raise ModelFolderError(
            f"{name} is no vision-language model that transformers reads: {_first(error)}"
        ) from error
    options: dict[str, Any] = {"dtype": dtype or "auto"}
    if four_bits:
        options |= _four_bits(device or torch.device("cuda"))
    try:
        model = AutoModelForImageTextToText.from_pretrained(name, config=config, **options)
    except ImportError as error:
        raise ModelFolderError(_missing(name, error)) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelFolderError(f"the model {name} cannot be loaded: {_first(error)}") from error
    if getattr(processor, "chat_template", None) is None:
        raise ModelFolderError(f"{name} has no chat template: choose a model that was taught to chat (-Instruct).")
    if not processor.tokenizer.is_fast:
        raise ModelFolderError(f"{name} has no fast tokenizer (tokenizer.json), and replies cannot be found without.")
    if processor.tokenizer.pad_token_id is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return model, processor


def _has_torchvision() -> bool:
    from transformers.utils import is_torchvision_available

    return is_torchvision_available()


def _missing(name: str, error: Exception) -> str:
    if _has_torchvision():
        return f"{name} cannot be read: {_first(error)}"
    return (
        f"{name} cannot be read without torchvision ({_first(error)}). The CPU set-up has none: train Qwen-VL, "
        "SmolVLM2 and others that need it on a GPU machine (make setup PROFILE=hunyuan)."
    )


def _first(error: Exception) -> str:
    """The first line: transformers writes pages."""
    return (str(error).strip().splitlines() or [repr(error)])[0]


def _four_bits(device: torch.device) -> dict[str, Any]:
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is None:
        raise ModelFolderError("--qlora needs bitsandbytes: pip install bitsandbytes, on a machine with a CUDA GPU.")
    if device.type != "cuda":
        raise ModelFolderError("--qlora needs a CUDA GPU, and there is none here: leave it out, or use --base of a "
                               "smaller model.")  # fmt: skip
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": settings, "device_map": {"": device}}


def blocks(messages: Sequence[Message], max_images: int = MAX_IMAGES) -> tuple[list[dict], list[ImageBlock]]:
    """The chat as vLLM hands it to a template that takes content parts, and its pictures in order."""
    chat: list[dict] = []
    pictures: list[ImageBlock] = []
    for message in arrange(messages, max_images):
        parts: list[dict] = []
        for block in message.content:
            if isinstance(block, TextBlock):
                parts.append({"type": "text", "text": block.text})
            else:
                parts.append({"type": "image"})
                pictures.append(block)
        chat.append({"role": message.role, "content": parts})
    return chat, pictures


@dataclass(frozen=True)
class VlmEncoder:
    """Samples and batches for one processor."""

    processor: Any
    context: int  # tokens that the model reads
    draw: int  # the first token of <draw>
    max_images: int = MAX_IMAGES
    _picture_tokens: dict[tuple[int, int], int] = field(default_factory=dict, compare=False)  # by size

    @classmethod
    def of(cls, processor: Any, model: Any, max_images: int = MAX_IMAGES) -> VlmEncoder:
        """ModelFolderError where the chat template does not do for training."""
        text = model.config.get_text_config()
        context = min(getattr(text, "max_position_embeddings", 1 << 30), processor.tokenizer.model_max_length)
        encoder = cls(processor, context, 0, max_images)
        probe = [Message.user("Draw a fox.", [ImageBlock.from_picture(Image.new("RGB", (64, 64)))]),
                 Message.assistant(DRAW + "A fox.")]  # fmt: skip
        try:
            (sample,) = encoder.samples(probe, None, "en", "probe")
            batch = collate_vlm([sample], encoder)
        except (DataError, MessageError, ValueError, TypeError, KeyError) as error:
            raise ModelFolderError(f"this model's chat template cannot be trained with: {error}") from error
        ((_, decision),) = batch.decisions
        return cls(processor, context, int(batch.ids[0, decision.position]), max_images)

    def samples(
        self, messages: Sequence[Message], learn: Mapping[int, float] | None, language: str, record: str
    ) -> Iterator[VlmSample]:
        """One sample for each view of the pictures, as in data.py, and `learn` as there."""
        for first, last in views(messages, self.max_images):
            if counts := counted(first, last, learn):
                chat, pictures = blocks(messages[: 2 * last + 2], self.max_images)
                yield self.sample(chat, pictures, counts, record)

    def sample(
        self, chat: Sequence[dict], pictures: Sequence[ImageBlock], counts: Mapping[int, float], record: str
    ) -> VlmSample:
        """A chat that `blocks` made, or that is as it makes them, as a sample of the turns' replies that count."""
        text = self._render(chat)
        replies = tuple(replace(self._said(chat, text, turn), weight=weight) for turn, weight in counts.items())
        length = len(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        length += sum(self._tokens_of(_size(block, record)) - 1 for block in pictures)
        if length > self.context:
            raise DataError(f"a conversation has {length} tokens; the model reads {self.context}")
        return VlmSample(text, tuple(pictures), replies, length, record)

    def _render(self, chat: Sequence[dict], reply: bool = False) -> str:
        return self.processor.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=reply)

    def _said(self, chat: Sequence[dict], text: str, turn: int) -> Said:
        """Where reply number `turn` stands in the rendered chat."""
        system = chat[0]["role"] == "system"
        answer = system + 2 * turn + 1
        history = self._render(chat[:answer], reply=True)
        reply = "".join(part["text"] for part in chat[answer]["content"]).strip()
        start = len(history)
        found = text.find(reply, start)
        if not text.startswith(history) or found < 0 or text[start:found].strip():
            raise DataError(
                "the model's chat template shows a reply otherwise than it asks for one, so what to learn cannot be "
                "told: use another model, or another chat template"
            )
        switch = reply.startswith(SWITCH)
        decides = found + len(SWITCH) * switch
        return Said(start, found + len(reply), decides, text.startswith(DRAW, decides))

    def _tokens_of(self, size: tuple[int, int]) -> int:
        """How many tokens the processor makes of a picture."""
        if size not in self._picture_tokens:
            made = self.processor(
                text=[self.processor.image_token], images=[[Image.new("RGB", size)]], add_special_tokens=False
            )
            self._picture_tokens[size] = len(made["input_ids"][0])
        return self._picture_tokens[size]


def _size(block: ImageBlock, record: str) -> tuple[int, int]:
    """As it is shown. Most pictures are small enough to be shown as they are: their header says it."""
    if block.path is not None:
        with contextlib.suppress(OSError), Image.open(block.path) as picture:
            if max(picture.size) <= MAX_IMAGE_EDGE and not picture.getexif():
                return picture.size
    return _open(block, record).size


def collate_vlm(samples: Sequence[VlmSample], encoder: VlmEncoder) -> VlmBatch:
    """The processor's own batch, padded on the right, and which of its tokens count how much."""
    tokenizer = encoder.processor.tokenizer
    pictures = [[_open(block, sample.record) for block in sample.pictures] for sample in samples]
    made = encoder.processor(
        text=[sample.text for sample in samples],
        images=pictures if any(pictures) else None,
        add_special_tokens=False,  # as vLLM has it: the template writes them
        padding=True,
        padding_side="right",
        return_tensors="pt",
        return_offsets_mapping=True,
        return_text_replacement_offsets=True,
    )
    offsets = made.pop("offset_mapping")  # (B, T, 2)
    moved = made.pop("text_replacement_offsets", None) or [[]] * len(samples)
    inputs = {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}
    weights = torch.zeros(inputs["input_ids"].shape)
    ends = torch.tensor(tokenizer.all_special_ids)
    decisions: list[tuple[int, Decision]] = []
    for row, sample in enumerate(samples):
        starts, stops = offsets[row].T  # (T,), (T,)
        real = inputs["attention_mask"][row].bool() & (stops > starts)
        for said in sample.replies:
            start, end, decides = (_behind_pictures(moved[row], at) for at in (said.start, said.end, said.decides))
            tokens = (real & (starts < end) & (stops > start)).nonzero().squeeze(1)
            last = int(tokens[-1])
            stop = _end_of_turn(inputs["input_ids"][row], last, ends)
            weights[row, int(tokens[0]) : stop + 1] = said.weight
            weights[row, int(tokens[0])] = 1  # whether it is <switch>
            until = decides + (len(DRAW) if said.draws else 1)
            deciding = (real & (starts < until) & (stops > decides)).nonzero().squeeze(1)
            # A token may hold the white space before the reply, or its first word: where it begins, the reply decides.
            if said.draws:
                weights[row, deciding] = DRAW_WEIGHT
            decisions.append((row, Decision(int(deciding[0]), said.draws, len(deciding) if said.draws else 1)))
    return VlmBatch(inputs, weights, tuple(decisions))


def _open(block: ImageBlock, record: str) -> Image.Image:
    try:
        return shown(block)
    except MessageError as error:
        raise unreadable(record, error) from error


def _behind_pictures(replaced: Sequence[dict[str, Any]], character: int) -> int:
    """A character's place once the processor has written out the placeholders before it."""
    before = bisect_right([entry["span"][1] for entry in replaced], character)
    return character + (replaced[before - 1]["new_span"][1] - replaced[before - 1]["span"][1] if before else 0)


def _end_of_turn(ids: torch.Tensor, last: int, special: torch.Tensor) -> int:
    """The special token that ends a reply whose last token is at `last`, at most two behind it; else `last` itself: the
    template writes none, and the server stops by other means."""
    for position in range(last + 1, min(last + 3, len(ids))):
        if torch.isin(ids[position], special):
            return position
    return last
