"""Recaption: captions rewritten as the dialog model writes prompts, so that the image model learns from such.

    easel data recaption --pictures shards --out shards_prompts                    # a set of `easel data pictures`
    easel data recaption --pictures photos --out photos_prompts --teacher http://127.0.0.1:8000/v1 --teacher-model eyes

DialogGen calls it drawing-prompt alignment. Of a set of the picture-book world every scene is known: each text becomes
a refined prompt of it, in the sentence forms that the dialog model uses and as often as it uses them. OUT is such a set
again, for `easel train`.

Other pictures lie in a folder with a metadata.jsonl: `file_name`, `text` (the raw caption) and, where there are any,
`tags` in each line. A teacher with eyes writes a structural caption as Hunyuan-DiT's were (subject, attributes,
background, style, shot), in which every tag is named and what is true in the raw caption is kept, above all names; then
all of it as one prompt. OUT/metadata.jsonl has a line for each picture and language. Every answer goes to the journal
before anything is made of it: the same line takes up a run that was stopped. Answers that break a rule are refused, and
stand with the reasons in OUT/teacher/recaption.refused.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from datasets_build.answers import Refused, check_text, expect_keys, read_object
from datasets_build.asking import Limits, Wording, ask_each
from datasets_build.banks import bank
from datasets_build.briefs import LENGTHS
from datasets_build.consistency import chinese_share, words
from datasets_build.endpoint import Settings, Stopped
from datasets_build.journal import Answer, JournalError
from datasets_build.records import write_atomically
from datasets_build.requests import PLAIN_TEMPLATE_SHARE
from datasets_build.seeds import seeds
from datasets_build.storybook.language import N_TEMPLATES, write_prompt
from datasets_build.storybook.scene import Scene
from datasets_build.storybook.vocabulary import LANGUAGES
from datasets_build.teacher import OFFLINE, Progress, add_endpoint_arguments, endpoint_settings
from dialog_mllm.messages import ImageBlock, Message, MessageError, to_chat

METADATA = "metadata.jsonl"
PARTS = ("subject", "attributes", "background", "style", "shot")
LEAST_SAID = 0.5  # of the words of each part, in the prompt that is made of all parts
EXAMPLES = 4


class RecaptionError(Exception):
    """The pictures cannot be recaptioned; the text says why."""


# ------------------------------------------------------------------------------------------------ the world's own sets


def rewrite(line: dict[str, Any], name: str) -> dict[str, Any]:
    """A picture's line with a refined prompt of its scene in the place of every text. `name` seeds their forms."""
    scene = Scene.from_json(line["scene"])

    def prompt(language: str, number: int) -> str:
        rng = random.Random(f"easel recaption {name} {language} {number}")
        plain = rng.random() < PLAIN_TEMPLATE_SHARE
        return write_prompt(scene, language, 0 if plain else rng.randrange(N_TEMPLATES))

    captions = {
        language: [prompt(language, 1 + i) for i in range(len(texts))] for language, texts in line["captions"].items()
    }
    return line | {"prompt": {language: prompt(language, 0) for language in line["prompt"]}, "captions": captions}


def rewrite_set(pictures: Path, out: Path) -> int:
    """A set of `easel data pictures` once more, with other texts; how many pictures it holds. A run that was stopped is
    taken up; the manifest is written last."""
    manifest = json.loads((pictures / "manifest.json").read_text(encoding="utf-8"))
    manifest["recaptioned"] = True
    data = json.dumps(manifest, indent=1, ensure_ascii=False).encode()
    there = out / "manifest.json"
    if there.exists() and there.read_bytes() != data:
        raise RecaptionError(f"{out} holds other pictures: name another --out")
    out.mkdir(parents=True, exist_ok=True)
    for shard in manifest["shards"]:
        for file in (f"{shard['name']}.npy", shard["name"].replace("pictures", "covers") + ".npy"):
            _bring(pictures / file, out / file)
        lines = (pictures / f"{shard['name']}.jsonl").read_text(encoding="utf-8").splitlines()
        texts = (rewrite(json.loads(line), f"{shard['name']} {row}") for row, line in enumerate(lines))
        made = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in texts)
        write_atomically(out / f"{shard['name']}.jsonl", made.encode())
    write_atomically(there, data)
    return manifest["n"]


