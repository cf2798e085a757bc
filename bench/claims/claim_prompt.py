"""A tuned model needs a shorter prompt."""

from __future__ import annotations

from collections.abc import Sequence

from bench.claims import points
from bench.claims.claim import Claim, Judged, Table
from bench.claims.claim_narrow import best_alternative
from bench.claims.data import Size
from bench.claims.evidence import Part, difference, mean, show, values
from bench.claims.points import EVERYTHING, Outcome, Outcomes, Point

FULL, BARE = "tickets", "tickets, no system prompt"
MARGIN = 0.05
SAVED = 0.1


def _points(size: Size, seed: int) -> Sequence[Point]:
    return points.tickets(size, seed), points.tickets_bare(size, seed)


def _judge(found: Outcomes) -> Judged:
    full, bare = found[FULL], found[BARE]
    change = difference(values(bare, "tuned"), values(full, "tuned"))
    long, short = (values(outcomes, "tuned", "prompt_tokens") for outcomes in (full, bare))
    saved = mean({key: 1 - short[key] / tokens for key, tokens in long.items() if key in short})
    statements = [
        Part(
            f"without a system prompt tuned loses less than {100 * MARGIN:.0f} points",
            change,
            "points",
            -MARGIN,
            -MARGIN,
        ),
        Part(f"it saves more than {100 * SAVED:.0f}% of its prompt", saved, "%", SAVED, SAVED),
    ]
    sides = {name: (full, name) for name in EVERYTHING if name in full[0].candidates}
    rows = [_row(name.replace("_", " "), *side) for name, side in sides.items()]
    rows.append(_row("tuned, trained and asked without a system prompt", bare, "tuned"))
    best = best_alternative(full)
    against = difference(values(bare, "tuned"), values(full, best))
    remark = (
        f"Against the best alternative ({best.replace('_', ' ')}), tuned without a system prompt scores "
        f"{show(against, 'points')}."
    )
    return Judged(
        statements,
        [Table("Scores, and what a request's prompt holds.", ["", "n", "score", "prompt tokens"], rows)],
        [remark],
    )


def _row(name: str, outcomes: Sequence[Outcome], candidate: str) -> list[str]:
    score = mean(values(outcomes, candidate))
    tokens = list(values(outcomes, candidate, "prompt_tokens").values())
    return [name, str(score.n), show(score, "%"), f"{sum(tokens) / len(tokens):.0f}" if tokens else "-"]


CLAIM = Claim(
    name="prompt",
    title="Shorter prompts",
    says="A tuned model needs a shorter prompt.",
    who="OpenAI's guide to fine-tuning of 2023, which counted the tokens saved among its benefits.",
    ran="Support mail to JSON, trained and asked with the whole system prompt, and trained and asked "
    "without one "
    '(`tuned_system: ""`). The chat template of this model then puts in a short one of its own, which '
    "counts.",
    points=_points,
    judge=_judge,
)
