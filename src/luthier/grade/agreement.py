"""How far a judge agrees with people, and what its mean score would be had people judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from luthier.stats import wilson
from luthier.stats.units import group_units

MIN_LABELS = 10  # of each kind: with fewer, even a judge that never errs may err in a quarter of the cases
RESAMPLES = 2_000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """A share with Wilson's interval; None where there is nothing to count."""

    right: int
    n: int
    share: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Cut:
    """The judge's scores as yes or no: at least `threshold`, or below.

    Attributes:
        sensitivity: of what people put at or above the threshold, the share that the judge did too.
        specificity: of what people put below it, the share that the judge did too.
    """

    threshold: float
    sensitivity: Rate
    specificity: Rate


@dataclass(frozen=True)
class Agreement:
    """A judge against people on the same answers.

    Attributes:
        n: answers that both judged; `unjudged`: those that the judge could not.
        agreement: share of equal scores.
        kappa: Cohen's (1960), None where both gave one and the same score throughout; its interval is
            the percentile bootstrap's.
        cuts: one for pass or fail; for win, tie or loss two: wins, and does not lose.
    """

    n: int
    unjudged: int
    agreement: float | None
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None
    cuts: tuple[Cut, ...]

    def as_json(self) -> dict[str, Any]:
        """As in `scores.json`."""
        return asdict(self)

    @property
    def doubts(self) -> str | None:
        """Why the judge must decide nothing; None for one that is known well enough to be corrected."""
        for cut in self.cuts:
            fewest = min(cut.sensitivity.n, cut.specificity.n)
            if fewest < MIN_LABELS:
                return (
                    f"{self.n} labels, of which only {fewest} "
                    f"{'at or above' if cut.sensitivity.n == fewest else 'below'} a score of "
                    f"{cut.threshold:g}: at least {MIN_LABELS} of each kind are needed"
                )
            if (cut.sensitivity.low or 0.0) + (cut.specificity.low or 0.0) <= 1.0:
                return "against the labels it may be no better than a coin"
        return None


@dataclass(frozen=True)
class Corrected:
    """A mean score as people would have given it, with an interval that holds the labels' uncertainty too."""

    score: float
    low: float
    high: float


def measure_agreement(
    human: Sequence[float], judged: Sequence[float | None], thresholds: Sequence[float], *, seed: int = 0
) -> Agreement:
    """Compare a judge's scores with people's, answer by answer."""
    both = [(h, j) for h, j in zip(human, judged, strict=True) if j is not None]
    people, judge = (np.array([pair[side] for pair in both], dtype=np.float64) for side in (0, 1))
    low, high = _kappa_interval(people, judge, seed)
    return Agreement(
        n=len(both),
        unjudged=len(human) - len(both),
        agreement=float((people == judge).mean()) if both else None,
        kappa=cohen_kappa(people, judge),
        kappa_low=low,
        kappa_high=high,
        cuts=tuple(_cut(people, judge, threshold) for threshold in thresholds),
    )


def cohen_kappa(a: Floats, b: Floats) -> float | None:
    """Cohen's kappa of two raters, shape (n,) each; None where chance alone would make them agree."""
    if len(a) == 0:
        return None
    kappa = float(_kappas(_crossed(a, b)[None])[0])
    return None if math.isnan(kappa) else kappa


def _crossed(a: Floats, b: Floats) -> Floats:
    """How often each pair of scores was given, shape (K, K)."""
    kinds = np.union1d(a, b)
    rows, columns = np.searchsorted(kinds, a), np.searchsorted(kinds, b)
    counts = np.bincount(rows * len(kinds) + columns, minlength=len(kinds) ** 2)
    return counts.reshape(len(kinds), len(kinds)).astype(np.float64)


def _kappas(tables: Floats) -> Floats:
    """Kappa of each table of counts, shape (R, K, K) to (R,); NaN where chance alone explains all."""
    n = tables.sum(axis=(1, 2))
    observed = np.trace(tables, axis1=1, axis2=2) / n
    chance = (tables.sum(axis=2) * tables.sum(axis=1)).sum(axis=1) / n**2
    room = np.where(chance >= 1.0 - 1e-12, np.nan, 1.0 - chance)
    kappas: Floats = (observed - chance) / room
    return kappas


