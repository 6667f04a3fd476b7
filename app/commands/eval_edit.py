"""`easel eval edit`: do edits change what was asked, and nothing else? By kind, beside the seed alone.

    easel eval edit --n 50 --json

Scenes of the test split, each drawn, changed, and drawn again: once as the profile edits, once from nothing with the
same seed, which is all that the papers do. `success`: every asked change shows, says the inspector; `preservation`: the
share of everything else that looks as before; `psnr`: of the pixels that need not change, in dB, the median over
entity, add and remove; `cost`: the denoiser's time, as a share of that from nothing. Copying the old picture would
score 0 on the first and everything on the others.
"""

from __future__ import annotations

import argparse
import io
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from app.errors import EaselError
from datasets_build.storybook.edits import EDIT_GROUP, apply_edit, sample_edit
from datasets_build.storybook.language import N_TEMPLATES, write_prompt
from datasets_build.storybook.render import render
from datasets_build.storybook.scene import Scene, sample_scene
from generator.request import Upload

if TYPE_CHECKING:
    from generator.engine import Drawing
    from generator.inspector import Inspector

KINDS = ("entity", "attribute", "add", "remove", "background", "style", "shot", "combine")
LOCAL = ("entity", "add", "remove")  # kinds that leave most of the picture as it was
LANGUAGES = ("en", "zh")
NOTICEABLE = 8  # of 255
MARGIN = 17  # pixels of a square: what a change touches reaches a little further than its own outline


@dataclass(frozen=True)
class Case:
    kind: str
    before: Scene
    after: Scene
    prompts: tuple[str, str]
    seed: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n", type=int, default=50, help="how many of each kind (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the scenes (%(default)s)")
    parser.add_argument("--split", default="test", choices=("validation", "test"), help="choose on validation alone")
    parser.add_argument("--uploads", action="store_true", help="edit renders of the scenes, as uploads, instead")
    parser.add_argument("--profile", default="storybook", help="whose generator (%(default)s)")
    parser.add_argument("--reuse", type=float, help="share of the steps taken over (default: the profile's)")
    parser.add_argument("--threshold", type=float, help="from which a latent may change (default: the profile's)")
    parser.add_argument(
        "--nearly-all", type=float, help="share of change above which fewer are (default: the profile's)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from app.models import load_generator
    from app.profiles import load_profile
    from generator.engine import Engine
    from generator.evaluation import draw_all
    from generator.inspector import Inspector

    if args.n < 1:
        raise EaselError("--n must be at least 1.")
    profile = load_profile(args.profile)
    named = {
        "upload_reuse" if args.uploads else "edit_reuse": args.reuse,
        "edit_threshold": args.threshold,
        "edit_nearly_all": args.nearly_all,
    }
    profile = replace(profile, **{name: value for name, value in named.items() if value is not None})
    cases = make_cases(args.n, args.seed, args.split)
    sources, fresh = (
        [profile.request(case.prompts[i], case.seed, profile.settings) for case in cases] for i in (0, 1)
    )  # fmt: skip
    edits = [replace(request, source=source) for request, source in zip(fresh, sources, strict=True)]
    before: list[Image.Image] = []
    if args.uploads:
        before = [render(case.before, profile.width, case.seed % 1000) for case in cases]
        edits = [
            replace(request, source=Upload(png(picture)), edit=profile.upload_edit)
            for request, picture in zip(fresh, before, strict=True)
        ]
    edited: list[Drawing] = []
    redrawn: list[Drawing] = []
    with Engine(lambda: load_generator(profile.generator, **profile.loading)) as engine:
        for start in range(0, len(cases), args.n):  # kind by kind: an edit follows its source while that is kept
            some = slice(start, start + args.n)
            if not args.uploads:
                before += images(draw_all(engine, sources[some]))
            edited += draw_all(engine, edits[some])
            redrawn += draw_all(engine, fresh[some])
    inspector = Inspector.load()
    ours = judge(cases, before, images(edited), inspector)
    baseline = judge(cases, before, images(redrawn), inspector)
    result = {"n": len(cases), **ours.pop("all")}
    result |= {f"baseline_{name}": value for name, value in baseline.pop("all").items()}
    spent, fresh_spent = (sum(drawing.timings["denoise"] for drawing in some) for some in (edited, redrawn))
    result["cost"] = round(spent / fresh_spent, 3)
    return {**result, "by_kind": ours, "baseline_by_kind": baseline}


def images(drawings: Sequence[Drawing]) -> list[Image.Image]:
    return [drawing.image for drawing in drawings]


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def make_cases(n: int, seed: int, split: str) -> list[Case]:
    """`n` of each kind, the languages in turns, an edit's two prompts of one phrasing."""
    rng = random.Random(f"easel eval edit {seed}")
    cases = []
    for kind in KINDS:
        ops = [op for op, group in EDIT_GROUP.items() if group == kind]
        made = 0
        while made < n:
            scene, other = (sample_scene(rng, split) for _ in range(2))
            try:
                edit = sample_edit(scene, rng, other, ops)
            except ValueError:
                continue  # nothing to remove, for example
            after = apply_edit(scene, edit, other)
            language, template = LANGUAGES[made % len(LANGUAGES)], rng.randrange(N_TEMPLATES)
            prompts = (write_prompt(scene, language, template), write_prompt(after, language, template))
            cases.append(Case(kind, scene, after, prompts, rng.randrange(2**31)))
            made += 1
    return cases


def judge(
    cases: Sequence[Case], before: Sequence[Image.Image], after: Sequence[Image.Image], inspector: Inspector
) -> dict[str, dict[str, float]]:
    """{"all": {"success", "preservation", "psnr"}, kind: the same, …}"""
    from app.judging import judge_edit

    seen_before, seen_after = inspector.read(before), inspector.read(after)
    rows: dict[str, list[tuple[bool, float, float]]] = {}
    for case, old, new, was, now in zip(cases, before, after, seen_before, seen_after, strict=True):
        success, kept = judge_edit(case.before, case.after, was, now)
        rows.setdefault(case.kind, []).append((success, kept, psnr(old, new, untouched(case, old.size))))
    every = [row for kind in rows.values() for row in kind]
    local = [row for kind in LOCAL for row in rows[kind]]
    means = {"all": {**shares(every), "psnr": shares(local)["psnr"]}}
    return means | {kind: shares(values) for kind, values in rows.items()}


def shares(rows: Sequence[tuple[bool, float, float]]) -> dict[str, float]:
    success, kept, noise = zip(*rows, strict=True)
    return {
        "success": round(statistics.mean(success), 4),
        "preservation": round(statistics.mean(kept), 4),
        "psnr": round(statistics.median(noise), 1),
    }


def untouched(case: Case, size: tuple[int, int]) -> Image.Image:
    """White where the renders of both scenes, widened a little, are the same."""
    old, new = (render(scene, 128, case.seed % 1000) for scene in (case.before, case.after))
    red, green, blue = ImageChops.difference(old, new).split()
    most = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    changed = most.point(lambda value: 255 * (value > NOTICEABLE)).filter(ImageFilter.MaxFilter(MARGIN))
    return ImageChops.invert(changed).resize(size, Image.Resampling.NEAREST)


def psnr(one: Image.Image, other: Image.Image, where: Image.Image) -> float:
    """In dB, of 255, over the white pixels of `where`; 100 where nothing differs, or nothing is compared."""
    mask = np.asarray(where) > 0
    error = np.square(np.asarray(one, float)[mask] - np.asarray(other, float)[mask])
    return float(10 * np.log10(255**2 / max(error.mean(), 255**2 / 1e10))) if mask.any() else 100.0
