"""The report that probes share: numbers by hand, the direction of worse, margins and trends."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from luthier.probes.change import (
    Change,
    contrast_change,
    failed_report,
    paired_change,
    part,
    report_change,
)
from luthier.recipe import Gates
from luthier.recipe.probe_options import MARGINS, PROBE_NAMES, ProbeGates, margin_of
from luthier.stats import compare


def told(change: Change, **options: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": "share", "worse": "lower", "margin": 0.05}
    report = report_change("made_up", change, examples=[], caption="", **(defaults | options))
    json.dumps(report, allow_nan=False)
    return report


def test_a_paired_change_is_tuned_minus_base() -> None:
    base, tuned = [1.0] * 60 + [0.0] * 40, [1.0] * 55 + [0.0] * 5 + [1.0] * 2 + [0.0] * 38
    change = paired_change(base, tuned, seed=0)
    assert (change.n, change.base, change.tuned) == (100, 0.6, 0.57)
    assert change.difference == pytest.approx(-0.03)
    expected = compare(tuned, base)
    assert (change.low, change.high, change.p) == (expected.low, expected.high, expected.p)
    assert change.low < change.least < -0.03 < change.most < change.high  # one-sided ends lie inside


def test_a_contrast_is_the_change_of_the_gap_between_two_groups() -> None:
    base = ([1.0] * 30 + [0.0] * 70, [1.0] * 10 + [0.0] * 40)  # 0.30 and 0.20
    tuned = ([1.0] * 80 + [0.0] * 20, [1.0] * 15 + [0.0] * 35)  # 0.80 and 0.30
    change = contrast_change(base, tuned, seed=0)
    assert (change.n, change.base, change.tuned) == (
        150,
        pytest.approx(0.10),
        pytest.approx(0.50),
    )
    assert change.difference == pytest.approx(0.40)
    first, second = compare(tuned[0], base[0]), compare(tuned[1], base[1])
    assert change.low == pytest.approx(0.40 - math.hypot(0.5 - first.low, second.high - 0.1))
    assert change.high == pytest.approx(0.40 + math.hypot(first.high - 0.5, 0.1 - second.low))
    back = contrast_change(base[::-1], tuned[::-1], seed=0)
    assert (back.difference, back.low, back.high) == pytest.approx((-0.40, -change.high, -change.low))
    assert change.low < change.least < 0.40 < change.most < change.high


def test_a_contrast_without_a_group_is_undefined() -> None:
    change = contrast_change(([], [1.0, 0.0]), ([], [1.0, 0.0]), seed=0)
    assert (change.difference, change.low, change.most) == (None, None, None)
    assert told(change)["finding"] == "failed"


def test_the_interval_of_a_contrast_covers() -> None:
    """Groups of right/wrong answers of unequal size; the true change of the gap is 0.2 - 0.05."""
    dice, hits, rounds = np.random.default_rng(0), 0, 300
    for _ in range(rounds):
        pairs = []
        for n, gain in ((90, 0.2), (50, 0.05)):
            base = (dice.random(n) < 0.4).astype(float)
            flips = (dice.random(n) < gain / 0.6) & (base == 0)
            pairs.append((base, np.where(flips, 1.0, base)))
        change = contrast_change((pairs[0][0], pairs[1][0]), (pairs[0][1], pairs[1][1]), seed=0)
        hits += change.low <= 0.15 <= change.high
    assert hits / rounds > 0.95 - 3 * math.sqrt(0.95 * 0.05 / rounds)


MANY = 200
FINDINGS = [  # share of items that fall from 1 to 0, and that rise from 0 to 1; finding when lower is worse
    (0.20, 0.0, "worse", "within_margin"),
    (0.0, 0.20, "within_margin", "worse"),
    (0.0, 0.0, "within_margin", "within_margin"),
    (0.04, 0.0, "not_powered", "within_margin"),
    (0.15, 0.15, "not_powered", "not_powered"),
]


@pytest.mark.parametrize(("fall", "rise", "lower", "higher"), FINDINGS)
def test_which_way_is_worse(fall: float, rise: float, lower: str, higher: str) -> None:
    base = np.arange(MANY) % 2 == 0
    tuned = base.copy()
    tuned[0 : 2 * int(fall * MANY) : 2] = False
    tuned[1 : 2 * int(rise * MANY) : 2] = True
    change = paired_change(base.astype(float), tuned.astype(float), seed=0)
    assert told(change)["finding"] == lower
    assert told(change, worse="higher")["finding"] == higher


def test_the_reason_names_the_bound_on_the_side_that_is_worse() -> None:
    change = Change(100, 0.5, 0.5, 0.0, -0.09, 0.02, -0.08, 0.01)
    assert told(change, margin=0.05)["reason"].startswith("worse by at most 8.0% (one-sided 95%): too few")
    assert "at most 1.0% (one-sided 95%), inside the margin of 5.0%" in told(change, worse="higher")["reason"]
    better = Change(100, 0.5, 0.7, 0.2, 0.1, 0.3, 0.12, 0.28)
    assert told(better)["reason"].startswith("nothing got worse")
    nats = told(
        Change(9, 1.0, 1.1, 0.1, 0.0, 0.2, 0.02, 0.18), unit="nats per token", worse="higher", margin=1
    )
    assert nats["reason"] == "worse by at most 0.18 nats per token (one-sided 95%), inside the margin of 1.00"


@pytest.mark.parametrize(
    ("least", "most", "said"),
    [(-0.3, -0.1, "a real change"), (-0.1, 0.1, "no change"), (0.1, 0.3, "nothing got worse")],
)
def test_a_trend_says_that_it_decides_nothing(least: float, most: float, said: str) -> None:
    middle = (least + most) / 2
    change = Change(50, 0.5, 0.5 + middle, middle, least, most, least, most)
    report = told(change, margin=None, said="seen")
    assert report["margin"] is None
    assert report["reason"].startswith("seen; a trend without a margin, which the verdict leaves aside: ")
    assert said in report["reason"] and "inside the margin" not in report["reason"]
    assert told(change, margin=None, worse="higher")["finding"] != report["finding"] or least < 0 < most


def test_three_examples_and_the_parts_units() -> None:
    change = Change(2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    rows = [part("a", change, source="x"), part("b", change, source="y", unit="bits")]
    report = report_change(
        "made_up",
        change,
        unit="share",
        worse="lower",
        margin=0.1,
        caption="c",
        parts=rows,
        flips=(3, 4),
        examples=[{"text": str(i), "base": "", "tuned": ""} for i in range(9)],
    )
    assert [row["unit"] for row in report["parts"]] == ["share", "bits"]
    assert [e["text"] for e in report["examples"]] == ["0", "1", "2"]
    assert report["flips"] == {"lost": 3, "gained": 4}


def test_what_failed_has_no_numbers() -> None:
    report = failed_report("bias", "it broke", 0.05)
    assert (report["finding"], report["reason"], report["margin"], report["n"]) == (
        "failed",
        "it broke",
        0.05,
        0,
    )
    assert {report[key] for key in ("base", "tuned", "difference", "low", "high", "flips")} == {None}


def test_every_probe_has_a_margin_of_its_own() -> None:
    assert set(MARGINS) == set(PROBE_NAMES)
    assert sorted(MARGINS.values()) == sorted(ProbeGates.model_fields)
    gates = Gates.model_validate({name: 0.123 + i / 100 for i, name in enumerate(MARGINS.values())})
    assert [margin_of(gates, name) for name in MARGINS] == [0.123 + i / 100 for i in range(len(MARGINS))]
    assert margin_of(Gates(), "kl") is None
