"""`easel eval chat`: whole dialogues through the running app's HTTP API, judged from the outside.

    easel eval chat --json                       # starts the app on a free port, with a data folder of its own
    easel eval chat --url http://127.0.0.1:7860  # or asks one that runs

The dialogues are three-turn D_tt dialogues of the test split. Each turn is sent with the history that the app itself
answered. `dialogue_correct`: every turn of the dialogue is right, which is the choice between drawing and talking, the
refined prompt, and the answer to a question about the picture. `picture_correct`: all that was asked for shows in the
picture, says the inspector. `edit_success`: every change that an edit asked for shows in the new picture;
`preservation`: the share of everything else that looks as it did before.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from app.errors import EaselError
from app.judging import expected_scene, judge_edit, judge_prompt
from datasets_build.storybook.reading import read_prompt
from datasets_build.storybook.scene import Scene
from dialog_mllm.evaluation import mentions

TURNS = 3
Record = dict[str, Any]


@dataclass
class Answer:
    """What the app made of one turn."""

    content: str
    draw: bool
    prompt: str
    picture: Image.Image | None
    seconds: float


@dataclass
class Verdict:
    """What was right in one dialogue."""

    turns: list[bool] = field(default_factory=list)
    edits: list[tuple[bool, float]] = field(default_factory=list)
    pictures: list[bool] = field(default_factory=list)  # whether all that was asked shows
    seconds: list[float] = field(default_factory=list)  # of drawn turns
    wrong: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="a running Easel (default: start one)")
    parser.add_argument("--profile", default="storybook", help="of the Easel to start (%(default)s)")
    parser.add_argument("--data", type=Path, help="a data set: folder or file (default: dialogues made now)")
    parser.add_argument("--n", type=int, default=100, help="how many dialogues (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the dialogues made now")
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write what went wrong here, as JSON lines")


def run(args: argparse.Namespace) -> dict[str, Any]:
    if args.n < 1 or args.concurrency < 1:
        raise EaselError("--n and --concurrency must be at least 1.")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="easel-eval-")))
        dialogues = read_dialogues(args.data or make_dialogues(folder / "data", args.n, args.seed), args.n)
        url = args.url or stack.enter_context(running_app(args.profile, folder / "app"))
        verdicts = asyncio.run(hold_all(url.rstrip("/"), dialogues, args.concurrency))
    if args.out:
        wrong = [json.dumps({"id": record["id"], "wrong": verdict.wrong}, ensure_ascii=False)
                 for (record, _), verdict in zip(dialogues, verdicts, strict=True) if verdict.wrong]  # fmt: skip
        args.out.write_text("".join(line + "\n" for line in wrong), encoding="utf-8")
    return tally(verdicts)


def tally(verdicts: list[Verdict]) -> dict[str, Any]:
    edits = [edit for verdict in verdicts for edit in verdict.edits]
    turns = [right for verdict in verdicts for right in verdict.turns]
    return {
        "n": len(verdicts),
        "dialogue_correct": _share([all(verdict.turns) for verdict in verdicts]),
        "edit_success": _share([success for success, _ in edits]),
        "preservation": _share([kept for _, kept in edits]),
        "turn_correct": _share(turns),
        "picture_correct": _share([right for verdict in verdicts for right in verdict.pictures]),
        "edits": len(edits),
        "seconds_per_drawn_turn": _share([seconds for verdict in verdicts for seconds in verdict.seconds]),
    }


def read_dialogues(data: Path, n: int) -> list[tuple[Record, Path]]:
    from dialog_mllm.records import data_files, read_records

    fitting = ((record, root) for record, root in read_records(data_files([data], "test")) if _fits(record))
    found = list(islice(fitting, n))
    if len(found) < n:
        raise EaselError(
            f"{data} holds {len(found)} three-turn D_tt dialogues; {n} were asked for. Make more, or lower --n."
        )
    return found


def make_dialogues(folder: Path, n: int, seed: int) -> Path:
    """Of the test split, both languages. Of the dialogues of all lengths more than half have three turns."""
    from datasets_build.records import Job
    from datasets_build.records import run as build

    build(Job(folder, "test", 2 * n + 20, seed, {"D_tt": 1.0}))
    return folder


@contextlib.contextmanager
def running_app(profile: str, data_dir: Path, patience: float = 600.0) -> Iterator[str]:
    """An Easel of our own, ready, on a free port; gone afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "app.cli",
        "chat",
        "--port",
        str(port),
        "--data-dir",
        str(data_dir),
        "--profile",
        profile,
    ]
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "easel.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_ready(url, process, data_dir / "easel.log", patience)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    health: dict[str, str] = {}
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EaselError(f"Easel did not start:\n{log.read_text(errors='replace')[-2000:]}")
        with contextlib.suppress(httpx.HTTPError, ValueError):
            health = httpx.get(f"{url}/health", timeout=10, trust_env=False).json()
            if health["status"] == "ready":
                return
            if health["status"] == "failed":
                raise EaselError(f"Easel could not start a model: {health.get('error')}")
        time.sleep(0.5)
    raise EaselError(f"Easel was not ready after {patience:.0f} s: {health or 'no answer'}")


