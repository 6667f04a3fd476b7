"""Asks the dialog model over HTTP: OpenAI chat completions, streamed, as vLLM serves them.

    async for event in DialogClient("http://127.0.0.1:8000/v1", key, "dialog").reply([Message.user("hello")]): ...

Yields TextDelta, DrawStart and PromptDelta as they come and, last, one Reply; raises DialogError. Closing the generator
or cancelling its task closes the HTTP stream, on which vLLM stops computing. Imports neither torch nor vllm.
"""

from __future__ import annotations

import asyncio
import json
import math
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import httpx

from dialog_mllm.errors import (
    ContextTooLong,
    DialogError,
    DialogRefused,
    DialogTimeout,
    DialogUnavailable,
    ProtocolError,
    server_message,
)
from dialog_mllm.messages import MAX_IMAGES, Message, to_chat
from dialog_mllm.protocol import DRAW, DRAW_SYNONYMS, SWITCH, Event, Parser, Reply

Mode = Literal["auto", "draw", "talk"]

# Tokens that a reply shall have room for: of a conversation that leaves fewer, the oldest messages are forgotten. The
# server would cut the reply instead.
ROOM = 128
# Greedy decoding may loop; vLLM ends a reply that repeats 2 to 24 tokens this often in a row.
_REPETITION = {"min_pattern_size": 2, "max_pattern_size": 24, "min_count": 4}


@dataclass(frozen=True)
class Timeouts:
    """Seconds of silence that are too many."""

    connect: float = 5.0
    first_token: float = 120.0
    between_tokens: float = 30.0


@dataclass(frozen=True)
class DrawToken:
    """What the server's tokenizer makes of "<draw>": one special token, or the pieces of a foreign model."""

    ids: tuple[int, ...]

    @property
    def single(self) -> int | None:
        return self.ids[0] if len(self.ids) == 1 else None


