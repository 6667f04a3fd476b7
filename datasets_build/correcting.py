"""An endpoint teacher corrects wrong replies: it reads the dialogue, the reply and what is wrong with it.

    settled, report = await correct(cases, job, settings, judge)     # case -> (attempt, the right reply)

Whether to draw, and whether a new topic begins, is known of every turn; the teacher writes the words. They are held to
the rules for every teacher's answers (`answers`), to the judge that found the reply wrong, and to those of `check`.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets_build.answers import Refused, check_text, expect_keys, read_object
from datasets_build.asking import Limits, Wording, ask_each
from datasets_build.banks import bank
from datasets_build.briefs import LENGTHS
from datasets_build.check import violations
from datasets_build.consistency import chinese_share, words
from datasets_build.corrections import Case, corrected_record
from datasets_build.endpoint import Settings
from datasets_build.journal import Answer
from dialog_mllm.messages import DRAW, SWITCH, to_chat
from dialog_mllm.messages import Message as DialogMessage

Judge = Callable[[int, str], str | None]  # (case, reply) -> the kind of error in it, None: it is right
EXAMPLES = 4


@dataclass(frozen=True)
class CorrectingJob:
    out: Path
    seed: int
    source: str  # of the records that are written
    licence: str
    limits: Limits
    wording: Wording
    pictures: bool = False  # whether the teacher is shown them, or reads their prompts instead

    @property
    def files(self) -> Path:
        return self.out / "teacher" / f"D_e-train-{self.seed}"


async def correct(
    cases: Sequence[Case],
    job: CorrectingJob,
    settings: Settings,
    judge: Judge,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[dict[int, tuple[int, str]], dict[str, int]]:
    """The right replies of those cases that the teacher could correct, and the costs. Raises Stopped."""

    def body(index: int, attempt: int) -> dict[str, Any]:
        text, _, key, language = brief(cases, index, attempt, job.seed)
        content: Any = [{"type": "text", "text": text}, *_shown(cases[index])] if job.pictures else text
        least, most = LENGTHS[language][key]
        schema = {
            "type": "object", "properties": {key: {"type": "string", "minLength": least, "maxLength": most}},
            "required": [key], "additionalProperties": False,
        }  # fmt: skip
        return job.wording.body(content, f"D_e {job.seed} {index} {attempt}", schema)

    def read(index: int, attempt: int, answer: Answer) -> str:
        _, rules, key, language = brief(cases, index, attempt, job.seed)
        reply = _read(cases[index], answer, rules, key, language)
        if error := judge(index, reply):
            raise Refused(f"the correction is wrong as well: {error}")
        record = corrected_record(cases[index], reply, "correction", job.out, job.source, job.licence)
        if broken := violations(record, job.out):
            raise Refused(broken[0])
        return reply

    said = [[case.record["id"], case.turn, case.said] for case in cases]
    header = {
        "task": "D_e", "seed": job.seed, "split": "train", "temperature": job.wording.temperature,
        "max_tokens": job.wording.max_tokens, "structured": job.wording.structured, "pictures": job.pictures,
        "cases": hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16],
    }  # fmt: skip
    return await ask_each(len(cases), settings, job.limits, job.files, header, body, read, progress)


def brief(cases: Sequence[Case], index: int, attempt: int, seed: int) -> tuple[str, str, str, str]:
    """All that the teacher reads of a case, the part of it that must not come back, the answer's key (prompt or reply)
    and its language."""
    case = cases[index]
    body = case.wanted.removeprefix(SWITCH)
    draws = body.startswith(DRAW)
    # The turn's own language, which need not be the dialogue's.
    language = "zh" if chinese_share(body.removeprefix(DRAW)) > 0.5 else "en"
    told = bank("teacher", language)
    key = "prompt" if draws else "reply"
    pool = [pair for other in cases if other.record["id"] != case.record["id"] for pair in _pairs(other, language)]
    rng = random.Random(f"easel correct {seed} {index} {attempt}")
    examples = "\n".join(rng.sample(pool, min(EXAMPLES, len(pool)))) if draws else ""
    values = {
        "wrong": told["wrong"][case.error or "reply"],
        "due": told["due"][key],
        "dialogue": "\n".join(_lines(case, told["correction"])),
        "said": case.said.removeprefix(SWITCH) or "-",
        "examples": examples or "-",
        "shape": json.dumps({key: told["shape"][key]}, ensure_ascii=False),
    }
    template = told["task_e"].strip()
    text = template.format_map(values)
    rules = template.format_map({**values, "dialogue": "", "said": "", "examples": "", "shape": ""})
    return text, rules, key, language


def _lines(case: Case, told: dict[str, str]) -> list[str]:
    """The dialogue up to the turn, in words."""
    lines = []
    for message in case.record["messages"][: 2 * case.turn + 1]:
        text = "".join(block["text"] for block in message["content"] if block["type"] == "text")
        text = text.removeprefix(SWITCH)
        if message["role"] == "user":
            brought = any(block["type"] == "image" for block in message["content"])
            lines.append(f"{told['user']}: {told['brought'] if brought else ''}{text}")
        elif text.startswith(DRAW):
            lines.append(f"{told['drew']}: {text.removeprefix(DRAW)}")
        else:
            lines.append(f"{told['assistant']}: {text}")
    return lines


def _pairs(case: Case, language: str) -> list[str]:
    """Requests for new pictures in the case's history, with their prompts."""
    messages = case.record["messages"]
    found = []
    for turn in range(case.turn):
        user, reply = (
            "".join(b["text"] for b in messages[2 * turn + k]["content"] if b["type"] == "text") for k in (0, 1)
        )
        prompt = reply.removeprefix(SWITCH).removeprefix(DRAW)
        if case.record["turns"][turn]["type"] == "t2i" and (chinese_share(prompt) > 0.5) == (language == "zh"):
            found.append(json.dumps({"instruction": user, "prompt": prompt}, ensure_ascii=False))
    return found


def _shown(case: Case) -> list[dict[str, Any]]:
    """The pictures of the dialogue, as the endpoint takes them."""
    messages = case.record["messages"][: 2 * case.turn + 1]
    chat = to_chat([DialogMessage.from_json(message, case.root) for message in messages])
    return [part for said in chat for part in said["content"] if isinstance(part, dict) and part["type"] != "text"]


def _read(case: Case, answer: Answer, rules: str, key: str, language: str) -> str:
    said = read_object(answer.text, answer.finish)
    expect_keys(said, [key], "the answer")
    text = check_text(said[key], key, language, rules, key)
    wrong = case.said.removeprefix(SWITCH)
    if wrong.startswith(DRAW) == (key == "prompt") and words(wrong.removeprefix(DRAW)) == words(text):
        raise Refused("the wrong reply once more")
    user = case.record["messages"][2 * case.turn]["content"]
    if key == "prompt" and words("".join(b["text"] for b in user if b["type"] == "text")) == words(text):
        raise Refused("the prompt only repeats the request")
    switch = SWITCH if case.wanted.startswith(SWITCH) else ""
    return switch + (DRAW if key == "prompt" else "") + text
