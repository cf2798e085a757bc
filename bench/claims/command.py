"""`python -m bench claims`: make every run that is not in the file yet; the page is written after each."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.claims import (
    claim_facts,
    claim_lora,
    claim_narrow,
    claim_prompt,
    claim_unmeasured,
    claim_wrong_labels,
)
from bench.claims.claim import Claim
from bench.claims.data import Size
from bench.claims.page import write_page
from bench.claims.points import Outcome, Outcomes, Point, as_outcome, read_outcomes
from bench.harness import BenchError, Worker
from bench.results import append_outcome

CLAIMS = {
    module.CLAIM.name: module.CLAIM
    for module in (
        claim_narrow,
        claim_facts,
        claim_wrong_labels,
        claim_unmeasured,
        claim_lora,
        claim_prompt,
    )
}


def main(arguments: list[str]) -> int:
    """Append outcomes as they come and write the page after each; 1 when a run could not be made."""
    given = _parser().parse_args(arguments)
    size = Size(given.examples, max(1, given.examples // 5), given.examples)
    chosen = [CLAIMS[name] for name in given.claim or CLAIMS]
    planned = all_points(chosen, size, given.seeds)
    outcomes = read_outcomes(given.results)
    failed: dict[str, str] = {}
    began = time.perf_counter()
    for point in planned:
        if point.key in outcomes:
            continue
        if given.minutes is not None and time.perf_counter() - began > 60 * given.minutes:
            print("out of time; the same command goes on from here", file=sys.stderr)
            break
        print(f"{point.name}, seed {point.seed}", file=sys.stderr, flush=True)
        try:
            outcome = make(point, given.threads)
        except BenchError as error:
            failed[point.name] = str(error).splitlines()[-1]
            print(f"  {error}", file=sys.stderr, flush=True)
            continue
        outcomes[point.key] = outcome
        append_outcome(given.results, outcome)
        _write(given, chosen, size, outcomes)
    _write(given, chosen, size, outcomes)
    return 1 if failed else 0


def all_points(claims: Sequence[Claim], size: Size, seeds: int) -> list[Point]:
    """The runs of all claims, each once, one seed before the next."""
    found = {p.key: p for seed in range(seeds) for claim in claims for p in claim.points(size, seed)}
    return list(found.values())


def collect(
    claim: Claim, size: Size, seeds: int, outcomes: Mapping[str, Outcome]
) -> tuple[Outcomes, list[str]]:
    """The outcomes of a claim's runs by name, of the seeds that are whole, and what the first seed lacks."""
    found: dict[str, list[Outcome]] = {}
    missing: list[str] = []
    for seed in range(seeds):
        points = claim.points(size, seed)
        lacking = [point.name for point in points if point.key not in outcomes]
        if lacking:
            missing += lacking if seed == 0 else []
            continue
        for point in points:
            found.setdefault(point.name, []).append(outcomes[point.key])
    return found, missing


def make(point: Point, threads: int) -> Outcome:
    """One run, in a process of its own.

    Raises:
        BenchError: it ended before it was done.
    """
    began = time.perf_counter()
    with Worker("claims", point.job(), threads=threads) as worker:
        found = worker.answer()
        while found["event"] != "measured":
            shown = f" in {found['seconds']:.0f} s" if "seconds" in found else ""
            print(f"  {found['what']}{shown}", file=sys.stderr, flush=True)
            found = worker.answer()
    found.pop("event")
    seconds = round(time.perf_counter() - began, 1)
    known = {"name": point.name, "seed": point.seed, "key": point.key, "seconds": seconds}
    return as_outcome(found | known)


def _write(
    given: argparse.Namespace, chosen: Sequence[Claim], size: Size, outcomes: Mapping[str, Outcome]
) -> None:
    collected = [(claim, *collect(claim, size, given.seeds, outcomes)) for claim in chosen]
    given.out.write_text(write_page(collected, _command(given)), encoding="utf-8")


def _command(given: argparse.Namespace) -> str:
    parts = ["python -m bench claims", *(f"--claim {name}" for name in given.claim or [])]
    parts += [f"--seeds {given.seeds}"] * (given.seeds != 1)
    parts += [f"--examples {given.examples}"] * (given.examples != Size().train)
    return " ".join(parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench claims", description="What people say of fine-tuning, measured."
    )
    parser.add_argument("--claim", action="append", choices=list(CLAIMS), help="only these; default all")
    parser.add_argument("--seeds", type=int, default=1, help="training seeds; each draws its examples anew")
    parser.add_argument("--examples", type=int, default=Size().train, help="most to train on, and to test on")
    parser.add_argument("--minutes", type=float, default=None, help="start no run after this time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=Path("docs/claims.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("docs/claims.md"))
    return parser
