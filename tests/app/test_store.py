from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app import store as module
from app.database import SQLITE, sql
from app.errors import InputRefused, NotFound, StoreError
from app.migrations import MIGRATIONS
from app.store import INTERRUPTED, Conversation, Store, Turn

DATABASES = ("sqlite", "postgresql")


def add(store: Store, conversation: Conversation, said: str, parent: str | None = None, **fields: Any) -> Turn:
    turn = store.begin_turn(conversation, parent, said, (), "auto", conversation.seed)
    return store.update_turn(turn.id, **{"status": "done", "text": f"re: {said}", **fields})


def test_everything_is_there_after_a_restart(tmp_path: Path, database: str) -> None:
    store = Store(tmp_path, database)
    conversation = store.create_conversation("local", "storybook", {"steps": 5}, seed=3)
    turn = add(store, conversation, "你好 <draw>", prompt="a fox", timings={"dialog": 0.5}, draw_probability=0.75)
    store.change_conversation(conversation, title="T", seeds="lock")
    store.close()
    store = Store(tmp_path, database)
    (found,) = store.conversations("local")
    assert (found.title, found.seeds, found.seed, found.settings, found.leaf) == ("T", "lock", 3, {"steps": 5}, turn.id)
    assert store.path(found.leaf) == [turn]
    assert turn.said == "你好 <draw>"
    assert turn.timings == {"dialog": 0.5}
    store.close()


def test_turns_form_a_tree(store: Store, conversation: Conversation) -> None:
    first = add(store, conversation, "one")
    second = add(store, conversation, "two", first.id)
    again = add(store, conversation, "two", first.id)
    third = add(store, conversation, "three", again.id)
    assert [turn.id for turn in store.path(third.id)] == [first.id, again.id, third.id]
    assert [turn.id for turn in store.siblings(second)] == [second.id, again.id]
    assert store.newest_leaf(first) == third.id
    assert store.newest_leaf(second) == second.id
    assert store.conversation("local", conversation.id).leaf == third.id
    assert store.path(None) == []


def test_owners_see_only_their_own(store: Store, conversation: Conversation) -> None:
    add(store, conversation, "mine")
    assert store.conversations("somebody") == []
    with pytest.raises(NotFound):
        store.conversation("somebody", conversation.id)
    with pytest.raises(NotFound):
        store.turn("nothing")


def test_a_conversation_without_turns_is_not_listed(store: Store, conversation: Conversation) -> None:
    assert store.conversations("local") == []


def test_a_turn_in_flight_is_found_as_failed(tmp_path: Path, database: str) -> None:
    store = Store(tmp_path, database)
    conversation = store.create_conversation("local", "storybook", {})
    done = add(store, conversation, "done")
    thinking = store.begin_turn(conversation, done.id, "thinking", (), "auto", 1)
    drawing = store.begin_turn(conversation, done.id, "drawing", (), "auto", 1)
    store.update_turn(drawing.id, status="drawing", prompt="a fox")
    store.close()  # nobody marks them: as after a crash
    store = Store(tmp_path, database)
    assert store.turn(done.id).status == "done"
    assert {store.turn(turn.id).status for turn in (thinking, drawing)} == {"failed"}
    assert store.turn(drawing.id).error == INTERRUPTED
    assert store.turn(drawing.id).prompt == "a fox"
    store.close()


def test_pictures_are_named_by_content_and_carry_their_making(store: Store) -> None:
    picture = Image.new("RGB", (16, 16), "red")
    first = store.add_picture(picture, {"prompt": "一只狐狸", "seed": "7"})
    assert store.add_picture(picture, {"prompt": "一只狐狸", "seed": "7"}) == first
    assert store.add_picture(picture) != first
    assert store.picture_info(first) == {"prompt": "一只狐狸", "seed": "7"}
    assert Image.open(store.picture_path(first)).getpixel((3, 3)) == (255, 0, 0)
    assert not [path for path in store.folder.rglob(".*")]
    for wrong in ("0" * 32, "../easel", ""):
        with pytest.raises(NotFound):
            store.picture_path(wrong)


