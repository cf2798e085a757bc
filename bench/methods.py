"""`python -m bench methods`: what each method costs and brings on one task, from one starting point."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import BenchError, Worker
from bench.machine import describe_machine
from bench.method_cost import COST_HEAD, Cost
from bench.methods_apart import APART, Apart, apart_page, measure_apart, read_apart
from bench.report import bounded, table
from bench.results import append_outcome, read_named
from luthier.recipe import digest

ANSWERS = 6  # sampled of the starting model for every training request, and ranked
START: dict[str, Any] = {"train": {"epochs": 2, "batch_tokens": 1024}}
TRAIN = {"epochs": 3, "batch_tokens": 2048}
ONLINE = {"epochs": 2, "batch_tokens": 6000}
METHODS: Mapping[str, Mapping[str, Any]] = {
    "sft": {"method": "sft", "data": "answers"},
    "dpo": {"method": "dpo", "data": "ranked"},
    "dpo, ipo": {"method": {"kind": "dpo", "loss_type": "ipo"}, "data": "ranked"},
    "kto": {"method": "kto", "data": "ranked"},
    "orpo": {"method": "orpo", "data": "ranked"},
    "simpo": {"method": "simpo", "data": "ranked"},
    "best_of": {"method": "best_of", "data": "requests", "train": ONLINE},
    "rloo": {"method": "rloo", "data": "requests", "train": ONLINE},
    "grpo": {"method": "grpo", "data": "requests", "train": ONLINE},
    "ppo": {"method": "ppo", "data": "requests", "train": ONLINE},
    "ppo, reward model": {
        "method": "ppo",
        "data": "requests",
        "train": ONLINE,
        "reward": {"kind": "reward_model", "run": "reward"},
    },
}
Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Outcome(Cost):
    """What one method led to, from the starting model.

    Attributes:
        settings: hash of what was asked for, so that other settings do not share a table.
        score, start: mean share of the rules that held-out answers keep, after and before; `gain` is the
            paired difference.
        preferred: share of held-out requests whose answer keeps more rules than the starting model's; a tie
            counts half.
        drift: loss on the starting model's own text, more than before, nats per token.
        forgetting: points of expected accuracy on public items, positive for worse.
        length: mean tokens of a held-out answer.
    """

    method: str
    settings: str
    start: float
    score: float
    gain: float
    gain_bounds: Bounds
    preferred: float
    preferred_bounds: Bounds
    forgetting: float
    forgetting_bounds: Bounds
    drift: float
    drift_bounds: Bounds
    length: float


def main(arguments: list[str]) -> int:
    """Measure what is not in the file yet; the table is written after each; 1 when a method could not run."""
    parser = argparse.ArgumentParser(
        prog="python -m bench methods", description="Every method: what it cost and brought."
    )
    parser.add_argument(
        "--method", action="append", choices=[*METHODS, *APART], help="only these; default all"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("runs/methods"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=Path("docs/methods.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/methods-measured.md"))
    given = parser.parse_args(arguments)
    settings = digest([START, TRAIN, ANSWERS, {k: dict(v) for k, v in METHODS.items()}])[:16]
    outcomes = read_outcomes(given.results, settings)
    failed: dict[str, str] = {}
    job = {"work": str(given.work.resolve()), "answers": ANSWERS, "start": START}
    apart = read_apart(given.results, job)
    for name in given.method or [*METHODS, *APART]:
        if name in outcomes or name in apart:
            continue
        found: Outcome | Apart
        try:
            if name in APART:
                found = apart[name] = measure_apart(name, job, threads=given.threads, results=given.results)
            else:
                found = outcomes[name] = _measure(name, job, settings, given.threads)
                append_outcome(given.results, found)
        except BenchError as error:
            failed[name] = str(error).splitlines()[-1]
            print(f"{name}: {failed[name]}", file=sys.stderr, flush=True)
            continue
        print(f"{name}: {found.gain:+.3f} in {found.seconds:.0f} s", file=sys.stderr, flush=True)
        given.out.write_text(write_page(outcomes, apart, failed), encoding="utf-8")
    given.out.write_text(write_page(outcomes, apart, failed), encoding="utf-8")
    return 1 if failed else 0


def _measure(name: str, job: Mapping[str, Any], settings: str, threads: int) -> Outcome:
    asked = {**job, "name": name, "changes": {"train": TRAIN, **METHODS[name]}}
    with Worker("method", asked, threads=threads) as worker:
        found = worker.answer()
    found.pop("event")
    return Outcome(name, settings, **found)


def read_outcomes(path: Path, settings: str) -> dict[str, Outcome]:
    """What has been measured with these settings, in the order of `METHODS`."""
    return read_named(path, dict.fromkeys(METHODS, settings), Outcome, key="method")


def write_page(outcomes: Mapping[str, Outcome], apart: Mapping[str, Apart], failed: Mapping[str, str]) -> str:
    """The whole document."""
    facts = describe_machine()
    versions = ", ".join(f"{name} {facts[name]}" for name in ("luthier", "torch", "transformers", "peft"))
    ordered = [outcomes[name] for name in METHODS if name in outcomes]
    parts = [
        "# Methods, measured",
        "```\npython -m bench methods\n```",
        "The task is the house tone of `recipes/tone.yaml`: replies that keep seven rules, which a Python "
        "file checks. These methods start from the same model, SmolLM2-135M-Instruct after two epochs "
        f"of imitation, and are asked the same held-out requests. For preferences that model wrote {ANSWERS} "
        "answers to each training request, and the rules ranked them in the place of people; online methods "
        "get the rules, or the reward model, as their reward. Low-rank updates, `learning_rate: auto`, one "
        f"seed, {versions}.",
        table(HEAD, [_row(outcome) for outcome in ordered]),
        "Gain: in points of the rules kept, paired on the same requests. Preferred: held-out requests whose "
        "answer keeps more rules than the starting model's, ties halved. Drift: loss on the starting model's "
        "own text. Forgetting: expected accuracy on public items, before minus after. All with 95% "
        "intervals; positive drift and forgetting are worse. Seconds and memory: of training alone.",
    ]
    parts += apart_page(apart)
    parts += [f"- {name}: not measured: {why}" for name, why in failed.items()]
    return "\n\n".join(parts) + "\n"


HEAD = [
    "method",
    "rules kept, %",
    "gain, points",
    "preferred, %",
    "drift, nats per token",
    "forgetting, points",
    "tokens per answer",
    *COST_HEAD,
]


def _row(outcome: Outcome) -> list[str]:
    return [
        outcome.method,
        f"{100 * outcome.score:.1f}",
        bounded(outcome.gain, outcome.gain_bounds, 100),
        bounded(outcome.preferred, outcome.preferred_bounds, 100, sign=""),
        bounded(outcome.drift, outcome.drift_bounds, 1, digits=2),
        bounded(outcome.forgetting, outcome.forgetting_bounds, 100),
        f"{outcome.length:.0f}",
        *outcome.cells(),
    ]
