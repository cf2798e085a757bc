"""How many paired examples a test set needs, and what a given number of them can show.

Right/wrong: the share of examples on which the two candidates disagree (`discordant`) decides
(Connor 1987). Scores: the standard deviation `sd` of the paired differences does, with Guenther's
(1981) correction for estimating it. All of it is planning arithmetic; the tests themselves are in
`paired.py`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from luthier.stats.units import TOLERANCE, as_scores, group_units


def examples_needed(
    difference: float,
    *,
    discordant: float = 0.2,
    sd: float | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
) -> int | None:
    """Paired examples needed to find a true difference with the given power, two-sided at alpha.

    Args:
        difference: in score, either sign; 0 gives None, since no number would do.
        discordant: share of examples where just one candidate is right; a larger `difference` raises
            it, because the candidates must disagree at least that often. Ignored when `sd` is given.
        sd: standard deviation of paired score differences, for scores that are not right/wrong.
        power, alpha: in (0, 1).
    """
    gap = abs(difference)
    if gap == 0:
        return None
    z_alpha, z_power = _quantile(1 - alpha / 2), _quantile(power)
    if sd is not None:
        return max(2, _ceil(((z_alpha + z_power) * sd / gap) ** 2 + z_alpha**2 / 2))
    share = max(_share(discordant), gap)
    root_n = (z_alpha * math.sqrt(share) + z_power * math.sqrt(share - gap * gap)) / gap
    return max(2, _ceil(root_n**2))


def detectable_difference(
    n: int,
    *,
    discordant: float = 0.2,
    sd: float | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
) -> float | None:
    """Smallest true paired difference that n examples find with the given power, in score.

    The inverse of `examples_needed`, with the same arguments. None when n is too small to show any
    difference that is possible: right/wrong candidates cannot differ by more than they disagree.
    """
    z_alpha, z_power = _quantile(1 - alpha / 2), _quantile(power)
    if sd is not None:
        free = n - z_alpha**2 / 2
        return (z_alpha + z_power) * sd / math.sqrt(free) if n >= 2 and free > 0 else None
    share = _share(discordant)

    def shortfall(gap: float) -> float:
        return z_alpha * math.sqrt(share) + z_power * math.sqrt(share - gap * gap) - gap * math.sqrt(n)

    if n < 2 or shortfall(share) > 0:
        return None
    return float(optimize.brentq(shortfall, 0.0, share, xtol=1e-12))


def predicted_power(
    n: int,
    difference: float,
    *,
    discordant: float = 0.2,
    sd: float | None = None,
    alpha: float = 0.05,
) -> float:
    """Probability that n examples find a true paired difference, two-sided at alpha.

    The same normal approximation as `examples_needed`, with the same arguments; the small chance of
    finding the wrong sign is left out.

    Raises:
        ValueError: n is under 2, or `sd` or `discordant` is out of range.
    """
    if n < 2 or (sd is not None and sd <= 0):
        raise ValueError(f"expected two examples or more and a positive sd, got {n} and {sd}")
    gap, z_alpha = abs(difference), _quantile(1 - alpha / 2)
    if sd is not None:
        return float(stats.norm.cdf(gap * math.sqrt(max(0.0, n - z_alpha**2 / 2)) / sd - z_alpha))
    share = max(_share(discordant), gap)
    reach = gap * math.sqrt(n) - z_alpha * math.sqrt(share)
    if share <= gap * gap:  # every example differs the same way
        return float(reach > 0)
    return float(stats.norm.cdf(reach / math.sqrt(share - gap * gap)))


def design_effect(differences: ArrayLike, clusters: Sequence[Hashable] | None) -> float | None:
    """How many times more examples are needed because examples share sources (Kish's design effect).

    The variance of the mean with whole clusters as units, over that of single examples. Multiply
    `examples_needed` by it, or divide the n of `detectable_difference`. None with fewer than two
    clusters, or when all differences are equal.
    """
    values = as_scores(differences)
    sums, sizes = group_units(values, clusters)
    n, units = len(values), len(sums)
    if units < 2 or np.ptp(values) <= TOLERANCE:
        return None
    residuals = sums - values.mean() * sizes
    clustered = units / (units - 1) * float((residuals**2).sum()) / n**2
    return clustered / (float(values.var(ddof=1)) / n)


def examples_to_rule_out(
    loss: float,
    *,
    discordant: float = 0.05,
    sd: float | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
) -> int:
    """Examples needed to show "lost less than `loss`" when nothing was lost (one-sided, non-inferiority).

    Args:
        loss: the margin, positive, in score.
        discordant: share of examples that flip either way; ignored when `sd` is given.
        sd: standard deviation of paired score differences.
    """
    if loss <= 0:
        raise ValueError(f"expected a positive loss to rule out, got {loss}")
    variance = sd**2 if sd is not None else _share(discordant)
    return max(2, _ceil((_quantile(1 - alpha) + _quantile(power)) ** 2 * variance / loss**2))


def detectable_loss(
    n: int,
    *,
    discordant: float = 0.05,
    sd: float | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
) -> float | None:
    """Smallest margin that n examples can rule out: the inverse of `examples_to_rule_out`; None under 2."""
    if n < 2:
        return None
    variance = sd**2 if sd is not None else _share(discordant)
    return (_quantile(1 - alpha) + _quantile(power)) * math.sqrt(variance / n)


def _quantile(probability: float) -> float:
    return float(stats.norm.ppf(probability))


def _ceil(examples: float) -> int:
    return math.ceil(examples - 1e-9)


def _share(discordant: float) -> float:
    if not 0 < discordant <= 1:
        raise ValueError(f"expected a share of discordant examples in (0, 1], got {discordant}")
    return discordant
