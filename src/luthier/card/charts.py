"""Charts as SVG text: pure functions from numbers to a string, no drawing library, nothing fetched.

Lengths are in SVG user units, which are CSS pixels where the page is wide enough. Colours come from
the page through classes (report.css), so one chart serves light, dark and print. Every text that
comes from data is escaped; every chart has a title and a description for readers who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from luthier.card.numbers import Interval
from luthier.card.svg import (
    STACKED_BELOW,
    Scale,
    cover,
    draw_axis_x,
    draw_dot,
    draw_grid_x,
    draw_grid_y,
    draw_line,
    draw_path,
    draw_svg,
    draw_text,
    gutter_for,
    keep_inside,
)


@dataclass(frozen=True)
class Bar:
    """One line of an interval chart: a dot at the value, a bar over its interval, a note at the right."""

    label: str
    interval: Interval
    note: str
    strong: bool = False


@dataclass(frozen=True)
class Mark:
    """A vertical reference line."""

    value: float
    label: str


def draw_intervals(
    bars: Sequence[Bar],
    *,
    key: str,
    title: str,
    description: str,
    axis: Callable[[float], str],
    span: tuple[float, float],
    width: int = 920,
    marks: Sequence[Mark] = (),
) -> str:
    """Dots with interval bars, one line each, on one axis.

    Args:
        bars: the lines, from top to bottom; one without a value shows its note and no dot.
        key: prefix of the ids inside, unique in the page.
        axis: text of a tick.
        span: range of the axis.
        width: units; narrow charts put each label above its bar.
        marks: reference lines, labelled above the plot.
    """
    stacked = width < STACKED_BELOW
    gutter = 0.0 if stacked else gutter_for([bar.label for bar in bars])
    # bold figures are wider
    notes = 0.0 if stacked else gutter_for([bar.note + "  " * bar.strong for bar in bars], limit=36)
    top, pitch = (30 if marks else 10), (54 if stacked else 38)
    bottom = top + pitch * len(bars)
    x = Scale(*span, gutter + 10, width - notes - 10)
    body = [draw_grid_x(x, top, bottom, axis)]
    body += [
        draw_line(x(m.value), top - 6, x(m.value), bottom, "mark")
        + draw_text(keep_inside(x(m.value), m.label, width), top - 12, m.label, "note", "middle")
        for m in marks
        if span[0] <= m.value <= span[1]
    ]
    for index, bar in enumerate(bars):
        y = top + pitch * index + (36 if stacked else pitch / 2)
        style = "strong" if bar.strong else "plain"
        if stacked:
            body.append(draw_text(0, y - 14, bar.label, f"label {style}"))
            body.append(draw_text(width, y - 14, bar.note, f"value {style}", "end"))
        else:
            body.append(draw_text(0, y + 4.5, bar.label, f"label {style}"))
            body.append(draw_text(width, y + 4.5, bar.note, f"value {style}", "end"))
        body.append(_dot_with_bar(x, y, bar.interval, style))
    return draw_svg((width, bottom + 26), key, title, description, body)


def draw_dumbbells(
    rows: Sequence[tuple[str, float | None, float | None]],
    *,
    key: str,
    title: str,
    description: str,
    axis: Callable[[float], str],
    show: Callable[[float | None], str],
    span: tuple[float, float],
    width: int = 440,
) -> str:
    """For each label a hollow dot (base) joined to a filled dot (tuned); labels stand above their line.

    Args:
        rows: label, base, tuned; a missing side leaves out its dot.
        show: text of a value beside its label.
        key, title, description, axis, span, width: as in `draw_intervals`.
    """
    top, pitch = 30, 54
    bottom = top + pitch * len(rows)
    x = Scale(*span, 10, width - 10)
    body = [draw_grid_x(x, top, bottom, axis)]
    for index, (label, base, tuned) in enumerate(rows):
        y = top + pitch * index + 36
        body.append(draw_text(0, y - 14, label, "label plain"))
        body.append(draw_text(width, y - 14, f"{show(base)} → {show(tuned)}", "value plain", "end"))
        if base is not None and tuned is not None:
            body.append(draw_line(x(base), y, x(tuned), y, "join"))
        if base is not None:
            body.append(draw_dot(x(base), y, 5.5, "hollow"))
        if tuned is not None:
            body.append(draw_dot(x(tuned), y, 5.5, "dot strong"))
    return draw_svg((width, bottom + 26), key, title, description, body)


def draw_curves(
    raw: Sequence[tuple[float, float]],
    smooth: Sequence[tuple[float, float]],
    validation: Sequence[tuple[float, float]],
    *,
    key: str,
    title: str,
    description: str,
    width: int = 920,
    height: int = 320,
    best: float | None = None,
) -> str:
    """Loss over steps: raw training loss faint, smoothed on top, validation as joined dots.

    Args:
        raw, smooth, validation: (step, loss) pairs.
        best: the step whose weights were kept, marked with a line.
        key, title, description, width: as in `draw_intervals`.
    """
    everything = [*raw, *validation]
    if not everything:
        return ""
    # A few early spikes must not flatten the rest: the axis ends at the 99th percentile of the raw
    # loss, or at what the validation reaches; what lies above is drawn at the upper edge.
    ordered = sorted(loss for _, loss in raw) or [0.0]
    crest = ordered[math.ceil(len(ordered) * 0.99) - 1]
    losses = [min(loss, crest) for _, loss in raw] + [loss for _, loss in validation]
    low, high = cover(losses, floor=0.0 if min(losses) >= 0 else None)
    if 0 < low < 0.4 * high:
        low = 0.0
    steps = [step for step, _ in everything]
    x = Scale(min(steps), max(*steps, min(steps) + 1), 44, width - 14)
    y = Scale(low, high, height - 28, 24)
    body = [draw_grid_y(y, 44, width - 14, lambda v: f"{v:g}"), draw_axis_x(x, height - 28, "step")]
    if best is not None:
        body.append(draw_line(x(best), 18, x(best), height - 28, "mark"))
        body.append(
            draw_text(
                keep_inside(x(best), f"best step {best:g}", width),
                12,
                f"best step {best:g}",
                "note",
                "middle",
            )
        )
    for points, style in ((raw, "raw"), (smooth, "smooth"), (validation, "validation")):
        body.append(draw_path([(step, min(loss, high)) for step, loss in points], x, y, style))
    body += [draw_dot(x(step), y(loss), 4.5, "validation") for step, loss in validation]
    return draw_svg((width, height), key, title, description, body)


def draw_rate(
    rates: Sequence[tuple[float, float]], *, key: str, title: str, description: str, width: int = 920
) -> str:
    """The learning rate over steps as a small line with its largest value.

    Args:
        rates: (step, learning rate) pairs.
        key, title, description, width: as in `draw_intervals`.
    """
    if not rates:
        return ""
    height, peak = 74, max(rate for _, rate in rates)
    steps = [step for step, _ in rates]
    x = Scale(min(steps), max(*steps, min(steps) + 1), 44, width - 14)
    y = Scale(0, peak or 1.0, height - 8, 26)
    body = [
        draw_text(44, 13, f"learning rate, peak {peak:.2g}", "note"),
        draw_line(44, height - 8, width - 14, height - 8, "grid"),
        draw_path(rates, x, y, "rate"),
    ]
    return draw_svg((width, height), key, title, description, body)


def draw_confidence(
    points: Sequence[tuple[float, bool]],
    *,
    key: str,
    title: str,
    description: str,
    width: int = 440,
    threshold: float | None = None,
) -> str:
    """Two strips of dots along the confidence axis: right answers above, all others below.

    Args:
        points: confidence (0 to 1) and whether the answer was right.
        threshold: what counts as confident, marked with a line.
        key, title, description, width: as in `draw_intervals`.
    """
    x = Scale(0, 1, 76, width - 14)
    body = [draw_grid_x(x, 24, 160, lambda v: f"{v:.0%}")]
    if threshold is not None:
        label = f"confident from {threshold:.0%}"
        body.append(draw_line(x(threshold), 18, x(threshold), 160, "mark"))
        body.append(draw_text(keep_inside(x(threshold), label, width), 12, label, "note", "middle"))
    for right, name, centre in ((True, "right", 58), (False, "not right", 126)):
        body.append(draw_text(0, centre + 4.5, name, "label plain"))
        chosen = sorted(confidence for confidence, is_right in points if is_right is right)
        for index, confidence in enumerate(chosen):
            # The golden ratio spreads neighbours apart without a random generator.
            offset = ((index * 0.618034) % 1 - 0.5) * 44
            body.append(draw_dot(x(confidence), centre + offset, 3.5, "right" if right else "wrong"))
    return draw_svg((width, 186), key, title, description, body)


def draw_shares(
    parts: Sequence[tuple[str, float]], *, key: str, title: str, description: str, width: int = 920
) -> str:
    """One slim bar cut into parts in proportion to their sizes, named underneath.

    Args:
        parts: name and size.
        key, title, description, width: as in `draw_intervals`.
    """
    total = sum(size for _, size in parts)
    if total <= 0:
        return ""
    body, left, gap = [], 0.0, 3.0
    room = width - gap * (len(parts) - 1)
    for index, (_, part) in enumerate(parts):
        wide = room * part / total
        body.append(
            f'<rect x="{left:.1f}" y="0" width="{wide:.1f}" height="10" rx="2" class="share-{index % 3}"/>'
        )
        left += wide + gap
    return draw_svg((width, 10), key, title, description, body)


def smooth_curve(points: Sequence[tuple[float, float]], share: float = 0.06) -> list[tuple[float, float]]:
    """The mean over a centred window of `share` of the points (at least 3), cut off at both ends."""
    reach = max(1, round(len(points) * share / 2))
    values = [value for _, value in points]
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [(step, sum(window) / len(window)) for (step, _), window in zip(points, windows, strict=True)]


def thin_curve(points: Sequence[tuple[float, float]], most: int = 600) -> list[tuple[float, float]]:
    """At most about `most` points: the lowest and highest of each stretch, so that no spike is hidden."""
    if len(points) <= most:
        return list(points)
    stretch = -(-len(points) * 2 // most)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    return kept


def _dot_with_bar(x: Scale, y: float, interval: Interval, style: str) -> str:
    def inside(value: float) -> float:
        return x(min(max(value, x.low), x.high))

    drawn = ""
    if interval.low is not None and interval.high is not None:
        drawn += draw_line(inside(interval.low), y, inside(interval.high), y, f"bar {style}")
    if interval.value is not None:
        drawn += draw_dot(inside(interval.value), y, 6.5 if style == "strong" else 5.5, f"dot {style}")
    return drawn
