"""LoRA forgets less than full tuning: at each one's own rate, and at the same score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.claims import points
from bench.claims.claim import Claim, Judged, Table
from bench.claims.claim_unmeasured import LOSSES, loss
from bench.claims.data import Size
from bench.claims.evidence import NOTHING, OneOf, Part, Unit, difference, mean, probed, show, values
from bench.claims.points import FULL_FACTORS, Outcome, Outcomes, Point

LORA = "tickets"
AUTO = points.full_name(1.0)
ASKED = ("own_text", "forgetting")
MATCHED = 0.03  # scores that are no further apart count as the same


def _points(size: Size, seed: int) -> Sequence[Point]:
    return points.tickets(size, seed), *(points.tickets_full(size, seed, f) for f in FULL_FACTORS)


def _judge(found: Outcomes) -> Judged:
    names = [points.full_name(factor) for factor in FULL_FACTORS]
    full = {name: found[name] for name in names}
    nearest = nearest_in_score(full, found[LORA])
    apart = _score(found[LORA]) - _score(found[nearest])
    same = nearest if abs(apart) <= MATCHED else None
    statements = [
        _less(f"at each one's own automatic rate LoRA forgets less than full tuning ({AUTO})", found, AUTO),
        _less("at the same score LoRA forgets less than full tuning", found, same),
    ]
    gap = f"{100 * abs(apart):.1f} points {'below' if apart > 0 else 'above'} LoRA"
    said = (
        f"Full tuning nearest to LoRA in score: {nearest}, {gap}."
        if same
        else f"No full tuning came within {100 * MATCHED:.0f} points of LoRA's score (nearest: {nearest}, "
        f"{gap}), so that nothing can be said at the same score."
    )
    head = ["", "rate", "n", "score", "against LoRA", *(LOSSES[probe][0] + ", worse by" for probe in ASKED)]
    rows = [_row(name, found[name], found[LORA]) for name in (LORA, *names)]
    caption = "Worse by: tuned against the base model, 95% intervals; n is of the score."
    return Judged(statements, [Table(caption, head, rows)], [said])


def nearest_in_score(full: Mapping[str, Sequence[Outcome]], lora: Sequence[Outcome]) -> str:
    """The full tuning whose mean score is nearest to LoRA's."""
    return min(full, key=lambda name: abs(_score(full[name]) - _score(lora)))


def _less(what: str, found: Outcomes, name: str | None) -> OneOf:
    """LoRA's tuned model against another's, positive where LoRA's lost less; open without the other."""
    parts = []
    for probe in ASKED:
        said, unit, more_is_worse, least = LOSSES[probe]
        estimate = NOTHING
        if name is not None:
            ours, theirs = (probed(found[run], probe, "tuned") for run in (LORA, name))
            level = 1 - 0.05 / len(ASKED)
            estimate = difference(theirs, ours, level=level)
            estimate = estimate if more_is_worse else estimate.negated()
        parts.append(Part(f"less lost in {said}", estimate, unit, 0.0, least))
    return OneOf(what, tuple(parts), opposed=True)


def _score(outcomes: Sequence[Outcome]) -> float:
    return mean(values(outcomes, "tuned")).value or 0.0


def _row(name: str, outcomes: Sequence[Outcome], lora: Sequence[Outcome]) -> list[str]:
    score = mean(values(outcomes, "tuned"))
    rates = sorted({outcome.rate for outcome in outcomes if outcome.rate is not None})
    units: list[Unit] = [LOSSES[probe][1] for probe in ASKED]
    same = outcomes[0].name == lora[0].name
    return [
        "LoRA" if name == LORA else name.removeprefix("tickets, "),
        ", ".join(f"{rate:.1e}" for rate in rates),
        str(score.n),
        show(score, "%"),
        "-" if same else show(difference(values(outcomes, "tuned"), values(lora, "tuned")), "points"),
        *(show(loss(outcomes, probe), unit) for probe, unit in zip(ASKED, units, strict=True)),
    ]


CLAIM = Claim(
    name="lora",
    title="LoRA and full tuning",
    says="LoRA forgets less than full fine-tuning.",
    who="Biderman et al. 2024, LoRA Learns Less and Forgets Less (arXiv 2405.09673), who hold what is "
    "forgotten against what is learned.",
    ran="Support mail to JSON without replay, the same layers trained by LoRA and in full, as many steps. "
    "Each at the rate that `learning_rate: auto` gives it, and full tuning also at a third and at three "
    "times of it, so that there is a run near LoRA's score.",
    points=_points,
    judge=_judge,
)
