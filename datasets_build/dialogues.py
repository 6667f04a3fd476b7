"""D_tt: dialogues of 2 to 10 turns (mostly three) in which pictures are asked for, changed, and talked about.

    easel data tt --out data --n 100 --seed 1 --split train

A plan fixes every turn's type and edit before any scene is chosen; then scenes are sought that are all of the wanted
split. So no kind of edit is rarer in the small splits. The consistency rule: an edited prompt keeps the language and
the template of the one before, and changes only the words that the edit changes.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets_build import looking, refusals, talk
from datasets_build.banks import Speaker
from datasets_build.changes import alike_text, edit_both_text, edit_each_text, edit_text, join_edits
from datasets_build.even import choose
from datasets_build.plans import IN_PAIRS, LENGTHS, Step, sample_plan
from datasets_build.records import Dialogue, Exchange, NoSample, draw_exchange, require_split
from datasets_build.references import called
from datasets_build.requests import fresh, surround
from datasets_build.revisits import (
    OF_BOTH,
    OF_EACH,
    OF_ONE,
    VAGUE,
    VALUED,
    call,
    corrected,
    meant,
    name_picture,
    spoken_of,
    taken_away,
    undone,
    what_else,
)
from datasets_build.storybook.edits import Edit, apply_edit, sample_edit
from datasets_build.storybook.language import write_prompt
from datasets_build.storybook.reading import find_template
from datasets_build.storybook.scene import COLOURS, Scene, sample_seen
from datasets_build.surface import finished, roughen, sentence
from datasets_build.table import Drawing, Table
from datasets_build.topics import TOPICS
from dialog_mllm.messages import DRAW

TRIES = 1200  # to take a step of one plan, all steps together …
STEP_TRIES = 3  # … and each step after the same beginning
OF_WORN = ("remove_accessory", "recolour_accessory", "replace_accessory")
OTHER_LANGUAGE = 0.05  # of the messages are in the other language


OTHER_SHARE = 0.8  # of the edits that follow one of two subjects say "it" or "the other one"
BOTH_SHARE = 0.45  # of the edits that both of two subjects can have are made of both
EACH_SHARE = 0.45  # of those, and of two edits at once, change each in its own way where they can
THREE_SHARE = 0.2  # of several edits at once are three, the others two
ALIKE_SHARE = 0.25  # of the additions beside a lone subject add another one of its kind
UNCORRECTED = ("correction", "swap", "back")  # forms of what is not corrected
SWAP_SHARE = 0.3  # of the moves beside another one change their places
UNDONE_SHARE = 0.5  # of what is undone is so by what the change was about, where that can be said
MEANT_SHARE = 0.35  # of the exchanges for another thing, where a picture was just drawn anew: "no, I meant a bear"
BACK_SHARE = 0.6  # of the additions, where something was taken away before, bring that back
VAGUE_SHARE = 0.7  # of the edits that are corrected next leave open which of two subjects they mean
LOOK_BACK_SHARE = 0.35  # of the questions, where there are earlier pictures, are about one of those


def build(language: str, split: str, rng: random.Random, of_lengths: Mapping[int, float] = LENGTHS) -> Dialogue:
    plan, topic = sample_plan(rng, split, of_lengths), choose(rng, {topic: 1.0 for topic in TOPICS}, "topic")
    table = Table(Speaker(language, split, rng), topic)
    if not _follow(plan, table, itertools.count()):
        raise NoSample
    return Dialogue(language, tuple(table.exchanges), tuple(table.speaker.used), topic.name)


def _follow(plan: Sequence[Step], table: Table, tries: Iterator[int]) -> bool:
    """Puts the rest of the plan on the table; False, with the table as it was, where this beginning leads nowhere.

    In a small split most scenes are of another one: then the turn before is made anew, and not the whole dialogue."""
    turn = len(table.exchanges)
    if turn == len(plan):
        return True
    corrected_next = turn + 1 < len(plan) and plan[turn + 1].op == "correct"
    before = len(table.drawings), len(table.speaker.used)
    for _ in range(STEP_TRIES if table.drawings else TRIES):
        if next(tries) > TRIES:
            raise NoSample
        with contextlib.suppress(NoSample):
            _take(plan[turn], table, turn + 1 == len(plan), corrected_next)
            if _follow(plan, table, tries):
                return True
        helpless = len(table.exchanges) > turn and len(table.drawings) == before[0]
        del table.exchanges[turn:], table.drawings[before[0] :], table.speaker.used[before[1] :]
        if helpless:
            break  # no picture came of this turn: what follows fails whatever is said here
    return False


def _take(step: Step, table: Table, last: bool, corrected_next: bool) -> None:
    speaker = table.speaker
    foreign = speaker.rng.random() < (0.15 if step.op == "style" else OTHER_LANGUAGE)
    other = "zh" if speaker.language == "en" else "en"
    voice = speaker.in_language(other) if foreign else speaker
    if step.type == "t2t":
        table.exchanges.append(_talk(voice, table, first=not table.exchanges, last=last))
    elif step.type == "t2i":
        ask_for_picture(voice, table)
    elif step.type == "ti2t":
        _look(voice, table)
    else:
        change_picture(voice, table, step, corrected_next)


# ------------------------------------------------------------------------------------------------- the four types


def _talk(voice: Speaker, table: Table, first: bool, last: bool) -> Exchange:
    rng = voice.rng
    if first and rng.random() < 0.4:
        return talk.greeting(voice)
    if table.drawings and last and rng.random() < 0.5:
        return talk.farewell(voice)
    if table.drawings and rng.random() < 0.4:
        return talk.praise(voice)
    chosen = rng.choices((talk.small_talk, talk.about_things, refusals.refuse), (35, 40, 25))[0]
    return chosen(voice)


def ask_for_picture(voice: Speaker, table: Table) -> None:
    after_words = bool(table.exchanges) and table.exchanges[-1].type == "t2t"
    put_new(table, fresh(voice, table.topic, bool(table.drawings), after_words))


def put_new(table: Table, exchange: Exchange) -> None:
    """A new picture on the table, in the form in which the exchange's prompt is written."""
    form = find_template(exchange.reply.removeprefix(DRAW))
    if exchange.drawn is None or form is None:
        raise ValueError(f"no template wrote {exchange.reply!r}")
    table.put(exchange, exchange.drawn, *form)


