"""The page of a sweep: its points stand where the axes say, and are the numbers of the trials."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from luthier.cli.sweeping import trial_table
from luthier.sweep.chart import draw_courses, draw_outcomes, say_changes, show_value
from luthier.sweep.page import render_page

RATE = {"key": "train.learning_rate", "low": 1e-5, "high": 1e-2, "log": True}
REPLAY = {"key": "train.replay", "low": 0.0, "high": 0.4, "log": False}
RANK = {"key": "adapter.rank", "values": [4, 8, 16, 32]}
DRAWN = {"best": 3, "metric": "validation loss", "higher": False, "key": "k"}


def row(number: int, rate: float, value: float | None, state: str = "done", **more: Any) -> dict[str, Any]:
    changes = {
        "train.learning_rate": rate,
        "train.replay": round(0.1 * (number - 1), 1),
        "adapter.rank": 2 ** (1 + number),
    }
    return {
        "number": number,
        "changes": changes,
        "state": state,
        "value": value,
        "steps": 40 if state == "done" else 5,
        "planned_steps": 40,
        "seconds": 12.5,
        "course": [] if value is None else [[5, value + 0.31], [20, value + 0.1], [40, value]],
        "reason": "all epochs done",
        **more,
    }


ROWS = [
    row(1, 1e-5, 1.37, "stopped", course=[[5, 1.37]], reason="3 of 4 were better after 12% of the steps"),
    row(2, 1e-4, 0.8225),
    row(3, 1e-3, 0.6131),
    row(4, 1e-2, None, "failed", reason="the loss is not finite & <b>bad</b>"),
]
RESULT = {
    "metric": "validation_loss",
    "axes": [RATE, RANK],
    "rungs": [{"share": 0.125, "keep": 2}],
    "trials": ROWS,
    "ranking": [3, 2, 1, 4],
    "best": 3,
    "steps": 85,
    "planned_steps": 160,
    "seconds": 50.0,
}


def points(svg: str) -> dict[str, tuple[float, float, str]]:
    """Place and style of every point, by its title."""
    found = {}
    for circle in ElementTree.fromstring(svg).iter("circle"):
        place = float(circle.get("cx") or "nan"), float(circle.get("cy") or "nan")
        found[circle.findtext("title") or ""] = (*place, circle.get("class") or "")
    return found


def reader(svg: str, *, across: bool, number: Callable[[str], float] = float) -> Callable[[float], float]:
    """What a reader finds from the ticks: the value at a place, by the line through the outermost two."""
    root = ElementTree.fromstring(svg)
    bottom = max(float(t.get("y") or 0) for t in root.iter("text"))
    ticks = []
    for text in root.iter("text"):
        is_below = float(text.get("y") or 0) == bottom
        if text.get("class") == "tick" and is_below is across:
            # a label stands 4 units below the middle of its line
            at = float(text.get("x") or 0) if across else float(text.get("y") or 0) - 4
            ticks.append((at, number(text.text or "")))
    assert len(ticks) >= 2
    (a, low), *_, (b, high) = sorted(ticks)
    return lambda place: low + (place - a) * (high - low) / (b - a)


def test_outcomes_stand_at_their_value_and_metric() -> None:
    svg = draw_outcomes(ROWS, RATE, width=944, **DRAWN)
    value_at = reader(svg, across=False)
    exponent_at = reader(svg, across=True, number=lambda text: math.log10(float(text)))
    found = points(svg)
    assert len(found) == 3  # the failed one has no value
    for words, (x, y, _) in found.items():
        number = int(re.findall(r"trial (\d+)", words)[0])
        own = ROWS[number - 1]
        assert words == f"trial {number} ({say_changes(own['changes'])}): {own['value']:.6g}"
        assert value_at(y) == pytest.approx(own["value"], abs=0.003)
        assert 10 ** exponent_at(x) == pytest.approx(own["changes"]["train.learning_rate"], rel=0.01)
    styles = {int(re.findall(r"trial (\d+)", words)[0]): style for words, (_, _, style) in found.items()}
    assert styles == {1: "hollow", 2: "dot", 3: "dot strong"}


def test_outcomes_over_an_even_range_and_over_a_list() -> None:
    svg = draw_outcomes(ROWS, REPLAY, width=944, **DRAWN)
    replay_at = reader(svg, across=True)
    for words, (x, _, _) in points(svg).items():
        number = int(re.findall(r"trial (\d+)", words)[0])
        assert replay_at(x) == pytest.approx(0.1 * (number - 1), abs=0.002)
    svg = draw_outcomes(ROWS, RANK, width=360, **DRAWN)
    ticks = {text.text: float(text.get("x") or 0) for text in ElementTree.fromstring(svg).iter("text")}
    for words, (x, _, _) in points(svg).items():
        assert x == pytest.approx(ticks[re.findall(r"rank (\d+)", words)[0]], abs=0.1)


def test_courses_are_those_of_the_trials() -> None:
    svg = draw_courses(ROWS, width=944, **DRAWN)
    value_at = reader(svg, across=False)
    share_at = reader(svg, across=True, number=lambda text: float(text.rstrip("%")) / 100)
    found = points(svg)
    expected = {
        f"trial {own['number']} ({say_changes(own['changes'])}), step {step}: {value:.6g}": (step / 40, value)
        for own in ROWS
        for step, value in own["course"]
    }
    assert found.keys() == expected.keys()
    for words, (x, y, _) in found.items():
        assert (share_at(x), value_at(y)) == pytest.approx(expected[words], abs=0.004)
    lines = [len((line.get("points") or "").split()) for line in ElementTree.fromstring(svg).iter("polyline")]
    assert sorted(lines) == [1, 3, 3]


@pytest.mark.parametrize(("higher", "stray"), [(False, 40.0), (True, -40.0)])
def test_a_trial_that_went_astray_does_not_flatten_the_others(higher: bool, stray: float) -> None:
    rows = [row(n, 10.0**-n, value) for n, value in enumerate((0.61, 0.62, 0.64, 0.66, stray), start=1)]
    given = {**DRAWN, "best": 4 if higher else 1, "higher": higher}
    svg = draw_outcomes(rows, {**RATE, "high": 0.1}, width=944, **given)
    found = {words.split(" ")[1]: y for words, (_, y, _) in points(svg).items()}
    assert found["5"] == (max(found.values()) if higher else min(found.values()))
    assert abs(found["1"] - found["4"]) > 60  # of 250 units
    assert f"{stray:.6g}" in svg  # its number is told


def test_values_from_the_command_line_are_escaped() -> None:
    axis = {"key": "adapter.layers", "values": ["a & <b>", "c"]}
    rows = [
        {**row(n, 1e-3, 0.5 + n), "changes": {"adapter.layers": v}} for n, v in enumerate(axis["values"], 1)
    ]
    for svg in (
        draw_outcomes(rows, axis, width=944, **{**DRAWN, "best": 1}),
        draw_courses(rows, width=944, **{**DRAWN, "best": 1}),
    ):
        assert any("layers a & <b>" in words for words in points(svg))


class Reading(HTMLParser):
    """Tags that are open, and whatever would fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]


