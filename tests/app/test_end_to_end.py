"""The whole of Easel with its real models: `easel chat` as a user starts it, a browser, and OpenAI's own client.

Decisions, refined prompts, seeds and processes are checked here. Whether a picture shows what its prompt asks for is
not: `easel eval image` and `easel eval chat` measure that, and people look at the screenshots ($EASEL_SCREENSHOTS).
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from app.profiles import PROFILES
from generator.inspector import Inspector
from tests.app.browser import open_browser, open_page, say
from tests.generator.tiny import make_folder
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
STORYBOOK = PROFILES["storybook"]
ROOT = Path(__file__).resolve().parents[2]


def descendants(pid: int) -> set[int]:
    """All processes that a process started, and those that they started."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found |= new
    return found


@contextlib.contextmanager
def easel_chat(data_dir: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "app.cli", "chat", "--port", str(port), "--data-dir", str(data_dir)]
    command += options
    process = subprocess.Popen(command)
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()


def wait_for(url: str, status: str, patience: float = 600) -> None:
    deadline = time.monotonic() + patience
    seen: Any = None
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            seen = httpx.get(f"{url}/health", trust_env=False, timeout=20).json()
            if seen["status"] == status:
                return
            assert seen["status"] != "failed", seen
        time.sleep(0.3)
    raise AssertionError(f"not {status} after {patience} s: {seen}")


@pytest.fixture(scope="module")
def easel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for folder in (STORYBOOK.generator, STORYBOOK.dialog):
        assert Path(folder).is_dir(), f"the bundled weights are not there: {folder}"
    with easel_chat(tmp_path_factory.mktemp("easel")) as (url, _):
        wait_for(url, "ready")
        yield url


def test_the_dialogue(easel: str, tmp_path: Path) -> None:
    """Talk, draw, edit, look, edit, edit in Chinese, thank, and ask for what the world does not hold."""
    shots = Path(os.environ.get("EASEL_SCREENSHOTS", tmp_path))
    with open_browser() as browser, browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = open_page(context.new_page(), easel)
        pictures = page.locator("#chat .easel-picture img")

        def prompt() -> str:
            return page.locator(".easel-words").last.text_content() or ""

        assert say(page, "hello, who are you?").strip()
        expect(pictures).to_have_count(0)
        say(page, "draw a red fox in the snow")
        expect(pictures).to_have_count(1)
        assert re.search("red fox.*snow", prompt())
        page.screenshot(path=shots / "fox.png")
        say(page, "give it a blue scarf")
        expect(pictures).to_have_count(2)
        assert re.search("red fox.*blue scarf.*snow", prompt())
        page.screenshot(path=shots / "scarf.png")
        assert "blue" in say(page, "what colour is its scarf?").lower()
        expect(pictures).to_have_count(2)
        say(page, "now make it night")
        expect(pictures).to_have_count(3)
        assert "night" in prompt()
        say(page, "换成水彩风格")
        expect(pictures).to_have_count(4)
        assert re.search("watercolou?r|水彩", prompt())
        page.screenshot(path=shots / "watercolour.png")
        assert say(page, "thanks!").strip()
        refusal = say(page, "draw a photo of my boss")
        expect(pictures).to_have_count(4)
        assert len(refusal) > 20
        page.screenshot(path=shots / "dialogue.png")


def test_the_stock_client_draws_and_edits(easel: str) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=f"{easel}/v1", api_key="none")
    messages: list[Any] = [{"role": "user", "content": "draw a red fox in the snow"}]
    prompts, seeds = [], []
    for more in ("give it a blue scarf", None):
        answer = client.chat.completions.create(model="easel", messages=messages)
        extra = answer.model_extra["easel"]  # type: ignore[index]
        prompts.append(extra["prompt"])
        seeds.append(extra["seed"])
        messages.append({"role": "assistant", "content": answer.choices[0].message.content})
        messages.append({"role": "user", "content": more})
    assert "red fox" in prompts[0]
    assert "blue scarf" in prompts[1]
    assert seeds[0] == seeds[1]
    parts = [chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(
        model="easel", messages=[{"role": "user", "content": "hello, who are you?"}], stream=True)]  # fmt: skip
    assert "".join(parts).strip()
    assert client.models.list().data[0].id == "easel"
    fox = "A flat picture of a red fox, in the snow by day."
    for width, height in ((128, 128), (256, 192), (192, 256)):
        size: Any = f"{width}x{height}"
        drawn: Any = client.images.generate(prompt=fox, size=size, n=1, response_format="b64_json")
        picture = Image.open(io.BytesIO(base64.b64decode(drawn.data[0].b64_json)))
        (seen,) = Inspector.load().read([picture])
        assert picture.size == (width, height)
        assert [(subject["kind"], subject["colour"]) for subject in seen["subjects"]] == [("fox", "red")]


def test_two_conversations_at_once_get_what_they_get_alone(easel: str) -> None:
    def draw(said: str) -> np.ndarray[Any, Any]:
        body = {"messages": [{"role": "user", "content": said}]}
        answer = httpx.post(f"{easel}/v1/chat/completions", json=body, timeout=300, trust_env=False).json()
        url = answer["choices"][0]["message"]["images"][0]["image_url"]["url"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))), dtype=np.int16)

    wishes = ["draw a red fox in the snow", "draw a blue robot in the city"]
    alone = [draw(wish) for wish in wishes]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(draw, wishes))
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one - other).max() <= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_no_process(easel: str, tmp_path: Path, number: signal.Signals) -> None:
    """The page is up while the models start; and a signal ends everything, also then."""
    with easel_chat(tmp_path) as (url, process):
        wait_for(url, "warming up", 120)
        assert httpx.get(url, trust_env=False, timeout=60).status_code == 200
        children = descendants(process.pid)
        assert children  # vLLM is starting
        process.send_signal(number)
        assert process.wait(60) == 0
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 20, children)


def test_a_profile_of_one_s_own_with_a_generator_in_the_official_layout(tmp_path: Path) -> None:
    make_folder(tmp_path / "tiny")
    profile = tmp_path / "mine.toml"
    profile.write_text('name = "mine"\ngenerator = "tiny"\nwidth = 64\nheight = 64\nsteps = 6\n')
    drawn = subprocess.run(
        [sys.executable, "-m", "app.cli", "draw", "a red fox", "-o", "fox.png", "--profile", profile],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert drawn.returncode == 0, drawn.stderr
    picture = Image.open(tmp_path / "fox.png")
    assert picture.size == (64, 64) and picture.info["steps"] == "6"
    with easel_chat(tmp_path / "data", "--profile", str(profile)) as (url, _):
        wait_for(url, "ready")
        messages = [{"role": "user", "content": "draw a red fox in the snow"}]
        answer = httpx.post(f"{url}/v1/chat/completions", json={"messages": messages}, timeout=300, trust_env=False)
        reply = answer.json()
        message = reply["choices"][0]["message"]
        data = message["images"][0]["image_url"]["url"].partition(",")[2]
        assert "red fox" in reply["easel"]["prompt"]
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (64, 64)
