"""The parser: the protocol's rules one by one, then a fuzz test of what must hold for every output."""

from __future__ import annotations

import itertools
import random
import time

import pytest

from dialog_mllm.errors import EmptyPrompt, EmptyReply, ProtocolError
from dialog_mllm.protocol import DRAW, JOINER, SWITCH, TOKENS, DrawStart, Parser, PromptDelta, Reply, TextDelta


def parse(output: str, cuts: list[int] | None = None, may_draw: bool = True) -> Reply:
    """The reply to an output that arrives cut in pieces; checks that the events tell the same."""
    parser = Parser(may_draw)
    events = []
    places = [0, *sorted(cuts or []), len(output)]
    for start, end in itertools.pairwise(places):
        events += parser.feed(output[start:end])
    last, reply = parser.finish()
    events += last
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == reply.text
    assert "".join(event.text for event in events if isinstance(event, PromptDelta)) == reply.prompt
    assert events.count(DrawStart()) == (reply.kind == "draw")
    assert reply.raw == output
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
        reply = parse(output, cuts)
        assert (reply.kind, reply.text, reply.prompt, reply.switched) == (kind, text, prompt, switched)


@pytest.mark.parametrize("output", ["", "  \n", "<switch>", "<|im_end|>", "<image>", "<|im_end|>too late", "\x00"])
def test_nothing_said(output: str) -> None:
    with pytest.raises(EmptyReply):
        parse(output)


@pytest.mark.parametrize("output", ["<draw>", "<draw>  ", "Sure! <draw>", "<draw><draw>", "<draw></s>a fox"])
def test_prompt_missing(output: str) -> None:
    with pytest.raises(EmptyPrompt, match="Retry"):
        parse(output)


def test_talk_mode_never_draws() -> None:
    assert parse("Well. <draw>a fox", may_draw=False) == Reply("text", "Well.", raw="Well. <draw>a fox")
    with pytest.raises(EmptyReply):
        parse("<draw>a fox", may_draw=False)


def test_only_what_may_become_a_token_is_held_back() -> None:
    parser = Parser()
    assert parser.feed("I <3") == [TextDelta("I <3")]
    assert parser.feed(" x<dr") == [TextDelta(" x")]
    assert parser.feed("ink") == [TextDelta("<drink")]
    assert parser.feed("<dr") == []
    assert parser.feed("aw>fo") == [DrawStart(), PromptDelta("fo")]


def test_dropping_a_token_makes_no_token() -> None:
    assert parse("<dr<image>aw>fox").text == f"<dr{JOINER}aw>fox"


def test_content_is_what_history_and_training_hold() -> None:
    assert parse("<switch> Sure! <draw> a fox").content == "<switch><draw>a fox"
    assert parse("<switch> hello ").content == "<switch>hello"


def test_fuzz() -> None:
    """Any output, in any pieces: a reply that holds no token, or a named error; the same however it is cut."""
    rng = random.Random(0)
    atoms = [*TOKENS, *(token[:5] for token in TOKENS), *(token[2:] for token in TOKENS)]
    atoms += [DRAW] * 4 + [SWITCH] * 3 + list(" \n<<>>|/ab狐\u3000\x00\ud83e") + ["a red fox", "draw", JOINER]
    started = time.process_time()
    kinds = dict.fromkeys(("text", "draw", "error"), 0)
    for _ in range(100_000):
        output = "".join(rng.choices(atoms, k=rng.randrange(9)))
        outcomes: list[Reply | type[ProtocolError]] = []
        for cuts in ([], [rng.randrange(len(output) + 1) for _ in range(rng.randrange(4))]):
            try:
                outcomes.append(parse(output, cuts))
            except ProtocolError as error:
                outcomes.append(type(error))
        assert outcomes[0] == outcomes[1], output
        reply = outcomes[0]
        if not isinstance(reply, Reply):
            kinds["error"] += 1
            continue
        kinds[reply.kind] += 1
        for said in (reply.text, reply.prompt):
            assert said == said.strip()
            assert not any(token in said for token in TOKENS), output
            said.encode()
        assert parse(reply.content).content == reply.content  # history reads back as it was written
    assert min(kinds.values()) > 5_000, kinds
    assert time.process_time() - started < 30
