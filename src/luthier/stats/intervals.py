"""Intervals for the mean score of one candidate."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike
from scipy import stats

from luthier.stats.units import as_scores, group_units, is_binary, is_scores, ratio_interval


@dataclass(frozen=True)
class Interval:
    """A mean with its interval.

    Attributes:
        estimate: the mean, None when there are no values.
        low, high: the interval, None when undefined.
        n: values behind it.
        method: `wilson`, `bca`, `cluster_bca` or `exact` (see `units.ratio_interval`); None when undefined.
        reason: why something is None.
    """

    estimate: float | None
    low: float | None
    high: float | None
    n: int
    method: str | None = None
    reason: str | None = None


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion, without continuity correction (Wilson 1927).

    Raises:
        ValueError: n is not positive, or successes do not lie in 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n and n >= 1, got {successes} of {n}")
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - reach
    high = 1.0 if successes == n else centre + reach
    return low, high


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval for a proportion: covers at least as often as stated (Clopper and Pearson 1934).

    Raises:
        ValueError: n is not positive, or successes do not lie in 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n and n >= 1, got {successes} of {n}")
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else float(stats.beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(stats.beta.isf(tail, successes + 1, n - successes))
    return low, high


def mean_interval(
    values: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of scores with an interval that is honest for small and one-sided samples.

    Right/wrong values get Wilson's interval, other values a BCa bootstrap. When some examples share
    a cluster, whole clusters are resampled, right/wrong or not. Values that are all equal (or clusters
    whose means are) never get a zero width: `units.ratio_interval` says what they get.

    Args:
        values: finite scores, shape (n,); unscored answers are left out by the caller.
        clusters: the source each example came from; None for an example of its own.
        confidence: two-sided, in (0, 1).
        seed: of the resampling; the same seed gives the same interval.
    """
    scores = as_scores(values)
    n = len(scores)
    if n == 0:
        return Interval(None, None, None, 0, reason="no scored examples")
    estimate = float(scores.mean())
    sums, sizes = group_units(scores, clusters)
    if len(sums) < 2:
        return Interval(estimate, None, None, n, reason=too_few(n))
    if is_binary(scores) and len(sums) == n:
        low, high = wilson(int(scores.sum()), n, confidence)
        return Interval(estimate, low, high, n, "wilson")
    bounds = (0.0, 1.0) if is_scores(scores) else None
    low_, high_, method = ratio_interval(sums, sizes, confidence=confidence, seed=seed, bounds=bounds)
    if low_ is None:
        return Interval(estimate, None, None, n, reason="all values are equal and their scale is unknown")
    name = "cluster_bca" if method == "bca" and len(sums) < n else method
    return Interval(estimate, low_, high_, n, name)


def too_few(n: int) -> str:
    """Why n examples in fewer than two clusters have no interval."""
    return "a single example says nothing about spread" if n == 1 else "all examples share one cluster"
