"""`easel adapters list|add|activate|rollback|try|stop|remove`: the dialog model's adapters, as on the Improve page.

easel adapters list --store ~/.local/share/easel
easel adapters add runs/lora2/adapter --store ~/.local/share/easel && easel adapters activate v1 --anyway --store …

A running app follows within a second or two; replies in flight finish on the adapter that they began with.
"""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

from app.errors import EaselError
from app.improving import ADAPTERS
from app.profiles import load_profile
from dialog_mllm.adapters import ORIGINAL, Adapters, NotConfirmed, Version


def add_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    add = parser.add_argument
    if what == "add":
        add("adapter", type=Path, help="a PEFT folder, as `easel finetune` writes it")
    if what in ("activate", "try", "remove"):
        add("version", help=f"v1, v2, …{f', or {ORIGINAL}' if what != 'remove' else ''}")
    if what == "try":
        add("--share", type=float, default=0.5, help="of the conversations that get it (%(default)s)")
    if what in ("activate", "try"):
        add("--anyway", action="store_true", help="though it was measured to be worse, or not at all")
    add("--store", type=Path, required=True, help="the app's data folder (`easel chat --data-dir`)")
    add("--profile", default="storybook", help="whose dialog model (%(default)s)")


def run(args: argparse.Namespace, what: str) -> dict[str, Any]:
    store = args.store.expanduser()
    if what != "add" and not store.is_dir():
        raise EaselError(f"There is no data folder {store}.")
    adapters = Adapters(store / ADAPTERS, load_profile(args.profile).dialog)
    match what:
        case "add":
            return {"added": adapters.add(args.adapter).name}
        case "activate" | "try":
            try:
                if what == "try":
                    adapters.try_out(args.version, args.share, args.anyway)
                else:
                    adapters.activate(args.version, args.anyway)
            except NotConfirmed as error:
                raise EaselError(f"{error} Add --anyway to use it all the same.") from error
        case "rollback":
            adapters.roll_back()
        case "stop":
            adapters.end_trial()
        case "remove":
            adapters.remove(args.version)
            return {"removed": args.version, "active": adapters.active}
        case _:
            versions = {version.name: _summary(version) for version in adapters.versions()}
            return {**_state(adapters), **versions}
    return _state(adapters)


def _state(adapters: Adapters) -> dict[str, Any]:
    trial = dict(zip(("tried", "share"), adapters.trial or (), strict=False))
    return {"active": adapters.active, "before": adapters.before, **trial}


def _summary(version: Version) -> dict[str, Any]:
    scores = {row["measure"]: [row["a"], row["b"]] for row in version.scores.get("held_out", ())}
    return {
        "made": datetime.fromtimestamp(version.created).isoformat(" ", "minutes"),
        "parent": version.parent or None,
        "before_after": scores or None,
        "worse": None if version.worse is None else list(version.worse),
    }
