"""The style that a user chose for the pictures: what it makes of a refined prompt.

    in_style("A flat picture of a fox.", {"A flat picture": "A watercolour picture"})  # words, and what replaces them
    in_style("a fox", "{prompt}, watercolour")                                         # a template

The conversation keeps the prompt as the dialog model wrote it, so nothing that is learnt or changed later speaks of a
style that nobody spoke of; only what is drawn does. A prompt that names another style has none of the words and keeps
its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROMPT = "{prompt}"
LONGEST = 40  # characters of a style's name

Style = str | Mapping[str, str]


def in_style(prompt: str, style: Style) -> str:
    if isinstance(style, str):
        return style.replace(PROMPT, prompt)
    for words, others in style.items():
        prompt = prompt.replace(words, others, 1)
    return prompt


def check_styles(styles: Any) -> None:
    """ValueError says what is wrong with a profile's styles."""
    if not isinstance(styles, Mapping):
        raise ValueError(f"styles must be a table of names; got {styles!r}")
    for name, style in styles.items():
        if not 0 < len(name) <= LONGEST:
            raise ValueError(f"a style's name has 1 to {LONGEST} characters; got {name!r}")
        if isinstance(style, str) and PROMPT not in style:
            raise ValueError(f"the style {name!r} must hold {PROMPT}, where the prompt stands; got {style!r}")
        words = style.items() if isinstance(style, Mapping) else ()
        if not isinstance(style, str) and not (words and all(isinstance(w, str) and w for pair in words for w in pair)):
            raise ValueError(f"the style {name!r} must be a text, or a table of words and what replaces them")


# The bundled dialog model begins a prompt with its style, and where none was asked for it is this.
_FLAT = ("A flat picture", "扁平插画")
STORYBOOK: Mapping[str, Style] = {
    "watercolour": dict(zip(_FLAT, ("A watercolour picture", "水彩画"), strict=True)),
    "pencil": dict(zip(_FLAT, ("A pencil picture", "铅笔画"), strict=True)),
    "pixel art": dict(zip(_FLAT, ("A pixel art picture", "像素画"), strict=True)),
    "paper cut": dict(zip(_FLAT, ("A paper cut picture", "剪纸画"), strict=True)),
}
HUNYUAN: Mapping[str, Style] = {
    "photo": "{prompt}, photograph",
    "watercolour": "{prompt}, watercolour painting",
    "ink wash": "{prompt}, Chinese ink wash painting",
    "oil": "{prompt}, oil painting",
    "pencil": "{prompt}, pencil drawing",
    "anime": "{prompt}, anime illustration",
}
