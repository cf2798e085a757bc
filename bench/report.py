"""docs/benchmarks.md: what was measured, on what, how to read it, and what was lost or not measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.machine import describe_machine
from bench.plan import ALPHA, BATCH, RANK
from bench.prose import how_to_read, peer_settings
from bench.sft import GATE, LOSS_GATE, WARM, SftResult, Side
from bench.spread import Spread
from bench.workload import PLANNED

GB = 1e9


@dataclass(frozen=True)
class Conditions:
    """How the command was run."""

    command: str
    model: str
    pairs: int
    threads: int
    minutes: float


def write_report(results: Sequence[SftResult], conditions: Conditions) -> str:
    """The whole document, Markdown."""
    parts = [
        "# Benchmarks",
        "Every figure is a ratio measured in one go on one machine, with the two sides in turn. This file is "
        f"written by the command below; it took {conditions.minutes:.0f} min.",
        f"```\n{conditions.command} --out docs/benchmarks.md\n```",
        _summary(results),
        "## Machine and versions\n\n" + _machine(conditions, results),
        *(_section(result) for result in results),
        peer_settings(),
        how_to_read(conditions.pairs),
        _losing(results),
        _missing(results, conditions.threads),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(results: Sequence[SftResult]) -> str:
    rows = [
        [
            result.workload.name.upper(),
            result.workload.what,
            result.ratios.show(),
            f"{result.workload.goal.speed:g}",
            f"{result.memory_ratio:.2f}",
            "-" if result.workload.goal.memory is None else f"{result.workload.goal.memory:g}",
            f"{100 * result.shares.median:.0f}%",
        ]
        for result in results
    ]
    head = ["", "workload", "times faster", "goal", "peak memory, times TRL's", "goal", "of SGEMM rate"]
    return "## Results\n\n" + _table(head, rows)


def _machine(conditions: Conditions, results: Sequence[SftResult]) -> str:
    facts = describe_machine()
    packages = ", ".join(f"{name} {facts[name]}" for name in list(facts)[4:])
    rates = Spread.of([rate / 1e9 for result in results for rate in result.rates])
    return "\n".join(
        [
            f"- {facts['processor']}, {facts['cores']} cores visible, {facts['system']}; "
            f"threads per side: {conditions.threads}",
            f"- Python {facts['python']}; {packages}",
            f"- SGEMM (2048 x 2048, fp32, same threads, same run): {rates.show(0)} GFLOP/s",
            f"- load average before each workload: {', '.join(f'{result.load:.1f}' for result in results)} "
            "(other programs running at the same time make every absolute figure worthless)",
            f"- {conditions.model} in fp32; LoRA of rank {RANK}, alpha {ALPHA}, dropout 0, on all linear "
            f"layers of the blocks; AdamW; batches of {BATCH} sequences",
        ]
    )


def _section(result: SftResult) -> str:
    work = result.work
    tokens = Spread.of([step.tokens for step in work])
    mean = {
        name: _mean(getattr(step, name) for step in work)
        for name in ("shared", "trained", "executed", "predictions")
    }
    share = result.shares
    lines = [
        f"## {result.workload.name.upper()}: {result.workload.what}",
        f"Per step: {tokens.show(0)} tokens in 8 sequences; the first {mean['shared']:.0f} are common to all "
        f"8, {mean['trained']:.0f} are trained. Luthier executes {mean['executed']:.0f} in the blocks and "
        f"{mean['predictions']:.0f} in the head; TRL {_mean(result.peer.executed):.0f} in both.",
        _table(
            ["", "s/step", "useful tokens/s", "executed tokens/s", "peak memory", "before the first step"],
            [
                _side_row("Luthier", result, result.luthier, [step.executed for step in work]),
                _side_row(f"TRL ({result.settings.name})", result, result.peer, result.peer.executed),
            ],
        ),
        f"Pair by pair, TRL's time over Luthier's: **{result.ratios.show()}**. Luthier's step is "
        f"{100 * share.median:.0f}% [{100 * share.low:.0f}%, {100 * share.high:.0f}%] of the machine's SGEMM "
        "rate by the formula below.",
        _pairs(result),
        f"Gates: loss {result.loss_error:.1e} and gradient {result.gradient_error:.1e} from the naive "
        f"computation (at most {GATE:g}; the fp32 log-softmax of torch itself is "
        f"{result.plain_gradient_error:.1e} off in the gradient); losses of the two sides at most "
        f"{result.loss_distance:.1e} apart (at most {LOSS_GATE:g}). "
        f"Highest learning rate {result.peak_rate:.2e}.",
    ]
    if result.probes:
        rows = [[name, seconds, memory] for name, (seconds, memory) in result.probes.items()]
        lines += [
            "What TRL was tried with, alone; the fastest was taken:",
            _table(["setting", "per step", "peak memory"], rows),
        ]
    else:
        lines += ["TRL's settings were given on the command line, not probed."]
    return "\n\n".join(lines)


def _side_row(name: str, result: SftResult, side: Side, executed: Sequence[int]) -> list[str]:
    useful = [step.tokens / seconds for step, seconds in zip(result.work, side.seconds, strict=True)]
    done = [count / seconds for count, seconds in zip(executed, side.seconds, strict=True)]
    return [
        name,
        Spread.of(side.seconds).show(3),
        Spread.of(useful).show(0),
        Spread.of(done).show(0),
        f"{side.peak_bytes / GB:.2f} GB",
        f"{side.loaded_bytes / GB:.2f} GB",
    ]


def _pairs(result: SftResult) -> str:
    columns = zip(
        result.luthier.seconds,
        result.peer.seconds,
        result.luthier.losses,
        result.peer.losses,
        strict=True,
    )
    rows = [
        [str(WARM + i + 1), f"{own:.3f}", f"{peer:.3f}", f"{peer / own:.2f}", f"{loss:.6f}", f"{other:.6f}"]
        for i, (own, peer, loss, other) in enumerate(columns)
    ]
    return _table(["step", "Luthier, s", "TRL, s", "ratio", "Luthier, loss", "TRL, loss"], rows)


def _losing(results: Sequence[SftResult]) -> str:
    lines = []
    for result in results:
        goal = result.workload.goal
        name = result.workload.name.upper()
        if result.ratios.median < 1:
            lines.append(f"- {name}: Luthier is slower, {result.ratios.show()} times.")
        elif result.ratios.median < goal.speed:
            lines.append(
                f"- {name}: faster, but below the goal of {goal.speed:g} times: {result.ratios.show()}."
            )
        if result.memory_ratio > 1:
            lines.append(f"- {name}: Luthier needs {result.memory_ratio:.2f} times TRL's peak memory.")
        elif goal.memory is not None and result.memory_ratio > goal.memory:
            lines.append(
                f"- {name}: peak memory {result.memory_ratio:.2f} of TRL's; the goal is {goal.memory:g}."
            )
        if result.shares.median < 0.7:
            lines.append(
                f"- {name}: {100 * result.shares.median:.0f}% of the SGEMM rate; the goal is at least 70%."
            )
    return "## Losing cases\n\n" + ("\n".join(lines) or "None among the workloads measured here.")


def _missing(results: Sequence[SftResult], threads: int) -> str:
    done = {result.workload.name for result in results}
    lines = [f"- {name.upper()}: {what}" for name, what in PLANNED.items() if name not in done]
    return (
        "## Not measured yet\n\nThe workloads above are those where sharing helps most. "
        "These may well be lost:\n\n"
        + "\n".join([*lines, f"- any GPU; any other model; any number of threads but {threads}"])
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
