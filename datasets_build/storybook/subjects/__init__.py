"""The twenty-four kinds of subjects, each a function that draws one in its own frame and says where accessories go.

python -c "from datasets_build.storybook.subjects import SUBJECTS; print(*SUBJECTS)"
"""

from __future__ import annotations

from datasets_build.storybook.subjects import animals, buildings, nature, people, vehicles, wildlife
from datasets_build.storybook.subjects.shapes import Anchors, Painter

SUBJECTS: dict[str, Painter] = {
    "cat": animals.cat, "dog": animals.dog, "rabbit": animals.rabbit, "fox": animals.fox, "bear": animals.bear,
    "panda": animals.panda, "bird": wildlife.bird, "fish": wildlife.fish, "turtle": wildlife.turtle,
    "butterfly": wildlife.butterfly, "girl": people.girl, "robot": people.robot, "snowman": people.snowman,
    "car": vehicles.car, "train": vehicles.train, "sailboat": vehicles.sailboat, "rocket": vehicles.rocket,
    "house": buildings.house, "castle": buildings.castle, "pagoda": buildings.pagoda, "tree": nature.tree,
    "flower": nature.flower, "cake": nature.cake, "lantern": nature.lantern,
}  # fmt: skip

__all__ = ["SUBJECTS", "Anchors", "Painter"]
