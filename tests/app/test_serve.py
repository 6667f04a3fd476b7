"""How Easel starts and stops: the page first; and an open page neither delays the end nor fills the log."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import uvicorn

from app.profiles import PROFILES
from app.quick import FirstPage
from app.serve import KEPT, Server, build_app, sweep
from app.store import Store
from tests.app import fakes


def test_importing_leaves_gradios_stub_files_alone() -> None:
    """In a process of its own, for here Gradio has long been imported; a stub file may not even be writable."""
    script = (
        "import gc, os, time, pathlib\n"
        "from app.quick import quick_imports\n"
        "with quick_imports():\n"
        "    from app.serve import build_app\n"
        "from gradio import component_meta\n"
        "assert component_meta.create_or_modify_pyi(object, 'object', []) is None\n"
        "assert gc.isenabled()\n"
        "import gradio as gr\n"
        "with gr.Blocks(): assert gr.Textbox().submit\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_the_generator_may_load_once_a_page_is_there() -> None:
    seen = threading.Event()

    async def ask() -> None:
        async def app(*args: object) -> None: ...

        first = FirstPage(app, seen)
        await first({"type": "http", "path": "/health"}, None, None)  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        assert not seen.is_set()
        await first({"type": "http", "path": "/zh/gradio_api/queue/join"}, None, None)  # type: ignore[arg-type]
        await asyncio.sleep(0.05)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.quick.SETTLED", 0.01)
        asyncio.run(ask())
    assert seen.is_set()


def test_uploads_of_earlier_runs_are_swept(tmp_path: Path) -> None:
    old, new = (tmp_path / name / "picture.png" for name in ("old", "new"))
    for path in (old, new):
        path.parent.mkdir()
        path.write_bytes(b"picture")
    before = time.time() - KEPT - 60
    os.utime(old, (before, before))
    sweep(tmp_path)
    assert not old.exists() and new.exists()
    sweep(tmp_path / "nothing yet")


def test_an_open_page_does_not_hold_up_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    app = build_app(PROFILES["storybook"], store, fakes.FakeModels())  # type: ignore[arg-type]
    grace = 30
    server = Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=grace, ws="none"), 0.0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    with (
        caplog.at_level(logging.WARNING),
        httpx.Client(base_url=f"http://127.0.0.1:{port}/gradio_api", trust_env=False, timeout=20) as http,
    ):
        body = {"fn_index": 0, "data": [None, None], "session_hash": "abc"}  # the page has been loaded
        http.post("/queue/join", json=body).raise_for_status()
        with (
            http.stream("GET", "/heartbeat/abc") as beats,
            http.stream("GET", "/queue/data", params={"session_hash": "abc"}) as events,
        ):
            streams = [beats.iter_lines(), events.iter_lines()]
            assert [bool(next(lines)) for lines in streams]
            server.should_exit = True
            for lines in streams:
                list(lines)  # to its end
        thread.join(2 * grace)
    assert not thread.is_alive()
    assert not caplog.records  # where its grace is used up, uvicorn complains
    store.close()
