"""Work on chunks of a run's records, in this process, in several, or on a Ray cluster: in order, and only so far ahead
of whoever takes the results that memory stays as it is.

    with workers(make, 2) as work_through:
        for line in work_through(range(0, 20000)): ...
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

from datasets_build.shards import BuildError

CHUNK = 32  # records that a worker makes at a time
AHEAD = 3  # chunks for each worker that are made or waiting
RAY_BLOCK = 256  # records of one task of Ray's

Make = Callable[[Sequence[int]], list[bytes]]  # the records' numbers -> their lines
Mapped = Callable[[range], Iterator[bytes]]


@contextlib.contextmanager
def workers(make: Make, number: int, ray: str | None = None) -> Generator[Mapped]:
    """`ray` is a cluster's address, "auto" or "local", where that is to be Ray's work."""
    if ray is not None:
        with _ray(ray, number):
            yield lambda numbers: _over_ray(make, numbers)
    elif number == 1:
        yield lambda numbers: (line for chunk in _chunks(numbers) for line in make(chunk))
    else:
        pool = ProcessPoolExecutor(number, multiprocessing.get_context("spawn"), _follow_parent)
        try:
            yield lambda numbers: _over_processes(pool, make, numbers, AHEAD * number)
        except BrokenProcessPool as error:
            raise BuildError(
                "a worker died, most likely for want of memory. Run the same command again with fewer --workers: the "
                "finished shards are kept."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _chunks(numbers: range) -> Iterator[range]:
    return (numbers[start : start + CHUNK] for start in range(0, len(numbers), CHUNK))


def _over_processes(pool: ProcessPoolExecutor, make: Make, numbers: range, ahead: int) -> Iterator[bytes]:
    chunks = _chunks(numbers)
    waiting = deque(pool.submit(make, chunk) for chunk in islice(chunks, ahead))
    while waiting:
        lines = waiting.popleft().result()
        waiting.extend(pool.submit(make, chunk) for chunk in islice(chunks, 1))
        yield from lines


def _follow_parent() -> None:
    """A worker ends when its parent does, also by a kill; Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def _ray(address: str, number: int) -> Generator[None]:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise BuildError("--ray needs Ray: pip install 'ray[data]', or leave --ray out") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        cpus = number if address == "local" else None
        ray.init(address, num_cpus=cpus, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise BuildError(f"there is no Ray cluster at {address} ({error}): start one, or say --ray local") from error
    try:
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        yield
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else BuildError(str(error)) from error
    except ray.exceptions.RayError as error:
        raise BuildError(f"Ray gave up ({error}). The finished shards are kept: run the same command again") from error
    finally:
        ray.shutdown()


def _over_ray(make: Make, numbers: range) -> Iterator[bytes]:
    import ray.data

    def work(batch: Any) -> Any:
        import pyarrow

        return pyarrow.table({"line": make([int(number) + numbers.start for number in batch["id"]])})

    blocks = -(-len(numbers) // RAY_BLOCK)
    rows = ray.data.range(len(numbers), override_num_blocks=blocks)
    for row in rows.map_batches(work, batch_size=CHUNK).iter_rows():
        yield row["line"]
