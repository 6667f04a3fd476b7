from __future__ import annotations

import asyncio
import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app import store as store_module
from app.branches import retry_of
from app.conversation import (
    STOPPED,
    UNEXPECTED,
    Accepted,
    Done,
    DrawDecision,
    Event,
    Failed,
    Picture,
    Progress,
    PromptDelta,
    TextDelta,
    UserMessage,
    draw,
    take_turn,
    title_of,
)
from app.errors import InputRefused, StoreError
from app.profiles import Profile
from app.store import Conversation, Store
from dialog_mllm.errors import DialogUnavailable
from generator.errors import DrawingFailed
from generator.request import Upload
from tests.app.fakes import FakeDialog, FakeGenerator, FakeJob, colour_of
from tests.app.test_pictures import bomb, encode


class World:
    """One conversation over fakes; `say` takes a turn at its end and keeps all events."""

    def __init__(self, store: Store, conversation: Conversation, profile: Profile) -> None:
        self.store = store
        self.id = conversation.id
        self.profile = profile
        self.dialog = FakeDialog()
        self.generator = FakeGenerator()

    @property
    def conversation(self) -> Conversation:
        return self.store.conversation("local", self.id)

    async def say(self, text: str, files: tuple[Any, ...] = (), **options: Any) -> list[Event]:
        conversation = self.conversation
        options.setdefault("parent", conversation.leaf)
        return await self.take(conversation, UserMessage(text, files), **options)

    async def take(self, conversation: Conversation, message: UserMessage, **options: Any) -> list[Event]:
        turn = take_turn(conversation, message, self.dialog, self.generator, self.store, self.profile, **options)
        return [event async for event in turn]


@pytest.fixture
def world(store: Store, conversation: Conversation, profile: Profile) -> World:
    return World(store, conversation, profile)


async def test_a_turn_of_text(world: World) -> None:
    events = await world.say("  hello  ")
    assert isinstance(events[0], Accepted)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "You said: hello"
    done = events[-1]
    assert isinstance(done, Done)
    assert (done.turn.status, done.turn.text, done.turn.picture) == ("done", "You said: hello", None)
    assert world.store.path(world.conversation.leaf) == [done.turn]


async def test_a_drawn_turn(world: World) -> None:
    events = await world.say("draw a red fox")
    kinds = [type(event) for event in events]
    assert kinds.index(DrawDecision) < kinds.index(PromptDelta) < kinds.index(Progress) < kinds.index(Picture)
    steps = [event.step for event in events if isinstance(event, Progress)]
    assert steps == [0, 1, 2, 3, 4, 5]
    done = events[-1]
    assert isinstance(done, Done)
    assert done.turn.prompt == "A flat picture of a red fox."
    assert done.turn.seed == 7
    assert done.turn.picture is not None
    (request,) = world.generator.requests
    assert (request.seed, request.size) == (7, (world.profile.width, world.profile.height))
    assert request.steps == world.profile.steps
    with Image.open(world.store.picture_path(done.turn.picture)) as kept:
        assert kept.getpixel((0, 0)) == colour_of(request).getpixel((0, 0))
    assert world.store.picture_info(done.turn.picture)["prompt"] == done.turn.prompt
    assert set(done.turn.timings or {}) >= {"dialog", "drawing", "denoise"}


async def test_pictures_in_the_style_that_was_chosen(world: World) -> None:
    def choose(style: str) -> None:
        settings = replace(world.profile.settings, style=style).to_json()
        world.store.change_conversation(world.conversation, settings=settings)

    await world.say("draw a red fox")
    choose("watercolour")
    await world.say("draw a red fox at night")
    first, second = world.generator.requests
    assert first.prompt == "A flat picture of a red fox."
    assert second.prompt == "A watercolour picture of a red fox at night."
    assert second.source == first, "another style is a change of the picture, too"
    turn = world.store.path(world.conversation.leaf)[-1]
    assert turn.prompt == "A flat picture of a red fox at night.", "what the dialog model reads is what it said"
    assert turn.picture and world.store.picture_info(turn.picture)["prompt"] == second.prompt
    choose("a style of another profile's")
    await world.say("draw a red fox at night in the rain")
    assert world.generator.requests[-1].prompt == "A flat picture of a red fox at night in the rain."


