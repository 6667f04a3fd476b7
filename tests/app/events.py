"""The page's events, sent by hand: what a browser that is not ours might send."""

from __future__ import annotations

from typing import Any

import httpx
from fastapi.testclient import TestClient


class Browser:
    """The page's events, sent by hand."""

    def __init__(self, http: TestClient, session: str) -> None:
        self.http = http
        self.session = session
        self.config = http.get("/config").json()
        self.parts = {part["id"]: part["props"] for part in self.config["components"]}

    def event(self, element: str, name: str) -> dict[str, Any]:
        ids = [number for number, props in self.parts.items() if props.get("elem_id") == element]
        return next(
            one for one in self.config["dependencies"] if any([ids[0], name] == list(to) for to in one["targets"])
        )

    def load(self, conversation_id: str) -> str:
        """What the page does when it is opened in a browser that remembers a conversation."""
        load = next(one for one in self.config["dependencies"] if any(to[1] == "load" for to in one["targets"]))
        return self.send(load, {1: conversation_id})

    def join(self, event: dict[str, Any], given: dict[int, Any], detail: Any = None) -> httpx.Response:
        """`given`: the values of inputs by their place; of others, what the page begins with."""
        data = [self.parts[number].get("value") for number in event["inputs"]]
        for place, value in given.items():
            data[place] = value
        return self.http.post(
            "/gradio_api/queue/join",
            json={"data": data, "fn_index": event["id"], "session_hash": self.session, "event_data": detail},
        )

    def send(self, event: dict[str, Any], given: dict[int, Any], detail: Any = None) -> str:
        answer = self.join(event, given, detail)
        assert answer.status_code == 200, answer.text
        return self.http.get("/gradio_api/queue/data", params={"session_hash": self.session}).text
