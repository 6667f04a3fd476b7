"""`easel data feedback`: a chat's ratings become corrections that check and can be learnt from."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.accounts import Accounts
from app.cli import main as easel
from app.commands import data_feedback
from app.store import Conversation, Store, Turn
from datasets_build.check import check
from dialog_mllm.errors import EmptyPrompt
from dialog_mllm.messages import Message
from dialog_mllm.protocol import Reply
from dialog_mllm.records import read_records


class Chat:
    """Talks into the store as the app does."""

    def __init__(self, store: Store, conversation: Conversation) -> None:
        self.store, self.conversation = store, conversation

    def say(
        self, said: str, parent: Turn | None = None, reply: str = "", prompt: str = "", upload: str = "", **more: Any
    ) -> Turn:
        uploads = (self.picture(upload),) if upload else ()
        turn = self.store.begin_turn(self.conversation, parent and parent.id, said, uploads, "auto", 1)
        picture = self.picture(prompt) if prompt else None
        return self.store.update_turn(turn.id, status="done", text=reply, prompt=prompt, picture=picture, **more)

    def picture(self, name: str) -> str:
        return self.store.add_picture(Image.new("RGB", (16, 16), (sum(name.encode()) % 256, 90, 30)))


@pytest.fixture
def chat(store: Store, conversation: Conversation) -> Chat:
    return Chat(store, conversation)


def feedback(chat: Chat, out: Path, *more: str) -> int:
    chat.store.close()  # as when the app has ended
    return easel(["data", "feedback", "--store", str(chat.store.folder), "--out", str(out), "--json", *more])


def by_last_words(out: Path) -> dict[str, dict[str, Any]]:
    records = [record for record, _ in read_records([out / "train-00000.jsonl"])]
    return {record["messages"][-2]["content"][-1]["text"]: record for record in records}


def test_every_rating_teaches_what_it_says(chat: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hello = chat.say("hello", None, "Hi!")
    fox = chat.say("draw a fox", hello, prompt="A red fox.", switched=True)
    chat.store.rate(fox, "like")
    scarf = chat.say("a scarf", fox, prompt="A red fox, a scarf.")
    chat.store.rate(scarf, "", "A red fox wearing a scarf.")
    night = chat.say("make it night", scarf, "It is late.")
    chat.store.rate(night, "should_draw")
    dark = chat.say("make it night", scarf, prompt="A red fox wearing a scarf, at night.")
    thanks = chat.say("thank you", dark, prompt="Thanks.")
    chat.store.rate(thanks, "should_talk")
    chat.say("thank you", dark, "You are welcome!")
    joke = chat.say("tell me a joke", dark, "No.")
    chat.store.rate(joke, "dislike")
    chat.store.rate(chat.say("tell me a joke", dark, "A fox walks into a bar."), "like")
    photo = chat.say("画成水彩", dark, "好的。", upload="photo")
    chat.store.rate(photo, "should_draw", "水彩画：一只狐狸")
    alone = chat.say("sing", dark, "La.")
    chat.store.rate(alone, "dislike")
    chat.store.rate(chat.say("", dark, "What is it?", upload="photo"), "like")
    chat.store.rate(chat.say("what does <draw> do?", dark, "It draws."), "like")
    out = tmp_path / "out"
    assert feedback(chat, out, "--licence", "mine") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["ratings"], result["records"], result["preferences"]) == (10, 6, 5)
    assert result["left_out"] == {
        "it was disliked, and no branch was liked": 1, "a message holds pictures alone": 1,
        "a user typed one of the model's tokens": 1,
    }  # fmt: skip
    assert check(out).ok, dict(check(out).violations)
    records = by_last_words(out)
    replies = {said: record["messages"][-1]["content"][0]["text"] for said, record in records.items()}
    assert replies == {
        "draw a fox": "<switch><draw>A red fox.",
        "a scarf": "<draw>A red fox wearing a scarf.",
        "make it night": "<draw>A red fox wearing a scarf, at night.",
        "thank you": "You are welcome!",
        "tell me a joke": "A fox walks into a bar.",
        "画成水彩": "<draw>水彩画：一只狐狸",
    }
    errors = {said: record["error"] for said, record in records.items()}
    assert errors == {
        "draw a fox": None, "a scarf": "prompt", "make it night": "missed_draw", "thank you": "false_draw",
        "tell me a joke": "reply", "画成水彩": "missed_draw",
    }  # fmt: skip
    assert {said: record["turns"][-1]["type"] for said, record in records.items()}["画成水彩"] == "ti2i"
    assert records["画成水彩"]["language"] == "zh" and records["a scarf"]["licence"] == "mine"
    history = [Message.from_json(message, out) for message in records["tell me a joke"]["messages"]]
    assert sum(len(message.images) for message in history) == 3
    pairs = [json.loads(line) for line in (out / "preferences.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [pair["rejected"][0]["content"][0]["text"] for pair in pairs] == [
        "<draw>A red fox, a scarf.", "It is late.", "<draw>Thanks.", "No.", "好的。",
    ]  # fmt: skip
    assert all((out / path).is_file() for pair in pairs for path in pair["images"])


def test_a_variation_is_no_other_reply(chat: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fox = chat.say("draw a fox", None, prompt="A red fox.")
    chat.store.rate(fox, "dislike")
    chat.store.rate(chat.store.add_sibling(fox, seed=2), "like")
    assert feedback(chat, tmp_path / "out") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["records"], result["preferences"]) == (1, 0)
    assert result["left_out"] == {"it was disliked, and no branch was liked": 1}


def test_the_dialog_model_fills_in_what_nobody_answered(
    chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[list[str], str]] = []

    class Model:
        async def reply(self, messages: Sequence[Message], mode: str) -> AsyncGenerator[Reply]:
            asked.append(([message.text for message in messages], mode))
            if messages[-1].text == "hm":
                raise EmptyPrompt
            yield Reply("draw", prompt="A moon.") if mode == "draw" else Reply("text", "Good night!")

    monkeypatch.setattr(data_feedback, "start_client", lambda *arguments: Model())
    hello = chat.say("hello", None, "Hi!")
    for said, more, verdict in (
        ("a moon", {"reply": "Nice."}, "should_draw"), ("good night", {"prompt": "A night."}, "should_talk"),
        ("hm", {"reply": "Hm?"}, "should_draw"), ("oh", {"reply": "Oh."}, "dislike"),
    ):  # fmt: skip
        chat.store.rate(chat.say(said, hello, **more), verdict)
    assert feedback(chat, tmp_path / "out", "--ask") == 0
    result = json.loads(capsys.readouterr().out)
    assert sorted(asked) == [
        (["hello", "Hi!", "a moon"], "draw"), (["hello", "Hi!", "good night"], "talk"),
        (["hello", "Hi!", "hm"], "draw"),
    ]  # fmt: skip
    assert (result["records"], result["preferences"], sum(result["left_out"].values())) == (2, 2, 2)
    records = by_last_words(tmp_path / "out")
    assert records["a moon"]["messages"][-1]["content"][0]["text"] == "<draw>A moon."
    assert records["good night"]["error"] == "false_draw" and records["good night"]["scores"] == {}


def test_only_one_owner_if_so_wished(chat: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat.store.rate(chat.say("hello", None, "Hi!"), "like")
    assert feedback(chat, tmp_path / "out", "--owner", "somebody") == 1
    assert "There is no user 'somebody'" in capsys.readouterr().err
    with contextlib.closing(Accounts(chat.store.folder)) as accounts:
        anna = accounts.add("anna", "a long password", admin=True)
        assert feedback(chat, tmp_path / "out", "--owner", "anna") == 1
        assert "None of 0 ratings can be learnt from." in capsys.readouterr().err
        accounts.remove(anna)


def test_what_cannot_be_used_is_said(chat: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert easel(["data", "feedback", "--store", str(tmp_path / "gone"), "--out", str(tmp_path / "out")]) == 1
    assert "no data folder of the app" in capsys.readouterr().err
    assert not (tmp_path / "gone").exists()
    running = ["data", "feedback", "--store", str(chat.store.folder), "--out", str(tmp_path / "out")]
    assert easel(running) == 1
    assert "Another Easel is using" in capsys.readouterr().err
    chat.store.rate(chat.say("hello", None, "Hi!"), "should_draw")
    assert feedback(chat, tmp_path / "out") == 1
    assert "no prompt was given and no branch drew" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
