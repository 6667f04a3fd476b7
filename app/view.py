"""What a conversation looks like: turns in, messages of Gradio's chatbot out. Pure functions of text.

    from app.view import show_turns; show_turns(turns, None, TEXTS["en"])

Whatever a user or a model said is escaped here, and is shown as it was written.
"""

from __future__ import annotations

import base64
import difflib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from PIL import Image

from app.branches import alternatives
from app.profiles import Profile
from app.running import Canvas, Run
from app.store import IN_FLIGHT, INTERRUPTED, Score, Turn
from app.texts import Texts

_ALWAYS_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>&#|~!$@]|://|(?<=www)\.")
_LINE_START = re.compile(r"^([ \t]*)([-+=:]|\d+(?=[.)]))", re.MULTILINE)
_HTML_AND_LINKS = re.compile(r"[<>&\[\]!\\]|://|(?<=www)\.")
MOST_COMPARED = 300  # words and spaces of two prompts that are compared one by one
_ICON = ' class="easel-icon"'
_WORDS = re.compile(r"[\w'-]*[a-z0-9][\w'-]*|\s+|.", re.IGNORECASE | re.ASCII | re.DOTALL)


def show_turns(
    turns: Sequence[Turn],
    run: Run | None,
    texts: Texts,
    siblings: Mapping[str, Sequence[Turn]] | None = None,
    later: bool = False,
    profile: Profile | None = None,
) -> list[dict[str, Any]]:
    """The turns of a path. `siblings`: of each turn, by its id; `later`: whether others come after the last one.
    `profile`: whose styles are named.

    Buttons carry what they do in `name` and the turn in `value`: the chatbot lets no other attribute through.
    easel.js hears them.
    """
    messages: list[dict[str, Any]] = []
    previous = ""
    for turn in turns:
        last = turn is turns[-1]
        beside = (siblings or {}).get(turn.id, [turn])
        mine = run if run is not None and run.turn.id == turn.id else None
        messages.append({"role": "user", "content": _said(turn, beside, texts)})
        if mine is not None and not mine.variations:
            content = _under_way(mine, texts)
        else:
            variations = mine.variations if mine is not None else []
            # Decided before a later picture is there: what changes a turn takes away an editor that is open in it.
            comparable = len(turns) > 1 or len(beside) > 1 or bool(turn.uploads)
            style = profile.style_of(turn.prompt, turn.settings) if profile is not None else ""
            place = _Place(beside, last, variations, comparable, style)
            content = _reply(turn, previous, texts, place)
        if last and later:
            show = _button("branch", turn, texts.show_later)
            content += f'\n\n<div class="easel-buttons easel-later">{texts.later} {show}</div>'
        messages.append({"role": "assistant", "content": content})
        previous = turn.prompt if turn.picture else previous
    return messages


def literal(text: str) -> str:
    """Text that Markdown shows as it stands."""
    text = _ALWAYS_MARKDOWN.sub(_entities, text)
    text = _LINE_START.sub(lambda match: "\u00a0" * len(match[1]) + _entities(match[2]), text)
    return re.sub(r"^[ \t]+", lambda match: "\u00a0" * len(match[0]), text, flags=re.MULTILINE)


def difference(before: str, after: str) -> str:
    """`after` as HTML, with what is new marked and what went struck through."""
    old, new = _WORDS.findall(before), _WORDS.findall(after)
    parts: list[str] = []
    for kind, i1, i2, j1, j2 in _changes(old, new):
        gone, come = _inline("".join(old[i1:i2])), _inline("".join(new[j1:j2]))
        if kind == "equal":
            parts.append(come)
        else:
            parts += [f"<del>{gone}</del>"] * bool(gone.strip()) + [f"<mark>{come}</mark>"] * bool(come)
    return "".join(parts)


def _changes(old: Sequence[str], new: Sequence[str]) -> Sequence[tuple[str, int, int, int, int]]:
    """As difflib's opcodes. Where much lies between the common beginning and the common end, all of it has changed: the
    time that it takes to tell grows with the third power of words that come often."""
    shorter = min(len(old), len(new))
    head = next((i for i in range(shorter) if old[i] != new[i]), shorter)
    tail = next((i for i in range(shorter - head) if old[-1 - i] != new[-1 - i]), shorter - head)
    if max(len(old), len(new)) - head - tail <= MOST_COMPARED:
        return difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    ends = len(old) - tail, len(new) - tail
    return [
        ("equal", 0, head, 0, head), ("replace", head, ends[0], head, ends[1]),
        ("equal", ends[0], len(old), ends[1], len(new)),
    ]  # fmt: skip


def _entities(match: re.Match[str] | str) -> str:
    return "".join(f"&#{ord(character)};" for character in (match if isinstance(match, str) else match[0]))


