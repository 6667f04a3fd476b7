"""Asks an OpenAI-compatible endpoint, within its rate limits, and again when it is not there or makes no sense.

    async with Endpoint(Settings("http://127.0.0.1:8000/v1", "my-model")) as endpoint:
        answer = await endpoint.ask({"messages": [...]}, "a name that seeds the jitter")

A wrong key, an unknown model or a refused request stops everything at once (`Stopped`): trying again would not help.
429, 5xx, time-outs, broken connections and answers that are no chat completion are tried again, later and later, a
bounded number of times. Imports no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from datasets_build.journal import Answer


class Stopped(Exception):
    """No further answer can be had; the text says why and what to do."""


class _Again(Exception):
    """This request failed in a way that may pass. `after`: when the endpoint says to come back, in seconds."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True)
class Settings:
    url: str
    model: str
    key: str | None = None
    rate: float | None = None  # requests a minute
    tries: int = 8  # requests for one answer
    backoff: float = 0.5  # seconds before the second try, doubled before each further one
    longest_wait: float = 60.0
    patience: float = 600.0  # a Retry-After beyond it stops the run
    timeout: float = 120.0
    role: str = "teacher"  # what it is for, and how the options that name it begin

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        offline = "`offline` or " if self.role == "teacher" else ""
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(
                f"the {self.role} is {offline}an address such as http://127.0.0.1:8000/v1; got {self.url!r}"
            )
        if not self.model:
            raise ValueError(f"name the endpoint's model with --{self.role}-model")
        if self.tries < 1 or self.timeout <= 0 or self.backoff < 0:
            raise ValueError("--tries must be at least 1, and --timeout above 0")
        if self.rate is not None and self.rate <= 0:
            raise ValueError("--rate must be above 0 requests a minute")

    @property
    def address(self) -> str:
        base = self.url.rstrip("/").removesuffix("/chat/completions")
        return (base if urlsplit(base).path else base + "/v1") + "/chat/completions"


class Endpoint:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.requests = 0  # that were sent
        self.waiting = ""  # why, while a request waits for its next try
        self._next = 0.0  # when the next request may be sent
        self._stop = asyncio.Event()
        self._http: httpx.AsyncClient

    async def __aenter__(self) -> Endpoint:
        headers = {"Authorization": f"Bearer {self.settings.key}"} if self.settings.key else {}
        secure = self.settings.url.startswith("https")
        # Proxies are for the world outside; a server at hand is asked directly.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._http = httpx.AsyncClient(
            headers=headers, timeout=self.settings.timeout, verify=secure, trust_env=secure, limits=limits
        )
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.aclose()

    def stop(self) -> None:
        """No further request is sent; those under way come to their end."""
        self._stop.set()

    async def ask(self, body: Mapping[str, Any], name: str) -> Answer:
        jitter = random.Random(f"easel jitter {name}")
        for tried in range(1, self.settings.tries + 1):
            await self._turn()
            try:
                answer = await self._once(body)
                self.waiting = ""
                return answer
            except _Again as error:
                if error.after is not None and error.after > self.settings.patience:
                    raise Stopped(f"the endpoint asks to come back in {error.after:.0f} s: {error}") from error
                if tried == self.settings.tries:
                    raise Stopped(f"{tried} requests for one answer failed, the last one so: {error}") from error
                self.waiting = str(error)
                if error.after is not None:
                    self._next = max(self._next, time.monotonic() + error.after)  # for everybody
                wait = min(self.settings.longest_wait, self.settings.backoff * 2 ** (tried - 1))
                await self._sleep(wait * (0.5 + jitter.random()))
        raise AssertionError("unreachable")

    async def _turn(self) -> None:
        """Waits until the rate and the endpoint's Retry-After allow a request."""
        while (wait := self._next - time.monotonic()) > 0:
            await self._sleep(wait)
        if self._stop.is_set():
            raise Stopped("it was stopped")
        if self.settings.rate is not None:
            self._next = max(self._next, time.monotonic()) + 60 / self.settings.rate

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
        if self._stop.is_set():
            raise Stopped("it was stopped")

    async def _once(self, body: Mapping[str, Any]) -> Answer:
        self.requests += 1
        try:
            # httpx's own time-outs are of silence; an answer that trickles for ever is too slow as well.
            async with asyncio.timeout(self.settings.timeout):
                response = await self._http.post(self.settings.address, json={"model": self.settings.model, **body})
        except (TimeoutError, httpx.TimeoutException) as error:
            option = " (--timeout)" if self.settings.role == "teacher" else ""
            raise _Again(f"no answer within {self.settings.timeout:g} s{option}") from error
        except httpx.InvalidURL as error:
            raise Stopped(f"{self.settings.url} is no address: {error}") from error
        except httpx.HTTPError as error:
            raise _Again(f"{self.settings.url} cannot be reached ({type(error).__name__}: {error})") from error
        if response.status_code != 200:
            return self._refusal(response)
        return _read(response)

    def _refusal(self, response: httpx.Response) -> Answer:
        status, said = response.status_code, _words_of(response)
        if status in (408, 409, 425, 429) or status >= 500:
            raise _Again(f"{status} {said}".rstrip(), _retry_after(response.headers.get("retry-after")))
        if status in (401, 403):
            given = "does not accept the key" if self.settings.key else "wants a key"
            raise Stopped(
                f"{self.settings.url} {given} ({status}): put the key into an environment variable and name that "
                f"with --{self.settings.role}-key-env. {said}".rstrip()
            )
        if status == 402:
            raise Stopped(f"the endpoint's account is used up (402): {said}")
        if status == 400 and "content" in said and ("filter" in said or "policy" in said):
            return Answer("", "content_filter")
        if status == 404:
            raise Stopped(
                f"{self.settings.address} is not there (404): is the address right, up to /v1, and is there a model "
                f"{self.settings.model!r}? {said}".rstrip()
            )
        raise Stopped(f"the endpoint refuses the request ({status}): {said or 'no reason given'}")


def _read(response: httpx.Response) -> Answer:
    try:
        answer = response.json()
        choice = answer["choices"][0]
        message, usage = choice["message"], answer.get("usage") or {}
        text, finish = message.get("content") or "", choice.get("finish_reason")
        if not isinstance(text, str):
            raise TypeError("the content is no text")
        tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        kind = response.headers.get("content-type", "nothing known")
        raise _Again(f"the answer ({kind}) is no chat completion: is the address right, up to /v1?") from error
    return Answer(text, finish, *tokens)


def _words_of(response: httpx.Response) -> str:
    """The server's own words, where it has some: HTML is not for the user."""
    try:
        answer = json.loads(response.content)
        error = answer.get("error", answer)
        return str(error.get("message", error) if isinstance(error, dict) else error)[:300]
    except (ValueError, AttributeError):
        return ""


def _retry_after(value: str | None) -> float | None:
    """Seconds, which are also given as a date."""
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None
