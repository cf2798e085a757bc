"""Tuning works best on narrow tasks with consistent answers."""

from __future__ import annotations

from collections.abc import Sequence

from bench.claims import points
from bench.claims.claim import Claim, Judged, Table
from bench.claims.data import Size
from bench.claims.evidence import Estimate, Part, Values, combine, difference, mean, show, values
from bench.claims.points import EVERYTHING, Outcome, Outcomes, Point

CLEAN, NOISY = points.category_name(0.0), points.category_name(0.4)
NARROW = {"tickets": "support mail to JSON", CLEAN: "support mail to its category"}
BROAD = {"OpenBookQA": "science questions with options", "TruthfulQA": "questions about anything"}
OTHERS = [name for name in EVERYTHING if name != "tuned"]
MATTERS = 0.02  # the gain that a recipe demands unless told otherwise


def _points(size: Size, seed: int) -> Sequence[Point]:
    return (
        points.tickets(size, seed),
        points.categories(size, seed, 0.0),
        points.categories(size, seed, 0.4),
        points.open_book(size, seed),
        points.truthful(size, seed),
    )


def best_alternative(outcomes: Sequence[Outcome]) -> str:
    """The candidate other than tuned with the highest mean score."""

    def score(name: str) -> float:
        return mean(values(outcomes, name)).value or 0.0

    return max((name for name in OTHERS if name in outcomes[0].candidates), key=score)


def gain(outcomes: Sequence[Outcome]) -> Estimate:
    """Tuned minus the best alternative."""
    return difference(values(outcomes, "tuned"), values(outcomes, best_alternative(outcomes)))


def _judge(found: Outcomes) -> Judged:
    gains = {name: gain(found[name]) for name in (*NARROW, *BROAD)}
    narrow = difference(*(_both(found, side) for side in ("tuned", "best")))
    broader = combine([(1.0, narrow), *((-1 / len(BROAD), gains[name]) for name in BROAD)])
    consistent = difference(values(found[CLEAN], "tuned"), values(found[NOISY], "tuned"))
    statements = [
        *(
            Part(f"tuned beats the best alternative on {what}", gains[name], "points", 0.0, MATTERS)
            for name, what in NARROW.items()
        ),
        Part("it gains more on the narrow tasks than on the broad ones", broader, "points", 0.0, MATTERS),
        Part(
            "with consistent labels it does better than with 40% wrong ones",
            consistent,
            "points",
            0.0,
            MATTERS,
        ),
    ]
    rows = [_row(name, what, found[name], gains[name]) for name, what in (NARROW | BROAD).items()]
    head = [
        "task",
        "measured in",
        "n",
        *(name.replace("_", " ") for name in EVERYTHING),
        "tuned against the best other",
    ]
    caption = (
        "Held-out score in %, with the difference in points. The tasks have scores of their own, so that "
        "gains on different tasks are alike in scale only roughly."
    )
    return Judged(statements, [Table(caption, head, rows)])


def _both(found: Outcomes, side: str) -> Values:
    """The mean over the narrow tasks, message by message, of tuned or of the best alternative."""
    columns = [
        values(found[name], "tuned" if side == "tuned" else best_alternative(found[name])) for name in NARROW
    ]
    shared = set.intersection(*(set(column) for column in columns))
    return {key: sum(column[key] for column in columns) / len(columns) for key in sorted(shared)}


def _row(name: str, what: str, outcomes: Sequence[Outcome], gained: Estimate) -> list[str]:
    own = [mean(values(outcomes, candidate)) for candidate in EVERYTHING]
    kind = "narrow" if name in NARROW else "broad"
    return [
        f"{what} ({kind})",
        outcomes[0].metric,
        str(own[0].n),
        *(show(estimate, "%") for estimate in own),
        f"{show(gained, 'points')} ({best_alternative(outcomes).replace('_', ' ')})",
    ]


CLAIM = Claim(
    name="narrow",
    title="Narrow tasks with consistent answers",
    says="Fine-tuning works best on narrow tasks whose answers are consistent.",
    who="Guides of those who sell it, such as Together's (docs.together.ai/learn/finetune-vs-prompt): for "
    "a pattern that can be learned from examples, once prompting has hit a ceiling.",
    ran="Two narrow tasks on the demo's support mail (to seven JSON fields; to one of six categories) and "
    "two broad ones from public suites (OpenBookQA; TruthfulQA, answered freely, chrF against its first "
    "true answer), each with Luthier's five candidates. Consistency: the categories once more, with 40% of "
    "the labels to learn from replaced by others.",
    points=_points,
    judge=_judge,
)
