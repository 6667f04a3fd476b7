"""`easel bench load`: many users at once through the HTTP API; is anything mixed up, unfair, or left behind?

easel bench load --users 32 --minutes 5 --json                 # starts an Easel of its own, in a new folder
easel bench load --url http://127.0.0.1:7860 --key-env EASEL_KEY

Each user holds one conversation after another, each about a subject and a colour that no other user has, with a seed
of its own, and now and then hangs up in the middle. A picture that comes back must say, in its own file, that user's
seed and the prompt of its reply. Afterwards some turns are asked again, alone: words and pixels must be the same.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from app.errors import EaselError

COLOURS = ("red", "blue", "green", "yellow", "purple", "orange", "pink", "brown")
KINDS = ("fox", "cat", "dog", "rabbit", "bear", "robot", "castle", "house", "car", "tree", "bird", "turtle")
CHANGES = ("now make it night", "put it in the snow", "give it a hat", "make it bigger", "in watercolour", "add a tree")
HANGS_UP = 0.08  # of the turns
PATIENCE = 600.0  # seconds for one reply
REPEATED = 12  # turns that are asked again, alone
WARM_UP = 0.2  # of the time, before memory is measured


@dataclass
class Turn:
    """What was asked and what came back."""

    messages: list[dict[str, Any]]
    seed: int
    seconds: float
    content: str
    picture: bytes | None


@dataclass
class User:
    """One client with its own connection, and what happened to it."""

    number: int
    rng: random.Random
    turns: list[Turn] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    mixed_up: list[str] = field(default_factory=list)
    hung_up: int = 0

    def is_over(self, deadline: float) -> bool:
        """Nobody leaves without an answer, however slow the server is."""
        return time.monotonic() >= deadline and bool(self.turns or self.errors)

    @property
    def subject(self) -> str:
        return f"{COLOURS[self.number % len(COLOURS)]} {KINDS[self.number // len(COLOURS) % len(KINDS)]}"


class Load:
    """The users of one server, and its figures."""

    def __init__(self, url: str, key: str, users: int, seed: int) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.users = [User(number, random.Random(f"load {seed} {number}")) for number in range(users)]

    async def run(self, seconds: float) -> None:
        """All users talk for so long; what is under way then is waited for."""
        deadline = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for user in self.users:
                group.create_task(self._talk(user, deadline, min(2.0, seconds / 4)))

    async def _talk(self, user: User, deadline: float, spread: float) -> None:
        async with self._client() as client:
            await asyncio.sleep(user.rng.uniform(0, spread))
            conversation = 0
            while not user.is_over(deadline):
                seed = user.number * 1000 + conversation
                conversation += 1
                said = [f"draw a {user.subject}", *user.rng.sample(CHANGES, 3), "what colour is it?"]
                messages: list[dict[str, Any]] = []
                for text in said:
                    if user.is_over(deadline):
                        break
                    messages.append({"role": "user", "content": text})
                    if user.rng.random() < HANGS_UP:
                        await self._hang_up(client, user, messages, seed)
                    turn = await self._ask(client, user, messages, seed)
                    if turn is None:
                        break
                    user.turns.append(turn)
                    messages = [*messages, {"role": "assistant", "content": turn.content}]
                    await asyncio.sleep(user.rng.expovariate(1.0))  # reading

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers=self.headers, timeout=PATIENCE, trust_env=False)

    async def _ask(
        self, client: httpx.AsyncClient, user: User, messages: list[dict[str, Any]], seed: int
    ) -> Turn | None:
        begun = time.monotonic()
        try:
            response = await client.post("/v1/chat/completions", json={"messages": messages, "seed": seed})
            seconds = time.monotonic() - begun
            if response.status_code != 200:
                user.errors.append(f"{response.status_code}: {response.text[:200]}")
                return None
            body = response.json()
            message, easel = body["choices"][0]["message"], body["easel"]
            images = message.get("images") or []
            picture = base64.b64decode(images[0]["image_url"]["url"].partition(",")[2]) if images else None
        except (httpx.HTTPError, ValueError, KeyError, IndexError) as error:
            user.errors.append(repr(error)[:200])
            return None
        if picture is not None and (found := _foreign(picture, seed, easel["prompt"])):
            user.mixed_up.append(found)
        return Turn(list(messages), seed, seconds, message["content"], picture)

    async def _hang_up(self, client: httpx.AsyncClient, user: User, messages: list[dict[str, Any]], seed: int) -> None:
        """Asks for a stream and leaves it after a moment."""
        body = {"messages": messages, "seed": seed, "stream": True}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(user.rng.uniform(0.1, 6.0)):
                try:
                    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                        async for _ in response.aiter_lines():
                            pass
                except httpx.HTTPError as error:
                    user.errors.append(f"hanging up: {error!r}"[:200])
        user.hung_up += 1

    async def repeat(self, count: int, seed: int) -> dict[str, int]:
        """Turns of the crowd once more, one at a time: the same words, the same pixels (to 1 of 255)?"""
        rng = random.Random(seed)
        done = [(user, turn) for user in self.users for turn in user.turns]
        chosen = rng.sample(done, min(count, len(done)))
        counts = Counter({"turns": len(chosen), "same_words": 0, "same_pixels": 0, "pictures": 0})
        async with self._client() as client:
            for user, turn in chosen:
                again = await self._ask(client, user, turn.messages, turn.seed)
                if again is None:
                    continue
                counts["same_words"] += _words(again.content) == _words(turn.content)
                if turn.picture is not None:
                    counts["pictures"] += 1
                    counts["same_pixels"] += again.picture is not None and _same(turn.picture, again.picture)
        return dict(counts)

    async def idle(self, patience: float = 60.0) -> bool:
        """Whether the server has nothing left to draw: those who hung up must leave nothing in the queue."""
        async with self._client() as client:
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                text = (await client.get("/metrics")).text
                if re.search(r"^easel_drawings_unfinished 0(\.0)?$", text, re.M):
                    return True
                await asyncio.sleep(0.5)
        return False

    def report(self) -> dict[str, Any]:
        """Counts, and how long turns took: in all, and each user's mean beside the mean of all."""
        seconds = sorted(turn.seconds for user in self.users for turn in user.turns)
        if not seconds:
            raise EaselError(f"No turn was answered: {next((e for u in self.users for e in u.errors), 'no time')}")
        means = [statistics.mean(turn.seconds for turn in user.turns) for user in self.users if user.turns]
        mean = statistics.mean(seconds)
        return {
            "users": len(self.users),
            "turns": len(seconds),
            "pictures": sum(turn.picture is not None for user in self.users for turn in user.turns),
            "hung_up": sum(user.hung_up for user in self.users),
            "errors": sum(len(user.errors) for user in self.users),
            "first_errors": [error for user in self.users for error in user.errors][:5],
            "mixed_up": sum(len(user.mixed_up) for user in self.users),
            "users_without_a_turn": sum(not user.turns for user in self.users),
            "seconds_mean": round(mean, 2),
            "seconds_p50": round(statistics.median(seconds), 2),
            "seconds_p95": round(seconds[int(0.95 * (len(seconds) - 1))], 2),
            "longest_mean_wait_ratio": round(max(means) / mean, 2),
            "longest_turn_ratio": round(seconds[-1] / mean, 2),
        }


