"""`easel data feedback`: what users of the chat thought of its replies, as data to learn from.

easel data feedback --store ~/.local/share/easel --out runs/feedback
easel finetune --data runs/feedback runs/d --validation runs/d --adapter runs/lora/adapter --out run

A reply that was liked is learnt. One that was not is learnt as it should have been: with the prompt that the user put
right, else as another branch of the conversation answered the same message (with "draw" or "talk" chosen there, or
liked); what was said instead is the rejected reply of a preference pair. A rating without such an answer is counted
under `left_out`, with the reason; but where it is known that the reply should have drawn, or talked, `--ask` has the
dialog model write it, with its choice made for it. The data set holds the users' own words and pictures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.accounts import owner_named
from app.commands.eval_dialog import add_model_arguments, profile_of, start_client
from app.config import add_database, database_of
from app.conversation import history
from app.database import must_be_there
from app.errors import EaselError
from app.store import Rating, Store, Turn
from datasets_build import corrections
from datasets_build.consistency import chinese_share
from datasets_build.corrections import Case, Correction, CorrectionError
from datasets_build.teacher import NO_LICENCE
from dialog_mllm.errors import ProtocolError
from dialog_mllm.messages import ImageBlock, Message, TextBlock
from dialog_mllm.protocol import TOKENS, Reply

if TYPE_CHECKING:
    from dialog_mllm.client import DialogClient, Mode

SOURCE = "easel-chat"


class _LeftOut(Exception):
    """Nothing can be learnt from this rating; the text says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--store", type=Path, required=True, help="the app's data folder (`easel chat --data-dir`)")
    add_database(parser)
    add("--out", type=Path, required=True, help="the data set's folder")
    add("--owner", help="only this user's conversations (default: everybody's)")
    add("--licence", default=NO_LICENCE, help="of what the users wrote, for the records and the manifest")
    add("--ask", action="store_true", help="ask the dialog model for the replies that are missing")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    database = database_of(args)
    must_be_there(args.store, database)
    store = Store(args.store, database)
    found: list[Correction] = []
    left_out: Counter[str] = Counter()
    try:
        ratings = store.ratings(args.owner and owner_named(args.store, database, args.owner))
        forced = _forced(args, store, ratings) if args.ask else {}
        for rating in ratings:
            try:
                found.append(_correction(store, rating, forced))
            except _LeftOut as reason:
                left_out[str(reason)] += 1
    finally:
        store.close()
    if not found:
        raise EaselError(f"None of {len(ratings):,} ratings can be learnt from{_listed(left_out)}.")
    try:
        made = {"seed": 0, "ratings": len(ratings)}
        result = corrections.write(args.out, found, made, SOURCE, args.licence, "D_f")
    except (CorrectionError, RuntimeError) as error:
        raise EaselError(str(error)) from error
    except OSError as error:
        raise EaselError(f"{args.out} cannot be written ({error}).") from error
    return {"ratings": len(ratings), **result, "left_out": dict(left_out)}


def _listed(left_out: Counter[str]) -> str:
    return "".join(f"; {count:,}: {reason}" for reason, count in left_out.most_common())


def _forced(args: argparse.Namespace, store: Store, ratings: Sequence[Rating]) -> dict[str, Reply]:
    """The dialog model's replies, its choice made for it, to the turns that nobody answered as they should have been:
    by the turn."""
    questions: dict[str, tuple[list[Message], Mode]] = {}
    for rating in ratings:
        try:
            _should_have_been(store, rating, store.turn(rating.turn), {})
        except _LeftOut:
            if rating.verdict != "dislike":
                messages = _asked(store, store.turn(rating.turn))[1]
                questions[rating.turn] = messages, "draw" if rating.verdict == "should_draw" else "talk"
    if not questions:
        return {}
    with contextlib.ExitStack() as stack:
        args.out.mkdir(parents=True, exist_ok=True)
        client = start_client(args, profile_of(args), stack, args.out)
        try:
            return asyncio.run(_ask(client, questions))
        except ExceptionGroup as group:
            raise group.exceptions[0] from group


async def _ask(client: DialogClient, questions: Mapping[str, tuple[list[Message], Mode]]) -> dict[str, Reply]:
    slots = asyncio.Semaphore(8)
    replies: dict[str, Reply] = {}

    async def ask(turn: str, messages: list[Message], mode: Mode) -> None:
        async with slots:
            # What is no reply is not learnt; the rating is left out then.
            with contextlib.suppress(ProtocolError):
                async for event in client.reply(messages, mode):
                    if isinstance(event, Reply):
                        replies[turn] = event

    async with asyncio.TaskGroup() as group:
        for turn, (messages, mode) in questions.items():
            group.create_task(ask(turn, messages, mode))
    return replies


