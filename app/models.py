"""Both models of a profile, started in the background: the page is up at once, and who asks early waits here.

models = Models(profile, log_dir); models.start(first_page); ...; models.stop()
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.logs import say
from app.profiles import Profile
from dialog_mllm.adapters import Adapters, takes_adapters
from dialog_mllm.client import DialogClient
from dialog_mllm.errors import DialogError, DialogTimeout, DialogUnavailable, ServerFailed
from dialog_mllm.messages import Message
from dialog_mllm.protocol import Reply
from dialog_mllm.server import ServerSettings, VllmServer, adapter_rank
from dialog_mllm.switching import LiveAdapters, Served
from generator.errors import CheckpointError, EngineClosed, GeneratorError, RequestError
from generator.request import DrawRequest, Upload

if TYPE_CHECKING:
    from generator.engine import Backbone, Engine, Job, Progress

READY, WARMING, FAILED = "ready", "warming up", "failed"
FRESH_RANK = 32  # of an adapter that the Improve page makes where there is none to go on from
CHECK_AGAIN = 2.0  # seconds until a dialog model that was not there is asked again
FIRST_PAGE = 5.0  # seconds that the generator waits for a page to be there
PATIENCE = 600.0  # seconds that a message waits for a model that is still starting

log = logging.getLogger(__name__)


class Models:
    """What `take_turn` needs of the models, and how they are."""

    def __init__(self, profile: Profile, log_dir: Path, adapters: Path | None = None) -> None:
        self.dialog = DialogModel(profile, log_dir, adapters)
        self.generator = GeneratorModel(profile)

    def start(self, first_page: threading.Event | None = None) -> None:
        """The generator shares the interpreter with the page: it loads once that is there, or after `FIRST_PAGE`."""
        self.dialog.start()
        self.generator.start(first_page)

    def stop(self) -> None:
        self.generator.stop()
        self.dialog.stop()

    def health(self) -> dict[str, str]:
        """{"status": "ready" | "warming up" | "failed", "dialog": …, "generator": …, "error": …}, and "served_by" where
        the dialog model is not our own vLLM's."""
        states = (self.dialog.state, self.generator.state)
        status = READY if states == (READY, READY) else FAILED if FAILED in states else WARMING
        # Anybody may ask: what else the server's log said is for whoever reads the log.
        errors = [error.splitlines()[0] for error in (self.dialog.error, self.generator.error) if error]
        health = {"status": status, "dialog": states[0], "generator": states[1]}
        if self.dialog.served_by != "vllm":
            health["served_by"] = self.dialog.served_by
        return {**health, "error": " ".join(errors)} if status == FAILED else health


