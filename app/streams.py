"""A page's event stream stays open for a while after its last event.

    blocks.queue(...); keep_streams_open(blocks._queue)

Gradio's server closes a page's stream (/queue/data) as soon as no event of the page is pending. An event that the page
sends before it has heard of that is answered into a stream that nobody reads: the page waits until its next event.
People do click at the moment when something ends, so the stream waits for what they do next.
"""

from __future__ import annotations

import asyncio
import contextlib
from itertools import count
from typing import Any

from gradio.server_messages import ProcessCompletedMessage

LINGER = 20.0  # seconds


def keep_streams_open(queue: Any, linger: float | None = None) -> None:
    """`queue` is the one of a `gradio.Blocks`, before its first event."""
    queue.pending_event_ids_session = _Sessions(queue, LINGER if linger is None else linger)


class _Sessions(dict[str, "_Pending"]):
    """Gradio's own table: the ids of each session's pending events."""

    def __init__(self, queue: Any, linger: float) -> None:
        super().__init__()
        self.queue = queue
        self.linger = linger

    def __setitem__(self, session: str, ids: set[str]) -> None:
        super().__setitem__(session, ids if isinstance(ids, _Pending) else _Pending(ids, session, self))


class _Pending(set[str]):
    """It counts what keeps the stream open as one event more. Gradio removes an event once its end has been sent, and
    closes the stream if the set is empty then."""

    _numbers = count()

    def __init__(self, ids: set[str], session: str, sessions: _Sessions) -> None:
        super().__init__(ids)
        self._session = session
        self._sessions = sessions
        self._lingering = ""

    def remove(self, event_id: str) -> None:
        super().discard(event_id)
        if event_id == self._lingering:
            self._lingering = ""  # its end has been sent: now the stream may close
        elif self <= {self._lingering}:  # nothing else is pending: it lingers from now on
            self.discard(self._lingering)
            self._lingering = f"lingering {next(self._numbers)}"
            self.add(self._lingering)
            asyncio.get_running_loop().call_later(self._sessions.linger, self._end, self._lingering)

    def _end(self, name: str) -> None:
        if name != self._lingering:
            return
        if len(self) > 1:  # others came, and the last of them begins anew
            self._lingering = ""
            self.discard(name)
            return
        messages = self._sessions.queue.pending_messages_per_session.get(self._session)
        if messages is not None:
            messages.put_nowait(ProcessCompletedMessage(event_id=name, output={}, success=True))
        # Nobody may be there to hear it.
        asyncio.get_running_loop().call_later(self._sessions.linger, self._forget, name)

    def _forget(self, name: str) -> None:
        if self == {name}:
            with contextlib.suppress(KeyError):
                del self._sessions[self._session]
