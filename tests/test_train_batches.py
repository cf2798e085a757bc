"""Batches: decided by seed and epoch alone, of even size, each item once."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from luthier.chat import TrainingSequence
from luthier.forest.packing import executed_tokens
from luthier.methods import Item
from luthier.train.batches import batches_per_epoch, epoch_batches, executed_by, micro_batches

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def item(*rows: list[int]) -> Item:
    return Item("f:1", tuple(TrainingSequence(tuple(row), (1.0,) * len(row)) for row in rows))


@given(LENGTHS, st.integers(1, 200), st.integers(0, 3), st.integers(0, 3))
def test_every_item_once_in_batches_of_even_size(
    lengths: list[int], batch_tokens: int, seed: int, epoch: int
) -> None:
    items = [item(list(range(n))) for n in lengths]
    batches = epoch_batches(items, batch_tokens=batch_tokens, seed=seed, epoch=epoch)
    assert sorted(i for batch in batches for i in batch) == list(range(len(items)))
    assert len(batches) == batches_per_epoch(items, batch_tokens)
    assert all(batches)
    even = sum(lengths) / len(batches)
    for batch in batches:
        assert abs(sum(lengths[i] for i in batch) - even) <= max(lengths)


def test_number_of_steps() -> None:
    items = [item(list(range(10))) for _ in range(20)]
    assert batches_per_epoch(items, 50) == 4
    assert batches_per_epoch(items, 1) == 20
    assert batches_per_epoch(items, 10**9) == 1
    assert [len(b) for b in epoch_batches(items, batch_tokens=50, seed=0, epoch=0)] == [5, 5, 5, 5]


def test_the_order_of_seed_3_is_written_down() -> None:
    """Every process, machine and version has to draw it: a run that is resumed depends on it."""
    items = [item(list(range(n))) for n in range(1, 13)]
    assert [epoch_batches(items, batch_tokens=26, seed=3, epoch=epoch) for epoch in (0, 1)] == [
        [[5, 7, 10], [9, 2, 4, 0, 3, 1], [11, 6, 8]],
        [[7, 4, 0, 5], [11, 10, 3, 8], [1, 2, 6, 9]],
    ]


def test_an_item_longer_than_a_batch_leaves_none_empty() -> None:
    items = [item(list(range(n))) for n in (1000, 1, 1, 1)]
    batches = epoch_batches(items, batch_tokens=250, seed=0, epoch=0)
    assert len(batches) == 4
    assert all(batches)


def test_seed_and_epoch_alone_decide() -> None:
    items = [item(list(range(n))) for n in range(1, 30)]
    random.seed(1)
    first = epoch_batches(items, batch_tokens=64, seed=3, epoch=2)
    random.seed(2)
    assert epoch_batches(items, batch_tokens=64, seed=3, epoch=2) == first
    assert epoch_batches(items, batch_tokens=64, seed=3, epoch=1) != first
    assert epoch_batches(items, batch_tokens=64, seed=2, epoch=3) != first


ROWS = st.lists(st.integers(1, 3), min_size=1, max_size=6)


@given(st.lists(st.lists(ROWS, min_size=1, max_size=3), min_size=1, max_size=8), st.integers(1, 25))
def test_micro_batches_hold_whole_items_and_stay_small(rows: list[list[list[int]]], limit: int) -> None:
    items = [item(*group) for group in rows]
    groups = micro_batches(items, limit, shares=lambda item: True)
    assert sorted(id(i) for group in groups for i in group) == sorted(map(id, items))
    for group in groups:
        size = executed_tokens([s.ids for i in group for s in i.sequences])
        alone = max(executed_tokens([s.ids for s in i.sequences]) for i in group)
        assert size <= limit or size == alone


@given(st.lists(st.lists(ROWS, min_size=1, max_size=3), min_size=1, max_size=8), st.integers(1, 25))
def test_items_that_cannot_share_are_counted_in_full_and_kept_apart(
    rows: list[list[list[int]]], limit: int
) -> None:
    def shares(item: Item) -> bool:
        return item.tokens <= 6

    items = [item(*group) for group in rows]
    groups = micro_batches(items, limit, shares=shares)
    assert sorted(id(i) for group in groups for i in group) == sorted(map(id, items))
    for group in groups:
        assert len({shares(i) for i in group}) == 1
        if not shares(group[0]):
            size = sum(i.tokens for i in group)
            assert executed_by(group, shares=shares) == size
            assert size <= limit or len(group) == 1
    mixed = [item([1, 2, 3]), item([1, 2, 4])]
    assert executed_by(mixed, shares=shares) == 4
    assert executed_by([*mixed, item([1, 2, 3, 4, 5, 6, 7])], shares=shares) == 13
