"""What Easel itself costs, beside its models: how soon its page is there, and what a turn takes without them.

    python -m tests.app.bench_shell --turns 50       # prints a table, then one JSON line

The page: from the start of `easel chat`, models and all, until Chromium's page takes input; the models go on loading.
A turn: through HTTP and the store, with fake models that answer at once, so that all of its time is Easel's own.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from app.profiles import PROFILES
from app.serve import build_app
from app.store import Store
from generator.request import DrawRequest
from tests.app import fakes
from tests.app.browser import open_browser, open_page, serving

NOISE = Image.effect_noise((256, 256), 64).convert("RGB")  # costs a PNG what a picture does


class InstantGenerator(fakes.FakeGenerator):
    def submit(self, request: DrawRequest, on_progress: Any = None) -> fakes.FakeJob:
        job = fakes.FakeJob()
        job.future.set_result(fakes.FakeDrawing(NOISE, request, {"total": 0.0}))
        return job


def start(folder: Path) -> dict[str, float]:
    """Seconds from the start of the process, of its first page alone, and of one more while the models still load."""
    with open_browser() as browser:
        page = browser.new_page()
        began = time.perf_counter()
        command = [sys.executable, "-m", "app.cli", "chat", "--port", "0", "--data-dir", str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                url = re.search(r"http://\S+", process.stdout.readline())
                assert url is not None, "easel chat did not start"
                listening = time.perf_counter() - began
                open_page(page, url[0])
                interactive = time.perf_counter() - began
                again = time.perf_counter()
                second = open_page(browser.new_page(), url[0])
                again = time.perf_counter() - again
                status = second.evaluate("document.querySelector('#status').dataset.state")
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(60)
    return {
        "listening_s": listening, "interactive_s": interactive, "page_s": interactive - listening,
        "second_page_s": again, "while_warming": status == "warming up",
    }  # fmt: skip


def turns(folder: Path, number: int) -> dict[str, float]:
    """Median milliseconds of a turn in words and of one that draws."""
    store = Store(folder)
    models = fakes.FakeModels(generator=InstantGenerator())
    found = {}
    with serving(build_app(PROFILES["storybook"], store, models)) as url, httpx.Client(trust_env=False) as client:  # type: ignore[arg-type]
        for name, text in (("words", "hello"), ("drawn", "draw a fox")):
            took = []
            for count in range(number):
                body = {"messages": [{"role": "user", "content": f"{text} {count}"}]}
                began = time.perf_counter()
                client.post(f"{url}/v1/chat/completions", json=body).raise_for_status()
                took.append(1000 * (time.perf_counter() - began))
            found[f"turn_{name}_median_ms"] = statistics.median(took)
            found[f"turn_{name}_p95_ms"] = statistics.quantiles(took, n=20)[-1]
    store.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="what Easel itself costs")
    parser.add_argument("--turns", type=int, default=50, help="of each kind (%(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="easel-bench-") as folder:
        found = {**turns(Path(folder) / "turns", args.turns), **start(Path(folder) / "start")}
    found = {name: round(value, 3) if isinstance(value, float) else value for name, value in found.items()}
    for name, value in found.items():
        print(f"{name:22}  {value}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
