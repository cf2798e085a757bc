"""The data of the study of claims: invented facts, wrong labels, sides that stay apart."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from bench.claims import data
from bench.claims.contains import contains
from bench.claims.data import Size
from bench.claims.points import WRONG


def test_facts_are_different_and_their_answers_are_in_the_statement_alone() -> None:
    facts_ = [fact for several_ in data.read_facts().values() for fact in several_]
    assert len(facts_) >= 60
    for name in ("subject", "statement", "held_out", "answer"):
        told = [getattr(fact, name).casefold() for fact in facts_]
        assert len(set(told)) == len(told), name
    wordings = [text for fact in facts_ for text in (*fact.asked, fact.held_out)]
    assert len(set(wordings)) == 3 * len(facts_)
    for fact in facts_:
        assert contains(fact.statement, fact.answer, {})
        for text in (*fact.asked, fact.held_out):
            assert not contains(text, fact.answer, {}), text


def test_what_is_not_taught_is_nowhere_to_be_learned() -> None:
    found = data.read_facts()
    sides = data.taught_facts(Size())
    told = [m["content"] for side in ("train", "validation") for r in sides[side] for m in r["messages"]]
    told += data.statements(Size())
    for fact in found["untaught"]:
        assert not any(fact.subject in text or contains(text, fact.answer, {}) for text in told), fact
    assert {r["messages"][-1]["content"] for r in sides["test"] if r["kind"] == "not taught"} == {
        data.UNKNOWN
    }


def test_the_test_asks_for_taught_facts_in_a_wording_that_is_not_trained() -> None:
    sides = data.taught_facts(Size())
    seen = {r["messages"][0]["content"] for side in ("train", "validation") for r in sides[side]}
    kinds = Counter(r["kind"] for r in sides["test"])
    assert kinds == {"otherwise": 36, "as trained": 36, "not taught": 18}
    for r in sides["test"]:
        assert (r["messages"][0]["content"] in seen) == (r["kind"] == "as trained")
    shown = data.facts_to_look_up(Size())
    assert [r for r in sides["test"] if r["kind"] != "as trained"] == list(shown["test"])


def test_wrong_labels_are_as_many_as_said_and_stay_wrong_at_larger_shares() -> None:
    sides = {share: data.categories(Size(), 0, share) for share in WRONG}
    wrong = {}
    for share, found in sides.items():
        rows = found["train"]
        wrong[share] = {r["case"]: r["messages"][-1]["content"] for r in rows if r["kind"] == "wrong"}
        assert len(wrong[share]) == round(share * len(rows))
        for r in rows:
            assert (r["messages"][-1]["content"] == r["right"]) == (r["kind"] == "right")
        assert found["test"] == sides[0.0]["test"]
    assert wrong[0.1].items() <= wrong[0.2].items() <= wrong[0.4].items()
    assert data.categories(Size(), 1, 0.4)["train"] != sides[0.4]["train"]


@pytest.mark.parametrize("draw", [data.tickets, data.open_book, data.truthful])
def test_the_test_is_the_same_for_every_seed_and_apart_from_training(draw: Any) -> None:
    first, other = draw(Size(), 0), draw(Size(), 1)
    assert first["test"] == other["test"]
    assert first["train"] != other["train"]
    assert len(first["train"]) == 120
    assert len(first["test"]) >= 100
    requests = [
        {r["messages"][0]["content"] for r in first[side]} for side in ("train", "validation", "test")
    ]
    assert len(set.union(*requests)) == sum(map(len, requests))


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("It was ODALYS  Brenning.", "Odalys Brenning", True),
        ("Odalys", "Odalys Brenning", False),
        ("It has 190 rooms", "19", False),
        ("19 rooms", "19", True),
        ("I don’t know.", "unknown", True),
        ("The answer is unknown.", "unknown", True),
        ("Thursday", "unknown", False),
        ("", "Thursday", False),
    ],
)
def test_the_grader_of_facts(answer: str, reference: str, right: bool) -> None:
    assert contains(answer, reference, {}) is right
