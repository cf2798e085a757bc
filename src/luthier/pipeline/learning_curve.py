"""Was it enough data: tuned on a quarter and a half of the examples, and on all, asked the same test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from luthier.errors import DataError
from luthier.examples import Example
from luthier.pipeline.stages import read_split
from luthier.recipe import DataFiles, Recipe
from luthier.recipe.stakes_options import Confidence
from luthier.record import Record, write_json, write_jsonl

SHARES = (0.25, 0.5)
LEAST = 8


def subset(train: Sequence[Example], share: float, seed: int) -> list[Example]:
    """A share of the training examples, in their order; a larger share holds the smaller one.

    Raises:
        DataError: it would be fewer than 8.
    """
    count = round(share * len(train))
    if count < LEAST:
        raise DataError(
            f"a learning curve trains on {share:g} of the examples, which is {count} here",
            fix="take learning_curve out of the recipe, or collect more examples",
        )
    return _first(train, count, seed)


def _first(train: Sequence[Example], count: int, seed: int) -> list[Example]:
    """As many examples as asked for, drawn by the seed: more of them hold the fewer."""
    ranked = sorted(train, key=lambda example: hashlib.sha256(f"{seed}/{example.id}".encode()).digest())
    chosen = {example.id for example in ranked[:count]}
    return [example for example in train if example.id in chosen]


def write_curve(record: Record, recipe: Recipe, evaluate: Callable[[Recipe, Path], Any]) -> None:
    """`learning_curve.json`, and under `curve/` a run per share, which goes on where it was stopped.

    Args:
        recipe: with `max_new_tokens`, which fewer examples would put lower.
        evaluate: runs a recipe in a folder up to its scores.
    """
    split = read_split(record)
    fixed = {
        "candidates": ("tuned",),
        "probes": (),
        "learning_curve": False,
        "stakes": "normal",
        "confidence": Confidence(),
        "trackers": (),
        # the one that all training examples asked for
        "grader": recipe.grader or _graded_by(record, recipe),
    }
    sizes, rows = [], []
    for share in SHARES:
        folder = record / f"curve/{share:g}"
        sides = {"train": subset(split.train, share, recipe.seed), "validation": split.validation}
        files = {}
        for side, examples in (sides | {"test": split.test}).items():
            if examples:
                files[side] = str(folder / f"given/{side}.jsonl")
                bad: Sequence[Example] = split.unwanted.get(side, ())
                if side == "train":
                    bad = _first(bad, round(share * len(bad)), recipe.seed)
                given = (example.as_row() for example in (*examples, *bad))
                write_jsonl(folder / f"given/{side}.jsonl", given)
        evaluate(recipe.model_copy(update=fixed | {"data": DataFiles(**files)}), folder)
        sizes.append(len(sides["train"]))
        rows.append(Record(folder).read_jsonl("predictions/tuned.jsonl"))
    sizes.append(len(split.train))
    rows.append(record.read_jsonl("predictions/tuned.jsonl"))
    clusters = {example.id: example.group for example in split.test}
    write_json(record / "learning_curve.json", report_curve(sizes, rows, clusters, seed=recipe.seed))


def _graded_by(record: Record, recipe: Recipe) -> str | None:
    """The grader that was chosen; texts have none."""
    return None if recipe.reads_texts else str(record.read_json("scores.json")["grader"])


def report_curve(
    sizes: Sequence[int],
    rows: Sequence[Sequence[Mapping[str, Any]]],
    clusters: Mapping[str, str | None],
    *,
    seed: int,
) -> dict[str, Any]:
    """The content of `learning_curve.json`.

    Args:
        sizes: training examples of each run, ascending.
        rows: graded answers of each run.
        clusters: group by example id, None where an example has none.

    Returns:
        `points`: per size `examples`, `score`, `low`, `high`, `n`; `doubling`: the gain expected from twice
        as many, with its interval, and `says`, the same in words.
    """
    from luthier.stats import mean_interval
    from luthier.stats.learning_curve import extrapolate

    tables = [{row["id"]: row["score"] for row in table if row["score"] is not None} for table in rows]
    shared = [key for key in tables[0] if all(key in table for table in tables)]
    named = [clusters.get(key) or f"alone:{key}" for key in shared]
    points = []
    for size, table in zip(sizes, tables, strict=True):
        interval = mean_interval([table[key] for key in shared], clusters=named, seed=seed)
        points.append(
            {
                "examples": size,
                "score": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "n": len(shared),
            }
        )
    scores = np.array([[table[key] for key in shared] for table in tables], dtype=np.float64)
    doubling = asdict(extrapolate(sizes, scores, clusters=named, seed=seed))
    return {"points": points, "doubling": doubling | {"says": _say(doubling, sizes[-1])}}


def _say(doubling: Mapping[str, Any], size: int) -> str:
    if doubling["gain"] is None:
        return f"undefined: {doubling['reason']}"
    more = f"twice as many examples ({2 * size})"
    if doubling["low"] is None:
        return f"{more} would bring {100 * doubling['gain']:+.1f} points; {doubling['reason']}"
    bounds = f"[{100 * doubling['low']:+.1f}, {100 * doubling['high']:+.1f}]"
    told = f"{more} would bring {100 * doubling['gain']:+.1f} points {bounds}, another training apart"
    return told if doubling["low"] > 0 else f"{told}: it may be nothing"
