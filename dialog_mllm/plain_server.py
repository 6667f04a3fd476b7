"""The dialog model by transformers alone, where there is no vLLM for the machine: the same protocol, for few users.

    python -P dialog_mllm/plain_server.py --model dialog_mllm/weights/base --port 8000 --served-model-name dialog

It takes vLLM's options as `server.py` gives them and leaves out those that it has no use for. `transformers serve` does
not speak the protocol: it strips special tokens, and knows neither logit_bias nor logprobs. Replies are computed token
by token in turns, so that several users go on side by side; nothing is computed together, and no prefix is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import hmac
import io
import json
import os
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from PIL import Image
from torch import Tensor

_BROKEN = "\ufffd"  # what bytes that are no whole character yet are decoded to


class Refused(Exception):
    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Asked:
    """A request that was understood."""

    adapter: str  # "": the base alone
    inputs: Mapping[str, Tensor]
    max_tokens: int
    min_tokens: int = 0
    temperature: float = 0.0
    seed: int | None = None
    bias: Mapping[int, float] = field(default_factory=dict)
    bad_words: Sequence[Sequence[int]] = ()  # each word's tokens
    told: Sequence[int] | None = None  # whose log-probabilities are told beside the chosen one's; None: none are
    repetition: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    text: str
    position: dict[str, Any] | None = None
    finish: str | None = None  # "stop" or "length"


class Model:
    """The model, its adapters, and one thread that computes."""

    def __init__(self, source: str, adapters: Mapping[str, str], max_images: int, max_length: int | None) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.processor = AutoProcessor.from_pretrained(source)
        self.tokenizer = self.processor.tokenizer
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.model = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype).eval().to(self.device)
        text = self.model.config.get_text_config()
        self.max_length = min(max_length or text.max_position_embeddings, text.max_position_embeddings)
        self.max_images = max_images
        ends = self.model.generation_config.eos_token_id
        self.ends = {ends} if isinstance(ends, int) else set(ends or (self.tokenizer.eos_token_id,))
        self.adapters: set[str] = set()
        self._set = ""  # the adapter that the next step would be computed with
        self.worker = ThreadPoolExecutor(1, "easel-model")
        for name, folder in adapters.items():
            self.load(name, folder)

    # Adapters

    def load(self, name: str, folder: str) -> None:
        from peft import PeftModel

        if name in self.adapters:
            raise Refused(f"The lora adapter '{name}' has already been loaded.")
        try:
            if isinstance(self.model, PeftModel):
                self.model.load_adapter(folder, name)
            else:
                self.model = PeftModel.from_pretrained(self.model, folder, adapter_name=name)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise Refused(f"The adapter in {folder} cannot be loaded: {error}") from error
        self.model.eval().to(self.device)
        self.adapters.add(name)
        self._set = ""

    def unload(self, name: str) -> None:
        if name not in self.adapters:
            raise Refused(f"The lora adapter '{name}' cannot be found.", 404)
        self.model.delete_adapter(name)
        self.adapters.discard(name)
        if not self.adapters:
            self.model = self.model.unload()  # PEFT's can do nothing without one
        self._set = ""

    # Requests

    def read(self, body: Mapping[str, Any], adapter: str) -> Asked:
        """Raises Refused."""
        try:
            chat, pictures = _read_messages(body["messages"])
            if len(pictures) > self.max_images:
                raise Refused(f"At most {self.max_images} image(s) may be provided in one prompt.")
            ends = {"add_generation_prompt": True}
            if body.get("continue_final_message"):
                ends = {"add_generation_prompt": False, "continue_final_message": True}
            text = self.tokenizer.apply_chat_template(chat, tokenize=False, **ends)
            inputs = self.processor(text=text, images=[pictures] if pictures else None, return_tensors="pt")
        except Refused:
            raise
        except Exception as error:  # a template refuses in its own words
            raise Refused(f"The messages cannot be read: {error}") from error
        length = inputs["input_ids"].shape[1]
        if length >= self.max_length:
            raise Refused(
                f"This model's maximum context length is {self.max_length} tokens, and the prompt has {length}."
            )
        words = [self.tokenizer(word, add_special_tokens=False).input_ids for word in body.get("bad_words") or ()]
        return Asked(
            adapter, inputs, min(int(body.get("max_tokens") or 256), self.max_length - length),
            int(body.get("min_tokens") or 0), float(body.get("temperature") or 0.0), body.get("seed"),
            {int(token): float(bias) for token, bias in (body.get("logit_bias") or {}).items()}, words,
            (body.get("logprob_token_ids") or ()) if body.get("logprobs") else None,
            body.get("repetition_detection") or {},
        )  # fmt: skip

    def tokens(self, asked: Asked) -> Iterator[Piece]:
        """One reply, a piece a token. To be advanced in the one thread; others may be advanced in between."""
        said: list[int] = []
        shown, cache = "", None
        inputs = {name: value.to(self.device) for name, value in asked.inputs.items()}
        generator = torch.Generator().manual_seed(asked.seed or 0) if asked.seed is not None else None
        finish = None
        while finish is None:
            logits, cache = self._step(asked.adapter, inputs, said, cache)
            chosen = self._choose(logits, asked, said, generator)
            position = self._told(logits, chosen, asked.told) if asked.told is not None else None
            if chosen in self.ends:
                finish = "stop"
            else:
                said.append(chosen)
                looped = _repeats(said, asked.repetition)
                finish = "length" if len(said) >= asked.max_tokens else "stop" if looped else None
            whole = self.tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            text = whole[len(shown) :] if finish or not whole.endswith(_BROKEN) else ""
            shown += text
            yield Piece(text, position, finish)

    @torch.inference_mode()
    def _step(self, adapter: str, inputs: Mapping[str, Tensor], said: list[int], cache: Any) -> tuple[Tensor, Any]:
        """The logits behind what was said, (vocabulary,) in float32."""
        arguments: dict[str, Any] = dict(inputs)
        if cache is not None:
            length = inputs["input_ids"].shape[1] + len(said)
            arguments = {
                "input_ids": torch.tensor([said[-1:]], device=self.device),
                "attention_mask": torch.ones((1, length), dtype=torch.long, device=self.device),
            }
        if adapter and adapter != self._set:
            self.model.set_adapter(adapter)
            self._set = adapter
        if self.adapters and not adapter:
            with self.model.disable_adapter():
                output = self.model(**arguments, past_key_values=cache, use_cache=True)
        else:
            output = self.model(**arguments, past_key_values=cache, use_cache=True)
        return output.logits[0, -1].float().cpu(), output.past_key_values

    def _choose(self, logits: Tensor, asked: Asked, said: list[int], generator: torch.Generator | None) -> int:
        logits = logits.clone()
        for token, bias in asked.bias.items():
            if 0 <= token < len(logits):
                logits[token] += bias
        if len(said) < asked.min_tokens:
            logits[list(self.ends)] = -torch.inf
        for word in asked.bad_words:
            if word and said[len(said) - len(word) + 1 :] == list(word[:-1]):
                logits[word[-1]] = -torch.inf
        if asked.temperature <= 0:
            return int(logits.argmax())
        return int(torch.multinomial((logits / asked.temperature).softmax(0), 1, generator=generator))

    def _told(self, logits: Tensor, chosen: int, told: Sequence[int]) -> dict[str, Any]:
        """What the model thought, before anybody pushed it."""
        logprobs = logits.log_softmax(0)
        tops = [
            {"token": self.tokenizer.decode([token], skip_special_tokens=False), "logprob": float(logprobs[token])}
            for token in (chosen, *told)
        ]
        return {**tops[0], "top_logprobs": tops}


def build_app(model: Model, base: str, key: str) -> FastAPI:
    """`base`: the name of the model without an adapter; each adapter goes by its own."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(Refused)
    async def refuse(request: Request, error: Refused) -> Response:
        return JSONResponse({"error": {"message": str(error), "type": "invalid_request_error"}}, error.status)

    @app.middleware("http")
    async def check_key(request: Request, call_next: Any) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if request.url.path != "/health" and key and not hmac.compare_digest(given.encode(), key.encode()):
            return JSONResponse({"error": {"message": "Unauthorized"}}, 401)
        return await call_next(request)

    async def body_of(request: Request) -> dict[str, Any]:
        try:
            body = await request.json()
        except ValueError as error:
            raise Refused("The request is no JSON.") from error
        if not isinstance(body, dict):
            raise Refused("The request is no JSON object.")
        return body

    def adapter_of(body: Mapping[str, Any]) -> str:
        name = body.get("model")
        if name != base and name not in model.adapters:
            raise Refused(f"The model `{name}` does not exist.", 404)
        return "" if name == base else str(name)

    async def in_its_thread(what: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(model.worker, what, *arguments)

    @app.get("/health")
    async def health() -> Response:
        return Response()

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, "object": "model"} for name in (base, *sorted(model.adapters))]}

    @app.post("/tokenize")
    async def tokenize(request: Request) -> dict[str, Any]:
        body = await body_of(request)
        tokens = model.tokenizer(str(body.get("prompt", "")), add_special_tokens=bool(body.get("add_special_tokens")))
        return {"tokens": tokens.input_ids, "count": len(tokens.input_ids), "max_model_len": model.max_length}

    @app.post("/v1/load_lora_adapter")
    async def load(request: Request) -> Response:
        body = await body_of(request)
        await in_its_thread(model.load, str(body["lora_name"]), str(body["lora_path"]))
        return Response("Success")

    @app.post("/v1/unload_lora_adapter")
    async def unload(request: Request) -> Response:
        await in_its_thread(model.unload, str((await body_of(request))["lora_name"]))
        return Response("Success")

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await body_of(request)
        asked = await asyncio.to_thread(model.read, body, adapter_of(body))
        pieces = model.tokens(asked)

        async def each() -> AsyncGenerator[Piece]:
            while (piece := await in_its_thread(next, pieces, None)) is not None:
                yield piece

        if body.get("stream"):
            read = asked.inputs["input_ids"].shape[1]
            return StreamingResponse(_stream(each(), str(body["model"]), read), media_type="text/event-stream")
        said = [piece async for piece in each()]
        message = {"role": "assistant", "content": "".join(piece.text for piece in said)}
        choice = {"index": 0, "message": message, "finish_reason": said[-1].finish}
        return JSONResponse({"object": "chat.completion", "model": body["model"], "choices": [choice]})

    return app


