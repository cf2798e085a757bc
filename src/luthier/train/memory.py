"""Memory: how much is in use, and micro-batches that halve when there is not enough."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil
import torch

from luthier.errors import TrainingError
from luthier.methods.method import Item
from luthier.train.batches import Shares, executed_by, micro_batches

# What torch and the libraries under it say in a plain RuntimeError.
SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "alloc_failed")


@dataclass(frozen=True)
class Summed:
    """A sum over micro-batches: its value, the tokens that were executed, and what it took."""

    value: float
    executed_tokens: int
    micro_tokens: int
    peak_bytes: int


def sum_over(
    items: Sequence[Item],
    compute: Callable[[list[Item]], float],
    *,
    micro_tokens: int,
    shares: Shares,
    again: Callable[[], None] = lambda: None,
) -> Summed:
    """Sum `compute` over micro-batches of at most `micro_tokens` executed tokens.

    When memory runs out, `again` discards what was computed so far, and all is computed once more with
    micro-batches of half the size of the one that failed: the same sum, within rounding.

    Raises:
        TrainingError: a single item does not fit.
    """
    while True:
        value, executed, peak = 0.0, 0, 0
        failed: list[Item] = []
        for micro in micro_batches(items, micro_tokens, shares=shares):
            try:
                value += compute(micro)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failed = micro
                break  # and out of the handler: the traceback keeps the tensors of the forward pass
            executed += executed_by(micro, shares=shares)
            peak = max(peak, memory_bytes())
        if not failed:
            return Summed(value, executed, micro_tokens, peak)
        again()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size = executed_by(failed, shares=shares)
        if len(failed) == 1:
            raise TrainingError(
                f"an example of {size} tokens does not fit in memory, even alone",
                where=failed[0].where,
                fix="shorten it, or use a smaller model or a machine with more memory",
            )
        micro_tokens = max(1, min(micro_tokens, size) // 2)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch, CUDA or Python says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    told = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in told for sign in SIGNS)


def memory_bytes() -> int:
    """Memory in use: the accelerator's peak where there is one, else this process's resident set."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return int(psutil.Process().memory_info().rss)
