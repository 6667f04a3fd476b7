"""What the sidebar has beside the list of conversations: a search, and a way out and in for them.

    # Inside the sidebar's block, where they stand:
    finder = Finder(texts, store); exchange = Exchange(texts, store, visitors)

The search has a list of its own, which stands in the place of the other one while something is sought: whatever else
changes the other list need not know of it.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import gradio as gr

from app.exchange import file_name, pack, unpack, unpacked_size
from app.store import LONGEST_SEARCH, Conversation, Store
from app.texts import Texts
from app.visible import visible_if
from app.visitor import Visitors, owner_of

LIST = "easel-list"  # the class of both lists


class Finder:
    def __init__(self, texts: Texts, store: Store) -> None:
        self.texts = texts
        self.store = store
        self.box = gr.Textbox(
            placeholder=f"⌕  {texts.search}", label=texts.search, show_label=False, container=False, elem_id="search",
            max_length=LONGEST_SEARCH,
        )  # fmt: skip
        self.list = gr.Radio([], label=texts.conversations, elem_id="found", elem_classes=visible_if(False, LIST))
        self.nothing = gr.HTML(
            f'<p class="easel-nothing" role="status">{texts.nothing_found}</p>', elem_classes=visible_if(False)
        )

    def connect(self, listed: gr.Radio, current: gr.State, **quiet: Any) -> None:
        """`listed` is the list of all conversations, `current` the id of the open one."""

        def looks(yes: bool, *classes: str) -> Any:
            return gr.update(elem_classes=visible_if(yes, *classes))

        def find(words: str, opened: str | None, request: gr.Request) -> tuple[Any, Any, Any]:
            if not words.strip():
                return looks(True, LIST), looks(False, LIST), looks(False)
            found = [
                (entry.title or self.texts.untitled, entry.id)
                for entry in self.store.search_conversations(owner_of(request), words)
            ]
            chosen = opened if opened in [entry[1] for entry in found] else None
            return (
                looks(False, LIST),
                gr.update(choices=found, value=chosen, elem_classes=visible_if(bool(found), LIST)),
                looks(not found),
            )

        self.find = find
        self.inputs, self.outputs = [self.box, current], [listed, self.list, self.nothing]
        for changed in (self.box.change, current.change):
            changed(find, self.inputs, self.outputs, trigger_mode="always_last", **quiet)


class Exchange:
    def __init__(self, texts: Texts, store: Store, visitors: Visitors) -> None:
        self.texts = texts
        self.store = store
        self.visitors = visitors

    def build_export(self) -> None:
        self.export = gr.Button(self.texts.export, size="sm", min_width=60, elem_id="export")
        self.file = gr.DownloadButton(visible=False)  # only carries the file to the browser

    def build_import(self) -> None:
        self.upload = gr.UploadButton(
            f"↥ {self.texts.import_}", file_types=[".zip"], size="sm", elem_id="import", variant="secondary"
        )

    async def pack(self, conversation: Conversation) -> Path:
        """The conversation as a file that the browser may fetch; Gradio removes it in time."""
        path = Path(self.file.GRADIO_CACHE) / secrets.token_hex(16) / f"{file_name(conversation.title)}.zip"
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            packed = await asyncio.to_thread(pack, self.store, [conversation], file, self.texts)
        self.visitors.grant(conversation.owner, path)
        if packed.lost:
            gr.Warning(f"{self.texts.exported_without} {len(packed.lost)}")
        return path

    async def unpack(self, owner: str, file: str) -> Conversation:
        """The first of the conversations in the file, all of which are kept."""
        await self.visitors.check_room(owner, await asyncio.to_thread(unpacked_size, Path(file)))
        found = await asyncio.to_thread(unpack, self.store, owner, Path(file))
        gr.Info(f"{self.texts.imported} {len(found)}")
        return found[0]


DOWNLOAD = """(file) => {
    if (!file) return;
    const link = document.createElement("a");
    link.href = file.url;
    link.download = file.orig_name || "";
    link.click();
}"""
