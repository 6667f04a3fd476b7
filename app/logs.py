"""The log: lines for people, or one JSON object a line for programs. What users say is in neither, and no key.

    easel chat --log-format json --log-level info
    say(log, "turn", outcome="picture", seconds=2.1)   # -> 18:06:24 info    turn  outcome=picture seconds=2.1

Every HTTP request has an id, its own (X-Request-ID) or a new one, which stands in all that is logged for it and in the
answer. Uvicorn's and the libraries' lines take the same form, from warnings upwards.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO, Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
OURS = ("app", "dialog_mllm", "generator")
HEADER = "X-Request-ID"
_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_request: ContextVar[str] = ContextVar("request", default="")

log = logging.getLogger(__name__)


def set_up(form: str, level: str, stream: IO[str] | None = None) -> None:
    """Takes the place of whatever was set up before."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())


def say(log: logging.Logger, message: str, level: int = logging.INFO, **fields: Any) -> None:
    log.log(level, message, extra={"fields": fields})


def rounded(timings: dict[str, float] | None) -> dict[str, float]:
    """Seconds as a log has them."""
    return {name: round(seconds, 4) for name, seconds in (timings or {}).items()}


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := _request.get():
            line["request"] = request
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = dict(getattr(record, "fields", {}))
        if request := _request.get():
            fields["request"] = request
        parts = [clock, f"{record.levelname.lower():7}", record.getMessage()]
        parts += [" " + " ".join(f"{name}={_plain(value)}" for name, value in fields.items())] if fields else []
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class LogRequests:
    """What programs ask for at info, the page's many small requests at debug; never a query, which may hold words."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        name = given if _ID.fullmatch(given) else secrets.token_hex(8)
        token, started, status = _request.set(name), time.perf_counter(), 500

        async def see(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = name
            await send(message)

        try:
            await self.app(scope, receive, see)
        finally:
            path = scope["path"]
            level = logging.INFO if path.startswith(("/v1/", "/mcp")) and "/pictures/" not in path else logging.DEBUG
            seconds = round(time.perf_counter() - started, 4)
            say(log, "request", level, method=scope["method"], path=path, status=status, seconds=seconds)
            _request.reset(token)


def _plain(value: Any) -> str:
    """On one line, whatever it is."""
    if isinstance(value, dict):
        return ",".join(f"{name}:{_plain(part)}" for name, part in value.items())
    text = str(value)
    plain = text.isprintable() and re.fullmatch(r"[^\s=\"]+", text)
    return text if plain else json.dumps(text)  # whatever a terminal would obey is escaped