def _inline(text: str) -> str:
    """Text inside an HTML block, which ends at an empty line."""
    return escape(text).replace("\n", "<br>")


def _address(picture: str) -> str:
    return f"/v1/pictures/{picture}.png"


@dataclass(frozen=True)
class _Place:
    """Where a turn stands."""

    siblings: Sequence[Turn]
    last: bool
    under_way: Sequence[Canvas]  # its variations
    comparable: bool  # there may be others to compare it with
    style: str  # that was chosen, and that it was drawn in


def _button(name: str, turn: Turn, label: str, title: str = "", more: str = "") -> str:
    """`title` says more than the label; of a button without words, easel.js makes it the name."""
    return f'<button type="button" name="{name}" value="{turn.id}" title="{title or label}"{more}>{label}</button>'


def _raw(text: str) -> str:
    """The text as it is, for an editor to begin with."""
    return f'<span class="easel-raw" hidden>{escape(text).replace(chr(10), "&#10;")}</span>'


def _said(turn: Turn, siblings: Sequence[Turn], texts: Texts) -> str:
    pictures = "".join(f'<img class="easel-upload" src="{_address(picture)}" alt="">' for picture in turn.uploads)
    tools = (
        f'<div class="easel-buttons easel-tools easel-mine">{_branches(turn, siblings, texts)}'
        f"{_button('reword', turn, '', texts.reword, _ICON)}{_raw(turn.said)}</div>"
    )
    return "\n\n".join(part for part in (pictures, literal(turn.said), tools) if part)


def _branches(turn: Turn, siblings: Sequence[Turn], texts: Texts) -> str:
    if len(siblings) < 2:
        return ""
    place = [sibling.id for sibling in siblings].index(turn.id)
    older, newer = siblings[max(place - 1, 0)], siblings[min(place + 1, len(siblings) - 1)]
    return (
        _button("branch", older, "‹", texts.older, _ICON + " disabled" * (older.id == turn.id))
        + f'<span class="easel-branch">{place + 1}/{len(siblings)}</span>'
        + _button("branch", newer, "›", texts.newer, _ICON + " disabled" * (newer.id == turn.id))
    )


def _reply(turn: Turn, previous: str, texts: Texts, place: _Place) -> str:
    parts = [_spoken(turn.text)]
    if turn.picture:
        parts.append(_picture(turn, previous, texts, place))
    elif turn.prompt:
        parts.append(_prompt(turn.prompt, previous, "", texts))
    elif place.last and turn.status == "done" and turn.mode != "talk":
        draw = _button("paint", turn, f"🖌 {texts.draw_it}", texts.draw_it_info)
        parts.append(f'<div class="easel-buttons easel-tools">{draw}</div>')
    if turn.status == "cancelled":
        parts.append(f'<div class="easel-note">{_inline(turn.error)}</div>')
    elif turn.status == "failed" or turn.status in IN_FLIGHT:
        # In flight, but nobody works on it: its end could not be stored.
        parts.append(f'<div class="easel-error" role="alert">{_inline(turn.error or INTERRUPTED)}</div>')
    return "\n\n".join(part for part in parts if part)


def _spoken(text: str) -> str:
    """The model's text may use Markdown, but neither HTML nor links nor pictures from elsewhere."""
    return _HTML_AND_LINKS.sub(_entities, text)


def _picture(turn: Turn, previous: str, texts: Texts, place: _Place) -> str:
    address = _address(turn.picture or "")
    facts = [f"{texts.seed} {turn.seed}"]
    if turn.draw_probability is not None:
        facts.append(f"{turn.draw_probability:.0%} {texts.to_draw}")
    if place.style:
        facts.append(f"{texts.style} {texts.style_names.get(place.style, place.style)}")
    if turn.timings and "drawing" in turn.timings:
        facts.append(f"{turn.timings.get('dialog', 0.0) + turn.timings['drawing']:.1f} s")
    return (
        f'<figure class="easel-picture"><a href="{address}" target="_blank" rel="noopener">'
        f'<img src="{address}" alt="{_inline(turn.prompt)}"{_shape(turn)}></a>'
        f"<figcaption>{_prompt(turn.prompt, previous, ' · '.join(facts), texts)}{_score(turn, texts)}"
        f"{_tools(turn, texts, place)}{_others(turn, texts, place)}</figcaption></figure>"
    )


def show_scores(scores: Mapping[str, Score], texts: Texts) -> str:
    """For easel.js to put in their places. They come after their pictures are shown, and to show a turn anew would take
    away what its user has begun there."""
    return "".join(f'<p data-turn="{turn}">{_estimate(score, texts)}</p>' for turn, score in scores.items())


def _score(turn: Turn, texts: Texts) -> str:
    """Its place."""
    return f'<div class="easel-facts easel-score easel-of-{turn.id}" title="{texts.score_info}"></div>'


