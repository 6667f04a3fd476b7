"""Hostile words in the page, in a real browser: they are shown as they were written, and nothing is loaded for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from app.profiles import PROFILES
from app.serve import build_app
from app.store import Store
from tests.app.browser import open_browser, open_page, say, serving
from tests.app.fakes import FakeDialog, FakeModels

pytestmark = pytest.mark.browser
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script> ![a](http://evil.example/p.png) [b](javascript:alert(3))"
TITLE = "<img src=x onerror=alert(4)>"


@pytest.fixture
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, list[str]]]:
    """The page, and what went wrong in it."""
    store = Store(tmp_path_factory.mktemp("data"))
    models = FakeModels(FakeDialog(EVIL, f"<draw>a fox {EVIL}", "hello"))
    trouble: list[str] = []
    with serving(build_app(PROFILES["storybook"], store, models)) as url, open_browser() as browser:  # type: ignore[arg-type]
        page = browser.new_page()
        page.on("dialog", lambda dialog: (trouble.append(f"dialog {dialog.message}"), dialog.dismiss())[1])
        page.on("pageerror", lambda error: trouble.append(f"error {error}"))
        page.on(
            "request", lambda request: request.url.startswith((url, "data:", "blob:")) or trouble.append(request.url)
        )
        yield open_page(page, url), trouble
    store.close()


def test_hostile_words(seen: tuple[Page, list[str]]) -> None:
    page, trouble = seen
    assert "<script>alert(2)</script>" in say(page, EVIL)
    expect(page.locator("#chat .message.user, #chat .user.message").first).to_contain_text("<script>alert(2)</script>")
    say(page, "draw it")
    page.locator("#chat details.easel-prompt").last.evaluate("details => details.open = true")
    expect(page.locator("#chat .easel-words").last).to_contain_text("<script>alert(2)</script>")
    page.locator("#manage button").first.click()
    page.fill("#title textarea, #title input", TITLE)
    page.press("#title textarea, #title input", "Enter")
    page.wait_for_function("t => document.querySelector('#conversations').innerText.includes(t)", arg=TITLE)
    expect(page.locator("#chat img[src*=evil], #chat script, #chat a[href^=javascript], img[src=x]")).to_have_count(0)
    assert trouble == []


def test_gradios_own_page_asks_nobody_else(seen: tuple[Page, list[str]]) -> None:
    page, trouble = seen
    page.wait_for_timeout(1000)
    assert trouble == []