async def hold_all(url: str, dialogues: list[tuple[Record, Path]], concurrency: int) -> list[Verdict]:
    from generator.inspector import Inspector

    inspector = Inspector.load()
    slots = asyncio.Semaphore(concurrency)
    done = 0

    async def hold(record: Record, root: Path) -> Verdict:
        nonlocal done
        async with slots:
            answers = await hold_dialogue(http, record, root)
        verdict = await asyncio.to_thread(judge, record, answers, inspector)
        done += 1
        print(f"\r{done} of {len(dialogues)} dialogues", end="", file=sys.stderr, flush=True)
        return verdict

    async with httpx.AsyncClient(base_url=url, timeout=300, trust_env=False) as http:
        verdicts = await asyncio.gather(*(hold(record, root) for record, root in dialogues))
    print(file=sys.stderr)
    return verdicts


async def hold_dialogue(http: httpx.AsyncClient, record: Record, root: Path) -> list[Answer]:
    """The record's user messages, each after what the app itself answered to those before."""
    history: list[dict[str, Any]] = []
    answers: list[Answer] = []
    for message in record["messages"][::2]:
        history.append({"role": "user", "content": _parts(record, message, root)})
        started = time.perf_counter()
        answer = await _ask(http, history)
        answer.seconds = time.perf_counter() - started
        answers.append(answer)
        history.append({"role": "assistant", "content": answer.content})
    return answers


async def _ask(http: httpx.AsyncClient, history: list[dict[str, Any]]) -> Answer:
    try:
        response = await http.post("/v1/chat/completions", json={"model": "easel", "messages": history})
        body = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise EaselError(f"Easel at {http.base_url} does not answer: {error!r}. Is it running?") from error
    if response.status_code != 200:
        # A turn that fails is a turn that is wrong, and the dialogue goes on as it can.
        return Answer(f"({body.get('error', {}).get('message', response.status_code)})", False, "", None, 0.0)
    message, easel = body["choices"][0]["message"], body["easel"]
    picture = None
    if easel["draw"]:
        data = message["images"][0]["image_url"]["url"].partition(",")[2]
        picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    return Answer(message["content"], easel["draw"], easel["prompt"] or "", picture, 0.0)


def judge(record: Record, answers: list[Answer], inspector: Any) -> Verdict:
    verdict = Verdict()
    before: Answer | None = None  # the last answer with a picture
    for number, (turn, answer) in enumerate(zip(record["turns"], answers, strict=True)):
        prompts = [earlier.prompt if earlier.draw else None for earlier in answers[:number]]
        right = _turn_is_right(turn, answer, prompts)
        verdict.turns.append(right)
        if not right:
            said = "".join(block.get("text", "") for block in record["messages"][2 * number]["content"])
            verdict.wrong.append(f"{number}: {said} -> {answer.prompt or answer.content}")
        if answer.draw and turn["scene"] is not None:
            verdict.seconds.append(answer.seconds)
            _judge_picture(turn, answer, before, prompts, inspector, verdict)
        if answer.draw:
            before = answer
    return verdict


def _latest(prompts: list[str | None]) -> str | None:
    return next((prompt for prompt in reversed(prompts) if prompt is not None), None)


def _turn_is_right(turn: dict[str, Any], answer: Answer, prompts: list[str | None]) -> bool:
    if turn["scene"] is not None:
        return answer.draw and judge_prompt(turn, answer.prompt, _latest(prompts), prompts)
    if answer.draw or not answer.content.strip():
        return False
    request = turn["request"] or {}
    return request.get("op") != "answer" or any(mentions(answer.content, accepted) for accepted in request["accept"])


def _judge_picture(
    turn: dict[str, Any],
    answer: Answer,
    before: Answer | None,
    prompts: list[str | None],
    inspector: Any,
    verdict: Verdict,
) -> None:
    from generator.evaluation import compare

    previous = read_prompt(before.prompt) if before else None
    wanted = expected_scene(turn, _latest(prompts), prompts)
    (seen,) = inspector.read([answer.picture])
    verdict.pictures.append(all(all(values) for values in compare(wanted.to_json(), seen).values()))
    # Only of our own picture can be said what an edit kept: an uploaded one has no seed and no prompt.
    # Nor is what was kept to be seen beside a picture that the turn does not build on.
    on_latest = turn["request"]["op"] == "edit" and "base_turn" not in turn["request"]
    if on_latest and before is not None and isinstance(previous, Scene) and previous != wanted:
        (seen_before,) = inspector.read([before.picture])
        verdict.edits.append(judge_edit(previous, wanted, seen_before, seen))


def _fits(record: Record) -> bool:
    return record["task"] == "D_tt" and len(record["turns"]) == TURNS


def _parts(record: Record, message: dict[str, Any], root: Path) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for block in message["content"]:
        if block["type"] == "text":
            parts.append({"type": "text", "text": block["text"]})
            continue
        try:
            data = base64.b64encode((root / block["path"]).read_bytes()).decode("ascii")
        except OSError as error:
            raise EaselError(
                f"Record {record['id']}: its picture {block['path']} cannot be read ({error.strerror}). "
                "Run the command that made the data again."
            ) from error
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
    return parts


def _share(values: list[Any]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None
