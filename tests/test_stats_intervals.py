"""Intervals: parity with statsmodels and scipy, coverage, and honesty where a sample shows no spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from luthier.stats import clopper_pearson, mean_interval, units, wilson


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_statsmodels(case: tuple[int, int]) -> None:
    successes, n = case
    expected = proportion_confint(successes, n, alpha=0.05, method="wilson")
    assert wilson(successes, n) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_clopper_pearson_equals_statsmodels(case: tuple[int, int]) -> None:
    successes, n = case
    expected = proportion_confint(successes, n, alpha=0.1, method="beta")
    assert clopper_pearson(successes, n, 0.9) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [30, 100, 300])
def test_coverage_of_proportions(n: int) -> None:
    """Summed over all outcomes: exact never under 95%, Wilson 95% on average over proportions."""
    shares = np.linspace(0.02, 0.98, 49)
    mass = stats.binom.pmf(np.arange(n + 1)[:, None], n, shares)
    ends = {f: np.array([f(k, n) for k in range(n + 1)]) for f in (wilson, clopper_pearson)}
    covered = {f: (mass * ((e[:, :1] <= shares) & (shares <= e[:, 1:]))).sum(axis=0) for f, e in ends.items()}
    assert covered[clopper_pearson].min() >= 0.95
    assert covered[wilson].mean() == pytest.approx(0.95, abs=0.006)


def test_wilson_by_hand() -> None:
    # 0 of n: the upper end is z^2 / (n + z^2) with z = 1.959964
    assert wilson(0, 10) == pytest.approx((0.0, 3.841459 / 13.841459), abs=1e-6)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    for interval in (wilson, clopper_pearson):
        with pytest.raises(ValueError, match="successes"):
            interval(successes, n)


def test_right_and_wrong_without_clusters_is_wilson() -> None:
    interval = mean_interval([1, 0, 1, 1, 0, 1, 1, 1])
    assert (interval.estimate, interval.n, interval.method) == (0.75, 8, "wilson")
    assert (interval.low, interval.high) == wilson(6, 8)


def test_scores_equal_scipys_bca() -> None:
    scores = np.random.default_rng(3).beta(5, 1, 60)
    rng = np.random.default_rng(11)
    expected = stats.bootstrap((scores,), np.mean, method="BCa", rng=rng).confidence_interval
    interval = mean_interval(scores, seed=5)
    assert interval.method == "bca"
    assert interval.low == pytest.approx(expected.low, abs=0.003)
    assert interval.high == pytest.approx(expected.high, abs=0.003)


def test_singleton_or_absent_clusters_change_nothing() -> None:
    scores = np.random.default_rng(0).random(40)
    plain = mean_interval(scores)
    assert mean_interval(scores, clusters=list(range(40))) == plain
    assert mean_interval(scores, clusters=[None] * 40) == plain


def test_few_units_are_at_least_as_wide_as_students_t() -> None:
    scores = np.array([0.2, 0.4, 0.5, 0.9, 0.3, 0.6])
    t = stats.ttest_1samp(scores, 0).confidence_interval(0.95)
    interval = mean_interval(scores)
    assert interval.low is not None and interval.high is not None
    assert interval.low <= t.low + 1e-12 and interval.high >= t.high - 1e-12


def test_identical_copies_in_a_cluster_count_once() -> None:
    scores = np.random.default_rng(1).random(40)
    once = mean_interval(scores)
    copies = mean_interval(np.repeat(scores, 5), clusters=np.repeat(np.arange(40), 5).tolist())
    assert copies.method == "cluster_bca"
    assert (copies.low, copies.high) == pytest.approx((once.low, once.high), abs=1e-9)
    naive = mean_interval(np.repeat(scores, 5))
    assert naive.high - naive.low < 0.6 * (copies.high - copies.low)  # type: ignore[operator]


def test_equal_scores_keep_a_width_by_hand() -> None:
    # 20 equal scores: at most q = 1 - 0.025^(1/20) = 0.168433 of them differ, by at most 0.5 each way
    interval = mean_interval([0.5] * 20)
    assert interval.method == "exact"
    assert (interval.low, interval.high) == pytest.approx((0.5 - 0.0842167, 0.5 + 0.0842167), abs=1e-6)


def test_equal_clusters_keep_a_width() -> None:
    # every cluster is half right, so resampling clusters shows no spread: G = 3, q = 1 - 0.025^(1/3)
    interval = mean_interval([1, 0, 1, 0, 1, 0], clusters=["a", "a", "b", "b", "c", "c"])
    q = 1 - 0.025 ** (1 / 3)
    assert (interval.low, interval.high) == pytest.approx((0.5 - q / 2, 0.5 + q / 2))


@pytest.mark.parametrize(
    ("values", "clusters", "reason"),
    [
        ([], None, "no scored examples"),
        ([1.0], None, "a single example"),
        ([1.0, 0.0, 0.5], ["same"] * 3, "share one cluster"),
        ([3.5, 3.5, 3.5], None, "scale is unknown"),
    ],
)
def test_undefined_is_none_with_a_reason(
    values: list[float], clusters: list[str] | None, reason: str
) -> None:
    interval = mean_interval(values, clusters=clusters)
    assert interval.low is None and interval.high is None
    assert interval.reason is not None and reason in interval.reason
    assert interval.estimate == (pytest.approx(np.mean(values)) if values else None)


@pytest.mark.parametrize("bad", [[0.1, float("nan")], [1.0, None], [[0.1], [0.2]]])
def test_unscored_values_are_refused(bad: list[object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        mean_interval(bad)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.integers(0, 3))
def test_scores_stay_on_their_scale(scores: list[float], groups: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "RESAMPLES", 99)
        clusters = [i % (groups + 1) for i in range(len(scores))] if groups else None
        interval = mean_interval(scores, clusters=clusters)
    if interval.low is None or interval.high is None:
        assert interval.reason
        return
    assert 0 <= interval.low < interval.high <= 1
    assert interval.low - 1e-12 <= interval.estimate <= interval.high + 1e-12  # type: ignore[operator]


@pytest.mark.parametrize(("n", "least"), [(12, 0.88), (30, 0.88), (100, 0.91)])
def test_coverage_of_skewed_scores(monkeypatch: pytest.MonkeyPatch, n: int, least: float) -> None:
    """Beta(5, 1), mean 5/6: nominal 95%, less what is known to be lost to skew, less 2.5 standard errors."""
    monkeypatch.setattr(units, "RESAMPLES", 999)
    rng = np.random.default_rng(n)
    inside = 0
    for repeat in range(300):
        interval = mean_interval(rng.beta(5, 1, n), seed=repeat)
        assert interval.low is not None and interval.high is not None
        inside += interval.low <= 5 / 6 <= interval.high
    assert least <= inside / 300 <= 0.985


def test_coverage_with_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """30 clusters of 8 with within-cluster correlation 0.7: clustered covers, naive does not."""
    monkeypatch.setattr(units, "RESAMPLES", 399)
    rng = np.random.default_rng(7)
    clusters = np.repeat(np.arange(30), 8).tolist()
    covered = {"clustered": 0, "naive": 0}
    for repeat in range(200):
        shared = np.repeat(rng.normal(0, np.sqrt(0.7), 30), 8)
        values = shared + rng.normal(0, np.sqrt(0.3), 240)
        for name, groups in (("clustered", clusters), ("naive", None)):
            interval = mean_interval(values, clusters=groups, seed=repeat)
            assert interval.low is not None and interval.high is not None
            covered[name] += interval.low <= 0 <= interval.high
    assert covered["clustered"] / 200 >= 0.90
    assert covered["naive"] / 200 <= 0.75