def _foreign(picture: bytes, seed: int, prompt: str) -> str:
    """What in the picture's own file is another drawing's; "" if nothing is."""
    with Image.open(io.BytesIO(picture)) as image:
        told = getattr(image, "text", {})
    if told.get("seed") != str(seed) or told.get("prompt") != prompt:
        return f"asked {seed} {prompt!r}, got {told.get('seed')} {told.get('prompt')!r}"
    return ""


def _words(content: str) -> str:
    """The content without the picture's address: pictures of the same pixels may have several."""
    return re.sub(r"\]\([^)]*\)", "]", content)


def _same(one: bytes, two: bytes) -> bool:
    a, b = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int16) for data in (one, two))
    return a.shape == b.shape and int(np.abs(a - b).max()) <= 1


# ------------------------------------------------------------------------------------------------------ the server


def memory(pid: int) -> Counter[str]:
    """Bytes that a process ("easel") and all that it started (by their names) hold; on Linux shared pages are counted
    once."""
    held: Counter[str] = Counter()
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # it has just ended
                told = process.memory_full_info()
                held["easel" if process == root else process.name()] += getattr(told, "pss", told.uss)
    return held


def growth(samples: Sequence[Counter[str]]) -> dict[str, Any]:
    """The medians of the samples' first and last quarters, MiB, in all and by the processes' names; their ratio."""
    quarter = len(samples) // 4
    ends = samples[:quarter], samples[-quarter:]
    early, late = (statistics.median(sample.total() for sample in end) for end in ends)
    by_name = {
        name: [round(statistics.median(sample[name] for sample in end) / 2**20) for end in ends]
        for name in sorted(set().union(*samples))
    }
    return {
        "memory_mb": [round(early / 2**20), round(late / 2**20)],
        "memory_ratio": round(late / early, 3),
        "memory_mb_of": by_name,
    }


