"""`easel data errors`: where the dialog model is wrong today, put right, as data to learn from.

easel data errors --out runs/errors --n 2000 --seed 1                    # starts vLLM with the profile's dialog model
easel data errors --out runs/errors --data runs/tt --teacher http://127.0.0.1:8000/v1 --teacher-model my-model
easel finetune --data runs/errors --validation runs/d --adapter runs/lora/adapter --out runs/lora2

The model answers every turn of dialogues of the training split that it has not learnt from, each after the record's
true history; `judging` and `dialog_mllm.evaluation` say what is wrong. The offline teacher corrects a reply with the
record's own; an endpoint writes corrections of its own. As many replies that were right are kept beside them as
`--keep-right` says. Every answer is in a journal at once: the same line takes up a run that was stopped or killed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.commands.eval_dialog import add_model_arguments, ask, profile_of, start_client
from app.errors import EaselError
from app.judging import judge_prompt
from datasets_build import corrections, records, teacher
from datasets_build.asking import Limits, Wording
from datasets_build.correcting import CorrectingJob, correct
from datasets_build.corrections import Case, Correction, CorrectionError
from datasets_build.endpoint import Settings, Stopped
from datasets_build.journal import Answer, Journal, JournalError
from datasets_build.mix import SHARES
from dialog_mllm.records import DataError, Record, data_files, read_manifest, read_records

if TYPE_CHECKING:
    from app.profiles import Profile
    from dialog_mllm.evaluation import Turn

DIALOGUES = 2000  # that are held, unless --n says otherwise
SEEDS = 10**9  # above those that anybody gives to `easel data`: the dialogues are new to the model
Asked = list[tuple[Record, Path, "Turn"]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, required=True, help="the data set's folder")
    add("--n", type=int, help=f"how many dialogues are held ({DIALOGUES:,}; of --data all)")
    add("--seed", type=int, default=1, help="of the dialogues, and of the choice among right replies")
    add("--data", type=Path, help="a data set whose train split is held instead (default: dialogues made now)")
    add("--keep-right", type=float, default=1.0, help="right replies for each wrong one (%(default)s)")
    add("--workers", type=int, default=2, help="that make the dialogues")
    add("--teacher-pictures", action="store_true", help="show the pictures to the teacher, who must have eyes then")
    add_model_arguments(parser)
    teacher.add_endpoint_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    if (args.n is not None and args.n < 1) or args.keep_right < 0 or args.workers < 1:
        raise EaselError("--n and --workers must be at least 1, and --keep-right must not be negative.")
    try:
        settings = None if args.teacher == teacher.OFFLINE else teacher.endpoint_settings(args)
        limits = Limits(args.attempts, args.give_up, args.concurrency)
    except ValueError as error:
        raise EaselError(str(error)) from error
    profile = profile_of(args)
    try:
        folder, manifest = _dialogues(args)
        files = data_files([folder], "train")
        asked = [entry for record, root in read_records(files, args.n) for entry in _turns(record, root)]
        held = manifest["splits"]["train"]["sha256"]
        answered = _answers(args, profile, held, [turn for _, _, turn in asked])
        return _write(args, asked, answered, manifest["source"], manifest["licence"], settings, limits)
    except (JournalError, CorrectionError, DataError, Stopped, RuntimeError) as error:
        raise EaselError(str(error)) from error
    except OSError as error:
        raise EaselError(f"{args.out} cannot be written ({error}). What was answered is kept there.") from error


def _dialogues(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The data set of dialogues to hold, and its manifest."""
    folder = args.data or args.out / "asked"
    if args.data is None:
        job = records.Job(folder, "train", args.n or DIALOGUES, SEEDS + args.seed, SHARES, workers=args.workers)
        records.run(job, lambda line: print(line, file=sys.stderr, flush=True))
    elif not (folder / "manifest.json").is_file():
        raise EaselError(f"{folder} is no whole data set: its manifest.json is missing.")
    elif args.data.resolve() == args.out.resolve():
        raise EaselError("What is written needs a folder of its own: name another --out than --data.")
    return folder, read_manifest(folder)


def _turns(record: Record, root: Path) -> Asked:
    from dialog_mllm.evaluation import turns_of

    if record.get("split") != "train":
        raise EaselError(
            f"Record {record.get('id')} is of the split {record.get('split')!r}: only what may be learnt is corrected, "
            "and that is the training split's."
        )
    return [(record, root, turn) for turn in turns_of([(record, root)])]


