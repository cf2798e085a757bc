"""The best fixed answer, by hand."""

from __future__ import annotations

import json

import pytest

from luthier.candidates.constant import against_constant, constant_answer
from luthier.examples import Example
from luthier.examples.example import Message
from luthier.grade import build_grader


def examples(answers: list[str]) -> list[Example]:
    return [
        Example(f"e{i}", (Message("user", f"request {i}"), Message("assistant", answer)), "f", i)
        for i, answer in enumerate(answers)
    ]


def test_of_labels_it_is_the_commonest() -> None:
    train, test = examples(["no"] * 6 + ["yes"] * 10), examples(["yes"] * 30 + ["no"] * 10)
    grader = build_grader("label", ["yes", "no"] * 8, answer_schema=None)
    rows = [{"score": 1.0 if i < 36 else 0.0} for i in range(40)]
    found = against_constant(rows, test, train, grader, clusters=None, seed=0)
    assert found is not None
    assert (found["answer"], found["score"], found["n"]) == ("yes", 0.75, 40)
    assert found["difference"] == pytest.approx(0.9 - 0.75)
    assert found["low"] < found["difference"] < found["high"]


def test_of_json_it_is_put_together_from_the_commonest_values() -> None:
    """No training answer has both commonest values: a third of both, or two thirds of one."""
    pairs = [("red", n) for n in (1, 2)] * 4 + [("blue", 3), ("green", 3), ("black", 3)] * 3
    answers = [json.dumps({"colour": colour, "count": n}) for colour, n in pairs]
    grader = build_grader("json_fields", answers, answer_schema=None)
    assert json.loads(constant_answer(examples(answers), grader, seed=0)) == {"colour": "red", "count": 3}


def test_what_was_not_scored_is_left_out() -> None:
    grader = build_grader("string_check", ["a"], answer_schema=None)
    rows = [{"score": None}, {"score": 1.0}, {"score": 1.0}, {"score": None}]
    test = examples(["a", "b", "a", "a"])
    found = against_constant(rows, test, examples(["a"] * 8), grader, clusters=None, seed=0)
    assert found is not None
    assert (found["n"], found["score"], found["difference"]) == (2, 0.5, 0.5)
    nothing = [{"score": None}] * 4
    assert against_constant(nothing, test, examples(["a"] * 8), grader, clusters=None, seed=0) is None


def test_rules_that_do_not_look_at_the_reference_have_no_fixed_answer() -> None:
    """Valid JSON is valid whatever was asked."""
    grader = build_grader("json_schema", ['{"a": 1}'] * 8, answer_schema=None)
    train = examples(['{"a": 1}'] * 8)
    assert against_constant([{"score": 1.0}] * 8, train, train, grader, clusters=None, seed=0) is None
