"""Questions that a scene answers about itself: of its subjects (colour, kind, size, accessories, count, place), its
background, sky and style, and yes/no.

    python -c "
    import random
    from datasets_build.storybook.questions import ask; from datasets_build.storybook.scene import sample_scene
    rng = random.Random(2); scene = sample_scene(rng); print(scene); print(*ask(scene, 'en', rng, 'train'), sep='\\n')"

A question names nothing by a word that hides the answer, and is only asked where it has one answer. Answers are short
sentences with canonical words; `accept` lists keywords, lower case, any of which stands, as whole words, in
every right answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from datasets_build.storybook.asked_en import ENGLISH
from datasets_build.storybook.asked_zh import CHINESE
from datasets_build.storybook.language import accessory_phrase, describe_subjects, noun_phrase
from datasets_build.storybook.scene import (
    ACCESSORIES,
    BACKGROUNDS,
    COLOURS,
    HELD,
    KINDS,
    POSITIONS,
    SKIES,
    STYLES,
    Accessory,
    Scene,
    Subject,
)
from datasets_build.storybook.vocabulary import MEASURES, NAMES, UNDERSTOOD, VERBS, name, of_split, phrase

QuestionAnswer = tuple[str, str, list[str]]

QUESTIONS = {"en": ENGLISH, "zh": CHINESE}

ANIMALS = ("cat", "dog", "rabbit", "fox", "bear", "panda", "bird", "fish", "turtle", "butterfly")

# Where someone has an accessory, and in Chinese how it got there (围巾围在谁脖子上).
_BODY = {
    "en": {"hat": ("on", "head"), "scarf": ("around", "neck"), "glasses": ("on", "nose"), "crown": ("on", "head"),
           "balloon": ("in", "hand"), "umbrella": ("in", "hand")},
    "zh": {"hat": ("戴", "头上"), "scarf": ("围", "脖子上"), "glasses": ("戴", "鼻子上"), "crown": ("戴", "头上"),
           "balloon": ("拿", "手里"), "umbrella": ("撑", "手里")},
}  # fmt: skip
_EDGES = {
    "en": {"left": "at the left edge", "middle": "right in the middle", "right": "at the right edge"},
    "zh": {"left": "最左边", "middle": "正中间", "right": "最右边"},
}


def ask(scene: Scene, language: str, rng: random.Random, split: str) -> QuestionAnswer:
    """A question about `scene` in a phrasing that `split` may use, its answer, and keywords of right answers."""
    while True:
        topic = rng.choice(tuple(_TOPICS))
        asked = _TOPICS[topic](scene, language, rng)
        if asked is None:
            continue
        slots, answer, accept = asked
        key = slots.pop("key", topic)
        question = rng.choice(of_split(QUESTIONS[language][key], split))
        question = question.replace("{X}", slots.get("x", "")[:1].upper() + slots.get("x", "")[1:])
        for slot, words in slots.items():
            question = question.replace(f"{{{slot}}}", words)
        return question, answer[:1].upper() + answer[1:], accept


_Topic = tuple[dict[str, str], str, list[str]] | None


def _accept(attribute: str, value: str) -> list[str]:
    """Every word, in both languages, that says `value`."""
    words = [
        word.lower()
        for table in (NAMES, UNDERSTOOD)
        for language in ("en", "zh")
        for word in table[language].get(attribute, {}).get(value, ())
    ]
    return list(dict.fromkeys(words))


def _the(scene: Scene, subject: Subject, language: str) -> str:
    """The subject as a question names it: by kind, and by place where two are of one kind."""
    twins = sum(other.kind == subject.kind for other in scene.subjects) > 1
    noun = name(subject.kind, language)
    if language == "zh":
        return f"{name(subject.position, 'zh')}的{noun}" if twins else noun
    return f"the {noun} {name(subject.position, 'en')}" if twins else f"the {noun}"


def _alternatives(truth: str, values: Sequence[str], say: Callable[[str], str], rng: random.Random) -> dict[str, str]:
    """The slots of "Is it {one} or {other}?": the right value and a wrong one, in either order."""
    pair = [truth, rng.choice([value for value in values if value != truth])]
    rng.shuffle(pair)
    return {"one": say(pair[0]), "other": say(pair[1])}


def _a(kind: str, language: str) -> str:
    """A kind as an alternative: "a fox", 狐狸."""
    return noun_phrase({"kind": kind}, language, article="a" if language == "en" else "")


def _an(accessory: str, language: str) -> str:
    """An accessory as an alternative: "a hat", 帽子."""
    return accessory_phrase({"kind": accessory}, language, article="a" if language == "en" else "")


def _it(subject: Subject) -> str:
    return "she" if subject.kind == "girl" else "it"


def _colour(scene: Scene, language: str, rng: random.Random) -> _Topic:
    subject = rng.choice(scene.subjects)
    the, colour = _the(scene, subject, language), name(subject.colour, language)
    if subject.kind == "girl":  # a girl's colour is her dress's
        the = f"{the}的衣服" if language == "zh" else f"the dress of {the}"
    answer = f"{the}是{colour}的。" if language == "zh" else f"It is {colour}."
    slots = _alternatives(subject.colour, COLOURS, lambda value: name(value, language), rng)
    return {"x": the, **slots}, answer, _accept("colour", subject.colour)


def _animal(scene: Scene, language: str, rng: random.Random) -> _Topic:
    subject = scene.subjects[0]
    if len(scene.subjects) > 1 or subject.kind not in ANIMALS:
        return None
    said = noun_phrase({"kind": subject.kind}, language)
    slots = _alternatives(subject.kind, ANIMALS, lambda value: _a(value, language), rng)
    return slots, f"这是{said}。" if language == "zh" else f"It is {said}.", _accept("kind", subject.kind)


def _content(scene: Scene, language: str, rng: random.Random) -> _Topic:
    said = describe_subjects([{"kind": s.kind, "colour": s.colour} for s in scene.subjects], language)
    accept = [word for subject in scene.subjects for word in _accept("kind", subject.kind)]
    return {}, f"图里是{said}。" if language == "zh" else f"I see {said}.", accept


def _worn(scene: Scene, rng: random.Random) -> tuple[Subject, Accessory] | None:
    choices = [(subject, accessory) for subject in scene.subjects for accessory in subject.accessories]
    return rng.choice(choices) if choices else None


def _wears(scene: Scene, language: str, rng: random.Random) -> _Topic:
    subject = rng.choice(scene.subjects)
    if len(subject.accessories) != 1:
        return None
    return _told_worn(scene, subject, subject.accessories[0], ACCESSORIES, language, rng)


def _told_worn(
    scene: Scene, subject: Subject, accessory: Accessory, among: Sequence[str], language: str, rng: random.Random
) -> tuple[dict[str, str], str, list[str]]:
    """Which of the accessories `among` the subject has: `accessory`."""
    said, the = accessory_phrase(accessory, language), _the(scene, subject, language)
    verb = VERBS[language][accessory.kind][0]
    answer = f"{the}{verb}{said}。" if language == "zh" else f"{_it(subject).capitalize()} is {verb} {said}."
    slots = _alternatives(accessory.kind, among, lambda value: _an(value, language), rng)
    return {"x": the, "v": verb, **slots}, answer, _accept("accessory", accessory.kind)


def _holds(scene: Scene, language: str, rng: random.Random) -> _Topic:
    subject = rng.choice(scene.subjects)
    held = [accessory for accessory in subject.accessories if accessory.kind in HELD]
    return _told_worn(scene, subject, held[0], HELD, language, rng) if held else None


def _has_on(scene: Scene, language: str, rng: random.Random) -> _Topic:
    subject = rng.choice(scene.subjects)
    worn = [accessory for accessory in subject.accessories if accessory.kind not in HELD]
    if len(worn) != 1:
        return None
    among = [kind for kind in ACCESSORIES if kind not in HELD]
    return _told_worn(scene, subject, worn[0], among, language, rng)


def _wearer(scene: Scene, language: str, rng: random.Random) -> _Topic:
    found = _worn(scene, rng)
    if found is None or len({subject.kind for subject in scene.subjects}) < len(scene.subjects):
        return None  # of two foxes the kind does not say which one
    subject, accessory = found
    if sum(accessory.kind in [other.kind for other in each.accessories] for each in scene.subjects) > 1:
        return None
    the, noun, verb = _the(scene, subject, language), name(accessory.kind, language), VERBS[language][accessory.kind][0]
    where, body = _BODY[language][accessory.kind]
    plural = accessory.kind == "glasses"
    slots = {
        "a": noun, "v": verb, "w": where, "b": body, "is": "are" if plural else "is", "m": MEASURES[accessory.kind]
    }  # fmt: skip
    if language == "zh":
        return slots, f"{the}{verb}{noun}。", _accept("kind", subject.kind)
    return slots, f"{the} is {verb} the {noun}.", _accept("kind", subject.kind)


def _compared(scene: Scene, language: str, rng: random.Random) -> _Topic:
    if len({subject.kind for subject in scene.subjects}) < 2:
        return None
    small, big = sorted(scene.subjects, key=lambda subject: -("big", "normal", "small").index(subject.size))
    if (small.size, big.size) != ("small", "big"):
        return None  # kinds differ in their own measures, so that one step of size may not show
    larger = rng.random() < 0.5
    subject, other = (big, small) if larger else (small, big)
    said = {each.kind: _the(scene, each, language) for each in scene.subjects}
    slots = {"key": "bigger" if larger else "smaller"}
    slots |= _alternatives(subject.kind, (subject.kind, other.kind), lambda kind: said[kind], rng)
    the = said[subject.kind]
    answer = f"{the}更{'大' if larger else '小'}。" if language == "zh" else f"{the} is {slots['key']}."
    return slots, answer, _accept("kind", subject.kind)


def _accessory_colour(scene: Scene, language: str, rng: random.Random) -> _Topic:
    found = _worn(scene, rng)
    if found is None:
        return None
    subject, accessory = found
    the, noun, colour = _the(scene, subject, language), name(accessory.kind, language), name(accessory.colour, language)
    plural = accessory.kind == "glasses"
    slots = {"x": the, "a": noun, "is": "are" if plural else "is", "m": MEASURES[accessory.kind]}
    slots |= _alternatives(accessory.colour, COLOURS, lambda value: name(value, language), rng)
    if len(scene.subjects) > 1:
        slots["key"] = "accessory colour of"
    if language == "zh":
        return slots, f"{noun}是{colour}的。", _accept("colour", accessory.colour)
    return slots, f"{'They are' if plural else 'It is'} {colour}.", _accept("colour", accessory.colour)


def _count(scene: Scene, language: str, rng: random.Random) -> _Topic:
    said = describe_subjects([{"kind": s.kind} for s in scene.subjects], language)
    if len({s.kind for s in scene.subjects}) < len(scene.subjects):  # "a fox and a fox" needs the colours
        said = describe_subjects([{"kind": s.kind, "colour": s.colour} for s in scene.subjects], language)
    one = len(scene.subjects) == 1
    accept = ["one", "1", "一个"] if one else ["two", "2", "两个", "二"]
    if language == "zh":
        return {}, f"{'一' if one else '两'}个：{said}。", accept
    return {}, f"{'One' if one else 'Two'}: {said}.", accept


def _how_many(counted: Sequence[Subject], language: str) -> tuple[str, list[str]]:
    """The answer that counts these subjects, and what is accepted for it."""
    if not counted:
        return ("没有。" if language == "zh" else "None."), ["none", "no", "zero", "0", "没有", "零"]
    said = describe_subjects([{"kind": subject.kind, "colour": subject.colour} for subject in counted], language)
    one = len(counted) == 1
    accept = ["one", "1", "一个"] if one else ["two", "2", "两个", "二"]
    if language == "zh":
        return f"{'一' if one else '两'}个：{said}。", accept
    return f"{'One' if one else 'Two'}: {said}.", accept


def _count_animals(scene: Scene, language: str, rng: random.Random) -> _Topic:
    return {}, *_how_many([subject for subject in scene.subjects if subject.kind in ANIMALS], language)


def _count_colour(scene: Scene, language: str, rng: random.Random) -> _Topic:
    if any(subject.kind == "girl" for subject in scene.subjects):
        return None  # a girl in red is not red
    colour = _either(rng.choice(scene.subjects).colour, COLOURS, rng)
    counted = [subject for subject in scene.subjects if subject.colour == colour]
    return {"c": name(colour, language)}, *_how_many(counted, language)


def _count_worn(scene: Scene, language: str, rng: random.Random) -> _Topic:
    found = _worn(scene, rng)
    kind = _either(found[1].kind, ACCESSORIES, rng) if found else rng.choice(ACCESSORIES)
    counted = [subject for subject in scene.subjects if kind in [accessory.kind for accessory in subject.accessories]]
    slots = {
        "an": accessory_phrase({"kind": kind}, language), "a": name(kind, language), "v": VERBS[language][kind][0]
    }  # fmt: skip
    return slots, *_how_many(counted, language)


def _position(scene: Scene, language: str, rng: random.Random) -> _Topic:
    subject = rng.choice(scene.subjects)
    if sum(other.kind == subject.kind for other in scene.subjects) > 1:
        colour = name(subject.colour, language)
        the = noun_phrase({"kind": subject.kind, "colour": subject.colour}, language, article="the")
        the = the if language == "en" else f"{colour}的{name(subject.kind, language)}"
    else:
        the = _the(scene, subject, language)
    where = name(subject.position, language)
    accept = [word.rpartition(" ")[2] for word in _accept("position", subject.position)]
    accept = [word for word in dict.fromkeys(accept) if word != "side"]
    answer = f"{the}在{where}。" if language == "zh" else f"{_it(subject).capitalize()} is {where}."
    slots = _alternatives(subject.position, POSITIONS, lambda value: name(value, language), rng)
    return {"x": the, **slots}, answer, accept


def _who(scene: Scene, language: str, rng: random.Random) -> _Topic:
    if len(scene.subjects) == 1:
        return None
    subject = rng.choice(scene.subjects)
    said = noun_phrase({"kind": subject.kind, "colour": subject.colour}, language)
    where = name(subject.position, language)
    accept = _accept("kind", subject.kind)
    slots = {"p": where, "side": subject.position, "edge": _EDGES[language][subject.position]}
    slots |= _alternatives(subject.kind, KINDS, lambda value: _a(value, language), rng)
    return slots, f"{where}是{said}。" if language == "zh" else f"It is {said}.", accept


def _background(scene: Scene, language: str, rng: random.Random) -> _Topic:
    where, accept = phrase("background", scene.background, language), _accept("background", scene.background)
    slots = _alternatives(scene.background, BACKGROUNDS, lambda value: phrase("background", value, language), rng)
    return slots, f"在{where}。" if language == "zh" else f"It is {where}.", accept


def _sky(scene: Scene, language: str, rng: random.Random) -> _Topic:
    slots = _alternatives(scene.sky, SKIES, lambda value: _sky_said(value, language), rng)
    return slots, _sky_answer(scene.sky, language), _accept("sky", scene.sky)


def _sky_said(sky: str, language: str) -> str:
    """What it is: "night", "raining"; 夜晚."""
    return name(sky, language) if language == "zh" or sky != "rain" else "raining"


def _sky_answer(sky: str, language: str) -> str:
    if language == "zh":
        return f"是{name(sky, 'zh')}。"
    return {"day": "It is day.", "night": "It is night.", "sunset": "It is sunset.", "rain": "It is raining."}[sky]


def _style(scene: Scene, language: str, rng: random.Random) -> _Topic:
    style, accept = name(scene.style, language), _accept("style", scene.style)
    slots = _alternatives(scene.style, STYLES, lambda value: name(value, language), rng)
    return slots, f"是{style}风格。" if language == "zh" else f"It is in {style} style.", accept


def _yes(truth: bool, yes: str, no: str, language: str) -> tuple[str, list[str]]:
    """A yes/no answer with its reason, and what is accepted for it."""
    if language == "zh":
        return (f"是的，{yes}。", ["是的"]) if truth else (f"不，{no}。", ["不", "没有"])
    return (f"Yes, {yes}.", ["yes"]) if truth else (f"No, {no}.", ["no"])


def _either(truth: str, others: Sequence[str], rng: random.Random) -> str:
    """The true value half of the time, else another one."""
    return truth if rng.random() < 0.5 else rng.choice([other for other in others if other != truth])


def _has(scene: Scene, language: str, rng: random.Random) -> _Topic:
    subject = rng.choice(scene.subjects)
    worn = [accessory.kind for accessory in subject.accessories]
    others = [kind for kind in ACCESSORIES if kind not in worn]
    kind = _either(rng.choice(worn), others, rng) if worn else rng.choice(ACCESSORIES)
    a, the = name(kind, language), _the(scene, subject, language)
    an = accessory_phrase({"kind": kind}, language)
    verb = VERBS[language][kind][0]
    if language == "zh":
        answer, accept = _yes(kind in worn, f"{the}{verb}{a}", f"{the}没有{a}", language)
    else:
        it = _it(subject)
        answer, accept = _yes(kind in worn, f"{it} is {verb} {an}", f"{it} has no {a}", language)
    return {"x": the, "a": a, "an": an, "v": verb}, answer, accept


def _is_colour(scene: Scene, language: str, rng: random.Random) -> _Topic:
    subject = rng.choice(scene.subjects)
    value = _either(subject.colour, COLOURS, rng)
    the, c, true = _the(scene, subject, language), name(value, language), name(subject.colour, language)
    if subject.kind == "girl":
        the = f"{the}的衣服" if language == "zh" else f"the dress of {the}"
    told = f"{the}是{true}的" if language == "zh" else f"it is {true}"
    answer, accept = _yes(value == subject.colour, told, told, language)
    return {"x": the, "c": c}, answer, accept


def _is_sky(scene: Scene, language: str, rng: random.Random) -> _Topic:
    value = _either(scene.sky, SKIES, rng)
    said = _sky_said(value, language)
    told = _sky_answer(scene.sky, language).rstrip(".。")
    told = told[0].lower() + told[1:]
    answer, accept = _yes(value == scene.sky, told, told, language)
    return {"s": said}, answer, accept


def _is_kind(scene: Scene, language: str, rng: random.Random) -> _Topic:
    kinds = [subject.kind for subject in scene.subjects]
    kind = _either(rng.choice(kinds), [other for other in KINDS if other not in kinds], rng)
    said = noun_phrase({"kind": kind}, language, article="a" if language == "en" else "")
    seen = describe_subjects([{"kind": k} for k in dict.fromkeys(kinds)], language)
    if language == "zh":
        answer, accept = _yes(kind in kinds, f"有{said}", f"图里是{seen}", language)
    else:
        answer, accept = _yes(kind in kinds, f"there is {said}", f"I see {seen}", language)
    return {"k": said}, answer, accept


_TOPICS: dict[str, Callable[[Scene, str, random.Random], _Topic]] = {
    "colour": _colour, "animal": _animal, "content": _content, "wears": _wears, "holds": _holds, "has on": _has_on,
    "wearer": _wearer, "compared": _compared, "accessory colour": _accessory_colour,
    "count": _count, "count animals": _count_animals,
    "count colour": _count_colour, "count worn": _count_worn, "position": _position, "who": _who,
    "background": _background, "sky": _sky, "style": _style,
    "has": _has, "is colour": _is_colour, "is sky": _is_sky, "is kind": _is_kind,
}  # fmt: skip
