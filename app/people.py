"""The pages for signing in and out, for one's own account, and for administrators. Plain HTML forms.

    app.include_router(People(accounts, turns, models.health, metrics).router)

Each form answers with a page that says what happened; errors stand in it, and what was typed but for passwords stays.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.accounts import Accounts, Usage, User
from app.errors import EaselError, Forbidden, InputRefused, TooMany
from app.metrics import Metrics
from app.quotas import Tries
from app.running import RunningTurns
from app.signin import COOKIE, let_in, token_of, user_of, way_back
from app.texts import PEOPLE, PeopleTexts

STATIC = Path(__file__).parent / "static"
Health = Callable[[], dict[str, str]]


class People:
    def __init__(
        self, accounts: Accounts, turns: RunningTurns, health: Health, metrics: Metrics, tries: Tries | None = None
    ) -> None:
        self.accounts = accounts
        self.turns = turns
        self.health = health
        self.metrics = metrics
        self.tries = tries or Tries()
        self.one_at_a_time = asyncio.Lock()  # checking a password takes memory, and tries at once must not escape count
        self._pages = Environment(
            loader=FileSystemLoader(STATIC), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        self._pages.filters["day"] = _day
        self.router = APIRouter(include_in_schema=False)
        for path, answer, method in (
            ("/signin", self.ask, "GET"), ("/signin", self.sign_in, "POST"), ("/signout", self.sign_out, "POST"),
            ("/account", self.account, "GET"), ("/account", self.change_account, "POST"),
            ("/admin", self.admin, "GET"), ("/admin", self.change_users, "POST"),
        ):  # fmt: skip
            self.router.add_api_route(path, answer, methods=[method], response_model=None)

    # Signing in and out

    async def ask(self, request: Request) -> Response:
        return self._sign_in_page(request, "", way_back(request.query_params.get("next", "/")))

    async def sign_in(self, request: Request) -> Response:
        form = await request.form()
        name, password = str(form.get("name", "")).strip(), str(form.get("password", ""))
        after = way_back(str(form.get("next", "/")))
        address = request.client.host if request.client else ""
        texts = texts_for(request)
        async with self.one_at_a_time:
            try:
                self.tries.check(name, address)
            except TooMany as error:
                answer = self._sign_in_page(request, name, after, texts.too_many.format(error.retry_after), 429)
                answer.headers["Retry-After"] = str(error.retry_after)
                return answer
            user = await asyncio.to_thread(self.accounts.check, name, password)
            if user is None:
                self.tries.fail(name, address)
                return self._sign_in_page(request, name, after, texts.wrong, 401)
            self.tries.forget(name, address)
        self.accounts.end_session(token_of(request.scope))
        return let_in(RedirectResponse(after, 303), self.accounts.begin_session(user), request)

    async def sign_out(self, request: Request) -> Response:
        self.accounts.end_session(token_of(request.scope))
        return _gone()

    # One's own account

    async def account(self, request: Request) -> Response:
        return await self._account_page(request)

    async def change_account(self, request: Request) -> Response:
        user, form, texts = user_of(request), await request.form(), texts_for(request)
        try:
            match form.get("do"):
                case "password":
                    return await self._change_own_password(request, user, form)
                case "key":
                    key = self.accounts.add_key(user, str(form.get("name", "")))
                    return await self._account_page(request, said=texts.key_made, key=key)
                case "delete-key":
                    self.accounts.remove_key(user, str(form.get("key", "")))
                    return await self._account_page(request)
                case "everywhere":
                    self.accounts.end_sessions(user)
                    return _gone()
            raise InputRefused("The form is not known here. Reload the page.")
        except EaselError as error:
            return await self._account_page(request, error=str(error))

    async def _change_own_password(self, request: Request, user: User, form: Any) -> Response:
        texts, address = texts_for(request), request.client.host if request.client else ""
        async with self.one_at_a_time:
            self.tries.check(user.name, address)
            if await asyncio.to_thread(self.accounts.check, user.name, str(form.get("old", ""))) is None:
                self.tries.fail(user.name, address)
                raise InputRefused(texts.wrong_old)
            await asyncio.to_thread(self.accounts.change_password, user, str(form.get("new", "")))
        answer = await self._account_page(request, said=texts.password_changed)
        return let_in(answer, self.accounts.begin_session(user), request)

    # Administrators

    async def admin(self, request: Request) -> Response:
        _check_admin(request)
        return await self._admin_page(request)

    async def change_users(self, request: Request) -> Response:
        _check_admin(request)
        form, texts = await request.form(), texts_for(request)
        name = str(form.get("name", "")).strip()
        try:
            match form.get("do"):
                case "add":
                    password, admin = str(form.get("password", "")), form.get("admin") == "on"
                    await asyncio.to_thread(self.accounts.add, name, password, admin)
                    return await self._admin_page(request, said=texts.added.format(name))
                case "limit":
                    limits = (_number(form.get("turns_per_minute")), _number(form.get("disk_mb")))
                    self.accounts.limit(self.accounts.named(name), *limits)
                    return await self._admin_page(request, said=texts.saved)
                case "password":
                    user, password = self.accounts.named(name), str(form.get("password", ""))
                    await asyncio.to_thread(self.accounts.change_password, user, password)
                    return await self._admin_page(request, said=texts.saved)
            raise InputRefused("The form is not known here. Reload the page.")
        except EaselError as error:
            return await self._admin_page(request, error=str(error), name=name)

    # Pages

    def _sign_in_page(self, request: Request, name: str, after: str, error: str = "", status: int = 200) -> Response:
        return self._page("signin", request, status, name=name, after=after, error=error)

    async def _account_page(self, request: Request, **more: Any) -> Response:
        user = user_of(request)
        usage = await asyncio.to_thread(self.accounts.usage, user.id)
        values = {"said": "", "error": "", "key": "", **more}
        return self._page(
            "account", request, 400 if values["error"] else 200, user=user, usage=usage, keys=self.accounts.keys(user),
            **values,
        )  # fmt: skip

    async def _admin_page(self, request: Request, **more: Any) -> Response:
        users = self.accounts.users()
        usages = await asyncio.to_thread(lambda: [self.accounts.usage(user.id) for user in users])
        values = {"said": "", "error": "", "name": "", **more}
        size = await asyncio.to_thread(_size, self.accounts.folder)
        return self._page(
            "admin", request, 400 if values["error"] else 200, user=user_of(request),
            users=list[tuple[User, Usage]](zip(users, usages, strict=True)), turns=self.turns.count(),
            drawings=int(self.metrics.registry.get_sample_value("easel_drawings_unfinished") or 0),
            health=self.health(), size=size, free=shutil.disk_usage(self.accounts.folder).free, **values,
        )  # fmt: skip

    def _page(self, template: str, request: Request, status: int = 200, **values: Any) -> Response:
        html = self._pages.get_template(f"{template}.html.jinja").render(texts=texts_for(request), **values)
        return HTMLResponse(html, status, {"Cache-Control": "no-store"})


def texts_for(request: Request) -> PeopleTexts:
    """In the language that was asked for, else the browser's."""
    asked = request.query_params.get("lang") or request.headers.get("accept-language", "").strip().lower()[:2]
    return PEOPLE.get(asked, PEOPLE["en"])


def _check_admin(request: Request) -> None:
    if not user_of(request).admin:
        raise Forbidden("This page is for administrators.")


def _gone() -> Response:
    answer = RedirectResponse("/signin", 303)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
    return answer


def _number(text: Any) -> int | None:
    """None, everybody's limit, where nothing was written."""
    text = str(text or "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise InputRefused(f"A limit is a whole number, or empty for everybody's; got {text[:20]!r}.")
    return int(text)


def _size(folder: Path) -> int:
    """Bytes of the files in the folder; some may go while it is looked at."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:
                continue
    return total


def _day(moment: float | None) -> str:
    return datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M") if moment else ""
