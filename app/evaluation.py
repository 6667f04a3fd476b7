"""`easel eval chat`: whole dialogues through the running app's HTTP API, judged from the outside.

    easel eval chat --json                       # starts the app on a free port, with a data folder of its own
    easel eval chat --url http://127.0.0.1:7860  # or asks one that runs
    easel eval chat --judge http://127.0.0.1:8000/v1 --judge-model my-vlm   # a model with eyes looks at them as well

The dialogues are three-turn D_tt dialogues of the test split. Each turn is sent with the history that the app itself
answered. `dialogue_correct`: every turn of the dialogue is right, which is the choice between drawing and talking, the
refined prompt, and the answer to a question about the picture. `picture_correct`: all that was asked for shows in the
picture, says the inspector. `edit_success`: every change that an edit asked for shows in the new picture;
`preservation`: the share of everything else that looks as it did before. `judge_…`: what the judge sees (vlm_judge.py).
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

from app import vlm_judge
from app.errors import EaselError
from app.judging import expected_scene, judge_edit, judge_prompt
from datasets_build.endpoint import Settings, Stopped
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
    drawn: list[tuple[Image.Image, Scene]] = field(default_factory=list)  # each picture, and what it should show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="a running Easel (default: start one)")
    parser.add_argument("--key-env", metavar="VAR", help="the environment variable that holds its API key")
    parser.add_argument("--profile", default="storybook", help="of the Easel to start (%(default)s)")
    parser.add_argument("--data", type=Path, help="a data set: folder or file (default: dialogues made now)")
    parser.add_argument("--n", type=int, default=100, help="how many dialogues (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the dialogues made now")
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write what went wrong here, as JSON lines")
    group = parser.add_argument_group("judge")
    group.add_argument("--judge", metavar="URL", help="an OpenAI-compatible address (…/v1) of a model with eyes")
    group.add_argument("--judge-model", default="", metavar="NAME", help="the model's name at that address")
    group.add_argument("--judge-key-env", metavar="VAR", help="the environment variable that holds the address's key")
    group.add_argument("--price-in", type=float, default=0.0, help="of a million tokens read, for the report")
    group.add_argument("--price-out", type=float, default=0.0, help="of a million tokens written")


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    if args.n < 1 or args.concurrency < 1:
        raise EaselError("--n and --concurrency must be at least 1.")
    settings, key = judge_settings(args), None
    if args.key_env and not (key := os.environ.get(args.key_env)):
        raise EaselError(f"The environment variable {args.key_env} (--key-env) holds no key.")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="easel-eval-")))
        dialogues = read_dialogues(args.data or make_dialogues(folder / "data", args.n, args.seed), args.n)
        url = args.url or stack.enter_context(running_app(args.profile, folder / "app"))
        verdicts = asyncio.run(hold_all(url.rstrip("/"), dialogues, args.concurrency, key))
    if args.out:
        wrong = [json.dumps({"id": record["id"], "wrong": verdict.wrong}, ensure_ascii=False)
                 for (record, _), verdict in zip(dialogues, verdicts, strict=True) if verdict.wrong]  # fmt: skip
        args.out.write_text("".join(line + "\n" for line in wrong), encoding="utf-8")
    result = tally(verdicts)
    if settings is not None:
        result |= judged(verdicts, settings, (args.price_in, args.price_out))
    return result, int("judge_error" in result)


def judge_settings(args: argparse.Namespace) -> Settings | None:
    """Refuses what cannot work before an hour of dialogues is held."""
    if not args.judge:
        if args.judge_model or args.judge_key_env:
            raise EaselError("--judge names the address of the model that judges; it is missing.")
        return None
    key = os.environ.get(args.judge_key_env) if args.judge_key_env else None
    if args.judge_key_env and not key:
        raise EaselError(f"The environment variable {args.judge_key_env} (--judge-key-env) holds no key.")
    try:
        settings = Settings(args.judge, args.judge_model, key, role="judge")
        asyncio.run(vlm_judge.check(settings))
        return settings
    except (ValueError, Stopped) as error:
        raise EaselError(f"The judge cannot be asked: {error}.") from error


def judged(verdicts: list[Verdict], settings: Settings, prices: tuple[float, float]) -> dict[str, Any]:
    """The judge's figures; where it fails in the middle, why, for what the dialogues cost is not to be lost."""
    drawn = [picture for verdict in verdicts for picture in verdict.drawn]
    inspected = [right for verdict in verdicts for right in verdict.pictures]

    def show(done: int, total: int) -> None:
        print(f"\r{done} of {total} pictures judged", end="", file=sys.stderr, flush=True)

    try:
        return asyncio.run(vlm_judge.look_at_all(drawn, inspected, settings, prices, show))
    except Stopped as error:
        return {"judge_error": str(error)}
    finally:
        print(file=sys.stderr)


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
        "--database",
        "sqlite",  # whatever the settings say
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


async def hold_all(
    url: str, dialogues: list[tuple[Record, Path]], concurrency: int, key: str | None = None
) -> list[Verdict]:
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

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=300, trust_env=False) as http:
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
    if response.status_code in (401, 403):
        raise EaselError(f"Easel at {http.base_url} asks for an API key: name the variable that holds it (--key-env).")
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
    before: Answer | None = None  # the last answer with a picture, until the user brings one
    for number, (turn, answer) in enumerate(zip(record["turns"], answers, strict=True)):
        asked = record["messages"][2 * number]["content"]
        if any(block["type"] == "image" for block in asked):
            before = None
        prompts = [earlier.prompt if earlier.draw else None for earlier in answers[:number]]
        right = _turn_is_right(turn, answer, before, prompts)
        verdict.turns.append(right)
        if not right:
            said = "".join(block.get("text", "") for block in asked)
            verdict.wrong.append(f"{number}: {said} -> {answer.prompt or answer.content}")
        if answer.draw and turn["scene"] is not None:
            verdict.seconds.append(answer.seconds)
            _judge_picture(turn, answer, before, prompts, inspector, verdict)
        if answer.draw:
            before = answer
    return verdict


def _turn_is_right(turn: dict[str, Any], answer: Answer, before: Answer | None, prompts: list[str | None]) -> bool:
    if turn["scene"] is not None:
        return answer.draw and judge_prompt(turn, answer.prompt, before.prompt if before else None, prompts)
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

    if answer.picture is None:
        return
    previous = read_prompt(before.prompt) if before else None
    wanted = expected_scene(turn, before.prompt if before else None, prompts)
    (seen,) = inspector.read([answer.picture])
    verdict.drawn.append((answer.picture, wanted))
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
