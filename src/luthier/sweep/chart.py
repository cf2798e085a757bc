"""The charts of a sweep: how trials went, and what came out along each swept key. Strings of SVG.

A *row* is a trial of `sweep.json`. Every point says in its title which trial it is, and its exact numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from luthier.card.svg import (
    Scale,
    cover,
    draw_grid_x,
    draw_grid_y,
    draw_line,
    draw_path,
    draw_svg,
    draw_text,
)

Row = Mapping[str, Any]
LEFT, RIGHT, TOP, BOTTOM = 58, 18, 16, 34
FAR = 4.0  # values so many times farther from the best than the middle one is are drawn at the edge
MINOR = (1, 2, 5)


def show_value(value: Any) -> str:
    """A swept value in words: `3.73e-05`, `16`, `last 10`, `dpo`."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return str(value.get("kind", value))
    return ", ".join(map(show_value, value)) if isinstance(value, list | tuple) else str(value)


def say_changes(changes: Mapping[str, Any]) -> str:
    """`learning_rate 1e-04, rank 8`."""
    return ", ".join(f"{key.rpartition('.')[2]} {show_value(value)}" for key, value in changes.items())


def draw_courses(rows: Sequence[Row], *, best: int, metric: str, higher: bool, key: str, width: int) -> str:
    """The metric of every trial over its own planned steps; a trial that was stopped ends where it was.

    Args:
        best: number of the trial that is drawn strongly.
        key: prefix of the ids inside, unique in the page.
    """
    drawn = [row for row in rows if row["course"]]
    if not drawn:
        return ""
    height = 340 if width > 600 else 280
    x = Scale(0.0, 1.0, LEFT, width - RIGHT)
    y = _scale_y([value for row in drawn for _, value in row["course"]], higher, height)
    body = [
        draw_grid_y(y, LEFT, width - RIGHT, lambda tick: f"{tick:g}"),
        draw_grid_x(x, TOP, height - BOTTOM, lambda tick: f"{tick:.0%}"),
    ]
    for row in sorted(drawn, key=lambda row: row["number"] == best):
        points = [(step / row["planned_steps"], _inside(y, value)) for step, value in row["course"]]
        strong = row["number"] == best
        body.append(draw_path(points, x, y, "smooth" if strong else "raw"))
        for (share, value), (step, exact) in zip(points, row["course"], strict=True):
            last = (share, value) == points[-1]
            style = "dot strong" if strong else "hollow" if last and row["state"] == "stopped" else "dot"
            words = f"trial {row['number']} ({say_changes(row['changes'])}), step {step}: {exact:.6g}"
            body.append(_draw_point(x(share), y(value), 5.5 if strong else 4, style, words))
    described = f"{len(drawn)} trials; trial {best} is the best."
    return draw_svg((width, height), key, f"{metric} over the share of a trial's steps", described, body)


def draw_outcomes(
    rows: Sequence[Row],
    axis: Mapping[str, Any],
    *,
    best: int,
    metric: str,
    higher: bool,
    key: str,
    width: int,
) -> str:
    """The metric of every trial over its value of one key; hollow where the trial was stopped early.

    Args:
        axis: of `sweep.json`.
        best, key: as for `draw_courses`.
    """
    drawn = [row for row in rows if row["value"] is not None]
    if not drawn:
        return ""
    height = 300 if width > 600 else 260
    y = _scale_y([row["value"] for row in drawn], higher, height)
    place, grid = _axis_x(rows, axis, width, height)
    body = [draw_grid_y(y, LEFT, width - RIGHT, lambda tick: f"{tick:g}"), grid]
    for row in sorted(drawn, key=lambda row: row["number"] == best):
        strong = row["number"] == best
        style = "dot strong" if strong else "hollow" if row["state"] == "stopped" else "dot"
        across, up = place(row["changes"][axis["key"]]), y(_inside(y, row["value"]))
        words = f"trial {row['number']} ({say_changes(row['changes'])}): {row['value']:.6g}"
        body.append(_draw_point(across, up, 6.5 if strong else 5, style, words))
    described = "; ".join(f"{say_changes(row['changes'])}: {row['value']:.6g}" for row in drawn)
    return draw_svg((width, height), key, f"{metric} by {axis['key']}", described, body)


def _axis_x(
    rows: Sequence[Row], axis: Mapping[str, Any], width: int, height: int
) -> tuple[Callable[[Any], float], str]:
    """Where a value is from left to right, and the grid with its ticks."""
    bottom, start, end = height - BOTTOM, LEFT + 14, width - RIGHT - 14
    if "low" not in axis:
        shown = list(dict.fromkeys(show_value(row["changes"][axis["key"]]) for row in rows))
        known = [show_value(value) for value in axis["values"]]
        shown.sort(key=lambda value: known.index(value) if value in known else len(known))
        steps = Scale(0.0, max(1.0, len(shown) - 1.0), start, end)
        ticks = [(steps(float(i)), value) for i, value in enumerate(shown)]
        return lambda value: steps(float(shown.index(show_value(value)))), _draw_ticks(ticks, bottom)
    low, high = axis["low"], axis["high"]
    if not axis["log"]:
        x = Scale(low, high, start, end)
        return x, draw_grid_x(x, TOP, bottom, lambda tick: f"{tick:g}")
    x = Scale(math.log10(low), math.log10(high), start, end)
    powers = range(math.floor(x.low), math.ceil(x.high) + 1)
    tens = MINOR if (x.high - x.low) <= 2.5 and width > 600 else (1,)
    round_values = [part * 10.0**power for power in powers for part in tens]
    inside = [value for value in round_values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    ticks = [
        (x(math.log10(value)), f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")) for value in inside
    ]
    return lambda value: x(math.log10(value)), _draw_ticks(ticks, bottom)


def _draw_ticks(ticks: Sequence[tuple[float, str]], bottom: float) -> str:
    return "".join(
        draw_line(x, TOP, x, bottom, "grid") + draw_text(x, bottom + 19, words, "tick", "middle")
        for x, words in ticks
    )


def _scale_y(values: Sequence[float], higher: bool, height: int) -> Scale:
    """Better is lower for a loss; a trial that went astray must not flatten the others."""
    ordered = sorted(values, reverse=higher)
    best, middle = ordered[0], ordered[len(ordered) // 2]
    limit = best + FAR * (middle - best)
    near = [value for value in values if (value >= limit if higher else value <= limit)]
    low, high = cover(near, floor=0.0 if min(near) >= 0 else None)
    return Scale(low, high, height - BOTTOM, TOP)


def _inside(y: Scale, value: float) -> float:
    return min(max(value, y.low), y.high)


def _draw_point(x: float, y: float, radius: float, style: str, words: str) -> str:
    shape = f'<circle cx="{x:g}" cy="{y:.1f}" r="{radius:g}" class="{style}">'
    return f"{shape}<title>{escape(words)}</title></circle>"
