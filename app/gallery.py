"""The gallery: every picture that was drawn for the user, newest first, on a sheet over the page.

    gallery = Gallery(texts, store); gallery.build_button(); …; gallery.build_sheet(); gallery.connect()

A click shows a picture large, with what it was drawn from; `jump` is the button that leads to its turn, whose id is in
`turn`. Pages of the list are fetched one at a time, and their pictures as they come into sight.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app.store import LONGEST_SEARCH, Drawn, Store
from app.texts import Texts
from app.visible import visible_if
from app.visitor import owner_of

PAGE = 48
SCRIPT = Path(__file__).parent / "static" / "gallery.js"
Update = dict[Any, Any]


class Gallery:
    def __init__(self, texts: Texts, store: Store) -> None:
        self.texts = texts
        self.store = store

    def build_button(self) -> None:
        self.open = gr.Button(f"▦ {self.texts.gallery}", elem_id="gallery-open", size="md")

    def build_sheet(self) -> None:
        texts = self.texts
        self.page = gr.State(0)
        self.place = gr.State(0)  # of the picture that is shown large, in the whole list
        self.turn = gr.State("")  # that it comes from
        with gr.Column(elem_classes=visible_if(False), elem_id="gallery") as self.sheet:
            with gr.Row(elem_id="gallery-head"):
                gr.HTML(f"<h2>{texts.gallery}</h2>", elem_id="gallery-title")
                self.box = gr.Textbox(
                    placeholder=f"⌕  {texts.search_pictures}", label=texts.search_pictures, show_label=False,
                    container=False, elem_id="gallery-search", max_length=LONGEST_SEARCH,
                )  # fmt: skip
                self.close = gr.Button(texts.close, elem_id="gallery-close", min_width=44)
            with gr.Column(elem_id="gallery-all") as self.all:
                self.tiles = gr.HTML(elem_id="gallery-tiles", js_on_load=SCRIPT.read_text(encoding="utf-8"))
                with gr.Row(elem_id="gallery-pager", elem_classes=visible_if(False)) as self.pager:
                    self.newer = gr.Button(f"‹ {texts.newer_page}", size="sm", min_width=90)
                    self.range = gr.HTML(elem_id="gallery-range")
                    self.older = gr.Button(f"{texts.older_page} ›", size="sm", min_width=90)
            with gr.Column(elem_classes=visible_if(False), elem_id="gallery-one") as self.one:
                self.large = gr.HTML()
                with gr.Row(elem_id="gallery-steps"):
                    self.previous = gr.Button(f"‹ {texts.previous}", elem_id="gallery-previous", min_width=60)
                    self.back = gr.Button(texts.back, elem_id="gallery-back", min_width=100)
                    self.jump = gr.Button(texts.open_conversation, elem_id="gallery-jump", variant="primary")
                    self.compare = gr.Button(f"◫ {texts.compare}", elem_id="gallery-compare", min_width=60)
                    self.next = gr.Button(f"{texts.next} ›", elem_id="gallery-next", min_width=60)

    def connect(self, **quiet: Any) -> None:
        listed = [self.sheet, self.box, self.all, self.one, self.tiles, self.pager, self.newer, self.range, self.older]
        outputs = [*listed, self.page, self.place, self.turn, self.large, self.previous, self.next]

        def on(event: Any, handler: Any, *inputs: Any, **more: Any) -> None:
            event(handler, list(inputs), outputs, **{**quiet, **more})

        on(self.open.click, self.show)
        on(self.box.change, self.seek, self.box, trigger_mode="always_last")
        on(self.newer.click, self.turn_back, self.box, self.page)
        on(self.older.click, self.turn_on, self.box, self.page)
        on(self.tiles.select, self.pick, self.box)
        on(self.previous.click, self.look_back, self.box, self.place)
        on(self.next.click, self.look_on, self.box, self.place)
        on(self.back.click, self.leave, self.box, self.place)
        for button in (self.close, self.jump):
            on(button.click, lambda: {self.sheet: gr.Column(elem_classes=visible_if(False))})

    # What happens

    def show(self, request: gr.Request) -> Update:
        return {
            self.sheet: gr.Column(elem_classes=visible_if(True)),
            self.box: "",
            **self.turn_to(owner_of(request), "", 0),
        }

    def seek(self, words: str, request: gr.Request) -> Update:
        return self.turn_to(owner_of(request), words, 0)

    def turn_back(self, words: str, page: int, request: gr.Request) -> Update:
        return self.turn_to(owner_of(request), words, page - 1)

    def turn_on(self, words: str, page: int, request: gr.Request) -> Update:
        return self.turn_to(owner_of(request), words, page + 1)

    def pick(self, words: str, event: gr.EventData, request: gr.Request) -> Update:
        return self.look(owner_of(request), words, int(event.place))

    def look_back(self, words: str, place: int, request: gr.Request) -> Update:
        return self.look(owner_of(request), words, place - 1)

    def look_on(self, words: str, place: int, request: gr.Request) -> Update:
        return self.look(owner_of(request), words, place + 1)

    def leave(self, words: str, place: int, request: gr.Request) -> Update:
        return self.turn_to(owner_of(request), words, place // PAGE)

    def turn_to(self, owner: str, words: str, page: int) -> Update:
        n = self.store.count_drawn(owner, words)
        page = max(0, min(page, (n - 1) // PAGE))
        start = page * PAGE
        drawn = self.store.drawn(owner, words, PAGE, start)
        return {
            self.all: gr.Column(elem_classes=visible_if(True)),
            self.one: gr.Column(elem_classes=visible_if(False)),
            self.tiles: self._tiles(drawn, start) or self._nothing(words),
            self.pager: gr.Row(elem_classes=visible_if(n > PAGE)),
            self.newer: gr.Button(interactive=page > 0),
            self.range: f"{start + 1:,}–{start + len(drawn):,} / {n:,}",
            self.older: gr.Button(interactive=start + PAGE < n),
            self.page: page,
        }

    def look(self, owner: str, words: str, place: int) -> Update:
        """The picture at this place of the list, large."""
        found = self.store.drawn(owner, words, 2, place) if place >= 0 else []
        if not found:  # deleted in another page
            return self.turn_to(owner, words, place // PAGE)
        return {
            self.all: gr.Column(elem_classes=visible_if(False)),
            self.one: gr.Column(elem_classes=visible_if(True)),
            self.large: self._large(found[0], place),
            self.place: place,
            self.turn: found[0].turn.id,
            self.previous: gr.Button(interactive=place > 0),
            self.next: gr.Button(interactive=len(found) > 1),
        }

    # How it looks

    def _tiles(self, drawn: Sequence[Drawn], start: int) -> str:
        tiles = [
            f'<li><button type="button" data-place="{place}" aria-label="{escape(entry.turn.prompt)}">'
            f'<img src="{_address(entry)}" alt="" width="{entry.width}" height="{entry.height}" loading="lazy">'
            f"<span>{escape(entry.turn.prompt)}</span></button></li>"
            for place, entry in enumerate(drawn, start)
        ]
        return f'<ul class="easel-tiles">{"".join(tiles)}</ul>' if tiles else ""

    def _nothing(self, words: str) -> str:
        text = self.texts.no_such_picture if words.strip() else self.texts.no_pictures
        return f'<p class="easel-nothing" role="status">{text}</p>'

    def _large(self, entry: Drawn, place: int) -> str:
        texts, turn = self.texts, entry.turn
        date = datetime.fromtimestamp(turn.created).strftime("%Y-%m-%d %H:%M")
        facts = {
            texts.seed: turn.seed, texts.size: f"{entry.width} × {entry.height}", texts.date: date,
            texts.conversation: entry.title or texts.untitled,
        }  # fmt: skip
        rows = "".join(f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items())
        name = f"easel-{turn.seed}.png"
        return (
            f'<figure class="easel-large" data-picture="{turn.picture}" data-place="{place}">'
            f'<img src="{_address(entry)}" alt="{escape(turn.prompt)}" width="{entry.width}" height="{entry.height}">'
            f'<figcaption><p class="easel-words">{escape(turn.prompt)}</p><dl>{rows}</dl>'
            f'<a href="{_address(entry)}" download="{name}">↧ {texts.download}</a></figcaption></figure>'
        )


def _address(entry: Drawn) -> str:
    return f"/v1/pictures/{entry.turn.picture}.png"
