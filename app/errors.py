"""What can go wrong in the app itself. The text of each error is written for the user.

from app.errors import EaselError
"""

from __future__ import annotations

import math


class EaselError(Exception):
    """Base of everything that `app` raises on purpose; str(error) says what happened and what to do."""


class InputRefused(EaselError):
    """A message that cannot be taken as it stands. Nothing was stored; it stays in the input box."""


class ProfileError(EaselError):
    """An unknown profile, or a profile that holds something impossible."""


class Filtered(EaselError):
    """A message or a prompt that the operator's filter does not let through."""


class FilterUnavailable(EaselError):
    """The operator's filter cannot be asked, so nothing is let through."""


class StoreError(EaselError):
    """The data folder cannot be read or written."""


class NotFound(EaselError):
    """A conversation, turn or picture that does not exist, or belongs to somebody else."""


class Unauthorized(EaselError):
    """The HTTP API was asked without its key, or from another machine where there is none."""


class Forbidden(EaselError):
    """A request that another site's page made in a user's browser, or under a name that this server does not have."""


class TooLarge(EaselError):
    """The body of a request is larger than what is read."""


class TooMany(EaselError):
    """More turns, or tries to sign in, than are let through. After `retry_after` seconds it will do."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = max(1, math.ceil(retry_after))


class QuotaExceeded(EaselError):
    """The user's pictures take all the room that there is for them."""
