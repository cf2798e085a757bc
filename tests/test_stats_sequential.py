"""Looks at a growing test set: published boundaries, alpha kept, power, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from luthier.stats import plan_looks
from luthier.stats.paired import mcnemar_midp
from luthier.stats.sequential import BEYOND, crossing_probabilities, spend

FIFTHS = [0.2, 0.4, 0.6, 0.8, 1.0]


@pytest.mark.parametrize(
    ("spending", "published"),
    [
        # Lan-DeMets spending at 5 equal looks, two-sided 0.05 (Reboussin et al. 2000; R's ldbounds, gsDesign)
        ("obrien_fleming", [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]),
        ("pocock", [2.4380, 2.4268, 2.4101, 2.3966, 2.3859]),
    ],
)
def test_published_boundaries(spending: str, published: list[float]) -> None:
    looks = plan_looks([20, 40, 60, 80, 100], 100, spending=spending)  # type: ignore[arg-type]
    assert [look.z for look in looks] == pytest.approx(published, abs=2e-4)
    assert [look.p for look in looks] == pytest.approx(2 * stats.norm.sf(published), rel=2e-3)
    assert looks[-1].spent == 0.05


@pytest.mark.parametrize(
    ("bounds", "total"),
    [
        ([2.0401 * (1 / t) ** 0.5 for t in FIFTHS], 0.05),  # O'Brien and Fleming 1979, five looks
        ([2.4132] * 5, 0.05),  # Pocock 1977, five looks
        ([1.959964] * 5, 0.1417),  # Armitage, McPherson and Rowe 1969: looking five times at 0.05
    ],
)
def test_classic_designs(bounds: list[float], total: float) -> None:
    assert sum(crossing_probabilities(FIFTHS, bounds)) == pytest.approx(total, abs=3e-5)


def test_one_look_is_the_plain_test() -> None:
    (look,) = plan_looks([50], 50, alpha=0.1)
    assert (look.z, look.p) == pytest.approx((1.644854, 0.1), abs=1e-6)


@pytest.mark.parametrize("spending", ["obrien_fleming", "pocock"])
def test_uneven_looks_spend_what_is_allowed(spending: str) -> None:
    looks = plan_looks([7, 90, 91, 140, 200], 200, alpha=0.1, spending=spending)  # type: ignore[arg-type]
    crossed = crossing_probabilities([look.information for look in looks], [look.z for look in looks])
    assert np.cumsum(crossed) == pytest.approx([look.spent for look in looks], abs=1e-7)
    assert looks[1].spent == pytest.approx(spend(0.45, 0.1, spending))  # type: ignore[arg-type]


def test_a_later_look_changes_no_earlier_one() -> None:
    assert plan_looks([30, 60, 80], 100)[:2] == plan_looks([30, 60], 100)


def test_a_look_with_nothing_to_spend_stops_nothing() -> None:
    assert plan_looks([1, 100], 100)[0].z == BEYOND


def test_power_of_the_last_look_is_little_less() -> None:
    # drift z(0.975) + z(0.8) gives a single look 80%; O'Brien-Fleming at five looks costs about 1 point
    looks = plan_looks([20, 40, 60, 80, 100], 100)
    power = sum(crossing_probabilities(FIFTHS, [look.z for look in looks], drift=2.801585))
    assert 0.78 < power < 0.80
    assert crossing_probabilities([1.0], [1.959964], drift=2.801585)[0] == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize(
    ("counts", "planned", "alpha"),
    [([], 10, 0.05), ([0], 10, 0.05), ([5, 5], 10, 0.05), ([5, 11], 10, 0.05), ([5], 10, 1.0)],
)
def test_impossible_plans_are_refused(counts: list[int], planned: int, alpha: float) -> None:
    with pytest.raises(ValueError, match="expected counts"):
        plan_looks(counts, planned, alpha=alpha)
    with pytest.raises(ValueError, match=r"0\.1%"):
        plan_looks([5_000, 5_001], 10_000)


@pytest.mark.parametrize("spending", ["obrien_fleming", "pocock"])
@pytest.mark.parametrize("planned", [100, 300])
def test_five_looks_keep_alpha(planned: int, spending: str) -> None:
    """Right/wrong pairs without a difference, mid-p McNemar at each look; naive looks do not keep it."""
    counts = [planned * k // 5 for k in range(1, 6)]
    looks = plan_looks(counts, planned, spending=spending)  # type: ignore[arg-type]
    rng = np.random.default_rng(planned)
    repeats = 20_000
    new = rng.multinomial(planned // 5, [0.15, 0.15, 0.7], size=(repeats, 5))[:, :, :2].cumsum(axis=1)
    table = np.array([[mcnemar_midp(g, lost) for lost in range(90)] for g in range(90)])
    ps = table[new[:, :, 0], new[:, :, 1]]
    error = 3 * np.sqrt(0.05 * 0.95 / repeats)
    rejected = (ps <= [look.p for look in looks]).any(axis=1).mean()
    assert 0.03 <= rejected <= 0.05 + error
    assert (ps <= 0.05).any(axis=1).mean() > 0.11
