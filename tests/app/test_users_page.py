"""Two people at one server, each in a browser of their own: signing in, seeing one's own, and out again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from app.accounts import Accounts
from app.profiles import PROFILES
from app.serve import build_app
from app.store import Store
from tests.app.browser import PATIENCE, open_browser, say, serving, wait_until_loaded
from tests.app.fakes import FakeModels

pytestmark = pytest.mark.browser
GOOD = "a long password"


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    accounts = Accounts(tmp_path_factory.mktemp("data"))
    accounts.add("anna", GOOD, admin=True)
    accounts.add("ben", GOOD)
    yield accounts
    accounts.close()


@pytest.fixture(scope="module")
def url(accounts: Accounts) -> Iterator[str]:
    store = Store(accounts.folder)
    with serving(build_app(PROFILES["storybook"], store, FakeModels(), accounts=accounts)) as url:  # type: ignore[arg-type]
        yield url
    store.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


def enter(page: Page, url: str, name: str, password: str = GOOD) -> None:
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.fill("[name=name]", name)
    page.fill("[name=password]", password)
    page.press("[name=password]", "Enter")


def wait_for_chat(page: Page) -> None:
    page.wait_for_selector("#box textarea:enabled")
    page.wait_for_selector("#person a")


def test_two_users(browser: Browser, url: str, accounts: Accounts) -> None:
    with browser.new_context(locale="en-GB") as hers, browser.new_context(locale="en-GB") as his:
        anna, ben = hers.new_page(), his.new_page()
        errors: list[str] = []
        anna.on("pageerror", lambda error: errors.append(str(error)))
        enter(anna, url, "anna", "wrong")
        anna.get_by_text("The name or the password is wrong").wait_for()
        assert anna.input_value("[name=name]") == "anna"
        enter(anna, url, "anna")
        enter(ben, url, "ben")
        for page in (anna, ben):
            wait_for_chat(page)
        say(anna, "draw a red secret")
        picture = anna.locator("#chat .easel-picture img").get_attribute("src")
        wait_until_loaded(anna, "#chat .easel-picture img")
        say(ben, "hello")
        ben.reload()
        wait_for_chat(ben)
        expect(ben.locator("#conversations label")).to_have_text(["hello"])
        ben.click("#gallery-open")
        ben.get_by_text("No pictures yet").wait_for()
        response = ben.goto(url + (picture or ""))
        assert response is not None and response.status == 404

        anna.reload()  # the session is kept, and what is hers is there
        wait_for_chat(anna)
        anna.wait_for_selector("#chat .easel-picture img")
        assert anna.locator("#person").inner_text().split() == ["anna", "Improve", "Administration", "Sign", "out"]
        anna.get_by_role("link", name="Administration").click()
        anna.get_by_role("heading", name="Users").wait_for()
        anna.fill("section:has-text('Add a user') [name=name]", "cleo")
        anna.fill("section:has-text('Add a user') [name=password]", GOOD)
        anna.get_by_role("button", name="Add a user").click()
        anna.get_by_text("Added: cleo").wait_for()
        anna.get_by_role("link", name="To the chat").click()
        wait_for_chat(anna)
        other = hers.new_page()
        other.goto(f"{url}/account")
        other.get_by_role("button", name="Sign out", exact=True).click()
        other.wait_for_url("**/signin")
        anna.get_by_text("You are signed out").wait_for()  # what stands in the box is not lost by it
        anna.goto(url)
        anna.wait_for_selector("[name=password]")
        assert errors == []


def test_the_next_user_of_a_browser_sees_nothing_of_the_last(browser: Browser, url: str) -> None:
    with browser.new_context(locale="en-GB") as context:
        page = context.new_page()
        enter(page, url, "anna")
        wait_for_chat(page)
        say(page, "what only anna knows")
        page.get_by_role("button", name="Sign out").click()
        enter(page, url, "ben")
        wait_for_chat(page)
        page.wait_for_timeout(500)
        assert "only anna" not in page.content()


def test_an_upload_comes_back_with_undo(browser: Browser, url: str, accounts: Accounts) -> None:
    from tests.app.test_signin import png

    with browser.new_context(locale="en-GB") as context:
        page = context.new_page()
        enter(page, url, "ben")
        wait_for_chat(page)
        page.set_input_files("#box input[type=file]", {"name": "a.png", "mimeType": "image/png", "buffer": png("red")})
        page.wait_for_selector("#box img")
        say(page, "look at this")
        wait_until_loaded(page, "#chat .easel-upload")
        page.click("#undo")
        page.wait_for_function("document.querySelector('#box img')?.naturalWidth > 0")
        assert page.input_value("#box textarea") == "look at this"


@pytest.mark.parametrize(("width", "scheme", "locale"), [(390, "dark", "zh-CN"), (1280, "light", "en-GB")])
def test_the_pages_fit(browser: Browser, url: str, width: int, scheme: str, locale: str) -> None:
    with browser.new_context(
        viewport={"width": width, "height": 844},
        color_scheme=scheme,
        locale=locale,  # type: ignore[arg-type]
    ) as context:
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector("[name=password]")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        enter(page, url, "anna")
        wait_for_chat(page)
        for path in ("/account", "/admin"):
            page.goto(url + path)
            page.wait_for_selector("h1")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            dark = page.evaluate("document.documentElement.classList.contains('dark')")
            assert dark == (scheme == "dark")