def test_the_page_is_self_contained_and_escapes() -> None:
    page = render_page(RESULT, name="<script>alert(1)</script>", model="m&m")
    reading = Reading()
    reading.feed(page)
    assert reading.fetched == [] and "script" not in reading.tags and "b" not in reading.tags
    assert "default-src 'none'" in unescape(page) and "&lt;b&gt;bad&lt;/b&gt;" in page
    assert "<h1>Validation loss 0.6131</h1>" in page
    assert "85 of 160 planned steps" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_page_lists_every_trial_the_best_first() -> None:
    page = render_page(RESULT, name="tickets", model="smollm2-135m")
    cells = re.findall(r"<tr.*?</tr>", page.partition("<tbody>")[2], flags=re.DOTALL)
    plain = [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in cells]
    assert plain == [
        "3 0.001 16 0.6131 40 of 40 13 s trained to the end all epochs done",
        "2 0.0001 8 0.8225 40 of 40 13 s trained to the end all epochs done",
        "1 1e-05 4 1.3700 5 of 40 13 s stopped early 3 of 4 were better after 12% of the steps",
        "4 0.01 32 – 5 of 40 13 s failed the loss is not finite &amp; &lt;b&gt;bad&lt;/b&gt;",
    ]
    assert 'class="best"' in cells[0] and all("best" not in cell for cell in cells[1:])


def test_the_table_on_the_terminal_has_the_same_numbers() -> None:
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(trial_table(RESULT))
    lines = [line.split() for line in console.export_text().splitlines() if line[:7].strip().isdigit()]
    assert [line[:4] for line in lines] == [
        ["3", "0.001", "16", "0.6131"],
        ["2", "0.0001", "8", "0.8225"],
        ["1", "1e-05", "4", "1.3700"],
        ["4", "0.01", "32", "–"],
    ]
    assert " ".join(lines[2][4:]) == "5 of 40 12.5 stopped early: 3 of 4 were better after 12% of the steps"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.00012345, "0.000123"),
        (1e-5, "1e-05"),
        (16, "16"),
        ("auto", "auto"),
        ([0, 3], "0, 3"),
        ({"kind": "dpo", "beta": 0.1}, "dpo"),
    ],
)
def test_values_in_words(value: Any, words: str) -> None:
    assert show_value(value) == words


def test_a_narrow_chart_fits() -> None:
    for width in (360, 944):
        for svg in (
            draw_courses(ROWS, width=width, **DRAWN),
            draw_outcomes(ROWS, RATE, width=width, **DRAWN),
        ):
            root = ElementTree.fromstring(svg)
            shown = [float(text.get("x") or 0) for text in root.iter("text")]
            assert min(shown) >= 0 and max(shown) <= width
            ticks = sorted(
                float(t.get("x") or 0) for t in root.iter("text") if t.get("text-anchor") == "middle"
            )
            assert min(b - a for a, b in pairwise(ticks)) > 30
