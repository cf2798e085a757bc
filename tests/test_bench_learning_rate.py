"""The learning-rate study: its grid, its file of results, its table."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.learning_rate.points import (
    FACTORS,
    UNTRAINED,
    Outcome,
    Point,
    all_points,
    read_outcomes,
)
from bench.learning_rate.table import regret_table, write_study
from bench.learning_rate.tasks import HELD_OUT, TASKS, TRAIN, draw
from bench.results import append_outcome


def outcome(factor: float, loss: float | None, *, seed: int = 0, score: float | None = 0.5) -> Outcome:
    return Outcome(Point("boolq", seed, factor), 1e-3 * factor, loss, score, 40, 8000, 60.0, "settings")


def grid(*losses: float | None) -> list[Outcome]:
    return [outcome(factor, loss) for factor, loss in zip(FACTORS, losses, strict=True)]


def test_the_grid_spans_more_than_a_decade_around_the_rule() -> None:
    assert len(FACTORS) >= 5
    assert max(FACTORS) / min(FACTORS) > 10
    assert 1.0 in FACTORS


def test_every_task_has_one_seed_before_the_next() -> None:
    points = list(all_points(["a", "b"], 2))
    assert [point.seed for point in points] == [0] * 12 + [1] * 10  # untrained once: no seed decides it
    assert points[0] == Point("a", 0, 1.0)
    assert {point.factor for point in points if point.task == "b"} == {*FACTORS, UNTRAINED}
    assert len(set(points)) == len(points)


def test_results_survive_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    assert read_outcomes(path, "settings") == []
    append_outcome(path, outcome(1.0, 0.25))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"point": {"task"')  # cut off while it was written
    append_outcome(path, outcome(2.0, None, score=None))
    assert read_outcomes(path, "settings") == [outcome(1.0, 0.25), outcome(2.0, None, score=None)]
    assert read_outcomes(path, "other settings") == []


def test_regret_by_hand() -> None:
    """Rule 0.40, lowest 0.30 at twice the rule, 1.30 before training: 0.10 of a gain of 1.00."""
    whole = {("boolq", 0): {o.point.factor: o for o in grid(0.7, 0.5, 0.4, 0.3, 0.6)}}
    before = {("boolq", 0): {UNTRAINED: outcome(UNTRAINED, 1.3)}}
    cells = [cell.strip() for cell in regret_table(whole, before).splitlines()[2].split("|")]
    assert cells[1:-1] == ["boolq", "0", "0.4000", "0.3000 at x2", "0.1000", "10.0%", "0.500 of 0.500"]


def test_the_best_at_the_end_of_the_grid_is_pointed_out() -> None:
    whole = {("boolq", 0): {o.point.factor: o for o in grid(0.2, 0.3, 0.4, 0.5, None)}}
    text = regret_table(whole, {})
    assert "0.2000 at x0.25 (end of the grid)" in text
    assert "0.2000 |" in text  # the regret


def test_a_rule_that_diverges_is_not_hidden() -> None:
    whole = {("boolq", 0): {o.point.factor: o for o in grid(0.2, 0.3, None, None, None)}}
    assert "not finite" in regret_table(whole, {})


def test_an_unfinished_grid_is_shown_but_not_judged() -> None:
    text = write_study([outcome(1.0, 0.25), outcome(2.0, None, score=None)], "python -m bench learning-rate")
    assert "No grid is complete yet." in text
    assert "| boolq | 0 |  |  |  | 0.2500 | not finite |  |" in text


@pytest.mark.parametrize("name", TASKS)
def test_held_out_examples_are_apart_and_the_same_for_every_seed(name: str) -> None:
    train, held_out = draw(TASKS[name], 0)
    other, same = draw(TASKS[name], 1)
    assert (len(train), len(held_out)) == (TRAIN, HELD_OUT)
    assert held_out == same
    assert {example.id for example in train} != {example.id for example in other}
    assert not {example.input[:80] for example in train} & {example.input[:80] for example in held_out}
