"""How users ask for a new picture: from a partial scene to their words, and the prompt that answers them.

python -c "
import random; from datasets_build.banks import Speaker; from datasets_build.requests import fresh
from datasets_build.topics import TOPICS; print(fresh(Speaker('en', 'train', random.Random(3)), TOPICS[0]))"
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from datasets_build.banks import Speaker, bank
from datasets_build.records import Exchange, NoSample, draw_exchange
from datasets_build.spoken import spoken
from datasets_build.storybook.language import (
    N_TEMPLATES,
    Partial,
    accessory_phrase,
    describe,
    describe_subjects,
    noun_phrase,
    partial,
    place_phrase,
    wearing_phrase,
    with_article,
    write_prompt,
)
from datasets_build.storybook.reading import complete
from datasets_build.storybook.scene import (
    COLOURS,
    HELD,
    KINDS,
    POSITIONS,
    SHOTS,
    SIZES,
    SKIES,
    STYLES,
    Scene,
    sample_accessories,
    sample_scene,
)
from datasets_build.storybook.vocabulary import MEASURES, name, phrase
from datasets_build.surface import roughen, sentence
from datasets_build.topics import Topic

# Words that make it plain that a picture is wanted.
_DRAWING_WORD = re.compile(r"draw|paint|sketch|illustrat|picture|image|pic\b|画|图|创作", re.IGNORECASE)

SEARCH = 500  # tries to find a scene of a small split
OPEN_SHARE = 0.03  # of requests that leave everything open
TWIN_SHARE = 0.12  # of requests for two subjects, those for two of one kind
TOGETHER_SHARE = 0.15  # of requests for two subjects at no places, those that say that they are together
OF_MANY_SHARE = 0.04  # of requests for one subject speak of its kind first: "I love cats. Draw me a black one."
PLACE_FIRST_SHARE = 0.06  # of requests with a place begin with it: "a forest with a fox"; Chinese often does
COUNTED = ("meadow", "beach", "forest", "desert", "city", "room")
BARE_SHARE = 0.25  # of requests are what is wanted and nothing else: "a red fox in the snow"
NAMED_SHARE = (
    0.1  # of requests for one subject at no place in particular speak of the user's own: "My cat is called Max."
)
SPOKEN_SHARE = 0.1  # of requests say one thing after another, as people speak
WHY_SHARE = 0.08  # of requests that begin a conversation say first why the picture is wanted
THEN_SHARE = 0.5  # of requests right after a reply in words take it up: "ok, then a house"
DOING_SHARE = 0.15  # of requests for one subject at a place, those that say what it does there
FLAVOUR_SHARE = 0.28  # of things are called something that no picture shows, of what is worn and of places half of it
TAIL_SHARE = 0.05  # of requests end in a wish that changes nothing: "make it beautiful"
_GROUPS = {
    "person": ("girl",), "vehicle": ("car", "train", "sailboat", "rocket"), "building": ("house", "castle", "pagoda"),
    "plant": ("tree", "flower"), "thing": ("cake", "lantern"),
}  # fmt: skip
FLAVOURS = {kind: next((group for group, kinds in _GROUPS.items() if kind in kinds), "creature") for kind in KINDS}
_ONES = (  # of two of one kind
    "one {} and one {}", "one {}, the other {}", "one {}, one {}", "one is {}, the other is {}", "one {} one {}",
)  # fmt: skip
DOERS = {
    "flier": ("bird", "butterfly"), "fish": ("fish",), "vehicle": ("car", "train"), "ship": ("sailboat",),
    "rocket": ("rocket",), "thing": ("house", "castle", "pagoda", "cake", "lantern", "snowman"),
    "plant": ("tree", "flower"),
}  # fmt: skip
# Of fresh prompts, the share in template 0. Easel has one way to put it; the image model reads all of them, and a
# dialog model that had to learn the others' edits too would learn each less well.
PLAIN_TEMPLATE_SHARE = 0.95


def fresh(speaker: Speaker, topic: Topic, after_another: bool = False, after_words: bool = False) -> Exchange:
    """A request for a new picture, and the prompt that it should lead to.

    after_another: there are pictures before it. after_words: the reply just before it drew nothing."""
    rng = speaker.rng
    if rng.random() < OPEN_SHARE and (exchange := open_request(speaker)):
        return exchange
    return request(speaker, *asked_of_split(rng, topic, speaker.split), after_another, after_words)


def request(speaker: Speaker, asked: Partial, scene: Scene, after_another: bool, after_words: bool = False) -> Exchange:
    """The request for what is `asked`, which means `scene`."""
    rng = speaker.rng
    template = 0 if rng.random() < PLAIN_TEMPLATE_SHARE else rng.randrange(N_TEMPLATES)
    words = request_text(asked, speaker, after_another, after_words)
    words = surround(words, speaker, 0.12 if after_another else 0.0, 0.04)
    if not after_another and not after_words and rng.random() < WHY_SHARE:
        words = with_why(words, speaker)
    user = roughen(words, speaker.language, rng)
    prompt = write_prompt(scene, speaker.language, template)
    return draw_exchange(user, prompt, {"op": "draw", "asked": asked}, scene, opens=True)


def asked_of_split(rng: random.Random, topic: Topic, split: str) -> tuple[Partial, Scene]:
    """What a user might ask for, and the scene that it means, which is of `split`."""
    for _ in range(SEARCH):
        asked = sample_asked(rng, topic, split)
        try:
            scene = complete(asked)
        except ValueError:
            continue  # a sunny day in space
        if scene.split == split:
            return asked, scene
    raise NoSample


def open_request(speaker: Speaker) -> Exchange | None:
    """ "Draw something": what is drawn then is always the same, so that one can learn it; None in another split."""
    choice = speaker.rng.choice(bank("requests", speaker.language)["open"])
    scene = complete({"subjects": [{"kind": choice["kind"]}]})
    if scene.split != speaker.split:
        return None
    user = roughen(speaker.pick_from(choice["ask"], "requests.open"), speaker.language, speaker.rng)
    request = {"op": "draw", "asked": {"subjects": [{"kind": choice["kind"]}]}}
    return draw_exchange(user, write_prompt(scene, speaker.language, 0), request, scene, opens=True)


def with_why(text: str, speaker: Speaker) -> str:
    """A request behind what it is for, or who asks: "I'm 8 years old. I want a turtle." """
    why = speaker.pick("requests", "why")
    if speaker.language == "zh":
        return why + text
    if not why.endswith((".", ":")) and not re.match(r"I\b|I'", text):
        text = text[:1].lower() + text[1:]
    return f"{why} {text}"


def surround(text: str, speaker: Speaker, before: float, after: float) -> str:
    """At times with praise before the request, and a word of thanks behind it."""
    space = " " if speaker.language == "en" else ""
    if speaker.rng.random() < before:
        text = speaker.pick("requests", "around", "before") + space + text
    if speaker.rng.random() < after:
        end = "" if text[-1] in ".!?。！？~" else "." if speaker.language == "en" else "，"
        text += end + space + speaker.pick("requests", "around", "after")
    return text


def sample_asked(rng: random.Random, topic: Topic, split: str) -> Partial:
    """What a user might ask for: mostly little, sometimes everything."""
    if rng.random() < 0.1:
        return partial(sample_scene(rng, split))
    talkative = rng.choice((0.0, 0.6, 1.0, 1.0, 1.4))
    asked: Partial = {"subjects": [_asked_subject(rng, topic, talkative)]}
    if rng.random() < 0.26:
        asked["subjects"].append(_asked_subject(rng, topic, talkative))
        if rng.random() < TWIN_SHARE:
            _make_twins(*asked["subjects"])
        if rng.random() < 0.4:
            places = sorted(rng.sample(range(len(POSITIONS)), 2))
            for subject, place in zip(asked["subjects"], places, strict=True):
                subject["position"] = POSITIONS[place]
    elif rng.random() < 0.12 * talkative:
        asked["subjects"][0]["position"] = rng.choice(POSITIONS)
    if rng.random() < 0.55 * talkative:
        asked["background"] = topic.background(rng)
    if rng.random() < 0.3 * talkative:
        asked["sky"] = rng.choice(topic.skies if rng.random() < 0.5 else SKIES)
    if rng.random() < 0.28 * talkative:
        asked["style"] = rng.choice(STYLES)
    if rng.random() < 0.1 * talkative:
        asked["shot"] = rng.choice(SHOTS)
    return asked


def _make_twins(first: Partial, second: Partial) -> None:
    """Two of one kind: both with a colour, or neither."""
    second["kind"] = first["kind"]
    if ("colour" in first) != ("colour" in second):
        first.pop("colour", None)
        second.pop("colour", None)


def _asked_subject(rng: random.Random, topic: Topic, talkative: float) -> Partial:
    subject: Partial = {"kind": topic.kind(rng)}
    if rng.random() < 0.7 * talkative:
        subject["colour"] = rng.choice(COLOURS)
    if rng.random() < 0.2 * talkative:
        subject["size"] = rng.choice(SIZES)
    if rng.random() < 0.4 * talkative:
        worn = [{"kind": a.kind, "colour": a.colour} for a in sample_accessories(rng)]
        if rng.random() < 0.15:
            worn = [{"kind": accessory["kind"]} for accessory in worn]
        if worn:
            subject["accessories"] = worn
    return subject


# ------------------------------------------------------------------------------------------------- how it is said


def request_text(asked: Partial, speaker: Speaker, after_another: bool = False, after_words: bool = False) -> str:
    """`asked` as this user says it, before the slips of the fingers."""
    rng, language = speaker.rng, speaker.language
    if not after_another and len(asked["subjects"]) == 1 and rng.random() < 0.08:
        return keywords(asked, speaker)
    path = "draw" if not after_another or rng.random() < 0.4 else "draw_next"
    if after_words and not after_another and rng.random() < THEN_SHARE:
        path = "draw_then"
    if rng.random() < SPOKEN_SHARE:
        inside = after_another or path == "draw_then" or rng.random() < 0.3
        text = spoken(asked, speaker, inside)
        text = fill_frame(speaker, path, text, not after_another, last=True) if inside else text
        return sentence(text) if language == "en" else text
    asked, follow_ups = _set_apart(asked, speaker)
    twins = _twins(asked["subjects"], language, rng)
    if not twins:
        _add_flavours(asked, speaker)
    alone = len(asked["subjects"]) == 1 and "position" not in asked["subjects"][0]
    if alone and "background" in asked and rng.random() < DOING_SHARE:
        return _with_follow_ups(fill_frame(speaker, path, _doing(asked, speaker)), follow_ups, language, rng)
    own = FLAVOURS[asked["subjects"][0]["kind"]] in ("creature", "person")
    if set(asked) == {"subjects"} and own and alone and not after_another and rng.random() < NAMED_SHARE:
        return _with_follow_ups(_of_ones_own(asked["subjects"][0], speaker), follow_ups, language, rng)
    if alone and not after_another and rng.random() < OF_MANY_SHARE and (text := _of_many(asked, speaker)):
        return _with_follow_ups(text, follow_ups, language, rng)
    # Beside a picture, a bare "a cat" could be a change of it: only with its place it is plainly a new one.
    plain = not after_another or "background" in asked
    who = twins or _together(asked["subjects"], speaker)
    wanted = describe(asked, language, rng, who)
    if language == "en" and asked.get("background") in COUNTED and rng.random() < PLACE_FIRST_SHARE:
        place = " ".join(word for word in (asked.pop("flavour", ""), name(asked["background"], language)) if word)
        rest = {part: value for part, value in asked.items() if part != "background"}
        wanted = f"{with_article('a', place)} with {describe(rest, language, rng, who)}"
    bare = plain and path != "draw_then" and rng.random() < BARE_SHARE
    text = wanted if bare else fill_frame(speaker, path, wanted, plain)
    return _with_follow_ups(text, follow_ups, language, rng)


def _with_follow_ups(text: str, follow_ups: Sequence[str], language: str, rng: random.Random) -> str:
    for follow_up in follow_ups:
        space = " " if language == "en" else ""
        if text[-1] not in ".!?。！？~":
            text += ("." if rng.random() < 0.6 else ",") if language == "en" else "，"
        text += space + follow_up
    return sentence(text) if language == "en" else text


def _doing(asked: Partial, speaker: Speaker) -> str:
    """Somebody at a place, doing something there: "a cat sitting in a room", 一只猫在房间里坐着."""
    language, rng, subject = speaker.language, speaker.rng, asked["subjects"][0]
    worn = ""
    if language == "zh" and "accessories" in subject and rng.random() < 0.5:  # 一只狐狸戴着帽子在雪地里站着
        subject = {key: value for key, value in subject.items() if key != "accessories"}
        worn = wearing_phrase(asked["subjects"][0]["accessories"], language, rng)
    who, where = noun_phrase(subject, language, rng) + worn, place_phrase(asked, language, rng)
    group = next((group for group, kinds in DOERS.items() if subject["kind"] in kinds), "body")
    doing = speaker.pick("requests", "doing", group)
    rest = {part: value for part, value in asked.items() if part != "background"}
    who = f"{who} {doing} {where}" if language == "en" else f"{who}在{where}{doing}"
    return describe(rest, language, rng, who)


def _of_many(asked: Partial, speaker: Speaker) -> str:
    """ "I love cats. Draw me a black one in the snow."; "" where nothing tells the one from the others."""
    language, rng, subject = speaker.language, speaker.rng, asked["subjects"][0]
    if "colour" not in subject or subject["kind"] == "girl":
        return ""
    noun, colour = name(subject["kind"], language, rng, "kind"), name(subject["colour"], language, rng, "colour")
    size = name(subject["size"], language, rng, "size") if "size" in subject else ""
    worn = wearing_phrase(subject.get("accessories", ()), language, rng)
    if language == "zh":
        one = f"一{MEASURES[subject['kind']]}{worn}{'的' if worn else ''}{colour}{size}的"
    else:
        one = " ".join(word for word in (with_article("a", f"{size} {colour} one".strip()), worn) if word)
    many = noun if language == "zh" else plural(noun)
    frame = speaker.pick("requests", "of_many")
    return frame.format(many=many, a=describe(asked, language, rng, one))


def _of_ones_own(subject: Partial, speaker: Speaker) -> str:
    """ "My cat is called Max. He's black. He always wears a hat. Could you draw him?" """
    language, rng = speaker.language, speaker.rng
    kind, accessories = subject["kind"], subject.get("accessories", ())
    girl = kind == "girl"
    if language == "zh":
        he = him = "她" if girl else "它"
    else:
        he, him = ("she", "her") if girl else rng.choice((("he", "him"), ("she", "her"), ("it", "it")))
    words = {"noun": name(kind, language, rng, "kind"), "m": MEASURES[kind], "he": he, "him": him}
    words["pet"] = speaker.pick("requests", "named", "pets")
    looks = [name(subject[part], language, rng, part) for part in ("size", "colour") if part in subject]
    if girl and "colour" in subject:  # her dress's
        looks[-1] = f"in {looks[-1]}" if language == "en" else f"穿{looks[-1]}衣服"
    asks_first = rng.random() < 0.4
    sentences = [speaker.pick("requests", "named", "first" if asks_first else "intro").format(**words)]
    if looks:
        sentences.append(
            f"{he.title()}'s {' and '.join(looks)}." if language == "en" else f"{he}是{''.join(looks)}的。"
        )
    for accessory in accessories:
        wears = wear_phrase(accessory, language, rng)
        if language == "en":
            verb, _, thing = wears.partition(" ")
            sentences.append(f"{he.title()} {rng.choice(('always ', '', 'often '))}{verb}s {thing}.")
        else:
            sentences.append(f"{he}{rng.choice(('总是', '', '平时'))}{wears}。")
    if not asks_first:
        sentences.append(speaker.pick("requests", "named", "ask").format(**words))
    return (" " if language == "en" else "").join(sentences)


def _together(subjects: Sequence[Partial], speaker: Speaker) -> str:
    """ "a fox and a rabbit side by side", 手拉手的一只狐狸和一只兔子; "" mostly, and where they stand at places."""
    apart = len(subjects) < 2 or any("position" in subject for subject in subjects)
    if apart or speaker.rng.random() >= TOGETHER_SHARE:
        return ""
    both = describe_subjects(subjects, speaker.language, speaker.rng)
    return speaker.pick("requests", "together").format(both=both)


def add_flavour(thing: Partial, speaker: Speaker, group: str = "") -> None:
    """Now and then calls a thing something that no picture shows: "a cute cat", "a tiny hat", "in a magical forest".

    group: of the bank's words; that of the thing's kind where it is not named."""
    share = FLAVOUR_SHARE / 2 if group else FLAVOUR_SHARE
    if speaker.rng.random() >= share:
        return
    if not group:
        group = FLAVOURS[thing["kind"]]
        group = "activity" if group in ("creature", "person") and speaker.rng.random() < 0.3 else group
    thing["flavour"] = speaker.pick("requests", "flavour", group)


def _add_flavours(asked: Partial, speaker: Speaker) -> None:
    for subject in asked["subjects"]:
        add_flavour(subject, speaker)
        for accessory in subject.get("accessories", ()):
            add_flavour(accessory, speaker, "worn")
    add_flavour(asked, speaker, "place")


def fill_frame(speaker: Speaker, path: str, phrase_text: str, plain: bool = True, last: bool = False) -> str:
    """A frame of the requests' bank around a phrase ("a red fox in the snow"), which must not sound broken.

    Where it is not `plain` from the context that a new picture is meant, the frame says so. A phrase of many pieces
    stands well only at the end of its frame (`last`), as a Chinese one with commas does."""
    last = last or (speaker.language == "zh" and "，" in phrase_text)

    def fits(frame: str) -> bool:
        ends = frame.rstrip("。.！!？?").endswith("{a}") and frame.count("{a}") == 1
        return (not last or ends or frame == "{n}") and (
            plain or path == "draw_next" or bool(_DRAWING_WORD.search(frame))
        )

    frame = speaker.pick("requests", path, fits=fits)
    return frame.replace("{a}", phrase_text).replace("{n}", without_article(phrase_text, speaker.language))


def without_article(text: str, language: str) -> str:
    """ "red fox" for "a red fox", 红色狐狸 for 一只红色狐狸 (where it begins with its number)."""
    if language == "en":
        return next((text[len(article) :] for article in ("a ", "an ") if text.startswith(article)), text)
    return text[2:] if text[:1] == "一" and text[1:2] in MEASURES.values() else text.replace("的一只", "的", 1)


def _twins(subjects: Sequence[Partial], language: str, rng: random.Random) -> str:
    """ "two rabbits, one brown and one white wearing a hat" / "两只兔子，一只棕色的，一只戴着帽子的白色的"; "" where
    they are not of one kind, or are told apart by more than their colours and what they wear."""
    kind, said = subjects[0]["kind"], set().union(*subjects)
    alike = len(subjects) == 2 and subjects[1]["kind"] == kind and said <= {"kind", "colour", "accessories"}
    if not alike or ("accessories" in said and "colour" not in said):
        return ""
    noun = name(kind, language, rng, "kind")
    measure = MEASURES[kind]
    pair = (
        f"两{measure}{noun}" if language == "zh" else f"{rng.choice(('two', 'two', 'a pair of', '2'))} {plural(noun)}"
    )
    if "colour" not in said:
        return pair
    if not all("colour" in subject for subject in subjects):
        return ""
    colours = [name(subject["colour"], language, rng, "colour") for subject in subjects]
    worn = [wearing_phrase(subject.get("accessories", ()), language) for subject in subjects]
    if language == "zh":
        of = "穿{}衣服的" if kind == "girl" else "{}的"
        ones = [f"一{measure}{w}{'的' if w else ''}{of.format(c)}" for c, w in zip(colours, worn, strict=True)]
        forms = [f"{pair}，{rng.choice('，、').join(ones)}"]
        if not any(worn) and kind != "girl":
            forms += [
                f"一{measure}{colours[0]}一{measure}{colours[1]}的{pair}",
                f"{pair}，{colours[0]}的和{colours[1]}的",
            ]
            if all(len(colour) == 2 for colour in colours):
                forms += [f"{pair}，一{colours[0][0]}一{colours[1][0]}", f"一{colours[0][0]}一{colours[1][0]}{pair}"]
        return rng.choice(forms)
    first, second = (f"{c} {w}".strip() for c, w in zip(colours, worn, strict=True))
    if kind == "girl":
        return f"{pair}, one in {first} and one in {second}"
    forms = [f"{pair}, {one.format(first, second)}" for one in _ONES]
    if not any(worn):
        forms += [f"{pair}, {with_article('a', first)} one and {with_article('a', second)} one"]
        forms += [
            f"{with_article('a', first)} {noun} and {with_article('a', second)} one",
            f"{pair}, {first} and {second}",
        ]
        forms += [f"{with_article('a', first)} and {with_article('a', second)} {noun}"]
    return rng.choice(forms)


def plural(noun: str) -> str:
    """ "bunnies", "snowmen", "fish"."""
    if noun.endswith("fish"):
        return noun
    if noun.endswith("man"):
        return f"{noun[:-3]}men"
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if re.search("[^aeiou]y$", noun) else f"{noun}s"


def _set_apart(asked: Partial, speaker: Speaker) -> tuple[Partial, list[str]]:
    """Some parts of the request may follow in sentences of their own: what stays, and those sentences."""
    rng = speaker.rng
    rest = copy.deepcopy(dict(asked))
    sentences = []
    for part, chance in (("style", 0.4), ("shot", 0.3), ("background", 0.15), ("sky", 0.25)):
        if part in rest and rng.random() < chance:
            value = rest.pop(part)
            sentences.append(speaker.pick("requests", "after", part).format_map(_spoken(part, value, speaker)))
    about = _about_it if len(rest["subjects"]) == 1 else _about_one
    sentences = about(rest["subjects"], speaker) + sentences
    if rng.random() < TAIL_SHARE:
        sentences.append(speaker.pick("requests", "after", "tail"))
    return rest, sentences


def _about_it(subjects: Sequence[Partial], speaker: Speaker) -> list[str]:
    """Sentences about the only subject, which they take from it: "It should be red." "Give it a hat." """
    [subject], rng, sentences = subjects, speaker.rng, []
    girl = subject["kind"] == "girl"  # a "she", whose colour is her dress's
    if "colour" in subject and not girl and rng.random() < 0.06:
        colour = name(subject.pop("colour"), speaker.language, rng, "colour")
        sentences.append(speaker.pick("requests", "after", "colour").format(colour=colour))
    if "accessories" in subject and rng.random() < 0.12:  # "…, wearing a hat" / ……，戴着帽子
        sentences.insert(0, wearing_phrase(subject.pop("accessories"), speaker.language, rng))
    elif len(subject.get("accessories", ())) == 1 and not girl and rng.random() < 0.2:
        frame = speaker.pick("requests", "after", "accessories")
        sentences.append(frame.format(**_worn(subject, speaker)))
    return sentences


def _about_one(subjects: Sequence[Partial], speaker: Speaker) -> list[str]:
    """Sentences about one of two kinds each, which they take from it: "The fox has a blue scarf." """
    rng, sentences = speaker.rng, []
    if subjects[0]["kind"] == subjects[1]["kind"]:
        return []
    for subject in subjects:
        noun = name(subject["kind"], speaker.language, rng, "kind")
        if "colour" in subject and subject["kind"] != "girl" and rng.random() < 0.08:
            colour = name(subject.pop("colour"), speaker.language, rng, "colour")
            sentences.append(speaker.pick("requests", "after", "colour_of").format(noun=noun, colour=colour))
        if len(subject.get("accessories", ())) == 1 and rng.random() < 0.2:
            frame = speaker.pick("requests", "after", "accessories_of")
            sentences.append(frame.format(noun=noun, **_worn(subject, speaker)))
    return sentences


def _worn(subject: Partial, speaker: Speaker) -> dict[str, str]:
    """The one thing that a subject wears or holds, which is taken from it, as a thing and as what it does."""
    [accessory] = subject.pop("accessories")
    return {
        "acc": accessory_phrase(accessory, speaker.language, speaker.rng),
        "wear": wear_phrase(accessory, speaker.language, speaker.rng),
    }


def _spoken(part: str, value: str, speaker: Speaker) -> dict[str, str]:
    language, rng = speaker.language, speaker.rng
    if part in ("background", "sky"):
        return {"where" if part == "background" else "when": phrase(part, value, language, rng)}
    return {part: name(value, language, rng, part)}


def wear_phrase(accessory: Mapping[str, Any], language: str, rng: random.Random) -> str:
    """ "wear a blue hat", "hold a red balloon" / 戴上一顶蓝色帽子、戴着一顶蓝色帽子."""
    held = accessory["kind"] in HELD
    if language == "en":
        return ("hold " if held else "wear ") + accessory_phrase(accessory, language, rng)
    verbs = {"scarf": ("围上", "戴上", "围着"), "balloon": ("拿着", "拿上"), "umbrella": ("打着", "撑着", "撑上")}
    verb, text = rng.choice(verbs.get(accessory["kind"], ("戴上", "戴着"))), accessory_phrase(accessory, language, rng)
    if rng.random() < 0.25:  # 戴顶蓝色帽子, 戴个眼镜
        measure = rng.choice((text[1], "个"))
        return verb[:1] + measure + text[2:]
    return verb + text


def keywords(asked: Partial, speaker: Speaker) -> str:
    """The request as bare words: "red fox snow night"."""
    rng, language = speaker.rng, speaker.language
    subject = {key: value for key, value in asked["subjects"][0].items() if key != "position"}
    words = [noun_phrase(subject, language, rng, article="")]
    words += [
        name(asked[part], language, rng, part) for part in ("background", "sky", "style", "shot") if part in asked
    ]
    if "position" in asked["subjects"][0]:
        words.append(name(asked["subjects"][0]["position"], language, rng, "position"))
    tail = words[1:]
    rng.shuffle(tail)
    return rng.choice((" ", ", ") if language == "en" else (" ", "，", "、")).join([words[0], *tail])
