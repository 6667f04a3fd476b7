"""kill -9 of the real vLLM in mid-reply, at random moments: every turn ends, the server is back, nothing is left over.

EASEL_KILLS=10 python -m pytest tests/app/test_dialog_killed.py
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import time
from pathlib import Path

import psutil
import pytest

from app.conversation import UserMessage
from app.models import DialogModel
from app.profiles import Profile
from app.running import RunningTurns
from app.store import Store
from dialog_mllm.server import VllmServer
from tests.app.fakes import FakeGenerator

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(3000)]
KILLS = int(os.environ.get("EASEL_KILLS", "2"))


def family(server: VllmServer) -> set[psutil.Process]:
    """The server's launcher and all processes under it. The last kill may not have been noticed yet."""
    while True:
        server.wait_ready(600)
        assert server._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):
            launcher = psutil.Process(server._process.pid)
            return {launcher, *launcher.children(recursive=True)}
        time.sleep(0.2)


def is_tracker(process: psutil.Process) -> bool:
    """It only tidies up after the others."""
    with contextlib.suppress(psutil.Error):
        return "resource_tracker" in " ".join(process.cmdline())
    return False


async def talk_and_kill(
    turns: RunningTurns, store: Store, profile: Profile, processes: set[psutil.Process], rng: random.Random
) -> str:
    """One turn in which a process of vLLM is killed; how the turn ended."""
    conversation = store.create_conversation("local", profile.name, profile.settings.to_json())
    run = await turns.start(conversation, UserMessage("describe what you can draw for me"), "auto", None)
    await asyncio.sleep(rng.uniform(0.0, 0.4))
    victims = sorted((one for one in processes if not is_tracker(one)), key=lambda one: one.pid)
    with contextlib.suppress(psutil.NoSuchProcess):  # it fell with the one before
        rng.choice(victims).kill()
    async with asyncio.timeout(120):
        async for _ in run.watch():
            pass
    assert run.turn.status in ("done", "failed"), run.turn
    if run.turn.status == "done":
        assert run.turn.text or run.turn.picture
        return "done"
    assert len(run.problem) > 20 and store.turn(run.turn.id).error, "it does not say what happened"
    for _ in range(60):  # the first may come before the server is known to be gone
        conversation = store.conversation("local", conversation.id)
        again = await turns.retry(conversation, store.path(conversation.leaf)[-1], "auto")
        async for _ in again.watch():
            pass
        if again.turn.status == "done":
            break
        await asyncio.sleep(2)
    assert again.turn.status == "done", again.turn.error
    return "failed"


def zombies() -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(parent) == os.getpid():
            found.append(folder.name)
    return found


def listening(address: str) -> bool:
    host, port = address.removeprefix("http://").split("/")[0].split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_killed_at_random_moments(profile: Profile, store: Store, tmp_path: Path) -> None:
    rng = random.Random(9)
    shared = set(os.listdir("/dev/shm"))
    dialog = DialogModel(profile, tmp_path / "logs")
    server = dialog._server
    assert server is not None
    turns = RunningTurns(profile, store, dialog, FakeGenerator(0.01))
    dialog.start()
    ended: list[str] = []
    addresses: set[str] = set()
    processes: set[psutil.Process] = set()
    try:
        server.wait_ready(600)
        for _ in range(KILLS):
            now = family(server)
            processes |= now
            addresses.add(server.base_url)
            ended.append(asyncio.run(talk_and_kill(turns, store, profile, now, rng)))
        processes |= family(server)
        addresses.add(server.base_url)
    finally:
        dialog.stop()
    print(f"{len(ended)} kills: {ended.count('failed')} turns failed and were retried, {ended.count('done')} were done")
    assert len(processes) > KILLS and not [one for one in processes if one.is_running()]
    assert not zombies()
    assert not [address for address in addresses if listening(address)]
    assert set(os.listdir("/dev/shm")) <= shared, "shared memory was left behind"
