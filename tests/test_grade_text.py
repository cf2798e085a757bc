"""Graders of plain text and labels, and the choice among graders, on cases that trip naive ones."""

from __future__ import annotations

import doctest
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu import sentence_bleu, sentence_chrf

from luthier.errors import DataError, RecipeError
from luthier.examples.example import Example, Message
from luthier.grade import Score, build_grader, choose_grader, label
from luthier.grade.choose import BUILDERS
from luthier.grade.label import Label, normalise_label
from luthier.grade.text import StringCheck, TextSimilarity, rouge_words
from luthier.recipe.grader_options import GRADERS, StringCheckOptions, TextSimilarityOptions

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


@pytest.mark.parametrize(
    ("ignore_case", "answer", "value"),
    [(True, " STRASSE", 1), (True, "straße", 1), (True, "strase", 0), (False, "STRASSE", 0)],
)
def test_string_check_may_ignore_case(ignore_case: bool, answer: str, value: float) -> None:
    options = StringCheckOptions(kind="string_check", ignore_case=ignore_case)
    grader = build_grader(options, [], answer_schema=None)
    assert grader.grade(answer, "Straße", EXAMPLE).value == value
    assert ("any case" in grader.metric) == ignore_case


def similarity(metric: str, answer: str, reference: str) -> float:
    options = TextSimilarityOptions.model_validate({"kind": "text_similarity", "metric": metric})
    value = build_grader(options, [], answer_schema=None).grade(answer, reference, EXAMPLE).value
    assert value is not None
    return value


@settings(deadline=None, max_examples=50)
@given(st.text(min_size=1).filter(str.strip), st.text())
def test_bleu_is_sacrebleus_sentence_bleu(reference: str, answer: str) -> None:
    value = TextSimilarity("bleu").grade(answer, reference, EXAMPLE).value
    assert value == pytest.approx(sentence_bleu(answer, [reference]).score / 100)


def test_bleu_by_hand() -> None:
    # 1-grams 2 of 2, no longer ones to count (effective order 2: 2-grams 1 of 1), brevity exp(1 - 3/2)
    assert similarity("bleu", "the cat", "the cat sat") == pytest.approx(math.exp(-0.5))
    assert similarity("bleu", "the cat sat", "the cat sat") == pytest.approx(1)  # not 0 for want of 4-grams


def test_rouge_by_hand() -> None:
    answer, reference = "the cat sat on a mat", "The cat lay on the mat."
    # words: the, cat, on, mat of 6 and 6; pairs: "the cat" of 5 and 5; in order: the cat on mat
    assert similarity("rouge_1", answer, reference) == pytest.approx(4 / 6)
    assert similarity("rouge_2", answer, reference) == pytest.approx(1 / 5)
    assert similarity("rouge_l", answer, reference) == pytest.approx(4 / 6)
    assert similarity("rouge_l", "mat the on cat", reference) == pytest.approx(2 * 2 / (4 + 6))
    assert similarity("rouge_l", "cat", "the cat sat") == pytest.approx(2 * 1 * (1 / 3) / (1 + 1 / 3))


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(max_codepoint=126)))
def test_rouge_words_are_rouge_scores_own_in_english(text: str) -> None:
    tokenizers = pytest.importorskip("rouge_score.tokenizers")
    assert rouge_words(text) == tokenizers.DefaultTokenizer(use_stemmer=False).tokenize(text)


@pytest.mark.parametrize("text", ["Ωραία μέρα", "今天天气很好", "ありがとう", "नमस्ते दुनिया", "Café 1e\u0301"])
def test_rouge_is_not_blind_outside_english(text: str) -> None:
    assert similarity("rouge_l", text, text) == pytest.approx(1)
    assert similarity("rouge_l", "nothing", text) == 0


def test_rouge_words() -> None:
    assert rouge_words("今天 is_नमस्ते, e\u0301!") == ["今", "天", "is", "नमस्ते", "é"]


def test_rouge_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(RecipeError, match=r"pip install 'luthier\[rouge\]'"):
        TextSimilarity("rouge_l")


@pytest.mark.parametrize(
    ("metric", "called"), [("chrf", "chrF"), ("bleu", "BLEU"), ("rouge_l", "ROUGE-L"), ("rouge_2", "ROUGE-2")]
)
def test_the_metric_says_which_similarity(metric: str, called: str) -> None:
    options = TextSimilarityOptions.model_validate({"kind": "text_similarity", "metric": metric})
    assert build_grader(options, [], answer_schema=None).metric == f"text similarity ({called})"


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
