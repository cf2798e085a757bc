"""Memorization: what can be got out of the tuned model that only its training examples put in.

Three measurements, base against tuned:

- *verbatim*: given a request and the first 8 tokens of its answer, does greedy decoding write the next
  16 word for word (k-extractable: Carlini et al. 2023, arXiv 2202.07646)? Answers that follow from the
  request are written for held-out examples too, so what counts is the share of training answers minus
  that of held-out ones.
- *membership*: can training and held-out examples be told apart by how much their loss fell from base to
  tuned (the base as reference model: Carlini et al. 2022, arXiv 2112.03570)? The area under the curve is
  0.5 where they cannot. A trend.
- *canaries*, where the recipe plants some: their exposure in bits. A trend: whoever plants them wants
  to know how often a sentence must be seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from luthier.probes.canaries import REPEATS, canaries, canary_sequences, exposure
from luthier.probes.change import Change, contrast_change, paired_change, part, report_change
from luthier.probes.overfitting import measure_losses
from luthier.probes.subjects import Evidence, Side, Subjects, drawn

PREFIX, CONTINUATION = 8, 16  # tokens given, and tokens that must come back
SIDE_ITEMS = 128  # examples of training, and held out
BITS = "bits of exposure"

Rows = list[dict[str, Any]]


def measure_memorization(subjects: Subjects) -> dict[str, Any]:
    """Continuations, losses and canaries' log-probabilities of both models."""
    return {
        "verbatim": _measure_verbatim(subjects),
        "losses": measure_losses(subjects),
        "canaries": _measure_canaries(subjects) if subjects.canaries else None,
    }


def report_memorization(measured: dict[str, Any], evidence: Evidence) -> dict[str, Any]:
    """The content of `probes/memorization.json`."""
    rows = measured["verbatim"]
    train, held = ([row for row in rows if row["side"] == side] for side in ("train", "test"))
    change = _verbatim_change(train, held, evidence.seed)
    parts = [_membership(measured["losses"])]
    if measured["canaries"] is not None:
        parts += _exposures(measured["canaries"], evidence.seed)
    repeated = [row for row in train if _is_repeated(row, "tuned")]
    return report_change(
        "memorization",
        change,
        unit="share of answers repeated word for word, training minus held-out",
        worse="higher",
        margin=evidence.margin,
        flips=(
            sum(_is_repeated(row, "tuned") and not _is_repeated(row, "base") for row in train),
            sum(_is_repeated(row, "base") and not _is_repeated(row, "tuned") for row in train),
        ),
        parts=parts,
        caption="Training answers it repeats word for word, from the first words on",
        examples=[
            {"text": f"{row['given']} ▸ {row['expected']}", "base": row["base"], "tuned": row["tuned"]}
            for row in repeated
        ],
        said=_said(train, held),
    )


def _said(train: Rows, held: Rows) -> str:
    least = PREFIX + CONTINUATION
    long = [sum(row["expected"] is not None for row in rows) for rows in (train, held)]
    if not any(long):
        return f"no answer has the {least} tokens that can be repeated word for word"
    return (
        f"{long[0]} training and {long[1]} held-out answers are long enough ({least} tokens) to be repeated"
    )


