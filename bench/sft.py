"""Supervised fine-tuning, Luthier against TRL, in turns: gates, peer settings, timing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.harness import BenchError, Worker, take_turns
from bench.machine import load_average
from bench.spread import Spread
from bench.work import Model, Work, flops
from bench.workload import SftWorkload

WARM = 3  # compilation for one length, then for any length, then one step of grace
GATE = 1e-5
LOSS_GATE = 1e-4
PROBE_STEPS = 3


@dataclass(frozen=True)
class PeerSettings:
    """The settings of TRL that change its speed here and not what it computes."""

    micro_batch: int = 8
    padding_free: bool = False
    compile: bool = False

    @property
    def name(self) -> str:
        """For tables."""
        parts = [f"{8 // self.micro_batch} x {self.micro_batch}"]
        parts.append("padding-free" if self.padding_free else "padded")
        return ", ".join(parts + ["torch.compile"] * self.compile)


@dataclass(frozen=True)
class Side:
    """One side's timed steps and the peak memory of its process."""

    seconds: tuple[float, ...]
    losses: tuple[float, ...]
    executed: tuple[int, ...]
    loaded_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class SftResult:
    """Everything that the report says about one workload; `work` is that of the timed steps."""

    workload: SftWorkload
    settings: PeerSettings
    probes: Mapping[str, tuple[str, str]]
    model: Model
    work: tuple[Work, ...]
    luthier: Side
    peer: Side
    rates: tuple[float, ...]
    peak_rate: float
    loss_error: float
    gradient_error: float
    plain_gradient_error: float
    load: float

    @property
    def ratios(self) -> Spread:
        """How many times faster Luthier is, pair by pair."""
        pairs = zip(self.peer.seconds, self.luthier.seconds, strict=True)
        return Spread.of([peer / own for peer, own in pairs])

    @property
    def memory_ratio(self) -> float:
        """Luthier's peak memory over the peer's."""
        return self.luthier.peak_bytes / self.peer.peak_bytes

    @property
    def loss_distance(self) -> float:
        """The largest distance between the two sides' losses of one step."""
        return max(abs(a - b) for a, b in zip(self.luthier.losses, self.peer.losses, strict=True))

    @property
    def shares(self) -> Spread:
        """Luthier's steps as a share of what the machine's SGEMM rate allows."""
        limit = Spread.of(self.rates).median
        steps = zip(self.work, self.luthier.seconds, strict=True)
        return Spread.of([flops(self.model, work) / (seconds * limit) for work, seconds in steps])


def compare_sft(
    workload: SftWorkload,
    *,
    pairs: int,
    threads: int,
    model: str,
    settings: PeerSettings | None,
    tell: Callable[[str], None],
) -> SftResult:
    """Measure one workload.

    Args:
        settings: of the peer; None probes all and takes the fastest.
        tell: gets a line whenever something has been learned.

    Raises:
        BenchError: a gate fails or a worker dies.
    """
    load = load_average()
    with tempfile.TemporaryDirectory(prefix="luthier-bench-") as folder:
        job = {"folder": folder, "model": model, "workload": workload.name, "steps": WARM + pairs}
        with Worker("prepare", job, threads=threads) as worker:
            prepared = worker.answer()
        found = ", ".join(f"{part} {prepared[f'{part}_error']:.1e}" for part in ("loss", "gradient"))
        tell(f"gate: {found} (at most {GATE:g})")
        if not all(prepared[name] <= GATE for name in ("loss_error", "gradient_error")):
            raise BenchError(
                f"{workload.name}: the forest is further than {GATE:g} from the naive computation"
            )
        probes: dict[str, tuple[str, str]] = {}
        if settings is None:
            settings = _fastest(job, probes, threads=threads, tell=tell)
        luthier, peer, rates = _time(job, settings, pairs=pairs, threads=threads, tell=tell)
        leftover = Path(folder) / "luthier" / "checkpoints"
        if leftover.exists() and any(leftover.iterdir()):
            raise BenchError(f"{workload.name}: Luthier wrote checkpoints, which the peer did not")
    result = SftResult(
        workload,
        settings,
        probes,
        Model(**prepared["model"]),
        tuple(Work(**work) for work in prepared["work"][WARM:]),
        luthier,
        peer,
        tuple(rates),
        prepared["peak_rate"],
        prepared["loss_error"],
        prepared["gradient_error"],
        prepared["plain_gradient_error"],
        load,
    )
    tell(f"{result.ratios.show()} times faster, {result.memory_ratio:.2f} of the memory")
    return result


