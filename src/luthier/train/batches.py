"""Which examples make which optimizer step: decided by the seed and the epoch alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

from luthier.forest.packing import executed_tokens, pack
from luthier.methods.method import Item


def epoch_batches(items: Sequence[Item], *, batch_tokens: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of one epoch's effective batches, each of about `batch_tokens` tokens before sharing.

    A fresh shuffle per epoch; the number of batches is the same in every epoch, so that the schedule
    is known beforehand, and their sizes differ by no more than one example's tokens from even.
    """
    order = list(range(len(items)))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    total = sum(item.tokens for item in items)
    count = batches_per_epoch(items, batch_tokens)
    batches: list[list[int]] = [[] for _ in range(count)]
    seen = 0
    for i in order:
        middle = seen + items[i].tokens / 2
        batches[min(count - 1, int(middle * count / total))].append(i)
        seen += items[i].tokens
    # an item longer than an even share can leave a neighbour empty
    return [batch for batch in batches if batch] if count > len(items) else _filled(batches)


def batches_per_epoch(items: Sequence[Item], batch_tokens: int) -> int:
    """Optimizer steps of one epoch."""
    total = sum(item.tokens for item in items)
    return max(1, min(len(items), round(total / batch_tokens)))


def micro_batches(items: Sequence[Item], max_tokens: int, *, share: bool = True) -> list[list[int]]:
    """Split a batch so that at most `max_tokens` tokens are executed at once; items stay whole.

    Args:
        share: the model computes shared prefixes once; else every sequence counts in full.
    """
    if share and all(len(item.sequences) == 1 for item in items):
        return pack([item.sequences[0].ids for item in items], max_tokens)
    groups: list[list[int]] = []
    for i, item in sorted(enumerate(items), key=lambda pair: list(pair[1].sequences[0].ids)):
        if groups and executed_by([*(items[k] for k in groups[-1]), item], share=share) <= max_tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def executed_by(items: Sequence[Item], *, share: bool) -> int:
    """Tokens that are really computed when items are one micro-batch."""
    if not share:
        return sum(item.tokens for item in items)
    return executed_tokens([sequence.ids for item in items for sequence in item.sequences])


def _filled(batches: list[list[int]]) -> list[list[int]]:
    for batch in batches:
        if not batch:
            batch.append(max(batches, key=len).pop())
    return batches
