"""Settings: flags over the environment over the file, and each mistake named with its place."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from app import cli, config
from app.commands import chat
from app.config import data_dir_of
from app.errors import EaselError


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    chat.add_arguments(parser)
    return config.parse(parser, arguments)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_flags_over_environment_over_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    args = parse()
    assert (args.port, args.log_format, args.allow_host, args.data_dir) == (7860, "text", [], None)
    assert set(args.origins.values()) == {"default"}
    file = write(
        tmp_path / "easel" / "config.toml",
        'port = 1\nhost = "::"\nlog-format = "json"\nstop_timeout = 2.5\nallow-host = ["a", "b"]\ndata-dir = "/d"\n',
    )
    monkeypatch.setenv("EASEL_PORT", "2")
    monkeypatch.setenv("EASEL_LOG_FORMAT", "text")
    monkeypatch.setenv("EASEL_ALLOW_ORIGIN", "http://a http://b")
    args = parse("--port", "3")
    assert (args.port, args.log_format, args.host, args.stop_timeout) == (3, "text", "::", 2.5)
    assert (args.allow_host, args.allow_origin) == (["a", "b"], ["http://a", "http://b"])
    assert args.data_dir == Path("/d")
    origins = args.origins
    assert [origins[name] for name in ("port", "log_format", "host", "profile")] == [
        "flag", "environment", str(file), "default",
    ]  # fmt: skip
    other = write(tmp_path / "other.toml", "port = 9\n")
    monkeypatch.delenv("EASEL_PORT")
    assert (parse("--config", str(other)).port, parse().port) == (9, 1)
    monkeypatch.setenv("EASEL_CONFIG", str(other))
    assert parse().port == 9


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colour = 1", "unknown settings colour. There are allow-host,"),
        ("port = 'many'", "port: 'many' is no port"),
        ("port = true", "port must be a text or a number"),
        ("log-format = 'xml'", "log-format must be text or json; got 'xml'"),
        ("allow-host = 'a'", r"allow-host must be a list"),
        ("port = ", "cannot be read"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, says: str) -> None:
    file = write(tmp_path / "c.toml", text)
    with pytest.raises(EaselError, match=says) as error:
        parse("--config", str(file))
    assert str(file) in str(error.value)


def test_mistakes_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(EaselError, match="There is no configuration file"):
        parse("--config", str(tmp_path / "none.toml"))
    monkeypatch.setenv("EASEL_STOP_TIMEOUT", "soon")
    with pytest.raises(EaselError, match="EASEL_STOP_TIMEOUT: 'soon' is no time"):
        parse()


def test_commands_beside_the_chat_find_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nowhere = argparse.Namespace(data_dir=None)
    monkeypatch.setenv("EASEL_DATA", str(tmp_path / "old"))
    assert data_dir_of(nowhere) == tmp_path / "old"
    (tmp_path / "config.toml").write_text(f"data_dir = '{tmp_path / 'file'}'\n")
    monkeypatch.setenv("EASEL_CONFIG", str(tmp_path / "config.toml"))
    assert data_dir_of(nowhere) == tmp_path / "file"
    monkeypatch.setenv("EASEL_DATA_DIR", str(tmp_path / "environment"))
    assert data_dir_of(nowhere) == tmp_path / "environment"
    assert data_dir_of(argparse.Namespace(data_dir=tmp_path / "flag")) == tmp_path / "flag"


def test_what_holds_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("EASEL_MLLM_KEY", "sesame")
    assert cli.main(["config", "--port", "1234"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("port ")).split() == ["port", "1234", "flag"]
    assert next(line for line in lines if line.startswith("mllm-key")).split() == ["mllm-key", "•••", "environment"]
    assert cli.main(["config", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["port"] == {"value": "7860", "from": "default"}
    assert "sesame" not in json.dumps(found) and "sesame" not in "".join(lines)
    monkeypatch.setenv("EASEL_PORT", "x")
    assert cli.main(["config"]) == 1
    assert "EASEL_PORT: 'x' is no port" in capsys.readouterr().err
