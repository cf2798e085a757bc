"""The forest as a data structure: nodes, paths, masks, predictions, and groups of bounded size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luthier.forest.layout import common_prefix, lay_out
from luthier.forest.packing import executed_tokens, pack

TOKEN = st.integers(3, 5)  # few tokens, so that prefixes are shared often
SEQUENCES = st.lists(st.lists(TOKEN, min_size=1, max_size=8), min_size=1, max_size=8)
CPU = torch.device("cpu")


def prefixes(sequences: list[list[int]]) -> set[tuple[int, ...]]:
    return {tuple(s[: k + 1]) for s in sequences for k in range(len(s))}


def test_layout_by_hand() -> None:
    layout = lay_out([[1, 2, 4], [7], [1, 2, 3], [1, 2], [1, 2, 3]])
    assert layout.tokens.tolist() == [1, 2, 3, 4, 7]
    assert layout.positions.tolist() == [0, 1, 2, 2, 0]
    assert [(s.start, s.stop, s.depth, s.path) for s in layout.segments] == [
        (0, 2, 0, (0,)),
        (2, 3, 2, (0, 1)),
        (3, 4, 2, (0, 2)),
        (4, 5, 0, (3,)),
    ]
    # distinct predictions: 1 -> 2, 2 -> 3, 2 -> 4
    assert list(zip(layout.nodes.tolist(), layout.targets.tolist(), strict=True)) == [(0, 2), (1, 3), (1, 4)]
    assert [pick.tolist() for pick in layout.picks] == [[0, 2], [], [0, 1], [0], [0, 1]]


@given(SEQUENCES)
def test_one_node_for_each_distinct_prefix(sequences: list[list[int]]) -> None:
    layout = lay_out(sequences)
    assert len(layout.tokens) == len(prefixes(sequences)) == executed_tokens(sequences)
    for sequence, path, pick in zip(sequences, layout.paths, layout.picks, strict=True):
        assert layout.tokens[path].tolist() == sequence
        assert layout.positions[path].tolist() == list(range(len(sequence)))
        assert layout.nodes[pick].tolist() == path[:-1].tolist()
        assert layout.targets[pick].tolist() == sequence[1:]


@given(SEQUENCES, st.one_of(st.none(), st.integers(1, 5)))
def test_a_node_sees_its_ancestors_and_nothing_else(sequences: list[list[int]], window: int | None) -> None:
    layout = lay_out(sequences)
    seen = np.zeros((len(layout.tokens), len(layout.tokens)), bool)
    for index, segment in enumerate(layout.segments):
        columns = np.concatenate(
            [np.arange(layout.segments[s].start, layout.segments[s].stop) for s in segment.path]
        )
        mask = layout.mask(index, window, CPU)
        if mask is None:
            mask = torch.ones(segment.length, segment.length, dtype=torch.bool).tril()
        seen[segment.start : segment.stop, columns] = mask.numpy()
    expected = np.zeros_like(seen)
    for path in layout.paths:
        for place, node in enumerate(path):
            expected[node, path[max(0, place + 1 - (window or len(path))) : place + 1]] = True
    assert (seen == expected).all()


@given(st.data())
def test_flags_choose_predictions(data: st.DataObject) -> None:
    sequences = data.draw(SEQUENCES)
    flags = [data.draw(st.lists(st.booleans(), min_size=len(s) - 1, max_size=len(s) - 1)) for s in sequences]
    layout = lay_out(sequences, flags)
    for sequence, flag, pick in zip(sequences, flags, layout.picks, strict=True):
        assert layout.targets[pick].tolist() == [t for t, f in zip(sequence[1:], flag, strict=True) if f]
    asked = {
        tuple(s[: k + 2]) for s, flag in zip(sequences, flags, strict=True) for k, f in enumerate(flag) if f
    }
    assert len(layout.nodes) == len(asked)


def test_wrong_sequences_and_flags_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        lay_out([[1], []])
    with pytest.raises(ValueError, match="expected 2 flags for a sequence, got 3"):
        lay_out([[1, 2, 3]], [[True, True, True]])


@given(st.lists(TOKEN, max_size=9), st.lists(TOKEN, max_size=9))
def test_common_prefix(a: list[int], b: list[int]) -> None:
    expected = 0
    while expected < min(len(a), len(b)) and a[expected] == b[expected]:
        expected += 1
    assert common_prefix(a, b) == expected


@given(SEQUENCES, st.integers(1, 20))
def test_packed_groups_hold_every_sequence_once_and_stay_small(
    sequences: list[list[int]], limit: int
) -> None:
    groups = pack(sequences, limit)
    assert sorted(i for group in groups for i in group) == list(range(len(sequences)))
    for group in groups:
        size = len(lay_out([sequences[i] for i in group]).tokens)
        assert size == executed_tokens([sequences[i] for i in group])
        assert size <= limit or {tuple(sequences[i]) for i in group} == {tuple(sequences[group[0]])}


def test_packing_counts_shared_tokens_once() -> None:
    shared = list(range(10))
    assert pack([[*shared, 11], [*shared, 12], [*shared, 13]], 13) == [[0, 1, 2]]
    assert pack([[*shared, 11], [*shared, 12], [*shared, 13]], 12) == [[0, 1], [2]]
