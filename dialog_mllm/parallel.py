"""Several processes that train one model, each on its GPU (or its share of the cores).

    accelerate launch --num_processes 4 -m app.cli finetune --data DATA --out RUN    # torchrun's variables do as well

Every process holds the whole model and takes its share of a step's batches; what they sum are the gradients of the
trained parameters. Of a LoRA those are few, so no wrapper is put around the model, and a step of 2 processes is the
step of one that accumulates 2 batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from accelerate import PartialState
from torch import Tensor


class Processes:
    """This process among those that `accelerate launch` started; alone where it did not."""

    def __init__(self) -> None:
        # No other accelerator: PartialState would take Apple's, on which bf16 autocast and fused AdamW differ.
        self._state = PartialState(cpu=not torch.cuda.is_available())

    @property
    def rank(self) -> int:
        return self._state.process_index

    @property
    def count(self) -> int:
        return self._state.num_processes

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and reports."""
        return self._state.is_main_process

    @property
    def device(self) -> torch.device:
        return self._state.device

    def wait(self) -> None:
        self._state.wait_for_everyone()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The body runs in the main process, then in the others: what it writes is there for them."""
        with self._state.main_process_first():
            yield

    def sum(self, values: Iterable[float]) -> list[float]:
        """Each value, summed over the processes."""
        return self._reduced(values, torch.distributed.ReduceOp.SUM)

    def max(self, values: Iterable[float]) -> list[float]:
        """Each value's largest among the processes: what one of them has seen, all then know."""
        return self._reduced(values, torch.distributed.ReduceOp.MAX)

    def _reduced(self, values: Iterable[float], operation: torch.distributed.ReduceOp.RedOpType) -> list[float]:
        values = list(values)
        if self.count == 1 or not values:
            return values
        # float32 on GPUs would round a run's token counts.
        both = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(both, operation)
        return both.tolist()

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """In place; a parameter that took no part in this process's batches counts as zero."""
        if self.count == 1:
            return
        parameters = list(parameters)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten().float() for gradient in gradients])  # one message instead of hundreds
        torch.distributed.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))


@cache
def processes() -> Processes:
    return Processes()


def device() -> torch.device:
    return processes().device
