"""Numbers as text, checked by hand, and text that must not become Markdown."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from luthier.card import numbers
from luthier.card.answers import read_confidence
from luthier.card.markdown import code, escape, fence
from luthier.card.numbers import Interval


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not measured"),
        (0.0, "0.0%"),
        (1.0, "100.0%"),
        (0.8333, "83.3%"),
        (2 / 3, "66.7%"),
        (0.4795, "48.0%"),  # 0.4795 * 100 is 47.949999999999996 in binary
        (0.0005, "0.1%"),
        (0.00049, "0.0%"),
        (1e-12, "0.0%"),
    ],
)
def test_percent(value: float | None, text: str) -> None:
    assert numbers.percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not measured"),
        (0.125, "+12.5 points"),
        (-0.012, "−1.2 points"),
        (0.0, "0.0 points"),
        (-0.0001, "0.0 points"),  # what rounds to zero has no sign
        (-0.0005, "−0.1 points"),
    ],
)
def test_points(value: float | None, text: str) -> None:
    assert numbers.points(value) == text


def test_intervals_keep_their_unit() -> None:
    assert numbers.with_interval(Interval(0.8083, 0.764, 0.8491), "percent") == "80.8% [76.4, 84.9]"
    assert numbers.with_interval(Interval(-0.006, -0.0172, 0.0049), "points") == "−0.6 points [−1.7, +0.5]"
    assert numbers.with_interval(Interval(0.21), "ratio") == "0.21×"
    assert numbers.quantity(2.7144, "nats per token") == "2.714 nats per token"
    assert numbers.quantity(0.021, "difference in nats per token") == "+0.021 nats per token"
    assert numbers.with_interval(Interval(None, 0.1, 0.2), "percent").startswith("not measured")
    assert numbers.bounds(Interval(0.5, None, 0.6), "percent") == ""
    assert Interval(0.1, 0.02, 0.15).shifted(-1) == Interval(-0.1, -0.15, -0.02)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not measured"),
        (0.0, "p < 0.001"),
        (0.0009, "p < 0.001"),
        (0.001, "p = 0.001"),
        (0.0996, "p = 0.100"),
        (0.12, "p = 0.12"),
        (1.0, "p = 1.00"),
    ],
)
def test_probability(value: float | None, text: str) -> None:
    assert numbers.probability(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "not measured"),
        (0.004, "4 ms"),
        (0.41, "0.41 s"),
        (12.6, "13 s"),
        (59.7, "1 min 00 s"),
        (852.4, "14 min 12 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert numbers.duration(seconds) == text


def test_counts_sizes_and_rates() -> None:
    assert [numbers.count(1, "example"), numbers.count(1240, "example"), numbers.count(0, "item")] == [
        "1 example",
        "1,240 examples",
        "0 items",
    ]
    assert numbers.count(None, "example") == numbers.size(None) == numbers.rate(None) == "not measured"
    assert [numbers.size(19_568_432), numbers.size(3_521_000_000), numbers.size(512)] == [
        "19.6 MB",
        "3.5 GB",
        "512 B",
    ]
    assert [numbers.rate(3e-4), numbers.rate(5e-6)] == ["0.0003", "5e-06"]


@pytest.mark.parametrize("value", [None, True, "0.5", math.nan, math.inf, [1]])
def test_only_finite_numbers_are_numbers(value: object) -> None:
    assert numbers.finite(value) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"a\|b"),
        ("few_shot", "few_shot"),
        ("_x_", r"\_x\_"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("two\nlines\n\n# no heading", r"two lines \# no heading"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("---", r"--\-"),
        ("+9.4 points [+4.1, −0.2]", "+9.4 points [+4.1, −0.2]"),
        ("[1, 2](x)", r"\[1, 2\](x)"),
    ],
)
def test_escape(text: str, shown: str) -> None:
    assert escape(text) == shown


HOSTILE = st.text(st.sampled_from("ab1 -+=_*`~[]()!<>&|#$@:/.\\\n\t\"'w"), max_size=40)


@given(HOSTILE)
def test_escaped_text_reads_as_itself(text: str) -> None:
    """Rendered, it is one paragraph whose text is the original with its blanks collapsed."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(escape(text))
    plain = " ".join(text.split())
    assert [t.type for t in tokens] == (["paragraph_open", "inline", "paragraph_close"] if plain else [])
    if plain:
        children = tokens[1].children or []
        assert {child.type for child in children} <= {"text", "text_special"}
        assert "".join(child.content for child in children) == plain


@given(HOSTILE)
def test_code_and_fence_cannot_be_broken_out_of(text: str) -> None:
    parser = MarkdownIt("gfm-like", {"linkify": False})
    row = parser.parse(f"| a |\n|---|\n| {code(text)} |\n")
    assert [t.type for t in row].count("td_open") == 1
    block = parser.parse(f"{fence(text)}\n{text}\n{fence(text)}\n")
    assert [t.type for t in block] == ["fence"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.346, "percent", "34.6%"),
        (0.006, "points", "+0.6 points"),
        (2.4657, "nats per token", "2.466"),
        (-0.085, "difference in nats per token", f"{numbers.MINUS}0.085"),
        (None, "nats per token", "not measured"),
    ],
)
def test_a_unit_that_the_table_names_is_not_said_again(value: float | None, unit: str, text: str) -> None:
    assert numbers.bare(value, unit) == text


def test_the_confident_answers_are_those_of_the_candidate_that_was_counted() -> None:
    """The verdict counts for the recommended candidate, so its own answers stand beside its threshold."""
    rows = {
        "scratch": [{"confidence": 0.9, "score": 0.0}, {"confidence": 0.2, "score": 1.0}],
        "tuned": [{"confidence": 0.5, "score": 1.0}],
    }
    counted = {"candidate": "scratch", "n": 1, "of": 1, "share": 1.0, "threshold": 0.9}
    shown = read_confidence(rows.__getitem__, ["scratch", "tuned"], "scratch", counted)
    assert shown is not None and shown.candidate == "scratch"
    assert shown.points == [(0.9, False), (0.2, True)] and len(shown.examples) == 1
    without = read_confidence(rows.__getitem__, ["scratch", "tuned"], "scratch", {})
    assert without is not None and without.candidate == "tuned"
