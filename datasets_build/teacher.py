"""The endpoint teacher: any OpenAI-compatible endpoint writes the language of D_p and D_tt.

    easel data tt --out data --n 2000 --teacher http://127.0.0.1:8000/v1 --teacher-model my-model --licence Apache-2.0

Every answer goes to the journal (`OUT/teacher/`) before anything is made of it. The split is written from the journal
alone when all is there: a run that was killed or stopped is taken up where it was by the same line, pays for nothing
twice and writes the same bytes. Answers that break a rule are refused and asked for again, with other examples; they
stand with the reasons in `OUT/teacher/*.refused.jsonl`. A larger --n takes up a finished run as well.

`--structured` sends the brief's JSON schema as `response_format`: vLLM then lets the model write nothing else. A small
model fills the white space that JSON allows; `vllm serve --structured-outputs-config '{"backend": "xgrammar",
"disable_any_whitespace": true}'` leaves none.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets_build.answers import Refused, read_answer
from datasets_build.asking import Asking, Limits, Wording
from datasets_build.briefs import Brief, Plan, brief, language_of
from datasets_build.check import violations
from datasets_build.consistency import words
from datasets_build.endpoint import Endpoint, Settings, Stopped
from datasets_build.journal import Answer, Journal, JournalError
from datasets_build.plans import TURNS
from datasets_build.records import Dialogue, to_record
from datasets_build.seeds import Pair, samples, seeds
from datasets_build.shards import explained, write_split
from datasets_build.storybook.vocabulary import LANGUAGES
from dialog_mllm.records import DataError

TASKS = ("D_p", "D_tt")
OFFLINE = "offline"
SPARE = 0.5  # of --n: so many records more are tried in the place of those that got no good answer
NO_LICENCE = "unstated"


@dataclass(frozen=True)
class Prices:
    """For a million tokens."""

    tokens_in: float = 0.0
    tokens_out: float = 0.0

    def cost(self, journal: Journal) -> float:
        return (journal.tokens_in * self.tokens_in + journal.tokens_out * self.tokens_out) / 1e6


@dataclass(frozen=True)
class TeacherJob:
    out: Path
    n: int
    plan: Plan
    pools: dict[str, tuple[Pair, ...]]  # the examples that may be shown, by language
    licence: str = NO_LICENCE
    attempts: int = 3  # answers for one record
    give_up: int = 50  # refused answers in a row
    concurrency: int = 8
    temperature: float = 0.9
    max_tokens: int = 1024
    structured: bool = False
    prices: Prices = Prices()

    def __post_init__(self) -> None:
        for name in ("n", "attempts", "give_up", "concurrency", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1; got {getattr(self, name)}")
        for language in self.plan.languages:
            if self.plan.examples and not self.pools[language]:
                raise ValueError(f"there are no examples for {language}: choose other --samples, or --examples 0")

    def brief(self, index: int, attempt: int) -> Brief:
        return brief(self.plan, index, attempt, self.pools[language_of(self.plan, index)])

    def body(self, asked: Brief, index: int, attempt: int) -> dict[str, Any]:
        """The request, without the model."""
        name = f"{self.plan.task} {self.plan.seed} {self.plan.split} {index} {attempt}"
        wording = Wording(self.temperature, self.max_tokens, self.structured)
        return wording.body(asked.text, name, asked.schema)

    def header(self, model: str) -> dict[str, Any]:
        """All that the answers depend on."""
        pool = hashlib.sha256(json.dumps({k: [p.digest for p in v] for k, v in self.pools.items()}).encode())
        return {
            "task": self.plan.task,
            "seed": self.plan.seed,
            "split": self.plan.split,
            "model": model,
            "languages": list(self.plan.languages),
            "examples": [self.plan.examples, pool.hexdigest()[:12]],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "structured": self.structured,
        }

    def path(self, kind: str) -> Path:
        return self.out / "teacher" / f"{self.plan.task}-{self.plan.split}-{self.plan.seed}.{kind}.jsonl"


class Teacher:
    """One run: asks for what the journal does not hold yet, and chooses the records."""

    def __init__(self, job: TeacherJob, endpoint: Endpoint, journal: Journal, progress: Callable[[str], None]) -> None:
        self.job, self.endpoint, self.journal = job, endpoint, journal
        limits = Limits(job.attempts, job.give_up, job.concurrency)
        self.asking = Asking(endpoint, journal, limits, self._body, self._read, self._tell)
        self._progress = progress
        self._before = 0  # records of the rounds before this one
        self._started = time.monotonic()

    async def records(self) -> list[dict[str, Any]]:
        """`n` records that all differ. They follow from the answers alone, not from the order in which those came."""
        job = self.job
        chosen: dict[int, tuple[int, dict[str, Any]]] = {}  # index -> (attempt, record)
        goal, most = job.n, job.n + max(10, int(SPARE * job.n))
        todo = {index: 0 for index in range(goal)}  # index -> the attempt to begin with
        while todo:
            self._before = len(chosen)
            settled = await self.asking.settle_all(todo)
            chosen = dict(sorted({**chosen, **settled}.items()))
            todo = {index: chosen.pop(index)[0] + 1 for index in _repetitions(chosen)}
            if not todo and len(chosen) < job.n:
                more = min(goal + job.n - len(chosen), most)
                todo = {index: 0 for index in range(goal, more)}
                goal = more
        if len(chosen) < job.n:
            raise Stopped(
                f"only {len(chosen):,} of {job.n:,} records came out of {goal:,}, each asked for up to {job.attempts} "
                f"times; most were refused as: {self.asking.commonest()}. Choose another model, more --attempts or "
                "fewer --n"
            )
        return [record for _, record in chosen.values()]

    def _body(self, index: int, attempt: int) -> dict[str, Any]:
        return self.job.body(self.job.brief(index, attempt), index, attempt)

    def _read(self, index: int, attempt: int, answer: Answer) -> dict[str, Any]:
        record = self.record(self.job.brief(index, attempt), answer, index)
        return record | {"scores": {"attempts": attempt + 1}}

    def record(self, asked: Brief, answer: Answer, index: int) -> dict[str, Any]:
        """Refused, where the answer is no record that keeps every rule."""
        dialogue: Dialogue = read_answer(asked, answer.text, answer.finish)
        plan = self.job.plan
        name = f"{plan.task}-{plan.split}-{plan.seed}-{index:07d}"
        source = self.endpoint.settings.model
        record = to_record(dialogue, name, plan.task, plan.split, 0, self.job.out, source, self.job.licence)
        if broken := violations(record):
            raise Refused(broken[0])
        return record

    def report(self) -> dict[str, Any]:
        """What all answers in the journal took, those of earlier runs included."""
        journal = self.journal
        cost = self.job.prices.cost(journal)
        return {
            "answers": len(journal.answers),
            "refused": len(self.asking.refused),
            "tokens_in": journal.tokens_in,
            "tokens_out": journal.tokens_out,
        } | ({"cost": round(cost, 6)} if cost else {})

    def _tell(self, done: int) -> None:
        spent = time.monotonic() - self._started
        done += self._before
        left = (self.job.n - done) * spent / self.asking.accepted if self.asking.accepted else 0.0
        journal, cost = self.journal, self.job.prices.cost(self.journal)
        line = f"{done:,} of {self.job.n:,} {self.job.plan.split} records, {len(journal.answers):,} answers"
        line += f", {journal.tokens_in + journal.tokens_out:,} tokens"
        line += f", cost {cost:.2f}" if cost else ""
        line += f", {_duration(left)} left" if left > 0 else ""
        self._progress(line + (f" (waiting: {self.endpoint.waiting})" if self.endpoint.waiting else ""))


def _repetitions(chosen: dict[int, tuple[int, dict[str, Any]]]) -> list[int]:
    """The indices whose records say what one with a smaller index says."""
    seen: set[tuple[str, ...]] = set()
    found = []
    for index, (_, record) in chosen.items():
        said = tuple(words(" ".join(m["content"][0]["text"] for m in record["messages"])))
        if said in seen:
            found.append(index)
        seen.add(said)
    return found


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


async def teach(
    job: TeacherJob, settings: Settings, progress: Callable[[str], None] = lambda line: None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest and the report of costs. Raises Stopped; what was answered until then is kept."""
    with Journal(job.path("journal"), job.header(settings.model)) as journal:
        async with Endpoint(settings) as endpoint:
            teacher = Teacher(job, endpoint, journal, progress)
            with teacher.asking.stopped_by_signals():
                try:
                    records = await teacher.records()
                except Stopped as error:
                    raise Stopped(f"{error}. {teacher.asking.kept()}") from error
                finally:
                    teacher.asking.write_refused(job.path("refused"))
            report = teacher.report()
        made = {"seed": job.plan.seed, "shares": {job.plan.task: 1.0}}
        said = {name: report[name] for name in ("answers", "refused", "tokens_in", "tokens_out")}
        manifest = write_split(job.out, job.plan.split, records, made, settings.model, job.licence, teacher=said)
    return manifest, report | {"requests_sent": endpoint.requests}


