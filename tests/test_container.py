"""The container file, as far as it can be judged without building it: its instructions, and what they name."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
from pathlib import Path

from app.commands import chat

ROOT = Path(__file__).resolve().parent.parent
INSTRUCTIONS = {
    "FROM", "RUN", "CMD", "LABEL", "EXPOSE", "ENV", "ADD", "COPY", "ENTRYPOINT", "VOLUME", "USER", "WORKDIR", "ARG",
    "STOPSIGNAL", "HEALTHCHECK", "SHELL",
}  # fmt: skip


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    parsed = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name, rest) for name, rest in parsed]


def the(name: str) -> list[str]:
    return [rest for one, rest in instructions() if one == name]


def test_it_is_one() -> None:
    names = [name for name, _ in instructions()]
    assert names[0] == "FROM" and set(names) <= INSTRUCTIONS
    assert all(names.count(name) == 1 for name in ("CMD", "HEALTHCHECK", "USER", "VOLUME", "EXPOSE"))
    for command in the("RUN"):
        shlex.split(command)


def test_what_it_copies_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    sources = [source.rstrip("/") for rest in the("COPY") for source in rest.split()[:-1]]
    assert ignored[0] == "*" and set(sources) == allowed
    assert all((ROOT / source).exists() for source in sources)


def test_its_settings_are_the_commands() -> None:
    parser = argparse.ArgumentParser()
    chat.add_arguments(parser)
    known = {f"EASEL_{action.dest.upper()}" for action in parser._actions}
    values = dict(pair.split("=") for rest in the("ENV") for pair in rest.split())
    assert {name for name in values if name.startswith("EASEL_")} <= known
    assert [values["EASEL_PORT"]] == the("EXPOSE") and [values["EASEL_DATA_DIR"]] == the("VOLUME")
    assert json.loads(the("CMD")[0]) == ["easel", "chat"]


def test_it_runs_as_nobody_special_and_tells_how_it_is() -> None:
    assert int(the("USER")[0]) > 0
    names = [name for name, _ in instructions()]
    assert not {"RUN", "COPY"} & set(names[names.index("USER") :]), "nothing is written as that user"
    check = the("HEALTHCHECK")[0]
    assert {"--interval=30s", "--timeout=5s"} <= set(check.split())
    program, option, code = json.loads(check.partition(" CMD ")[2])
    assert (program, option) == ("python", "-c") and "/health" in code
    ast.parse(code)
