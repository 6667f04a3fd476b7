"""Everything that `easel chat` runs: both models, the store, the HTTP API and the page, on one port.

easel chat --port 7860
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.accounts import Accounts
from app.api import add_api
from app.database import SQLITE
from app.errors import EaselError
from app.filters import Filter, FilteredModels
from app.gate import Gate, Gated
from app.guard import Access, Guard
from app.improve_page import build_improve_page
from app.improve_texts import IMPROVE_TEXTS
from app.improving import ADAPTERS, Improver
from app.logs import LogRequests
from app.mcp_tools import McpTools
from app.metrics import CountRequests, Metered, Metrics
from app.models import Models
from app.mounting import mount_pages
from app.people import People
from app.profiles import Profile
from app.quick import FirstPage, one_server_each
from app.quotas import Quotas
from app.reference import SUMMARY
from app.running import RunningTurns
from app.scores import Scorer
from app.signin import SignIn
from app.store import OWNER, Store
from app.texts import TEXTS
from app.visitor import Visitors
from app.web import build_page

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LAST_LOOK = 0.5  # seconds until a page shows how a turn ended
KEPT = 86_400  # seconds that uploads of an earlier run are kept
GRACE = 3  # seconds that open connections get at the end
_ENDLESS = re.compile(r"/gradio_api/(queue/data|heartbeat/\w+)$")


def sweep(uploads: Path) -> None:
    """Removes what earlier runs left there: Gradio forgets what it has to delete when it ends."""
    for path in uploads.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_mtime < time.time() - KEPT:
                path.unlink()


def build_app(
    profile: Profile,
    store: Store,
    models: Models,
    access: Access | None = None,
    *,
    filters: Sequence[Filter] = (),
    accounts: Accounts | None = None,
) -> FastAPI:
    """The whole server; the models may still be starting. With `accounts`, everybody signs in."""
    access, metrics = replace(access or Access(), users=accounts is not None), Metrics()
    metered = Metered(FilteredModels(models, filters) if filters else models, metrics)
    gate, quotas = Gate(), Quotas(accounts) if accounts is not None else None
    visitors = Visitors(accounts, gate, quotas)
    scorer = Scorer(profile, store)
    turns = RunningTurns(profile, store, metered.dialog, metered.generator, metrics, scorer, quotas)
    improver = Improver(store.folder / "improve", store, profile, models.dialog)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with tools.running():
            yield
        await asyncio.to_thread(improver.close)
        await turns.stop_all()
        await asyncio.to_thread(models.stop)  # else a thread that waits for a model would keep the process alive

    app = FastAPI(title="Easel", description=SUMMARY, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.turns, app.state.first_page, app.state.ending = turns, threading.Event(), asyncio.Event()

    app.add_middleware(ChooseLanguage)
    if accounts is None:
        app.add_middleware(Gated, gate=gate, owner=OWNER)
    else:
        app.add_middleware(SignIn, accounts=accounts, access=access, gate=gate)
        app.include_router(People(accounts, turns, metered.health, metrics).router)
    app.add_middleware(Guard, access=access)
    if access.origins:  # Gradio leaves this to us then
        app.add_middleware(
            CORSMiddleware, allow_origins=sorted(access.origins), allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(FirstPage, seen=app.state.first_page)
    app.add_middleware(HangUp, ending=app.state.ending)
    app.add_middleware(CountRequests, metrics=metrics)
    app.add_middleware(LogRequests)
    tools = McpTools(add_api(app, profile, store, metered, metrics, quotas))
    app.router.routes.append(tools.route)
    with one_server_each():
        pages = {
            path: build_page(TEXTS[language], profile, store, turns, visitors)
            for path, language in (("/", "en"), ("/zh", "zh"))
        }
        pages |= {
            path: build_improve_page(TEXTS[language], IMPROVE_TEXTS[language], improver)
            for path, language in (("/improve", "en"), ("/zh/improve", "zh"))
        }
        mount_pages(app, pages, visitors)
    return app


class ChooseLanguage:
    """Sends browsers that prefer Chinese from "/" to the Chinese page, unless they asked for English."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "http" and scope["path"] == "/":
            request = Request(scope)
            language = request.headers.get("accept-language", "").strip().lower()
            if language.startswith("zh") and request.query_params.get("lang") != "en":
                app = RedirectResponse("zh/")
        await app(scope, receive, send)


