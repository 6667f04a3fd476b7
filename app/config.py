"""Where the settings of `easel chat` come from: a file, over it the environment, over both the flags.

    # ~/.config/easel/config.toml, or the file that --config or EASEL_CONFIG names; every long flag is a key
    port = 8000
    profile = "hunyuan"
    allow-host = ["easel.example"]

    EASEL_PORT=8001 easel config      # what holds, and where it comes from

The command's own flags are the only list of settings there is: what a flag may be, a key and a variable may be too.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.errors import EaselError

PREFIX = "EASEL_"
NOT_SETTINGS = ("help", "config", "json")
DEFAULT = "default"
DATABASE = "database"
DATA_DIR = "data-dir"


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments, completed from environment and file; `origins` says where each setting comes from. Raises
    EaselError, naming the place, for what cannot be meant."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file with settings (see `easel config`)")
    args = parser.parse_args(arguments)
    options = {action.dest: action for action in parser._actions if action.dest not in NOT_SETTINGS}
    parser.set_defaults(**dict.fromkeys(options))
    flags = vars(parser.parse_args(arguments))
    path = _file(args.config)
    found = [("flag", {name: value for name, value in flags.items() if name in options and value is not None})]
    found.append(("environment", _from_environment(options)))
    if path is not None:
        found.append((str(path), _from_file(path, options)))
    origins = dict.fromkeys(options, DEFAULT)
    for origin, values in reversed(found):
        for name, value in values.items():
            setattr(args, name, value)
            origins[name] = origin
    args.origins = origins
    return args


def add_database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        f"--{DATABASE}", type=_address, metavar="URL",
        help="postgresql+psycopg://user@host/name, or sqlite: a file in the data folder. Command lines are seen by"
        " everybody on the machine: with a password, rather set EASEL_DATABASE",
    )  # fmt: skip


def database_of(args: argparse.Namespace) -> str:
    """For the commands beside `easel chat`: the same database, unless they are told another."""
    from app.database import SQLITE

    return str(args.database or _as_the_chat(DATABASE, _address) or SQLITE)


def data_dir_of(args: argparse.Namespace) -> Path:
    """The same for the data folder."""
    from app.store import default_data_dir

    folder: Path = args.data_dir or _as_the_chat(DATA_DIR, Path) or default_data_dir()
    return folder.expanduser()


def _as_the_chat(name: str, kind: Callable[[str], Any]) -> Any:
    """A setting of `easel chat` by its long flag, as environment and file have it; None where they do not."""
    dest = name.replace("-", "_")
    action = argparse.Action([f"--{name}"], dest, type=kind)
    if found := _from_environment({dest: action}):
        return found[dest]
    if (path := _file(None)) is not None:
        values = {key.replace("_", "-"): value for key, value in _values(path).items()}
        if name in values:
            return _read(f"{path}: {name}", values[name], action)
    return None


def _address(text: str) -> str:
    from app.database import check_address

    try:
        return check_address(text)
    except EaselError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _file(named: Path | None) -> Path | None:
    """The file to read. One that is named must be there; the usual one need not."""
    if named is None and (variable := os.environ.get(f"{PREFIX}CONFIG")):
        named = Path(variable)
    if named is not None:
        if not (named := named.expanduser()).is_file():
            raise EaselError(f"There is no configuration file {named}.")
        return named
    usual = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "easel" / "config.toml"
    return usual if usual.is_file() else None


def _from_file(path: Path, options: Mapping[str, argparse.Action]) -> dict[str, Any]:
    values = _values(path)
    names = {name.replace("-", "_"): name for name in values}
    if unknown := sorted(names[name] for name in names.keys() - options.keys()):
        known = ", ".join(sorted(option.replace("_", "-") for option in options))
        raise EaselError(f"{path}: unknown settings {', '.join(unknown)}. There are {known}.")
    return {name: _read(f"{path}: {key}", values[key], options[name]) for name, key in names.items()}


def _values(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise EaselError(f"The configuration file {path} cannot be read: {error}.") from error


def _from_environment(options: Mapping[str, argparse.Action]) -> dict[str, Any]:
    found = {}
    for name, action in options.items():
        variable = PREFIX + name.upper()
        if (text := os.environ.get(variable, "")) != "":
            value: Any = text
            if isinstance(action, argparse._AppendAction):
                value = text.split()
            elif action.nargs == 0:
                value = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(
                    text.lower(), text
                )
            found[name] = _read(variable, value, action)
    return found


def _read(where: str, value: Any, action: argparse.Action) -> Any:
    """A setting as its flag would have it."""
    if isinstance(action, argparse._AppendAction):
        if not isinstance(value, list):
            raise EaselError(f'{where} must be a list, like ["…", "…"]; got {value!r}.')
        return [_convert(where, one, action) for one in value]
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise EaselError(f"{where} must be true or false; got {value!r}.")
        return value
    return _convert(where, value, action)


def _convert(where: str, value: Any, action: argparse.Action) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise EaselError(f"{where} must be a text or a number; got {value!r}.")
    convert: Any = action.type or str
    try:
        value = convert(str(value))
    except (argparse.ArgumentTypeError, ValueError, TypeError) as error:
        raise EaselError(f"{where}: {error}.") from error
    if action.choices is not None and value not in action.choices:
        raise EaselError(f"{where} must be {' or '.join(map(str, action.choices))}; got {value!r}.")
    return value
