"""A few lines of HTTP on loopback that answer as a test says: for the failures that vLLM does not show on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

Answer = Callable[["Connection"], Any]
DRAW_ID = 7
CONTEXT = 512


class Connection:
    """One request, and the means to answer it."""

    def __init__(self, path: str, body: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.path, self.body = path, body
        self._reader, self._writer = reader, writer

    async def head(self, status: int = 200, kind: str = "text/event-stream") -> None:
        await self.write(f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n")

    async def write(self, text: str) -> None:
        self._writer.write(text.encode())
        await self._writer.drain()

    async def json(self, value: Any, status: int = 200) -> None:
        await self.head(status, "application/json")
        await self.write(json.dumps(value))

    async def tokens(self, *tokens: str, finish: str | None = "stop", draw: float = -0.5) -> None:
        """Stream chunks as vLLM sends them, one token each."""
        for token in tokens:
            other = {"token": "<draw>", "logprob": draw}
            logprobs = {"content": [{"token": token, "logprob": -0.1, "top_logprobs": [other]}]}
            await self.chunk({"choices": [{"delta": {"content": token}, "logprobs": logprobs}]})
        if finish:
            await self.chunk({"choices": [{"delta": {}, "finish_reason": finish}]})
            await self.write("data: [DONE]\n\n")

    async def chunk(self, value: Any) -> None:
        await self.write(f"data: {json.dumps(value)}\n\n")

    async def closed(self) -> bool:
        return await self._reader.read(1) == b""


class FakeServer:
    def __init__(self, answers: list[Answer], draw_ids: list[int]) -> None:
        self.url = ""
        self.requests: list[Connection] = []
        self._answers = answers
        self._draw_ids = draw_ids

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length:")[1].split()[0])
            connection = Connection(head.split()[1], json.loads(await reader.readexactly(length)), reader, writer)
            if connection.path == "/tokenize":
                await connection.json({"tokens": self._draw_ids, "max_model_len": CONTEXT})
            else:
                self.requests.append(connection)
                await self._answers.pop(0)(connection)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client hung up: some tests want that
        finally:
            writer.close()


@asynccontextmanager
async def fake_server(*answers: Answer, draw_ids: list[int] | None = None) -> AsyncIterator[FakeServer]:
    """Serves the answers one by one, in order; /tokenize always works."""
    fake = FakeServer(list(answers), [DRAW_ID] if draw_ids is None else draw_ids)
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield fake
    finally:
        server.close()
