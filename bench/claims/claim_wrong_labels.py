"""Wrong labels are learned, and repeated with confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.claims import points
from bench.claims.claim import Claim, Judged, Table
from bench.claims.data import Size
from bench.claims.evidence import Estimate, Part, Values, combine, difference, mean, show, values
from bench.claims.points import WRONG, Outcome, Outcomes, Point

MATTERS = 0.05
SURE = 0.5
MOST = max(WRONG)


def _points(size: Size, seed: int) -> Sequence[Point]:
    return tuple(points.categories(size, seed, share) for share in WRONG)


def _judge(found: Outcomes) -> Judged:
    by_share = {share: found[points.category_name(share)] for share in WRONG}
    clean, worst = by_share[0.0], by_share[MOST]
    repeated = {share: _repeats(by_share[share], by_share[share]) for share in WRONG if share}
    anyway = {share: _repeats(clean, by_share[share]) for share in WRONG if share}
    surest = {share: mean(wrong_in_surest_quarter(outcomes)) for share, outcomes in by_share.items()}
    most = f"{100 * MOST:.0f}%"
    statements = [
        Part(
            f"with {most} wrong labels the test score falls",
            difference(values(clean, "tuned"), values(worst, "tuned")),
            "points",
            0.0,
            MATTERS,
        ),
        Part(
            f"of the rows that were taught wrongly ({most}), it answers more with the wrong label than the "
            "model that was taught the right ones",
            difference(repeated[MOST], anyway[MOST]),
            "points",
            0.0,
            MATTERS,
        ),
        Part(
            "it is sure when it repeats a wrong label: mean confidence above one half",
            mean(_sureness(worst, "wrong")),
            "%",
            SURE,
            SURE,
        ),
        Part(
            f"with {most} wrong labels more of the surest quarter of test answers is wrong",
            combine([(1.0, surest[MOST]), (-1.0, surest[0.0])]),
            "points",
            0.0,
            MATTERS,
        ),
    ]
    head = [
        "labels that are wrong",
        "n",
        "test score",
        "wrong in the surest quarter",
        "wrongly taught rows",
        "answered with the wrong label",
        "by the model taught rightly",
        "confidence in it",
        "confidence in rightly taught ones",
    ]
    rows = [
        _row(share, by_share[share], surest[share], repeated.get(share), anyway.get(share)) for share in WRONG
    ]
    caption = "Test labels are all right. Rows that were taught are asked once more, as they were taught."
    return Judged(statements, [Table(caption, head, rows)])


def wrong_in_surest_quarter(outcomes: Sequence[Outcome]) -> Values:
    """1 for each wrong and 0 for each right answer in the quarter that the tuned model is surest of."""
    found = {}
    for outcome in outcomes:
        sure, right = (values([outcome], "tuned", column) for column in ("confidence", "score"))
        order = sorted(right, key=lambda key: (-sure.get(key, 0.0), key))
        for key in order[: math.ceil(len(order) / 4)]:
            found[key] = 1.0 - right[key]
    return found


def _repeats(asked: Sequence[Outcome], taught: Sequence[Outcome]) -> Values:
    """1 where `asked` gives the wrong label that `taught` was trained on, 0 where it does not."""
    answers = {(o.seed, row["case"]): row["answer"] for o in asked for row in o.trained}
    return {
        (o.seed, row["case"]): float(answers[o.seed, row["case"]] == row["taught"])
        for o in taught
        for row in o.trained
        if row["kind"] == "wrong" and (o.seed, row["case"]) in answers
    }


def _sureness(outcomes: Sequence[Outcome], kind: str) -> Values:
    """Confidence where the model repeats what it was taught."""
    return {
        (o.seed, row["case"]): row["confidence"]
        for o in outcomes
        for row in o.trained
        if row["kind"] == kind and row["answer"] == row["taught"]
    }


def _row(
    share: float,
    outcomes: Sequence[Outcome],
    surest: Estimate,
    repeated: Values | None,
    anyway: Values | None,
) -> list[str]:
    score = mean(values(outcomes, "tuned"))
    wrong = ["0", "-", "-", "-"]
    if repeated is not None and anyway is not None:
        told = mean(repeated)
        sure = mean(_sureness(outcomes, "wrong"))
        wrong = [str(told.n), show(told, "%"), show(mean(anyway), "%"), f"{show(sure, '%')} (n = {sure.n})"]
    right = mean(_sureness(outcomes, "right"))
    return [
        f"{100 * share:.0f}%",
        str(score.n),
        show(score, "%"),
        f"{show(surest, '%')} (n = {surest.n})",
        *wrong,
        f"{show(right, '%')} (n = {right.n})",
    ]


CLAIM = Claim(
    name="wrong-labels",
    title="Wrong labels",
    says="Wrong labels are learned, and repeated with confidence.",
    who="Common advice on data quality; that networks can fit labels without any sense is Zhang et al. "
    "2017 (arXiv 1611.03530).",
    ran="Support mail to one of six categories. Of the training and validation labels 0, 10, 20 and 40% "
    "are replaced by another category at random; a label that is wrong at 10% is wrong in the same way at "
    "20 and 40%. Confidence is the probability that the model gives to its whole answer.",
    points=_points,
    judge=_judge,
)
