"""A vision-language model as the judge of pictures: a yes-or-no question for each thing that should be there.

    async with Endpoint(Settings("http://127.0.0.1:8000/v1", "my-vlm", role="judge")) as endpoint:
        seen = await VlmJudge(endpoint).look(picture, scene)

This is how DialogBen measures whether a picture is what the dialogue asked for (coherence, by visual question
answering), and it needs no inspector of our own world: any OpenAI-compatible model with eyes will do. One question
more, the foil, is about something that is not there: a judge that says yes to everything is found out by it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from datasets_build.endpoint import Endpoint, Settings
from datasets_build.storybook.language import accessory_phrase
from datasets_build.storybook.scene import KINDS, Scene, Subject
from datasets_build.storybook.vocabulary import name, phrase

ATTEMPTS = 3  # answers to one question
CONCURRENCY = 8  # requests at once
_EMPTY = Image.new("RGB", (128, 128), "white")
_WORD = re.compile(r"\W*(yes|no)\W*", re.IGNORECASE)
_ASK = "Look at the picture and answer with one word, yes or no.\n{}"
_ASK_AGAIN = "{}\nAnswer with the single word yes or the single word no, and nothing else."


@dataclass(frozen=True)
class Question:
    element: str  # kind, colour, size, position, accessory, background, sky, style, shot
    text: str


@dataclass(frozen=True)
class Seen:
    """What the judge says of one picture; None: no answer of its was a yes or a no."""

    answers: tuple[tuple[str, bool | None], ...]  # (element, is it there?)
    foil: bool | None  # whether it sees what is not there

    @property
    def all_there(self) -> bool | None:
        answers = [answer for _, answer in self.answers]
        return False if False in answers else None if None in answers else True


def questions(scene: Scene) -> Iterator[Question]:
    """Of each thing that was asked for, in English: yes is right."""
    alone = len(scene.subjects) == 1
    for subject in scene.subjects:
        place = _place(subject)
        noun = name(subject.kind, "en")
        the = f"the {noun}" if alone else f"the {noun} {place}"
        yield Question("kind", f"Is there {_a(noun)} {'in the picture' if alone else place}?")
        yield Question("colour", f"Is {the} {subject.colour}?")
        if subject.size != "normal":
            yield Question("size", f"Is {the} {subject.size}?")
        if alone and subject.position != "middle":
            yield Question("position", f"Is {the} {place}?")
        for accessory in subject.accessories:
            yield Question("accessory", f"Does {the} have {accessory_phrase(accessory, 'en')}?")
    yield Question("background", f"Does the picture show a scene {phrase('background', scene.background, 'en')}?")
    if scene.background != "space":  # where it is always night
        yield Question("sky", f"Does the picture show a scene {phrase('sky', scene.sky, 'en')}?")
    yield Question("style", f"Is it {phrase('picture', scene.style, 'en')}?")
    if scene.shot != "normal":
        yield Question("shot", f"Is it {_a(name(scene.shot, 'en'))}?")


def foil(scene: Scene) -> Question:
    """Of something that is not there: no is right. The scene decides what, so that every run asks the same."""
    absent = [kind for kind in KINDS if kind not in {subject.kind for subject in scene.subjects}]
    digest = hashlib.sha256(repr(scene.to_json()).encode()).digest()
    return Question("foil", f"Is there {_a(name(absent[digest[0] % len(absent)], 'en'))} in the picture?")


def read_answer(text: str) -> bool | None:
    """Strictly: the one word, with what punctuation there is. None for all else, "Yes, but …" too."""
    match = _WORD.fullmatch(text.strip())
    return match.group(1).lower() == "yes" if match else None


class VlmJudge:
    """Asks about pictures, some requests at once, and counts what that costs. Raises endpoint.Stopped."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.tokens_in = self.tokens_out = 0
        self.refused = 0  # answers that were neither yes nor no
        self._slots = asyncio.Semaphore(CONCURRENCY)

    async def look(self, picture: Image.Image, scene: Scene) -> Seen:
        asked = [*questions(scene), foil(scene)]
        url = _data_url(picture)
        answers = await asyncio.gather(*(self._ask(question, url) for question in asked))
        elements = [question.element for question in asked[:-1]]
        return Seen(tuple(zip(elements, answers[:-1], strict=True)), answers[-1])

    async def _ask(self, question: Question, url: str) -> bool | None:
        text = _ASK.format(question.text)
        for attempt in range(ATTEMPTS):
            said = text if attempt == 0 else _ASK_AGAIN.format(text)
            content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": said}]
            # The first answer is the likeliest one; asked the same way again, it would only be repeated.
            body = {"messages": [{"role": "user", "content": content}], "max_tokens": 8,
                    "temperature": 0.7 if attempt else 0.0, "seed": attempt}  # fmt: skip
            async with self._slots:
                answer = await self.endpoint.ask(body, f"{question.text} {attempt}")
            self.tokens_in += answer.tokens_in
            self.tokens_out += answer.tokens_out
            seen = read_answer(answer.text)
            if seen is not None:
                return seen
            self.refused += 1
        return None


