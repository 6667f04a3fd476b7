"""How the pages look: theme, style sheet, and the scripts beside Gradio's own.

gr.mount_gradio_app(app, blocks, "/", **look())
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

STATIC = Path(__file__).parent / "static"
_DRAWN = "<text y=%22.9em%22 font-size=%2290%22>🎨</text>"
ICON = (
    '<link rel="icon" href="data:image/svg+xml,'
    f'<svg xmlns=%22http://www.w3.org/2000/svg%22 viewBox=%220 0 100 100%22>{_DRAWN}</svg>">'
)


def look() -> dict[str, Any]:
    """What Gradio 6 wants at mounting. No font is fetched from anywhere."""
    sans = ["Avenir Next", "Nunito", "Segoe UI", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "sans-serif"]
    theme = gr.themes.Base(
        primary_hue=gr.themes.colors.orange,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_lg,
        font=sans,
        font_mono=["ui-monospace", "DejaVu Sans Mono", "monospace"],
    )
    scripts = (f"<script>{(STATIC / name).read_text(encoding='utf-8')}</script>" for name in ("pulse.js", "easel.js"))
    return {
        "theme": theme,
        "css": (STATIC / "easel.css").read_text(encoding="utf-8"),
        "head": f'{ICON}<meta name="viewport" content="width=device-width, initial-scale=1">{"".join(scripts)}',
    }
