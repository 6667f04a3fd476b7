"""D_p: one request, one refined prompt; and what there is no prompt for, kindly declined.

easel data p --out data --n 100 --seed 1 --split train
"""

from __future__ import annotations

import random

from datasets_build.banks import Speaker
from datasets_build.records import Dialogue
from datasets_build.refusals import refuse
from datasets_build.requests import fresh
from datasets_build.topics import TOPICS

REFUSED = 0.16  # of the requests ask for what the world does not hold


def build(language: str, split: str, rng: random.Random, after_another: bool = False) -> Dialogue:
    speaker, topic = Speaker(language, split, rng), rng.choice(TOPICS)
    exchange = refuse(speaker) if rng.random() < REFUSED else fresh(speaker, topic, after_another)
    return Dialogue(language, (exchange,), tuple(speaker.used), topic.name)
