"""Does a confidence of 0.8 mean right 8 times in 10: scores of calibration, and one temperature to mend it.

Legend: f confidence in [0, 1]; y score of the answer in [0, 1] (1 right, 0 wrong, graded in between);
n answers; M cells of the grid over [0, 1]; B rows worked on at once.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft, optimize, sparse

from luthier.stats.intervals import Interval, mean_interval, too_few
from luthier.stats.units import Floats, as_scores, is_scores, unit_rows

FLOOR = 1e-6  # confidences are kept this far from 0 and 1, so that no answer costs more than 13.8 nats
COSTLIEST = -math.log(FLOOR)
CELLS = 1_024  # 0.001 wide: far below any width at which a miscalibration can be seen
DRAWS = 499
HALVINGS = 24  # of the width in [0, 1]: to 6e-8
HOTTEST = 50.0


@dataclass(frozen=True)
class Calibration:
    """How far confidences are from how often the answers are right.

    Attributes:
        n: answers behind it.
        confidence, score: their means; their gap is over- or underconfidence in the large.
        brier: mean of (f - y)^2, with its interval.
        nll: mean negative log-likelihood of y under f, in nats, with its interval.
        smooth_ece: smooth calibration error with its interval, see `smooth_calibration_error`.
        by_chance: the smooth error that perfect calibration shows on average at this n.
        p: p-value of "perfectly calibrated"; None when undefined.
        reason: why something is None.
    """

    n: int
    confidence: float | None
    score: float | None
    brier: Interval
    nll: Interval
    smooth_ece: Interval
    by_chance: float | None
    p: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Temperature:
    """One temperature for confidences.

    Attributes:
        value: divides the log-odds of every confidence; above 1 makes them milder. None when no
            temperature helps or none can be told.
        nll_before, nll_after: mean negative log-likelihood on the answers it was fitted on, in nats.
        n: those answers.
        reason: why the value is None.
    """

    value: float | None
    nll_before: float | None
    nll_after: float | None
    n: int
    reason: str | None = None


def measure_calibration(
    confidences: ArrayLike,
    scores: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Calibration:
    """Brier score, negative log-likelihood and smooth calibration error, each with its interval.

    The interval of the smooth error comes from the wild bootstrap: residuals f - y whose signs are
    flipped (whole clusters together) show how large an error chance alone makes, q at `level`; the
    smooth error is subadditive, so the truth lies within q of the estimate. It is conservative. Where
    only small residuals were seen, q is at least the share of large ones that may have been missed.

    Args:
        confidences, scores: f and y of scored answers, shape (n,).
        clusters: the source each example came from.
        level: of the intervals.
        seed: of the resampling.

    Raises:
        ValueError: lengths differ, or a value is not in [0, 1].
    """
    f, y = _pairs(confidences, scores)
    n = len(f)
    brier = mean_interval((f - y) ** 2, clusters=clusters, confidence=level, seed=seed)
    nll = _in_nats(mean_interval(_nll(f, y) / COSTLIEST, clusters=clusters, confidence=level, seed=seed))
    if n == 0:
        none = Interval(None, None, None, 0, reason="no scored examples")
        return Calibration(0, None, None, brier, nll, none, None, None, none.reason)
    units = unit_rows(clusters, n)
    count = int(units.max()) + 1
    residuals = f - y
    estimate = float(_smooth_errors(_masses(f, residuals[None, :] / n))[0])
    means = float(f.mean()), float(y.mean())
    if count < 2:
        alone = Interval(estimate, None, None, n, reason=too_few(n))
        return Calibration(n, *means, brier, nll, alone, None, None, alone.reason)
    rng = np.random.default_rng(seed)
    signs = rng.integers(0, 2, size=(DRAWS, count), dtype=np.int8) * 2.0 - 1.0
    by_chance = np.concatenate(
        [_smooth_errors(_masses(f, block[:, units] * residuals / n)) for block in np.array_split(signs, 10)]
    )
    missed = (1.0 - (1.0 - level) ** (1.0 / count)) * (1.0 - float(np.abs(residuals).max()))
    reach = max(float(np.quantile(by_chance, level)), missed)
    smooth = Interval(estimate, max(0.0, estimate - reach), min(1.0, estimate + reach), n, "wild_bootstrap")
    p = float((1 + (by_chance >= estimate - 1e-9).sum()) / (DRAWS + 1))
    return Calibration(n, *means, brier, nll, smooth, float(by_chance.mean()), p)


def smooth_calibration_error(confidences: ArrayLike, scores: ArrayLike) -> float | None:
    """SmoothECE (smECE) of Blasiok and Nakkiran (2023, arXiv 2309.12236), a consistent calibration error.

    The residuals f - y are smoothed over [0, 1] by a Gaussian of width s, reflected at both ends; the
    error at that width is the integral of the absolute value. The error reported is the one width at
    which the two are equal, so no number of bins has to be chosen. A Gaussian reflected at both ends is
    diagonal in the cosine basis, so it is computed there, on a grid of 1,024 cells.

    Returns:
        A value in [0, 1], 0 for perfect calibration in the limit; None without answers.
    """
    f, y = _pairs(confidences, scores)
    if len(f) == 0:
        return None
    return float(_smooth_errors(_masses(f, (f - y)[None, :] / len(f)))[0])


def fit_temperature(confidences: ArrayLike, scores: ArrayLike) -> Temperature:
    """The temperature that minimises the negative log-likelihood (Guo et al. 2017), fitted on validation.

    Log-odds of the confidences are divided by it, so 1/2 stays 1/2 and the order of the answers stays;
    a bias on one side of 1/2 cannot be mended this way.

    Returns:
        A value of None, with the reason, when confidences do not go with being right (the best would
        be to ignore them), or when right and wrong are told apart without error (the best would be
        certainty), or without both right and wrong answers.
    """
    f, y = _pairs(confidences, scores)
    n = len(f)
    if n == 0:
        return Temperature(None, None, None, 0, "no scored answers")
    before = float(_nll(f, y).mean())
    if np.ptp(y) == 0 and y[0] in (0.0, 1.0):
        return Temperature(None, before, None, n, f"every answer is {'right' if y[0] else 'wrong'}")
    odds = _log_odds(f)

    def slope(sharpness: float) -> float:
        return float((odds * (_sigmoid(sharpness * odds) - y)).mean())

    if slope(1 / HOTTEST) >= 0:
        return Temperature(None, before, None, n, "confidence does not go with being right")
    if slope(HOTTEST) <= 0:
        return Temperature(None, before, None, n, "right and wrong are told apart without error")
    value = 1.0 / float(optimize.brentq(slope, 1 / HOTTEST, HOTTEST, xtol=1e-12))
    return Temperature(value, before, float(_nll(scale_confidence(f, value), y).mean()), n)


def scale_confidence(confidences: ArrayLike, temperature: float) -> Floats:
    """Confidences with their log-odds divided by a temperature, shape (n,).

    Raises:
        ValueError: the temperature is not positive, or a confidence is not in [0, 1].
    """
    f = as_scores(confidences)
    if temperature <= 0 or not is_scores(f):
        raise ValueError("expected a positive temperature and confidences in [0, 1]")
    return _sigmoid(_log_odds(f) / temperature)


def _pairs(confidences: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    f, y = as_scores(confidences), as_scores(scores)
    if len(f) != len(y) or not is_scores(f) or not is_scores(y):
        raise ValueError(f"expected as many confidences as scores, all in [0, 1]; got {len(f)} and {len(y)}")
    return f, y


def _nll(f: Floats, y: Floats) -> Floats:
    kept = np.clip(f, FLOOR, 1 - FLOOR)
    cost: Floats = -(y * np.log(kept) + (1 - y) * np.log1p(-kept))
    return cost


def _in_nats(interval: Interval) -> Interval:
    """From shares of the costliest answer, whose scale the interval knows, back to nats."""
    ends = (interval.estimate, interval.low, interval.high)
    estimate, low, high = (None if end is None else end * COSTLIEST for end in ends)
    return replace(interval, estimate=estimate, low=low, high=high)


def _log_odds(f: Floats) -> Floats:
    kept = np.clip(f, FLOOR, 1 - FLOOR)
    odds: Floats = np.log(kept) - np.log1p(-kept)
    return odds


def _sigmoid(odds: Floats) -> Floats:
    share: Floats = 0.5 * (1.0 + np.tanh(0.5 * odds))
    return share


def _masses(f: Floats, weights: Floats) -> Floats:
    """Weights of shape (B, n) laid on the grid, shared by the two nearest cells: shape (B, CELLS)."""
    place = np.clip(f * CELLS - 0.5, 0, CELLS - 1)
    left = np.minimum(place.astype(np.intp), CELLS - 2)
    shares = np.concatenate([left + 1 - place, place - left])
    rows = np.tile(np.arange(len(f)), 2)
    cells = sparse.csr_array((shares, (rows, np.concatenate([left, left + 1]))), shape=(len(f), CELLS))
    laid: Floats = weights @ cells
    return laid


def _smooth_errors(masses: Floats) -> Floats:
    """The width at which each row's smoothed absolute mass equals the width itself, shape (B,)."""
    waves = fft.dct(masses, type=2, norm="ortho", axis=1)
    decay = -0.5 * (np.pi * np.arange(CELLS)) ** 2
    low, high = np.zeros(len(masses)), np.ones(len(masses))
    for _ in range(HALVINGS):
        width = (low + high) / 2
        smoothed = fft.idct(waves * np.exp(decay * width[:, None] ** 2), type=2, norm="ortho", axis=1)
        above = np.abs(smoothed).sum(axis=1) > width
        low, high = np.where(above, width, low), np.where(above, high, width)
    middle: Floats = (low + high) / 2
    return middle
