"""The inspector: a small recogniser that reads every attribute of a picture-book picture back from its pixels.

    python -c "from generator.inspector import Inspector; print(Inspector.load().read([picture]))"

It measures the image model (`easel eval image`), so it is trained on renders alone and never sees a generated picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from generator.checkpoint import read_json, read_tensors, write_json, write_tensors
from generator.looks import WHOLE

WEIGHTS = Path(__file__).parent / "weights" / "inspector"
NAME = "model.safetensors"
SIZE = 128


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Conv2d(width_in, width, 1, stride) if stride > 1 or width_in != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class InspectorModel(nn.Module):
    """Convolutions, then four queries over the 8 x 8 grid: one for each position and one for the whole picture."""

    def __init__(self, labels: dict[str, list[str]], width: int = 192) -> None:
        super().__init__()
        self.labels = labels
        self.stem = nn.Conv2d(3, 32, 5, 2, 2)  # 128 -> 64
        self.body = nn.Sequential(
            Residual(32, 32, 1), Residual(32, 64, 2), Residual(64, 64, 1),
            Residual(64, 128, 2), Residual(128, 128, 1), Residual(128, width, 2), Residual(width, width, 1),
        )  # fmt: skip
        self.places = nn.Parameter(torch.randn(64, width) * 0.02)
        self.queries = nn.Parameter(torch.randn(len(labels["position"]) + 1, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.mixer = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.whole = nn.ModuleDict({name: nn.Linear(width, len(labels[name])) for name in WHOLE})
        colours = len(labels["colour"])
        self.kind = nn.Linear(width, len(labels["kind"]) + 1)  # the last class: nobody stands there
        self.colour = nn.Linear(width, colours)
        self.size = nn.Linear(width, len(labels["size"]))
        self.accessories = nn.Linear(width, len(labels["accessory"]) * (colours + 1))  # the last class: not worn

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """(B, 3, 128, 128) in -1 ... 1 -> logits; subjects' ones are (B, positions, ...classes)."""
        x = self.body(F.relu(self.stem(pixels)))  # (B, width, 8, 8)
        x = x.flatten(2).transpose(1, 2) + self.places  # (B, 64, width)
        queries = self.queries.expand(len(x), -1, -1)
        x = self.mixer(torch.cat([queries, x], 1))[:, : queries.shape[1]]  # (B, positions + 1, width)
        subject, whole = x[:, :-1], x[:, -1]
        kinds, colours = len(self.labels["accessory"]), len(self.labels["colour"]) + 1
        logits = {name: head(whole) for name, head in self.whole.items()}
        logits |= {name: getattr(self, name)(subject) for name in ("kind", "colour", "size")}
        logits["accessories"] = self.accessories(subject).unflatten(-1, (kinds, colours))
        return logits


class Inspector:
    """Reads pictures. `labels` are the world's words, in the order of the model's classes, and `names` what else the
    labels are called: {"kind": {"fox": ["狐狸"]}}."""

    def __init__(self, model: InspectorModel, names: dict[str, dict[str, list[str]]] | None = None) -> None:
        self.model = model.eval()
        self.labels = model.labels
        self.names = names or {}

    @property
    def words(self) -> dict[str, tuple[str, str]]:
        """By each word, the attribute and the label that it stands for."""
        words = {label: (attribute, label) for attribute, labels in self.labels.items() for label in labels}
        for attribute, names in self.names.items():
            words |= {word: (attribute, label) for label, called in names.items() for word in called}
        return words

    @classmethod
    def load(cls, folder: Path = WEIGHTS) -> Inspector:
        """Raises CheckpointError when the folder is incomplete or damaged."""
        config = read_json(folder / "config.json")
        model = InspectorModel(config["labels"])
        model.load_state_dict(read_tensors(folder, torch.float32, NAME))
        return cls(model, config.get("names"))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", {"labels": self.labels, "names": self.names})
        write_tensors(folder, self.model.state_dict(), torch.float16, NAME)

    @torch.inference_mode()
    def read_tensor(self, pixels: Tensor) -> list[dict[str, Any]]:
        """(n, 3, 128, 128) in -1 ... 1 -> one scene in JSON form for each picture."""
        logits = {name: values.argmax(-1).tolist() for name, values in self.model(pixels).items()}
        labels, none = self.labels, len(self.labels["kind"])
        scenes = []
        for i in range(len(pixels)):
            subjects = [
                {
                    "kind": labels["kind"][kind],
                    "colour": labels["colour"][logits["colour"][i][place]],
                    "size": labels["size"][logits["size"][i][place]],
                    "position": labels["position"][place],
                    "accessories": [
                        {"kind": worn, "colour": labels["colour"][colour]}
                        for worn, colour in zip(labels["accessory"], logits["accessories"][i][place], strict=True)
                        if colour < len(labels["colour"])
                    ],
                }
                for place, kind in enumerate(logits["kind"][i])
                if kind < none
            ]
            scenes.append({"subjects": subjects, **{name: labels[name][logits[name][i]] for name in WHOLE}})
        return scenes

    def read(self, pictures: Sequence[Image.Image]) -> list[dict[str, Any]]:
        """The same for Pillow pictures of any size; one that is no square is mirrored at its edges."""
        scenes = []
        for picture in pictures:
            small = _square(picture.convert("RGB")).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
            pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float().div(127.5).sub(1)
            scenes.extend(self.read_tensor(pixels))
        return scenes


def _square(picture: Image.Image) -> Image.Image:
    """It learnt on squares, and a squeezed fox is not what it knows."""
    across, down = (max(picture.size) - side for side in picture.size)
    if not across and not down:
        return picture
    around = [(missing // 2, missing - missing // 2) for missing in (down, across)]
    return Image.fromarray(np.pad(np.asarray(picture), (*around, (0, 0)), mode="reflect"))
