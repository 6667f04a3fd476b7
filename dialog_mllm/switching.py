"""Which adapter the running server answers with, and how that changes without a dropped reply.

    live = LiveAdapters(server, Adapters(folder, model))
    with live.lease() as served: ...    # served.model stays loaded until here, whatever is switched meanwhile
    live.activate("v2"); live.roll_back()
    live.try_out("v3", share=0.5)       # half of the conversations get it; each stays with its own

A new adapter is loaded under a name of its own (vLLM's runtime LoRA calls, on loopback and with the server's key). From
then on new replies get it; those in flight finish on the old one, which is unloaded when nobody uses it any more. The
original stays loaded, so that the way back is always open. What the folder says is active, and being tried, is what is
served: `follow` looks once a second, so that `easel adapters` in another process reaches the running app too.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dialog_mllm.adapters import ORIGINAL, Adapters
from dialog_mllm.errors import AdapterError, DialogError, DialogUnavailable
from dialog_mllm.server import MODEL_NAME

GLANCE = 1.0  # seconds between two looks at the folder

log = logging.getLogger(__name__)


class Server(Protocol):
    """What is needed of a VllmServer."""

    @property
    def adapter(self) -> Path | None: ...  # the original, where there is one
    def load_adapter(self, name: str, folder: Path) -> None: ...
    def unload_adapter(self, name: str) -> None: ...
    def wait_ready(self, timeout: float | None = None) -> None: ...


@dataclass(frozen=True)
class Served:
    """An adapter as the server knows it."""

    name: str  # the version
    model: str  # to ask for
    sha256: str  # of its weights; "" where it is the base alone


class LiveAdapters:
    """Raises AdapterError, or what the server raises; the adapter that was served goes on then."""

    def __init__(self, server: Server, registry: Adapters, original_sha256: str = "") -> None:
        self.registry = registry
        self.error = ""  # why what the folder says is active is not served
        self._server = server
        self._original = Served(ORIGINAL, MODEL_NAME, original_sha256)
        self._now = self._original
        self._tried: tuple[Served, float] | None = None
        self._users: Counter[Served] = Counter()
        self._loaded: set[Served] = set()
        self._lock = threading.Lock()  # of the four above; never held while the server is asked
        self._asking = threading.RLock()  # one load or unload at a time, and what is written of it
        self._seen: bytes | None = None
        self._poke = threading.Event()
        self._stopped = False

    @property
    def now(self) -> Served:
        """What new replies get."""
        return self._now

    @property
    def trial(self) -> tuple[str, float] | None:
        """What some conversations get instead, and their share."""
        return (self._tried[0].name, self._tried[1]) if self._tried is not None else None

    def prepare(self) -> None:
        """Before the server starts: it shall start with the adapter that is active. One that cannot be used leaves the
        original in its place, and is told in `error`."""
        try:
            self._seen = self.registry.written
            if (name := self.registry.active) != ORIGINAL:
                self.registry.check(name, anyway=True)
                self._now = self._load(name)
            if (trial := self.registry.trial) is not None:
                self.registry.check(trial[0], anyway=True)
                self._tried = self._load(trial[0]), trial[1]
        except DialogError as error:
            self.error = str(error)

    def follow(self) -> None:
        """In a thread, until `stop`: serve what the folder says is active."""
        try:
            self._server.wait_ready()
        except DialogError:
            return  # the server's own error says it all
        while not self._stopped:
            self.look()
            self._poke.wait(GLANCE)
            self._poke.clear()

    def look(self) -> None:
        with self._asking:  # nothing is switched here meanwhile; what another process writes then is seen next time
            if (written := self.registry.written) == self._seen:
                return
            self._seen = written
            try:
                self._switch(self.registry.active, self.registry.trial)
            except DialogError as error:
                if isinstance(error, DialogUnavailable):
                    self._seen = None  # it is starting again: ask again
                self.error = str(error)
                log.warning("the adapter that is active cannot be served: %s", error)

    def stop(self) -> None:
        self._stopped = True
        self._poke.set()

    def activate(self, name: str, anyway: bool = False) -> None:
        """Loaded first and written down then: an adapter that the server refuses changes nothing. A trial ends."""
        self.registry.check(name, anyway)
        with self._asking:
            self._switch(name)
            self._write_down(lambda: self.registry.activate(name, anyway))

    def try_out(self, name: str, share: float, anyway: bool = False) -> None:
        self.registry.check(name, anyway)
        with self._asking:
            self._switch(self.registry.active, (name, share))
            self._write_down(lambda: self.registry.try_out(name, share, anyway))

    def end_trial(self) -> None:
        with self._asking:
            self.registry.end_trial()
            self._switch(self.registry.active)

    def roll_back(self) -> str:
        with self._asking:
            name = self.registry.before
            if name is not None:
                self._switch(name)
            return self.registry.roll_back()

    @contextmanager
    def lease(self, name: str | None = None, conversation: str = "") -> Iterator[Served]:
        """The adapter `name`, or the one that a conversation gets now, for as long as the block lasts."""
        if name is None:
            served = self._take(conversation)
        else:
            with self._asking:
                served = self._load(name)
                with self._lock:
                    self._users[served] += 1
        try:
            yield served
        finally:
            with self._lock:
                self._users[served] -= 1
                idle = self._is_idle(served)
            if idle:  # not here: whoever leaves may be an event loop
                threading.Thread(target=self._unload_idle, name="easel-adapter-unload", daemon=True).start()

    # Inside

    def _take(self, conversation: str) -> Served:
        with self._lock:
            served = self._now
            if self._tried is not None and conversation:
                tried, share = self._tried
                served = tried if _place(conversation, tried.name) < share else served
            self._users[served] += 1
            return served

    def _write_down(self, change: Callable[[], None]) -> None:
        """What is served already; where that cannot be, what the folder says is served again."""
        try:
            change()
        except AdapterError:
            self._switch(self.registry.active, self.registry.trial)
            raise

    def _switch(self, name: str, trial: tuple[str, float] | None = None) -> None:
        with self._asking:
            served = self._load(name)
            tried = (self._load(trial[0]), trial[1]) if trial is not None else None
            with self._lock:
                self._now, self._tried = served, tried
            self.error = ""
            self._unload_idle()

    def _load(self, name: str) -> Served:
        if name == ORIGINAL:
            return self._original
        with self._asking:
            version = self.registry.version(name)
            served = Served(name, f"{MODEL_NAME}-{name}", version.sha256)
            if served not in self._loaded:
                self._server.load_adapter(served.model, self.registry.adapter(name))
                with self._lock:
                    self._loaded.add(served)
            return served

    def _is_idle(self, served: Served) -> bool:
        tried = self._tried[0] if self._tried is not None else None
        return served in self._loaded and served not in (self._now, tried) and not self._users[served]

    def _unload_idle(self) -> None:
        with self._asking:
            with self._lock:
                idle = [served for served in self._loaded if self._is_idle(served)]
                self._loaded.difference_update(idle)
            for served in idle:
                try:
                    self._server.unload_adapter(served.model)
                except DialogError as error:  # it only takes room; a server that starts again begins without it
                    log.warning("an adapter could not be unloaded: %s", error)


def _place(conversation: str, trial: str) -> float:
    """From 0 to 1: the same for a conversation as long as a trial lasts, and another one in another trial."""
    digest = hashlib.sha256(f"{trial} {conversation}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64
