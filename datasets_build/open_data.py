"""D_o: open data that keep the model able to talk, to look, and to copy and change words. It never draws.

    easel data o --out data --n 100 --seed 1 --split train

The exercises on descriptions teach, in text alone, what refined prompts need: copying a long text and changing one
word of it.
"""

from __future__ import annotations

import random

from datasets_build import looking, refusals, talk
from datasets_build.banks import Speaker
from datasets_build.changes import edit_text
from datasets_build.records import Dialogue, Exchange, NoSample
from datasets_build.requests import SEARCH, asked_of_split, keywords
from datasets_build.storybook.edits import apply_edit, sample_edit
from datasets_build.storybook.language import N_TEMPLATES, describe, write_prompt
from datasets_build.storybook.questions import ask
from datasets_build.storybook.scene import Scene, sample_scene, sample_seen
from datasets_build.storybook.vocabulary import name
from datasets_build.surface import roughen
from datasets_build.topics import TOPICS


def build(language: str, split: str, rng: random.Random) -> Dialogue:
    speaker = Speaker(language, split, rng)
    makers = (
        (_small_talk, 14), (_about, 12), (_refuse, 4), (_look, 40), (_describe_several, 6), (_compare, 8),
        (_rewrite, 18), (_copy, 3), (_expand, 2), (_ask_text, 5), (_translate, 2),
    )  # fmt: skip
    maker = rng.choices([maker for maker, _ in makers], [weight for _, weight in makers])[0]
    return Dialogue(language, tuple(maker(speaker)), tuple(speaker.used))


def _small_talk(speaker: Speaker) -> list[Exchange]:
    talks = [talk.small_talk(speaker) for _ in range(speaker.rng.choice((1, 1, 2, 3)))]
    return _distinct(talks)


def _about(speaker: Speaker) -> list[Exchange]:
    return _distinct([talk.about_things(speaker) for _ in range(speaker.rng.choice((1, 1, 2)))])


def _refuse(speaker: Speaker) -> list[Exchange]:
    return [refusals.refuse(speaker)]


def _distinct(exchanges: list[Exchange]) -> list[Exchange]:
    if len({exchange.user for exchange in exchanges}) < len(exchanges):
        raise NoSample
    return exchanges


def _look(speaker: Speaker) -> list[Exchange]:
    """One picture and up to seven questions about it: each costs a dozen tokens, and the picture's are paid once."""
    scene = sample_seen(speaker.rng, speaker.split)
    exchanges = [looking.look(speaker, scene, uploaded=True)]
    exchanges += [looking.look(speaker, scene) for _ in range(speaker.rng.choice((0, 1, 2, 4, 6)))]
    return _distinct(exchanges)


def _describe_several(speaker: Speaker) -> list[Exchange]:
    """A picture after another, each described."""
    exchanges = []
    for _ in range(speaker.rng.choice((1, 2, 3))):
        scene = sample_seen(speaker.rng, speaker.split)
        user = roughen(speaker.pick("looking", "describe"), speaker.language, speaker.rng)
        accept = [name(subject.kind, speaker.language, attribute="kind") for subject in scene.subjects]
        exchanges.append(
            Exchange(
                user,
                looking.description(scene, speaker.language),
                "ti2t",
                {"op": "answer", "accept": accept},
                uploads=(scene,),
                opens=True,
            )
        )
    return exchanges


def _compare(speaker: Speaker) -> list[Exchange]:
    if speaker.rng.random() < 0.5:
        first, second = _edited_pair(speaker)[:2]
        return [looking.tell_difference(speaker, first, second)]
    first, second = (sample_seen(speaker.rng, speaker.split) for _ in range(2))
    return [looking.compare_part(speaker, first, second)]


def _edited_pair(speaker: Speaker) -> tuple[Scene, Scene, str]:
    """A scene, the same after an edit, and the words that ask for it; both scenes of the speaker's split."""
    for _ in range(SEARCH):
        scene = sample_scene(speaker.rng, speaker.split)
        edit = sample_edit(scene, speaker.rng)
        edited = apply_edit(scene, edit)
        if edited.split == speaker.split:
            return scene, edited, edit_text(scene, edit, speaker)
    raise NoSample


def _text_exchange(speaker: Speaker, path: str, reply: str, **slots: str) -> list[Exchange]:
    frame = speaker.pick("looking", path)
    for slot, text in slots.items():
        frame = frame.replace(f"{{{slot}}}", text)
    return [Exchange(frame, reply, "t2t", {"op": "write"}, opens=True)]


def _rewrite(speaker: Speaker) -> list[Exchange]:
    scene, edited, change = _edited_pair(speaker)
    template = speaker.rng.randrange(N_TEMPLATES) if speaker.rng.random() < 0.4 else 0
    written = speaker.language if speaker.rng.random() < 0.85 else {"en": "zh", "zh": "en"}[speaker.language]
    old, new = write_prompt(scene, written, template), write_prompt(edited, written, template)
    return _text_exchange(speaker, "rewrite", new, text=old, change=change)


def _copy(speaker: Speaker) -> list[Exchange]:
    scene = sample_scene(speaker.rng, speaker.split)
    text = write_prompt(scene, speaker.language, speaker.rng.randrange(N_TEMPLATES))
    return _text_exchange(speaker, "copy", text, text=text)


def _expand(speaker: Speaker) -> list[Exchange]:
    rng = speaker.rng
    asked, scene = asked_of_split(rng, rng.choice(TOPICS), speaker.split)
    plain = len(asked["subjects"]) == 1 and rng.random() < 0.4
    words = keywords(asked, speaker) if plain else describe(asked, speaker.language, rng)
    return _text_exchange(speaker, "expand", write_prompt(scene, speaker.language, 0), words=words)


def _ask_text(speaker: Speaker) -> list[Exchange]:
    scene = sample_scene(speaker.rng, speaker.split)
    question, answer, accept = ask(scene, speaker.language, speaker.rng, speaker.split)
    text = write_prompt(scene, speaker.language, speaker.rng.randrange(N_TEMPLATES))
    exchange = _text_exchange(speaker, "ask_text", answer, text=text, question=question)[0]
    return [Exchange(exchange.user, answer, "t2t", {"op": "answer", "accept": accept}, opens=True)]


def _translate(speaker: Speaker) -> list[Exchange]:
    scene = sample_scene(speaker.rng, speaker.split)
    template = speaker.rng.choice((0, 0, 1, 2))
    other = {"en": "zh", "zh": "en"}[speaker.language]
    text = write_prompt(scene, speaker.language, template)
    return _text_exchange(speaker, "translate", write_prompt(scene, other, template), text=text)