class HangUp:
    """In the end, a page's streams hear that their reader has gone: they would not end by themselves."""

    def __init__(self, app: ASGIApp, ending: asyncio.Event) -> None:
        self.app = app
        self.ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_or_end() -> Message:
            reading, ending = asyncio.ensure_future(receive()), asyncio.ensure_future(self.ending.wait())
            try:
                await asyncio.wait((reading, ending), return_when=asyncio.FIRST_COMPLETED)
                return reading.result() if reading.done() else {"type": "http.disconnect"}
            finally:
                reading.cancel()
                ending.cancel()

        if scope["type"] != "http" or not _ENDLESS.search(scope["path"]):
            await self.app(scope, receive, send)
            return
        begun = done = False

        async def see(message: Message) -> None:
            nonlocal begun, done
            begun, done = True, message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        await self.app(scope, receive_or_end, see)
        if begun and not done and self.ending.is_set():  # cut off: for HTTP too, it shall have an end
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def serve(
    profile: Profile,
    host: str,
    port: int,
    data_dir: Path,
    access: Access,
    filters: Sequence[Filter] = (),
    patience: float = 0.0,
    database: str = SQLITE,
) -> int:
    """Runs until Ctrl-C or SIGTERM. Raises EaselError, DialogError or GeneratorError for what is wrong at once."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listen(host, port))
        os.umask(0o077)  # conversations, pictures and logs are nobody else's on this machine
        store = Store(data_dir, database)
        os.environ.setdefault("GRADIO_TEMP_DIR", str(data_dir / "uploads"))  # else all Gradio apps share one in /tmp
        stack.callback(store.close)
        sweep(data_dir / "uploads")
        accounts = stack.enter_context(contextlib.closing(Accounts(data_dir, database)))
        people = accounts if accounts.users() else None
        models = Models(profile, data_dir / "logs", data_dir / ADAPTERS)
        stack.callback(models.stop)
        app = build_app(profile, store, models, known_here(access, host), filters=filters, accounts=people)
        server = Server(
            uvicorn.Config(
                app,
                log_config=None,  # its lines go where ours go
                access_log=False,
                timeout_graceful_shutdown=GRACE,
                ws="none",
            ),
            patience,
        )
        with _signals(server, app.state.turns):
            models.start(app.state.first_page)
            shown = f"[{host}]" if ":" in host else host
            print(f"Easel is at http://{shown}:{listener.getsockname()[1]}  (models warming up; Ctrl-C stops it)")
            if host not in LOOPBACK and not people:
                print("Note: whoever can reach this address can use the page. To ask for sign-in: easel users add NAME")
                if not access.keys:
                    print("The HTTP API answers this machine alone; start with --api-key-env to open it to others.")
            sys.stdout.flush()
            server.run(sockets=[listener])
            print("Stopping…", flush=True)
    return 0


def known_here(access: Access, host: str) -> Access:
    """With the names that this machine has in its own network, and the one that it was told to listen at."""
    name = socket.gethostname().lower()
    return replace(access, hosts=access.hosts | {host.lower(), name, f"{name}.local"})


class Server(uvicorn.Server):
    """uvicorn's own handlers would raise the signal again before our models are stopped."""

    def __init__(self, config: uvicorn.Config, patience: float) -> None:
        super().__init__(config)
        self._state = config.app.state  # type: ignore[union-attr]
        self._patience = patience

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Pages see how the turns end before they are hung up on."""
        under_way = self._state.turns.count()
        await self._state.turns.stop_all(self._patience)
        await asyncio.sleep(LAST_LOOK if under_way else 0)
        self._state.ending.set()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _signals(server: uvicorn.Server, turns: RunningTurns) -> Iterator[None]:
    """The first signal stops in good order, the second at once; models are stopped after either."""

    def stop(number: int, frame: FrameType | None) -> None:
        server.force_exit = turns.hurried = server.should_exit
        server.should_exit = True

    kept = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    """The port is taken before anything is started, so that a busy one costs no time."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # who comes before the server is up waits, and is not turned away
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise EaselError(
                f"Port {port} is in use, perhaps by another Easel. Choose another one: easel chat --port {port + 1}"
            ) from error
        raise EaselError(f"Easel cannot listen at {host}:{port}: {error.strerror or error}.") from error
    listener.set_inheritable(False)
    return listener
