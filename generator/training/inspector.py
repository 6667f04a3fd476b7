"""Training the inspector on renders.

    easel train inspector --pictures runs/pictures --validation runs/pictures-validation --out runs/inspector

Renders are blurred, faded and given noise at random, so that it reads shapes and colours rather than exact pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from generator.inspector import WHOLE, Inspector, InspectorModel
from generator.training.data import PictureShards, epochs
from generator.training.loop import FitConfig, Losses, fit, mixed_precision

IGNORE = -100


@dataclass(frozen=True)
class InspectorConfig:
    pictures: Path
    out: Path
    validation: Path | None = None
    minutes: float = 10.0
    steps: int = 100_000
    batch: int = 64
    learning_rate: float = 1e-3
    seed: int = 0


def targets(scenes: list[dict[str, Any]], labels: dict[str, list[str]]) -> dict[str, Tensor]:
    """Class numbers for `InspectorModel`'s logits; what an absent subject would have is ignored."""
    n, places = len(scenes), len(labels["position"])
    kind = torch.full((n, places), len(labels["kind"]))
    colour, size = torch.full((n, places), IGNORE), torch.full((n, places), IGNORE)
    accessories = torch.full((n, places, len(labels["accessory"])), IGNORE)
    for i, scene in enumerate(scenes):
        for subject in scene["subjects"]:
            place = labels["position"].index(subject["position"])
            kind[i, place] = labels["kind"].index(subject["kind"])
            colour[i, place] = labels["colour"].index(subject["colour"])
            size[i, place] = labels["size"].index(subject["size"])
            accessories[i, place] = len(labels["colour"])
            for worn in subject["accessories"]:
                worn_at = labels["accessory"].index(worn["kind"])
                accessories[i, place, worn_at] = labels["colour"].index(worn["colour"])
    whole = {name: torch.tensor([labels[name].index(scene[name]) for scene in scenes]) for name in WHOLE}
    return {**whole, "kind": kind, "colour": colour, "size": size, "accessories": accessories}


def disturb(pixels: Tensor) -> Tensor:
    """A random small loss of quality for each picture."""
    n = len(pixels)
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pixels = torch.lerp(pixels, blurred, torch.rand(n, 1, 1, 1))
    pixels = pixels * (0.85 + 0.3 * torch.rand(n, 1, 1, 1)) + 0.1 * torch.randn(n, 1, 1, 1)
    return (pixels + 0.08 * torch.rand(n, 1, 1, 1) * torch.randn_like(pixels)).clamp(-1, 1)


def accuracy(inspector: Inspector, shards: PictureShards, limit: int = 4096) -> dict[str, float]:
    """Share of attributes read right on renders: subjects by position, accessories as exact sets with their colours."""
    right: dict[str, list[bool]] = {}
    for start in range(0, min(limit, len(shards)), 128):
        indices = range(start, min(start + 128, limit, len(shards)))
        for index, seen in zip(indices, inspector.read_tensor(shards.pixels(indices)), strict=True):
            scene = shards.records[index]["scene"]
            for name in WHOLE:
                right.setdefault(name, []).append(seen[name] == scene[name])
            there = {subject["position"]: subject for subject in seen["subjects"]}
            right.setdefault("count", []).append(len(there) == len(scene["subjects"]))
            for subject in scene["subjects"]:
                found = there.get(subject["position"], {})
                for name in ("kind", "colour", "size"):
                    right.setdefault(name, []).append(found.get(name) == subject[name])
                worn, seen_worn = (
                    {(a["kind"], a["colour"]) for a in s.get("accessories", ())} for s in (subject, found)
                )
                right.setdefault("accessory", []).append(worn == seen_worn)
    return {name: sum(values) / len(values) for name, values in right.items()}


def train_inspector(config: InspectorConfig) -> dict[str, float]:
    """Trains and writes `config.out/inspector`; returns the accuracies on the validation renders when there are any."""
    torch.manual_seed(config.seed)
    shards = PictureShards(config.pictures)
    model = InspectorModel(shards.labels)
    batches = epochs(len(shards), config.batch, config.seed)

    def loss(step: int) -> Losses:
        indices = next(batches)
        wanted = targets([shards.records[i]["scene"] for i in indices], shards.labels)
        with mixed_precision():
            logits = model(disturb(shards.pixels(indices)))
        parts = {
            name: F.cross_entropy(values.flatten(0, -2).float(), wanted[name].flatten(), ignore_index=IGNORE)
            for name, values in logits.items()
        }
        weighted = {**parts, "accessories": 6 * parts["accessories"]}  # six questions in one
        return {"loss": torch.stack(list(weighted.values())).sum(), **{k: v.detach() for k, v in parts.items()}}

    fit_config = FitConfig(
        config.out, config.steps, config.minutes, config.learning_rate, seed=config.seed, weight_decay=0.05,
        save_every=1000, decay_share=0.5,
    )  # fmt: skip
    result = fit(fit_config, {"inspector": model}, loss)
    inspector = Inspector(model)
    inspector.save(config.out / "inspector")
    if config.validation:
        result |= accuracy(inspector, PictureShards(config.validation))
    return result
