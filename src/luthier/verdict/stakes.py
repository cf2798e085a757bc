"""What `stakes: high` demands of `ship` beside the usual gates, all of it decided from the record.

Every probe ran; the test side had the power to show the gain; a threshold for abstaining was found with
its guarantee; no slice got worse; a person has read the answers that ought to be read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.evidence.review import LIST, measure_progress, read_judgements, read_list
from luthier.evidence.slices import MIN_PAIRS, lost_slices
from luthier.recipe import Gates, Recipe
from luthier.recipe.probe_options import PROBE_NAMES
from luthier.record import Record
from luthier.stats import clopper_pearson, detectable_difference, examples_needed, predicted_power
from luthier.verdict.gate import Gate, undecided

ALPHA = 0.05
LEAST_GOAL = 0.02  # where any gain counts, there is no number of examples that could show it


def demanded(
    record: Record,
    scores: Mapping[str, Any],
    recipe: Recipe,
    gates: Gates,
    rivals: Sequence[Mapping[str, Any]],
) -> list[Gate]:
    """The gates of high stakes, for a run that tuned a model.

    Args:
        rivals: comparisons of tuned with all that it has to beat.
    """
    share = recipe.split.test if recipe.data.test is None else None
    slices = judge_slices((scores.get("slices") or {}).get("paired", ()))
    return [
        _every_probe(record),
        judge_power(rivals, gates.min_gain, share),
        judge_abstention(_read(record, "calibration.json"), recipe.abstain.risk),
        *([] if slices is None else [slices]),
        _reviewed(record, recipe.abstain.risk),
    ]


def _every_probe(record: Record) -> Gate:
    """Whether all probes ran to their end; what those without a margin found is told here alone."""
    lacking, trends = [], []
    for name in PROBE_NAMES:
        probe = _read(record, f"probes/{name}.json")
        if probe is None:
            lacking.append(f"{name} has not run")
        elif probe["difference"] is None:
            lacking.append(f"{name} measured nothing: {probe['reason']}")
        elif probe["margin"] is None:
            trends.append(f"{name} {probe['difference']:+.3g} {probe['unit']}")
    ran, asked = len(PROBE_NAMES) - len(lacking), len(PROBE_NAMES)
    told = f"; trends without a margin, which decide nothing: {', '.join(trends)}" if trends else ""
    reason = f"all {asked} probes ran{told}" if not lacking else "; ".join(lacking)
    return Gate("all_probes", ran, None, None, asked, None if lacking else True, reason, "probes")


@dataclass(frozen=True)
class Power:
    """What the pairs behind one comparison could show.

    Attributes:
        other: the alternative.
        goal: the difference that was to be shown: the one seen, or the least that is asked for.
        n: pairs.
        detectable: smallest difference they find 4 times in 5.
        power: how often they find the goal.
        needed: pairs that find it 4 times in 5; None where a loss was seen that more pairs will not undo.
    """

    other: str
    goal: float
    n: int
    detectable: float | None
    power: float
    needed: int | None


def measure_power(pair: Mapping[str, Any], min_gain: float, tests: int) -> Power | None:
    """Power of one comparison, from the width of its own interval, clusters included.

    Args:
        pair: a row of `paired`.
        min_gain: the least that is to be shown; 2 points where it is 0.
        tests: comparisons that share the error rate.

    Returns:
        None where the comparison has no interval.
    """
    if pair["difference"] is None or pair["low"] is None or pair["high"] is None or pair["n"] < 2:
        return None
    n = int(pair["n"])
    spread = (pair["high"] - pair["low"]) / (2 * 1.96) * math.sqrt(n)  # of one pair
    goal = max(pair["difference"], min_gain or LEAST_GOAL)
    alpha = ALPHA / tests
    if spread <= 0:
        return None
    hopeful = pair["difference"] > 0 or pair["low"] > -goal
    return Power(
        other=pair["b"],
        goal=goal,
        n=n,
        detectable=detectable_difference(n, sd=spread, alpha=alpha),
        power=predicted_power(n, goal, sd=spread, alpha=alpha),
        needed=examples_needed(goal, sd=spread, alpha=alpha) if hopeful else None,
    )


def judge_power(pairs: Sequence[Mapping[str, Any]], min_gain: float, test_share: float | None) -> Gate:
    """Whether a test of this size would find gains like these 4 times in 5, not only this once.

    A gain that is just significant would be found again every other time: enough for a decision that can
    be taken back, and not where much is at stake. Against every alternative; the weakest is shown.
    """
    found = [measure_power(pair, min_gain, len(pairs)) for pair in pairs]
    known = [power for power in found if power is not None]
    if not known or len(known) < len(found):
        return undecided("power", "a comparison without an interval says nothing of its power", min_gain)
    weakest = min(known, key=lambda power: power.power)
    enough = weakest.detectable is not None and weakest.detectable <= weakest.goal
    finds = (
        f"{weakest.n} test examples find a gain of {weakest.goal:.1%} over {weakest.other} with a "
        f"probability of {weakest.power:.0%}"
    )
    reason = f"{finds}, and gains from {weakest.detectable:.1%} 4 times in 5" if enough else finds
    if not enough and weakest.needed is not None:
        reason += f": collect {say_more(weakest.needed, weakest.n, test_share)} for 4 times in 5"
    return Gate("power", weakest.detectable, None, None, weakest.goal, True if enough else None, reason)


def say_more(needed: int, n: int, test_share: float | None) -> str:
    """How many examples are lacking, in tens: `about 40 more test examples (about 140 in all)`."""
    more = max(1, math.ceil((needed - n) / 10)) * 10
    whole = "" if test_share is None else f" (about {math.ceil(more / test_share / 10) * 10} in all)"
    return f"about {more} more test examples{whole}"


def judge_abstention(calibration: Mapping[str, Any] | None, risk: float) -> Gate:
    """Whether a threshold was found; failed where even the surest answers are wrong too often, for sure."""
    if calibration is None:
        return undecided("abstention", "what tuned's confidence is worth was not measured", unit="percent")
    found = calibration["abstention"]
    if found["value"] is not None:
        says = f"tuned {found['says']}"
        return Gate("abstention", found["coverage"], None, None, None, True, says, "percent")
    points = calibration["risk_coverage"]["points"]
    lows = [point["risk"]["low"] for point in points]
    ruled_out = bool(lows) and all(low is not None and low > risk for low in lows)
    reason = f"no promise: {found['reason']}"
    if ruled_out:
        reason = f"even its surest answers are wrong more often than {risk:.1%}; {reason}"
    return Gate("abstention", None, None, None, None, False if ruled_out else None, reason, "percent")


def judge_slices(paired: Sequence[Mapping[str, Any]]) -> Gate | None:
    """Whether tuned is worse than an alternative in any slice, adjusted for all; None without slices."""
    if not paired:
        return None
    lost = lost_slices(paired)
    tested = [row for row in paired if row["p_adjusted"] is not None]
    if lost:
        worst = lost[0]
        more = f"; and {len(lost) - 1} more" if len(lost) > 1 else ""
        reason = f"{say_slice(worst)}{more}"
        return Gate("slices", worst["difference"], worst["low"], worst["high"], None, False, reason)
    if not tested:
        return undecided("slices", f"no slice has the {MIN_PAIRS} pairs that a test needs")
    small = {(row["field"], row["value"]) for row in paired if row["p_adjusted"] is None}
    told = f"; {len(small)} slices are too small to test" if small else ""
    worst = min(tested, key=lambda row: row["difference"])
    reason = f"in no slice is tuned shown to be worse, by {len(tested)} adjusted tests{told}"
    return Gate("slices", worst["difference"], worst["low"], worst["high"], None, True, reason)


def say_slice(row: Mapping[str, Any]) -> str:
    """A slice in which tuned lost, in words."""
    bounds = "" if row["low"] is None else f" [{row['low']:+.1%}, {row['high']:+.1%}]"
    p = "p < 0.001" if row["p_adjusted"] < 0.001 else f"p {row['p_adjusted']:.3f}"
    where = f"in the slice {row['field']} = {row['value']} ({row['n']} examples)"
    return f"{where} tuned minus {row['b']} is {row['difference']:+.1%}{bounds}, {p}"


def worse_slices(scores: Mapping[str, Any]) -> list[str]:
    """A note for each slice that got worse although the total got better."""
    worse = (scores.get("slices") or {}).get("worse", ())
    return [f"{say_slice(row)}, although over all examples it is {row['total']:+.1%}" for row in worse]


def _reviewed(record: Record, risk: float) -> Gate:
    """Whether a person has read the list, and found the answers that would be given good enough.

    Only the rows drawn at random say how often answers are wrong: the others are on the list because
    they are.
    """
    if not (record / LIST).is_file():
        return undecided("reviewed", "there is no list of answers to read: luthier review RUN")
    progress = measure_progress(read_list(record), read_judgements(record))
    wrong, drawn = progress.sampled_wrong, progress.sampled
    share, (low, high) = (wrong / drawn, clopper_pearson(wrong, drawn)) if drawn else (None, (None, None))
    left = progress.n - progress.judged
    told = (
        f"of {drawn} answers drawn at random from those that would be given, a person calls {wrong} wrong"
        if drawn
        else "no answer drawn at random has been judged"
    )
    if left:
        unsure = f", {progress.unsure} of them unsure" if progress.unsure else ""
        reason = f"{left} of {progress.n} answers are not judged{unsure}: luthier review RUN"
        return Gate("reviewed", share, low, high, risk, None, reason, "percent")
    if share is None:
        return Gate("reviewed", None, None, None, risk, None, told, "percent")
    passed = share <= risk
    reason = f"{told}, {'within' if passed else 'beyond'} the {risk:.1%} that may be"
    return Gate("reviewed", share, low, high, risk, passed, reason, "percent")


def _read(record: Record, name: str) -> Any:
    return record.read_json(name) if (record / name).is_file() else None