def _bring(source: Path, target: Path) -> None:
    """The file under its new name, without a second copy where the disk allows that."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        try:
            os.link(source, draft)
        except OSError:
            shutil.copyfile(source, draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------ other pictures


@dataclass(frozen=True)
class Photo:
    """A picture with its raw caption."""

    file: str  # beneath the folder
    text: str
    tags: tuple[str, ...] = ()


def read_photos(pictures: Path) -> list[Photo]:
    path = pictures / METADATA
    photos: list[Photo] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            photo = Photo(str(row["file_name"]), str(row.get("text") or ""), tuple(map(str, row.get("tags") or ())))
            if PurePosixPath(photo.file).is_absolute() or ".." in PurePosixPath(photo.file).parts:
                raise ValueError(f"{photo.file} leads out of the folder")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecaptionError(f"{path}, line {number}: a line holds file_name, text, tags; {error!r}") from error
        photos.append(photo)
    if not photos:
        raise RecaptionError(f"{path} names no picture")
    return photos


@dataclass(frozen=True)
class RecaptionJob:
    pictures: Path
    out: Path
    languages: Sequence[str]
    licence: str
    limits: Limits
    wording: Wording


def brief(photo: Photo, language: str, name: str) -> tuple[str, str]:
    """What the teacher reads of a picture, and the part of it that must not come back."""
    told = bank("teacher", language)
    pool = seeds(language, "train")
    examples = random.Random(f"easel recaption {name}").sample(pool, min(EXAMPLES, len(pool)))
    shape = {key: told["recaption"][key] for key in (*PARTS, "prompt")}
    values = {
        "text": photo.text or "-",
        "tags": ", ".join(_tags(photo, language)) or "-",
        "examples": "\n".join(f"- {pair.prompt}" for pair in examples) or "-",
        "shape": json.dumps(shape, ensure_ascii=False),
    }
    template = told["task_recaption"].strip()
    return template.format_map(values), template.format_map(dict.fromkeys(values, ""))


def _tags(photo: Photo, language: str) -> list[str]:
    """The tags that a caption in this language can hold."""
    return [tag for tag in photo.tags if (chinese_share(tag) > 0.5) == (language == "zh")]


def read_caption(photo: Photo, language: str, answer: Answer, rules: str) -> dict[str, Any]:
    """{"prompt": …, "parts": {…}}; Refused says which rule it breaks."""
    said = read_object(answer.text, answer.finish)
    expect_keys(said, [*PARTS, "prompt"], "the answer")
    prompt = check_text(said["prompt"], "prompt", language, rules, "prompt")
    parts = {part: check_text(said[part], "reply", language, rules, part) for part in PARTS}
    held = set(words(prompt))
    for part, text in parts.items():
        asked = set(words(text))
        if len(asked & held) < LEAST_SAID * len(asked):
            raise Refused(f"the prompt does not say the {part}: {text!r}")
    for tag in _tags(photo, language):
        if not set(words(tag)) <= held:
            raise Refused(f"the prompt does not name the tag {tag!r}")
    if words(prompt) == words(photo.text):
        raise Refused("the prompt is the raw caption, unchanged")
    return {"prompt": prompt, "parts": parts}


async def recaption(
    job: RecaptionJob, settings: Settings, progress: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Writes OUT/metadata.jsonl and then the manifest, which is returned. Raises Stopped; answers are kept."""
    photos = read_photos(job.pictures)
    asked = [(photo, language) for photo in photos for language in job.languages]

    def body(index: int, attempt: int) -> dict[str, Any]:
        photo, language = asked[index]
        name = f"{photo.file} {language} {attempt}"
        try:
            block = ImageBlock(path=job.pictures / photo.file)
            content = to_chat([Message.user(brief(photo, language, name)[0], [block])])[0]["content"]
        except MessageError as error:
            raise Refused(str(error)) from error
        least, most = LENGTHS[language]["prompt"]
        text = {"type": "string", "minLength": 1, "maxLength": most}
        properties = {**dict.fromkeys(PARTS, text), "prompt": {**text, "minLength": least}}
        schema = {
            "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
        }  # fmt: skip
        return job.wording.body(content, f"recaption {name}", schema)

    def read(index: int, attempt: int, answer: Answer) -> dict[str, Any]:
        photo, language = asked[index]
        return read_caption(photo, language, answer, brief(photo, language, "")[1])

    digest = hashlib.sha256((job.pictures / METADATA).read_bytes()).hexdigest()
    header = {
        "task": "recaption", "pictures": digest[:16], "languages": list(job.languages),
        "temperature": job.wording.temperature, "max_tokens": job.wording.max_tokens,
        "structured": job.wording.structured,
    }  # fmt: skip
    (job.out / "manifest.json").unlink(missing_ok=True)  # while it is being written, the set is not whole
    files = job.out / "teacher" / "recaption"
    settled, report = await ask_each(len(asked), settings, job.limits, files, header, body, read, progress)
    rows = []
    for index, (attempt, made) in settled.items():
        photo, language = asked[index]
        _bring(job.pictures / photo.file, job.out / photo.file)
        rows.append({
            "file_name": photo.file, "language": language, "text": made["prompt"], "parts": made["parts"],
            "raw": photo.text, "tags": list(photo.tags), "scores": {"attempts": attempt + 1},
        })  # fmt: skip
    if not rows:
        raise RecaptionError(f"no caption came out of {len(asked):,}: see {files}.refused.jsonl for the reasons")
    write_atomically(job.out / METADATA, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    manifest = {
        "version": 1, "source": settings.model, "licence": job.licence, "of": digest, "captions": len(rows),
        "left_out": len(asked) - len(rows), "teacher": report,
    }  # fmt: skip
    write_atomically(job.out / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False).encode())
    return manifest


