"""What a candidate's confidence is worth: calibrated or not, and when to hand a request to a person.

Confidence is the probability that the candidate gave its whole answer, or how far sampled answers agree with
it, as the recipe asks. One temperature is fitted on the
validation side; everything that is reported is measured on the test side, which chose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from luthier.recipe.stakes_options import Abstain, Confidence
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
    confidence: Confidence | None = None,
    kinds: Mapping[str, Sequence[float | None]] | None = None,
) -> dict[str, Any]:
    """The content of `calibration.json`.

    Args:
        validation, test: graded answers; those without a score or a confidence are left out.
        clusters: the source of each test row; None where each is its own.
        abstain: the risk that is accepted, and how sure one wants to be of it.
        confidence: what the confidences of the rows are; log-probabilities when absent.
        kinds: where there are several kinds of confidence, each of them for the test rows.

    Returns:
        `candidate`, `confidence`, `n`; `temperature` (fitted on validation); `before` and `after` it, on
        test: Brier score, negative log-likelihood, smooth calibration error; `risk_coverage`; `compared`:
        its area for each of `kinds`, on the same answers; `abstention`: the threshold with its guarantee,
        in words too (`says`). Thresholds are for confidences as they are.
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
        "confidence": (confidence or Confidence()).model_dump(),
        "n": len(kept),
        "unrated": len(test) - len(kept),
        "temperature": asdict(temperature),
        "before": asdict(measure_calibration(f, y, clusters=own, seed=seed)),
        "after": after,
        "risk_coverage": asdict(risk_coverage(f, y, clusters=own, seed=seed)),
        "compared": _compare_kinds(kinds or {}, test, clusters, seed),
        "abstention": asdict(threshold) | {"says": say_threshold(threshold)},
    }


def _compare_kinds(
    kinds: Mapping[str, Sequence[float | None]], test: Rows, clusters: Sequence[str] | None, seed: int
) -> list[dict[str, Any]]:
    """The area under risk-coverage of each kind of confidence; the smaller ranks the answers better."""
    kept = [
        i
        for i, row in enumerate(test)
        if row["score"] is not None and all(values[i] is not None for values in kinds.values())
    ]
    own = None if clusters is None else [clusters[i] for i in kept]
    rows = []
    for kind, values in kinds.items():
        found = [value for i in kept if (value := values[i]) is not None]
        curve = risk_coverage(found, [test[i]["score"] for i in kept], clusters=own, seed=seed)
        area = {"aurc": asdict(curve.aurc), "random": curve.random, "ideal": curve.ideal}
        rows.append({"kind": kind, "n": len(kept), **area})
    return rows


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
    confidence = report.get("confidence") or Confidence().model_dump()
    return {
        "confidence": _say_confidence(confidence),
        "kind": confidence["kind"],
        "answer_when_confidence_is_at_least": threshold["value"],
        "risk": threshold["risk"],
        "confidence_level": threshold["level"],
        "coverage": threshold["coverage"],
        "fitted_on": threshold["n"],
        "temperature": report["temperature"]["value"],
        "says": threshold["says"],
    }


def _say_confidence(confidence: Mapping[str, Any]) -> str:
    """How whoever serves the model gets the number that the threshold is for."""
    behind = "behind the prompt that the model was tuned with"
    if confidence["kind"] == "logprob":
        return (
            "exp of the summed log-probabilities of the answer's tokens, its end included, decoded greedily "
            f"{behind}"
        )
    return (
        f"the mean agreement of {confidence['samples']} answers sampled at temperature "
        f"{confidence['temperature']:g} {behind} with the one decoded greedily: labels, numbers and JSON "
        "are the same (1) or not (0), free text as similar as the grader's metric says"
    )


def _is_rated(row: Mapping[str, Any]) -> bool:
    return row["score"] is not None and row["confidence"] is not None
