"""Grading and comparing: what is counted, what is paired with what, what is adjusted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from luthier.evidence.evaluation import grade_answers, summarise
from luthier.examples import Example, Message
from luthier.grade.score import Score
from luthier.stats import compare, detectable_difference, holm, mean_interval


class Marks:
    """The answer is its own mark; `?` cannot be scored."""

    name = "marks"
    metric = "mean mark"

    def grade(self, answer: str, reference: str, example: Example) -> Score:
        if answer == "?":
            return Score(None, "not a mark")
        return Score(float(answer), detail={"asked": example.input})


def examples(count: int, groups: Sequence[str | None] = ()) -> list[Example]:
    return [
        Example(
            f"e{i}",
            (Message("user", f"question {i}"), Message("assistant", "1")),
            "tickets.jsonl",
            i + 1,
            groups[i] if groups else None,
        )
        for i in range(count)
    ]


def answers(marks: Sequence[str | float], **more: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"e{i}", "answer": str(mark), "prompt_tokens": 10, "answer_tokens": 2, "seconds": 0.5} | more
        for i, mark in enumerate(marks)
    ]


def scores(tables: dict[str, Sequence[str | float]], groups: Sequence[str | None] = ()) -> dict[str, Any]:
    test = examples(len(next(iter(tables.values()))), groups)
    graded = {name: grade_answers(answers(marks), test, Marks()) for name, marks in tables.items()}
    return summarise(graded, test, Marks(), seed=0)


def pair(found: dict[str, Any], a: str, b: str) -> dict[str, Any]:
    (row,) = [row for row in found["paired"] if (row["a"], row["b"]) == (a, b)]
    return row


def test_answers_are_matched_by_id_not_by_place() -> None:
    test = examples(3)
    rows = grade_answers(list(reversed(answers([0.1, 0.2, 0.3]))), test, Marks())
    assert [(row["id"], row["score"], row["line"]) for row in rows] == [
        ("e0", 0.1, 1),
        ("e1", 0.2, 2),
        ("e2", 0.3, 3),
    ]
    assert rows[1]["input"] == "question 1"
    assert rows[1]["detail"] == {"asked": "question 1"}
    assert (rows[1]["reference"], rows[1]["file"], rows[1]["reason"]) == ("1", "tickets.jsonl", None)


def test_unscored_is_left_out_and_counted_and_never_zero() -> None:
    found = scores({"tuned": [1, 1, "?", 0, "?"], "prompt": [1, 0, 1, 0, 1]})
    tuned = found["candidates"]["tuned"]
    assert (tuned["n"], tuned["unscored"]) == (3, 2)
    assert tuned["score"] == pytest.approx(2 / 3)
    assert (tuned["low"], tuned["high"]) == pytest.approx(
        (mean_interval([1, 1, 0]).low, mean_interval([1, 1, 0]).high)
    )
    assert found["candidates"]["prompt"]["unscored"] == 0
    # pairs: examples 0, 1, 3 only, and tuned's 2 of 3 against prompt's 1 of 3 there
    row = pair(found, "tuned", "prompt")
    assert row["n"] == 3
    assert row["difference"] == pytest.approx(1 / 3)


def test_a_candidate_without_any_score_is_null_throughout() -> None:
    found = scores({"tuned": [1, 0, 1], "prompt": ["?", "?", "?"]})
    prompt = found["candidates"]["prompt"]
    assert [prompt[key] for key in ("score", "low", "high")] == [None] * 3
    assert (prompt["n"], prompt["unscored"]) == (0, 3)
    row = pair(found, "tuned", "prompt")
    assert [row[key] for key in ("difference", "low", "high", "p", "p_adjusted")] == [None] * 5
    json.dumps(found, allow_nan=False)


def test_pairs_are_of_the_same_examples() -> None:
    """Two candidates with the same mean that are right on other examples."""
    a, b = [1, 1, 1, 0, 0, 0] * 5, [0, 0, 0, 1, 1, 1] * 5
    found = scores({"tuned": a, "prompt": b})
    expected = compare(a, b, seed=0)
    row = pair(found, "tuned", "prompt")
    assert (row["difference"], row["p"], row["test"]) == (0.0, expected.p, "mcnemar_midp")
    assert (row["low"], row["high"]) == (expected.low, expected.high)
    assert row["high"] > 0.3  # 30 disagreements of 30, where same answers would give about 0.11


def test_wins_count_ties_half_whatever_the_differences_are() -> None:
    tuned, prompt = [0.9, 0.9, 0.5, 0.2], [0.1, 0.8, 0.5, 0.3]
    wins = pair(scores({"tuned": tuned, "prompt": prompt}), "tuned", "prompt")["wins"]
    assert (wins["better"], wins["same"], wins["worse"]) == (2, 1, 1)
    assert wins["rate"] == pytest.approx(2.5 / 4)
    assert wins["low"] < 2.5 / 4 < wins["high"]
    nothing = pair(scores({"tuned": [1, 0], "prompt": ["?", "?"]}), "tuned", "prompt")["wins"]
    assert [nothing[key] for key in ("better", "rate", "low", "high")] == [0, None, None, None]


def test_holm_is_over_the_comparisons_of_tuned_and_apart_over_the_others() -> None:
    marks = {
        "prompt": [0] * 12 + [1] * 8,
        "few_shot": [0] * 8 + [1] * 12,
        "scratch": [0] * 5 + [1] * 15,
        "tuned": [1] * 20,
    }
    found = scores(marks)
    ours = [row for row in found["paired"] if row["a"] == "tuned"]
    others = [row for row in found["paired"] if row["a"] != "tuned"]
    assert [row["b"] for row in ours] == ["prompt", "few_shot", "scratch"]
    assert [(row["a"], row["b"]) for row in others] == [
        ("prompt", "few_shot"),
        ("prompt", "scratch"),
        ("few_shot", "scratch"),
    ]
    # mid-p McNemar of k gains and no loss: 2 * 0.5^k - 0.5^k = 0.5^k
    assert [row["p"] for row in ours] == pytest.approx([0.5**12, 0.5**8, 0.5**5])
    assert [row["p_adjusted"] for row in ours] == pytest.approx([3 * 0.5**12, 2 * 0.5**8, 0.5**5])
    assert [row["p_adjusted"] for row in others] == pytest.approx(holm([row["p"] for row in others]))


def test_examples_of_one_group_count_as_one_unit() -> None:
    tuned, prompt = [1, 1, 1, 1, 0, 0, 1, 1], [0, 0, 0, 0, 1, 0, 1, 1]
    groups = ["ada", "ada", "ada", "ada", "bob", "bob", None, None]
    alone = pair(scores({"tuned": tuned, "prompt": prompt}), "tuned", "prompt")
    grouped = scores({"tuned": tuned, "prompt": prompt}, groups)
    row = pair(grouped, "tuned", "prompt")
    assert (alone["test"], row["test"]) == ("mcnemar_midp", "paired_permutation")
    assert alone["difference"] == row["difference"] == 3 / 8
    # units: ada +4, bob -1, two alone 0: |sum| >= 3 for all four sign patterns of (4, 1)
    assert row["p"] == 1.0
    wide, narrow = grouped["candidates"]["tuned"], scores({"tuned": tuned})["candidates"]["tuned"]
    assert wide["high"] - wide["low"] > narrow["high"] - narrow["low"]


def test_costs_are_means_and_null_where_there_are_none() -> None:
    test = examples(4)
    rows = grade_answers(answers([1, 1, 0, 1]), test, Marks())
    rows[0]["prompt_tokens"], rows[1]["seconds"] = 30, 2.5
    scratch = grade_answers(answers([1, 0, 0, 1], prompt_tokens=None, answer_tokens=None), test, Marks())
    found = summarise({"tuned": rows, "scratch": scratch}, test, Marks(), seed=0)["candidates"]
    assert (found["tuned"]["prompt_tokens"], found["tuned"]["seconds"]) == (15.0, 1.0)
    assert (found["scratch"]["prompt_tokens"], found["scratch"]["answer_tokens"]) == (None, None)


def test_what_the_test_side_can_show_is_told() -> None:
    found = scores({"tuned": [1] * 40, "prompt": [0] * 40})
    assert found["detectable_difference"] == detectable_difference(40)
    assert (found["metric"], found["grader"]) == ("mean mark", "marks")


class ManyMarks(Marks):
    """Marks everything at once, and counts the answers it saw."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def grade_many(self, cases: Sequence[tuple[str, str, Example]]) -> list[Score]:
        self.asked += [answer for answer, _, _ in cases]
        return [self.grade(*case) for case in cases]

    def summarise(self, rows: Sequence[dict[str, Any]], clusters: Sequence[str] | None) -> dict[str, Any]:
        return {"seen": len(rows), "clusters": clusters}


def test_a_grader_may_see_all_answers_at_once_and_add_what_it_knows() -> None:
    grader, test = ManyMarks(), examples(3, ["ada", None, "ada"])
    rows = grade_answers(list(reversed(answers([0.1, "?", 0.3]))), test, grader)
    assert grader.asked == ["0.1", "?", "0.3"]
    assert [row["score"] for row in rows] == [0.1, None, 0.3]
    found = summarise({"tuned": rows}, test, grader, seed=0)["candidates"]["tuned"]
    assert (found["seen"], found["clusters"], found["n"]) == (3, ["ada", "alone:e1", "ada"], 2)
