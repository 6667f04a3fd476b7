"""What people say of a scene: refined prompts (exact, stable wording) and captions (loose, varied), en and zh.

    python -c "
    import random
    from datasets_build.storybook.language import *; from datasets_build.storybook.scene import sample_scene
    rng = random.Random(3); scene = sample_scene(rng)
    for lang in ('en', 'zh'): print(write_prompt(scene, lang, 0)); print(write_caption(scene, lang, rng, 'train'))"

A refined prompt says everything about a scene in canonical words, in one of N_TEMPLATES sentence forms. Changing one
attribute of the scene changes only that attribute's words: this is what makes a prompt editable turn by turn.
`reading.py` reads prompts back. Captions may use any synonym, omit anything but the subjects' kinds, and come in other
forms for the test split than for training.

Functions that speak of a part of a scene take either Subject/Accessory/Scene values or *partial* ones, plain dicts
with only the keys that are to be spoken of; see `partial`. With `rng=None` they use canonical words.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from datasets_build.storybook.scene import Accessory, Scene, Subject
from datasets_build.storybook.vocabulary import DRESS, MEASURES, VERBS, name, of_split, phrase, pick

Partial = dict[str, Any]

_BEHIND = re.compile(r"(?:with|who|that|\w+ing) ")  # begins what stands behind a noun: "with big eyes", "eating a pie"

N_TEMPLATES = 7


def partial(scene: Scene) -> Partial:
    """Everything about `scene` that goes without saying left out: what a refined prompt states.

    {"subjects": [{"kind", "colour"?, "size"?, "position"?, "accessories"?: [{"kind", "colour"?}]}],
    "background"?, "sky"?, "style"?, "shot"?}"""
    subjects = [partial_subject(subject) for subject in scene.subjects]
    if len(subjects) == 1 and subjects[0]["position"] == "middle":
        del subjects[0]["position"]
    asked = {"subjects": subjects, "background": scene.background, "sky": scene.sky, "style": scene.style}
    if scene.background == "space":
        del asked["sky"]
    return asked | ({"shot": scene.shot} if scene.shot != "normal" else {})


# ---------------------------------------------------------------------------------------------- parts of a scene


def _fields(value: Subject | Accessory | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(value, Subject):
        return partial_subject(value)
    return {"kind": value.kind, "colour": value.colour} if isinstance(value, Accessory) else value


def partial_subject(subject: Subject) -> Partial:
    """A subject as a partial one, its position included."""
    said: Partial = {"kind": subject.kind, "colour": subject.colour, "position": subject.position}
    if subject.size != "normal":
        said["size"] = subject.size
    if subject.accessories:
        said["accessories"] = [{"kind": a.kind, "colour": a.colour} for a in subject.accessories]
    return said


def with_article(article: str, words: str) -> str:
    """ "an orange fox" ("a"), "the fox", or the words alone ("")."""
    if not article:
        return words
    return f"{('an' if words[0] in 'aeiou' else 'a') if article == 'a' else article} {words}"


def accessory_phrase(
    accessory: Accessory | Mapping[str, Any], language: str, rng: random.Random | None = None, article: str = "a"
) -> str:
    """ "a blue scarf", "black glasses" / "一条蓝色围巾"; article: "a", "the" ("its", …) or "" (蓝色围巾)."""
    said = _fields(accessory)
    kind, noun = said["kind"], name(said["kind"], language, rng, "accessory")
    colour = name(said["colour"], language, rng, "colour") if said.get("colour") else ""
    if language == "zh":
        measure = {"a": "一" + MEASURES[kind], "the": "那" + MEASURES[kind]}.get(article, article)
        return measure + said.get("flavour", "") + colour + noun
    words = " ".join(word for word in (said.get("flavour"), colour, noun) if word)
    return words if kind == "glasses" and article == "a" else with_article(article, words)


def wearing_phrase(
    accessories: Sequence[Accessory | Mapping[str, Any]], language: str, rng: random.Random | None = None
) -> str:
    """ "wearing a blue hat and holding a red balloon" / "戴着蓝色帽子、拿着红色气球"; "" for none."""
    text, last_verb = "", ""
    only_with = language == "en" and len(accessories) > 1 and rng is not None and rng.random() < 0.5
    for accessory in accessories:
        verbs = VERBS[language][_fields(accessory)["kind"]]
        verb = "with" if only_with else pick(verbs, rng if len(accessories) == 1 else None)  # no "wearing … and with …"
        if language == "zh":
            joint = "和" if verb == last_verb else ("、" if text else "") + verb
            text += joint + accessory_phrase(accessory, language, rng, "")
        else:
            spoken = "" if verb == last_verb else f"{verb} "
            text += (" and " if text else "") + spoken + accessory_phrase(accessory, language, rng)
        last_verb = verb
    return text


def stands_behind(flavour: str) -> bool:
    """Whether English says this behind its noun: "a fox with big eyes", but "a cute fox"."""
    return _BEHIND.match(flavour) is not None


def noun_phrase(
    subject: Subject | Mapping[str, Any],
    language: str,
    rng: random.Random | None = None,
    detail: str = "full",
    article: str = "a",
) -> str:
    """ "a big red fox wearing a blue scarf" / "一只围着蓝色围巾的红色大狐狸", without the position.

    detail: "kind" (a fox), "colour" (a red fox), "size" (a big red fox) or "full". Of a partial subject only what it
    holds is said; its "flavour" is what the world has no value for ("cute", "eating a pie"; 可爱的). article: "a",
    "the", any other determiner ("my", "这只") or "" for none."""
    said = _fields(subject)
    kind, noun = said["kind"], name(said["kind"], language, rng, "kind")
    has_colour = detail != "kind" and said.get("colour")
    colour = name(said["colour"], language, rng, "colour") if has_colour else ""
    has_size = detail in ("size", "full") and said.get("size")
    size = name(said["size"], language, rng, "size") if has_size else ""
    worn = wearing_phrase(said.get("accessories", ()) if detail == "full" else (), language, rng)
    flavour = said.get("flavour", "")
    if language == "zh":
        measure = "艘" if "飞船" in noun else MEASURES[kind]
        start = {"a": "一" + measure, "the": "那" + measure}.get(article, article)
        if kind == "girl" and colour:  # a girl's colour is her dress's
            dress = f"穿{colour}{pick(DRESS['zh'], rng)}"
            return f"{start}{worn}{'、' if worn else ''}{dress}的{flavour}{size}{noun}"
        of_worn = f"{worn}的" if worn else ""
        # 红色狐狸, 红色大鱼, but 红色的鱼
        of = "的" if len(size) > 1 or (colour and not size and len(noun) == 1) else ""
        return f"{start}{of_worn}{flavour}{colour}{size}{of}{noun}"
    before, behind = ("", flavour) if stands_behind(flavour) else (flavour, "")
    words = [before, size, colour, noun, behind]
    if kind == "girl" and colour:
        words[2:] = [noun, behind, pick(DRESS["en"], rng).format(colour, with_article("a", colour))]
    return " ".join(part for part in (with_article(article, " ".join(word for word in words if word)), worn) if part)


def describe_subjects(
    subjects: Sequence[Mapping[str, Any]], language: str, rng: random.Random | None = None, form: str = "after"
) -> str:
    """Partial subjects, with the positions that they hold. `form` says how a position stands:

    after    a fox on the left and a turtle on the right    一只狐狸在左边，一只乌龟在右边
    before   on the left a fox and on the right a turtle    左边一只狐狸，右边一只乌龟
    of       (as after)                                     左边的一只狐狸和右边的一只乌龟
    have     (as before)                                    左边有一只狐狸，右边有一只乌龟
    is       (as before)                                    左边是一只狐狸，右边是一只乌龟
    bare     fox on the left, turtle on the right           左边狐狸，右边乌龟"""
    spoken = []
    for subject in subjects:
        text = noun_phrase(subject, language, rng, article="" if form == "bare" else "a")
        place = name(subject["position"], language, rng, "position") if subject.get("position") else ""
        if place and language == "en":
            text = f"{place} {text}" if form in ("before", "have", "is") else f"{text} {place}"
        elif place:
            joint = {"of": "的", "have": "有", "is": "是"}.get(form, "")
            text = f"{text}在{place}" if form == "after" else f"{place}{joint}{text}"
        spoken.append(text)
    if language == "en":
        return (", " if form == "bare" else " and ").join(spoken)
    placed = any(subject.get("position") for subject in subjects)
    return ("，" if placed and form != "of" else "和").join(spoken)


# ------------------------------------------------------------------------------------------------ refined prompts


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def write_prompt(scene: Scene, language: str, template: int) -> str:
    """The refined prompt of `scene`; `template` is 0 … N_TEMPLATES - 1."""
    if not 0 <= template < N_TEMPLATES:
        raise ValueError(f"template must be 0 to {N_TEMPLATES - 1}; got {template}")
    return (_english_prompt if language == "en" else _chinese_prompt)(partial(scene), template)


def _english_prompt(said: Partial, template: int) -> str:
    subjects, style = said["subjects"], said["style"]
    who = describe_subjects(subjects, "en")
    place, where = said["background"], phrase("background", said["background"], "en")
    sky = said.get("sky")
    when = phrase("sky", sky, "en") if sky else ""
    where_when = f"{where} {when}" if when else where
    shot = f", {name(said['shot'], 'en', attribute='shot')}" if "shot" in said else ""
    if template == 0:
        return f"{_sentence(phrase('picture', style, 'en'))} of {who}, {where_when}{shot}."
    if template == 1:
        return f"{_sentence(who)}, {where_when}, {style} style{shot}."
    if template == 2:
        return f"{_sentence(where_when)}: {who}. {_sentence(style)} style{shot}."
    if template == 3:
        bare = describe_subjects(subjects, "en", form="bare")
        return f"{style}{shot}, {bare}, {place}" + (f", {name(sky, 'en', attribute='sky')}" if sky else "")
    if template == 4:
        when_where = f"{when} {where}" if when else where
        return f"{_sentence(when_where)}, {who}, drawn in {style} style{shot}."
    if template == 5:
        placed = describe_subjects(subjects, "en", form="before")
        return f"{_sentence(style)} style{shot}. {_sentence(placed)}, {where_when}."
    time = f" Time: {name(sky, 'en', attribute='sky')}." if sky else ""
    lens = f" Shot: {name(said['shot'], 'en', attribute='shot').removesuffix(' shot')}." if "shot" in said else ""
    return f"Subject: {who}. Place: {place}.{time} Style: {style}.{lens}"


def _chinese_prompt(said: Partial, template: int) -> str:
    subjects, place = said["subjects"], name(said["background"], "zh", attribute="background")
    where, sky = phrase("background", said["background"], "zh"), said.get("sky")
    when = phrase("sky", sky, "zh") if sky else ""
    of_when, then_when = (f"{when}的", f"，{when}") if when else ("", "")
    style, picture = name(said["style"], "zh", attribute="style"), phrase("picture", said["style"], "zh")
    shot = f"，{name(said['shot'], 'zh', attribute='shot')}" if "shot" in said else ""
    if template == 0:
        return f"{picture}：{describe_subjects(subjects, 'zh', form='before')}，{where}{then_when}{shot}。"
    if template == 1:
        return f"{describe_subjects(subjects, 'zh')}，{of_when}{where}，{style}风格{shot}。"
    if template == 2:
        there = "，" if "position" in subjects[0] else "有"
        return f"{of_when}{where}{there}{describe_subjects(subjects, 'zh', form='have')}，{style}风格{shot}。"
    if template == 3:
        return f"一幅{picture}，画的是{describe_subjects(subjects, 'zh', form='of')}，背景是{of_when}{place}{shot}。"
    if template == 4:
        return f"{style}{shot}，{describe_subjects(subjects, 'zh', form='bare')}，{place}{then_when}"
    if template == 5:
        return f"{where}{then_when}：{describe_subjects(subjects, 'zh', form='is')}。{style}风格{shot}。"
    time = f"时间：{when}。" if when else ""
    lens = f"镜头：{name(said['shot'], 'zh', attribute='shot')}。" if "shot" in said else ""
    return f"主体：{describe_subjects(subjects, 'zh', form='of')}。地点：{place}。{time}风格：{style}。{lens}"


# ------------------------------------------------------------------------------------- captions and descriptions

# A pattern's [bracketed] piece is left out where the scene's part that it names is not spoken of; a pattern fits when
# it has a place for every part that is. a, b: the subjects (b: their positions before them); n: without articles.
_PHRASES = {
    "en": (
        "{a}[ {where}][ {when}][, {manner}][, {shot}]",
        "{a}[ {when}][ {where}][, {manner}][, {shot}]",
        "{a}[ {where}][ {when}][ {manner}][, {shot}]",
        "{a}[, {shot}][, {where}][ {when}][, {manner}]",
        "{a}[, {where}][ {when}][, {shot}][, {manner}]",
        "{a}[ {manner}][, {where}][ {when}][, {shot}]",
    ),
    "zh": (
        "{a}[，在{where}][，{when}][，{manner}][，{shot}]",
        "{where}的{d}[，{when}][，{manner}][，{shot}]",
        "{when}{where}的{d}[，{manner}][，{shot}]",
        "{a}[，{when}][，{where}][，{shot}][，{manner}]",
        "{a}[，{manner}][，{when}][，{where}][，{shot}]",
        "{a}[，{where}][，{when}][，{shot}][，{manner}]",
    ),
}

_CAPTIONS = {
    "en": (
        "[{picture} of ]{a}[ {where}][ {when}][, {shot}]",
        "{a}[ {where}][ {when}][, {manner}][, {shot}]",
        "{n}[, {place}][, {sky}][, {style}][, {shot}]",
        "{where}[ {when}], {a}[, {manner}][, {shot}]",
        "[{picture}[, {shot}]: ]{a}[ {where}][ {when}]",
        "{a}[ {when}][ {where}][, {manner}][, {shot}]",  # test
        "[{style}, ][{shot}, ]{n}[, {place}][, {sky}]",
        "{n}[ {where}][ {when}][ {manner}][, {shot}]",
        "{shot_of} of {a}[ {where}][ {when}][, {manner}]",
        "{when}[ {where}], {a}[, {manner}][, {shot}]",
        "a picture of {a}[ {where}][ {when}][, {manner}][, {shot}]",
        "{a}[, {place}][, {sky}][, {style} style][, {shot}]",  # test
        "there is {a}[ {where}][ {when}][, {manner}][, {shot}]",
        "[{picture} with ]{a}[ {where}][ {when}][, {shot}]",
        "{a}[, {where}][ {when}][. {picture}][, {shot}]",
        "a scene with {a}[ {where}][ {when}][, {manner}][, {shot}]",
        "[{style}: ]{b}[, {where}][ {when}][, {shot}]",
        "[{shot}: ]{a}[ {where}][ {when}][, {manner}]",  # test
        "{place}[, {sky}], {n}[, {style}][, {shot}]",
        "{b}[ {where}][ {when}][, {manner}][, {shot}]",
        "{a}. [{place}. ][{sky}. ][{style}. ][{shot}. ]",
        "{n} {where}[, {sky}][, {style} style][, {shot}]",
        "[{picture} showing ]{a}[ {where}][ {when}][, {shot}]",
        "we see {b}[ {where}][ {when}][, {manner}][, {shot}]",  # test
        "{a} {when}[, {place}][, {style}][, {shot}]",
    ),
    "zh": (
        "[一幅{picture}，画的是]{d}[，在{where}][，{when}][，{shot}]",
        "{a}[，{where}][，{when}][，{manner}][，{shot}]",
        "{n}[，{place}][，{sky}][，{style}][，{shot}]",
        "{when}的{where}，{a}[，{manner}][，{shot}]",
        "[{picture}：]{b}[，{where}][，{when}][，{shot}]",
        "{when}，{where}，{b}[，{manner}][，{shot}]",  # test
        "[{style}，][{shot}，]{n}[，{place}][，{sky}]",
        "{where}{has}[，{when}][，{manner}][，{shot}]",
        "{d}[，背景是{place}][，{when}][，{manner}][，{shot}]",
        "{when}，{where}{has}[，{manner}][，{shot}]",
        "画面里有{d}[，在{where}][，{when}][，{manner}][，{shot}]",
        "[{shot}，]{a}[，{when}][，{where}][，{manner}]",  # test
        "{when}{where}的{d}[，{manner}][，{shot}]",
        "{where}的{d}[，{when}][，{manner}][，{shot}]",
        "[{manner}，]{b}[，{where}][，{when}][，{shot}]",
        "{b}[，{when}][，{where}][，{shot}][，{manner}]",
        "{place}[，{sky}]，{n}[，{style}][，{shot}]",
        "图中是{d}[，{where}][，{when}][，{manner}][，{shot}]",  # test
        "[{manner}的画，]{where}{has}[，{when}][，{shot}]",
        "{n}[ {place}][ {sky}][ {style}][ {shot}]",
        "{d}，{when}[，{where}][，{manner}][，{shot}]",
        "[{picture}，]{d}[，{where}][，{when}][，{shot}]",
        "{n}，{where}[，{when}][，{manner}][，{shot}]",
        "{when}的{place}，{b}[，{style}][，{shot}]",  # test
        "[{shot}：]{b}[，{where}][，{when}][，{manner}]",
    ),
}

# Which part of a scene a slot of a pattern speaks of; the subjects' slots are not among them.
_SLOT_PART = {
    "where": "background", "place": "background", "when": "sky", "sky": "sky", "picture": "style", "manner": "style",
    "style": "style", "shot": "shot", "shot_of": "shot",
}  # fmt: skip
_DOUBLE_OF = re.compile(r"的([左右中正][边侧中间]+)的")  # 森林里的左边的 → 森林里左边的
_ARTICLE = re.compile(r"\b(an?|the) ")
_SLOT = re.compile(r"\{(\w+)\}")
_PIECE = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]")  # one level of brackets inside brackets


def _fits(pattern: str, asked: Mapping[str, Any]) -> bool:
    present = {part for part in ("background", "sky", "style", "shot") if asked.get(part)}
    parts = {_SLOT_PART[slot] for slot in _SLOT.findall(pattern) if slot in _SLOT_PART}
    needed = {_SLOT_PART[slot] for slot in _SLOT.findall(_PIECE.sub("", pattern)) if slot in _SLOT_PART}
    # A normal shot is a name only ("normal shot"), which "… of a fox" cannot follow.
    return present <= parts and needed <= present and not ("{shot_of}" in pattern and asked["shot"] == "normal")


def _fill(pattern: str, asked: Mapping[str, Any], language: str, rng: random.Random | None, who: str = "") -> str:
    def piece(match: re.Match[str]) -> str:
        inner = match[1]
        own = {_SLOT_PART[slot] for slot in _SLOT.findall(_PIECE.sub("", inner))}
        return _PIECE.sub(piece, inner) if all(asked.get(part) for part in own) else ""

    text = _SLOT.sub(lambda match: _slot(match[1], asked, language, rng, who), _PIECE.sub(piece, pattern))
    return _DOUBLE_OF.sub(r"\1的", text)


def _slot(slot: str, asked: Mapping[str, Any], language: str, rng: random.Random | None, who: str) -> str:
    forms = {"a": "after", "b": "before", "d": "of", "n": "bare", "has": "have"}
    if slot in forms:
        text = who or describe_subjects(asked["subjects"], language, rng, forms[slot])
        if slot == "has":
            return f"，{text}" if asked["subjects"][0].get("position") else f"有{text}"
        return text
    value = asked[_SLOT_PART[slot]]
    if slot == "where":
        return place_phrase(asked, language, rng)
    if slot == "when":
        return phrase("sky", value, language, rng)
    if slot in ("picture", "manner"):
        return phrase(slot, value, language, rng)
    text = name(value, language, rng, _SLOT_PART[slot])
    return with_article("a", text) if slot == "shot_of" else text


def place_phrase(asked: Mapping[str, Any], language: str, rng: random.Random | None = None) -> str:
    """Where a partial scene is: "in a forest", with its flavour "in a magical forest" / 神秘的森林里."""
    where, flavour = phrase("background", asked["background"], language, rng), asked.get("flavour", "")
    if not flavour or language == "zh":
        return flavour + where
    return _ARTICLE.sub(lambda match: with_article(match[1].replace("an", "a"), flavour) + " ", where, count=1)


def describe(asked: Mapping[str, Any], language: str, rng: random.Random | None = None, who: str = "") -> str:
    """A partial scene as one phrase that a request can hold: "a red fox in the snow at night, in watercolour".

    `who` stands for its subjects, where it is given."""
    fitting = [pattern for pattern in _PHRASES[language] if _fits(pattern, asked)]
    return _fill(fitting[0] if rng is None else rng.choice(fitting), asked, language, rng, who)


def loosen(scene: Scene, rng: random.Random) -> Partial:
    """A partial scene that holds a random share of what there is to say: from everything to just "a fox"."""
    said = partial(scene)
    keep = rng.choice((0.25, 0.6, 0.85, 1.0))  # how talkative this speaker is
    for part in ("background", "sky", "style", "shot"):
        if part in said and rng.random() > keep:
            del said[part]
    twins = len({subject["kind"] for subject in said["subjects"]}) < len(said["subjects"])
    for subject in said["subjects"]:
        if not twins and rng.random() > max(keep, 0.8):
            del subject["colour"]
        if "size" in subject and rng.random() > max(keep, 0.5):
            del subject["size"]
        subject_accessories = [a for a in subject.pop("accessories", ()) if rng.random() <= max(keep, 0.6)]
        if subject_accessories:
            subject["accessories"] = subject_accessories
    if rng.random() > max(keep, 0.4):
        for subject in said["subjects"]:
            subject.pop("position", None)
    return said


def write_caption(scene: Scene, language: str, rng: random.Random, split: str) -> str:
    """A loose caption of `scene`, in a form that `split` may use (see `vocabulary.of_split`)."""
    while True:
        asked = loosen(scene, rng)
        fitting = [pattern for pattern in of_split(_CAPTIONS[language], split) if _fits(pattern, asked)]
        if fitting:
            break
    text = _fill(rng.choice(fitting), asked, language, rng).strip()
    if language == "zh":
        return text + ("。" if "，" in text and rng.random() < 0.4 else "")
    if rng.random() < 0.6:
        text = re.sub(r"(^|[.] )([a-z])", lambda match: match[1] + match[2].upper(), text)
        return text if text.endswith(".") or rng.random() < 0.3 else text + "."
    return text
