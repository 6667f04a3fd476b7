"""Easel as tools for other programs' agents: the Model Context Protocol over streamable HTTP, at /mcp.

    tools = McpTools(api); app.router.routes.append(tools.route)  # served within `async with tools.running():`

Two tools, draw_picture and chat, over the same code as the HTTP API. The protocol itself is the mcp package's. Calls
are stateless there; what a chat has said is kept here, for as long as the server runs.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections import OrderedDict
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ImageContent,
    ListToolsResult,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.routing import Route

from app import openai_format as fmt
from app.api import Api
from app.caller import Caller, caller_of
from app.errors import EaselError, InputRefused, NotFound
from app.guard import MOST_BODY
from dialog_mllm.errors import DialogError
from generator.errors import GeneratorError

MOST_CONVERSATIONS = 200  # the one that was silent the longest makes room


class DrawPicture(BaseModel):
    """Draw one picture exactly as the prompt describes it. Returns the picture, its address and its seed."""

    model_config = ConfigDict(extra="forbid", title="draw_picture")
    prompt: str = Field(description="What the picture shows, in English or Chinese")
    size: str | None = Field(
        default=None, description="WIDTHxHEIGHT in pixels; without it, the size that suits the model"
    )
    seed: int | None = Field(
        None, ge=0, le=2**63 - 1, description="The same prompt, size and seed draw the same picture"
    )


class Chat(BaseModel):
    """Say something to Easel, which answers in words or draws. Pictures are changed by going on with their
    conversation: "draw a red fox", then "give it a blue scarf". Returns the reply, the picture if one was drawn, and
    the conversation to go on with."""

    model_config = ConfigDict(extra="forbid", title="chat")
    message: str = Field(description="What to say, in English or Chinese")
    conversation: str | None = Field(
        None, description="From the result of an earlier call; without it, a new one begins"
    )


TOOLS: dict[str, type[BaseModel]] = {"draw_picture": DrawPicture, "chat": Chat}


class McpTools:
    def __init__(self, api: Api) -> None:
        self.api = api
        self.conversations: OrderedDict[tuple[str, str], list[fmt.ChatMessage]] = OrderedDict()  # by owner and name
        server: Server[Any] = Server("easel", on_list_tools=self._list, on_call_tool=self._call)
        # Replies are event streams, which stay alive while a picture is drawn. The guard has seen to hosts and origins.
        self._sessions = StreamableHTTPSessionManager(server, stateless=True, max_request_body_size=MOST_BODY)
        self.route = Route("/mcp", StreamableHTTPASGIApp(self._sessions), include_in_schema=False)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Serves while it is open; can be opened once."""
        return self._sessions.run()

    async def _list(self, context: Any, params: Any) -> ListToolsResult:
        notes = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
        return ListToolsResult(
            tools=[
                Tool(
                    name=name,
                    description=" ".join((model.__doc__ or "").split()),
                    input_schema={**model.model_json_schema(), "description": name},
                    annotations=notes,
                )
                for name, model in TOOLS.items()
            ]
        )

    async def _call(self, context: Any, params: CallToolRequestParams) -> CallToolResult:
        """Errors are results too: the agent reads them and tries otherwise."""
        try:
            if params.name not in TOOLS:
                raise NotFound(f"There is no tool {params.name!r} here. Choose {' or '.join(TOOLS)}.")
            arguments = TOOLS[params.name].model_validate(params.arguments or {})
            address, caller = str(context.request.base_url).rstrip("/"), caller_of(context.request.scope)
            if isinstance(arguments, DrawPicture):
                return await self._draw(arguments, address, caller)
            assert isinstance(arguments, Chat)
            return await self._chat(arguments, address, caller)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            return _failed(f"The arguments are malformed: {field}: {first['msg']}.")
        except (EaselError, DialogError, GeneratorError) as error:
            return _failed(str(error))

    async def _draw(self, arguments: DrawPicture, address: str, caller: Caller) -> CallToolResult:
        body = fmt.ImagesRequest(prompt=arguments.prompt, size=arguments.size, seed=arguments.seed)
        async with aclosing(self.api.draw(body, caller=caller)) as drawings:
            request, picture = await anext(drawings)
        data = await asyncio.to_thread(self.api.store.picture_path(picture).read_bytes)
        width, height = request.size
        facts = {
            "url": f"{address}/v1/pictures/{picture}.png",
            "seed": request.seed,
            "size": f"{width}x{height}",
        }
        return _result(f"Drawn with seed {request.seed}: {facts['url']}", base64.b64encode(data).decode(), facts)

    async def _chat(self, arguments: Chat, address: str, caller: Caller) -> CallToolResult:
        conversation = arguments.conversation or secrets.token_hex(12)
        place = (caller.owner, conversation)
        if arguments.conversation and place not in self.conversations:
            raise NotFound(f"There is no conversation {conversation[:40]!r} here any more. Leave it out for a new one.")
        said = [*self.conversations.get(place, ()), fmt.ChatMessage(role="user", content=arguments.message)]
        if len(said) > fmt.MOST_MESSAGES:
            raise InputRefused("This conversation has grown too long. Leave it out for a new one.")
        reply = await self.api.reply(fmt.ChatRequest(messages=said), address, caller)
        whole = await reply.whole()
        message, easel = whole["choices"][0]["message"], whole["easel"]
        self.conversations[place] = [*said, fmt.ChatMessage(role="assistant", content=message["content"])]
        self.conversations.move_to_end(place)
        if len(self.conversations) > MOST_CONVERSATIONS:
            self.conversations.popitem(last=False)
        facts = {"conversation": conversation, **{name: easel[name] for name in ("draw", "prompt", "seed")}}
        images = message.get("images") or ()
        picture = images[0]["image_url"]["url"].partition(",")[2] if images else ""
        return _result(f"{message['content']}\n\n(conversation: {conversation})", picture, facts)


def _result(text: str, picture: str, facts: dict[str, Any]) -> CallToolResult:
    content: list[Any] = [TextContent(type="text", text=text)]
    if picture:
        content.append(ImageContent(type="image", data=picture, mime_type="image/png"))
    return CallToolResult(content=content, structured_content=facts)


def _failed(message: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=message)], is_error=True)
