"""Evaluation, Luthier against lm-eval and Transformers: scores of options, answers to prompts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any

from bench.harness import BenchError, Worker
from bench.machine import load_average
from bench.peers import as_job
from bench.sides import (
    WARM,
    Comparison,
    Options,
    Reports,
    Side,
    fastest,
    sgemm_rates,
    take_measure,
)
from bench.spread import Spread, largest
from bench.work import Model, Work, scoring_flops
from bench.workload import ChoiceWorkload, WritingWorkload

SCORE_GATE = 1e-4
TIE_GATE = 1e-3  # nats between the two best tokens where the two sides part


def compare_scores(workload: ChoiceWorkload, options: Options) -> Comparison:
    """Measure log-likelihoods against lm-eval's `hf` backend.

    Raises:
        BenchError: the log-likelihoods differ or a worker dies.
    """
    load, began = load_average(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="luthier-bench-") as folder:
        job, prepared = _prepare(workload.name, WARM + options.pairs, folder, options)
        found, probes = options.settings.get(workload.name), {}
        if found is None:
            found, probes = fastest("lm_eval_scores", job, workload.candidates, options=options)
        rates = sgemm_rates(options.threads)
        with (
            Worker("luthier_scores", job, threads=options.threads) as own,
            Worker("lm_eval_scores", {**job, "settings": as_job(found)}, threads=options.threads) as other,
        ):
            sides = take_measure(workload.name, (own, other), warm=WARM, options=options)
        rates += sgemm_rates(options.threads)
    (own_ready, own_reports), (peer_ready, peer_reports) = sides
    distance = score_distance(own_reports, peer_reports)
    options.tell(f"log-likelihoods: at most {distance:.1e} apart, relative (at most {SCORE_GATE:g})")
    if not distance <= SCORE_GATE:
        raise BenchError(f"{workload.name}: log-likelihoods are {distance:.1e} apart, relative")
    luthier = Side.of("Luthier", own_reports, own_ready, WARM)
    model, limit = Model(**prepared["model"]), Spread.of(rates).median
    works = [Work(**work) for work in prepared["work"][WARM:]]
    shares = [
        scoring_flops(model, work) / (seconds * limit)
        for work, seconds in zip(works, luthier.seconds, strict=True)
    ]
    tokens = Spread.of([work.tokens for work in works])
    distinct = Spread.of([work.distinct for work in works])
    return Comparison(
        workload,
        luthier,
        Side.of(f"lm-eval hf ({found.name})", peer_reports, peer_ready, WARM),
        (
            f"Per step: {workload.per_step} questions of 4 options, {tokens.show(0)} tokens in their "
            f"{4 * workload.per_step} sequences, {distinct.show(0)} of them distinct.",
        ),
        (
            f"Log-likelihoods of the two sides: at most {distance:.1e} apart, relative to the larger of 1 "
            f"and their size (at most {SCORE_GATE:g}).",
        ),
        Spread.of(shares),
        tuple(rates),
        load,
        (time.perf_counter() - began) / 60,
        probes,
    )


def compare_writing(workload: WritingWorkload, options: Options) -> Comparison:
    """Measure greedy generation against Transformers' `generate`.

    Raises:
        BenchError: answers differ where it is no tie, or a worker dies.
    """
    load, began = load_average(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="luthier-bench-") as folder:
        job, prepared = _prepare(workload.name, options.pairs, folder, options)
        job["new_tokens"] = workload.new_tokens
        found, probes = options.settings.get(workload.name), {}
        if found is None:
            found, probes = fastest("transformers_writing", job, workload.candidates, options=options)
        rates = sgemm_rates(options.threads)
        with (
            Worker("luthier_writing", job, threads=options.threads) as own,
            Worker(
                "transformers_writing", {**job, "settings": as_job(found)}, threads=options.threads
            ) as other,
        ):
            sides = take_measure(workload.name, (own, other), warm=0, options=options)
        rates += sgemm_rates(options.threads)
        (own_ready, own_reports), (peer_ready, peer_reports) = sides
        gate = _same_answers(job, own_reports[-1]["written"], peer_reports[-1]["written"], options)
    return Comparison(
        workload,
        Side.of("Luthier", own_reports, own_ready, 0),
        Side.of(f"Transformers generate ({found.name})", peer_reports, peer_ready, 0),
        (
            f"Per step: {prepared['prompts']} prompts of {prepared['shortest']} to {prepared['longest']} "
            f"tokens, the first {prepared['shared']} in common, {workload.new_tokens} new tokens each, "
            "whatever they are. Tokens are those of prompts and answers together.",
            "No share of the SGEMM rate: a step of decoding reads all weights for a few rows.",
        ),
        (gate,),
        None,
        tuple(rates),
        load,
        (time.perf_counter() - began) / 60,
        probes,
    )


def score_distance(a: Reports, b: Reports) -> float:
    """The largest distance of two values, relative to the larger of 1 and their size."""
    pairs = [
        pair
        for mine, other in zip(a, b, strict=True)
        for pair in zip(mine["values"], other["values"], strict=True)
    ]
    return largest(abs(x - y) / max(1.0, abs(x), abs(y)) for x, y in pairs)


def _same_answers(
    job: dict[str, Any], own: Sequence[Sequence[int]], other: Sequence[Sequence[int]], options: Options
) -> str:
    """Where answers differ, the two best tokens must be equally likely up to rounding."""
    parted = [
        {"row": row, "place": next(t for t, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), "ids": a}
        for row, (a, b) in enumerate(zip(own, other, strict=True))
        if list(a) != list(b)
    ]
    if not parted:
        options.tell(f"all {len(own)} answers are the same")
        return f"All {len(own)} answers are the same on both sides, token for token."
    with Worker("ties", {**job, "parted": parted}, threads=options.threads) as worker:
        gap = largest(worker.answer()["gaps"])
    options.tell(f"{len(parted)} answers differ, by at most {gap:.1e} nats where they part")
    if not gap <= TIE_GATE:
        raise BenchError(f"answers differ where one token is {gap:.1e} nats likelier than the other")
    return (
        f"{len(own) - len(parted)} of {len(own)} answers are the same on both sides, token for token; the "
        f"others part at ties: there the two best tokens are at most {gap:.1e} nats apart in the naive "
        f"computation (at most {TIE_GATE:g})."
    )


def _prepare(name: str, steps: int, folder: str, options: Options) -> tuple[dict[str, Any], dict[str, Any]]:
    job = {"folder": folder, "model": options.model, "workload": name, "steps": steps}
    with Worker("prepare_answers", job, threads=options.threads) as worker:
        return job, worker.answer()
