"""Questions that a scene answers about itself: colour, kind, accessories, count, place, background, sky, style, yes/no.

    python -c "
    import random
    from datasets_build.storybook.questions import ask; from datasets_build.storybook.scene import sample_scene
    rng = random.Random(2); scene = sample_scene(rng); print(scene); print(*ask(scene, 'en', rng, 'train'), sep='\\n')"

A question names nothing by a word that hides the answer, and is only asked where it has one answer. Answers are short
sentences with canonical words; `accept` lists keywords, lower case, any of which stands, as whole words, in
every right answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from datasets_build.storybook.language import accessory_phrase, describe_subjects, noun_phrase
from datasets_build.storybook.scene import (
    ACCESSORIES,
    COLOURS,
    KINDS,
    SKIES,
    Accessory,
    Scene,
    Subject,
)
from datasets_build.storybook.vocabulary import MEASURES, NAMES, UNDERSTOOD, VERBS, name, of_split, phrase

QuestionAnswer = tuple[str, str, list[str]]

ANIMALS = ("cat", "dog", "rabbit", "fox", "bear", "panda", "bird", "fish", "turtle", "butterfly")

# {x}: the subject, definite ("the fox" / "狐狸"); {a}: an accessory's noun; {p}: a position.
_QUESTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "colour": (
            "What colour is {x}?", "What color is {x}?", "Which colour is {x}?", "Tell me the colour of {x}.",
            "What is the colour of {x}?", "Which colour does {x} have?", "{X} is what colour?",
            "Can you tell me what colour {x} is?", "Please tell me the colour of {x}.", "What's the colour of {x}?",
            "What colour would you say {x} is?", "What colour do you see on {x}?", "Do you know what colour {x} is?",
            "Could you tell me the colour of {x}?", "{X}: what colour?", "In what colour is {x}?", "colour of {x}?",
            "what's the color of {x}", "I can't tell what colour {x} is, can you?", "In which colour is {x} painted?",
            "colour? i mean {x}", "Which of the ten colours does {x} have?", "If you look at {x}, what colour is that?",
            "My son and I disagree: what colour is {x}?", "Name the colour of {x}, please.", "what color would {x} be",
            "We're learning colours! Which one is {x}?", "My screen shows odd colours. What is the true colour of {x}?",
            "Say, what colour has {x} got?", "I'm colour-blind, so which colour is {x}?", "Quick, what's {x}'s colour?",
        ),
        "animal": (
            "What animal is it?", "Which animal is this?", "What animal do you see?", "What kind of animal is it?",
            "what animal is in the picture?", "Which animal is in the picture?", "What sort of animal is that?",
            "What kind of animal do I see here?", "Which animal do you see?", "Can you tell me which animal it is?",
            "Can you name the animal?", "Name the animal in the picture.", "Tell me what animal this is.",
            "Is it a cat, a dog or some other animal? Which one?", "What animal did you draw?", "which animal is it",
            "Do you recognise the animal?",
            "name of the animal?", "Which beast is this, then?", "So what creature is it?", "Guess the animal!",
            "What would a zookeeper call this animal?", "My toddler points at the animal. What is it called?",
            "Is that a pet, or what animal is it?", "I'm not good with animals. What is this one?", "which animal tho",
            "What's the animal called?", "An animal, but which one?", "What creature have we here?",
        ),
        "content": (
            "What is in the picture?", "What do you see?", "What can you see in the picture?", "What is it?",
            "What does the picture show?", "What is shown here?", "What's in this picture?", "who is in the picture?",
            "What did you draw?", "What have we got here?", "What did you paint?", "What is on the picture?",
            "What can be seen here?", "What does it show?", "What is this a picture of?",
            "Who or what is in this picture?", "Can you tell me what is in the picture?", "Tell me what you see.",
            "Tell me what's in the picture.", "what do u see", "So what's in it?",
            "Name what you see in the picture.",
            "What would you say that is?", "My baby sister asks what that is. Well?", "Any idea what this shows?",
            "Which things are in it?", "And what might this be?", "What do we see, in two or three words?", "who is it",
            "Guess what I've got in this picture!", "I can't make out what it is, can you?", "Who are we looking at?",
            "Who's the hero of the picture?", "Name the thing or things you see.", "What's this supposed to be?",
        ),
        "wears": (
            "What does {x} have on or with it?", "What is {x} wearing or holding?", "What accessory does {x} have?",
            "What is {x} wearing or carrying?", "which accessory does {x} have?", "What has {x} got on or with it?",
            "Which accessory is on or with {x}?", "What has {x} on or in hand?", "What does {x} wear or hold?",
            "Tell me what {x} is wearing or holding.", "Can you see what {x} is wearing or holding?",
            "What extra thing does {x} have?", "What did {x} put on or take along?",
            "Does {x} wear or hold something? What is it?",
            "Is {x} dressed up with something? With what?", "Did {x} bring something along? What?", "accessory of {x}?",
            "And what has {x} got with it?", "What little extra do you see with {x}?", "{X}: wearing or carrying what?",
            "What belongs to {x}?", "Which of your accessories did {x} get?", "What is there on {x}, or in its grip?",
        ),
        "accessory colour": (
            "What colour {is} its {a}?", "What color {is} the {a}?", "Which colour {is} the {a}?",
            "what colour {is} {x}'s {a}?", "What colour {is} the {a} of {x}?", "What is the colour of the {a}?",
            "Tell me the colour of the {a}.", "what color {is} its {a}", "Which colour does the {a} have?",
            "Can you tell me the colour of the {a}?", "Do you see what colour the {a} {is}?",
            "And the {a}, what colour {is} that?", "What's the colour of {x}'s {a}?",
            "Tell me what colour the {a} {is}.", "color of the {a}?", "In what colour {is} the {a}?",
            "What colour {is} the {a} here?",
            "Look at the {a}: which colour?", "I missed what colour the {a} {is}. Did you see?", "{a} colour is what?",
            "And what colour {is} the {a}, then?", "Tell us what colour the {a} {is}.", "Of what colour {is} the {a}?",
            "Say the colour of its {a}.", "My daughter asks what colour the {a} {is}.", "Now the {a}. What colour?",
            "Guess what colour the {a} {is}!", "What colour did the {a} get?", "Which colour {is} {x}'s {a}, please?",
        ),
        "accessory colour of": (
            "What colour {is} the {a} of {x}?", "Which colour {is} the {a} of {x}?",
            "What color {is} the {a} of {x}?",
            "Tell me the colour of the {a} of {x}.", "In what colour {is} the {a} of {x}?",
            "Can you tell me the colour of the {a} of {x}?", "What is the colour of the {a} that belongs to {x}?",
            "Which colour does the {a} of {x} have?", "Look at {x}: what colour {is} the {a}?",
            "colour of the {a} of {x}?", "Do you see what colour the {a} of {x} {is}?",
            "My friend can't see what colour the {a} of {x} {is}. Can you?", "Name the colour of the {a} of {x}.",
            "{X}, now. Which colour {is} the {a} there?", "Say what colour the {a} of {x} {is}.",
            "Of what colour {is} the {a} of {x}?", "I mean the {a} of {x}. What colour {is} that?",
            "There are two of them. Which colour {is} the {a} of {x}?", "Only the {a} of {x}: what colour {is} that?",
        ),
        "count": (
            "How many things are in the picture?", "How many characters do you see?", "How many subjects are there?",
            "how many are in the picture?", "One or two?", "How many figures can you count?",
            "Is there one character or are there two?", "How many do you see?", "How many characters are in it?",
            "How many figures are there?", "How many things did you draw?", "Count the characters, please.",
            "Can you count the figures?", "Is it one thing or two?", "Are there two characters or only one?",
            "Tell me how many subjects there are.", "how many things are there",
            "What number of characters do you count?", "Is somebody alone here, or are there two?",
            "How many heroes does the picture have?", "Is it only one, or has it got company?", "Count for me, please.",
            "What's the total, one or two?", "Do I count one or two?", "Just the one, or a couple?", "Single or pair?",
            "We're practising numbers. How many characters are there?", "Let's count together. How many?", "one or 2?",
        ),
        "count animals": (
            "How many animals are there?", "How many animals do you see?", "how many animals are in the picture?",
            "Count the animals, please.", "How many animals did you draw?", "What is the number of animals?",
            "Can you count the animals?", "How many of them are animals?", "Are there any animals, and how many?",
            "Tell me how many animals there are.", "number of animals?", "How many animals can you find?",
            "How many animals have I got in this picture?", "How many animals live in it?",
            "how many animals r there", "How many creatures with a heartbeat are in it?",
            "So how many animals is that?", "Animals: how many?", "We count animals today. How many are here?",
            "What's the animal count?", "How many animals in total?", "My son asks how many animals there are.",
            "Do you see any animals? How many?", "Any animals? Count them.",
            "How many animals would a farmer count?", "Would you count the animals for me?", "animals, how many",
            "I lost count of the animals. How many?", "How many animals would I have to feed?", "Animals in it?",
            "How many animals appear?", "If you count only animals, how many?", "Quick, how many animals?",
            "How many animals are hiding there?",
        ),
        "count colour": (
            "How many are {c}?", "How many of them are {c}?", "How many {c} ones are there?",
            "How many {c} ones do you see?", "how many are {c}?", "How many {c} things are in the picture?",
            "Count the {c} ones.", "Are any {c}? How many?", "How many of the characters are {c}?",
            "What number of them is {c}?", "How many {c} ones did you draw?", "Can you count the {c} ones?",
            "Tell me how many are {c}.", "How many are painted {c}?", "number of {c} ones?",
            "How many {c} figures are there?", "And how many are {c}?", "How many characters in {c}?",
            "How many in {c}?", "My daughter likes {c}. How many are {c}?",
            "If you count the {c} ones only, how many?", "{c} ones: how many?", "How many of the figures are {c}?",
            "We're counting colours. How many are {c}?", "Count what's {c}, please.",
            "So how many would you call {c}?", "Any {c} ones? How many?", "How many can you find that are {c}?",
            "How many subjects are {c}?", "What is the count of {c} ones?", "how many {c} ones r there",
            "Total of {c}?", "How many of all of them are {c}?", "How many got the {c} paint?",
        ),
        "count worn": (
            "How many have {an}?", "How many of them have {an}?", "How many characters have {an}?",
            "how many with {an}?", "How many do you see with {an}?", "Count those with {an}.",
            "How many figures have {an}?", "Who has {an}, and how many are that?", "How many were given {an}?",
            "How many got {an}?", "Does anybody have {an}? How many?", "How many come with {an}?",
            "Tell me how many have {an}.", "Can you count those with {an}?",
            "How many of the characters have {an}?", "How many are there with {an}?",
            "What number of them has {an}?", "number of those with {an}?", "And how many have {an}?",
            "My son counts those with {an}. How many?", "How many can you find with {an}?",
            "Now {an}: how many have that?", "How many did you draw with {an}?", "So how many have {an}?",
            "How many subjects have {an}?", "How many show up with {an}?",
            "If I count those with {an}, where do I end?", "Any with {an}? How many?",
            "how many have {an} on or with them", "Of all you see, how many have {an}?",
            "Would you count those with {an} for me?", "Count: with {an}?", "How many possess {an}?",
            "We're counting. How many with {an}?",
        ),
        "position": (
            "Where is {x}?", "On which side is {x}?", "Where in the picture is {x}?", "Where do you see {x}?",
            "In which part of the picture is {x}?", "Is {x} on the left, in the middle or on the right?",
            "Whereabouts in the picture is {x}?", "In what part of the picture do you see {x}?",
            "On what side of the picture is {x}?", "Can you tell me where {x} is?", "Tell me where {x} is.",
            "Where did you put {x}?", "Where is {x} placed?", "{X}: left, middle or right?",
            "Left, middle or right: where is {x}?", "position of {x}?", "Where exactly in the picture is {x}?",
            "Which side is {x} on?",
            "Point out for me with words where {x} is.", "If I look for {x}, do I look left, right or in the middle?",
            "I lost sight of {x}. Which side?", "{X} is where?", "Does {x} stand left, right or in the middle?",
            "Say where {x} is to be found.", "Whereabouts is {x}?", "Which spot does {x} have, left, middle or right?",
            "My eyes are tired, where do I find {x}?", "In which third of the picture is {x}?", "where's {x} at",
        ),
        "who": (
            "What is {p}?", "Who is {p}?", "What do you see {p}?", "what's {p}?", "Which one is {p}?",
            "What stands {p}?", "Who or what is {p}?", "Can you tell me what is {p}?", "Tell me who is {p}.",
            "Which character is {p}?", "What can you see {p}?", "who do you see {p}", "And what is {p}?",
            "What have you drawn {p}?", "Who is standing {p}?",
            "What kind of character is {p}?", "Who can be found {p}?", "{p}, what is it?", "And {p}? Who's that?",
            "The one {p}, what would you call it?", "What's that thing {p}?", "Whom do we meet {p}?",
            "My son points at the one {p}. What is it?", "Who's the one {p}?", "Name the one {p}.",
            "Someone or something is {p}. What?", "Who has the place {p}?",
        ),
        "background": (
            "Where does the picture take place?", "What is the background?", "What place is this?",
            "What is in the background?", "Where are we?", "What kind of place does the picture show?",
            "what's the background?", "Which place is it?", "What is behind it all?", "What place do you see?",
            "What place is shown?", "What's in the background?", "Where does this happen?", "Where is this?",
            "Where is the scene set?", "In what kind of place is it?", "What surroundings do you see?",
            "Tell me what the background is.", "Can you tell me what place this is?", "what's behind",
            "Which background did you paint?",
            "My map is useless here. What place is this?", "Which landscape or place is it?", "And where is all this?",
            "Indoors or outdoors, and where exactly?", "Into which place does the picture take us?", "where r we",
            "Which place is behind all this?", "Name the place, please.", "What is the scenery?", "What's the setting?",
            "Where on earth is that?", "Where has this been set?", "Where would I be if I stepped into the picture?",
        ),
        "sky": (
            "What time of day or weather is it?", "Is it day, night, sunset or rain?",
            "What is the weather or time like?", "Day, night, sunset or rain?", "What is the sky like?",
            "What does the sky look like?", "how does the sky look?",
            "Is it daytime, night, sunset or is it raining?",
            "What kind of sky is there?", "What sky do you see?", "What sky did you paint?", "Tell me about the sky.",
            "Tell me the time of day or the weather.", "Which is it: day, night, sunset or rain?",
            "What's the sky like in the picture?", "what time or weather is it", "How is the sky in this picture?",
            "Can you tell me what the sky looks like?",
            "How's the weather in there, or the hour?", "Name the time of day, or say if it rains.", "what sky has it",
            "Look up! What's the sky doing?", "Which sky is it: day, night, sunset or rain?", "And the sky is what?",
            "My son asks what time or weather they have there.", "What time is it in the picture, or is it raining?",
            "what's it like outside there, time and weather", "Daylight, darkness, sunset, rain, which of them?",
        ),
        "style": (
            "What style is it?", "In which style is the picture?", "What style is the picture drawn in?",
            "How is it drawn?", "what is the style?", "Which drawing style is that?", "What art style is this?",
            "What style did you use?", "Which style did you draw it in?", "In what style is it made?",
            "What's the style of this picture?", "Which style is it?", "Which of your styles is this?",
            "Can you tell me the style?", "Tell me the style of the picture.", "what style is this",
            "How would you call this style?", "Do you know which style this is?",
            "By which style would you file this one?", "Of the five styles, which is it?", "Name the style, please.",
            "What manner of drawing is it?", "What is this way of drawing called?", "What technique does it look like?",
            "Flat, watercolour, pencil, pixels or paper, what is it?", "Art class question: which style is it?",
            "My teacher wants to know the style. What is it?", "In which technique was this made?", "And the style is?",
        ),
        "has": (
            "Does {x} have {an}?", "Has {x} got {an}?", "Is there {an} on or with {x}?", "Do you see {an} on {x}?",
            "Can you see {an} on {x}?", "Can you tell me if {x} has {an}?", "Would you say {x} has {an}?",
            "Tell me, does {x} have {an}?", "Does {x} come with {an}?", "{X} has {an}, right?",
            "Do we see {x} with {an}?",
            "Did {x} bring {an}?", "Is {an} part of what {x} has?", "I believe {x} has {an}. Am I right?",
            "Check for me if {x} has {an}.", "Yes or no: {x} has {an}?", "{X}, with {an}: yes or no?", "has {x} {an}?",
            "Is {x} the owner of {an}?", "My sister says {x} has {an}. Is that true?", "Does {an} belong to {x} here?",
            "Any sign of {an} on or with {x}?",
        ),
        "is colour": (
            "Is {x} {c}?", "Is the colour of {x} {c}?", "Is {x} {c} in colour?", "{X} is {c}, right?",
            "Would you say {x} is {c}?", "Is it true that {x} is {c}?", "Can you tell me if {x} is {c}?",
            "Is {x} really {c}?", "I think {x} is {c}. Is that right?", "Did you make {x} {c}?",
            "{X} is {c}, isn't that so?", "Is {c} the colour of {x}?", "Tell me, is {x} {c}?",
            "Do you see {x} as {c}, too?", "Yes or no, {x} is {c}?", "is {x} {c} or am i blind", "{X}, {c}: yes or no?",
            "Am I right that {x} is {c}?", "Is it correct that {x} is {c}?", "Check for me whether {x} is {c}.",
            "Would {c} be the right word for {x}?", "My brother says {x} is {c}. Is he right?",
            "I'd say {x} is {c}. Do you agree?", "Could it be that {x} is {c}?", "{X} looks {c} to me. Correct?",
        ),
        "is sky": (
            "Is it {s}?", "Is it {s} in the picture?", "Is it {s} right now?", "Is it {s} there?",
            "Would you say it is {s}?", "Is it {s} here?", "Is it true that it is {s}?",
            "Can you tell me if it is {s}?", "Tell me, is it {s}?", "I think it is {s}. Is that right?",
            "Do you think it is {s}?", "It is {s}, right?", "Does it look as if it is {s}?",
            "Am I right that it is {s}?", "Is it {s} in this scene?", "Check for me whether it is {s} in the picture.",
            "My son says it is {s} there. Is he right?", "So it is {s}, yes?", "It looks as if it is {s}. Correct?",
            "is it {s}? cant tell", "Is it {s} where they are?", "Could it be that it is {s}?", "Yes or no: it is {s}?",
        ),
        "is kind": (
            "Is there {k} in the picture?", "Is {k} in the picture?", "Do you see {k}?", "is there {k}",
            "Can you see {k}?", "Does the picture show {k}?", "Is there {k} here?", "Is there {k} anywhere in it?",
            "Can you find {k} in the picture?", "Do we see {k} here?", "Did you draw {k}?", "Is {k} to be seen?",
            "Tell me, is there {k} in it?", "I think I see {k}. Is there one?", "Would you say there is {k} in it?",
            "{k}, yes or no?", "any chance there is {k} in it?", "Have you spotted {k}?", "Do I spot {k} somewhere?",
            "Check for me whether {k} is in it.", "Is {k} hiding in there?", "Is there by any chance {k} here?",
            "Do you find {k} anywhere?", "Is {k} among the things we see?", "Am I right that there is {k}?",
            "My daughter thinks there is {k} in it. Is she right?", "Is that {k} I see?", "Does {k} appear in it?",
        ),
    },
    "zh": {
        "colour": (
            "{x}是什么颜色的？", "{x}是什么颜色？", "{x}什么颜色？", "请问{x}是什么颜色的？", "{x}的颜色是什么？",
            "你看{x}是哪种颜色？", "{x}是哪种颜色的？", "告诉我{x}是什么颜色。",
            "麻烦看看{x}是什么颜色的。", "{x}用的是什么颜色？", "{x}是啥颜色", "{x}涂的是哪种颜色？",
            "你能告诉我{x}是什么颜色吗？",
            "画里的{x}是什么颜色的？",
            "{x}颜色是啥？", "{x}看上去是什么颜色？", "说说{x}的颜色。", "十种颜色里，{x}是哪一种？", "{x}呢，什么色？",
            "宝宝在学颜色，{x}是哪种颜色呀？", "奶奶问{x}是什么颜色。", "猜猜{x}是什么颜色！", "你说{x}算什么颜色？",
            "我有点色盲，{x}到底是什么颜色？", "我没看清，{x}是啥色的？",
        ),
        "animal": (
            "这是什么动物？", "图里是什么动物？", "画的是什么动物？", "你看到了什么动物？", "它是什么动物？",
            "图片里的动物是什么？",
            "图上是哪种动物？", "这只是什么动物呀？", "你认得出这是什么动物吗？", "画里的动物叫什么？",
            "这画的是啥动物", "主角是什么动物？",
            "是猫是狗还是别的动物？", "动物叫啥？", "图里那只小动物是什么？", "宝宝指着它问：这是什么动物？",
            "我对动物不熟，这是哪种？", "啥动物呀", "猜猜这是什么动物！", "这种动物叫什么名字？",
            "动物园里管它叫什么？", "说出这只动物的名字。",
        ),
        "content": (
            "图里有什么？", "画里有什么？", "你看到了什么？", "这张图画的是什么？", "图片里是什么？",
            "这幅画上有些什么？", "你画了什么？", "画面里有谁？",
            "这张图里画了啥？", "图上画的是什么东西？", "画的主角是什么？", "能认出画里是什么吗？",
            "这上面都画了什么？", "看看图里有啥", "画里出现了什么？",
            "妹妹问这画的是什么。", "这是个什么？", "说出图中的事物。", "图里的家伙是谁？", "猜猜我这图里有什么！",
            "你认得图里的东西吗，是什么？", "两三个词说说，图里有什么？", "这图的主角是谁？", "我认不出来，这是什么？",
            "瞧，这是什么呀？", "这画的是谁呀？", "画的啥",
        ),
        "wears": (
            "{x}戴着或拿着什么？", "{x}身上有什么？", "{x}有什么配饰？", "{x}带着什么？",
            "{x}身上戴着或拿着什么东西？",
            "{x}有哪种配饰？",
            "{x}身上多了什么东西？", "{x}戴着或拿着啥？", "看看{x}身上有什么配饰？", "{x}的配饰是什么？",
            "{x}身上的配饰是哪一种？",
            "除了自己，{x}还有什么东西？", "{x}随身带的是什么？", "{x}戴了啥或拿了啥", "说出{x}的配饰。",
            "{x}打扮了什么？", "{x}的配饰是啥？", "{x}出门带了什么？", "弟弟问{x}戴着或拿着什么。",
            "{x}有样小东西，是什么？", "看清楚，{x}戴的或拿的是什么？",
        ),
        "accessory colour": (
            "{x}的{a}是什么颜色的？", "{a}是什么颜色？", "它的{a}是什么颜色的？", "{a}什么颜色？",
            "{x}的{a}什么颜色？",
            "那{m}{a}是哪种颜色？", "{a}是什么颜色的？",
            "请问{x}的{a}是哪种颜色的？", "{a}是啥颜色", "看看{a}是什么颜色的？", "告诉我{x}的{a}是什么颜色。",
            "那{m}{a}是什么颜色的？",
            "{a}用的是什么颜色？",
            "{x}那{m}{a}是啥颜色的？", "{a}算哪种颜色？", "它那{m}{a}什么色？", "{a}颜色是啥？", "{a}呢，什么色？",
            "说说{a}的颜色。", "再看{a}，是什么颜色？", "猜猜{a}是什么颜色！", "妹妹问{a}是什么颜色。",
            "我没看清{a}的颜色，是什么？",
        ),
        "accessory colour of": (
            "{x}的{a}是什么颜色的？", "{x}的{a}是什么颜色？", "{x}的{a}什么颜色？", "请问{x}的{a}是什么颜色的？",
            "告诉我{x}的{a}是什么颜色。", "{x}的{a}是哪种颜色的？",
            "{x}的{a}是啥颜色", "看看{x}的{a}是什么颜色？", "你能说出{x}的{a}是什么颜色吗？",
            "{x}的{a}用的是什么颜色？",
            "{x}那{m}{a}是什么颜色的？",
            "{x}的{a}呢，什么色？", "只说{x}的{a}，是什么颜色？", "猜猜{x}的{a}是什么颜色！", "{x}的{a}，颜色是啥？",
            "有两个呢，我问的是{x}的{a}，什么颜色？", "{x}的{a}看上去是什么颜色？", "看{x}：那{m}{a}是什么颜色的？",
            "奶奶问{x}的{a}是什么颜色。", "说说{x}的{a}是哪种颜色。", "我没看清{x}的{a}是什么颜色，你看呢？",
        ),
        "count": (
            "图里有几个主体？", "画面里有几个？", "一共有几个角色？", "图里有几个角色？", "有几个主角？",
            "数一数有几个主体？",
            "画里有几个主角？", "主角一共有几个？", "是一个还是两个主角？", "请数一数画里的主角。",
            "有多少个角色在画里？", "图中主体的数量是多少？",
            "总数是一还是二？", "数数看，几个？", "宝宝在学数数，图里有几个主角？", "主角是单个还是成双？", "几个？",
            "帮我点点数，有几个？", "单独一个，还是一对？", "一个还是俩", "主角有几位？", "图里出场的有几个？",
        ),
        "count animals": (
            "图里有几只动物？", "有几只动物？", "画里有多少动物？", "一共几只动物？", "你看到几只动物？",
            "数一数有几只动物。", "动物有几只？", "请数一数动物。", "图中动物的数量是多少？", "画面里动物有多少？",
            "能数数动物吗？", "有动物吗，有几只？", "几只动物", "动物一共有几个？", "你画了几只动物？",
            "能找到几只动物？", "数数看，动物几只？", "图里的动物总共几只？", "帮我点点有几只动物。",
            "只数动物的话，有几只？", "这里有多少只动物？", "妹妹问有几只动物。", "动物呢，几只？",
            "出场的动物有几只？", "宝宝学数数，动物有几只？", "请问有多少只动物？", "看看有几只小动物？",
            "小动物有几只？", "说说动物的数目。", "动物加起来几只？", "算一算，几只动物？", "里头有几只动物呀",
            "我没数清，动物有几只？", "画上几只动物？",
        ),
        "count colour": (
            "有几个是{c}的？", "{c}的有几个？", "图里几个是{c}的？", "几个是{c}的", "有多少个是{c}的？",
            "数一数{c}的有几个。", "你看到几个{c}的？", "画里{c}的有几个？", "{c}的一共几个？",
            "它们当中几个是{c}的？", "请数数{c}的。", "主角里有几个是{c}的？", "{c}的有吗，有几个？",
            "{c}的数量是多少？", "里面{c}的有多少？", "能数数{c}的有几个吗？", "{c}的你画了几个？",
            "有几个涂成了{c}？", "只数{c}的，有几个？", "妹妹问有几个是{c}的。", "请问几个是{c}的？",
            "找找看，{c}的几个？", "{c}的呢，几个？", "图上{c}的共有几个？", "宝宝数颜色，{c}的有几个？",
            "总共几个{c}的？", "帮我点点{c}的。", "算算{c}的有几个？", "角色里几个是{c}？", "说说有几个{c}的。",
            "我没看清，{c}的有几个？", "{c}的能找出几个？", "有没有{c}的，几个？", "数数看，{c}的几个",
        ),
        "count worn": (
            "有几个{v}{a}？", "几个{v}{a}？", "{v}{a}的有几个？", "图里有几个{v}{a}？", "数一数{v}{a}的有几个。",
            "有多少个{v}{a}？", "你看到几个{v}{a}的？", "画里{v}{a}的有几个？", "它们当中几个{v}{a}？",
            "一共几个{v}{a}的？", "请数数{v}{a}的。", "主角里有几个{v}{a}？", "有{a}的有几个？", "几个有{a}？",
            "有{a}的一共几个？", "能数数{v}{a}的有几个吗？", "只数{v}{a}的，有几个？", "妹妹问有几个{v}{a}。",
            "请问几个{v}{a}？", "{v}{a}的呢，几个？", "你画了几个{v}{a}的？", "有谁{v}{a}，几个？",
            "{v}{a}的总共几个？", "找找看，几个{v}{a}？", "角色里几个{v}{a}？", "帮我点点{v}{a}的。",
            "带{a}的有几个？", "图上{v}{a}的共有几个？", "说说有几个{v}{a}。", "算算{v}{a}的有几个？",
            "{v}{a}的数量是多少？", "数数看，{v}{a}的几个", "我没看清，几个{v}{a}？", "宝宝数一数，{v}{a}的几个？",
        ),
        "position": (
            "{x}在哪里？", "{x}在哪边？", "{x}在画面的哪个位置？", "{x}在什么位置？", "{x}在左边、中间还是右边？",
            "{x}位于画面的哪一边？",
            "{x}画在哪一边？", "{x}在图的左边、右边还是中间？", "请问{x}在画面的什么位置？",
            "能告诉我{x}在画面哪边吗？", "{x}站在哪个位置？",
            "{x}在图上哪儿",
            "{x}占的是左边、中间还是右边？", "{x}，在哪？", "{x}在左、在中还是在右？", "妹妹找不到{x}，在哪边呀？",
            "{x}待在画面哪一块？", "捉迷藏，{x}在哪边？", "要找{x}该往哪边看？", "找找{x}，在哪里？", "说说{x}的位置。",
            "我眼花，{x}到底在哪儿？",
        ),
        "who": (
            "{p}是什么？", "{p}是谁？", "{p}有什么？", "{p}的是什么？", "画面{p}是什么？", "你看{p}是什么？",
            "画面{p}画的是什么？", "{p}那个是什么？", "在{p}的是谁？", "看看{p}是什么？", "{p}画了啥",
            "图里{p}有什么？",
            "我看不清{p}，是什么？", "{p}那位是谁？", "{p}那个叫什么？", "{p}站着谁？", "宝宝指着{p}问：这是谁？",
            "什么东西在{p}？", "谁在{p}？", "往{p}看，是什么？", "说出{p}的是什么。", "{p}呢？是什么？",
            "猜猜{p}是谁！",
        ),
        "background": (
            "背景是什么？", "背景是哪里？", "这是在哪里？", "画的是什么地方？", "背景是什么地方？",
            "画面发生在什么地方？",
            "这是什么地方？",
            "画面的背景是哪儿？", "背景画的是啥地方", "这是在什么地方画的场景？", "画里的场景是哪里？",
            "主角身处什么地方？", "能看出这是哪里吗？",
            "背后是什么地方？", "说出图里的地点。", "要是走进画里，会到什么地方？", "猜猜这是什么地方！", "背景是啥呀",
            "后面画的是哪里？", "故事发生在哪里？", "周围是什么环境？", "场景是什么？", "哪儿呀这是",
            "室内还是室外，具体哪里？", "主角跑到哪里去了，这是什么地方？",
        ),
        "sky": (
            "图里是什么时间或天气？", "天空是什么样的？", "是白天、夜晚、日落还是雨天？", "现在是什么时候或天气？",
            "白天还是夜晚，日落还是下雨？", "画里的天色怎么样？",
            "画里是什么天色或天气？", "看得出是什么时间或天气吗？", "天上是什么样子？",
            "这是白天、晚上、日落还是下雨天？", "画的是哪个时间，什么天气？",
            "天色如何？",
            "天色是啥样？", "说说画里的时间或天气。", "时间或天气是哪一种？", "抬头看，天空怎么样？", "天上啥样",
            "宝宝问画里该睡觉了吗，那是什么时间或天气？", "画里出门要打伞还是打灯，什么天色？", "外面是什么天？",
            "白天黑夜，日落下雨，是哪个？", "画里几时了，还是在下雨？",
        ),
        "style": (
            "这是什么风格？", "画的是什么风格？", "是什么画风？", "这幅画是什么风格的？", "用的是什么风格？",
            "图片属于哪种风格？", "画风是什么？",
            "这张图的画风是哪种？", "看得出是什么风格吗？", "是用什么风格画的？", "这画属于什么画风？",
            "图的风格是啥", "这是哪一种绘画风格？",
            "这画归到哪种风格？", "什么画法？", "啥画风", "风格是啥样的？", "扁平、水彩、铅笔、像素、剪纸，是哪种？",
            "老师问这张图是什么画风。", "五种风格里是哪一种？", "这种画法叫什么？", "美术课问：这是什么风格？",
            "看这笔触，是什么风格？", "说出这张画的风格。",
        ),
        "has": (
            "{x}有{a}吗？", "{x}有没有{a}？", "{x}{v}{a}吗？", "{x}身上有{a}吗？", "你看{x}有{a}吗？",
            "能看到{x}的{a}吗？",
            "看看{x}有没有{a}？", "{x}是不是{v}{a}？", "{x}带{a}了吗？", "画里的{x}有{a}吗？", "{x}身上有没有{a}",
            "请问{x}有{a}吗？",
            "是真的吗，{x}{v}{a}？", "图上{x}是{v}{a}的吗？", "妹妹说{x}有{a}，对吗？", "{x}，有{a}没有？",
            "我猜{x}有{a}，对不对？", "判断题：{x}有{a}。", "请查一下，{x}有没有{a}。", "{x}有{a}，是吧？",
            "有没有看到{x}的{a}？", "{x}真的有{a}吗？",
        ),
        "is colour": (
            "{x}是{c}的吗？", "{x}是{c}吗？", "{x}是不是{c}的？", "{x}的颜色是{c}吗？", "{x}是{c}的，对吗？",
            "你看{x}是{c}的吗？",
            "{x}的颜色是不是{c}？", "{x}是{c}的，没错吧？", "我看{x}是{c}的，是吗？", "请问{x}是{c}的吗？",
            "{x}算不算{c}的？",
            "画里的{x}是不是{c}？",
            "{x}该不会是{c}的吧？", "妹妹说{x}是{c}的，她说对了吗？", "我猜{x}是{c}的，对不对？", "{x}，{c}，对不对？",
            "{x}看上去是{c}，你同意吗？", "{x}真的是{c}的吗？", "是真的吗，{x}是{c}的？", "说{x}是{c}的，对吗？",
            "请确认，{x}是不是{c}的？", "判断题：{x}是{c}的。",
        ),
        "is sky": (
            "现在是{s}吗？", "图里是{s}吗？", "是{s}吗？", "画的是{s}吗？", "是不是{s}？", "画面里是{s}吗？",
            "请问图里是{s}吗？", "画里是不是{s}？", "这是{s}吗？", "看起来是{s}，对吗？", "图上画的是不是{s}？",
            "我看是{s}，没错吧？",
            "我猜是{s}，对不对？", "画里的天色是{s}吗？", "说是{s}，对吗？", "画上看着像{s}，是吗？", "真的是{s}吗？",
            "判断题：图里是{s}。", "那里是{s}吗？", "请确认，画里是不是{s}？", "妹妹说画里是{s}，她说对了吗？",
            "我没看错的话是{s}，对吗？",
        ),
        "is kind": (
            "图里有{k}吗？", "画里有{k}吗？", "有{k}吗？", "有没有{k}？", "你看到{k}了吗？", "图里能看到{k}吗？",
            "画里有没有{k}？", "图上有{k}没有？", "请问图里有{k}吗？", "画面里出现{k}了吗？", "能在画里找到{k}吗？",
            "这张图里有没有{k}？",
            "找找看，有没有{k}？", "{k}，有没有？", "出场的有{k}吗？", "我猜图里有{k}，对不对？", "图里是不是有{k}？",
            "你发现{k}没有？", "判断题：图里有{k}。", "我好像看到{k}了，是吗？", "图里藏着{k}吗？", "真的有{k}吗？",
            "妹妹说图里有{k}，对吗？",
        ),
    },
}  # fmt: skip


def ask(scene: Scene, language: str, rng: random.Random, split: str) -> QuestionAnswer:
    """A question about `scene` in a phrasing that `split` may use, its answer, and keywords of right answers."""
    while True:
        topic = rng.choice(tuple(_TOPICS))
        asked = _TOPICS[topic](scene, language, rng)
        if asked is None:
            continue
        slots, answer, accept = asked
        key = slots.pop("key", topic)
        question = rng.choice(of_split(_QUESTIONS[language][key], split))
        question = question.replace("{X}", slots.get("x", "")[:1].upper() + slots.get("x", "")[1:])
        for slot, words in slots.items():
            question = question.replace(f"{{{slot}}}", words)
        return question, answer[:1].upper() + answer[1:], accept


_Topic = tuple[dict[str, str], str, list[str]] | None


def _accept(attribute: str, value: str) -> list[str]:
    """Every word, in both languages, that says `value`."""
    words = [
        word.lower()
        for table in (NAMES, UNDERSTOOD)
        for language in ("en", "zh")
        for word in table[language].get(attribute, {}).get(value, ())
    ]
    return list(dict.fromkeys(words))


def _the(scene: Scene, subject: Subject, language: str) -> str:
    """The subject as a question names it: by kind, and by place where two are of one kind."""
    twins = sum(other.kind == subject.kind for other in scene.subjects) > 1
    noun = name(subject.kind, language)
    if language == "zh":
        return f"{name(subject.position, 'zh')}的{noun}" if twins else noun
    return f"the {noun} {name(subject.position, 'en')}" if twins else f"the {noun}"


def _colour(scene: Scene, language: str, rng: random.Random) -> _Topic:
    subject = rng.choice(scene.subjects)
    the, colour = _the(scene, subject, language), name(subject.colour, language)
    if subject.kind == "girl":  # a girl's colour is her dress's
        the = f"{the}的衣服" if language == "zh" else f"the dress of {the}"
    answer = f"{the}是{colour}的。" if language == "zh" else f"It is {colour}."
    return {"x": the}, answer, _accept("colour", subject.colour)


def _animal(scene: Scene, language: str, rng: random.Random) -> _Topic:
    subject = scene.subjects[0]
    if len(scene.subjects) > 1 or subject.kind not in ANIMALS:
        return None
    said = noun_phrase({"kind": subject.kind}, language)
    return {}, f"这是{said}。" if language == "zh" else f"It is {said}.", _accept("kind", subject.kind)


def _content(scene: Scene, language: str, rng: random.Random) -> _Topic:
    said = describe_subjects([{"kind": s.kind, "colour": s.colour} for s in scene.subjects], language)
    accept = [word for subject in scene.subjects for word in _accept("kind", subject.kind)]
    return {}, f"图里是{said}。" if language == "zh" else f"I see {said}.", accept


def _worn(scene: Scene, rng: random.Random) -> tuple[Subject, Accessory] | None:
    choices = [(subject, accessory) for subject in scene.subjects for accessory in subject.accessories]
    return rng.choice(choices) if choices else None


def _wears(scene: Scene, language: str, rng: random.Random) -> _Topic:
    subject = rng.choice(scene.subjects)
    if len(subject.accessories) != 1:
        return None
    accessory = subject.accessories[0]
    said, the = accessory_phrase(accessory, language), _the(scene, subject, language)
    verb = VERBS[language][accessory.kind][0]
    answer = f"{the}{verb}{said}。" if language == "zh" else f"It is {verb} {said}."
    return {"x": the}, answer, _accept("accessory", accessory.kind)


def _accessory_colour(scene: Scene, language: str, rng: random.Random) -> _Topic:
    found = _worn(scene, rng)
    if found is None:
        return None
    subject, accessory = found
    the, noun, colour = _the(scene, subject, language), name(accessory.kind, language), name(accessory.colour, language)
    plural = accessory.kind == "glasses"
    slots = {"x": the, "a": noun, "is": "are" if plural else "is", "m": MEASURES[accessory.kind]}
    if len(scene.subjects) > 1:
        slots["key"] = "accessory colour of"
    if language == "zh":
        return slots, f"{noun}是{colour}的。", _accept("colour", accessory.colour)
    return slots, f"{'They are' if plural else 'It is'} {colour}.", _accept("colour", accessory.colour)


def _count(scene: Scene, language: str, rng: random.Random) -> _Topic:
    said = describe_subjects([{"kind": s.kind} for s in scene.subjects], language)
    if len({s.kind for s in scene.subjects}) < len(scene.subjects):  # "a fox and a fox" needs the colours
        said = describe_subjects([{"kind": s.kind, "colour": s.colour} for s in scene.subjects], language)
    one = len(scene.subjects) == 1
    accept = ["one", "1", "一个"] if one else ["two", "2", "两个", "二"]
    if language == "zh":
        return {}, f"{'一' if one else '两'}个：{said}。", accept
    return {}, f"{'One' if one else 'Two'}: {said}.", accept


def _how_many(counted: Sequence[Subject], language: str) -> tuple[str, list[str]]:
    """The answer that counts these subjects, and what is accepted for it."""
    if not counted:
        return ("没有。" if language == "zh" else "None."), ["none", "no", "zero", "0", "没有", "零"]
    said = describe_subjects([{"kind": subject.kind, "colour": subject.colour} for subject in counted], language)
    one = len(counted) == 1
    accept = ["one", "1", "一个"] if one else ["two", "2", "两个", "二"]
    if language == "zh":
        return f"{'一' if one else '两'}个：{said}。", accept
    return f"{'One' if one else 'Two'}: {said}.", accept


def _count_animals(scene: Scene, language: str, rng: random.Random) -> _Topic:
    return {}, *_how_many([subject for subject in scene.subjects if subject.kind in ANIMALS], language)


def _count_colour(scene: Scene, language: str, rng: random.Random) -> _Topic:
    if any(subject.kind == "girl" for subject in scene.subjects):
        return None  # a girl in red is not red
    colour = _either(rng.choice(scene.subjects).colour, COLOURS, rng)
    counted = [subject for subject in scene.subjects if subject.colour == colour]
    return {"c": name(colour, language)}, *_how_many(counted, language)


def _count_worn(scene: Scene, language: str, rng: random.Random) -> _Topic:
    found = _worn(scene, rng)
    kind = _either(found[1].kind, ACCESSORIES, rng) if found else rng.choice(ACCESSORIES)
    counted = [subject for subject in scene.subjects if kind in [accessory.kind for accessory in subject.accessories]]
    slots = {
        "an": accessory_phrase({"kind": kind}, language), "a": name(kind, language), "v": VERBS[language][kind][0]
    }  # fmt: skip
    return slots, *_how_many(counted, language)


def _position(scene: Scene, language: str, rng: random.Random) -> _Topic:
    subject = rng.choice(scene.subjects)
    if sum(other.kind == subject.kind for other in scene.subjects) > 1:
        colour = name(subject.colour, language)
        the = noun_phrase({"kind": subject.kind, "colour": subject.colour}, language, article="the")
        the = the if language == "en" else f"{colour}的{name(subject.kind, language)}"
    else:
        the = _the(scene, subject, language)
    where = name(subject.position, language)
    accept = [word.rpartition(" ")[2] for word in _accept("position", subject.position)]
    accept = [word for word in dict.fromkeys(accept) if word != "side"]
    return {"x": the}, f"{the}在{where}。" if language == "zh" else f"It is {where}.", accept


def _who(scene: Scene, language: str, rng: random.Random) -> _Topic:
    if len(scene.subjects) == 1:
        return None
    subject = rng.choice(scene.subjects)
    said = noun_phrase({"kind": subject.kind, "colour": subject.colour}, language)
    where = name(subject.position, language)
    accept = _accept("kind", subject.kind)
    return {"p": where}, f"{where}是{said}。" if language == "zh" else f"It is {said}.", accept


def _background(scene: Scene, language: str, rng: random.Random) -> _Topic:
    where, accept = phrase("background", scene.background, language), _accept("background", scene.background)
    return {}, f"在{where}。" if language == "zh" else f"It is {where}.", accept


def _sky(scene: Scene, language: str, rng: random.Random) -> _Topic:
    return {}, _sky_answer(scene.sky, language), _accept("sky", scene.sky)


def _sky_answer(sky: str, language: str) -> str:
    if language == "zh":
        return f"是{name(sky, 'zh')}。"
    return {"day": "It is day.", "night": "It is night.", "sunset": "It is sunset.", "rain": "It is raining."}[sky]


def _style(scene: Scene, language: str, rng: random.Random) -> _Topic:
    style, accept = name(scene.style, language), _accept("style", scene.style)
    return {}, f"是{style}风格。" if language == "zh" else f"It is in {style} style.", accept


def _yes(truth: bool, yes: str, no: str, language: str) -> tuple[str, list[str]]:
    """A yes/no answer with its reason, and what is accepted for it."""
    if language == "zh":
        return (f"是的，{yes}。", ["是的"]) if truth else (f"不，{no}。", ["不", "没有"])
    return (f"Yes, {yes}.", ["yes"]) if truth else (f"No, {no}.", ["no"])


def _either(truth: str, others: Sequence[str], rng: random.Random) -> str:
    """The true value half of the time, else another one."""
    return truth if rng.random() < 0.5 else rng.choice([other for other in others if other != truth])


def _has(scene: Scene, language: str, rng: random.Random) -> _Topic:
    subject = rng.choice(scene.subjects)
    worn = [accessory.kind for accessory in subject.accessories]
    others = [kind for kind in ACCESSORIES if kind not in worn]
    kind = _either(rng.choice(worn), others, rng) if worn else rng.choice(ACCESSORIES)
    a, the = name(kind, language), _the(scene, subject, language)
    an = accessory_phrase({"kind": kind}, language)
    verb = VERBS[language][kind][0]
    if language == "zh":
        answer, accept = _yes(kind in worn, f"{the}{verb}{a}", f"{the}没有{a}", language)
    else:
        answer, accept = _yes(kind in worn, f"it is {verb} {an}", f"it has no {a}", language)
    return {"x": the, "a": a, "an": an, "v": verb}, answer, accept


def _is_colour(scene: Scene, language: str, rng: random.Random) -> _Topic:
    subject = rng.choice(scene.subjects)
    value = _either(subject.colour, COLOURS, rng)
    the, c, true = _the(scene, subject, language), name(value, language), name(subject.colour, language)
    if subject.kind == "girl":
        the = f"{the}的衣服" if language == "zh" else f"the dress of {the}"
    told = f"{the}是{true}的" if language == "zh" else f"it is {true}"
    answer, accept = _yes(value == subject.colour, told, told, language)
    return {"x": the, "c": c}, answer, accept


def _is_sky(scene: Scene, language: str, rng: random.Random) -> _Topic:
    value = _either(scene.sky, SKIES, rng)
    said = name(value, language) if language == "zh" or value != "rain" else "raining"
    told = _sky_answer(scene.sky, language).rstrip(".。")
    told = told[0].lower() + told[1:]
    answer, accept = _yes(value == scene.sky, told, told, language)
    return {"s": said}, answer, accept


def _is_kind(scene: Scene, language: str, rng: random.Random) -> _Topic:
    kinds = [subject.kind for subject in scene.subjects]
    kind = _either(rng.choice(kinds), [other for other in KINDS if other not in kinds], rng)
    said = noun_phrase({"kind": kind}, language, article="a" if language == "en" else "")
    seen = describe_subjects([{"kind": k} for k in dict.fromkeys(kinds)], language)
    if language == "zh":
        answer, accept = _yes(kind in kinds, f"有{said}", f"图里是{seen}", language)
    else:
        answer, accept = _yes(kind in kinds, f"there is {said}", f"I see {seen}", language)
    return {"k": said}, answer, accept


_TOPICS: dict[str, Callable[[Scene, str, random.Random], _Topic]] = {
    "colour": _colour, "animal": _animal, "content": _content, "wears": _wears, "accessory colour": _accessory_colour,
    "count": _count, "count animals": _count_animals,
    "count colour": _count_colour, "count worn": _count_worn, "position": _position, "who": _who,
    "background": _background, "sky": _sky, "style": _style,
    "has": _has, "is colour": _is_colour, "is sky": _is_sky, "is kind": _is_kind,
}  # fmt: skip