def _asked(store: Store, turn: Turn) -> tuple[list[Turn], list[Message]]:
    """The turns that the dialog model saw before this one, and the messages, this one's among them."""
    past = [earlier for earlier in store.path(turn.parent) if history([earlier], store)]
    return past, [*history(past, store), Message.user(turn.said, [_block(store, upload) for upload in turn.uploads])]


def _correction(store: Store, rating: Rating, forced: Mapping[str, Reply]) -> Correction:
    turn = store.turn(rating.turn)
    said = _reply(turn)
    error, reply, sure = _should_have_been(store, rating, turn, forced)
    past, messages = _asked(store, turn)
    for message in messages[::2]:
        if not message.text.strip():
            raise _LeftOut("a message holds pictures alone")
        if any(token in message.text for token in TOKENS):
            raise _LeftOut("a user typed one of the model's tokens")
    turns = [_turn(earlier, messages[: 2 * i + 1]) for i, earlier in enumerate(past)]
    drawn = reply.prompt != ""
    record = {
        "id": turn.id,
        "task": "D_f",
        "language": "zh" if chinese_share(turn.said) > 0.5 else "en",
        "split": "train",
        "topic": None,
        "phrasings": [],
        "messages": [
            *(_to_json(message, store) for message in messages),
            {"role": "assistant", "content": [{"type": "text", "text": reply.content}]},
        ],
        "turns": [*turns, _turn(turn, messages, drawn)],
    }
    return (
        Case(record, store.folder / "pictures", len(turns), said.content, error),
        reply.content,
        {"judge": 1} if sure else {},
    )


def _should_have_been(
    store: Store, rating: Rating, turn: Turn, forced: Mapping[str, Reply]
) -> tuple[str | None, Reply, bool]:
    """The kind of error in the reply (None: there is none), the right reply, and whether a user called it right."""
    if rating.prompt and rating.prompt != turn.prompt:
        error = "prompt" if turn.prompt else "missed_draw"
        return error, Reply("draw", "", rating.prompt, turn.switched), True
    if rating.verdict in ("like", "") or (rating.verdict == "should_draw" and turn.prompt):
        return None, _reply(turn), True
    others = [
        other
        for other in store.siblings(turn)
        if other.status == "done"
        and (other.said, other.uploads) == (turn.said, turn.uploads)
        and (other.text, other.prompt) != (turn.text, turn.prompt)  # another picture of it is no other reply
    ]
    for other in reversed(others):
        opinion = store.rating(other.id)
        liked = opinion is not None and (opinion.verdict == "like" or opinion.prompt != "")
        wanted = {"should_draw": bool(other.prompt), "should_talk": not other.prompt, "dislike": liked}
        if wanted[rating.verdict] and not (opinion is not None and opinion.verdict == "dislike"):
            prompt = (opinion.prompt if opinion is not None else "") or other.prompt
            reply = Reply("draw" if prompt else "text", "" if prompt else other.text, prompt, other.switched)
            return _kind(turn, reply), reply, liked
    if turn.id in forced:
        return _kind(turn, forced[turn.id]), forced[turn.id], False
    raise _LeftOut(
        {
            "should_draw": "it should have drawn, and no prompt was given and no branch drew (see --ask)",
            "should_talk": "it should have talked, and no branch did (see --ask)",
            "dislike": "it was disliked, and no branch was liked",
        }[rating.verdict]
    )


def _kind(turn: Turn, right: Reply) -> str:
    if bool(turn.prompt) != (right.kind == "draw"):
        return "false_draw" if turn.prompt else "missed_draw"
    return "prompt" if turn.prompt else "reply"


def _reply(turn: Turn) -> Reply:
    return Reply("draw" if turn.prompt else "text", turn.text, turn.prompt, turn.switched)


def _turn(turn: Turn, seen: Sequence[Message], drawn: bool | None = None) -> dict[str, Any]:
    """A turn's type, by what was to be seen before its reply. What it asked for is nobody's plan."""
    shown = any(message.images for message in seen)
    draws = bool(turn.prompt) if drawn is None else drawn
    return {"type": ("ti2" if shown else "t2") + ("i" if draws else "t"), "request": {"op": "chat"}, "scene": None}


def _block(store: Store, picture: str) -> ImageBlock:
    return ImageBlock(path=store.picture_path(picture))


def _to_json(message: Message, store: Store) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = []
    for block in message.content:
        if isinstance(block, TextBlock):
            blocks.append({"type": "text", "text": block.text})
            continue
        path = Path(str(block.path))
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise _LeftOut("a picture of the conversation is lost") from error
        blocks.append(
            {"type": "image", "path": path.relative_to(store.folder / "pictures").as_posix(), "sha256": digest}
        )
    return {"role": message.role, "content": blocks}
