"""Whether raters agree: with one another, and with themselves when they are asked again.

Legend: a unit is a pair of answers to one prompt, its values are what raters said: the one, the other, tie.

What is compared is what was said, without what follows from it. Krippendorff's alpha counts every pair in
both orders, so that it does not matter which answer is called the first: without ties, and for many pairs,
it is 2p - 1 where raters agree on a share p of them. Pairs of one prompt are not independent: intervals
resample prompts.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from luthier.ranking.judgements import Judgement
from luthier.ranking.opinions import compare, stated
from luthier.ranking.questions import Question
from luthier.stats import mean_interval
from luthier.stats.alpha import krippendorff_alpha

METHOD = (
    "Krippendorff's alpha (nominal: one, other, tie) over pairs of answers, each in both orders; share of "
    "couples of raters who say the same; 95% intervals by resampling prompts"
)
Said = Mapping[tuple[str, str, str], int]  # question, one answer, another -> 1, 0, -1


def measure_agreement(
    questions: Sequence[Question], judgements: Sequence[Judgement], *, seed: int = 0
) -> dict[str, Any]:
    """How far raters agree; numbers are None, with a `reason`, where nothing is known.

    Returns:
        `method`; `raters`: by name `judged` (prompts), `skipped` (tasks), `tied` (share of their pairs),
        `seconds` (median of a judgement). `between` all raters, `couples` of raters where there are more than
        two, `again` by name (the same rater twice), each with `raters`, `prompts`, `pairs`, `agreement` and
        `alpha` with `_low` and `_high`, `reason`.
    """
    names = sorted({judgement.rater for judgement in judgements})
    first = {name: _said(questions, judgements, name, 1) for name in names}
    second = {name: _said(questions, judgements, name, 2) for name in names}
    one = f"one rater: {names[0]}" if len(names) == 1 else "no rater" if not names else None
    apart = "no pair of answers was judged by two of them"

    def between(chosen: Sequence[str]) -> dict[str, Any]:
        return _measure(chosen, [first[name] for name in chosen], one or apart, seed)

    couples = combinations(names, 2) if len(names) > 2 else ()
    return {
        "method": METHOD,
        "raters": {name: _describe(judgements, name, first[name]) for name in names},
        "between": between(names),
        "couples": [between(couple) for couple in couples],
        "again": {
            name: _measure([name], [first[name], second[name]], "nothing was asked twice", seed)
            for name in names
        },
    }


def _said(questions: Sequence[Question], judgements: Sequence[Judgement], name: str, round_: int) -> Said:
    own: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        if judgement.rater == name and judgement.round == round_:
            own.setdefault(judgement.question, []).append(judgement)
    found = {}
    for question in questions:
        opinion = stated(own.get(question.key, ()))
        for a, b in combinations(sorted(question.by_id), 2):
            value = compare(opinion, a, b)
            if value is not None:
                found[question.key, a, b] = value
    return found


def _describe(judgements: Sequence[Judgement], name: str, said: Said) -> dict[str, Any]:
    own = [judgement for judgement in judgements if judgement.rater == name]
    return {
        "judged": len({key for key, _, _ in said}),
        "skipped": sum(not judgement.order for judgement in own),
        "tied": sum(value == 0 for value in said.values()) / len(said) if said else None,
        "seconds": statistics.median(judgement.seconds for judgement in own),
    }


def _measure(names: Sequence[str], columns: Sequence[Said], missing: str, seed: int) -> dict[str, Any]:
    units: list[list[int]] = []
    shares: list[float] = []
    prompts: list[str] = []
    for pair in dict.fromkeys(pair for column in columns for pair in column):
        values = [column[pair] for column in columns if pair in column]
        if len(values) > 1:
            units.append(values)
            same = [a == b for a, b in combinations(values, 2)]
            shares.append(sum(same) / len(same))
            prompts.append(pair[0])
    both = [*units, *([-value for value in values] for values in units)]
    alpha = krippendorff_alpha(both, clusters=[*prompts, *prompts], seed=seed)
    agreement = mean_interval(shares, clusters=prompts, seed=seed)
    return {
        "raters": list(names),
        "prompts": len(set(prompts)),
        "pairs": len(units),
        "agreement": agreement.estimate,
        "agreement_low": agreement.low,
        "agreement_high": agreement.high,
        "alpha": alpha.alpha,
        "alpha_low": alpha.low,
        "alpha_high": alpha.high,
        "reason": alpha.reason if units else missing,
    }
