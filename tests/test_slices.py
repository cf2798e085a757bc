"""Scores by field: who is in which slice, what is compared, which slices are named as worse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from luthier.errors import DataError
from luthier.evidence.evaluation import summarise
from luthier.evidence.slices import check_fields, slice_of, slice_scores
from luthier.examples.example import Example, Message
from luthier.grade import build_grader
from luthier.stats import compare, holm, mean_interval

Marks = Sequence[float | None]


def examples(fields: Sequence[dict[str, Any]], groups: Sequence[str | None] = ()) -> list[Example]:
    turns = (Message("user", "q"), Message("assistant", "a"))
    return [
        Example(f"e{i}", turns, "tickets.jsonl", i + 1, groups[i] if groups else None, own)
        for i, own in enumerate(fields)
    ]


def table(marks: Marks) -> list[dict[str, Any]]:
    own = {"prompt_tokens": 1, "answer_tokens": 1, "seconds": 0.1, "detail": {}, "reason": None}
    return [{"id": f"e{i}", "score": mark} | own for i, mark in enumerate(marks)]


def sliced(
    tables: dict[str, Marks], fields: Sequence[dict[str, Any]], *names: str, clusters: Any = None
) -> dict[str, Any]:
    rows = {name: table(marks) for name, marks in tables.items()}
    return slice_scores(rows, examples(fields), names, clusters=clusters, seed=0)


LANGUAGES = [{"lang": "en"}] * 30 + [{"lang": "de"}] * 20 + [{}] * 2
# tuned: 28 of 30 in English, where prompt has 10; 5 of 20 in German, where prompt has 18
TUNED = [1.0] * 28 + [0.0] * 2 + [1.0] * 5 + [0.0] * 15 + [1.0, 0.0]
PROMPT = [1.0] * 10 + [0.0] * 20 + [0.0] * 2 + [1.0] * 18 + [1.0, 0.0]


def test_every_slice_has_its_own_score_and_interval() -> None:
    found = sliced({"prompt": PROMPT, "tuned": TUNED}, LANGUAGES, "lang")
    rows = {(row["value"], row["candidate"]): row for row in found["scores"]}
    assert list(rows) == [("en", "prompt"), ("en", "tuned"), ("de", "prompt"), ("de", "tuned")]
    expected = mean_interval(TUNED[30:50], seed=0)
    german = rows["de", "tuned"]
    assert (german["score"], german["n"], german["unscored"]) == (0.25, 20, 0)
    assert (german["low"], german["high"]) == (expected.low, expected.high)
    assert rows["en", "prompt"]["score"] == pytest.approx(1 / 3)
    assert found["missing"] == {"lang": 2}
    json.dumps(found, allow_nan=False)


def test_a_slice_that_got_worse_though_the_total_got_better_is_named() -> None:
    found = sliced({"prompt": PROMPT, "tuned": TUNED}, LANGUAGES, "lang")
    (worse,) = found["worse"]
    expected = compare(TUNED[30:50], PROMPT[30:50])
    assert (worse["field"], worse["value"], worse["a"], worse["b"]) == ("lang", "de", "tuned", "prompt")
    assert (worse["difference"], worse["low"], worse["high"]) == (
        expected.difference,
        expected.low,
        expected.high,
    )
    assert worse["total"] == pytest.approx((sum(TUNED) - sum(PROMPT)) / 52)
    assert worse["total"] > 0 > worse["difference"]


def test_no_slice_is_named_when_the_total_fell_too() -> None:
    prompt = [1.0] * 30 + PROMPT[30:]
    found = sliced({"prompt": prompt, "tuned": TUNED}, LANGUAGES, "lang")
    german = next(row for row in found["paired"] if row["value"] == "de")
    assert german["p_adjusted"] < 0.05 and german["total"] < 0
    assert found["worse"] == []


def test_holm_is_over_all_slices_fields_and_alternatives() -> None:
    fields = [{"lang": own.get("lang"), "half": i % 2} for i, own in enumerate(LANGUAGES)]
    found = sliced({"prompt": PROMPT, "few_shot": [0.0, 1.0] * 26, "tuned": TUNED}, fields, "lang", "half")
    assert len(found["paired"]) == 4 * 2
    assert [row["b"] for row in found["paired"]] == ["prompt", "few_shot"] * 4
    ps = [row["p"] for row in found["paired"]]
    assert None not in ps
    assert [row["p_adjusted"] for row in found["paired"]] == holm(ps)


def test_a_slice_that_is_too_small_is_shown_and_not_tested() -> None:
    fields = [{"lang": "en"}] * 30 + [{"lang": "fi"}] * 7 + [{"lang": "de"}] * 8
    tuned, prompt = [1.0] * 30 + [0.0] * 15, [0.0] * 30 + [1.0] * 15
    found = sliced({"prompt": prompt, "tuned": tuned}, fields, "lang")
    ps = {row["value"]: row["p_adjusted"] for row in found["paired"]}
    assert ps["fi"] is None
    assert ps["de"] == pytest.approx(0.5**8)  # the larger of two: fi does not count
    assert [row["value"] for row in found["worse"]] == ["de"]
    assert {row["value"] for row in found["scores"]} == {"en", "fi", "de"}


def test_unscored_answers_are_left_out_of_their_slice() -> None:
    tuned: Marks = [1.0, None, 0.0, 1.0] * 5
    prompt: Marks = [1.0, 1.0, None, 0.0] * 5
    found = sliced({"prompt": prompt, "tuned": tuned}, [{"a": True}] * 20, "a")
    (pair,) = found["paired"]
    assert (pair["n"], pair["difference"], pair["value"]) == (10, 0.5, "true")
    assert [(row["n"], row["unscored"]) for row in found["scores"]] == [(15, 5), (15, 5)]
    nothing = sliced({"prompt": [None] * 9, "tuned": [None] * 9}, [{"a": 1}] * 9, "a")
    assert (nothing["scores"][0]["score"], nothing["paired"][0]["p"], nothing["worse"]) == (None, None, [])


def test_examples_of_one_source_count_as_one_unit() -> None:
    sources = [f"s{i // 10}" for i in range(52)]
    plain = sliced({"prompt": PROMPT, "tuned": TUNED}, LANGUAGES, "lang")
    clustered = sliced({"prompt": PROMPT, "tuned": TUNED}, LANGUAGES, "lang", clusters=sources)
    alone, together = (
        next(row["p"] for row in found["paired"] if row["value"] == "de") for found in (plain, clustered)
    )
    assert alone < 0.01 < together
    assert clustered["worse"] == []
    narrow, wide = (found["scores"][0]["high"] - found["scores"][0]["low"] for found in (plain, clustered))
    assert narrow < wide


def test_without_tuned_there_is_nothing_to_compare() -> None:
    found = sliced({"prompt": PROMPT}, LANGUAGES, "lang")
    assert (found["paired"], found["worse"], len(found["scores"])) == ([], [], 2)
    assert sliced({"prompt": PROMPT, "tuned": TUNED}, LANGUAGES) == {
        "scores": [],
        "paired": [],
        "worse": [],
        "missing": {},
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("en", "en"),
        (5, "5"),
        (True, "true"),
        (["a", "ü"], '["a", "ü"]'),
        ({"b": 1, "a": 2}, '{"a": 2, "b": 1}'),
    ],
)
def test_a_value_is_shown_as_text(value: Any, shown: str) -> None:
    (example,) = examples([{"x": value}])
    assert slice_of(example, "x") == shown


@pytest.mark.parametrize("value", [None, ""])
def test_no_value_is_no_slice(value: Any) -> None:
    (example,) = examples([{"x": value}])
    assert slice_of(example, "x") is None
    assert slice_of(example, "y") is None


def test_fields_that_make_no_slices_are_refused() -> None:
    test = examples([{"lang": "en", "number": i} for i in range(51)])
    check_fields(test, ["lang"])
    check_fields(test[:50], ["number"])
    with pytest.raises(DataError, match="no held-out example has a field 'lng'\nFix: did you mean 'lang'"):
        check_fields(test, ["lang", "lng"])
    with pytest.raises(DataError, match="fields there are: lang, number"):
        check_fields(test, ["zzz"])
    with pytest.raises(DataError, match="fields there are: none"):
        check_fields(examples([{}]), ["zzz"])
    with pytest.raises(DataError, match="field 'number' has 51 values among 51 held-out examples"):
        check_fields(test, ["number"])


def test_slices_are_part_of_the_scores() -> None:
    test = examples(LANGUAGES, ["one"] * 10 + [None] * 42)
    grader = build_grader("string_check", [], answer_schema=None)
    tables = {"prompt": table(PROMPT), "tuned": table(TUNED)}
    found = summarise(tables, test, grader, seed=0, slices=["lang"])["slices"]
    clusters = ["one"] * 10 + [f"alone:e{i}" for i in range(10, 52)]
    assert found == slice_scores(tables, test, ["lang"], clusters=clusters, seed=0)
    assert summarise(tables, test, grader, seed=0)["slices"]["scores"] == []
