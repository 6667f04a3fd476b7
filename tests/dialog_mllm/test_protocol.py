"""The parser: the protocol's rules one by one, then what must hold for every output (fuzz.py)."""

from __future__ import annotations

import time

import pytest

from dialog_mllm.errors import EmptyPrompt, EmptyReply
from dialog_mllm.protocol import JOINER, DrawStart, Parser, PromptDelta, Reply, TextDelta
from tests.dialog_mllm.fuzz import fuzz, parse


def read(output: str, cuts: list[int] | None = None, may_draw: bool = True) -> Reply:
    """The reply to an output that arrives cut in pieces."""
    reply = parse(output, cuts or [], may_draw)
    if not isinstance(reply, Reply):
        raise reply
    return reply


@pytest.mark.parametrize(
    ("output", "kind", "text", "prompt", "switched"),
    [
        ("hello", "text", "hello", "", False),
        ("  hello\n", "text", "hello", "", False),
        ("a  b\n\nc", "text", "a  b\n\nc", "", False),
        ("<draw>a red fox", "draw", "", "a red fox", False),
        (" <draw> a red fox \n", "draw", "", "a red fox", False),
        ("<switch>hello", "text", "hello", "", True),
        ("<switch><draw>a fox", "draw", "", "a fox", True),
        (" <switch> <draw> a fox", "draw", "", "a fox", True),
        ("Sure! <draw>a fox", "draw", "Sure!", "a fox", False),
        ("<draw><draw>a fox", "draw", "", "a fox", False),
        ("<draw>a fox<draw>a cat", "draw", "", "a fox", False),
        ("<draw>a fox<|im_end|><|im_start|>user", "draw", "", "a fox", False),
        ("<画图>一只狐狸", "draw", "", "一只狐狸", False),
        ("<draw>a fox</draw>\nThere you go!", "draw", "", "a fox", False),
        ("hello<switch> there", "text", "hello there", "", False),
        ("<draw>a <image>fox</s>", "draw", "", "a fox", False),
        ("<draw>a <switch>fox", "draw", "", "a fox", False),
        ("I <3 you <drawing> a < b", "text", "I <3 you <drawing> a < b", "", False),
        ("<dra", "text", "<dra", "", False),
        ("<Draw>x", "text", "<Draw>x", "", False),
        ("a\x00b\ud800c\r\nd", "text", "abc\nd", "", False),
        ("<draw>一只红色的狐狸", "draw", "", "一只红色的狐狸", False),
    ],
)
def test_rules(output: str, kind: str, text: str, prompt: str, switched: bool) -> None:
    for cuts in ([], list(range(len(output)))):
        reply = read(output, cuts)
        assert (reply.kind, reply.text, reply.prompt, reply.switched) == (kind, text, prompt, switched)


@pytest.mark.parametrize("output", ["", "  \n", "<switch>", "<|im_end|>", "<image>", "<|im_end|>too late", "\x00"])
def test_nothing_said(output: str) -> None:
    with pytest.raises(EmptyReply):
        read(output)


@pytest.mark.parametrize("output", ["<draw>", "<draw>  ", "Sure! <draw>", "<draw><draw>", "<draw></s>a fox"])
def test_prompt_missing(output: str) -> None:
    with pytest.raises(EmptyPrompt, match="Retry"):
        read(output)


def test_talk_mode_never_draws() -> None:
    assert read("Well. <draw>a fox", may_draw=False) == Reply("text", "Well.", raw="Well. <draw>a fox")
    with pytest.raises(EmptyReply):
        read("<draw>a fox", may_draw=False)


def test_only_what_may_become_a_token_is_held_back() -> None:
    parser = Parser()
    assert parser.feed("I <3") == [TextDelta("I <3")]
    assert parser.feed(" x<dr") == [TextDelta(" x")]
    assert parser.feed("ink") == [TextDelta("<drink")]
    assert parser.feed("<dr") == []
    assert parser.feed("aw>fo") == [DrawStart(), PromptDelta("fo")]


def test_dropping_a_token_makes_no_token() -> None:
    assert read("<dr<image>aw>fox").text == f"<dr{JOINER}aw>fox"


def test_content_is_what_history_and_training_hold() -> None:
    assert read("<switch> Sure! <draw> a fox").content == "<switch><draw>a fox"
    assert read("<switch> hello ").content == "<switch>hello"


def test_every_output_keeps_the_rules() -> None:
    kinds = fuzz(20_000, seed=0)
    assert min(kinds[kind] for kind in ("text", "draw", "EmptyReply", "EmptyPrompt", "echo")) > 500, kinds


@pytest.mark.slow
def test_a_million_outputs_keep_the_rules() -> None:
    assert sum(fuzz(1_000_000, seed=1).values()) == 1_250_000


def test_a_very_long_output_takes_no_longer_than_its_length() -> None:
    started = time.process_time()
    for output in ("<" * 200_000, "<draw>" + "<dra" * 50_000, "a <switch>" * 20_000, " " * 200_000 + "x"):
        assert isinstance(parse(output, list(range(1, len(output)))), Reply)
    assert time.process_time() - started < 20
