"""A real browser and a real server, for tests of the page."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect

CONSOLE: WeakKeyDictionary[Page, list[str]] = WeakKeyDictionary()  # what each page's console said
PATIENCE = 60_000  # milliseconds; the machine may be busy
expect.set_options(timeout=PATIENCE)


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Debian's chromium where it is installed, else Playwright's own; without either the test fails."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM") or shutil.which("chromium")
        try:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        except Error as error:
            pytest.fail(f"no browser: {str(error).splitlines()[0]} (apt-get install chromium)")
        yield browser
        browser.close()


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """The app in a thread of this process, on a free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        while thread.is_alive():
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"{url}/health", timeout=5, trust_env=False)
                break
            time.sleep(0.1)
        yield url
        server.should_exit = True
        thread.join(30)


def open_page(page: Page, url: str) -> Page:
    """The page, once it takes input."""
    page.set_default_timeout(PATIENCE)
    said = CONSOLE.setdefault(page, [])
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("requestfailed", lambda request: said.append(f"failed: {request.method} {request.url} {request.failure}"))
    page.goto(url)
    try:
        page.wait_for_selector("#box textarea:enabled")
        page.wait_for_function("document.querySelector('#status')?.dataset.state")  # the script is alive too
    except Exception:
        print("\n".join(said))
        raise
    return page


def send(page: Page, text: str) -> None:
    page.fill("#box textarea", text)
    page.press("#box textarea", "Enter")


def say(page: Page, text: str) -> str:
    """Sends, waits for the whole answer, and returns the answer's text, without that of its buttons."""
    before = page.locator("#chat .bot.message, #chat .message.bot").count()
    send(page, text)
    # On a busy machine the button that stops is there a moment after the first words: so they must stand still, too.
    page.wait_for_function(
        """n => {
            const messages = document.querySelectorAll('#chat .message.bot')
            const ended = messages.length > n && document.querySelector('#box .submit-button')
                && !document.querySelector('.easel-canvas, .easel-thinking')
            const said = ended ? messages[messages.length - 1].innerText : null
            if (said === null || said !== window.easelSaid?.text)
                window.easelSaid = { text: said, since: performance.now() }
            return ended && performance.now() - window.easelSaid.since > 400
        }""",
        arg=before,
    )
    buttons = page.locator("#chat .message.bot").last.locator(".easel-tools")
    text = page.locator("#chat .message.bot").last.inner_text()
    for words in buttons.all_inner_texts():
        text = text.replace(words, "")
    return text.strip()


def wait_until_loaded(page: Page, pictures: str) -> None:
    page.wait_for_function(
        "all => [...document.querySelectorAll(all)].every((one) => one.naturalWidth > 0)", arg=pictures
    )
