"""How base and tuned differ on the same items, and the report of it that every probe gives."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from luthier.probes.finding import judge_loss
from luthier.recipe.probe_options import is_share
from luthier.stats import compare, stand

Worse = Literal["lower", "higher"]
NATS = "nats per token"
SHOWN = 3


@dataclass(frozen=True)
class Change:
    """Tuned minus base.

    Attributes:
        n: items behind it.
        base, tuned: their means.
        difference: tuned minus base; None without items.
        low, high: its 95% interval; None when undefined.
        least, most: one-sided 95% bounds, which findings are decided with.
        p: of no difference; None where no test is made.
    """

    n: int
    base: float | None
    tuned: float | None
    difference: float | None
    low: float | None
    high: float | None
    least: float | None
    most: float | None
    p: float | None = None


def paired_change(
    base: ArrayLike, tuned: ArrayLike, *, seed: int, clusters: Sequence[Hashable] | None = None
) -> Change:
    """The change of a value that both models have on every item, shape (n,)."""
    before, after = np.asarray(base, dtype=np.float64), np.asarray(tuned, dtype=np.float64)
    shown = compare(after, before, clusters=clusters, seed=seed)
    bounds = stand(after, before, margin=1.0, clusters=clusters, seed=seed)
    return Change(
        n=len(before),
        base=float(before.mean()) if len(before) else None,
        tuned=float(after.mean()) if len(before) else None,
        difference=shown.difference,
        low=shown.low,
        high=shown.high,
        least=bounds.low,
        most=bounds.high,
        p=shown.p,
    )


def contrast_change(
    base: tuple[Sequence[float], Sequence[float]],
    tuned: tuple[Sequence[float], Sequence[float]],
    *,
    seed: int,
) -> Change:
    """The change of the gap between two groups of items: the first group's mean minus the second's.

    Each group's own change is paired; the groups are independent. The interval is put together from the
    groups' intervals by squaring and adding (MOVER: Zou and Donner 2008, Statistics in Medicine 27, eq. 3).

    Args:
        base, tuned: values of the first group and of the second.
    """
    first = paired_change(base[0], tuned[0], seed=seed)
    second = paired_change(base[1], tuned[1], seed=seed)
    if first.difference is None or second.difference is None:
        return Change(first.n + second.n, None, None, None, None, None, None, None)
    assert first.base is not None and second.base is not None
    assert first.tuned is not None and second.tuned is not None
    gap = first.difference - second.difference

    def bound(one: float | None, other: float | None, sign: int) -> float | None:
        if one is None or other is None:
            return None
        return gap + sign * math.hypot(one - first_difference, other - second_difference)

    first_difference, second_difference = first.difference, second.difference
    return Change(
        first.n + second.n,
        first.base - second.base,
        first.tuned - second.tuned,
        gap,
        bound(first.low, second.high, -1),
        bound(first.high, second.low, 1),
        bound(first.least, second.most, -1),
        bound(first.most, second.least, 1),
    )


def report_change(
    probe: str,
    change: Change,
    *,
    unit: str,
    worse: Worse,
    margin: float | None,
    examples: Sequence[Mapping[str, Any]],
    caption: str,
    parts: Sequence[Mapping[str, Any]] = (),
    flips: tuple[int, int] | None = None,
    said: str = "",
) -> dict[str, Any]:
    """The content of `probes/PROBE.json`.

    Args:
        unit: of base and tuned; what is not in nats or bits is a share from 0 to 1.
        worse: which way is for the worse.
        margin: None for a trend.
        examples: each with `text`, `base` and `tuned`; the first three are kept.
        caption: what the examples are.
        parts: rows from `part`.
        flips: lost, gained.
        said: what a reader must know besides, put before the reason.
    """
    loss, least, most = change.difference, change.least, change.most
    if worse == "lower" and loss is not None:
        loss, least, most = -loss, _minus(change.most), _minus(change.least)
    # Without a margin, what is real counts as worse, and what rules out any loss as within.
    finding = judge_loss(loss, least, most, margin or 0.0)
    told = _reason(finding, most, margin, unit)
    return {
        "probe": probe,
        "unit": unit,
        "worse": worse,
        "n": change.n,
        "base": change.base,
        "tuned": change.tuned,
        "difference": change.difference,
        "low": change.low,
        "high": change.high,
        "one_sided_low": change.least,
        "one_sided_high": change.most,
        "p": change.p,
        "flips": None if flips is None else {"lost": flips[0], "gained": flips[1]},
        "margin": margin,
        "finding": finding,
        "reason": f"{said}; {told}" if said else told,
        "parts": [{**row, "unit": row["unit"] or unit} for row in parts],
        "caption": caption,
        "examples": [dict(example) for example in examples[:SHOWN]],
    }


def part(name: str, change: Change, *, source: str, unit: str | None = None) -> dict[str, Any]:
    """A row of a report's table of parts: a trend of its own, in the probe's unit unless another is named."""
    return {
        "part": name,
        "source": source,
        "unit": unit,
        "n": change.n,
        "base": change.base,
        "tuned": change.tuned,
        "difference": change.difference,
        "low": change.low,
        "high": change.high,
    }


def failed_report(probe: str, reason: str, margin: float | None) -> dict[str, Any]:
    """What is written of a probe that did not run to its end: nothing measured, and why."""
    nothing: dict[str, Any] = dict.fromkeys(("base", "tuned", "difference", "low", "high", "flips"))
    more: dict[str, Any] = {"unit": "", "margin": margin, "finding": "failed", "reason": reason}
    return {"probe": probe, "n": 0, **nothing, **more, "examples": []}


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _reason(finding: str, most: float | None, margin: float | None, unit: str) -> str:
    if most is None:
        return "the difference is undefined"
    shown = f"{max(0.0, most):.1%}" if is_share(unit) else f"{max(0.0, most):.2f} {unit}"
    bound = f"worse by at most {shown} (one-sided 95%)" if most > 0 else "nothing got worse (one-sided 95%)"
    if margin is None:
        real = {"worse": "a real change for the worse", "not_powered": "no change for the worse is shown"}
        return f"a trend without a margin, which the verdict leaves aside: {real.get(finding, bound)}"
    limit = f"{margin:.1%}" if is_share(unit) else f"{margin:.2f}"
    return {
        "within_margin": f"{bound}, inside the margin of {limit}",
        "worse": f"the change for the worse is real and not inside the margin of {limit}",
        "not_powered": f"{bound}: too few items to rule out {limit}",
    }.get(finding, "the probe failed")
