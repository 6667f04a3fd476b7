"""The page: a Gradio chat over the store and the running turns. It decides how things look, and nothing else.

    blocks = build_page(TEXTS["en"], profile, store, turns)

A conversation is created with its first message. Watching a turn and working on it are two things: the page may go
away, come back, or look at another conversation; the turn goes on in `RunningTurns`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from html import escape
from itertools import count
from pathlib import Path
from typing import Any

import gradio as gr

from app.branches import check_picture, go_on_from, go_to, reopen
from app.compare import Comparison
from app.conversation import MODES, STOPPED, Mode, UserMessage
from app.errors import EaselError, InputRefused
from app.gallery import Gallery
from app.gaze import Gaze
from app.profiles import MOST_STEPS, Profile, parse_size
from app.running import RunningTurns
from app.shelf import DOWNLOAD, LIST, Exchange, Finder
from app.store import SEEDS, Conversation, Seeds, Store, Turn, Verdict, new_seed
from app.texts import PEOPLE, Texts
from app.view import show_scores, show_turns
from app.visible import visible_if
from app.visitor import Visitors, owner_of

Update = dict[Any, Any]  # component -> new value
BEATS = count(1)


def build_page(
    texts: Texts, profile: Profile, store: Store, turns: RunningTurns, visitors: Visitors | None = None
) -> gr.Blocks:
    return Page(texts, profile, store, turns, visitors or Visitors()).blocks


class Page:
    """The components, and what happens when they are used. Handlers return {component: value}. Whose the conversations
    are, the request says: nothing that the browser sends."""

    def __init__(self, texts: Texts, profile: Profile, store: Store, turns: RunningTurns, visitors: Visitors) -> None:
        self.texts = texts
        self.profile = profile
        self.store = store
        self.turns = turns
        self.visitors = visitors
        with gr.Blocks(
            title="Easel", analytics_enabled=False, fill_height=True, fill_width=True, delete_cache=(3600, 86400)
        ) as self.blocks:
            self.gallery = Gallery(texts, store)
            self.exchange = Exchange(texts, store, visitors)
            self.comparison = Comparison(texts, store, profile)
            self._build_sidebar()
            self._build_chat()
            self.gallery.build_sheet()
            self.comparison.build_sheet()
            self._connect()

    # What is there

    def _build_sidebar(self) -> None:
        texts = self.texts
        with gr.Sidebar(width=290, elem_id="shelf"):
            gr.HTML(
                f'<div id="brand"><span class="brush">🎨</span><div><h1>Easel</h1><p>{texts.tagline}</p></div></div>'
            )
            self.new = gr.Button(f"＋ {texts.new}", elem_id="new", variant="primary")
            self.gallery.build_button()
            self.finder = Finder(texts, self.store)
            self.list = gr.Radio([], label=texts.conversations, elem_id="conversations", elem_classes=LIST)
            with gr.Accordion(
                texts.this_conversation, open=False, elem_id="manage", elem_classes=visible_if(False)
            ) as self.manage:
                self.title = gr.Textbox(label=texts.title, max_length=120, elem_id="title")
                with gr.Row():
                    self.rename = gr.Button(texts.rename, size="sm", min_width=60)
                    self.exchange.build_export()
                    self.delete = gr.Button(texts.delete, size="sm", min_width=60, elem_id="delete")
                with gr.Row(elem_classes=visible_if(False)) as self.confirm:
                    self.really = gr.Button(
                        texts.really_delete, size="sm", variant="stop", min_width=60, elem_id="really"
                    )
                    self.keep = gr.Button(texts.keep, size="sm", min_width=60)
            self.exchange.build_import()
            self.person = gr.HTML(elem_id="person", elem_classes=visible_if(self.visitors.name is not None))
            # Where people sign in, that is for administrators: their greeting has it.
            improve = "" if self.visitors.name else f'<a href="{texts.improve_path}">{texts.improve}</a>'
            gr.HTML(
                f'<div id="corner">{improve}<a href="{texts.other_path}">{texts.other}</a><button type="button"'
                f' data-easel="theme" title="{texts.theme}" aria-label="{texts.theme}">◐</button></div>'
            )

    def _build_chat(self) -> None:
        texts, profile = self.texts, self.profile
        self.gaze = gr.State(Gaze())
        self.current = gr.State(None)  # id of the open conversation; None: a new one
        self.saved = gr.BrowserState(None, storage_key="easel-conversation", secret="easel")
        with gr.Column(elem_id="easel"):
            gr.HTML(
                f'<div id="status" role="status" data-warming="{escape(texts.warming)}"'
                f' data-slower="{escape(texts.slower)}"'
                f' data-gone="{escape(texts.gone)}" data-failed="{escape(texts.failed_start)}"'
                f' data-ended="{escape(PEOPLE[texts.language].ended)}" hidden></div>'
            )
            self.chat = gr.Chatbot(
                elem_id="chat",
                show_label=False,
                container=False,
                scale=1,
                height="100%",
                layout="bubble",
                latex_delimiters=[],
                buttons=[],
                feedback_options=[
                    "Like",
                    "Dislike",
                    texts.should_draw,
                    texts.should_talk,
                ],  # the first two become thumbs
                group_consecutive_messages=False,
                placeholder=f'<div class="easel-welcome"><h2>{texts.welcome}</h2><p>{texts.welcome_more}</p></div>',
                examples=[{"text": example} for example in texts.examples],
            )
            with gr.Row(elem_id="actions", elem_classes=visible_if(False)) as self.actions:
                self.retry = gr.Button(f"↻ {texts.retry}", size="sm", elem_id="retry", min_width=70)
                self.undo = gr.Button(f"↶ {texts.undo}", size="sm", elem_id="undo", min_width=70)
            # What easel.js makes of the buttons in the chat, and the form that it opens there.
            self.bridge = gr.HTML(
                f'<form class="easel-buttons easel-editor" hidden data-reword="{texts.send}"'
                f' data-redraw="{texts.redraw_send}"><textarea rows="2"></textarea><div>'
                f'<button type="submit"></button><button type="button" name="cancel">{texts.cancel}</button>'
                "</div></form>",
                elem_id="bridge",
                js_on_load="document.addEventListener('easel', event => trigger('submit', event.detail))",
            )
            self.scored = gr.HTML(elem_id="scored")
            self.pulse = gr.HTML(elem_id="pulse")  # see pulse.js
            self.box = gr.MultimodalTextbox(
                placeholder=texts.placeholder,
                show_label=False,
                label=texts.placeholder,
                container=False,
                sources=["upload"],
                file_types=["image"],
                file_count="multiple",
                max_lines=8,
                max_plain_text_length=100_000,
                interactive=False,  # until Gradio is alive: what is sent before would be lost
                autofocus=True,
                elem_id="box",
            )
            with gr.Row(elem_id="options"):
                self.mode = gr.Radio(
                    list(zip(texts.modes, MODES, strict=True)), value="auto", label=texts.mode, show_label=False,
                    container=False, elem_id="mode", min_width=200,
                )  # fmt: skip
                with gr.Accordion(f"⚙ {texts.settings}", open=False, elem_id="settings"):
                    with gr.Row(elem_id="seed-row"):
                        self.seed = gr.Number(
                            label=texts.seed, precision=0, minimum=0, maximum=2**53 - 1, elem_id="seed", min_width=130
                        )
                        self.reroll = gr.Button(f"🎲 {texts.reroll}", size="sm", elem_id="reroll", min_width=120)
                    self.seeds = gr.Radio(
                        list(zip(texts.seed_policies, SEEDS, strict=True)), value="inherit", label=texts.seeds,
                        info=texts.seeds_info, elem_id="seeds", min_width=260,
                    )  # fmt: skip
                    with gr.Row():
                        sizes = [(texts.size_name(size), size) for size in profile.sizes]
                        self.size = gr.Dropdown(sizes, label=texts.size, elem_id="size", min_width=170)
                        self.steps = gr.Slider(1, min(100, MOST_STEPS), step=1, label=texts.steps, min_width=160)
                        self.guidance = gr.Slider(
                            1, 15, step=0.5, label=texts.guidance, info=texts.guidance_info, min_width=160
                        )
                    names = [(texts.style_names.get(style, style), style) for style in profile.styles]
                    self.style = gr.Dropdown(
                        [(texts.as_said, ""), *names], value="", label=texts.style, info=texts.style_info,
                        elem_id="style", visible=bool(names), min_width=160,
                    )  # fmt: skip

    def _connect(self) -> None:
        panel = [self.seed, self.seeds, self.size, self.steps, self.guidance, self.style]
        shown = [
            self.chat, self.box, self.current, self.saved, self.list, self.manage, self.title, self.confirm,
            self.actions, self.retry, self.undo, *panel, self.scored, self.pulse, *self.comparison.outputs,
        ]  # fmt: skip
        quiet: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}

        def on(event: Callable[..., Any], handler: Callable[..., Any], *inputs: Any) -> Any:
            return event(handler, [self.gaze, *inputs], shown, trigger_mode="multiple", **quiet)

        on(self.blocks.load, self.reload, self.saved)
        self.blocks.load(self.greet, None, self.person, **quiet)
        on(self.box.submit, self.send, self.current, self.box, self.mode, *panel)
        on(self.chat.example_select, self.send_example, self.current, self.mode, *panel)
        on(self.retry.click, self.take_again, self.current, self.mode)
        on(self.list.input, self.open, self.list)
        on(self.bridge.submit, self.act, self.current, self.mode)
        on(self.undo.click, self.take_back, self.current)
        on(self.chat.like, self.rate, self.current)
        on(self.new.click, self.start_new)
        on(self.really.click, self.remove, self.current)
        self.finder.connect(self.list, self.current, **quiet)
        for renames in (self.rename.click, self.title.submit):
            renamed = on(renames, self.retitle, self.current, self.title)
            renamed.then(self.finder.find, self.finder.inputs, self.finder.outputs, **quiet)
        on(self.finder.list.input, self.open, self.finder.list)
        on(self.exchange.upload.upload, self.bring_in, self.exchange.upload)
        self.exchange.export.click(self.send_out, [self.current], self.exchange.file, **quiet).success(
            None, [self.exchange.file], None, js=DOWNLOAD, **quiet
        )
        self.gallery.connect(**quiet)
        on(self.gallery.jump.click, self.open_turn, self.gallery.turn)
        on(self.gallery.compare.click, self.compare, self.gallery.turn)
        self.comparison.connect(**quiet)
        self.box.stop(self.stop, [self.current], None, **quiet)
        self.delete.click(lambda: gr.Row(elem_classes=visible_if(True)), None, self.confirm, **quiet)
        self.keep.click(lambda: gr.Row(elem_classes=visible_if(False)), None, self.confirm, **quiet)
        self.reroll.click(new_seed, None, self.seed, **quiet).then(
            self.change_panel, [self.current, *panel], None, **quiet
        )
        for component in panel:
            component.input(self.change_panel, [self.current, *panel], None, **quiet)

    # What happens

    def greet(self, request: gr.Request) -> str:
        return self.visitors.greeting(owner_of(request), self.texts.language)

    async def reload(self, gaze: Gaze, saved: str | None, request: gr.Request) -> AsyncGenerator[Update]:
        if gaze.turned:  # somebody wrote before this first event got its turn
            yield self._nothing()
            return
        looked = request.query_params.get("look") or saved  # pulse.js names it
        try:
            conversation = self.store.conversation(owner_of(request), looked) if looked else None
        except EaselError:
            conversation = None  # deleted, or of another data folder or user
        async for update in self._watch(gaze, owner_of(request), conversation):
            yield update

    async def open(self, gaze: Gaze, conversation_id: str, request: gr.Request) -> AsyncGenerator[Update]:
        conversation = reopen(self._find(request, conversation_id), self.store)
        async for update in self._watch(gaze, conversation.owner, conversation):
            yield update

    async def start_new(self, gaze: Gaze, request: gr.Request) -> AsyncGenerator[Update]:
        async for update in self._watch(gaze, owner_of(request), None):
            yield update

    async def send(
        self, gaze: Gaze, current: str | None, box: dict[str, Any], mode: Mode, request: gr.Request, *panel: Any
    ) -> AsyncGenerator[Update]:
        files = tuple(Path(file) for file in box.get("files") or ())
        async for update in self._send(gaze, request, current, UserMessage(box.get("text") or "", files), mode, panel):
            yield update

    async def send_example(
        self, gaze: Gaze, current: str | None, mode: Mode, event: gr.SelectData, request: gr.Request, *panel: Any
    ) -> AsyncGenerator[Update]:
        async for update in self._send(gaze, request, current, UserMessage(event.value["text"]), mode, panel):
            yield update

    async def take_again(
        self, gaze: Gaze, current: str | None, mode: Mode, request: gr.Request
    ) -> AsyncGenerator[Update]:
        conversation, turn = self._last(request, current)
        if turn is None:
            yield self._nothing()
            return
        try:
            await self.turns.retry(conversation, turn, mode)
        except EaselError as error:
            _say(error)
        async for update in self._watch(gaze, conversation.owner, conversation):
            yield update

    async def act(
        self, gaze: Gaze, current: str | None, mode: Mode, event: gr.EventData, request: gr.Request
    ) -> AsyncGenerator[Update]:
        """A button in the chat was pressed, see view.py; or the page shows something old, see pulse.js."""
        if event.do == "look":
            looked = self._find(request, current) if current else None
            async for update in self._watch(gaze, owner_of(request), looked):
                yield update
            return
        conversation = self._find(request, current)
        try:
            turn = self.store.turn_of(conversation, event.turn)
            match event.do:
                case "reword":
                    await self.turns.reword(conversation, turn, event.text, mode)
                case "redraw":
                    await self.turns.redraw(conversation, turn, event.text)
                case "vary":
                    await self.turns.vary(conversation, turn)
                case "paint":
                    await self.turns.paint(conversation, turn)
                case "base":
                    self.turns.check_idle(conversation)
                    go_on_from(conversation, turn, self.store)
                case "compare":
                    check_picture(turn)
                    yield self.comparison.show(conversation, turn)
                    return
                case "branch":
                    self.turns.check_idle(conversation)
                    go_to(conversation, self.store.newest_leaf(turn), self.store)
        except EaselError as error:
            _say(error)
            yield self._nothing()
            return
        async for update in self._watch(gaze, conversation.owner, conversation):
            yield update

    def take_back(self, gaze: Gaze, current: str | None, request: gr.Request) -> Update:
        """The last turn leaves the active path (it stays in the tree), and its message returns to the input box."""
        conversation, turn = self._last(request, current)
        if turn is None or self._busy(conversation):
            return self._show(conversation.owner, conversation)
        conversation = go_to(conversation, turn.parent, self.store)
        files = [
            self.visitors.give(conversation.owner, self.store.picture_path(picture), self.box)
            for picture in turn.uploads
        ]
        return {
            **self._show(conversation.owner, conversation),
            self.box: self._box(False, {"text": turn.said, "files": files}),
        }

    def rate(self, gaze: Gaze, current: str | None, event: gr.LikeData, request: gr.Request) -> Iterator[Update]:
        conversation = self._find(request, current)
        path = self.store.path(conversation.leaf)
        verdicts: dict[bool | str, Verdict] = {
            True: "like", False: "dislike", self.texts.should_draw: "should_draw",
            self.texts.should_talk: "should_talk", "": "",
        }  # fmt: skip
        place = event.index if isinstance(event.index, int) else event.index[0]
        if place // 2 < len(path):  # else another page has taken it back since
            try:
                turn = path[place // 2]
                self.store.opine(turn, verdicts[event.liked])
            except EaselError as error:
                _say(error)
                yield {self.chat: gr.update(feedback_value=[])}  # what the click has changed in the browser alone
        yield {self.chat: gr.update(feedback_value=self._ratings(path))}

    def stop(self, current: str | None, request: gr.Request) -> None:
        run = self.turns.of(self._find(request, current)) if current else None
        if run is not None:
            run.cancel.set()

    def retitle(self, gaze: Gaze, current: str | None, title: str, request: gr.Request) -> Update:
        conversation = self._find(request, current)
        if title.strip():
            conversation = self.store.change_conversation(conversation, title=title.strip()[:120])
        return {self.list: self._list(conversation.owner, conversation), self.title: conversation.title}

    async def remove(self, gaze: Gaze, current: str | None, request: gr.Request) -> AsyncGenerator[Update]:
        conversation = self._find(request, current)
        if self._busy(conversation):
            yield self._show(conversation.owner, conversation)
            return
        self.store.delete_conversation(conversation)
        gr.Info(self.texts.deleted)
        async for update in self._watch(gaze, conversation.owner, None):
            yield update

    async def bring_in(self, gaze: Gaze, file: str, request: gr.Request) -> AsyncGenerator[Update]:
        try:
            conversation = await self.exchange.unpack(owner_of(request), file)
        except EaselError as error:
            _say(error)
            yield self._nothing()
            return
        async for update in self._watch(gaze, conversation.owner, conversation):
            yield update

    async def send_out(self, current: str | None, request: gr.Request) -> Path:
        conversation = self._find(request, current)
        try:
            return await self.exchange.pack(conversation)
        except (EaselError, OSError) as error:
            raise gr.Error(escape(str(error)), print_exception=False) from error

    async def open_turn(self, gaze: Gaze, turn_id: str, request: gr.Request) -> AsyncGenerator[Update]:
        """The conversation that the turn belongs to, on its branch."""
        try:
            turn = self.store.turn(turn_id)
        except EaselError as error:
            raise gr.Error(escape(str(error)), print_exception=False) from error
        conversation = self._find(request, turn.conversation)
        hidden = turn.id not in [shown.id for shown in self.store.path(conversation.leaf)]
        if hidden and not self._busy(conversation):
            conversation = go_to(conversation, self.store.newest_leaf(turn), self.store)
        async for update in self._watch(gaze, conversation.owner, conversation):
            yield update

    def compare(self, gaze: Gaze, turn_id: str, request: gr.Request) -> Update:
        """A picture of the gallery, and what it is a change of."""
        try:
            turn = self.store.turn(turn_id)
        except EaselError as error:
            raise gr.Error(escape(str(error)), print_exception=False) from error
        return self.comparison.show(self._find(request, turn.conversation), turn)

    def change_panel(self, current: str | None, request: gr.Request, *panel: Any) -> None:
        if current:
            conversation = self._find(request, current)
            try:
                self.store.change_conversation(conversation, **self._read_panel(*panel))
            except EaselError as error:
                _say(error)

    # Inside

    def _ratings(self, path: Sequence[Turn]) -> list[str | None]:
        """What each reply was given, in Gradio's words."""
        names: dict[str, str] = {
            "like": "Like", "dislike": "Dislike", "should_draw": self.texts.should_draw,
            "should_talk": self.texts.should_talk,
        }  # fmt: skip
        ratings = [self.store.rating(turn.id) for turn in path]
        return [names.get(rating.verdict) if rating is not None else None for rating in ratings]

    async def _send(
        self,
        gaze: Gaze,
        request: gr.Request,
        current: str | None,
        message: UserMessage,
        mode: Mode,
        panel: tuple[Any, ...],
    ) -> AsyncGenerator[Update]:
        """A refused message stays in the box."""
        owner = owner_of(request)
        made: Conversation | None = None
        try:
            values = self._read_panel(*panel)
            if current:
                conversation = self.store.change_conversation(self._find(request, current), **values)
            else:
                conversation = made = self.store.create_conversation(owner, self.profile.name, **values)
            await self.turns.start(conversation, message, mode, conversation.leaf)
        except EaselError as error:
            if made is not None:
                self.store.delete_conversation(made)
            _say(error)
            yield self._nothing()
            return
        yield {self.box: self._box(True, {"text": "", "files": []})}
        async for update in self._watch(gaze, owner, self.store.conversation(owner, conversation.id)):
            yield update

    async def _watch(self, gaze: Gaze, owner: str, conversation: Conversation | None) -> AsyncGenerator[Update]:
        """The conversation as it is, and again at every change while a turn is under way."""
        look = await gaze.turn()
        if conversation is not None:  # its path may have changed since
            conversation = self.store.conversation(owner, conversation.id)
        run = self.turns.of(conversation) if conversation is not None else None
        if gaze.turned == look:
            with gaze.giving():
                yield self._show(owner, conversation)
        if conversation is None or run is None:
            yield self._nothing()
            return
        path = self.store.path(conversation.leaf)
        siblings = self._siblings(path)
        async for _ in run.watch():
            if gaze.turned != look:  # this page looks elsewhere now; the turn goes on
                break
            with gaze.giving():
                yield self._chat(conversation, show_turns(path, run, self.texts, siblings, profile=self.profile))
        if gaze.turned == look:
            if run.variations and run.problem not in ("", STOPPED):  # of others, the turn itself tells
                gr.Warning(escape(run.problem), duration=12)
            with gaze.giving():
                yield self._show(owner, self.store.conversation(owner, conversation.id))
            if run.scores is not None and await run.scores:
                yield {self.scored: show_scores(self.store.scores([*path, run.turn]), self.texts)}
        yield self._nothing()  # else the end would be shown twice, the second time over what the user did meanwhile

    def _show(self, owner: str, conversation: Conversation | None) -> Update:
        run = self.turns.of(conversation) if conversation is not None else None
        path = self.store.path(conversation.leaf) if conversation is not None else []
        later = bool(path) and run is None and self.store.newest_leaf(path[-1]) != path[-1].id
        shown = show_turns(path, run, self.texts, self._siblings(path), later, self.profile)
        settings = self.profile.settings
        if conversation is not None:
            settings = self.profile.read_settings(conversation.settings)
        conversation_id = conversation.id if conversation is not None else None
        return {
            **self._chat(conversation, shown, feedback_value=self._ratings(path)),
            self.scored: show_scores(self.store.scores(path), self.texts),
            self.box: self._box(run is not None),
            self.current: conversation_id,
            self.saved: conversation_id,
            self.list: self._list(owner, conversation),
            self.manage: gr.Accordion(elem_classes=visible_if(conversation is not None)),
            self.title: conversation.title if conversation is not None else "",
            self.confirm: gr.Row(elem_classes=visible_if(False)),
            self.actions: gr.Row(elem_classes=visible_if(bool(path) and run is None)),
            self.seed: conversation.seed if conversation is not None else new_seed(),
            self.seeds: conversation.seeds if conversation is not None else "inherit",
            self.size: self._size(f"{settings.width}x{settings.height}"),
            self.steps: settings.steps,
            self.guidance: settings.guidance,
            self.style: settings.style if settings.style in self.profile.styles else "",
        }

    def _chat(self, conversation: Conversation | None, messages: list[dict[str, Any]], **more: Any) -> Update:
        """The messages, the last one with the beat that pulse.js looks for."""
        beat, look = next(BEATS), conversation.id if conversation is not None else ""
        if messages:
            messages[-1]["content"] += f"\n\n<div class='easel-beat' title='{beat}'></div>"
        return {
            self.chat: gr.update(value=messages, **more),
            self.pulse: f"<i data-beat='{beat}' data-look='{look}' data-messages='{len(messages)}'></i>",
        }

    def _siblings(self, path: Sequence[Turn]) -> dict[str, list[Turn]]:
        return {turn.id: self.store.siblings(turn) for turn in path}

    def _size(self, size: str) -> Any:
        """A conversation from elsewhere may have a size that the profile does not offer."""
        sizes = dict.fromkeys([*self.profile.sizes, size])
        return gr.Dropdown(choices=[(self.texts.size_name(one), one) for one in sizes], value=size)

    def _nothing(self) -> Update:
        """No change. Gradio shows a generator's last update once more when it ends: this one does no harm then."""
        return {self.current: gr.skip()}

    def _box(self, running: bool, value: dict[str, Any] | None = None) -> Any:
        buttons = {"submit_btn": not running, "stop_btn": running, "interactive": True}
        return gr.update(**buttons) if value is None else gr.update(value=value, **buttons)

    def _list(self, owner: str, conversation: Conversation | None) -> Any:
        choices = [(entry.title or self.texts.untitled, entry.id) for entry in self.store.conversations(owner)]
        chosen = conversation.id if conversation is not None else None
        return gr.Radio(choices=choices, value=chosen if chosen in [entry[1] for entry in choices] else None)

    def _read_panel(
        self, seed: Any, seeds: Seeds, size: str, steps: float, guidance: float, style: str | None
    ) -> dict[str, Any]:
        if seed is None or not 0 <= seed < 2**53:
            raise InputRefused("The seed must be a whole number from 0 to 9007199254740991.")
        drawing = {"steps": int(steps), "guidance": float(guidance), "style": style or ""}
        settings = self.profile.read_settings({**parse_size(size), **drawing})
        return {"seed": int(seed), "seeds": seeds, "settings": settings.to_json()}

    def _find(self, request: gr.Request, conversation_id: str | None) -> Conversation:
        try:
            return self.store.conversation(owner_of(request), conversation_id or "")
        except EaselError as error:
            raise gr.Error(escape(str(error)), print_exception=False) from error

    def _last(self, request: gr.Request, current: str | None) -> tuple[Conversation, Turn | None]:
        conversation = self._find(request, current)
        path = self.store.path(conversation.leaf)
        return conversation, path[-1] if path else None

    def _busy(self, conversation: Conversation) -> bool:
        try:
            self.turns.check_idle(conversation)
        except InputRefused as error:
            _say(error)
            return True
        return False


def _say(error: EaselError) -> None:
    gr.Warning(escape(str(error)), duration=12)