async def _stream(pieces: AsyncGenerator[Piece], model: str, read: int) -> AsyncGenerator[str]:
    """Chunks as vLLM's, each with the number of tokens that were `read`."""
    head: dict[str, Any] = {"id": f"chatcmpl-{time.time_ns():x}", "object": "chat.completion.chunk", "model": model}
    head["usage"] = {"prompt_tokens": read}
    try:
        async for piece in pieces:
            choice: dict[str, Any] = {"index": 0, "delta": {"content": piece.text}, "finish_reason": piece.finish}
            if piece.position is not None:
                choice["logprobs"] = {"content": [piece.position]}
            yield f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"
    except Exception as error:  # out of memory, in mid-reply: the client names it
        yield f"data: {json.dumps({'error': {'message': str(error)}})}\n\n"
    yield "data: [DONE]\n\n"


def _read_messages(messages: Any) -> tuple[list[dict[str, Any]], list[Image.Image]]:
    """In the form that chat templates take, and the pictures in their order."""
    chat, pictures = [], []
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            parts: list[dict[str, Any]] = []
            for part in content:
                if part["type"] == "text":
                    parts.append({"type": "text", "text": part["text"]})
                else:
                    pictures.append(_read_picture(part["image_url"]["url"]))
                    parts.append({"type": "image"})
            content = parts
        chat.append({"role": message["role"], "content": content})
    return chat, pictures


