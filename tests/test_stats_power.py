"""Power: the numbers users are told, inverses, and agreement with simulation and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestPower

from luthier.stats import (
    design_effect,
    detectable_difference,
    detectable_loss,
    examples_needed,
    examples_to_rule_out,
    predicted_power,
)
from luthier.stats.paired import mcnemar_midp


@pytest.mark.parametrize(("difference", "n"), [(0.10, 155), (0.05, 626), (0.02, 3923), (-0.10, 155)])
def test_examples_needed_at_a_fifth_discordant(difference: float, n: int) -> None:
    # Connor by hand for 0.10: (1.95996 sqrt(0.2) + 0.84162 sqrt(0.2 - 0.01))^2 / 0.01 = 154.6
    assert examples_needed(difference) == n
    assert detectable_difference(n) == pytest.approx(abs(difference), rel=0.005)


@pytest.mark.parametrize(("discordant", "n"), [(0.05, 773), (0.10, 1546)])
def test_examples_to_rule_out_two_points(discordant: float, n: int) -> None:
    assert examples_to_rule_out(0.02, discordant=discordant) == n
    assert detectable_loss(n, discordant=discordant) == pytest.approx(0.02, rel=0.001)


@settings(deadline=None, max_examples=60)
@given(st.floats(0.02, 0.4), st.floats(0.05, 0.9), st.sampled_from([0.7, 0.8, 0.95]))
def test_right_wrong_inverse(difference: float, discordant: float, power: float) -> None:
    n = examples_needed(difference, discordant=discordant, power=power)
    assert n is not None
    share = max(discordant, difference)
    found = detectable_difference(n, discordant=share, power=power)
    assert found is not None and found <= difference + 1e-9
    if n > 3:
        fewer = detectable_difference(n - 1, discordant=share, power=power)
        assert fewer is None or fewer > difference - 1e-9


@pytest.mark.parametrize(("difference", "sd"), [(0.02, 0.2), (0.05, 0.3), (0.1, 0.25)])
def test_scores_agree_with_the_noncentral_t(difference: float, sd: float) -> None:
    expected = TTestPower().solve_power(effect_size=difference / sd, alpha=0.05, power=0.8)
    n = examples_needed(difference, sd=sd)
    assert n == pytest.approx(expected, abs=1.1)
    assert detectable_difference(n, sd=sd) == pytest.approx(difference, rel=0.02)  # type: ignore[arg-type]


def test_power_is_what_it_says() -> None:
    """155 examples, 15% gained and 5% lost: mid-p McNemar finds the 10 points about 80% of the time."""
    rng = np.random.default_rng(0)
    flips = rng.multinomial(155, [0.15, 0.05, 0.8], size=2000)
    found = np.mean([mcnemar_midp(int(g), int(lost)) <= 0.05 for g, lost, _ in flips])
    assert found == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("n", [100, pytest.param(300, marks=pytest.mark.slow)])
def test_predicted_power_is_what_happens(n: int) -> None:
    """Exactly for McNemar (all outcomes), by the noncentral t for scores."""
    gap = detectable_difference(n, discordant=0.3)
    assert gap is not None
    assert predicted_power(n, gap, discordant=0.3) == pytest.approx(0.8)
    gained = (0.3 + gap) / 2
    found = sum(
        stats.binom.pmf(flips, n, 0.3) * stats.binom.pmf(g, flips, gained / 0.3)
        for flips in range(n // 2)
        for g in range(flips + 1)
        if mcnemar_midp(g, flips - g) <= 0.05
    )
    assert found == pytest.approx(0.8, abs=0.02)
    expected = TTestPower().power(effect_size=0.25, nobs=n, alpha=0.05)
    assert predicted_power(n, -0.05, sd=0.2) == pytest.approx(expected, abs=0.01)


def test_predicted_power_when_all_differ() -> None:
    assert predicted_power(10, 1.0, discordant=1.0) == 1.0
    assert predicted_power(3, 1.0, discordant=1.0) == 0.0
    with pytest.raises(ValueError, match="two examples"):
        predicted_power(1, 0.1)


def test_design_effect_by_kish() -> None:
    """Clusters of m with correlation r: 1 + (m - 1) r; copies: m; none: 1."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(4000), 5).tolist()
    values = rng.normal(0, np.sqrt(0.4), 4000).repeat(5) + rng.normal(0, np.sqrt(0.6), 20_000)
    assert design_effect(values, clusters) == pytest.approx(1 + 4 * 0.4, rel=0.05)
    assert design_effect(values, None) == pytest.approx(1.0)
    assert design_effect(values[::5].repeat(5), clusters) == pytest.approx(5.0, rel=0.001)
    assert design_effect([1.0, 0.0], ["a", "a"]) is None
    assert design_effect([0.5] * 4, None) is None


def test_what_is_impossible_is_none() -> None:
    assert examples_needed(0.0) is None
    assert detectable_difference(10) is None  # even 20 points of 20% discordant would go unseen
    assert detectable_difference(1, sd=0.1) is None
    assert detectable_loss(1) is None


def test_a_difference_needs_as_much_disagreement() -> None:
    assert examples_needed(0.3, discordant=0.2) == examples_needed(0.3, discordant=0.3)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="discordant"):
        examples_needed(0.1, discordant=0)
    with pytest.raises(ValueError, match="positive loss"):
        examples_to_rule_out(0)
