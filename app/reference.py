"""What the HTTP API says of itself: the shapes of its replies in /openapi.json, and /docs, which loads nothing else.

    add_reference(app)   # after the routes

The replies are built by hand in api.py, as OpenAI's are; the tests hold them against the models here.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict

SUMMARY = """Easel speaks OpenAI's protocol: its clients need this server's address, with /v1 behind it, as their base
URL. Agents find the tools draw_picture and chat at /mcp (Model Context Protocol, streamable HTTP). A server that was
started with --api-key-env wants its key with every request to /v1, /mcp and /metrics; without it, only programs on its
own machine are answered. Where people sign in, programs use a key from their user's account page, and see the pictures
of that user alone."""


class Exact(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(Exact):
    message: str  # what happened, and what to do
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str


class ErrorReply(Exact):
    error: Problem


class Health(Exact):
    status: Literal["ready", "warming up", "failed"]
    dialog: str
    generator: str
    profile: str
    error: str | None = None


class ModelEntry(Exact):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Exact):
    object: Literal["list"]
    data: list[ModelEntry]


class ImageUrl(Exact):
    url: str  # data:image/png;base64,…


class ImagePart(Exact):
    type: Literal["image_url"]
    image_url: ImageUrl


class Reply(Exact):
    role: Literal["assistant"]
    content: str  # a picture stands in it as ![its prompt](its address)
    images: list[ImagePart] | None = None


class Choice(Exact):
    index: int
    message: Reply
    finish_reason: Literal["stop"]
    logprobs: None


class Drawn(Exact):
    draw: bool
    prompt: str | None
    seed: int
    draw_probability: float | None
    timings: dict[str, float] | None


class ChatCompletion(Exact):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    easel: Drawn


class ImageData(Exact):
    revised_prompt: str
    seed: int
    url: str | None = None
    b64_json: str | None = None


class Images(Exact):
    created: int
    data: list[ImageData]


def replies(model: type[BaseModel] | None = None, **content: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """For a route: what it answers (text_event__stream: text/event-stream), and that its errors have OpenAI's shape."""
    good: dict[str, Any] = {"model": model} if model else {}
    if content:
        good["content"] = {kind.replace("__", "-").replace("_", "/"): schema for kind, schema in content.items()}
    return {
        200: {"description": "OK", **good},
        "4XX": {"model": ErrorReply, "description": "Something is wrong with the request; the message says what to do"},
        "5XX": {"model": ErrorReply, "description": "Something is wrong here; the message says what to do"},
    }


def add_reference(app: FastAPI) -> None:
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(app.openapi()))

    app.add_api_route("/docs", docs, include_in_schema=False)


def page(schema: dict[str, Any]) -> str:
    parts = [f"<h1>{escape(schema['info']['title'])}: the HTTP API</h1><p>{escape(SUMMARY)}</p>"]
    parts.append('<p>For tools: <a href="openapi.json">openapi.json</a></p>')
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            parts.append(f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(route.get('description') or route['summary'])}</p>")
            body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            if body:
                parts.append(_fields(body["$ref"].rpartition("/")[2], schema["components"]["schemas"]))
            parts.append("</section>")
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}"
        ":root{color-scheme:light dark}"
        "pre{overflow:auto;padding:.8rem;border:1px solid #8886;border-radius:6px}section{border-top:1px solid #8886}"
        "td{padding:.1rem 1rem .1rem 0;vertical-align:top}h2{font-size:1.1rem}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Easel: the HTTP API</title><style>{style}</style>'
        f"{''.join(parts)}</html>"
    )


def _fields(name: str, schemas: dict[str, Any]) -> str:
    """A table of the request's fields, and its example."""
    schema = schemas[name]
    rows = ""
    for field, value in schema["properties"].items():
        default = "required" if field in schema.get("required", ()) else json.dumps(value.get("default"))
        rows += (
            f"<tr><td><code>{escape(field)}</code></td><td>{escape(_kind(value, schemas))}</td>"
            f"<td>{escape(default)}</td><td>{escape(value.get('description', ''))}</td></tr>"
        )
    example = "".join(
        f"<pre>{escape(json.dumps(one, indent=2, ensure_ascii=False))}</pre>" for one in schema.get("examples", ())
    )
    return f"<table>{rows}</table>{example}"


def _kind(value: dict[str, Any], schemas: dict[str, Any]) -> str:
    if "$ref" in value:
        inner = schemas[value["$ref"].rpartition("/")[2]]
        return "{" + ", ".join(inner["properties"]) + "}"
    if "anyOf" in value:
        return " or ".join(_kind(one, schemas) for one in value["anyOf"] if one.get("type") != "null")
    if value.get("type") == "array":
        return f"list of {_kind(value['items'], schemas)}"
    return str(value.get("type", "any"))
