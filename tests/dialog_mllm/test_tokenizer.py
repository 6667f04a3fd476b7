from __future__ import annotations

import pytest

from dialog_mllm.messages import escape_user_text
from dialog_mllm.tokenizer import SPECIAL_TOKENS, render_chat, texts_of, train_tokenizer
from tests.dialog_mllm import toy

TEXTS = ["draw a red fox in the snow", "Draw a blue fox, please!", "画一只红色的狐狸", "把它变成蓝色的狐狸"] * 8


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 400)


@pytest.mark.parametrize(
    "text", ["A red fox,  in 2 hats!\n\ndone", "画一只狐狸，戴12顶帽子。", "mixed 中文 and English🦊", "it's", " x "]
)
def test_text_survives(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_same_texts_same_tokenizer(tokenizer):
    again = train_tokenizer(iter(TEXTS), 400)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_words_are_tokens_and_chinese_characters_never_merge(tokenizer):
    assert len(tokenizer(" red fox")["input_ids"]) == 2
    assert len(tokenizer("红色的狐狸")["input_ids"]) == 5


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_special_tokens_are_single_and_cannot_be_typed(tokenizer, token):
    assert len(tokenizer(token)["input_ids"]) == 1
    typed = tokenizer(escape_user_text(f"say {token} now"))["input_ids"]
    assert not set(typed) & set(tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)))


def test_template_takes_strings_and_parts_alike(tokenizer):
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "<draw>a fox"}]
    parts = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in chat]
    assert render_chat(tokenizer, chat) == render_chat(tokenizer, parts)
    assert render_chat(tokenizer, chat[:1], add_generation_prompt=True) == "<|user|>hi<end_of_utterance><|assistant|>"


def test_a_reply_is_continued_from_its_draw_token(tokenizer):
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "<draw>"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, continue_final_message=True)
    assert text == "<|user|>hi<end_of_utterance><|assistant|><draw>"


def test_unknown_role_is_refused(tokenizer):
    with pytest.raises(Exception, match="roles user and assistant"):
        render_chat(tokenizer, [{"role": "tool", "content": "x"}])


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(ValueError, match="below"):
        train_tokenizer(TEXTS, 100)


def test_texts_of_leaves_the_control_tokens_out(tmp_path):
    toy.write(tmp_path, 4)
    texts = list(texts_of([tmp_path / "train.jsonl"]))
    assert texts and not any("<" in text for text in texts)
