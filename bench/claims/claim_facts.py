"""Tuning does not add facts reliably; retrieval does."""

from __future__ import annotations

from collections.abc import Sequence

from bench.claims import points
from bench.claims.claim import Claim, Judged, Table
from bench.claims.data import Size
from bench.claims.evidence import Estimate, Part, combine, difference, mean, show, values
from bench.claims.points import FEW_PASSES, MANY_PASSES, Outcome, Outcomes, Point

LOOKED_UP = "facts, looked up"
FEW, MANY = points.fact_name(FEW_PASSES), points.fact_name(MANY_PASSES)
RELIABLE = 0.8  # four answers in five


def _points(size: Size, seed: int) -> Sequence[Point]:
    return (
        points.facts(size, seed, FEW_PASSES),
        points.facts(size, seed, MANY_PASSES),
        points.facts_to_look_up(size, seed),
    )


def _judge(found: Outcomes) -> Judged:
    tuned, looked_up = found[MANY], found[LOOKED_UP]
    trained, retrieved = (
        values(outcomes, name, kind="otherwise")
        for outcomes, name in ((tuned, "tuned"), (looked_up, "retrieval"))
    )
    target = Estimate(RELIABLE, RELIABLE, RELIABLE, 0)
    short_of = combine([(1.0, target), (-1.0, mean(trained))])
    share = f"{100 * RELIABLE:.0f}%"
    statements = [
        Part(
            "looking a fact up answers more reworded questions than training on it",
            difference(retrieved, trained),
            "points",
            0.0,
            0.05,
        ),
        Part(
            f"what was trained falls short of {share} right when asked otherwise",
            short_of,
            "points",
            0.0,
            0.0,
        ),
        Part(f"looking up gets {share} right", mean(retrieved), "%", RELIABLE, RELIABLE),
        Part(
            "asked about facts that it was not taught, the tuned model mostly answers instead of saying "
            "unknown",
            _invented(tuned, "tuned"),
            "%",
            0.5,
            0.5,
        ),
    ]
    sides = {
        "the model as it is": (tuned, "prompt"),
        f"tuned, {FEW_PASSES} passes": (found[FEW], "tuned"),
        f"tuned, {MANY_PASSES} passes": (tuned, "tuned"),
        "not tuned, looks the statements up": (looked_up, "retrieval"),
    }
    head = [
        "",
        "asked as trained, right",
        "asked otherwise, right",
        "n",
        "not taught, answered all the same",
        "n",
    ]
    caption = (
        "Right: the short answer stands in what the model writes. An answer to what was not taught cannot "
        "be right; anything but unknown is invented."
    )
    rows = [_row(name, *side) for name, side in sides.items()]
    return Judged(
        statements, [Table(caption, head, rows)], [_reading(looked_up), _habit(tuned), _separates(tuned)]
    )


def _invented(outcomes: Sequence[Outcome], candidate: str) -> Estimate:
    """Share of the questions about what was not taught that get an answer."""
    admitted = values(outcomes, candidate, kind="not taught")
    return mean({key: 1.0 - value for key, value in admitted.items()})


def _row(name: str, outcomes: Sequence[Outcome], candidate: str) -> list[str]:
    as_trained = mean(values(outcomes, candidate, kind="as trained"))
    otherwise, invented = mean(values(outcomes, candidate, kind="otherwise")), _invented(outcomes, candidate)
    return [
        name,
        show(as_trained, "%") if as_trained.n else "-",
        show(otherwise, "%"),
        str(otherwise.n),
        show(invented, "%"),
        str(invented.n),
    ]


def _reading(outcomes: Sequence[Outcome]) -> str:
    """Where looking up fails: in finding, or in reading."""
    found = values(outcomes, "retrieval", "in_prompt", "otherwise")
    right = values(outcomes, "retrieval", kind="otherwise")
    read = mean({key: value for key, value in right.items() if found[key] == 1.0})
    return (
        f"Retrieval found the right statement for {show(mean(found), '%')} of the reworded questions; with "
        f"it in front of it, the model answered {show(read, '%')} right (n = {read.n}): what it got wrong "
        "there is a matter of reading, not of knowing."
    )


def _habit(outcomes: Sequence[Outcome]) -> str:
    """Whether inventing is tuning's doing."""
    tuned, base = (values(outcomes, name, kind="not taught") for name in ("tuned", "prompt"))
    more = difference(base, tuned)  # of admitting: base minus tuned is what tuning adds in inventing
    change = f"Tuning changes how often an answer is invented by {show(more, 'points')}"
    if more.low is None or more.high is None or more.low <= 0 <= more.high:
        return f"{change}: that it invents may be the model's own habit and not tuning's doing."
    return f"{change}, paired on the same questions."


def _separates(outcomes: Sequence[Outcome]) -> str:
    """Whether its confidence tells the invented answers from the right ones."""
    sure = values(outcomes, "tuned", "confidence", "otherwise")
    right = values(outcomes, "tuned", kind="otherwise")
    admitted = values(outcomes, "tuned", kind="not taught")
    invented = values(outcomes, "tuned", "confidence", "not taught")
    first = mean({key: value for key, value in sure.items() if right.get(key) == 1.0})
    second = mean({key: value for key, value in invented.items() if admitted.get(key) == 0.0})
    if first.value is None or second.value is None:
        return "There is nothing to compare its confidence on."
    return (
        f"Its mean confidence is {100 * first.value:.0f}% in right answers to reworded questions (n = "
        f"{first.n}) and {100 * second.value:.0f}% in invented ones (n = {second.n})."
    )


CLAIM = Claim(
    name="facts",
    title="Facts",
    says="Fine-tuning does not add facts reliably; retrieval does.",
    who="Ovadia et al. 2023 (arXiv 2312.05934); Gekhman et al. 2024 (arXiv 2405.05904), who also find that "
    "facts learned in the end make a model invent more. Mistral's guide "
    "(docs.mistral.ai/capabilities/finetuning) said the contrary: that it can teach new facts.",
    ran="Facts invented for this page (bench/claims/facts.jsonl). The tuned model learns each as a "
    "statement and as the answer to one wording of a question, and is asked with another wording, without "
    "help. Retrieval is the untouched model with the statements as `documents` (BM25; one passage, since "
    "of three this small model tells any) and two questions about other facts to show the form. Both are "
    "told to say unknown where they do not know, and are also asked about facts of the same kinds that are "
    "neither trained nor among the documents.",
    points=_points,
    judge=_judge,
)
