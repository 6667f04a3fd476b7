"""Real vLLM, real processes: what the client gets from it, and that nothing is left of it, however it ends."""

from __future__ import annotations

import asyncio
import base64
import io
import math
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import httpx
import pytest
from PIL import Image

from dialog_mllm.client import DialogClient, Mode
from dialog_mllm.errors import ContextTooLong, DialogRefused, DialogUnavailable, EmptyPrompt, ServerFailed
from dialog_mllm.messages import ImageBlock, Message, to_chat
from dialog_mllm.protocol import DRAW, DrawStart, PromptDelta, Reply
from dialog_mllm.server import BASE_NAME, ServerSettings, VllmServer, explain_log
from tests.dialog_mllm.conftest import TinyModel
from tests.dialog_mllm.tiny import CONTEXT, TALK
from tests.waiting import wait_until

RED, BLUE = (ImageBlock.from_picture(Image.new("RGB", (200, 100), colour)) for colour in ("red", "blue"))
WITH_PICTURES = [
    Message.user("hello <draw>", [RED]),
    Message.assistant("<draw>fox", BLUE),
    Message.user("again"),
]


def client_of(server: VllmServer, model: str = BASE_NAME, **options) -> DialogClient:
    return DialogClient(server.base_url, server.api_key, model, **options)


async def collect(client: DialogClient, messages: list[Message], mode: Mode = "auto") -> list:
    return [event async for event in client.reply(messages, mode)]


def ask(client: DialogClient, messages: list[Message], mode: Mode = "auto") -> Reply:
    return asyncio.run(collect(client, messages, mode))[-1]


@pytest.fixture(scope="session")
def expected(tiny_model: TinyModel) -> dict[str, list[float]]:
    """P(<draw>) by transformers, of the base and of the adapter, for three conversations."""
    import torch
    from peft import PeftModel
    from transformers import AutoProcessor, Idefics3ForConditionalGeneration

    processor = AutoProcessor.from_pretrained(tiny_model.base)
    draw = processor.tokenizer.convert_tokens_to_ids(DRAW)

    def probability(model, messages: list[Message]) -> float:
        chat = to_chat(messages)
        pictures = []
        for message in chat:
            for part in message["content"] if isinstance(message["content"], list) else ():
                if part["type"] == "image_url":
                    part["type"] = "image"
                    data = part.pop("image_url")["url"].partition(",")[2]
                    pictures.append(Image.open(io.BytesIO(base64.b64decode(data))))
        text = processor.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        inputs = processor(text=text, images=[pictures] if pictures else None, return_tensors="pt")
        with torch.no_grad():
            return model(**inputs).logits[0, -1].softmax(-1)[draw].item()

    conversations = ([Message.user("hi")], WITH_PICTURES, [Message.user("", [BLUE])])
    base = Idefics3ForConditionalGeneration.from_pretrained(tiny_model.base).eval()
    by_base = [probability(base, messages) for messages in conversations]
    adapted = PeftModel.from_pretrained(base, tiny_model.adapter).eval()
    return {BASE_NAME: by_base, "dialog": [probability(adapted, messages) for messages in conversations]}


@pytest.mark.parametrize("model", [BASE_NAME, "dialog"])
def test_the_model_sees_what_training_sees(served: VllmServer, expected: dict[str, list[float]], model: str) -> None:
    """Template, tokens, pictures, precision and the adapter: equal to transformers' to three decimals."""
    client = client_of(served, model)
    conversations = ([Message.user("hi")], WITH_PICTURES, [Message.user("", [BLUE])])
    probabilities = [ask(client, messages).draw_probability for messages in conversations]
    assert probabilities == pytest.approx(expected[model], abs=1e-3)
    assert len({round(probability, 2) for probability in (*expected["dialog"], *expected[BASE_NAME])}) > 3


def test_a_bias_moves_the_decision_and_the_probability(served: VllmServer, expected: dict[str, list[float]]) -> None:
    hi = [Message.user("hi")]
    assert ask(client_of(served, draw_bias=-50.0), hi).kind == "text"
    with pytest.raises(EmptyPrompt):  # it draws, and draws, and draws
        ask(client_of(served, draw_bias=50.0), hi)
    odds = expected[BASE_NAME][0] / (1 - expected[BASE_NAME][0]) * math.e
    probability = ask(client_of(served, draw_bias=1.0), hi).draw_probability
    assert probability == pytest.approx(odds / (1 + odds), abs=2e-3)


def test_modes(served: VllmServer) -> None:
    client = client_of(served, max_tokens=50)
    events = asyncio.run(collect(client, [Message.user("hi")]))
    assert events[0] == DrawStart()
    assert "".join(event.text for event in events[1:-1] if isinstance(event, PromptDelta)) == "fox"
    assert events[-1].content == "<draw>fox"
    assert 0.5 < events[-1].draw_probability < 0.95
    forced = ask(client, [Message.user("hi")], "draw")
    assert (forced.kind, forced.prompt) == ("draw", "fox")
    talk = ask(client, [Message.user("hi")], "talk")
    assert (talk.kind, talk.text, talk.truncated) == ("text", (TALK * 2)[:50], True)
    assert talk.draw_probability == events[-1].draw_probability  # what it would have liked


