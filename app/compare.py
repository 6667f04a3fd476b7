"""Two pictures, one over the other, with a slider between them: any two of a conversation, or of the gallery.

    comparison = Comparison(texts, store, profile); comparison.build_sheet(); comparison.connect()
    return comparison.show(conversation, turn)  # a handler's update, with comparison.outputs among its outputs

It begins with a picture at the right and the one that it is a change of at the left. Sliding and choosing happen in
the browser (static/compare.js); the server only says how the two prompts differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from app.conversation import base_of
from app.profiles import Profile
from app.store import Conversation, Store, Turn
from app.texts import Texts
from app.view import difference
from app.visible import visible_if

MOST = 48  # pictures to choose from: the conversation's, then the newest others
SCRIPT = Path(__file__).parent / "static" / "compare.js"
Update = dict[Any, Any]


@dataclass(frozen=True)
class Entry:
    picture: str
    prompt: str  # "" of an upload


class Comparison:
    def __init__(self, texts: Texts, store: Store, profile: Profile) -> None:
        self.texts = texts
        self.store = store
        self.profile = profile

    def build_sheet(self) -> None:
        self.entries = gr.State([])
        with gr.Column(elem_id="compare", elem_classes=visible_if(False, "easel-sheet")) as self.sheet:
            with gr.Row(elem_classes="easel-sheet-head"):
                gr.HTML(f"<h2>{self.texts.compare}</h2>", elem_classes="easel-sheet-title")
                self.close = gr.Button(self.texts.close, elem_id="compare-close", min_width=44)
            self.stage = gr.HTML(elem_id="compare-stage", js_on_load=SCRIPT.read_text(encoding="utf-8"))
            self.words = gr.HTML(elem_id="compare-words")
        self.outputs = [self.sheet, self.entries, self.stage, self.words]

    def connect(self, **quiet: Any) -> None:
        self.stage.select(self.choose, self.entries, self.words, **quiet)
        self.close.click(lambda: gr.Column(elem_classes=visible_if(False, "easel-sheet")), None, self.sheet, **quiet)

    def show(self, conversation: Conversation, turn: Turn) -> Update:
        """Of a turn with a picture. Without a base, the picture before it stands at the left."""
        path = [*self.store.path(turn.parent), turn]
        base = base_of(path, conversation, self.profile, self.store)
        entries = self._entries(conversation)
        places = {entry.picture: place for place, entry in enumerate(entries)}
        right = places[turn.picture or ""]
        left = places.get(base or "", max(right - 1, 0) if right else min(1, len(entries) - 1))
        return {
            self.sheet: gr.Column(elem_classes=visible_if(True, "easel-sheet")),
            self.entries: entries,
            self.stage: self._stage(entries, left, right),
            self.words: self._words(entries[left], entries[right]),
        }

    def choose(self, entries: Sequence[Entry], event: gr.EventData) -> str:
        return self._words(entries[int(event.left)], entries[int(event.right)])

    def _entries(self, conversation: Conversation) -> list[Entry]:
        entries: dict[str, Entry] = {}
        for turn in self.store.turns(conversation):
            for picture in turn.uploads:
                entries.setdefault(picture, Entry(picture, ""))
            if turn.picture:
                entries[turn.picture] = Entry(turn.picture, turn.prompt)
        for drawn in self.store.drawn(conversation.owner, limit=MOST):
            if len(entries) < MOST:
                entries.setdefault(drawn.turn.picture or "", Entry(drawn.turn.picture or "", drawn.turn.prompt))
        return list(entries.values())

    # How it looks

    def _stage(self, entries: Sequence[Entry], left: int, right: int) -> str:
        images = "".join(
            f'<img data-side="{side}" src="{_address(entry)}" alt="{title}: {self._name(entry)}">'
            for side, title, entry in zip(
                ("left", "right"), self.texts.compare_sides, (entries[left], entries[right]), strict=True
            )
        )
        choices = "".join(
            f'<fieldset class="easel-choices"><legend>{title}</legend><div>{self._choices(entries, side, chosen)}</div>'
            "</fieldset>"
            for side, title, chosen in zip(("left", "right"), self.texts.compare_sides, (left, right), strict=True)
        )
        return (
            f'<div class="easel-slide">{images}<span class="easel-divider"></span>'
            f'<input type="range" min="0" max="100" value="50" aria-label="{self.texts.divider}"></div>{choices}'
        )

    def _choices(self, entries: Sequence[Entry], side: str, chosen: int) -> str:
        return "".join(
            f'<label title="{self._name(entry)}"><input type="radio" name="easel-{side}" data-side="{side}"'
            f' value="{place}" aria-label="{self._name(entry)}"{" checked" * (place == chosen)}>'
            f'<img src="{_address(entry)}" alt="" loading="lazy"></label>'
            for place, entry in enumerate(entries)
        )

    def _words(self, left: Entry, right: Entry) -> str:
        words = difference(left.prompt, right.prompt) if left.prompt and right.prompt else self._name(right)
        return f'<p class="easel-words">{words}</p>'

    def _name(self, entry: Entry) -> str:
        return escape(entry.prompt or self.texts.uploaded)


def _address(entry: Entry) -> str:
    return f"/v1/pictures/{entry.picture}.png"
