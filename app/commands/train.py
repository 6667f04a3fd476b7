"""`easel train vae|preview|clip|dit|inspector`: the generator's trainings, each a function of one small configuration.

    easel train vae --pictures runs/pictures --out runs/vae --minutes 12

The options are the configuration's own fields: what a training can be told stands in one place.
"""

from __future__ import annotations

import argparse
from dataclasses import MISSING, fields
from importlib import import_module
from typing import Any, get_args, get_type_hints

from app.errors import EaselError

CONFIGURATIONS = {
    "vae": "VaeConfig", "preview": "PreviewConfig", "clip": "ClipConfig", "dit": "DitConfig",
    "inspector": "InspectorConfig",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    config = _configuration(what)
    types = get_type_hints(config)
    for field in fields(config):
        kind, many = _kind(types[field.name])
        option = "--" + field.name.replace("_", "-")
        if kind is bool:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=field.default)
            continue
        required = field.default is MISSING
        parser.add_argument(
            option,
            type=kind,
            nargs="+" if many else None,
            required=required,
            default=None if required else field.default,
            help=None if required or field.default is None else "(%(default)s)",
        )


def run(args: argparse.Namespace, what: str) -> dict[str, Any]:
    config = _configuration(what)
    values = {field.name: getattr(args, field.name) for field in fields(config)}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        configuration = config(**values)
    except ValueError as error:
        raise EaselError(str(error)) from error
    return getattr(import_module(f"generator.training.{what}"), f"train_{what}")(configuration)


def _configuration(what: str) -> Any:
    return getattr(import_module(f"generator.training.{what}"), CONFIGURATIONS[what])


def _kind(hint: Any) -> tuple[Any, bool]:
    """The type of an option's values, and whether it takes several: `Path | None` is a Path, `tuple[int, ...]` ints."""
    arguments = [argument for argument in get_args(hint) if argument not in (type(None), ...)]
    if not arguments:
        return hint, False
    return arguments[0], getattr(hint, "__origin__", None) is tuple
