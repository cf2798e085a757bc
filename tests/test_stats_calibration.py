"""Calibration: parity with scikit-learn, the smooth error by its definition, temperature, simulation."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize
from sklearn.metrics import brier_score_loss, log_loss

from luthier.stats import (
    Interval,
    calibration,
    fit_temperature,
    measure_calibration,
    scale_confidence,
    smooth_calibration_error,
)
from luthier.stats.calibration import COSTLIEST, FLOOR


def _draw(n: int, seed: int, power: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and answers right with probability confidence ** power."""
    rng = np.random.default_rng(seed)
    f = rng.beta(4, 1.5, n)
    return f, (rng.random(n) < f**power).astype(float)


def test_brier_and_nll_equal_scikit_learn() -> None:
    f, y = _draw(200, 0)
    result = measure_calibration(f, y)
    assert result.brier.estimate == pytest.approx(brier_score_loss(y, f))
    assert result.nll.estimate == pytest.approx(log_loss(y, f))
    assert (result.confidence, result.score) == pytest.approx((f.mean(), y.mean()))
    for interval in (result.brier, result.nll, result.smooth_ece):
        assert interval.low < interval.estimate < interval.high  # type: ignore[operator]


def test_by_hand() -> None:
    result = measure_calibration([0.9, 0.6, 0.8], [1, 0, 1])
    assert result.brier.estimate == pytest.approx((0.01 + 0.36 + 0.04) / 3)
    assert result.nll.estimate == pytest.approx(-(math.log(0.9) + math.log(0.4) + math.log(0.8)) / 3)


def test_certain_and_wrong_costs_a_finite_amount() -> None:
    result = measure_calibration([1.0, 1.0, 0.5], [0, 1, 1])
    assert result.nll.estimate == pytest.approx((COSTLIEST - math.log1p(-FLOOR) + math.log(2)) / 3)
    assert result.nll.high is not None and result.nll.high > 1  # nats are not cut off at 1


@pytest.mark.parametrize(("n", "seed", "power"), [(20, 1, 1.0), (200, 2, 3.0), (200, 3, 0.3)])
def test_smooth_error_by_its_definition(n: int, seed: int, power: float) -> None:
    """Sums over reflected Gaussians and a quadrature, instead of cosines."""
    f, y = _draw(n, seed, power)
    t = np.linspace(0, 1, 1001)

    def error(width: float) -> float:
        images = np.concatenate([f + 2 * k for k in range(-3, 4)] + [2 * k - f for k in range(-3, 4)])
        kernel = np.exp(-0.5 * ((t[:, None] - images) / width) ** 2) / (width * math.sqrt(2 * math.pi))
        return float(integrate.trapezoid(np.abs(kernel @ np.tile(f - y, 14) / n), t))

    expected = optimize.brentq(lambda width: error(width) - width, 0.005, 1.0, xtol=1e-5)
    assert smooth_calibration_error(f, y) == pytest.approx(expected, abs=2e-4)


