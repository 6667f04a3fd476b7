"""What the operator does not want to be said or drawn: words in a file, or a moderation endpoint. Off by default.

    easel chat --filter words.txt
    easel chat --filter-url http://127.0.0.1:9000/v1/moderations --filter-key-env MODERATION_KEY

A line of the file is a word or a phrase, a /regular expression/, or a # comment. The endpoint speaks OpenAI's
moderation protocol: {"input": text} in, {"results": [{"flagged": …}]} out; where it cannot be asked, nothing passes.

The filter stands around the two models, so whatever leads to them is filtered: the page, the HTTP API and MCP; what
users say on its way to the dialog model, and every prompt, the model's or a user's, on its way to the generator.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol

import httpx

from app import conversation as core
from app.errors import EaselError, Filtered, FilterUnavailable
from dialog_mllm.messages import Message
from generator.request import DrawRequest

PATIENCE = 10.0  # seconds for the endpoint's answer
MESSAGE = "The rules of this server do not allow this message. Say it differently, or ask who runs the server."
PROMPT = "The rules of this server do not allow a picture of this. Ask for another one, or ask who runs the server."
UNREACHABLE = "The filter of this server cannot be asked, so nothing is answered. Retry, or tell who runs the server."

log = logging.getLogger(__name__)


class Filter(Protocol):
    def allows(self, text: str) -> bool: ...  # raises FilterUnavailable


class WordFilter:
    def __init__(self, patterns: Sequence[str]) -> None:
        """Regular expressions; case does not count."""
        self._patterns = [re.compile(pattern, re.IGNORECASE) for pattern in patterns]

    @classmethod
    def read(cls, path: Path) -> WordFilter:
        """Raises EaselError, naming the line."""
        try:
            lines = path.expanduser().read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise EaselError(f"The filter {path} cannot be read: {error}.") from error
        patterns = []
        for number, line in enumerate(map(str.strip, lines), 1):
            if line and not line.startswith("#"):
                pattern = line[1:-1] if len(line) > 2 and line[0] == line[-1] == "/" else _phrase(line)
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise EaselError(
                        f"{path}, line {number}: no regular expression ({error}). Correct or remove it."
                    ) from error
                patterns.append(pattern)
        if not patterns:
            raise EaselError(f"The filter {path} holds no words. Write one a line, or leave out --filter.")
        return cls(patterns)

    def allows(self, text: str) -> bool:
        text = " ".join(text.split())
        return not any(pattern.search(text) for pattern in self._patterns)


class ModerationFilter:
    def __init__(self, url: str, key: str = "", transport: httpx.BaseTransport | None = None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=PATIENCE, transport=transport)
        self._url = url

    def allows(self, text: str) -> bool:
        try:
            answer = self._client.post(self._url, json={"input": text}).raise_for_status().json()
            flagged = [result["flagged"] for result in answer["results"]]
            if not flagged or not all(isinstance(flag, bool) for flag in flagged):
                raise ValueError("no results")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            log.error("the filter's endpoint gave no answer: %s: %s", type(error).__name__, error)
            raise FilterUnavailable(UNREACHABLE) from error
        return not any(flagged)


def read_filters(words: Path | None, url: str, key_variable: str) -> list[Filter]:
    """As the command line says. Raises EaselError for what cannot be meant."""
    filters: list[Filter] = [WordFilter.read(words)] if words is not None else []
    if url:
        if not url.startswith(("http://", "https://")):
            raise EaselError(
                f"--filter-url takes an address such as http://127.0.0.1:9000/v1/moderations; got {url!r}."
            )
        if key_variable and not os.environ.get(key_variable):
            raise EaselError(f"The environment variable {key_variable} holds no key. Set it, or leave out the option.")
        filters.append(ModerationFilter(url, os.environ.get(key_variable, "") if key_variable else ""))
    return filters


class FilteredModels:
    """The models, behind the filters."""

    def __init__(self, models: Any, filters: Sequence[Filter]) -> None:
        self.dialog = FilteredDialog(models.dialog, filters)
        self.generator = FilteredGenerator(models.generator, filters)
        self.health: Callable[[], dict[str, str]] = models.health
        self.stop: Callable[[], None] = models.stop


class FilteredDialog:
    def __init__(self, dialog: core.Dialog, filters: Sequence[Filter]) -> None:
        self._dialog = dialog
        self._filters = filters

    async def reply(
        self, messages: Sequence[Message], mode: core.Mode = "auto", conversation: str = ""
    ) -> AsyncGenerator[Any]:
        # All that was said: a program brings the whole conversation, and may have written any part of it.
        said = "\n".join(message.text for message in messages if message.role != "assistant")
        if said.strip() and not await asyncio.to_thread(_allowed, said, self._filters):
            raise Filtered(MESSAGE)
        async with aclosing(self._dialog.reply(messages, mode, conversation)) as events:
            async for event in events:
                yield event


class FilteredGenerator:
    def __init__(self, generator: core.Generator, filters: Sequence[Filter]) -> None:
        self._generator = generator
        self._filters = filters

    def submit(self, request: DrawRequest, on_progress: Callable[[Any], None] | None = None) -> core.Job:
        if not _allowed(request.prompt, self._filters):
            raise Filtered(PROMPT)
        return self._generator.submit(request, on_progress)


def _allowed(text: str, filters: Sequence[Filter]) -> bool:
    return all(one.allows(text) for one in filters)


def _phrase(words: str) -> str:
    """Whole words, with any space between them. Chinese has none, so there it counts wherever it stands."""
    pattern = r"\s+".join(map(re.escape, words.split()))
    start, end = (r"\b" if word.isascii() and word.isalnum() else "" for word in (words[0], words[-1]))
    return f"{start}{pattern}{end}"
