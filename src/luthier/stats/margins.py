"""Is one candidate no worse than another, within a margin: shown, refuted, or not to be told.

"Not significantly worse" is no evidence of "as good": a small sample makes everything tie. Here a tie
has to be shown by a bound on the loss that lies inside the margin.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from numpy.typing import ArrayLike

from luthier.stats.paired import compare
from luthier.stats.units import as_scores, group_units, is_scores

Finding = Literal["within_margin", "worse", "not_powered"]


@dataclass(frozen=True)
class Standing:
    """How a stands against b.

    Attributes:
        finding: `within_margin`: a loss of `margin` or more is ruled out; `worse`: the loss is real and
            its estimate is at least the margin; `not_powered`: neither; None when undefined.
        difference: mean of a minus mean of b.
        low, high: one-sided bounds of it, each at `confidence`.
        margin: in score.
        confidence: of each bound, after the correction for several tests.
        n: pairs behind it.
        reason: why the finding is None.
    """

    finding: Finding | None
    difference: float | None
    low: float | None
    high: float | None
    margin: float
    confidence: float
    n: int
    reason: str | None = None


def stand(
    a: ArrayLike,
    b: ArrayLike,
    *,
    margin: float,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    tests: int = 1,
) -> Standing:
    """Whether a is no worse than b, by a margin (non-inferiority; a Westlake-type bound on the loss).

    The bounds are those of `compare`, moved out to what a sample can hide: when no loss larger than `x`
    was seen among G units, a share q = 1 - (1 - confidence)^(1/G) of larger ones is still likely enough
    (0 in G, Clopper-Pearson), and the bootstrap cannot know. So 30 examples never rule out a loss of
    2 points, however alike the scores seen.

    Args:
        a, b: scores of the two candidates in the same order, shape (n,). The widening needs a scale
            and is made for scores in [0, 1] only.
        margin: the largest loss that is still acceptable, positive, in score.
        clusters: the source each example came from.
        seed: of the resampling.
        confidence: one-sided, of the whole family.
        tests: how many such questions are asked at once; each is held to 1 - (1 - confidence) / tests.

    Raises:
        ValueError: the margin is not positive, or `tests` is.
    """
    if margin <= 0 or tests < 1:
        raise ValueError(f"expected a positive margin and one test or more, got {margin} and {tests}")
    level = 1.0 - (1.0 - confidence) / tests
    result = compare(a, b, clusters=clusters, seed=seed, confidence=2 * level - 1)
    low, high = result.low, result.high
    if low is None or high is None or result.difference is None:
        return Standing(None, result.difference, None, None, margin, level, result.n, result.reason)
    if result.method != "tango":
        unseen_low, unseen_high = _unseen(a, b, clusters, level)
        low, high = min(low, unseen_low), max(high, unseen_high)
    lost = high < 0 and result.difference <= -margin
    finding: Finding = "within_margin" if low > -margin else "worse" if lost else "not_powered"
    return Standing(finding, result.difference, low, high, margin, level, result.n)


def _unseen(
    a: ArrayLike, b: ArrayLike, clusters: Sequence[Hashable] | None, level: float
) -> tuple[float, float]:
    """The difference moved by the likely share of units beyond the range that was seen."""
    first, second = as_scores(a), as_scores(b)
    differences = first - second
    mean = float(differences.mean())
    if not (is_scores(first) and is_scores(second)):
        return mean, mean
    sums, sizes = group_units(differences, clusters)
    share = 1.0 - (1.0 - level) ** (1.0 / len(sums))
    means = sums / sizes
    return mean - share * (float(means.min()) + 1.0), mean + share * (1.0 - float(means.max()))
