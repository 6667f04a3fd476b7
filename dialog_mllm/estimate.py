"""What a training will take, from a few of its own steps: `easel finetune … --dry-run`.

estimate(FitConfig(run), model, objective, train)  # -> parameters, memory, seconds a step, minutes

The first step is the longest batch's, which decides the memory. The learning rate is zero: nothing is learnt.
"""

from __future__ import annotations

import math
import resource
import time
from typing import Any

import torch
from torch import nn

from dialog_mllm.data import Batches
from dialog_mllm.fit import Ahead, FitConfig, Optimizers, learn, threads
from dialog_mllm.objective import Objective
from dialog_mllm.parallel import device, processes

STEPS = 3  # that are timed
GB = 1e9


def estimate(config: FitConfig, model: nn.Module, objective: Objective, train: Batches) -> dict[str, Any]:
    """Measured on this machine, evaluations and start left out of the time."""
    group = processes()
    with threads(config.threads):
        model.to(device()).train()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizers = Optimizers(model, config)
        learn(objective, [train.longest()], trained)
        optimizers.step(0.0)
        ahead = Ahead(train, config.accumulate)
        tokens, begun = 0, time.monotonic()
        try:
            for _ in range(STEPS):
                batches, _behind = ahead.next()
                learn(objective, batches, trained)
                optimizers.step(0.0)
                tokens += sum(batch.tokens for batch in batches)
        finally:
            ahead.close()
    seconds = (time.monotonic() - begun) / STEPS
    steps = math.ceil(config.epochs * train.per_epoch / (config.accumulate * group.count))
    bytes_of = {True: 0, False: 0}
    for parameter in model.parameters():
        bytes_of[parameter.requires_grad] += parameter.numel() * parameter.element_size()
    return {
        "parameters_million": round(sum(p.numel() for p in model.parameters()) / 1e6, 2),
        "trained_million": round(sum(p.numel() for p in trained) / 1e6, 2),
        "conversations": len(train.samples),
        "steps": steps,
        "tokens_per_step": int(sum(group.sum([tokens / STEPS]))),
        "seconds_per_step": round(seconds, 3),
        "minutes": round(min(steps * seconds / 60, config.minutes), 1),
        "weights_gb": round(bytes_of[False] / GB, 2),
        "trained_gb": round(4 * bytes_of[True] / GB, 2),  # with gradients and Adam's two moments
        "peak_gb": round(_peak() / GB, 2),
        "device": str(device()),
    }


def _peak() -> float:
    """The most memory that this process held at once: of the GPU, if there is one, else RAM, libraries included."""
    if device().type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0  # KiB on Linux
