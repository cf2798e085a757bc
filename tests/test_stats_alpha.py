"""Krippendorff's alpha: his own examples, what it must not depend on, and how often its interval is right."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.stats.alpha import krippendorff_alpha

FOUR_OBSERVERS = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]


def columns(*rows: str) -> list[list[str]]:
    """Units as lists of values, from a row of characters for each rater; a dot is no value."""
    return [[value for value in values if value != "."] for values in zip(*rows, strict=True)]


def test_the_examples_of_krippendorff_2011() -> None:
    binary = columns("0100000010", "1110010000")  # section A
    assert krippendorff_alpha(binary).alpha == pytest.approx(0.095, abs=5e-4)
    ben_and_gerry = columns("aabbdcccedda", "babbbccceddd")  # section B
    assert krippendorff_alpha(ben_and_gerry).alpha == pytest.approx(0.692, abs=5e-4)
    found = krippendorff_alpha(columns(*FOUR_OBSERVERS))
    assert found.alpha == pytest.approx(0.743, abs=5e-4)  # section C
    assert (found.units, found.clusters) == (11, 11)  # the twelfth has one value


def test_a_number_by_hand() -> None:
    """Units (1,1), (-1,-1), (0,1), (0,-1): O has 2 + 2 + 2 + 2 couples, of which four disagree: D_o = 1/2.

    n_c = 3, 3, 2, so D_e = (64 - 9 - 9 - 4) / (8 * 7) = 3/4 and alpha = 1 - (1/2) / (3/4) = 1/3.
    """
    assert krippendorff_alpha([[1, 1], [-1, -1], [0, 1], [0, -1]]).alpha == pytest.approx(1 / 3)


def test_three_values_weigh_as_three_raters_not_as_three_couples() -> None:
    """(a,a,b): couples count 1/2 each, ab and ba two each: O_aa = 1, O_ab = O_ba = 1; (b,b): O_bb = 2.

    n = 5, n_a = 2, n_b = 3: D_o = 2/5, D_e = (25 - 4 - 9) / 20 = 3/5, alpha = 1/3.
    """
    assert krippendorff_alpha(["aab", "bb"]).alpha == pytest.approx(1 / 3)


def test_what_is_undefined_says_why() -> None:
    nothing = krippendorff_alpha([["a"], []])
    assert (nothing.alpha, nothing.low, nothing.units) == (None, None, 0)
    assert nothing.reason == "nothing was judged twice"
    same = krippendorff_alpha(["aa", "aa"])
    assert same.alpha is None and same.reason is not None and "all values are the same" in same.reason
    one = krippendorff_alpha(["ab", "aa", "bb"], clusters=["p", "p", "p"])
    assert one.alpha is not None and (one.low, one.clusters) == (None, 1)
    assert one.reason == "a single source says nothing about spread"


def test_full_agreement_is_not_certainty() -> None:
    few = krippendorff_alpha(["aa", "bb"] * 3)
    many = krippendorff_alpha(["aa", "bb"] * 50)
    assert few.alpha == many.alpha == few.high == many.high == 1.0
    assert few.low is not None and many.low is not None
    # six units: 1 - 0.025^(1/6) = 45.9% may disagree; D_e = (144 - 72) / (12 * 11) = 6/11
    assert few.low == pytest.approx(1 - (1 - 0.025 ** (1 / 6)) / (6 / 11))
    assert few.low < 0.2 and 0.9 < many.low < 1.0


def test_few_clusters_have_an_interval_of_student_at_least() -> None:
    units = ["aa", "bb", "ab", "aa", "bb", "bb", "ab"]
    found = krippendorff_alpha(units)
    without = [krippendorff_alpha(units[:i] + units[i + 1 :]).alpha for i in range(7)]
    left_out = np.array(without, dtype=np.float64)
    reach = 2.446912 * np.sqrt(6 / 7 * ((left_out - left_out.mean()) ** 2).sum())  # t of 6 degrees, 97.5%
    assert found.alpha is not None and found.low is not None and found.high is not None
    assert found.low <= found.alpha - reach + 1e-6
    assert found.high >= min(1.0, found.alpha + reach) - 1e-6


def test_raters_who_always_disagree_are_below_chance() -> None:
    found = krippendorff_alpha(["ab", "ba"] * 20)
    assert found.alpha is not None and found.alpha < -0.9
    assert found.low is not None and found.high is not None and found.low <= found.alpha <= found.high < 0


VALUES = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), min_size=2, max_size=12)


@settings(max_examples=20)
@given(VALUES, st.randoms(use_true_random=False))
def test_neither_order_nor_names_matter(units: list[list[str]], dice: random.Random) -> None:
    names = dict(zip("abc", (7, 8, 9), strict=True))
    turned = [[names[value] for value in dice.sample(values, len(values))] for values in units]
    dice.shuffle(turned)
    one, other = krippendorff_alpha(units), krippendorff_alpha(turned)
    assert (one.alpha is None) == (other.alpha is None)
    if one.alpha is not None:
        assert one.alpha == pytest.approx(other.alpha) and one.alpha <= 1.0
    if one.low is not None:
        assert one.high is not None and one.alpha is not None
        assert one.low <= one.alpha + 1e-12 and one.alpha <= one.high + 1e-12


def test_the_same_seed_gives_the_same_interval() -> None:
    units = [dice.choices("ab", k=2) for dice in map(random.Random, range(80))]
    assert krippendorff_alpha(units, seed=1) == krippendorff_alpha(units, seed=1)
    assert krippendorff_alpha(units, seed=1) != krippendorff_alpha(units, seed=2)


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Prompts of four pairs, easy (5% slips) or hard (35%): couples agree on a share p, alpha is 2p - 1.

    Pairs of a prompt are equally hard, so an interval that takes them for independent is too narrow.
    """
    dice = np.random.default_rng(0)
    truth = 2 * np.mean([(1 - e) ** 2 + e**2 for e in (0.05, 0.35)]) - 1
    runs, inside, above = 200, 0, 0
    for run in range(runs):
        slips = dice.choice([0.05, 0.35], size=20)
        real = dice.integers(0, 2, size=(20, 4, 1))
        said = real ^ (dice.random((20, 4, 2)) < slips[:, None, None])
        units = [list(values) for values in said.reshape(80, 2).tolist()]
        both = [*units, *([1 - value for value in values] for values in units)]
        prompts = [f"p{i // 4}" for i in range(80)] * 2
        found = krippendorff_alpha(both, clusters=prompts, seed=run)
        assert found.low is not None and found.high is not None
        inside += found.low <= truth <= found.high
        above += found.low > truth
    assert 0.91 <= inside / runs <= 0.99  # three standard errors below 95%
    assert above / runs <= 0.06
