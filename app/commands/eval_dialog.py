"""`easel eval dialog`: draw or talk, and the refined prompts, on dialogues of the test split.

easel eval dialog --n 600 --json            # starts vLLM with the profile's dialog model
easel eval dialog --data data --url http://127.0.0.1:8000 --key KEY --model dialog
easel eval dialog --data data --turns turns.jsonl     # each turn's verdict, for `easel data compare`
easel eval dialog --data data --report report.html    # every table, and the dialogues that went worst
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import EaselError
from app.judging import judge_prompt
from dialog_mllm.records import data_files, read_records

if TYPE_CHECKING:
    from app.profiles import Profile
    from dialog_mllm.client import DialogClient
    from dialog_mllm.evaluation import Turn

DIALOGUES = 600  # that are made and held, unless --n says otherwise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, nargs="+", help="data sets: folders or files (default: dialogues made now)"
    )
    parser.add_argument("--n", type=int, help=f"how many dialogues ({DIALOGUES}; of --data all)")
    parser.add_argument("--seed", type=int, default=1, help="of the dialogues made now")
    parser.add_argument("--concurrency", type=int, default=32, help="turns that are asked for at once (%(default)s)")
    parser.add_argument("--turns", type=Path, metavar="FILE", help="write each turn's verdict here, as JSON lines")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write an HTML page: tables and the worst dialogues"
    )
    add_model_arguments(parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which dialog model is asked."""
    parser.add_argument("--profile", default="storybook", help="whose dialog model to start (%(default)s)")
    parser.add_argument("--adapter", help="measure this adapter instead of the profile's")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--key", default="", help="its API key")
    parser.add_argument(
        "--key-env", metavar="VAR", help="environment variable that holds it: others see a command line"
    )
    parser.add_argument("--model", default="dialog", help="the model's name there (%(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from dialog_mllm.evaluation import score, turns_of, verdict

    if (args.n is not None and args.n < 1) or args.concurrency < 1:
        raise EaselError("--n and --concurrency must be at least 1.")
    for option, file in (("--turns", args.turns), ("--report", args.report)):
        if file and not file.parent.is_dir():
            raise EaselError(f"There is no folder {file.parent} for {option}: make it, or name another.")
    profile = profile_of(args)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="easel-eval-")))
        data = args.data or [_make(folder, args.n or DIALOGUES, args.seed)]
        records = list(read_records(data_files(data, "test"), args.n))
        client = start_client(args, profile, stack, folder)
        turns = ask(list(turns_of(records)), client, concurrency=args.concurrency)
        scores = score(turns, judge_prompt)
        if args.turns:
            lines = [json.dumps(verdict(turn, judge_prompt), ensure_ascii=False) + "\n" for turn in turns]
            _write(args.turns, "".join(lines))
        if args.report:
            from dialog_mllm.evaluation_report import render

            _write(args.report, render(turns, scores, judge_prompt))  # while the pictures are there
    if not args.json:
        _print_tables(scores)
    return scores


def _write(file: Path, text: str) -> None:
    """What was measured is told even where it cannot be written down."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"easel eval dialog: {file} cannot be written ({error.strerror}).", file=sys.stderr)


def _print_tables(scores: dict[str, Any]) -> None:
    """Prints the tables, and leaves the figures of the whole to print."""
    from dialog_mllm.evaluation_report import GROUP_KEYS, GROUPS

    for group, title in GROUPS.items():
        rows = scores.pop(group)
        width = max(len(title), *map(len, rows))
        print(f"{title:{width}}  turns  " + "  ".join(f"{key:>17}" for key in GROUP_KEYS))
        for name, of in rows.items():
            print(f"{name:{width}} {of['turns']:6,}  " + "  ".join(f"{_share(of, key):>17}" for key in GROUP_KEYS))
        print()
    del scores["cells"]


def _share(of: dict[str, Any], key: str) -> str:
    """ "97.5% 96.1–98.4", the share and its interval"""
    if of[key] is None:
        return ""
    low, high = of["intervals"][key]
    return f"{of[key]:.1%} {100 * low:.1f}–{100 * high:.1f}"


def profile_of(args: argparse.Namespace) -> Profile:
    from app.profiles import load_profile

    profile = load_profile(args.profile)
    return replace(profile, adapter=args.adapter, prompt_only=False) if args.adapter else profile


def start_client(args: argparse.Namespace, profile: Profile, stack: contextlib.ExitStack, logs: Path) -> DialogClient:
    """A client of the server that runs already, or of one that runs until the stack is closed."""
    from app.models import server_settings
    from dialog_mllm.client import DialogClient, Timeouts
    from dialog_mllm.evaluation import CONCURRENCY
    from dialog_mllm.server import VllmServer

    # Nobody waits, and many are asked at once, on a machine that may be busy with something else.
    patient = Timeouts(connect=60.0, first_token=900.0, between_tokens=300.0)
    if args.url:
        key = os.environ.get(args.key_env, "") if args.key_env else args.key
        return DialogClient(args.url, key or None, args.model, timeouts=patient, **profile.asking)
    # The histories of all dialogues that are under way stay in the cache, so that no turn's is computed again.
    settings = server_settings(profile, max_sequences=CONCURRENCY, kv_cache_mb=512)
    server = stack.enter_context(VllmServer(profile.dialog, profile.adapter or None, settings, logs))
    server.wait_ready()
    return DialogClient(server.base_url, server.api_key, server.model_name, timeouts=patient, **profile.asking)


def ask(
    turns: Sequence[Turn],
    client: DialogClient,
    on_answer: Callable[[Turn], None] | None = None,
    concurrency: int = 32,
) -> list[Turn]:
    """The turns with their replies; the first failure of the server is raised as itself."""
    from dialog_mllm.evaluation import ask_all

    try:
        return asyncio.run(ask_all(turns, client, concurrency, on_progress=_show, on_answer=on_answer))
    except ExceptionGroup as group:
        print(file=sys.stderr)
        raise group.exceptions[0] from group


def _make(folder: Path, n: int, seed: int) -> Path:
    from datasets_build.mix import SHARES
    from datasets_build.records import Job
    from datasets_build.records import run as build

    build(Job(folder, "test", n, seed, SHARES))
    return folder


def _show(done: int, total: int) -> None:
    print(f"\r{done} of {total} turns", end="\n" if done == total else "", file=sys.stderr, flush=True)
