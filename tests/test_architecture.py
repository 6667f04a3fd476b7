"""The rules of the tree: which package may import which, what stays light, how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("app", "dialog_mllm", "generator", "datasets_build")
MAY_IMPORT = {
    "app": {"dialog_mllm", "generator"},
    "dialog_mllm": set(),
    "generator": set(),
    "datasets_build": set(),
}
# The exceptions to the arrows, by name.
DATA_FOR_TRAINING_AND_SERVING = {"dialog_mllm.messages", "dialog_mllm.protocol", "dialog_mllm.records"}
COMMAND_LINE = ("app/commands/", "app/evaluation.py", "app/judging.py", "app/vlm_judge.py")
LONGEST_FILE = 600
HEAVY = {"torch", "gradio", "peft", "vllm", "transformers", "diffusers"}
LIGHT = (
    "app.cli", "app.conversation", "app.profiles", "app.store", "app.running", "app.view", "app.pictures",
    "app.exchange", "app.upkeep", "app.commands.chat", "app.commands.doctor", "app.improving",
    "app.commands.adapters", "dialog_mllm.protocol", "dialog_mllm.messages", "dialog_mllm.client", "dialog_mllm.server",
    "dialog_mllm.adapters", "dialog_mllm.switching", "generator.request", "generator.metadata", "generator.errors",
    "datasets_build.storybook.scene", "datasets_build.storybook.reading", "datasets_build.teacher",
)  # fmt: skip


def sources() -> Iterator[Path]:
    for folder in (*PACKAGES, "tests"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def test_bundled_weights_stay_small() -> None:
    """Git keeps every version of them, and every clone fetches them."""
    weights = [path for folder in PACKAGES for path in (ROOT / folder / "weights").rglob("*.safetensors")]
    assert 0 < sum(path.stat().st_size for path in weights) < 100e6


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_point_one_way(package: str) -> None:
    wrong = []
    for path in sorted((ROOT / package).rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        for name in imports(path):
            other = name.split(".")[0]
            if other not in PACKAGES or other == package or other in MAY_IMPORT[package]:
                continue
            if package == "datasets_build" and any(name.startswith(module) for module in DATA_FOR_TRAINING_AND_SERVING):
                continue
            if other == "datasets_build" and place.startswith(COMMAND_LINE):
                continue
            wrong.append(f"{place} imports {name}")
    assert wrong == []


def test_the_product_does_not_import_its_command_line() -> None:
    """Only the command line knows the data builders; the running app must not reach them by a detour."""
    for path in sorted((ROOT / "app").glob("*.py")):
        if not path.relative_to(ROOT).as_posix().startswith((*COMMAND_LINE, "app/cli.py")):
            names = set(imports(path))
            hidden = tuple(place.removesuffix(".py").rstrip("/").replace("/", ".") for place in COMMAND_LINE)
            assert not any(name.startswith(hidden) for name in names), path


def test_no_file_is_long() -> None:
    long = {path.relative_to(ROOT).as_posix(): lines for path in sources() if (lines := count(path)) > LONGEST_FILE}
    assert long == {}


def count(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_every_module_says_what_it_is() -> None:
    silent = [
        path.relative_to(ROOT).as_posix()
        for path in sources()
        if "tests" not in path.parts
        and path.name != "__init__.py"
        and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_light_modules_stay_light() -> None:
    code = "import sys, importlib\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, *LIGHT], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert HEAVY & set(done.stdout.split()) == set()
