"""What abstaining buys: the risk of the answers kept when the least confident are handed to a person.

Legend: n answers, sorted by falling confidence; loss = 1 - score, in [0, 1]; coverage = share of answers
kept; risk = mean loss of those; B resamples; answers of equal confidence form a tie and are kept or
handed over together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from luthier.stats.intervals import Interval, mean_interval, too_few
from luthier.stats.units import BLOCK, FEW_UNITS, TOLERANCE, Floats, as_scores, is_scores, unit_rows

RESAMPLES = 1_999
POINTS = 20


@dataclass(frozen=True)
class Point:
    """One place on a risk-coverage curve: keep the answers with at least this confidence.

    Attributes:
        threshold: the confidence.
        coverage, risk: of the answers kept; the interval of the risk is pointwise.
    """

    threshold: float
    coverage: float
    risk: Interval


@dataclass(frozen=True)
class RiskCoverage:
    """A risk-coverage curve.

    Attributes:
        points: up to 20 places of about equal steps in coverage, strictest first; the last keeps all.
        aurc: area under the curve over all coverages, with its interval.
        random: the area of a useless confidence, which is the risk of all answers.
        ideal: the area when every wrong answer came last.
    """

    points: list[Point]
    aurc: Interval
    random: float | None
    ideal: float | None


def risk_coverage(
    confidences: ArrayLike,
    scores: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> RiskCoverage:
    """The curve and its area (El-Yaniv and Wiener 2010; Geifman, Uziel and El-Yaniv 2019).

    Within a tie the order is taken as random, so the area is its exact expectation and depends on no
    order of the file. The interval of the area is a BCa bootstrap of whole units. It is
    descriptive: a threshold with a guarantee comes from `risk_control.control_risk`.

    Args:
        confidences, scores: of scored answers, shape (n,); scores in [0, 1].
        clusters: the source each example came from.
        level: of the intervals.
        seed: of the resampling.

    Raises:
        ValueError: lengths differ, confidences are not finite, or a score is not in [0, 1].
    """
    f, losses = _sorted(confidences, scores)
    n = len(f)
    if n == 0:
        return RiskCoverage([], Interval(None, None, None, 0, reason="no scored answers"), None, None)
    order = np.argsort(-as_scores(confidences), kind="stable")
    named = None if clusters is None else [clusters[i] for i in order]
    units = unit_rows(named, n)
    area = _area(losses, f)
    ones = np.ones((1, n))
    estimate = float(area(ones)[0])
    aurc = _area_interval(area, estimate, losses, units, level, seed)
    points = []
    for kept in _cuts(f):
        own = None if named is None else named[:kept]
        risk = mean_interval(losses[:kept], clusters=own, confidence=level, seed=seed)
        points.append(Point(float(f[kept - 1]), kept / n, risk))
    ideal = float(_area(np.sort(losses), -np.arange(n, dtype=np.float64))(ones)[0])
    return RiskCoverage(points, aurc, float(losses.mean()), ideal)


def _sorted(confidences: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    f, y = as_scores(confidences), as_scores(scores)
    if len(f) != len(y) or not is_scores(y):
        raise ValueError(f"expected as many confidences as scores in [0, 1]; got {len(f)} and {len(y)}")
    order = np.argsort(-f, kind="stable")
    return f[order], 1.0 - y[order]


def _cuts(f: Floats) -> list[int]:
    """Numbers of answers kept at the ends of ties, nearest to equal steps of coverage."""
    n = len(f)
    ends = np.append(np.flatnonzero(f[:-1] > f[1:]) + 1, n)
    wanted = np.arange(1, POINTS + 1) * n / POINTS
    nearest = [int(ends[np.argmin(np.abs(ends - want))]) for want in wanted]
    return sorted({*nearest, n})


def _area(losses: Floats, f: Floats) -> Callable[[Floats], Floats]:
    """The area under the curve as a function of how often each answer was drawn.

    A tie of m answers with mean loss v, after k kept ones with summed loss L, adds the sum over
    i = 1..m of (L + i v) / (k + i) = v m + (L - k v) (H(k + m) - H(k)), with harmonic numbers H.
    """
    starts = np.append(0, np.flatnonzero(f[:-1] > f[1:]) + 1)

    def area(counts: Floats) -> Floats:
        m = np.add.reduceat(counts, starts, axis=1)
        lost = np.add.reduceat(counts * losses, starts, axis=1)
        k, before = np.cumsum(m, axis=1) - m, np.cumsum(lost, axis=1) - lost
        v = np.divide(lost, m, out=np.zeros_like(lost), where=m > 0)
        harmonic = special.digamma(k + m + 1) - special.digamma(k + 1)
        total: Floats = (v * m + (before - k * v) * harmonic).sum(axis=1) / counts.sum(axis=1)
        return total

    return area


def _area_interval(
    area: Callable[[Floats], Floats],
    estimate: float,
    losses: Floats,
    units: NDArray[np.intp],
    level: float,
    seed: int,
) -> Interval:
    n, count = len(losses), int(units.max()) + 1
    if count < 2:
        return Interval(estimate, None, None, n, reason=too_few(n))
    if np.ptp(losses) <= TOLERANCE:
        # at most a share q of units differs; ranked first, they cost q (1 - ln q) of the area
        q = 1.0 - ((1.0 - level) / 2.0) ** (1.0 / count)
        v, worst = float(losses[0]), q * (1.0 - math.log(q))
        return Interval(estimate, v - worst * v, v + worst * (1.0 - v), n, "exact")
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK // n)
    shares = np.full(count, 1.0 / count)
    draws = np.concatenate(
        [
            area(rng.multinomial(count, shares, size=min(block, RESAMPLES - start))[:, units].astype(float))
            for start in range(0, RESAMPLES, block)
        ]
    )
    without = np.concatenate(
        [
            area((units != np.arange(start, min(start + block, count))[:, None]).astype(float))
            for start in range(0, count, block)
        ]
    )
    low, high = _bca_ends(estimate, draws, without, level)
    if count < FEW_UNITS:
        error = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
        reach = float(stats.t.ppf(0.5 + level / 2, count - 1)) * error
        low, high = min(low, estimate - reach), max(high, estimate + reach)
    method = "bca" if count == n else "cluster_bca"
    return Interval(estimate, max(0.0, low), min(1.0, high), n, method)


def _bca_ends(estimate: float, draws: Floats, without: Floats, level: float) -> tuple[float, float]:
    """Efron's (1987) ends from resampled and leave-one-unit-out values."""
    below = ((draws < estimate).sum() + (draws <= estimate).sum()) / (2.0 * len(draws))
    share = min(max(float(below), 0.5 / len(draws)), 1 - 0.5 / len(draws))
    bias = float(special.ndtri(share))
    gaps = without.mean() - without
    spread = float((gaps**2).sum()) ** 1.5
    skew = float((gaps**3).sum()) / (6 * spread) if spread > 0 else 0.0
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        z = bias + float(special.ndtri(tail))
        ends.append(float(np.quantile(draws, special.ndtr(bias + z / (1 - skew * z)))))
    return ends[0], ends[1]
