from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from dialog_mllm.data import (
    DRAW_WEIGHT,
    WORDING_WEIGHT,
    Batches,
    Encoder,
    PictureCache,
    collate,
    load_samples,
    plan_batches,
)
from dialog_mllm.messages import ImageBlock, Message, to_chat
from dialog_mllm.model import build_base
from dialog_mllm.records import DataError, data_files, read_manifest, read_records, run_file
from dialog_mllm.tokenizer import texts_of, train_tokenizer
from tests.dialog_mllm import toy


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def processor(root):
    return build_base(train_tokenizer(texts_of([root / "train.jsonl"]), 400), toy.SMALL)[1]


def messages_of(root, record) -> list[Message]:
    return [Message.from_json(message, root) for message in record["messages"]]


def as_served(processor, messages, reply: bool) -> list[int]:
    """What the server does with a request: template over OpenAI parts, then the Hugging Face processor."""
    chat, pictures = to_chat(messages), []
    for message in chat:
        for part in message["content"] if isinstance(message["content"], list) else []:
            if part["type"] == "image_url":
                part["type"] = "image"
    for message in messages:
        pictures += [block.open() for block in message.images]
    text = processor.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=reply)
    shown = pictures[: text.count("<image>")]
    return processor(text=text, images=shown or None, add_special_tokens=False)["input_ids"][0]


@pytest.mark.parametrize("number", range(6))
def test_training_reads_the_very_tokens_that_serving_makes(root, processor, number):
    messages = messages_of(root, toy.record(root, number))
    encoder = Encoder(processor)
    served = as_served(processor, messages[:-1], reply=True)
    assert encoder.ids(messages[:-1], reply=True)[0] == served
    (sample,) = encoder.samples(messages, lambda block: 0, 0.0, "en")
    assert sample.ids[: len(served)].tolist() == served


def test_only_what_the_assistant_says_counts(root, processor):
    messages = messages_of(root, toy.record(root, 0))
    (sample,) = Encoder(processor).samples(messages, lambda block: 0, 0.0, "en")
    said = processor.tokenizer.decode(sample.ids[sample.weights > 0])
    assert said == "".join(message.text + "<end_of_utterance>" for message in messages if message.role == "assistant")
    assert [decision.draws for decision in sample.decisions] == [False, True, True, False]
    draw = processor.tokenizer.convert_tokens_to_ids("<draw>")
    assert [sample.ids[d.position] == draw for d in sample.decisions] == [False, True, True, False]


def test_replies_with_many_wordings_count_less(root, processor, tmp_path):
    record = toy.record(root, 0)
    asked = [turn["request"] for turn in record["turns"]]
    assert asked[0] is None and all(asked[1:])  # small talk, then what has one right reply
    path = root / "wordings.jsonl"

    def weights(record) -> list[float]:
        path.write_text(json.dumps(record) + "\n")
        (sample,), _ = load_samples([path], processor, tmp_path)
        return sample.weights[sample.weights > 0].tolist()

    told = weights(record)
    hello = told.index(1.0, 1)  # behind the first reply; its first token counts 1: it might be <switch>
    assert hello > 2 and told[1:hello] == [WORDING_WEIGHT] * (hello - 1)
    assert set(told[hello:]) == {1.0, DRAW_WEIGHT} and told.count(DRAW_WEIGHT) == 2
    untold = weights({**record, "turns": [{"type": turn["type"]} for turn in record["turns"]]})
    assert set(untold) == {1.0, DRAW_WEIGHT}, "a record that does not say what was asked for counts whole"


def test_text_weight_counts_users_words_and_no_placeholders(root, processor):
    messages = messages_of(root, toy.record(root, 0))
    (sample,) = Encoder(processor).samples(messages, lambda block: 0, 0.5, "en")
    read = processor.tokenizer.decode(sample.ids[sample.weights == 0.5])
    assert read == "".join(message.text + "<end_of_utterance>" for message in messages if message.role == "user")


