"""A quick start: the page first, and nothing that Gradio does on the way and no server needs.

with quick_imports():
    import gradio
with one_server_each():
    ...  # build pages, and mount them
app.add_middleware(FirstPage, seen=event)

On two cores the first saves a second and a half of four, the second more than one of two.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
from collections.abc import Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType, SimpleNamespace
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

STUBS = "gradio.component_meta"  # writes a stub file for editors beside each component, at every import
WRITER = "create_or_modify_pyi"
SETTLED = 1.0  # seconds from a page's first event until it takes input


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Imports within leave Gradio's stub files alone, and are not searched for garbage: nearly all of it stays."""
    finder = _WithoutStubs()
    sys.meta_path.insert(0, finder)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
        sys.meta_path.remove(finder)


@contextlib.contextmanager
def one_server_each() -> Iterator[None]:
    """Gradio makes a page's server where its block ends, twice for its queue, and where it is mounted: only the last
    one is ever used."""
    from gradio import blocks

    kept = blocks.App
    blocks.App = SimpleNamespace(create_app=lambda *args, **more: None)
    try:
        yield
    finally:
        blocks.App = kept


class FirstPage:
    """Sets `seen` as soon as a page is there. What would share the interpreter with it can wait that long."""

    def __init__(self, app: ASGIApp, seen: threading.Event) -> None:
        self.app = app
        self.seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.seen.is_set() and scope["type"] == "http" and scope["path"].endswith("/queue/join"):
            asyncio.get_running_loop().call_later(SETTLED, self.seen.set)
        await self.app(scope, receive, send)


class _WithoutStubs(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == STUBS else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        setattr(module, WRITER, lambda *args: None)
