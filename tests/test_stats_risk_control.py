"""A threshold with a guarantee: the guarantee over many draws, adversarial ones among them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from luthier.stats import abstain, clopper_pearson, control_risk
from luthier.stats.risk_control import _last_rejected, _starts, examples_without_error, risk_p_values

Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
Risk = Callable[[float], float]


def test_no_error_by_hand() -> None:
    # 0.95^45 = 0.0994 <= 0.1 < 0.95^44
    assert examples_without_error(0.05, 0.9) == 45
    kept = control_risk([0.7] * 45, [1] * 45, risk=0.05)
    assert (kept.value, kept.coverage, kept.kept_risk, kept.method) == (0.7, 1.0, 0.0, "binomial")
    few = control_risk([0.7] * 44, [1] * 44, risk=0.05)
    assert few.value is None and "45 are needed" in (few.reason or "")
    assert control_risk([0.7] * 45, [1] * 44 + [0], risk=0.05).value is None
    assert json.loads(json.dumps(asdict(kept)))["value"] == 0.7


@pytest.mark.parametrize("errors", [4, 5, 9, 10])
def test_one_tie_is_clopper_pearson(errors: int) -> None:
    """With all confidences equal it answers all or nothing: all when the exact upper bound allows it."""
    upper = clopper_pearson(errors, 200, 0.8)[1]  # two-sided 80%: each end is one-sided 90%
    kept = control_risk([1.0] * 200, [0] * errors + [1] * (200 - errors), risk=0.05, level=0.9)
    assert (kept.value is not None) == (upper <= 0.05)


def test_the_lowest_threshold_is_found() -> None:
    # right above 0.5, wrong half of the time below: the threshold lies a little under 0.5
    f = np.linspace(0, 1, 401)
    y = np.where(f > 0.5, 1.0, np.arange(401) % 2)
    kept = control_risk(f, y, risk=0.1)
    assert kept.value is not None and 0.35 < kept.value < 0.5
    assert kept.coverage == pytest.approx((f >= kept.value).mean())
    assert kept.kept_risk == pytest.approx(1 - y[f >= kept.value].mean())
    assert control_risk(f[::-1], y[::-1], risk=0.1) == kept


def test_answers_of_one_source_are_no_evidence() -> None:
    f, y = np.full(300, 0.9), np.ones(300)
    assert control_risk(f, y, risk=0.05).value == 0.9
    clusters = np.repeat(np.arange(30), 10).tolist()
    grouped = control_risk(f, y, risk=0.05, clusters=clusters)
    assert (grouped.value, grouped.n) == (None, 30)


@pytest.mark.parametrize(
    ("ps", "last"),
    [
        ([0.06, 0.01, 0.06, 0.01], None),  # neither chain's half of 0.1 is enough
        ([0.06, 0.01, 0.04, 0.05], 3),  # the second chain alone
        ([0.04, 0.05, 0.09, 0.10], 3),  # the first arrives at the second and hands its half on
        ([0.04, 0.06, 0.08, 0.01], 0),  # the first fails on the way: its half is gone
        ([0.04, 0.06, 0.01, 0.20], 2),
    ],
)
def test_chains_by_hand(ps: list[float], last: int | None) -> None:
    assert _last_rejected(np.array(ps), np.array([1, 2, 3, 4]), [1, 3], 0.1) == last


def test_chains_start_where_they_can_reject() -> None:
    # 0.95^59 <= 0.05, which is half of delta
    assert _starts(1000, 0.05, 0.1) == [200, 500]
    assert _starts(100, 0.05, 0.1) == [59, 59]
    assert _starts(50, 0.05, 0.1) == [50, 50]


def test_a_tie_is_kept_whole() -> None:
    kept = control_risk([0.9] * 60 + [0.5] * 60, [1] * 60 + [0] * 60, risk=0.05)
    assert (kept.value, kept.coverage, kept.kept_risk) == (0.9, 0.5, 0.0)


def test_p_values() -> None:
    assert risk_p_values([3], [100], 0.05, graded=False)[0] == stats.binom.cdf(3, 100, 0.05)
    # graded, by hand: mean 0 of 20: exp(-20 h(0, 0.1)) = 0.9^20, under e 0.9^20
    assert risk_p_values([0.0], [20], 0.1, graded=True)[0] == pytest.approx(0.9**20)
    bentkus = np.e * stats.binom.cdf(3, 40, 0.25)
    hoeffding = np.exp(-40 * (0.0625 * np.log(0.25) + 0.9375 * np.log(0.9375 / 0.75)))
    assert risk_p_values([2.5], [40], 0.25, graded=True)[0] == pytest.approx(min(bentkus, hoeffding))
    assert risk_p_values([30.5], [40], 0.25, graded=True)[0] == 1.0


def test_abstain_measures_on_other_answers() -> None:
    measured = abstain([0.9, 0.8, 0.3, 0.2], [1, 0.5, 0, 0], 0.8)
    assert (measured.coverage.estimate, measured.risk.estimate) == (0.5, 0.25)
    nothing = abstain([0.1], [1], 0.8)
    assert nothing.risk.estimate is None and nothing.risk.reason
    assert abstain([0.9] * 4, [1] * 4, 0.5, clusters=["a"] * 4).risk.low is None


@pytest.mark.parametrize(
    ("f", "y", "risk"), [([0.5], [1, 0], 0.1), ([0.5], [2], 0.1), ([0.5], [1], 0.0), ([0.5], [1], 1.0)]
)
def test_nonsense_is_refused(f: list[float], y: list[float], risk: float) -> None:
    with pytest.raises(ValueError, match="expected as many"):
        control_risk(f, y, risk=risk)
    with pytest.raises(ValueError, match="cluster names"):
        control_risk([0.5, 0.6], [1, 0], risk=0.1, clusters=["a"])


def _informative(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    f = rng.random(n)
    return f, (rng.random(n) >= 0.2 * (1 - f)).astype(float)


def _tied(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(n, 0.8), (rng.random(n) >= 0.1001).astype(float)


def _misleading(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    f = rng.random(n)
    return f, (rng.random(n) >= 0.101 + 0.05 * f).astype(float)


def _graded(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.random(n), 1 - 0.5 * (rng.random(n) < 0.2002)


def _few_levels(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    level = rng.integers(0, 3, n)
    return level / 2, (rng.random(n) >= np.array([0.21, 0.121, 0.1001])[level]).astype(float)


@pytest.mark.parametrize("n", [30, 100, 300])
@pytest.mark.parametrize(
    ("draw", "true_risk"),
    [
        (_informative, lambda t: 0.1 * (1 - t)),  # the mean of 0.2 (1 - f) over f >= t
        (_tied, lambda _: 0.1001),
        (_misleading, lambda t: 0.101 + 0.025 * (1 + t)),
        (_graded, lambda _: 0.1001),
        (_few_levels, lambda _: 0.11),
    ],
)
def test_the_guarantee_holds(n: int, draw: Draw, true_risk: Risk) -> None:
    """A risk above the bound at most 10% of the time, plus 3 standard errors of the simulation."""
    asked = 0.05 if draw is _informative else 0.1
    rng = np.random.default_rng(n)
    repeats, broken = 600, 0
    for _ in range(repeats):
        value = control_risk(*draw(rng, n), risk=asked, level=0.9).value
        broken += value is not None and true_risk(value) > asked
    assert broken / repeats <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / repeats)


def test_the_guarantee_holds_with_clusters() -> None:
    """Every source is all right or all wrong, 11% of them wrong: naively the bound is broken too often."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(60), 5).tolist()
    broken = {"clustered": 0, "naive": 0}
    for repeat in range(400):
        y = np.repeat(rng.random(60) >= 0.11, 5).astype(float)
        f = np.repeat(rng.random(60), 5)
        broken["clustered"] += control_risk(f, y, risk=0.1, clusters=clusters, seed=repeat).value is not None
        broken["naive"] += control_risk(f, y, risk=0.1).value is not None
    assert broken["clustered"] / 400 <= 0.1 + 3 * np.sqrt(0.09 / 400)
    assert broken["naive"] / 400 > 0.2


def test_it_answers_most_when_it_can() -> None:
    rng = np.random.default_rng(1)
    coverages = []
    for _ in range(100):
        f = rng.random(500)
        y = (rng.random(500) >= 0.2 * (1 - f) ** 2).astype(float)  # risk of all: 6.7%
        coverages.append(control_risk(f, y, risk=0.1).coverage or 0.0)
    assert np.mean(coverages) > 0.95
