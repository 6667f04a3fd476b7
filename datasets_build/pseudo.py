"""D_pm: pseudo dialogues: single-turn pieces of D_p and D_o and short ones of D_tt, shuffled and joined.

    easel data pm --out data --n 100 --seed 1 --split train

Users change the topic; each piece after the first begins with the switch token (`records.to_record` puts it there).
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

from datasets_build import dialogues, open_data, prompts
from datasets_build.records import Builder, Dialogue, Exchange, NoSample, build_dialogue

PIECES = (("D_p", 50), ("D_o", 28), ("D_tt", 22))
MAX_TURNS = 8


def build(language: str, split: str, rng: random.Random) -> Dialogue:
    lots = random.Random(rng.getrandbits(64))  # not the record's own even draws, which are for a whole record
    wanted = rng.choices((3, 4, 5, 6, 7, MAX_TURNS), (30, 25, 18, 12, 8, 7))[0]
    exchanges: list[Exchange] = []
    phrasings: list[str] = []
    while len(exchanges) < wanted:
        seen = any(exchange.drawn or exchange.uploads for exchange in exchanges)
        builders: dict[str, Builder] = {
            # Beside a picture, a bare "a cat" could be a change of it.
            "D_p": partial(prompts.build, after_another=seen), "D_o": open_data.build, "D_tt": dialogues.build,
        }  # fmt: skip
        builder = builders[rng.choices([task for task, _ in PIECES], [weight for _, weight in PIECES])[0]]
        own_language = language if rng.random() < 0.9 else {"en": "zh", "zh": "en"}[language]
        piece = build_dialogue(builder, own_language, split, lots)
        room = wanted - len(exchanges)
        if len(piece.exchanges) > room or not piece.exchanges[0].opens:
            continue
        if seen and any(_names_a_picture(exchange) for exchange in piece.exchanges):
            continue  # "the first picture" would be another one here
        exchanges += [_moved(exchange, len(exchanges)) for exchange in piece.exchanges]
        phrasings += piece.phrasings
    if sum(len(exchange.uploads) for exchange in exchanges) > 4:
        raise NoSample  # more pictures than the model is shown
    return Dialogue(language, tuple(exchanges), tuple(phrasings))


def _names_a_picture(exchange: Exchange) -> bool:
    request = exchange.request or {}
    return "base_turn" in request and request.get("form") != "correction"


def _moved(exchange: Exchange, turns: int) -> Exchange:
    """An exchange of a piece that stands behind so many turns of others."""
    request = exchange.request
    if request is None or "base_turn" not in request:
        return exchange
    return replace(exchange, request={**request, "base_turn": request["base_turn"] + turns})
