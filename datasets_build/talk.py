"""Talk that draws nothing: small talk and help, art and animals, and all that mentions drawing without asking for it.

python -c "
import random; from datasets_build.banks import Speaker; from datasets_build.talk import small_talk
print(small_talk(Speaker('en', 'train', random.Random(4))))"
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datasets_build.banks import Speaker, bank, examples
from datasets_build.records import Exchange
from datasets_build.storybook.language import noun_phrase
from datasets_build.storybook.scene import COLOURS, KINDS, NATURAL
from datasets_build.storybook.vocabulary import name, phrase
from datasets_build.surface import roughen, sentence


def small_talk(speaker: Speaker) -> Exchange:
    """Any of the question-and-answer pairs that need no picture."""
    return _pair(speaker, lambda when: when != ["picture"])


def praise(speaker: Speaker) -> Exchange:
    """Thanks, praise or another remark after a picture."""
    return _pair(speaker, lambda when: "picture" in when)


def greeting(speaker: Speaker) -> Exchange:
    return _pair(speaker, lambda when: "greeting" in when)


def farewell(speaker: Speaker) -> Exchange:
    return _pair(speaker, lambda when: "farewell" in when)


def small_talk_pairs(language: str) -> list[dict[str, Any]]:
    """Both banks' questions with their answers."""
    return [*bank("talk", language)["pair"], *bank("chat", language)["pair"]]


def _pair(speaker: Speaker, fits: Callable[[list[str]], bool]) -> Exchange:
    language, rng = speaker.language, speaker.rng
    pairs = [pair for pair in small_talk_pairs(language) if fits(pair.get("when", []))]
    pair = rng.choices(pairs, [len(pair["ask"]) for pair in pairs])[0]
    user = speaker.pick_from(pair["ask"], "talk")
    reply = sentence(rng.choice(pair["say"]).format_map(examples(language, rng)))
    return Exchange(roughen(user, language, rng), reply, "t2t", opens=not pair.get("reacts"))


def about_things(speaker: Speaker) -> Exchange:
    """Talk about foxes, or about drawing them, that is no request for a picture."""
    language, rng = speaker.language, speaker.rng
    words, kind = bank("about", language), rng.choice(KINDS)
    talk = rng.choices(words["talk"], [len(talk["ask"]) for talk in words["talk"]])[0]
    colour = {"colour": rng.choice(COLOURS)} if rng.random() < 0.4 else {}
    noun = name(kind, language, rng, "kind")
    many = _plural(kind, noun) if language == "en" else noun
    free = talk["reply"] not in ("colour", "place")  # nobody asks what colour a blue house has
    bare = noun_phrase({"kind": kind}, language, rng)
    values = {
        "a": _with_detail(noun_phrase({"kind": kind} | colour, language, rng), speaker) if free else bare,
        "kind": noun,
        "many": many,
        "Many": many[:1].upper() + many[1:],
        "colour": name(NATURAL[kind][0], language, attribute="colour"),
        "where": phrase("background", NATURAL[kind][1], language),
    }
    user = speaker.pick_from(talk["ask"], f"about.{talk['reply']}").format_map(values)
    own = words[talk["reply"]][kind] if talk["reply"] in words else rng.choice(words["say"][talk["reply"]])
    reply = own.format_map(values | {"a": noun_phrase({"kind": kind}, language)})
    user = roughen(sentence(user) if language == "en" else user, language, rng)
    return Exchange(user, reply, "t2t", opens=True)


def _with_detail(text: str, speaker: Speaker) -> str:
    """At times a place, as in a request: "I saw a fox in the snow" still asks for nothing."""
    if speaker.language == "en" and speaker.rng.random() < 0.25:
        background = speaker.rng.choice(("meadow", "beach", "snow", "forest", "city"))
        return f"{text} {phrase('background', background, 'en', speaker.rng)}"
    return text


def _plural(kind: str, noun: str) -> str:
    irregular = bank("about", "en")["many"]
    if noun == kind and kind in irregular:
        return irregular[kind]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("x", "s")) else "" if noun.endswith("fish") else "s")