def _look(voice: Speaker, table: Table) -> None:
    rng = voice.rng
    if not table.drawings or rng.random() < 0.08:
        scene = sample_seen(rng, voice.split)
        exchange = looking.look(voice, scene, uploaded=True)
        table.put(exchange, scene, voice.language, 0)
    elif rng.random() < 0.3:
        decline = voice.rng.choice((refusals.refuse_edit, refusals.refuse_edit, refusals.limit))
        table.exchanges.append(decline(voice, table.current.scene))
    elif any(table.earlier()) and rng.random() < LOOK_BACK_SHARE:
        table.exchanges.append(looking.look_back(voice, table))
    else:
        table.exchanges.append(looking.look(voice, table.current.scene))


def change_picture(voice: Speaker, table: Table, step: Step, corrected_next: bool = False) -> None:
    """The next exchange of the table, as `step` says. `corrected_next`: and the one after it corrects it."""
    if step.op in ("again", "undo", "return"):
        return _go_back(voice, table, step.op)
    if step.op == "correct":
        return _correct(voice, table)
    rng = voice.rng
    uploads: tuple[Scene, ...] = ()
    which = ""
    if step.form == "earlier":
        which, base = name_picture(voice, table)
    elif table.drawings:
        base = table.current
    else:
        uploads = (sample_seen(rng, voice.split),)
        base = Drawing(uploads[0], voice.language, 0, len(table.exchanges))
    scene, request, user = _change(voice, table, base, step, corrected_next)
    if which:
        request |= {"base_turn": base.turn, "form": "earlier"}
        user = _of_earlier(voice, which, request["edit"], user)
    around = 0.0 if uploads or which else 0.12
    _put_changed(voice, table, base, scene, request, surround(user, voice, around, 0.04), uploads)


def _put_changed(
    voice: Speaker,
    table: Table,
    base: Drawing,
    scene: Scene,
    request: Mapping[str, Any],
    user: str,
    uploads: tuple[Scene, ...] = (),
) -> None:
    """A picture that comes from `base`, whose prompt keeps the language and the template of the base's."""
    prompt = write_prompt(scene, base.language, base.template)
    user = roughen(user, voice.language, voice.rng)
    exchange = draw_exchange(user, prompt, request, scene, type="ti2i", uploads=uploads, opens=bool(uploads))
    table.put(exchange, scene, base.language, base.template, base.root)


