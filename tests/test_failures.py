"""Wrong answers grouped into kinds, and words whose requests fail more often; by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from luthier.evidence.failures import failures_of, find_failures, text_fault
from luthier.examples import Example, Message
from luthier.grade.json_fields import JsonFields
from luthier.grade.label import Label

FIELDS = JsonFields()


def fields_row(number: int, reference: dict[str, Any], answer: dict[str, Any] | str) -> dict[str, Any]:
    given = answer if isinstance(answer, str) else json.dumps(answer)
    score = FIELDS.grade(given, json.dumps(reference), example(json.dumps(reference)))
    return {
        "id": str(number),
        "input": f"message {number}",
        "answer": given,
        "reference": json.dumps(reference),
        "score": score.value,
        "detail": dict(score.detail),
        "reason": score.reason,
        "file": "data.jsonl",
        "line": number,
    }


def label_row(number: int, reference: str, answer: str, text: str = "hello") -> dict[str, Any]:
    score = Label(["good", "bad", "mixed"]).grade(answer, reference, example(reference))
    return {
        "id": str(number),
        "input": text,
        "answer": answer,
        "reference": reference,
        "score": score.value,
        "detail": dict(score.detail),
        "reason": score.reason,
    }


def example(answer: str) -> Example:
    return Example("x", (Message("user", "x"), Message("assistant", answer)), "train.jsonl", 1)


def kinds(found: dict[str, Any]) -> dict[str, int]:
    return {kind["kind"]: kind["n"] for kind in found["kinds"]}


def test_confusions_of_a_field_are_counted_and_rare_ones_put_together() -> None:
    rows = [
        *(
            fields_row(i, {"urgency": "high", "refund": True}, {"urgency": "normal", "refund": True})
            for i in range(3)
        ),
        fields_row(3, {"urgency": "high", "refund": True}, {"urgency": "low", "refund": True}),
        fields_row(4, {"urgency": "low", "refund": True}, {"urgency": "high", "refund": True}),
        fields_row(5, {"urgency": "low", "refund": True}, {"urgency": "low"}),
        fields_row(6, {"urgency": "low", "refund": True}, "I cannot say"),
        fields_row(7, {"urgency": "low", "refund": True}, "sorry"),
        fields_row(8, {"urgency": "low", "refund": True}, {"urgency": "low", "refund": True}),
    ]
    found = find_failures(rows, [])
    assert (found["n"], found["wrong"]) == (9, 8)
    assert kinds(found) == {
        "urgency: 'high' answered as 'normal'": 3,
        "not a JSON object": 2,
        "urgency: other values": 2,
    }
    assert found["kinds"][0]["share"] == 3 / 8
    assert [case["id"] for case in found["kinds"][0]["cases"]] == ["0", "1", "2"]
    assert found["kinds"][0]["cases"][0]["file"] == "data.jsonl"


def test_a_label_taken_for_another_and_what_to_collect() -> None:
    """Training has 2 bad, 10 good, 6 mixed: the usual label has 6, so that 4 more bad ones are asked for."""
    train = [example(label) for label, n in (("bad", 2), ("good", 10), ("mixed", 6)) for _ in range(n)]
    rows = [label_row(i, "bad", "good") for i in range(2)] + [label_row(9, "good", "good")]
    (kind,) = find_failures(rows, train)["kinds"]
    assert kind["kind"] == "'bad' answered as 'good'"
    assert kind["trained"] == 2
    assert kind["collect"].startswith("about 4 more examples of 'bad' (training has 2)")
    assert "'good' that look alike" in kind["collect"]


def test_as_many_again_where_a_value_is_common_already() -> None:
    train = [example(label) for label, n in (("bad", 20), ("good", 10)) for _ in range(n)]
    (kind,) = find_failures([label_row(i, "bad", "good") for i in range(2)], train)["kinds"]
    assert kind["collect"].startswith("about 20 more examples")


def test_unscored_answers_are_no_failures() -> None:
    unscored = label_row(0, "bad", "good") | {"score": None, "detail": {}, "reason": "the judge is away"}
    found = find_failures([unscored, unscored | {"id": "1"}], [])
    assert (found["n"], found["wrong"], found["kinds"]) == (0, 0, [])
    assert failures_of(unscored) == []
    assert failures_of(label_row(0, "bad", "bad")) == []


def test_what_is_no_label_is_a_kind_of_its_own() -> None:
    rows = [label_row(i, "bad", f"well, it depends {i}") for i in range(3)]
    assert kinds(find_failures(rows, [])) == {"'bad' answered as 'none of the labels'": 3}


@pytest.mark.parametrize("planted", [True, False])
def test_a_word_whose_requests_fail_is_found_and_chance_is_not(planted: bool) -> None:
    """40 requests, 10 with "kettle": 9 of these and 3 of the others fail, or else every fourth of all."""
    rows = []
    for i in range(40):
        kettle = i < 10
        fails = (i != 0 if kettle else i < 13) if planted else i % 4 == 0
        text = f"my {'kettle' if kettle else 'lamp'} arrived"
        rows.append(label_row(i, "good", "bad" if fails else "good", text))
    words = find_failures(rows, [])["words"]
    assert [word["word"] for word in words] == (["kettle"] if planted else [])
    if planted:
        assert (words[0]["n"], words[0]["wrong"]) == (10, 9)
        assert words[0]["elsewhere"] == 3 / 30
        assert words[0]["p"] < 0.001


def test_long_values_do_not_make_a_kind_each() -> None:
    rows = [
        fields_row(i, {"summary": f"a long summary of the message number {i}"}, {"summary": "short"})
        for i in range(3)
    ]
    assert kinds(find_failures(rows, [])) == {"summary: 'another text' answered as 'short'": 3}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "no answer"),
        ("...", "no answer"),
        ("THE red house!", "the right words, written otherwise"),
        ("It is the red house on the hill", "the right words, and more"),
        ("red house", "a part of the right words"),
        ("house, red", "most of the right words"),
        ("the house that is red", "most of the right words"),
        ("a house", "few of the right words"),
        ("redhouse", "none of the right words"),
    ],
)
def test_what_is_wrong_with_a_text(answer: str, said: str) -> None:
    assert text_fault(answer, "The red house.") == said


def test_texts_are_grouped_by_what_is_wrong_unless_the_grader_says() -> None:
    def row(number: int, answer: str, reason: str | None) -> dict[str, Any]:
        return {
            "id": str(number),
            "answer": answer,
            "reference": "the red house",
            "score": 0.0,
            "reason": reason,
        }

    rows = [
        row(1, "red", "not the reference text"),
        row(2, "house", None),
        row(3, "blue", None),
        row(4, "green", "not the reference text"),
        row(5, "red", "breaks: the rule"),
        row(6, "blue", "breaks: the rule"),
    ]
    found = {"a part of the right words": 2, "none of the right words": 2, "breaks: the rule": 2}
    assert kinds(find_failures(rows, [])) == found
