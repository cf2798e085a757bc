"""`python -m bench adapter-kinds`: what each way to train costs and brings on the demo's task."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.harness import BenchError, Worker
from bench.machine import describe_machine
from bench.report import bounded, table
from bench.results import append_outcome, read_named
from luthier.demo import RECIPE
from luthier.recipe import digest
from luthier.stats import compare

LAYERS = "last 15"  # as the demo
REFERENCE = "lora"
KINDS: Mapping[str, Mapping[str, Any]] = {
    "lora": {"layers": LAYERS},
    "lora, all layers": {},
    "rslora": {"kind": "rslora", "layers": LAYERS},
    "dora": {"kind": "dora", "layers": LAYERS},
    "lora on int8": {"base": "int8", "layers": LAYERS},
    "lora on int4": {"base": "int4", "layers": LAYERS},
    "full": {"kind": "full", "layers": LAYERS},
    "prefix": {"kind": "prefix"},
    "prompt": {"kind": "prompt"},
}
Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Outcome:
    """What one kind led to.

    Attributes:
        settings: hash of the recipe, so that other settings do not share a table.
        scores: held-out score of each test example, in the record's order; None where unscored.
        score, forgetting, drift: estimates, with 95% bounds beside them. Forgetting in points of expected
            accuracy, drift in nats per token, positive for worse.
        seconds: of training. memory: peak resident bytes of training.
        trained, adapter_bytes: parameters that are trained; size of the adapter's folder.
    """

    kind: str
    settings: str
    scores: tuple[float | None, ...]
    score: float
    score_bounds: Bounds
    forgetting: float
    forgetting_bounds: Bounds
    drift: float
    drift_bounds: Bounds
    rate: float
    steps: int
    seconds: float
    memory: int
    trained: int
    adapter_bytes: int
    versions: Mapping[str, str] = field(default_factory=dict)


def main(arguments: list[str]) -> int:
    """Measure what is not in the file yet; the table is written after each; 1 when a kind could not run."""
    parser = argparse.ArgumentParser(
        prog="python -m bench adapter-kinds", description="Every kind of adapter on the demo's task."
    )
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only these; default all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=Path("docs/adapter-kinds.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/adapter-kinds.md"))
    given = parser.parse_args(arguments)
    settings = digest([RECIPE.read_text(encoding="utf-8"), {k: dict(v) for k, v in KINDS.items()}])[:16]
    outcomes = read_outcomes(given.results, settings)
    failed: dict[str, str] = {}
    for kind in given.kind or KINDS:
        if kind in outcomes:
            continue
        try:
            with Worker("adapter_kind", {"adapter": dict(KINDS[kind])}, threads=given.threads) as worker:
                found = worker.answer()
        except BenchError as error:
            failed[kind] = str(error).splitlines()[-1]
            print(f"{kind}: {failed[kind]}", file=sys.stderr, flush=True)
            continue
        found.pop("event")
        outcomes[kind] = Outcome(kind, settings, **found)
        append_outcome(given.results, outcomes[kind])
        print(f"{kind}: {found['score']:.3f} in {found['seconds']:.0f} s", file=sys.stderr, flush=True)
        given.out.write_text(write_table(outcomes, failed), encoding="utf-8")
    given.out.write_text(write_table(outcomes, failed), encoding="utf-8")
    return 1 if failed else 0


def read_outcomes(path: Path, settings: str) -> dict[str, Outcome]:
    """What has been measured with these settings, in the order of `KINDS`."""
    return read_named(path, dict.fromkeys(KINDS, settings), Outcome, key="kind")


def write_table(outcomes: Mapping[str, Outcome], failed: Mapping[str, str]) -> str:
    """The whole document."""
    facts = describe_machine()
    versions = ", ".join(f"{name} {facts[name]}" for name in ("luthier", "torch", "transformers", "peft"))
    ordered = [outcomes[kind] for kind in KINDS if kind in outcomes]
    parts = [
        "# Kinds of adapter on the demo's task",
        "```\npython -m bench adapter-kinds\n```",
        f"The demo's recipe with another `adapter`, everything else alike: same examples, same order, "
        f"as many steps; each kind at the rate that `learning_rate: auto` gives it. Low-rank updates and full"
        f" fine-tuning train the {LAYERS} of 30 layers, as the demo does; a prefix and a prompt act on all. "
        f"SmolLM2-135M-Instruct, one seed, {versions}.",
        table(HEAD, [_row(outcome, outcomes.get(REFERENCE)) for outcome in ordered]),
        "Score: share of fields right on the held-out messages. Against lora: paired on the same messages, "
        "not adjusted for their number. Forgetting: expected accuracy on public choice items, base minus "
        "tuned. Drift: loss on the base model's own text, tuned minus base. All with 95% intervals; positive "
        "forgetting and drift are worse. Seconds and memory: of training alone.",
    ]
    parts += [f"- {kind}: not measured: {why}" for kind, why in failed.items()]
    return "\n\n".join(parts) + "\n"


HEAD = [
    "kind",
    "score, %",
    "against lora, points",
    "forgetting, points",
    "drift, nats per token",
    "rate",
    "trained",
    "seconds",
    "memory, GB",
    "adapter, MB",
]


def _row(outcome: Outcome, reference: Outcome | None) -> list[str]:
    return [
        outcome.kind,
        bounded(outcome.score, outcome.score_bounds, 100, sign=""),
        _against(outcome, reference),
        bounded(outcome.forgetting, outcome.forgetting_bounds, 100),
        bounded(outcome.drift, outcome.drift_bounds, 1, digits=2),
        f"{outcome.rate:.1e}",
        f"{outcome.trained:,}",
        f"{outcome.seconds:.0f}",
        f"{outcome.memory / 1e9:.1f}",
        f"{outcome.adapter_bytes / 1e6:.1f}",
    ]


def _against(outcome: Outcome, reference: Outcome | None) -> str:
    if reference is None or outcome.kind == reference.kind:
        return "-"
    pairs = [
        (a, b)
        for a, b in zip(outcome.scores, reference.scores, strict=True)
        if a is not None and b is not None
    ]
    result = compare([a for a, _ in pairs], [b for _, b in pairs], seed=0)
    assert result.difference is not None
    return bounded(result.difference, (result.low, result.high), 100)
