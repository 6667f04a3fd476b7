"""Two first phases for the base: its eyes learn to see, and its tongue to tell what they see, before it learns to talk.

    easel train mllm --pictures runs/pictures --vision-minutes 8 --caption-minutes 8 …

A language model's loss reaches the vision tower through a few words of a few records, and teaches it slowly: a base
trained so answered half of the questions about pictures. Renders come with their scenes, so the tower is first asked
for every attribute directly; the reader that asks is thrown away afterwards. Then the whole model learns to put a
picture into its refined prompt: the captioning phase of LLaVA's training (arXiv 2304.08485, section 4.2). A share of
these captions stays among the dialogues, for an edit of a picture that the user brought needs all of it read, and the
eyes are locked there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dialog_mllm.data import Encoder, Sample
from dialog_mllm.fit import FitConfig, Optimizers, schedule
from dialog_mllm.messages import ImageBlock, Message
from dialog_mllm.model import Eyes
from dialog_mllm.objective import mixed_precision
from dialog_mllm.parallel import device
from dialog_mllm.records import DataError

IGNORE = -100  # the class of what is not asked
ASKS = {"en": "Its prompt, please.", "zh": "写出它的提示词。"}  # what a picture's caption is the reply to
BATCH = 128
HELD_OUT = 512  # pictures at the end that the eyes are measured on
READER_STEPS = 250  # in which the reader learns alone, where the eyes were taught before
AS_BEFORE = 5.0  # what the distance from the earlier eyes' tokens counts, as a share of their variance
SHIFT = 6  # pixels, the most that a picture is moved each way while the eyes learn
WHOLE = ("background", "sky", "style", "shot")


@dataclass(frozen=True)
class Pictures:
    """The shards that `easel data pictures` wrote: uint8 (n, H, W, 3) on disk, and each picture's classes."""

    arrays: list[np.ndarray]
    starts: np.ndarray
    labels: dict[str, list[str]]
    scenes: list[dict[str, Any]]
    prompts: list[dict[str, str]]  # each picture's refined prompt in each language
    subjects: Tensor  # int64 (n, positions, questions about a subject)
    whole: Tensor  # int64 (n, questions about the picture)

    @classmethod
    def open(cls, *folders: Path) -> Pictures:
        """The pictures of all these folders, which must be of one size and of one world."""
        shards: list[Path] = []
        kinds: dict[str, dict[str, list[str]]] = {}
        for folder in folders:
            if not (folder / "manifest.json").is_file():
                raise DataError(f"{folder} holds no finished set of pictures: make one with `easel data pictures`.")
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            shards += [folder / shard["name"] for shard in manifest["shards"]]
            kinds[json.dumps([manifest["size"], manifest["labels"]])] = labels = manifest["labels"]
        if len(kinds) > 1:
            raise DataError(f"{' and '.join(map(str, folders))} differ in size or in what they show: use one of them.")
        arrays = [np.load(shard.with_suffix(".npy"), mmap_mode="r") for shard in shards]
        lines = [
            json.loads(line)
            for shard in shards
            for line in shard.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
        ]
        scenes = [line["scene"] for line in lines]
        subjects = torch.tensor([_subject_classes(scene, labels) for scene in scenes])
        whole = torch.tensor([[labels[part].index(scene[part]) for part in WHOLE] for scene in scenes])
        starts = np.cumsum([0] + [len(array) for array in arrays])
        return cls(arrays, starts, labels, scenes, [line["prompt"] for line in lines], subjects, whole)

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def size(self) -> int:
        """Pixels of a side."""
        return int(self.arrays[0].shape[1])

    def pixels(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        shards = np.searchsorted(self.starts, rows, side="right") - 1
        return np.stack([self.arrays[s][row - self.starts[s]] for s, row in zip(shards, rows, strict=True)])

    def look(
        self, rows: np.ndarray, mirrored: np.ndarray | None = None, down: int = 0, right: int = 0
    ) -> tuple[np.ndarray, Tensor, Tensor]:
        """The pixels uint8 (B, H, W, 3) of the pictures in `rows` (B,), and their classes.

        `mirrored` (B,) tells which are seen in the mirror. All are moved by so many pixels; the border is repeated.
        """
        pixels, subjects = self.pixels(rows), self.subjects[rows]
        if mirrored is not None:
            pixels[mirrored] = pixels[mirrored, :, ::-1]
            subjects[mirrored] = subjects[mirrored].flip(1)
        if down or right:
            y, x = (np.clip(np.arange(self.size) - by, 0, self.size - 1) for by in (down, right))
            pixels = pixels[:, y[:, None], x]
        return pixels, subjects, self.whole[rows]

    def batches(self, seed: int, count: int, size: int = BATCH) -> Iterator[np.ndarray]:
        """Rows of the first `count` pictures, epoch after epoch in another order."""
        for epoch in range(1_000_000):
            order = np.random.default_rng((seed, epoch)).permutation(count)
            yield from np.array_split(order, -(-len(order) // size))


def caption_samples(pictures: Pictures, encoder: Encoder, first_row: int) -> list[Sample]:
    """Each picture and its refined prompt, in turn in either language, as a dialogue of one reply.

    Pictures whose prompt names somebody's accessories in another order than the labels' are left out: in which order
    they came does not show, and would be learnt by heart. `first_row` is the row in the picture cache of the first
    picture."""
    samples: list[Sample] = []
    for number, (scene, prompts) in enumerate(zip(pictures.scenes, pictures.prompts, strict=True)):
        if any(worn != sorted(worn) for worn in _worn(scene, pictures.labels["accessory"])):
            continue
        language = list(ASKS)[number % len(ASKS)]
        shown = ImageBlock(path=str(number))  # a name only: the pixels lie in the shards
        messages = [Message.user(ASKS[language], [shown]), Message.assistant(prompts[language])]
        samples += encoder.samples(messages, lambda block: first_row + int(str(block.path)), 0.0, language)
    return samples


def _worn(scene: dict[str, Any], kinds: list[str]) -> list[list[int]]:
    """For each subject, which of `kinds` it wears, in the scene's order."""
    return [[kinds.index(accessory["kind"]) for accessory in s["accessories"]] for s in scene["subjects"]]


def _subject_classes(scene: dict[str, Any], labels: dict[str, list[str]]) -> list[list[int]]:
    """For each position: kind (behind the last: nobody), colour, size, and each accessory's colour (0: not worn)."""
    rows = [[len(labels["kind"]), *[IGNORE] * (2 + len(labels["accessory"]))] for _ in labels["position"]]
    for subject in scene["subjects"]:
        worn = {accessory["kind"]: accessory["colour"] for accessory in subject["accessories"]}
        rows[labels["position"].index(subject["position"])] = [
            *(labels[name].index(subject[name]) for name in ("kind", "colour", "size")),
            *(1 + labels["colour"].index(worn[kind]) if kind in worn else 0 for kind in labels["accessory"]),
        ]
    return rows


class Reader(nn.Module):
    """Asks the picture's tokens: one query for each position and one for the whole look at them; then linear layers."""

    def __init__(self, labels: dict[str, list[str]], width: int) -> None:
        super().__init__()
        colours, worn = len(labels["colour"]), len(labels["accessory"])
        self.of_subject = [len(labels["kind"]) + 1, colours, len(labels["size"]), *[colours + 1] * worn]
        self.of_whole = [len(labels[part]) for part in WHOLE]
        self.queries = nn.Parameter(0.02 * torch.randn(len(labels["position"]) + 1, width))
        self.norm = nn.LayerNorm(width)
        self.look = nn.MultiheadAttention(width, 4, batch_first=True)
        self.subject_head = nn.Linear(width, sum(self.of_subject))
        self.whole_head = nn.Linear(width, sum(self.of_whole))

    def forward(self, tokens: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(B, T, width) -> logits (B, positions, classes) of each question about a subject, (B, classes) of others."""
        tokens = self.norm(tokens)
        queries = self.queries.expand(len(tokens), -1, -1)
        seen = queries + self.look(queries, tokens, tokens, need_weights=False)[0]
        return (
            list(self.subject_head(seen[:, :-1]).split(self.of_subject, -1)),
            list(self.whole_head(seen[:, -1]).split(self.of_whole, -1)),
        )


def read_loss(reader: Reader, tokens: Tensor, subjects: Tensor, whole: Tensor) -> Tensor:
    """The summed cross-entropies of all questions; classes as in `Pictures`."""
    of_subject, of_whole = reader(tokens)
    total = sum(F.cross_entropy(logits.float(), whole[:, i]) for i, logits in enumerate(of_whole))
    for i, logits in enumerate(of_subject):
        total = total + F.cross_entropy(logits.flatten(0, 1).float(), subjects[..., i].flatten(), ignore_index=IGNORE)
    return total if isinstance(total, Tensor) else tokens.new_zeros(())


@torch.no_grad()
def read_accuracy(reader: Reader, tokens: Tensor, subjects: Tensor, whole: Tensor) -> dict[str, float]:
    """Shares read right; "accessories" are a subject's exact sets with their colours."""
    of_subject, of_whole = reader(tokens)
    there = subjects[..., 1] != IGNORE  # (B, positions)
    said = torch.stack([logits.argmax(-1) for logits in of_subject], -1)  # (B, positions, questions)
    right = said == subjects
    shares = {
        "kind": right[..., 0][there],
        "colour": right[..., 1][there],
        "accessories": right[..., 3:].all(-1)[there],
        "whole": torch.stack([logits.argmax(-1) for logits in of_whole], -1) == whole,
    }
    return {name: round(values.float().mean().item(), 4) for name, values in shares.items()}


@torch.no_grad()
def shares(eyes: Eyes, reader: Reader, pixels: Tensor, subjects: Tensor, whole: Tensor) -> dict[str, float]:
    with mixed_precision():
        tokens = eyes.tokens(pixels)
    return read_accuracy(reader, tokens.float(), subjects, whole)


def train_vision(
    eyes: Eyes,
    normalised: Callable[[np.ndarray], Tensor],
    pictures: Pictures,
    run: Path,
    minutes: float,
    seed: int = 0,
    taught: bool = False,
    earlier: Eyes | None = None,
) -> dict[str, float]:
    """Trains `eyes` for so long; `normalised` makes floats (B, 3, H, W) of uint8 pixels.

    Eyes that were `taught` before wait until the reader has learnt to read what they see, for at first it would teach
    them at random (linear probing, then fine-tuning: Kumar et al. 2022, arXiv 2202.10054, section 3.4). Eyes that are
    to replace `earlier` ones learn to make the same tokens too, for a language model reads those (feature distillation:
    Romero et al. 2015, arXiv 1412.6550, section 2.2).

    Half of the pictures are seen in the mirror, and each batch a little moved, for the tower can know all of some tens
    of thousands by heart. What they learnt is kept in `run/vision.pt`, which a run that goes on loads. Returns
    the accuracies on pictures held out; none where there is nothing to learn in no time.
    """
    kept = run / "vision.pt"
    if kept.is_file():
        eyes.modules.load_state_dict(torch.load(kept, weights_only=True))
        return {}
    if minutes <= 0:
        return {}
    torch.manual_seed(seed)
    reader = Reader(pictures.labels, eyes.width)
    seeing = taught and earlier is None  # as they will go on to
    trained, where = nn.ModuleDict({"eyes": eyes.modules, "reader": reader}).to(device()), device()
    config = FitConfig(run, minutes=minutes, learning_rate=2e-3, decay_share=0.9 if taught else 0.6)
    optimizers = Optimizers(trained, config)
    chance = np.random.default_rng(seed)
    learnt = len(pictures) - min(HELD_OUT, len(pictures) // 4)
    held_out = pictures.look(np.arange(learnt, len(pictures)))
    asked = [classes.to(where) for classes in held_out[1:]]
    if earlier is not None:
        earlier.modules.to(where)
    begun, right = time.monotonic(), {}
    losses: list[float] = []
    distances: list[float] = []  # from the earlier eyes' tokens
    size = BATCH if earlier is None else BATCH // 2  # finer eyes take some four times as long
    for step, rows in enumerate(pictures.batches(seed, learnt, size), 1):
        progress = min(1.0, (time.monotonic() - begun) / 60 / minutes)
        alone = seeing and step <= READER_STEPS
        moved = chance.integers(-SHIFT, SHIFT, 2, endpoint=True)
        pixels, subjects, whole = pictures.look(rows, chance.random(len(rows)) < 0.5, *moved)
        with mixed_precision():
            with torch.set_grad_enabled(not alone):
                tokens = eyes.tokens(normalised(pixels).to(where))
            loss = read_loss(reader, tokens, subjects.to(where), whole.to(where))
        if earlier is not None:
            with torch.no_grad(), mixed_precision():
                aim = earlier.tokens(normalised(pixels).to(where)).float()
            apart = F.mse_loss(tokens.float(), aim) / aim.var()
            loss = loss + AS_BEFORE * apart
            distances.append(apart.item())
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), config.clip_norm)
        # At the whole rate, eyes that were taught would unlearn at first.
        rate = config.learning_rate * (0.5 if seeing and not alone else 1.0)
        optimizers.step(rate * schedule(progress, step - 1, config))
        losses.append(loss.item())
        if step % 100 == 0 or progress == 1:
            right = shares(eyes, reader, normalised(held_out[0]).to(where), *asked)
            told = f"loss {np.mean(losses):.3f} {right}"
            if distances:
                told += f", {np.mean(distances):.3f} of their variance from the earlier tokens"
            print(f"vision step {step}, {60 * progress * minutes:.0f} s: {told}", flush=True)
            losses.clear()
            distances.clear()
        if progress == 1:
            break
    run.mkdir(parents=True, exist_ok=True)
    torch.save(eyes.modules.state_dict(), kept.with_suffix(".partial"))
    kept.with_suffix(".partial").rename(kept)
    return right
