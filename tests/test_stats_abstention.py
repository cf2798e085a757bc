"""Risk-coverage curves: the area by its definition, ties, intervals by scipy and by simulation."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from luthier.stats import abstention, risk_coverage
from luthier.stats.abstention import _bca_ends


def _plain(f: np.ndarray, y: np.ndarray) -> float:
    losses = 1 - y[np.argsort(-f, kind="stable")]
    return float((np.cumsum(losses) / np.arange(1, len(y) + 1)).mean())


def test_by_hand() -> None:
    # losses in order 0, 1, 0, 1: risks 0, 1/2, 1/3, 1/2
    curve = risk_coverage([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0])
    assert curve.aurc.estimate == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert curve.random == 0.5
    assert curve.ideal == pytest.approx((1 / 3 + 1 / 2) / 4)
    assert [(p.threshold, p.coverage, p.risk.estimate) for p in curve.points] == [
        (0.9, 0.25, 0.0),
        (0.8, 0.5, 0.5),
        (0.7, 0.75, pytest.approx(1 / 3)),
        (0.6, 1.0, 0.5),
    ]
    assert json.loads(json.dumps(asdict(curve)))["random"] == 0.5


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.9]), st.floats(0, 1)), min_size=1, max_size=12))
def test_ties_are_the_mean_over_orders(rows: list[tuple[float, float]]) -> None:
    f, y = np.array(rows).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(abstention, "RESAMPLES", 9)
        area = risk_coverage(f, y).aurc.estimate
        backwards = risk_coverage(f[::-1], y[::-1]).aurc.estimate
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(f)) for _ in range(200)]
    means = [_plain(f[order], y[order]) for order in orders]
    assert area == pytest.approx(np.mean(means), abs=5 * np.std(means) / np.sqrt(200) + 1e-9)
    assert backwards == pytest.approx(area)


def test_one_tie_is_the_risk_of_all() -> None:
    curve = risk_coverage([0.5] * 8, [1, 1, 1, 0, 1, 1, 1, 0])
    assert curve.aurc.estimate == pytest.approx(0.25)
    assert [point.coverage for point in curve.points] == [1.0]


def test_interval_equals_scipys_bca() -> None:
    rng = np.random.default_rng(2)
    f = rng.random(80)
    y = (rng.random(80) < f).astype(float)
    expected = stats.bootstrap(
        (f, y), _plain, paired=True, vectorized=False, method="BCa", n_resamples=1999, rng=rng
    ).confidence_interval
    interval = risk_coverage(f, y).aurc
    assert interval.method == "bca"
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_ends_are_scipys_given_its_resamples() -> None:
    x = np.random.default_rng(4).exponential(size=40)
    expected = stats.bootstrap((x,), np.mean, method="BCa", rng=np.random.default_rng(0))
    without = (x.sum() - x) / 39
    ends = _bca_ends(float(x.mean()), expected.bootstrap_distribution, without, 0.95)
    assert ends == pytest.approx(tuple(expected.confidence_interval), rel=1e-9)


def test_copies_in_a_cluster_count_once() -> None:
    rng = np.random.default_rng(3)
    f, y = rng.random(60), (rng.random(60) < 0.8).astype(float)
    once = risk_coverage(f, y).aurc
    copied = risk_coverage(np.repeat(f, 4), np.repeat(y, 4), clusters=np.repeat(np.arange(60), 4).tolist())
    assert copied.aurc.method == "cluster_bca"
    assert copied.aurc.high - copied.aurc.low > 0.8 * (once.high - once.low)  # type: ignore[operator]
    naive = risk_coverage(np.repeat(f, 4), np.repeat(y, 4)).aurc
    assert naive.high - naive.low < 0.65 * (once.high - once.low)  # type: ignore[operator]


def test_no_error_keeps_a_width() -> None:
    interval = risk_coverage(np.linspace(0, 1, 50), [1] * 50).aurc
    q = 1 - 0.025 ** (1 / 50)
    assert (interval.estimate, interval.low, interval.method) == (0.0, 0.0, "exact")
    assert interval.high == pytest.approx(q * (1 - np.log(q)))


def test_undefined_and_refused() -> None:
    empty = risk_coverage([], [])
    assert (empty.points, empty.aurc.estimate, empty.random) == ([], None, None)
    assert risk_coverage([0.5, 0.4], [1, 0], clusters=["a", "a"]).aurc.low is None
    for f, y in (([0.5], [1, 0]), ([0.5], [1.5])):
        with pytest.raises(ValueError, match="scores in"):
            risk_coverage(f, y)


@pytest.mark.parametrize("n", [30, 100, 300])
def test_interval_covers(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """Right with probability equal to confidence, uniform: the risk at coverage c is c/2, the area 1/4."""
    monkeypatch.setattr(abstention, "RESAMPLES", 199)
    monkeypatch.setattr(abstention, "POINTS", 1)
    rng = np.random.default_rng(n)
    inside, repeats = 0, 100
    for repeat in range(repeats):
        f = rng.random(n)
        aurc = risk_coverage(f, (rng.random(n) < f).astype(float), seed=repeat).aurc
        inside += aurc.low <= 0.25 <= aurc.high  # type: ignore[operator]
    assert inside / repeats >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / repeats) - (0.02 if n == 30 else 0)
