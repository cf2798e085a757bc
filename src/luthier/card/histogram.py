"""How often values occur, as bars: bins of a round width, and names with their counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.card.charts import Mark
from luthier.card.numbers import count
from luthier.card.svg import (
    Scale,
    draw_grid_y,
    draw_line,
    draw_svg,
    draw_text,
    find_ticks,
    gutter_for,
    keep_inside,
)

MOST_BINS = 32
_WIDEST = 44.0  # units: few bins are not drawn as walls
_SHOWN_SHARE = 0.98  # of the values lie on the axis; the rest is the last bar


@dataclass(frozen=True)
class Histogram:
    """Counts of values in bins of equal width.

    Attributes:
        counts: of each bin; bin i holds the values from `start + i * width` to below the next.
        start, width: of the bins.
        beyond: how many values lie above the last bin.
    """

    counts: tuple[int, ...]
    start: int
    width: int
    beyond: int

    @property
    def end(self) -> int:
        """Upper edge of the last bin."""
        return self.start + self.width * len(self.counts)


def bin_values(values: Sequence[int], most_bins: int = MOST_BINS) -> Histogram:
    """Bins of a round width (1, 2 or 5 times a power of ten); a long tail is counted, not drawn.

    Args:
        values: at least one.
    """
    ordered = sorted(values)
    top = ordered[math.ceil(_SHOWN_SHARE * len(ordered)) - 1]
    if ordered[-1] <= 1.5 * top:
        top = ordered[-1]
    low = ordered[0] if ordered[0] > 0.5 * top else 0
    width = _round_width((top - low + 1) / most_bins)
    start = low // width * width
    counts = [0] * ((top - start) // width + 1)
    beyond = 0
    for value in ordered:
        place = (value - start) // width
        if place < len(counts):
            counts[place] += 1
        else:
            beyond += 1
    return Histogram(tuple(counts), start, width, beyond)


def _round_width(least: float) -> int:
    if least <= 1:
        return 1
    power = int(10 ** math.floor(math.log10(least)))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= least)


def draw_histogram(
    found: Histogram,
    *,
    key: str,
    title: str,
    description: str,
    width: int = 440,
    height: int = 190,
    limit: Mark | None = None,
) -> str:
    """Bars over an axis; what lies beyond it is a bar of its own at the right, named.

    Args:
        limit: a line, where it lies on the axis; else its label at the right.
        key, title, description, width: as in `charts.draw_intervals`.
    """
    tail = 74 if found.beyond else 10
    far = limit is not None and limit.value > found.end
    peak = max(*found.counts, found.beyond, 1)
    marked = limit if limit is not None and found.start < limit.value <= found.end else None
    top, bottom = (26 if marked or far else 8), height - 28
    x = Scale(found.start, found.end, 52, width - tail)
    y = Scale(0, peak, bottom, top)
    body = [_counts_at_left(y, width)]
    pitch = (x.end - x.start) / len(found.counts)
    wide = min(pitch, _WIDEST)
    for place, n in enumerate(found.counts):
        body.append(_column(x.start + (place + 0.5) * pitch - wide / 2, wide, y(n), bottom, "column"))
    if found.beyond:
        body.append(_column(width - 46, 14, y(found.beyond), bottom, "column beyond"))
        body.append(draw_text(width, bottom + 19, f"over {_short(found.end - 1)}", "tick", "end"))
    ticks = [tick for tick in find_ticks(x.low, x.high, 4) if tick == int(tick)]
    room = width - tail - (18 if found.beyond else 0)
    # A bin of one value is named in its middle, a wider one at its edges.
    middle = pitch / 2 if found.width == 1 else 0.0
    places = [(x(tick) + middle, tick) for tick in ticks]
    body += [draw_text(at, bottom + 19, _short(tick), "tick", "middle") for at, tick in places if at <= room]
    if far and limit is not None:
        body.append(draw_text(width, 12, f"{limit.label} →", "note", "end"))
    if marked is not None:
        at = x(marked.value)
        body.append(draw_line(at, top - 6, at, bottom, "mark"))
        body.append(draw_text(keep_inside(at, marked.label, width), top - 12, marked.label, "note", "middle"))
    return draw_svg((width, height), key, title, description, body)


def draw_tally(
    rows: Sequence[tuple[str, int]], *, key: str, title: str, description: str, width: int = 440
) -> str:
    """One bar for each name, with its count at the right.

    Args:
        rows: names and counts, from top to bottom.
        key, title, description, width: as in `charts.draw_intervals`.
    """
    if not rows:
        return ""
    pitch = 26
    gutter = min(gutter_for([name for name, _ in rows], limit=22), 0.42 * width)
    peak = max(n for _, n in rows)
    x = Scale(0, max(peak, 1), gutter, width - 64)
    body = []
    for place, (name, n) in enumerate(rows):
        top = place * pitch
        shown = name if len(name) <= 22 else f"{name[:21]}…"
        body.append(draw_text(0, top + 17, shown, "label plain"))
        body.append(
            f'<rect x="{gutter:g}" y="{top + 6}" width="{max(x(n) - gutter, 1.5):.1f}" height="14" rx="2" '
            'class="column"/>'
        )
        body.append(draw_text(width, top + 17, count(n), "value plain", "end"))
    return draw_svg((width, pitch * len(rows) + 4), key, title, description, body)


def _column(left: float, wide: float, top: float, bottom: float, style: str) -> str:
    tall = bottom - top
    if tall <= 0:
        return ""
    gap = 1.0 if wide > 4 else 0.0
    return (
        f'<rect x="{left:.1f}" y="{min(top, bottom - 1.5):.1f}" width="{max(wide - gap, 0.8):.1f}" '
        f'height="{max(tall, 1.5):.1f}" class="{style}"/>'
    )


def _counts_at_left(y: Scale, width: int) -> str:
    """A grid of whole numbers only: a third of an example there is not."""
    ticks = [tick for tick in find_ticks(y.low, y.high, 4) if tick == int(tick)]
    if not ticks:
        return draw_grid_y(y, 52, width, lambda value: "")
    return "".join(
        draw_line(52, y(tick), width, y(tick), "grid")
        + draw_text(46, y(tick) + 4, _short(tick), "tick", "end")
        for tick in ticks
    )


def _short(value: float) -> str:
    """`950`, `12k`, `1.5M`."""
    for unit, step in (("M", 1e6), ("k", 1e3)):
        if value >= 10 * step or (value >= step and value % (step / 10) == 0):
            return f"{value / step:g}{unit}" if value % (step / 10) == 0 else f"{value / step:.1f}{unit}"
    return f"{value:,g}"