def _read_picture(url: str) -> Image.Image:
    """Only what stands in the request: no address is opened."""
    head, _, data = url.partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64"):
        raise Refused("A picture must be a base64 data URL.")
    try:
        return Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert("RGB")
    except (OSError, ValueError, binascii.Error, Image.DecompressionBombError) as error:
        raise Refused(f"A picture cannot be read: {error}") from error


def _repeats(said: Sequence[int], rule: Mapping[str, int]) -> bool:
    """Whether the reply has come into a loop, as vLLM's repetition_detection has it."""
    times = rule.get("min_count", 0)
    for size in range(rule.get("min_pattern_size", 1), rule.get("max_pattern_size", 0) + 1):
        if times * size <= len(said) and list(said[-size:]) * times == list(said[-times * size :]):
            return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description="the dialog model over HTTP, by transformers")
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--served-model-name", default="dialog")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--limit-mm-per-prompt", type=json.loads, default={})
    parser.add_argument("--lora-modules", nargs="*", default=[], metavar="NAME=FOLDER")
    args, _ = parser.parse_known_args()  # the others are vLLM's
    adapters = dict(module.split("=", 1) for module in args.lora_modules)
    model = Model(args.model, adapters, int(args.limit_mm_per_prompt.get("image", 1)), args.max_model_len)
    app = build_app(model, args.served_model_name, os.environ.get("VLLM_API_KEY", ""))
    uvicorn.run(app, host=args.host, port=args.port, access_log=False, log_level="warning", ws="none")


if __name__ == "__main__":
    main()
