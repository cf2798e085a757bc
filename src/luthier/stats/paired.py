"""Two candidates on the same examples: the difference, its interval, and a test of no difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from luthier.stats.intervals import too_few
from luthier.stats.units import (
    BLOCK,
    RESAMPLES,
    TOLERANCE,
    Floats,
    as_scores,
    group_units,
    is_binary,
    is_scores,
    ratio_interval,
)

Test = Literal["mcnemar_midp", "paired_permutation"]
EXACT_UNITS = 13  # 2^13 = 8,192 sign patterns: up to here fewer than the Monte Carlo draws


@dataclass(frozen=True)
class Comparison:
    """A paired difference.

    Attributes:
        difference: mean of a minus mean of b, None without examples.
        low, high: its interval, None when undefined.
        p: two-sided p-value of "no difference", None when undefined.
        test: `mcnemar_midp` or `paired_permutation`.
        n: pairs behind it.
        method: of the interval: `tango`, `bca`, `cluster_bca` or `exact`; None when undefined.
        reason: why something is None.
    """

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    test: Test
    n: int
    method: str | None = None
    reason: str | None = None


def compare(
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    confidence: float = 0.95,
) -> Comparison:
    """Compare two candidates on the same examples.

    Right/wrong without clusters: mid-p McNemar (Fagerland et al. 2013) and Tango's score interval
    (Tango 1998). Anything else: sign flips of the differences, and a BCa bootstrap of their mean; with
    clusters, the signs of whole clusters are flipped and whole clusters resampled. The test and the
    interval are not inversions of each other, so they can disagree by a hair at the border.

    Two candidates that never differ have p = 1 and an interval around 0 that shrinks with n: Tango's
    for right/wrong, z^2 / (n + z^2), otherwise `exact` as in `units.ratio_interval`.

    Args:
        a, b: finite scores of the two candidates, shape (n,), example by example.
        clusters: the source each example came from; None for an example of its own.
        seed: of the resampling.
        confidence: two-sided, of the interval.

    Raises:
        ValueError: the lengths differ, or a value is not finite.
    """
    first, second = as_scores(a), as_scores(b)
    if len(first) != len(second):
        raise ValueError(f"expected pairs, got {len(first)} and {len(second)} scores")
    n = len(first)
    differences = first - second
    sums, sizes = group_units(differences, clusters)
    binary = is_binary(first) and is_binary(second) and len(sums) == n
    test: Test = "mcnemar_midp" if binary else "paired_permutation"
    if n == 0:
        return Comparison(None, None, None, None, test, 0, reason="no examples scored for both")
    difference = float(differences.mean())
    if len(sums) < 2:
        return Comparison(difference, None, None, None, test, n, reason=too_few(n))
    if binary:
        gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
        low, high = tango(gained, lost, n, confidence)
        return Comparison(difference, low, high, mcnemar_midp(gained, lost), test, n, "tango")
    bounds = (-1.0, 1.0) if is_scores(first) and is_scores(second) else None
    low_, high_, method = ratio_interval(sums, sizes, confidence=confidence, seed=seed, bounds=bounds)
    p = sign_flip_p(sums, seed=seed)
    if low_ is None:
        reason = "all differences are equal and their scale is unknown"
        return Comparison(difference, None, None, p, test, n, reason=reason)
    name = "cluster_bca" if method == "bca" and len(sums) < n else method
    return Comparison(difference, low_, high_, p, test, n, name)


def mcnemar_midp(gained: int, lost: int) -> float:
    """Two-sided mid-p McNemar test: pairs where only a, only b is right. No such pair gives 1."""
    flips, fewer = gained + lost, min(gained, lost)
    tail = 2.0 * float(stats.binom.cdf(fewer, flips, 0.5))
    return min(1.0, tail - float(stats.binom.pmf(fewer, flips, 0.5)))


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact McNemar test: never rejects a true "no difference" more often than alpha.

    The mid-p test is stronger and can exceed alpha by a hair at some n (5.3% at the most: Fagerland et al.
    2013); this one is for where that hair matters.
    """
    tail = float(stats.binom.cdf(min(gained, lost), gained + lost, 0.5))
    return min(1.0, 2.0 * tail)


def tango(gained: int, lost: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Tango's score interval for a paired difference of proportions, (gained - lost) / n.

    The ends are the differences d whose score statistic (gained - lost - n d) / sqrt(n (2 q + d (1 - d)))
    is +-z, with q the maximum-likelihood share of "only b right" under d (Tango 1998, Statistics in
    Medicine 17, eq. 25). Found as roots of the squared equation, which stays finite at d = +-1.
    """
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    estimate = (gained - lost) / n

    def excess(d: float) -> float:
        linear = -gained - lost + (2 * n - gained + lost) * d
        root = math.sqrt(max(0.0, linear**2 + 8 * n * lost * d * (1 - d)))
        q = (root - linear) / (4 * n)
        return (gained - lost - n * d) ** 2 - z * z * n * (2 * q + d * (1 - d))

    step = 1e-9  # off the estimate itself, where a sample without flips has a second root
    low = -1.0 if lost == n else _root(excess, -1.0, estimate - step)
    high = 1.0 if gained == n else _root(excess, estimate + step, 1.0)
    return low, high


def sign_flip_p(sums: Floats, *, seed: int = 0) -> float:
    """Two-sided p-value of "each unit's difference is as likely with the other sign".

    All sign patterns are counted when at most 13 units differ from zero; otherwise 9,999 random
    ones, and p = (count + 1) / (draws + 1) (Phipson and Smyth 2010), so it is never 0.

    Args:
        sums: summed difference of each unit, shape (G,).
    """
    moved = sums[np.abs(sums) > TOLERANCE]
    if len(moved) == 0:
        return 1.0
    threshold = abs(float(moved.sum())) - TOLERANCE * float(np.abs(moved).sum())
    if len(moved) <= EXACT_UNITS:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(moved))))
        return float((np.abs(signs @ moved) >= threshold).mean())
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK // len(moved))
    count = 0
    for start in range(0, RESAMPLES, block):
        shape = (min(block, RESAMPLES - start), len(moved))
        flips = rng.integers(0, 2, size=shape, dtype=np.int8).astype(np.float64) * 2 - 1
        count += int((np.abs(flips @ moved) >= threshold).sum())
    return (count + 1) / (RESAMPLES + 1)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment (Holm 1979), in the order given.

    A None is a test that could not be made: it stays None and does not count.
    """
    made = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    running = 0.0
    for rank, (p, i) in enumerate(made):
        running = max(running, min(1.0, (len(made) - rank) * p))
        adjusted[i] = running
    return adjusted


def one_sided_low(
    a: ArrayLike,
    b: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    confidence: float = 0.95,
) -> float | None:
    """One-sided lower bound of a minus b: the low end of the two-sided interval at 2 confidence - 1.

    None when `compare` gives no interval.
    """
    return compare(a, b, clusters=clusters, seed=seed, confidence=2 * confidence - 1).low


def non_inferior(low: float | None, margin: float) -> bool | None:
    """Whether a lower bound of a difference rules out a loss of `margin` or more.

    Args:
        low: from `one_sided_low`; None (undefined) gives None.
        margin: the largest loss that is still acceptable, positive, in score.
    """
    if margin <= 0:
        raise ValueError(f"expected a positive margin, got {margin}")
    return None if low is None else low > -margin


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    return float(optimize.brentq(function, low, high, xtol=1e-12))