def test_the_protocol_survives_serving(served: VllmServer) -> None:
    assert asyncio.run(client_of(served, "dialog").check_protocol()).single is not None


def test_what_the_server_refuses(served: VllmServer) -> None:
    hello = [Message.user("hello")]
    with pytest.raises(DialogRefused, match="API key"):
        ask(DialogClient(served.base_url, "guess", BASE_NAME), hello)
    with pytest.raises(DialogRefused, match="no model 'other'"):
        ask(client_of(served, "other"), hello)
    with pytest.raises(ContextTooLong):
        ask(client_of(served), [Message.user("x y " * CONTEXT)])
    with pytest.raises(DialogRefused, match="At most 4 image"):
        ask(client_of(served, max_images=9), [Message.user("", [RED] * 5)])
    history = [Message.user("hi"), *[Message.assistant("A B " * 40), Message.user("and " * 20)] * 6]
    reply = ask(client_of(served), history)
    assert (reply.prompt, reply.forgotten % 2, 0 < reply.forgotten < len(history)) == ("fox", 0, True)
    for words in range(2, 40):  # however full it is, the reply is whole
        history = [Message.user("hi"), Message.assistant("A B " * 100), Message.user("and " * words)]
        assert ask(client_of(served), history).prompt == "fox", words


def test_many_at_once_get_what_each_gets_alone(served: VllmServer) -> None:
    client = client_of(served)
    conversations = [[Message.user(f"number {number}", [RED] * (number % 3))] for number in range(6)]

    async def together() -> list[list]:
        return await asyncio.gather(*(collect(client, messages) for messages in conversations))

    alone = [ask(client, messages) for messages in conversations]
    for events, reply in zip(asyncio.run(together()), alone, strict=True):
        assert events[-1].content == reply.content
        assert events[-1].draw_probability == pytest.approx(reply.draw_probability, abs=1e-4)


