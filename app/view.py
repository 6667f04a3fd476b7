"""What a conversation looks like: turns in, messages of Gradio's chatbot out. Pure functions of text.

    from app.view import show_turns; show_turns(turns, None, TEXTS["en"])

Whatever a user or a model said is escaped here, and is shown as it was written.
"""

from __future__ import annotations

import base64
import difflib
import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from PIL import Image

from app.running import Canvas, Run
from app.store import IN_FLIGHT, INTERRUPTED, Turn
from app.texts import Texts

_ALWAYS_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>&#|~!$@]|://|(?<=www)\.")
_LINE_START = re.compile(r"^([ \t]*)([-+=:]|\d+(?=[.)]))", re.MULTILINE)
_HTML_AND_LINKS = re.compile(r"[<>&\[\]!\\]|://|(?<=www)\.")
_WORDS = re.compile(r"[\w'-]*[a-z0-9][\w'-]*|\s+|.", re.IGNORECASE | re.ASCII | re.DOTALL)


def show_turns(turns: Sequence[Turn], run: Run | None, texts: Texts) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    previous = ""
    for turn in turns:
        messages.append({"role": "user", "content": _said(turn)})
        if run is not None and run.turn.id == turn.id:
            messages.append({"role": "assistant", "content": _under_way(run, texts)})
        else:
            messages.append({"role": "assistant", "content": _reply(turn, previous, texts)})
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
    for kind, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        gone, come = _inline("".join(old[i1:i2])), _inline("".join(new[j1:j2]))
        if kind == "equal":
            parts.append(come)
        else:
            parts += [f"<del>{gone}</del>"] * bool(gone.strip()) + [f"<mark>{come}</mark>"] * bool(come)
    return "".join(parts)


def _entities(match: re.Match[str] | str) -> str:
    return "".join(f"&#{ord(character)};" for character in (match if isinstance(match, str) else match[0]))


def _inline(text: str) -> str:
    """Text inside an HTML block, which ends at an empty line."""
    return escape(text).replace("\n", "<br>")


def _address(picture: str) -> str:
    return f"/v1/pictures/{picture}.png"


def _said(turn: Turn) -> str:
    pictures = "".join(f'<img class="easel-upload" src="{_address(picture)}" alt="">' for picture in turn.uploads)
    return "\n\n".join(part for part in (pictures, literal(turn.said)) if part)


def _reply(turn: Turn, previous: str, texts: Texts) -> str:
    parts = [_spoken(turn.text)]
    if turn.picture:
        parts.append(_picture(turn, previous, texts))
    elif turn.prompt:
        parts.append(_prompt(turn.prompt, previous, "", texts))
    if turn.status == "cancelled":
        parts.append(f'<div class="easel-note">{_inline(turn.error)}</div>')
    elif turn.status == "failed" or turn.status in IN_FLIGHT:
        # In flight, but nobody works on it: its end could not be stored.
        parts.append(f'<div class="easel-error" role="alert">{_inline(turn.error or INTERRUPTED)}</div>')
    return "\n\n".join(part for part in parts if part)


def _spoken(text: str) -> str:
    """The model's text may use Markdown, but neither HTML nor links nor pictures from elsewhere."""
    return _HTML_AND_LINKS.sub(_entities, text)


def _picture(turn: Turn, previous: str, texts: Texts) -> str:
    address = _address(turn.picture or "")
    facts = [f"{texts.seed} {turn.seed}"]
    if turn.draw_probability is not None:
        facts.append(f"{turn.draw_probability:.0%} {texts.to_draw}")
    if turn.timings and "drawing" in turn.timings:
        facts.append(f"{turn.timings.get('dialog', 0.0) + turn.timings['drawing']:.1f} s")
    return (
        f'<figure class="easel-picture"><a href="{address}" target="_blank" rel="noopener">'
        f'<img src="{address}" alt="{_inline(turn.prompt)}"{_shape(turn)}></a>'
        f"<figcaption>{_prompt(turn.prompt, previous, ' · '.join(facts), texts)}</figcaption></figure>"
    )


def _prompt(prompt: str, previous: str, facts: str, texts: Texts) -> str:
    hint = ""
    if previous:
        hint = f"<small>{texts.unchanged if previous == prompt else texts.changed}</small>"
    shown = difference(previous, prompt) if previous else _inline(prompt)
    small = f'<div class="easel-facts">{escape(facts)}</div>' if facts else ""
    return (
        f'<details class="easel-prompt"><summary>{texts.refined} {hint}</summary>'
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
