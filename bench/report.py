"""docs/benchmarks.md: what was measured, on what, how to read it, and what was lost or not measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.machine import describe_machine
from bench.measure import Result
from bench.plan import ALPHA, RANK
from bench.prose import how_to_read, peer_settings
from bench.sides import Comparison, Side
from bench.spread import Spread
from bench.startup import Startup
from bench.workload import NOT_BUILT, Workload

GB = 1e9
SHARE_GOAL = 0.7


@dataclass(frozen=True)
class Conditions:
    """How the command was run."""

    command: str
    model: str
    pairs: int
    threads: int
    minutes: float


def write_report(
    results: Sequence[Result], failed: Mapping[str, str], left: Sequence[Workload], conditions: Conditions
) -> str:
    """The whole document, Markdown.

    Args:
        failed: why a workload gave no result, by name.
        left: workloads that were not asked for.
    """
    comparisons = [result for result in results if isinstance(result, Comparison)]
    parts = [
        "# Benchmarks",
        "Every figure is a ratio measured in one go on one machine, with the two sides in turn. This file is "
        f"written by the command below; it took {conditions.minutes:.0f} min.",
        f"```\n{conditions.command} --out docs/benchmarks.md\n```",
        "## Results\n\n" + summary(results),
        losing(results, failed),
        "## Machine and versions\n\n" + _machine(conditions, comparisons, results),
        *(section(result) for result in results),
        peer_settings(),
        how_to_read(conditions.pairs),
        _missing(left, conditions.threads),
    ]
    return "\n\n".join(parts) + "\n"


def summary(results: Sequence[Result]) -> str:
    """One row per workload."""
    head = ["", "workload", "against", "times faster", "goal", "peak memory, ratio", "goal"]
    return table([*head, "of SGEMM rate", "goal reached"], [_row(result) for result in results])


def _row(result: Result) -> list[str]:
    workload = result.workload
    start = [workload.name.upper(), workload.what]
    reached = "no" if result.misses() else "yes"
    if isinstance(result, Startup):
        limit = f"< {result.workload.seconds:g} s"
        return [*start, "-", f"{result.seconds.show()} s", limit, "-", "-", "-", reached]
    goal = workload.goal
    return [
        *start,
        result.peer.name.partition(" (")[0],
        result.ratios.show(),
        f"{goal.speed:g}" + ", never slower" * goal.never_slower,
        f"{result.memory_ratio:.2f}",
        "-" if goal.memory is None else f"{goal.memory:g}",
        "-" if result.shares is None else f"{100 * result.shares.median:.0f}%",
        reached,
    ]


def losing(results: Sequence[Result], failed: Mapping[str, str]) -> str:
    """Every goal that was not reached, and every place where Luthier is behind its peer."""
    lines = [f"- {name.upper()}: no result: {why}" for name, why in failed.items()]
    for result in results:
        name = result.workload.name.upper()
        lines += [f"- {name}: {miss}." for miss in result.misses()]
        if isinstance(result, Startup):
            continue
        if result.memory_ratio > 1 and result.workload.goal.memory is None:
            lines.append(f"- {name}: Luthier needs {result.memory_ratio:.2f} times the peer's peak memory.")
        if result.shares is not None and result.shares.median < SHARE_GOAL:
            share = f"{100 * result.shares.median:.0f}%"
            lines.append(f"- {name}: {share} of the SGEMM rate; the goal is {100 * SHARE_GOAL:.0f}%.")
    return "## Losing cases\n\n" + ("\n".join(lines) or "None among the workloads measured here.")


def section(result: Result) -> str:
    """Everything about one workload."""
    title = f"## {result.workload.name.upper()}: {result.workload.what}"
    if isinstance(result, Startup):
        heavy = ", ".join(result.heavy) or "neither torch nor transformers"
        return f"{title}\n\n{result.seconds.show()} s from start to end of the process; imports {heavy}."
    head = ["", "s/step", "useful tokens/s", "executed tokens/s", "peak memory", "before the first step"]
    lines = [
        title,
        *result.work,
        table(head, [_side_row(result.luthier), _side_row(result.peer)]),
        f"Pair by pair, useful tokens/s over the peer's: **{result.ratios.show()}**. {_share(result)}"
        f"Measured in {result.minutes:.0f} min.",
        _pairs(result),
        *result.gates,
    ]
    if result.probes:
        rows = [[name, rate, memory] for name, (rate, memory) in result.probes.items()]
        lines += [
            "What the peer was tried with, alone; the fastest was taken:",
            table(["setting", "useful tokens/s", "peak memory"], rows),
        ]
    return "\n\n".join(lines)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _share(result: Comparison) -> str:
    share = result.shares
    if share is None:
        return ""
    return (
        f"Luthier's step is {100 * share.median:.0f}% [{100 * share.low:.0f}%, {100 * share.high:.0f}%] of "
        "the machine's SGEMM rate by the formula below. "
    )


def _side_row(side: Side) -> list[str]:
    done = "-"
    if side.executed:
        rates = [count / seconds for count, seconds in zip(side.executed, side.seconds, strict=True)]
        done = Spread.of(rates).show(0)
    return [
        side.name,
        Spread.of(side.seconds).show(3),
        Spread.of(side.rates).show(0),
        done,
        f"{side.peak_bytes / GB:.2f} GB",
        f"{side.loaded_bytes / GB:.2f} GB",
    ]


def _pairs(result: Comparison) -> str:
    own, peer = result.luthier, result.peer
    ratios = [a / b for a, b in zip(own.rates, peer.rates, strict=True)]
    head = ["pair", "Luthier, s", "peer, s", "ratio"]
    columns = [
        [str(i + 1) for i in range(len(ratios))],
        [f"{seconds:.3f}" for seconds in own.seconds],
        [f"{seconds:.3f}" for seconds in peer.seconds],
        [f"{ratio:.2f}" for ratio in ratios],
    ]
    if own.losses and peer.losses:
        head += ["Luthier, loss", "peer, loss"]
        columns += [[f"{loss:.6f}" for loss in side.losses] for side in (own, peer)]
    return table(head, list(zip(*columns, strict=True)))


def _machine(conditions: Conditions, comparisons: Sequence[Comparison], results: Sequence[Result]) -> str:
    facts = describe_machine()
    packages = ", ".join(f"{name} {facts[name]}" for name in list(facts)[4:])
    rates = [rate / 1e9 for result in comparisons for rate in result.rates]
    sgemm = f"{Spread.of(rates).show(0)} GFLOP/s" if rates else "not measured"
    loads = ", ".join(f"{result.workload.name} {result.load:.1f}" for result in results)
    return "\n".join(
        [
            f"- {facts['processor']}, {facts['cores']} cores visible, {facts['system']}; "
            f"threads per side: {conditions.threads}",
            f"- Python {facts['python']}; {packages}",
            f"- SGEMM (2048 x 2048, fp32, same threads, same run): {sgemm}",
            f"- load average before each workload: {loads} "
            "(other programs running at the same time make every absolute figure worthless)",
            f"- {conditions.model} in fp32; LoRA of rank {RANK}, alpha {ALPHA}, dropout 0, on all linear "
            "layers of the blocks; AdamW",
        ]
    )


def _missing(left: Sequence[Workload], threads: int) -> str:
    lines = [f"- {workload.name.upper()}: {workload.what} (not asked for in this run)" for workload in left]
    lines += [f"- {name.upper()}: {what}" for name, what in NOT_BUILT.items()]
    lines.append(f"- any GPU; any other model; any number of threads but {threads}")
    return "## Not measured\n\n" + "\n".join(lines)


def bounded(
    value: float, bounds: Sequence[float | None], times: int, *, sign: str = "+", digits: int = 1
) -> str:
    """An estimate with its interval, multiplied for display; `?` for a bound that is not known."""
    low, high = ("?" if bound is None else f"{times * bound:{sign}.{digits}f}" for bound in bounds)
    return f"{times * value:{sign}.{digits}f} [{low}, {high}]"
