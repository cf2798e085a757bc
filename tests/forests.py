"""Random prefix forests for property tests, and the shapes that every test of sharing must meet once."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import strategies as st

FIRST = 3  # tokens below are padding, begin and end in the tiny models
Forest = list[list[int]]


def _run(start: int, length: int) -> list[int]:
    """`length` tokens that no other run of the same forest starts with."""
    return [FIRST + (start + 7 * i) % 90 for i in range(length)]


_STEM = _run(0, 12)
SHAPES: dict[str, Forest] = {
    "one sequence": [_run(0, 9)],
    "one token": [[5]],
    "only single tokens": [[5], [6], [5], [7]],
    "nothing shared": [_run(1, 6), _run(2, 5), _run(3, 7)],
    "duplicates": [_run(0, 6)] * 4 + [_run(1, 3)] * 2,
    "fork": [[5, 6], [5, 7], [5]],
    "chain": [_STEM[:n] for n in range(1, 13)],
    "star": [[*_STEM, *_run(20 + i, 1 + i % 4)] for i in range(9)],
    "star of single tokens": [[5, *_run(20 + i, 1)] for i in range(8)],
    "prefixes that are whole sequences": [_STEM, _STEM[:5], _STEM[:1], [*_STEM[:5], *_run(30, 4)], _STEM[:5]],
    "a comb": [[*_STEM[:n], *_run(40 + n, 3)] for n in range(1, 12, 2)],
    "a binary tree": [[4 + (i >> b) % 2 for b in (2, 1, 0)] + [9] * (i % 3) for i in range(8)],
    "very unequal lengths": [_run(0, 40), _run(0, 40)[:1], [*_run(0, 40)[:39], 96], _run(2, 2), [8]],
}


def stretched(sequences: Forest, times: int) -> Forest:
    """The same tree with every token `times` times: branches where they were, segments that much longer."""
    return [[token for token in sequence for _ in range(times)] for sequence in sequences]


@st.composite
def forests(draw: st.DrawFn, *, max_sequences: int = 12, max_length: int = 40) -> Forest:
    """Sequences of tokens `FIRST..FIRST + 7`, of any depth, in any order.

    A sequence is new, or goes on from a prefix of an earlier one; that prefix may be all of it, and the
    continuation may be empty. Few distinct tokens make prefixes meet by accident too. The structure is
    drawn, the tokens come from a seed: a failing forest shrinks to few and short sequences.
    """
    dice = random.Random(draw(st.integers(0, 999)))
    alphabet = draw(st.sampled_from([1, 2, 3, 8]))
    lengths = st.one_of(st.just(1), st.integers(1, 5), st.integers(1, max_length))
    rows: Forest = []
    for _ in range(draw(st.sampled_from(range(1, max_sequences + 1)))):
        stem: Sequence[int] = ()
        if rows and draw(st.integers(0, 3)):
            whole = draw(st.sampled_from(rows))
            stem = whole[: draw(st.integers(0, len(whole)))]
        room = max_length - len(stem)
        tail = min(room, draw(st.one_of(st.just(0), lengths))) if stem else draw(lengths)
        rows.append([*stem, *(FIRST + dice.randrange(alphabet) for _ in range(tail))])
    dice.shuffle(rows)
    return rows


@st.composite
def flagged(draw: st.DrawFn, sequences: Forest) -> list[list[bool]]:
    """For each sequence, `len - 1` flags: all, none, the last, or any."""
    flags = []
    for sequence in sequences:
        count = len(sequence) - 1
        kind = draw(st.sampled_from(["all", "none", "last", "any"]))
        chosen = draw(st.integers(0, 2**count - 1)) if kind == "any" else {"all": -1, "none": 0}.get(kind, 1)
        flags.append([bool(chosen >> (count - 1 - i) & 1) for i in range(count)])
    return flags
