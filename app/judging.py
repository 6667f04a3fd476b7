"""Judges: is a refined prompt right, and what of an edit shows in the pictures. The picture-book world says.

judge_prompt(turn, "A flat picture of a red fox…", None)     # turn: an entry of a dialogue record's `turns`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets_build.consistency import LEAST, kept_share
from datasets_build.storybook.edits import apply_edit
from datasets_build.storybook.reading import matches, read_prompt
from datasets_build.storybook.scene import Scene, as_seen
from generator.looks import attributes


def judge_prompt(
    turn: Mapping[str, Any], prompt: str, previous_prompt: str | None, prompts: Sequence[str | None] = ()
) -> bool:
    """A new picture: all that was asked is there, and nothing is worn or held that was not asked. An edit: the scene is
    the edited one, and nothing else changed.

    In which order somebody's accessories are named does not matter: the picture is the same, and where the user brought
    it, nobody could know. `prompts`: where the conversation may have gone another way than the record, what was drawn
    in each turn so far.
    Where no scene is known (what an endpoint or a user wrote), an edit keeps the words of the prompt before it."""
    if turn["scene"] is None:
        edit = turn["request"].get("edit")
        least = LEAST.get(edit["op"], 0.0) if edit else 0.0
        return not previous_prompt or (kept_share(previous_prompt, prompt) >= least and prompt != previous_prompt)
    scene = read_prompt(prompt)
    if scene is None:
        return False
    if turn["request"]["op"] == "draw":
        return matches(turn["request"]["asked"], scene, exactly=True)
    return as_seen(scene) == as_seen(expected_scene(turn, previous_prompt, prompts))


def expected_scene(turn: Mapping[str, Any], previous_prompt: str | None, prompts: Sequence[str | None] = ()) -> Scene:
    """What a drawn turn should lead to. Where the conversation went another way than the record and the edit can be
    made of the picture that is there, it is; else the record's own scene is expected.

    A turn that goes back, or corrects, builds on the picture of its `base_turn` (an index of `prompts`)."""
    request, recorded = turn["request"], Scene.from_json(turn["scene"])
    if request["op"] not in ("edit", "return") or "other" in request:
        return recorded
    base_turn = request.get("base_turn")
    prompt = previous_prompt if base_turn is None else prompts[base_turn] if base_turn < len(prompts) else None
    base = read_prompt(prompt) if prompt else None
    if base is None or base == Scene.from_json(request["base"]):
        return recorded
    try:
        for edit in (request["edit"], *request.get("then", ())) if request["op"] == "edit" else ():
            base = apply_edit(base, edit)
        return base
    except ValueError:
        return recorded


def judge_edit(
    before: Scene, after: Scene, seen_before: Mapping[str, Any], seen: Mapping[str, Any]
) -> tuple[bool, float]:
    """(whether every asked change shows in the new picture, the share of all else that looks as it did before)."""
    old, new = attributes(before.to_json()), attributes(after.to_json())
    was, now = attributes(seen_before), attributes(seen)
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    kept = [key for key in new if key not in changed]
    success = all(now.get(key) == new.get(key) for key in changed)
    return success, sum(now.get(key) == was.get(key) for key in kept) / max(1, len(kept))
