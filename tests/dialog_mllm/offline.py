"""Replies without a server, by transformers' greedy generation, and scores in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import Idefics3ForConditionalGeneration, Idefics3Processor

from dialog_mllm.data import Encoder, PictureCache
from dialog_mllm.evaluation import JudgePrompt, Turn, ask_all, read_reply, score, turns_of
from dialog_mllm.records import Record


def evaluate(records: Iterable[tuple[Record, Path]], client: Any, judge_prompt: JudgePrompt) -> dict[str, Any]:
    """The first failure of the client is raised as itself."""
    try:
        return score(asyncio.run(ask_all(list(turns_of(records)), client)), judge_prompt)
    except ExceptionGroup as group:
        raise group.exceptions[0] from group


def answer_offline(
    turns: Sequence[Turn],
    model: Idefics3ForConditionalGeneration,
    processor: Idefics3Processor,
    batch: int = 64,
    max_tokens: int = 128,
) -> list[Turn]:
    encoder, pictures = Encoder(processor), PictureCache(processor)
    asked = [encoder.ids(turn.history, reply=True) for turn in turns]
    answered: dict[int, Turn] = {}
    order = sorted(range(len(turns)), key=lambda i: len(asked[i][0]))
    pad = processor.tokenizer.pad_token_id
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        longest = max(len(asked[i][0]) for i in rows)
        ids = torch.full((len(rows), longest), pad)
        shown = max(len(asked[i][1]) for i in rows)
        pixels = torch.zeros(len(rows), shown, 3, pictures.size, pictures.size)  # all-zero pictures are padding
        for row, i in enumerate(rows):
            ids[row, longest - len(asked[i][0]) :] = torch.tensor(asked[i][0])
            for column, block in enumerate(asked[i][1]):
                pixels[row, column] = pictures.normalised(pictures.prepare(block, turns[i].record)[None])[0]
        with torch.inference_mode():
            inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": (ids != pad).long()}
            if shown:
                inputs["pixel_values"] = pixels
            whole: Any = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
            said = whole[:, longest:]
        for i, tokens in zip(rows, said.tolist(), strict=True):
            tokens = [token for token in tokens if token != pad]
            answered[i] = replace(turns[i], reply=read_reply(processor.tokenizer.decode(tokens)))
    return [answered[i] for i in range(len(turns))]
