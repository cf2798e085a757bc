"""A power law through three trainings, and the trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_run

import luthier
from luthier.errors import DataError
from luthier.examples import Example, Message
from luthier.pipeline import Run
from luthier.pipeline.learning_curve import report_curve, subset
from luthier.record import Record
from luthier.stats.learning_curve import extrapolate


def constant(*scores: float, n: int = 40) -> np.ndarray:
    return np.repeat(np.array(scores)[:, None], n, axis=1)


def test_a_law_that_halves_the_error_goes_on_halving_it() -> None:
    """Errors 0.4, 0.2, 0.1 at 100, 200, 400: n^-1, so 0.05 at 800."""
    found = extrapolate([100, 200, 400], constant(0.6, 0.8, 0.9))
    assert found.gain == pytest.approx(0.05)
    assert found.exponent == pytest.approx(1.0)
    assert found.low == pytest.approx(0.05)
    assert found.high == pytest.approx(0.05)
    assert extrapolate([100, 400], constant(0.6, 0.9), times=4).gain == pytest.approx(0.075)


def test_what_did_not_help_is_said_to_do_harm() -> None:
    found = extrapolate([100, 200, 400], constant(0.8, 0.8, 0.7))
    assert found.gain is not None
    assert found.gain < 0
    assert found.exponent is not None
    assert found.exponent < 0


def test_an_interval_covers_a_known_law() -> None:
    """Right/wrong answers drawn from errors 0.5 n^-0.5 (relative to 1, 2, 4): the gain is known."""
    rng = np.random.default_rng(0)
    errors = 0.5 * np.array([1.0, 2.0, 4.0]) ** -0.5
    truth = errors[2] - 0.5 * 8**-0.5
    covered = 0
    for trial in range(100):
        scores = (rng.random((3, 200)) >= errors[:, None]).astype(float)
        found = extrapolate([100, 200, 400], scores, seed=trial)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert covered >= 88  # 95 expected, 2.2 standard deviation, and a percentile interval's shortfall


def test_one_source_is_one_unit() -> None:
    found = extrapolate([10, 20], constant(0.5, 0.6, n=60), clusters=[i // 20 for i in range(60)])
    assert found.low is None
    assert found.reason is not None
    assert "3 independent test examples" in found.reason


def examples(n: int) -> list[Example]:
    return [Example(f"e{i}", (Message("user", f"m{i}"), Message("assistant", "a")), "f", i) for i in range(n)]


def test_parts_are_nested_and_stable() -> None:
    train = examples(80)
    quarter, half = subset(train, 0.25, 0), subset(train, 0.5, 0)
    assert (len(quarter), len(half)) == (20, 40)
    assert {e.id for e in quarter} < {e.id for e in half}
    assert [e.line for e in half] == sorted(e.line for e in half)
    assert subset(train, 0.25, 1) != quarter
    with pytest.raises(DataError, match="which is 5 here"):
        subset(train[:20], 0.25, 0)


def test_only_answers_scored_in_every_run_count() -> None:
    """20 answers, of which 10, 15 and 18 are right; then a wrong one is unscored once."""
    rows = [[{"id": f"e{i}", "score": float(i >= wrong)} for i in range(20)] for wrong in (10, 5, 2)]
    report = report_curve([10, 20, 40], rows, {"e1": None}, seed=0)
    assert [(point["n"], point["score"]) for point in report["points"]] == [(20, 0.5), (20, 0.75), (20, 0.9)]
    rows[1][0] = {"id": "e0", "score": None}
    report = report_curve([10, 20, 40], rows, {}, seed=0)
    assert [point["n"] for point in report["points"]] == [19, 19, 19]
    assert report["points"][0]["score"] == pytest.approx(10 / 19)
    assert "twice as many examples (80)" in report["doubling"]["says"]


def test_a_run_with_its_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    recipe = tiny_run.write_recipe(tmp_path, tiny_run.write_model(tmp_path / "model"))
    changes = {"learning_curve": True, "candidates": ["tuned"], "probes": []}
    run = Run(luthier.load_recipe(recipe, changes), tmp_path / "run")
    curve = run.learning_curve()
    assert curve is not None
    trained = len(run.split().train)
    sizes = [point["examples"] for point in curve["points"]]
    assert sizes == [round(trained / 4), round(trained / 2), trained]
    parts = [tmp_path / f"run/curve/{share}" for share in ("0.25", "0.5")]
    asked = [
        [row["id"] for row in Record(folder).read_jsonl("predictions/tuned.jsonl")]
        for folder in (tmp_path / "run", *parts)
    ]
    assert asked[0] == asked[1] == asked[2]
    before = (parts[0] / "adapter/adapter_model.safetensors").stat().st_mtime_ns
    again = Run.open(tmp_path / "run")
    assert again.learning_curve() == curve
    assert (parts[0] / "adapter/adapter_model.safetensors").stat().st_mtime_ns == before
