"""Requests as they are spoken or jotted down: what it is first, and everything about it behind, one thing at a time.

python -c "
import random; from datasets_build.banks import Speaker; from datasets_build.spoken import spoken
asked = {'subjects': [{'kind': 'dog', 'colour': 'black', 'size': 'big'}], 'background': 'forest'}
print(spoken(asked, Speaker('en', 'train', random.Random(2))))"

Written sentences put adjectives before their noun: "a big black dog in the forest". People who speak, or who type as
they think, say "there's a dog and it's big and the dog is black", "dog, black, big. forest." or 黑狗一只，要大的.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from datasets_build.banks import Speaker
from datasets_build.storybook.language import Partial, accessory_phrase, noun_phrase, wearing_phrase
from datasets_build.storybook.vocabulary import MEASURES, name, phrase

MANNERS = {"run_on": 0.35, "behind": 0.4, "notes": 0.25}
BEHIND_SHARE = 0.65  # of a subject's colours and sizes stand behind it, the others before
WHOLE = ("background", "sky", "style", "shot")


def spoken(asked: Partial, speaker: Speaker, inside: bool = False, instead: str = "") -> str:
    """All that is `asked`, in one of these manners.

    inside: a frame, which begins it. instead: what the only subject is called ("a dragon", 一条龙), where the world
    has none."""
    [manner] = speaker.rng.choices(list(MANNERS), list(MANNERS.values()))
    subjects = asked["subjects"]
    kinds = {subject["kind"] for subject in subjects}
    clauses: list[str] = []
    if len(subjects) > 1 and len(kinds) < len(subjects):
        manner = "behind"  # nobody could tell which of the two is "the dog"
    listed = len(subjects) > 1 and speaker.rng.random() < 0.3
    orders = speaker.pick("requests", "spoken", "orders").split("|") if listed else ["", ""]
    for order, subject in zip(orders, subjects, strict=False):
        said = _about(subject, manner, speaker, alone=len(subjects) == 1)
        if instead:
            said[0] = _first(instead, manner, speaker.language)
        clauses += [order + said[0], *said[1:]]
    whole = [part for part in WHOLE if part in asked]
    speaker.rng.shuffle(whole)
    clauses += [_of_whole(part, asked[part], manner, speaker) for part in whole]
    joints = speaker.pick("requests", "spoken", f"{manner}_joint").split("|")
    lead = speaker.pick("requests", "spoken", "lead") if manner == "run_on" and not inside else "{}"
    text = lead.format(clauses[0])
    for clause in clauses[1:]:
        text += speaker.rng.choice(joints) + clause
    return text


def _about(subject: Partial, manner: str, speaker: Speaker, alone: bool) -> list[str]:
    """What it is, and then each thing that is said behind it."""
    rng, language = speaker.rng, speaker.language
    head, girl, behind = dict(subject), subject["kind"] == "girl", []
    position, worn = head.pop("position", ""), head.pop("accessories", [])
    for part in ("size", "colour"):
        value = head.get(part, "normal")
        if value == "normal" or (manner != "notes" and rng.random() >= BEHIND_SHARE):
            continue
        del head[part]
        clause = f"size_{value}" if part == "size" else "dress" if girl else "colour"  # hers is her dress's
        behind.append((clause, name(value, language, rng, part)))
    rng.shuffle(behind)
    article = f"一{MEASURES[subject['kind']]}" if language == "zh" else "a"
    first = _first(noun_phrase(head, language, rng, article=article), manner, language)
    noun = name(subject["kind"], language)
    it = _it(subject["kind"], language) if alone or rng.random() < 0.5 else f"the {noun}" if language == "en" else noun
    clauses = [_clause(clause, manner, speaker).format(it=it, x=word) for clause, word in behind]
    clauses += _worn_clauses(worn, it, manner, speaker)
    if position:
        place = name(position, language, rng, "position")
        clauses.append(_clause("position", manner, speaker).format(it=it, x=place))
    return [first, *clauses]


def _first(noun: str, manner: str, language: str) -> str:
    """Of "a dog" and 一只狗: 狗一只 where all stands behind; "dog" and 狗 in notes."""
    if language == "zh":
        number, bare = (noun[:2], noun[2:]) if noun.startswith("一") else ("", noun)
        return {"run_on": noun, "behind": bare + number, "notes": bare}[manner]
    return re.sub(r"^an? ", "", noun) if manner == "notes" else noun


def _worn_clauses(worn: Sequence[Partial], it: str, manner: str, speaker: Speaker) -> list[str]:
    rng, language = speaker.rng, speaker.language
    if worn and rng.random() < 0.5:  # "it's wearing a hat and holding a balloon"
        return [_clause("wearing", manner, speaker).format(it=it, x=wearing_phrase(worn, language, rng))]
    article = "" if manner == "notes" and language == "en" else "a"
    things = [accessory_phrase(accessory, language, rng, article) for accessory in worn]
    return [_clause("has", manner, speaker).format(it=it, x=thing) for thing in things]


def _of_whole(part: str, value: str, manner: str, speaker: Speaker) -> str:
    """ "it's at night", "background: forest"."""
    language, rng = speaker.language, speaker.rng
    frame = _clause(part, manner, speaker)
    where = phrase(part, value, language, rng) if part in ("background", "sky") else ""
    return frame.format(x=name(value, language, rng, part), where=where)


def _clause(part: str, manner: str, speaker: Speaker) -> str:
    return speaker.pick("requests", "spoken", manner, part)


def _it(kind: str, language: str) -> str:
    if language == "zh":
        return "她" if kind == "girl" else "它"
    return "she" if kind == "girl" else "it"