async def look_at_all(
    drawn: Sequence[tuple[Image.Image, Scene]],
    inspected: Sequence[bool],
    settings: Settings,
    prices: tuple[float, float] = (0.0, 0.0),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """The judge's figures on pictures and what they should show, and what they cost. `inspected`: what the inspector
    says of them. `prices` are of a million tokens read and written. Raises Stopped."""
    done = 0

    async def look(picture: Image.Image, scene: Scene) -> Seen:
        nonlocal done
        seen = await judge.look(picture, scene)
        done += 1
        on_progress(done, len(drawn))
        return seen

    async with Endpoint(settings) as endpoint:
        judge = VlmJudge(endpoint)
        try:
            seen = await asyncio.gather(*(look(picture, scene) for picture, scene in drawn))
        finally:
            endpoint.stop()  # where one question failed for good, the others need not be asked
    cost = (judge.tokens_in * prices[0] + judge.tokens_out * prices[1]) / 1e6
    return {
        **tally(seen, inspected),
        "judge_requests": endpoint.requests,
        "judge_refused": judge.refused,
        "judge_tokens_in": judge.tokens_in,
        "judge_tokens_out": judge.tokens_out,
        **({"judge_cost": round(cost, 6)} if cost else {}),
    }


async def check(settings: Settings) -> None:
    """Asks once, of an empty picture: raises Stopped where the judge cannot be asked at all."""
    async with Endpoint(settings) as endpoint:
        await VlmJudge(endpoint)._ask(Question("kind", "Is there a fox in the picture?"), _data_url(_EMPTY))


def tally(seen: Sequence[Seen], inspected: Sequence[bool]) -> dict[str, Any]:
    """The judge's figures. `inspected`: what the inspector says of the same pictures, in the same order."""
    elements = [(element, answer) for one in seen for element, answer in one.answers]
    by_element: dict[str, list[bool | None]] = {}
    for element, answer in elements:
        by_element.setdefault(element, []).append(answer)
    agree = [one.all_there == right for one, right in zip(seen, inspected, strict=True) if one.all_there is not None]
    return {
        "judge_picture_correct": _share(one.all_there for one in seen),
        "judge_element_correct": _share(answer for _, answer in elements),
        "judge_by_element": {element: _share(answers) for element, answers in by_element.items()},
        "judge_foils_seen": _share(one.foil for one in seen),  # 0 for a judge that looks
        "judge_agreement": _share(agree),
        "judge_unanswered": sum(answer is None for _, answer in elements),
    }


def _share(answers: Iterable[bool | None]) -> float | None:
    given = [answer for answer in answers if answer is not None]
    return round(sum(given) / len(given), 4) if given else None


def _place(subject: Subject) -> str:
    return {
        "left": "on the left of the picture", "middle": "in the middle of the picture",
        "right": "on the right of the picture",
    }[subject.position]  # fmt: skip


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _data_url(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
