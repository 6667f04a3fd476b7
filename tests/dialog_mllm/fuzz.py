"""What must hold for every output of a dialog model, however malformed, tried on outputs drawn by lot.

    python -m tests.dialog_mllm.fuzz 1000000 --seed 1     # prints how many, of which kinds, and how long it took

An output is made of the protocol's tokens, parts of them, foreign models' tokens, what a user typed as the model sees
it (escaped), words, white space, controls, surrogates, and single characters of all planes. It is parsed whole and cut
in random pieces. `check` raises AssertionError, with the output, where a rule is broken; every other exception of the
parser but a ProtocolError is a fault as well, and comes through.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator

from dialog_mllm.errors import ProtocolError
from dialog_mllm.messages import escape_user_text
from dialog_mllm.protocol import (
    DRAW,
    DRAW_SYNONYMS,
    JOINER,
    SWITCH,
    TOKENS,
    DrawStart,
    Parser,
    PromptDelta,
    Reply,
    TextDelta,
)

PARTS = [token[:n] for token in TOKENS for n in (1, 2, len(token) - 1)] + [token[1:] for token in TOKENS]
WORDS = [
    "a red fox", "画一只红色的狐狸", "draw", "switch", "Sure!", "😀", "é", "ﷺ", JOINER, "\u200b", "\u202e", "<3",
    "a < b", "<Draw>", "<draw >", "< draw>", "&lt;draw&gt;", "<drawdraw>", "＜draw＞",
]  # fmt: skip
SPACES = [" ", "\n", "\t", "\r\n", "\u3000", "\u00a0", "\u2028"]
CONTROLS = ["\x00", "\x07", "\x1b[31m", "\x7f", "\x9f", "\ud83e", "\udd8a"]
ATOMS = [*TOKENS, *[DRAW] * 12, *[SWITCH] * 8, *PARTS, *WORDS * 2, *SPACES * 4, *CONTROLS * 2, *"<<<<>>|/sdraw狐"]
BOTH = (True, False)


def outputs(n: int, rng: random.Random) -> Iterator[str]:
    """Most are short, where the rules meet; one in 1,000 is thousands of characters long."""
    for number in range(n):
        if number % 1000 == 999:
            yield "".join(rng.choices(ATOMS, k=rng.randrange(400, 1200)))
        elif number % 8 == 7:  # from the model's own mouth after a draw token, or beside what the user typed
            typed = escape_user_text("".join(rng.choices(ATOMS, k=rng.randrange(1, 5))))
            yield rng.choice(("", DRAW, SWITCH, "You said: ")) + typed
        elif number % 8 == 6:
            yield "".join(map(chr, rng.choices(range(0x10FFFF), k=3))) + rng.choice(ATOMS) + rng.choice(ATOMS)
        else:
            yield "".join(rng.choices(ATOMS, k=rng.randrange(9)))


def parse(output: str, cuts: list[int], may_draw: bool = True) -> Reply | type[ProtocolError]:
    """The reply, or the kind of error. The events must tell what the reply tells."""
    parser = Parser(may_draw)
    events = []
    for start, end in itertools.pairwise((0, *cuts, len(output))):
        events += parser.feed(output[start:end])
    try:
        last, reply = parser.finish()
    except ProtocolError as error:
        return type(error)
    events += last
    assert "".join([event.text for event in events if type(event) is TextDelta]) == reply.text, output
    assert "".join([event.text for event in events if type(event) is PromptDelta]) == reply.prompt, output
    assert events.count(DrawStart()) == (reply.kind == "draw"), output
    assert reply.raw == output
    return reply


def check(output: str, rng: random.Random) -> str:
    """Every rule, for one output; returns its kind: "text", "draw" or the error's name."""
    whole = parse(output, [])
    length = len(output) + 1
    for cuts in (sorted(int(rng.random() * length) for _ in range(3)), range(1, len(output)) if length < 12 else ()):
        assert not cuts or parse(output, list(cuts)) == whole, output
    talked = parse(output, [], may_draw=False)
    assert not isinstance(talked, Reply) or (talked.kind == "text" and not talked.prompt), output
    if not isinstance(whole, Reply):
        return whole.__name__
    assert (whole.kind == "draw") == bool(whole.prompt), output
    assert whole.kind == "text" or any(token in _seen(output) for token in (DRAW, *DRAW_SYNONYMS)), output
    assert whole.text or whole.prompt
    for said in (whole.text, whole.prompt):
        if said:
            assert said == said.strip(), output
            assert "<" not in said or not any(token in said for token in TOKENS), output
            said.encode()
    assert parse(whole.content, []).content == whole.content, output  # history reads back as it was written
    return whole.kind


def check_echo(typed: str) -> None:
    """A model that repeats what a user typed, as it saw it, neither draws nor changes the topic."""
    reply = parse("You said: " + escape_user_text(typed), [])
    assert isinstance(reply, Reply) and reply.kind == "text" and not reply.switched, typed


def _seen(output: str) -> str:
    """The output without controls: "<dr\\0aw>" is the token."""
    return "".join(char for char in output if unicodedata.category(char) not in ("Cc", "Cs") or char in "\t\n")


def fuzz(n: int, seed: int, say: Callable[[int], None] = lambda done: None) -> Counter[str]:
    """How many outputs were of each kind; raises at the first that breaks a rule."""
    rng = random.Random(f"fuzz {seed}")
    kinds: Counter[str] = Counter()
    for done, output in enumerate(outputs(n, rng), 1):
        kinds[check(output, rng)] += 1
        if done % 4 == 0:
            check_echo(output)
            kinds["echo"] += 1
        if done % 100_000 == 0:
            say(done)
    return kinds


def main() -> None:
    parser = argparse.ArgumentParser(description="Try the parser on outputs drawn by lot.")
    parser.add_argument("n", type=int)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    started, spent = time.monotonic(), time.process_time()
    kinds = fuzz(args.n, args.seed, lambda done: print(f"{done:,}", flush=True))
    echoes = kinds.pop("echo", 0)
    print(f"{args.n:,} outputs kept every rule: " + ", ".join(f"{kind} {n:,}" for kind, n in kinds.most_common()))
    print(f"{echoes:,} echoes drew nothing; {time.process_time() - spent:.0f} s of the processor, "
          f"{time.monotonic() - started:.0f} s in all")  # fmt: skip


if __name__ == "__main__":
    main()
