"""The surface of typed text: case, punctuation, spelling and slips of the finger, as real users have them.

    python -c "
    import random; from datasets_build.surface import roughen
    print(roughen('Draw a grey fox.', 'en', random.Random(5)))"

What is asked for stays readable; only its surface changes.
"""

from __future__ import annotations

import random
import re

_AMERICAN = (("olour", "olor"), ("centre", "center"), ("grey", "gray"), ("avourite", "avorite"))
_END = re.compile(r"[.!?。！？]+$")
# 红色的狐狸 and 红色狐狸 are 红狐狸 as well.
_NOUN_STARTS = "猫狗兔狐熊鸟鱼乌蝴雪汽火帆房城宝树花蛋灯帽围眼王皇气雨伞衣"
_LONG_COLOUR = re.compile(f"([红橙黄绿蓝紫粉棕黑白])色的?(?=小?[{_NOUN_STARTS}])")
_HALF_WIDTH = str.maketrans({"，": ",", "。": ".", "！": "!", "？": "?", "：": ":", "；": ";"})


def sentence(text: str) -> str:
    """With a capital letter at the start of each sentence."""
    return re.sub(r"(^|[.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)


def roughen(text: str, language: str, rng: random.Random) -> str:
    """`text` as this user types it."""
    return _rough_english(text, rng) if language == "en" else _rough_chinese(text, rng)


def _without_end(text: str) -> str:
    """Without its last marks, unless it consists of nothing else."""
    return _END.sub("", text) or text


def _rough_english(text: str, rng: random.Random) -> str:
    if rng.random() < 0.3:
        for british, american in _AMERICAN:
            text = text.replace(british, american)
    if rng.random() < 0.25:
        text = _without_end(text)
    if rng.random() < 0.3:
        text = text.lower()
    elif rng.random() < 0.02:
        text = text.upper()
    if rng.random() < 0.06:
        text = _slip(text, rng)
    if rng.random() < 0.04:
        text = _without_end(text) + rng.choice(("!!", "...", " :)", " 🙂", " !", "!!!", " ❤️"))
    return text


def _rough_chinese(text: str, rng: random.Random) -> str:
    if rng.random() < 0.2:
        text = _LONG_COLOUR.sub(r"\1", text)
    if rng.random() < 0.3:
        text = _without_end(text)
    if rng.random() < 0.08:
        text = text.translate(_HALF_WIDTH)
    if rng.random() < 0.04:
        text = text.replace("，", " ")
    if rng.random() < 0.06:
        text = _without_end(text) + rng.choice(("！", "～", "。。。", "🙂", "哦", "！！", "~"))
    return text


def _slip(text: str, rng: random.Random) -> str:
    """One slip of the finger inside a longer word: two letters swapped, one missing, one doubled."""
    words = [match for match in re.finditer(r"[A-Za-z]{5,}", text)]
    if not words:
        return text
    word = rng.choice(words)
    at = rng.randrange(word.start() + 1, word.end() - 1)
    slips = (text[at + 1] + text[at], text[at + 1], text[at] * 2 + text[at + 1])
    return text[:at] + rng.choice(slips) + text[at + 2 :]
