"""Keeps users apart within Gradio, which knows sessions and files but not whose they are, and from the machine's files.

    gate = Gate(); receive, send = await gate.admit(scope, receive, send, owner)   # raises Forbidden or NotFound
    app.add_middleware(Gated, gate=gate, owner=OWNER)   # where nobody signs in

A session of Gradio's belongs to whoever names it first: its events, their results, its end. A file belongs to those who
uploaded it or were given it: of any other that the data of an event name, by its path or address, Gradio would make a
copy to be fetched. Of Gradio's routes only those are open that the page uses.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import EaselError, Forbidden, InputRefused, NotFound, TooLarge
from app.refusals import refusal

MOST_REMEMBERED = 100_000  # sessions, and files; the oldest are forgotten, and Gradio deletes files in a day
_USED = re.compile(
    r"(queue/(join|data)|cancel|reset|heartbeat/[\w-]+|upload(_progress)?|file=.*|info|startup-events|theme\.css|app_id"
    r"|user|login_check|token)/?",
    re.DOTALL,
)
_SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)
_HEARTBEAT = re.compile(r"heartbeat/([\w-]+)/?")
_WITH_BODY = ("queue/join", "cancel", "reset")


class Gate:
    def __init__(self) -> None:
        self._sessions: OrderedDict[str, str] = OrderedDict()  # to their owner
        self._files: OrderedDict[tuple[str, str], None] = OrderedDict()  # owner and path

    def grant(self, owner: str, path: str) -> None:
        """The file may be seen and sent by this owner."""
        _remember(self._files, (owner, path), None)

    async def admit(self, scope: Scope, receive: Receive, send: Send, owner: str) -> tuple[Receive, Send]:
        """What Gradio gets in their place. Other paths than its own are let by."""
        _, found, route = scope["path"].partition("/gradio_api/")
        if not found:
            return receive, send
        if not _USED.fullmatch(route):
            raise NotFound("There is no such address here.")
        route = route.rstrip("/") if not route.startswith("file=") else route
        named = parse_qs(scope["query_string"].decode("latin-1"))
        for name in (*named.get("session_hash", ()), *named.get("upload_id", ())):
            self._check_session(owner, name)
        if route.startswith("file="):
            self._check_file(owner, route.removeprefix("file="))
        elif match := _HEARTBEAT.fullmatch(route):
            self._check_session(owner, match[1])
        elif route in _WITH_BODY:
            body = await _read(receive)
            self._check_body(owner, body)
            receive = _replay(body, receive)
        elif route == "upload":
            scope["headers"] = [one for one in scope["headers"] if one[0] != b"accept-encoding"]  # the reply is read
            send = self._note_uploads(owner, send)
        return receive, send

    def _check_body(self, owner: str, body: bytes) -> None:
        try:
            values = json.loads(body)
            name = values.get("session_hash")
            paths = list(_paths(values))
        except (ValueError, AttributeError, RecursionError) as error:
            raise InputRefused("The request is no valid JSON.") from error
        if name is not None:
            self._check_session(owner, str(name))
        for path in paths:
            self._check_file(owner, path)

    def _check_session(self, owner: str, name: str) -> None:
        if not _SESSION.fullmatch(name):
            raise InputRefused("This is no name of a page's session.")
        if self._sessions.get(name, owner) != owner:
            raise Forbidden("This page's session is somebody else's. Reload the page.")
        _remember(self._sessions, name, owner)

    def _check_file(self, owner: str, path: str) -> None:
        if (owner, path) not in self._files:
            raise NotFound("This file does not exist here. Upload it again.")

    def _note_uploads(self, owner: str, send: Send) -> Send:
        status, parts = 0, bytearray()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and status == 200:
                parts.extend(message.get("body", b""))
                if not message.get("more_body"):
                    for path in json.loads(parts):
                        self.grant(owner, path)
            await send(message)

        return noting


class Gated:
    """Everything belongs to one owner."""

    def __init__(self, app: ASGIApp, gate: Gate, owner: str) -> None:
        self.app = app
        self.gate = gate
        self.owner = owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                receive, send = await self.gate.admit(scope, receive, send, self.owner)
            except EaselError as error:
                await refusal(error)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _remember(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > MOST_REMEMBERED:
        memory.popitem(last=False)


def _paths(values: Any) -> Iterator[str]:
    """Every file that the data of an event name, wherever it stands in them."""
    if isinstance(values, dict):
        if isinstance(values.get("path"), str):
            yield values["path"]
        for value in values.values():
            yield from _paths(value)
    elif isinstance(values, list):
        for value in values:
            yield from _paths(value)


async def _read(receive: Receive) -> bytes:
    """The whole body, which the guard keeps short."""
    parts = bytearray()
    while True:
        try:
            message = await receive()
        except HTTPException as error:  # the guard's: nobody outside of FastAPI would answer with it
            raise TooLarge(error.detail) from error
        if message["type"] == "http.disconnect":
            raise InputRefused("The client hung up.")
        parts.extend(message.get("body", b""))
        if not message.get("more_body"):
            return bytes(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    unread = True

    async def again() -> Message:
        nonlocal unread
        if unread:
            unread = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again
