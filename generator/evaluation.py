"""`easel eval image`: are the things that a prompt asks for in the picture? The inspector looks.

    easel eval image --json

Prompts come from scenes that no training saw. Every figure is a share of what was asked, two subjects counting twice.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from generator.inspector import WHOLE, Inspector

if TYPE_CHECKING:
    from generator.engine import Drawing, Engine
    from generator.request import DrawRequest

AT_ONCE = 16  # pictures
Scene = dict[str, Any]


@dataclass(frozen=True)
class Prompt:
    """What to draw, and the scene (in JSON form) that it describes."""

    text: str
    language: str
    scene: Scene
    seed: int
    unseen: bool = False  # asks for a combination that no training picture shows


def compare(asked: Scene, seen: Scene) -> dict[str, list[bool]]:
    """Each attribute of the asked scene: is it there?

    A subject counts when its kind was seen, at its own position if it stands there, else anywhere. Its colour, size and
    accessories are those of that subject, or of what stands at its position instead: a red dog in the place of a red
    fox is the wrong subject in the right colour. Where nothing stands, all is missing. An accessory needs its colour.
    """
    right: dict[str, list[bool]] = {name: [seen[name] == asked[name]] for name in WHOLE}
    right["count"] = [len(seen["subjects"]) == len(asked["subjects"])]
    left = list(seen["subjects"])
    matches: list[Scene | None] = []
    for subject in asked["subjects"]:
        same = [other for other in left if other["kind"] == subject["kind"]]
        same.sort(key=lambda other: (other["position"] != subject["position"], other["colour"] != subject["colour"]))
        matches.append(same[0] if same else None)
        left = [other for other in left if other is not matches[-1]]
    at = {other["position"]: other for other in left}
    for subject, match in zip(asked["subjects"], matches, strict=True):
        found = match or at.get(subject["position"])
        right.setdefault("subject", []).append(match is not None)
        for name in ("colour", "size", "position"):
            right.setdefault(name, []).append(found is not None and found[name] == subject[name])
        worn = [(a["kind"], a["colour"]) for a in found["accessories"]] if found else []
        for accessory in subject["accessories"]:
            right.setdefault("accessory", []).append((accessory["kind"], accessory["colour"]) in worn)
        wanted = [(a["kind"], a["colour"]) for a in subject["accessories"]]
        right.setdefault("nothing_added", []).append(all(a in wanted for a in worn))
    if len(asked["subjects"]) > 1:
        right["binding"] = [all(right["subject"]) and all(right["colour"])]
    return right


def tally(results: Iterable[dict[str, list[bool]]]) -> dict[str, float]:
    """Shares over all pictures."""
    total: dict[str, list[bool]] = {}
    for result in results:
        for name, values in result.items():
            total.setdefault(name, []).extend(values)
    return {name: round(sum(values) / len(values), 4) for name, values in total.items() if values}


def draw_all(engine: Engine, requests: Sequence[DrawRequest]) -> list[Drawing]:
    """With a line of progress."""
    drawings: list[Drawing] = []
    for start in range(0, len(requests), AT_ONCE):
        jobs = [engine.submit(request) for request in requests[start : start + AT_ONCE]]
        drawings += [job.result() for job in jobs]
        print(f"\r{len(drawings)} of {len(requests)} pictures", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return drawings


def evaluate(prompts: Sequence[Prompt], pictures: Sequence[Image.Image], inspector: Inspector) -> dict[str, Any]:
    """How much of the prompts is in their pictures: flat shares over all, then the same `by_language` and of what
    combines the `unseen`."""
    results = [
        compare(prompt.scene, seen) for prompt, seen in zip(prompts, inspector.read(pictures), strict=True)
    ]  # fmt: skip
    languages = sorted({prompt.language for prompt in prompts})
    return {
        "n": len(prompts),
        **tally(results),
        "by_language": {
            language: tally(r for r, p in zip(results, prompts, strict=True) if p.language == language)
            for language in languages
        },
        "n_unseen": sum(prompt.unseen for prompt in prompts),
        "unseen": tally(r for r, p in zip(results, prompts, strict=True) if p.unseen),
    }
