"""`Gate`: one condition of `ship`, with its numbers and its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """One condition of `ship`: passed, failed, or undecided (None)."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    threshold: float | None
    passed: bool | None
    reason: str
    unit: str | None = None


def undecided(name: str, reason: str, threshold: float | None = None, unit: str | None = None) -> Gate:
    """A gate of which nothing could be measured."""
    return Gate(name, None, None, None, threshold, None, reason, unit)
