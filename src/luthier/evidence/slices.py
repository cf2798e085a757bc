"""Scores by any field of the examples, and the slices that got worse although the total got better."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from luthier.errors import DataError
from luthier.examples.example import Example
from luthier.stats import compare, holm, mean_interval

Rows = list[dict[str, Any]]

MAX_VALUES = 50  # more make every slice too small to say anything, and are likely ids
MIN_PAIRS = 8  # below, even a slice that is lost whole is not significant after any adjustment
ALPHA = 0.05


def check_fields(examples: Sequence[Example], fields: Sequence[str]) -> None:
    """Refuse fields that make no slices, before anything is computed.

    Raises:
        DataError: no example has the field, or it has more than 50 different values.
    """
    for field in fields:
        values = {value for example in examples if (value := slice_of(example, field)) is not None}
        if not values:
            known = sorted({name for example in examples for name in example.fields})
            near = difflib.get_close_matches(field, known, n=1)
            fix = f"did you mean {near[0]!r}?" if near else f"fields there are: {', '.join(known) or 'none'}"
            raise DataError(f"slices: no held-out example has a field {field!r}", fix=fix)
        if len(values) > MAX_VALUES:
            raise DataError(
                f"slices: field {field!r} has {len(values)} values among {len(examples)} held-out examples",
                fix=f"choose a field of at most {MAX_VALUES} values, or put ranges into one",
            )


def slice_of(example: Example, field: str) -> str | None:
    """The value of a field as text: JSON unless it is a text; None where it is absent, null or empty."""
    return slice_value(example.fields, field)


def slice_value(fields: Mapping[str, Any], field: str) -> str | None:
    """As `slice_of`, from the other columns of an example."""
    value = fields.get(field)
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def slice_scores(
    tables: Mapping[str, Rows],
    test: Sequence[Example],
    fields: Sequence[str],
    *,
    clusters: Sequence[str] | None,
    seed: int,
) -> dict[str, Any]:
    """The content of `slices` in `scores.json`.

    Tuned is compared with every other candidate in every slice, paired, and all of these tests
    together are adjusted by Holm. A slice of fewer than 8 pairs is shown but not tested.

    Args:
        tables: graded answers of each candidate, in the order of `test`.
        fields: as `check_fields` lets pass.
        clusters: the source of each example, None when every one has its own.

    Returns:
        `scores`: rows of `field, value, candidate, score, low, high, n, unscored`.
        `paired`: rows of `field, value, a, b, difference, low, high, p, p_adjusted, n, total`, where
        `total` is the difference over all examples.
        `worse`: those of `paired` that lost for sure while the total gained.
        `missing`: by field, how many examples do not have it.
    """
    slices = [(field, *found) for field in fields for found in _members(test, field)]
    scores = [
        {"field": field, "value": value, "candidate": name, **_score(rows, places, clusters, seed)}
        for field, value, places in slices
        for name, rows in tables.items()
    ]
    others = [name for name in tables if name != "tuned"] if "tuned" in tables else []
    everywhere = range(len(test))
    totals = {name: _pair(tables, name, everywhere, clusters, seed)["difference"] for name in others}
    paired = [
        {"field": field, "value": value, "total": totals[name], **_pair(tables, name, places, clusters, seed)}
        for field, value, places in slices
        for name in others
    ]
    for row, adjusted in zip(paired, holm([row["p"] for row in paired]), strict=True):
        row["p_adjusted"] = adjusted
    return {
        "scores": scores,
        "paired": paired,
        "worse": [row for row in lost_slices(paired) if row["total"] is not None and row["total"] > 0],
        "missing": {field: sum(slice_of(example, field) is None for example in test) for field in fields},
    }


def lost_slices(paired: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of `paired` in which tuned is worse for sure, whatever the total; the largest loss first."""
    lost = [
        row
        for row in paired
        if row["p_adjusted"] is not None and row["p_adjusted"] <= ALPHA and row["difference"] < 0
    ]
    return sorted(lost, key=lambda row: (row["difference"], row["field"], row["value"], row["b"]))


def _members(test: Sequence[Example], field: str) -> Iterator[tuple[str, list[int]]]:
    """Every value of a field, the most frequent first, with the places of its examples."""
    places: dict[str, list[int]] = {}
    for place, example in enumerate(test):
        value = slice_of(example, field)
        if value is not None:
            places.setdefault(value, []).append(place)
    yield from sorted(places.items(), key=lambda item: (-len(item[1]), item[0]))


def _score(
    rows: Rows, places: Sequence[int], clusters: Sequence[str] | None, seed: int
) -> dict[str, float | None]:
    scored = [place for place in places if rows[place]["score"] is not None]
    own = None if clusters is None else [clusters[place] for place in scored]
    interval = mean_interval([rows[place]["score"] for place in scored], clusters=own, seed=seed)
    return {
        "score": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "n": len(scored),
        "unscored": len(places) - len(scored),
    }


def _pair(
    tables: Mapping[str, Rows],
    other: str,
    places: Sequence[int],
    clusters: Sequence[str] | None,
    seed: int,
) -> dict[str, Any]:
    ours, theirs = tables["tuned"], tables[other]
    both = [i for i in places if ours[i]["score"] is not None and theirs[i]["score"] is not None]
    result = compare(
        [ours[i]["score"] for i in both],
        [theirs[i]["score"] for i in both],
        clusters=None if clusters is None else [clusters[i] for i in both],
        seed=seed,
    )
    return {
        "a": "tuned",
        "b": other,
        "difference": result.difference,
        "low": result.low,
        "high": result.high,
        "p": result.p if len(both) >= MIN_PAIRS else None,
        "n": result.n,
    }
