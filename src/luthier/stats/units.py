"""What is resampled: single examples, or clusters of examples that share a source.

Legend: n examples, G units; a unit is kept as its sum and its size, which is all that a mean, a
cluster bootstrap and a cluster sign flip need.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Bounds = tuple[float, float] | None

RESAMPLES = 9_999
BLOCK = 1_000_000  # numbers drawn at a time (8 MB), so that memory does not grow with n times RESAMPLES
FEW_UNITS = 50  # at 30 skewed units the bootstrap alone covers 92% instead of 95%
TOLERANCE = 1e-12  # sums of scores that differ by less are rounding


def as_scores(values: ArrayLike) -> Floats:
    """A vector of finite numbers, float64 of shape (n,).

    Raises:
        ValueError: it is not one-dimensional, or holds NaN, infinity or None (unscored answers are
            for the caller to drop, from both sides of a pair).
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(
            f"expected a vector of finite scores, got shape {array.shape}, some of it not finite"
        )
    return array


def is_binary(values: Floats) -> bool:
    """Whether every value is 0 or 1."""
    return bool(np.isin(values, (0.0, 1.0)).all())


def is_scores(values: Floats) -> bool:
    """Whether every value lies in [0, 1]."""
    return bool(((values >= 0) & (values <= 1)).all())


def group_units(values: Floats, clusters: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """Sums and sizes of the units, both of shape (G,).

    Args:
        values: shape (n,).
        clusters: one name per value; None as the whole, or as one name, means "a unit of its own".

    Raises:
        ValueError: there are not as many names as values.
    """
    if clusters is None:
        return values, np.ones_like(values)
    if len(clusters) != len(values):
        raise ValueError(f"got {len(clusters)} cluster names for {len(values)} values")
    rows = unit_rows(clusters, len(values))
    units = int(rows.max()) + 1 if len(rows) else 0
    sums = np.bincount(rows, weights=values, minlength=units).astype(np.float64)
    return sums, np.bincount(rows, minlength=units).astype(np.float64)


def unit_rows(clusters: Sequence[Hashable] | None, n: int) -> NDArray[np.intp]:
    """The unit that each of n examples belongs to, numbered in order of appearance, shape (n,)."""
    if clusters is None:
        return np.arange(n)
    index: dict[Any, int] = {}
    keys = ((position,) if name is None else (name, "named") for position, name in enumerate(clusters))
    return np.array([index.setdefault(key, len(index)) for key in keys], dtype=np.intp)


def ratio_interval(
    sums: Floats, sizes: Floats, *, confidence: float, seed: int, bounds: Bounds
) -> tuple[float | None, float | None, str]:
    """Interval of sum(sums) / sum(sizes) over at least two units, and the name of its method.

    - `bca`: the BCa bootstrap over units (Efron 1987). It is too narrow for few skewed units, so under
      50 of them the interval is widened to Student's t on the linearised ratio (G - 1 degrees of
      freedom) where that reaches further.
    - `exact`: all units have the same mean v, so no resampling shows any spread. The share q of units
      that differ from v is at most 1 - (alpha/2)^(1/G) (Clopper-Pearson for 0 in G; each end is a
      one-sided bound, 3.7/G for 95%); those could lie anywhere in `bounds`, so the interval is
      v - q (v - lowest) to v + q (highest - v). Without bounds it is undefined.

    Args:
        sums, sizes: shape (G,), G >= 2.
        bounds: lowest and highest possible value of one example, None when unbounded.
    """
    means = sums / sizes
    if np.ptp(means) <= TOLERANCE * max(1.0, float(np.abs(means).max())):
        if bounds is None:
            return None, None, "exact"
        v = float(means[0])
        q = 1.0 - ((1.0 - confidence) / 2.0) ** (1.0 / len(sums))
        return v - q * (v - bounds[0]), v + q * (bounds[1] - v), "exact"
    ends = [_bca(sums, sizes, confidence, seed)]
    if len(sums) < FEW_UNITS or not np.isfinite(ends[0]).all():
        ends.append(_student(sums, sizes, confidence))
    low = float(np.nanmin([end[0] for end in ends]))
    high = float(np.nanmax([end[1] for end in ends]))
    return (low, high, "bca") if bounds is None else (max(low, bounds[0]), min(high, bounds[1]), "bca")


def _bca(sums: Floats, sizes: Floats, confidence: float, seed: int) -> tuple[float, float]:
    def ratio(s: Floats, m: Floats, axis: int = -1) -> Any:
        return s.sum(axis=axis) / m.sum(axis=axis)

    interval = stats.bootstrap(
        (sums, sizes),
        ratio,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, BLOCK // len(sums)),
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _student(sums: Floats, sizes: Floats, confidence: float) -> tuple[float, float]:
    units = len(sums)
    ratio = sums.sum() / sizes.sum()
    residuals = sums - ratio * sizes
    error = np.sqrt(units / (units - 1) * (residuals**2).sum()) / sizes.sum()
    reach = stats.t.ppf(0.5 + confidence / 2, units - 1) * error
    return float(ratio - reach), float(ratio + reach)
