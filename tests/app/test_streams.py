"""The page's event stream: what is sent while it is about to close is answered in it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
import httpx
import pytest
from fastapi import FastAPI

from app.streams import keep_streams_open
from tests.app.browser import serving


@pytest.fixture
def blocks() -> gr.Blocks:
    with gr.Blocks() as blocks:
        box = gr.Textbox()
        box.submit(lambda said: said.upper(), box, box)
    blocks.queue()
    keep_streams_open(blocks._queue, 0.5)
    return blocks


def messages(http: httpx.Client, session: str) -> Iterator[dict[str, Any]]:
    with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                yield json.loads(line[5:])


def join(http: httpx.Client, session: str, said: str) -> str:
    body = {"fn_index": 0, "data": [said], "session_hash": session}
    return http.post("/gradio_api/queue/join", json=body).raise_for_status().json()["event_id"]


def test_an_event_at_the_end_of_another_is_answered_in_its_stream(blocks: gr.Blocks) -> None:
    app = gr.mount_gradio_app(FastAPI(), blocks, "/")
    with serving(app) as url, httpx.Client(base_url=url, trust_env=False, timeout=20) as http:
        events, heard = [join(http, "s", "first")], []
        for message in messages(http, "s"):
            if message["msg"] == "process_completed" and message["event_id"] in events:
                heard.append(message["output"]["data"][0])
                if len(events) < 3:  # Gradio would have closed the stream by now
                    events.append(join(http, "s", f"number {len(events)}"))
        assert message["msg"] == "close_stream"
        assert heard == ["FIRST", "NUMBER 1", "NUMBER 2"]
        assert not blocks._queue.pending_event_ids_session["s"]


def test_it_stays_open_as_long_after_each_event(blocks: gr.Blocks) -> None:
    app = gr.mount_gradio_app(FastAPI(), blocks, "/")
    with serving(app) as url, httpx.Client(base_url=url, trust_env=False, timeout=20) as http:
        sent = [(time.monotonic(), join(http, "s", "first"))]
        for message in messages(http, "s"):
            if message["msg"] == "process_completed" and message["event_id"] == sent[-1][1] and len(sent) < 3:
                time.sleep(0.3)
                sent.append((time.monotonic(), join(http, "s", "another")))
        assert len(sent) == 3 and time.monotonic() - sent[-1][0] >= 0.5
