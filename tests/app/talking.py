"""A process that is to be killed: it talks with the real conversation, turns and store, and prints what a page shows.

python -m tests.app.talking DATA SEED
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any

from app.conversation import UserMessage
from app.profiles import PROFILES
from app.running import RunningTurns
from app.store import Store
from tests.app.fakes import FakeDialog, FakeGenerator

SAYINGS = ("draw a fox in the snow", "give it a blue scarf", "now make it night", "hello there", "draw a red castle")


def show(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def talk(store: Store, rng: random.Random) -> None:
    profile = PROFILES["storybook"]
    turns = RunningTurns(profile, store, FakeDialog(pause=0.003), FakeGenerator(0.008))
    while True:
        known = store.conversations("local")
        if known and rng.random() < 0.8:
            conversation = store.conversation("local", rng.choice(known).id)
        else:
            conversation = store.create_conversation("local", profile.name, profile.settings.to_json())
            show(conversation=conversation.id)
        path = store.path(conversation.leaf)
        way = rng.random()
        if path and path[-1].status == "failed" and way < 0.5:
            run = await turns.retry(conversation, path[-1], "auto")
        elif path and path[-1].picture and way < 0.2:
            run = await turns.vary(conversation, path[-1])
        elif path and path[-1].picture and way < 0.3:
            run = await turns.redraw(conversation, path[-1], path[-1].prompt + " A red kite.")
        else:
            run = await turns.start(conversation, UserMessage(rng.choice(SAYINGS)), "auto", conversation.leaf)
        show(turn=run.turn.id, said=run.turn.said)
        async for _ in run.watch():
            for canvas in run.canvases:
                if canvas.picture:
                    show(picture=canvas.picture)
        if not run.variations:  # the turn of those is not one of theirs
            show(done=run.turn.id, status=run.turn.status, text=run.turn.text, picture=run.turn.picture)


if __name__ == "__main__":
    asyncio.run(talk(Store(Path(sys.argv[1])), random.Random(sys.argv[2])))
