"""Which examples make which optimizer step: decided by the seed and the epoch alone."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction

from luthier.forest.packing import executed_tokens, pack
from luthier.methods.method import Item

FINEST = 1000  # repeats are multiples of 1 / FINEST, or simpler fractions: turns are counted exactly

Shares = Callable[[Item], bool]  # whether the sequences of an item can share prefixes


def epoch_batches(items: Sequence[Item], *, batch_tokens: int, seed: int, epoch: int) -> list[list[int]]:
    """Indices of one epoch's effective batches, each of about `batch_tokens` tokens before sharing.

    A fresh shuffle per epoch; the number of batches is the same in every epoch, so that the schedule
    is known beforehand, and their sizes differ by no more than one example's tokens from even.

    An item is there as often as `Item.repeats` says: 2 is twice in every epoch, 0.25 once in four. Items of
    the same repeats take turns, so that their number in an epoch is the same in all, but for one.
    """
    order = _occurrences(items, seed=seed, epoch=epoch) or list(range(len(items)))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    total = sum(items[i].tokens for i in order)
    count = batches_per_epoch(items, batch_tokens)
    batches: list[list[int]] = [[] for _ in range(count)]
    seen = 0
    for i in order:
        middle = seen + items[i].tokens / 2
        batches[min(count - 1, int(middle * count / total))].append(i)
        seen += items[i].tokens
    return _filled(batches)


def batches_per_epoch(items: Sequence[Item], batch_tokens: int) -> int:
    """Optimizer steps of one epoch."""
    least = sum(
        len(places) * share.numerator // share.denominator for share, places in _by_repeats(items).items()
    )
    return max(1, min(least, round(epoch_tokens(items) / batch_tokens)))


def epoch_tokens(items: Sequence[Item]) -> float:
    """Tokens before sharing that an epoch sees, on average over epochs."""
    return sum(item.tokens * item.repeats for item in items)


def _by_repeats(items: Sequence[Item]) -> dict[Fraction, list[int]]:
    """Places of the items, by how often they are seen."""
    found: dict[float, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        found[item.repeats].append(place)
    return {Fraction(repeats).limit_denominator(FINEST): places for repeats, places in found.items()}


def _occurrences(items: Sequence[Item], *, seed: int, epoch: int) -> list[int]:
    """Places of the items that an epoch sees, as often as it does.

    With r = p / q repeats, the k-th of n items has been seen floor(e p / q + k / n) times before epoch e. By
    Hermite's identity these add up to floor(n e p / q), so that every epoch sees its share.
    """
    if all(item.repeats == 1 for item in items):
        return list(range(len(items)))
    order = []
    for share, places in _by_repeats(items).items():
        p, q, n = share.numerator, share.denominator, len(places)
        turns = list(places)
        random.Random(f"{seed}/turns").shuffle(turns)
        for k, place in enumerate(turns):
            before, after = ((e * p * n + k * q) // (q * n) for e in (epoch, epoch + 1))
            order += [place] * (after - before)
    return sorted(order)


def micro_batches(items: Sequence[Item], max_tokens: int, *, shares: Shares) -> list[list[Item]]:
    """Split a batch so that at most `max_tokens` tokens are executed at once; items stay whole.

    Items that cannot share are apart from those that can, as one of them keeps a whole forest from being one.
    """
    able = [item for item in items if shares(item)]
    if all(len(item.sequences) == 1 for item in able):
        groups = [[able[i] for i in group] for group in pack([i.sequences[0].ids for i in able], max_tokens)]
    else:
        groups = _greedy(able, max_tokens, shares)
    return groups + _greedy([item for item in items if not shares(item)], max_tokens, shares)


def executed_by(items: Sequence[Item], *, shares: Shares) -> int:
    """Tokens that are really computed when items are one micro-batch; virtual tokens are not counted."""
    if not all(map(shares, items)):
        return sum(item.tokens for item in items)
    return executed_tokens([sequence.ids for item in items for sequence in item.sequences])


def _greedy(items: Sequence[Item], max_tokens: int, shares: Shares) -> list[list[Item]]:
    groups: list[list[Item]] = []
    for item in sorted(items, key=lambda item: item.sequences[0].ids):
        if groups and executed_by([*groups[-1], item], shares=shares) <= max_tokens:
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def _filled(batches: list[list[int]]) -> list[list[int]]:
    """An item longer than an even share can leave its neighbours empty: they get one of the fullest batch."""
    for batch in batches:
        if not batch:
            batch.append(max(batches, key=len).pop())
    return batches