# ------------------------------------------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pictures", type=Path, required=True, help="a set of `easel data pictures`, or photos' folder"
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to fill")
    parser.add_argument("--language", choices=(*LANGUAGES, "both"), default="both", help="of a teacher's captions")
    add_endpoint_arguments(parser)


def run_arguments(args: argparse.Namespace) -> int:
    """What the command does with its parsed arguments; the result is the exit status."""
    progress = Progress()
    try:
        result = _run(args, progress)
    except (RecaptionError, Stopped, JournalError, ValueError) as error:
        progress.end()
        print(f"easel data recaption: {error}", file=sys.stderr)
        return 2 if type(error) is ValueError else 1
    except OSError as error:
        progress.end()
        print(f"easel data recaption: {error}. What is there is kept: the same line goes on.", file=sys.stderr)
        return 1
    progress.end()
    print(json.dumps(result, ensure_ascii=False))
    return 0


def _run(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    if args.pictures.resolve() == args.out.resolve():
        raise RecaptionError("the new captions need a folder of their own: name another --out")
    if list(args.pictures.glob("pictures-*.npy")):
        if args.teacher != OFFLINE:
            raise RecaptionError("every scene of this set is known, and its prompts with it: leave out --teacher")
        if not (args.pictures / "manifest.json").is_file():
            raise RecaptionError(f"{args.pictures} is not whole: its manifest.json is missing")
        return {"out": str(args.out), "n": rewrite_set(args.pictures, args.out)}
    if not (args.pictures / METADATA).is_file():
        raise RecaptionError(f"{args.pictures} is no set of pictures: it holds neither shards nor a {METADATA}")
    if args.teacher == OFFLINE:
        raise RecaptionError("only eyes can tell what these pictures show: name a vision model with --teacher")
    settings = endpoint_settings(args)
    limits = Limits(args.attempts, args.give_up, args.concurrency)
    wording = Wording(args.temperature, args.max_tokens, args.structured)
    languages = LANGUAGES if args.language == "both" else (args.language,)
    job = RecaptionJob(args.pictures, args.out, languages, args.licence, limits, wording)
    return asyncio.run(recaption(job, settings, progress))
