"""How `easel eval chat` judges what the chat answered."""

from __future__ import annotations

from typing import Any

from app.evaluation import Answer, judge


def scene(background: str, sky: str, **subject: str) -> dict[str, Any]:
    subjects = [{"accessories": [], "position": "middle", "size": "normal", **subject}]
    return {"background": background, "shot": "normal", "sky": sky, "style": "flat", "subjects": subjects}


def test_an_edit_of_a_picture_that_the_user_brings_is_not_judged_by_what_was_drawn_before() -> None:
    tree = scene("forest", "day", kind="tree", colour="green")
    day, night = (scene("snow", sky, kind="panda", colour="white") for sky in ("day", "night"))
    edit = {"op": "edit", "base": day, "edit": {"op": "sky", "value": "night"}}
    record = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a tree"}]},
            {"role": "assistant", "content": []},
            {"role": "user", "content": [{"type": "image", "path": "panda.png"}, {"type": "text", "text": "night"}]},
            {"role": "assistant", "content": []},
        ],
        "turns": [{"scene": tree, "request": {"op": "draw", "asked": tree}}, {"scene": night, "request": edit}],
    }
    prompts = (
        "A flat picture of a green tree, in a forest by day.",
        "A flat picture of a white panda, in snow at night.",
    )
    answers = [Answer("", True, prompt, None, 0.0) for prompt in prompts]
    assert judge(record, answers, inspector=None).turns == [True, True]
    answers[1] = Answer("", True, prompts[0].replace("day", "night"), None, 0.0)
    assert judge(record, answers, inspector=None).turns == [True, False]
