"""Groups are filled by best fit where sequences share little, and never at the price of what they share."""

from __future__ import annotations

from luthier.forest.packing import executed_tokens, pack


def test_sequences_that_share_nothing_fill_the_groups() -> None:
    rows = [[10 * i + j for j in range(n)] for i, n in enumerate((6, 5, 4, 3, 2))]
    # by hand: 6 and 4 make ten, 5 and 3 and 2 make ten; in the order given it would take three groups
    assert sorted(sorted(group) for group in pack(rows, 10)) == [[0, 2], [1, 3, 4]]


def test_a_first_token_that_all_share_decides_nothing() -> None:
    rows = [[7, *(100 * i + j for j in range(n))] for i, n in enumerate((15, 12, 11, 8, 5, 4))]
    groups = pack(rows, 32)
    assert len(groups) == 2
    assert all(executed_tokens([rows[i] for i in group]) <= 32 for group in groups)


def test_sequences_that_share_much_stay_together() -> None:
    families = [[[1000 * f + j for j in range(20)] + [f, i] for i in range(4)] for f in range(3)]
    rows = [row for rows in zip(*families, strict=True) for row in rows]
    groups = pack(rows, 30)
    assert sorted(sorted(i % 3 for i in group) for group in groups) == [[0] * 4, [1] * 4, [2] * 4]
