"""A tiny random model, and an engine that draws with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from generator.engine import Engine
from generator.pipeline import Pipeline, load_pipeline
from tests.generator.tiny import make_folder


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_folder(folder)
    return load_pipeline(folder)


@pytest.fixture
def engine(pipeline: Pipeline) -> Iterator[Engine]:
    with Engine(pipeline) as engine:
        yield engine
