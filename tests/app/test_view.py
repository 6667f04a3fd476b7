from __future__ import annotations

import asyncio
import re
from dataclasses import fields, replace
from html.parser import HTMLParser

import pytest

from app.profiles import PROFILES
from app.running import Canvas, Run
from app.store import Conversation, Store, Turn
from app.texts import TEXTS, Texts
from app.view import difference, literal, show_turns

EN = TEXTS["en"]


def turn(store: Store, conversation: Conversation, said: str = "hi", **fields: object) -> Turn:
    made = store.begin_turn(conversation, None, said, (), "auto", 7)
    return store.update_turn(made.id, **fields)


def test_what_users_type_is_shown_as_typed() -> None:
    evil = '<img src=x onerror="alert(1)"> [a](javascript:1) ![b](http://x/y.png) **c** `d` <draw> http://x www.x.y'
    shown = literal(evil)
    assert not re.search(r"[<>\[\]*`!]|://|www\.", shown)
    assert literal("1. one\n- two\n# three\n    four").startswith("&#49;. one\n&#45; two\n&#35; three\n\u00a0")
    assert literal("hello, who are you? It's me (really) - yes") == "hello, who are you? It's me (really) - yes"
    assert literal("画一只狐狸。") == "画一只狐狸。"


def test_the_models_text_has_no_html(store: Store, conversation: Conversation) -> None:
    said = turn(store, conversation, status="done", text="**bold** <script>x</script> ![p](http://evil/x.png)")
    content, _, button = show_turns([said], None, EN)[1]["content"].partition("\n\n<div")
    assert content.startswith("**bold** ") and 'name="paint"' in button
    assert not re.search(r"[<>]|!\[|://", content)


HOSTILE = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</div></figure><iframe src=javascript:alert(1)>",
    '" onload="alert(1)', "' onerror='alert(1)", "<svg/onload=alert(1)>", "&lt;script&gt;alert(1)&lt;/script&gt;",
    "[a](javascript:alert(1))", "![a](http://evil.example/x.png)", "<http://evil.example>", "www.evil.example",
    "[a]: javascript:alert(1)\n\n[a]", "```html\n<script>alert(1)</script>\n```", "\n\n<script>alert(1)</script>\n\n",
    "<!--", "<style>*{display:none}</style>", "<draw><switch>", "\u202e<b>\u2066", "a\x00<b>",
    "<a href='data:text/html,x'>x",
)  # fmt: skip


class Tags(HTMLParser):
    """What a browser would make elements of."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.attributes.update(attrs)


@pytest.mark.parametrize("evil", HOSTILE)
@pytest.mark.parametrize("status", ["done", "failed", "drawing"])
def test_nothing_hostile_becomes_html(store: Store, conversation: Conversation, evil: str, status: str) -> None:
    """Whoever said it: the user, the model before and in the prompt, or an error's text."""
    said = {"status": status, "text": evil, "error": evil}
    turns = [
        turn(store, conversation, evil, **said, prompt=f"a fox {evil}", picture="f" * 32),
        turn(store, conversation, evil, **said, prompt=f"a {evil} fox", picture="e" * 32),
        turn(store, conversation, evil, **said, prompt=evil),
    ]
    run = Run(turns[-1], asyncio.Event(), text=evil, prompt=evil, drawing=True)
    for message in [*show_turns(turns, None, EN), *show_turns(turns, run, EN)]:
        tags = Tags()
        tags.feed(message["content"])
        ours = {"figure", "figcaption", "a", "img", "details", "summary", "small", "div", "br", "del", "mark"}
        assert tags.found <= ours | {"button", "span"}
        names = {name for name, _ in tags.attributes}
        known = {"class", "href", "target", "rel", "src", "alt", "width", "height", "style", "role"}
        assert names <= known | {"type", "name", "value", "title", "disabled", "hidden", "open"}
        addresses = [value or "" for name, value in tags.attributes if name in ("src", "href")]
        assert all(re.fullmatch(r"/v1/pictures/[ef]+\.png", address) for address in addresses)
        markdown = re.split(r"(?:^|\n\n)<(?=figure|details|div)", message["content"])[0]
        assert not re.search(r"[\[\]<>!]|://|www\.", markdown)  # neither HTML nor links nor pictures there


def test_differences_are_marked() -> None:
    before, after = "A red fox in the snow.", "A red fox with a blue scarf in the snow."
    assert difference(before, after) == "A red fox<mark> with a blue scarf</mark> in the snow."
    assert difference("一只红色的狐狸", "一只蓝色的狐狸") == "一只<del>红</del><mark>蓝</mark>色的狐狸"
    assert difference("a <b>", "a <i>") == "a &lt;<del>b</del><mark>i</mark>&gt;"
    assert "<mark>" not in difference(before, before)


def test_long_prompts_are_compared_as_far_as_time_allows() -> None:
    shown = difference("a fox " + "!" * 4000 + " in snow", "a fox " + "!." * 2000 + " in snow")  # minutes, one by one
    assert shown.startswith("a fox !<del>!") and shown.endswith("</mark> in snow")
    assert shown.count("<del>") == shown.count("<mark>") == 1
    long = "word " * 900
    assert difference(long + "red", long + "blue") == f"{long}<del>red</del><mark>blue</mark>"


