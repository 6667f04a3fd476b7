"""kill -9 at random moments of a running conversation: nothing that was shown is lost, and the store opens.

EASEL_KILLS=100 python -m pytest tests/app/test_killed.py
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.store import IN_FLIGHT, Store
from app.upkeep import check

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("EASEL_KILLS", "12"))


def shown_until_killed(data: Path, rng: random.Random) -> list[dict[str, Any]]:
    """What a talking process shows until it is killed: some lines after its start, and a moment more.

    A number of seconds would fall into the start on a busy machine."""
    command = [sys.executable, "-m", "tests.app.talking", str(data), str(rng.random())]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        lines = [process.stdout.readline() for _ in range(rng.randint(1, 30))]
        time.sleep(rng.uniform(0, 0.06))
        process.kill()
        lines += process.stdout.readlines()
        assert process.wait() == -9, process.stderr.read().decode()
    return [json.loads(line) for line in lines if line.endswith(b"\n")]  # the last may be cut


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_nothing_that_was_shown_is_lost(tmp_path: Path) -> None:
    rng = random.Random(20)
    interrupted = pictures = 0
    for _ in range(KILLS):
        shown = shown_until_killed(tmp_path, rng)
        assert shown
        store = Store(tmp_path)  # it opens, and marks what was under way
        try:
            for what in shown:
                if name := what.get("conversation"):
                    assert store.conversation("local", name)
                if name := what.get("turn"):
                    turn = store.turn(name)
                    assert turn.said == what["said"]
                    assert turn.status not in IN_FLIGHT
                if name := what.get("picture"):
                    pictures += 1
                    with Image.open(store.picture_path(name)) as picture:
                        picture.load()
                if name := what.get("done"):
                    turn = store.turn(name)
                    assert (turn.status, turn.text, turn.picture) == (what["status"], what["text"], what["picture"])
            begun = [what["turn"] for what in shown if "turn" in what]
            ended = {what["done"] for what in shown if "done" in what}
            last = store.turn(begun[-1]) if begun else None
            if last is not None and last.id not in ended and last.status == "failed":
                interrupted += 1
                assert last.error  # what the page shows beside its Retry
        finally:
            store.close()
        found = check(tmp_path)
        assert found.sound, found  # no turn shows a picture that is not there
    assert pictures >= KILLS / 4 and interrupted >= KILLS / 4, "the moments were not those of a running conversation"
