"""Talk about pictures: questions, descriptions, comparisons of two.

python -c "
import random; from datasets_build.banks import Speaker; from datasets_build.looking import look
from datasets_build.storybook.scene import sample_scene
rng = random.Random(4); print(look(Speaker('en', 'train', rng), sample_scene(rng)))"
"""

from __future__ import annotations

import re

from datasets_build.banks import Speaker, bank
from datasets_build.records import Exchange
from datasets_build.revisits import name_picture
from datasets_build.storybook.language import describe, partial
from datasets_build.storybook.questions import ask
from datasets_build.storybook.scene import Scene
from datasets_build.storybook.vocabulary import name
from datasets_build.surface import finished, roughen, sentence
from datasets_build.table import Table

_YES_OR_NO = re.compile(r"^(Is|Do|Does|Have|Look|are) |吗|不？|是否")
PARTS = ("background", "sky", "style")


def look(speaker: Speaker, scene: Scene, uploaded: bool = False) -> Exchange:
    """A question about a picture, or the wish to have it described."""
    language, rng = speaker.language, speaker.rng
    if rng.random() < 0.25:
        user, reply = speaker.pick("looking", "describe"), description(scene, language)
        accept = [name(subject.kind, language, attribute="kind") for subject in scene.subjects]
    else:
        user, reply, accept = ask(scene, language, rng, speaker.split)
        if uploaded and rng.random() < 0.3:
            space = " " if language == "en" else ""
            user = speaker.pick("looking", "here") + space + user
    request = {"op": "answer", "accept": accept}
    user = roughen(user, language, rng)
    return Exchange(user, reply, "ti2t", request, uploads=(scene,) if uploaded else (), opens=uploaded)


def look_back(speaker: Speaker, table: Table) -> Exchange:
    """A question about an earlier picture of the dialogue."""
    language, rng = speaker.language, speaker.rng
    which, drawing = name_picture(speaker, table)
    question, reply, accept = ask(drawing.scene, language, rng, speaker.split)
    frame = speaker.pick("revisits", "question")
    last = frame.endswith("{question}")
    text = frame.format(which=which, question=question if last else finished(question, language))
    text = sentence(text) if language == "en" else text
    request = {"op": "answer", "accept": accept, "base_turn": drawing.turn, "form": "earlier"}
    return Exchange(roughen(text, language, rng), reply, "ti2t", request)


def description(scene: Scene, language: str) -> str:
    """The whole picture in a sentence."""
    return bank("looking", language)["say"]["describe"].format(text=describe(partial(scene), language))


def compare_part(speaker: Speaker, first: Scene, second: Scene) -> Exchange:
    """Whether two pictures agree in their background, sky or style."""
    language, rng = speaker.language, speaker.rng
    words, part = bank("looking", language), rng.choice(PARTS)
    the_part, part_name = words["part"][part]
    question = speaker.pick("looking", "same")
    user = question.format(part=the_part, name=part_name)
    one, two = (name(getattr(scene, part), language, attribute=part) for scene in (first, second))
    key = ("both_same" if one == two else "not_same") if _YES_OR_NO.search(question) else "first_second"
    reply = words["say"][key].format(one=one, two=two)
    return _two(speaker, user, reply, (first, second), [two.lower()])


def tell_difference(speaker: Speaker, first: Scene, second: Scene) -> Exchange:
    """What an edit changed, told by describing both pictures' differing words."""
    language = speaker.language
    user = speaker.pick("looking", "differ")
    old, new = (_short_parts(scene, language) for scene in (first, second))
    before, after = next((a, b) for a, b in zip(old, new, strict=True) if a != b)
    reply = bank("looking", language)["say"]["first_second"].format(one=before, two=after)
    return _two(speaker, user, reply, (first, second), [after.lower()])


def _short_parts(scene: Scene, language: str) -> list[str]:
    parts = [name(getattr(scene, part), language, attribute=part) for part in (*PARTS, "shot")]
    return [describe({"subjects": partial(scene)["subjects"]}, language), *parts]


def _two(speaker: Speaker, user: str, reply: str, scenes: tuple[Scene, Scene], accept: list[str]) -> Exchange:
    user = roughen(user, speaker.language, speaker.rng)
    return Exchange(user, reply, "ti2t", {"op": "answer", "accept": accept}, uploads=scenes, opens=True)
