"""Charts: valid SVG inside its frame, named for those who cannot see it, and true to the numbers."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.card import charts
from luthier.card.charts import Bar, Mark
from luthier.card.numbers import Interval
from luthier.card.svg import Scale, cover, find_ticks

NAMES = {"key": "k", "title": "T <&> \"'", "description": "D </svg><script>"}
number = st.floats(-1e6, 1e6, allow_nan=False)


def parse(svg: str) -> ElementTree.Element:
    """The chart as XML, after checking its name, its description and that no number is undefined."""
    root = ElementTree.fromstring(svg)
    ids = {child.get("id"): child.text for child in root if child.tag in ("title", "desc")}
    assert [ids[name] for name in (root.get("aria-labelledby") or "").split()] == [
        NAMES["title"],
        NAMES["description"],
    ]
    assert "nan" not in svg and "inf" not in svg
    return root


def positions(root: ElementTree.Element, shape: str, attribute: str) -> list[float]:
    return [float(element.get(attribute) or "nan") for element in root.iter(shape)]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.49, 0.93, [0.5, 0.6, 0.7, 0.8, 0.9]),
        (-4.1, 3.1, [-4, -2, 0, 2]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert find_ticks(low, high) == pytest.approx(ticks)


@given(st.lists(number, max_size=6))
def test_cover_contains_the_values(values: list[float]) -> None:
    low, high = cover(values)
    assert low < high and all(low <= value <= high for value in values)


def test_dots_and_bars_stand_where_the_axis_says() -> None:
    bar = Bar("tuned", Interval(0.5, 0.25, 0.75), "50%", strong=True)
    span, width = (0.0, 1.0), 360
    root = parse(charts.draw_intervals([bar], axis=str, span=span, width=width, **NAMES))
    x = Scale(*span, 10, width - 10)  # a narrow chart has no gutter: 10 units at either side
    assert positions(root, "circle", "cx") == [x(0.5)] == [180]
    line = next(e for e in root.iter("line") if "bar" in (e.get("class") or ""))
    assert (line.get("x1"), line.get("x2")) == ("95", "265")


def test_a_missing_value_has_no_dot_and_keeps_its_note() -> None:
    bars = [Bar("prompt", Interval(None), "not measured"), Bar("tuned", Interval(0.7), "70%")]
    root = parse(charts.draw_intervals(bars, axis=str, span=(0, 1), **NAMES))
    assert len(list(root.iter("circle"))) == 1
    assert "not measured" in [text.text for text in root.iter("text")]
    assert not [e for e in root.iter("line") if "bar" in (e.get("class") or "")]  # no interval, no bar


@given(st.lists(st.tuples(number, number, number), min_size=1, max_size=5), st.sampled_from([360, 944]))
def test_intervals_stay_inside_their_frame(values: list[tuple[float, float, float]], width: int) -> None:
    bars = [Bar("<script>" * 9, Interval(b, a, c), "note") for a, b, c in map(sorted, values)]
    ends = [end for triple in values for end in triple]
    marks = [Mark(ends[0], "margin")]
    root = parse(
        charts.draw_intervals(bars, axis="{:g}".format, span=cover(ends), width=width, marks=marks, **NAMES)
    )
    height = float(root.get("height") or 0)
    assert all(0 <= x <= width for x in positions(root, "circle", "cx") + positions(root, "line", "x1"))
    assert all(0 <= y <= height for y in positions(root, "circle", "cy") + positions(root, "text", "y"))


def test_dumbbells_leave_out_what_is_missing() -> None:
    rows = [("reading", 0.5, 0.4), ("science", None, 0.3), ("maths", None, None)]
    root = parse(charts.draw_dumbbells(rows, axis=str, show=str, span=(0, 1), **NAMES))
    kinds = [circle.get("class") for circle in root.iter("circle")]
    assert kinds == ["hollow", "dot strong", "dot strong"]
    assert len([e for e in root.iter("line") if e.get("class") == "join"]) == 1


def test_curves_mark_the_best_step_and_keep_spikes_inside() -> None:
    raw = [(float(step), 1.0) for step in range(1, 201)]
    raw[3] = (4.0, 900.0)
    root = parse(
        charts.draw_curves(raw, charts.smooth_curve(raw), [(100.0, 0.9), (200.0, 0.8)], best=200, **NAMES)
    )
    assert "best step 200" in [text.text for text in root.iter("text")]
    points = next(e for e in root.iter("polyline") if "raw" in (e.get("class") or "")).get("points") or ""
    heights = [float(pair.split(",")[1]) for pair in points.split()]
    assert len(heights) == 200 and min(heights) >= 24
    assert heights[100] < 0.5 * 320  # the spike of 900 does not press the loss of 1 to the floor
    assert len(list(root.iter("circle"))) == 2


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_short_trainings_have_a_chart_or_none(steps: int) -> None:
    raw = [(float(step), 1.5) for step in range(steps)]
    drawn = charts.draw_curves(raw, charts.smooth_curve(raw), [], **NAMES)
    assert drawn == "" if steps == 0 else parse(drawn) is not None
    assert charts.draw_rate([], **NAMES) == "" and charts.draw_shares([], **NAMES) == ""


@given(st.lists(st.tuples(st.integers(0, 10_000).map(float), number), min_size=2, max_size=400))
def test_thinning_keeps_both_extremes(points: list[tuple[float, float]]) -> None:
    thin = charts.thin_curve(points, most=40)
    values, kept = [v for _, v in points], [v for _, v in thin]
    assert set(thin) <= set(points) and (min(values), max(values)) == (min(kept), max(kept))
    assert len(thin) <= 42


def test_smoothing_is_a_centred_mean() -> None:
    points = [(float(i), float(v)) for i, v in enumerate([0, 3, 6, 3, 0])]
    assert [v for _, v in charts.smooth_curve(points, share=0.4)] == pytest.approx([1.5, 3, 4, 3, 1.5])


def test_confidence_splits_right_from_not_right() -> None:
    points = [(0.2, True), (0.95, True), (0.99, False)]
    root = parse(charts.draw_confidence(points, threshold=0.9, **NAMES))
    assert sorted(c.get("class") or "" for c in root.iter("circle")) == ["right", "right", "wrong"]
    assert "confident from 90%" in [text.text for text in root.iter("text")]


def test_shares_fill_the_bar_in_proportion() -> None:
    root = parse(charts.draw_shares([("train", 300), ("test", 100)], width=403, **NAMES))
    assert positions(root, "rect", "width") == pytest.approx([300, 100])
    assert math.isclose(positions(root, "rect", "x")[1], 303)
