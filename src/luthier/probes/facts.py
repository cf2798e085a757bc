"""Factual drift: do facts that the base model knows stay known?

Short facts of our own, asked as a sentence to be completed with one of four answers, compared by
log-probability, so that a small model is above chance. A fact counts as known when the base finds its
answer likelier than the other three. The score is the chance of the right answer among the four, as for
forgetting; flips of the likeliest answer are counted beside it. Choosing what the base gets right means that
tuned can only keep or lose: facts that the base did not know are shown apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from luthier.probes.change import paired_change, part, report_change
from luthier.probes.fact_items import facts
from luthier.probes.forgetting import Logps, chance_of_right, option_logprobs
from luthier.probes.subjects import Evidence, Side, Subjects


def measure_facts(subjects: Subjects) -> dict[str, Any]:
    """What both models give each answer of each fact."""
    items = facts()

    def work(side: Side) -> Logps:
        return option_logprobs(side.model, side.chat.tokenizer, items, side.advance)

    total = sum(len(item.options) for item in items)
    inputs = {"items": [[item.text, *item.options] for item in items]}
    return subjects.both("facts", total, inputs, work)


def report_facts(measured: dict[str, Any], evidence: Evidence) -> dict[str, Any]:
    """The content of `probes/facts.json`."""
    items = facts()
    best = {w: [int(np.argmax(row)) for row in measured[w]] for w in ("base", "tuned")}
    right = {w: np.array([b == item.right for b, item in zip(best[w], items, strict=True)]) for w in best}
    chances = {which: chance_of_right(items, measured[which]) for which in ("base", "tuned")}
    known, unknown = np.flatnonzero(right["base"]), np.flatnonzero(~right["base"])
    change = paired_change(chances["base"][known], chances["tuned"][known], seed=evidence.seed)
    lost, gained = (np.flatnonzero(right[a] & ~right[b]) for a, b in (("base", "tuned"), ("tuned", "base")))
    parts = [
        part(
            ability,
            paired_change(chances["base"][own], chances["tuned"][own], seed=evidence.seed),
            source="own facts, known",
        )
        for ability in dict.fromkeys(item.ability for item in items)
        if len(own := np.array([i for i in known if items[i].ability == ability], dtype=int))
    ]
    if len(unknown):
        rest = paired_change(chances["base"][unknown], chances["tuned"][unknown], seed=evidence.seed)
        parts.append(part("not known by the base", rest, source="own facts"))
    return report_change(
        "facts",
        change,
        unit="chance of the right answer, on facts the base knows",
        worse="lower",
        margin=evidence.margin,
        flips=(len(lost), len(gained)),
        parts=parts,
        caption="Facts whose answer changed",
        examples=[
            {
                "text": f"{items[i].text} ... ({items[i].options[items[i].right]})",
                **{which: items[i].options[best[which][i]] for which in ("base", "tuned")},
            }
            for i in (*lost, *gained)
        ],
        said=f"the base knows {len(known)} of {len(items)} facts",
    )
