"""Runs one command and takes all its processes down when the command, or the process that started us, is gone.

    python -I dialog_mllm/launcher.py COMMAND ...     # stdin must be a pipe that the parent keeps open

vLLM needs this: killed hard, its API server leaves its engine processes behind for good, and so would an app that is
killed hard. The launcher is small enough to survive both, and cleans up. The parent's death shows as the end of our
stdin (and as a new parent, should a forked child have inherited the pipe). If the launcher itself is killed, the
kernel tells the command to stop (PR_SET_PDEATHSIG). Standard library only; Linux, other systems get the pipe alone.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

GRACE = 8.0  # seconds from SIGTERM to SIGKILL
TRACKERS_GRACE = 3.0  # seconds for multiprocessing's trackers to clean up, once the rest is gone
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> int:
    parent = os.getppid()
    on_linux = sys.platform == "linux"
    prctl = ctypes.CDLL(None, use_errno=True).prctl if on_linux else None
    if prctl:
        prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans of the command come to us, wherever they hide
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # its own group: one signal reaches all of it, Ctrl-C in the terminal none
        preexec_fn=(lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)) if prctl else None,
    )
    asked: int = signal.SIGTERM
    try:
        while child.poll() is None and os.getppid() == parent:
            readable, _, _ = select.select([sys.stdin], [], [], 0.5)
            if readable and not os.read(sys.stdin.fileno(), 64):
                break
    except _Stopped as stopped:
        asked = stopped.number
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _clean_up(child, asked)
    status = child.wait()
    return status if status >= 0 else 128 - status


class _Stopped(Exception):
    def __init__(self, number: int) -> None:
        self.number = number


def _stop(number: int, frame: object) -> None:
    raise _Stopped(number)


def _clean_up(child: subprocess.Popen, number: int) -> None:
    """The signal that we got to the group, SIGKILL to it and to strays after the grace, until no child is left."""
    ended = child.poll() is not None  # a command that ended by itself has had its chance
    if not ended:
        _signal_group(child.pid, number)
    deadline = time.monotonic() + (0.0 if ended else GRACE)
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    take_down(child.pid)
    while True:
        _signal_group(child.pid, signal.SIGKILL)
        for stray in _children():
            if stray != child.pid:
                _signal(stray, signal.SIGKILL)
        child.poll()
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.05)


def take_down(group: int) -> None:
    """SIGKILL to all of a group, last to multiprocessing's trackers."""
    deadline = time.monotonic() + TRACKERS_GRACE
    while _kill_all_but_trackers(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    _signal_group(group, signal.SIGKILL)


def _kill_all_but_trackers(group: int) -> bool:
    """Whether a tracker of multiprocessing is left in the group: once the others are gone, it takes away the semaphores
    that they leave in shared memory, and ends."""
    left = False
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            if os.getpgid(pid) != group:
                continue
            if b"multiprocessing.resource_tracker" in (folder / "cmdline").read_bytes():
                left = True
            else:
                os.kill(pid, signal.SIGKILL)
        except OSError:  # it has ended
            continue
    return left


def _children() -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
