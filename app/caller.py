"""Who makes a request: whose conversations and pictures it is about.

    caller = caller_of(request.scope, PROGRAM)

Signing in (signin.py) writes it into the request. Where nobody signs in, the page's one user sees every picture, and
so does whoever may use the API.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from app.accounts import User
from app.store import PROGRAMS

_KEY = "easel.caller"


@dataclass(frozen=True)
class Caller:
    owner: str
    viewer: str | None = None  # whose pictures alone it may see; None: all
    user: User | None = None


PROGRAM = Caller(PROGRAMS)


def caller_of(scope: Mapping[str, Any], otherwise: Caller = PROGRAM) -> Caller:
    return scope.get(_KEY, otherwise)


def set_caller(scope: MutableMapping[str, Any], caller: Caller) -> None:
    scope[_KEY] = caller


def as_user(user: User) -> Caller:
    return Caller(user.id, user.id, user)
