"""Starts vLLM for one dialog model, watches it, restarts it, and takes it down.

    python -m dialog_mllm.server MODEL [ADAPTER]     # serves until Ctrl-C, prints the URL and the key

`VllmServer` never blocks its caller except in `wait_ready` and `stop`: a thread of its own watches the process and
polls /health. No process outlives the app (see launcher.py).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import httpx

from dialog_mllm.bases import require_base
from dialog_mllm.errors import AdapterError, DialogRefused, DialogUnavailable, ServerFailed, server_message
from dialog_mllm.launcher import take_down
from dialog_mllm.messages import MAX_IMAGES

State = Literal["stopped", "warming up", "ready", "restarting", "failed"]

MODEL_NAME = "dialog"  # what clients ask for: the adapter where there is one, else the base
BASE_NAME = "base"  # the base beside its adapter
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM knows
PATIENCE = {"busy": 120.0, "broken": 15.0}  # seconds until a server that was ready is started again
LOG_LINES = 12  # of the log's tail in an error message

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerSettings:
    """How vLLM runs. The defaults suit a small model on a CPU."""

    dtype: str = "float32"  # vLLM's default turns float32 checkpoints into bfloat16
    eager: bool = True  # compiling doubles the start-up time
    max_model_len: int | None = None  # None: what the model's config says
    max_images: int = MAX_IMAGES
    max_sequences: int = 16
    kv_cache_mb: int | None = 256  # None: vLLM's default, a share of the memory
    max_lora_rank: int = 64  # of adapters that are loaded while it runs
    # vLLM's LoRA on a CPU copies the adapter's matrices for each token of a step: of more tokens than these, the copies
    # leave the processor's cache, and the adapter costs 30 times what the model does. None: vLLM's default.
    lora_step_tokens: int | None = 256
    block_size: int | None = 32  # tokens; what two conversations or two turns share is found in whole blocks
    picture_cache_mb: int | None = 64  # of the server and again of the engine; vLLM would let both grow to 4 GB
    runtime_adapters: bool = False  # adapters come and go while it runs
    statistics: bool = False  # vLLM's counters at /metrics; they cost a little
    threads: int | None = None  # None: OMP_NUM_THREADS, else up to 4
    start_timeout: float = 600.0
    restarts: int = 4  # in a row, before giving up
    vllm: bool = True  # where it is installed
    extra_args: tuple[str, ...] = ()


class VllmServer:
    """One vLLM process on loopback. `state` and `error` say how it is; `base_url` is final once it was ready."""

    def __init__(
        self,
        model: Path | str,
        adapter: Path | str | None = None,
        settings: ServerSettings | None = None,
        log_dir: Path | str = ".",
        port: int | None = None,
    ) -> None:
        self.settings = settings or ServerSettings()
        self.model_name = MODEL_NAME
        self.api_key = secrets.token_urlsafe(24)
        self.log_path = Path(log_dir).absolute() / "vllm.log"
        self.error: str | None = None
        self._model = _absolute(model)
        self._adapter = _absolute(adapter) if adapter is not None else None
        self._loaded: dict[str, str] = {}  # further adapters, by name; a server that starts again has them again
        self._fixed_port = port
        self._port = port or _free_port()
        self._was_ready = False
        self._served = False  # was ready in this run
        self._state: State = "stopped"
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._process: subprocess.Popen | None = None
        self._watcher: threading.Thread | None = None

    @property
    def state(self) -> State:
        return self._state

    @property
    def by_vllm(self) -> bool:
        """Else transformers serves the model: there is no vLLM for every machine."""
        return self.settings.vllm and find_spec("vllm") is not None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def adapter(self) -> Path | None:
        return Path(self._adapter) if self._adapter else None

    def load_adapter(self, name: str, folder: Path) -> None:
        """Serve one more adapter, under `name`. Before the start it is only noted, and served from the start on.
        Raises ServerFailed for a folder that is not complete, DialogRefused or DialogUnavailable as the server does."""
        check_adapter(str(folder))
        if self._state != "stopped":
            self._post("load_lora_adapter", {"lora_name": name, "lora_path": str(folder.absolute())})
        self._loaded[name] = str(folder.absolute())

    def unload_adapter(self, name: str) -> None:
        """Nobody may be using it any more."""
        del self._loaded[name]
        if self._state != "stopped":
            self._post("unload_lora_adapter", {"lora_name": name})

    def start(self) -> None:
        """Checks what can be checked at once, then starts in the background."""
        if self._watcher is not None:
            return
        try:
            check_model(self._model)
            if self._adapter is not None:
                check_adapter(self._adapter)
                adapter_rank(self._adapter)
            if self._fixed_port and not _port_is_free(self._fixed_port):
                raise ServerFailed(f"Port {self._fixed_port} is in use. Choose another one for the dialog model.")
            self._open_log()
        except ServerFailed as error:
            self._set("failed", str(error))
            raise
        self._stopping.clear()
        self._set("warming up")
        self._watcher = threading.Thread(target=self._watch, name="vllm-watcher", daemon=True)
        self._watcher.start()

    def wait_ready(self, timeout: float | None = None) -> None:
        """Returns when the server is ready; raises ServerFailed when it never will be, or not in time."""
        with self._changed:
            settled = self._changed.wait_for(lambda: self._state in ("ready", "failed", "stopped"), timeout)
        if self._state == "ready":
            return
        if not settled:
            raise ServerFailed(f"The dialog model was not ready after {timeout:.0f} s. Its log: {self.log_path}")
        raise ServerFailed(self.error or "The dialog model's server is stopped.")

    def stop(self) -> None:
        """Returns when every process of the server is gone. May be called twice."""
        self._stopping.set()
        self._kill()
        if self._watcher is not None and self._watcher is not threading.current_thread():
            self._watcher.join()
        self._watcher = None
        self._set("stopped")

    def __enter__(self) -> VllmServer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _post(self, path: str, body: dict[str, str]) -> None:
        try:
            answer = httpx.post(
                f"{self.base_url}/{path}", json=body, headers={"Authorization": f"Bearer {self.api_key}"},
                timeout=120.0, trust_env=False,
            )  # fmt: skip
        except httpx.HTTPError as error:
            raise DialogUnavailable("The dialog model's server cannot be reached. Is it still starting?") from error
        if answer.status_code == 200:
            return
        reason = server_message(answer.text) or f"status {answer.status_code}"
        name = body["lora_name"]
        if path == "load_lora_adapter" and "already been loaded" in reason:
            return  # the server died and came back while it was asked
        raise DialogRefused(f"The dialog model's server refused the adapter {name!r}: {reason}")

    def _watch(self) -> None:
        try:  # not in `start`: a large base takes seconds to read, and whoever starts us has a page to show
            if self._adapter is not None:
                require_base(Path(self._adapter), self._model)
        except AdapterError as error:
            self._set("failed", str(error))
            return
        failures = 0
        while not self._stopping.is_set():
            try:
                reason = self._run_once()
            except Exception as error:  # else it would be waited for without end
                log.exception("the dialog model's server could not be run")
                self._set("failed", f"The dialog model's server could not be run: {error}")
                return
            if self._stopping.is_set():
                return
            # A server that was ready before it died is not one that cannot start.
            failures = 1 if self._served else failures + 1
            fatal = not self._was_ready and not _PORT_TAKEN.search(reason)
            if fatal or failures > self.settings.restarts:
                self._set("failed", f"The dialog model's server stopped: {reason}")
                return
            self._set("restarting", reason)
            self._stopping.wait(min(2.0 ** (failures - 1), 30.0))

    def _run_once(self) -> str:
        """Starts the process and stays until it ends; returns why it did."""
        if not self._was_ready and not self._fixed_port:
            self._port = _free_port()
        with self.log_path.open("ab") as log:
            log_start = log.tell()
            process = subprocess.Popen(
                [sys.executable, "-I", str(Path(__file__).with_name("launcher.py")), *self._command()],
                stdin=subprocess.PIPE,  # its end tells the launcher that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                cwd=self.log_path.parent,  # not the user's folder: its Python files must not shadow modules
                start_new_session=True,
            )
        self._process = process
        group = 0  # of vLLM's processes, which the launcher takes down, unless it is killed itself
        if self._stopping.is_set():
            self._kill()
        deadline = time.monotonic() + self.settings.start_timeout
        silent_since: float | None = None
        reason = ""
        self._served = False
        with httpx.Client(trust_env=False, timeout=5.0) as http:
            while process.poll() is None:
                group = group or _child_of(process.pid)
                health = self._health(http)
                if health == "well":
                    silent_since = None
                    if self._state != "ready":
                        self._was_ready = self._served = True
                        self._set("ready")
                elif self._state == "ready":
                    silent_since = silent_since or time.monotonic()
                    patience = PATIENCE[health]
                    if time.monotonic() - silent_since > patience:
                        reason = f"it did not answer for {patience:.0f} s"
                        self._kill()
                elif time.monotonic() > deadline:
                    reason = f"it was not ready after {self.settings.start_timeout:.0f} s"
                    self._kill()
                # Ends early when the process does.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1.0 if self._state == "ready" else 0.2)
        if process.stdin:
            process.stdin.close()
        if group and process.returncode < 0:  # it was killed, and could not do it
            take_down(group)
        return reason or explain_log(self._log_tail(log_start), process.returncode, self.log_path)

    def _health(self, http: httpx.Client) -> Literal["well", "busy", "broken"]:
        try:
            answer = http.get(f"http://127.0.0.1:{self._port}/health")
        except httpx.TimeoutException:
            return "busy"
        except httpx.HTTPError:
            return "broken"  # nobody listens
        return "well" if answer.status_code == 200 else "broken"  # its engine is dead

    def _kill(self) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()  # the launcher takes the whole group down
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _command(self) -> list[str]:
        settings = self.settings
        entry = "vllm_entry.py" if self.by_vllm else "plain_server.py"
        command = [sys.executable, "-P", str(Path(__file__).with_name(entry))]
        command += ["--model", self._model, "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--served-model-name", BASE_NAME if self._adapter else MODEL_NAME]
        command += ["--dtype", settings.dtype, "--max-num-seqs", str(settings.max_sequences)]
        command += ["--limit-mm-per-prompt", json.dumps({"image": settings.max_images})]
        command += ["--distributed-executor-backend", "uni"]  # one engine process instead of two: 0.5 GB, 4 s
        command += ["--disable-uvicorn-access-log"]
        if not settings.statistics:
            command += ["--disable-log-stats"]
        if settings.eager:
            command += ["--enforce-eager"]
        if settings.max_model_len:
            command += ["--max-model-len", str(settings.max_model_len)]
        if settings.kv_cache_mb:
            command += ["--kv-cache-memory-bytes", str(settings.kv_cache_mb << 20)]
        if settings.block_size:
            command += ["--block-size", str(settings.block_size)]
        if settings.picture_cache_mb:
            command += ["--mm-processor-cache-gb", str(settings.picture_cache_mb / 1024)]
        if self._adapter or settings.runtime_adapters:
            rank = settings.max_lora_rank if settings.runtime_adapters else adapter_rank(str(self._adapter))
            command += ["--enable-lora", "--max-lora-rank", str(rank)]
            if settings.lora_step_tokens:
                command += ["--max-num-batched-tokens", str(settings.lora_step_tokens)]
        if settings.runtime_adapters:
            # Replies in flight finish on one adapter while new ones get the next; four stay in memory.
            command += ["--max-loras", "2", "--max-cpu-loras", "4"]
        adapters = {MODEL_NAME: self._adapter} if self._adapter else {}
        adapters |= {name: folder for name, folder in self._loaded.items() if Path(folder).is_dir()}
        if adapters:
            command += ["--lora-modules", *(f"{name}={folder}" for name, folder in adapters.items())]
        return [*command, *settings.extra_args]

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        environment |= {
            "VLLM_API_KEY": self.api_key,  # not on the command line, where every user of the machine reads it
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the generator wants the same cores
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # else vLLM replaces "uni" on CPUs; the engine is a process anyway
            "PYTHONUNBUFFERED": "1",
        }
        given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # OpenMP takes a list: of nested levels
        threads = self.settings.threads or (int(given) if given.isdecimal() else 0) or min(4, os.cpu_count() or 1)
        environment["OMP_NUM_THREADS"] = str(threads)
        environment.pop("VLLM_CPU_KVCACHE_SPACE", None)  # it would override kv_cache_mb
        if Path(self._model).is_dir():
            environment["HF_HUB_OFFLINE"] = "1"
        if self.settings.runtime_adapters:
            environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
        return environment

    def _open_log(self) -> None:
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            if self.log_path.exists():
                self.log_path.replace(self.log_path.with_suffix(".log.1"))
            self.log_path.touch()
        except OSError as error:
            raise ServerFailed(f"The log {self.log_path} cannot be written: {error.strerror}.") from error

    def _log_tail(self, start: int) -> str:
        with self.log_path.open("rb") as log:
            log.seek(max(start, self.log_path.stat().st_size - 65_536))
            return log.read().decode("utf-8", "replace")

    def _set(self, state: State, error: str | None = None) -> None:
        with self._changed:
            self._state = state
            self.error = error
            self._changed.notify_all()


def check_model(model: str) -> None:
    """Raises ServerFailed if a local model folder is plainly incomplete; a hub name is vLLM's to check."""
    folder = Path(model)
    if not folder.is_dir():
        if folder.is_absolute() or model.startswith("."):
            raise ServerFailed(f"The dialog model is missing: there is no folder {model}.")
        return
    _require(folder, "config.json", "model")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights and not any(folder.glob("*.bin")):
        raise ServerFailed(f"The dialog model in {folder} has no weights (*.safetensors). Restore the folder.")
    for file in weights:
        _check_safetensors(file)