def processes_naming(text: str) -> dict[int, str]:
    """The processes whose environment holds the text: vLLM's engine renames itself, but not its environment."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def test_killed_in_mid_reply_it_comes_back(tiny_model: TinyModel, tmp_path: Path) -> None:
    """The reply fails with a named error, nothing of the old server is left, and the next reply works."""
    settings = ServerSettings(threads=1, kv_cache_mb=64)
    with VllmServer(tiny_model.base, None, settings, tmp_path) as server:
        assert server.state == "warming up"
        with pytest.raises(ServerFailed, match="not ready after"):
            server.wait_ready(0.01)
        with pytest.raises(DialogUnavailable, match="Is it running"):
            ask(DialogClient(server.base_url, server.api_key, retries=0), [Message.user("hi")])
        server.wait_ready(600)
        old = processes_naming(server.api_key)
        (api_server,) = (
            pid for pid, command in old.items() if "vllm_entry.py --model" in command and "-I" not in command
        )
        assert server.api_key not in "".join(old.values())
        (engine,) = (pid for pid, command in old.items() if "EngineCore" in command)
        client = DialogClient(server.base_url, server.api_key, retries=0)
        asyncio.run(client.check_protocol())

        async def interrupted() -> None:
            os.kill(engine, signal.SIGSTOP)  # so that the reply is surely not finished before the kill
            reply = asyncio.create_task(collect(client, [Message.user("hi")]))
            await asyncio.sleep(2)
            os.kill(api_server, signal.SIGKILL)
            await reply

        with pytest.raises(DialogUnavailable):
            asyncio.run(interrupted())
        wait_until(lambda: server.state == "restarting", 60, "restarting")
        assert "The log" in (server.error or "")
        wait_until(lambda: not old.keys() & processes_naming(server.api_key).keys(), 60, "old processes gone")
        server.wait_ready(600)
        assert ask(client, [Message.user("hi")]).prompt == "fox"
    assert server.state == "stopped"
    assert not processes_naming(server.api_key)


@pytest.mark.parametrize("ready", [False, True])
def test_nothing_survives_an_app_that_is_killed(tiny_model: TinyModel, tmp_path: Path, ready: bool) -> None:
    app = textwrap.dedent(f"""
        import time
        from dialog_mllm.server import ServerSettings, VllmServer
        settings = ServerSettings(threads=1, kv_cache_mb=64)
        server = VllmServer({str(tiny_model.base)!r}, None, settings, {str(tmp_path)!r})
        server.start()
        if {ready}:
            server.wait_ready(600)
        print("here", flush=True)
        time.sleep(600)
    """)
    mark = f"easel-test-{os.getpid()}-{ready}"
    environment = os.environ | {"EASEL_TEST_MARK": mark}
    with subprocess.Popen([sys.executable, "-c", app], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout and process.stdout.readline() == b"here\n"
        wait_until(lambda: len(processes_naming(mark)) >= (4 if ready else 3), 120, "server running")
        process.kill()
    wait_until(lambda: not processes_naming(mark), 60, f"all gone, but {processes_naming(mark)}")


def run_launcher(tmp_path: Path, command: str) -> subprocess.Popen:
    launcher = Path(sys.modules[VllmServer.__module__].__file__ or "").with_name("launcher.py")
    arguments = [sys.executable, "-I", str(launcher), "bash", "-c", command]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, cwd=tmp_path)


def alive(pid_file: Path) -> bool:
    return Path("/proc", pid_file.read_text().strip(), "cmdline").exists()


def test_launcher_takes_strays_down(tmp_path: Path) -> None:
    """A process that left the group and ignores SIGTERM goes too, whether its parent ends or we do."""
    stray = "setsid bash -c 'trap \"\" TERM; echo $$ > pid; while true; do sleep 0.1; done' & "
    pid_file = tmp_path / "pid"
    with run_launcher(tmp_path, stray + "while ! test -s pid; do sleep 0.1; done; exit 7") as launcher:
        assert launcher.wait(60) == 7
    assert not alive(pid_file)
    pid_file.unlink()
    with run_launcher(tmp_path, stray + "wait") as launcher:
        wait_until(lambda: pid_file.exists() and pid_file.read_text().strip() != "", 60, "started")
        assert alive(pid_file)
        assert launcher.stdin
        launcher.stdin.close()
        launcher.wait(60)
    assert not alive(pid_file)


def test_a_killed_launcher_takes_its_command_along(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with run_launcher(tmp_path, "echo $$ > pid; exec sleep 60") as launcher:
        wait_until(lambda: pid_file.exists() and pid_file.read_text().strip() != "", 60, "started")
        launcher.kill()
    wait_until(lambda: not alive(pid_file), 60, "command gone")


def copy_of(model: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_damaged_models_are_named_at_once(tiny_model: TinyModel, tmp_path: Path) -> None:
    def reason(model: Path, adapter: Path | None = None) -> str:
        server = VllmServer(model, adapter, log_dir=tmp_path)
        with pytest.raises(ServerFailed) as caught:
            server.start()
        assert (server.state, server.error) == ("failed", str(caught.value))
        with pytest.raises(ServerFailed):
            server.wait_ready(1)
        return str(caught.value)

    assert "there is no folder" in reason(tmp_path / "nowhere")
    broken = copy_of(tiny_model.base, tmp_path / "broken")
    weights = broken / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1000])
    assert "truncated" in reason(broken)
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert "damaged" in reason(broken)
    weights.unlink()
    assert "no weights" in reason(broken)
    (broken / "config.json").unlink()
    assert "config.json is missing" in reason(broken)
    assert "adapter_config.json is missing" in reason(tiny_model.base, tmp_path)


def test_vllms_own_reason_is_shown(tiny_model: TinyModel, tmp_path: Path) -> None:
    """A mistake that only vLLM can see: the state is "failed", the reason its own, the log at hand."""
    broken = copy_of(tiny_model.base, tmp_path / "broken")
    (broken / "config.json").write_text('{"model_type": "no-such-model"}')
    server = VllmServer(broken, None, ServerSettings(threads=1), tmp_path / "logs")
    server.start()
    with pytest.raises(ServerFailed, match="no-such-model"):
        server.wait_ready(600)
    assert server.state == "failed"
    assert str(server.log_path) in (server.error or "")
    server.stop()
    server.stop()
    assert not processes_naming(server.api_key)


def test_a_port_in_use(tiny_model: TinyModel, served: VllmServer, tmp_path: Path) -> None:
    port = httpx.URL(served.base_url).port
    with pytest.raises(ServerFailed, match=f"Port {port} is in use"):
        VllmServer(tiny_model.base, log_dir=tmp_path, port=port).start()


def test_log_that_cannot_be_written(tiny_model: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServerFailed, match="cannot be written"):
        VllmServer(tiny_model.base, log_dir=tmp_path / "file").start()


@pytest.mark.parametrize(
    ("log", "status", "reason"),
    [
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory", 1, "not enough memory"),
        ("OSError: [Errno 98] Address already in use", 1, "port is in use"),
        ("OSError: [Errno 28] No space left on device", 1, "disk is full"),
        ("safetensors_rust.SafetensorError: Error while deserializing header", 1, "damaged"),
        ("x\nValueError: bad rope\nRuntimeError: Engine core initialization failed.", 1, "ValueError: bad rope"),
        ("loading", 137, "killed"),
        ("", 3, "status 3"),
    ],
)
def test_the_log_explains(log: str, status: int, reason: str) -> None:
    assert reason in explain_log(log, status, Path("vllm.log")).partition(". The log")[0]
