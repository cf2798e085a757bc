"""Krippendorff's alpha: how far raters agree beyond what chance would give, whoever judged what.

Legend: U units, G clusters of units, K kinds of values, R resamples. O is the matrix of coincidences, (K, K):
every ordered pair of values that two raters gave one unit of m values counts 1 / (m - 1).

    alpha = 1 - D_o / D_e,  D_o = (n - trace O) / n,  D_e = (n^2 - sum of n_c^2) / (n (n - 1))

with n_c the row sums of O and n their sum (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability",
section C; the nominal metric).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from luthier.stats.units import (
    BLOCK,
    FEW_UNITS,
    RESAMPLES,
    TOLERANCE,
    Floats,
    ratio_interval,
    unit_rows,
)


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha: 1 for full agreement, 0 for what chance would give.

    Attributes:
        alpha: None when undefined: no unit has two values, or all values are the same.
        low, high: its interval, None when undefined.
        units: those with at least two values; `clusters`: how many sources these come from.
        reason: why something is None.
    """

    alpha: float | None
    low: float | None
    high: float | None
    units: int
    clusters: int
    reason: str | None = None


def krippendorff_alpha(
    units: Sequence[Sequence[Hashable]],
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Alpha:
    """Alpha of nominal values, with an interval that resamples clusters.

    The interval is BCa's; under 50 clusters it is widened to Student's t on the jackknife where that reaches
    further. Where all clusters agree to the same degree, as with full agreement, it is `exact` as in
    `units.ratio_interval`, with chance taken as it is.

    Args:
        units: the values that each unit was given, by as many raters as judged it.
        clusters: the source of each unit; None for a source of its own.
        confidence: two-sided, in (0, 1).
        seed: of the resampling.
    """
    kinds: dict[Hashable, int] = {}
    for values in units:
        for value in values:
            kinds.setdefault(value, len(kinds))
    judged = [place for place, values in enumerate(units) if len(values) > 1]
    if not judged:
        return Alpha(None, None, None, 0, 0, "nothing was judged twice")
    rows = unit_rows(None if clusters is None else [clusters[place] for place in judged], len(judged))
    tables = np.zeros((int(rows.max()) + 1, len(kinds), len(kinds)))
    for row, place in zip(rows, judged, strict=True):
        values = units[place]
        counts = np.bincount([kinds[value] for value in values], minlength=len(kinds)).astype(np.float64)
        tables[row] += (np.outer(counts, counts) - np.diag(counts)) / (len(values) - 1)
    found, size = len(judged), len(tables)
    estimate = float(_alphas(tables.sum(axis=0)))
    if not np.isfinite(estimate):
        reason = "all values are the same, so there is nothing to agree on beyond chance"
        return Alpha(None, None, None, found, size, reason)
    if size < 2:
        return Alpha(estimate, None, None, found, size, "a single source says nothing about spread")
    low, high = _interval(tables, estimate, confidence, seed)
    if low is None:
        return Alpha(estimate, None, None, found, size, "too few different values for an interval")
    return Alpha(estimate, low, high, found, size)


def _alphas(tables: Floats) -> Floats:
    """Alpha of each matrix of coincidences, (..., K, K) to (...); NaN where chance explains all."""
    n = tables.sum(axis=(-2, -1))
    observed = n - np.trace(tables, axis1=-2, axis2=-1)
    chance = _chance(tables)
    with np.errstate(divide="ignore", invalid="ignore"):
        alphas: Floats = np.where(chance > TOLERANCE, 1.0 - observed / n / chance, np.nan)
    return alphas


def _chance(tables: Floats) -> Floats:
    """The disagreement that chance would give, (..., K, K) to (...)."""
    n = tables.sum(axis=(-2, -1))
    squares = (tables.sum(axis=-1) ** 2).sum(axis=-1)
    chance: Floats = (n**2 - squares) / (n * (n - 1))
    return chance


def _interval(
    tables: Floats, estimate: float, confidence: float, seed: int
) -> tuple[float, float] | tuple[None, None]:
    sizes = tables.sum(axis=(1, 2))
    sums = sizes - np.trace(tables, axis1=1, axis2=2)
    if np.ptp(sums / sizes) <= TOLERANCE:
        least, most, _ = ratio_interval(sums, sizes, confidence=confidence, seed=seed, bounds=(0.0, 1.0))
        assert least is not None and most is not None
        chance = float(_chance(tables.sum(axis=0)))
        return 1.0 - most / chance, min(1.0, 1.0 - least / chance)
    drawn = _resample(tables, seed)
    left_out = _alphas(tables.sum(axis=0) - tables)
    drawn, left_out = drawn[np.isfinite(drawn)], left_out[np.isfinite(left_out)]
    if len(drawn) < RESAMPLES / 2 or len(left_out) < 2:
        return None, None
    ends = [_bca(drawn, left_out, estimate, confidence)]
    if len(tables) < FEW_UNITS:
        error = np.sqrt((len(left_out) - 1) * left_out.var())
        reach = stats.t.ppf(0.5 + confidence / 2, len(left_out) - 1) * error
        ends.append((estimate - reach, estimate + reach))
    return float(min(low for low, _ in ends)), float(min(1.0, max(high for _, high in ends)))


def _resample(tables: Floats, seed: int) -> Floats:
    """Alpha of R draws of G clusters, (R,)."""
    size, kinds = tables.shape[:2]
    flat = tables.reshape(size, kinds * kinds)
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK // size)
    parts = []
    for start in range(0, RESAMPLES, block):
        count = min(block, RESAMPLES - start)
        drawn = rng.integers(0, size, (count, size)) + size * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size)
        parts.append(_alphas((weights @ flat).reshape(-1, kinds, kinds)))
    return np.concatenate(parts)


def _bca(drawn: Floats, left_out: Floats, estimate: float, confidence: float) -> tuple[float, float]:
    """Ends of the bias-corrected and accelerated bootstrap (Efron 1987)."""
    below = (np.sum(drawn < estimate) + np.sum(drawn == estimate) / 2 + 0.5) / (len(drawn) + 1)
    bias = stats.norm.ppf(below)
    off = left_out.mean() - left_out
    spread = (off**2).sum()
    acceleration = (off**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    z = bias + stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    ends = np.quantile(drawn, stats.norm.cdf(bias + z / (1 - acceleration * z)))
    return float(ends[0]), float(ends[1])
