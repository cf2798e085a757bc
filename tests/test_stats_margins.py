"""No worse within a margin: what a sample can and cannot show, under simulation too."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from luthier.stats import compare, one_sided_low, paired, stand, units


def test_findings_by_hand() -> None:
    # 400 pairs that agree: Tango's one-sided bound is z^2 / (n + z^2) with z = 1.644854
    same = [1, 0] * 200
    result = stand(same, same, margin=0.01)
    assert result.finding == "within_margin"
    assert result.low == pytest.approx(-2.705543 / 402.705543)
    assert stand(same, same, margin=0.006).finding == "not_powered"
    lost = stand([0] * 30 + [1] * 70, [1] * 100, margin=0.05)
    assert (lost.finding, lost.difference) == ("worse", pytest.approx(-0.3))
    assert stand([1] * 100, [0] * 30 + [1] * 70, margin=0.05).finding == "within_margin"
    assert json.loads(json.dumps(asdict(result)))["margin"] == 0.01


def test_a_real_loss_inside_the_margin_is_within_it() -> None:
    a, b = [1] * 940 + [0] * 60, [1] * 1000
    assert stand(a, b, margin=0.10).finding == "within_margin"
    assert stand(a, b, margin=0.055).finding == "worse"
    assert stand(a, b, margin=0.065).finding == "not_powered"  # a loss, but its estimate is inside
    assert stand([1] * 7 + [0] * 3, [1] * 8 + [0] * 2, margin=0.05).finding == "not_powered"  # may be chance


def test_what_30_examples_hide_is_said() -> None:
    # no difference above 0.001 was seen; a share 1 - 0.05^(1/30) = 0.09503 of losses of 1 may be missed
    rng = np.random.default_rng(0)
    b = rng.random(30) * 0.5 + 0.25
    a = b + rng.normal(0, 0.0005, 30)
    result = stand(a, b, margin=0.02)
    assert result.finding == "not_powered"
    assert result.low == pytest.approx(-0.09503, abs=5e-4)
    assert result.high == pytest.approx(0.09503, abs=5e-4)
    assert (one_sided_low(a, b) or 0) > -0.001  # the bootstrap alone sees nothing


def test_clusters_hide_more() -> None:
    b = np.linspace(0.3, 0.6, 60)
    a = b + np.random.default_rng(2).normal(0, 0.001, 60)
    clusters = np.repeat(np.arange(10), 6).tolist()
    single, grouped = stand(a, b, margin=0.1), stand(a, b, margin=0.1, clusters=clusters)
    assert (single.finding, grouped.finding) == ("within_margin", "not_powered")
    assert grouped.low == pytest.approx(-(1 - 0.05 ** (1 / 10)), abs=2e-3)


def test_several_questions_share_the_error() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 80))
    three = stand(a, b, margin=0.1, tests=3)
    assert three.confidence == pytest.approx(1 - 0.05 / 3)
    assert three.low == pytest.approx(compare(a, b, confidence=1 - 0.1 / 3).low)
    assert three.low < stand(a, b, margin=0.1).low  # type: ignore[operator]


def test_unbounded_scores_are_not_widened() -> None:
    a, b = np.arange(50) * 1.0, np.arange(50) + np.tile([0.5, -0.5], 25)
    assert stand(a, b, margin=1.0).low == one_sided_low(a, b)


def test_undefined_and_refused() -> None:
    assert stand([], [], margin=0.1).finding is None
    assert "no examples" in (stand([], [], margin=0.1).reason or "")
    for margin, tests in ((0.0, 1), (0.1, 0)):
        with pytest.raises(ValueError, match="positive margin"):
            stand([1], [1], margin=margin, tests=tests)


@pytest.mark.parametrize("n", [30, 100, 300])
@pytest.mark.parametrize("kind", ["right_wrong", "rare", "clustered"])
def test_a_loss_of_the_margin_is_rarely_called_within(
    monkeypatch: pytest.MonkeyPatch, n: int, kind: str
) -> None:
    """The true loss is the margin: `within_margin` at most 5% of the time, plus 3 standard errors."""
    monkeypatch.setattr(units, "RESAMPLES", 299)
    monkeypatch.setattr(paired, "RESAMPLES", 9)
    rng = np.random.default_rng(n)
    repeats, wrong, margin = 250, 0, 0.1
    clusters = np.repeat(np.arange(n // 5), 5).tolist() if kind == "clustered" else None
    for repeat in range(repeats):
        if kind == "right_wrong":
            flips = rng.choice([1, -1, 0], p=[0.1, 0.2, 0.7], size=n)
            a, b = (flips > 0) * 1.0, (flips < 0) * 1.0
        elif kind == "rare":  # hardly any difference, and 5% losses of 0.9, seen or not
            b = np.full(n, 0.95)
            a, margin = b + rng.normal(0, 0.001, n) - 0.9 * (rng.random(n) < 0.05), 0.045
        else:
            shared = np.repeat(rng.normal(0, 0.15, n // 5), 5)
            b = np.full(n, 0.6)
            a = np.clip(b - 0.1 + np.clip(shared, -0.25, 0.25) + rng.uniform(-0.2, 0.2, n), 0, 1)
        a = np.clip(a, 0, 1)
        wrong += stand(a, b, margin=margin, clusters=clusters, seed=repeat).finding == "within_margin"
    assert wrong / repeats <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repeats)
