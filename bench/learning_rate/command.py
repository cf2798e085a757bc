"""`python -m bench learning-rate`: train every point of the grid that is not in the file yet."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path

from bench.harness import BenchError, Worker
from bench.learning_rate.points import (
    BATCH_TOKENS,
    EPOCHS,
    Outcome,
    Point,
    all_points,
    read_outcomes,
)
from bench.learning_rate.table import write_study
from bench.learning_rate.tasks import HELD_OUT, TASKS, TRAIN
from bench.results import append_outcome
from luthier.recipe import digest

MODEL = "smollm2-135m"


def main(arguments: list[str]) -> int:
    """Append results as they come and write the table after each; 1 when a training could not be run."""
    parser = argparse.ArgumentParser(
        prog="python -m bench learning-rate", description="The rule of `learning_rate: auto` against a grid."
    )
    parser.add_argument("--task", action="append", choices=list(TASKS), help="only these; default all")
    parser.add_argument("--seeds", type=int, default=2, help="seeds per task, one after the other")
    parser.add_argument("--minutes", type=float, default=None, help="start no training after this time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default=MODEL, help="smollm2-135m, or a folder")
    parser.add_argument("--results", type=Path, default=Path("docs/learning-rate.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/learning-rate.md"))
    given = parser.parse_args(arguments)
    settings = digest(
        [given.model, TRAIN, HELD_OUT, EPOCHS, BATCH_TOKENS, [asdict(t) for t in TASKS.values()]]
    )
    outcomes = read_outcomes(given.results, settings[:16])
    known = {outcome.point for outcome in outcomes}
    began, code = time.perf_counter(), 0
    for point in all_points(given.task or list(TASKS), given.seeds):
        if point in known:
            continue
        if given.minutes is not None and time.perf_counter() - began > 60 * given.minutes:
            print("out of time; the same command goes on from here", file=sys.stderr)
            break
        try:
            outcome = _train(point, settings[:16], given.model, given.threads)
        except BenchError as error:
            print(f"{point.task}, seed {point.seed}, x{point.factor:g}: {error}", file=sys.stderr)
            code = 1
            continue
        outcomes.append(outcome)
        append_outcome(given.results, outcome)
        print(_line(outcome), file=sys.stderr, flush=True)
        given.out.write_text(write_study(outcomes, _command(given)), encoding="utf-8")
    given.out.write_text(write_study(outcomes, _command(given)), encoding="utf-8")
    return code


def _train(point: Point, settings: str, model: str, threads: int) -> Outcome:
    with Worker("learning_rate", {"model": model, **asdict(point)}, threads=threads) as worker:
        found = worker.answer()
    found.pop("event")
    return Outcome(point=point, settings=settings, **found)


def _line(outcome: Outcome) -> str:
    point = outcome.point
    loss = "not finite" if outcome.loss is None else f"{outcome.loss:.4f}"
    score = "-" if outcome.score is None else f"{outcome.score:.3f}"
    return (
        f"{point.task}, seed {point.seed}, x{point.factor:g} ({outcome.rate:.2e}): loss {loss}, "
        f"score {score}, {outcome.tokens} tokens in {outcome.seconds:.0f} s"
    )


def _command(given: argparse.Namespace) -> str:
    parts = ["python -m bench learning-rate", f"--seeds {given.seeds}"]
    return " ".join([*parts, *(f"--task {name}" for name in given.task or [])])
