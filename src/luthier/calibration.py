"""What a candidate's confidence is worth: calibrated or not, and when to hand a request to a person.

Confidence is the probability that the candidate gave its whole answer. One temperature is fitted on the
validation side; everything that is reported is measured on the test side, which chose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from luthier.recipe import Abstain
from luthier.stats import (
    Threshold,
    control_risk,
    fit_temperature,
    measure_calibration,
    risk_coverage,
    scale_confidence,
)

Rows = Sequence[Mapping[str, Any]]


def report_calibration(
    candidate: str,
    validation: Rows,
    test: Rows,
    clusters: Sequence[str] | None,
    abstain: Abstain,
    *,
    seed: int,
) -> dict[str, Any]:
    """The content of `calibration.json`.

    Args:
        validation, test: graded answers; those without a score or a confidence are left out.
        clusters: the source of each test row; None where each is its own.
        abstain: the risk that is accepted, and how sure one wants to be of it.

    Returns:
        `candidate`, `n`; `temperature` (fitted on validation); `before` and `after` it, on test: Brier
        score, negative log-likelihood, smooth calibration error; `risk_coverage`; `abstention`: the
        threshold with its guarantee, in words too (`says`). Thresholds are for confidences as they are.
    """
    fitted = [row for row in validation if _is_rated(row)]
    kept = [i for i, row in enumerate(test) if _is_rated(row)]
    f = [test[i]["confidence"] for i in kept]
    y = [test[i]["score"] for i in kept]
    own = None if clusters is None else [clusters[i] for i in kept]
    temperature = fit_temperature([row["confidence"] for row in fitted], [row["score"] for row in fitted])
    after = None
    if temperature.value is not None:
        scaled = scale_confidence(f, temperature.value)
        after = asdict(measure_calibration(scaled, y, clusters=own, seed=seed))
    threshold = control_risk(f, y, risk=abstain.risk, level=abstain.confidence, clusters=own, seed=seed)
    return {
        "candidate": candidate,
        "n": len(kept),
        "unrated": len(test) - len(kept),
        "temperature": asdict(temperature),
        "before": asdict(measure_calibration(f, y, clusters=own, seed=seed)),
        "after": after,
        "risk_coverage": asdict(risk_coverage(f, y, clusters=own, seed=seed)),
        "abstention": asdict(threshold) | {"says": say_threshold(threshold)},
    }


def say_threshold(threshold: Threshold) -> str:
    """The guarantee in words."""
    wrong = "wrong" if threshold.method == "binomial" else "lost in score"
    if threshold.value is None:
        return f"cannot promise answers of which at most {threshold.risk:.1%} are {wrong}: {threshold.reason}"
    assert threshold.coverage is not None
    return (
        f"answers {threshold.coverage:.0%} of requests with at most {threshold.risk:.1%} {wrong}, "
        f"at {threshold.level:.0%} confidence, and hands the rest to a person "
        f"(answers of a confidence of at least {threshold.value:.3g})"
    )


def travelling(report: Mapping[str, Any]) -> dict[str, Any]:
    """What goes with an exported model, `abstention.json`: everything needed to hand requests over."""
    threshold = report["abstention"]
    return {
        "confidence": "exp of the summed log-probabilities of the answer's tokens, its end included, "
        "decoded greedily behind the prompt that the model was tuned with",
        "answer_when_confidence_is_at_least": threshold["value"],
        "risk": threshold["risk"],
        "confidence_level": threshold["level"],
        "coverage": threshold["coverage"],
        "fitted_on": threshold["n"],
        "temperature": report["temperature"]["value"],
        "says": threshold["says"],
    }


def _is_rated(row: Mapping[str, Any]) -> bool:
    return row["score"] is not None and row["confidence"] is not None
