"""The second table of `python -m bench methods`: methods with a task of their own, or another start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import Worker
from bench.method_cost import COST_HEAD, Cost
from bench.report import bounded, table
from bench.results import append_outcome, read_named
from luthier.recipe import digest

BASE = "smollm2-135m"
ADAPTER = {"layers": "last 15"}
LABELS: dict[str, Any] = {
    "data": "labels",
    "candidates": ["prompt", "few_shot", "scratch", "tuned"],
    "grader": "label",
}
STUDENT: dict[str, Any] = {"data": "replies", "train": {"epochs": 2, "batch_tokens": 1024}}
# what a recipe has besides model, probes and adapter; `data` and `teacher` name what the worker makes
APART: Mapping[str, dict[str, Any]] = {
    "cpt": {"method": "cpt", "data": "law", "train": {"epochs": 1, "batch_tokens": 2048}},
    "classify": {"method": "classify", "train": {"epochs": 3, "batch_tokens": 2048}} | LABELS,
    "sft, two tasks": {"method": "sft", "train": {"epochs": 3, "batch_tokens": 2048}}
    | LABELS
    | {"data": "two"},
    "sft, the same labels": {"method": "sft", "train": {"epochs": 3, "batch_tokens": 2048}} | LABELS,
    "reward": {"method": "reward", "data": "ranked", "train": {"epochs": 3, "batch_tokens": 2048}},
    "sft, from the base": {"method": "sft"} | STUDENT,
    "distill, examples": {"method": {"kind": "distill", "from": "examples"}} | STUDENT,
    "distill, samples": {"method": {"kind": "distill", "from": "samples"}} | STUDENT,
    "distill, own": {"method": {"kind": "distill", "from": "own"}} | STUDENT,
}
TASKS = {
    "law": ("summaries of law suits", "probability per token, %"),
    "labels": ("exam questions, one of five subjects", "right, %"),
    "two": ("subjects of exam questions, and categories of support mail", "right, %"),
    "ranked": ("which of two replies keeps more rules", "pairs right, %"),
    "replies": ("the house tone", "rules kept, %"),
}
Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Apart(Cost):
    """What one method led to on its task.

    Attributes:
        base, score: of the model before and after, on held-out examples.
        best: the best of the other candidates, by name, and its score.
        gain: paired difference to that one.
        perplexity: before and after, of held-out texts; None where answers are scored.
        drift: loss on the base's own text, more than before, nats per token; None where nothing is written.
        tasks: scores after, by the tasks of a mixture.
    """

    method: str
    settings: str
    base: float
    score: float
    best: str
    best_score: float
    gain: float
    gain_bounds: Bounds
    perplexity: tuple[float, float] | None
    drift: float | None
    drift_bounds: Bounds
    tasks: Mapping[str, float] | None = None


def measure_apart(name: str, job: Mapping[str, Any], *, threads: int, results: Path) -> Apart:
    """One row, added to the file.

    Args:
        job: what a worker needs to know of the common start: `work`, `answers`, `start`.

    Raises:
        BenchError: the worker ended.
    """
    with Worker("method_apart", {**job, "name": name, "asked": APART[name]}, threads=threads) as worker:
        found = worker.answer()
    found.pop("event")
    outcome = Apart(name, settings_of(name, job), **found)
    append_outcome(results, outcome)
    return outcome


def settings_of(name: str, job: Mapping[str, Any]) -> str:
    """Hash of what was asked for, so that other settings do not share a table."""
    return digest(["apart", ADAPTER, job["start"], job["answers"], APART[name]])[:16]


def read_apart(path: Path, job: Mapping[str, Any]) -> dict[str, Apart]:
    """What has been measured with these settings, in the order of `APART`."""
    return read_named(path, {name: settings_of(name, job) for name in APART}, Apart, key="method")


def apart_page(outcomes: Mapping[str, Apart]) -> list[str]:
    """Paragraphs and the table."""
    if not outcomes:
        return []
    rows = [_row(outcomes[name]) for name in APART if name in outcomes]
    return [
        "## With a task of their own",
        "These start from SmolLM2-135M-Instruct as it comes (`reward`: from the starting model above). The "
        "teacher of `distill` is the starting model above, of the same size: what is measured is the way of "
        "learning, not what a larger teacher knows. Gain is over the best of the candidates that were asked "
        "beside the tuned model.",
        table(HEAD, rows),
    ]


HEAD = [
    "method",
    "task",
    "measure",
    "base",
    "best alternative",
    "tuned",
    "gain, points",
    "drift, nats per token",
    *COST_HEAD,
]


def _row(outcome: Apart) -> list[str]:
    task, measure = TASKS[APART[outcome.method]["data"]]
    percent: Callable[[float], str] = "{:.1f}".format
    before, after = percent(100 * outcome.base), percent(100 * outcome.score)
    if outcome.perplexity:
        first, last = outcome.perplexity
        before, after = f"{before} (perplexity {first:.1f})", f"{after} (perplexity {last:.1f})"
    if outcome.tasks:
        after += f" ({', '.join(f'{name} {percent(100 * score)}' for name, score in outcome.tasks.items())})"
    drift = "-" if outcome.drift is None else bounded(outcome.drift, outcome.drift_bounds, 1, digits=2)
    return [
        outcome.method,
        f"{task}, {outcome.n} held out",
        measure,
        before,
        f"{outcome.best} {percent(100 * outcome.best_score)}",
        after,
        bounded(outcome.gain, outcome.gain_bounds, 100),
        drift,
        *outcome.cells(),
    ]
