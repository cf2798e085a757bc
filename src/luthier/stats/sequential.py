"""Several looks at a growing test set, without spending more than alpha in all.

Each look may stop with "there is a difference"; testing five times at 0.05 would be wrong 14% of the
time. The alpha-spending approach of Lan and DeMets (1983) fixes how much may be spent by the time a
share t of the planned information is there, so the looks need not be planned.

Legend: t information so far over information planned, z the standardised statistic, K looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

Spending = Literal["obrien_fleming", "pocock"]
Floats = NDArray[np.float64]

POINTS = 1_001  # of the grid between the boundaries (odd, for Simpson's rule): error under 1e-5 in z
BEYOND = 8.5  # a |z| that no look reaches: p = 2e-17
CLOSEST = 1e-3  # information between two looks; closer ones slip through the grid


@dataclass(frozen=True)
class Look:
    """One look and what it demands.

    Attributes:
        n: examples (or clusters, when examples share sources) so far.
        information: n over the planned number, in (0, 1].
        spent: probability under "no difference" of having stopped by now.
        z: two-sided boundary for |z|.
        p: the same as a p-value: stop when the test's p-value is at most this.
    """

    n: int
    information: float
    spent: float
    z: float
    p: float


def plan_looks(
    counts: Sequence[int], planned: int, *, alpha: float = 0.05, spending: Spending = "obrien_fleming"
) -> list[Look]:
    """What each look at a growing test set demands of the two-sided p-value of `compare`.

    Looks made so far are enough: looks added later do not change the earlier ones. The default spends
    late, so that the last look costs next to nothing (p <= 0.042 instead of 0.05 after five equal looks);
    `pocock` spends evenly and stops sooner when the difference is large.

    Args:
        counts: examples at each look, increasing, none above `planned`. When examples share sources,
            count sources, since information grows with those.
        planned: examples at the last look, fixed before the first one.
        alpha: two-sided, of all looks together.
        spending: the O'Brien-Fleming-type or the Pocock-type function of Lan and DeMets.

    Raises:
        ValueError: the counts do not increase within 1..planned by at least a thousandth of it, or alpha
            is not in (0, 1).
    """
    steps = [late - early for early, late in pairwise(counts)]
    apart = all(step > 0 and step >= CLOSEST * planned for step in steps)
    if not counts or counts[0] < 1 or not apart or counts[-1] > planned or not 0 < alpha < 1:
        raise ValueError(
            f"expected counts in 1..{planned}, each above the one before by {CLOSEST:.1%} of {planned}, "
            f"and alpha in (0, 1); got {list(counts)} and {alpha}"
        )
    times = [count / planned for count in counts]
    allowed = [spend(t, alpha, spending) for t in times]
    bounds = _boundaries(times, allowed)
    return [
        Look(count, t, total, z, 2.0 * float(stats.norm.sf(z)))
        for count, t, total, z in zip(counts, times, allowed, bounds, strict=True)
    ]


def spend(information: float, alpha: float = 0.05, spending: Spending = "obrien_fleming") -> float:
    """Two-sided error that may be spent by a share of the information (Lan and DeMets 1983).

    `obrien_fleming`: 4 - 4 Phi(z(alpha/4) / sqrt(t)), half of it on each side;
    `pocock`: alpha ln(1 + (e - 1) t).
    """
    if information >= 1:
        return alpha
    if spending == "pocock":
        return alpha * math.log1p((math.e - 1) * information)
    return 4.0 * float(stats.norm.sf(stats.norm.isf(alpha / 4) / math.sqrt(information)))


def crossing_probabilities(
    information: Sequence[float], bounds: Sequence[float], *, drift: float = 0.0
) -> list[float]:
    """Probability that |z| first reaches its bound at each look.

    Recursive numerical integration (Armitage, McPherson and Rowe 1969) of the score process, which has
    independent normal increments.

    Args:
        information: of each look, increasing, in (0, 1].
        bounds: two-sided boundary of |z| at each look.
        drift: mean of z at full information; 0 under "no difference". The sum is then the power.
    """
    density: _Density | None = None
    crossed = []
    for t, bound in zip(information, bounds, strict=True):
        crossed.append(_cross(density, t, bound, drift))
        density = _continue(density, t, bound, drift)
    return crossed


@dataclass(frozen=True)
class _Density:
    """Density of the score z sqrt(t) over its grid, of the paths that have not stopped."""

    t: float
    grid: Floats
    weighted: Floats  # density times Simpson's weight, shape (POINTS,)


def _boundaries(times: Sequence[float], allowed: Sequence[float]) -> list[float]:
    density: _Density | None = None
    bounds: list[float] = []
    before = 0.0
    for t, total in zip(times, allowed, strict=True):
        now, here, so_far = total - before, t, density

        def excess(z: float, now: float = now, t: float = here, path: _Density | None = so_far) -> float:
            return _cross(path, t, z, 0.0) - now

        reachable = now > 0 and excess(BEYOND) < 0
        z = float(optimize.brentq(excess, 0.0, BEYOND, xtol=1e-10)) if reachable else BEYOND
        bounds.append(z)
        density = _continue(density, t, z, 0.0)
        before = total
    return bounds


def _cross(density: _Density | None, t: float, bound: float, drift: float) -> float:
    """Probability of getting here and beyond +-bound."""
    edge = bound * math.sqrt(t)
    if density is None:
        spread, mean = math.sqrt(t), drift * t
        return float(stats.norm.sf((edge - mean) / spread) + stats.norm.cdf((-edge - mean) / spread))
    step = t - density.t
    centre = density.grid + drift * step
    tails = _upper((edge - centre) / math.sqrt(step)) + _upper((edge + centre) / math.sqrt(step))
    return float(density.weighted @ tails)


def _continue(density: _Density | None, t: float, bound: float, drift: float) -> _Density:
    edge = bound * math.sqrt(t)
    grid = np.linspace(-edge, edge, POINTS)
    if density is None:
        values = stats.norm.pdf(grid, drift * t, math.sqrt(t))
    else:
        step = t - density.t
        gaps = (grid[:, None] - density.grid[None, :] - drift * step) / math.sqrt(step)
        values = np.exp(-0.5 * gaps**2) @ density.weighted / math.sqrt(2 * math.pi * step)
    weights = np.full(POINTS, 2.0)
    weights[1::2], weights[0], weights[-1] = 4.0, 1.0, 1.0
    return _Density(t, grid, values * weights * (grid[1] - grid[0]) / 3)


def _upper(z: Floats) -> Floats:
    tail: Floats = stats.norm.sf(z)
    return tail
