"""Overfitting: how much more the training examples' loss fell than that of examples never seen.

The gap (held-out loss minus training loss, nats per token) of the base is chance; what training adds to
it is what was learnt by heart. The same gap in score shows whether it matters. The losses of each training
example before and after stay in the record: those that stay high are worth a look (dataset cartography:
Swayamdipta et al. 2020, arXiv 2009.10795).
"""

from __future__ import annotations

from typing import Any

from luthier.probes.change import NATS, contrast_change, part, report_change
from luthier.probes.subjects import Evidence, Side, Subjects, drawn

SIDE_ITEMS = 128
ANSWERED = 48  # examples a side whose answers are graded

Rows = list[dict[str, Any]]


def measure_losses(subjects: Subjects) -> Rows:
    """Per drawn example of training and test: its side and its loss per trained token, base and tuned."""
    chosen = [("train", e) for e in drawn(subjects.split.train, SIDE_ITEMS)]
    chosen += [("test", e) for e in drawn(subjects.split.test, SIDE_ITEMS)]

    def work(side: Side) -> list[float]:
        return side.losses([side.sequence(example) for _, example in chosen])

    inputs = {"examples": [example.as_row()["messages"] for _, example in chosen]}
    found = subjects.both("losses", len(chosen), inputs, work)
    return [
        {"id": example.id, "side": side, "text": example.input, "base": base, "tuned": tuned}
        for (side, example), base, tuned in zip(chosen, found["base"], found["tuned"], strict=True)
    ]


def measure_overfitting(subjects: Subjects) -> dict[str, Any]:
    """Losses, and answers to some examples of both sides."""
    chosen = [*drawn(subjects.split.train, ANSWERED), *drawn(subjects.split.test, ANSWERED)]

    def work(side: Side) -> list[str]:
        return side.write([side.conversation(example) for example in chosen], subjects.max_new_tokens)

    inputs = {
        "requests": [example.asked for example in chosen],
        "tokens": subjects.max_new_tokens,
    }
    return {
        "losses": measure_losses(subjects),
        "answers": subjects.both("answers", len(chosen), inputs, work),
    }


def report_overfitting(measured: dict[str, Any], evidence: Evidence) -> dict[str, Any]:
    """The content of `probes/overfitting.json`."""
    losses = measured["losses"]
    train, held = ([row for row in losses if row["side"] == side] for side in ("train", "test"))
    change = contrast_change(
        ([row["base"] for row in held], [row["base"] for row in train]),
        ([row["tuned"] for row in held], [row["tuned"] for row in train]),
        seed=evidence.seed,
    )
    falls = sorted(train, key=lambda row: row["tuned"] - row["base"])
    return report_change(
        "overfitting",
        change,
        unit=NATS,
        worse="higher",
        margin=evidence.margin,
        parts=_score_gap(measured["answers"], evidence),
        caption="Training examples whose loss fell most",
        examples=[{key: row[key] for key in ("text", "base", "tuned")} for row in falls],
        said="held-out loss minus training loss",
    )


def _score_gap(answers: dict[str, list[str]], evidence: Evidence) -> list[dict[str, Any]]:
    """Training score minus held-out score, where both models' answers could be scored."""
    sides = [drawn(evidence.split.train, ANSWERED), drawn(evidence.split.test, ANSWERED)]
    examples = [example for side in sides for example in side]
    base, tuned = (
        evidence.grade(list(zip(answers[which], examples, strict=True))) for which in ("base", "tuned")
    )
    border = len(sides[0])
    pairs = [
        [(b, t) for b, t in zip(base[part_], tuned[part_], strict=True) if b is not None and t is not None]
        for part_ in (slice(None, border), slice(border, None))
    ]
    before, after = ([[pair[place] for pair in side] for side in pairs] for place in (0, 1))
    change = contrast_change((before[0], before[1]), (after[0], after[1]), seed=evidence.seed)
    unit = "score on training examples minus held-out ones"
    return [part("training score minus held-out score", change, source="own examples", unit=unit)]
