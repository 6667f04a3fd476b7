"""What a user does with conversations and pictures beside chatting, in a real browser over fake models."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from app.exchange import pack
from app.gallery import PAGE
from app.profiles import PROFILES
from app.serve import build_app
from app.store import Store
from app.texts import TEXTS
from tests.app.browser import open_browser, open_page, say, serving
from tests.app.fakes import FakeDialog, FakeGenerator, FakeModels

pytestmark = pytest.mark.browser
PICTURES = "#chat .easel-picture:not(.easel-canvas) img"
TILES = ".easel-tiles button"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "data")
    yield store
    store.close()


@pytest.fixture
def url(store: Store) -> Iterator[str]:
    models = FakeModels(FakeDialog(), FakeGenerator(0.02))
    with serving(build_app(PROFILES["storybook"], store, models)) as url:  # type: ignore[arg-type]
        yield url


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    context = browser.new_context(locale="en-GB")
    page = open_page(context.new_page(), url)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def draw(store: Store, prompts: list[str], title: str) -> None:
    """A conversation with these pictures, as if they had been drawn."""
    settings = PROFILES["storybook"].settings.to_json()
    conversation = store.create_conversation("local", "storybook", settings, seed=7)
    parent = None
    for number, prompt in enumerate(prompts):
        picture = store.add_picture(Image.new("RGB", (48, 32), (number, 0, 0)), {"title": title})
        turn = store.begin_turn(conversation, parent, f"draw {prompt}", (), "auto", 7)
        store.update_turn(turn.id, status="done", prompt=prompt, picture=picture)
        parent = turn.id
    store.change_conversation(conversation, title=title)


def listed(page: Page, which: str) -> list[str]:
    return page.locator(f"#{which} label").all_inner_texts()


def test_conversations_are_searched(page: Page) -> None:
    say(page, "draw a red fox")
    page.click("#new")
    page.wait_for_selector("#chat .example")
    say(page, "你好 小猫")
    page.focus("#gallery-open")
    page.keyboard.press("Tab")
    page.keyboard.type("FLAT fox")  # of the refined prompt
    page.wait_for_selector("#found label")
    assert listed(page, "found") == ["draw a red fox"]
    page.locator("#found label").click()
    page.wait_for_selector(PICTURES)
    expect(page.locator("#found label.selected")).to_have_count(1)
    page.locator("#manage > button").click()
    page.fill("#title textarea, #title input", "Reynard the fox")
    page.get_by_role("button", name="Rename", exact=True).click()
    page.locator("#found label", has_text="Reynard").wait_for()  # the search stands, and knows
    page.click("#new")
    page.wait_for_selector("#chat .example")
    page.locator("#found label:not(.selected)").click()  # what was found can be opened again
    page.wait_for_selector(PICTURES)
    page.fill("#search textarea", "nowhere")
    page.get_by_text("No conversation holds these words.").wait_for()
    page.fill("#search textarea", "小猫")
    page.wait_for_selector("#found label")
    assert listed(page, "found") == ["你好 小猫"]
    page.fill("#search textarea", "")
    page.wait_for_selector("#conversations label")
    assert listed(page, "conversations") == ["你好 小猫", "Reynard the fox"]
    page.fill("#search textarea", "Reynard")
    page.wait_for_selector("#found label")
    page.click("#delete")
    page.click("#really")
    page.get_by_text("No conversation holds these words.").wait_for()


def test_export_and_import(page: Page, store: Store, tmp_path: Path) -> None:
    say(page, "draw a red fox")
    say(page, "give it a hat")
    page.locator("#manage > button").click()
    with page.expect_download() as download:
        page.click("#export")
    assert download.value.suggested_filename == "draw-a-red-fox.zip"
    download.value.save_as(tmp_path / "fox.zip")
    with zipfile.ZipFile(tmp_path / "fox.zip") as archive:
        assert {"conversation.json", "conversation.md", "conversation.html"} < set(archive.namelist())
    page.click("#delete")
    page.click("#really")
    page.wait_for_selector("#chat .example")
    assert store.conversations("local") == []

    upload = page.locator("input[type=file][accept='.zip']")
    (tmp_path / "wrong.zip").write_bytes(b"no zip")
    upload.set_input_files(tmp_path / "wrong.zip")
    page.get_by_text("wrong.zip is no ZIP file").wait_for()
    assert store.conversations("local") == []
    upload.set_input_files(tmp_path / "fox.zip")
    page.wait_for_function("document.querySelectorAll('#chat .easel-picture img').length == 2")
    assert listed(page, "conversations") == ["draw a red fox"]


def test_a_conversation_of_another_size_goes_on(page: Page, store: Store, tmp_path: Path) -> None:
    elsewhere = store.create_conversation("local", "mine", {"width": 64, "height": 32, "steps": 3, "guidance": 2.0}, 7)
    turn = store.begin_turn(elsewhere, None, "hello", (), "auto", 7)
    store.update_turn(turn.id, status="done", text="hello")
    with (tmp_path / "small.zip").open("wb") as file:
        pack(store, [elsewhere], file, TEXTS["en"])
    page.locator("input[type=file][accept='.zip']").set_input_files(tmp_path / "small.zip")
    page.locator("#chat .message.user", has_text="hello").wait_for()
    say(page, "draw a fox")
    assert [(entry.width, entry.height) for entry in store.drawn("local")] == [(64, 32)]


def test_the_gallery(page: Page, store: Store) -> None:
    page.click("#gallery-open")
    page.get_by_text("No pictures yet.").wait_for()
    page.keyboard.press("Escape")
    page.wait_for_selector("#gallery", state="hidden")

    say(page, "draw a fox")
    draw(store, [f"a <b>cat</b> ${{7*7}} {{{{value}}}} number {number}" for number in range(PAGE + 3)], "Cats")
    page.click("#gallery-open")
    page.wait_for_selector(TILES)
    expect(page.locator(TILES)).to_have_count(PAGE)
    expect(page.locator(TILES).first).to_have_text(f"a <b>cat</b> ${{7*7}} {{{{value}}}} number {PAGE + 2}")
    page.get_by_role("button", name="Older").click()
    page.wait_for_function("document.querySelectorAll('.easel-tiles button').length == 4")
    expect(page.locator("#gallery-range")).to_contain_text("49–52 / 52")
    expect(page.locator(TILES).last).to_have_text("A flat picture of a fox.")

    page.locator(TILES).nth(1).click()
    page.wait_for_selector(".easel-large")
    facts = page.locator(".easel-large figcaption").inner_text()
    for fact in ("a <b>cat</b> ${7*7} {{value}} number 1", "7", "48 × 32", "Cats"):
        assert fact in facts
    page.keyboard.press("ArrowRight")
    page.locator(".easel-large", has_text="number 0").wait_for()
    page.keyboard.press("ArrowRight")
    page.locator(".easel-large", has_text="a fox").wait_for()
    expect(page.locator("#gallery-next")).to_be_disabled()
    page.keyboard.press("Escape")
    page.wait_for_selector(TILES)
    page.wait_for_function("document.activeElement?.dataset.place == '51'")

    page.fill("#gallery-search textarea", "CAT 17")
    page.wait_for_function("document.querySelectorAll('.easel-tiles button').length == 1")
    page.fill("#gallery-search textarea", "dog")
    page.get_by_text("No picture's prompt holds these words.").wait_for()
    page.fill("#gallery-search textarea", "number 17")
    page.wait_for_selector(TILES)
    page.locator(TILES).click()
    page.click("#gallery-jump")
    page.wait_for_selector("#gallery", state="hidden")
    page.wait_for_function("document.querySelectorAll('#chat .easel-picture img').length > 50")
    name = store.drawn("local", "number 17")[0].turn.picture
    page.wait_for_function(
        """name => { const box = document.querySelector(`#chat img[src*="${name}"]`).getBoundingClientRect();
                     return box.top > 0 && box.bottom < innerHeight; }""",
        arg=name,
    )


def test_the_gallery_leads_to_a_hidden_branch(page: Page, store: Store) -> None:
    say(page, "draw a fox")
    page.click("#retry")
    page.wait_for_selector(".easel-branch:has-text('2/2')")
    page.wait_for_selector(PICTURES)  # the second is drawn
    page.click("#gallery-open")
    page.wait_for_function("document.querySelectorAll('.easel-tiles button').length == 2")
    page.locator(TILES).last.click()  # the first of the two
    page.click("#gallery-jump")
    page.wait_for_selector(".easel-branch:has-text('1/2')")
    older, newer = sorted(store.drawn("local", "fox"), key=lambda drawn: drawn.turn.created)
    assert older.turn.seed != newer.turn.seed
    (conversation,) = store.conversations("local")
    assert conversation.seed == older.turn.seed, "what is said next changes that picture"


def test_on_a_phone_in_chinese(browser: Browser, url: str, store: Store) -> None:
    draw(store, ["一只猫", "一只狗"], "猫和狗")
    draw(store, ["一只鸟"], "鸟")
    with browser.new_context(viewport={"width": 390, "height": 844}, locale="zh-CN") as context:
        page = open_page(context.new_page(), url)
        page.wait_for_function("!document.querySelector('#shelf').classList.contains('open')")
        page.click("#shelf .toggle-button")
        page.fill("#search textarea", "猫")
        page.locator("#found label", has_text="猫和狗").click()
        page.wait_for_selector(PICTURES)
        page.wait_for_function("!document.querySelector('#shelf').classList.contains('open')")
        page.click("#shelf .toggle-button")
        page.click("#gallery-open")
        page.wait_for_selector(TILES)
        assert page.evaluate("document.querySelector('#gallery').scrollWidth") <= 390
        page.locator(TILES).first.click()
        page.wait_for_selector(".easel-large")
        assert page.evaluate("document.querySelector('#gallery').scrollWidth") <= 390
        page.click("#gallery-jump")
        page.wait_for_function("!document.querySelector('#shelf').classList.contains('open')")
        page.wait_for_function("document.querySelectorAll('#chat .easel-picture img').length == 1")
