from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app import cli
from app.cli import COMMANDS, main
from app.errors import EaselError
from app.profiles import PROFILES


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0
    assert f"easel {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paint"], "no command 'paint'"),
        (["train", "everything"], "no command 'train everything'"),
        (["chat", "--prot", "1"], "unrecognized arguments: --prot"),
        (["chat", "--dat", "x"], "unrecognized arguments: --dat"),
        (["chat", "--port", "eighty"], "'eighty' is no port"),
        (["chat", "--port", "70000"], "'70000' is no port"),
    ],
)
def test_wrong_usage_is_said(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = int(str(stop.code))
    assert status == 2
    assert message in capsys.readouterr().err


def test_an_overview_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["--help"]) == 0
    assert main(["train"]) == 2
    assert "easel train vae" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["chat"], ["draw", "a fox"], ["eval", "image"]])
def test_an_unknown_profile(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--profile", "storyboook"]) == 1
    assert "no profile 'storyboook'. Choose storybook or hunyuan" in capsys.readouterr().err


def test_missing_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text(f'generator = "{tmp_path}/gone"\ndialog = "{tmp_path}/gone"\n')
    assert main(["draw", "a fox", "--profile", str(profile), "-o", str(tmp_path / "fox.png")]) == 1
    assert f"no model folder {tmp_path}/gone" in capsys.readouterr().err
    assert main(["chat", "--profile", str(profile), "--port", "0", "--data-dir", str(tmp_path / "data")]) == 1
    assert "dialog model is missing" in capsys.readouterr().err


def test_draw_takes_what_is_not_named_from_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text("guidance = 2.5\nsteps = 7\nwidth = 96\nheight = 64\n")
    asked: list[Any] = []
    monkeypatch.setattr("generator.draw.run", lambda args, source, profile: asked.append(args) or 0)
    assert main(["draw", "a fox", "--profile", str(profile), "--steps", "9"]) == 0
    assert (asked[0].guidance, asked[0].steps, asked[0].size, asked[0].sampler) == (2.5, 9, (96, 64), "dpmpp")


def test_draw_wears_the_profile_s_lora_or_another_at_its_own_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "style.safetensors").write_bytes(b"some weights")
    profile = tmp_path / "mine.toml"
    profile.write_text('lora = "style.safetensors"\nlora_scale = 0.5\n')
    asked: list[Any] = []
    monkeypatch.setattr(
        "generator.draw.run", lambda args, source, profile: asked.append((args.lora, args.lora_scale)) or 0
    )
    for options in ([], ["--lora-scale", "0.7"], ["--lora", "other"], ["--lora", ""]):
        assert main(["draw", "a fox", "--profile", str(profile), *options]) == 0
    style = str(tmp_path / "style.safetensors")
    assert asked == [(style, 0.5), (style, 0.7), ("other", 1.0), ("", 1.0)]


@pytest.mark.parametrize("part", ["transformer/diffusion_pytorch_model.safetensors", "vae/config.json"])
def test_truncated_weights(part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(PROFILES["storybook"].generator, tmp_path / "weights")
    whole = (tmp_path / "weights" / part).read_bytes()
    (tmp_path / "weights" / part).write_bytes(whole[: len(whole) // 2])
    profile = tmp_path / "mine.toml"
    profile.write_text('base = "storybook"\ngenerator = "weights"\n')
    assert main(["draw", "a fox", "--profile", str(profile), "-o", str(tmp_path / "fox.png")]) == 1
    said = capsys.readouterr().err
    assert Path(part).name in said and "again" in said, said
    assert not (tmp_path / "fox.png").exists()


def test_a_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["chat", "--port", str(port), "--data-dir", str(tmp_path)]) == 1
    assert f"Port {port} is in use" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_results_and_errors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: Any) -> dict[str, Any]:
        if args.fail:
            raise EaselError("Not today.")
        return {"n": 3, "by": {"en": 0.5}}

    module = SimpleNamespace(add_arguments=lambda parser: parser.add_argument("--fail", action="store_true"), run=run)
    monkeypatch.setattr(cli, "import_module", lambda name: module)
    assert main(["eval", "chat", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"n": 3, "by": {"en": 0.5}}
    assert main(["eval", "chat"]) == 0
    assert "n   3" in capsys.readouterr().out
    assert main(["eval", "chat", "--fail"]) == 1
    assert capsys.readouterr().err == "easel eval chat: Not today.\n"


def test_the_command_line_is_light() -> None:
    """Nothing heavy before a command is chosen, nor for the help of the commonest one."""
    code = (
        "import sys, app.cli\n"
        "try: app.cli.main(['chat', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'gradio', 'vllm', 'transformers', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
