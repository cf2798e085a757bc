"""From answers to scores: grade every candidate, then compare them paired on the same examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from luthier.examples.example import Example
from luthier.grade import Grader
from luthier.stats import compare, detectable_difference, holm, mean_interval

Rows = list[dict[str, Any]]


def grade_answers(answers: Sequence[Mapping[str, Any]], test: Sequence[Example], grader: Grader) -> Rows:
    """The lines of `predictions/<candidate>.jsonl`: answers with reference and score, in test order."""
    by_id = {answer["id"]: answer for answer in answers}
    rows = []
    for example in test:
        answer = by_id[example.id]
        score = grader.grade(answer["answer"], example.answer, example)
        rows.append(
            {
                **answer,
                "reference": example.answer,
                "score": score.value,
                "reason": score.reason,
                "detail": dict(score.detail),
                "input": example.input,
                "file": example.file,
                "line": example.line,
            }
        )
    return rows


def summarise(
    tables: Mapping[str, Rows], test: Sequence[Example], grader: Grader, *, seed: int
) -> dict[str, Any]:
    """The content of `scores.json`: each candidate with its interval, and all pairs compared."""
    clusters = _clusters(test)
    return {
        "metric": grader.metric,
        "grader": grader.name,
        "confidence_level": 0.95,
        "candidates": {name: _candidate(rows, clusters, seed) for name, rows in tables.items()},
        "paired": _pairs(tables, clusters, seed),
        "detectable_difference": detectable_difference(len(test)),
    }


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


def _pairs(tables: Mapping[str, Rows], clusters: Sequence[str] | None, seed: int) -> list[dict[str, Any]]:
    """Tuned against every other candidate, adjusted by Holm; then the others among themselves."""
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
    result = compare(
        [tables[a][i]["score"] for i in both],
        [tables[b][i]["score"] for i in both],
        clusters=None if clusters is None else [clusters[i] for i in both],
        seed=seed,
    )
    return {
        "a": a,
        "b": b,
        "difference": result.difference,
        "low": result.low,
        "high": result.high,
        "p": result.p,
        "test": result.test,
        "n": result.n,
    }


def _clusters(test: Sequence[Example]) -> list[str] | None:
    """Groups of test examples that share a source, where the user named any."""
    if all(example.group is None for example in test):
        return None
    return [example.group or f"alone:{example.id}" for example in test]


def _mean(rows: Rows, key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]
    return float(np.mean(values)) if values else None
