"""The Improve page: feedback, one run that learns from it, before and after, and the versions to choose from.

    blocks = build_improve_page(TEXTS["en"], IMPROVE_TEXTS["en"], improver)

It decides how things look; what happens is `Improver`'s and `LiveAdapters`' business. An open page asks every other
second how things are, and draws only what has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import gradio as gr

from app.errors import EaselError
from app.improve_texts import ImproveTexts
from app.improve_view import name_of, say_worse, show_feedback, show_run, show_versions
from app.improving import OPEN, Improver, RunSize
from app.texts import Texts
from app.visible import visible_if
from dialog_mllm.adapters import ORIGINAL, NotConfirmed
from dialog_mllm.errors import DialogError

TRIED = 0.5  # of the conversations get the version that is being tried
GLANCE = 2.0  # seconds between two looks
Update = dict[Any, Any]  # component -> new value


def build_improve_page(texts: Texts, words: ImproveTexts, improver: Improver) -> gr.Blocks:
    return ImprovePage(texts, words, improver).blocks


class ImprovePage:
    def __init__(self, texts: Texts, words: ImproveTexts, improver: Improver) -> None:
        self.texts = texts
        self.words = words
        self.improver = improver
        title = f"Easel · {words.title}"
        with (
            gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as self.blocks,
            gr.Column(elem_id="improve"),
        ):
            self._build_head()
            if improver.unavailable:
                gr.HTML(f'<p class="easel-hint" id="unavailable">{words.unavailable[improver.unavailable]}</p>')
            else:
                self._build()
                self._connect()

    # What is there

    def _build_head(self) -> None:
        texts, words = self.texts, self.words
        gr.HTML(
            f'<header><a href="{words.back_path}">‹ {words.back}</a>'
            f'<span><a href="{words.other_path}">{texts.other}</a><button type="button" data-easel="theme"'
            f' title="{texts.theme}" aria-label="{texts.theme}">◐</button></span></header>'
            f"<h1>{words.title}</h1><p>{words.lead}</p>",
            elem_id="improve-head",
        )
        gr.HTML(
            f'<div id="status" role="status" data-warming="{escape(texts.warming)}"'
            f' data-slower="{escape(texts.slower)}" data-gone="{escape(texts.gone)}"'
            f' data-failed="{escape(texts.failed_start)}" hidden></div>'
        )

    def _build(self) -> None:
        words = self.words
        size = RunSize()
        self.seen = gr.State(None)  # what this page shows
        self.timer = gr.Timer(GLANCE)
        with gr.Column(elem_classes="improve-card"):
            gr.HTML(f"<h2>{words.feedback}</h2>")
            self.counts = gr.HTML(elem_id="improve-feedback")
        with gr.Column(elem_classes="improve-card"):
            gr.HTML(f'<h2>{words.learn}</h2><p class="easel-hint">{words.learn_info}</p>')
            self.run = gr.HTML(elem_id="improve-run", elem_classes=visible_if(False))
            with gr.Column(elem_classes=visible_if(False)) as self.idle:
                with gr.Accordion(words.size, open=False, elem_id="improve-size"), gr.Row():
                    self.minutes = gr.Number(
                        size.minutes, label=words.minutes, info=words.minutes_info, elem_id="improve-minutes",
                        min_width=160,
                    )  # fmt: skip
                    self.replay = gr.Number(
                        size.replay, label=words.replay, info=words.replay_info, precision=0,
                        elem_id="improve-replay", min_width=160,
                    )  # fmt: skip
                    self.held_out = gr.Number(
                        size.held_out, label=words.held_out, info=words.held_out_info, precision=0,
                        elem_id="improve-held-out", min_width=160,
                    )  # fmt: skip
                self.start = gr.Button(words.start, variant="primary", elem_id="improve-start")
            with gr.Row(elem_classes="improve-buttons"):
                self.stop = gr.Button(words.stop, elem_classes=visible_if(False), elem_id="improve-stop")
                self.resume = gr.Button(
                    words.resume, elem_classes=visible_if(False), variant="primary", elem_id="improve-resume"
                )
                self.use = gr.Button(elem_classes=visible_if(False), variant="primary", elem_id="improve-use")
                self.discard = gr.Button(words.discard, elem_classes=visible_if(False), elem_id="improve-discard")
            with gr.Row(elem_classes=visible_if(False, "improve-buttons")) as self.sure:
                self.really = gr.Button(words.really_discard, variant="stop", elem_id="improve-really")
                self.keep = gr.Button(words.keep)
            self.gate = _Gate(words)
        with gr.Column(elem_classes="improve-card"):
            gr.HTML(f"<h2>{words.versions}</h2>")
            self.error = gr.HTML(elem_classes=visible_if(False))
            self.versions = gr.HTML(elem_id="improve-versions")
            with gr.Row(elem_classes="improve-buttons", elem_id="improve-choice"):
                self.choice = gr.Dropdown([], label=words.choose, elem_id="improve-version", min_width=120)
                self.activate = gr.Button(words.activate, elem_id="improve-activate", min_width=80)
                self.try_out = gr.Button(words.try_out, elem_id="improve-try", min_width=120)
                self.remove = gr.Button(words.remove, elem_id="improve-remove", min_width=80)
                self.back = gr.Button(elem_id="improve-back", min_width=120)
                self.end_trial = gr.Button(elem_classes=visible_if(False), elem_id="improve-end", min_width=120)
            self.choice_gate, self.trial_gate = _Gate(words), _Gate(words)

    def _connect(self) -> None:
        shown = [
            self.seen, self.counts, self.run, self.idle, self.stop, self.resume, self.use, self.discard, self.sure,
            self.error, self.versions, self.choice, self.back, self.end_trial, *self.gate.parts,
            *self.choice_gate.parts, *self.trial_gate.parts,
        ]  # fmt: skip
        quiet: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}

        def on(event: Callable[..., Any], handler: Callable[..., Any], *inputs: Any) -> None:
            event(handler, list(inputs), shown, **quiet)

        on(self.blocks.load, lambda: self.show(None))
        on(self.timer.tick, self.show, self.seen)
        on(self.start.click, self.begin, self.minutes, self.replay, self.held_out)
        on(self.stop.click, lambda: self._do(self.improver.stop))
        on(self.resume.click, lambda: self._do(self.improver.resume))
        on(self.use.click, self.take)
        on(self.gate.anyway.click, lambda: self.take(anyway=True))
        on(self.gate.cancel.click, self.gate.closed)
        on(self.discard.click, lambda: {self.sure: gr.Row(elem_classes=visible_if(True, "improve-buttons"))})
        on(self.really.click, lambda: self._do(self.improver.discard))
        on(self.keep.click, lambda: {self.sure: gr.Row(elem_classes=visible_if(False, "improve-buttons"))})
        on(self.activate.click, self.switch, self.choice)
        on(self.choice_gate.anyway.click, lambda name: self.switch(name, anyway=True), self.choice)
        on(self.choice_gate.cancel.click, self.choice_gate.closed)
        on(self.try_out.click, self.begin_trial, self.choice)
        on(self.trial_gate.anyway.click, lambda name: self.begin_trial(name, anyway=True), self.choice)
        on(self.trial_gate.cancel.click, self.trial_gate.closed)
        on(self.end_trial.click, self.stop_trial)
        on(self.remove.click, self.throw_out, self.choice)
        on(self.back.click, self.roll_back)

    # What happens

    def show(self, seen: Any) -> Update:
        """Everything, unless it is what the page shows already."""
        improver, words = self.improver, self.words
        try:
            counts, versions = improver.feedback(), improver.live.registry.versions()
            before, opinions = improver.live.registry.before, improver.opinions()
        except (EaselError, DialogError) as error:
            problem = f'<div class="easel-error" role="alert">{escape(str(error))}</div>'
            update = {self.seen: problem, self.error: gr.HTML(problem, elem_classes=visible_if(True))}
            return update if seen != problem else {self.seen: gr.skip()}
        run, active, trial = improver.look(), improver.live.now.name, improver.live.trial
        running = run is not None and run.state == "running"
        curve, progress = (improver.curve(run), improver.progress(run)) if run is not None else (None, 0.0)
        state = (run.to_json() if run is not None else None, progress, curve, sorted(counts.items()), active, before,
                 [(version.name, version.worse) for version in versions], improver.live.error, trial,
                 opinions)  # fmt: skip
        if repr(state) == seen:
            return {self.seen: gr.skip()}
        idle = run is None or run.state in ("activated", "discarded")
        measured = run is not None and run.state == "measured"
        may_go_on = run is not None and run.state in OPEN
        names = [*(version.name for version in reversed(versions)), ORIGINAL]
        problem = improver.live.error and f'<div class="easel-error" role="alert">{escape(improver.live.error)}</div>'
        return {
            self.seen: repr(state),
            self.counts: show_feedback(counts, words),
            self.run: gr.HTML(
                show_run(run, progress, curve, words) if curve is not None else "",
                elem_classes=visible_if(run is not None),
            ),
            self.idle: gr.Column(elem_classes=visible_if(idle)),
            self.stop: gr.Button(elem_classes=visible_if(running)),
            self.resume: gr.Button(elem_classes=visible_if(may_go_on)),
            self.use: gr.Button(words.use.format(version=run.version), elem_classes=visible_if(True))
            if run is not None and measured
            else gr.Button(elem_classes=visible_if(False)),
            self.discard: gr.Button(elem_classes=visible_if(measured or may_go_on)),
            self.error: gr.HTML(problem, elem_classes=visible_if(bool(problem))),
            self.versions: show_versions(versions, active, trial, opinions, words),
            self.choice: gr.Dropdown(choices=[(name_of(name, words), name) for name in names]),
            self.back: gr.Button(
                words.nothing_before if before is None else words.roll_back.format(name=name_of(before, words)),
                interactive=before is not None,
            ),
            self.end_trial: gr.Button(
                words.end_trial.format(name=name_of(trial[0], words)) if trial is not None else "",
                elem_classes=visible_if(trial is not None),
            ),
        }

    def begin(self, minutes: float | None, replay: float | None, held_out: float | None) -> Update:
        return self._do(
            lambda: self.improver.start(
                RunSize(minutes=minutes or 0, replay=int(replay or 0), held_out=int(held_out or 0))
            )
        )

    def take(self, anyway: bool = False) -> Update:
        run = self.improver.look()
        version = run.version if run is not None else ""
        return self._through(self.gate, version, lambda: self.improver.activate(anyway))

    def switch(self, name: str | None, anyway: bool = False) -> Update:
        if name is None:
            return {self.seen: gr.skip()}
        return self._through(self.choice_gate, name, lambda: self.improver.live.activate(name, anyway))

    def begin_trial(self, name: str | None, anyway: bool = False) -> Update:
        if name is None:
            return {self.seen: gr.skip()}
        said = self.words.now_tried.format(name=name_of(name, self.words))
        return self._through(self.trial_gate, name, lambda: self.improver.live.try_out(name, TRIED, anyway), said)

    def stop_trial(self) -> Update:
        return self._through(self.trial_gate, ORIGINAL, self.improver.live.end_trial, self.words.trial_ended)

    def roll_back(self) -> Update:
        return self._through(self.choice_gate, ORIGINAL, self.improver.live.roll_back)

    def throw_out(self, name: str | None) -> Update:
        if name is None:
            return {self.seen: gr.skip()}

        def remove() -> None:
            self.improver.live.registry.remove(name)
            gr.Info(self.words.removed.format(name=name))

        return {**self._do(remove), self.choice: self._choices()}

    # Inside

    def _through(self, gate: _Gate, version: str, change: Callable[[], Any], said: str = "") -> Update:
        """A change of what is served; one that must be confirmed opens the gate."""
        words = self.words
        try:
            change()
        except NotConfirmed:
            worse = self.improver.live.registry.version(version).worse
            return gate.opened(f"{version}: {words.not_measured}" if worse is None else say_worse(worse, words))
        except (EaselError, DialogError) as error:
            _say(error)
            return {**gate.closed(), **self.show(None)}
        gr.Info(said or words.now_active.format(name=name_of(self.improver.live.now.name, words)))
        return {**gate.closed(), **self.show(None)}

    def _do(self, what: Callable[[], Any]) -> Update:
        try:
            what()
        except (EaselError, DialogError) as error:
            _say(error)
        return {**self.show(None), self.sure: gr.Row(elem_classes=visible_if(False, "improve-buttons"))}

    def _choices(self) -> Any:
        names = [*(version.name for version in reversed(self.improver.live.registry.versions())), ORIGINAL]
        return gr.Dropdown(choices=[(name_of(name, self.words), name) for name in names], value=None)


class _Gate:
    """Asks once more."""

    def __init__(self, words: ImproveTexts) -> None:
        with gr.Column(elem_classes=visible_if(False, "improve-gate")) as self.box:
            self.why = gr.HTML()
            with gr.Row(elem_classes="improve-buttons"):
                self.anyway = gr.Button(words.use_anyway, variant="stop", elem_classes="improve-anyway")
                self.cancel = gr.Button(words.keep)
        self.parts = [self.box, self.why]

    def opened(self, why: str) -> Update:
        return {
            self.box: gr.Column(elem_classes=visible_if(True, "improve-gate")),
            self.why: f'<div role="alert">{escape(why)}</div>',
        }

    def closed(self) -> Update:
        return {self.box: gr.Column(elem_classes=visible_if(False, "improve-gate"))}


def _say(error: Exception) -> None:
    gr.Warning(escape(str(error)), duration=12)
