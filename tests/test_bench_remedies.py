"""The remedies study: what is compared at the same score, resuming, and the page."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from bench import remedies
from bench.remedies import (
    CONDITIONS,
    PLAIN,
    SCALES,
    Curve,
    Outcome,
    Point,
    all_points,
    curves_of,
    matched,
    read_outcomes,
    target_of,
    write_table,
)


def curve(scores: list[float], rises: list[float], losses: list[float]) -> Curve:
    return Curve(*(np.array([[v - 0.1, v + 0.1] for v in values]) for values in (scores, rises, losses)))


def outcome(point: Point, strength: float) -> Outcome:
    """At scale s: scores s * strength on average, drift s * strength / 2, no item forgotten."""

    def at(scale: float) -> dict[str, list[float]]:
        gained = scale * strength
        return {
            "scores": [0.1 + gained, 0.3 + gained, 0.2 + gained],
            "losses": [2.0 + gained / 2, 1.0 + gained / 2],
            "chances": [0.5, 0.7],
        }

    scales = [0.0] if point.condition is None else SCALES
    return Outcome(point, "s", {f"{s:g}" if s == 0 else str(s): at(s) for s in scales}, 1.0, 2)


@pytest.fixture
def found() -> dict[Point, Outcome]:
    """One task, two seeds: replay learns as much, and drifts half as much."""
    points = list(all_points(["tickets"], 2))
    rows = {point: outcome(point, 0.4 + 0.1 * point.seed) for point in points}
    for point in points:
        if point.condition == "own answers":
            scales = {
                scale: {**values, "losses": [2.0 + float(scale) * 0.1, 1.0 + float(scale) * 0.1]}
                for scale, values in rows[point].scales.items()
            }
            rows[point] = Outcome(point, "s", scales, 1.0, 2)
    return rows


def test_by_hand() -> None:
    """From 0.2 to 0.6 to 0.8: a score of 0.7 is half way between the second scale and the third."""
    one = curve([0.2, 0.6, 0.8, 0.9], [0.0, 0.1, 0.3, 0.9], [0.0, 0.02, 0.04, 0.08])
    found = matched(one, 0.7)
    assert found is not None
    assert (found.scale, found.rise, found.loss) == pytest.approx((0.625, 0.2, 0.03))
    assert matched(one, 0.95) is None
    first = matched(one, 0.1)
    assert first is not None
    assert (first.scale, first.rise) == pytest.approx((0.0, 0.0)), "the base reaches it already"


def test_the_target_is_a_share_of_what_is_gained_without_a_remedy(found: dict[Point, Outcome]) -> None:
    curves = curves_of(found, "tickets", 2)
    assert curves is not None
    assert target_of(curves) == pytest.approx(0.2 + 0.9 * 0.45)
    plain, own = (matched(curves[name], target_of(curves)) for name in (PLAIN, "own answers"))
    assert plain is not None and own is not None
    assert (plain.scale, plain.rise) == pytest.approx((0.9, 0.9 * 0.225))
    assert own.rise == pytest.approx(0.09)


def test_the_page_says_what_was_not_measured(found: dict[Point, Outcome]) -> None:
    found.pop(Point("tickets", 1, "general examples"))
    assert curves_of(found, "tickets", 2) is None
    assert "Not all of it has been measured" in write_table(found, 2)


def test_the_page(found: dict[Point, Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remedies, "DRAWS", 50)
    text = write_table(found, 2)
    assert "scale that scores 60.5%" in text
    assert "| own answers | 0.90 (reached in 100% of draws) | 0.090 [0.090, 0.090] |" in text
    assert "-0.11" in text and "0.20" in text
    assert "0.0 [0.0, 0.0]" in text


def test_a_remedy_that_never_gets_there(found: dict[Point, Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remedies, "DRAWS", 20)
    for seed in (0, 1):
        point = Point("tickets", seed, "own answers, KL")
        found[point] = outcome(point, 0.1)
    assert "| own answers, KL | does not reach it |" in write_table(found, 2)


def test_results_are_read_back(tmp_path: Path, found: dict[Point, Outcome]) -> None:
    file = tmp_path / "r.jsonl"
    lines = [json.dumps(asdict(row)) for row in found.values()]
    file.write_text("\n".join(lines) + "\n" + lines[0][:20])
    again = read_outcomes(file, "s")
    assert again == json_like(found)
    assert read_outcomes(file, "other settings") == {}
    assert read_outcomes(tmp_path / "none", "s") == {}


def json_like(found: dict[Point, Outcome]) -> dict[Point, Outcome]:
    return {p: Outcome(p, o.settings, json.loads(json.dumps(o.scales)), 1.0, 2) for p, o in found.items()}


def test_every_condition_is_a_recipe() -> None:
    from luthier.recipe import Train

    for changes in CONDITIONS.values():
        Train(**changes)
    assert CONDITIONS[PLAIN] == {"replay": 0.0}