def check_adapter(adapter: str) -> None:
    folder = Path(adapter)
    _require(folder, "adapter_config.json", "adapter")
    _require(folder, "adapter_model.safetensors", "adapter")
    _check_safetensors(folder / "adapter_model.safetensors")


def adapter_rank(adapter: str) -> int:
    """The smallest of vLLM's sizes that holds the adapter: each adapter is padded to it, and computed at it."""
    path = Path(adapter) / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        rank = max([config["r"], *(config.get("rank_pattern") or {}).values()])
        return next(size for size in LORA_RANKS if size >= rank)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ServerFailed(
            f"{path} names no rank from 1 to {LORA_RANKS[-1]}. Restore the adapter, or finetune it again."
        ) from error


def _require(folder: Path, name: str, what: str) -> None:
    if not (folder / name).is_file():
        raise ServerFailed(f"The dialog model's {what} in {folder} is incomplete: {name} is missing.")


def _check_safetensors(file: Path) -> None:
    """The header says how long the file must be: finds truncated files and pointers without reading the weights."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (header_size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(header_size)) if header_size < min(size, 100 << 20) else {}
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + header_size + max(ends)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ServerFailed(f"The weights {file} are damaged. Restore the file.") from error
    if size != expected:
        raise ServerFailed(f"The weights {file} are truncated: {size:,} bytes of {expected:,}. Restore the file.")


_PORT_TAKEN = re.compile(r"[Pp]ort \S+ is in use|[Aa]ddress already in use")
_REASONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"[Aa]ddress already in use"), "its port is in use (address already in use)"),
    (
        re.compile(r"out of memory|MemoryError|[Cc]annot allocate memory|DefaultCPUAllocator|No available memory"),
        "there is not enough memory for it. Close other programs or lower the KV cache",
    ),
    (re.compile(r"No space left on device"), "the disk is full"),
    (re.compile(r"SafetensorError|HeaderTooLarge|InvalidHeader"), "its weights are damaged. Restore the model folder"),
)
_ERROR_LINE = re.compile(r"\b([A-Z]\w*(?:Error|Exception)): (.+)")


def explain_log(log: str, returncode: int | None, path: Path) -> str:
    """Why vLLM ended, in a sentence where the log tells, followed by the log's tail."""
    lines = [line for line in log.splitlines() if line.strip()]
    reason = next((said for pattern, said in _REASONS if pattern.search(log)), "")
    if not reason:
        # The engine's own error stands before "Engine core initialization failed. See root cause above."
        errors = [match.group(0) for match in map(_ERROR_LINE.search, lines) if match]
        causes = [error for error in errors if "Engine core" not in error and "EngineCore" not in error]
        reason = causes[-1][:300] if causes else ""
    if not reason and returncode in (-9, 137):
        reason = "it was killed, perhaps for lack of memory"
    tail = "\n".join(line[:200] for line in lines[-LOG_LINES:])
    return f"{reason or f'it ended with status {returncode}'}. The log {path} ends:\n{tail}"


def _absolute(path: Path | str) -> str:
    return str(Path(path).absolute()) if isinstance(path, Path) or Path(path).exists() else path


def _child_of(pid: int) -> int:
    """Its first child, which leads a group of its own; 0 where there is none, or no Linux to ask."""
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def main(arguments: list[str], say: Callable[[str], None] = print) -> None:
    if not 1 <= len(arguments) <= 2:
        raise SystemExit(__doc__)
    with VllmServer(arguments[0], arguments[1] if len(arguments) == 2 else None) as server:
        server.wait_ready()
        say(f"{server.base_url} key {server.api_key} model {server.model_name}")
        with contextlib.suppress(KeyboardInterrupt):
            while server.state != "failed":
                time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1:])
