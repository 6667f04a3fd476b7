"""The surface of typed text: case, punctuation, spelling and slips of the finger, as real users have them.

    python -c "
    import random; from datasets_build.surface import roughen
    print(roughen('Draw a grey fox.', 'en', random.Random(5)))"

What is asked for stays readable; only its surface changes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import cache

from datasets_build.storybook.vocabulary import MEASURES, NAMES

_AMERICAN = (("olour", "olor"), ("centre", "center"), ("grey", "gray"), ("avourite", "avorite"))
_END = re.compile(r"[.!?。！？]+$")
# 红色的狐狸 and 红色狐狸 are 红狐狸 as well.
_NOUN_STARTS = "猫狗兔狐熊鸟鱼乌蝴雪汽火帆房城宝树花蛋灯帽围眼王皇气雨伞衣"
_LONG_COLOUR = re.compile(f"([红橙黄绿蓝紫粉棕黑白])色的?(?=小?[{_NOUN_STARTS}])")
_SLANG: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "en": (
        (r"\bplease\b", ("pls", "plz", "plss")), (r"\bpictures?\b", ("pic",)), (r"\byou\b", ("u",)),
        (r"\byour\b", ("ur",)), (r"\b(?:thanks|thank you)\b", ("thx", "ty", "tysm")), (r"\bgive me\b", ("gimme",)),
        (r"\bwant to\b", ("wanna",)), (r"\bgoing to\b", ("gonna",)), (r"\blet me\b", ("lemme",)),
        (r"\bdon't know\b", ("dunno",)), (r"\bsomething\b", ("smth", "sth")), (r"\breally\b", ("rly", "rlly")),
        (r"\bkind of\b", ("kinda",)), (r"\bbecause\b", ("cuz", "bc")), (r"\bare\b", ("r",)),
        (r"(?<=\w )(?-i:and)\b", ("n", "&")), (r"\btomorrow\b", ("tmrw",)), (r"\bbefore\b", ("b4",)),
        (r"\bcat\b", ("kitteh", "kitty cat", "catto")), (r"\bdog\b", ("doggo", "pupper")),
        (r"\bbird\b", ("birb",)), (r"\brabbit\b", ("bun", "bunbun")), (r"\bfish\b", ("fishie",)),
        (r"\bbear\b", ("bearie",)), (r"\bisn't\b", ("ain't",)), (r"'(?=[stmd]\b|re|ll)", ("",)),
    ),
    "zh": (
        (r"(?<=[画来要整弄搞做出])一(?=[只个张幅条辆列艘枚座棵朵盏])", ("",)), ("什么", ("啥", "神马")),
        ("怎么", ("咋",)), ("没有", ("木有", "没")), ("可以", ("阔以", "可")), ("这个", ("介个", "这")),
        ("谢谢", ("3q", "thx", "谢啦", "蟹蟹")), ("喜欢", ("稀饭",)), ("好的", ("好滴", "ok")),
        ("(?<!邀)请(?![问柬帖])", ("拜托", "麻烦")), ("吗(?=[？?]|$)", ("嘛", "不")), ("真的", ("真滴",)),
        ("图片", ("pic", "图图")), ("我们", ("咱", "咱们")), ("一下", ("下",)),
        ("(?<!狗)狗(?![狗熊])", ("狗子", "汪星人")), ("(?<!熊)猫(?![咪头])", ("喵星人", "喵喵")),
        ("兔子", ("兔兔", "兔叽")), ("熊猫", ("滚滚",)),
        ("女孩(?![子儿])", ("小姐姐", "妹子")), ("汽车", ("车车", "小车车")), ("非常", ("超", "巨")),
    ),
}  # fmt: skip
# Words that stand for each other in what users ask for, so that a bank's phrasing is not always the same words.
_SYNONYMS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "en": (
        (r"\bdraw (?=me|us|an?|the)\b", ("paint ", "sketch ", "do ", "make ", "create ")),
        (r"\b(?:paint|sketch) (?=me|us|an?|the)\b", ("draw ",)),
        (r"(?:(?<=\ba )|(?<=\bthe )|(?<=\bnew )|(?<=\bmy ))picture\b(?![- ]book)", ("drawing", "painting")),
        (r", please\b", (", if you don't mind", ", would you")), (r"\bplease (?=\w)", ("kindly ", "do ")),
        (r"\bI want (?=a|it|the|to)", ("I need ", "I'd like ", "I would love ")),
        (r"\bI'd like (?=a|it|the|to)", ("I want ", "I would love ")),
        (r"\bcan you\b", ("could you", "would you", "will you")), (r"\b(?:could|would) you\b", ("can you", "will you")),
        (r"\bkids\b", ("children", "little ones")), (r"\bremove\b", ("delete", "erase", "get rid of", "drop")),
        (r"\btake away\b", ("delete", "remove", "lose")), (r"\badd (?=an?|the|some)\b", ("include ", "put in ")),
        (r"\bchange\b", ("switch", "alter")), (r"\bput\b", ("place", "set")),
        (r"\bmake (?=(?:it|her|him|them) (?!an?\b))", ("turn ", "have ")),
        (r"\bgive (?=(?:it|her|them|the)\b(?! a try))", ("get ", "hand ")),
        (r"\bagain\b", ("once more", "one more time")), (r"\binstead\b(?! of)", ("rather",)),
        (r"\bshow me\b", ("let me see", "let me have a look at")), (r"\blovely\b", ("nice", "wonderful", "sweet")),
        (r"\bwould be (?:nice|lovely|great)\b", ("would be fun", "would be perfect", "would make me happy")),
    ),
    "zh": (
        ("(?<=[帮给]我)画|(?<=请)画", ("绘", "绘制", "描", "来")), ("想要", ("想来", "要", "希望有")),
        ("(?<![烦邀])请(?![问你您柬帖])", ("麻烦", "劳驾", "烦请")), ("改成", ("换成", "变成", "弄成", "调成")),
        ("换成", ("改成", "变成", "弄成")), ("变成", ("改成", "换成", "变为")),
        ("去掉", ("拿掉", "拿走", "删掉", "弄掉")), ("拿掉|拿走", ("去掉", "撤掉", "删了")),
        ("加上", ("添上", "配上", "补上", "放上")), ("能不能", ("可不可以", "能否", "可否")),
        ("(?<!女)孩子", ("宝宝", "娃", "小朋友")), ("一张", ("一幅",)), ("好看", ("漂亮", "美", "顺眼")),
        ("放在", ("摆在", "安排在", "挪到")), ("再画", ("再来", "再出")), ("给我(?=[画来看])", ("帮我", "替我")),
        ("我想(?!要|让)", ("我希望", "我很想")), ("看看", ("瞧瞧", "瞅瞅")),
    ),
}  # fmt: skip
_LAUGHS = {
    "en": (" lol", " haha", " xd", " :D", " hehe", " lmao"),
    "zh": ("哈哈", "嘿嘿", "嘻嘻", "hhh", "哈哈哈", "（笑）"),
}
# Characters that sound alike, which pinyin keyboards offer first.
_MIXED_UP = (
    ("在", "再"), ("的", "得"), ("帽子", "冒子"), ("围巾", "围金"), ("气球", "汽球"), ("兔子", "免子"),
    ("狐狸", "胡狸"), ("蝴蝶", "胡蝶"), ("蛋糕", "旦糕"), ("城堡", "城宝"), ("灯笼", "灯龙"), ("机器人", "机气人"),
    ("左边", "坐边"), ("右边", "又边"), ("背景", "背影"), ("再画", "在画"), ("雨伞", "雨散"), ("变成", "便成"),
)  # fmt: skip
_FOREIGN_WORDS = ("kind", "colour", "accessory")  # what people say in the other language inside their own sentences
_NEAR = dict(zip("qwertyuiopasdfghjklzxcvbnm", "wqrterioiposdfghjkkxzcvbnn", strict=True))  # on the keyboard
_HALF_WIDTH = str.maketrans({"，": ",", "。": ".", "！": "!", "？": "?", "：": ":", "；": ";"})


def sentence(text: str) -> str:
    """With a capital letter at the start of each sentence."""
    return re.sub(r"(^|[.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)


def finished(text: str, language: str) -> str:
    """With a mark at its end, so that another sentence can follow."""
    return text if _END.search(text) else text + ("." if language == "en" else "。")


def roughen(text: str, language: str, rng: random.Random) -> str:
    """`text` as this user types it."""
    if rng.random() < 0.12:
        text = _reword(text, language, rng)
    if rng.random() < 0.07:
        text = _slang(text, language, rng)
    if rng.random() < 0.04:
        text = _switch_codes(text, language, rng)
    return _rough_english(text, rng) if language == "en" else _rough_chinese(text, rng)


def _without_end(text: str) -> str:
    """Without its last marks, unless it consists of nothing else."""
    return _END.sub("", text) or text


def _reword(text: str, language: str, rng: random.Random) -> str:
    """With one or two of its words said by others."""
    found = [(pattern, words) for pattern, words in _SYNONYMS[language] if re.search(pattern, text, re.IGNORECASE)]
    for pattern, words in rng.sample(found, min(len(found), rng.choice((1, 2)))):
        if match := re.search(pattern, text, re.IGNORECASE):  # the first may have changed it
            text = text[: match.start()] + _cased(rng.choice(words), match[0]) + text[match.end() :]
    return text


def _cased(word: str, like: str) -> str:
    """With a capital letter where `like` has one."""
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def _slang(text: str, language: str, rng: random.Random) -> str:
    """As in a chat among friends: up to three words of it."""
    found = [(pattern, words) for pattern, words in _SLANG[language] if re.search(pattern, text, re.IGNORECASE)]
    for pattern, words in rng.sample(found, min(len(found), rng.choice((1, 2, 3)))):
        text = re.sub(pattern, rng.choice(words), text, count=1, flags=re.IGNORECASE)
    if rng.random() < 0.2:
        text = _without_end(text) + rng.choice(_LAUGHS[language])
    return text


@cache
def _foreign(language: str) -> tuple[re.Pattern[str], Mapping[str, Sequence[str]]]:
    """Where words of `_FOREIGN_WORDS` stand in a text, and what they are in the other language."""
    own, other = NAMES[language], NAMES[{"en": "zh", "zh": "en"}[language]]
    meaning = {word: other[part][value] for part in _FOREIGN_WORDS for value in own[part] for word in own[part][value]}
    long = "|".join(re.escape(word) for word in sorted(meaning, key=len, reverse=True) if len(word) > 1)
    if language == "en":
        return re.compile(rf"\b(?:{long})\b(?!['’])", re.IGNORECASE), meaning
    # A single character is a word of its own only behind a measure word: 一只猫, but not 猫头鹰.
    single = "|".join(word for word in meaning if len(word) == 1)
    measures = "".join(sorted(set(MEASURES.values())))
    return re.compile(rf"{long}|(?<=[{measures}])(?:{single})(?![\u4e00-\u9fff])"), meaning


_TOUCHING = re.compile(r"(purple|violet|yellow|orange|green|brown|black|white|blue|pink|red)(?=[a-z])")  # its noun


def _switch_codes(text: str, language: str, rng: random.Random) -> str:
    """With one or two nouns or colours in the other language: 画一只red的fox."""
    pattern, meaning = _foreign(language)
    found = list(pattern.finditer(text))
    for match in sorted(rng.sample(found, min(len(found), rng.choice((1, 2)))), key=re.Match.start, reverse=True):
        words = meaning[match[0].lower()]
        word = words[0] if rng.random() < 0.8 else rng.choice(words)
        text = text[: match.start()] + word + text[match.end() :]
    return _TOUCHING.sub(r"\1 ", text) if language == "zh" else text


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
    if rng.random() < 0.04:
        wrong = [pair for pair in _MIXED_UP if pair[0] in text]
        text = text.replace(*rng.choice(wrong), 1) if wrong else text
    if rng.random() < 0.06:
        text = _without_end(text) + rng.choice(("！", "～", "。。。", "🙂", "哦", "！！", "~"))
    return text


def _slip(text: str, rng: random.Random) -> str:
    """One slip of the finger: in a longer word two letters swapped, one missing, doubled or missed; or no space."""
    words = [match for match in re.finditer(r"[A-Za-z]{5,}", text)]
    if not words:
        return text
    word = rng.choice(words)
    at = rng.randrange(word.start() + 1, word.end() - 1)
    near = _NEAR.get(text[at], text[at])
    slips = (text[at + 1] + text[at], text[at + 1], text[at] * 2 + text[at + 1], near + text[at + 1])
    if text[word.end() :].startswith(" ") and rng.random() < 0.15:
        return text[: word.end()] + text[word.end() + 1 :]
    return text[:at] + rng.choice(slips) + text[at + 2 :]
