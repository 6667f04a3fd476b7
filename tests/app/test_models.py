"""A profile of one's own with another image model: loaded, warmed up and drawn with, or refused at the start."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from diffusers import PNDMScheduler
from PIL import Image

from app.cli import main
from app.models import FAILED, READY, DialogModel, GeneratorModel
from app.profiles import load_profile
from tests.generator.tiny_backbones import make_folder
from tests.waiting import wait_until

PROFILE = """
generator = "./model"
width = 64
height = 48
steps = 3
guidance = 2.0
"""
NO_EDITS = "edit_reuse = 0.0\nedit_threshold = 0.0\nupload_reuse = 0.0\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profile")
    make_folder("PixArt-alpha", folder / "model")
    (folder / "mine.toml").write_text(PROFILE + NO_EDITS)
    return folder


def started(path: Path) -> GeneratorModel:
    model = GeneratorModel(load_profile(str(path)))
    model.start()
    assert model._settled.wait(60)
    model.stop()
    return model


def test_another_model_warms_up(folder: Path) -> None:
    model = started(folder / "mine.toml")
    assert (model.state, model.error) == (READY, "")


def test_a_sampler_that_needs_more_steps_warms_up(folder: Path) -> None:
    shutil.copytree(folder / "model", folder / "pndm")
    PNDMScheduler().save_pretrained(folder / "pndm" / "scheduler")
    text = (folder / "mine.toml").read_text().replace("./model", "./pndm").replace("steps = 3", "steps = 5")
    (folder / "pndm.toml").write_text(text)
    assert started(folder / "pndm.toml").error == ""


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("edit_threshold = 0.0\nupload_reuse = 0.0\nedit_reuse = 0.3\n", "edit_reuse"),
        ("edit_threshold = 0.0\nedit_reuse = 0.0\n", "upload_reuse to 0"),
        (NO_EDITS + 'sampler = "ddim"\n', "a sampler of its own"),
    ],
)
def test_what_it_cannot_do_is_said_at_the_start(folder: Path, more: str, message: str) -> None:
    (folder / "wrong.toml").write_text(PROFILE + more)
    model = started(folder / "wrong.toml")
    assert model.state == FAILED and message in model.error


def test_easel_draw_with_another_model(folder: Path) -> None:
    output = folder / "fox.png"
    assert main(["draw", "a red fox", "-o", str(output), "--profile", str(folder / "mine.toml")]) == 0
    assert Image.open(output).size == (64, 48)


class Tokenizer(BaseHTTPRequestHandler):
    """Of a dialog model that has no draw token: all that the protocol check asks it."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = b'{"tokens": [1, 2]}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def test_a_dialog_model_elsewhere_may_come_later(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("app.models.CHECK_AGAIN", 0.05)
    with ThreadingHTTPServer(("127.0.0.1", 0), Tokenizer) as elsewhere:
        port = elsewhere.server_port
    model = DialogModel(replace(load_profile("storybook"), mllm_url=f"http://127.0.0.1:{port}/v1"), tmp_path)
    model.start()
    try:
        wait_until(lambda: model.state == FAILED)
        assert "cannot be reached" in model.error
        with ThreadingHTTPServer(("127.0.0.1", port), Tokenizer) as elsewhere:
            threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
            wait_until(lambda: model.state == READY)
            elsewhere.shutdown()
        assert model.error == ""
    finally:
        model.stop()