def test_one_confidence_is_its_gap() -> None:
    # a single point of mass m: smoothing keeps the mass, so the error is m at every width
    assert smooth_calibration_error([0.9] * 10, [1] * 6 + [0] * 4) == pytest.approx(0.3, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_smooth_error_is_at_least_the_mean_gap_and_mirrors(rows: list[tuple[float, float]]) -> None:
    f, y = np.array(rows).T
    error = smooth_calibration_error(f, y)
    assert error is not None
    assert abs((f - y).mean()) - 1e-6 <= error <= np.abs(f - y).mean() + 1e-6
    assert smooth_calibration_error(1 - f, 1 - y) == pytest.approx(error, abs=1e-6)


def test_smooth_error_tells_calibrated_from_not() -> None:
    f, y = _draw(2000, 4)
    good, bad = measure_calibration(f, y), measure_calibration(np.sqrt(f), y)
    assert good.p is not None and bad.p is not None
    assert good.p > 0.05 and bad.p == 1 / 500
    assert bad.smooth_ece.low > 0.02 > good.smooth_ece.low  # type: ignore[operator]
    assert good.by_chance == pytest.approx(good.smooth_ece.estimate, abs=0.02)


def test_sure_and_always_right_keeps_a_width() -> None:
    # 60 answers: a share 1 - 0.05^(1/60) of residuals of 0.99 more may have been missed
    result = measure_calibration([0.99] * 60, [1] * 60)
    reach = (1 - 0.05 ** (1 / 60)) * 0.99
    assert result.smooth_ece.high == pytest.approx(0.01 + reach, abs=1e-6)
    assert result.smooth_ece.low == 0.0


def test_copies_in_a_cluster_are_no_evidence() -> None:
    f, y = _draw(40, 5)
    clusters = np.repeat(np.arange(40), 5).tolist()
    once = measure_calibration(f, y)
    copied = measure_calibration(np.repeat(f, 5), np.repeat(y, 5), clusters=clusters)
    assert copied.smooth_ece.high == pytest.approx(once.smooth_ece.high)
    assert copied.p == once.p
    naive = measure_calibration(np.repeat(f, 5), np.repeat(y, 5))
    assert naive.by_chance < 0.6 * once.by_chance  # type: ignore[operator]


def test_undefined_is_none_with_a_reason() -> None:
    empty = measure_calibration([], [])
    assert (empty.n, empty.confidence, empty.p, empty.smooth_ece.estimate) == (0, None, None, None)
    assert empty.reason == "no scored examples"
    alone = measure_calibration([0.5, 0.7], [1, 0], clusters=["a", "a"])
    assert alone.p is None and alone.smooth_ece.low is None and "cluster" in (alone.reason or "")
    assert smooth_calibration_error([], []) is None
    assert json.loads(json.dumps(asdict(alone)))["smooth_ece"]["high"] is None
    for f, y in (([0.5], [1, 0]), ([1.5], [1]), ([0.5], [2])):
        with pytest.raises(ValueError, match="confidences"):
            measure_calibration(f, y)


def test_temperature_minimises_the_likelihood() -> None:
    f, y = _draw(3000, 6)
    sharp = scale_confidence(f, 0.5)
    fitted = fit_temperature(sharp, y)
    assert fitted.value == pytest.approx(2.0, rel=0.15)
    best = optimize.minimize_scalar(
        lambda t: log_loss(y, scale_confidence(sharp, t)), bounds=(0.1, 10), method="bounded"
    )
    assert fitted.value == pytest.approx(best.x, rel=1e-3)
    assert fitted.nll_after == pytest.approx(best.fun)
    assert fitted.nll_before == pytest.approx(log_loss(y, sharp))
    assert fitted.nll_after < fitted.nll_before  # type: ignore[operator]


def test_scaling_by_hand() -> None:
    # log-odds of 0.8 are ln 4; halved they are ln 2
    assert scale_confidence([0.8, 0.5, 0.2], 2.0) == pytest.approx([2 / 3, 0.5, 1 / 3])
    with pytest.raises(ValueError, match="positive temperature"):
        scale_confidence([0.5], 0.0)


@pytest.mark.parametrize(
    ("f", "y", "reason"),
    [
        ([], [], "no scored"),
        ([0.9, 0.8], [1, 1], "right"),
        ([0.9, 0.8], [0, 0], "wrong"),
        ([0.9, 0.1], [0, 1], "does not go with"),
        ([0.9, 0.1], [1, 0], "without error"),
    ],
)
def test_no_temperature_with_a_reason(f: list[float], y: list[float], reason: str) -> None:
    fitted = fit_temperature(f, y)
    assert fitted.value is None and reason in (fitted.reason or "")


@pytest.mark.parametrize("n", [30, 100, 300])
@pytest.mark.parametrize("clustered", [False, True])
def test_calibrated_confidences_are_rarely_called_otherwise(
    monkeypatch: pytest.MonkeyPatch, n: int, clustered: bool
) -> None:
    """p <= 0.05 at most 5% of the time, plus 3 standard errors."""
    for name, small in (("DRAWS", 79), ("CELLS", 128), ("HALVINGS", 10)):
        monkeypatch.setattr(calibration, name, small)
    unasked = Interval(None, None, None, 0)  # only p is looked at
    monkeypatch.setattr(calibration, "mean_interval", lambda *_, **__: unasked)
    rng = np.random.default_rng(n)
    repeats, rejected = (300 if n < 300 else 150), 0
    size = 5 if clustered else 1
    clusters = np.repeat(np.arange(n // size), size).tolist()
    for repeat in range(repeats):
        f = np.repeat(rng.beta(3, 2, n // size), size)
        y = np.repeat(rng.random(n // size), size) < f  # one source, one fate
        p = measure_calibration(f, y.astype(float), clusters=clusters, seed=repeat).p
        rejected += p is not None and p <= 0.05
    assert rejected / repeats <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)
