"""Many questions to an endpoint: each is asked again while its answers are refused, and no answer is paid for twice.

    asking = Asking(endpoint, journal, Limits(), body, read)
    with asking.stopped_by_signals():
        settled = await asking.settle_all({index: 0 for index in range(n)})   # index -> (attempt, what `read` made)

`read` raises Refused where an answer cannot be used. Every answer goes to the journal before anything else is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from datasets_build.answers import Refused
from datasets_build.endpoint import Endpoint, Settings, Stopped
from datasets_build.journal import Answer, Journal, JournalError, Key
from datasets_build.records import write_atomically

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    attempts: int = 3  # answers for one question
    give_up: int = 50  # refused answers in a row
    concurrency: int = 8

    def __post_init__(self) -> None:
        for name in ("attempts", "give_up", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1; got {getattr(self, name)}")


class Asking(Generic[T]):
    def __init__(
        self,
        endpoint: Endpoint,
        journal: Journal,
        limits: Limits,
        body: Callable[[int, int], Mapping[str, Any]],  # (index, attempt) -> the request, without the model; or Refused
        read: Callable[[int, int, Answer], T],  # (index, attempt, answer) -> what is made of it, or Refused
        progress: Callable[[int], None] = lambda done: None,  # how many of this round are settled
    ) -> None:
        self.endpoint, self.journal, self.limits = endpoint, journal, limits
        self.stopped: Exception | None = None
        self.refused: dict[Key, str] = {}  # why each answer was refused
        self.accepted = 0  # in this run
        self._body, self._read, self._progress = body, read, progress
        self._refused_in_a_row = 0

    async def settle_all(self, todo: Mapping[int, int]) -> dict[int, tuple[int, T]]:
        """`todo`: index -> the attempt to begin with. An index of which all answers were refused is left out."""
        settled: dict[int, tuple[int, T]] = {}
        queue = iter(todo.items())

        async def work() -> None:
            for index, first in queue:
                try:
                    found = await self._settle(index, first)
                except (Stopped, JournalError, OSError) as error:
                    # The others may finish what they have sent: it is paid for.
                    self.stopped = self.stopped or error
                    self.endpoint.stop()
                    return
                if found is not None:
                    settled[index] = found
                    self._progress(len(settled))

        await asyncio.gather(*(work() for _ in range(self.limits.concurrency)))
        if self.stopped is not None:
            raise self.stopped
        return settled

    async def _settle(self, index: int, first: int) -> tuple[int, T] | None:
        """The first attempt from `first` on that is accepted; None where all are refused."""
        for attempt in range(first, self.limits.attempts):
            key = (index, attempt)
            known = self.journal.answers.get(key)
            if known is None:
                try:
                    body = self._body(index, attempt)
                except Refused as error:  # there is nothing to ask
                    self.refused[key] = str(error)
                    return None
                seed = self.journal.header.get("seed", 0)
            answer = known or await self.endpoint.ask(body, f"{seed} {index} {attempt}")
            reason, made = None, None
            try:
                made = self._read(index, attempt, answer)
            except Refused as error:
                reason = self.refused[key] = str(error)
            if known is None:
                self.journal.add(key, answer, reason)
                self._count(reason)
            if reason is None:
                return attempt, made  # type: ignore[return-value]
        return None

    def _count(self, reason: str | None) -> None:
        self.accepted += reason is None
        self._refused_in_a_row = self._refused_in_a_row + 1 if reason else 0
        if self._refused_in_a_row >= self.limits.give_up:
            raise Stopped(
                f"{self._refused_in_a_row} answers in a row were refused (--give-up), most as: {self.commonest()}. "
                "Choose another model, or try --structured"
            )

    def commonest(self) -> str:
        reasons = Counter(self.refused.values())
        return reasons.most_common(1)[0][0] if reasons else "repetitions of other records"

    def kept(self) -> str:
        return f"{len(self.journal.answers):,} answers are kept: the same line takes the run up from there."

    def write_refused(self, path: Path) -> None:
        answers = self.journal.answers
        lines = (
            json.dumps({"index": i, "attempt": n, "reason": reason, "text": text}, ensure_ascii=False) + "\n"
            for (i, n), reason in sorted(self.refused.items())
            for text in (answers[i, n].text if (i, n) in answers else "",)
        )
        write_atomically(path, "".join(lines).encode("utf-8", "replace"))

    @contextlib.contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """The first Ctrl-C lets what was sent come to its end; the second does not."""
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            self.stopped = self.stopped or Stopped("it was stopped by Ctrl-C or a signal")
            self.endpoint.stop()
            loop.remove_signal_handler(number)

        handled = []
        # Elsewhere than in the main thread there are no signals to handle.
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop, number)
                handled.append(number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)


@dataclass(frozen=True)
class Wording:
    """How an endpoint is asked, beside the words."""

    temperature: float = 0.9
    max_tokens: int = 1024
    structured: bool = False

    def body(self, content: Any, name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The request, without the model. `name` seeds it; `schema` is of the answer."""
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": content}],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) >> 1,
        }
        if self.structured:
            named = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        return body


async def ask_each(
    n: int,
    settings: Settings,
    limits: Limits,
    files: Path,
    header: Mapping[str, Any],
    body: Callable[[int, int], Mapping[str, Any]],
    read: Callable[[int, int, Answer], T],
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[dict[int, tuple[int, T]], dict[str, int]]:
    """Questions 0 to n - 1, with the journal FILES.journal.jsonl and the refused answers in FILES.refused.jsonl: what
    was made of those that were answered well, and the costs. Raises Stopped; what was answered until then is kept."""
    with Journal(files.with_name(f"{files.name}.journal.jsonl"), {**header, "model": settings.model}) as journal:
        async with Endpoint(settings) as endpoint:
            asking = Asking(
                endpoint, journal, limits, body, read, lambda done: progress(f"{done:,} of {n:,} answers that serve")
            )
            with asking.stopped_by_signals():
                try:
                    settled = await asking.settle_all(dict.fromkeys(range(n), 0))
                except Stopped as error:
                    raise Stopped(f"{error}. {asking.kept()}") from error
                finally:
                    asking.write_refused(files.with_name(f"{files.name}.refused.jsonl"))
        report = {
            "answers": len(journal.answers), "refused": len(asking.refused), "tokens_in": journal.tokens_in,
            "tokens_out": journal.tokens_out,
        }  # fmt: skip
    return dict(sorted(settled.items())), report
