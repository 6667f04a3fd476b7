"""The page in a real browser, over fake models: what a user clicks works. The real models are in test_end_to_end.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from app.profiles import PROFILES
from app.serve import build_app
from app.store import Store
from generator.errors import DrawingFailed
from tests.app.browser import open_browser, open_page, say, send, serving, wait_until_loaded
from tests.app.fakes import FakeDialog, FakeGenerator, FakeModels

pytestmark = pytest.mark.browser
PICTURES = "#chat .easel-picture:not(.easel-canvas) img"


@pytest.fixture(scope="module")
def models() -> FakeModels:
    return FakeModels(FakeDialog(pause=0.01), FakeGenerator(0.1))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(tmp_path_factory.mktemp("data"))
    yield store
    store.close()


@pytest.fixture(scope="module")
def url(models: FakeModels, store: Store) -> Iterator[str]:
    with serving(build_app(PROFILES["storybook"], store, models)) as url:  # type: ignore[arg-type]
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    context = browser.new_context(locale="en-GB")
    page = open_page(context.new_page(), url)
    yield page
    context.close()


def test_a_conversation(page: Page, url: str) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    assert say(page, "hello") == "You said: hello"
    assert say(page, "draw a red fox").startswith("Refined prompt")
    say(page, "give it a blue scarf")
    addresses = page.locator(PICTURES).evaluate_all("images => images.map(image => image.src)")
    assert len(set(addresses)) == 2
    wait_until_loaded(page, PICTURES)
    expect(page.locator(".easel-words mark").last).to_have_text(", give it a blue scarf")
    expect(page.locator("#conversations label").first).to_have_text("hello")
    expect(page.locator("#actions")).to_be_visible()

    page.reload()  # everything is still there
    page.wait_for_selector(f"{PICTURES} >> nth=1")
    assert page.input_value("#box textarea") == ""
    assert errors == []


def test_replies_are_rated(page: Page, store: Store) -> None:
    should_have_drawn = page.locator("#chat button:has-text('Should have drawn')")
    say(page, "hello")
    page.locator("#chat button[aria-label=Feedback]").hover()
    should_have_drawn.click()
    say(page, "draw a red fox")
    page.locator("#chat button[aria-label=Like]").last.click()
    page.wait_for_selector("#chat button[aria-label=Liked]")
    page.reload()
    page.wait_for_selector("#chat button[aria-label=Liked]")
    expect(page.locator("#chat button[aria-label=Like]")).to_have_count(1)  # only the picture was liked
    page.locator("#chat button[aria-label=Feedback]").last.hover()
    should_have_drawn.last.click()
    page.wait_for_selector("text=The reply is already of that kind.")
    page.wait_for_selector("#chat button[aria-label=Liked]")  # the earlier rating stands
    assert [rating.verdict for rating in store.ratings()] == ["should_draw", "like"]


def test_html_is_shown_and_not_run(page: Page) -> None:
    evil = '<img src=x onerror="document.title=1"> **b** <script>document.title=2</script> <draw>'
    answer = say(page, evil)
    expect(page.locator("#chat .message.user").last).to_have_text(evil, use_inner_text=True)
    assert answer.startswith('You said: <img src=x onerror="document.title=1">')
    expect(page.locator("#chat .message img")).to_have_count(0)
    assert page.title() == "Easel"


def test_refused_messages_stay_in_the_box(page: Page, tmp_path: Path, store: Store) -> None:
    before = store._db.all("SELECT id FROM conversations")
    send(page, "   ")
    page.get_by_text("The message is empty").wait_for()
    page.fill("#box textarea", "x" * 20_000)
    page.press("#box textarea", "Enter")
    page.get_by_text("20,000 characters; at most 4,000").wait_for()
    assert len(page.input_value("#box textarea")) == 20_000
    expect(page.locator("#chat .message")).to_have_count(0)

    (tmp_path / "notes.png").write_text("no picture")
    page.set_input_files("#box input[type=file]", tmp_path / "notes.png")
    page.wait_for_selector("#box .thumbnail-item, #box .thumbnails")
    send(page, "look at this")
    page.get_by_text("notes.png is not a picture that can be read").wait_for()
    assert store._db.all("SELECT id FROM conversations") == before, "nothing is left of what never began"
    assert page.input_value("#box textarea") == "look at this"
    expect(page.locator("#chat .message")).to_have_count(0)


def test_upload(page: Page, models: FakeModels, tmp_path: Path) -> None:
    Image.new("RGB", (50, 40), "red").save(tmp_path / "red.png")
    page.set_input_files("#box input[type=file]", tmp_path / "red.png")
    page.wait_for_selector("#box .thumbnail-item, #box .thumbnails")
    say(page, "what is this?")
    page.wait_for_selector("#chat .easel-upload")
    (picture,) = models.dialog.asked[-1][0][-1].images
    assert picture.open().getpixel((5, 5)) == (255, 0, 0)


def test_stop_and_retry(page: Page, models: FakeModels) -> None:
    models.generator.pause = 5.0
    send(page, "draw a slow fox")
    page.wait_for_selector(".easel-canvas")
    page.click("#box .stop-button")
    page.wait_for_selector(".easel-note")
    models.generator.pause = 0.05
    assert models.generator.jobs[-1].cancelled.is_set()
    page.click("#retry")
    page.wait_for_selector(PICTURES)
    page.wait_for_selector(".easel-branch")
    expect(page.locator(".easel-branch")).to_have_text("2/2")
    wait_for_pictures(page, 1)
    page.click("#chat button[title='Older branch']")
    page.wait_for_selector(".easel-note")
    page.click("#chat button[title='Newer branch']")
    page.wait_for_selector(PICTURES)


def test_a_failure_is_shown_with_a_retry(page: Page, models: FakeModels) -> None:
    models.dialog.replies.append("<draw>")
    send(page, "draw a fox")
    page.get_by_text("wanted to draw but did not say what").wait_for()
    page.click("#retry")
    page.wait_for_selector(PICTURES)


def test_undo_gives_the_message_back(page: Page) -> None:
    say(page, "hello")
    say(page, "a mistake")
    page.click("#undo")
    page.wait_for_function("document.querySelector('#box textarea').value == 'a mistake'")
    page.wait_for_function("document.querySelectorAll('#chat .message.user').length == 1")


def test_a_conversation_that_was_undone_to_its_beginning_is_not_lost(page: Page) -> None:
    say(page, "no, not this")
    page.click("#undo")
    page.wait_for_function("document.querySelector('#box textarea').value == 'no, not this'")
    page.wait_for_function("document.querySelectorAll('#chat .message.user').length == 0")
    expect(page.locator("#manage")).to_be_visible()
    page.click("#new")
    expect(page.locator("#conversations input:checked")).to_have_count(0)  # else it is open still
    page.locator("#conversations label", has_text="no, not this").click()
    expect(page.locator("#chat .message.user")).to_contain_text("no, not this")


def test_what_a_busy_browser_swallowed_is_asked_for_again(page: Page) -> None:
    say(page, "hello")
    page.evaluate("window.same = true, document.querySelector('#chat .easel-beat').title = '0'")
    page.wait_for_function("(document.querySelector('#chat .easel-beat') ?? {title: '0'}).title != '0'")
    assert page.evaluate("window.same"), "loaded anew"


def test_a_page_that_shows_no_update_any_more_is_loaded_anew(page: Page) -> None:
    say(page, "hello")
    send(page, "draw a slow fox")
    page.locator("#chat .message.user", has_text="slow").wait_for()
    page.fill("#box textarea", "and a hat")
    with page.expect_navigation():
        page.evaluate("document.querySelector('#chat').remove()")
    page.wait_for_selector(PICTURES)
    expect(page.locator("#chat .message.user")).to_have_count(2)
    page.wait_for_function("document.querySelector('#box textarea').value == 'and a hat'")
    page.wait_for_function("!location.search.includes('look')")
    page.evaluate("window.same = true")
    page.wait_for_timeout(12_000)
    assert page.evaluate("window.same") and page.input_value("#box textarea") == "and a hat", "once more, for no reason"


def button(page: Page, name: str) -> Locator:
    """The last one of a name in the chat, variations aside."""
    return page.locator(f"#chat .easel-buttons button[name={name}]").last


def editor(page: Page) -> Locator:
    return page.locator("#chat .easel-editor textarea")


def wait_for_pictures(page: Page, number: int) -> None:
    """Until the conversation shows so many, variations aside, and nothing is under way."""
    page.wait_for_function(
        """n => document.querySelectorAll('#chat .easel-picture > a').length === n
            && document.querySelector('#box .submit-button')""",
        arg=number,
    )


def test_the_refined_prompt_is_edited_and_drawn(page: Page, models: FakeModels, store: Store) -> None:
    say(page, "draw a red fox")
    asked = len(models.dialog.asked)
    button(page, "redraw").click()
    expect(editor(page)).to_have_value("A flat picture of a red fox.")
    expect(editor(page)).to_be_focused()
    editor(page).fill("A flat picture of a <blue> fox.")
    editor(page).press("Escape")
    expect(editor(page)).to_have_count(0)
    expect(button(page, "redraw")).to_be_focused()
    page.keyboard.press("Enter")
    editor(page).fill("A flat picture of a <blue> fox.")
    editor(page).press("Enter")
    page.wait_for_selector(".easel-branch:has-text('2/2')")
    wait_for_pictures(page, 1)
    page.wait_for_function("document.activeElement === document.querySelector('#box textarea')")
    expect(editor(page)).to_have_count(0)
    assert (models.generator.requests[-1].prompt, len(models.dialog.asked)) == (
        "A flat picture of a <blue> fox.",
        asked,
    )
    assert store.ratings()[-1].prompt == "A flat picture of a <blue> fox."
    if not page.locator(".easel-words").is_visible():
        page.locator(".easel-prompt summary").click()
    expect(page.locator(".easel-words")).to_have_text("A flat picture of a <blue> fox.")


def test_a_refused_prompt_stays_in_the_editor(page: Page, models: FakeModels) -> None:
    say(page, "draw a red fox")
    button(page, "redraw").click()
    editor(page).press("Enter")
    page.get_by_text("The prompt is as it was").wait_for()
    editor(page).fill(" ")
    page.locator("#chat .easel-editor [type=submit]").click()
    page.get_by_text("The prompt is empty").wait_for()
    editor(page).press("Escape")
    models.generator.pause = 1.0
    send(page, "draw a slow fox")
    page.wait_for_selector("#chat .easel-canvas")
    button(page, "redraw").click()
    editor(page).fill("A flat picture of a blue fox.")
    editor(page).press("Enter")
    page.get_by_text("The last message is still being answered").wait_for()
    models.generator.pause = 0.05
    wait_for_pictures(page, 2)
    assert editor(page).input_value() == "A flat picture of a blue fox.", "nothing is lost"
    editor(page).press("Enter")
    page.wait_for_selector(".easel-branch:has-text('2/2')")
    wait_for_pictures(page, 1)


def test_variations_are_chosen_from_a_grid(page: Page, models: FakeModels) -> None:
    say(page, "draw a red fox")
    original = page.locator(PICTURES).get_attribute("src")
    before = len(models.generator.requests)
    models.generator.pause = 1.0
    button(page, "vary").click()
    page.wait_for_selector(".easel-cell.easel-canvas >> nth=3")
    models.generator.pause = 0.05
    grid = page.locator("#chat .easel-grid button")
    grid.nth(3).wait_for()
    assert len({request.seed for request in models.generator.requests[before:]}) == 4
    wait_until_loaded(page, "#chat .easel-grid img")
    corners = grid.evaluate_all("cells => cells.map(cell => [cell.offsetLeft, cell.offsetTop])")
    assert len(corners) == 4 and len({x for x, _ in corners}) == len({y for _, y in corners}) == 2, "two by two"
    chosen = grid.nth(2).locator("img").get_attribute("src")
    grid.nth(2).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#chat .easel-picture > a[href='{chosen}']")
    assert original in grid.locator("img").evaluate_all("images => images.map(image => image.getAttribute('src'))")
    say(page, "give it a blue scarf")
    edit = models.generator.requests[-1]
    assert edit.source is not None and edit.seed in {request.seed for request in models.generator.requests[before:-1]}
    assert not page.locator("#chat .easel-others").first.evaluate("others => others.open"), "chosen: out of the way"


def test_variations_that_cannot_be_drawn_are_said(page: Page, models: FakeModels) -> None:
    say(page, "draw a red fox")
    models.generator.errors.append(DrawingFailed("The device gave up."))
    button(page, "vary").click()
    page.get_by_text("The device gave up.").wait_for()
    page.wait_for_selector("#chat .easel-grid button >> nth=2")
    expect(page.locator("#chat .easel-grid button")).to_have_count(3)


def test_an_earlier_picture_is_changed_next(page: Page, models: FakeModels) -> None:
    say(page, "draw a red fox")
    say(page, "give it a blue scarf")
    say(page, "now make it night")
    page.locator("#chat button[name=base]").first.click()
    page.wait_for_selector(".easel-later")
    wait_for_pictures(page, 1)
    page.get_by_role("button", name="Show them").click()
    wait_for_pictures(page, 3)
    page.locator("#chat button[name=base]").first.click()
    wait_for_pictures(page, 1)
    say(page, "give it a hat")
    assert models.generator.requests[-1].prompt == "A flat picture of a red fox, give it a hat."
    expect(page.locator(".easel-later")).to_have_count(0)
    page.get_by_role("button", name="Older branch").click()
    wait_for_pictures(page, 3)
    page.wait_for_function("document.activeElement !== document.body")
    page.reload()
    wait_for_pictures(page, 3)


def test_a_message_is_edited(page: Page, models: FakeModels) -> None:
    message = "draw a <b>red</b> fox\n  in the *snow*"
    say(page, "hello")
    say(page, message)
    say(page, "thank you")
    page.get_by_role("button", name="Edit this message and send it again").nth(1).click()
    expect(editor(page)).to_have_value(message)
    editor(page).fill("draw a castle")
    editor(page).press("Shift+Enter")
    editor(page).type("at night")
    editor(page).press("Enter")
    page.wait_for_selector(".easel-branch:has-text('2/2')")
    wait_for_pictures(page, 1)
    assert models.generator.requests[-1].prompt.startswith("A flat picture of a castle")
    expect(page.locator("#chat .message.user")).to_have_count(2)
    page.get_by_role("button", name="Older branch").click()
    page.locator("#chat .message.user", has_text="thank you").wait_for()
    expect(page.locator("#chat .message.user")).to_have_count(3)


def test_the_place_in_the_queue_is_shown(page: Page, models: FakeModels) -> None:
    models.generator.ahead = 2
    try:
        send(page, "draw a red fox")
        page.get_by_text("2 pictures before yours").wait_for()
        models.generator.ahead = 1
        page.get_by_text("One picture before yours").wait_for()
    finally:
        models.generator.ahead = 0
    page.wait_for_selector(PICTURES)


def test_a_turn_on_a_phone(browser: Browser, url: str) -> None:
    with browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, locale="zh-CN") as context:
        page = open_page(context.new_page(), url)
        say(page, "draw a fox " + "that is long " * 12)
        button(page, "vary").tap()
        page.wait_for_selector("#chat .easel-grid button >> nth=3")
        button(page, "redraw").tap()
        page.wait_for_function("document.querySelector('#chat .easel-editor textarea') === document.activeElement")
        page.get_by_role("button", name="取消").tap()
        page.locator("#chat button[name=reword]").tap()
        editor(page).wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        box = editor(page).bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390


def test_seed_and_settings(page: Page, models: FakeModels) -> None:
    page.click("#settings button")
    page.fill("#seed input", "123")
    page.press("#seed input", "Tab")
    say(page, "draw a fox")
    assert models.generator.requests[-1].seed == 123
    page.click("#seeds label:has-text('Lock')")
    page.wait_for_timeout(500)
    page.click("#retry")
    page.wait_for_selector(".easel-branch")
    wait_for_pictures(page, 1)
    assert models.generator.requests[-1].seed == 123
    page.click("#reroll")
    page.wait_for_function("document.querySelector('#seed input').value != '123'")
    rolled = int(page.input_value("#seed input"))
    page.wait_for_timeout(500)
    say(page, "make it blue")
    assert models.generator.requests[-1].seed == rolled


def test_a_style_and_a_format_for_the_pictures(page: Page, models: FakeModels, store: Store) -> None:
    page.click("#settings button")
    page.click("#size input")
    page.click("#size [role=option]:has-text('landscape')")
    page.click("#style input")
    page.click("#style [role=option]:has-text('Watercolour')")
    page.wait_for_timeout(500)
    say(page, "draw a red fox")
    assert models.generator.requests[-1].prompt == "A watercolour picture of a red fox."
    assert models.generator.requests[-1].size == (256, 192)
    expect(page.locator(".easel-prompt .easel-facts").last).to_contain_text("Style Watercolour")
    expect(page.locator(".easel-words").last).to_have_text("A flat picture of a red fox.")
    page.reload()  # the conversation keeps it
    page.wait_for_selector(PICTURES)
    page.click("#settings button")
    expect(page.locator("#style input")).to_have_value("Watercolour")
    expect(page.locator("#size input")).to_have_value("256×192 landscape")


def test_modes(page: Page, models: FakeModels) -> None:
    page.locator("#mode label", has_text="Talk").click()
    say(page, "hello")
    assert models.dialog.asked[-1][1] == "talk"


def test_what_was_answered_in_words_is_drawn(page: Page, models: FakeModels, store: Store) -> None:
    assert say(page, "hello") == "You said: hello"
    models.dialog.replies.append("<draw>A flat picture of a hat.")
    page.locator("#chat button[name=paint]").click()
    page.wait_for_selector(PICTURES)
    assert models.dialog.asked[-1][1] == "draw"
    expect(page.locator("#chat button[name=paint]")).to_have_count(0)
    expect(page.locator(".easel-branch")).to_have_text("2/2")
    assert store.ratings()[-1].verdict == "should_draw"
    page.locator("#chat button[name=branch]").first.click()  # the words are still there
    expect(page.locator("#chat button[name=paint]")).to_be_visible()


def test_examples(page: Page) -> None:
    page.locator("#chat .example").first.click()
    page.wait_for_selector(PICTURES)
    expect(page.locator("#chat .message.user").first).to_contain_text("fox")


def test_the_list_of_conversations(page: Page) -> None:
    say(page, "the first one")
    page.click("#new")
    page.wait_for_selector("#chat .example")
    say(page, "the second one")
    page.locator("#conversations label", has_text="the first one").first.click()
    page.locator("#chat .message.user", has_text="the first one").wait_for()
    page.locator("#manage > button").click()
    page.fill("#title textarea, #title input", "renamed")
    page.get_by_role("button", name="Rename", exact=True).click()
    page.locator("#conversations label", has_text="renamed").wait_for()
    page.click("#delete")
    page.click("#really")
    page.wait_for_selector("#chat .example")
    expect(page.locator("#conversations label", has_text="renamed")).to_have_count(0)


def test_looking_elsewhere_while_it_draws(page: Page, models: FakeModels) -> None:
    say(page, "an old one")
    page.click("#new")
    page.wait_for_selector("#chat .example")
    models.generator.pause = 0.6
    send(page, "draw a fox in the background")
    page.wait_for_selector(".easel-canvas")
    page.locator("#conversations label", has_text="an old one").first.click()
    page.locator("#chat .message.user", has_text="an old one").wait_for()
    page.wait_for_timeout(1500)
    expect(page.locator(".easel-canvas")).to_have_count(0)
    page.locator("#conversations label", has_text="in the background").first.click()
    page.wait_for_selector(PICTURES)
    page.wait_for_function("!document.querySelector('.easel-canvas')")
    models.generator.pause = 0.05


def test_warming_up_is_said_and_nothing_waits_for_it(browser: Browser, url: str, models: FakeModels) -> None:
    ready = models.status
    models.status = {"status": "warming up", "dialog": "warming up", "generator": "ready"}
    with browser.new_context(locale="en-GB") as context:
        page = open_page(context.new_page(), url)
        page.get_by_text("Warming up").wait_for()
        page.fill("#box textarea", "typed already")
        models.status = ready
        page.wait_for_selector("#status", state="hidden")
        assert page.input_value("#box textarea") == "typed already"


def test_chinese_and_back(browser: Browser, url: str) -> None:
    with browser.new_context(locale="zh-CN") as context:
        page = open_page(context.new_page(), url)
        assert "/zh" in page.url
        page.get_by_text("想画点什么").wait_for()
        page.click("#corner a:has-text('English')")
        page.get_by_text("What shall we draw?").wait_for()


def test_phone_and_dark(browser: Browser, url: str) -> None:
    with browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark") as context:
        page = open_page(context.new_page(), url)
        page.wait_for_function("!document.querySelector('#shelf').classList.contains('open')")
        say(page, "draw a fox")
        page.wait_for_function("document.body.classList.contains('dark')")
        page.wait_for_function("pictures => document.querySelector(pictures)?.clientWidth > 250", arg=PICTURES)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.evaluate("document.querySelector('[data-easel=theme]').click()")
        page.wait_for_function("!document.body.classList.contains('dark')")


def test_the_page_asks_nobody_else(browser: Browser, url: str) -> None:
    asked: list[str] = []
    with browser.new_context() as context:
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        open_page(page, url)
        say(page, "hello")
    assert {
        re.sub(r"^(\w+://[^/]+).*", r"\1", address) for address in asked if not address.startswith(("data:", "blob:"))
    } == {url}
