"""Training steps, Luthier against TRL or exact against int8: gates, peer settings, timing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.harness import BenchError, Worker
from bench.machine import load_average
from bench.peers import TrlSettings, as_job
from bench.sides import (
    WARM,
    WARM_COMPILED,
    Comparison,
    Options,
    Reports,
    Side,
    fastest,
    sgemm_rates,
    take_measure,
    warm_steps,
)
from bench.spread import Spread, largest
from bench.work import Model, Work, training_flops
from bench.workload import Int8Workload, TrainingWorkload

GATE = 1e-5
LOSS_GATE = 1e-4
TRAINERS = {"sft": "TRL SFTTrainer", "dpo": "TRL DPOTrainer", "grpo": "TRL GRPOTrainer"}


def compare_training(workload: TrainingWorkload, options: Options) -> Comparison:
    """Measure Luthier against TRL.

    Raises:
        BenchError: a gate fails or a worker dies.
    """
    load, began = load_average(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="luthier-bench-") as folder:
        job, prepared = _prepare(workload, WARM_COMPILED + options.pairs, folder, options)
        found = options.settings.get(workload.name)
        probes: dict[str, tuple[str, str]] = {}
        peer = f"trl_{workload.objective}"
        if found is None:
            compiled = _compiled if workload.compiles else None
            found, probes = fastest(peer, job, workload.candidates, options=options, compiled=compiled)
        assert isinstance(found, TrlSettings)
        rates = sgemm_rates(options.threads)
        warm = warm_steps(found)
        with (
            Worker("luthier_training", job, threads=options.threads) as own,
            Worker(peer, {**job, "settings": as_job(found)}, threads=options.threads) as other,
        ):
            sides = take_measure(workload.name, (own, other), warm=warm, options=options)
        rates += sgemm_rates(options.threads)
        _refuse_checkpoints(Path(folder))
    (own_ready, own_reports), (peer_ready, peer_reports) = sides
    gates = [_gate_sentence(prepared), _loss_gate(own_reports, peer_reports, found, options)]
    luthier = Side.of("Luthier", own_reports, own_ready, warm)
    works = [Work(**work) for work in prepared["work"][warm : warm + options.pairs]]
    shares = _shares(Model(**prepared["model"]), works, luthier, rates)
    other_side = Side.of(f"{TRAINERS[workload.objective]} ({found.name})", peer_reports, peer_ready, warm)
    sentences = [_work_sentence(workload, works, luthier, other_side, prepared["peak_rate"])]
    if "reference_seconds" in own_ready:
        times = own_ready["reference_seconds"], peer_ready["reference_seconds"]
        sentences.append(
            "Reference log-probabilities are computed by both before the first step, with the adapter off, "
            f"and are in no ratio: Luthier {times[0]:.1f} s, TRL {times[1]:.1f} s."
        )
    minutes = (time.perf_counter() - began) / 60
    return Comparison(
        workload,
        luthier,
        other_side,
        tuple(sentences),
        tuple(gates),
        shares,
        tuple(rates),
        load,
        minutes,
        probes,
    )


def compare_bases(workload: Int8Workload, options: Options) -> Comparison:
    """Measure Luthier on an int8 base against Luthier on the exact one, with their held-out losses.

    Raises:
        BenchError: a worker dies.
    """
    load, began = load_average(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="luthier-bench-") as folder:
        job, prepared = _prepare(workload.of, WARM + options.pairs, folder, options)
        rates = sgemm_rates(options.threads)
        with (
            Worker(
                "luthier_training", {**job, "base": "int8", "run": "int8"}, threads=options.threads
            ) as own,
            Worker("luthier_training", {**job, "run": "exact"}, threads=options.threads) as other,
        ):
            sides = take_measure(workload.name, (own, other), warm=WARM, options=options)
            ends = [own.finish(), other.finish()]
        rates += sgemm_rates(options.threads)
    (own_ready, own_reports), (peer_ready, peer_reports) = sides
    luthier = Side.of("Luthier, int8 base", own_reports, own_ready, WARM)
    exact = Side.of("Luthier, exact fp32", peer_reports, peer_ready, WARM)
    works = [Work(**work) for work in prepared["work"][WARM : WARM + options.pairs]]
    losses = [end["validation_loss"] for end in ends]
    gate = (
        f"Approximate: after the same {WARM + options.pairs} steps the held-out loss is {losses[0]:.4f} with "
        f"the int8 base and {losses[1]:.4f} exactly ({losses[0] - losses[1]:+.4f})."
    )
    return Comparison(
        workload,
        luthier,
        exact,
        (_work_sentence(workload.of, works, luthier, exact, prepared["peak_rate"]),),
        (gate,),
        _shares(Model(**prepared["model"]), works, luthier, rates),
        tuple(rates),
        load,
        (time.perf_counter() - began) / 60,
    )


def _prepare(
    workload: TrainingWorkload, steps: int, folder: str, options: Options
) -> tuple[dict[str, Any], dict[str, Any]]:
    job = {"folder": folder, "model": options.model, "workload": workload.name, "steps": steps}
    with Worker("prepare", job, threads=options.threads) as worker:
        prepared = worker.answer()
    errors = {part: prepared[f"{part}_error"] for part in ("loss", "gradient")}
    options.tell("gate: " + ", ".join(f"{part} {error:.1e}" for part, error in errors.items()))
    if not all(error <= GATE for error in errors.values()):
        raise BenchError(
            f"{workload.name}: {errors} from the naive computation, more than {GATE:g}: nothing was timed"
        )
    return job, prepared


def _compiled(settings: TrlSettings) -> TrlSettings:
    return replace(settings, compile=True)


def _loss_gate(own: Reports, peer: Reports, settings: TrlSettings, options: Options) -> str:
    """Raises BenchError when the sides do not compute the same losses."""
    if not settings.keeps_batches:
        return "TRL makes other batches with this setting, so the losses of a step cannot be compared."
    distance = largest(abs(a["loss"] - b["loss"]) for a, b in zip(own, peer, strict=True))
    options.tell(f"losses: at most {distance:.1e} apart (at most {LOSS_GATE:g})")
    if not distance <= LOSS_GATE:
        raise BenchError(f"the losses of the two sides are {distance:.1e} apart, more than {LOSS_GATE:g}")
    return f"Losses of the two sides: at most {distance:.1e} apart (at most {LOSS_GATE:g})."


def _gate_sentence(prepared: Mapping[str, Any]) -> str:
    return (
        f"Before timing: loss {prepared['loss_error']:.1e} and gradient {prepared['gradient_error']:.1e} "
        f"from the naive computation (at most {GATE:g}; the fp32 log-softmax of torch itself is "
        f"{prepared['plain_gradient_error']:.1e} off in the gradient)."
    )


def _work_sentence(
    workload: TrainingWorkload, works: Sequence[Work], own: Side, other: Side, peak: float
) -> str:
    def mean(values: Sequence[float]) -> str:
        return f"{sum(values) / len(values):,.0f}" if values else "an unknown number of"

    what = {"sft": "sequences", "dpo": "pairs", "grpo": "groups"}[workload.objective]
    tokens = Spread.of([work.tokens for work in works])
    shared = mean([work.shared for work in works])
    return (
        f"Per step: {tokens.show(0)} tokens in {workload.batch} {what}; the longest sequence has "
        f"{max(work.longest for work in works)}, the first {shared} tokens are common to all, "
        f"{mean([work.trained for work in works])} are trained. "
        f"{mean([work.distinct for work in works])} are distinct; Luthier executes {mean(own.executed)}, "
        f"the peer {mean(other.executed)}, padding included. Highest learning rate {peak:.2e}."
    )


def _shares(model: Model, works: Sequence[Work], side: Side, rates: Sequence[float]) -> Spread:
    limit = Spread.of(rates).median
    steps = zip(works, side.seconds, strict=True)
    return Spread.of([training_flops(model, work) / (seconds * limit) for work, seconds in steps])


def _refuse_checkpoints(folder: Path) -> None:
    leftover = folder / "luthier" / "checkpoints"
    if leftover.exists() and any(leftover.iterdir()):
        raise BenchError("Luthier wrote checkpoints while it was timed, which the peer did not")
