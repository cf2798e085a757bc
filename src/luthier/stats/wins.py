"""How often one candidate does better than another on the same example."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from luthier.stats.intervals import mean_interval


@dataclass(frozen=True)
class Wins:
    """Wins of the first of two candidates.

    Attributes:
        better, same, worse: examples on which its score is higher, equal, lower.
        rate: share of wins, a tie being half of one; None without examples.
        low, high: its interval, None when undefined.
    """

    better: int
    same: int
    worse: int
    rate: float | None
    low: float | None
    high: float | None


def win_rate(
    a: Sequence[float], b: Sequence[float], *, clusters: Sequence[Hashable] | None = None, seed: int = 0
) -> Wins:
    """Wins of a over b, whatever the differences are.

    Args:
        a, b: scores of the same examples.
        clusters: the source of each example, None when every one has its own.
    """
    won = [0.5 if x == y else float(x > y) for x, y in zip(a, b, strict=True)]
    rate = mean_interval(won, clusters=clusters, seed=seed)
    return Wins(won.count(1.0), won.count(0.5), won.count(0.0), rate.estimate, rate.low, rate.high)
