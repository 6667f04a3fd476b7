"""What comes true in a while, looked at until it does."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(what: Callable[[], object], seconds: float = 60.0, told: object = "") -> None:
    """AssertionError, with what is `told`, if `what` has not come true by then."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {told}"
        time.sleep(0.02)
