"""Canonical dialogue records -> what the training loop eats: token ids, loss weights, pictures, batches.

    samples, pictures = load_samples(data_files(["data"], "train"), processor, cache="runs/base/pictures")

A record becomes exactly the tokens that serving makes of it: `messages.arrange` moves and thins the pictures, the
tokenizer's own chat template renders, and the processor's own expansion stands for each picture. Where a long
conversation shows the model only its newest pictures, the record is cut into one sample per such view.

A record's `learn` lists the turns whose replies count, from 0; without it all of them do. So what went wrong before a
corrected reply stands in the history and is not learnt. Small talk and refusals count less, where the record says which
they are: the teacher drew one of many wordings, and which one it was can't be known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from transformers import Idefics3Processor

from dialog_mllm.errors import MessageError
from dialog_mllm.messages import BUNDLED_IMAGES, MAX_IMAGES, ImageBlock, Message, TextBlock, arrange, squared
from dialog_mllm.protocol import DRAW, SWITCH
from dialog_mllm.records import DataError, Record, read_records, unreadable
from dialog_mllm.tokenizer import ASSISTANT, CONTEXT, END, IMAGE, USER, render_chat, token_id

CHUNK = 64  # batches that are sorted by length together
# What it counts to decide rightly, where another token counts 1: on it hangs the whole reply. A picture that nobody
# asked for costs seconds and the one before it, so not to draw counts more. See objective.py.
DRAW_WEIGHT, TALK_WEIGHT = 3.0, 16.0
WORDING_WEIGHT = 0.25  # of a reply that could as well have been worded otherwise
FREELY_WORDED = ("talk", "refuse")  # what is asked for where replies are such

S = TypeVar("S")


@dataclass(frozen=True)
class Decision:
    """Where a reply chooses: the token at `position` (behind an optional <switch>) is <draw>, or it is not."""

    position: int
    draws: bool
    width: int = 1  # tokens that <draw> takes: one where the tokenizer knows it


@dataclass(frozen=True)
class Sample:
    ids: np.ndarray  # int32 (T,)
    weights: np.ndarray  # float32 (T,): how much the prediction of each token counts
    pictures: tuple[int, ...]  # rows of the picture cache, in order of appearance
    decisions: tuple[Decision, ...]
    language: str

    @property
    def length(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Batch:
    ids: torch.Tensor  # int64 (B, T), padded on the right
    weights: torch.Tensor  # float32 (B, T)
    pixels: torch.Tensor | None  # float32 (P, 3, H, W)
    decisions: tuple[tuple[int, Decision], ...]  # row, decision

    def to(self, device: torch.device) -> Batch:
        pixels = None if self.pixels is None else self.pixels.to(device)
        return Batch(self.ids.to(device), self.weights.to(device), pixels, self.decisions)

    @property
    def tokens(self) -> int:
        return int((self.ids != 0).sum())


def chat_parts(messages: Sequence[Message], max_images: int = MAX_IMAGES) -> tuple[list[dict], list[ImageBlock]]:
    """The chat as the template sees it inside the server, where pictures are plain placeholders, and the pictures."""
    chat: list[dict] = []
    pictures: list[ImageBlock] = []
    for message in arrange(messages, max_images):
        if message.role != "user":
            chat.append({"role": message.role, "content": message.text})
            continue
        parts = []
        for block in message.content:
            if isinstance(block, TextBlock):
                parts.append({"type": "text", "text": block.text})
            else:
                parts.append({"type": "image"})
                pictures.append(block)
        chat.append({"role": "user", "content": parts})
    return chat, pictures


def views(messages: Sequence[Message], max_images: int) -> Iterator[tuple[int, int]]:
    """(first, last) assistant turns that see the same pictures; the last one's history holds all the others'."""
    turns = sum(message.role == "assistant" for message in messages)
    first, dropped = 0, 0
    seen = 0
    for turn in range(turns):
        seen += len(messages[2 * turn].images)
        surplus = max(0, seen - max_images)
        if surplus != dropped and turn > first:
            yield first, turn - 1
            first = turn
        dropped = surplus
        seen += len(messages[2 * turn + 1].images)
    yield first, turns - 1


def counted(first: int, last: int, learn: Mapping[int, float] | None) -> dict[int, float]:
    """Of the turns from `first` to `last`, those whose replies count, and how much; None: all, 1."""
    turns = range(first, last + 1)
    return dict.fromkeys(turns, 1.0) if learn is None else {turn: learn[turn] for turn in turns if turn in learn}


@dataclass(frozen=True)
class Encoder:
    """Text and ids for one tokenizer, in training and in offline evaluation."""

    processor: Idefics3Processor
    max_images: int = BUNDLED_IMAGES

    @property
    def picture_text(self) -> str:
        return self.processor.replace_image_token({"rows": [[0]], "cols": [[0]]}, 0)

    def token(self, text: str) -> int:
        return token_id(self.processor.tokenizer, text)

    def ids(self, messages: Sequence[Message], reply: bool = False) -> tuple[list[int], list[ImageBlock]]:
        """Token ids of a conversation; with `reply`, up to where the assistant begins to speak."""
        chat, pictures = chat_parts(messages, self.max_images)
        return self.chat_ids(chat, reply), pictures

    def chat_ids(self, chat: Sequence[dict], reply: bool = False) -> list[int]:
        """Token ids of a chat that `chat_parts` made."""
        text = render_chat(self.processor.tokenizer, chat, add_generation_prompt=reply)
        text = text.replace(IMAGE, self.picture_text)  # arrange() lets no other <image> through
        return self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    def views(self, messages: Sequence[Message]) -> Iterator[tuple[int, int]]:
        return views(messages, self.max_images)

    def samples(
        self,
        messages: Sequence[Message],
        picture_row: Callable[[ImageBlock], int],
        text_weight: float,
        language: str,
        learn: Mapping[int, float] | None = None,
    ) -> Iterator[Sample]:
        """`learn`: the turns whose replies count, and how much; None: all, 1. A view that holds none is left out."""
        for first, last in self.views(messages):
            counts = counted(first, last, learn)
            if not counts:
                continue
            ids, pictures = self.ids(messages[: 2 * last + 2])
            if len(ids) > CONTEXT:
                raise DataError(f"a conversation has {len(ids)} tokens; the model reads {CONTEXT}")
            weights, decisions = self._loss(np.array(ids, np.int32), first, counts, text_weight)
            rows = tuple(picture_row(block) for block in pictures)
            yield Sample(np.array(ids, np.int32), weights, rows, decisions, language)

    def _loss(
        self, ids: np.ndarray, first: int, counts: Mapping[int, float], text_weight: float
    ) -> tuple[np.ndarray, tuple[Decision, ...]]:
        """The weight that `counts` gives a turn on what the assistant says there, its end included, 1 on its first
        token, DRAW_WEIGHT on <draw>, and `text_weight` on users' words from turn `first` on."""
        weights = np.zeros(len(ids), np.float32)
        starts = np.flatnonzero(ids == self.token(ASSISTANT))
        ends = np.flatnonzero(ids == self.token(END))
        if text_weight:
            begin = 0 if first == 0 else ends[2 * first - 1] + 1
            given = [USER, ASSISTANT, "<fake_token_around_image>", "<global-img>", IMAGE]
            said = ~np.isin(ids, [self.token(token) for token in given])
            weights[begin:] = text_weight * said[begin:]
        decisions = []
        for turn, start in enumerate(starts[first:].tolist(), first):
            end = ends[np.searchsorted(ends, start)]
            if turn not in counts:
                weights[start + 1 : end + 1] = 0
                continue
            weights[start + 1 : end + 1] = counts[turn]
            weights[start + 1] = 1  # whether it is <switch>
            position = start + 1 + int(ids[start + 1] == self.token(SWITCH))
            draws = bool(ids[position] == self.token(DRAW))
            if draws:
                weights[position] = DRAW_WEIGHT
            decisions.append(Decision(int(position), draws))
        return weights, tuple(decisions)


