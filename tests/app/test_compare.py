"""Comparing: which two pictures it begins with, and the slider in a real browser, by its keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from app.branches import vary
from app.compare import Comparison
from app.conversation import UserMessage, take_turn
from app.profiles import PROFILES, Profile
from app.serve import build_app
from app.store import Conversation, Store
from app.texts import TEXTS
from tests.app.browser import open_browser, open_page, say, serving
from tests.app.fakes import FakeModels
from tests.app.test_conversation import FOX, SCARF, World
from tests.app.test_pictures import encode


def shown(world: World, turn: Any) -> tuple[list[str], str, str]:
    """The pictures to choose from, the one at the left and the one at the right."""
    comparison = Comparison(TEXTS["en"], world.store, world.profile)
    with gr.Blocks():
        comparison.build_sheet()
    update = comparison.show(world.conversation, turn)
    left, right = re.findall(r'data-side="\w+" src="/v1/pictures/(\w+).png"', update[comparison.stage])
    return [entry.picture for entry in update[comparison.entries]], left, right


async def test_a_change_stands_beside_its_base(store: Store, conversation: Conversation, profile: Profile) -> None:
    world = World(store, conversation, profile)
    world.dialog.replies += [FOX, "<draw>A watercolour picture of a castle.", SCARF]
    for _ in range(3):
        await world.say("on")
    fox, castle, scarf = store.path(world.conversation.leaf)
    pictures = [turn.picture for turn in (fox, castle, scarf)]
    assert shown(world, scarf) == (pictures, fox.picture, scarf.picture)
    assert shown(world, castle) == (pictures, fox.picture, castle.picture), "without a base, the one before"
    assert shown(world, fox) == (pictures, castle.picture, fox.picture)
    async for _ in vary(world.conversation, scarf, world.generator, store, profile, number=1):
        pass
    (other,) = [turn for turn in store.siblings(scarf) if turn.id != scarf.id]
    assert shown(world, other)[1:] == (fox.picture, other.picture)


async def test_an_upload_is_a_base_too_and_the_gallery_goes_on(
    store: Store, conversation: Conversation, profile: Profile
) -> None:
    world = World(store, conversation, profile)
    world.dialog.replies += [FOX]
    await world.say("this one", (encode(Image.new("RGB", (32, 32), "red"), "PNG"),))
    (fox,) = store.path(world.conversation.leaf)
    assert shown(world, fox)[1:] == (fox.uploads[0], fox.picture)
    other = World(store, store.create_conversation("local", profile.name, conversation.settings, seed=8), profile)
    other.dialog.replies += ["<draw>A castle."]
    await other.say("castle")
    (castle,) = store.path(other.conversation.leaf)
    assert shown(other, castle) == ([castle.picture, fox.picture], fox.picture, castle.picture)
    foreign = store.create_conversation("other", profile.name, conversation.settings)
    castles = [event async for event in take_turn(
        foreign, UserMessage("draw a tower"), other.dialog, other.generator, store, profile)]  # fmt: skip
    assert castles and len(shown(other, castle)[0]) == 2, "nobody else's"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    store = Store(tmp_path_factory.mktemp("data"))
    app = build_app(replace(PROFILES["storybook"], inspector=""), store, FakeModels())  # type: ignore[arg-type]
    with serving(app) as url, open_browser() as browser:
        yield open_page(browser.new_page(), url)
    store.close()


@pytest.mark.browser
def test_the_slider(page: Page) -> None:
    say(page, "draw a red fox")
    expect(page.locator("#chat button[name=compare]")).to_have_count(0)
    say(page, "give it a scarf")
    opener = page.locator("#chat button[name=compare]").last
    opener.click()
    slider = page.get_by_role("slider", name=TEXTS["en"].divider)
    slider.wait_for()
    at = "document.querySelector('.easel-slide').style.getPropertyValue('--at')"
    page.wait_for_function("document.activeElement?.type === 'range'")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"{at} === '51%'")
    page.keyboard.press("Home")
    page.wait_for_function(f"{at} === '0%'")
    left = page.locator(".easel-slide img[data-side=left]")
    before = left.get_attribute("src")
    expect(page.locator("#compare-words mark")).to_have_text(", give it a scarf")
    page.locator("input[data-side=left]:checked").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("src => !document.querySelector('.easel-slide img').src.endsWith(src)", arg=before)
    shown = "img => img.src"
    assert left.evaluate(shown) == page.locator(".easel-slide img[data-side=right]").evaluate(shown)
    page.wait_for_function("!document.querySelector('#compare-words mark')")
    page.keyboard.press("Escape")
    page.locator("#compare").wait_for(state="hidden")
    page.wait_for_function("document.activeElement?.name === 'compare'")


@pytest.mark.browser
def test_from_the_gallery(page: Page) -> None:
    page.click("#gallery-open")
    page.locator(".easel-tiles button").first.click()
    page.click("#gallery-compare")
    page.locator(".easel-slide").wait_for()
    expect(page.locator(".easel-choices label")).to_have_count(4)
    page.keyboard.press("Escape")
    page.locator("#compare").wait_for(state="hidden")
    expect(page.locator("#gallery")).to_be_visible()
