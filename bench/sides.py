"""Two sides in turn: timing, the machine's limit in the same run, and the peer's settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bench.harness import BenchError, Worker, take_turns
from bench.peers import Settings, TransformersSettings, TrlSettings, as_job
from bench.spread import Spread
from bench.workload import Workload

WARM = 1
WARM_COMPILED = 2  # compilation for one length, then for any length
HOPELESS = 2 / 3  # of the best rate so far, in the first step of a probe
SGEMM_COUNT = 3  # before and after each workload

Reports = Sequence[Mapping[str, Any]]
S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Options:
    """How the command was run.

    Attributes:
        settings: of the peer, by workload; probed where absent.
        tell: gets a line whenever something has been learned.
    """

    pairs: int
    threads: int
    model: str
    settings: Mapping[str, Settings]
    tell: Callable[[str], None]


@dataclass(frozen=True)
class Side:
    """One side's timed steps and the peak memory of its process.

    Attributes:
        tokens: of the original sequences, per step.
        executed: tokens that went through the model, padding included; empty where unknown.
        losses: empty where nothing is trained.
    """

    name: str
    seconds: tuple[float, ...]
    tokens: tuple[int, ...]
    executed: tuple[int, ...]
    losses: tuple[float, ...]
    loaded_bytes: int
    peak_bytes: int

    @staticmethod
    def of(name: str, reports: Reports, ready: Mapping[str, Any], warm: int) -> Side:
        """From a worker's messages."""
        timed = reports[warm:]
        return Side(
            name,
            tuple(report["seconds"] for report in timed),
            tuple(report["tokens"] for report in timed),
            tuple(report["executed"] for report in timed if report.get("executed")),
            tuple(report["loss"] for report in timed if "loss" in report),
            ready["peak_bytes"],
            max(report["peak_bytes"] for report in reports),
        )

    @property
    def rates(self) -> list[float]:
        """Useful tokens per second, step by step."""
        return [tokens / seconds for tokens, seconds in zip(self.tokens, self.seconds, strict=True)]


@dataclass(frozen=True)
class Comparison:
    """Everything that the report says about a workload with two sides.

    Attributes:
        work: sentences on what a step is.
        gates: sentences on what was checked.
        probes: speed and memory of every setting of the peer that was tried.
        shares: Luthier's steps as a share of the machine's SGEMM rate; None where that limits nothing.
        rates: SGEMM rates in this run, operations per second.
        load: processes that wanted to run during the minute before.
    """

    workload: Workload
    luthier: Side
    peer: Side
    work: tuple[str, ...]
    gates: tuple[str, ...]
    shares: Spread | None
    rates: tuple[float, ...]
    load: float
    minutes: float
    probes: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def ratios(self) -> Spread:
        """How many times faster Luthier is, pair by pair, in useful tokens per second."""
        pairs = zip(self.luthier.rates, self.peer.rates, strict=True)
        return Spread.of([own / peer for own, peer in pairs])

    @property
    def memory_ratio(self) -> float:
        """Luthier's peak memory over the peer's."""
        return self.luthier.peak_bytes / self.peer.peak_bytes

    def misses(self) -> list[str]:
        """What of the goal was not reached, in words; empty when all of it was."""
        goal, found = self.workload.goal, []
        if self.ratios.median < 1:
            found.append(f"Luthier is slower: {self.ratios.show()} times")
        elif self.ratios.median < goal.speed:
            found.append(f"faster, but below the goal of {goal.speed:g} times: {self.ratios.show()}")
        if goal.never_slower and self.ratios.low < 1 <= self.ratios.median:
            found.append(f"slower in at least one pair: {self.ratios.show()}")
        if goal.memory is not None and self.memory_ratio > goal.memory:
            found.append(f"peak memory {self.memory_ratio:.2f} of the peer's; the goal is {goal.memory:g}")
        return found


def take_measure(
    name: str,
    sides: tuple[Worker, Worker],
    *,
    warm: int,
    options: Options,
) -> tuple[tuple[Mapping[str, Any], Reports], ...]:
    """Both sides' "ready" message and step reports, in turns.

    Raises:
        BenchError: a worker dies.
    """
    ready = sides[0].answer(), sides[1].answer()
    options.tell(f"{name}: both sides are ready; {warm} + {options.pairs} steps each")
    reports = take_turns(*sides, warm=warm, pairs=options.pairs)
    return tuple(zip(ready, reports, strict=True))


def sgemm_rates(threads: int, count: int = SGEMM_COUNT) -> list[float]:
    """The machine's fp32 rate, operations per second, `count` times."""
    with Worker("sgemm", {}, threads=threads) as worker:
        worker.answer()
        return [float(worker.go()["rate"]) for _ in range(count)]


def warm_steps(settings: Settings) -> int:
    """Steps that are not timed."""
    return WARM_COMPILED if isinstance(settings, TrlSettings) and settings.compile else WARM


def probe_steps(settings: Settings) -> int:
    """Steps of a probe, the last of which is timed; one whole generation says enough."""
    return 1 if isinstance(settings, TransformersSettings) else warm_steps(settings) + 1


def fastest(
    module: str,
    job: Mapping[str, Any],
    candidates: Sequence[S],
    *,
    options: Options,
    compiled: Callable[[S], S] | None = None,
) -> tuple[S, dict[str, tuple[str, str]]]:
    """Try the peer's settings alone, on the first steps; the fastest in useful tokens per second.

    Args:
        compiled: gives the compiled variant of a setting, which is tried on the fastest.

    Raises:
        BenchError: none of them runs.
    """
    rates: dict[S, float] = {}
    probes: dict[str, tuple[str, str]] = {}
    for settings in candidates:
        _probe(module, job, settings, rates, probes, options)
    if compiled is not None and rates:
        _probe(module, job, compiled(max(rates, key=rates.__getitem__)), rates, probes, options)
    if not rates:
        raise BenchError(f"{module}: none of the peer's settings runs here")
    return max(rates, key=rates.__getitem__), probes


def _probe(
    module: str,
    job: Mapping[str, Any],
    settings: S,
    rates: dict[S, float],
    probes: dict[str, tuple[str, str]],
    options: Options,
) -> None:
    try:
        with Worker(
            module, {**job, "settings": as_job(settings), "probe": True}, threads=options.threads
        ) as worker:
            worker.answer()
            reports = [worker.go()]
            # a first step this slow is not made good by a second one; compilation is
            while len(reports) < probe_steps(settings) and (
                warm_steps(settings) > WARM or _rate(reports[-1]) > HOPELESS * max(rates.values(), default=0)
            ):
                reports.append(worker.go())
    except BenchError as error:
        # a setting that the peer does not offer on this machine is not a failure of the measurement
        options.tell(str(error))
        probes[settings.name] = (f"does not run here ({kind_of(error)})", "-")
        return
    rates[settings] = _rate(reports[-1])
    memory = max(report["peak_bytes"] for report in reports)
    probes[settings.name] = (f"{rates[settings]:.0f}", f"{memory / 1e9:.2f} GB")
    options.tell(f"peer, {settings.name}: {rates[settings]:.0f} tokens/s, {memory / 1e9:.2f} GB")


def _rate(report: Mapping[str, Any]) -> float:
    """Useful tokens per second of a step."""
    return float(report["tokens"] / report["seconds"])


def kind_of(error: BenchError) -> str:
    """Only the kind of a worker's last error: its message may name folders of this machine."""
    kind = str(error).splitlines()[-1].partition(":")[0].rpartition(".")[2]
    return kind if kind.isidentifier() else "no answer"
