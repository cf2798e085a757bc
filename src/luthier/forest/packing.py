"""Group sequences into forests of a bounded size, so that sharing stays inside a group."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from luthier.forest.layout import common_prefix


def pack(sequences: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    """Indices of the sequences, grouped so that each group executes at most `max_tokens` nodes.

    In sorted order a sequence adds exactly the tokens that it does not share with the one before it.
    A sequence longer than `max_tokens` gets a group of its own.
    """
    rows = [list(sequence) for sequence in sequences]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    groups: list[list[int]] = []
    used = 0
    for place, i in enumerate(order):
        added = len(rows[i])
        if groups:
            added -= common_prefix(rows[order[place - 1]], rows[i])
        if not groups or used + added > max_tokens:
            groups.append([])
            used, added = 0, len(rows[i])
        groups[-1].append(i)
        used += added
    return groups


def executed_tokens(sequences: Sequence[Sequence[int]]) -> int:
    """Nodes of the forest of these sequences: what is really computed."""
    rows = sorted(list(sequence) for sequence in sequences)
    shared = sum(common_prefix(a, b) for a, b in itertools.pairwise(rows))
    return sum(map(len, rows)) - shared
