"""Robustness: what typing errors, casing and spacing in the user's own test inputs cost, base against tuned.

An example's cost is the mean over perturbations of the score it loses (0 where it gains: a wrong answer
that noise makes right is luck). Whoever is always wrong loses nothing, so the scores themselves are shown
beside it. Nothing is paraphrased: every perturbed input has one meaning, the old one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from luthier.examples import Example
from luthier.probes.change import paired_change, part, report_change
from luthier.probes.perturb import PERTURBATIONS, perturb
from luthier.probes.subjects import Evidence, Side, Subjects, drawn

ITEMS = 96
PLAIN = "as written"
VARIANTS = (PLAIN, *PERTURBATIONS)


def perturbed(example: Example, how: str) -> Example:
    """The example with its last user message damaged; `as written` leaves it."""
    if how == PLAIN:
        return example
    place = max((i for i, m in enumerate(example.request) if m.role == "user"), default=None)
    if place is None:
        return example
    turn = example.messages[place]
    changed = replace(turn, content=perturb(turn.content, how, seed=example.id))
    return replace(example, messages=(*example.messages[:place], changed, *example.messages[place + 1 :]))


def measure_robustness(subjects: Subjects) -> dict[str, list[str]]:
    """Answers of both models to every variant of every drawn test example, example by example."""
    asked = [perturbed(e, how) for e in drawn(subjects.split.test, ITEMS) for how in VARIANTS]

    def work(side: Side) -> list[str]:
        return side.write([side.conversation(example) for example in asked], subjects.max_new_tokens)

    inputs = {
        "requests": [example.asked for example in asked],
        "tokens": subjects.max_new_tokens,
    }
    return subjects.both("robustness", len(asked), inputs, work)


def report_robustness(measured: dict[str, list[str]], evidence: Evidence) -> dict[str, Any]:
    """The content of `probes/robustness.json`."""
    chosen = drawn(evidence.split.test, ITEMS)
    cases = [(example, how) for example in chosen for how in VARIANTS]
    scores = {
        which: evidence.grade(
            [(answer, example) for answer, (example, _) in zip(answers, cases, strict=True)]
        )
        for which, answers in measured.items()
    }
    width = len(VARIANTS)
    rows = [
        i
        for i in range(len(chosen))
        if all(None not in values[i * width : (i + 1) * width] for values in scores.values())
    ]
    table = {w: np.array(v, dtype=float).reshape(-1, width)[rows] for w, v in scores.items()}
    lost = {which: np.maximum(0.0, values[:, :1] - values[:, 1:]) for which, values in table.items()}
    clusters = [chosen[i].group for i in rows]
    change = paired_change(
        lost["base"].mean(axis=1), lost["tuned"].mean(axis=1), clusters=clusters, seed=evidence.seed
    )
    parts = [
        part(
            f"score, {how}",
            paired_change(table["base"][:, v], table["tuned"][:, v], clusters=clusters, seed=evidence.seed),
            source="own test inputs",
            unit="score",
        )
        for v, how in enumerate(VARIANTS)
    ]
    broken, mended = (lost["base"] == 0) & (lost["tuned"] > 0), (lost["base"] > 0) & (lost["tuned"] == 0)
    unscored = len(chosen) - len(rows)
    return report_change(
        "robustness",
        change,
        unit="score lost to typing errors, casing and spacing",
        worse="higher",
        margin=evidence.margin,
        flips=(int(broken.sum()), int(mended.sum())),
        parts=parts,
        caption="Inputs that the tuned model no longer answers as well, with both models' answers",
        examples=_examples(measured, chosen, rows, np.argwhere(lost["tuned"] > lost["base"])),
        said=f"{unscored} examples could not be scored" if unscored else "",
    )


def _examples(
    measured: dict[str, list[str]], chosen: list[Example], rows: list[int], found: Any
) -> list[dict[str, Any]]:
    shown = []
    for row, variant in found:
        i, how = rows[row], VARIANTS[variant + 1]
        place = i * len(VARIANTS) + variant + 1
        text = f"{how}: {perturbed(chosen[i], how).input}"
        shown.append({"text": text, "base": measured["base"][place], "tuned": measured["tuned"][place]})
    return shown
