"""Asks every request who makes it, where the data folder has users: a cookie for people, a key for programs.

    app.add_middleware(SignIn, accounts=accounts, access=access, gate=Gate())   # inside the guard

Requests to the API never go by the cookie, so that no other page can make one in a user's name. The guard has seen to
names and other sites; what it allows to other sites by --allow-origin is the API alone.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.accounts import SESSION_DAYS, Accounts, User
from app.caller import PROGRAM, Caller, as_user, caller_of, set_caller
from app.errors import EaselError, Forbidden, Unauthorized
from app.gate import Gate
from app.guard import PICTURES, Access, bearer, for_programs, wrong_key
from app.refusals import refusal

COOKIE = "easel-session"
ADMIN_PAGES = re.compile(r"(/zh)?/improve(/|$)")  # with everything beneath; the page /admin asks for itself
OPEN = ("/health", "/ready", "/docs", "/openapi.json", "/signin")


class SignIn:
    def __init__(self, app: ASGIApp, accounts: Accounts, access: Access, gate: Gate) -> None:
        self.app = app
        self.accounts = accounts
        self.access = access
        self.gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                caller = self._caller(scope)
                if caller is None:
                    send = _saying_so(send)
                else:
                    set_caller(scope, caller)
                    receive, send = await self.gate.admit(scope, receive, send, caller.owner)
            except NotSignedIn:
                await _to_sign_in(scope)(scope, receive, send)
                return
            except EaselError as error:
                await refusal(error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller | None:
        """None where anybody is answered. Raises NotSignedIn, Unauthorized or Forbidden."""
        headers = Headers(scope=scope)
        path, key = scope["path"], bearer(headers.get("authorization", ""))
        if for_programs(scope):
            caller = self._program(key)
            if path == "/metrics" and not (caller == PROGRAM or (caller.user and caller.user.admin)):
                raise Forbidden("What is measured is for administrators.")
            return caller
        if path.startswith(PICTURES) and key:
            return self._program(key)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            raise Forbidden("Pages of other sites may use the API alone, with a key.")
        user = self.accounts.of_session(token) if (token := token_of(scope)) else None
        if user is not None:
            if ADMIN_PAGES.match(path) and not user.admin:
                raise Forbidden("What the dialog model learns is for administrators to decide.")
            return as_user(user)
        if path in OPEN or scope["method"] == "OPTIONS":
            return None
        raise NotSignedIn("Sign in first: open this server's address in the browser.")

    def _program(self, key: str) -> Caller:
        if user := self.accounts.of_key(key):
            return as_user(user)
        if key and self.access.opens(key):
            return PROGRAM
        raise wrong_key(key)


class NotSignedIn(Unauthorized):
    pass


def token_of(scope: Scope) -> str:
    return Request(scope).cookies.get(COOKIE, "")


def user_of(request: Request) -> User:
    user = caller_of(request.scope).user
    if user is None:
        raise NotSignedIn("Sign in first.")
    return user


def let_in(response: Response, token: str, request: Request) -> Response:
    """No script reads the cookie, and no other site's page sends it."""
    response.set_cookie(
        COOKIE, token, max_age=SESSION_DAYS * 86400, path="/", httponly=True, samesite="lax",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return response


def way_back(path: str) -> str:
    """Where to go after signing in: a path of this server and nothing else."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() else "/"


def _saying_so(send: Send) -> Send:
    """A page that is still open learns from /health that its session is over."""

    async def saying(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Easel-Session"] = "none"
        await send(message)

    return saying


def _to_sign_in(scope: Scope) -> Response:
    if scope["method"] not in ("GET", "HEAD") or "text/html" not in Headers(scope=scope).get("accept", ""):
        return refusal(Unauthorized("Sign in first: open this server's address in the browser."))
    query = scope["query_string"].decode("latin-1")
    path = quote(scope["path"]) + (f"?{query}" if query else "")
    return RedirectResponse(f"/signin?next={quote(path, safe='')}", 303)
