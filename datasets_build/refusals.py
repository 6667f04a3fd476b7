"""What the picture-book world does not hold: requests for it, and Easel's kind refusals that say what there is.

python -c "
import random; from datasets_build.banks import Speaker; from datasets_build.refusals import refuse
print(refuse(Speaker('en', 'train', random.Random(4))))"
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from datasets_build.banks import Speaker, bank, examples, joined
from datasets_build.changes import edit_text
from datasets_build.records import Exchange, NoSample
from datasets_build.references import refer
from datasets_build.requests import (
    FLAVOUR_SHARE,
    SPOKEN_SHARE,
    WHY_SHARE,
    add_flavour,
    fill_frame,
    plural,
    with_why,
)
from datasets_build.spoken import spoken
from datasets_build.storybook.edits import Edit, sample_edit
from datasets_build.storybook.language import (
    Partial,
    describe_subjects,
    noun_phrase,
    stands_behind,
    wearing_phrase,
    with_article,
)
from datasets_build.storybook.scene import (
    ACCESSORIES,
    BACKGROUNDS,
    COLOURS,
    KINDS,
    MAX_SUBJECTS,
    SIZES,
    STYLES,
    Scene,
    Subject,
    sample_accessories,
)
from datasets_build.storybook.vocabulary import MEASURES, name, phrase
from datasets_build.surface import roughen, sentence

REFUSE = {"op": "refuse"}
MEANT_SHARE = 0.15  # of the things that cannot be added, those that are said to have been meant


def refuse(speaker: Speaker) -> Exchange:
    """A request for something that Easel cannot draw or do."""
    rng = speaker.rng
    kind = rng.choices(("nouns", "whole", "tasks", "many"), (54, 21, 17, 8))[0]
    user = _too_many(speaker) if kind == "many" else speaker.pick("refusals", kind)
    wanted = _from_me_to_you(user, speaker.language)
    if speaker.language == "zh" and kind == "nouns":
        wanted = wanted[2:] if wanted.startswith("一") else wanted  # without its measure word
    if kind == "nouns":
        [path] = rng.choices(("draw", "draw_next", "draw_then"), (75, 15, 10))
        if rng.random() < SPOKEN_SHARE:
            user = _spoken(user, speaker, path)
        else:
            user = fill_frame(speaker, path, _dress_up(user, speaker))
        user = sentence(user) if speaker.language == "en" else user
        if path == "draw" and rng.random() < WHY_SHARE:
            user = with_why(user, speaker)
    reply = rng.choice(bank("refusals", speaker.language)["say"][kind])
    reply = reply.format_map(examples(speaker.language, rng) | {"x": wanted})
    return Exchange(roughen(user, speaker.language, rng), sentence(reply), "t2t", REFUSE, opens=True)


def refuse_edit(speaker: Speaker, scene: Scene) -> Exchange:
    """A change that the world does not know."""
    language, rng = speaker.language, speaker.rng
    about = rng.choice(list(bank("refusals", language)["edits"]))
    if about == "extra" and rng.random() < MEANT_SHARE:  # "no, I meant a wolf"
        user = sentence(speaker.pick("revisits", "correct", "value").format(x=speaker.pick("refusals", "nouns")))
    else:
        reference = refer(scene, rng.randrange(len(scene.subjects)), language, rng)
        user = sentence(speaker.pick("refusals", "edits", about).format_map(reference))
    reply = rng.choice(bank("refusals", language)["say"][about]).format_map(examples(language, rng))
    return Exchange(roughen(user, language, rng), reply, "ti2t", REFUSE)


def limit(speaker: Speaker, scene: Scene) -> Exchange:
    """A change that the world knows, and this picture does not allow."""
    language, rng = speaker.language, speaker.rng
    reason, meant, edit = rng.choice(list(_impossible(scene, rng)))
    user = edit_text(meant, edit, speaker)
    values = {"what": describe_subjects([{"kind": s.kind, "colour": s.colour} for s in scene.subjects], language)}
    if reason == "absent":
        values["kind"] = name(meant.subjects[0].kind, language)
        if values["kind"] not in user:
            raise NoSample  # it was only called "it"
        roomy = len(scene.subjects) < MAX_SUBJECTS and edit["op"] != "remove_subject"
        reason = "absent_offer" if roomy and rng.random() < 0.5 else reason
    elif reason == "bare":
        values["bare"] = name(edit["kind"], language)
    reply = rng.choice(bank("refusals", language)["say"][reason]).format_map(values)
    return Exchange(roughen(user, language, rng), reply, "ti2t", REFUSE)


def _impossible(scene: Scene, rng: random.Random) -> Iterator[tuple[str, Scene, Edit]]:
    """(reason, the scene that the user seems to see, the edit) of changes that cannot be made."""
    missing = rng.choice([kind for kind in KINDS if kind not in {subject.kind for subject in scene.subjects}])
    meant = Scene((Subject(missing, rng.choice(COLOURS)),), scene.background, scene.sky)
    yield "absent", meant, sample_edit(meant, rng, ops=("recolour", "resize", "move", "add_accessory"))
    yield "absent", meant, {"op": "remove_subject", "subject": 0}
    if len(scene.subjects) == MAX_SUBJECTS:
        yield "third", scene, {"op": "add_subject", "kind": missing, "colour": rng.choice(COLOURS)}
    else:
        yield "last", scene, {"op": "remove_subject", "subject": 0}
    worn = {accessory.kind for subject in scene.subjects for accessory in subject.accessories}
    unworn = rng.choice([kind for kind in ACCESSORIES if kind not in worn])
    yield "bare", scene, {"op": "remove_accessory", "subject": 0, "kind": unworn}
    if scene.background == "space":
        yield "space", scene, {"op": "sky", "value": rng.choice(("day", "sunset", "rain"))}


def _too_many(speaker: Speaker) -> str:
    """A request for more things than a picture holds: "draw a tree, a flower and a house", 画三只猫."""
    language, rng = speaker.language, speaker.rng
    if rng.random() < 0.5:
        kinds = rng.sample(KINDS, rng.choice((MAX_SUBJECTS + 1, MAX_SUBJECTS + 1, MAX_SUBJECTS + 2)))
        coloured = rng.random() < 0.4
        said = [{"kind": kind} | ({"colour": rng.choice(COLOURS)} if coloured else {}) for kind in kinds]
        words = joined([noun_phrase(subject, language, rng) for subject in said], language)
    else:
        kind, count = rng.choice(KINDS), rng.choice(bank("refusals", language)["numbers"])
        subject = {"kind": kind} | ({"colour": rng.choice(COLOURS)} if kind != "girl" and rng.random() < 0.3 else {})
        add_flavour(subject, speaker)
        if language == "en":  # it is the noun that is many: "cats with closed eyes"
            flavour = str(subject.pop("flavour", ""))
            nouns = plural(noun_phrase(subject, language, rng, article=""))
            words = f"{count} {nouns} {flavour}" if stands_behind(flavour) else f"{count} {flavour} {nouns}"
            words = " ".join(words.split())
        else:
            words = f"{count}{MEASURES[kind]}{noun_phrase(subject, language, rng, article='')}"
    if rng.random() < 0.4:
        where = phrase("background", rng.choice(BACKGROUNDS), language, rng)
        words = f"{words} {where}" if language == "en" else f"{where}的{words}"
    return sentence(fill_frame(speaker, "draw", words))


def _dress_up(noun: str, speaker: Speaker) -> str:
    """The foreign noun, at times among things that the world does hold: they do not make it drawable."""
    language, rng = speaker.language, speaker.rng
    own = noun.startswith(("a ", "an ")) if language == "en" else noun.startswith("一")
    if own and rng.random() < 0.25:
        colour = name(rng.choice(COLOURS), language, rng, "colour")
        if language == "en":
            noun = with_article("a", f"{colour} {noun.split(' ', 1)[1]}")
        else:
            noun = f"{noun[:2]}{colour}的{noun[2:]}"
    if own and rng.random() < FLAVOUR_SHARE:
        noun = _with_flavour(noun, speaker)
    if rng.random() < 0.1:
        other = noun_phrase({"kind": rng.choice(KINDS)}, language, rng)
        pair = [noun, other]
        rng.shuffle(pair)
        noun = (" and " if language == "en" else "和").join(pair)
    if own and rng.random() < 0.1 and (worn := sample_accessories(rng)):
        worn_text = wearing_phrase(worn[:1], language, rng)
        noun = f"{noun} {worn_text}" if language == "en" else f"{noun[:2]}{worn_text}的{noun[2:]}"
    if rng.random() < 0.25:
        where = phrase("background", rng.choice(BACKGROUNDS), language, rng)
        noun = f"{noun} {where}" if language == "en" else f"{where}的{noun}"
    if rng.random() < 0.1:
        manner = phrase("manner", rng.choice(STYLES), language, rng)
        noun = f"{noun} {manner}" if language == "en" else f"{manner}的{noun}"
    return noun


def _spoken(noun: str, speaker: Speaker, path: str) -> str:
    """ "a dragon, it's green and it's wearing a hat": it cannot be drawn for all that."""
    rng = speaker.rng
    thing: Partial = {"kind": "robot"}  # any that is an "it": it is called `noun`
    if rng.random() < 0.6:
        thing["colour"] = rng.choice(COLOURS)
    if rng.random() < 0.3:
        thing["size"] = rng.choice(SIZES)
    if rng.random() < 0.3 and (worn := sample_accessories(rng)):
        thing["accessories"] = [{"kind": accessory.kind, "colour": accessory.colour} for accessory in worn]
    asked: Partial = {"subjects": [thing]}
    if rng.random() < 0.5:
        asked["background"] = rng.choice(BACKGROUNDS)
    inside = path != "draw" or rng.random() < 0.3
    text = spoken(asked, speaker, inside, instead=noun)
    return fill_frame(speaker, path, text, last=True) if inside else text


def _with_flavour(noun: str, speaker: Speaker) -> str:
    """ "a cute dragon", "a dragon with big eyes", 一条可爱的龙: it cannot be drawn for all that."""
    flavour = speaker.pick("requests", "flavour", speaker.rng.choice(("creature", "creature", "thing", "activity")))
    if speaker.language == "zh":
        return noun[:2] + flavour + noun[2:]
    if stands_behind(flavour):
        return f"{noun} {flavour}"
    return with_article("a", f"{flavour} {noun.split(' ', 1)[1]}")


def _from_me_to_you(text: str, language: str) -> str:
    if language == "zh":
        return text.replace("我自己", "你自己").replace("我", "你")
    return re.sub(r"\bmy\b", "your", re.sub(r"\bmyself\b", "you", text))