Asked = tuple[Scene, dict[str, Any], str]  # the edited scene, the request and its words


def _change(voice: Speaker, table: Table, base: Drawing, step: Step, corrected_next: bool) -> Asked:
    op = step.op
    if step.form == "pair":
        if op in OF_EACH and len(base.scene.subjects) > 1 and voice.rng.random() < EACH_SHARE:
            return _change_each(voice, base, op)
        return _change_several(voice, base, op)
    plain = step.form != "earlier" and not corrected_next  # "swap them", "no, I meant the other one"
    if plain and (asked := _change_by_context(voice, table, base, step)):
        return asked
    if len(base.scene.subjects) > 1 and step.form != "earlier":
        if op in OF_BOTH and not corrected_next and voice.rng.random() < BOTH_SHARE:
            each = op in OF_EACH and voice.rng.random() < EACH_SHARE
            return _change_each(voice, base, op) if each else _change_both(voice, base, op)
        if op in OF_ONE and (asked := _change_one(voice, table, base, op, corrected_next)):
            return asked
    other = None
    if op == "combine":
        older = [drawing for drawing in table.drawings if drawing.root != base.root]
        if not older:
            raise NoSample
        other, root = older[-1].scene, older[-1].root
    edit, scene = edit_within(voice, base.scene, op, voice.split, other)
    request = {"op": "edit", "edit": edit, "base": base.scene.to_json()}
    if other is not None:
        subjects = base.scene.subjects[edit["subject"]], other.subjects[edit["other_subject"]]
        scenes = [base.scene, other, *(drawing.scene for drawing in older if drawing.root != root)]
        kinds = [subject.kind for scene in scenes for subject in scene.subjects]
        if any(kinds.count(subject.kind) > 1 for subject in subjects):
            raise NoSample  # nobody would know which
        request["other"] = other.to_json()
    return scene, request, edit_text(base.scene, edit, voice, other)


def _change_several(voice: Speaker, base: Drawing, op: str) -> Asked:
    """Two or three changes of different kinds at once."""
    number = 2 if voice.rng.random() < THREE_SHARE else 1
    ops = [op, *voice.rng.sample([other for other in IN_PAIRS if other != op], number)]
    edits, words, scene = [], [], base.scene
    for each in ops:
        before = scene
        edit, scene = edit_within(voice, before, each, voice.split if each == ops[-1] else None)
        words.append(edit_text(before, edit, voice))
        edits.append(edit)
    if "sky" in ops and scene.background == "space":
        raise NoSample  # where it is always night
    request = {"op": "edit", "edit": edits[0], "then": edits[1:], "base": base.scene.to_json()}
    return scene, request, join_edits(words, voice)


def _change_by_context(voice: Speaker, table: Table, base: Drawing, step: Step) -> Asked | None:
    """A change that only what is there, or was said before, makes plain; None where another way is taken."""
    asked = next((asked for way in _WAYS.get(step.op, ()) if (asked := way(voice, table, base, step))), None)
    if asked is None:
        return None
    form, edit, words = asked
    try:
        scene = apply_edit(base.scene, edit)
    except ValueError as error:
        raise NoSample from error
    if scene == base.scene:
        raise NoSample
    request = {"op": "edit", "edit": edit, "base": base.scene.to_json(), "form": form}
    return require_split(scene, voice.split), request, sentence(words) if voice.language == "en" else words


def _swap(voice: Speaker, table: Table, base: Drawing, step: Step) -> tuple[str, Edit, str] | None:
    """ "Swap their places." """
    subjects = base.scene.subjects
    if len(subjects) < 2 or voice.rng.random() >= SWAP_SHARE:
        return None
    mover = voice.rng.randrange(2)
    edit = {"op": step.op, "subject": mover, "position": subjects[1 - mover].position}
    return "swap", edit, voice.pick("revisits", "swap")


def _mean_another(voice: Speaker, table: Table, base: Drawing, step: Step) -> tuple[str, Edit, str] | None:
    """ "No, I meant a bear.", right after the picture of something else."""
    request = table.exchanges[-1].request if table.drawings else None
    just_drawn = request is not None and request["op"] == "draw"
    if not just_drawn or len(base.scene.subjects) > 1 or voice.rng.random() >= MEANT_SHARE:
        return None
    edit, _ = edit_within(voice, base.scene, step.op, voice.split)
    return "meant", edit, voice.pick("revisits", "correct", "value").format(x=meant(voice, base.scene, edit))


