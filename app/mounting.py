"""Gradio's pages within the server.

mount_pages(app, {"/": build_page(TEXTS["en"], profile, store, turns)}, Visitors())
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from starlette.responses import RedirectResponse

from app.look import look
from app.streams import keep_streams_open
from app.visitor import Visitors

MOST_SESSIONS = 1000  # of browsers' tabs, whose state Gradio keeps; an older one is loaded anew
MOST_WATCHED = 1000  # events at once: a page that watches a turn is one for as long as that lasts


def mount_pages(app: Any, pages: dict[str, gr.Blocks], visitors: Visitors) -> None:
    """Each page at its path, with or without a slash at its end; "/" must come last."""
    for path, blocks in sorted(pages.items(), key=lambda page: -len(page[0])):
        if path != "/":
            name = path.rpartition("/")[2]
            app.router.add_route(path, lambda _, name=name: RedirectResponse(f"{name}/"), include_in_schema=False)
        blocks.has_launched = True  # else Gradio checks none of the paths that the data of an event name
        blocks.state_session_capacity = MOST_SESSIONS
        blocks.queue(default_concurrency_limit=None, api_open=False)
        blocks._queue.max_thread_count = MOST_WATCHED
        keep_streams_open(blocks._queue)
        gr.mount_gradio_app(
            app, blocks, path, footer_links=[], run_history=False, ssr_mode=False, show_error=True,
            enable_monitoring=False, max_file_size="1gb", pwa=False, mcp_server=False, auth_dependency=visitors.name,
            **look(),
        )  # fmt: skip
