"""Conversations written by hand, as a data set: to measure a dialog model by what no builder says, or to train it.

    easel data written mine.toml --out runs/mine --split test && easel eval dialog --data runs/mine

    [[conversation]]
    turns = [
        { said = "two rabbits, one brown", draw = "a brown rabbit and a rabbit" },
        { said = "a blue hat for him", edit = "a brown rabbit wearing a blue hat and a rabbit" },
        { said = "what colour is the hat?", answer = "It is blue.", accept = ["blue"] },
        { said = "now a dragon", refuse = "I cannot draw dragons. A fox, perhaps?" },
        { said = "thanks!", talk = "You are welcome!" },
        { said = "put it on a beach", shows = ["a red fox in the snow"], edit = "a fox on a beach" },
    ]

`draw` and `edit` say in plain words what a right picture holds. What `draw` leaves open may be anything; what `edit`
leaves open stays as it was, but for what is worn and held, which it names in full. `shows` are pictures that the user
brings with the message, drawn from their words. `accept`: words of which a right answer has one. Before each turn
stands what the turns before should have led to, whatever a model would have made of them.

Without a file, those that come with Easel are taken, of the split: the bundled model learnt from `written/train.toml`,
the developers read `written/validation.toml` while they make the builders, and never `written/test.toml`. Their scenes
are of any split.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from datasets_build.records import SPLITS, Dialogue, Exchange, draw_exchange, to_record
from datasets_build.shards import DRAFTS, LICENCE, SOURCE, BuildError, explained, write_split
from datasets_build.storybook.language import Partial, partial, partial_subject, write_prompt
from datasets_build.storybook.reading import complete, language_of, read_partial
from datasets_build.storybook.scene import Scene
from datasets_build.swapping import swapped
from dialog_mllm.messages import DRAW, SWITCH

TASK = "D_w"
COMMAND = "easel data written"
PICTURE_SEED = 1
OUTCOMES = ("draw", "edit", "answer", "refuse", "talk")
KEYS = {"said", "shows", "accept", *OUTCOMES}


class WrittenError(Exception):
    """A file of conversations cannot be used; the text says where and why."""


def read_conversations(text: str, where: str, variations: int = 0) -> list[Dialogue]:
    """The conversations of a TOML file, and of each up to so many variations, which are about other things. These show
    the pictures that users bring, and not those that were drawn, as in D_c: that leaves a quarter of the renders.

    Raises WrittenError, which names the conversation and the message."""
    try:
        rows = tomllib.loads(text).get("conversation")
    except tomllib.TOMLDecodeError as error:
        raise WrittenError(f"{where} is no TOML: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise WrittenError(f"{where} holds no [[conversation]]: `easel data written --help` shows what one looks like")
    dialogues = []
    for number, row in enumerate(rows, 1):
        turns = row.get("turns") if isinstance(row, dict) else None
        if not isinstance(turns, list) or not turns:
            raise WrittenError(f"{where}, conversation {number}: it needs `turns`, a list of messages")
        here = f"{where}, conversation {number}"
        dialogues.append(_dialogue(turns, here))
        varied = _varied(turns, dialogues[-1].language, random.Random(number), variations)
        dialogues += [replace(_dialogue(other, here), pictures=False) for other in varied]
    return dialogues


def _varied(turns: list[Any], language: str, rng: random.Random, number: int) -> list[list[Any]]:
    others: list[list[Any]] = []
    for _ in range(number):
        other = swapped(turns, language, rng)
        if other and other not in others:
            others.append(other)
    return others


def _dialogue(turns: list[Any], where: str) -> Dialogue:
    exchanges: list[Exchange] = []
    table: Scene | None = None  # the picture that the conversation is about
    language = ""
    for number, turn in enumerate(turns, 1):
        here = f"{where}, message {number}"
        said = _checked(turn, here)
        language = language or language_of(said)
        uploads = tuple(_scene(read_partial(words), here) for words in turn.get("shows", ()))
        if uploads:
            table = uploads[-1]
        exchange, table = _exchange(turn, uploads, table, language, here)
        exchanges.append(exchange)
    return Dialogue(language, tuple(exchanges), ())


def _exchange(
    turn: Mapping[str, Any], uploads: tuple[Scene, ...], table: Scene | None, language: str, here: str
) -> tuple[Exchange, Scene | None]:
    """The exchange, and the picture that the conversation is about after it."""
    said = turn["said"]
    more: dict[str, Any] = {"uploads": uploads, "opens": bool(uploads)}
    if "draw" in turn or "edit" in turn:
        if "draw" in turn:
            asked = read_partial(turn["draw"])
            more |= {"type": "t2i", "opens": True}
        elif table is None:
            raise WrittenError(f"{here}: there is no picture that `edit` could change; use `draw`, or `shows`")
        else:
            asked = inherited(read_partial(turn["edit"]), table)
            more["type"] = "ti2i"
        scene = _scene(asked, here)
        request = {"op": "draw", "asked": asked}
        return draw_exchange(said, write_prompt(scene, language, 0), request, scene, **more), scene
    if "answer" in turn:
        kind = "ti2t" if table is not None else "t2t"
        return Exchange(said, turn["answer"], kind, {"op": "answer", "accept": turn["accept"]}, **more), table
    if "refuse" in turn:
        return Exchange(said, turn["refuse"], "t2t", {"op": "refuse"}, **more), table
    return Exchange(said, turn["talk"], "t2t", None, **more), table


def inherited(asked: Partial, base: Scene) -> Partial:
    """`asked` with what it leaves open as `base` has it: of the whole picture, and of its subjects.

    A subject was there before if there is one of its kind, of two those whose colours agree; and where one gives way to
    one of another kind, that takes over its looks and its place. So places stay, as in every edit (storybook/edits.py),
    also beside one more or one fewer: who came last stands where nobody does, and two change places where one goes to
    the other's. What is worn is not inherited, nor is a sky in space."""
    before = partial(base)
    rest, subjects = [partial_subject(subject) for subject in base.subjects], list(asked["subjects"])
    were: dict[int, Partial] = {}  # what each of them was
    for i in sorted(range(len(subjects)), key=lambda i: "colour" not in subjects[i]):
        like = [other for other in rest if other["kind"] == subjects[i]["kind"]]
        if like:
            were[i] = next((other for other in like if other["colour"] == subjects[i].get("colour")), like[0])
            rest.remove(were[i])
    fresh = [i for i in range(len(subjects)) if i not in were]
    if len(fresh) == len(rest) == 1:
        were[fresh.pop()] = rest[0]
    wanted = {subject["position"]: i for i, subject in enumerate(subjects) if "position" in subject}
    for i, old in were.items():
        kept = {key: old[key] for key in ("colour", "size", "position") if key in old}
        if (comer := wanted.get(kept["position"], i)) in were:
            kept["position"] = were[comer]["position"]
        else:
            del kept["position"]
        subjects[i] = kept | subjects[i]
    # `complete` finds free places for the rest.
    whole = {**before, **asked, "subjects": [subjects[i] for i in (*sorted(were), *fresh)]}
    if whole["background"] == "space" and "sky" not in asked:
        whole.pop("sky", None)
    return whole