def test_long_conversations_become_one_sample_per_view_of_the_pictures(root, processor):
    messages = messages_of(root, toy.record(root, 3, edits=6))  # 7 pictures; replies: hi, 7 drawn, an answer
    encoder = Encoder(processor, max_images=4)
    samples = list(encoder.samples(messages, lambda block: 0, 0.0, "en"))
    assert [len(sample.pictures) for sample in samples] == [4, 4, 4, 4]
    assert sum(len(sample.decisions) for sample in samples) == 9
    said = "".join(processor.tokenizer.decode(sample.ids[sample.weights > 0]) for sample in samples)
    assert said == "".join(message.text + "<end_of_utterance>" for message in messages if message.role == "assistant")
    for first, last in encoder.views(messages):  # each reply's history is a prefix of its view
        whole = encoder.ids(messages[: 2 * last + 2])[0]
        for turn in range(first, last + 1):
            history = encoder.ids(messages[: 2 * turn + 1], reply=True)[0]
            assert whole[: len(history)] == history


def test_pictures_are_those_of_the_processor(root, processor, tmp_path):
    cache = PictureCache(processor)
    for size, colour in ((128, "red"), (200, "blue"), (40, "green")):
        block = toy.picture(root, colour, size)
        cache.row(ImageBlock(path=root / block["path"], sha256=block["sha256"]))
    striped = Image.new("RGB", (128, 96), "red")
    striped.paste("lime", (0, 0, 128, 8))
    cache.row(wide := ImageBlock.from_picture(striped))
    cache.fill(tmp_path)
    for row, block in enumerate(cache._blocks):
        if block is wide:
            edges = [tuple(cache.pixels[row][y, 64]) for y in (0, 12, 20, 30)]
            assert edges == [(255, 0, 0), (0, 255, 0), (0, 255, 0), (255, 0, 0)], "mirrored at its edge, not squeezed"
            continue
        expected = processor.image_processor(block.open(), return_tensors="np")["pixel_values"][0, 0]
        np.testing.assert_allclose(cache.normalised(cache.pixels[[row]])[0].numpy(), expected, atol=1 / 127)
    before = next(tmp_path.glob("*.npy")).stat().st_mtime_ns
    cache.fill(tmp_path)
    assert next(tmp_path.glob("*.npy")).stat().st_mtime_ns == before


def test_batches_hold_everything_once_within_the_budget():
    lengths = list(np.random.default_rng(0).integers(10, 200, 500))
    batches = plan_batches(lengths, 1000, seed=1, epoch=0)
    assert sorted(i for batch in batches for i in batch) == list(range(500))
    assert all(max(lengths[i] for i in batch) * len(batch) <= 1000 for batch in batches)
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    assert sum(lengths) / padded > 0.85
    assert batches == plan_batches(lengths, 1000, seed=1, epoch=0) != plan_batches(lengths, 1000, seed=1, epoch=1)


def test_the_stream_goes_on_where_it_was(root, processor, tmp_path):
    samples, pictures = load_samples([root / "train.jsonl"], processor, tmp_path)
    one = Batches(samples, pictures, 600)
    for _ in range(one.per_epoch + 2):
        one.next()
    two = Batches(samples, pictures, 600, position=one.position)
    for _ in range(one.per_epoch):
        assert one.next().ids.equal(two.next().ids)


def test_collate_pads_on_the_right_and_keeps_pictures_in_order(root, processor, tmp_path):
    samples, pictures = load_samples([root / "train.jsonl"], processor, tmp_path, limit=5)
    batch = collate(samples, pictures)
    image = processor.image_token_id
    assert batch.pixels is not None
    assert int((batch.ids == image).sum()) == 16 * len(batch.pixels)
    assert batch.tokens == sum(len(sample.ids) for sample in samples)
    assert float(batch.weights.sum()) == pytest.approx(sum(float(sample.weights.sum()) for sample in samples))


