"""The number in an answer: what is read, what is refused, what is close enough."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.examples.example import Example, Message
from luthier.grade import build_grader
from luthier.grade.numeric import NotANumber, Numeric, read_number
from luthier.recipe.grader_options import NumericOptions

EXAMPLE = Example("id", (Message("user", "q"), Message("assistant", "a")), "sums.jsonl", 17)

READ = {
    "5": "5",
    "The answer is 5.": "5",
    "It costs $1,234.50 in all": "1234.5",
    "1.234,50 €": "1234.5",
    "1 234,5": "1234.5",
    "1\u202f234\u00a0567": "1234567",
    "1'234.5": "1234.5",
    "1,234": "1234",
    "1.234": "1.234",
    "1234,567": "1234.567",
    "0,500": "0.5",
    "12,5%": "0.125",
    "45 percent": "0.45",
    "12,34,567": "1234567",
    "1,234,567.89": "1234567.89",
    "1.234.567": "1234567",
    "-5": "-5",
    "−5": "-5",
    "minus 5": "-5",
    "-$5": "-5",
    "$-5": "-5",
    "- 5 apples": "5",  # an item of a list
    "+5": "5",
    ".5": "0.5",
    "1.5e3 kg": "1500",
    "1E-3": "0.001",
    "$5 million": "5000000",
    "٤٥": "45",
    "４５％": "0.45",
    "5kg of CO2": "5",
    "5, so 5": "5",
    "0": "0",
    "-0.0": "0",
    "It is 3 + 4, that is\n#### 7": "7",
    r"first \boxed{3}, then \boxed{72\%} of 9": "0.72",
}


@pytest.mark.parametrize(("text", "value"), READ.items())
def test_the_number_is_read(text: str, value: str) -> None:
    assert read_number(text).value == Decimal(value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no number"),
        ("seven", "no number"),
        ("CO2", "no number"),
        ("½", "no number"),
        ("3 + 4 = 7", "several numbers: 3, 4, 7"),
        ("5 -3", "several numbers"),
        ("between 1 and 2 and 3 and 4 and 5", r"1, 2, 3, 4 \.\.\."),
        ("5k", "more than one way"),
        ("1/2", "more than one way"),
        ("3-4", "more than one way"),
        ("3–4", "more than one way"),
        ("10:30", "more than one way"),
        ("10²", "more than one way"),
        ("10^3", "more than one way"),
        ("0x1F", "more than one way"),
        ("2024-01-05", "more than one way"),
        ("05.01.2024", "separators"),
        ("1,23,4", "separators"),
        ("1,234.567,8", "separators"),
        ("-$-5", "two signs"),
        ("9" * 301, "more than 300 digits"),
        ("1e9999", "more than 300 digits"),
        ("1e" + "9" * 40, "more than 300 digits"),
    ],
)
def test_what_is_no_one_number_says_why(text: str, why: str) -> None:
    with pytest.raises(NotANumber, match=why):
        read_number(text)
    wrong = Numeric().grade(text, "5", EXAMPLE)
    assert wrong.value == 0.0 and wrong.reason
    unscored = Numeric().grade("5", text, EXAMPLE)
    assert unscored.value is None and "the reference" in str(unscored.reason)


@given(st.text())
def test_no_answer_is_a_crash(text: str) -> None:
    assert Numeric().grade(text, "5", EXAMPLE).value in (0.0, 1.0)


@given(st.decimals(-(10**9), 10**9, allow_nan=False, places=3), st.sampled_from([",", " ", "'", ""]))
def test_a_number_reads_as_itself_however_it_is_grouped(number: Decimal, group: str) -> None:
    text = f"{number:,.3f}".replace(",", group)
    assert read_number(f"That is {text}.").value == number


@pytest.mark.parametrize(
    ("answer", "tolerance", "relative", "value"),
    [
        ("0.31", 0.01, False, 1),  # exactly the tolerance, which floats get wrong
        ("0.29", 0.01, False, 1),
        ("0.3101", 0.01, False, 0),
        ("0.3", 0, False, 1),
        ("0.300000000001", 0, False, 0),
        ("0.303", 0.01, True, 1),
        ("0.3031", 0.01, True, 0),
        ("30%", 0, False, 1),
        ("30", 0, False, 0),
    ],
)
def test_tolerance(answer: str, tolerance: float, relative: bool, value: float) -> None:
    grader = build_grader(
        NumericOptions(kind="numeric", tolerance=tolerance, relative=relative), [], answer_schema=None
    )
    score = grader.grade(answer, "0.3", EXAMPLE)
    assert score.value == value
    assert (score.reason is None) == (value == 1)
    assert score.detail["expected"] == "0.3"


def test_a_relative_tolerance_is_of_the_size_of_the_reference() -> None:
    assert Numeric(tolerance=0.1, relative=True).grade("-110", "-100", EXAMPLE).value == 1
    assert Numeric(tolerance=0.1, relative=True).grade("-100", "-110", EXAMPLE).value == 1
    assert Numeric(tolerance=0.1, relative=True).grade("-89", "-100", EXAMPLE).value == 0
    assert Numeric(tolerance=0.1, relative=True).grade("-111", "-100", EXAMPLE).value == 0  # 11.1 of its own
    assert Numeric(tolerance=0.1, relative=True).grade("0.01", "0", EXAMPLE).value == 0


def test_another_currency_is_another_amount_but_none_is_no_difference() -> None:
    assert Numeric().grade("5 €", "$5", EXAMPLE).reason == "in €, not in $"
    assert Numeric().grade("5", "$5", EXAMPLE).value == 1
    assert Numeric().grade("5 USD", "$5", EXAMPLE).value == 1


def test_the_metric_tells_the_tolerance() -> None:
    assert Numeric().metric == "right number"
    assert Numeric(tolerance=0.05).metric == "right number, within 0.05"
    assert Numeric(tolerance=0.05, relative=True).metric == "right number, within 5%"