def correct_mean(
    scores: Sequence[float],
    agreement: Agreement,
    *,
    clusters: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> Corrected | None:
    """The mean of a judge's scores, corrected for its errors (Rogan and Gladen 1978).

    The judge is taken to err as often on these answers as on the labelled ones, among answers that are
    as good; how many are good may differ. For pass or fail, (share + specificity - 1) / (sensitivity +
    specificity - 1), with Lang and Reiczigel's (2014) interval, in which the three shares are all
    uncertain; it is never narrower than Wilson's for a judge that never errs. A win rate is the mean of
    the shares "wins" and "does not lose"; each is corrected, and the mean of their intervals is wide
    enough whatever their correlation. Clusters count as the number of independent answers that would
    be as uncertain.

    Args:
        scores: the judge's, of one candidate, without unscored answers.
        clusters: the source of each, None when every one has its own.

    Returns:
        None without scores, or where the judge has `doubts`.
    """
    if not scores or agreement.doubts:
        return None
    values = np.array(scores, dtype=np.float64)
    found = []
    for cut in agreement.cuts:
        above = (values >= cut.threshold).astype(np.float64)
        n = _effective(above, clusters)
        found.append(_lang_reiczigel(float(above.mean()), n, cut, confidence))
    score, low, high = (sum(part) / len(found) for part in zip(*found, strict=True))
    return Corrected(score, low, high)


def _lang_reiczigel(share: float, n: float, cut: Cut, confidence: float) -> tuple[float, float, float]:
    """Rogan and Gladen's estimate, with the interval of Lang and Reiczigel (2014, equations 3 to 5)."""
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    se, sp = cut.sensitivity, cut.specificity
    youden = se.right / se.n + sp.right / sp.n - 1
    estimate = min(1.0, max(0.0, (share + sp.right / sp.n - 1) / youden))
    n_, se_n, sp_n = n + z * z, se.n + 2, sp.n + 2
    p_, se_, sp_ = (n * share + z * z / 2) / n_, (se.right + 1) / se_n, (sp.right + 1) / sp_n
    middle = (p_ + sp_ - 1) / (se_ + sp_ - 1)
    se_part, sp_part = se_ * (1 - se_) / se_n, sp_ * (1 - sp_) / sp_n
    shift = 2 * z * z * (middle * se_part - (1 - middle) * sp_part)
    variance = p_ * (1 - p_) / n_ + middle**2 * se_part + (1 - middle) ** 2 * sp_part
    reach = z * math.sqrt(variance) / (se_ + sp_ - 1)
    low, high = (min(1.0, max(0.0, middle + shift + side * reach)) for side in (-1, 1))
    # Where the judge passed fewer (or more) than its error rates allow, the formula's interval lies off
    # the scale; a judge that never errs would still leave this much in doubt.
    least = wilson(round(estimate * int(n)), max(1, int(n)))
    return estimate, min(low, least[0]), max(high, least[1])


def _effective(above: Floats, clusters: Sequence[str] | None) -> float:
    """How many independent answers would leave the share as uncertain as these, which share sources, do."""
    sums, sizes = group_units(above, clusters)
    n, units = len(above), len(sums)
    if units == n or units < 2:
        return float(units)
    share = above.mean()
    variance = units / (units - 1) * float(((sums - share * sizes) ** 2).sum()) / n**2
    plain = float(share * (1 - share))
    return float(units) if variance == 0 or plain == 0 else min(float(n), plain / variance)


def _cut(people: Floats, judge: Floats, threshold: float) -> Cut:
    good, said = people >= threshold, judge >= threshold
    return Cut(
        threshold,
        _rate(int((good & said).sum()), int(good.sum())),
        _rate(int((~good & ~said).sum()), int((~good).sum())),
    )


def _rate(right: int, n: int) -> Rate:
    if n == 0:
        return Rate(0, 0, None, None, None)
    low, high = wilson(right, n)
    return Rate(right, n, right / n, low, high)


def _kappa_interval(people: Floats, judge: Floats, seed: int) -> tuple[float | None, float | None]:
    n = len(people)
    if n < 2 or cohen_kappa(people, judge) is None:
        return None, None
    table = _crossed(people, judge)
    drawn = np.random.default_rng(seed).multinomial(n, table.ravel() / n, size=RESAMPLES)
    found = _kappas(drawn.reshape(RESAMPLES, *table.shape).astype(np.float64))
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)
