"""A toy data set in the canonical form, and the sizes of a toy model: small enough to train on in a test."""

from __future__ import annotations

import hashlib
import io
import json
import random
from pathlib import Path

from PIL import Image

from datasets_build.corrections import preference
from dialog_mllm.model import BaseConfig

COLOURS = {"red": "红色", "green": "绿色", "blue": "蓝色", "black": "黑色"}
SMALL = BaseConfig(vision_hidden=64, vision_layers=1, vision_heads=1, hidden=64, layers=2, heads=1, intermediate=128)


def picture(root: Path, colour: str, size: int = 128) -> dict:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "PNG")
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    path = Path("images") / digest[:2] / f"{digest}.png"
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(buffer.getvalue())
    return {"type": "image", "path": str(path), "sha256": digest}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def record(root: Path, number: int, edits: int = 1, split: str = "train") -> dict:
    """Hello, a picture, `edits` edits of it, a question about it."""
    rng = random.Random(f"{split} {number}")
    language = rng.choice(["en", "zh"])
    colour = rng.choice(list(COLOURS))
    messages: list[dict] = []
    turns: list[dict] = []

    def say(user: str, reply: str, kind: str, request: dict | None = None, drawn: bool = False) -> None:
        shown = [picture(root, colour)] if drawn else []
        messages.append({"role": "user", "content": [text(user)]})
        messages.append({"role": "assistant", "content": [text(reply), *shown]})
        turns.append({"type": kind, "request": request, "scene": None})

    def name() -> str:
        return colour if language == "en" else COLOURS[colour]

    def prompt() -> str:
        return f"a {name()} square" if language == "en" else f"一个{name()}的方块"

    say("hello" if language == "en" else "你好", "Hi!" if language == "en" else "你好！", "t2t")
    asked = f"draw a {name()} square" if language == "en" else f"画一个{name()}的方块"
    say(asked, "<switch><draw>" + prompt(), "t2i", {"op": "draw", "asked": {"colour": colour}}, drawn=True)
    for _ in range(edits):
        colour = rng.choice(list(COLOURS))
        asked = f"make it {name()}" if language == "en" else f"变成{name()}"
        say(asked, "<draw>" + prompt(), "ti2i", {"op": "edit", "edit": {"colour": colour}}, drawn=True)
    question = "what colour is it?" if language == "en" else "它是什么颜色？"
    say(question, name(), "ti2t", {"op": "answer", "accept": [colour, COLOURS[colour]]})
    return {
        "id": f"{split}-{number}", "task": "D_tt", "language": language, "split": split, "source": "toy",
        "licence": "Apache-2.0", "messages": messages, "turns": turns,
    }  # fmt: skip


def pairs(root: Path, conversations: int = 24, file: str = "preferences.jsonl") -> Path:
    """Pairs as `easel data errors` writes them: the edit asked for, and another colour instead."""
    lines = []
    for number in range(conversations):
        whole = record(root, number, 1, "train")
        whole |= {"messages": whole["messages"][:6], "error": "prompt"}  # hello, a picture, an edit of it
        reply = whole["messages"][-1]["content"][0]["text"]
        whole["messages"][-1]["content"] = whole["messages"][-1]["content"][:1]
        names = [name for pair in COLOURS.items() for name in pair]
        said = next(name for name in names if name in reply)
        wrong = names[(names.index(said) + 2) % len(names)]
        lines.append(json.dumps(preference(whole, reply.replace(said, wrong)), ensure_ascii=False))
    (root / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / file


def write(root: Path, conversations: int = 24) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation", "test"):
        lines = [json.dumps(record(root, n, 1 + n % 2, split), ensure_ascii=False) for n in range(conversations)]
        (root / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root
