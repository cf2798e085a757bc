"""The same answer to the same request, once good and once bad."""

from __future__ import annotations

from collections import defaultdict

from luthier.audit.finding import Finding, Material, counted, shown
from luthier.examples.wording import normalise, own_system


def find_judgement_conflicts(material: Material) -> list[Finding]:
    """One finding per answer; score is the share of its judgements that the more frequent one contradicts.

    An answer is good where it is wanted or chosen, bad where it is not wanted or rejected. Answers are
    compared to the letter: a good and a bad one may differ in a full stop alone. People differ in what they
    prefer, so this is no error.
    """
    judged: dict[tuple[str, str, str], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for m, example in enumerate(material.all):
        asked = material.requests[m], normalise(own_system(example) or "")
        judged[*asked, example.answer.strip()][0 if example.wanted else 1].append(m)
        for worse in example.rejected:
            judged[*asked, worse.strip()][1].append(m)
    return [
        Finding(
            check="judgement_conflict",
            severity="warning",
            score=min(len(good), len(bad)) / (len(good) + len(bad)),
            message=f"{shown(answer, 30)} is {counted(len(good), 'time')} a good and "
            f"{counted(len(bad), 'time')} a bad answer to the same request",
            fix="decide which it is, or leave it out: such judgements teach nothing",
            examples=tuple(material.all[m] for m in sorted({*good, *bad})),
        )
        for (_, _, answer), (good, bad) in judged.items()
        if good and bad
    ]
