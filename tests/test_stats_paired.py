"""Paired tests: parity with statsmodels and scipy, published numbers, size under the null, degenerates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from luthier.stats import compare, holm, non_inferior, one_sided_low, paired, units
from luthier.stats.paired import mcnemar_exact, mcnemar_midp, sign_flip_p, tango


def _pairs(both: int, gained: int, lost: int, neither: int) -> tuple[list[int], list[int]]:
    a = [1] * both + [1] * gained + [0] * lost + [0] * neither
    b = [1] * both + [0] * gained + [1] * lost + [0] * neither
    return a, b


@pytest.mark.parametrize(
    ("table", "p", "low", "high"),
    [
        # Bentur et al. 2009 and Cavo et al. 2012, as worked in Fagerland, Lydersen, Laake (2014, 2017)
        ((1, 1, 7, 12), 0.0391, -0.517, -0.026),
        ((59, 6, 16, 80), 0.034690, -0.1240, -0.0054),
    ],
)
def test_published_tables(table: tuple[int, int, int, int], p: float, low: float, high: float) -> None:
    result = compare(*_pairs(*table))
    assert (result.test, result.method, result.n) == ("mcnemar_midp", "tango", sum(table))
    assert result.difference == pytest.approx((table[1] - table[2]) / sum(table))
    assert result.p == pytest.approx(p, abs=5e-5)
    assert (result.low, result.high) == pytest.approx((low, high), abs=5e-4)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 40), st.integers(0, 40))
def test_midp_is_statsmodels_exact_less_half_the_double_point(gained: int, lost: int) -> None:
    exact = mcnemar([[0, gained], [lost, 0]], exact=True).pvalue if gained + lost else 1.0
    point = stats.binom.pmf(gained, gained + lost, 0.5)
    assert mcnemar_exact(gained, lost) == pytest.approx(exact, abs=1e-12)
    expected = 1.0 if gained == lost else exact - point
    assert mcnemar_midp(gained, lost) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 60))
def test_tango_inverts_the_score_test(gained: int, lost: int, same: int) -> None:
    """The likelihood under the bound is maximised numerically here, instead of by the formula."""
    n = gained + lost + same
    for bound in tango(gained, lost, n, 0.9):

        def loss(q: float, d: float = bound) -> float:
            shares = np.clip([q + d, q, 1 - 2 * q - d], 1e-300, 1)
            return -float(np.dot([gained, lost, same], np.log(shares)))

        lowest, highest = max(0.0, -bound), (1 - bound) / 2
        q = optimize.minimize_scalar(loss, bounds=(lowest, highest), options={"xatol": 1e-11}).x
        statistic = (gained - lost - n * bound) / np.sqrt(n * (2 * q + bound * (1 - bound)))
        assert abs(statistic) == pytest.approx(stats.norm.ppf(0.95), rel=1e-3)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_swapping_the_candidates_mirrors_everything(gained: int, lost: int, same: int) -> None:
    a, b = _pairs(same, gained, lost, 1)
    one, other = compare(a, b), compare(b, a)
    if one.low is None or other.high is None or one.high is None:
        return
    assert one.difference == pytest.approx(-other.difference)  # type: ignore[operator]
    assert one.low == pytest.approx(-other.high, abs=1e-9)
    assert one.p == pytest.approx(other.p)
    assert -1 <= one.low < one.high <= 1


def test_exact_sign_flips_equal_scipy() -> None:
    differences = np.random.default_rng(2).normal(0.3, 1, 11)
    exact = stats.permutation_test((differences,), np.sum, permutation_type="samples", n_resamples=5000)
    assert sign_flip_p(differences) == pytest.approx(exact.pvalue)
    with_ties = np.concatenate([differences, np.zeros(500)])
    assert sign_flip_p(with_ties) == sign_flip_p(differences)


def test_exact_sign_flips_by_hand() -> None:
    # 0.1, 0.2, 0.3: |sum| >= 0.6 for 2 of the 8 sign patterns; the rounding of 0.1 + 0.2 must not matter
    assert sign_flip_p(np.array([0.1, 0.2, 0.3])) == 0.25
    # all positive: only "all" and "none" are as extreme, in whatever order the sums are rounded
    for tenths in ([4, 8, 9, 2], [3, 7, 6, 6], [7, 3, 6, 2], [7, 9, 8, 5]):
        assert sign_flip_p(np.array(tenths) / 10) == 2 / 2**4
    # 0.1, 0.2, -0.3: the observed sum is 0, every pattern is at least as far from it
    assert sign_flip_p(np.array([0.1, 0.2, -0.3])) == 1.0


def test_monte_carlo_sign_flips_approach_the_exact_p(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(4).normal(0.5, 1, 12)
    exact = sign_flip_p(differences)
    monkeypatch.setattr(paired, "EXACT_UNITS", 0)
    monkeypatch.setattr(paired, "BLOCK", 1000)  # several blocks, the last of them short
    assert sign_flip_p(differences, seed=1) == pytest.approx(exact, abs=4 * np.sqrt(exact / 9999))
    assert sign_flip_p(np.ones(200)) == 1 / 10_000


def test_scores_use_permutation_and_bca() -> None:
    rng = np.random.default_rng(8)
    b = rng.random(60) * 0.8
    a = b + rng.random(60) * 0.2
    result = compare(a, b)
    assert (result.test, result.method) == ("paired_permutation", "bca")
    expected = stats.bootstrap(
        (a - b,), np.mean, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (result.low, result.high) == pytest.approx((expected.low, expected.high), abs=0.003)
    assert result.p == 1e-4


def test_clusters_flip_together() -> None:
    # three sources, each consistently better: 2 of 8 cluster sign patterns are as extreme
    a, b = [1] * 30, [0] * 30
    clusters = ["a"] * 10 + ["b"] * 10 + ["c"] * 10
    result = compare(a, b, clusters=clusters)
    assert (result.test, result.p) == ("paired_permutation", 0.25)
    assert compare(a, b).p == pytest.approx(0.5**30)


def test_singleton_clusters_are_no_clusters() -> None:
    a, b = _pairs(10, 6, 2, 3)
    assert compare(a, b, clusters=[None] * 21) == compare(a, b) == compare(a, b, clusters=list(range(21)))


def test_candidates_that_never_differ() -> None:
    same = [1, 0] * 50
    right_wrong = compare(same, same)
    assert (right_wrong.difference, right_wrong.p) == (0, 1)
    # Tango without flips: z^2 / (n + z^2)
    assert (right_wrong.low, right_wrong.high) == pytest.approx((-0.0369935, 0.0369935), abs=1e-6)
    scores = compare([0.5] * 100, [0.5] * 100)
    q = 1 - 0.025 ** (1 / 100)
    assert (scores.p, scores.method) == (1, "exact")
    assert (scores.low, scores.high) == pytest.approx((-q, q))
    clustered = compare(same, same, clusters=[i // 10 for i in range(100)])
    assert clustered.p == 1
    assert clustered.low == pytest.approx(-(1 - 0.025 ** (1 / 10)))


@pytest.mark.parametrize(("a", "b", "side"), [([1] * 5, [0] * 5, "high"), ([0] * 5, [1] * 5, "low")])
def test_every_pair_flips_one_way(a: list[int], b: list[int], side: str) -> None:
    result = compare(a, b)
    assert getattr(result, side) == result.difference == (1 if side == "high" else -1)
    assert result.p == pytest.approx(0.5**5)  # exact 2 * 0.5^5, less the point 0.5^5


@pytest.mark.parametrize(
    ("a", "b", "clusters", "reason"),
    [
        ([], [], None, "no examples"),
        ([1], [0], None, "a single example"),
        ([1, 1, 0], [0, 1, 1], [7, 7, 7], "share one cluster"),
    ],
)
def test_undefined_is_none_with_a_reason(
    a: list[int], b: list[int], clusters: list[int] | None, reason: str
) -> None:
    result = compare(a, b, clusters=clusters)
    assert result.low is None and result.high is None and result.p is None
    assert result.reason is not None and reason in result.reason
    assert one_sided_low(a, b, clusters=clusters) is None


def test_equal_differences_off_the_scale_have_no_interval() -> None:
    result = compare([5.0] * 4, [3.0] * 4)
    assert (result.difference, result.low, result.p) == (2.0, None, 0.125)
    assert result.reason is not None and "scale" in result.reason


def test_lengths_must_match() -> None:
    with pytest.raises(ValueError, match="3 and 2"):
        compare([1, 0, 1], [1, 0])
    with pytest.raises(ValueError, match="cluster names"):
        compare([1, 0], [1, 0], clusters=["a"])


@pytest.mark.parametrize("n", [30, 100, 300])
def test_exact_size_of_mcnemar(n: int) -> None:
    """Summed over all numbers of flips: mid-p exceeds 5% by a hair at most, exact never."""
    size = {mcnemar_midp: np.zeros(n + 1), mcnemar_exact: np.zeros(n + 1)}
    for test, given_flips in size.items():
        tail = 0
        for flips in range(n + 1):
            # the p-value grows towards the middle, so the rejected outcomes are two equal tails,
            # and no tail is shorter than with fewer flips
            while 2 * tail < flips and test(tail, flips - tail) <= 0.05:
                tail += 1
            given_flips[flips] = 2 * stats.binom.cdf(tail - 1, flips, 0.5)
    shares = np.linspace(0.02, 0.9, 45)
    mass = stats.binom.pmf(np.arange(n + 1)[:, None], n, shares)
    midp, exact = ((mass * given[:, None]).sum(axis=0) for given in size.values())
    assert exact.max() <= 0.05
    assert 0.045 < midp.max() <= 0.053


@pytest.mark.parametrize("n", [30, 100, 300])
@pytest.mark.parametrize("size", [1, 5])
def test_size_of_sign_flips(monkeypatch: pytest.MonkeyPatch, n: int, size: int) -> None:
    """Skewed and correlated within sources of 5: at most 5% rejections, plus 3 standard errors."""
    monkeypatch.setattr(paired, "RESAMPLES", 199)
    rng = np.random.default_rng(n + size)
    clusters = np.repeat(np.arange(n // size), size).tolist()
    repeats = 1000
    shared = rng.beta(2, 5, (2, repeats, n // size)).repeat(size, axis=2) ** (1 + rng.random((2, repeats, n)))
    differences = shared[0] - shared[1]
    sums = [units.group_units(row, clusters)[0] for row in differences]
    rejected = np.mean([sign_flip_p(row, seed=i) <= 0.05 for i, row in enumerate(sums)])
    assert 0.02 <= rejected <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)


@pytest.mark.parametrize("n", [30, 100])
@pytest.mark.parametrize("kind", ["right_wrong", "scores"])
def test_size_under_the_null(monkeypatch: pytest.MonkeyPatch, n: int, kind: str) -> None:
    """No true difference: at most 5% rejections, plus 2.5 standard errors; not absurdly few either."""
    monkeypatch.setattr(paired, "RESAMPLES", 499)
    monkeypatch.setattr(units, "RESAMPLES", 99)
    rng = np.random.default_rng(n)
    repeats, rejected = 400, 0
    for repeat in range(repeats):
        a, b = rng.random((2, n)) if kind == "scores" else rng.random((2, n)) < 0.7
        p = compare(a, b, seed=repeat).p
        rejected += p is not None and p <= 0.05
    assert 0.01 <= rejected / repeats <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / repeats)


def test_size_under_the_null_with_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 sources of 10 with correlated differences: naive rejects far too often, clustered does not."""
    monkeypatch.setattr(paired, "RESAMPLES", 499)
    monkeypatch.setattr(units, "RESAMPLES", 99)
    rng = np.random.default_rng(5)
    clusters = np.repeat(np.arange(20), 10).tolist()
    rejected = {"clustered": 0, "naive": 0}
    for repeat in range(200):
        a = np.repeat(rng.normal(0, 0.84, 20), 10) + rng.normal(0, 0.55, 200)
        rejected["clustered"] += (compare(a, np.zeros(200), clusters=clusters, seed=repeat).p or 0) <= 0.05
        rejected["naive"] += (compare(a, np.zeros(200), seed=repeat).p or 0) <= 0.05
    assert rejected["clustered"] / 200 <= 0.09
    assert rejected["naive"] / 200 >= 0.3


