"""The table of a dialogue while it is made: what was said, and which pictures lie there.

table = Table(speaker, topic); table.put(exchange, scene, "en", 0); table.current
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from datasets_build.banks import Speaker
from datasets_build.records import Exchange
from datasets_build.storybook.scene import Scene
from datasets_build.topics import Topic


@dataclass(frozen=True)
class Drawing:
    """A picture on the table. A picture that the user brought has no prompt, and no turn drew it."""

    scene: Scene
    language: str
    template: int
    root: int  # drawings of one root come from each other by edits
    turn: int | None = None  # that drew it


@dataclass
class Table:
    """The state of a dialogue while it is made."""

    speaker: Speaker
    topic: Topic
    exchanges: list[Exchange] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)

    @property
    def current(self) -> Drawing:
        return self.drawings[-1]

    def put(self, exchange: Exchange, scene: Scene, language: str, template: int, root: int | None = None) -> None:
        """Adds an exchange and the picture that it brings; without `root`, it comes from none of the others."""
        turn = len(self.exchanges)
        self.exchanges.append(exchange)
        drawn = turn if exchange.drawn is not None else None
        self.drawings.append(Drawing(scene, language, template, turn if root is None else root, drawn))

    def earlier(self) -> Iterator[tuple[int, Drawing]]:
        """(number, drawing) of the drawings that show something else than the latest picture, oldest first.

        The number counts what Easel drew, from 1."""
        drawn = [drawing for drawing in self.drawings if drawing.turn is not None]
        for number, drawing in enumerate(drawn, 1):
            if drawing.scene != self.current.scene:
                yield number, drawing