def _answers(args: argparse.Namespace, profile: Profile, held: str, turns: Sequence[Turn]) -> list[Turn]:
    """The turns of the data set `held` with the model's replies. What the journal holds is not asked for again."""
    from dialog_mllm.evaluation import read_reply

    model = f"{args.model} at {args.url}" if args.url else _weights(profile)
    header = {"task": "answers", "data": held[:16], "dialog model": model}
    places = {(turn.record, turn.index): place for place, turn in enumerate(turns)}
    if len(places) < len(turns):
        raise EaselError("Several records have one id: see `easel data check`.")
    with Journal(args.out / "answers.journal.jsonl", header) as journal:

        def keep(turn: Turn) -> None:
            raw = turn.reply.raw if turn.reply is not None else ""
            journal.add((places[turn.record, turn.index], 0), Answer(raw), None)

        missing = [turn for place, turn in enumerate(turns) if (place, 0) not in journal.answers]
        if missing:
            with contextlib.ExitStack() as stack:
                ask(missing, start_client(args, profile, stack, args.out), on_answer=keep)
        said = [journal.answers[place, 0].text for place in range(len(turns))]
    return [replace(turn, reply=read_reply(raw)) for turn, raw in zip(turns, said, strict=True)]


def _weights(profile: Profile) -> str:
    """Names the model; another one in the same folders gets another name."""
    parts = []
    for folder in filter(None, (profile.dialog, profile.adapter)):
        digest, files = hashlib.sha256(), sorted(Path(folder).glob("*.safetensors"))
        for path in files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        parts.append(f"{Path(folder).name} {digest.hexdigest()[:12]}" if files else str(folder))
    return " + ".join(parts)


def _write(
    args: argparse.Namespace,
    asked: Asked,
    answered: Sequence[Turn],
    source: str,
    licence: str,
    settings: Settings | None,
    limits: Limits,
) -> dict[str, Any]:
    judged = [(_case(record, root, turn), turn) for (record, root, _), turn in zip(asked, answered, strict=True)]
    # Where the judge does not accept the record's own reply either, he tells nothing of the model's.
    wrong = [place for place, (case, turn) in enumerate(judged) if case.error and not _error(turn, turn.wanted)]
    right = [place for place, (case, _) in enumerate(judged) if case.error is None]
    if not wrong:
        raise EaselError(f"All {len(right):,} replies were right: there is nothing to correct. Hold more, with --n.")
    most = min(len(right), round(args.keep_right * len(wrong)))
    kept = random.Random(f"easel keep {args.seed}").sample(right, most)
    cases = [case for case, _ in judged]
    corrected: dict[int, Correction] = {place: (cases[place], cases[place].wanted, {"judge": 1}) for place in kept}
    report: dict[str, int] = {}
    # Of a reply whose words are right and whose topic token is not, the record's own is the correction.
    offline = [place for place in wrong if settings is None or cases[place].error == "topic"]
    corrected |= {place: (cases[place], cases[place].wanted, {}) for place in offline}
    if settings is not None:
        source, licence = f"{source}, corrected by {args.teacher_model}", args.licence
        wording = Wording(args.temperature, args.max_tokens, args.structured)
        job = CorrectingJob(args.out, args.seed, source, licence, limits, wording, args.teacher_pictures)
        unseen = {place for place in wrong if not args.teacher_pictures and _brought(cases[place])}
        places = [place for place in wrong if place not in unseen and place not in offline]
        taught, report = _teach([judged[place] for place in places], job, settings)
        corrected |= {places[index]: correction for index, correction in taught.items()}
        report |= {"not_corrected": len(places) - len(taught), "not_seen": len(unseen - set(offline))}
    made = {"seed": args.seed, "dialogues": len({case.record["id"] for case in cases}), "answers": len(cases)}
    result = corrections.write(
        args.out, [correction for _, correction in sorted(corrected.items())], made, source, licence
    )
    counts = {"turns": len(cases), "wrong": len(wrong), "unjudged": len(cases) - len(wrong) - len(right)}
    return counts | result | ({"teacher": report} if report else {})


def _case(record: Record, root: Path, turn: Turn) -> Case:
    return Case(record, root, turn.index, turn.reply.content if turn.reply else "", _error(turn))


def _error(turn: Turn, reply: str | None = None) -> str | None:
    """The kind of error in the turn's reply, or in another one to it."""
    from dialog_mllm.evaluation import error_of, judge, read_reply

    turn = turn if reply is None else replace(turn, reply=read_reply(reply))
    return error_of(turn, judge(turn, judge_prompt))


def _teach(
    judged: Sequence[tuple[Case, Turn]], job: CorrectingJob, settings: Settings
) -> tuple[dict[int, Correction], dict[str, int]]:
    """The endpoint's corrections of those that it could correct, and the costs."""
    progress = teacher.Progress()
    cases = [case for case, _ in judged]
    try:
        settled, report = asyncio.run(
            correct(cases, job, settings, lambda index, reply: _error(judged[index][1], reply), progress)
        )
    finally:
        progress.end()
    corrected: dict[int, Correction] = {
        index: (cases[index], reply, {"attempts": attempt + 1, "judge": 1})
        for index, (attempt, reply) in settled.items()
    }
    return corrected, report


def _brought(case: Case) -> bool:
    """Whether the user showed a picture, of which nothing but itself tells."""
    users = case.record["messages"][: 2 * case.turn + 1 : 2]
    return any(block["type"] == "image" for message in users for block in message["content"])
