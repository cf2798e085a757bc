"""What a confidence is worth, on answers whose truth is known by construction."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from luthier.evidence.calibration import report_calibration, travelling
from luthier.recipe import Abstain


def answers(n: int, *, sharpness: float, seed: int) -> list[dict[str, Any]]:
    """Right with probability p; the confidence said is p with its log-odds multiplied by `sharpness`."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.05, 0.99, n)
    odds = sharpness * np.log(p / (1 - p))
    said, right = 1 / (1 + np.exp(-odds)), rng.random(n) < p
    return [
        {"id": str(i), "confidence": float(f), "score": float(y)}
        for i, (f, y) in enumerate(zip(said, right, strict=True))
    ]


def report(sharpness: float = 1.0, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "validation": answers(400, sharpness=sharpness, seed=1),
        "test": answers(600, sharpness=sharpness, seed=2),
    } | changes
    return report_calibration(
        "tuned", given["validation"], given["test"], None, given.get("abstain", Abstain(risk=0.3)), seed=0
    )


def test_overconfidence_is_measured_and_mended_by_one_temperature() -> None:
    found = report(sharpness=3.0)
    assert found["temperature"]["value"] == pytest.approx(3.0, rel=0.2)
    assert found["before"]["p"] < 0.01
    assert found["after"]["p"] > 0.05
    assert found["after"]["nll"]["estimate"] < found["before"]["nll"]["estimate"] - 0.1


def test_the_threshold_keeps_the_surest_and_its_risk() -> None:
    found = report()
    threshold = found["abstention"]["value"]
    rows = answers(20_000, sharpness=1.0, seed=3)
    kept = [row["score"] for row in rows if row["confidence"] >= threshold]
    assert 1 - np.mean(kept) <= 0.3
    assert found["abstention"]["coverage"] == pytest.approx(len(kept) / len(rows), abs=0.05)
    assert found["abstention"]["says"].startswith(
        f"answers {found['abstention']['coverage']:.0%} of requests"
    )
    assert "hands the rest to a person" in found["abstention"]["says"]


def test_too_few_answers_promise_nothing() -> None:
    found = report(test=answers(20, sharpness=1.0, seed=2), abstain=Abstain(risk=0.05))
    assert found["abstention"]["value"] is None
    assert "cannot promise answers of which at most 5.0% are wrong" in found["abstention"]["says"]


def test_answers_without_a_score_or_confidence_are_counted_apart() -> None:
    test = answers(60, sharpness=1.0, seed=2)
    test[0]["score"] = None
    test[1]["confidence"] = None
    found = report(test=test, validation=[])
    assert (found["n"], found["unrated"]) == (58, 2)
    assert found["temperature"]["value"] is None
    assert found["after"] is None


def test_what_travels_is_plain_json_and_whole() -> None:
    found = report()
    carried = json.loads(json.dumps(travelling(found)))
    assert carried["answer_when_confidence_is_at_least"] == found["abstention"]["value"]
    assert (carried["risk"], carried["confidence_level"]) == (0.3, 0.9)
    assert carried["fitted_on"] == 600
