"""What the record says of confidence, of the amount of data and of a person's reading, line by line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.card import numbers
from luthier.evidence.review import Progress

Facts = list[tuple[str, str]]


def calibration_facts(raw: Mapping[str, Any]) -> Facts:
    """Name and value: the promise of a threshold, calibration before and after one temperature."""
    if not raw:
        return []
    facts = _made_of(raw)
    facts += [("When to answer", _text(_part(raw, "abstention").get("says")) or numbers.NOT_MEASURED)]
    before, after = _part(raw, "before"), _part(raw, "after")
    said, true = numbers.finite(before.get("confidence")), numbers.finite(before.get("score"))
    facts.append(("Mean confidence, mean score", f"{numbers.percent(said)}, {numbers.percent(true)}"))
    p = numbers.finite(before.get("p"))
    error = _interval(before, "smooth_ece", "percent")
    chance = numbers.percent(numbers.finite(before.get("by_chance")))
    facts.append(
        ("Calibration error", f"{error} ({chance} by chance alone, {numbers.probability(p)} for calibrated)")
    )
    facts.append(("Brier score", _interval(before, "brier", "")))
    facts.append(("Negative log-likelihood", _interval(before, "nll", "")))
    temperature = _part(raw, "temperature")
    value = numbers.finite(temperature.get("value"))
    if value is None:
        reason = _text(temperature.get("reason")) or numbers.NOT_MEASURED
        facts.append(("Temperature from validation", f"none: {reason}"))
    else:
        mended = _interval(after, "smooth_ece", "percent")
        told = f"{numbers.quantity(value, '')}; with it, calibration error {mended}"
        facts.append(("Temperature from validation", told))
    area = _part(raw, "risk_coverage")
    loss = numbers.quantity(numbers.finite(area.get("random")), "")
    facts.append(
        ("Area under risk-coverage", f"{_interval(area, 'aurc', '')} (a useless confidence: {loss})")
    )
    return [*facts, *_compared(raw)]


def _made_of(raw: Mapping[str, Any]) -> Facts:
    """What the confidence is, where it is not the probability of the answer."""
    confidence = _part(raw, "confidence")
    samples, temperature = (numbers.finite(confidence.get(key)) for key in ("samples", "temperature"))
    if confidence.get("kind") != "agreement":
        return []
    told = f"how far {numbers.count(samples, 'sampled answer')} agree with the greedy one"
    return [("Confidence", f"{told} (temperature {numbers.quantity(temperature, '')})")]


def _compared(raw: Mapping[str, Any]) -> Facts:
    """The area of every kind of confidence that was measured, side by side."""
    rows = raw.get("compared")
    names = {"logprob": "the answer's probability", "agreement": "agreement of samples"}
    return [
        (f"Area by {names.get(kind, kind)}", f"{_interval(row, 'aurc', '')} (smaller is better)")
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, Mapping)
        for kind in [_text(row.get("kind"))]
    ]


def curve_facts(raw: Mapping[str, Any]) -> Facts:
    """Name and value: the score at each training size, and what twice as many examples would bring."""
    points = raw.get("points")
    if not isinstance(points, list):
        return []
    facts = [
        (numbers.count(numbers.finite(point.get("examples")), "example"), _bounded(point, "score", "percent"))
        for point in points
        if isinstance(point, Mapping)
    ]
    return [*facts, ("Twice as many", _text(_part(raw, "doubling").get("says")) or numbers.NOT_MEASURED)]


def review_facts(progress: Progress) -> Facts:
    """Name and value: how many of the listed answers a person judged, and how many were called wrong.

    What the person wrote stays in the run folder.
    """
    from luthier.stats import clopper_pearson

    facts = [("Answers listed to be read", numbers.count(float(progress.n)))]
    left = progress.n - progress.judged
    unsure = f", {progress.unsure} of them called unsure" if progress.unsure else ""
    facts.append(("Judged by a person", f"{progress.judged}{f'; {left} left' if left else ''}{unsure}"))
    if not progress.sampled:
        return [*facts, ("Wrong, of those drawn at random", numbers.NOT_MEASURED)]
    share = progress.sampled_wrong / progress.sampled
    bounds = clopper_pearson(progress.sampled_wrong, progress.sampled)
    told = numbers.with_interval(numbers.Interval(share, *bounds), "percent")
    drawn = f"{progress.sampled_wrong} of {progress.sampled}: {told}"
    return [*facts, ("Wrong, of those drawn at random", drawn), ("Wrong, of all", str(progress.wrong))]


def _interval(raw: Mapping[str, Any], key: str, unit: str) -> str:
    return _bounded(_part(raw, key), "estimate", unit)


def _bounded(raw: Mapping[str, Any], key: str, unit: str) -> str:
    value, low, high = (numbers.finite(raw.get(name)) for name in (key, "low", "high"))
    return numbers.with_interval(numbers.Interval(value, low, high), unit)


def _part(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = raw.get(key)
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
