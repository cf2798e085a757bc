"""`python -m bench remedies`: what each remedy against forgetting keeps, at the same score on the task."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.harness import BenchError, Worker
from bench.learning_rate.tasks import HELD_OUT, TASKS, TRAIN
from bench.machine import describe_machine
from bench.report import table
from bench.results import append_outcome, read_rows
from luthier.recipe import digest

MODEL = "smollm2-135m"
STUDIED = ("tickets", "reading")
PLAIN = "none"
CONDITIONS: dict[str, dict[str, Any]] = {
    PLAIN: {"replay": 0.0},
    "own answers": {"replay": 0.1},
    "own answers, KL": {"replay": 0.1, "replay_loss": "kl"},
    "general examples": {"replay": 0.1, "replay_data": "suites:Fiqa/test.jsonl"},
    "general examples, KL": {"replay": 0.1, "replay_data": "suites:Fiqa/test.jsonl", "replay_loss": "kl"},
}
SCALES = (0.5, 0.75, 1.0)  # of the trained update
LAYERS, EPOCHS, BATCH_TOKENS = "last 15", 2, 1024
ITEMS = 60  # public choice items
KEPT = 0.9  # of what training without a remedy gains: the score at which remedies are compared
DRAWS = 2000
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """One training; `condition` None stands for the base model, which is measured once per task."""

    task: str
    seed: int
    condition: str | None


@dataclass(frozen=True)
class Outcome:
    """What was measured of one training.

    Attributes:
        scales: by scale ("0" of the base): held-out `scores`, `losses` on texts, `chances` of right options.
    """

    point: Point
    settings: str
    scales: Mapping[str, Mapping[str, Sequence[float]]]
    seconds: float
    replayed: int


def main(arguments: list[str]) -> int:
    """Measure what is not in the file yet; the table is written after each; 1 when a training failed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench remedies", description="Remedies against forgetting at matched accuracy."
    )
    parser.add_argument("--task", action="append", choices=list(TASKS), help="default tickets and reading")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default=MODEL, help="smollm2-135m, or a folder")
    parser.add_argument("--results", type=Path, default=Path("docs/remedies.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/remedies.md"))
    given = parser.parse_args(arguments)
    tasks = given.task or list(STUDIED)
    settings = digest(
        [given.model, TRAIN, HELD_OUT, SCALES, LAYERS, EPOCHS, BATCH_TOKENS, ITEMS, list(CONDITIONS.items())]
    )[:16]
    found = read_outcomes(given.results, settings)
    code = 0
    for point in all_points(tasks, given.seeds):
        if point in found:
            continue
        try:
            found[point] = _measure(point, settings, given.model, given.threads)
        except BenchError as error:
            print(f"{point}: {error}", file=sys.stderr)
            code = 1
            continue
        append_outcome(given.results, found[point])
        shown = {scale: float(np.mean(v["scores"])) for scale, v in found[point].scales.items()}
        print(f"{point}: {shown}, {found[point].seconds:.0f} s", file=sys.stderr, flush=True)
        given.out.write_text(write_table(found, given.seeds), encoding="utf-8")
    given.out.write_text(write_table(found, given.seeds), encoding="utf-8")
    return code


def all_points(tasks: Sequence[str], seeds: int) -> Iterator[Point]:
    """The base of every task, then seed by seed every condition of every task."""
    yield from (Point(task, 0, None) for task in tasks)
    for seed in range(seeds):
        yield from (Point(task, seed, condition) for task in tasks for condition in CONDITIONS)


def read_outcomes(path: Path, settings: str) -> dict[Point, Outcome]:
    """What has been measured with these settings."""
    found = {}
    for raw in read_rows(path):
        if raw["settings"] == settings:
            point = Point(**raw.pop("point"))
            found[point] = Outcome(point, **raw)
    return found


def _measure(point: Point, settings: str, model: str, threads: int) -> Outcome:
    with Worker("remedy", {"model": model, **asdict(point)}, threads=threads) as worker:
        answer = worker.answer()
    scales = answer["scales"] if "scales" in answer else {"0": answer["base"]}
    return Outcome(point, settings, scales, answer["seconds"], answer["replayed"])


