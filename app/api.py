"""The HTTP API: chat completions and image generations as OpenAI's clients speak them, and how Easel is.

    curl http://127.0.0.1:7860/v1/chat/completions -H 'Content-Type: application/json' \\
         -d '{"model": "easel", "messages": [{"role": "user", "content": "draw a red fox in the snow"}]}'

Chat completions keep no conversation: the request brings all of it. A drawn picture stands in the reply as a Markdown
image with this server's address, and is recognised by that address when the client sends it back.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request, Security
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from app import conversation as core
from app import openai_format as fmt
from app.caller import PROGRAM, Caller, caller_of
from app.errors import EaselError, InputRefused, NotFound
from app.metrics import Metered, Metrics
from app.models import READY, Models
from app.profiles import Profile, parse_size
from app.quotas import Quotas
from app.reference import ChatCompletion, Health, Images, ModelEntry, ModelList, add_reference, replies
from app.refusals import add_refusals, error_body
from app.store import Store, new_seed
from generator.metadata import picture_texts
from generator.request import DrawRequest

MOST_PICTURES = 4  # in one request for images
CLIENT_GONE = 499  # the status that proxies log for it; nobody is there to read it
ANY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
LISTEN_EVERY = 0.2  # seconds between two looks whether the client is still there
T = TypeVar("T")


def add_api(
    app: FastAPI,
    profile: Profile,
    store: Store,
    models: Models | Metered,
    metrics: Metrics | None = None,
    quotas: Quotas | None = None,
) -> Api:
    """The routes, and errors in OpenAI's shape."""
    api = Api(profile, store, models, metrics or Metrics(), quotas)
    app.include_router(api.router)
    add_reference(app)
    add_refusals(app)
    return api