# ------------------------------------------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = add_endpoint_arguments(parser)
    add = group.add_argument
    add("--samples", type=Path, help="a D_p of the same split, as examples (default: the written pairs)")
    add("--examples", type=int, default=4, help="examples in each brief")
    add("--price-in", type=float, default=0.0, help="of a million tokens read, for the report")
    add("--price-out", type=float, default=0.0, help="of a million tokens written")


def add_endpoint_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Which endpoint is asked, and how."""
    group = parser.add_argument_group("teacher")
    add = group.add_argument
    add("--teacher", default=OFFLINE, help="who writes: `offline`, or an OpenAI-compatible address (…/v1)")
    add("--teacher-model", default="", help="the model's name at that address")
    add("--teacher-key-env", metavar="VAR", help="the environment variable that holds the address's key")
    add("--licence", default=NO_LICENCE, help="of what this model writes, for the records and the manifest")
    add("--structured", action="store_true", help="ask the endpoint to hold the answer to a JSON schema")
    add("--temperature", type=float, default=0.9)
    add("--max-tokens", type=int, default=1024, help="of one answer")
    add("--concurrency", type=int, default=8, help="requests at a time")
    add("--rate", type=float, help="requests a minute, at most")
    add("--attempts", type=int, default=3, help="answers that are asked for, for one record, while they are refused")
    add("--give-up", type=int, default=50, help="refused answers in a row that stop the run")
    add("--tries", type=int, default=8, help="requests for one answer, while they fail")
    add(
        "--backoff", type=float, default=0.5, help="seconds before the second of these; doubled before each further one"
    )
    add("--timeout", type=float, default=120.0, help="seconds for one answer")
    return group


def endpoint_settings(args: argparse.Namespace) -> Settings:
    """ValueError says what is wrong with the options."""
    if getattr(args, "ray", None) is not None:
        raise ValueError("--ray is for the offline teacher; an endpoint is asked faster with more --concurrency")
    if tuple(getattr(args, "turns", TURNS)) != TURNS:
        raise ValueError("--turns is for the offline teacher; the briefs of an endpoint plan the turns themselves")
    key = None
    if args.teacher_key_env is not None:
        key = os.environ.get(args.teacher_key_env, "").strip()
        if not key:
            raise ValueError(f"the environment variable {args.teacher_key_env} (--teacher-key-env) holds no key")
    return Settings(args.teacher, args.teacher_model, key, args.rate, args.tries, args.backoff, timeout=args.timeout)


def from_arguments(args: argparse.Namespace, task: str) -> tuple[TeacherJob, Settings]:
    """ValueError says what is wrong with the options."""
    settings = endpoint_settings(args)
    languages = LANGUAGES if args.language == "both" else (args.language,)
    if args.samples is not None:
        pools = samples(args.samples, args.split)
    else:
        pools = {language: seeds(language, args.split) for language in LANGUAGES}
    if args.examples < 0:
        raise ValueError(f"--examples must not be negative; got {args.examples}")
    plan = Plan(task, args.split, args.seed, tuple(languages), args.examples)
    job = TeacherJob(
        args.out, args.n, plan, pools, args.licence, args.attempts, args.give_up, args.concurrency, args.temperature,
        args.max_tokens, args.structured, Prices(args.price_in, args.price_out),
    )  # fmt: skip
    return job, settings


def run_arguments(args: argparse.Namespace, task: str) -> int:
    """What `easel data p|tt --teacher URL` does; the result is the exit status."""
    try:
        job, settings = from_arguments(args, task)
    except (ValueError, OSError, DataError) as error:
        print(f"easel data: {error}", file=sys.stderr)
        return 2
    progress = Progress()
    try:
        manifest, report = asyncio.run(teach(job, settings, progress))
    except (Stopped, JournalError, RuntimeError) as error:
        progress.end()
        print(f"easel data: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        progress.end()
        print(f"easel data: {explained(error, args.out)}", file=sys.stderr)
        return 1
    progress.end()
    entry = manifest["splits"][args.split]
    print(json.dumps({**entry, "shards": len(entry["shards"]), "teacher": report}, ensure_ascii=False))
    return 0


class Progress:
    """One line that renews itself; in a file, a line now and then."""

    def __init__(self) -> None:
        self._last = 0.0
        self._open = False

    def __call__(self, line: str) -> None:
        terminal = sys.stderr.isatty()
        now = time.monotonic()
        if now - self._last < (0.2 if terminal else 10.0):
            return
        self._last, self._open = now, terminal
        print(f"\r\033[K{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._open:
            print(file=sys.stderr)