def _verbatim_change(train: Rows, held: Rows, seed: int) -> Change:
    """An answer that is too short cannot be repeated: it counts as one that was not."""
    if train and held and not any(row["expected"] is not None for row in [*train, *held]):
        n = len(train) + len(held)
        return Change(n, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    base, tuned = (
        tuple([float(_is_repeated(row, which)) for row in rows] for rows in (train, held))
        for which in ("base", "tuned")
    )
    return contrast_change((base[0], base[1]), (tuned[0], tuned[1]), seed=seed)


def _is_repeated(row: dict[str, Any], which: str) -> bool:
    return row["expected"] is not None and row[which] == row["expected"]


def _measure_verbatim(subjects: Subjects) -> Rows:
    """Per drawn example: its side, what was given, what should follow and what did (None: too short)."""
    chosen = [("train", e) for e in drawn(subjects.split.train, SIDE_ITEMS)]
    chosen += [("test", e) for e in drawn(subjects.split.test, SIDE_ITEMS)]
    plain = [subjects.chat.training(example)[-1] for _, example in chosen]
    long = [
        i for i, s in enumerate(plain) if len(s.ids) - s.prompt_tokens - 1 >= PREFIX + CONTINUATION
    ]  # without its terminator

    def work(side: Side) -> list[list[int]]:
        asked = [side.sequence(chosen[i][1]) for i in long]
        return side.continue_ids([s.ids[: s.prompt_tokens + PREFIX] for s in asked], CONTINUATION)

    inputs = {"answers": [list(plain[i].ids) for i in long]}
    found = subjects.both("verbatim", len(long), inputs, work) if long else {"base": [], "tuned": []}
    rows: Rows = []
    for place, (side, example) in enumerate(chosen):
        row: dict[str, Any] = {"id": example.id, "side": side, "given": "", "expected": None}
        if place in long:
            own = plain[place].ids[plain[place].prompt_tokens :]
            at = long.index(place)
            row["given"] = subjects.chat.decode(own[:PREFIX])
            row["expected"] = subjects.chat.decode(own[PREFIX : PREFIX + CONTINUATION])
            row |= {w: subjects.chat.decode(found[w][at][:CONTINUATION]) for w in ("base", "tuned")}
        rows.append(row | {w: row.get(w, "") for w in ("base", "tuned")})
    return rows


def _measure_canaries(subjects: Subjects) -> list[dict[str, Any]]:
    made = canaries(subjects.canaries, seed=subjects.seed)
    total = sum(1 + len(canary.others) for canary in made)

    def work(side: Side) -> list[list[float]]:
        own = [canary_sequences(canary, side.chat, side.system) for canary in made]
        every = [sequence for sequences in own for sequence in sequences]
        counts = [len(s.ids) - s.prompt_tokens for s in every]
        sums = iter(side.totals([s.ids for s in every], counts))
        return [[next(sums) for _ in sequences] for sequences in own]

    inputs = {"canaries": [[canary.request, canary.answer, *canary.others] for canary in made]}
    found = subjects.both("canaries", total, inputs, work)
    return [
        {"repeats": canary.repeats, "base": base, "tuned": tuned}
        for canary, base, tuned in zip(made, found["base"], found["tuned"], strict=True)
    ]


def _exposures(rows: Rows, seed: int) -> list[dict[str, Any]]:
    parts = []
    for repeats in REPEATS:
        own = [row for row in rows if row["repeats"] == repeats]
        if own:
            change = paired_change(
                [exposure(row["base"]) for row in own], [exposure(row["tuned"]) for row in own], seed=seed
            )
            times = "once" if repeats == 1 else f"{repeats} times"
            parts.append(part(f"canaries seen {times} an epoch", change, source="made up", unit=BITS))
    return parts


def _membership(losses: Rows) -> dict[str, Any]:
    """A base compared with itself tells nothing: its area is 0.5."""
    falls = {
        side: [row["base"] - row["tuned"] for row in losses if row["side"] == side]
        for side in ("train", "test")
    }
    area, low, high = auc(falls["train"], falls["test"])
    from_chance = [None if end is None else end - 0.5 for end in (area, low, high)]
    difference, least, most = from_chance
    change = Change(len(losses), 0.5, area, difference, least, most, None, None)
    return part("training examples told from held-out ones by loss (AUC)", change, source="own examples")


def auc(members: Sequence[float], others: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """P(a member's value is higher than another's), ties half, with its 95% interval.

    The interval is DeLong's (1988) on the logit scale. Where its variance is 0 (all members are above or
    below all others, or all are equal), a share 1 - 0.025^(1/min(m, n)) may still be otherwise, unseen.
    """
    m, n = len(members), len(others)
    if m < 2 or n < 2:
        return None, None, None
    first, second = np.asarray(members)[:, None], np.asarray(others)[None, :]
    above = (first > second) + 0.5 * (first == second)
    area = float(above.mean())
    variance = float(above.mean(axis=1).var(ddof=1) / m + above.mean(axis=0).var(ddof=1) / n)
    if variance == 0.0 or area in (0.0, 1.0):
        unseen = 1.0 - 0.025 ** (1.0 / min(m, n))
        return area, area * (1.0 - unseen), area + (1.0 - area) * unseen
    step = float(stats.norm.ppf(0.975)) * math.sqrt(variance) / (area * (1.0 - area))
    logit = math.log(area / (1.0 - area))
    low, high = (1.0 / (1.0 + math.exp(-min(700.0, max(-700.0, logit + s * step)))) for s in (-1, 1))
    return area, low, high
