"""What the record says of confidence and of the amount of data, in lines for the card and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.card import numbers

Facts = list[tuple[str, str]]


def calibration_facts(raw: Mapping[str, Any]) -> Facts:
    """Name and value: the promise of a threshold, calibration before and after one temperature."""
    if not raw:
        return []
    facts = [("When to answer", _text(_part(raw, "abstention").get("says")) or numbers.NOT_MEASURED)]
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
    return facts


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