def _bring_back(voice: Speaker, table: Table, base: Drawing, step: Step) -> tuple[str, Edit, str] | None:
    """ "Put the hat back on." """
    wanted = step.form == "back"
    if not wanted and voice.rng.random() >= BACK_SHARE:
        return None
    found = taken_away(voice, table, step.op) if base.turn is not None else None
    if found is None and wanted:
        raise NoSample
    if found is None:
        return None
    edit, thing = found
    return "back", edit, voice.pick("revisits", "back", voice.rng.choice(("any", "any", step.op))).format(bare=thing)


def _add_alike(voice: Speaker, table: Table, base: Drawing, step: Step) -> tuple[str, Edit, str] | None:
    """ "And another one, in blue." """
    if step.form == "back" or len(base.scene.subjects) > 1 or voice.rng.random() >= ALIKE_SHARE:
        return None
    subject = base.scene.subjects[0]
    edit: Edit = {"op": step.op, "kind": subject.kind}
    if voice.rng.random() < 0.7:
        edit["colour"] = voice.rng.choice([colour for colour in COLOURS if colour != subject.colour])
    return "alike", edit, alike_text(edit, voice)


_WAYS = {
    "move": (_swap,), "entity": (_mean_another,), "add_accessory": (_bring_back,),
    "add_subject": (_bring_back, _add_alike),
}  # fmt: skip


def _change_each(voice: Speaker, base: Drawing, op: str) -> Asked:
    """A change of each subject in its own way: "the cat black and the dog white"."""
    edits: list[Edit] = []
    scene = base.scene
    for subject in voice.rng.sample((0, 1), 2):
        edit, scene = edit_within(voice, scene, op, voice.split if edits else None, subject=subject)
        edits.append(edit)
    if edits[0] | {"subject": edits[1]["subject"]} == edits[1]:
        raise NoSample  # the same change of both
    request = {"op": "edit", "edit": edits[0], "then": edits[1:], "base": base.scene.to_json(), "form": "each"}
    return scene, request, edit_each_text(base.scene, edits, voice)


def _change_both(voice: Speaker, base: Drawing, op: str) -> Asked:
    """The same change of both subjects."""
    first, between = edit_within(voice, base.scene, op)
    second = {**first, "subject": 1 - first["subject"]}
    try:
        scene = apply_edit(between, second)
    except ValueError as error:
        raise NoSample from error  # two foxes of one colour
    sizes = {subject.size for subject in base.scene.subjects}
    if scene == between or scene.split != voice.split or (op == "resize" and len(sizes) > 1):
        raise NoSample
    edits = [first, second]
    request = {"op": "edit", "edit": first, "then": [second], "base": base.scene.to_json(), "form": "both"}
    return scene, request, edit_both_text(base.scene, edits, voice)


def _change_one(voice: Speaker, table: Table, base: Drawing, op: str, corrected_next: bool) -> Asked | None:
    """A change of one of two subjects that it calls "it" or "the other one", where those can be understood.

    "It" is the one that was spoken of last or, where it was none of them, the left one: users correct that."""
    last = spoken_of(table)
    if corrected_next and op in VAGUE and voice.rng.random() < VAGUE_SHARE:
        index, reference = last or 0, ""
    elif last is not None and voice.rng.random() < OTHER_SHARE:
        clear = op != "recolour" or "accessory" not in _last_operation(table)  # else it is the hat that "it" is
        same = op in VAGUE and clear and voice.rng.random() < 0.6
        index, reference = (last, "same") if same else (1 - last, "other")
    else:
        return None
    edit, scene = edit_within(voice, base.scene, op, voice.split, subject=index)
    dress = op == "recolour"
    if reference:
        words = call(voice, base.scene, index, reference, dress)
    else:
        words = called("", base.scene.subjects[index], voice.language, dress)
    request = {"op": "edit", "edit": edit, "base": base.scene.to_json(), "form": reference or "vague"}
    return scene, request, edit_text(base.scene, edit, voice, it=words)


def _last_operation(table: Table) -> str:
    return (table.exchanges[-1].request or {})["edit"]["op"]


