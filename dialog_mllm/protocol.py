"""The protocol between the dialog model and the app: two special tokens, and the parser that reads a reply.

    parser = Parser(); events = parser.feed("<draw>a red f") + parser.feed("ox"); reply = parser.finish()

`<draw>` means "what follows, to the end of the reply, is the prompt"; `<switch>`, before anything else, means
"a new topic starts here". The parser is incremental, and total: any output becomes a Reply or an EmptyReply or
EmptyPrompt. Its rules for what a model should not write but may:

- text before `<draw>` is kept as the reply's text and shown; the prompt follows it;
- a second `<draw>` directly after the first is ignored; later it ends the prompt, as does any end-of-turn token;
- `<switch>` behind visible characters, and every other special token, is dropped;
- where dropping a token would glue its neighbours into a token, an invisible JOINER is left between them;
- white space around text and prompt goes, white space inside stays; control characters go.

However the output is cut into pieces, the events say the same in the end: the TextDeltas join to `Reply.text`, the
PromptDeltas to `Reply.prompt`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from dialog_mllm.errors import EmptyPrompt, EmptyReply

DRAW = "<draw>"
SWITCH = "<switch>"
ASSISTANT = "<|assistant|>"  # before each reply of the bundled kind of model
JOINER = "\u2060"  # WORD JOINER: invisible, no width; breaks "<draw>" so that no tokenizer makes the token of it

DRAW_SYNONYMS = ("<画图>",)  # the plain text that DialogGen's released weights write for it

# A foreign model's special tokens reach us too, since we ask the server not to strip ours; and one that writes the
# draw token as plain text may close it like a tag.
END_TOKENS = (
    "</draw>", "<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|eot_id|>", "<end_of_utterance>", "<end_of_turn>",
    "</s>",
)  # fmt: skip
HIDDEN_TOKENS = (
    "<image>", "<fake_token_around_image>", "<global-img>", "<|image_pad|>", "<|vision_start|>", "<|vision_end|>",
    "<s>", "<bos>", "<pad>", "<|pad|>", "<unk>",
)  # fmt: skip
# Every token begins with "<" and holds no other: so tokens never overlap, and only what follows the last "<" can
# still become one. The parser relies on it.
TOKENS = (DRAW, SWITCH, *DRAW_SYNONYMS, *END_TOKENS, *HIDDEN_TOKENS)
_TOKEN = re.compile("|".join(re.escape(token) for token in TOKENS))
_PREFIXES = frozenset(token[:length] for token in TOKENS for length in range(1, len(token)))
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class TextDelta:
    text: str


@dataclass(frozen=True)
class DrawStart:
    pass


@dataclass(frozen=True)
class PromptDelta:
    text: str


Event = TextDelta | DrawStart | PromptDelta


@dataclass(frozen=True)
class Reply:
    """One finished reply. `text` is all of it when kind is "text", what stood before the token when it is "draw"."""

    kind: Literal["text", "draw"]
    text: str = ""
    prompt: str = ""
    switched: bool = False
    raw: str = ""  # the model's output as received
    draw_probability: float | None = None  # P(<draw>) where the model decided; None if the server did not tell
    timings: dict[str, float] | None = None  # seconds: first_token, total
    truncated: bool = False  # cut off at max_tokens
    tokens: int = 0  # how many the model wrote, where its server tells
    forgotten: int = 0  # how many of the oldest messages no longer fitted the model's context
    adapter: str | None = None  # SHA-256 of the adapter that the model wrote it with; None: nobody said

    @property
    def content(self) -> str:
        """The assistant's message as history and training records spell it."""
        return (SWITCH if self.switched else "") + (DRAW + self.prompt if self.kind == "draw" else self.text)


class Parser:
    """Reads one reply. With `may_draw=False` (the user chose "talk") a draw token ends the reply instead."""

    def __init__(self, may_draw: bool = True) -> None:
        self._may_draw = may_draw
        self._raw: list[str] = []
        self._buffer = ""  # could still become a token
        self._space = ""  # white space that is dropped unless something follows it
        self._text = ""
        self._prompt = ""
        self._drawing = False
        self._switched = False
        self._ended = False

    def feed(self, piece: str) -> list[Event]:
        self._raw.append(piece)
        self._buffer += _CONTROL.sub("", piece)
        events: list[Event] = []
        while match := _TOKEN.search(self._buffer):
            self._emit(self._buffer[: match.start()], events)
            self._token(match.group(), events)
            self._buffer = self._buffer[match.end() :]
        kept = len(_unfinished_token(self._buffer))
        cut = len(self._buffer) - kept
        self._emit(self._buffer[:cut], events)
        self._buffer = self._buffer[cut:]
        return events

    def finish(self) -> tuple[list[Event], Reply]:
        """The last events (what was held back) and the reply; raises EmptyReply or EmptyPrompt."""
        events: list[Event] = []
        self._emit(self._buffer, events)
        self._buffer = ""
        if self._drawing and not self._prompt:
            raise EmptyPrompt
        if not self._drawing and not self._text:
            raise EmptyReply
        return events, Reply(
            kind="draw" if self._drawing else "text",
            text=self._text,
            prompt=self._prompt,
            switched=self._switched,
            raw="".join(self._raw),
        )

    def _emit(self, text: str, events: list[Event]) -> None:
        if self._ended or not text:
            return
        said = self._prompt if self._drawing else self._text
        text = self._space + text
        text = text if said else text.lstrip()
        visible = text.rstrip()
        self._space = text[len(visible) :]
        if not visible:
            return
        if self._drawing:
            self._prompt += visible
            events.append(PromptDelta(visible))
        else:
            self._text += visible
            events.append(TextDelta(visible))

    def _token(self, token: str, events: list[Event]) -> None:
        said = self._prompt if self._drawing else self._text
        token = DRAW if token in DRAW_SYNONYMS else token
        if token == DRAW and not self._drawing and self._may_draw and not self._ended:
            self._drawing = True
            self._space = ""
            events.append(DrawStart())
        elif token in END_TOKENS or (token == DRAW and (said or not self._drawing)):
            self._ended = True
        elif token == SWITCH and not (self._text or self._prompt):
            self._switched = self._switched or not self._ended
        elif not self._space and _unfinished_token(said):
            self._emit(JOINER, events)


def _unfinished_token(text: str) -> str:
    """The end of the text that more text could make a token of; "" if there is none."""
    start = text.rfind("<")
    return text[start:] if start >= 0 and text[start:] in _PREFIXES else ""
