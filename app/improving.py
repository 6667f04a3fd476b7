"""A better dialog model from what users thought of its replies: data, training, before and after, then a decision.

    improver = Improver(folder, store, profile, dialog)
    improver.start(RunSize(minutes=5)); improver.look().state; improver.activate(); improver.discard()

A run is a folder, and every stage of it a command that anybody can give by hand (RUN/log.txt holds each): `easel data
feedback` of a snapshot of the ratings, `easel data mix` for ordinary dialogues that are learnt again so that nothing is
forgotten and for held-out ones, `easel finetune` from the adapter that was served, and `easel eval dialog` through the
running vLLM, of both adapters. The commands run one after the other, at the lowest priority, and die with the app. A
run that was stopped, or that the app was stopped in, goes on where it was.
"""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from app.database import FILE, SQLITE
from app.errors import EaselError, InputRefused, StoreError
from app.models import FRESH_RANK, READY, WARMING
from app.profiles import Profile
from app.store import Store
from dialog_mllm import launcher
from dialog_mllm.adapters import ORIGINAL
from dialog_mllm.comparison import compare, read_verdicts
from dialog_mllm.errors import DialogError
from dialog_mllm.records import DataError, split_files
from dialog_mllm.switching import LiveAdapters

State = Literal["running", "stopped", "interrupted", "failed", "measured", "activated", "discarded"]
STAGES = ("feedback", "replay", "finetune", "compare")  # as people see them
OPEN = ("stopped", "interrupted", "failed")  # may go on
HELD_OUT = (
    "switch_accuracy",
    "prompt_correct",
    "question_accuracy",
)  # what is measured on dialogues nobody learnt from
LEARNT = ("switch_accuracy", "prompt_exact")  # and on the feedback itself
# Ordinary dialogues in the shares that the bundled adapter was made from.
SHARES = "o=12,p=11,pm=6,tt=46,n=25"
VALIDATION = 200  # dialogues that the best adapter of the training is chosen by
FEEDBACK_SHARE = 0.2  # of what is learnt, where there is enough of it …
MOST_REPEATS = 20  # … for nothing is shown more often than that in a round
CONCURRENCY = 4  # turns that are asked for at once: the chat goes on beside them
EASEL = (sys.executable, "-P", "-m", "app.cli")
ADAPTERS = "adapters"  # folder beneath the data folder, for the versions; see dialog_mllm/adapters.py
KEY = "EASEL_DIALOG_KEY"  # environment variable of the commands
SEED = 1000  # of the first run's data; each run has data of its own

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSize:
    minutes: float = 5.0  # of training at most
    epochs: float = 3.0  # rounds at most
    replay: int = 1200  # ordinary dialogues that are learnt beside the feedback
    held_out: int = 150  # dialogues that both adapters are asked

    def __post_init__(self) -> None:
        limits = {"minutes": (0.01, 1440), "epochs": (0.01, 100), "replay": (1, 1_000_000), "held_out": (1, 100_000)}
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            whole = name in ("replay", "held_out")
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise InputRefused(f"{name} must be a {'whole ' if whole else ''}number; got {value!r}.")
            if not least <= value <= most:
                raise InputRefused(f"{name} must lie from {least} to {most:,}; got {value}.")


@dataclass
class Run:
    """RUN/run.json."""

    number: int
    size: RunSize
    parent: str  # the adapter that it starts from
    created: float
    state: State = "running"
    done: list[str] = field(default_factory=list)  # steps that are complete
    feedback: dict[str, Any] = field(default_factory=dict)  # what `easel data feedback` found
    version: str = ""  # the adapter that it made
    scores: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    worse: list[str] = field(default_factory=list)
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Run:
        known = {one.name for one in fields(cls)}
        return cls(**{**{key: values[key] for key in known & set(values)}, "size": RunSize(**values["size"])})

    @property
    def stage(self) -> str:
        """What it is at, of STAGES."""
        return next((stage for step, stage in _STEPS.items() if step not in self.done), STAGES[-1])


