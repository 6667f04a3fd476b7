"""Training the inspector on renders.

    easel train inspector --pictures runs/pictures --validation runs/pictures-validation --out runs/inspector

Renders are blurred, faded and given noise at random, so that it reads shapes and colours rather than exact pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from generator.inspector import WHOLE, Inspector, InspectorModel
from generator.training.data import Epochs, PictureShards
from generator.training.hints import IGNORE, Heads, SceneLabels
from generator.training.loop import FitConfig, Losses, fit, mixed_precision


@dataclass(frozen=True)
class InspectorConfig:
    pictures: Path
    out: Path
    validation: Path | None = None
    minutes: float = 10.0
    steps: int = 100_000
    batch: int = 64
    learning_rate: float = 1e-3
    matrix_rate: float = 0.02  # Muon's; to go on from trained weights, half of it
    base: Path | None = None  # a saved inspector to go on from
    seed: int = 0


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
    if config.base:
        model.load_state_dict(Inspector.load(config.base).model.state_dict())
    # Each cell of the last convolutions is asked what covers it: that teaches them far sooner than the answers do.
    labels = SceneLabels(shards, patch=2)
    reader = Heads(shards.labels, model.places.shape[1], whole=False)
    cells: list[Tensor] = []
    model.body.register_forward_hook(
        lambda module, args, output: cells.append(output) if torch.is_grad_enabled() else None
    )
    batches = Epochs(len(shards), config.batch, config.seed)

    def loss(step: int) -> Losses:
        indices = batches[step]
        wanted = labels.of(indices)
        with mixed_precision():
            logits = model(disturb(shards.pixels(indices)))
            seeing = reader.loss(
                cells.pop().flatten(2).transpose(1, 2), labels.of_tokens(wanted, shards.covers(indices))
            )
        parts = {
            name: F.cross_entropy(values.flatten(0, -2).float(), wanted[name].flatten(), ignore_index=IGNORE)
            for name, values in logits.items()
        }
        weighted = {**parts, "accessories": 6 * parts["accessories"]}  # six questions in one
        total = torch.stack(list(weighted.values())).sum() + seeing
        return {"loss": total, "seeing": seeing.detach(), **{k: v.detach() for k, v in parts.items()}}

    fit_config = FitConfig(
        config.out, config.steps, config.minutes, config.learning_rate, config.matrix_rate, seed=config.seed,
        weight_decay=0.05, save_every=500, decay_share=0.5, warmup=50,
    )  # fmt: skip
    result = fit(fit_config, {"inspector": model, "reader": reader}, loss)
    inspector = Inspector(model, shards.manifest.get("names"))
    inspector.save(config.out / "inspector")
    if config.validation:
        result |= accuracy(inspector, PictureShards(config.validation))
    return result
