"""What would twice as many examples bring: a power law through scores at several training sizes.

    error(n) = b n^-c,   error = 1 - score

Errors of learners fall as a power of the number of examples over wide ranges (Hestness et al. 2017,
arXiv 1712.00409). With a few points near each other the law is a description, not a proof: the interval
covers the choice of test examples, not another seed of training, and says so by being wide.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from luthier.stats.units import Floats, unit_rows

RESAMPLES = 1_999
FLOOR = 1e-3  # an error of 0 has no logarithm
LEAST_UNITS = 10


@dataclass(frozen=True)
class Extrapolation:
    """The gain expected from `times` as many examples.

    Attributes:
        gain: in score, of the fitted law; None when undefined.
        low, high: its interval over test examples (percentile bootstrap).
        exponent: c of the law; at or below 0 more examples did not help.
        reason: why something is None.
    """

    times: float
    gain: float | None
    low: float | None
    high: float | None
    exponent: float | None
    reason: str | None = None


def extrapolate(
    sizes: Sequence[int],
    scores: np.ndarray,
    *,
    times: float = 2.0,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Extrapolation:
    """Fit the law by least squares on logarithms, and ask it for `times` the largest size.

    Args:
        sizes: training examples of each point, shape (K,), K >= 2 different ones.
        scores: `[K, n]` in [0, 1], of the same n test examples at each size.
        clusters: the source each test example came from.
        level: of the interval.
        seed: of the resampling.

    Raises:
        ValueError: fewer than two sizes, or shapes that do not fit.
    """
    if len(set(sizes)) < 2 or scores.shape[0] != len(sizes) or min(sizes) < 1:
        raise ValueError(f"expected scores at two sizes or more, got {scores.shape} for {list(sizes)}")
    n = scores.shape[1]
    if n == 0:
        return Extrapolation(times, None, None, None, None, "no scored examples")
    logs = np.log(np.asarray(sizes, dtype=np.float64))
    gain, exponent = _gains(logs, scores.mean(1)[:, None], times)
    units = unit_rows(clusters, n)
    count = int(units.max()) + 1
    if count < LEAST_UNITS:
        reason = f"{count} independent test examples are too few for an interval"
        return Extrapolation(times, float(gain[0]), None, None, float(exponent[0]), reason)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)[:, units].astype(np.float64)
    means = scores @ draws.T / draws.sum(1)
    gains, _ = _gains(logs, means, times)
    low, high = np.quantile(gains, [(1 - level) / 2, (1 + level) / 2])
    return Extrapolation(times, float(gain[0]), float(low), float(high), float(exponent[0]))


def _gains(logs: Floats, means: Floats, times: float) -> tuple[Floats, Floats]:
    """Gain and exponent for each column of mean scores `[K, B]`."""
    heights = np.log(np.clip(1.0 - means, FLOOR, None))
    centred = logs - logs.mean()
    slopes = centred @ heights / (centred @ centred)
    at = heights.mean(0) + slopes * (logs.max() - logs.mean())
    gains = np.exp(at) - np.exp(at + slopes * np.log(times))
    return gains, -slopes