class DialogClient:
    """Stateless apart from the draw token's id: one client serves all conversations, from any event loop."""

    def __init__(
        self,
        base_url: str | Callable[[], str],
        api_key: str | None = None,
        model: str = "dialog",
        *,
        timeouts: Timeouts | None = None,
        max_images: int = MAX_IMAGES,
        max_tokens: int = 256,
        retries: int = 2,
        instructions: str = "",
        squares: bool = False,
        draw_bias: float = 0.0,
    ) -> None:
        """`instructions`: what a model that was not taught the protocol is told before each conversation. `squares`:
        its processor makes squares of all pictures, see `makes_squares`. `draw_bias`: added to the draw token's logit
        where the model may choose, so that it draws from another probability on than where drawing is the likeliest
        beginning of a reply."""
        self.model = model
        self.max_images = max_images
        self.max_tokens = max_tokens
        self._base_url = base_url if callable(base_url) else lambda: base_url
        self._api_key = api_key
        self._timeouts = timeouts or Timeouts()
        self._retries = retries
        self._instructions = instructions
        self._squares = squares
        self._draw_bias = draw_bias
        self._draw: DrawToken | None = None
        self._context: int | None = None  # tokens that the model can read and write in all, as its tokenizer says

    async def reply(
        self,
        messages: Sequence[Message],
        mode: Mode = "auto",
        *,
        temperature: float = 0.0,
        seed: int | None = None,
        model: str | None = None,
    ) -> AsyncGenerator[Event | Reply]:
        """One reply to the conversation, by `model` where it is not the client's own: another adapter of it. What does
        not fit the context is forgotten, oldest pair of messages first."""
        draw = await self.draw_token()
        dropped, step = 0, 2
        while True:
            body = await self._body(_forget(messages, dropped), mode, draw, temperature, seed)
            body["model"] = model or self.model
            most = _droppable(messages)
            try:
                async with aclosing(self._attempts(body, mode, draw, dropped < most)) as events:
                    async for event in events:
                        yield replace(event, forgotten=dropped) if isinstance(event, Reply) else event
                return
            except ContextTooLong:  # said before the first token: nothing has been shown
                if dropped >= most:
                    raise
                dropped, step = min(dropped + step, most), step * 2

    async def draw_token(self) -> DrawToken:
        """Asks the tokenizer once. A server without /tokenize is taken to know no such token."""
        if self._draw is None:
            answer = await self._post("/tokenize", {"model": self.model, "prompt": DRAW, "add_special_tokens": False})
            tokens = answer.get("tokens") if answer is not None else []
            if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
                raise DialogUnavailable(f"The dialog model's tokenizer at {self._url()} answers nonsense.")
            context = (answer or {}).get("max_model_len")
            self._draw, self._context = DrawToken(tuple(tokens)), context if isinstance(context, int) else None
        return self._draw

    async def check_protocol(self) -> DrawToken:
        """Makes the model say "<draw>" and raises ProtocolError if that does not arrive as such."""
        draw = await self.draw_token()
        if draw.single is None:
            return draw  # plain text to this model: nothing strips it
        body = await self._body([Message.user("draw")], "auto", draw, 0.0, None)
        del body["stream_options"]  # which vLLM refuses beside no stream
        answer = await self._post(
            "/v1/chat/completions", body | {"stream": False, "max_tokens": 1, "logit_bias": {str(draw.single): 100}}
        )
        try:
            said = answer["choices"][0]["message"]["content"] if answer is not None else None
        except (KeyError, IndexError, TypeError) as error:
            raise DialogUnavailable(f"{self._url()} does not answer like a dialog model.") from error
        if (said or "").strip() != DRAW:
            raise ProtocolError(
                f"The draw token does not survive serving: the model was made to say {DRAW} and {said!r} arrived. "
                "Serve the model with vLLM, and without a parser that strips special tokens."
            )
        return draw

    async def _body(
        self, messages: Sequence[Message], mode: Mode, draw: DrawToken, temperature: float, seed: int | None
    ) -> dict[str, Any]:
        # In a thread, for it decodes and encodes pictures.
        chat = await asyncio.to_thread(to_chat, messages, self.max_images, self._squares)
        if self._instructions:
            chat = _instructed(chat, self._instructions)
        body: dict[str, Any] = {
            "model": self.model,
            "messages": chat,
            "temperature": temperature,
            "max_tokens": self.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            "skip_special_tokens": False,  # vLLM's default would strip the protocol
            "spaces_between_special_tokens": False,
            "repetition_detection": _REPETITION,
        }
        if seed is not None:
            body["seed"] = seed
        if draw.single is not None:
            body |= {"logprobs": True, "logprob_token_ids": [draw.single]}
        if mode == "draw":
            chat.append({"role": "assistant", "content": DRAW})
            body |= {"continue_final_message": True, "add_generation_prompt": False, "min_tokens": 1}
        elif mode == "talk" and draw.single is not None:
            body["logit_bias"] = {str(draw.single): -100}
        elif mode == "auto" and self._draw_bias and draw.single is not None:
            body["logit_bias"] = {str(draw.single): self._draw_bias}
        elif mode == "talk":
            body["bad_words"] = [DRAW, *DRAW_SYNONYMS]
        return body

    async def _attempts(
        self, body: dict[str, Any], mode: Mode, draw: DrawToken, roomy: bool
    ) -> AsyncGenerator[Event | Reply]:
        """Tries again while nothing has been shown and the server was not there. `roomy`: ContextTooLong is raised also
        where little room is left for the reply."""
        for attempt in range(self._retries + 1):
            shown = False
            try:
                async with aclosing(self._stream(body, mode, draw, roomy)) as events:
                    async for event in events:
                        shown = True
                        yield event
                return
            except DialogUnavailable:
                if shown or attempt == self._retries:
                    raise
                await asyncio.sleep(0.3 * 3**attempt)

    async def _stream(
        self, body: dict[str, Any], mode: Mode, draw: DrawToken, roomy: bool
    ) -> AsyncGenerator[Event | Reply]:
        parser = Parser(may_draw=mode != "talk")
        decision = _Decision(draw.single if mode != "draw" else None, self._draw_bias if mode == "auto" else 0.0)
        started = time.monotonic()
        tokens = 0
        first_token: float | None = None
        finish: str | None = None
        begun = False
        async with self._open("/v1/chat/completions", body) as response:
            lines = response.aiter_lines()
            while True:
                limit = self._timeouts.first_token if first_token is None else self._timeouts.between_tokens
                line = await self._next_line(lines, limit, first=first_token is None)
                if line is None or line == "data: [DONE]":
                    break
                chunk = _read_chunk(line)
                if not begun and chunk != _Chunk():
                    left = self._context - chunk.read if self._context and chunk.read else ROOM
                    if roomy and left < min(ROOM, self.max_tokens):
                        raise ContextTooLong(TOO_LONG)
                    begun = True
                    for event in parser.feed(DRAW if mode == "draw" else ""):
                        yield event
                decision.see(chunk.positions)
                tokens += len(chunk.positions)
                finish = chunk.finish or finish
                if chunk.text and first_token is None:
                    first_token = time.monotonic() - started
                for event in parser.feed(chunk.text):
                    yield event
        if finish is None:
            raise DialogUnavailable("The dialog model's server stopped in mid-reply. Retry.")
        events, reply = parser.finish()
        for event in events:
            yield event
        total = time.monotonic() - started
        yield replace(
            reply,
            draw_probability=decision.probability,
            truncated=finish == "length",
            tokens=tokens,
            timings={"first_token": total if first_token is None else first_token, "total": total},
        )

    async def _next_line(self, lines: AsyncIterator[str], limit: float, first: bool) -> str | None:
        try:
            async with asyncio.timeout(limit):
                return await anext(lines, None)
        except TimeoutError as error:
            what = "did not begin to answer within" if first else "fell silent in mid-reply for"
            raise DialogTimeout(f"The dialog model {what} {limit:g} s. Retry, perhaps when it is less busy.") from error
        except httpx.HTTPError as error:
            raise DialogUnavailable("The connection to the dialog model broke in mid-reply. Retry.") from error

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The JSON answer; None where the server has no such path."""
        try:
            async with self._open(path, body, kind="application/json") as response, asyncio.timeout(60):
                answer = json.loads(await response.aread())
        except _NoSuchPath:
            return None
        except TimeoutError as error:
            raise DialogTimeout(f"{self._url()} did not answer within 60 s.") from error
        except (httpx.HTTPError, ValueError) as error:
            raise DialogUnavailable(f"{self._url()} does not answer like a dialog model.") from error
        if not isinstance(answer, dict):
            raise DialogUnavailable(f"{self._url()} does not answer like a dialog model.")
        return answer

    @asynccontextmanager
    async def _open(
        self, path: str, body: dict[str, Any], kind: str = "text/event-stream"
    ) -> AsyncIterator[httpx.Response]:
        """The open response, its status and type checked."""
        base = self._url().removesuffix("/v1")
        secure = base.startswith("https")
        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        # A client per request: cheap over plain HTTP, and no pool that belongs to another event loop. Proxies are
        # for the world outside; a local server is always asked directly.
        async with httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(None, connect=self._timeouts.connect),
            verify=self._ssl if secure else False,
            trust_env=secure,
        ) as http:
            try:
                request = http.build_request("POST", base + path, json=body)
                async with asyncio.timeout(self._timeouts.first_token):
                    response = await http.send(request, stream=True)
            except (httpx.ConnectTimeout, TimeoutError) as error:
                raise DialogTimeout(f"The dialog model at {base} does not answer. Is it too busy, or down?") from error
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise DialogUnavailable(f"The dialog model cannot be reached at {base}. Is it running?") from error
            try:
                if response.status_code != 200:
                    raise await _refusal(response, base, str(body["model"]))
                if not response.headers.get("content-type", "").startswith(kind):
                    raise DialogUnavailable(f"{base} does not answer like a dialog model. Is the address right?")
                yield response
            finally:
                await response.aclose()

    def _url(self) -> str:
        return self._base_url().rstrip("/")

    @cached_property
    def _ssl(self) -> ssl.SSLContext:
        return ssl.create_default_context()


class _NoSuchPath(DialogRefused):
    pass


class _Decision:
    """P(<draw>), with its bias, at the first position where the model decides: behind `<switch>` and white space, if
    there are any."""

    def __init__(self, draw_id: int | None, bias: float = 0.0) -> None:
        self.probability: float | None = None
        self._open = draw_id is not None
        self._bias = bias

    def see(self, positions: list[dict[str, float]]) -> None:
        for logprobs in positions:
            sampled = next(iter(logprobs), "")
            if not self._open or sampled == SWITCH or sampled.isspace():
                continue
            self._open = False
            if DRAW in logprobs:
                p = min(1.0, math.exp(logprobs[DRAW]))  # the server tells it without the bias
                self.probability = p / (p + (1 - p) * math.exp(-self._bias))


TOO_LONG = "The message is too long for the dialog model. Shorten it, or start a new conversation."


@dataclass(frozen=True)
class _Chunk:
    text: str = ""
    read: int | None = None  # tokens of the prompt
    finish: str | None = None
    positions: list[dict[str, float]] = field(default_factory=list)  # token -> log-probability, the sampled one first


def _read_chunk(line: str) -> _Chunk:
    """One line of the event stream. Comments, empty lines and the usage at the end are empty chunks."""
    if not line.startswith("data:"):
        return _Chunk()
    try:
        chunk = json.loads(line[5:])
        if "error" in chunk:
            message = str((chunk["error"] or {}).get("message", ""))[:300]
            raise DialogUnavailable(f"The dialog model's server failed in mid-reply: {message or 'no reason given'}")
        read = (chunk.get("usage") or {}).get("prompt_tokens")
        if not chunk["choices"]:
            return _Chunk(read=read)
        choice = chunk["choices"][0]
        text = (choice.get("delta") or {}).get("content") or ""
        positions = [
            {str(one["token"]): float(one["logprob"]) for one in (position, *(position.get("top_logprobs") or ()))}
            for position in (choice.get("logprobs") or {}).get("content") or ()
        ]
        if not isinstance(text, str):
            raise TypeError("content is not text")
        return _Chunk(text, read, choice.get("finish_reason"), positions)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise DialogUnavailable("The dialog model's server sends a malformed stream. Is it vLLM?") from error


async def _refusal(response: httpx.Response, base: str, model: str) -> DialogError:
    """The error for an answer that is not 200, with the server's own words where it has some."""
    status = response.status_code
    try:
        async with asyncio.timeout(10):
            text = (await response.aread()).decode("utf-8", "replace")
    except (httpx.HTTPError, TimeoutError):
        text = ""
    message = server_message(text)
    if status in (401, 403):
        return DialogRefused(f"The dialog model at {base} does not accept the API key.")
    if status == 404:
        if "does not exist" in message:
            return DialogRefused(f"The server at {base} has no model {model!r}: {message}")
        return _NoSuchPath(f"The server at {base} is no vLLM server (404). Is the address right?")
    # The last is what vLLM says where nothing is left for the reply.
    if status == 400 and any(
        said in message for said in ("context length", "max_model_len", "max_tokens must be at least 1")
    ):
        return ContextTooLong(TOO_LONG)
    if status >= 500 or status == 429:
        return DialogUnavailable(f"The dialog model's server cannot answer now ({status}). {message}".rstrip())
    return DialogRefused(f"The dialog model's server refused the request ({status}): {message or 'no reason given'}")


def _instructed(chat: list[dict[str, Any]], instructions: str) -> list[dict[str, Any]]:
    """The instructions in front; a chat template takes one system message, so that of the conversation joins it."""
    if chat[0]["role"] == "system":
        instructions, chat = f"{instructions}\n\n{chat[0]['content']}", chat[1:]
    return [{"role": "system", "content": instructions}, *chat]


def _droppable(messages: Sequence[Message]) -> int:
    """How many messages may go so that the conversation still ends with the same user message."""
    return max(0, len(messages) - _system(messages) - 1)


def _forget(messages: Sequence[Message], count: int) -> list[Message]:
    keep = _system(messages)
    return [*messages[:keep], *messages[keep + count :]]


def _system(messages: Sequence[Message]) -> int:
    return int(bool(messages) and messages[0].role == "system")
