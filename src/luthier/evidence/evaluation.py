"""From answers to scores: grade every candidate, then compare them paired on the same examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from luthier.evidence.slices import slice_scores
from luthier.examples.example import Example
from luthier.grade import Doubtful, Grader, Score, Summarises, grade_all
from luthier.recipe.candidate_options import Prices
from luthier.stats import compare, detectable_difference, holm, mean_interval, stand, win_rate

Rows = list[dict[str, Any]]


def grade_answers(answers: Sequence[Mapping[str, Any]], test: Sequence[Example], grader: Grader) -> Rows:
    """The lines of `predictions/<candidate>.jsonl`: answers with reference and score, in test order.

    Rows that bring their `score` and `detail` along keep them; the others are graded.
    """
    by_id = {answer["id"]: answer for answer in answers}
    given = [by_id[example.id] for example in test]
    if all("score" in row for row in given):
        scores = [Score(row["score"], detail=row["detail"]) for row in given]
    else:
        cases = [(row["answer"], example.answer, example) for row, example in zip(given, test, strict=True)]
        scores = grade_all(grader, cases)
    return [
        {
            **by_id[example.id],
            "reference": example.answer,
            "score": score.value,
            "reason": score.reason,
            "detail": dict(score.detail),
            "input": example.input if example.request else "",
            "file": example.file,
            "line": example.line,
        }
        for example, score in zip(test, scores, strict=True)
    ]


def summarise(
    tables: Mapping[str, Rows],
    test: Sequence[Example],
    grader: Grader,
    *,
    seed: int,
    prices: Prices | None = None,
    slices: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of `scores.json`: each candidate with its interval and cost, and all pairs compared.

    Args:
        slices: fields of the examples by whose values the scores are broken down.
    """
    clusters = clusters_of(test)
    return {
        "metric": grader.metric,
        "grader": grader.name,
        "confidence_level": 0.95,
        "candidates": {
            name: _candidate(rows, clusters, seed)
            | {"cost": request_cost(name, rows, prices)}
            | _more(grader, rows, clusters)
            for name, rows in tables.items()
        },
        "paired": _pairs(tables, clusters, seed),
        "detectable_difference": detectable_difference(len(test)),
        "slices": slice_scores(tables, test, slices, clusters=clusters, seed=seed),
        "judge": judge_facts(grader),
    }


def judge_facts(grader: Grader) -> dict[str, Any] | None:
    """What is known of a judge, None for a grader by rule: `gates` says whether it may decide anything."""
    if not isinstance(grader, Doubtful):
        return None
    return {"gates": grader.gates, "gates_reason": grader.gates_reason, **grader.about()}


def _more(grader: Grader, rows: Rows, clusters: Sequence[str] | None) -> dict[str, Any]:
    """What the grader itself has to say of a candidate: `fields` of JSON, a judge's `corrected` mean."""
    return grader.summarise(rows, clusters) if isinstance(grader, Summarises) else {}


def _candidate(rows: Rows, clusters: Sequence[str] | None, seed: int) -> dict[str, Any]:
    scored = [i for i, row in enumerate(rows) if row["score"] is not None]
    values = [rows[i]["score"] for i in scored]
    own = None if clusters is None else [clusters[i] for i in scored]
    interval = mean_interval(values, clusters=own, seed=seed)
    return {
        "score": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "n": len(scored),
        "unscored": len(rows) - len(scored),
        "prompt_tokens": _mean(rows, "prompt_tokens"),
        "answer_tokens": _mean(rows, "answer_tokens"),
        "seconds": _mean(rows, "seconds"),
    }


def request_cost(name: str, rows: Sequence[Mapping[str, Any]], prices: Prices | None) -> dict[str, Any]:
    """What a request costs on average: `prompt_tokens`, `answer_tokens`, `seconds`, `money`, `currency`.

    Tokens are None where a candidate reads or writes none; money is None without prices. A provider's
    discount for prompts that it keeps in a cache is not counted.
    """
    tokens = [_mean(rows, key) for key in ("prompt_tokens", "answer_tokens")]
    seconds = _mean(rows, "seconds")
    money = None
    if prices is not None and rows:
        each = zip(tokens, prices.of_tokens(name), strict=True)
        money = sum((count or 0.0) * price / 1e6 for count, price in each)
        money += (seconds or 0.0) * prices.hour / 3600
    return {
        "prompt_tokens": tokens[0],
        "answer_tokens": tokens[1],
        "seconds": seconds,
        "money": money,
        "currency": None if prices is None else prices.currency,
    }


def _pairs(tables: Mapping[str, Rows], clusters: Sequence[str] | None, seed: int) -> list[dict[str, Any]]:
    """Tuned against every other candidate, adjusted by Holm; then the others among themselves.

    `least` and `most` are one-sided 95% bounds of the difference, held for all alternatives at once.
    """
    ours = [("tuned", name) for name in tables if name != "tuned"] if "tuned" in tables else []
    others = list(combinations([name for name in tables if name != "tuned"], 2))
    rows = []
    for family in (ours, others):
        compared = [_pair(a, b, tables, clusters, seed) for a, b in family]
        for row, adjusted in zip(compared, holm([row["p"] for row in compared]), strict=True):
            rows.append(row | {"p_adjusted": adjusted})
    return rows


def _pair(
    a: str, b: str, tables: Mapping[str, Rows], clusters: Sequence[str] | None, seed: int
) -> dict[str, Any]:
    both = [
        i
        for i, (x, y) in enumerate(zip(tables[a], tables[b], strict=True))
        if x["score"] is not None and y["score"] is not None
    ]
    first, second = ([tables[name][i]["score"] for i in both] for name in (a, b))
    own = None if clusters is None else [clusters[i] for i in both]
    result = compare(first, second, clusters=own, seed=seed)
    # each of the other alternatives may be asked whether it does as well as the best one
    bounds = stand(first, second, margin=1.0, clusters=own, seed=seed, tests=max(1, len(tables) - 2))
    return {
        "a": a,
        "b": b,
        "difference": result.difference,
        "low": result.low,
        "high": result.high,
        "least": bounds.low,
        "most": bounds.high,
        "p": result.p,
        "test": result.test,
        "n": result.n,
        "wins": asdict(win_rate(first, second, clusters=own, seed=seed)),
    }


def clusters_of(test: Sequence[Example]) -> list[str] | None:
    """Groups of test examples that share a source, where the user named any."""
    if all(example.group is None for example in test):
        return None
    return [example.group or f"alone:{example.id}" for example in test]


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]
    return float(np.mean(values)) if values else None
