"""`easel eval dialog --report`: the scores, and the dialogues that went worst, as one HTML page.

    page = render(turns, score(turns, judge_prompt), judge_prompt)

Of each turn of those dialogues: what was said and shown, what the record answers, what the model answered, and what is
wrong with that. The page needs no network and no other file; all that people and models say is escaped by the template.
"""

from __future__ import annotations

import base64
import difflib
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dialog_mllm.errors import MessageError
from dialog_mllm.evaluation import JudgePrompt, Turn, error_of, judge
from dialog_mllm.messages import ImageBlock
from dialog_mllm.protocol import DRAW, SWITCH

TEMPLATE = "evaluation_report.html.jinja"
WORST = 20  # dialogues
EDGE = 192  # of a picture on the page, in pixels
NAMES = {  # what the page calls the scores; of the last three, less is better
    "switch_accuracy": "Draw or talk",
    "prompt_correct": "Prompt right",
    "prompt_exact": "Prompt word for word",
    "minimal_change": "No more changed than asked",
    "question_accuracy": "Questions answered right",
    "refusal_accuracy": "Declined as it should",
    "topic_accuracy": "New topic seen",
    "false_draw": "Drew, should have talked",
    "missed_draw": "Talked, should have drawn",
    "no_reply": "No reply",
}
GROUPS = {
    "by_type": "Type of turn", "by_language": "Language", "by_depth": "Turn of the dialogue", "by_request": "Request",
}  # fmt: skip
GROUP_KEYS = ("switch_accuracy", "prompt_correct", "minimal_change", "question_accuracy")
ERRORS = {
    "no_reply": "no reply",
    "refusal": "drew what it should decline",
    "false_draw": "drew, should have talked",
    "missed_draw": "talked, should have drawn",
    "prompt": "wrong prompt",
    "question": "wrong answer",
    "topic": "wrong about a new topic",
}

_WORD = re.compile(r"[\u3400-\u9fff]|\w+|\s+|.", re.DOTALL)
Piece = tuple[str, bool]  # a part of a text, and whether the other text has it not


def render(turns: Sequence[Turn], scores: Mapping[str, Any], judge_prompt: JudgePrompt, worst: int = WORST) -> str:
    """The page; `turns` are those of the scores, with their replies."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        scores=scores,
        names=NAMES,
        groups=GROUPS,
        group_keys=GROUP_KEYS,
        depths=sorted(scores["by_depth"], key=int),
        dialogues=[_dialogue(of, judge_prompt) for of in worst_dialogues(turns, judge_prompt, worst)],
    )


def worst_dialogues(turns: Iterable[Turn], judge_prompt: JudgePrompt, n: int = WORST) -> list[list[Turn]]:
    """The n dialogues with the most wrong replies, of as many the shorter first; none without an error."""
    ranked = []
    for _, group in groupby(sorted(turns, key=lambda turn: (turn.record, turn.index)), key=lambda turn: turn.record):
        dialogue = list(group)
        wrong = sum(error_of(turn, judge(turn, judge_prompt)) is not None for turn in dialogue)
        if wrong:
            ranked.append((-wrong, len(dialogue), dialogue))
    return [dialogue for *_, dialogue in sorted(ranked, key=lambda row: row[:2])[:n]]


def _dialogue(turns: Sequence[Turn], judge_prompt: JudgePrompt) -> dict[str, Any]:
    shown = [_turn(turn, judge_prompt) for turn in turns]
    return {
        "id": turns[0].record,
        "language": turns[0].language,
        "wrong": sum(turn["error"] is not None for turn in shown),
        "turns": shown,
    }


def _turn(turn: Turn, judge_prompt: JudgePrompt) -> dict[str, Any]:
    error = error_of(turn, judge(turn, judge_prompt))
    said = turn.history[-1]
    got = turn.reply.content if turn.reply is not None else ""
    wanted_tokens, wanted = _tokens(turn.wanted)
    got_tokens, answered = _tokens(got)
    both_draw = bool(turn.draws and turn.drew)
    return {
        "kind": f"{turn.turn['type']} · {turn.request_name}",
        "said": said.text,
        "uploads": [_data_url(block) for block in said.images],
        "wanted_tokens": wanted_tokens,
        "got_tokens": got_tokens,
        # Only of two prompts it says something which words are not the same.
        "wanted": list(_pieces(wanted, answered)) if both_draw else [(wanted, False)],
        "got": list(_pieces(answered, wanted)) if both_draw else [(answered, False)],
        "pictures": [_data_url(block) for block in turn.shown],
        "probability": turn.reply.draw_probability if turn.reply is not None else None,
        "error": ERRORS[error] if error else None,
    }


def _tokens(reply: str) -> tuple[list[str], str]:
    """The protocol's tokens in front of a reply, and the rest."""
    tokens = []
    for token in (SWITCH, DRAW):
        if reply.startswith(token):
            reply = reply.removeprefix(token)
            tokens.append(token)
    return tokens, reply


def _pieces(text: str, other: str) -> Iterator[Piece]:
    """The text in pieces, those marked that the other text does not have there."""
    a, b = _WORD.findall(text), _WORD.findall(other)
    for tag, i1, i2, *_ in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if i2 > i1:
            yield "".join(a[i1:i2]), tag != "equal"


def _data_url(block: ImageBlock) -> str | None:
    """None where the picture cannot be shown: the page says so, and the other dialogues are still to be read."""
    try:
        picture = block.open()
    except MessageError:
        return None
    picture.thumbnail((EDGE, EDGE))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
