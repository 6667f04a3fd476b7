"""The endpoint teacher against a real HTTP server that plays an endpoint, well and badly, and against a real vLLM."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from app.cli import main as easel
from datasets_build.answers import Refused, read_answer
from datasets_build.briefs import COMPOSITIONS, EDITS, Plan, brief
from datasets_build.check import check
from datasets_build.consistency import kept_share
from datasets_build.endpoint import Settings
from datasets_build.journal import Answer, Journal, JournalError
from datasets_build.seeds import all_seeds, seeds
from datasets_build.topics import TOPICS
from tests.datasets_build.scripted import KEY, Handler, ScriptedEndpoint, completion, serving

ROOT = Path(__file__).resolve().parent.parent.parent
# A small model would fill its context with the white space that JSON allows.
COMPACT = ("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}')


def good_answer(body: dict[str, Any]) -> str:
    """Follows the form at the end of the brief; every prompt holds the earlier ones whole."""
    form = json.loads(body["messages"][0]["content"].splitlines()[-1])
    chinese = "用户" in json.dumps(form, ensure_ascii=False)
    name, so_far = str(body["seed"]), ""

    def text(key: str, where: str) -> str:
        nonlocal so_far
        if key == "prompt":
            new = (
                f"山坡上的红色房子和编号{name}的小船，{where}"
                if chinese
                else f"a red house on a hill, boat {name} {where}"
            )
            so_far = f"{so_far} {new}".strip()
            return so_far
        return f"请看看{where}的第{name}号" if chinese else f"please see number {name} in {where}"

    if "instruction" in form:
        return json.dumps({key: text(key, "one") for key in form})
    return json.dumps({turn: {key: text(key, turn) for key in keys} for turn, keys in form.items()})


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedEndpoint]:
    monkeypatch.setenv("TEACHER_KEY", KEY)
    with serving(good_answer) as server:
        yield server


def arguments(out: Path, url: str, task: str = "p", n: int = 6, *more: str) -> list[str]:
    teacher = ["--teacher", url, "--teacher-model", "scripted", "--teacher-key-env", "TEACHER_KEY"]
    return ["data", task, "--out", str(out), "--n", str(n), *teacher, "--backoff", "0.01", "--seed", "3", *more]


def records_of(out: Path, split: str = "train") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / f"{split}-00000.jsonl").read_text(encoding="utf-8").splitlines()]


def bytes_of(out: Path) -> dict[str, str]:
    """All but the journal, whose lines stand in the order in which the answers came."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".journal." not in path.name
    }


# ------------------------------------------------------------------------------------------------------- good days


@pytest.mark.parametrize("task", ["p", "tt"])
def test_an_endpoint_writes_records_that_check(
    task: str, endpoint: ScriptedEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--licence", "CC0-1.0", "--price-in", "2", "--price-out", "10"]
    assert easel(arguments(tmp_path, endpoint.url, task, 42, *more)) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])["teacher"]
    assert report == {
        "answers": 42, "refused": 0, "tokens_in": 4200, "tokens_out": 420, "cost": 0.0126, "requests_sent": 42,
    }  # fmt: skip
    assert check(tmp_path).ok, dict(check(tmp_path).violations)
    records = records_of(tmp_path)
    assert Counter(record["language"] for record in records) == {"en": 21, "zh": 21}
    assert {(record["source"], record["licence"]) for record in records} == {("scripted", "CC0-1.0")}
    assert all(turn["scene"] is None for record in records for turn in record["turns"])
    assert endpoint.requests[0]["model"] == "scripted" and "response_format" not in endpoint.requests[0]
    assert easel(arguments(tmp_path, endpoint.url, task, 42, "--licence", "CC0-1.0")) == 0
    assert len(endpoint.requests) == 42  # all was there
    assert easel(["data", task, "--out", str(tmp_path), "--n", "2", "--workers", "1"]) == 1
    assert "must not be mixed" in capsys.readouterr().err


