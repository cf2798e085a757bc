"""The same answer to the same request, once good and once bad."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from luthier.audit.finding import Finding, Material, counted, shown
from luthier.examples.example import Example
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
        for answer, is_good in judgements(example):
            judged[*asked, answer][0 if is_good else 1].append(m)
    return [
        judgement_finding(answer, len(good), len(bad), [material.all[m] for m in sorted({*good, *bad})])
        for (_, _, answer), (good, bad) in judged.items()
        if good and bad
    ]


def judgements(example: Example) -> Iterator[tuple[str, bool]]:
    """The answers of an example as they are compared, and whether each is a good one."""
    yield example.answer.strip(), example.wanted
    for worse in example.rejected:
        yield worse.strip(), False


def judgement_finding(answer: str, good: int, bad: int, members: Sequence[Example]) -> Finding:
    """The finding of an answer that was judged both ways; `members` are shown."""
    return Finding(
        check="judgement_conflict",
        severity="warning",
        score=min(good, bad) / (good + bad),
        message=f"{shown(answer, 30)} is {counted(good, 'time')} a good and "
        f"{counted(bad, 'time')} a bad answer to the same request",
        fix="decide which it is, or leave it out: such judgements teach nothing",
        examples=tuple(members),
    )
