"""`easel eval image`: draws held-out prompts and lets the inspector look whether what was asked for is there.

    easel eval image --json --sheet sheet.png

A third of the prompts combine what no training picture combined (generator/combinations.py); `unseen` are the scores of
these alone. `inspector` is the share of attributes that the inspector itself reads right on renders of the same
held-out scenes: no figure can be trusted further than that.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import EaselError

if TYPE_CHECKING:
    import numpy as np

    from generator.evaluation import Prompt
    from generator.inspector import Inspector

LANGUAGES = ("en", "zh")
UNSEEN_EVERY = 3  # prompts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n", type=int, default=1000, help="how many pictures (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the prompts (%(default)s)")
    parser.add_argument("--profile", default="storybook", help="whose generator (%(default)s)")
    parser.add_argument("--steps", type=int, help="(default: the profile's)")
    parser.add_argument("--guidance", type=float, help="(default: the profile's)")
    parser.add_argument("--sheet", type=Path, help="write the pictures to this PNG, side by side")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from app.models import load_generator
    from app.profiles import load_profile
    from generator import combinations
    from generator.engine import Engine
    from generator.evaluation import draw_all, evaluate
    from generator.inspector import Inspector
    from generator.sheets import contact_sheet

    if args.n < 1:
        raise EaselError("--n must be at least 1.")
    profile = load_profile(args.profile)
    changes = {"steps": args.steps, "guidance": args.guidance}
    settings = profile.read_settings({name: value for name, value in changes.items() if value is not None})
    prompts = held_out_prompts(args.n, args.seed, combinations.load(Path(profile.generator)))
    requests = [profile.request(prompt.text, prompt.seed, settings) for prompt in prompts]
    started = time.perf_counter()
    with Engine(lambda: load_generator(profile.generator, **profile.loading)) as engine:
        pictures = [drawing.image for drawing in draw_all(engine, requests)]
    seconds = (time.perf_counter() - started) / len(prompts)
    inspector = Inspector.load()
    scores = {**evaluate(prompts, pictures, inspector), "seconds_per_picture": round(seconds, 3)}
    if args.sheet:
        contact_sheet(pictures).save(args.sheet)
    checked = inspect_renders(prompts, inspector)
    return {**scores, "inspector": checked.pop("all"), "inspector_by_attribute": checked}


def held_out_prompts(n: int, seed: int, seen: np.ndarray) -> list[Prompt]:
    """Refined prompts of scenes of the test split, the languages in turns; every third's scene has an unseen
    combination."""
    from datasets_build.storybook.language import N_TEMPLATES, write_prompt
    from datasets_build.storybook.scene import sample_scene
    from generator.combinations import unseen
    from generator.evaluation import Prompt

    rng = random.Random(f"easel eval image {seed}")
    prompts = []
    for number in range(n):
        scene = sample_scene(rng, "test")
        while number % UNSEEN_EVERY == 0 and not unseen(scene.to_json(), seen):
            scene = sample_scene(rng, "test")
        language = LANGUAGES[number % len(LANGUAGES)]
        text = write_prompt(scene, language, rng.randrange(N_TEMPLATES))
        new = unseen(scene.to_json(), seen)
        prompts.append(Prompt(text, language, scene.to_json(), rng.randrange(2**31), new))
    return prompts


def inspect_renders(prompts: list[Prompt], inspector: Inspector) -> dict[str, float]:
    """How often the inspector is right about pictures of which the truth is known."""
    from datasets_build.storybook.render import render
    from datasets_build.storybook.scene import Scene
    from generator.evaluation import compare, tally

    results = [
        compare(prompt.scene, inspector.read([render(Scene.from_json(prompt.scene), 128, prompt.seed)])[0])
        for prompt in prompts
    ]
    values = [right for result in results for rights in result.values() for right in rights]
    return {**tally(results), "all": round(sum(values) / len(values), 4)}
