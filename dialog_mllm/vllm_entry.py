"""vLLM's API server, whose engine is a fork of it on CPUs.

    python -P dialog_mllm/vllm_entry.py --model MODEL --port 8000

The engine is a process of its own. On CPUs vLLM starts that one from nothing, and everything is imported a second time:
7 of the 17 seconds that a small model takes to be served on two cores. What makes a fork unsafe there are OpenMP's
threads, which it does not inherit: so the server has none, and the engine makes its own.
"""

from __future__ import annotations

import multiprocessing.context
import os
import runpy

THREADS = os.environ.get("OMP_NUM_THREADS", "1")  # the engine's


class EngineProcess(multiprocessing.context.ForkProcess):
    def run(self) -> None:
        _take_threads()
        super().run()


class EngineContext(multiprocessing.context.ForkContext):
    Process = EngineProcess


def _take_threads() -> None:
    import torch

    os.environ["OMP_NUM_THREADS"] = THREADS
    torch.set_num_threads(int(THREADS))


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is there
    import vllm.v1.engine.core  # noqa: F401  # before the fork
    from vllm.platforms import current_platform
    from vllm.v1.engine import utils

    if current_platform.is_cpu():
        utils.get_mp_context = EngineContext
    else:
        _take_threads()
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")


if __name__ == "__main__":
    main()
