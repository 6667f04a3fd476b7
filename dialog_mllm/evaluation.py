"""How good the dialog model is, on held-out dialogues: DialogBen's question (draw or talk?) and the refined prompts.

    files = data_files(["data"], "test")
    turns = asyncio.run(ask_all(list(turns_of(read_records(files))), DialogClient(url, key, "dialog")))
    scores = score(turns, judge_prompt)

Every assistant turn is asked for on its own, after the record's true history, many at once. Whether a prompt holds what
was asked and keeps what was not is for `judge_prompt` to say: this package does not know the picture-book world.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dialog_mllm.client import DialogClient
from dialog_mllm.errors import MessageError, ProtocolError
from dialog_mllm.messages import ImageBlock, Message
from dialog_mllm.protocol import DRAW, SWITCH, Parser, Reply
from dialog_mllm.records import DataError, Record, unreadable
from dialog_mllm.scores import breakdown

CONCURRENCY = 32
# (the record's turn, the refined prompt, the prompt before it or None) -> is the prompt right?
JudgePrompt = Callable[[dict[str, Any], str, str | None], bool]


@dataclass(frozen=True)
class Turn:
    """One assistant turn: what it is asked with, what the record answers, and what the model answered."""

    record: str
    index: int
    language: str
    turn: dict[str, Any]
    history: tuple[Message, ...]
    wanted: str  # the record's reply
    previous_prompt: str | None  # of the picture in question, if it was drawn: None where the user brought a newer one
    topic: str | None = None
    shown: tuple[ImageBlock, ...] = ()  # what the record's reply drew
    reply: Reply | None = None  # None: the output was no reply

    @property
    def draws(self) -> bool:
        return self.wanted.removeprefix(SWITCH).startswith(DRAW)

    @property
    def drew(self) -> bool | None:
        return None if self.reply is None else self.reply.kind == "draw"

    @property
    def wanted_prompt(self) -> str:
        return self.wanted.removeprefix(SWITCH).removeprefix(DRAW)

    @property
    def operation(self) -> str:
        return (self.turn.get("request") or {}).get("op", "talk")

    @property
    def request_name(self) -> str:
        """The operation, and of an edit its kind: "edit colour", or "edit colour+" with others in the same breath."""
        request = self.turn.get("request") or {}
        edit = request.get("edit") or {}
        if self.operation != "edit" or "op" not in edit:
            return self.operation
        return f"edit {edit['op']}{'+' if 'then' in request else ''}"


def turns_of(records: Iterable[tuple[Record, Path]]) -> Iterator[Turn]:
    for record, root in records:
        messages = [Message.from_json(message, root) for message in record["messages"]]
        previous = None
        if len(messages) != 2 * len(record.get("turns", ())):
            raise DataError(f"record {record.get('id')}: it needs one entry in `turns` for each reply.")
        for index, turn in enumerate(record["turns"]):
            asked, answer = messages[2 * index : 2 * index + 2]
            if asked.images:
                previous = None
            made = Turn(
                record=str(record.get("id")),
                index=index,
                language=record.get("language", "en"),
                turn=turn,
                history=tuple(messages[: 2 * index + 1]),
                wanted=answer.text,
                previous_prompt=previous,
                topic=record.get("topic"),
                shown=answer.images,
            )
            yield made
            if made.draws:
                previous = made.wanted_prompt


async def ask_all(
    turns: Sequence[Turn],
    client: DialogClient,
    concurrency: int = CONCURRENCY,
    on_progress: Callable[[int, int], None] | None = None,
    on_answer: Callable[[Turn], None] | None = None,
) -> list[Turn]:
    """The turns with their replies. Raises the first failure of the server; `on_answer` has had all before it.

    `concurrency` dialogues are asked about at once, the turns of each in their order: vLLM then finds all of a turn's
    history but the last messages in its prefix cache, where it lies for as long as the dialogue is under way."""
    slots = asyncio.Semaphore(concurrency)
    answered: dict[int, Turn] = {}

    async def ask(turn: Turn) -> Turn:
        reply = None
        try:
            async for event in client.reply(turn.history):
                if isinstance(event, Reply):
                    reply = event
        except ProtocolError:
            reply = None
        except MessageError as error:
            raise unreadable(turn.record, error) from error
        return replace(turn, reply=reply)

    async def hold(dialogue: Sequence[int]) -> None:
        async with slots:
            for place in dialogue:
                answered[place] = await ask(turns[place])
                if on_answer:
                    on_answer(answered[place])
                if on_progress:
                    on_progress(len(answered), len(turns))

    dialogues: dict[str, list[int]] = {}
    for place, turn in enumerate(turns):
        dialogues.setdefault(turn.record, []).append(place)
    async with asyncio.TaskGroup() as group:  # one failure stops the others
        for dialogue in sorted(dialogues.values(), key=len, reverse=True):  # the long ones last would wait alone
            group.create_task(hold(dialogue))
    return [answered[place] for place in range(len(turns))]


def read_reply(raw: str) -> Reply | None:
    parser = Parser()
    parser.feed(raw)
    try:
        return parser.finish()[1]
    except ProtocolError:
        return None


def score(turns: Sequence[Turn], judge_prompt: JudgePrompt) -> dict[str, Any]:
    """{"n": dialogues, "turns": …}: see scores.py for the rest."""
    if not turns:
        raise DataError("there is no dialogue to measure on: make some with `easel data mix`")
    judged = [(turn, judge(turn, judge_prompt)) for turn in turns]
    return {"n": len({turn.record for turn in turns}), **breakdown(judged)}


def judge(turn: Turn, judge_prompt: JudgePrompt) -> dict[str, bool]:
    """What the turn can be right or wrong in; a key is absent where the turn does not bear on it."""
    right: dict[str, bool] = {"switch_accuracy": turn.drew == turn.draws, "no_reply": turn.reply is None}
    reply = turn.reply
    if turn.draws:
        prompt = reply.prompt if reply is not None and turn.drew else ""
        right["missed_draw"] = turn.drew is not True
        right["prompt_correct"] = bool(prompt) and judge_prompt(turn.turn, prompt, turn.previous_prompt)
        right["prompt_exact"] = prompt == turn.wanted_prompt
        if turn.operation == "edit" and turn.previous_prompt:
            most = _changed_words(turn.previous_prompt, turn.wanted_prompt)
            right["minimal_change"] = bool(prompt) and _changed_words(turn.previous_prompt, prompt) <= most
    else:
        right["false_draw"] = turn.drew is True
    if reply is not None and turn.turn.get("switch_known", True):
        right["topic_accuracy"] = reply.switched == turn.wanted.startswith(SWITCH)
    if turn.operation == "answer":
        said = reply.text if reply is not None and not turn.drew else ""
        right["question_accuracy"] = any(mentions(said, answer) for answer in turn.turn["request"]["accept"])
    if turn.operation == "refuse":
        right["refusal_accuracy"] = turn.drew is False
    return right


def error_of(turn: Turn, right: Mapping[str, bool]) -> str | None:
    """The kind of error in a reply, by `judge`'s verdict on it; the first of several. None: the reply is right."""
    if turn.reply is None:
        return "no_reply"
    if turn.operation == "refuse" and turn.drew:
        return "refusal"
    if right.get("false_draw"):
        return "false_draw"
    if right.get("missed_draw"):
        return "missed_draw"
    for kind, key in (("prompt", "prompt_correct"), ("question", "question_accuracy"), ("topic", "topic_accuracy")):
        if right.get(key) is False:
            return kind
    return None


