"""The two text encoders: prompts in, their states for the denoiser out.

    python -c "from generator.text import TextEncoders; print(TextEncoders.load('FOLDER', 77, 256).encode(['a cat']))"

The bilingual CLIP text tower is a BertModel, the other the encoder of a T5; each reads the prompt with its own
tokenizer, padded to the fixed length that the denoiser was made for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from generator.checkpoint import FETCH_AGAIN, read_json, reading
from generator.errors import CheckpointError
from generator.int8 import load_t5
from generator.offload import working

REMEMBERED = 16  # prompts' states: a megabyte or two each with the released encoders
TOKENIZING = Lock()  # a tokenizer keeps how the last call wanted it to pad: threads must take turns
ENCODERS = ("BertModel", "T5EncoderModel", "MT5EncoderModel")


@contextmanager
def _silence() -> Iterator[None]:
    """transformers' own table of missing weights (a BERT's pooler, always) and its bars stay off the terminal, where
    they would alarm users and break up a log of JSON lines; what is missing is checked here."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


@dataclass(frozen=True, eq=False)
class TextStates:
    clip: Tensor  # (B, text_len, width)
    clip_mask: Tensor  # (B, text_len), 1 for tokens, 0 for padding
    t5: Tensor  # (B, text_len_t5, width)
    t5_mask: Tensor  # (B, text_len_t5)
    truncated: tuple[bool, ...]  # per prompt: longer than both encoders read


@dataclass(frozen=True, eq=False)
class Encoder:
    """A tokenizer, its model, and the length that it fills."""

    tokenizer: Any
    model: nn.Module
    length: int
    device: torch.device | None = None  # that it works on; None: where it is

    @property
    def config(self) -> Any:
        return self.model.config

    def ids(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask, (B, length) each."""
        with TOKENIZING:
            tokens = self.tokenizer(
                list(prompts), padding="max_length", max_length=self.length, truncation=True, return_tensors="pt"
            )
        return tokens.input_ids, tokens.attention_mask

    def truncates(self, prompt: str) -> bool:
        with TOKENIZING:
            return len(self.tokenizer(prompt, verbose=False).input_ids) > self.length

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """Each one's states (1, length, width) and mask (1, length), read alone: company makes no difference."""
        if not prompts:
            return []
        device = self.device or next(self.model.parameters()).device
        with working(self.model, device):
            tokens = [[tensor.to(device) for tensor in self.ids([prompt])] for prompt in prompts]
            return [(self.model(input_ids=ids, attention_mask=mask).last_hidden_state, mask) for ids, mask in tokens]

    @classmethod
    def load(
        cls,
        folder: Path,
        number: str,
        length: int,
        dtype: torch.dtype,
        device: torch.device,
        in_8bit: bool = False,
        offload: bool = False,
    ) -> Encoder:
        """Encoder "" or "_2" of a model folder; 8 bits for "_2" alone."""
        import transformers

        part = f"text_encoder{number}"
        name = (read_json(folder / "model_index.json").get(part) or [None, None])[1]
        if name not in ENCODERS:
            raise CheckpointError(f"{folder / 'model_index.json'} names a {name} as {part}, not one of {ENCODERS}.")
        kind, rest = getattr(transformers, name), torch.device("cpu") if offload else device
        with reading(folder / part), _silence():
            if in_8bit:
                model, missing = load_t5(kind, folder / part, dtype, rest), []
            else:
                model, info = kind.from_pretrained(
                    folder / part, dtype=dtype, local_files_only=True, output_loading_info=True
                )
                missing = [key for key in info["missing_keys"] if not key.startswith("pooler.")]  # that nobody asks
        if missing:
            raise CheckpointError(f"The weights in {folder / part} lack {sorted(missing)[0]}. {FETCH_AGAIN}")
        with reading(folder / f"tokenizer{number}", weights=False):
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder / f"tokenizer{number}", local_files_only=True)
        return cls(tokenizer, model.to(rest).eval().requires_grad_(False), length, device)


@dataclass(frozen=True, eq=False)
class TextEncoders:
    clip: Encoder
    t5: Encoder
    known: dict[str, TextStates] = field(default_factory=dict)  # by their prompts, the latest last
    lock: Lock = field(default_factory=Lock)  # of `known`: several threads may read prompts

    @classmethod
    def load(
        cls,
        folder: str | Path,
        text_len: int,
        text_len_t5: int,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        t5_8bit: bool = False,
        offload: bool = False,
    ) -> TextEncoders:
        folder, device = Path(folder), torch.empty(0, device=device).device  # "cuda" by its full name
        return cls(
            Encoder.load(folder, "", text_len, dtype, device, False, offload),
            Encoder.load(folder, "_2", text_len_t5, dtype, device, t5_8bit, offload),
        )

    def encode(self, prompts: Sequence[str]) -> TextStates:
        """The latest are remembered: most pictures have the same negative prompt, and those that are edited or varied
        the same prompt."""
        with self.lock:
            found = {prompt: self.known[prompt] for prompt in prompts if prompt in self.known}
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in found]
        for prompt, clip, t5 in zip(new, self.clip(new), self.t5(new), strict=True):
            truncated = self.clip.truncates(prompt) and self.t5.truncates(prompt)
            found[prompt] = TextStates(*clip, *t5, (truncated,))
        with self.lock:
            for prompt in prompts:
                self.known.pop(prompt, None)  # and to the end, which is forgotten last
                self.known[prompt] = found[prompt]
            while len(self.known) > REMEMBERED:
                del self.known[next(iter(self.known))]
        states = [found[prompt] for prompt in prompts]
        clip_states, clip_mask, t5_states, t5_mask = (
            torch.cat([getattr(one, name) for one in states]) for name in ("clip", "clip_mask", "t5", "t5_mask")
        )
        return TextStates(clip_states, clip_mask, t5_states, t5_mask, tuple(one.truncated[0] for one in states))
