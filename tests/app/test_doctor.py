"""`easel doctor`: every finding that there is, on machines that are made up, and this machine as it is."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from app.commands import doctor
from app.commands.doctor import GB, Check
from app.profiles import PROFILES

STORYBOOK = PROFILES["storybook"]
FACTS = {"version": "2.13.0+cpu", "threads": 64, "cpu": "float32", "gpu": None, "gpu_memory": None}


@pytest.mark.slow
def test_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tests run on it, so Easel does; its memory and its ports are its own affair."""
    status = main(["doctor", "--data-dir", str(tmp_path / "data"), "--port", "0", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    states = {check["name"]: check["state"] for check in result["checks"]}
    assert status == int(not result["ready"])
    for name in ("Python", "torch", "vLLM", "data folder", "port", "generator", "dialog model"):
        assert states[name] in ("ok", "warn"), result
    assert not (tmp_path / "data").exists()


def test_lines_and_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    checks = [Check("Python", "ok", "3.11"), Check("memory", "warn", "3 GB", "Close programs.")]
    monkeypatch.setattr(doctor, "examine", lambda *_: checks)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["ok    Python  3.11", "warn  memory  3 GB", "              → Close programs."]
    assert lines[-1].startswith("Ready")
    checks.append(Check("disk", "fail", "full", "Free some."))
    assert main(["doctor"]) == 1
    assert "fail  disk    full" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ready"] is False
    assert main(["doctor", "--profile", "nothing"]) == 1
    assert "no profile 'nothing'" in capsys.readouterr().err


def test_an_old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 2))
    assert doctor.python().state == "fail" and "3.11 or newer" in doctor.python().advice
    monkeypatch.setattr(doctor.sys, "version_info", (3, 12, 0))
    monkeypatch.setattr(doctor.sqlite3, "sqlite_version_info", (3, 22, 0))
    assert "SQLite is too old" in doctor.python().advice


def test_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    versions: dict[str, str] = {"pillow": "12.0.0", "torch": "2.13.0+cpu", "yarl": "1.0"}
    monkeypatch.setattr(doctor, "_version", versions.get)
    monkeypatch.setattr(doctor, "_nvidia", lambda: False)
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda _: ["pillow>=11", 'ruff; extra == "dev"'])
    (tmp_path / "cpu.txt").write_text("# pins\npillow==12.0.0\nyarl==1.0\n")
    (tmp_path / "torch.txt").write_text("torch==2.13.0+cpu\n")
    assert doctor.packages(tmp_path) == Check("packages", "ok", "3 as required")
    versions["yarl"] = "2.0"
    found = doctor.packages(tmp_path)
    assert (found.state, found.found) == ("warn", "not as pinned: yarl 2.0 (==1.0)")
    versions["torchvision"] = "0.28.0"
    assert "pip uninstall torchvision" in doctor.packages(tmp_path).advice
    del versions["pillow"]
    found = doctor.packages(tmp_path)
    assert (found.state, found.found, found.advice) == ("fail", "pillow missing (>=11)", "Run `make setup`.")
    versions["pillow"] = "9.0"
    assert doctor.packages(tmp_path).state == "fail"
    versions["pillow"] = "12.0.0"
    assert doctor.packages(tmp_path / "none").state == "fail"  # torchvision still breaks it, without any pins


@pytest.mark.parametrize(
    ("changes", "states"),
    [
        ({}, {"torch": "ok"}),
        ({"threads": 0}, {"torch": "warn"}),
        ({"gpu": "H100", "gpu_memory": 80 * GB, "threads": 0}, {"torch": "ok", "GPU": "ok"}),
    ],
)
def test_torch(changes: dict[str, Any], states: dict[str, str]) -> None:
    assert {c.name: c.state for c in doctor.torch_and_gpu({**FACTS, **changes}, STORYBOOK)} == states


