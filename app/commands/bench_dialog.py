"""`easel bench dialog`: how fast the dialog model answers through vLLM, alone and in a crowd.

easel bench dialog --json
easel bench dialog --data runs/tt --users 1 8 32 64

Dialogues of five turns and more are held turn by turn, as one user would hold them, each after what the model said
before: seconds to the first token, to the end of a drawn reply, and which share of each turn's prompt vLLM found in its
prefix cache. Then as many turns at once as there are users, and the tokens that are written in a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from app.commands.eval_dialog import profile_of
from app.errors import EaselError
from dialog_mllm.records import data_files, read_records

if TYPE_CHECKING:
    from dialog_mllm.client import DialogClient
    from dialog_mllm.evaluation import Turn

LONG = 5  # turns
MADE = 160  # dialogues, of which every fifth or so is long
CROWD_TURNS = 96  # asked at each number of users
COUNTERS = ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, nargs="+", help="data sets with a test split (default: dialogues made now)"
    )
    parser.add_argument("--dialogues", type=int, default=20, help="how many are held by one user (%(default)s)")
    parser.add_argument("--users", type=int, nargs="+", default=[1, 8, 32], help="at once (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the dialogues made now")
    parser.add_argument("--profile", default="storybook", help="whose dialog model (%(default)s)")
    parser.add_argument("--adapter", help="this adapter instead of the profile's")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from app.models import largest_rank, server_settings
    from dialog_mllm.adapters import takes_adapters
    from dialog_mllm.client import DialogClient
    from dialog_mllm.server import VllmServer

    if args.dialogues < 1 or min(args.users) < 1:
        raise EaselError("--dialogues and --users must be at least 1.")
    profile = profile_of(args)
    with tempfile.TemporaryDirectory(prefix="easel-bench-") as folder, contextlib.ExitStack() as stack:
        dialogues = _dialogues(args, Path(folder))
        settings = server_settings(  # as the app serves it, ready for adapters that come and go
            profile, max_sequences=max(16, *args.users), statistics=True,
            runtime_adapters=bool(profile.adapter) or takes_adapters(profile.dialog),
            max_lora_rank=largest_rank(profile.adapter, None),
        )  # fmt: skip
        server = stack.enter_context(VllmServer(profile.dialog, profile.adapter or None, settings, folder))
        server.wait_ready()
        client = DialogClient(server.base_url, server.api_key, server.model_name, **profile.asking)
        metrics = server.base_url.removesuffix("/v1") + "/metrics"
        asyncio.run(_hold(dialogues[:1], client, metrics))  # the first requests warm the server up
        return {
            **asyncio.run(_hold(dialogues[1:], client, metrics)),
            "tokens_per_second": {
                str(users): asyncio.run(_crowd(dialogues, client, users, place))
                for place, users in enumerate(args.users)
            },
        }


def _dialogues(args: argparse.Namespace, folder: Path) -> list[list[Turn]]:
    """Long dialogues, and one more than are asked for."""
    from datasets_build.records import Job
    from datasets_build.records import run as build
    from dialog_mllm.evaluation import turns_of

    if not args.data:
        build(Job(folder / "d", "test", max(MADE, 8 * args.dialogues), args.seed, {"D_tt": 1.0}))
    records = read_records(data_files(args.data or [folder / "d"], "test"))
    long = [list(turns_of([entry])) for entry in records if len(entry[0]["turns"]) >= LONG]
    if len(long) < 2:
        raise EaselError(f"--data holds no two dialogues of {LONG} turns or more: make some with `easel data tt`.")
    return long[: args.dialogues + 1]


async def _hold(dialogues: Sequence[Sequence[Turn]], client: DialogClient, metrics: str) -> dict[str, Any]:
    """One user, one turn at a time."""
    from dialog_mllm.messages import Message
    from dialog_mllm.protocol import Reply

    first: list[float] = []
    drawn: list[float] = []
    cache: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for dialogue in dialogues:
        said: dict[int, Message] = {}  # by the model, by place in the history
        for turn in dialogue:
            before = await asyncio.to_thread(_counters, metrics)
            history = [said.get(place, message) for place, message in enumerate(turn.history)]
            async for event in client.reply(history):
                if isinstance(event, Reply) and event.timings:
                    # What its prompt draws here the record's picture stands for. Where it took another way, drew or
                    # talked where the record did not, the dialogue goes on by the record's.
                    if (event.kind == "draw") == turn.draws:
                        said[len(history)] = Message.assistant(event.content, *turn.shown[:1])
                    first.append(event.timings["first_token"])
                    if event.kind == "draw":
                        drawn.append(event.timings["total"])
            after = await asyncio.to_thread(_counters, metrics)
            for place in range(2):
                cache[turn.index][place] += after[place] - before[place]
    return {
        "turns": len(first),
        "first_token": _spread(first),
        "drawn_reply": _spread(drawn),
        "prefix_hits_by_turn": {
            str(index + 1): round(hits / asked, 3) for index, (asked, hits) in sorted(cache.items()) if asked
        },
    }


async def _crowd(dialogues: Sequence[Sequence[Turn]], client: DialogClient, users: int, place: int) -> float:
    """Tokens a second that `users` are given together. Each number of users is asked other turns first, so that the
    prefix cache serves all alike."""
    from dialog_mllm.evaluation import ask_all

    turns = [turn for dialogue in dialogues for turn in dialogue]
    start = place * len(turns) // 7
    turns = [*turns[start:], *turns[:start]][:CROWD_TURNS]
    begun = time.perf_counter()
    answered = await ask_all(turns, client, users)
    tokens = sum(turn.reply.tokens for turn in answered if turn.reply)
    return round(tokens / (time.perf_counter() - begun), 1)


def _counters(address: str) -> tuple[float, float]:
    """Tokens that were looked up in the prefix cache, and found."""
    text = httpx.get(address, timeout=30, trust_env=False).text
    asked, hits = (
        sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M)) for name in COUNTERS
    )
    return asked, hits


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {}
    ordered = sorted(seconds)
    return {
        "p50": round(statistics.median(ordered), 3),
        "p95": round(ordered[int(0.95 * (len(ordered) - 1))], 3),
        "max": round(ordered[-1], 3),
    }