def test_unusable_data_says_which_and_why(root, processor, tmp_path):
    with pytest.raises(DataError, match="easel data mix"):
        list(read_records([tmp_path / "none.jsonl"]))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": []}\n{"id": 1\n')
    for read in (read_records, texts_of):
        with pytest.raises(DataError, match=r"bad\.jsonl, line 2"):
            list(read([bad]))
    record = toy.record(tmp_path, 0)
    picture = tmp_path / record["messages"][3]["content"][1]["path"]
    bad.write_text(json.dumps(record) + "\n")
    for damage, says in ((lambda: picture.write_bytes(b"no picture"), "can be read"), (picture.unlink, "not there")):
        damage()
        with pytest.raises(DataError, match=rf"record train-0: {picture.name} is .*{says}.*easel data check"):
            load_samples([bad], processor, tmp_path / "cache")
    bad.write_text("")
    with pytest.raises(DataError, match="no dialogue"):
        load_samples([bad], processor, tmp_path / "cache")


def test_a_conversation_beyond_the_context_is_named(root, processor, tmp_path):
    record = toy.record(root, 0)
    record["messages"][0]["content"][0]["text"] = "hello " * 1200
    long = root / "long.jsonl"
    long.write_text(json.dumps(record) + "\n")
    with pytest.raises(DataError, match=r"record train-0.*2048"):
        load_samples([long], processor, tmp_path)


def names(places, split="train"):
    return [file.name for file in data_files(places, split)]


def test_a_splits_files_are_found(tmp_path):
    with pytest.raises(DataError, match=r"holds no train-00000\.jsonl and no train\.jsonl"):
        names([tmp_path])
    for name in ("train.jsonl", "test-00001.jsonl", "test-00000.jsonl"):
        (tmp_path / name).write_text("{}")
    assert names([tmp_path]) == ["train.jsonl"]  # put together by hand
    assert names([tmp_path], "test") == ["test-00000.jsonl", "test-00001.jsonl"]
    assert names([tmp_path / "train.jsonl", tmp_path], "test") == ["train.jsonl", *names([tmp_path], "test")]
    with pytest.raises(DataError, match=r"gone\.jsonl is not there. Name a data set"):
        names([tmp_path / "gone.jsonl"])
    shards = [{"file": f"train-0000{number}.jsonl", "n": 1, "sha256": ""} for number in range(2)]
    manifest = {
        "splits": {"train": {"n": 2, "shards": shards}, "test": {"file": "test-00000.jsonl", "n": 1, "sha256": ""}}
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "train-00000.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"train-00001\.jsonl is not there. Run the command"):
        names([tmp_path])
    (tmp_path / "train-00001.jsonl").write_text("{}")
    assert names([tmp_path]) == ["train-00000.jsonl", "train-00001.jsonl"]
    assert names([tmp_path], "test") == ["test-00000.jsonl"] and len(read_manifest(tmp_path)["splits"]) == 2
    run_file(tmp_path, "train").write_text("{}")
    with pytest.raises(DataError, match=r"train split in .* is not finished"):
        names([tmp_path])
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        names([tmp_path])


def test_only_the_turns_that_a_record_names_are_learnt(root, processor, tmp_path):
    record = toy.record(root, 3, edits=6)
    path = root / "learn.jsonl"
    path.write_text(json.dumps({**record, "learn": [3]}) + "\n")
    (sample,), _ = load_samples([path], processor, tmp_path, text_weight=0.5)
    said = processor.tokenizer.decode(sample.ids[sample.weights >= 1])
    assert said == record["messages"][7]["content"][0]["text"] + "<end_of_utterance>"
    assert [decision.draws for decision in sample.decisions] == [True]
    read = processor.tokenizer.decode(sample.ids[sample.weights == 0.5])
    assert "Hi!" not in read and "你好！" not in read  # other replies are neither learnt nor read
    for wrong in ([], [9], [-1], [True], "all", 3):
        path.write_text(json.dumps({**record, "learn": wrong}) + "\n")
        with pytest.raises(DataError, match="record train-3: `learn` must list turns from 0 to 8"):
            load_samples([path], processor, tmp_path)