class MorePictures(Protocol):
    """Pictures that lie elsewhere, of the cache's size."""

    def pixels(self, rows: Sequence[int]) -> np.ndarray:
        """uint8 (n, H, W, 3)."""
        ...


class PictureCache:
    """Every picture once, as the processor resizes it, uint8 on disk. Rows are given out in order of first use."""

    def __init__(self, processor: Idefics3Processor) -> None:
        self._processor = processor.image_processor
        self.size: int = self._processor.max_image_size["longest_edge"]
        self._rows: dict[str, int] = {}
        self._blocks: list[ImageBlock] = []
        self._records: list[str] = []  # that name each of them first
        self.pixels: np.ndarray = np.zeros((0, self.size, self.size, 3), np.uint8)
        self.more: MorePictures | None = None  # their rows stand behind the cache's own

    def row(self, block: ImageBlock, record: str = "") -> int:
        key = block.sha256 or hashlib.sha256(block.data or str(block.path).encode()).hexdigest()
        if key not in self._rows:
            self._rows[key] = len(self._blocks)
            self._blocks.append(block)
            self._records.append(record)
        return self._rows[key]

    def fill(self, folder: Path | str) -> None:
        """Read all pictures given out so far. A cache of the same pictures in the folder is used again."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(f"{self.size} {list(self._rows)}".encode()).hexdigest()[:16]
        file = folder / f"{name}.npy"
        shape = (len(self._blocks), self.size, self.size, 3)
        if not file.is_file() and self._blocks:
            partial_file = file.with_suffix(".partial")
            array = np.lib.format.open_memmap(partial_file, "w+", np.uint8, shape)
            for row, (block, record) in enumerate(zip(self._blocks, self._records, strict=True)):
                array[row] = self.prepare(block, record)
            array.flush()
            partial_file.rename(file)
        self.pixels = np.load(file, mmap_mode="r") if self._blocks else np.zeros(shape, np.uint8)

    def prepare(self, block: ImageBlock, record: str) -> np.ndarray:
        try:
            picture = squared(block.open())
        except MessageError as error:
            raise unreadable(record, error) from error
        if picture.size == (self.size, self.size):
            return np.asarray(picture)
        resized = self._processor(
            picture, do_rescale=False, do_normalize=False, do_pad=False, return_tensors="np", input_data_format=None
        )["pixel_values"][0][0]
        return np.asarray(resized).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)

    def batch(self, rows: Sequence[int]) -> torch.Tensor:
        """The pictures of these rows, normalised: float32 (n, 3, H, W)."""
        own = len(self.pixels)
        shown = np.stack([self.pixels[row] if row < own else self._of_more(row - own) for row in rows])
        return self.normalised(shown)

    def _of_more(self, row: int) -> np.ndarray:
        if self.more is None:
            raise IndexError(f"there is no picture {row} beside the cache's {len(self.pixels)}")
        return self.more.pixels([row])[0]

    def normalised(self, pixels: np.ndarray) -> torch.Tensor:
        """uint8 (P, H, W, 3) -> the processor's float32 (P, 3, H, W)."""
        mean = torch.tensor(self._processor.image_mean).view(1, 3, 1, 1)
        std = torch.tensor(self._processor.image_std).view(1, 3, 1, 1)
        values = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2)  # (P, 3, H, W)
        return (values.to(torch.float32) * self._processor.rescale_factor - mean) / std


