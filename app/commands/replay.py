"""`easel replay`: draws a picture again from what its PNG says, and compares every pixel.

    easel replay fox.png
    easel replay scarf.png --upload photo.jpg --out again.png --json

Exit status 0: identical pixels. 1: some differ; it is said how many, by how much, and what drew the picture then and
now. All files are read before a model is loaded, and share it. It computes in the precision that the picture records,
unless the profile names one: from another, other pixels come.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from app.errors import InputRefused
from app.pictures import png_bytes, read_upload
from app.profiles import PRECISIONS, PROFILES, Profile, load_profile
from generator.draw import check_output, save_png, show_progress
from generator.errors import GeneratorError, RequestError
from generator.metadata import picture_texts, read_png, read_request, software
from generator.request import DrawRequest, Lora, Upload

if TYPE_CHECKING:
    from generator.engine import Engine


@dataclass(frozen=True)
class Recorded:
    """A picture as its file has it."""

    path: Path
    image: Image.Image
    texts: dict[str, str]
    profile: Profile
    request: DrawRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="a PNG that Easel wrote")
    parser.add_argument("-o", "--out", type=Path, help="keep the new picture, as this .png file")
    parser.add_argument(
        "--profile", help="storybook, hunyuan, or a .toml file: the model (the one that the picture names)"
    )
    parser.add_argument(
        "--upload", type=Path, action="append", default=[], metavar="PICTURE",
        help="an uploaded picture that was edited; may be named several times",
    )  # fmt: skip
    parser.add_argument(
        "--lora", action="append", default=[], metavar="PATH",
        help="a LoRA that it was drawn with; may be named several times",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the results as one JSON object, as the last line")


def run(args: argparse.Namespace) -> int:
    check_out(args)
    uploads = [upload for path in args.upload for upload in read_uploads(path)]
    loras = [Lora(path) for path in args.lora]
    pictures = [read_recorded(path, args.profile, uploads, loras) for path in args.pictures]
    results = []
    from app.models import load_generator
    from generator.engine import Engine

    for profile in dict.fromkeys(picture.profile for picture in pictures):
        with Engine(partial(load_generator, profile.generator, **profile.loading)) as engine:
            results += [replay(picture, engine, args.out) for picture in pictures if picture.profile == profile]
    identical = all(result["identical"] for result in results)
    if args.json:
        print(json.dumps({"identical": identical, "pictures": results}, ensure_ascii=False))
    return 0 if identical else 1


def check_out(args: argparse.Namespace) -> None:
    if args.out is None:
        return
    if len(args.pictures) > 1:
        raise RequestError("--out is one file: name one picture with it, or leave it out.")
    check_output(args.out)
    if args.out.resolve() in {path.resolve() for path in (*args.pictures, *args.upload)}:
        raise RequestError(f"{args.out} would be overwritten by its own copy. Choose another name for --out.")


def read_uploads(path: Path) -> tuple[Upload, Upload]:
    """The file as it is, and as the chat and the HTTP API keep it, which is what they edit."""
    if not path.is_file():
        raise RequestError(f"There is no uploaded picture {path}.")
    kept = Upload(png_bytes(read_upload(path)))
    return Upload(path.read_bytes()), kept


def read_recorded(path: Path, named: str | None, uploads: Sequence[Upload], loras: Sequence[Lora]) -> Recorded:
    image, texts = read_png(path)
    name = named or texts.get("profile", "storybook")
    if not named and name not in PROFILES:
        raise InputRefused(f"{path} was drawn with the profile {name!r}. Name its file: --profile FILE.toml")
    profile = load_profile(name)
    precision = texts.get("precision", "").partition(",")[0]
    if not profile.precision and precision in PRECISIONS:
        profile = replace(profile, precision=precision)
    if profile.adapted is not None:
        loras = [*loras, profile.adapted]
    try:
        return Recorded(path, image, texts, profile, read_request(texts, uploads, loras))
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error


def replay(picture: Recorded, engine: Engine, out: Path | None) -> dict[str, Any]:
    """Draws, compares, and says both what has changed and how it came out."""
    provenance = engine.pipeline.provenance
    changed = changes(picture.texts, {**provenance, "software": software()})
    if not recorded(picture):
        print(f"{picture.path}: what drew it is not recorded: it was drawn by an older Easel")
    for name, (then, now) in changed.items():
        print(f"{picture.path}: {name}: {then} when it was drawn, {now} now")
    sys.stdout.flush()
    try:
        request = replace(picture.request, owner="easel replay")
        drawing = engine.submit(request, show_progress if sys.stderr.isatty() else None).result()
    except GeneratorError as error:
        raise type(error)(f"{picture.path}: {error}") from error
    if out is not None:
        origin = {
            name: picture.texts[name] for name in ("dialog_model", "dialog_adapter", "turns") if name in picture.texts
        }
        save_png(drawing.image, picture_texts(request, provenance, profile=picture.profile.name, **origin), out)
    result = {"picture": str(picture.path), **compare(picture.image, drawing.image), "changed": changed}
    print(f"{picture.path}: {in_words(result, picture, drawing.image)}")
    return result


def recorded(picture: Recorded) -> bool:
    """Whether it says what drew it."""
    return "generator" in picture.texts


def changes(then: Mapping[str, str], now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What was recorded of what drew a picture, and what is so now: where these differ."""
    return {name: (then[name], fact) for name, fact in now.items() if name in then and then[name] != fact}


def compare(before: Image.Image, after: Image.Image) -> dict[str, Any]:
    """Of a picture that was scaled since nothing can be counted."""
    if before.size != after.size:
        return {"identical": False, "differing_pixels": None, "largest_difference": None}
    apart = np.abs(np.asarray(before, np.int16) - np.asarray(after, np.int16)).max(axis=2)  # (H, W)
    count = int(np.count_nonzero(apart))
    return {"identical": count == 0, "differing_pixels": count, "largest_difference": int(apart.max())}


def in_words(result: Mapping[str, Any], picture: Recorded, after: Image.Image) -> str:
    if result["identical"]:
        return "identical pixels"
    if result["differing_pixels"] is None:
        was, has = (f"{size[0]}x{size[1]}" for size in (after.size, picture.image.size))
        return f"was drawn as {was} and is {has} now: it was cut or scaled since"
    count, most = result["differing_pixels"], result["largest_difference"]
    words = f"{count:,} of {after.width * after.height:,} pixels differ, by at most {most} of 255"
    if result["changed"] or not recorded(picture):
        return words
    if most == 1:
        return f"{words}: beside other drawings, sums are rounded in another order"
    return f"{words}; the same model drew it, so the file was changed since"
