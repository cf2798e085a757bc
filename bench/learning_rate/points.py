"""The points of the grid, and the file of results: one JSON line each, appended as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.results import read_rows

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the rule's rate: a factor of 16, more than a decade
UNTRAINED = 0.0  # the model as it is
EPOCHS, BATCH_TOKENS = 2, 1024


@dataclass(frozen=True)
class Point:
    """One training: which examples and adapter (by seed), at which multiple of the rule's rate."""

    task: str
    seed: int
    factor: float


@dataclass(frozen=True)
class Outcome:
    """What one training led to.

    Attributes:
        rate: peak learning rate.
        loss, score: on the held-out examples, after the last epoch; the loss is None where the training
            stopped because a loss was not finite.
    """

    point: Point
    rate: float
    loss: float | None
    score: float | None
    steps: int
    tokens: int
    seconds: float
    settings: str


def all_points(tasks: Sequence[str], seeds: int) -> Iterator[Point]:
    """Every task with one seed before the next seed; the rule's own rate first in each."""
    for seed in range(seeds):
        for task in tasks:
            order = sorted((*FACTORS, UNTRAINED), key=lambda factor: factor != 1.0)
            yield from (Point(task, seed, factor) for factor in order if factor or seed == 0)


def read_outcomes(path: Path, settings: str) -> list[Outcome]:
    """What has been found with these settings."""
    found: dict[Point, Outcome] = {}
    for raw in read_rows(path):
        if raw["settings"] == settings:
            point = Point(**raw.pop("point"))
            found[point] = Outcome(point, **raw)
    return list(found.values())
