"""What is not shown yet is on the page all the same, put away by a class.

    gr.Row(elem_classes=visible_if(False)); gr.Row(elem_classes=visible_if(bool(path)))

A component with `visible=False` is not on the page: Gradio 6 loads it when it first becomes visible, and a busy browser
may swallow other updates meanwhile (see static/pulse.js). `visible="hidden"` would do, but rows and columns do not know
it.
"""

from __future__ import annotations

AWAY = "easel-away"  # see easel.css


def visible_if(yes: bool, *classes: str) -> list[str]:
    """A component's classes, of which `classes` are its own."""
    return [*classes] if yes else [*classes, AWAY]