def test_samples_of_d_p_stand_in_the_briefs_of_d_tt(endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    assert easel(arguments(tmp_path / "p", endpoint.url, "p", 8)) == 0
    samples = ["--samples", str(tmp_path / "p"), "--structured"]
    assert easel(arguments(tmp_path / "tt", endpoint.url, "tt", 2, *samples)) == 0
    body = endpoint.requests[-1]
    shown = [json.loads(line) for line in body["messages"][0]["content"].splitlines() if '"instruction": "' in line]
    prompts = {record["messages"][1]["content"][0]["text"] for record in records_of(tmp_path / "p")}
    assert len(shown) == 4 and all("<draw>" + pair["prompt"] in prompts for pair in shown)
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["turn1", "turn2", "turn3"]
    assert easel(arguments(tmp_path / "x", endpoint.url, "tt", 2, *samples, "--split", "test")) == 2


def test_every_composition_topic_and_edit_comes_up() -> None:
    plan = Plan("D_tt", "train", 0, ("en", "zh"))
    asked = [brief(plan, index, 0, ()) for index in range(2 * len(COMPOSITIONS) * len(TOPICS))]
    types = Counter((b.language, b.topic, tuple(step.type for step in b.steps)) for b in asked)
    assert len(types) == len(asked) and set(types.values()) == {1}
    edits = Counter(step.edit for b in asked for step in b.steps if step.edit)
    assert set(edits) == set(EDITS) and min(edits.values()) >= 26
    again = brief(plan, 5, 1, seeds("zh", "train"))
    assert again.steps == asked[5].steps and again.topic == asked[5].topic and len(again.examples) == 4


def test_seeds_are_many_and_split() -> None:
    for language in ("en", "zh"):
        assert len(all_seeds(language)) == len(set(all_seeds(language))) >= 30
        train, test = (set(seeds(language, split)) for split in ("train", "test"))
        assert train and test and not train & test
        for pair in all_seeds(language):
            answer = json.dumps({"instruction": pair.instruction, "prompt": pair.prompt})
            assert read_answer(brief(Plan("D_p", "train", 0, (language,)), 0, 0, ()), answer)


# -------------------------------------------------------------------------------------------------------- bad days


def too_many(handler: Handler, body: dict[str, Any]) -> None:
    handler.say(429, {"error": {"message": "slow down"}}, Retry_After="0.3")


def broken(handler: Handler, body: dict[str, Any]) -> None:
    handler.say(500, {"error": {"message": "CUDA error"}})


def html(handler: Handler, body: dict[str, Any]) -> None:
    handler.say(200, "<html>Welcome</html>")


def half(handler: Handler, body: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"mess')
    handler.close_connection = True


def silent(handler: Handler, body: dict[str, Any]) -> None:
    time.sleep(0.5)
    handler.close_connection = True


def test_failures_that_pass_are_waited_out(endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    assert easel(arguments(tmp_path / "calm", endpoint.url)) == 0
    endpoint.requests.clear()
    endpoint.script = [broken, too_many, html, half, silent]
    started = time.monotonic()
    more = ["--timeout", "0.3", "--concurrency", "2"]
    assert easel(arguments(tmp_path / "rough", endpoint.url, "p", 6, *more)) == 0
    assert time.monotonic() - started > 0.3  # as Retry-After says
    assert len(endpoint.requests) == 6 + 5
    assert bytes_of(tmp_path / "rough") == bytes_of(tmp_path / "calm")


def test_failures_that_stay_stop_the_run_and_keep_what_is_there(
    endpoint: ScriptedEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for script, reason in (
        ([broken] * 99, "3 requests for one answer failed, the last one so: 500 CUDA error"),
        ([html] * 99, "no chat completion"),
        ([lambda h, b: h.say(404, {"error": {"message": "no model"}})], "a model 'scripted'"),
        ([lambda h, b: h.say(429, {}, Retry_After="7200")], "come back in 7200 s"),
    ):
        endpoint.script = [lambda h, b: h.say(200, completion(good_answer(b))), *script]
        more = ["--tries", "3", "--concurrency", "1"]
        assert easel(arguments(tmp_path, endpoint.url, "p", 6, *more)) == 1
        error = capsys.readouterr().err
        assert reason in error and "answers are kept" in error
        assert not (tmp_path / "train-00000.jsonl").exists()
    endpoint.script.clear()
    endpoint.requests.clear()
    assert easel(arguments(tmp_path, endpoint.url)) == 0
    assert len(endpoint.requests) == 2  # four were kept


def test_a_wrong_key_stops_at_once(
    endpoint: ScriptedEndpoint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "wrong")
    assert easel(arguments(tmp_path, endpoint.url, "p", 99, "--concurrency", "2")) == 1
    assert len(endpoint.requests) <= 2
    error = capsys.readouterr().err
    assert "does not accept the key (401)" in error and "--teacher-key-env" in error and "wrong" not in error
    monkeypatch.delenv("TEACHER_KEY")
    assert easel(arguments(tmp_path, endpoint.url)) == 2
    assert "holds no key" in capsys.readouterr().err


def test_an_address_where_nobody_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nobody = ["data", "p", "--out", str(tmp_path), "--teacher", "http://127.0.0.1:9/v1", "--teacher-model", "x"]
    assert easel([*nobody, "--tries", "2", "--backoff", "0"]) == 1
    assert "cannot be reached" in capsys.readouterr().err
    assert easel(["data", "p", "--out", str(tmp_path), "--teacher", "gpt"]) == 2
    assert "the teacher is `offline` or an address" in capsys.readouterr().err
    assert Settings("http://localhost:1", "m").address == "http://localhost:1/v1/chat/completions"


def test_the_rate_is_kept(endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    started = time.monotonic()
    assert easel(arguments(tmp_path, endpoint.url, "p", 4, "--rate", "600")) == 0
    assert time.monotonic() - started > 0.3


def test_repetitions_and_refused_answers_are_asked_again(
    endpoint: ScriptedEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: Counter[bool] = Counter()

    def mostly_good(body: dict[str, Any]) -> str:
        if body["seed"] % 3 == 0:
            seen[False] += 1
            return "I would rather not."
        return good_answer(body | {"seed": body["seed"] % 40})  # so that some say the same

    endpoint.answer = mostly_good
    assert easel(arguments(tmp_path, endpoint.url, "p", 20, "--attempts", "4")) == 0
    assert len(records_of(tmp_path)) == 20 and check(tmp_path).ok
    report = json.loads(capsys.readouterr().out.splitlines()[-1])["teacher"]
    lines = (tmp_path / "teacher" / "D_p-train-3.refused.jsonl").read_text().splitlines()
    assert report["refused"] == len(lines) == seen[False] > 0
    assert report["answers"] == len(endpoint.requests) > 20 + seen[False]  # the rest repeated others
    assert all("not JSON" in json.loads(line)["reason"] for line in lines)
    endpoint.answer = lambda body: "No."
    assert easel(arguments(tmp_path / "no", endpoint.url, "p", 99, "--give-up", "5")) == 1
    error = capsys.readouterr().err
    assert "answers in a row were refused" in error and "not JSON" in error


def test_refusals_name_the_reason() -> None:
    plan = Plan("D_p", "train", 1, ("en",))
    asked = brief(plan, 0, 0, seeds("en", "train"))
    wish, prompt = "a red fox please", "A red fox sits in deep snow under a blue evening sky, soft watercolour."
    copied = asked.rules.splitlines()[2][2:90]
    for text, reason in (
        ("", "empty"),
        ("[1]", "a JSON object is wanted"),
        (json.dumps({"instruction": wish}), "lacks 'prompt'"),
        (json.dumps({"instruction": wish, "prompt": prompt, "note": "x"}), "has 'note'"),
        (json.dumps({"instruction": wish, "prompt": 7}), "is no text"),
        (json.dumps({"instruction": wish, "prompt": " "}), "empty"),
        (json.dumps({"instruction": wish, "prompt": prompt * 40}), "characters, where"),
        (json.dumps({"instruction": wish, "prompt": f"<draw>{prompt}"}), "holds the token <draw>"),
        (json.dumps({"instruction": f"{wish} <|im_end|>", "prompt": prompt}), "holds the token"),
        (json.dumps({"instruction": "请画一只红色的狐狸", "prompt": prompt}), "not in English"),
        (json.dumps({"instruction": wish, "prompt": f"As an AI I draw. {prompt}"}), "speaks of the task"),
        (json.dumps({"instruction": copied, "prompt": prompt}), "repeats the instructions"),
        (json.dumps({"instruction": prompt, "prompt": prompt}), "only repeats the request"),
        (json.dumps({"instruction": asked.examples[0].instruction, "prompt": prompt}), "copies an example's request"),
        (json.dumps({"instruction": wish, "prompt": asked.examples[0].prompt}), "copies an example's prompt"),
    ):
        with pytest.raises(Refused, match=reason):
            read_answer(asked, text)
    good = json.dumps({"instruction": wish, "prompt": prompt})
    for text in (good, f"```json\n{good}\n```", f"<think>hm {{</think>\n{good}"):
        assert read_answer(asked, text).exchanges[0].reply == "<draw>" + prompt
    with pytest.raises(Refused, match="raise --max-tokens"):
        read_answer(asked, good, "length")


def test_an_edit_keeps_the_earlier_prompt() -> None:
    plan = Plan("D_tt", "train", 1, ("en",))
    briefs = (brief(plan, index, 0, ()) for index in range(999))
    asked = next(b for b in briefs if [step.type for step in b.steps] == ["t2i", "t2t", "ti2i"])
    prompt = "A red fox sits in deep snow under a blue evening sky, soft watercolour."

    def answer(edited: str) -> str:
        talk = {"user": "nice, thanks", "reply": "You are welcome!"}
        drawn = {"user": "a fox in the snow", "prompt": prompt}
        return json.dumps({"turn1": drawn, "turn2": talk, "turn3": {"user": "change it", "prompt": edited}})

    dialogue = read_answer(asked, answer(prompt.replace("fox", "wolf")))
    assert dialogue.exchanges[2].request == {"op": "edit", "edit": {"op": asked.steps[2].edit}, "base_turn": 0}
    with pytest.raises(Refused, match=r"keeps .* of the words of turn 1"):
        read_answer(asked, answer("An oil painting of two ships at sea in heavy weather."))
    with pytest.raises(Refused, match="unchanged"):
        read_answer(asked, answer(prompt))
    assert kept_share("一只红色的狐狸", "一只蓝色的狐狸") == pytest.approx(4 / 6)


def test_check_holds_records_without_scenes_to_their_rules(endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    assert easel(arguments(tmp_path, endpoint.url, "tt", 30)) == 0
    records = records_of(tmp_path)
    edited = next(r for r in records if r["turns"][-1]["type"] == "ti2i")
    edited["messages"][-1]["content"][0]["text"] = "<draw>something else entirely, with no word of it"
    other = next(r for r in records if r is not edited)
    other["source"] = "somebody"
    text = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "train-00000.jsonl").write_text(text)
    found = check(tmp_path).violations
    assert "an edited prompt keeps most of the words of the one before, and changes some" in found
    assert "source and licence are those that the manifest names" in found


# ------------------------------------------------------------------------------------------------ kills and resuming


def test_killed_at_any_moment_nothing_is_paid_twice(endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    n = 24
    endpoint.answer = lambda body: good_answer(body) if body["seed"] % 5 else "no"
    assert easel(arguments(tmp_path / "calm", endpoint.url, "tt", n)) == 0
    calm = len(endpoint.requests)
    endpoint.requests.clear()
    endpoint.delay = 0.02
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "app.cli", *arguments(out, endpoint.url, "tt", n, "--concurrency", "2")]
    journal = out / "teacher" / "D_tt-train-3.journal.jsonl"
    for answers in (1, 9, 20):
        with subprocess.Popen(command, cwd=ROOT) as process:
            while (journal.read_bytes().count(b"\n") if journal.exists() else 0) <= answers:
                assert process.poll() is None
                time.sleep(0.002)
            process.kill()
        assert not (out / "train-00000.jsonl").exists() and not (out / "manifest.json").exists()
        with journal.open("ab") as file:
            file.write(b'{"index": 3, "att')  # the line that a kill may cut off
        kept = {
            (entry["index"], entry["attempt"]) for entry in map(json.loads, journal.read_bytes().splitlines()[1:-1])
        }
        assert len(kept) >= answers
    assert easel(arguments(out, endpoint.url, "tt", n)) == 0
    assert bytes_of(out) == bytes_of(tmp_path / "calm")
    lines = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert len(lines) == len({(line["index"], line["attempt"]) for line in lines}) == calm
    # Only what was under way at a kill, and so never arrived, was asked for again.
    assert calm <= len(endpoint.requests) <= calm + 3 * 2


def test_ctrl_c_lets_what_was_sent_arrive(endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    endpoint.delay = 0.1
    command = [sys.executable, "-m", "app.cli", *arguments(tmp_path, endpoint.url, "p", 500)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while len(endpoint.requests) < 10:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
    assert process.returncode == 1 and "the same line takes the run up" in error
    lines = (tmp_path / "teacher" / "D_p-train-3.journal.jsonl").read_bytes().count(b"\n")
    assert lines - 1 == len(endpoint.requests)


def test_a_journal_is_for_one_run_with_one_set_of_options(
    endpoint: ScriptedEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert easel(arguments(tmp_path, endpoint.url, "p", 2)) == 0
    assert easel(arguments(tmp_path, endpoint.url, "p", 2, "--temperature", "0.1")) == 1
    assert "made with temperature 0.9, and now it is 0.1" in capsys.readouterr().err
    assert easel(arguments(tmp_path, endpoint.url, "p", 4)) == 0  # more of the same
    assert len(endpoint.requests) == 4 and len(records_of(tmp_path)) == 4
    path = tmp_path / "teacher" / "D_p-train-3.journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"attempt"', b'"attem"', 1))
    assert easel(arguments(tmp_path, endpoint.url, "p", 4)) == 1
    assert "line 2 is damaged" in capsys.readouterr().err
    with Journal(tmp_path / "j", {}), pytest.raises(JournalError, match="another run"), Journal(tmp_path / "j", {}):
        pass


def test_a_full_disk_cuts_no_line_in_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    with Journal(tmp_path / "j", {"seed": 1, "split": "train"}) as journal:
        journal.add((0, 0), Answer("one"), None)
        monkeypatch.setattr(os, "pwrite", lambda file, data, place: write(file, data[:5], place))
        with pytest.raises(OSError, match="full"):
            journal.add((1, 0), Answer("two"), None)
        monkeypatch.undo()
        journal.add((2, 0), Answer("three"), "not JSON")
        journal.add((3, 0), Answer("a fox\u2028in the snow\x85"), None)
    with Journal(tmp_path / "j", {"seed": 1, "split": "train"}) as journal:  # which is one line
        assert journal.answers[3, 0].text == "a fox\u2028in the snow\x85"
    lines = [json.loads(line) for line in (tmp_path / "j").read_text().split("\n")[:-2]]
    assert [line.get("index") for line in lines] == [None, 0, 2] and lines[2]["verdict"] == "refused"


# ------------------------------------------------------------------------------------------------------- real vLLM


@pytest.mark.slow
def test_a_real_vllm_is_the_endpoint_and_may_be_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled base knows no JSON: each of its answers arrives, is counted and is refused with the reason. Held to
    the schema, it can write nothing else, and its babble becomes records."""
    from dialog_mllm.server import ServerSettings, VllmServer

    base = ROOT / "dialog_mllm" / "weights" / "base"
    with VllmServer(base, None, ServerSettings(threads=2, kv_cache_mb=128, extra_args=COMPACT), tmp_path) as server:
        server.wait_ready(600)
        monkeypatch.setenv("TEACHER_KEY", server.api_key)
        common = ["--teacher-model", server.model_name, "--examples", "1", "--tries", "14", "--backoff", "1"]
        options = [*common, "--language", "en", "--max-tokens", "64", "--concurrency", "4", "--attempts", "2"]
        options += ["--timeout", "20"]  # the old API server may keep its connections open, and say nothing
        command = [sys.executable, "-m", "app.cli", *arguments(tmp_path, server.base_url, "p", 4, *options)]
        journal = tmp_path / "teacher" / "D_p-train-3.journal.jsonl"
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            while (journal.read_bytes().count(b"\n") if journal.exists() else 0) < 5:
                assert process.poll() is None
                time.sleep(0.01)
            assert server._process is not None
            server._process.kill()  # the launcher, which takes vLLM along; the server's watcher starts another
            _, error = process.communicate(timeout=400)
        assert process.returncode == 1 and "only 0 of 4 records came out of 14" in error
        plan, out = Plan("D_p", "train", 3, ("en", "zh"), 1), tmp_path / "held"
        held = [*common, "--structured", "--max-tokens", "1400", "--timeout", "400", "--language", "both"]
        assert easel(arguments(out, server.base_url, "p", 2, *held)) == 0
        assert check(out).ok and len(records_of(out)) == 2
        answers_keep_the_schema(out, plan)
    answers = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    refused = [json.loads(line) for line in (tmp_path / "teacher" / "D_p-train-3.refused.jsonl").open()]
    assert len(answers) == len(refused) == 14 * 2  # though the server died under it
    assert all(line["verdict"] == "refused" and line["tokens"][0] > 100 and line["tokens"][1] for line in answers)
    assert all("not JSON" in line["reason"] or "token limit" in line["reason"] for line in refused)


def answers_keep_the_schema(out: Path, plan: Plan) -> None:
    """All that came to their end; what is refused is refused for its words."""
    journal = out / "teacher" / f"{plan.task}-train-{plan.seed}.journal.jsonl"
    for answer in map(json.loads, journal.read_text(encoding="utf-8").splitlines()[1:]):
        asked = brief(plan, answer["index"], answer["attempt"], seeds(plan.languages[0], "train"))
        if answer["finish"] == "stop":
            jsonschema.validate(json.loads(answer["text"]), asked.schema)
            assert not any(word in str(answer["reason"]) for word in ("JSON", "lacks", "has '", "no text"))
        else:
            assert "token limit" in answer["reason"]
