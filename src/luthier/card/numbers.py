"""Every number of the card and the report is turned into text here, in one way.

Scores and accuracies are shares (0 to 1) shown as percent; their differences are shown in
percentage points, signed. An undefined value is `not measured`, never 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

NOT_MEASURED = "not measured"
MINUS = "\u2212"


@dataclass(frozen=True)
class Interval:
    """A value with its interval; each part is None where it was not measured."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def shifted(self, factor: float) -> Interval:
        """The same interval in another unit; a negative factor swaps the ends."""
        scaled = [None if part is None else part * factor for part in (self.value, self.low, self.high)]
        low, high = (scaled[1], scaled[2]) if factor >= 0 else (scaled[2], scaled[1])
        return Interval(scaled[0], low, high)


def fixed(value: float, decimals: int, *, scale: int = 1, signed: bool = False) -> str:
    """`value * scale` as a decimal with a true minus sign and thousands separators.

    Rounds the number as it is written in the record (0.4795 is 48.0 percent, though its nearest
    binary fraction lies below 47.95), half away from zero. What rounds to zero has no sign.
    """
    exact = abs(Decimal(repr(float(value)))) * scale
    text = f"{exact.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP):,}"
    if not any(digit in text for digit in "123456789"):
        return text
    if value < 0:
        return MINUS + text
    return f"+{text}" if signed else text


def percent(value: float | None) -> str:
    """A share as percent: 0.8333 is `83.3%`."""
    return NOT_MEASURED if value is None else f"{fixed(value, 1, scale=100)}%"


def points(value: float | None) -> str:
    """A difference of shares in percentage points: -0.012 is `−1.2 points`."""
    return NOT_MEASURED if value is None else f"{fixed(value, 1, scale=100, signed=True)} points"


def bounds(interval: Interval, unit: str) -> str:
    """The interval alone, without its unit: `[+4.1, +20.9]`; empty where there is none."""
    if interval.low is None or interval.high is None:
        return ""
    scale, decimals, signed = _shape(unit)
    ends = [fixed(end, decimals, scale=scale, signed=signed) for end in (interval.low, interval.high)]
    return f"[{', '.join(ends)}]"


def quantity(value: float | None, unit: str) -> str:
    """A value in its unit: `percent`, `points`, `ratio`, or a unit's name such as `nats per token`.

    A unit's name is shown after the number; `difference in <unit>` adds the sign.
    """
    if value is None:
        return NOT_MEASURED
    scale, decimals, signed = _shape(unit)
    text = fixed(value, decimals, scale=scale, signed=signed)
    if unit == "percent":
        return f"{text}%"
    if unit == "ratio":
        return f"{text}×"
    name = unit.removeprefix("difference in ")
    return f"{text} {name}".strip()


def bare(value: float | None, unit: str) -> str:
    """`quantity` without a unit's name, for a table that names the unit once; `%` and `points` stay."""
    name = unit.removeprefix("difference in ")
    shown = quantity(value, unit)
    return shown if unit in ("percent", "points", "ratio") else shown.removesuffix(f" {name}")


def with_interval(interval: Interval, unit: str) -> str:
    """A value followed by its interval: `83.3% [75.4, 89.5]`, `+12.5 points [+4.1, +20.9]`."""
    return f"{quantity(interval.value, unit)} {bounds(interval, unit)}".strip()


def _shape(unit: str) -> tuple[int, int, bool]:
    if unit == "percent":
        return 100, 1, False
    if unit == "points":
        return 100, 1, True
    if unit in ("leaks found", "probes"):
        return 1, 0, False
    if unit == "ratio":
        return 1, 2, False
    return 1, 3, unit.startswith("difference in ")


def probability(value: float | None) -> str:
    """A p-value: `p < 0.001`, `p = 0.012`, `p = 0.34`."""
    if value is None:
        return NOT_MEASURED
    if value < 0.001:
        return "p < 0.001"
    # Just below 0.1, two digits would round up to it and read as less certain than it is.
    return f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def count(value: float | None, noun: str = "") -> str:
    """A whole number and, where one is given, its noun: `1 example`, `1,240 examples`."""
    if value is None:
        return NOT_MEASURED
    text = fixed(round(value), 0)
    if not noun:
        return text
    return f"{text} {noun}" if round(value) == 1 else f"{text} {noun}s"


def duration(seconds: float | None) -> str:
    """A time: `0.42 s`, `14 min 12 s`, `2 h 05 min`."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 0.095:
        return f"{fixed(seconds, 0, scale=1000)} ms"
    if seconds < 10:
        return f"{fixed(seconds, 2)} s"
    if seconds < 59.5:
        return f"{fixed(seconds, 0)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{fixed(minutes // 60, 0)} h {minutes % 60:02d} min"


def price(value: float | None, currency: str | None) -> str:
    """Money for a thousand requests, three digits: `0.412 USD`, `12.0 EUR`, `1,240 EUR`."""
    if value is None:
        return NOT_MEASURED
    thousand = 1000 * value
    digits = 0 if thousand == 0 else max(0, 2 - math.floor(math.log10(abs(thousand))))
    return f"{fixed(thousand, min(digits, 6))} {currency or ''}".rstrip()


def size(value: float | None) -> str:
    """Bytes in decimal units: `9.8 MB`."""
    if value is None:
        return NOT_MEASURED
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= step:
            return f"{fixed(value / step, 1)} {unit}"
    return f"{fixed(value, 0)} B"


def rate(value: float | None) -> str:
    """A learning rate in two significant digits: `0.0002`, `5e-06`."""
    return NOT_MEASURED if value is None else f"{value:.2g}"


def finite(value: object) -> float | None:
    """A JSON number as a float; None for null, booleans, text, NaN and infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