def test_a_picture_with_its_prompt(store: Store, conversation: Conversation) -> None:
    first = turn(store, conversation, status="done", prompt="a red fox", picture="f" * 32)
    second = turn(store, conversation, status="done", prompt="a blue fox", picture="e" * 32, draw_probability=0.98)
    content = [message["content"] for message in show_turns([first, second], None, EN)]
    assert f'src="/v1/pictures/{"f" * 32}.png"' in content[1]
    assert "a red fox" in content[1]
    assert "<mark>" not in content[1]
    assert "<del>red</del><mark>blue</mark>" in content[3]
    assert "98% sure to draw" in content[3]
    assert "\n\n" not in content[1]  # an empty line would end the HTML


def test_what_can_be_done_with_a_turn(store: Store, conversation: Conversation) -> None:
    first = turn(store, conversation, 'a\n\n"fox" & <b>', status="done", prompt='a "red" <fox>', picture="f" * 32)
    other = store.add_sibling(first, picture="e" * 32)
    talk = store.add_sibling(first, said="hello", prompt="", picture=None, text="Hi.")
    said, picture, _, answer = [
        message["content"] for message in show_turns([first, talk], None, EN, {first.id: store.siblings(first)})
    ]
    assert '<span class="easel-raw" hidden>a&#10;&#10;&quot;fox&quot; &amp; &lt;b&gt;</span>' in said
    assert f'name="reword" value="{first.id}"' in said
    assert "1/3" in said and f'name="branch" value="{other.id}" title="Newer branch"' in said
    assert f'name="branch" value="{first.id}" title="Older branch" class="easel-icon" disabled' in said
    assert all(f'name="{name}" value="{first.id}"' in picture for name in ("redraw", "vary", "base"))
    assert "a &quot;red&quot; &lt;fox&gt;</span>" in picture
    assert f'name="base" value="{other.id}"' in picture and f"/v1/pictures/{'e' * 32}.png" in picture
    assert f'name="paint" value="{talk.id}"' in answer and answer.count("<button") == 1
    assert "\n\n" not in picture
    earlier = show_turns([talk, first], None, EN)[1]["content"]
    asked_to_talk = show_turns([store.add_sibling(talk, mode="talk")], None, EN)[1]["content"]
    assert "<button" not in earlier + asked_to_talk
    last = show_turns([first], None, EN, {first.id: store.siblings(first)}, later=True)[1]["content"]
    assert f'name="base" value="{first.id}"' not in last, "the next message changes it anyway"
    assert '<details class="easel-others" open>' in last and EN.show_later in last


def test_variations_under_way(store: Store, conversation: Conversation) -> None:
    first = turn(store, conversation, status="done", prompt="a fox", picture="f" * 32)
    drawn = store.add_sibling(first, picture="e" * 32)
    run = Run(first, asyncio.Event(), variations=[Canvas(3, 6), Canvas(ahead=2), Canvas(picture=drawn.picture or "")])
    content = show_turns([first], run, EN, {first.id: store.siblings(first)})[1]["content"]
    assert "3 more" in content and content.count("easel-cell") == 3, "the drawn one is shown once"
    assert "width:50%" in content and "2 pictures before yours" in content
    assert f"/v1/pictures/{'f' * 32}.png" in content


@pytest.mark.parametrize("status", ["failed", "cancelled", "thinking", "drawing"])
def test_a_turn_without_an_end_says_why(store: Store, conversation: Conversation, status: str) -> None:
    content = show_turns([turn(store, conversation, status=status, error="No <space>\n\nleft")], None, EN)[1]["content"]
    assert "No &lt;space&gt;<br><br>left" in content


def test_a_turn_under_way(store: Store, conversation: Conversation) -> None:
    run = Run(turn(store, conversation, status="thinking"), asyncio.Event())
    assert EN.thinking in show_turns([run.turn], run, EN)[1]["content"]
    run.drawing, run.prompt, run.canvas = True, "a fox", Canvas(3, 6)
    content = show_turns([run.turn], run, EN)[1]["content"]
    assert "width:50%" in content
    assert "Painting 3/6" in content
    assert "a fox" in content


def test_a_chosen_style_is_named_where_it_was_drawn_in(store: Store, conversation: Conversation) -> None:
    def shown(prompt: str) -> str:
        drawn = turn(store, conversation, prompt=prompt, picture="0" * 32, status="done")
        drawn = replace(drawn, settings={**drawn.settings, "style": "pencil"})
        return show_turns([drawn], None, EN, profile=PROFILES["storybook"])[1]["content"]

    assert "Style Pencil" in shown("A flat picture of a fox.")
    assert "Style" not in shown("A pixel art picture of a fox.")


def test_both_languages_say_everything() -> None:
    for field in fields(Texts):
        values = [getattr(texts, field.name) for texts in TEXTS.values()]
        assert all(values), field.name
        assert len(set(map(str, values))) == len(values), field.name
