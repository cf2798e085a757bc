"""A sweep over learning rates, Luthier's against TRL's runs one after the other: gate, settings, timing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.harness import BenchError, Worker
from bench.machine import load_average
from bench.peers import TrlSettings, as_job
from bench.sides import Comparison, Options, Reports, Side, fastest, sgemm_rates
from bench.training import GATE
from bench.workload import SweepWorkload

LOSS_MARGIN = 1e-3  # nats: what rounding makes of the same training after some tens of steps


def compare_sweeps(workload: SweepWorkload, options: Options) -> Comparison:
    """Measure whole sweeps, in turns; every one in a process of its own.

    Raises:
        BenchError: a gate fails or a worker dies.
    """
    load, began = load_average(), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="luthier-bench-") as folder:
        job: dict[str, Any] = {
            "folder": folder,
            "model": options.model,
            "steps": workload.steps,
            "batch": workload.batch,
            "held_out": workload.held_out,
            "rates": list(workload.rates),
        }
        with Worker("prepare_sweep", job, threads=options.threads) as worker:
            prepared = worker.answer()
        errors = {part: prepared[f"{part}_error"] for part in ("loss", "gradient")}
        if not all(error <= GATE for error in errors.values()):
            raise BenchError(f"{workload.name}: {errors} from the naive computation: nothing was timed")
        found, probes = options.settings.get(workload.name), {}
        if found is None:
            found, probes = fastest("trl_sft", job, workload.candidates, options=options)
        assert isinstance(found, TrlSettings)
        rates = sgemm_rates(options.threads)
        own, peer = _take_turns(job, found, options)
        rates += sgemm_rates(options.threads)
    gates = [_gate_sentence(prepared), *loss_gate(own, peer, workload.rates)]
    return Comparison(
        workload,
        Side.of("Luthier", own, {"peak_bytes": own[0]["loaded_bytes"]}, 0),
        Side.of(f"TRL SFTTrainer ({found.name})", peer, {"peak_bytes": peer[0]["loaded_bytes"]}, 0),
        tuple(_work_sentences(workload, prepared, own)),
        tuple(gates),
        None,
        tuple(rates),
        load,
        (time.perf_counter() - began) / 60,
        probes,
    )


def loss_gate(own: Reports, peer: Reports, rates: Sequence[float]) -> list[str]:
    """What the best validation losses are.

    Args:
        own, peer: `losses` by rate, of trainings that went to their end.

    Raises:
        BenchError: a sweep of Luthier ended with a worse one than TRL's best run.
    """
    said = []
    for number, (ours, theirs) in enumerate(zip(own, peer, strict=True), start=1):
        best, other = (min(report["losses"].values()) for report in (ours, theirs))
        if not best <= other + LOSS_MARGIN:
            raise BenchError(
                f"sweep {number} ended with a validation loss of {best:.4f}, TRL's best run with {other:.4f}"
            )
        apart = [abs(loss - theirs["losses"][rate]) for rate, loss in ours["losses"].items()]
        at = min(ours["losses"], key=ours["losses"].__getitem__)
        said.append(
            f"Sweep {number}: best validation loss {best:.4f} at {float(at):.3g}; the best of TRL's "
            f"{len(rates)} runs {other:.4f}. Where both trained to the end the losses are at most "
            f"{max(apart):.1e} apart."
        )
    said[0] += f" A sweep counts only where its best loss is at most {LOSS_MARGIN:g} above TRL's best."
    return said


def _take_turns(
    job: Mapping[str, Any], settings: TrlSettings, options: Options
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Reports of whole sweeps, A B B A ..."""
    reports: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for turn in range(options.pairs):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            module, more = (
                ("luthier_sweep", {}),
                ("trl_sweep", {"settings": as_job(settings)}),
            )[side]
            with Worker(module, {**job, **more, "turn": turn}, threads=options.threads) as worker:
                loaded = worker.answer()["peak_bytes"]
                report = worker.go()
                while not report["done"]:  # one run of the peer's
                    report = worker.go()
            reports[side].append({**report, "loaded_bytes": loaded})
            options.tell(f"{module}, sweep {turn + 1}: {report['seconds']:.1f} s, losses {report['losses']}")
    return reports


def _gate_sentence(prepared: Mapping[str, Any]) -> str:
    return (
        f"Before timing: loss {prepared['loss_error']:.1e} and gradient {prepared['gradient_error']:.1e} "
        f"from the naive computation (at most {GATE:g})."
    )


def _work_sentences(workload: SweepWorkload, prepared: Mapping[str, Any], own: Reports) -> list[str]:
    rates = ", ".join(f"{rate:.3g}" for rate in workload.rates)
    trained, planned = own[0]["trained_steps"], own[0]["planned_steps"]
    return [
        f"A *step* of these tables is a whole sweep, over the learning rates {rates}: {workload.steps} "
        f"optimizer steps of {workload.batch} tickets each, {prepared['tokens'] / workload.steps:,.0f} "
        f"tokens a step, the first {prepared['shared']} of each sequence common to all; {workload.held_out} "
        f"tickets for validation. Luthier stops hopeless trials early and trains {trained} of {planned} "
        "steps; useful tokens are those of all runs on both sides, so that the ratio is that of the times.",
        "Timed for Luthier: `luthier sweep` without the start of Python and imports: reading, audit, split, "
        "loading the base, tokenizing, planning, training, checkpoints, validation, the page. Timed for TRL: "
        "loading the base once, then for each rate attaching the adapter, the trainer and its training and "
        "validation, in one process; not its imports, and no tokenizing.",
    ]