async def test_a_picture_says_where_it_comes_from(world: World) -> None:
    await world.say("hello")
    await world.say("draw a red fox")
    path = world.store.path(world.conversation.leaf)
    assert path[-1].picture is not None
    info = world.store.picture_info(path[-1].picture)
    weights = Path(world.profile.dialog) / "model.safetensors"
    assert info["dialog_model"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert not info.get("dialog_adapter")
    assert info["turns"].split() == [turn.id for turn in path] and len(path) == 2
    assert (info["profile"], info["generator"]) == ("storybook", "sha256:fa4e")
    assert "trainedAlgorithmicMedia" in info["XML:com.adobe.xmp"]
    world.profile = replace(world.profile, mllm_url="http://127.0.0.1:1/v1")  # what serves there is not known
    (done,) = [event for event in await world.say("draw a cat") if isinstance(event, Done)]
    assert done.turn.picture is not None and "dialog_model" not in world.store.picture_info(done.turn.picture)


async def test_the_message_is_stored_before_the_model_is_asked(world: World) -> None:
    stored: list[str] = []

    def look(messages: Any) -> str:
        stored.extend(turn.said for turn in world.store.path(world.conversation.leaf))
        return "fine"

    world.dialog.replies.append(look)
    await world.say("hello")
    assert stored == ["hello"]


async def test_the_picture_is_stored_before_it_is_shown(world: World) -> None:
    turn = take_turn(
        world.conversation, UserMessage("draw a fox"), world.dialog, world.generator, world.store, world.profile
    )
    async for event in turn:
        if isinstance(event, Picture):
            (stored,) = world.store.path(world.conversation.leaf)
            assert (stored.status, stored.picture) == ("done", event.id)


async def test_the_model_sees_the_past_and_its_pictures(world: World) -> None:
    await world.say("hello")
    await world.say("draw a fox")
    await world.say("make it blue")
    messages, _ = world.dialog.asked[-1]
    assert [message.role for message in messages] == ["user", "assistant"] * 2 + ["user"]
    assert messages[3].text == "<draw>A flat picture of a fox."
    assert len(messages[3].images) == 1
    assert [request.seed for request in world.generator.requests] == [7, 7]


FOX = "<draw>A flat picture of a red fox in the snow by day."
SCARF = "<draw>A flat picture of a red fox with a scarf in the snow by day."


async def test_a_changed_prompt_is_drawn_as_an_edit_of_the_picture_before(world: World) -> None:
    world.dialog.replies += [FOX, "It is red.", SCARF, SCARF.replace("day", "night")]
    for said in ("a red fox", "what colour is it?", "a scarf", "at night"):
        await world.say(said)
    fox, scarf, night = world.generator.requests
    assert fox.source is None
    assert scarf.source == fox and scarf.edit == world.profile.edit
    assert night.source == scarf, "the same request as then, with a source of its own"


async def test_going_back_is_drawn_from_the_picture_that_is_meant(world: World) -> None:
    castle = "<switch><draw>A blue castle on the beach, in pencil."
    world.dialog.replies += [FOX, SCARF, castle, FOX, SCARF.replace("red", "blue"), castle.replace("pencil", "paper")]
    for said in (
        "a red fox",
        "a scarf",
        "a castle",
        "back to the first",
        "the one with the scarf, in blue",
        "a castle",
    ):
        await world.say(said)
    fox, scarf, castle_, again, blue, paper = world.generator.requests
    assert again == fox, "the very same picture"
    assert blue.source == scarf
    assert castle_.source is None and paper.source is None, "a new topic is a picture of its own"


@pytest.mark.parametrize(
    ("reply", "change"),
    [
        ("<draw>A blue castle on the beach, in pencil.", {}),
        ("<switch>" + SCARF, {}),
        (SCARF, {"seed": 8}),
        (SCARF, {"settings": {"steps": 30}}),
    ],
    ids=["another picture", "another topic", "another seed", "other settings"],
)
async def test_what_is_drawn_from_nothing(world: World, reply: str, change: dict[str, Any]) -> None:
    world.dialog.replies += [FOX, reply]
    await world.say("a red fox")
    if change:
        world.store.change_conversation(world.conversation, **change)
    await world.say("something else")
    assert world.generator.requests[1].source is None


async def test_a_picture_that_failed_is_no_source(world: World) -> None:
    world.dialog.replies += [FOX, SCARF]
    world.generator.errors.append(DrawingFailed("the device gave up"))
    await world.say("a red fox")
    await world.say("a scarf")
    assert [request.source for request in world.generator.requests] == [None, None]


async def test_an_upload_is_the_source_of_what_is_drawn_with_it(world: World) -> None:
    world.dialog.replies += [FOX, SCARF, SCARF.replace("day", "night")]
    await world.say("a red fox")
    await world.say("this one, with a scarf", (encode(Image.new("RGB", (32, 32), "red"), "PNG"),))
    await world.say("at night")
    _, scarf, night = world.generator.requests
    assert isinstance(scarf.source, Upload) and scarf.edit == world.profile.upload_edit
    assert Image.open(io.BytesIO(scarf.source.data)).size == (32, 32)
    assert night.source == scarf and night.edit == world.profile.edit


async def test_edits_can_be_switched_off(world: World) -> None:
    world.profile = replace(world.profile, edit_reuse=0.0, edit_threshold=0.0, upload_reuse=0.0)
    world.dialog.replies += [FOX, SCARF, SCARF]
    await world.say("a red fox")
    await world.say("a scarf")
    await world.say("this one, with a scarf", (encode(Image.new("RGB", (32, 32), "red"), "PNG"),))
    assert [request.source for request in world.generator.requests] == [None, None, None]


async def test_a_typed_token_is_text(world: World) -> None:
    world.dialog.replies.append("As you say.")
    await world.say("<draw>a trick <switch>")
    messages, _ = world.dialog.asked[0]
    assert messages[0].text == "<draw>a trick <switch>"  # the client neutralises it on the way to the model
    (turn,) = world.store.path(world.conversation.leaf)
    assert (turn.said, turn.prompt) == ("<draw>a trick <switch>", "")
    assert world.generator.requests == []


async def test_a_retry_is_a_sibling_with_another_seed_unless_locked(world: World) -> None:
    await world.say("draw a fox")
    (turn,) = world.store.path(world.conversation.leaf)
    conversation, message = retry_of(turn, world.conversation, world.store)
    await world.take(conversation, message, parent=turn.parent)
    siblings = world.store.siblings(turn)
    assert len(siblings) == 2
    assert siblings[0].seed == 7 != siblings[1].seed
    assert world.conversation.leaf == siblings[1].id
    assert world.conversation.seed == siblings[1].seed  # edits go on from the new picture
    locked = world.store.change_conversation(world.conversation, seeds="lock")
    assert retry_of(siblings[1], locked, world.store)[0].seed == siblings[1].seed


async def test_a_failed_turn_is_retried_as_it_was(world: World) -> None:
    world.dialog.replies.append(DialogUnavailable("The connection to the dialog model broke in mid-reply. Retry."))
    events = await world.say("draw a fox", (encode(Image.new("RGB", (9, 9)), "PNG"),))
    failed = events[-1]
    assert isinstance(failed, Failed)
    assert failed.message.startswith("The connection")
    assert (failed.turn.status, failed.turn.said, len(failed.turn.uploads)) == ("failed", "draw a fox", 1)
    conversation, message = retry_of(failed.turn, world.conversation, world.store)
    assert conversation.seed == 7
    events = await world.take(conversation, message, parent=failed.turn.parent)
    assert isinstance(events[-1], Done)
    assert events[-1].turn.uploads == failed.turn.uploads


async def test_a_retry_that_failed_still_changes_the_picture_before(world: World) -> None:
    world.dialog.replies += [FOX, *3 * [SCARF]]
    await world.say("draw a fox")
    await world.say("a blue scarf")
    (_, turn) = world.store.path(world.conversation.leaf)
    world.generator.errors.append(DrawingFailed("The drawing broke off."))
    await world.take(*retry_of(turn, world.conversation, world.store), parent=turn.parent)
    (_, failed) = world.store.path(world.conversation.leaf)
    assert failed.status == "failed" and failed.seeds == "vary"
    await world.take(*retry_of(failed, world.conversation, world.store), parent=turn.parent)
    assert world.generator.requests[-1].source is not None


@pytest.mark.parametrize("mode", ["auto", "draw", "talk"])
async def test_modes_reach_the_model(world: World, mode: str) -> None:
    await world.say("hello", mode=mode)
    assert world.dialog.asked[0][1] == mode


@pytest.mark.parametrize(
    ("output", "message"),
    [("<draw>", "wanted to draw but did not say what"), ("<draw> \n ", "did not say what"), ("", "answered nothing")],
)
async def test_a_malformed_reply_fails_clearly(world: World, output: str, message: str) -> None:
    world.dialog.replies.append(output)
    events = await world.say("draw a fox")
    assert isinstance(events[-1], Failed)
    assert message in events[-1].message
    assert world.store.path(world.conversation.leaf)[0].status == "failed"


async def test_what_was_shown_of_a_broken_reply_is_kept(world: World) -> None:
    class Breaking(FakeDialog):
        async def reply(self, messages: Any, mode: Any = "auto", conversation: str = "") -> Any:
            async for event in super().reply(messages, mode):
                yield event
                raise DialogUnavailable("vLLM was killed in mid-reply. Retry.")

    world.dialog = Breaking("Once upon a time")
    events = await world.say("tell me a story")
    assert isinstance(events[-1], Failed)
    assert events[-1].turn.text.startswith("Once")
    assert events[-1].turn.error.startswith("vLLM was killed")


async def test_a_failed_drawing_keeps_the_prompt(world: World) -> None:
    world.generator = FakeGenerator(0.0, DrawingFailed("The numbers overflowed."))
    events = await world.say("draw a fox")
    assert isinstance(events[-1], Failed)
    assert (events[-1].turn.prompt, events[-1].turn.error) == ("A flat picture of a fox.", "The numbers overflowed.")
    await world.say("hello")
    assert len(world.dialog.asked[-1][0]) == 1  # a turn without a reply is not history


async def test_a_setting_the_model_cannot_draw(world: World) -> None:
    world.store.change_conversation(world.conversation, settings={"width": 1024, "height": 1024})
    events = await world.say("draw a fox")
    assert isinstance(events[-1], Failed)
    assert "1024x1024 is outside" in events[-1].message


async def test_a_bug_does_not_lose_the_message(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.dialog.replies.append(ZeroDivisionError())
    events = await world.say("hello")
    assert isinstance(events[-1], Failed)
    assert events[-1].message == UNEXPECTED
    assert "ZeroDivisionError" in caplog.text


async def test_stop_while_the_model_thinks(world: World) -> None:
    world.dialog = FakeDialog("a very long story " * 50, pause=0.02)
    cancel = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, cancel.set)
    events = await world.say("tell me", cancel=cancel)
    assert isinstance(events[-1], Failed)
    assert (events[-1].message, events[-1].turn.status) == (STOPPED, "cancelled")
    assert "a very" in events[-1].turn.text
    assert world.dialog.closed == 1  # the stream was closed: the server stops too


async def test_stop_while_it_draws(world: World) -> None:
    world.generator = FakeGenerator(0.05)
    cancel = asyncio.Event()
    turn = take_turn(
        world.conversation, UserMessage("draw a fox"), world.dialog, world.generator, world.store, world.profile,
        cancel=cancel,
    )  # fmt: skip
    events = []
    async for event in turn:
        events.append(event)
        if isinstance(event, Progress) and event.step:
            cancel.set()
    assert isinstance(events[-1], Failed)
    assert events[-1].turn.status == "cancelled"
    assert world.generator.jobs[0].cancelled.is_set()


async def test_leaving_the_turn_ends_it(world: World) -> None:
    world.generator = FakeGenerator(0.05)
    turn = take_turn(
        world.conversation, UserMessage("draw a fox"), world.dialog, world.generator, world.store, world.profile
    )
    async for event in turn:
        if isinstance(event, Progress):
            break
    await turn.aclose()
    assert world.store.path(world.conversation.leaf)[0].status == "cancelled"
    assert world.generator.jobs[0].cancelled.is_set()


async def test_a_full_disk_when_the_picture_is_saved(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "_write_whole", full)
    events = await world.say("draw a fox")
    assert isinstance(events[-1], Failed)
    assert "The disk is full" in events[-1].message
    assert isinstance(events[-1].error, StoreError)
    (turn,) = world.store.path(world.conversation.leaf)
    assert (turn.status, turn.prompt) == ("failed", "A flat picture of a fox.")
    monkeypatch.undo()
    conversation, message = retry_of(turn, world.conversation, world.store)
    assert isinstance((await world.take(conversation, message, parent=turn.parent))[-1], Done)


@pytest.mark.parametrize(
    ("text", "files", "message"),
    [
        ("", (), "The message is empty"),
        (" \n\t ", (), "The message is empty"),
        ("x" * 20_000, (), "20,000 characters; at most 4,000"),
        ("look", (b"text, not a picture",), "not a picture"),
        ("look", (bomb(20_000),), "too large"),
        ("look", (b"",) * 5, "at most 4 pictures"),
    ],
)
async def test_refused_messages_leave_no_trace(world: World, text: str, files: Any, message: str) -> None:
    with pytest.raises(InputRefused, match=message):
        await world.say(text, files)
    assert world.conversation.leaf is None
    assert world.dialog.asked == []
    assert not list((world.store.folder / "pictures").iterdir())


async def test_a_picture_alone_is_a_message(world: World) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(buffer, "PNG")
    world.dialog.replies.append("A red square.")
    await world.say("", (buffer.getvalue(),))
    messages, _ = world.dialog.asked[0]
    assert messages[0].images[0].open().getpixel((2, 2)) == (255, 0, 0)


def test_titles() -> None:
    assert title_of(" draw\n a fox ") == "draw a fox"
    assert len(title_of("word " * 40)) <= 48


def test_the_engine_may_end_after_the_app(profile: Profile, caplog: pytest.LogCaptureFixture) -> None:
    generator = FakeGenerator()
    request = profile.request("a fox", 1, profile.settings)
    heard: list[Any] = []

    async def begin() -> None:
        events = draw(generator, request)
        heard.append(await anext(events))
        await asyncio.sleep(0.05)
        loop_ends.append(events)  # nobody closes it

    loop_ends: list[Any] = []
    job = FakeJob()
    generator.submit = lambda *arguments: job  # type: ignore[method-assign,assignment,return-value]
    asyncio.run(begin())
    job.future.set_result("drawn")
    assert heard and not caplog.records