def _checked(turn: Any, here: str) -> str:
    """The user's words. Raises WrittenError where the turn is not of the form above."""
    if not isinstance(turn, dict) or not isinstance(said := turn.get("said"), str) or not said.strip():
        raise WrittenError(f"{here}: it needs `said`, what the user types")
    if unknown := sorted(turn.keys() - KEYS):
        raise WrittenError(f"{here}: there is no key {unknown[0]!r}; there are {', '.join(sorted(KEYS))}")
    outcomes = [key for key in OUTCOMES if key in turn]
    if len(outcomes) != 1 or not isinstance(turn[outcomes[0]], str) or not turn[outcomes[0]].strip():
        raise WrittenError(f"{here}: it needs one of {', '.join(OUTCOMES)}, as a text; it has {outcomes or 'none'}")
    for key in ("shows", "accept"):
        if not _texts(turn.get(key, ["-"])):
            raise WrittenError(f"{here}: `{key}` is a list of texts")
    if ("answer" in turn) != ("accept" in turn):
        raise WrittenError(f"{here}: `answer` and `accept`, the words of which a right answer has one, go together")
    if DRAW in said or SWITCH in said:
        raise WrittenError(f"{here}: users cannot type {DRAW} or {SWITCH}")
    return said


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) and text.strip() for text in value)


def _scene(asked: Partial, here: str) -> Scene:
    try:
        return complete(asked)
    except ValueError as error:
        raise WrittenError(f"{here}: no picture is like this: {error}") from error


# ------------------------------------------------------------------------------------------------- command line


def bundled(split: str) -> Path:
    """The file of conversations that comes with Easel for a split."""
    return Path(str(files("datasets_build"))) / "written" / f"{split}.toml"


def build(path: Path, split: str, out: Path, variations: int = 0) -> dict[str, Any]:
    """Writes the file's conversations and their variations as the split of a data set, and returns the manifest."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WrittenError(f"{path} cannot be read ({error})") from error
    digest = hashlib.sha256(text.encode()).hexdigest()
    source = f"{SOURCE}, by hand: {path.name}@{digest[:12]}"
    dialogues = read_conversations(text, str(path), variations)
    (out / DRAFTS).mkdir(parents=True, exist_ok=True)
    records = [
        to_record(dialogue, f"{TASK}-{split}-{number:05d}", TASK, split, PICTURE_SEED, out, source, LICENCE)
        for number, dialogue in enumerate(dialogues)
    ]
    for dialogue, record in zip(dialogues, records, strict=True):
        record["learn"] = _learnt(dialogue)
        for turn in record["turns"]:
            turn["switch_known"] = False  # whether a message turns to something new, its writer was not asked
    settings = {"seed": PICTURE_SEED} | ({"variations": variations} if variations else {})
    return write_split(out, split, records, settings, source, LICENCE, command=COMMAND)


def _learnt(dialogue: Dialogue) -> list[int]:
    """The turns that a model can learn from: not talk and refusals once a topic is under way. Whether they turn to
    another one, which their replies begin with, nobody knows; a new picture does, and an edit or an answer does not."""
    opened = [exchange.opens for exchange in dialogue.exchanges]
    return [
        turn for turn, exchange in enumerate(dialogue.exchanges) if not any(opened[:turn]) or exchange.type != "t2t"
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (__doc__ or "").partition("\n\n")[2]
    parser.add_argument("file", type=Path, nargs="?", help="conversations in TOML (default: those that Easel has)")
    parser.add_argument("--out", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--split", choices=SPLITS, default="test", help="what they are for (%(default)s)")
    parser.add_argument(
        "--variations", type=int, default=0, metavar="N", help="of each conversation, up to so many about other things"
    )


def run_arguments(args: argparse.Namespace) -> int:
    try:
        manifest = build(args.file or bundled(args.split), args.split, args.out, args.variations)
    except (WrittenError, BuildError) as error:
        print(f"easel data written: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"easel data written: {explained(error, args.out)}", file=sys.stderr)
        return 1
    print(json.dumps(manifest["splits"][args.split], ensure_ascii=False))
    return 0
