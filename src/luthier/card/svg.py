"""The few SVG shapes that the charts are made of: scales, ticks, lines, dots and text, as strings.

Text is escaped here, once, so that no chart can forget to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

FONT = 13
LETTER = 7.0  # mean width of a letter at FONT, measured on common system fonts
STACKED_BELOW = 520


@dataclass(frozen=True)
class Scale:
    """A linear map from data to units along one axis."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def find_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values (1, 2, 5 times a power of ten) inside [low, high], at most about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power: float = 10.0 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 5, 10, 20) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def cover(
    values: Sequence[float], *, floor: float | None = None, ceiling: float | None = None
) -> tuple[float, float]:
    """A range a little wider than the values, within `floor` and `ceiling` where those are given."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    # Below a billionth there is no spread to show, only rounding.
    room = next(r for r in ((high - low) * 0.06, abs(high) * 0.1, 0.5) if r > 1e-9)
    low, high = low - room, high + room
    low = low if floor is None else max(low, floor)
    high = high if ceiling is None else min(high, ceiling)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def draw_svg(size: tuple[float, float], key: str, title: str, description: str, body: Sequence[str]) -> str:
    """The chart around its shapes; `key` prefixes the ids of title and description."""
    width, height = size
    key = escape(key)
    return (
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        f'role="img" aria-labelledby="{key}-t {key}-d" font-size="{FONT}">'
        f'<title id="{key}-t">{escape(title)}</title><desc id="{key}-d">{escape(description)}</desc>'
        f"{''.join(body)}</svg>"
    )


def draw_text(x: float, y: float, words: str, style: str, anchor: str = "start") -> str:
    """Text at a point, escaped, cut to 40 characters."""
    shown = words if len(words) <= 40 else f"{words[:39]}…"
    return f'<text x="{x:g}" y="{y:g}" class="{style}" text-anchor="{anchor}">{escape(shown)}</text>'


def draw_line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" class="{style}"/>'


def draw_dot(x: float, y: float, radius: float, style: str) -> str:
    """A circle."""
    return f'<circle cx="{x:g}" cy="{y:.1f}" r="{radius:g}" class="{style}"/>'


def draw_path(points: Sequence[tuple[float, float]], x: Scale, y: Scale, style: str) -> str:
    """A line through data points; nothing where there are none."""
    if not points:
        return ""
    steps = " ".join(f"{x(step):g},{y(value):g}" for step, value in points)
    return f'<polyline points="{steps}" class="curve {style}"/>'


def draw_grid_x(x: Scale, top: float, bottom: float, axis: Callable[[float], str]) -> str:
    """Vertical grid lines with their ticks underneath."""
    count = max(2, min(6, int((x.end - x.start) / 80)))
    return "".join(
        draw_line(x(tick), top, x(tick), bottom, "grid")
        + draw_text(x(tick), bottom + 19, axis(tick), "tick", "middle")
        for tick in find_ticks(x.low, x.high, count)
    )


def draw_grid_y(y: Scale, left: float, right: float, axis: Callable[[float], str]) -> str:
    """Horizontal grid lines with their ticks at the left."""
    return "".join(
        draw_line(left, y(tick), right, y(tick), "grid")
        + draw_text(left - 8, y(tick) + 4, axis(tick), "tick", "end")
        for tick in find_ticks(y.low, y.high, 5)
    )


def draw_axis_x(x: Scale, bottom: float, name: str) -> str:
    """Whole-numbered ticks, and the axis' name at the right end."""
    ticks = [
        tick for tick in find_ticks(x.low, x.high, 4 if x.end < STACKED_BELOW else 8) if tick == int(tick)
    ]
    drawn = [
        draw_text(x(tick), bottom + 19, f"{tick:g}", "tick", "middle")
        for tick in ticks
        if x(tick) < x.end - 52
    ]
    return "".join(drawn) + draw_text(x.end, bottom + 19, name, "tick", "end")


def gutter_for(labels: Sequence[str], limit: int = 40) -> float:
    """The width that the longest label needs."""
    longest = max((min(len(label), limit) for label in labels), default=0)
    return longest * LETTER + 14 if longest else 0.0


def keep_inside(x: float, label: str, width: float) -> float:
    """The nearest centre at which a label stays within the drawing."""
    half = len(label) * LETTER * 0.48
    return min(max(x, half), width - half)