# In order, and where people see each.
_STEPS = {
    "feedback": "feedback", "train": "replay", "validation": "replay", "test": "replay", "finetune": "finetune",
    "version": "finetune", "before": "compare", "after": "compare", "feedback_before": "compare",
    "feedback_after": "compare", "scores": "compare",
}  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """RUN/finetune/curve.csv, as far as it goes."""

    train: tuple[tuple[float, float], ...] = ()  # (minutes, loss)
    validation: tuple[tuple[float, float], ...] = ()
    switch_accuracy: tuple[tuple[float, float], ...] = ()
    steps: int = 0
    minutes: float = 0.0


class Dialog(Protocol):
    """What is needed of the dialog model."""

    @property
    def live(self) -> LiveAdapters | None: ...
    @property
    def state(self) -> str: ...
    @property
    def error(self) -> str: ...
    @property
    def server(self) -> tuple[str, str]: ...  # address and key of the running vLLM


class Improver:
    """At most one run at a time, and at most one that waits for a decision. Raises EaselError and DialogError."""

    def __init__(
        self, folder: Path, store: Store, profile: Profile, dialog: Dialog, command: Sequence[str] | None = None
    ) -> None:
        self.folder = folder.absolute()  # the commands run in it
        self._store = store
        self._profile = profile
        self._dialog = dialog
        self._command = command or EASEL
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._closing = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._run = self._newest()
        if self._run is not None and self._run.state == "running":
            self._end(self._run, "interrupted")

    @property
    def unavailable(self) -> str:
        """Why nothing can be trained here: "foreign" (somebody else serves the model), "fixed" (it takes no adapters);
        else ""."""
        if self._profile.mllm_url:
            return "foreign"
        return "" if self._dialog.live is not None and Path(self._profile.dialog).is_dir() else "fixed"

    @property
    def live(self) -> LiveAdapters:
        assert self._dialog.live is not None
        return self._dialog.live

    def feedback(self) -> Counter[str]:
        """How many ratings of each verdict, and how many prompts were put right ("edited")."""
        counts: Counter[str] = Counter()
        for rating in self._store.ratings():
            counts[rating.verdict] += bool(rating.verdict)
            counts["edited"] += bool(rating.prompt)
        return +counts

    def opinions(self) -> dict[str, Counter[str]]:
        """What users thought of each version's replies; see `Store.opinions`."""
        names = {version.sha256: version.name for version in self.live.registry.versions()}
        names[self._profile.adapter_sha256] = ORIGINAL
        return {names[sha]: counts for sha, counts in self._store.opinions().items() if sha in names}

    # What is asked for

    def look(self) -> Run | None:
        """The newest run."""
        return self._run

    def start(self, size: RunSize) -> Run:
        with self._lock:
            if self.unavailable:
                raise EaselError("The dialog model that this app uses cannot be trained by it.")
            if self._run is not None and self._run.state not in ("activated", "discarded"):
                raise EaselError("There is a run already. Activate, discard or resume it first.")
            if not self.feedback():
                raise EaselError("There is no feedback to learn from yet. Rate some replies in the chat first.")
            number = 1 + max(self._numbers(), default=0)  # a run that could not be written down has left its folder
            run = Run(number, size, self.live.now.name, time.time())
            with _saving():
                self.path(run).mkdir(parents=True)
                self._snapshot(run)
                self._save(run)
            self._run = run
            self._begin(run)
            return run

    def resume(self) -> Run:
        with self._lock:
            run = self._in(OPEN, "There is no run that could go on.")
            run.state, run.error = "running", ""
            self._save(run)
            self._begin(run)
            return run

    def stop(self) -> None:
        """Returns when the run has stopped; it can be resumed."""
        self._stopping.set()
        self._interrupt()
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """The app ends: what runs is found as interrupted by the next one."""
        self._closing = True
        self.stop()

    def activate(self, anyway: bool = False) -> Run:
        """Serve what the run made. Raises NotConfirmed where that was measured to be worse, unless `anyway`."""
        with self._lock:
            run = self._in(("measured",), "There is no run to activate.")
            self.live.activate(run.version, anyway)
            self._close(run, "activated")
            return run

    def discard(self) -> Run:
        with self._lock:
            run = self._in(("measured", *OPEN), "There is no run to discard.")
            if run.version and run.version in {version.name for version in self.live.registry.versions()}:
                self.live.registry.remove(run.version)
            self._close(run, "discarded")
            return run

    def path(self, run: Run) -> Path:
        return self.folder / str(run.number)

    def curve(self, run: Run) -> Curve:
        return read_curve(self.path(run) / "finetune" / "curve.csv")

    def progress(self, run: Run) -> float:
        """Of the stage that is under way, 0 to 1."""
        if run.stage == "finetune":
            return min(1.0, self.curve(run).minutes / run.size.minutes)
        steps = [step for step, stage in _STEPS.items() if stage == run.stage]
        done, total = _count(self._tail(run))
        return min(1.0, (sum(step in run.done for step in steps) + done / max(1, total)) / len(steps))

    # The steps

    def _steps(self, run: Run) -> Iterator[tuple[str, Callable[[], Any]]]:
        """A step may be taken again where it was cut off: it goes on, or begins anew."""
        folder = self.path(run)
        replay, learnt = folder / "replay", folder / "feedback"
        size = run.size
        yield "feedback", partial(self._build_feedback, run)
        for split, n in (("train", size.replay), ("validation", VALIDATION), ("test", size.held_out)):
            yield split, partial(
                self._easel, run, "data", "mix", "--out", replay, "--n", n, "--seed", SEED + run.number,
                "--split", split, "--shares", SHARES, "--workers", 1,
            )  # fmt: skip
        yield "finetune", partial(self._finetune, run)
        yield "version", partial(self._keep, run)
        # The folder has no test split: its files are named.
        asked = {"": [replay], "feedback_": split_files(learnt, "train")}
        for prefix, data in asked.items():
            for side, name in (("before", run.parent), ("after", run.version)):
                step = prefix + side
                yield step, partial(self._ask, run, step, name, data)
        yield "scores", partial(self._score, run)

    def _build_feedback(self, run: Run) -> None:
        folder = self.path(run)
        shutil.rmtree(folder / "feedback", ignore_errors=True)
        with self._asking(run.parent) as where:
            run.feedback = self._easel(
                run, "data", "feedback", "--store", folder / "store", "--database", SQLITE,
                "--out", folder / "feedback", "--ask", *where, "--json",
            )  # fmt: skip

    def _finetune(self, run: Run) -> None:
        folder, size = self.path(run), run.size
        records = int(run.feedback.get("records", 1))
        times = round(FEEDBACK_SHARE / (1 - FEEDBACK_SHARE) * size.replay / max(1, records))
        repeats = [folder / "feedback"] * min(MOST_REPEATS, max(1, times))
        adapter: list[Any] = ["--rank", FRESH_RANK, "--alpha", FRESH_RANK]  # a fresh one
        if run.parent != ORIGINAL:
            adapter = ["--adapter", self.live.registry.adapter(run.parent)]
        elif self._profile.adapter:
            adapter = ["--adapter", Path(self._profile.adapter).absolute()]
        self._easel(
            run, "finetune", "--data", *repeats, folder / "replay", "--validation", folder / "replay",
            "--base", Path(self._profile.dialog).absolute(), *adapter,
            "--out", folder / "finetune", "--minutes", size.minutes, "--epochs", size.epochs,
            "--batch-tokens", 4096, "--evaluate-every", size.minutes / 4,
            "--threads", max(1, (os.cpu_count() or 2) // 2), "--seed", run.number,
        )  # fmt: skip

    def _keep(self, run: Run) -> None:
        folder = self.path(run) / "finetune"
        settings = {"run": run.number, **asdict(run.size), "feedback": run.feedback.get("records")}
        run.version = self.live.registry.add(folder / "adapter", run.parent, settings).name

    def _ask(self, run: Run, step: str, name: str, data: Sequence[Path]) -> None:
        out = self.path(run) / f"{step}.jsonl"
        with self._asking(name) as where:
            self._easel(
                run, "eval", "dialog", "--data", *data, "--n", run.size.held_out, "--turns", out.with_suffix(".part"),
                "--concurrency", CONCURRENCY, *where, "--json",
            )  # fmt: skip
        out.with_suffix(".part").replace(out)

    def _score(self, run: Run) -> None:
        folder = self.path(run)
        run.scores = {
            "held_out": side_by_side(folder / "before.jsonl", folder / "after.jsonl", HELD_OUT),
            "feedback": side_by_side(
                folder / "feedback_before.jsonl", folder / "feedback_after.jsonl", LEARNT, last_turns=True
            ),
        }
        run.worse = [row["measure"] for row in run.scores["held_out"] if row["says"] == "throw out"]
        self.live.registry.record(run.version, run.scores, tuple(run.worse))

    @contextlib.contextmanager
    def _asking(self, name: str) -> Iterator[list[str]]:
        """The options that have a command ask the running server for this adapter, which stays loaded meanwhile."""
        while self._dialog.state == WARMING and not self._stopping.wait(0.2):
            pass
        if self._stopping.is_set():
            raise _Stopped
        if self._dialog.state != READY:
            raise EaselError(self._dialog.error or "The dialog model is not there.")
        with self.live.lease(name) as served:
            address, _ = self._dialog.server
            how = ["--profile", self._profile.source]  # the chat asks with its settings
            yield ["--url", address, "--key-env", KEY, "--model", served.model, *how]

    # Inside

    def _begin(self, run: Run) -> None:
        self._stopping.clear()
        self._thread = threading.Thread(target=self._work, args=(run,), name="easel-improve", daemon=True)
        self._thread.start()

    def _work(self, run: Run) -> None:
        try:
            for step, take in self._steps(run):
                if self._stopping.is_set():
                    raise _Stopped
                if step not in run.done:
                    take()
                    run.done.append(step)
                    self._save(run)
            self._end(run, "measured")
        except _Stopped:
            self._end(run, "interrupted" if self._closing else "stopped")
        except (EaselError, DialogError) as error:
            self._end(run, "failed", str(error))
        except Exception as error:
            log.exception("a run failed")
            self._end(run, "failed", f"{type(error).__name__}: {error}")

    def _end(self, run: Run, state: State, error: str = "") -> None:
        with self._lock:  # who sees the end and resumes at once would write the same file
            run.state, run.error = state, error
            try:
                self._save(run)
            except EaselError:
                log.exception("the end of a run could not be written down")

    def _close(self, run: Run, state: State) -> None:
        """What only the run needed goes: the users' words and pictures, ordinary data, the checkpoint."""
        self._end(run, state)
        folder = self.path(run)
        for name in ("store", "feedback", "replay"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for replies in folder.glob("*.jsonl"):
            replies.unlink()
        for path in (folder / "finetune").glob("*"):
            if path.name not in ("curve.csv", "curve.png", "settings.json"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _easel(self, run: Run, *arguments: Any) -> dict[str, Any]:
        """Give the command, wait for its end, and return what it says as JSON, if anything. Raises _Stopped when the
        run was stopped meanwhile, EaselError with the command's own words when it failed."""
        folder = self.path(run)
        words = [str(argument) for argument in arguments]
        environment = os.environ | {
            KEY: self._dialog.server[1],  # not on the command line, where every user of the machine reads it
            "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")])),
            "PYTHONUNBUFFERED": "1",
        }
        with (folder / "log.txt").open("ab") as told, (folder / "output.txt").open("wb+") as said:
            told.write(f"\n$ easel {' '.join(words)}\n".encode())
            told.flush()
            process = self._process = subprocess.Popen(
                [sys.executable, "-I", str(launcher.__file__), "nice", "-n", "19", *self._command, *words],
                stdin=subprocess.PIPE,  # its end tells the launcher that we are gone
                stdout=said,
                stderr=told,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
            if self._stopping.is_set():
                self._interrupt()
            status = process.wait()
            self._process = None
            if process.stdin:
                process.stdin.close()
            said.seek(0)
            lines = said.read().decode("utf-8", "replace").strip().splitlines()
        if self._stopping.is_set():
            raise _Stopped
        if status:
            raise EaselError(f"{_reason(self._tail(run))} (`easel {' '.join(words[:2])}`; log: {folder / 'log.txt'})")
        try:
            result = json.loads(lines[-1])
        except (IndexError, ValueError):
            result = {}
        return result if isinstance(result, dict) else {}

    def _interrupt(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)  # as Ctrl-C does: a training writes its checkpoint

    def _tail(self, run: Run) -> str:
        with contextlib.suppress(OSError), (self.path(run) / "log.txt").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            return file.read().decode("utf-8", "replace").rpartition("\n$ ")[2]
        return ""

    def _snapshot(self, run: Run) -> None:
        """The ratings as of now, in a data folder of their own: `easel data` may not open the one that is in use."""
        store = self.path(run) / "store"
        store.mkdir()
        (store / "pictures").symlink_to((self._store.folder / "pictures").absolute())
        self._store.copy_rows(store / FILE)

    def _in(self, states: Sequence[str], otherwise: str) -> Run:
        if self._run is None or self._run.state not in states:
            raise EaselError(otherwise)
        return self._run

    def _numbers(self) -> list[int]:
        return [int(path.name) for path in self.folder.glob("*") if path.name.isdecimal()]

    def _newest(self) -> Run | None:
        for number in sorted(self._numbers(), reverse=True):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, EaselError):
                return Run.from_json(json.loads((self.folder / str(number) / "run.json").read_text(encoding="utf-8")))
        return None

    def _save(self, run: Run) -> None:
        file = self.path(run) / "run.json"
        with _saving():
            file.with_suffix(".part").write_text(json.dumps(run.to_json(), indent=1, ensure_ascii=False) + "\n")
            file.with_suffix(".part").replace(file)