def by_minute(samples: Sequence[tuple[float, Counter[str]]]) -> list[int]:
    """The medians of each minute's samples, MiB: bounded caches fill at first, and a leak goes on."""
    minutes: dict[int, list[int]] = {}
    for at, held in samples:
        minutes.setdefault(int(at // 60), []).append(held.total())
    return [round(statistics.median(held) / 2**20) for _, held in sorted(minutes.items())]


@contextlib.contextmanager
def own_server(profile: str) -> Iterator[tuple[str, int]]:
    """An Easel for the time of the measurement: its address and its process."""
    with tempfile.TemporaryDirectory(prefix="easel-load-") as folder:
        command = [sys.executable, "-m", "app.cli", "chat", "--port", "0", "--profile", profile, "--data-dir", folder]
        command += ["--database", "sqlite"]  # whatever the settings say
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            found = re.search(r"http://\S+", line)
            if found is None:
                raise EaselError(f"Easel did not start: {line.strip() or 'see above'}")
            yield found[0], server.pid
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(60)
            server.kill()


def wait_ready(url: str, patience: float = 600.0) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            health = httpx.get(f"{url}/health", timeout=20, trust_env=False).json()
            if health["status"] == "ready":
                return
            if health["status"] == "failed":
                raise EaselError(f"Easel's models did not start: {health}")
        time.sleep(0.5)
    raise EaselError(f"Easel at {url} is not ready after {patience:.0f} s.")


async def measure(load: Load, seconds: float, pid: int | None, seed: int) -> dict[str, Any]:
    samples: list[tuple[float, Counter[str]]] = []

    async def watch() -> None:
        begun = time.monotonic()
        while pid is not None:
            samples.append((time.monotonic() - begun, await asyncio.to_thread(memory, pid)))
            await asyncio.sleep(2)

    watching = asyncio.create_task(watch())
    await load.run(seconds)
    watching.cancel()
    result = load.report()
    result["queue_empty"] = await load.idle()
    result["repeated"] = await load.repeat(REPEATED, seed)
    warm = [held for at, held in samples if held and at >= WARM_UP * seconds]
    if len(warm) >= 4:
        result |= growth(warm) | {"memory_mb_each_minute": by_minute([sample for sample in samples if sample[1]])}
    return result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--users", type=int, default=32, help="at once (%(default)s)")
    parser.add_argument("--minutes", type=float, default=5.0, help="that they talk (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of what they say (%(default)s)")
    parser.add_argument("--url", help="a server that runs already (default: one is started)")
    parser.add_argument("--key-env", metavar="VAR", help="the environment variable that holds its API key")
    parser.add_argument("--profile", default="storybook", help="of the server that is started (%(default)s)")


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """The figures; the exit status is 1 where anything failed, was mixed up or left behind."""
    if args.users < 1 or args.minutes <= 0:
        raise EaselError("--users must be at least 1, and --minutes more than 0.")
    if args.users > len(COLOURS) * len(KINDS):
        raise EaselError(f"--users can be at most {len(COLOURS) * len(KINDS)}: each has a subject of its own.")
    key = os.environ.get(args.key_env, "") if args.key_env else ""
    if args.key_env and not key:
        raise EaselError(f"The environment variable {args.key_env} is empty: put the server's API key there.")
    with contextlib.ExitStack() as stack:
        url, pid = (args.url.rstrip("/"), None) if args.url else stack.enter_context(own_server(args.profile))
        wait_ready(url)
        load = Load(url, key, args.users, args.seed)
        result = asyncio.run(measure(load, 60 * args.minutes, pid, args.seed))
    wrong = result["errors"] or result["mixed_up"] or not result["queue_empty"]
    return result, int(bool(wrong))
