"""Lay sequences out as a prefix forest, packed in one row without padding.

Legend: S sequences, T packed tokens, P distinct (node, next token) pairs.

A *node* is a packed token: the same token after the same prefix is one node however many sequences
pass through it. A *segment* is a run of nodes without a branch in between. Every node attends to
its ancestors and itself, which is what it would see in a row of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

IntArray = npt.NDArray[np.int64]
KeysValues = dict[int, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Segment:
    """Nodes `start..stop` of the packed row; `path` are the segments from the root down to this one."""

    start: int
    stop: int
    depth: int
    path: tuple[int, ...]

    @property
    def length(self) -> int:
        """Number of nodes."""
        return self.stop - self.start


@dataclass(eq=False)
class Layout:
    """A forest ready to run.

    Attributes:
        tokens, positions: `[T]` token ids and depths (position ids).
        segments: in packed order; parents come before children.
        nodes, targets: `[P]` the distinct predictions asked for: node index and next token.
        picks: per sequence, which of the P predictions are its own, in order.
        paths: per sequence, the nodes of its tokens, in order.
        trunk: keys and values, by layer, of tokens that stand before every sequence (`[1, G, n, d]`).
        kept: set to an empty dict to receive every layer's keys and values `[1, G, T, d]`.
    """

    tokens: IntArray
    positions: IntArray
    segments: tuple[Segment, ...]
    nodes: IntArray
    targets: IntArray
    picks: tuple[IntArray, ...]
    paths: tuple[IntArray, ...]
    trunk: KeysValues | None = None
    kept: KeysValues | None = None
    _masks: dict[tuple[int, int | None, torch.device], torch.Tensor | None] = field(default_factory=dict)

    @cached_property
    def ends(self) -> IntArray:
        """`[segments]`: where the nodes under a segment end. Depth-first order makes them `stop..end`."""
        ends = np.array([segment.stop for segment in self.segments], np.int64)
        for index in reversed(range(len(self.segments))):
            path = self.segments[index].path
            if len(path) > 1:
                ends[path[-2]] = max(ends[path[-2]], ends[index])
        return ends

    @property
    def reach(self) -> int:
        """The longest path in tokens, the trunk included: what a window has to span to hide nothing."""
        return max((segment.depth + segment.length for segment in self.segments), default=0)

    @property
    def sizes(self) -> list[int]:
        """Segment lengths, in packed order."""
        return [segment.length for segment in self.segments]

    def mask(self, index: int, window: int | None, device: torch.device) -> torch.Tensor | None:
        """Who a segment's nodes see among their path's nodes: bool `[q, kv]`.

        None stands for plain causal attention of a segment to itself. `window` is the number of
        latest positions that a node sees, itself included (sliding-window layers).
        """
        segment = self.segments[index]
        reach = segment.depth + segment.length
        if window is not None and window >= reach:
            window = None
        key = (index, window, device)
        if key not in self._masks:
            if segment.depth == 0 and window is None:
                self._masks[key] = None
            else:
                query = torch.arange(segment.depth, reach, device=device)[:, None]
                other = torch.arange(reach, device=device)[None, :]
                visible = other <= query
                if window is not None:
                    visible &= other > query - window
                self._masks[key] = visible
        return self._masks[key]


def lay_out(
    sequences: Sequence[Sequence[int]],
    needed: Sequence[Sequence[bool]] | None = None,
    *,
    trunk: KeysValues | None = None,
    trunk_length: int = 0,
) -> Layout:
    """Build the forest of token sequences.

    Args:
        sequences: S lists of token ids, each with at least one token.
        needed: per sequence, `len - 1` flags: which next-token predictions are asked for (all if None).
        trunk: keys and values of `trunk_length` tokens before every sequence, already computed.

    Raises:
        ValueError: an empty sequence, or flags of the wrong length.
    """
    if any(len(sequence) == 0 for sequence in sequences):
        raise ValueError("a sequence needs at least one token")
    if needed is not None:
        for sequence, flags in zip(sequences, needed, strict=True):
            if len(flags) != len(sequence) - 1:
                raise ValueError(f"expected {len(sequence) - 1} flags for a sequence, got {len(flags)}")
    segments, tokens, positions, owner = _grow(sequences, trunk_length)
    nodes_of = [_nodes_on_path(segments, owner[i], len(sequences[i])) for i in range(len(sequences))]
    predictions = _predictions(sequences, needed, nodes_of)
    return Layout(tokens, positions, segments, *predictions, tuple(nodes_of), trunk=trunk)


def unshared_layout(sequence: Sequence[int], needed: Sequence[bool] | None = None) -> Layout:
    """The layout of one sequence alone: what a row of its own computes."""
    return lay_out([sequence], None if needed is None else [needed])


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of tokens that two sequences share at their start."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    low, high = 0, n
    while low < high:  # invariant: a[:low] == b[:low], a[:high+1] != b[:high+1]
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _grow(
    sequences: Sequence[Sequence[int]], start: int
) -> tuple[tuple[Segment, ...], IntArray, IntArray, list[int]]:
    """Segments in depth-first order, their tokens and positions, and the segment each sequence ends in."""
    rows = [list(sequence) for sequence in sequences]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    segments: list[Segment] = []
    tokens: list[int] = []
    positions: list[int] = []
    owner = [-1] * len(rows)
    # (sequences in sorted order, depth already placed, path above); sorted order keeps subtrees contiguous
    stack: list[tuple[list[int], int, tuple[int, ...]]] = [
        (group, 0, ()) for group in reversed(_children(order, rows, 0))
    ]
    while stack:
        group, depth, above = stack.pop()
        shared = common_prefix(rows[group[0]], rows[group[-1]])
        path = (*above, len(segments))
        segments.append(Segment(len(tokens), len(tokens) + shared - depth, start + depth, path))
        tokens += rows[group[0]][depth:shared]
        positions += range(start + depth, start + shared)
        longer = []
        for i in group:
            if len(rows[i]) == shared:
                owner[i] = path[-1]
            else:
                longer.append(i)
        stack += [(child, shared, path) for child in reversed(_children(longer, rows, shared))]
    return tuple(segments), np.array(tokens, np.int64), np.array(positions, np.int64), owner


def _children(order: list[int], rows: list[list[int]], depth: int) -> list[list[int]]:
    groups: list[list[int]] = []
    previous: int | None = None
    for i in order:
        if rows[i][depth] != previous:
            groups.append([])
            previous = rows[i][depth]
        groups[-1].append(i)
    return groups


def _nodes_on_path(segments: Sequence[Segment], leaf: int, length: int) -> IntArray:
    runs = [np.arange(segments[s].start, segments[s].stop) for s in segments[leaf].path]
    nodes = np.concatenate(runs).astype(np.int64)
    assert len(nodes) == length
    return nodes


def _predictions(
    sequences: Sequence[Sequence[int]],
    needed: Sequence[Sequence[bool]] | None,
    nodes_of: Sequence[IntArray],
) -> tuple[IntArray, IntArray, tuple[IntArray, ...]]:
    """Distinct (node, next token) pairs, and each sequence's place among them."""
    pairs = []
    for i, sequence in enumerate(sequences):
        pair = np.stack([nodes_of[i][:-1], np.asarray(sequence[1:], np.int64)], axis=1)
        pairs.append(pair if needed is None else pair[np.asarray(needed[i], bool)])
    stacked = np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64)
    distinct, inverse = np.unique(stacked, axis=0, return_inverse=True)
    ends = np.cumsum([len(pair) for pair in pairs])[:-1]
    picks = tuple(part.astype(np.int64) for part in np.split(inverse.reshape(-1), ends))
    return distinct[:, 0].copy(), distinct[:, 1].copy(), picks
