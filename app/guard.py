"""What every HTTP request must pass before the API or the page sees it: where it comes from, its key, its length.

    app.add_middleware(Guard, access=Access(keys=("…",)))

A server on loopback is not alone: every page that the user's browser opens can send it requests. So a request is
served only under a name of this server (a page whose own name was rebound to 127.0.0.1 still sends that name) and,
where a browser made it, only from a page of this server. Where people sign in (signin.py), their cookie and their keys
are checked after that.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import EaselError, Forbidden, TooLarge, Unauthorized
from app.refusals import refusal

MOST_BODY = 64 * 2**20  # bytes of a request; JSON is read into memory
MOST_EVENT = 2**20  # of the page's events, whose values Gradio keeps for as long as it remembers the session
MOST_UPLOAD = 256 * 2**20  # of what the page uploads: goes to disk, and each file has its own limit
SHORTEST_KEY = 16
PROGRAMS = ("/v1/", "/mcp", "/metrics")  # paths that need the key; people's pages are not among them
PICTURES = "/v1/pictures/"  # whoever was given a picture's address may see it: it cannot be guessed
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::\d{1,5})?", re.ASCII)
_FETCHES = re.compile(r"/gradio_api/(file=https?:|proxy=)", re.IGNORECASE)

# What the page may load and where from. Gradio's own page would fetch a script from a public server; and whatever got
# through the escaping of a chat could not carry it away.
CONTENT_POLICY = "; ".join((
    "default-src 'self'", "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:", "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:", "font-src 'self' data:", "media-src 'self' data: blob:",
    "connect-src 'self' data: blob:", "worker-src 'self' blob:", "object-src 'none'", "base-uri 'self'",
    "form-action 'self'", "frame-ancestors 'self'",
))  # fmt: skip


@dataclass(frozen=True)
class Access:
    """Who is served. Addresses and localhost are always names of this server: a page of another site cannot have them
    as its own."""

    keys: tuple[str, ...] = field(
        default=(), repr=False
    )  # any of them opens the API; none: only this machine may use it
    hosts: frozenset[str] = frozenset()  # further names of this server
    origins: frozenset[str] = frozenset()  # of other sites' pages that may use it, like https://chat.example
    users: bool = False  # people sign in, and have keys of their own: signin.py asks for them

    def check(self, scope: Scope) -> None:
        """Raises Forbidden or Unauthorized, which say what to do."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        self._check_host(host)
        self._check_origin(headers.get("origin"), host)
        if _FETCHES.search(scope["path"]):
            raise Forbidden("Other addresses are not fetched. Upload the file itself.")
        if for_programs(scope) and not self.users:
            self._check_key(headers.get("authorization", ""), scope)

    def opens(self, key: str) -> bool:
        # All are compared, and each in constant time: how long it took tells nothing about any of them.
        return any([hmac.compare_digest(key.encode(), one.encode()) for one in self.keys])

    def _check_host(self, host: str) -> None:
        match = _AUTHORITY.fullmatch(host)
        name = match[1].lower().rstrip(".") if match else ""
        if not (_is_address(name) or name == "localhost" or name.endswith(".localhost") or name in self.hosts):
            raise Forbidden(
                f"This server does not go by the name {host[:100]!r}. Use its address, or start it with"
                " --allow-host and the name."
            )

    def _check_origin(self, origin: str | None, host: str) -> None:
        if origin is not None and origin not in self.origins and urlsplit(origin).netloc.lower() != host.lower():
            raise Forbidden(
                f"Pages of {origin[:100]} may not use this server. If they should, start it with --allow-origin and"
                " that address."
            )

    def _check_key(self, authorization: str, scope: Scope) -> None:
        if not self.keys:
            if _is_this_machine(scope):
                return
            raise Unauthorized(
                "Without an API key only the machine that Easel runs on may use its API. Start it with --api-key-env."
            )
        key = bearer(authorization)
        if not self.opens(key):
            raise wrong_key(key)


def for_programs(scope: Scope) -> bool:
    """Whether the path needs a key. A browser's question whether it may ask never carries one, and no route answers
    it."""
    path = scope["path"]
    return path.startswith(PROGRAMS) and not path.startswith(PICTURES) and scope["method"] != "OPTIONS"


def bearer(authorization: str) -> str:
    """The key in the header; "" where there is none."""
    kind, _, given = authorization.partition(" ")
    return given.strip() if kind.lower() == "bearer" else ""


def wrong_key(key: str) -> Unauthorized:
    what = "This API key is wrong." if key else "The API key is missing."
    return Unauthorized(f"{what} Send the header Authorization: Bearer KEY, or set your client's api_key.")


def read_access(key_variable: str | None, hosts: Sequence[str], origins: Sequence[str]) -> Access:
    """As the command line says. Raises EaselError for what cannot be meant."""
    keys: tuple[str, ...] = ()
    if key_variable:
        keys = tuple(os.environ.get(key_variable, "").split())
        if not keys:
            raise EaselError(
                f"The environment variable {key_variable} holds no API key. Set it, or leave out the option."
            )
        if any(len(key) < SHORTEST_KEY or not key.isascii() for key in keys):
            raise EaselError(f"An API key has at least {SHORTEST_KEY} ASCII characters. Make one: openssl rand -hex 24")
    for name in hosts:
        if not (match := _AUTHORITY.fullmatch(name)) or match[1] != name:
            raise EaselError(f"--allow-host takes a name such as easel.example, without port; got {name!r}.")
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != origin:
            raise EaselError(f"--allow-origin takes an address such as https://chat.example; got {origin!r}.")
    return Access(keys, frozenset(name.lower() for name in hosts), frozenset(origin.lower() for origin in origins))


class Guard:
    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self.access.check(scope)
            receive = limited(receive, scope)
        except (Forbidden, Unauthorized, TooLarge) as error:
            await refusal(error)(scope, receive, send)
            return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                if headers.get("content-type", "").startswith("text/html"):
                    headers.setdefault("Content-Security-Policy", CONTENT_POLICY)
                    headers.setdefault("Referrer-Policy", "same-origin")
            await send(message)

        await self.app(scope, receive, with_policy)


def limited(receive: Receive, scope: Scope) -> Receive:
    """`receive`, for a body of at most so many bytes. What announces more is refused unread; what does not say its
    length, or lies about it, is cut off where it grows too large."""
    _, page, route = scope["path"].partition("/gradio_api/")
    most = MOST_BODY if not page else MOST_UPLOAD if route == "upload" else MOST_EVENT
    too_large = f"The request is larger than {most // 2**20} MB. Send fewer or smaller pictures."
    announced = Headers(scope=scope).get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > most:
        raise TooLarge(too_large)
    read = 0

    async def receive_some() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > most:
            raise HTTPException(413, too_large)  # the one kind of error that FastAPI and Gradio hand on from here
        return message

    return receive_some


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _is_this_machine(scope: Scope) -> bool:
    """As the connection says. Behind a proxy on this machine: as its X-Forwarded-For says, which uvicorn has read."""
    try:
        address = ipaddress.ip_address((scope.get("client") or ("",))[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1
    return (mapped or address).is_loopback
