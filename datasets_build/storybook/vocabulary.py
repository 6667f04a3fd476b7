"""The words of the picture-book world in English and Chinese: what every value is called, and what else is understood.

    python -c "from datasets_build.storybook.vocabulary import name; print(name('sailboat', 'zh'), name('night', 'en'))"

The first word of an entry is the canonical one, the only one that refined prompts use. The others are synonyms, which
captions and requests use too. `UNDERSTOOD` adds rarer ones, some of which are only read. American spellings need no
entry: `normalise` turns them into British ones before anything is read.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

LANGUAGES = ("en", "zh")

Words = Mapping[str, tuple[str, ...]]

NAMES: dict[str, dict[str, Words]] = {
    "en": {
        "kind": {
            "cat": ("cat", "kitty", "kitten"), "dog": ("dog", "puppy", "doggy"), "rabbit": ("rabbit", "bunny"),
            "fox": ("fox",), "bear": ("bear",), "panda": ("panda", "panda bear"), "bird": ("bird", "birdie"),
            "fish": ("fish",), "turtle": ("turtle", "tortoise"), "butterfly": ("butterfly",), "girl": ("girl",),
            "robot": ("robot",), "snowman": ("snowman",), "car": ("car", "automobile"),
            "train": ("train", "steam train"), "sailboat": ("sailboat", "sailing boat", "boat"),
            "rocket": ("rocket", "rocket ship", "spaceship"), "house": ("house", "cottage"), "castle": ("castle",),
            "pagoda": ("pagoda",), "tree": ("tree",), "flower": ("flower", "blossom"),
            "cake": ("cake", "birthday cake"), "lantern": ("lantern", "paper lantern"),
        },
        "colour": {
            "red": ("red",), "orange": ("orange",), "yellow": ("yellow",), "green": ("green",), "blue": ("blue",),
            "purple": ("purple", "violet"), "pink": ("pink",), "brown": ("brown",), "black": ("black",),
            "white": ("white",),
        },
        "size": {
            "small": ("small", "little", "tiny"), "normal": ("normal-sized", "medium-sized"),
            "big": ("big", "large", "huge"),
        },
        "accessory": {
            "hat": ("hat", "cap"), "scarf": ("scarf",), "glasses": ("glasses", "spectacles"), "crown": ("crown",),
            "balloon": ("balloon",), "umbrella": ("umbrella", "parasol"),
        },
        "position": {
            "left": ("on the left", "on the left side", "to the left"),
            "middle": ("in the middle", "in the centre"),
            "right": ("on the right", "on the right side", "to the right"),
        },
        "background": {
            "meadow": ("meadow", "field", "grass"), "beach": ("beach", "seaside"), "snow": ("snow",),
            "forest": ("forest", "woods"), "desert": ("desert",), "city": ("city", "street", "town"),
            "room": ("room",), "space": ("space", "outer space"),
        },
        "sky": {
            "day": ("day", "daytime", "daylight"), "night": ("night", "nighttime"), "sunset": ("sunset", "dusk"),
            "rain": ("rain", "rainy weather"),
        },
        "style": {
            "flat": ("flat", "flat picture-book", "picture-book"), "watercolour": ("watercolour",),
            "pencil": ("pencil", "pencil sketch"), "pixel art": ("pixel art", "pixel"),
            "paper cut": ("paper cut", "cut-paper"),
        },
        "shot": {
            "close-up": ("close-up", "close-up shot"), "normal": ("normal shot", "medium shot"),
            "wide": ("wide shot", "wide view"),
        },
    },
    "zh": {
        "kind": {
            "cat": ("猫", "猫咪"), "dog": ("狗", "狗狗"), "rabbit": ("兔子",), "fox": ("狐狸",), "bear": ("熊",),
            "panda": ("熊猫",), "bird": ("鸟", "鸟儿"), "fish": ("鱼", "鱼儿"), "turtle": ("乌龟", "海龟"),
            "butterfly": ("蝴蝶",), "girl": ("女孩", "姑娘"), "robot": ("机器人",), "snowman": ("雪人",),
            "car": ("汽车", "轿车"), "train": ("火车",), "sailboat": ("帆船", "船"), "rocket": ("火箭",),
            "house": ("房子", "屋子"), "castle": ("城堡",), "pagoda": ("宝塔", "塔"), "tree": ("树",),
            "flower": ("花", "花朵"), "cake": ("蛋糕", "生日蛋糕"), "lantern": ("灯笼",),
        },
        "colour": {
            "red": ("红色",), "orange": ("橙色", "橘色"), "yellow": ("黄色",), "green": ("绿色",), "blue": ("蓝色",),
            "purple": ("紫色",), "pink": ("粉色", "粉红色"), "brown": ("棕色", "褐色"), "black": ("黑色",),
            "white": ("白色",),
        },
        "size": {"small": ("小",), "normal": ("中等大小",), "big": ("大",)},
        "accessory": {
            "hat": ("帽子",), "scarf": ("围巾",), "glasses": ("眼镜",), "crown": ("王冠", "皇冠"),
            "balloon": ("气球",), "umbrella": ("雨伞", "伞"),
        },
        "position": {
            "left": ("左边", "左侧"), "middle": ("中间", "正中间"), "right": ("右边", "右侧"),
        },
        "background": {
            "meadow": ("草地", "草原"), "beach": ("海滩", "沙滩"), "snow": ("雪地",), "forest": ("森林", "树林"),
            "desert": ("沙漠",), "city": ("城市", "街道"), "room": ("房间",), "space": ("太空", "宇宙"),
        },
        "sky": {
            "day": ("白天",), "night": ("夜晚", "晚上"), "sunset": ("日落", "傍晚", "黄昏"), "rain": ("雨天", "下雨天"),
        },
        "style": {
            "flat": ("扁平",), "watercolour": ("水彩",), "pencil": ("铅笔", "铅笔素描"), "pixel art": ("像素",),
            "paper cut": ("剪纸",),
        },
        "shot": {"close-up": ("特写", "近景"), "normal": ("中景", "普通镜头"), "wide": ("远景", "全景")},
    },
}  # fmt: skip

# The same values as they stand in a sentence: where (a place), when (the sky), a picture of a style, the manner of it.
PHRASES: dict[str, dict[str, Words]] = {
    "en": {
        "background": {
            "meadow": ("in a meadow", "in the meadow", "on the grass", "in a grassy field", "in the garden"),
            "beach": ("on a beach", "on the beach", "at the beach", "by the sea", "at the seaside"),
            "snow": ("in the snow", "in a snowy landscape", "on snowy ground"),
            "forest": ("in a forest", "in the forest", "in the woods"),
            "desert": ("in a desert", "in the desert", "in a sandy desert"),
            "city": ("in a city", "in the city", "on a city street", "in town"),
            "room": ("in a room", "in the room", "indoors", "inside a room"),
            "space": ("in space", "in outer space", "out in space"),
        },
        "sky": {
            "day": ("by day", "during the day", "in the daytime", "in daylight"),
            "night": ("at night", "by night", "by moonlight", "after dark"),
            "sunset": ("at sunset", "at dusk", "in the evening light"),
            "rain": ("in the rain", "on a rainy day", "in rainy weather"),
        },
        "picture": {
            "flat": ("a flat picture", "a flat illustration", "a picture-book illustration"),
            "watercolour": ("a watercolour picture", "a watercolour painting", "a watercolour"),
            "pencil": ("a pencil picture", "a pencil drawing", "a pencil sketch"),
            "pixel art": ("a pixel art picture", "a pixel art image", "a piece of pixel art"),
            "paper cut": ("a paper cut picture", "a paper-cut illustration", "a cut-paper picture"),
        },
        "manner": {
            "flat": ("in flat style", "in a flat style", "in picture-book style"),
            "watercolour": ("in watercolour style", "in watercolour", "in watercolours"),
            "pencil": ("in pencil style", "in pencil", "drawn in pencil"),
            "pixel art": ("in pixel art style", "as pixel art", "in pixel art"),
            "paper cut": ("in paper cut style", "as a paper cut", "in cut-paper style"),
        },
    },
    "zh": {
        "background": {
            "meadow": ("草地上", "草原上", "草丛里", "花园里"), "beach": ("海滩上", "沙滩上", "海边"),
            "snow": ("雪地里", "雪地上"), "forest": ("森林里", "树林里", "林子里"), "desert": ("沙漠里", "沙漠中"),
            "city": ("城市里", "街道上", "大街上", "城里"), "room": ("房间里", "屋里", "室内"),
            "space": ("太空中", "太空里", "宇宙中"),
        },
        "sky": {
            "day": ("白天",), "night": ("夜晚", "晚上", "夜里", "月光下"),
            "sunset": ("日落时", "傍晚", "黄昏时", "夕阳下"), "rain": ("雨天", "下雨天", "雨中"),
        },
        "picture": {
            "flat": ("扁平插画",), "watercolour": ("水彩画",), "pencil": ("铅笔画", "铅笔素描"),
            "pixel art": ("像素画",), "paper cut": ("剪纸画", "剪纸"),
        },
        "manner": {
            "flat": ("扁平风格", "扁平画风"), "watercolour": ("水彩风格", "水彩画风"),
            "pencil": ("铅笔风格", "铅笔画风格"), "pixel art": ("像素风格", "像素画风格"),
            "paper cut": ("剪纸风格", "剪纸画风"),
        },
    },
}  # fmt: skip

# What users say now and then beside the words above. Of the parts in `_NOUN_LIKE` these words fit wherever those do;
# the others are read, and never written.
UNDERSTOOD: dict[str, dict[str, Words]] = {
    "en": {
        "kind": {
            "cat": ("pussycat",), "dog": ("doggie", "pup"), "rabbit": ("hare",), "bird": ("birdy",),
            "fish": ("goldfish",), "sailboat": ("sailing ship", "ship"), "train": ("locomotive",),
            "rocket": ("rocketship",), "castle": ("palace",), "snowman": ("snow man",), "panda": ("giant panda",),
        },
        "colour": {"red": ("crimson", "scarlet"), "yellow": ("golden", "gold"), "purple": ("lilac",)},
        "size": {"small": ("mini", "lil", "teeny", "wee"), "big": ("giant", "enormous")},
        "accessory": {"glasses": ("eyeglasses", "spectacle"), "crown": ("tiara",)},
        "position": {
            "left": ("left side", "at left", "left-hand side"), "right": ("right side", "at right", "right-hand side"),
            "middle": ("middle", "centre", "at the centre"),
        },
        "background": {
            "meadow": ("grassland", "lawn"), "beach": ("sea shore", "seashore", "shore"), "snow": ("snowy", "winter"),
            "desert": ("sand dunes", "dunes"), "city": ("downtown", "streets"),
            "room": ("inside", "at home"), "space": ("among the stars",),
        },
        "sky": {
            "day": ("sunny day", "sunny", "sunshine"),
            "night": ("moonlight", "moonlit", "under the moon", "under the stars", "starry", "in the dark", "midnight"),
            "sunset": ("evening", "twilight", "sundown"), "rain": ("rainy day", "rainy", "raining", "rains"),
        },
        "style": {
            "flat": ("picture book", "storybook"), "watercolour": ("watercolours", "water colour", "aquarelle"),
            "pencil": ("pencil drawing", "sketch"), "pixel art": ("pixel-art", "pixelated", "pixels", "8-bit"),
            "paper cut": ("paper-cut", "papercut", "cut paper", "paper cutting"),
        },
        "shot": {
            "close-up": ("close up", "closeup", "up close"), "wide": ("wide", "wide-angle", "far away", "from afar"),
        },
    },
    "zh": {
        "kind": {
            "dog": ("犬",), "rabbit": ("兔",), "bear": ("狗熊",), "fish": ("金鱼",), "turtle": ("龟",),
            "girl": ("女孩子", "女孩儿"), "car": ("车", "车子"), "train": ("列车",), "rocket": ("飞船", "宇宙飞船"),
            "house": ("木屋", "屋"), "tree": ("树木",), "flower": ("花儿",), "lantern": ("花灯",),
        },
        "colour": {
            "red": ("红",), "orange": ("橙", "橘黄色", "橘"), "yellow": ("黄", "金色", "金黄色"), "green": ("绿",),
            "blue": ("蓝",), "purple": ("紫",), "pink": ("粉", "粉红"), "brown": ("棕", "咖啡色"), "black": ("黑",),
            "white": ("白",),
        },
        "size": {"small": ("小小", "迷你"), "big": ("巨大", "大大", "巨型"), "normal": ("普通大小", "正常大小")},
        "accessory": {"hat": ("帽",), "umbrella": ("阳伞",)},
        "position": {
            "left": ("左面", "左方"), "middle": ("中央", "正中", "中心", "当中"), "right": ("右面", "右方"),
        },
        "background": {
            "meadow": ("草坪", "草丛", "花园"), "beach": ("海岸",), "snow": ("雪", "雪景", "雪中", "雪里"),
            "forest": ("林中", "丛林"), "desert": ("荒漠",), "city": ("街上", "街头", "都市"),
            "room": ("屋内", "家里", "房里"), "space": ("外太空",),
        },
        "sky": {
            "day": ("晴天", "日间", "大白天"), "night": ("夜间", "深夜", "黑夜", "夜", "星空下"),
            "sunset": ("夕阳", "日落时分"), "rain": ("下雨", "下着雨", "雨里", "雨"),
        },
        "style": {"flat": ("绘本", "扁平化"), "pencil": ("素描",), "pixel art": ("像素艺术",)},
        "shot": {
            "close-up": ("近镜头",), "normal": ("正常镜头", "普通景别"), "wide": ("广角",),
        },
    },
}  # fmt: skip

# The verb of an accessory: canonical first.
VERBS: dict[str, Words] = {
    "en": {
        "hat": ("wearing", "with", "in"), "scarf": ("wearing", "with", "in"), "glasses": ("wearing", "with"),
        "crown": ("wearing", "with"), "balloon": ("holding", "with", "carrying"),
        "umbrella": ("holding", "with", "under"),
    },
    "zh": {
        "hat": ("戴着",), "scarf": ("围着", "戴着"), "glasses": ("戴着",), "crown": ("戴着",), "balloon": ("拿着",),
        "umbrella": ("撑着", "打着"),
    },
}  # fmt: skip

# A girl's colour is her dress's: 0 the colour, 1 with its article; in Chinese what follows the colour.
DRESS = {"en": ("in {0}", "in {1} dress", "dressed in {0}"), "zh": ("衣服", "裙子", "连衣裙")}

# Chinese measure words.
MEASURES = {
    "cat": "只", "dog": "只", "rabbit": "只", "fox": "只", "bear": "只", "panda": "只", "bird": "只", "fish": "条",
    "turtle": "只", "butterfly": "只", "girl": "个", "robot": "个", "snowman": "个", "car": "辆", "train": "列",
    "sailboat": "艘", "rocket": "枚", "house": "座", "castle": "座", "pagoda": "座", "tree": "棵", "flower": "朵",
    "cake": "个", "lantern": "盏", "hat": "顶", "scarf": "条", "glasses": "副", "crown": "顶", "balloon": "个",
    "umbrella": "把",
}  # fmt: skip

_NOUN_LIKE = ("kind", "colour", "size", "accessory")
RARE_SHARE = 0.06  # of the names that are chosen at random

HELD_OUT_EVERY = 6  # of a list of phrasings, every sixth is for the test split alone


def of_split(phrasings: Sequence[str], split: str) -> list[str]:
    """The phrasings that a split may use: test and, of lists as long, validation have their own."""
    owners = {i: "test" for i in range(HELD_OUT_EVERY - 1, len(phrasings), HELD_OUT_EVERY)}
    if owners:
        owners |= {i: "validation" for i in range(2, len(phrasings), 2 * HELD_OUT_EVERY)}
    if split not in ("train", "validation", "test"):
        raise ValueError(f"split must be train, validation or test; got {split!r}")
    owner = split if split in owners.values() else "train"
    return [text for i, text in enumerate(phrasings) if owners.get(i, "train") == owner]


def pick(words: Sequence[str], rng: random.Random | None) -> str:
    """The canonical word, or with `rng` any of them, the canonical one more often than each other."""
    return words[0] if rng is None or rng.random() < 0.4 else rng.choice(words)


def name(value: str, language: str, rng: random.Random | None = None, attribute: str | None = None) -> str:
    """What `value` is called: canonically, or with `rng` by any of its names.

    Only "normal" is a value of two attributes (size, shot) and needs the attribute's name."""
    for candidate, words in NAMES[language].items():
        if value in words and attribute in (None, candidate):
            rare = UNDERSTOOD[language].get(candidate, {}).get(value) if candidate in _NOUN_LIKE else None
            if rng is not None and rare and rng.random() < RARE_SHARE:
                return rng.choice(rare)
            return pick(words[value], rng)
    raise ValueError(f"the world has no {attribute or 'value'} {value!r}")


def phrase(attribute: str, value: str, language: str, rng: random.Random | None = None) -> str:
    """The value in a sentence: "background" (in the snow), "sky" (at night), "picture" or "manner" (of a style)."""
    return pick(PHRASES[language][attribute][value], rng)


_SPELLINGS = (
    (re.compile(r"colo(?=r)"), "colou"), (re.compile(r"\bcenter"), "centre"), (re.compile(r"[‐‑–]"), "-"),
    (re.compile(r"\s+"), " "),
)  # fmt: skip


def normalise(text: str) -> str:
    """`text` in lower case and British spelling, with single spaces."""
    text = text.lower()
    for pattern, spelling in _SPELLINGS:
        text = pattern.sub(spelling, text)
    return text.strip()