def test_coverage_of_tango_at_small_n() -> None:
    """n = 30, true difference 0.2 of 0.1 + 0.3 flips: exact coverage, summed over all outcomes."""
    covered = 0.0
    for gained in range(31):
        for lost in range(31 - gained):
            low, high = tango(gained, lost, 30)
            if low <= 0.2 <= high:
                covered += stats.multinomial.pmf([gained, lost, 30 - gained - lost], 30, [0.3, 0.1, 0.6])
    assert 0.94 <= covered <= 0.97


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_equals_statsmodels(ps: list[float]) -> None:
    expected = multipletests(ps, method="holm")[1] if ps else []
    assert holm(ps) == pytest.approx(list(expected))


def test_holm_by_hand() -> None:
    # sorted 0.01 x 3, 0.02 x 2, 0.04 x 1; the step-down maximum keeps 0.04; None does not count
    assert holm([0.04, None, 0.01, 0.02]) == [0.04, None, pytest.approx(0.03), 0.04]
    assert holm([None]) == [None]


def test_one_sided_bound_is_the_low_end_of_the_90_percent_interval() -> None:
    a, b = _pairs(50, 5, 8, 20)
    low = one_sided_low(a, b)
    assert low == compare(a, b, confidence=0.9).low == tango(5, 8, 83, 0.9)[0]
    assert low > compare(a, b).low  # type: ignore[operator]


def test_no_loss_in_300_rules_out_one_percent() -> None:
    # the rule of three: 1 - 0.05^(1/300) = 0.00994
    scores = [0.5] * 300
    assert one_sided_low(scores, scores) == pytest.approx(-0.00994, abs=1e-5)
    assert non_inferior(one_sided_low(scores, scores), 0.01) is True
    assert non_inferior(one_sided_low(scores[:200], scores[:200]), 0.01) is False


def test_non_inferior_of_the_undefined_is_undefined() -> None:
    assert non_inferior(None, 0.02) is None
    with pytest.raises(ValueError, match="positive margin"):
        non_inferior(0.1, 0)


def test_same_seed_same_answer() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(50), rng.random(50)
    assert compare(a, b, seed=3) == compare(a, b, seed=3)
    assert compare(a, b, seed=3).low != compare(a, b, seed=4).low
    assert compare(a, b, seed=3).p != compare(a, b, seed=4).p