def test_deleting_takes_the_pictures_that_nothing_else_shows(store: Store, conversation: Conversation) -> None:
    other = store.create_conversation("local", "storybook", {})
    own, shared, told = (store.add_picture(Image.new("RGB", (8, 8), colour)) for colour in ("red", "green", "blue"))
    store.add_picture(Image.new("RGB", (8, 8), "blue"), keep=True)
    for picture in (own, shared, told):
        add(store, conversation, "draw", picture=picture)
    add(store, other, "draw", picture=shared)
    path = store.picture_path(own)
    store.delete_conversation(conversation)
    assert not path.exists()
    assert store.picture_path(shared).exists()
    assert store.picture_path(told).exists()
    with pytest.raises(NotFound):
        store.conversation("local", conversation.id)


def test_a_conversation_of_many_turns_can_be_deleted(store: Store, conversation: Conversation) -> None:
    turns = [
        Turn(str(i), conversation.id, str(i - 1) if i else None, "x", (), "auto", "done", 1, {}, float(i), timings={})
        for i in range(2500)
    ]
    store.import_conversations([], turns, [], [])
    store.delete_conversation(store.change_conversation(conversation, leaf="2499"))
    assert store.path("2499") == []


def test_search_looks_at_titles_messages_and_prompts(store: Store, conversation: Conversation) -> None:
    other = store.create_conversation("local", "storybook", {})
    first = add(store, conversation, "Draw a FOX", prompt="a red fox in the snow")
    add(store, conversation, "给它一条围巾", first.id, text="50% done_ok")
    add(store, other, "hello")
    store.change_conversation(other, title="Mein Titel")
    hidden = store.begin_turn(store.conversation("local", other.id), None, "another branch", (), "auto", 1)
    store.change_conversation(other, leaf=store.siblings(hidden)[0].id)

    def found(words: str, owner: str = "local") -> list[str]:
        return [entry.id for entry in store.search_conversations(owner, words)]

    assert found("") == found("  ") == [other.id, conversation.id]
    for words in ("fox", "snow", "围巾", "fox 围巾", "50%", "done_ok", "RED draw"):
        assert found(words) == [conversation.id], words
    for words in ("titel", "HELLO", "mein hello", "another branch"):
        assert found(words) == [other.id], words
    assert found("%") == [conversation.id]
    for words in ("fox titel", "5_%", "_x", "!", "'", '"', "\\", "fox" * 50_000):
        assert found(words) == [], words
    assert found("fox", "somebody") == []
    assert found("f " * 5000) == [conversation.id]


def test_the_pictures_that_were_drawn(store: Store, conversation: Conversation) -> None:
    names = [store.add_picture(Image.new("RGB", (16 * i, 16), "red")) for i in range(1, 6)]
    upload, last = names[0], None
    for i, name in enumerate(names[1:]):
        last = add(store, conversation, "draw", picture=name, prompt=f"picture {i} 围巾")
    again = add(store, conversation, "draw", picture=names[1], prompt="picture 0 again")
    assert last is not None
    pictures = store.drawn("local")
    assert [entry.turn.picture for entry in pictures] == [names[1], names[4], names[3], names[2]]
    assert (pictures[0].turn, pictures[1].turn) == (again, last)
    assert (pictures[1].width, pictures[1].height, pictures[1].title) == (80, 16, "")
    assert [entry.turn.picture for entry in store.drawn("local", limit=2, offset=1)] == [names[4], names[3]]
    assert [entry.turn.id for entry in store.drawn("local", "AGAIN")] == [again.id]
    assert len(store.drawn("local", "围巾 picture")) == store.count_drawn("local", "围巾 picture") == 4
    assert store.count_drawn("local") == 4 and store.count_drawn("somebody") == 0
    assert upload not in [entry.turn.picture for entry in pictures]