class _Stopped(Exception):
    pass


_ROOT = Path(__file__).resolve().parent.parent
_PROGRESS = re.compile(r"(\d+) of (\d+) turns\s*$")


@contextlib.contextmanager
def _saving() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"The run cannot be written down: {error}.") from error


def side_by_side(a: Path, b: Path, measures: Sequence[str], last_turns: bool = False) -> list[dict[str, Any]]:
    """One row a measure that bears on any turn: n, shares and 95 % intervals of `a` and `b`, how many turns only one of
    them got right, McNemar's p, and what that says of `b`. `last_turns`: of each record only the last one counts."""
    before, after = read_verdicts(a), read_verdicts(b)
    if last_turns:
        last: dict[str, int] = {}
        for record, turn, _ in before:
            last[record] = max(turn, last.get(record, 0))
        before, after = ({key: of[key] for key in of if key[1] == last.get(key[0])} for of in (before, after))
    rows = []
    for measure in measures:
        with contextlib.suppress(DataError):  # no turn bears on it
            rows.append({"measure": measure, **compare(before, after, (), measure)["categories"]["all"]})
    return rows


def read_curve(file: Path) -> Curve:
    """The training writes the file meanwhile: a line that is not whole yet is left out."""
    try:
        with file.open(newline="") as stream:
            rows = list(filter(None, map(_numbers, csv.DictReader(stream))))
    except (OSError, csv.Error):
        return Curve()

    def points(key: str) -> tuple[tuple[float, float], ...]:
        return tuple((row["minutes"], row[key]) for row in rows if key in row)

    last = rows[-1] if rows else {"step": 0.0, "minutes": 0.0}
    return Curve(points("train_loss"), points("loss"), points("switch_accuracy"), int(last["step"]), last["minutes"])


def _numbers(row: Mapping[str | None, Any]) -> dict[str, float]:
    """What stands in a line of the curve; nothing where that is no line."""
    if None in row or None in row.values():
        return {}
    try:
        values = {str(key): float(value) for key, value in row.items() if value}
    except ValueError:
        return {}
    return values if {"step", "minutes"} <= values.keys() else {}


def _count(told: str) -> tuple[int, int]:
    match = _PROGRESS.search(told.rpartition("\r")[2])
    return (int(match[1]), int(match[2])) if match else (0, 1)


def _reason(told: str) -> str:
    """A command's own words for why it failed."""
    lines = [line.strip() for line in re.split(r"[\r\n]", told) if line.strip()]
    said = [line.partition(": ")[2] for line in lines if line.startswith("easel ") and ": " in line]
    return (said or lines or ["The command ended without a word."])[-1][:500]
