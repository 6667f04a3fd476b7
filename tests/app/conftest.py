"""A store in a folder of the test's own, a conversation, and an app on fakes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.profiles import PROFILES, Profile
from app.store import Conversation, Store


@pytest.fixture
def profile() -> Profile:
    return PROFILES["storybook"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "data")
    yield store
    store.close()


@pytest.fixture
def conversation(store: Store, profile: Profile) -> Conversation:
    return store.create_conversation("local", profile.name, profile.settings.to_json(), seed=7)
