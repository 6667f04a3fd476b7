"""A run's curve: curve.csv, curve.png and TensorBoard events.

curve = Curve(run, step=0, objective=objective); curve.add(step=10, train_loss=2.5); curve.close()
"""

from __future__ import annotations

import csv
from pathlib import Path

from dialog_mllm.objective import Objective


class Curve:
    """The scores of a run, step by step."""

    def __init__(self, run: Path, step: int, objective: Objective) -> None:
        from torch.utils.tensorboard import SummaryWriter

        figures = [f"train_{name}" for name in objective.figures]
        self.fields = ["step", "tokens", "minutes", "learning_rate", "train_loss", *figures, *objective.scores]
        self.rate = objective.rate
        self.file = run / "curve.csv"
        self.rows = [row for row in self._read() if int(row["step"]) <= step]  # a resume repeats what came after
        with self.file.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.fields)
            writer.writeheader()
            writer.writerows(self.rows)
        self.events = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def _read(self) -> list[dict[str, str]]:
        if not self.file.is_file():
            return []
        with self.file.open(newline="") as file:
            return list(csv.DictReader(file))

    def add(self, **values: float) -> None:
        row = {key: f"{value:.6g}" if isinstance(value, float) else str(value) for key, value in values.items()}
        self.rows.append(row)
        with self.file.open("a", newline="") as file:
            csv.DictWriter(file, self.fields).writerow(row)
        for key, value in values.items():
            if key != "step":
                self.events.add_scalar(key, value, int(values["step"]))

    def draw(self) -> None:
        import matplotlib.figure

        figure = matplotlib.figure.Figure(figsize=(8, 4), layout="constrained")
        losses = figure.subplots()
        rights = losses.twinx()
        for axis, key, style in (
            (losses, "train_loss", "C0-"),
            (losses, "loss", "C1o-"),
            (rights, self.rate, "C2s--"),
        ):
            points = [(int(row["step"]), float(row[key])) for row in self.rows if row.get(key)]
            axis.plot(*zip(*points, strict=True), style, label=key, ms=3) if points else None
        losses.set(xlabel="step", ylabel="loss", yscale="log")
        rights.set(ylabel=self.rate.replace("_", " "), ylim=(0, 1.02))
        if losses.lines or rights.lines:
            figure.legend(loc="outside upper center", ncols=3)
        figure.savefig(self.file.with_suffix(".png"), dpi=110)

    def close(self) -> None:
        self.draw()
        self.events.close()
