"""A run from feedback to an adapter in use, with `easel` itself replaced; the real one runs in test_improve_page.py."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.errors import EaselError, InputRefused
from app.improving import Improver, Run, RunSize, read_curve
from app.profiles import Profile
from app.store import Conversation, Store
from dialog_mllm.adapters import ORIGINAL, Adapters, NotConfirmed
from dialog_mllm.switching import LiveAdapters
from tests.app import easel_in_words
from tests.dialog_mllm.test_switching import FakeVllm
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, str(easel_in_words.__file__)]


class FakeServed:
    """A dialog model whose adapters can be changed."""

    state, error, server = "ready", "", ("http://127.0.0.1:1/v1", "a secret key")

    def __init__(self, live: LiveAdapters | None) -> None:
        self.live = live


@pytest.fixture
def profile(profile: Profile, tmp_path: Path) -> Profile:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    return replace(profile, dialog=str(base))


@pytest.fixture
def served(profile: Profile, tmp_path: Path) -> FakeServed:
    return FakeServed(LiveAdapters(FakeVllm(), Adapters(tmp_path / "adapters", profile.dialog)))


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "control"
    folder.mkdir()
    monkeypatch.setenv("EASEL_FAKE", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return folder


@pytest.fixture
def improver(
    store: Store, conversation: Conversation, profile: Profile, served: FakeServed, control: Path
) -> Iterator[Improver]:
    turn = store.begin_turn(conversation, None, "draw a fox", (), "auto", 7)
    store.rate(store.update_turn(turn.id, status="done", prompt="A red fox."), "like", "A blue fox.")
    improver = Improver(store.folder / "improve", store, profile, served, COMMAND)
    yield improver
    for file in control.glob("slow"):
        file.unlink()
    improver.stop()


def wait(improver: Improver, *states: str) -> Run:
    wait_until(lambda: (run := improver.look()) is not None and run.state in states, told=states)
    run = improver.look()
    assert run is not None
    return run


def given(control: Path) -> list[list[str]]:
    return [json.loads(line) for line in (control / "given").read_text().splitlines()]


def test_from_feedback_to_an_adapter_in_use(
    improver: Improver, served: FakeServed, control: Path, profile: Profile
) -> None:
    assert dict(improver.feedback()) == {"like": 1, "edited": 1}
    improver.start(RunSize(minutes=2, replay=100, held_out=40))
    run = wait(improver, "measured", "failed")
    assert (run.error, run.version, run.parent, run.worse) == ("", "v1", ORIGINAL, [])
    rows = {row["measure"]: row for row in run.scores["held_out"]}
    assert (rows["prompt_correct"]["a"], rows["prompt_correct"]["b"]) == (0.5, 1.0)
    assert (rows["prompt_correct"]["says"], rows["switch_accuracy"]["says"]) == ("keep", "no evidence")
    assert [row["measure"] for row in run.scores["feedback"]] == ["switch_accuracy", "prompt_exact"]

    commands = given(control)
    assert [words[:2] for words in commands[:4]] == [["data", "feedback"], *[["data", "mix"]] * 3]
    finetune = commands[4]
    data = finetune[finetune.index("--data") + 1 : finetune.index("--validation")]
    assert len(data) == 13 and data[-1].endswith("replay"), "2 corrections 12 times, with 100 dialogues: a fifth"
    assert "--adapter" not in finetune and "--rank" in finetune, "the bundled model has none: a fresh one"
    models = [words[words.index("--model") + 1] for words in commands[5:]]
    profiles = {words[words.index("--profile") + 1] for words in (commands[0], *commands[5:])}
    assert profiles == {profile.source}, "asked as the chat asks"
    assert models == ["dialog", "dialog-v1"] * 2
    assert not any("a secret key" in word for words in commands for word in words)
    assert served.live is not None and served.live.now.name == ORIGINAL, "nothing changes before the decision"

    improver.activate()
    assert (served.live.now.name, served.live.registry.active, run.state) == ("v1", "v1", "activated")
    folder = improver.path(run)
    assert not any((folder / name).exists() for name in ("store", "feedback", "replay", "finetune/adapter"))
    assert not [*folder.glob("*.jsonl")], "replies to the users' messages go too"
    assert improver.curve(run).validation == ((1.0, 1.5),)
    assert served.live.registry.version("v1").scores == json.loads(json.dumps(run.scores))


def test_a_worse_one_must_be_confirmed(improver: Improver, served: FakeServed, control: Path) -> None:
    (control / "worse").touch()
    improver.start(RunSize())
    run = wait(improver, "measured", "failed")
    assert run.worse == ["prompt_correct"]
    with pytest.raises(NotConfirmed, match="worse than original: prompt_correct"):
        improver.activate()
    assert (run.state, served.live and served.live.now.name) == ("measured", ORIGINAL)
    with pytest.raises(EaselError, match="Activate, discard or resume"):
        improver.start(RunSize())
    improver.discard()
    assert served.live is not None and served.live.registry.versions() == []
    assert improver.start(RunSize()).number == 2
    wait(improver, "measured")
    improver.activate(anyway=True)
    assert served.live.now.name == "v2"


def test_a_run_that_is_stopped_goes_on(improver: Improver, control: Path) -> None:
    (control / "slow").touch()
    improver.start(RunSize(minutes=2))
    run = wait(improver, "running")
    wait_until(lambda: improver.curve(run).steps == 10)
    assert (run.stage, improver.progress(run)) == ("finetune", 0.5)
    improver.stop()
    assert run.state == "stopped"
    assert (improver.path(run) / "finetune" / "checkpoint.pt").read_text() == "kept", "as after Ctrl-C"
    before = len(given(control))
    (control / "slow").unlink()
    improver.resume()
    wait(improver, "measured")
    assert [words[0] for words in given(control)[before:]] == ["finetune", *["eval"] * 4]


def test_a_run_survives_the_app(
    improver: Improver, store: Store, profile: Profile, served: FakeServed, control: Path
) -> None:
    (control / "slow").touch()
    run = improver.start(RunSize())
    wait_until(lambda: improver.curve(run).steps == 10)
    file = improver.path(run) / "run.json"
    killed = file.read_text()
    improver.close()
    assert json.loads(file.read_text())["state"] == "interrupted"
    file.write_text(killed)  # as a killed app leaves it
    (control / "slow").unlink()
    again = Improver(improver.folder, store, profile, served, COMMAND)
    found = again.look()
    assert found is not None and (found.state, found.stage) == ("interrupted", "finetune")
    again.resume()
    wait(again, "measured")
    again.activate()


def test_a_command_that_fails_says_why(improver: Improver, control: Path) -> None:
    (control / "fail-mix").touch()
    improver.start(RunSize())
    run = wait(improver, "failed")
    assert run.error.startswith("there is no luck today. (`easel data mix`; log: ")
    (control / "fail-mix").unlink()
    improver.resume()
    assert wait(improver, "measured", "failed").error == ""


def test_a_run_may_be_resumed_as_soon_as_its_end_is_seen(
    improver: Improver, control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (control / "fail-mix").touch()
    improver.start(RunSize())
    rename = Path.replace

    def slowly(self: Path, target: Path) -> Path:
        time.sleep(0.3)  # long enough for another to write its own
        return rename(self, target)

    with monkeypatch.context() as slow:
        slow.setattr(Path, "replace", slowly)
        wait(improver, "failed")
        (control / "fail-mix").unlink()
        improver.resume()
    assert wait(improver, "measured", "failed").error == ""


def test_a_run_that_could_not_be_written_down_is_in_nobodys_way(improver: Improver) -> None:
    (improver.folder / "1").mkdir(parents=True)  # what a full disk leaves
    assert improver.start(RunSize()).number == 2
    assert wait(improver, "measured", "failed").error == ""


def test_what_cannot_be_done_is_said(
    improver: Improver, store: Store, profile: Profile, served: FakeServed, tmp_path: Path
) -> None:
    for act in (improver.resume, improver.activate, improver.discard):
        with pytest.raises(EaselError, match="There is no"):
            act()
    with pytest.raises(InputRefused, match=r"minutes must lie from 0\.01"):
        RunSize(minutes=0)
    with pytest.raises(InputRefused, match="replay must be a whole number"):
        RunSize(replay=2.5)  # type: ignore[arg-type]
    store.rate(store.turn(store.ratings()[0].turn))
    with pytest.raises(EaselError, match="no feedback to learn from yet"):
        improver.start(RunSize())
    assert Improver(tmp_path / "a", store, profile, FakeServed(None)).unavailable == "fixed"
    foreign = replace(profile, mllm_url="http://127.0.0.1:1/v1")
    assert Improver(tmp_path / "b", store, foreign, FakeServed(None)).unavailable == "foreign"


@pytest.mark.parametrize(
    "end", ["20,1.", "20", "step,minutes,train_loss,loss,switch_accuracy", "2\x000,1,1,1,1", ",,,,"]
)
def test_a_line_that_is_not_whole_is_left_out(tmp_path: Path, end: str) -> None:
    file = tmp_path / "curve.csv"
    file.write_text(f"step,minutes,train_loss,loss,switch_accuracy\n10,0.5,2.0,,\n{end}")
    assert (read_curve(file).steps, read_curve(file).train) == (10, ((0.5, 2.0),))