async def while_listening(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client hangs up: nobody would see what it makes."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=LISTEN_EVERY))[0]:
            if await request.is_disconnected():
                raise HTTPException(CLIENT_GONE, "The client hung up.")
        return task.result()
    finally:
        task.cancel()


class Api:
    def __init__(
        self, profile: Profile, store: Store, models: Models | Metered, metrics: Metrics, quotas: Quotas | None = None
    ) -> None:
        self.profile = profile
        self.store = store
        self.models = models
        self.metrics = metrics
        self.quotas = quotas
        self.router = router = APIRouter()
        # The guard asks for the key; here it is only told to those who read /openapi.json.
        what = "A user's key, or that of --api-key-env, where there are any"
        key = [Security(HTTPBearer(auto_error=False, description=what))]

        def add(path: str, answer: Callable[..., Any], replies: Any, method: str = "GET", open: bool = False) -> None:
            router.add_api_route(
                path, answer, methods=[method], response_model=None, responses=replies, dependencies=[] if open else key
            )

        png = {"schema": {"type": "string", "format": "binary"}}
        text = {"schema": {"type": "string"}}
        add("/health", self.health, replies(Health), open=True)
        add("/ready", self.ready, {**replies(Health), 503: {"model": Health, "description": "Not yet"}}, open=True)
        add("/metrics", self.measured, replies(text_plain=text))
        add("/v1/models", self.list_models, replies(ModelList))
        add("/v1/models/{model:path}", self.get_model, replies(ModelEntry))
        add("/v1/pictures/{picture}.png", self.picture, replies(image_png=png), open=True)
        add("/v1/chat/completions", self.chat, replies(ChatCompletion, text_event__stream=text), "POST")
        add("/v1/images/generations", self.images, replies(Images), "POST")
        router.add_api_route("/v1/{path:path}", self.nothing, methods=ANY_METHOD, include_in_schema=False)

    async def health(self) -> dict[str, str]:
        """How the models are. Answers as soon as the server runs."""
        return {**self.models.health(), "profile": self.profile.name}

    async def ready(self) -> JSONResponse:
        """For load balancers: 200 once both models run, and 503 before and when one has failed."""
        health = await self.health()
        return JSONResponse(health, 200 if health["status"] == READY else 503)

    async def measured(self) -> Response:
        """Counters and times in Prometheus' text format."""
        return self.metrics.response()

    async def list_models(self) -> dict[str, Any]:
        """The names that requests may give as their model; they may also give none."""
        return {"object": "list", "data": [_model(name) for name in self._names()]}

    async def get_model(self, model: str) -> dict[str, Any]:
        """One of them."""
        self._check_model(model)
        return _model(model)

    async def picture(self, picture: str, request: Request) -> FileResponse:
        """A picture. Needs no key where nobody signs in: its address cannot be guessed, and browsers have none to send.
        Else the user's key, or their browser's session."""
        path = self.store.picture_path(picture, caller_of(request.scope).viewer)
        # Named by its content: whoever has it need never ask again.
        headers = {"Cache-Control": "private, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
        return FileResponse(path, media_type="image/png", headers=headers)

    async def nothing(self, request: Request) -> None:
        raise NotFound(f"There is no {request.method} {request.url.path} here. What there is stands in /docs.")

    async def chat(self, request: Request, body: fmt.ChatRequest) -> JSONResponse | StreamingResponse:
        """The next reply, in words or drawn; with stream, as server-sent events. The request brings the whole
        conversation. A picture stands in the reply's text as a Markdown image, which is recognised when it comes back.
        """
        self._check_model(body.model)
        if body.n not in (None, 1):
            raise InputRefused("One reply per request: leave n out, or set it to 1.")
        caller, address = caller_of(request.scope), str(request.base_url).rstrip("/")
        reply = await self.reply(body, address, caller)
        if body.stream:
            return StreamingResponse(
                reply.stream(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
            )
        return JSONResponse(await while_listening(request, reply.whole()))

    async def reply(self, body: fmt.ChatRequest, address: str, caller: Caller) -> ChatReply:
        """A reply that has begun: what is refused is refused before a stream begins."""
        if self.quotas is not None:
            await self.quotas.admit(caller.owner)  # before any of the pictures is kept
        try:
            reply = await asyncio.to_thread(ChatReply, self, body, address, caller)  # decodes pictures
        except InputRefused:
            self.metrics.turns.labels("api", "refused").inc()  # as a turn that begins and is refused
            raise
        await reply.begin()
        return reply

    async def images(self, request: Request, body: fmt.ImagesRequest) -> JSONResponse:
        """The prompt is drawn as it is; several pictures take seeds in a row."""
        self._check_model(body.model)
        if body.response_format not in ("url", "b64_json"):
            raise InputRefused(f"response_format must be url or b64_json; got {body.response_format!r}.")
        data = []
        async for draw, picture in self.draw(body, request, caller_of(request.scope)):
            item: dict[str, Any] = {"revised_prompt": draw.prompt, "seed": draw.seed}
            if body.response_format == "b64_json":
                item["b64_json"] = base64.b64encode(self.store.picture_path(picture).read_bytes()).decode("ascii")
            else:
                item["url"] = f"{str(request.base_url).rstrip('/')}/v1/pictures/{picture}.png"
            data.append(item)
        return JSONResponse({"created": int(time.time()), "data": data})

    async def draw(
        self, body: fmt.ImagesRequest, request: Request | None = None, caller: Caller = PROGRAM
    ) -> AsyncGenerator[tuple[DrawRequest, str]]:
        """Each drawing as it was asked of the generator, and its picture; none for a client that has hung up."""
        if not 1 <= body.n <= MOST_PICTURES:
            raise InputRefused(f"n must be from 1 to {MOST_PICTURES}; got {body.n}.")
        core.check_unicode(body.prompt + body.negative_prompt, "The prompt")
        changes: dict[str, Any] = {} if body.size in (None, "auto") else parse_size(str(body.size))
        changes |= {
            key: value for key, value in (("steps", body.steps), ("guidance", body.guidance)) if value is not None
        }
        settings = self.profile.read_settings(changes)
        seed = new_seed() if body.seed is None else body.seed
        requests = [
            replace(
                self.profile.request(body.prompt, seed + number, settings, caller.owner),
                negative_prompt=body.negative_prompt or self.profile.negative_prompt,
            )
            for number in range(body.n)
        ]
        if self.quotas is not None:
            await self.quotas.admit(caller.owner, body.n)
        for draw in requests:
            job = await asyncio.get_running_loop().run_in_executor(core.SUBMITTERS, self.models.generator.submit, draw)
            try:
                work = asyncio.shield(asyncio.wrap_future(job.future))
                drawing = await (while_listening(request, work) if request is not None else work)
            except (asyncio.CancelledError, HTTPException):
                job.cancel()
                raise
            info = picture_texts(draw, drawing.provenance, profile=self.profile.name)
            yield draw, await asyncio.to_thread(self.store.add_picture, drawing.image, info, True, caller.owner)

    def _names(self) -> tuple[str, ...]:
        return ("easel", f"easel-{self.profile.name}")

    def _check_model(self, model: str | None) -> None:
        if model is not None and model not in self._names():
            raise NotFound(f"There is no model {model!r} here. Choose {' or '.join(self._names())}.")


class ChatReply:
    """One chat completion, whole or streamed."""

    def __init__(self, api: Api, body: fmt.ChatRequest, base_url: str, caller: Caller = PROGRAM) -> None:
        self.api = api
        self.caller = caller
        self.base_url = base_url
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.model = body.model or "easel"
        self.mode: core.Mode = body.easel.mode
        settings = api.profile.read_settings(body.easel.settings())
        if settings.style and settings.style not in api.profile.styles:
            known = ", ".join(api.profile.styles) or "none"
            raise InputRefused(f"There is no style {settings.style!r}. There are: {known}.")
        self.past = fmt.read_messages(body.messages, api.store, settings, body.seed, caller)
        self.events: AsyncGenerator[core.Event]

    async def begin(self) -> None:
        """Checks the message."""
        past, models = self.past, self.api.models
        self.events = core.take_turn(
            past.conversation, past.message, models.dialog, models.generator, past.turns, self.api.profile, self.mode,
            parent=past.conversation.leaf, system=past.system,
        )  # fmt: skip
        self.events = self.api.metrics.watch_turn("api", self.events)
        await anext(self.events)

    async def whole(self) -> dict[str, Any]:
        async with aclosing(self.events):
            async for event in self.events:
                if isinstance(event, core.Failed):
                    raise event.error or EaselError(event.message)
                if isinstance(event, core.Done):
                    message, easel = self._message(event)
                    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
                    return {**self._head("chat.completion"), "choices": [choice], "easel": easel}
        raise EaselError(core.UNEXPECTED)

    async def stream(self) -> AsyncGenerator[str]:
        yield self._chunk({"role": "assistant", "content": ""})
        said = ""
        async with aclosing(self.events):
            async for event in self.events:
                if isinstance(event, core.TextDelta):
                    said += event.text
                    yield self._chunk({"content": event.text})
                elif isinstance(event, core.Progress):
                    yield f": drawing, step {event.step} of {event.steps}\n\n"  # a comment: keeps the line open
                elif isinstance(event, core.Failed):
                    error = error_body(event.error or EaselError(event.message))
                    yield f"data: {json.dumps(error, ensure_ascii=False)}\n\n"
                    return
                elif isinstance(event, core.Done):
                    message, easel = self._message(event)
                    rest = message["content"][len(said) :]
                    if event.turn.picture:
                        yield self._chunk({"content": rest, "images": message["images"]})
                    yield self._chunk({}, finish="stop", easel=easel)
        yield "data: [DONE]\n\n"

    def _message(self, done: core.Done) -> tuple[dict[str, Any], dict[str, Any]]:
        turn = done.turn
        easel = {
            "draw": bool(turn.picture),
            "prompt": turn.prompt or None,
            "seed": turn.seed,
            "draw_probability": turn.draw_probability,
            "timings": turn.timings,
        }
        message: dict[str, Any] = {"role": "assistant", "content": turn.text}
        if turn.picture:
            image = fmt.picture_markdown(turn.prompt, f"{self.base_url}/v1/pictures/{turn.picture}.png")
            message["content"] = f"{turn.text}\n\n{image}" if turn.text else image
            data = base64.b64encode(self.api.store.picture_path(turn.picture).read_bytes()).decode("ascii")
            message["images"] = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}]
        return message, easel

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice], **more}
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "easel"}
