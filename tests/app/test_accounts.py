"""Users, passwords, sessions, keys, what is theirs, and their limits; and the commands for them."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from app import accounts as module
from app.accounts import Accounts
from app.cli import main
from app.database import MARK, SQLITE
from app.errors import InputRefused, NotFound, QuotaExceeded, TooMany
from app.quotas import FREE_TRIES, FREE_TRIES_FROM, Quotas, Tries
from app.store import Store

DATABASES = ("sqlite", "postgresql")
GOOD = "a long password"


@pytest.fixture
def accounts(store: Store, database: str) -> Iterator[Accounts]:
    accounts = Accounts(store.folder, database)
    yield accounts
    accounts.close()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


# Passwords, sessions, keys


def test_the_password(accounts: Accounts) -> None:
    user = accounts.add("Anna", GOOD, admin=True)
    assert accounts.check("anna", GOOD) == user  # however the name is written
    for name, password in (("anna", "wrong"), ("anna", ""), ("anna", GOOD + " "), ("nobody", GOOD), ("", "")):
        assert accounts.check(name, password) is None
    assert accounts.check("anna", "\ud800" * 2000) is None


def test_for_a_name_that_nobody_has_a_password_is_checked_too(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.add("anna", GOOD)
    checked: list[str] = []

    class Watched:
        def verify(self, hashed: str, password: bytes) -> bool:
            checked.append(hashed)
            return hasher.verify(hashed, password)

    hasher = module._HASHER
    monkeypatch.setattr(module, "_HASHER", Watched())
    assert accounts.check("anna", "wrong") is accounts.check("nobody", "wrong") is None
    first, second = (hashed.split("$")[1:4] for hashed in checked)
    assert first == second  # the same algorithm, at the same cost


def test_what_the_database_holds(accounts: Accounts, store: Store, database: str, tmp_path: Path) -> None:
    user = accounts.add("anna", GOOD)
    token, key = accounts.begin_session(user), accounts.add_key(user, "laptop")
    store.copy_rows(tmp_path / "copy")
    with sqlite3.connect(tmp_path / "copy") as db:
        dump = "\n".join(db.iterdump())
    assert "$argon2id$" in dump
    assert not any(secret in dump for secret in (GOOD, token, key))
    if database == SQLITE:
        assert (store.folder / "easel.sqlite3").stat().st_mode & 0o777 == 0o600


def test_a_session_survives_a_restart_and_ends(
    accounts: Accounts, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna, ben = accounts.add("anna", GOOD, True), accounts.add("ben", GOOD)
    token, other, bens = accounts.begin_session(anna), accounts.begin_session(anna), accounts.begin_session(ben)
    again = Accounts(accounts.folder, database)
    assert again.of_session(token) is not None and again.of_session("x") is None
    again.close()
    accounts.end_session(token)
    assert accounts.of_session(token) is None and accounts.of_session(other) is not None
    accounts.change_password(anna, "another password")
    assert accounts.of_session(other) is None and accounts.of_session(bens) is not None
    real = module.time.time
    monkeypatch.setattr(module.time, "time", lambda: real() + module.SESSION_DAYS * 86400 + 1)
    assert accounts.of_session(bens) is None


def test_keys(accounts: Accounts) -> None:
    anna, ben = accounts.add("anna", GOOD, True), accounts.add("ben", GOOD)
    key = accounts.add_key(anna, " my  laptop ")
    found = accounts.of_key(key)
    assert found is not None and found.id == anna.id
    (entry,) = accounts.keys(anna)
    assert entry.name == "my laptop" and entry.used is not None
    with pytest.raises(NotFound):
        accounts.remove_key(ben, entry.id)
    accounts.remove_key(anna, entry.id)
    assert accounts.of_key(key) is None
    with pytest.raises(InputRefused, match="needs a name"):
        accounts.add_key(anna, " ")


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 41, "local", "API", "a\n", "../x", "<b>"])
def test_names_that_are_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(InputRefused, match="cannot be a user's name"):
        accounts.add(name, GOOD)


def test_users_that_are_refused(accounts: Accounts) -> None:
    accounts.add("小明", GOOD, admin=True)
    with pytest.raises(InputRefused, match="a user 小明 already"):
        accounts.add("小明", GOOD)
    for password in ("short", "x" * 1025):
        with pytest.raises(InputRefused, match="8 to 1024"):
            accounts.add("anna", password)
    accounts.add("Anna", GOOD)
    with pytest.raises(InputRefused, match="a user ANNA already"):
        accounts.add("ANNA", GOOD)
    for name in ("ben", "Ärger", "ärger"):  # of other letters, the case counts
        accounts.add(name, GOOD)
    with pytest.raises(InputRefused, match="only administrator"):
        accounts.remove(accounts.named("小明"))
    assert [user.name for user in accounts.users()] == ["Anna", "ben", "Ärger", "ärger", "小明"]


# What is theirs


def drawn(store: Store, owner: str, colour: str) -> str:
    conversation = store.create_conversation(owner, "storybook", {})
    turn = store.begin_turn(conversation, None, f"draw {colour}", (), "auto", 1)
    picture = store.add_picture(Image.new("RGB", (8, 8), colour))
    store.update_turn(turn.id, status="done", prompt=colour, picture=picture)
    return picture


def test_pictures_are_their_owners(store: Store, accounts: Accounts) -> None:
    anna, ben = accounts.add("anna", GOOD, True), accounts.add("ben", GOOD)
    hers, his = drawn(store, anna.id, "red"), drawn(store, ben.id, "blue")
    told = store.add_picture(Image.new("RGB", (9, 9)), keep=True, owner=ben.id)
    upload = store.add_picture(Image.new("RGB", (7, 7)))
    store.begin_turn(store.create_conversation(anna.id, "storybook", {}), None, "look", (upload,), "auto", 1)
    for picture, owner, other in ((hers, anna, ben), (his, ben, anna), (told, ben, anna), (upload, anna, ben)):
        assert store.picture_path(picture, owner.id) == store.picture_path(picture)
        with pytest.raises(NotFound):
            store.picture_path(picture, other.id)
    assert drawn(store, ben.id, "red") == hers  # the same picture, of both
    assert store.picture_path(hers, ben.id)
    usage = accounts.usage(ben.id)
    assert (usage.conversations, usage.pictures) == (2, 3)
    assert usage.bytes == sum(store.picture_path(name).stat().st_size for name in (hers, his, told))


def test_a_user_is_removed_with_all_that_is_theirs(store: Store, accounts: Accounts) -> None:
    anna, ben = accounts.add("anna", GOOD, True), accounts.add("ben", GOOD)
    shared, his = drawn(store, anna.id, "red"), drawn(store, ben.id, "blue")
    drawn(store, ben.id, "red")
    told = store.add_picture(Image.new("RGB", (9, 9)), keep=True, owner=ben.id)
    both = store.add_picture(Image.new("RGB", (6, 6)), keep=True, owner=ben.id)
    store.add_picture(Image.new("RGB", (6, 6)), keep=True, owner=anna.id)
    token, key = accounts.begin_session(ben), accounts.add_key(ben, "laptop")
    files = {name: store.picture_path(name) for name in (shared, his, told, both)}
    accounts.remove(ben)
    assert {name: path.exists() for name, path in files.items()} == {shared: True, his: False, told: False, both: True}
    assert accounts.of_session(token) is accounts.of_key(key) is None
    assert store.conversations(ben.id) == [] and len(store.conversations(anna.id)) == 1
    accounts.add("ben", GOOD)
    assert accounts.named("ben").id != ben.id  # a new ben is another one
    accounts.remove(accounts.named("ben"))
    accounts.remove(anna)
    assert accounts.users() == [] and not files[both].exists()


def test_what_was_said_without_sign_in_is_adopted(store: Store, accounts: Accounts) -> None:
    picture = drawn(store, "local", "red")
    told = store.add_picture(Image.new("RGB", (9, 9)), keep=True)
    ben = accounts.add("ben", GOOD, admin=True)
    assert store.conversations(ben.id) == []
    anna = accounts.add("anna", GOOD, adopt=True)
    assert len(store.conversations(anna.id)) == 1 and store.conversations("local") == []
    assert store.picture_path(picture, anna.id) and store.picture_path(told, anna.id)


# Limits


async def test_turns_in_a_minute(accounts: Accounts) -> None:
    clock = Clock()
    quotas = Quotas(accounts, clock)
    anna, ben = accounts.add("anna", GOOD, True), accounts.add("ben", GOOD)
    accounts.limit(anna, 5, None)
    await quotas.admit(anna.id, 4)
    clock.now += 20
    await quotas.admit(anna.id)
    with pytest.raises(TooMany, match="more than 5 pictures and replies a minute") as refused:
        await quotas.admit(anna.id)
    assert refused.value.retry_after == 40
    await quotas.admit(ben.id)  # nobody pays for another
    await quotas.admit("api", 100)
    clock.now += 40
    await quotas.admit(anna.id, 4)
    clock.now += 60
    with pytest.raises(InputRefused, match="6 pictures at once, and you may have 5 a minute"):  # waiting would not help
        await quotas.admit(anna.id, 6)
    accounts.limit(anna, 0, None)
    with pytest.raises(TooMany):
        await quotas.admit(anna.id)


async def test_room_for_pictures(store: Store, accounts: Accounts) -> None:
    quotas = Quotas(accounts)
    anna = accounts.limit(accounts.add("anna", GOOD, True), None, 1)
    drawn(store, anna.id, "red")
    await quotas.check_room(anna.id, 2**19)
    with pytest.raises(QuotaExceeded, match="fill the 1 MB that you have"):
        await quotas.check_room(anna.id, 2**20)
    accounts.limit(anna, None, 0)
    with pytest.raises(QuotaExceeded, match="Export and delete"):
        await quotas.admit(anna.id)


def test_tries_are_slowed_down() -> None:
    clock = Clock()
    tries = Tries(clock)
    for _ in range(FREE_TRIES):
        tries.check("anna", "1.2.3.4")
        tries.fail("anna", "1.2.3.4")
    waits = []
    for _ in range(12):
        with pytest.raises(TooMany) as refused:
            tries.check("Anna", "1.2.3.4")
        waits.append(refused.value.retry_after)
        clock.now += refused.value.retry_after
        tries.check("anna", "1.2.3.4")
        tries.fail("anna", "1.2.3.4")
    assert waits[:4] == [1, 2, 4, 8] and max(waits) == 900
    tries.check("anna", "5.6.7.8")  # its owner, elsewhere, may come in
    tries.forget("anna", "1.2.3.4")
    tries.check("anna", "1.2.3.4")


def test_many_names_from_one_address_and_one_name_from_many() -> None:
    tries = Tries(Clock())
    for number in range(FREE_TRIES_FROM):
        tries.check(f"user{number}", "1.2.3.4")
        tries.fail(f"user{number}", "1.2.3.4")
    with pytest.raises(TooMany):
        tries.check("another", "1.2.3.4")
    for number in range(50):
        tries.fail("anna", f"10.0.0.{number}")
    with pytest.raises(TooMany):
        tries.check("anna", "10.9.9.9")


# Commands


def easel(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(["users", *words])
    out = capsys.readouterr()
    return status, out.out + out.err


def test_the_commands(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ("--data-dir", str(tmp_path / "data"))
    monkeypatch.setenv("EASEL_DATABASE", database)
    assert easel(capsys, "list", *folder)[1].endswith(
        f"{'easel.sqlite3' if database == SQLITE else MARK} is missing.\n"
    )

    def typed(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    typed(f"{GOOD}\n")
    assert "add --admin" in easel(capsys, "add", "anna", "--password-stdin", *folder)[1]
    assert "next start" in easel(capsys, "add", "anna", "--admin", "--password-stdin", *folder)[1]
    typed("short\n")
    assert easel(capsys, "add", "ben", "--password-stdin", *folder)[0] == 1
    assert "--password-stdin" in easel(capsys, "add", "ben", *folder)[1]
    typed(GOOD)
    assert easel(capsys, "add", "ben", "--password-stdin", *folder)[0] == 0
    assert easel(capsys, "limit", "ben", "--turns-per-minute", "3", *folder)[0] == 0
    assert easel(capsys, "key", "ben", *folder)[1].startswith("key   easel-")
    status, text = easel(capsys, "list", "--json", *folder)
    anna, ben = json.loads(text)["users"]
    assert (anna["name"], anna["admin"], ben["turns_per_minute"], ben["disk_mb"]) == ("anna", True, 3, 2048)
    assert status == 0 and "password" not in text and "argon" not in text
    typed("another one")
    assert easel(capsys, "password", "ben", "--password-stdin", *folder)[0] == 0
    accounts = Accounts(tmp_path / "data", database)
    assert accounts.check("ben", "another one") is not None
    accounts.close()
    assert "Say --yes" in easel(capsys, "remove", "ben", *folder)[1]
    assert easel(capsys, "remove", "ben", "--yes", *folder)[0] == 0
    assert "no user 'ben'" in easel(capsys, "remove", "ben", "--yes", *folder)[1]
    assert "no sign-in" in easel(capsys, "remove", "anna", "--yes", *folder)[1]


def test_users_are_added_while_the_app_runs(store: Store, accounts: Accounts, database: str) -> None:
    """The store is claimed by the app; who may sign in is nobody's alone."""
    other = Accounts(store.folder, database)
    other.add("anna", GOOD, admin=True)
    assert [user.name for user in accounts.users()] == ["anna"]
    other.close()