def verdict(turn: Turn, judge_prompt: JudgePrompt) -> dict[str, Any]:
    """A turn's line of `easel eval dialog --turns`: what was asked, by its digest and its categories, and what was
    right in the reply."""
    right = judge(turn, judge_prompt)
    said = "\n".join(message.text for message in turn.history)
    edits = (turn.turn.get("request") or {}).get("edit") or {}
    return {
        "record": turn.record,
        "turn": turn.index,
        "asked": hashlib.sha256(f"{said}\n{turn.wanted}".encode()).hexdigest()[:16],
        "type": turn.turn["type"],
        "language": turn.language,
        "request": turn.operation,
        "edit": edits.get("op"),
        "topic": turn.topic,
        "error": error_of(turn, right),
        "right": right,
        "draw_probability": turn.reply and turn.reply.draw_probability,
        "reply": turn.reply and turn.reply.content,
    }


def _words(text: str) -> list[str]:
    """Words, and Chinese characters one by one."""
    return re.findall(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+", text.lower())


def _changed_words(before: str, after: str) -> int:
    a, b = _words(before), _words(after)
    edits = difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    return sum(max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in edits if tag != "equal")


def mentions(text: str, answer: str) -> bool:
    """The answer's words in a row: "red" is not in "bored"."""
    said, sought = _words(text), _words(answer)
    return any(said[i : i + len(sought)] == sought for i in range(len(said) - len(sought) + 1)) if sought else False