# --- the table --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """A condition over the scales of its update, the base first.

    Attributes:
        scores, rises, losses: `[scales, units]`, mean over seeds: held-out score; rise of the loss on the
            base's own texts; loss of expected accuracy on choice items.
    """

    scores: Values
    rises: Values
    losses: Values


@dataclass(frozen=True)
class Matched:
    """Where a curve first reaches a score, and what was forgotten there."""

    scale: float
    rise: float
    loss: float


def write_table(found: Mapping[Point, Outcome], seeds: int) -> str:
    """The whole document: the tasks of which every condition and seed has been measured."""
    facts = describe_machine()
    versions = ", ".join(f"{name} {facts[name]}" for name in ("luthier", "torch", "transformers", "peft"))
    parts = [
        "# Remedies against forgetting, at matched accuracy",
        "```\npython -m bench remedies\n```",
        f"SmolLM2-135M-Instruct, LoRA on the {LAYERS} of 30 layers, {TRAIN} examples, {EPOCHS} epochs, "
        f"{seeds} seeds (of the examples, their order and the adapter). A remedy is a switch of the recipe "
        "(`train: {replay, replay_data, replay_loss}`); replay takes a tenth of the training tokens. Every "
        f"trained update is also tempered to {', '.join(f'{scale:g}' for scale in SCALES)} of itself "
        f"(`train: {{temper}}`). {versions}.",
        f"At matched accuracy: each remedy is weakened or not by tempering until its score is the same, "
        f"{KEPT:.0%} of what training without a remedy gains; the values there are read off the line "
        "between the two nearest scales. Drift: nats per token that the base's own answers to everyday "
        "requests became less likely. Forgetting: points of expected accuracy lost on public choice items. "
        "Lower is better for both. Intervals (95%): bootstrap over held-out examples, texts and items, "
        f"{DRAWS:,} draws, seeds fixed. Differences are paired, and not adjusted for their number.",
    ]
    for task in dict.fromkeys(point.task for point in found):
        curves = curves_of(found, task, seeds)
        if curves is None:
            parts.append(f"## {task}\n\nNot all of it has been measured.")
            continue
        held = f"{TASKS[task].what}; {HELD_OUT} held-out examples"
        parts.append(f"## {task}: {held}\n\n{_matched_table(curves)}\n\n{_scale_table(curves)}")
    return "\n\n".join(parts) + "\n"


def curves_of(found: Mapping[Point, Outcome], task: str, seeds: int) -> dict[str, Curve] | None:
    """Every condition's curve; None where something is missing."""
    base = found.get(Point(task, 0, None))
    wanted = {name: [Point(task, seed, name) for seed in range(seeds)] for name in CONDITIONS}
    if base is None or any(point not in found for points in wanted.values() for point in points):
        return None
    before = base.scales["0"]
    curves = {}
    for name, points in wanted.items():
        values = {
            what: np.array(
                [before[what]]
                + [
                    np.mean([found[point].scales[str(scale)][what] for point in points], axis=0)
                    for scale in SCALES
                ]
            )
            for what in ("scores", "losses", "chances")
        }
        own, chances = values["losses"], values["chances"]
        curves[name] = Curve(values["scores"], own - own[:1], chances[:1] - chances)
    return curves


def matched(curve: Curve, target: float) -> Matched | None:
    """Where the mean score first reaches `target`, on straight lines between the scales."""
    scores, rises, losses = (values.mean(1) for values in (curve.scores, curve.rises, curve.losses))
    scales = (0.0, *SCALES)
    for i in range(1, len(scales)):
        if scores[i] >= target:
            gained = scores[i] - scores[i - 1]
            share = 1.0 if gained <= 0 else max(0.0, (target - scores[i - 1]) / gained)

            def at(values: Sequence[float] | Values, i: int = i, share: float = share) -> float:
                return float(values[i - 1] + share * (values[i] - values[i - 1]))

            return Matched(at(scales), at(rises), at(losses))
    return None


def target_of(curves: Mapping[str, Curve]) -> float:
    """The score at which remedies are compared."""
    scores = curves[PLAIN].scores.mean(1)
    return float(scores[0] + KEPT * (scores[-1] - scores[0]))


def _drawn(curves: Mapping[str, Curve]) -> Iterator[dict[str, Curve]]:
    """The same resampled examples, texts and items for every condition."""
    dice = np.random.default_rng(0)
    first = curves[PLAIN]
    sizes = [values.shape[1] for values in (first.scores, first.rises, first.losses)]
    for _ in range(DRAWS):
        examples, texts, items = (dice.integers(0, size, size) for size in sizes)
        yield {
            name: Curve(curve.scores[:, examples], curve.rises[:, texts], curve.losses[:, items])
            for name, curve in curves.items()
        }


def _matched_table(curves: Mapping[str, Curve]) -> str:
    target = target_of(curves)
    here = {name: matched(curve, target) for name, curve in curves.items()}
    draws: dict[str, list[Matched | None]] = {name: [] for name in curves}
    for drawn in _drawn(curves):
        goal = target_of(drawn)
        for name, curve in drawn.items():
            draws[name].append(matched(curve, goal))
    rows = []
    for name, point in here.items():
        if point is None:
            rows.append([name, "does not reach it", "-", "-", "-", "-"])
            continue
        own, plain = draws[name], draws[PLAIN]
        pairs = [(a, b) for a, b in zip(own, plain, strict=True) if a is not None and b is not None]
        reached = [a for a in own if a is not None]
        reference = here[PLAIN]
        row = [name, f"{point.scale:.2f} (reached in {len(reached) / len(own):.0%} of draws)"]
        row.append(_with_interval(point.rise, [a.rise for a in reached], 1, 3))
        row.append(_with_interval(point.loss, [a.loss for a in reached], 100, 1))
        if name == PLAIN or reference is None:
            row += ["-", "-"]
        else:
            rises, losses = [a.rise - b.rise for a, b in pairs], [a.loss - b.loss for a, b in pairs]
            row.append(_with_interval(point.rise - reference.rise, rises, 1, 3))
            row.append(_with_interval(point.loss - reference.loss, losses, 100, 1))
        rows.append(row)
    head = ["remedy", f"scale that scores {target:.1%}", "drift", "forgetting, points"]
    return table([*head, "drift against none", "forgetting against none"], rows)


def _scale_table(curves: Mapping[str, Curve]) -> str:
    rows = []
    drawn = list(_drawn(curves))
    for name, curve in curves.items():
        for place, scale in enumerate((0.0, *SCALES)):
            if scale == 0.0 and name != PLAIN:
                continue
            row = ["base" if scale == 0.0 else name, f"{scale:g}"]
            for what, times, digits in (("scores", 100, 1), ("rises", 1, 3), ("losses", 100, 1)):
                values = [float(getattr(d[name], what)[place].mean()) for d in drawn]
                row.append(_with_interval(float(getattr(curve, what)[place].mean()), values, times, digits))
            rows.append(row)
    return table(["remedy", "scale", "score, %", "drift", "forgetting, points"], rows)


def _with_interval(value: float, draws: Sequence[float], times: int, digits: int) -> str:
    if not draws:
        return f"{times * value:.{digits}f}"
    low, high = np.quantile(draws, [0.025, 0.975]) * times
    return f"{times * value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
