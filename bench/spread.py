"""Medians with their spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of a few measurements."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return Spread(statistics.median(values), min(values), max(values))

    def show(self, digits: int = 2) -> str:
        """As `median [low, high]`."""
        return f"{self.median:,.{digits}f} [{self.low:,.{digits}f}, {self.high:,.{digits}f}]"


def largest(values: Iterable[float]) -> float:
    """The largest value; NaN when one of them is, which `max` would pass over."""
    listed = list(values)
    return math.nan if any(map(math.isnan, listed)) else max(listed)