def _fastest(
    job: Mapping[str, Any], probes: dict[str, tuple[str, str]], *, threads: int, tell: Callable[[str], None]
) -> PeerSettings:
    """Try the peer's settings on the plan's first steps; then compilation on the fastest."""
    tried: dict[PeerSettings, float] = {}
    candidates = [PeerSettings(size) for size in (8, 4, 2, 1)] + [PeerSettings(padding_free=True)]
    for settings in candidates:
        _probe(settings, job, tried, probes, warm=1, threads=threads, tell=tell)
    best = min(tried, key=tried.__getitem__)
    compiled = PeerSettings(best.micro_batch, best.padding_free, compile=True)
    _probe(compiled, job, tried, probes, warm=WARM, threads=threads, tell=tell)
    return min(tried, key=tried.__getitem__)


def _probe(
    settings: PeerSettings,
    job: Mapping[str, Any],
    tried: dict[PeerSettings, float],
    probes: dict[str, tuple[str, str]],
    *,
    warm: int,
    threads: int,
    tell: Callable[[str], None],
) -> None:
    steps = min(job["steps"], warm + PROBE_STEPS)
    try:
        with Worker("trl_sft", {**job, "settings": asdict(settings)}, threads=threads) as worker:
            worker.answer()
            reports = [worker.go() for _ in range(steps)]
    except BenchError as error:
        # a setting that the peer does not offer on this machine is not a failure of the measurement
        tell(str(error))
        # only the kind of error: its message may name folders of this machine
        kind = str(error).splitlines()[-1].partition(":")[0].rpartition(".")[2]
        shown = kind if kind.isidentifier() else "no answer"
        probes[settings.name] = (f"does not run here ({shown})", "-")
        return
    tried[settings] = Spread.of([report["seconds"] for report in reports[warm:]]).median
    memory = max(report["peak_bytes"] for report in reports)
    probes[settings.name] = (f"{tried[settings]:.2f} s", f"{memory / 1e9:.2f} GB")
    tell(f"peer, {settings.name}: {', '.join(probes[settings.name])}")


def _time(
    job: Mapping[str, Any],
    settings: PeerSettings,
    *,
    pairs: int,
    threads: int,
    tell: Callable[[str], None],
) -> tuple[Side, Side, list[float]]:
    """The timed steps of both sides, and the SGEMM rate before and after them."""
    rates = _sgemm_rates(pairs, threads)
    with (
        Worker("luthier_sft", job, threads=threads) as own,
        Worker("trl_sft", {**job, "settings": asdict(settings)}, threads=threads) as other,
    ):
        loaded = own.answer()["peak_bytes"], other.answer()["peak_bytes"]
        reports = take_turns(own, other, warm=WARM, pairs=pairs)
    rates += _sgemm_rates(pairs, threads)
    distances = [abs(a["loss"] - b["loss"]) for a, b in zip(*reports, strict=True)]
    tell(f"losses: at most {max(distances):.1e} apart (at most {LOSS_GATE:g})")
    if not all(distance <= LOSS_GATE for distance in distances):
        raise BenchError(f"{job['workload']}: the losses of the two sides are {distances} apart")
    own_side, other_side = (_side(*pair) for pair in zip(reports, loaded, strict=True))
    return own_side, other_side, rates


def _side(reports: Sequence[Mapping[str, Any]], loaded: int) -> Side:
    timed = reports[WARM:]
    return Side(
        tuple(report["seconds"] for report in timed),
        tuple(report["loss"] for report in timed),
        tuple(report.get("executed", 0) for report in timed),
        loaded,
        max(report["peak_bytes"] for report in reports),
    )


def _sgemm_rates(count: int, threads: int) -> list[float]:
    with Worker("sgemm", {}, threads=threads) as worker:
        worker.answer()
        return [float(worker.go()["rate"]) for _ in range(count)]
