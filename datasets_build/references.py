"""How users refer to a thing in a picture: "it", "the fox", "the one on the left", 它, 左边那只.

python -c "
import random; from datasets_build.references import refer; from datasets_build.storybook.scene import sample_scene
rng = random.Random(1); print(refer(sample_scene(rng), 0, 'en', rng))"
"""

from __future__ import annotations

import random

from datasets_build.storybook.language import noun_phrase
from datasets_build.storybook.scene import Scene, Subject
from datasets_build.storybook.vocabulary import MEASURES, VERBS, name


def refer(scene: Scene, index: int, language: str, rng: random.Random, dress: bool = False) -> dict[str, str]:
    """One subject as {it} (object), {sub} (subject of a sentence) and {its} (possessive); Chinese has one form.

    With `dress`, for changes of a girl's colour, it is her dress that is meant."""
    subject = scene.subjects[index]
    alone = len(scene.subjects) == 1
    if alone and rng.random() < 0.5:
        return _pronoun(subject, language, dress)
    if not alone and rng.random() < 0.15 and (look := _look(subject, scene.subjects[1 - index], language, rng)):
        return called(look, subject, language, dress)
    kinds = [other.kind for other in scene.subjects]
    by_place = not alone and rng.random() < 0.3
    by_colour = rng.random() < 0.2 or kinds.count(subject.kind) > 1
    if language == "en":
        return _english(subject, rng, by_place, by_colour, dress)
    return _chinese(subject, rng, by_place, by_colour, dress)


def called(words: str, subject: Subject, language: str, dress: bool = False) -> dict[str, str]:
    """The forms of what a user calls a subject ("the other one"), or of its pronoun where there are no words."""
    dressed = dress and subject.kind == "girl"
    if not words:
        return _pronoun(subject, language, dress)
    if language == "zh":
        return _same(f"{words}的衣服" if dressed else words)
    its = f"{words}'s"
    if dressed:
        return {"it": f"{its} dress", "sub": f"{its} dress", "its": f"{its} dress's"}
    return {"it": words, "sub": words, "its": its}


def _look(subject: Subject, other: Subject, language: str, rng: random.Random) -> str:
    """What tells one of two apart, without its name: "the brown one", "the one with the hat"; "" if nothing does."""
    looks = []
    measure = MEASURES[subject.kind]
    if subject.colour != other.colour and subject.kind != "girl":
        colour = name(subject.colour, language, rng, "colour")
        short = colour.removesuffix("色") if len(colour) == 2 else colour  # 黑的那只
        which = rng.choice((colour, f"{colour}的", f"{short}的"))
        looks.append(f"the {colour} one" if language == "en" else f"{which}那{measure}")
    for accessory in subject.accessories:
        if all(worn.kind != accessory.kind for worn in other.accessories):
            noun, verb = name(accessory.kind, language, rng, "accessory"), VERBS["zh"][accessory.kind][0]
            looks.append(f"the one with the {noun}" if language == "en" else f"{verb}{noun}的那{measure}")
    return rng.choice(looks) if looks else ""


def _pronoun(subject: Subject, language: str, dress: bool) -> dict[str, str]:
    girl = subject.kind == "girl"
    if language == "zh":
        return _same(("她的衣服" if dress else "她") if girl else "它")
    if girl and dress:
        return {"it": "her dress", "sub": "her dress", "its": "her dress's"}
    return {"it": "her", "sub": "she", "its": "her"} if girl else {"it": "it", "sub": "it", "its": "its"}


def _english(subject: Subject, rng: random.Random, by_place: bool, by_colour: bool, dress: bool) -> dict[str, str]:
    said = {"kind": subject.kind} | ({"colour": subject.colour} if by_colour else {})
    noun = noun_phrase(said, "en", rng, article="the")
    if by_place:
        place = name(subject.position, "en", attribute="position")
        noun = rng.choice((f"the one {place}", f"{noun_phrase({'kind': subject.kind}, 'en', article='the')} {place}"))
    dressed = dress and subject.kind == "girl"
    its = f"the {subject.kind}'s" if not by_place else f"the {subject.position} one's"
    if by_colour and not by_place and subject.kind != "girl":
        its = f"the {subject.colour} {subject.kind}'s"
    if dressed:
        return {"it": f"{its} dress", "sub": f"{its} dress", "its": f"{its} dress's"}
    return {"it": noun, "sub": noun, "its": its}


def _chinese(subject: Subject, rng: random.Random, by_place: bool, by_colour: bool, dress: bool) -> dict[str, str]:
    noun, measure = name(subject.kind, "zh", rng, "kind"), MEASURES[subject.kind]
    place = name(subject.position, "zh", rng, "position")
    if by_place:
        text = rng.choice((f"{place}那{measure}", f"{place}的{noun}", f"{place}那{measure}{noun}"))
    elif by_colour:
        colour = name(subject.colour, "zh", rng, "colour")
        text = f"穿{colour}衣服的{noun}" if subject.kind == "girl" else f"{colour}的{noun}"
    else:
        text = rng.choice((noun, noun, f"那{measure}{noun}", f"这{measure}{noun}"))
    return _same(f"{text}的衣服" if dress and subject.kind == "girl" else text)


def _same(text: str) -> dict[str, str]:
    return {"it": text, "sub": text, "its": text}