def test_torch_and_vllm_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    (check,) = doctor.torch_and_gpu("cannot be imported: no module named torch", STORYBOOK)
    assert (check.state, check.advice) == ("fail", "Run `make setup`.")
    (_, gpu) = doctor.torch_and_gpu(FACTS, PROFILES["hunyuan"])
    assert (gpu.name, gpu.state) == ("GPU", "warn")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (check,) = doctor.torch_and_gpu({**FACTS, "threads": 0}, STORYBOOK)
    assert "OMP_NUM_THREADS is 1: unset it" in check.advice
    assert "--mllm-url" in doctor.serving("cannot be imported: x").advice
    assert doctor.serving({"version": "1", "device": ""}).state == "fail"
    assert doctor.serving({"version": "1", "device": "cpu"}) == Check("vLLM", "ok", "1 for cpu")
    without = doctor.serving("ModuleNotFoundError: No module named 'vllm'")
    assert without.state == "warn" and "transformers serves the dialog model instead" in without.advice


def test_facts_of_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._facts("print('noise'); print('{\"a\": 1}')") == {"a": 1}
    assert doctor._facts("import nothing_of_the_kind") == (
        "cannot be imported: ModuleNotFoundError: No module named 'nothing_of_the_kind'"
    )
    assert "status -4" in doctor._facts("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    monkeypatch.setattr(doctor, "PATIENCE", 0.1)
    assert "not imported within" in doctor._facts("import time; time.sleep(30)")


@pytest.mark.parametrize(("free", "state"), [(None, "warn"), (GB, "fail"), (3 * GB, "warn"), (8 * GB, "ok")])
def test_memory(free: int | None, state: str) -> None:
    assert doctor.memory(free).state == state


def test_memory_of_a_container(tmp_path: Path) -> None:
    assert doctor.available_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   8388608 kB\n")
    assert doctor.available_memory(tmp_path) == 8 * GB
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text(f"{3 * GB}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {GB}\n")
    (group / "memory.max").write_text("max\n")
    assert doctor.available_memory(tmp_path) == 8 * GB
    (group / "memory.max").write_text(f"{4 * GB}\n")
    assert doctor.available_memory(tmp_path) == 2 * GB


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert next(doctor.disk(tmp_path / "a" / "b")).state == "ok"
    for free, state in ((10 * GB, "ok"), (GB // 2, "warn"), (100, "fail")):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _, free=free: type("Usage", (), {"free": free})())
        assert [check.state for check in doctor.disk(tmp_path)] == ["ok", state]
    (tmp_path / "file").write_text("")
    (check,) = doctor.disk(tmp_path / "file" / "data")
    assert check.state == "fail" and "--data-dir" in check.advice


def test_ports() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        check = doctor.free_port(port)
    assert check.state == "warn" and f"--port {port + 1}" in check.advice
    assert doctor.free_port(port).state == "ok"
    assert doctor.free_port(70_000).state == "fail"


def test_weights(tmp_path: Path) -> None:
    folder = tmp_path / "vae"
    shutil.copytree(Path(STORYBOOK.generator) / "vae", folder)
    assert doctor.weights("generator", str(folder)).state == "ok"
    tensors = folder / "diffusion_pytorch_model.safetensors"
    whole = tensors.read_bytes()
    for data, message in (
        (whole[:-1], "bytes of"), (whole + b"x", "bytes of"), (whole[:100], "cannot be read"),
        (b"\xff" * 100, "damaged, or it is truncated"), (b"", "cannot be read"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
    ):  # fmt: skip
        tensors.write_bytes(data)
        check = doctor.weights("generator", str(folder))
        assert check.state == "fail" and message in check.found and tensors.name in check.found, check
    tensors.write_bytes(whole)
    (folder / "config.json").write_text("{")
    assert "config.json cannot be read" in doctor.weights("generator", str(folder)).found
    for gone in (tmp_path / "nothing", tmp_path / "vae" / "config.json"):
        assert "holds no weights" in doctor.weights("generator", str(gone)).found


def test_weights_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert doctor.weights("generator", "somebody/model").state == "warn"
    (tmp_path / "models--somebody--model" / "snapshots" / "abc").mkdir(parents=True)
    assert doctor.weights("generator", "somebody/model").state == "ok"


def test_a_dialog_model_elsewhere_needs_neither_vllm_nor_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_facts", lambda code: "not here")
    elsewhere = replace(STORYBOOK, mllm_url="http://127.0.0.1:1/v1")
    names = [check.name for check in doctor.examine(elsewhere, tmp_path, 0)]
    assert "generator" in names and not {"vLLM", "dialog model", "adapter"} & set(names)
