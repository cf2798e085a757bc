"""A confidence threshold with a guarantee: "at most 5% of the answers given are wrong, at 90% confidence".

Legend: answers sorted by falling confidence; loss = 1 - score, in [0, 1]; k answers kept, those above
the confidence of number k + 1; delta = 1 - confidence level.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from luthier.stats.intervals import Interval, mean_interval
from luthier.stats.units import Floats, as_scores, is_binary, is_scores, unit_rows

STARTS = (0.2, 0.5)  # shares of the answers kept at which a chain of tests starts


@dataclass(frozen=True)
class Threshold:
    """Answer when the confidence is at least `value`, hand the rest to a person.

    Attributes:
        value: the lowest confidence that can be guaranteed; None when none can.
        risk: what was asked: the mean loss of the answers given is at most this ...
        level: ... with this probability over the draw of the answers it was fitted on.
        coverage: share of the fitted answers that are kept.
        kept_risk: their mean loss, as seen (not the bound).
        n: units behind it: answers, or clusters when answers share sources.
        method: `binomial` for right/wrong, `hoeffding_bentkus` for graded scores.
        reason: why the value is None.
    """

    value: float | None
    risk: float
    level: float
    coverage: float | None
    kept_risk: float | None
    n: int
    method: str
    reason: str | None = None


@dataclass(frozen=True)
class Abstention:
    """What a threshold does on other answers: the share it gives and their risk, with intervals."""

    threshold: float
    coverage: Interval
    risk: Interval


def control_risk(
    confidences: ArrayLike,
    scores: ArrayLike,
    *,
    risk: float,
    level: float = 0.9,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Threshold:
    """The lowest threshold whose answers have a risk of at most `risk`, by Learn-then-Test.

    Angelopoulos et al. 2021: each threshold is a hypothesis "its risk is above `risk`", tested by the
    exact binomial tail for right/wrong (what Clopper-Pearson inverts) and by the Hoeffding-Bentkus
    bound for graded scores. Thresholds are tested in the order fixed beforehand, strictest first, each
    chain until one cannot be rejected; chains start where 20% and 50% of the answers are kept, and
    share delta by the fallback procedure (Wiens 2003): a chain that survives up to the next start hands
    its share on. Ties are kept or handed over whole.

    The guarantee holds for answers drawn like these, with continuous or tied confidences, when risk
    rises as the threshold falls, or is the same everywhere, or falls. (It could be missed by a
    little only where the risk crosses the bound several times within a few answers, which nothing
    fitted on the same answers can see.) It is for *this* model, prompt and source of requests.

    With clusters one answer of each is drawn at random: answers of one source are no independent
    evidence. The risk is then that of a request from a random source.

    Args:
        confidences: finite, any scale, higher is surer; shape (n,).
        scores: in [0, 1], shape (n,), of answers that had no part in training or in fitting a
            temperature whose value moves the order (one temperature does not).
        risk: in (0, 1), as mean loss.
        level: 1 - delta, in (0, 1).
        clusters: the source each example came from.
        seed: of the draw within clusters.

    Raises:
        ValueError: lengths differ, a score is not in [0, 1], or risk or level is not in (0, 1).
    """
    f, y = as_scores(confidences), as_scores(scores)
    if len(f) != len(y) or not is_scores(y) or not 0 < risk < 1 or not 0 < level < 1:
        raise ValueError(
            f"expected as many confidences as scores in [0, 1], risk and level in (0, 1); "
            f"got {len(f)} and {len(y)}, {risk} and {level}"
        )
    chosen = _one_per_unit(clusters, len(f), seed)
    f, losses = f[chosen], 1.0 - y[chosen]
    method = "binomial" if is_binary(losses) else "hoeffding_bentkus"
    n, delta = len(f), 1.0 - level
    least = examples_without_error(risk, level)
    if n < least:
        reason = f"{n} answers: even without an error {least} are needed to show a risk under {risk:.1%}"
        return Threshold(None, risk, level, None, None, n, method, reason)
    order = np.argsort(-f, kind="stable")
    f, losses = f[order], losses[order]
    ends = np.append(np.flatnonzero(f[:-1] > f[1:]) + 1, n)
    ps = risk_p_values(np.cumsum(losses)[ends - 1], ends, risk, graded=method != "binomial")
    place = _last_rejected(ps, ends, _starts(n, risk, delta), delta)
    if place is None:
        reason = f"no threshold keeps answers whose risk is shown to be under {risk:.1%}"
        return Threshold(None, risk, level, None, None, n, method, reason)
    kept = int(ends[place])
    seen = float(losses[:kept].mean())
    return Threshold(float(f[kept - 1]), risk, level, kept / n, seen, n, method)


def examples_without_error(risk: float, level: float = 0.9) -> int:
    """Answers needed to show a risk under `risk` when none is wrong: (1 - risk)^k <= 1 - level."""
    return math.ceil(math.log(1.0 - level) / math.log1p(-risk) - 1e-9)


def abstain(
    confidences: ArrayLike,
    scores: ArrayLike,
    threshold: float,
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Abstention:
    """Coverage and risk of a threshold on answers that it was not fitted on.

    Raises:
        ValueError: lengths differ, or a value is out of range.
    """
    f, y = as_scores(confidences), as_scores(scores)
    if len(f) != len(y) or not is_scores(y):
        raise ValueError(f"expected as many confidences as scores in [0, 1]; got {len(f)} and {len(y)}")
    kept = f >= threshold
    own = None if clusters is None else [clusters[i] for i in np.flatnonzero(kept).tolist()]
    coverage = mean_interval(kept.astype(np.float64), clusters=clusters, confidence=level, seed=seed)
    return Abstention(
        threshold, coverage, mean_interval(1.0 - y[kept], clusters=own, confidence=level, seed=seed)
    )


def risk_p_values(sums: ArrayLike, ns: ArrayLike, risk: float, *, graded: bool) -> Floats:
    """P-values of "the mean loss is above `risk`" from summed losses in [0, 1] of n independent answers.

    Right/wrong gets the binomial tail P(Bin(n, risk) <= sum), which is exact. Graded losses get the
    smaller of Hoeffding's exp(-n h(min(mean, risk), risk)), with h the relative entropy, and Bentkus'
    e P(Bin(n, risk) <= ceil(sum)) (Bates et al. 2021, "Distribution-free, risk-controlling
    prediction sets", section 3.1).

    Args:
        sums, ns: shape (K,).
        graded: whether any loss lies between 0 and 1.
    """
    lost, n = np.asarray(sums, dtype=np.float64), np.asarray(ns, dtype=np.float64)
    if not graded:
        exact: Floats = stats.binom.cdf(np.round(lost), n, risk)
        return exact
    mean = np.minimum(lost / n, risk)
    entropy = special.rel_entr(mean, risk) + special.rel_entr(1 - mean, 1 - risk)
    bentkus = math.e * stats.binom.cdf(np.ceil(lost - 1e-9), n, risk)
    smaller: Floats = np.minimum(1.0, np.minimum(np.exp(-n * entropy), bentkus))
    return smaller


def _one_per_unit(clusters: Sequence[Hashable] | None, n: int, seed: int) -> list[int]:
    if clusters is not None and len(clusters) != n:
        raise ValueError(f"got {len(clusters)} cluster names for {n} answers")
    units = unit_rows(clusters, n)
    shuffled = np.random.default_rng(seed).permutation(n)
    _, first = np.unique(units[shuffled], return_index=True)
    return sorted(shuffled[first].tolist())


def _starts(n: int, risk: float, delta: float) -> list[int]:
    """Answers kept where each chain starts: fixed by n alone, and enough for its share to reject."""
    least = examples_without_error(risk, 1.0 - delta / len(STARTS))
    return [min(n, max(least, math.ceil(share * n - 1e-9))) for share in STARTS]


def _last_rejected(ps: Floats, ends: NDArray[np.intp], starts: Sequence[int], delta: float) -> int | None:
    """The last place rejected by chains that start at `starts` and hand on what they keep."""
    due = np.searchsorted(ends, starts).tolist()
    budget, last = 0.0, None
    for place, p in enumerate(ps):
        budget += delta / len(starts) * due.count(place)
        if budget > 0 and p <= budget:
            last = place
        else:
            budget = 0.0
    return last
