"""Graders of plain text and labels, and the choice among graders, on cases that trip naive ones."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu import sentence_chrf

from luthier.errors import DataError, RecipeError
from luthier.examples.example import Example, Message
from luthier.grade import Score, build_grader, choose_grader, label
from luthier.grade.choose import BUILDERS
from luthier.grade.label import Label, normalise_label
from luthier.grade.text import StringCheck, TextSimilarity
from luthier.recipe import GRADERS

EXAMPLE = Example("id", (Message("user", "q"), Message("assistant", "a")), "tickets.jsonl", 17)


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_a_score_off_the_scale_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Score(value)


def test_unscored_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="reason"):
        Score(None)


@pytest.mark.parametrize(
    ("answer", "value"),
    [("Paris", 1), ("  Paris\n", 1), ("paris", 0), ("Paris.", 0), ("", 0), ("Paris\nParis", 0)],
)
def test_string_check(answer: str, value: float) -> None:
    assert StringCheck().grade(answer, "Paris", EXAMPLE).value == value


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=1).filter(str.strip), st.text())
def test_text_similarity_is_chrf(reference: str, answer: str) -> None:
    value = TextSimilarity().grade(answer, reference, EXAMPLE).value
    assert value == pytest.approx(sentence_chrf(answer, [reference]).score / 100)
    assert TextSimilarity().grade(reference, reference, EXAMPLE).value == pytest.approx(1)


def test_text_similarity_by_hand() -> None:
    # "ab" against "ac": of the 1-grams one in two matches, of the 2-grams none; F2 averages to 0.25
    assert TextSimilarity().grade("ab", "ac", EXAMPLE).value == pytest.approx(0.25)


@pytest.mark.parametrize("name", ["text_similarity", "label"])
def test_an_empty_reference_leaves_it_unscored(name: str) -> None:
    score = build_grader(name, ["x"], answer_schema=None).grade("x", " ", EXAMPLE)
    assert (score.value, score.reason) == (None, "the reference is empty")


@pytest.mark.parametrize(
    ("answer", "value", "known"),
    [
        ("billing", 1, True),
        (' **"Billing."** \n\nBecause the user asks for money.', 1, True),
        ("\n\nBILLING", 1, True),
        ("ｂｉｌｌｉｎｇ", 1, True),  # full-width letters
        ("tech  support", 0, True),
        ("billing issue", 0, False),
        ("The label is billing", 0, False),
        ("Because of money:\nbilling", 0, False),
        ("", 0, False),
        ("...", 0, False),
    ],
)
def test_label(answer: str, value: float, known: bool) -> None:
    grader = Label(["Billing", "Tech Support", "billing"])
    score = grader.grade(answer, "Billing", EXAMPLE)
    assert (score.value, score.detail["known"]) == (value, known)
    assert (score.reason is None) == (value == 1)


def test_a_label_outside_the_set_says_so() -> None:
    score = Label(["a", "b", "c"]).grade("d", "a", EXAMPLE)
    assert (score.value, score.reason) == (0.0, "not one of the 3 labels")
    # a label that only the held-out side has is still right when given
    unseen = Label(["a", "b"]).grade("Z", "z", EXAMPLE)
    assert (unseen.value, unseen.detail) == (1, {"label": "z", "known": True})


@pytest.mark.parametrize(
    "labels", [["-1", "1", "+1"], ["C", "C#", "C++"], ["<5", ">5", "5"], ["*", "**"], ["+", "-"], ["5%", "5"]]
)
def test_punctuation_that_makes_the_label_is_kept(labels: list[str]) -> None:
    grader = Label(labels)
    assert len(grader.labels) == len(labels)
    for reference in labels:
        right = [answer for answer in labels if grader.grade(answer, reference, EXAMPLE).value == 1]
        assert right == [reference]


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=126)))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise_label(text)
    assert "\n" not in once
    assert normalise_label(once.upper()) == once


def test_docstring_examples() -> None:
    assert doctest.testmod(label).failed == 0


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        (['{"a": 1}', '```json\n{"b": 2}\n```'], "json_fields"),
        (['{"a": 1}', "[1]"], "string_check"),
        (["yes", "no", "Yes.", "no"], "label"),
        (["billing"] * 3, "label"),
        ([f"label {i % 20}" for i in range(40)], "label"),
        ([f"label {i % 21}" for i in range(84)], "string_check"),
        (["a", "b", "c", "c"], "string_check"),  # four answers, three labels: too few repeats
        ([str(i) for i in range(50)], "string_check"),
        (["x" * 81, "y"], "text_similarity"),
        (["Dear customer,\nthank you", "Dear customer,\nno"], "text_similarity"),
        (["a rather long answer that comes back twice, word for word"] * 2, "string_check"),
        (['{"a": 1}', "I cannot say"], "string_check"),
    ],
)
def test_choice(answers: list[str], name: str) -> None:
    assert choose_grader(answers) == name


def test_nothing_to_choose_from() -> None:
    with pytest.raises(DataError, match="no answers"):
        choose_grader([])


def test_every_grader_of_a_recipe_is_built_under_its_name() -> None:
    assert set(BUILDERS) == set(GRADERS)
    for name in GRADERS:
        grader = build_grader(name, ['{"a": 1}'], answer_schema=None)
        assert grader.name == name and grader.metric
        assert grader.grade('{"a": 1}', '{"a": 1}', EXAMPLE).value == pytest.approx(1)


def test_unknown_grader_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'json_fields'"):
        build_grader("json_field", [], answer_schema=Path("x"))