def test_a_full_disk_is_said_and_leaves_no_half_picture(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(StoreError, match=r"could not be saved. The disk is full: free some space, then press Retry"):
        store.add_picture(Image.new("RGB", (8, 8)))
    assert [path for path in (store.folder / "pictures").rglob("*") if path.is_file()] == []


def test_one_process_per_folder_and_database(store: Store, database: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"Another Easel is using.*--data-dir.*--store"):
        Store(store.folder, database)
    if database != SQLITE:
        with pytest.raises(StoreError, match=r"Another Easel is using the database postgresql://easel@.*--database"):
            Store(tmp_path / "other", database)
        store.close()
        Store(tmp_path / "other", database).close()


def test_a_folder_that_cannot_be(tmp_path: Path, database: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        Store(tmp_path / "file" / "data", database)


def test_a_newer_database_is_left_alone(tmp_path: Path, database: str) -> None:
    store = Store(tmp_path, database)
    newer = len(MIGRATIONS) + 1
    with store._db.write() as db:
        db.execute(
            sql(f"PRAGMA user_version={newer}" if database == SQLITE else f"UPDATE easel_version SET version={newer}")
        )
    store.close()
    for _ in range(2):  # the first has let go of it
        with pytest.raises(StoreError, match="newer Easel"):
            Store(tmp_path, database)


def test_ratings_are_kept_with_their_turn(store: Store, conversation: Conversation) -> None:
    talked = add(store, conversation, "hello")
    drawn = add(store, conversation, "a fox", talked.id, text="", prompt="a fox")
    store.rate(talked, "should_draw", " a  fox ")
    store.rate(drawn, "like")
    store.rate(drawn, "dislike", "a red fox")
    assert [(rating.turn, rating.verdict, rating.prompt) for rating in store.ratings()] == [
        (talked.id, "should_draw", "a fox"), (drawn.id, "dislike", "a red fox"),
    ]  # fmt: skip
    assert store.ratings("somebody") == [] and len(store.ratings("local")) == 2
    store.rate(drawn)
    assert store.rating(drawn.id) is None
    store.delete_conversation(conversation)
    assert store.ratings() == []


def test_opinions_of_each_adapters_replies(store: Store, conversation: Conversation) -> None:
    parent = None
    for adapter, verdict in (("a" * 64, "like"), ("a" * 64, ""), ("b" * 64, "dislike"), ("", "")):
        turn = store.begin_turn(conversation, parent, "draw", (), "auto", 1)
        turn = store.update_turn(turn.id, status="done", prompt="A fox.", adapter=adapter)
        store.rate(turn, verdict)  # type: ignore[arg-type]
        parent = turn.id
    store.begin_turn(conversation, parent, "draw", (), "auto", 1)  # unfinished
    assert store.opinions() == {
        "a" * 64: {"replies": 2, "like": 1}, "b" * 64: {"replies": 1, "dislike": 1}, "": {"replies": 1},
    }  # fmt: skip
    assert store.turn(parent or "").adapter == ""


def test_ratings_that_do_not_fit_are_refused(store: Store, conversation: Conversation) -> None:
    talked = add(store, conversation, "hello")
    drawn = add(store, conversation, "a fox", talked.id, prompt="a fox")
    thinking = store.begin_turn(conversation, None, "x", (), "auto", 1)
    store.rate(drawn, "", "a red fox")  # put right, then found to be no picture at all
    store.opine(drawn, "should_talk")
    assert [(rating.verdict, rating.prompt) for rating in store.ratings()] == [("should_talk", "")]
    store.rate(drawn)
    for turn, verdict, prompt, reason in (
        (talked, "should_talk", "", "already of that kind"),
        (drawn, "should_draw", "", "already of that kind"),
        (talked, "", "a fox", "Only the prompt of a picture"),
        (drawn, "should_talk", "a fox", "Only the prompt of a picture"),
        (drawn, "loved", "", "no rating 'loved'. Choose like, dislike"),
        (thinking, "like", "", "Only a finished reply"),
    ):
        with pytest.raises(InputRefused, match=reason):
            store.rate(turn, verdict, prompt)
    assert store.ratings() == []
