"""`easel config`: the settings that `easel chat` would start with, and where each comes from.

EASEL_PORT=8000 easel config --profile hunyuan
"""

from __future__ import annotations

import argparse
from typing import Any

from app.commands import chat
from app.config import DATABASE
from app.database import named

SECRET = "•••"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    chat.add_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any] | int:
    settings = {
        name.replace("_", "-"): {"value": shown(name, getattr(args, name)), "from": origin}
        for name, origin in args.origins.items()
    }
    if args.json:
        return settings
    width = max(len(name) for name in settings)
    values = {name: _plain(entry["value"]) for name, entry in settings.items()}
    across = max(len(value) for value in values.values())
    for name, entry in settings.items():
        print(f"{name:{width}}  {values[name]:{across}}  {entry['from']}")
    return 0


def _plain(value: Any) -> str:
    return "–" if value in (None, "", []) else " ".join(value) if isinstance(value, list) else str(value)


def shown(name: str, value: Any) -> Any:
    """As it may be printed: keys stay secret."""
    if value and name.endswith("_key"):
        return SECRET
    if value and name == DATABASE:
        return named(value)
    return [str(one) for one in value] if isinstance(value, list) else value if value is None else str(value)