def _estimate(score: Score, texts: Texts) -> str:
    """In words, and called what it is."""
    parts = []
    if score.consistency is not None:
        parts.append(texts.consistency.format(f"{score.consistency:.0%}"))
    if score.asked:
        parts.append(texts.as_asked.format(score.seen, score.asked))
    return f"{' · '.join(parts)} {texts.estimate}" if parts else ""


def _tools(turn: Turn, texts: Texts, place: _Place) -> str:
    compare = _button("compare", turn, f"◫ {texts.compare}", texts.compare_info) if place.comparable else ""
    from_here = "" if place.last else _button("base", turn, f"↳ {texts.from_here}", texts.from_here_info)
    return (
        f'<div class="easel-buttons easel-tools">{_button("redraw", turn, f"✎ {texts.redraw}", texts.redraw_info)}'
        f"{_button('vary', turn, f'❖ {texts.vary}', texts.vary_info)}{from_here}{compare}{_raw(turn.prompt)}</div>"
    )


def _others(turn: Turn, texts: Texts, place: _Place) -> str:
    """The same prompt's other pictures, to choose from, and those that are being drawn."""
    drawn = {canvas.picture for canvas in place.under_way}
    others = [other for other in alternatives(turn, place.siblings) if other.picture not in drawn]
    cells = [
        _button("base", other, f'<img src="{_address(other.picture or "")}" alt="{title}"{_shape(other)}>', title)
        for number, other in enumerate(others, 1)
        for title in [texts.choose.format(number)]
    ]
    cells += [_cell(canvas, texts) for canvas in place.under_way]
    if not cells:
        return ""
    # They stand open where the conversation can go on from them.
    return (
        f'<details class="easel-others"{" open" * (place.last or bool(place.under_way))}>'
        f"<summary>{_count(texts.others, len(cells))}</summary>"
        f'<div class="easel-grid{" easel-many" * (len(cells) > 4)}">{"".join(cells)}</div></details>'
    )


def _cell(canvas: Canvas, texts: Texts) -> str:
    if canvas.picture:
        return f'<div class="easel-cell"><img src="{_address(canvas.picture)}" alt=""></div>'
    waits = f'<div class="easel-doing">{_doing(canvas, texts)}</div>' * bool(canvas.ahead)
    return f'<div class="easel-cell easel-canvas">{_canvas(canvas)}{waits}</div>'


def _prompt(prompt: str, previous: str, facts: str, texts: Texts) -> str:
    hint = ""
    if previous:
        hint = f"<small>{texts.unchanged if previous == prompt else texts.changed}</small>"
    shown = difference(previous, prompt) if previous else _inline(prompt)
    small = f'<div class="easel-facts">{escape(facts)}</div>' if facts else ""
    changed = " open" * (previous not in ("", prompt))  # what a turn has changed is seen without a click
    return (
        f'<details class="easel-prompt"{changed}><summary>{texts.refined} {hint}</summary>'
        f'<div class="easel-words">{shown}</div>{small}</details>'
    )


def _under_way(run: Run, texts: Texts) -> str:
    if not run.drawing:
        waiting = f'<div class="easel-thinking"><span>{texts.thinking}</span><i></i><i></i><i></i></div>'
        return _spoken(run.text) or waiting
    html = (
        f'<figure class="easel-picture easel-canvas">{_canvas(run.canvas)}'
        f'<figcaption><div class="easel-doing">{_doing(run.canvas, texts)}</div>'
        f'<div class="easel-words">{_inline(run.prompt)}</div></figcaption></figure>'
    )
    return "\n\n".join(part for part in (_spoken(run.text), html) if part)


def _canvas(canvas: Canvas) -> str:
    share = 100 * canvas.step / canvas.steps if canvas.steps else 0
    shown = f'<img src="{_data_url(canvas.preview)}" alt="">' if canvas.preview else '<div class="easel-blank"></div>'
    return f'{shown}<div class="easel-bar"><div style="width:{share:.0f}%"></div></div>'


def _doing(canvas: Canvas, texts: Texts) -> str:
    if canvas.step:
        return f"{texts.painting} {canvas.step}/{canvas.steps}"
    return _count(texts.ahead, canvas.ahead) if canvas.ahead else texts.waiting


def _count(forms: tuple[str, str], number: int) -> str:
    """The form for one or the form for several."""
    return forms[number != 1].format(number)


def _shape(turn: Turn) -> str:
    """Known before the picture is loaded, so that the chat scrolls to the right place."""
    width, height = turn.settings.get("width"), turn.settings.get("height")
    return f' width="{width}" height="{height}"' if width and height else ""


def _data_url(preview: Image.Image) -> str:
    buffer = io.BytesIO()
    preview.convert("RGB").save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
