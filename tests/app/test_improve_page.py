"""The Improve page in a real browser: over stand-ins for what takes long, and once with all that is real."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app import improving
from app.profiles import PROFILES
from app.serve import build_app
from app.store import Store
from dialog_mllm.adapters import ORIGINAL, Adapters
from dialog_mllm.switching import LiveAdapters
from tests.app.browser import PATIENCE, open_browser, open_page, say, serving
from tests.app.fakes import FakeDialog, FakeModels
from tests.app.test_end_to_end import easel_chat, wait_for
from tests.app.test_improving import COMMAND, ROOT
from tests.dialog_mllm.test_switching import FakeVllm

pytestmark = pytest.mark.browser
STORYBOOK = PROFILES["storybook"]


def rate_some(store: Store) -> None:
    """Two things to learn: a prompt that was put right, and a reply that should have drawn."""
    conversation = store.create_conversation("local", "storybook", STORYBOOK.settings.to_json(), seed=7)
    fox = store.begin_turn(conversation, None, "draw a red fox", (), "auto", 7)
    fox = store.update_turn(fox.id, status="done", prompt="A flat picture of a red fox.")
    store.rate(fox, "like", "A flat picture of a red fox, in the snow by day.")
    cat = store.begin_turn(conversation, None, "a cat would be nice", (), "auto", 7)
    store.rate(
        store.update_turn(cat.id, status="done", text="Cats are nice."), "should_draw", "A flat picture of a cat."
    )


def open_improve(page: Page, url: str, path: str = "/improve/") -> Page:
    page.set_default_timeout(PATIENCE)
    page.goto(url + path)
    page.wait_for_selector("#improve-versions tr[data-version=original], #unavailable")
    page.wait_for_function("document.querySelector('#status')?.dataset.state")
    return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context(locale="en-GB", viewport={"width": 1100, "height": 1000}) as context:
        yield context.new_page()


@pytest.fixture
def models(tmp_path: Path) -> FakeModels:
    dialog = FakeDialog()
    dialog.live = LiveAdapters(FakeVllm(), Adapters(tmp_path / "adapters", STORYBOOK.dialog))  # type: ignore[assignment]
    return FakeModels(dialog)


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "control").mkdir()
    monkeypatch.setenv("EASEL_FAKE", str(tmp_path / "control"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(improving, "EASEL", COMMAND)
    return tmp_path / "control"


@pytest.fixture
def url(models: FakeModels, store: Store, control: Path) -> Iterator[str]:
    rate_some(store)
    with serving(build_app(STORYBOOK, store, models)) as url:  # type: ignore[arg-type]
        yield url


def shoot(page: Page, name: str) -> None:
    if folder := os.environ.get("EASEL_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_a_run(page: Page, url: str, models: FakeModels, control: Path) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    open_improve(page, url)
    expect(page.locator(".improve-counts li[data-kind=edited] b")).to_have_text("2")
    shoot(page, "improve-idle")
    (control / "slow").touch()
    page.click("#improve-start")
    page.wait_for_selector(".improve-stages li[data-mark=now]:has-text('Training') .easel-bar")
    page.wait_for_selector(".improve-curve svg")
    shoot(page, "improve-running")
    page.click("#improve-stop")
    page.wait_for_selector(".improve-run[data-state=stopped]")
    page.reload()
    (control / "slow").unlink()
    (control / "worse").touch()
    page.click("#improve-resume")
    page.wait_for_selector(".improve-verdict[data-found=worse]")
    assert page.locator("tr[data-measure=prompt_correct]").first.inner_text().startswith("Refined prompt right")
    page.click("#improve-use")
    page.wait_for_selector(".improve-gate:has-text('Worse than before')")
    shoot(page, "improve-worse")
    live = models.dialog.live
    assert isinstance(live, LiveAdapters) and live.now.name == ORIGINAL, "not before the second click"
    page.locator(".improve-anyway:visible").click()
    page.wait_for_selector("tr[data-version=v1] .improve-active")
    assert live.now.name == "v1"
    page.click("#improve-back")
    page.wait_for_selector("tr[data-version=original] .improve-active")
    assert live.now.name == ORIGINAL

    page.click("#improve-version input")
    page.locator("ul[role=listbox] li:has-text('v1')").click()
    page.click("#improve-try")  # it is worse: that wants a second click
    page.locator(".improve-anyway:visible").click()
    page.wait_for_selector("tr[data-version=v1]:has-text('tried on 50%')")
    assert (live.trial, live.now.name) == (("v1", 0.5), ORIGINAL)
    shoot(page, "improve-trial")
    page.click("#improve-end")
    page.wait_for_selector("tr[data-version=v1]:not(:has-text('tried on'))")
    assert live.trial is None

    live.registry.activate("v1", anyway=True)  # as `easel adapters` does
    live.look()
    page.wait_for_selector("tr[data-version=v1] .improve-active")
    assert errors == []


def test_an_error_is_shown_and_the_run_discarded(page: Page, url: str, control: Path) -> None:
    (control / "fail-finetune").touch()
    open_improve(page, url)
    page.click("#improve-start")
    page.wait_for_selector(".easel-error:has-text('there is no luck today')")
    page.click("#improve-discard")
    page.click("#improve-really")
    page.wait_for_selector("#improve-start")
    page.click("#improve-size button")
    page.fill("#improve-minutes input", "0")
    page.click("#improve-start")
    page.get_by_text("minutes must lie from 0.01").wait_for()


def test_chinese_narrow_and_dark(browser: Browser, url: str, control: Path) -> None:
    with browser.new_context(locale="zh-CN", viewport={"width": 390, "height": 844}, color_scheme="dark") as context:
        page = open_improve(context.new_page(), url, "/zh/improve/")
        page.click("#improve-start")
        page.wait_for_selector(".improve-verdict[data-found=better]:has-text('更好')")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        expect(page.locator("body.dark")).to_have_count(1)
        shoot(page, "improve-zh")
        page.click("#improve-head a:has-text('返回')")
        page.wait_for_selector("#box textarea:enabled")


def test_a_model_of_somebody_else_cannot_be_trained(page: Page, store: Store) -> None:
    with serving(build_app(replace(STORYBOOK, mllm_url="http://127.0.0.1:1/v1"), store, FakeModels())) as url:  # type: ignore[arg-type]
        open_improve(page, url)
        expect(page.locator("#unavailable")).to_contain_text("without --mllm-url")


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_with_all_that_is_real(page: Page, tmp_path: Path) -> None:
    """A few steps of training are no good adapter, but a real one: it is trained, measured, served and taken back."""
    data = tmp_path / "data"
    store = Store(data)
    rate_some(store)
    store.close()
    with easel_chat(data) as (url, _):
        wait_for(url, "ready")
        open_improve(page, url)
        page.click("#improve-size button")
        for field, value in (("minutes", "0.05"), ("replay", "24"), ("held-out", "4")):
            page.fill(f"#improve-{field} input", value)
        page.click("#improve-start")
        page.wait_for_selector("#improve-use:visible, .easel-error", timeout=1_500_000)
        assert page.locator(".easel-error").count() == 0, page.locator(".easel-error").inner_text()
        shoot(page, "improve-real")
        expect(page.locator("tr[data-measure=switch_accuracy]")).to_have_count(2)
        page.click("#improve-use")
        page.wait_for_selector(".improve-anyway:visible, tr[data-version=v1] .improve-active")
        if page.locator(".improve-anyway:visible").count():
            page.locator(".improve-anyway:visible").click()
        page.wait_for_selector("tr[data-version=v1] .improve-active")

        chat = open_page(page.context.new_page(), url)
        assert say(chat, "hello, who are you?").strip()
        command = [sys.executable, "-m", "app.cli", "adapters", "rollback", "--store", str(data)]
        subprocess.run(command, cwd=ROOT, check=True)
        page.wait_for_selector("tr[data-version=original] .improve-active")
        assert say(chat, "draw a red fox").strip()
