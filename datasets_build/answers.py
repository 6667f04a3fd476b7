"""Answers: a teacher's text read as a dialogue, or refused with the reason.

    dialogue = read_answer(brief, '{"instruction": "a fox pls", "prompt": "A red fox sits in deep snow, …"}')

The teacher never writes a protocol token: the draw token is put in front of its prompts here, and an answer that holds
any token is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from datasets_build.briefs import LENGTHS, Brief, Step
from datasets_build.consistency import LEAST, chinese_share, kept_share, words
from datasets_build.records import Dialogue, Exchange
from dialog_mllm.messages import DRAW
from dialog_mllm.protocol import TOKENS

COPIED = 8  # words in a row (as `consistency.words` counts them) that only someone who copies has in common
SAME = 0.9  # of the words: a prompt that differs less from an example is that example
_TALKS_SHOP = re.compile(
    r"\bjson\b|\bas an ai\b|language model|training data|image model|训练数据|语言模型|图像模型|提示词|作为一个\s*ai",
    re.IGNORECASE,
)
_THOUGHTS = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"^\s*```(?:json)?\s*\n(.*)\n\s*```\s*$", re.DOTALL)


class Refused(Exception):
    """The answer cannot be used; the text says why."""


def read_answer(brief: Brief, text: str, finish: str | None = "stop") -> Dialogue:
    answer = read_object(text, finish)
    if brief.task == "D_p":
        answer = {"turn1": {"user": answer.pop("instruction", None), "prompt": answer.pop("prompt", None), **answer}}
    expect_keys(answer, [f"turn{n}" for n in range(1, len(brief.steps) + 1)], "the answer")
    said: list[tuple[str, str]] = []
    for n, step in enumerate(brief.steps):
        said.append(_read_turn(brief, step, answer[f"turn{n + 1}"], f"turn {n + 1}"))
        if step.type == "ti2i":
            _check_edit(step, [reply for _, reply in said], f"turn {n + 1}")
    _check_own_words(brief, said)
    exchanges = tuple(_exchange(step, *pair) for step, pair in zip(brief.steps, said, strict=True))
    return Dialogue(
        brief.language,
        exchanges,
        tuple(f"{brief.language}.seeds.{pair.digest}" for pair in brief.examples),
        brief.topic,
    )


def read_object(text: str, finish: str | None) -> dict[str, Any]:
    """The JSON object that an answer consists of."""
    if finish == "length":
        raise Refused("cut off at the token limit: raise --max-tokens")
    if finish == "content_filter":
        raise Refused("withheld by the endpoint's content filter")
    text = _THOUGHTS.sub("", text)
    if match := _FENCE.match(text):
        text = match.group(1)
    if not text.strip():
        raise Refused("empty")
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise Refused(f"not JSON: {error}") from error
    if not isinstance(answer, dict):
        raise Refused(f"a JSON object is wanted, not {type(answer).__name__}")
    return answer


def expect_keys(value: Any, keys: list[str], where: str) -> None:
    if not isinstance(value, dict):
        raise Refused(f"{where} is no JSON object")
    if missing := [key for key in keys if value.get(key) is None]:
        raise Refused(f"{where} lacks {missing[0]!r}")
    if unknown := sorted(set(value) - set(keys)):
        raise Refused(f"{where} has {unknown[0]!r}, which nobody asked for")


def _read_turn(brief: Brief, step: Step, turn: Any, where: str) -> tuple[str, str]:
    expect_keys(turn, list(step.keys), where)
    texts = []
    for key in step.keys:
        texts.append(check_text(turn[key], key, brief.language, brief.rules, f"{where}, {key}"))
    if step.draws and words(texts[0]) == words(texts[1]):
        raise Refused(f"{where}: the prompt only repeats the request")
    return texts[0], texts[1]


def check_text(text: Any, key: str, language: str, rules: str, where: str) -> str:
    """The text, where it may stand in a record. `rules`: what the teacher was told, which must not come back."""
    if not isinstance(text, str):
        raise Refused(f"{where}: {key!r} is no text")
    text = text.strip()
    fewest, most = LENGTHS[language][key]
    if not text:
        raise Refused(f"{where}: empty")
    if not fewest <= len(text) <= most:
        raise Refused(f"{where}: {len(text)} characters, where {fewest} to {most} are right")
    if token := next((token for token in TOKENS if token in text), None):
        raise Refused(f"{where}: holds the token {token}")
    if not text.isprintable() and not all(char.isprintable() or char == "\n" for char in text):
        raise Refused(f"{where}: holds control characters")
    share = chinese_share(text)
    if (share > 0.2) if language == "en" else (share < 0.6):
        raise Refused(f"{where}: not in {'English' if language == 'en' else 'Chinese'}")
    if match := _TALKS_SHOP.search(text):
        raise Refused(f"{where}: speaks of the task ({match.group(0)!r})")
    if runs := _runs(text) & _runs(rules):
        raise Refused(f"{where}: repeats the instructions ({' '.join(min(runs))!r})")
    return text


def _runs(text: str) -> set[tuple[str, ...]]:
    said = words(text)
    return {tuple(said[i : i + COPIED]) for i in range(len(said) - COPIED + 1)}


def _check_edit(step: Step, replies: list[str], where: str) -> None:
    if step.edit is None or step.base is None:
        raise ValueError(f"{step} is no edit")
    prompt = replies[-1]
    for base in (step.base, step.other):
        if base is None:
            continue
        if words(replies[base]) == words(prompt):
            raise Refused(f"{where}: the prompt is that of turn {base + 1}, unchanged")
        share = kept_share(replies[base], prompt)
        if share < LEAST[step.edit]:
            raise Refused(
                f"{where}: keeps {share:.0%} of the words of turn {base + 1}'s prompt, where {step.edit} leaves "
                f"{LEAST[step.edit]:.0%} or more"
            )


def _check_own_words(brief: Brief, said: list[tuple[str, str]]) -> None:
    for n, (user, reply) in enumerate(said, 1):
        for pair in brief.examples:
            if words(user) == words(pair.instruction):
                raise Refused(f"turn {n}: copies an example's request")
            if brief.steps[n - 1].draws and min(kept_share(reply, pair.prompt), kept_share(pair.prompt, reply)) > SAME:
                raise Refused(f"turn {n}: copies an example's prompt")


def _exchange(step: Step, user: str, reply: str) -> Exchange:
    request: Mapping[str, Any] | None = None
    if step.type == "t2i":
        request = {"op": "draw"}
    elif step.type == "ti2i":
        request = {"op": "edit", "edit": {"op": step.edit}, "base_turn": step.base}
        if step.other is not None:
            request["other_turn"] = step.other
    return Exchange(user, DRAW + reply if step.draws else reply, step.type, request, opens=step.type == "t2i")
