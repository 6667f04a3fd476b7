"""A store in a folder of the test's own, on the databases that its module names, and a conversation."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from app import accounts
from app.database import SQLITE
from app.profiles import PROFILES, Profile
from app.store import Conversation, Store
from tests.app.browser import CONSOLE
from tests.app.postgresql import Cluster, cluster

SHOWN = """async () => ({
    frame: await new Promise((say) => (setTimeout(say, 3000, "none"), requestAnimationFrame(() => say("yes")))),
    visible: document.visibilityState, url: location.href, focus: document.activeElement?.outerHTML.slice(0, 200),
    list: [...document.querySelectorAll("#conversations label")].slice(0, 8).map((one) =>
        (one.querySelector("input").checked ? "* " : "  ") + one.innerText),
    page: document.body.innerText.slice(0, 3000)})"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a browser showed when its test failed."""
    report = yield
    page = getattr(item, "funcargs", {}).get("page")
    if report.when == "call" and report.failed and hasattr(page, "evaluate"):
        try:
            shown = page.evaluate(SHOWN)
            report.sections.append(("page", "\n".join(f"{key}: {value}" for key, value in shown.items())))
            report.sections.append(("console", "\n".join(CONSOLE.get(page, []))))
        except Exception as error:  # the browser itself has failed
            report.sections.append(("page", str(error)))
    return report


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Checking a password costs time on purpose; the tests check many."""
    with pytest.MonkeyPatch.context() as patch:
        cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
        patch.setattr(accounts, "_HASHER", cheap)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Of whoever runs the tests: least of all a database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.delenv("EASEL_CONFIG", raising=False)
        patch.delenv("EASEL_DATABASE", raising=False)
        yield


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module with DATABASES has its tests run on each."""
    if "database" in metafunc.fixturenames and hasattr(metafunc.module, "DATABASES"):
        metafunc.parametrize("database", metafunc.module.DATABASES, indirect=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    with cluster() as server:
        yield server


@pytest.fixture
def new_database(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """The address of an empty one of a kind."""
    return lambda kind: SQLITE if kind == SQLITE else request.getfixturevalue("postgresql").new_schema()


@pytest.fixture
def database(request: pytest.FixtureRequest, new_database: Callable[[str], str]) -> str:
    return new_database(getattr(request, "param", SQLITE))


@pytest.fixture
def other_database(database: str, new_database: Callable[[str], str]) -> str:
    """Of the same kind."""
    return new_database(SQLITE if database == SQLITE else "postgresql")


@pytest.fixture
def profile() -> Profile:
    return PROFILES["storybook"]


@pytest.fixture
def store(tmp_path: Path, database: str) -> Iterator[Store]:
    store = Store(tmp_path / "data", database)
    yield store
    store.close()


@pytest.fixture
def conversation(store: Store, profile: Profile) -> Conversation:
    return store.create_conversation("local", profile.name, profile.settings.to_json(), seed=7)
