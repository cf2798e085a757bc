"""Which trials there are, and which of them go on.

Values are spread evenly over the space beforehand, and trials are stopped early by successive halving
(Jamieson and Talwalkar 2016, arXiv 1502.07943): all of them train for a part of their steps, the better half
goes on, and so forth. Learning rates alone have one exception: a high rate gains most when it falls at the
end, so that from the last comparison the next higher one than the best goes on with it. A search that learns
from finished trials, such as TPE, draws its first ten at random (Optuna's default), which is more than most
sweeps of a fine-tuning have.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.sweep.space import Axis

TRIALS = 8  # when not asked for
GRID = 16  # lists whose combinations are no more than these are tried in full
DRAWS = 200  # designs of which the best spread one is taken
FINALISTS = 2  # trained to the end: the best two are too near to each other to part early
FIRST = 3 / 16  # of the steps: three times the warm-up, after which high rates need a while to recover
LAST = 1 / 2
SINGLE = 1 / 4


@dataclass(frozen=True)
class Rung:
    """A point at which trials are compared.

    Attributes:
        share: of a trial's own planned steps.
        keep: how many go on.
    """

    share: float
    keep: int

    def step(self, planned: int) -> int:
        """The optimizer step of a trial after which it is there."""
        return max(1, math.ceil(self.share * planned))


def draw_trials(axes: Sequence[Axis], count: int | None, *, seed: int) -> list[dict[str, Any]]:
    """Values by key, one mapping per trial; no two are equal.

    Lists with few combinations give all of them. One range gives even steps, both ends included. Otherwise
    a Latin hypercube: along every axis the trials are spread evenly, and among many such designs the one
    is taken in which the nearest two trials are farthest apart (Johnson et al. 1990).

    Args:
        count: of trials; all combinations of lists, or 8, where None. Fewer where there are no more.
    """
    grid = math.prod(len(axis.values) for axis in axes)  # 0 with a range
    if grid and (grid <= count if count is not None else grid <= GRID):
        rows = itertools.product(*(axis.values for axis in axes))
        return [dict(zip((axis.key for axis in axes), row, strict=True)) for row in rows]
    wanted = count or TRIALS
    if len(axes) == 1:
        return _distinct(axes, [(i,) for i in range(wanted)], wanted)
    dice = random.Random(f"{seed}/sweep")
    best: list[dict[str, Any]] = []
    widest = -1
    for _ in range(DRAWS):
        places = [dice.sample(range(wanted), wanted) for _ in axes]
        design = list(zip(*places, strict=True))
        found = _distinct(axes, design, wanted)
        apart = min(map(_distance, *zip(*itertools.combinations(design, 2), strict=True)), default=0)
        if (len(found), apart) > (len(best), widest):
            best, widest = found, apart
    return best


def _distance(a: Sequence[int], b: Sequence[int]) -> int:
    """Squared."""
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def _distinct(axes: Sequence[Axis], design: Sequence[Sequence[int]], count: int) -> list[dict[str, Any]]:
    """The trials at places 0 to `count - 1` along each axis, without repetitions."""
    found: list[dict[str, Any]] = []
    for places in design:
        trial = {
            axis.key: axis.at(place / count if axis.values else place / max(1, count - 1))
            for axis, place in zip(axes, places, strict=True)
        }
        if trial not in found:
            found.append(trial)
    return found


def plan_rungs(count: int) -> list[Rung]:
    """Where `count` trials are compared: each time the better half goes on, until two are left.

    The first comparison is after three sixteenths of the steps, the last one after twice as many for up to
    eight trials, half of them for more; a single one is after a quarter.
    """
    keeps = []
    left = count
    while left > FINALISTS:
        left = max(FINALISTS, math.ceil(left / 2))
        keeps.append(left)
    if not keeps:
        return []
    if len(keeps) == 1:
        return [Rung(SINGLE, keeps[0])]
    last = LAST if len(keeps) > 2 else 2 * FIRST
    growth = (last / FIRST) ** (1 / (len(keeps) - 1))
    return [Rung(round(FIRST * growth**place, 4), keep) for place, keep in enumerate(keeps)]


def rank(values: Mapping[int, float | None], *, higher_is_better: bool) -> list[int]:
    """Numbers of trials, the best first; those without a value last, ties in the order of numbers."""
    sign = -1.0 if higher_is_better else 1.0
    return sorted(values, key=lambda n: (values[n] is None, sign * (values[n] or 0.0), n))


def finalists(
    order: Sequence[int], keep: int, values: Mapping[int, float | None], rates: Mapping[int, float]
) -> list[int]:
    """Who goes on from the last comparison of learning rates: the best, and the next higher rate with it.

    Before the rate falls, a high one jumps about its minimum and looks worse than it ends: of eight rates on
    the demo's tickets the best was fifth after 3/8 of the steps, behind half its rate. Only what was among
    the better half of an earlier comparison can profit.

    Args:
        order: trials, the best first.
        keep: how many go on.
        values: None for a trial that failed.
        rates: of the trials.
    """
    kept = list(order[:keep])
    higher = [n for n in order if rates[n] > rates[order[0]] and values[n] is not None]
    heir = min(higher, key=rates.__getitem__, default=kept[-1])
    return kept if heir in kept else [*kept[:-1], heir]


def planned_share(count: int, rungs: Sequence[Rung]) -> float:
    """Of the steps of `count` whole trainings, what is done when each comparison stops the others."""
    done, before, alive = 0.0, 0.0, count
    for rung in rungs:
        done += alive * (rung.share - before)
        before, alive = rung.share, rung.keep
    return (done + alive * (1.0 - before)) / count
