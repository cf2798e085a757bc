"""From outcomes to a verdict: estimates with intervals, statements they are held against, one sentence."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.claims.points import Outcome
from luthier.stats import compare, mean_interval

Finding = Literal["shown", "ruled out", "open"]
Verdict = Literal["supported", "not supported", "not decided"]
Unit = Literal["points", "nats", "%"]
Values = Mapping[tuple[int, str], float]  # by seed and case

MEANINGS: Mapping[Verdict, str] = {
    "supported": "Supported",
    "not supported": "Not supported",
    "not decided": "Not decided at this size",
}


@dataclass(frozen=True)
class Estimate:
    """A number with its two-sided interval; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    level: float = 0.95

    def negated(self) -> Estimate:
        """The same with the other sign."""
        low, high = (None if bound is None else -bound for bound in (self.high, self.low))
        return replace(self, value=None if self.value is None else -self.value, low=low, high=high)


NOTHING = Estimate(None, None, None, 0)


@dataclass(frozen=True)
class Part:
    """A statement that an estimate shows or rules out.

    Attributes:
        what: the statement, as part of a sentence.
        shown_above: it is shown when the whole interval lies above this.
        out_below: it is ruled out when the whole interval lies below this, the smallest value that would
            matter. An interval above the one and below the other is an effect too small to matter.
    """

    what: str
    estimate: Estimate
    unit: Unit
    shown_above: float
    out_below: float

    @property
    def finding(self) -> Finding:
        """What the interval says."""
        low, high = self.estimate.low, self.estimate.high
        if low is None or high is None:
            return "open"
        if high < self.out_below:
            return "ruled out"
        return "shown" if low > self.shown_above else "open"

    def told(self) -> str:
        """The statement with its number."""
        return f"{self.what} ({show(self.estimate, self.unit)})"


@dataclass(frozen=True)
class OneOf:
    """Holds when one of several parts does; their intervals are wider, for their number.

    Attributes:
        opposed: whether a part that points the other way (its interval below 0) leaves the whole open.
    """

    what: str
    parts: tuple[Part, ...]
    opposed: bool = False

    @property
    def finding(self) -> Finding:
        """Shown by one part; ruled out when every part is."""
        found = [part.finding for part in self.parts]
        highs = [part.estimate.high for part in self.parts]
        against = self.opposed and any(high is not None and high < 0 for high in highs)
        if all(finding == "ruled out" for finding in found):
            return "ruled out"
        return "shown" if "shown" in found and not against else "open"

    def told(self) -> str:
        """The statement with the parts that show it, or with all."""
        shown = [part for part in self.parts if part.finding == self.finding == "shown"]
        return f"{self.what}: {', '.join(part.told() for part in shown or self.parts)}"


Statement = Part | OneOf


def decide(statements: Sequence[Statement]) -> tuple[Verdict, str]:
    """The verdict on a claim that holds when all its statements do, and the sentence that tells it."""
    told = {
        finding: "; ".join(s.told() for s in statements if s.finding == finding)
        for finding in ("shown", "ruled out", "open")
    }
    verdict: Verdict = (
        "not supported"
        if told["ruled out"]
        else "not decided"
        if told["open"] or not statements
        else "supported"
    )
    if not statements:
        return verdict, f"{MEANINGS[verdict]}: nothing was measured."
    parts = {
        "supported": [("shown: ", "shown")],
        "not decided": [("may be chance: ", "open"), ("shown: ", "shown")],
        "not supported": [
            ("our numbers disagree with: ", "ruled out"),
            ("shown all the same: ", "shown"),
            ("may be chance: ", "open"),
        ],
    }[verdict]
    said = ". ".join(_capital(start + told[finding]) for start, finding in parts if told[finding])
    return verdict, f"{MEANINGS[verdict]}. {said}."


def show(estimate: Estimate, unit: Unit, *, sign: bool = True) -> str:
    """`+3.1 points [-0.2, +6.0]`; signs where it is a difference."""
    times, digits = (1, 2) if unit == "nats" else (100, 1)
    plus = "+" if sign and unit != "%" else ""
    if estimate.value is None:
        return "not measured"
    low, high = (
        "?" if bound is None else f"{times * bound:{plus}.{digits}f}"
        for bound in (estimate.low, estimate.high)
    )
    name = {"points": " points", "nats": " nats per token", "%": "%"}[unit]
    return f"{times * estimate.value:{plus}.{digits}f}{name} [{low}, {high}]"


# --- estimates ------------------------------------------------------------------------------------


def values(
    outcomes: Sequence[Outcome], candidate: str, column: str = "score", kind: str | None = None
) -> Values:
    """One column of a candidate over all seeds, unscored answers left out.

    Args:
        kind: only test examples of this kind.
    """
    found = {}
    for outcome in outcomes:
        column_ = outcome.candidates[candidate][column]
        for case, its_kind, value in zip(outcome.cases, outcome.kinds, column_, strict=True):
            if value is not None and kind in (None, its_kind):
                found[outcome.seed, case] = float(value)
    return found


def probed(outcomes: Sequence[Outcome], probe: str, which: str) -> Values:
    """A probe's values of base or tuned over all seeds; the item's place is its case."""
    return {
        (outcome.seed, str(place)): float(value)
        for outcome in outcomes
        for place, value in enumerate(outcome.probes[probe][which])
    }


def mean(found: Values, *, level: float = 0.95) -> Estimate:
    """Mean with interval. With several seeds a case is a cluster: more seeds are no more examples."""
    cases = [case for _, case in found]
    result = mean_interval(list(found.values()), clusters=_clusters(cases), confidence=level)
    return Estimate(result.estimate, result.low, result.high, len(set(cases)), level)


def difference(a: Values, b: Values, *, level: float = 0.95) -> Estimate:
    """Mean of a minus mean of b, paired by seed and case; what only one of them has is left out."""
    keys = [key for key in a if key in b]
    cases = [case for _, case in keys]
    result = compare(
        [a[key] for key in keys], [b[key] for key in keys], clusters=_clusters(cases), confidence=level
    )
    return Estimate(result.difference, result.low, result.high, len(set(cases)), level)


def combine(terms: Sequence[tuple[float, Estimate]]) -> Estimate:
    """Sum of weight times estimate, of independent estimates.

    The interval keeps each one's own, lopsided or not: the method of variance estimates recovery (Zou and
    Donner 2008, Statistics in Medicine 27; for sums Zou, Huang and Zhang 2009).
    """
    total = down = up = 0.0
    for weight, estimate in terms:
        if estimate.value is None or estimate.low is None or estimate.high is None:
            return replace(NOTHING, n=sum(e.n for _, e in terms))
        ends = (weight * estimate.low, weight * estimate.high)
        total += weight * estimate.value
        down += (weight * estimate.value - min(ends)) ** 2
        up += (max(ends) - weight * estimate.value) ** 2
    levels = {estimate.level for _, estimate in terms}
    assert len(levels) == 1
    n = sum(estimate.n for _, estimate in terms)
    return Estimate(total, total - math.sqrt(down), total + math.sqrt(up), n, levels.pop())


def _clusters(cases: Sequence[str]) -> Sequence[Hashable] | None:
    return cases if len(set(cases)) < len(cases) else None


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