def edit_within(
    voice: Speaker,
    scene: Scene,
    op: str,
    split: str | None = None,
    other: Scene | None = None,
    subject: int | None = None,
) -> tuple[Edit, Scene]:
    """An edit of one operation and the scene that it leads to, of `split` and of one `subject` where they are named."""
    worn = any(each.accessories for each in scene.subjects)
    if (op == "remove_subject" and len(scene.subjects) == 1) or (op in OF_WORN and not worn):
        raise NoSample
    seen: list[Edit] = []
    for _ in range(4 if split in (None, "train") and subject is None else 40):
        try:
            edit = sample_edit(scene, voice.rng, other, (op,))
        except ValueError as error:
            raise NoSample from error
        if edit in seen:
            continue
        seen.append(edit)
        edited = apply_edit(scene, edit, other)
        if subject in (None, edit.get("subject")) and (split is None or edited.split == split):
            return edit, edited
    raise NoSample


def _of_earlier(voice: Speaker, which: str, edit: Edit, words: str) -> str:
    """A request for a change of an earlier picture, called `which`."""
    if edit["op"] in VALUED and voice.rng.random() < 0.5:
        text = voice.pick("revisits", "but").format(which=which, what=what_else(edit, voice))
    else:
        frame = voice.pick("revisits", "resume")
        last = frame.rstrip().endswith("{edit}")
        text = frame.format(which=which, edit=words if last else finished(words, voice.language))
    return sentence(text) if voice.language == "en" else text


def _correct(voice: Speaker, table: Table) -> None:
    """The edit of the turn before as it was meant, made of the picture that it was made of."""
    wrong = (table.exchanges[-1].request or {}) if table.exchanges else {}
    if wrong.get("op") != "edit" or "then" in wrong or "other" in wrong or wrong.get("form") in UNCORRECTED:
        raise NoSample
    base = next((drawing for drawing in reversed(table.drawings[:-1]) if _is_base(drawing, wrong)), None)
    if base is None:
        raise NoSample  # a picture that the user brought
    edit, user = corrected(voice, base.scene, wrong["edit"])
    request = {"op": "edit", "edit": edit, "base": wrong["base"], "base_turn": base.turn, "form": "correction"}
    _put_changed(voice, table, base, apply_edit(base.scene, edit), request, user)


def _is_base(drawing: Drawing, request: Mapping[str, Any]) -> bool:
    drawn = drawing.turn is not None and drawing.turn == request.get("base_turn", drawing.turn)
    return drawn and drawing.scene == Scene.from_json(request["base"])


def _is_plain_edit(request: Mapping[str, Any] | None) -> bool:
    """An edit of the picture just before it."""
    return request is not None and request["op"] == "edit" and "base_turn" not in request


def _go_back(voice: Speaker, table: Table, op: str) -> None:
    """The same picture again, the one before it, or one that is named."""
    if not table.drawings:
        raise NoSample
    current = table.current
    request: dict[str, Any] = {"op": op, "base": current.scene.to_json()}
    if op == "return":
        which, goal = name_picture(voice, table)
        user = voice.pick("revisits", "show").format(which=which)
        user = sentence(user) if voice.language == "en" else user
        request |= {"base": goal.scene.to_json(), "base_turn": goal.turn}
    else:
        steps = [drawing for drawing in table.drawings if drawing.root == current.root]
        if op == "undo" and (len(steps) < 2 or steps[-1].scene == steps[-2].scene):
            raise NoSample
        goal = current if op == "again" else steps[-2]
        done = table.exchanges[current.turn].request if op == "undo" and current.turn is not None else None
        if op == "undo" and not _is_plain_edit(done):
            raise NoSample  # nothing says what is undone
        user = undone(voice, goal.scene, done) if done and voice.rng.random() < UNDONE_SHARE else ""
        user = user or voice.pick("edits", op)
    if not any(exchange.drawn == goal.scene for exchange in table.exchanges):
        raise NoSample  # a picture that the user brought was never drawn by a prompt
    prompt = write_prompt(goal.scene, goal.language, goal.template)
    user = roughen(user, voice.language, voice.rng)
    exchange = draw_exchange(user, prompt, request, require_split(goal.scene, voice.split), type="ti2i")
    table.put(exchange, goal.scene, goal.language, goal.template, goal.root)