def load_samples(
    files: Iterable[Path | str],
    processor: Idefics3Processor,
    cache: Path | str,
    text_weight: float = 0.0,
    limit: int | None = None,
    refusals: int = 1,
) -> tuple[list[Sample], PictureCache]:
    """Every record's samples; those of a record in which something is declined `refusals` times, for they are few."""
    encoder, pictures = Encoder(processor), PictureCache(processor)

    def encode(messages: Sequence[Message], learn: Mapping[int, float], language: str, record: str) -> Iterator[Sample]:
        return encoder.samples(messages, partial(pictures.row, record=record), text_weight, language, learn)

    samples = read_samples(files, encode, limit, refusals)
    pictures.fill(cache)
    return samples, pictures


def read_samples(
    files: Iterable[Path | str],
    encode: Callable[[Sequence[Message], Mapping[int, float], str, str], Iterable[S]],
    limit: int | None = None,
    refusals: int = 1,
) -> list[S]:
    """What `encode(messages, learn, language, record's name)` makes of every record; DataError names a bad one."""
    samples: list[S] = []
    for number, (record, root) in enumerate(read_records(files, limit)):
        name = str(record.get("id", number))
        try:
            messages = [Message.from_json(message, root) for message in record["messages"]]
            learn = _learnt(record, len(messages) // 2)
            made = list(encode(messages, learn, record.get("language", "en"), name))
            samples.extend(made * (refusals if _declines(record) else 1))
        except (DataError, MessageError, KeyError) as error:
            raise DataError(f"record {name}: {error}") from error
    if not samples:
        raise DataError("there is no dialogue in the data: make some with `easel data mix`")
    return samples


def _learnt(record: Record, turns: int) -> dict[int, float]:
    """The turns whose replies count, and how much."""
    learn = record.get("learn", list(range(turns)))
    if not isinstance(learn, list) or not learn or not all(type(n) is int and 0 <= n < turns for n in learn):
        raise DataError(f"`learn` must list turns from 0 to {turns - 1}; got {learn!r}")
    freely = {turn for turn, request in enumerate(_requests(record)) if request in FREELY_WORDED}
    return {turn: WORDING_WEIGHT if turn in freely else 1.0 for turn in learn}


def _requests(record: Record) -> list[str | None]:
    """What each turn asks for; None where the record does not say it."""
    return [
        (turn["request"] or {}).get("op", "talk") if "request" in turn else None for turn in record.get("turns", ())
    ]


def _declines(record: Record) -> bool:
    return "refuse" in _requests(record)


def plan_batches(lengths: Sequence[int], budget: int, seed: int, epoch: int) -> list[list[int]]:
    """One epoch's batches: samples of similar length, at most `budget` padded tokens each, in a seeded order."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    mean = max(1, int(np.mean(lengths)))
    chunk = CHUNK * max(1, budget // mean)
    batches: list[list[int]] = []
    for start in range(0, len(order), chunk):
        batch: list[int] = []
        for index in sorted(order[start : start + chunk].tolist(), key=lambda i: lengths[i]):
            if batch and lengths[index] * (len(batch) + 1) > budget:
                batches.append(batch)
                batch = []
            batch.append(index)
        batches.append(batch)
    return [batches[i] for i in rng.permutation(len(batches))]


def collate(samples: Sequence[Sample], pictures: PictureCache) -> Batch:
    """The samples as one batch, padded on the right."""
    longest = max(len(sample.ids) for sample in samples)
    ids = np.zeros((len(samples), longest), np.int64)  # the pad token is id 0
    weights = np.zeros((len(samples), longest), np.float32)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = sample.ids
        weights[row, : len(sample.ids)] = sample.weights
    rows = [picture for sample in samples for picture in sample.pictures]
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(weights),
        pictures.batch(rows) if rows else None,
        tuple((row, decision) for row, sample in enumerate(samples) for decision in sample.decisions),
    )


@dataclass
class Batches:
    """An endless, exactly resumable stream of batches: `position` is all of its state.

    `collate(samples, pictures)` makes a batch. It has `to(device)` and `tokens`; each sample has a `length`.
    """

    samples: Sequence[Any]
    pictures: Any
    budget: int
    seed: int = 0
    position: tuple[int, int] = (0, 0)  # epoch, batch
    collate: Callable[[Sequence[Any], Any], Any] = collate

    def __post_init__(self) -> None:
        self._plan = partial(plan_batches, [sample.length for sample in self.samples], self.budget, self.seed)
        self.seek(*self.position)

    def seek(self, epoch: int, batch: int) -> None:
        self.position = (epoch, batch)
        self._epoch = self._plan(epoch)

    @property
    def per_epoch(self) -> int:
        return len(self._plan(0))

    def next(self) -> Any:
        return self._batch(self._advance())

    def skip(self) -> None:
        """Pass by a batch that another process takes."""
        self._advance()

    def once(self, first: int = 0, step: int = 1) -> Iterator[Any]:
        """Each sample once; with `step`, a process's share of that: every step-th batch from `first` on."""
        for rows in self._plan(0)[first::step]:
            yield self._batch(rows)

    def longest(self) -> Any:
        """The batch of one epoch that has the most tokens, padding included."""
        return self._batch(max(self._plan(0), key=lambda rows: len(rows) * max(self.samples[i].length for i in rows)))

    def _advance(self) -> list[int]:
        epoch, index = self.position
        if index >= len(self._epoch):
            epoch, index = epoch + 1, 0
            self.seek(epoch, index)
        self.position = (epoch, index + 1)
        return self._epoch[index]

    def _batch(self, rows: Sequence[int]) -> Any:
        return self.collate([self.samples[i] for i in rows], self.pictures)
