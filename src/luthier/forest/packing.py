"""Group sequences into forests of a bounded size, so that sharing stays inside a group."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from luthier.forest.layout import common_prefix

WORTH = 1 / 8  # of a sequence: sharing less must not decide what it is packed with


def pack(sequences: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    """Indices of the sequences, grouped so that each group executes at most `max_tokens` nodes.

    In sorted order a sequence adds exactly the tokens that it does not share with the one before it.
    Runs of sequences that share more than a little are cut where they exceed the budget; the pieces fill
    the groups by best fit, the largest first. A sequence longer than `max_tokens` gets a group of its own.
    """
    groups: list[list[int]] = []
    room: list[int] = []
    for size, piece in sorted(_pieces(sequences, max_tokens), key=lambda sized: -sized[0]):
        fitting = [place for place, left in enumerate(room) if left >= size]
        if fitting:
            best = min(fitting, key=room.__getitem__)
            groups[best] += piece
            room[best] -= size
        else:
            groups.append(piece)
            room.append(max_tokens - size)
    return groups


def _pieces(sequences: Sequence[Sequence[int]], max_tokens: int) -> list[tuple[int, list[int]]]:
    """Runs of sequences that share a prefix, none larger than the budget, with the nodes of each."""
    rows = [list(sequence) for sequence in sequences]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    pieces: list[tuple[int, list[int]]] = []
    for place, i in enumerate(order):
        shared = common_prefix(rows[order[place - 1]], rows[i]) if place else 0
        added = len(rows[i]) - shared
        if place and shared >= WORTH * len(rows[i]) and pieces[-1][0] + added <= max_tokens:
            size, piece = pieces[-1]
            piece.append(i)
            pieces[-1] = size + added, piece
        else:
            pieces.append((len(rows[i]), [i]))
    return pieces


def executed_tokens(sequences: Sequence[Sequence[int]]) -> int:
    """Nodes of the forest of these sequences: what is really computed."""
    rows = sorted(list(sequence) for sequence in sequences)
    shared = sum(common_prefix(a, b) for a, b in itertools.pairwise(rows))
    return sum(map(len, rows)) - shared
