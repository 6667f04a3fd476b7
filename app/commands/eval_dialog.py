"""`easel eval dialog`: draw or talk, and the refined prompts, on dialogues of the test split.

easel eval dialog --n 600 --json            # starts vLLM with the profile's dialog model
easel eval dialog --data data --url http://127.0.0.1:8000 --key KEY --model dialog
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.errors import EaselError
from app.judging import judge_prompt
from dialog_mllm.records import data_files, read_records


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, nargs="+", help="data sets: folders or files (default: dialogues made now)"
    )
    parser.add_argument("--n", type=int, default=600, help="how many dialogues (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the dialogues made now")
    parser.add_argument("--profile", default="storybook", help="whose dialog model to start (%(default)s)")
    parser.add_argument("--adapter", help="measure this adapter instead of the profile's")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--key", default="", help="its API key")
    parser.add_argument("--model", default="dialog", help="the model's name there (%(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from app.profiles import load_profile
    from dialog_mllm.client import DialogClient
    from dialog_mllm.evaluation import evaluate
    from dialog_mllm.server import ServerSettings, VllmServer

    if args.n < 1:
        raise EaselError("--n must be at least 1.")
    profile = load_profile(args.profile)
    if args.adapter:
        profile = replace(profile, adapter=args.adapter)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="easel-eval-")))
        records = list(read_records(data_files(args.data or [_make(folder, args.n, args.seed)], "test"), args.n))
        if args.url:
            client = DialogClient(args.url, args.key or None, args.model, max_images=profile.max_images)
        else:
            settings = ServerSettings(
                max_images=profile.max_images, max_model_len=profile.max_model_len, max_sequences=32
            )
            server = stack.enter_context(VllmServer(profile.dialog, profile.adapter or None, settings, folder))
            server.wait_ready()
            client = DialogClient(server.base_url, server.api_key, server.model_name, max_images=profile.max_images)
        return evaluate(records, client, judge_prompt, on_progress=_show)


def _make(folder: Path, n: int, seed: int) -> Path:
    from datasets_build.mix import SHARES
    from datasets_build.records import Job
    from datasets_build.records import run as build

    build(Job(folder, "test", n, seed, SHARES))
    return folder


def _show(done: int, total: int) -> None:
    print(f"\r{done} of {total} turns", end="\n" if done == total else "", file=sys.stderr, flush=True)
