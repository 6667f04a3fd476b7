"""Who looks at the page, for the handlers of its events: Gradio's side of signing in.

    visitors = Visitors(accounts, gate, quotas); visitors.greeting(owner_of(request), "en")

Where nobody signs in, `Visitors()` does: everything belongs to one user, and there is nobody to greet.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import gradio as gr
from fastapi import Request

from app.accounts import Accounts
from app.caller import caller_of
from app.gate import Gate
from app.quotas import Quotas
from app.store import OWNER
from app.texts import PEOPLE, TEXTS


def owner_of(request: gr.Request) -> str:
    """Whose conversations the event is about. Gradio asks `Visitors.name` for each request."""
    return request.username or OWNER


class Visitors:
    def __init__(
        self, accounts: Accounts | None = None, gate: Gate | None = None, quotas: Quotas | None = None
    ) -> None:
        self._accounts = accounts
        self._gate = gate
        self._quotas = quotas

    @property
    def name(self) -> Callable[[Request], str | None] | None:
        """What Gradio asks; None: it asks nobody."""
        return _name if self._accounts is not None else None

    def greeting(self, owner: str, language: str) -> str:
        """The user, with the ways to their account, to the administration and out."""
        user = self._accounts.user(owner) if self._accounts is not None else None
        if user is None:
            return ""
        texts, query = PEOPLE[language], f"?lang={language}"
        admin = ""
        if user.admin:
            page = TEXTS[language]
            admin = f'<a href="{page.improve_path}">{page.improve}</a><a href="/admin{query}">{texts.admin}</a>'
        return (
            f'<a href="/account{query}" title="{texts.account}">{escape(user.name)}</a>{admin}'
            f'<form method="post" action="/signout"><button>{texts.sign_out}</button></form>'
        )

    def give(self, owner: str, file: Path, component: gr.components.Component) -> str:
        """A copy of the file that this owner's browser may fetch; Gradio removes it in time."""
        path = component.move_resource_to_block_cache(file)
        self.grant(owner, path)
        return path

    async def check_room(self, owner: str, size: int) -> None:
        """Raises QuotaExceeded where so many bytes more would be too much for this owner."""
        if self._quotas is not None:
            await self._quotas.check_room(owner, size)

    def grant(self, owner: str, path: str | Path) -> None:
        if self._gate is not None:
            self._gate.grant(owner, str(path))


def _name(request: Request) -> str | None:
    user = caller_of(request.scope).user
    return user.id if user is not None else None