class DialogModel:
    """The dialog model behind HTTP: a server of our own, or one that the profile names. With a folder for
    `adapters`, our own changes them while it runs: see `live`, which is None elsewhere."""

    def __init__(self, profile: Profile, log_dir: Path, adapters: Path | None = None) -> None:
        self.live: LiveAdapters | None = None
        self._server: VllmServer | None = None
        self._checked = False
        self._stopped = threading.Event()
        self._wrong: str | None = None  # why the protocol check refused the server
        if profile.mllm_url:
            self._client = DialogClient(profile.mllm_url, profile.mllm_key or None, profile.dialog, **profile.asking)
            return
        # Not every model that vLLM serves takes adapters: it would not start.
        changing = adapters is not None and (bool(profile.adapter) or takes_adapters(profile.dialog))
        kept = Adapters(adapters, profile.dialog) if changing and adapters is not None else None
        settings = server_settings(
            profile, runtime_adapters=changing, max_lora_rank=largest_rank(profile.adapter, kept)
        )
        self._server = server = VllmServer(profile.dialog, profile.adapter or None, settings, log_dir)
        self._client = DialogClient(lambda: server.base_url, server.api_key, server.model_name, **profile.asking)
        if kept is not None:
            self.live = LiveAdapters(server, kept, profile.adapter_sha256)

    @property
    def state(self) -> str:
        if self._wrong:
            return FAILED
        if self._server is not None and self._server.state != READY:
            return FAILED if self._server.state in ("failed", "stopped") else WARMING
        return READY if self._checked else WARMING

    @property
    def error(self) -> str:
        return self._wrong or (self._server.error if self._server is not None and self.state == FAILED else None) or ""

    @property
    def served_by(self) -> str:
        """ "vllm" or "transformers", of our own; "elsewhere"."""
        return "elsewhere" if self._server is None else "vllm" if self._server.by_vllm else "transformers"

    @property
    def server(self) -> tuple[str, str]:
        """Address and key of our own server."""
        assert self._server is not None
        return self._server.base_url, self._server.api_key

    def start(self) -> None:
        if self.live is not None:
            self.live.prepare()
        if self._server is not None:
            self._server.start()
        if self.live is not None:  # it waits for the server, which must have been started
            threading.Thread(target=self.live.follow, name="easel-adapters", daemon=True).start()
        threading.Thread(target=self._check, name="easel-dialog-check", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()
        if self.live is not None:
            self.live.stop()
        if self._server is not None:
            self._server.stop()

    async def reply(
        self, messages: Sequence[Message], mode: Any = "auto", conversation: str = ""
    ) -> AsyncGenerator[Any]:
        """`conversation`: its id, where an adapter may be tried on some of them."""
        await self._ready()
        with self._adapter(conversation) as served:
            model = served.model if served is not None else None
            async with contextlib.aclosing(self._client.reply(messages, mode, model=model)) as events:
                async for event in events:
                    if served is not None and isinstance(event, Reply):
                        event = replace(event, adapter=served.sha256)
                    yield event

    def _adapter(self, conversation: str) -> AbstractContextManager[Served | None]:
        return self.live.lease(conversation=conversation) if self.live is not None else contextlib.nullcontext()

    async def _ready(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while self.state == WARMING and loop.time() < deadline:
            await asyncio.sleep(0.1)
        if self.state != READY:
            raise DialogUnavailable(self.error or "The dialog model is still warming up. Retry in a minute.")

    def _check(self) -> None:
        """The draw token must survive serving; the check's one request also warms the server up."""
        started = time.monotonic()
        while not self._stopped.is_set():
            try:
                if self._server is not None:
                    self._server.wait_ready()
                asyncio.run(self._client.check_protocol())
                self._checked, self._wrong = True, None
                say(log, "the dialog model is ready", seconds=round(time.monotonic() - started, 1))
                return
            except ServerFailed:
                return  # the server says why
            except (DialogTimeout, DialogUnavailable) as error:  # our own may have died just now, and comes back
                self._wrong = str(error) if self._server is None else None
            except DialogError as error:
                self._wrong = str(error)
                return
            self._stopped.wait(CHECK_AGAIN)


class GeneratorModel:
    """The generator's engine, loaded by a thread. `submit` waits for it: call it from a thread too."""

    def __init__(self, profile: Profile, load: Callable[[str], Backbone[Any]] | None = None) -> None:
        self._profile = profile
        self._source = profile.generator
        self._load = load or (lambda source: load_generator(source, **profile.loading))
        self._engine: Engine | None = None
        self._error: GeneratorError | None = None
        self._settled = threading.Event()
        self._stopped = False

    @property
    def state(self) -> str:
        if not self._settled.is_set():
            return WARMING
        return READY if self._error is None else FAILED

    @property
    def error(self) -> str:
        return str(self._error or "")

    def start(self, first_page: threading.Event | None = None) -> None:
        if Path(self._source).is_absolute() and not Path(self._source).is_dir():
            raise CheckpointError(f"The generator is missing: there is no folder {self._source}. Restore it.")
        threading.Thread(target=self._run, args=(first_page,), name="easel-generator-load", daemon=True).start()

    def stop(self) -> None:
        self._stopped = True
        if not self._settled.is_set():
            self._error = EngineClosed("The generator was shut down while it was loading.")
            self._settled.set()  # who waits in `submit` would keep the process alive
        if self._engine is not None:
            self._engine.close()

    def submit(self, request: DrawRequest, on_progress: Callable[[Progress], None] | None = None) -> Job:
        if not self._settled.wait(PATIENCE):
            raise GeneratorError("The generator is still warming up. Retry in a minute.")
        if self._error is not None:
            raise self._error
        assert self._engine is not None
        return self._engine.submit(request, on_progress)

    def _run(self, first_page: threading.Event | None) -> None:
        if first_page is not None:
            first_page.wait(FIRST_PAGE)
        started = time.monotonic()
        try:
            from generator.engine import Engine

            self._engine = Engine(lambda: self._load(self._source))
            if self._stopped:
                self._engine.close()
            self._warm_up(self._engine)
            say(log, "the generator is ready", seconds=round(time.monotonic() - started, 1))
        except GeneratorError as error:
            self._error = error
        except Exception as error:  # an exotic checkpoint or a missing library: the page must say so, not hang
            log.exception("the generator could not be loaded")
            self._error = CheckpointError(f"The generator could not be loaded: {error}")
        finally:
            self._settled.set()

    def _warm_up(self, engine: Engine) -> None:
        """A model that cannot do what the profile asks for says so now, and not at the first picture or edit."""
        request = self._profile.request("warm up", 0, self._profile.settings)
        engine.pipeline.check(request)
        if self._profile.edits:
            engine.pipeline.check(replace(request, source=request))
        if self._profile.upload_reuse:
            engine.pipeline.check(replace(request, source=Upload(b"")))
        with contextlib.suppress(RequestError):  # a few samplers need more steps
            engine.pipeline.check(replace(request, steps=2))
            request = replace(request, steps=2)
        engine.submit(request).result()


def server_settings(profile: Profile, **more: Any) -> ServerSettings:
    """How vLLM runs the profile's model here; on a GPU the memory is vLLM's own affair, whatever `more` says."""
    settings = {"max_images": profile.max_images, "max_model_len": profile.max_model_len, **more, **vllm_device()}
    return ServerSettings(**settings)


def largest_rank(adapter: str, kept: Adapters | None) -> int:
    """What vLLM must be ready for. Every adapter is computed at this rank, so that more than is needed costs time."""
    folders = [Path(adapter)] if adapter else []
    if kept is not None:
        folders += [kept.adapter(version.name) for version in kept.versions()]
    ranks = [FRESH_RANK]
    for folder in folders:
        with contextlib.suppress(ServerFailed):  # a damaged one is named when it is loaded
            ranks.append(adapter_rank(str(folder)))
    return max(ranks)


def load_generator(source: str, precision: str = "", t5_8bit: bool = False, offload: bool = False) -> Backbone[Any]:
    """The model of a local folder, or of a repository on the hub, on the best device there is. `precision`: the name of
    torch's type, "" for the usual one of that device."""
    import torch

    from generator.backbones import load_backbone
    from generator.precision import usual

    folder = source if Path(source).exists() or Path(source).is_absolute() else _from_hub(source)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, precision) if precision else usual(device)
    return load_backbone(folder, device, dtype, t5_8bit, offload)


def _from_hub(name: str) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return snapshot_download(name, allow_patterns=["*.json", "*/*.safetensors", "*.txt", "*.model"])
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise CheckpointError(
            f"The generator {name} is neither a folder nor could it be fetched from the hub: {error}"
        ) from error


def vllm_device() -> dict[str, Any]:
    """vLLM's settings where there is a GPU; the defaults suit a CPU. Asks without importing torch."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return {}
    return {
        "dtype": "auto", "eager": False, "kv_cache_mb": None, "lora_step_tokens": None, "block_size": None,
        "picture_cache_mb": None, "extra_args": ("--gpu-memory-utilization", "0.4"),
    }  # fmt: skip
