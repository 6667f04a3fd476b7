"""D_n: what asks for no picture though it comes near it, more of it than a natural dialogue holds.

    easel data n --out data --n 100 --seed 1 --split train

The banks hold thousands of ways to talk of pictures and of the world's things without wanting one, and D_tt alone would
show most of them once or never. Two kinds: talk without any picture, and a picture whose change is declined, often
beside one that is possible.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from datasets_build import refusals, talk
from datasets_build.banks import Speaker
from datasets_build.dialogues import ask_for_picture, change_picture
from datasets_build.plans import Step
from datasets_build.records import Dialogue, Exchange, NoSample
from datasets_build.storybook.edits import WEIGHTS
from datasets_build.storybook.scene import Scene
from datasets_build.table import Table
from datasets_build.topics import TOPICS

TALK_SHARE = 0.7
TALK: dict[Callable[[Speaker], Exchange], int] = {talk.small_talk: 50, talk.about_things: 32, refusals.refuse: 18}
DECLINES: dict[Callable[[Speaker, Scene], Exchange], int] = {refusals.limit: 65, refusals.refuse_edit: 35}


def build(language: str, split: str, rng: random.Random) -> Dialogue:
    speaker = Speaker(language, split, rng)
    if rng.random() < TALK_SHARE:
        return Dialogue(language, tuple(_talk(speaker)), tuple(speaker.used))
    for _ in range(300):
        try:
            table = Table(Speaker(language, split, rng), rng.choice(TOPICS))
            return _decline(table)
        except NoSample:
            continue
    raise NoSample


def _talk(speaker: Speaker) -> list[Exchange]:
    makers = speaker.rng.choices(list(TALK), list(TALK.values()), k=speaker.rng.choice((1, 2, 3)))
    exchanges = [maker(speaker) for maker in makers]
    if len({exchange.user for exchange in exchanges}) < len(exchanges):
        raise NoSample
    return exchanges


def _decline(table: Table) -> Dialogue:
    """A picture, then one or two changes of which at least one cannot be made."""
    speaker = table.speaker
    ask_for_picture(speaker, table)
    possible = speaker.rng.choice(("none", "before", "after"))
    operation = speaker.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    if possible == "before":
        change_picture(speaker, table, Step("ti2i", operation))
    decline = speaker.rng.choices(list(DECLINES), list(DECLINES.values()))[0]
    table.exchanges.append(decline(speaker, table.current.scene))
    if possible == "after":
        change_picture(speaker, table, Step("ti2i", operation))
    return Dialogue(speaker.language, tuple(table.exchanges), tuple(speaker.used), table.topic.name)
