"""Labels that dominate, or that are too rare to learn and to test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from luthier.audit.finding import Finding, Material, NotApplicableError, counted, shown
from luthier.examples.example import Example

DOMINANT_SHARE = 0.8
RATIO = 10.0
RARE_EXAMPLES = 5
RARE_LISTED = 5


def find_class_imbalance(material: Material) -> list[Finding]:
    """One label only; or a label that dominates or is 10 times another, and labels with under 5 examples.

    Score is the share of the largest label, or the share of rare labels among all labels.

    Raises:
        NotApplicableError: the answers are not labels.
    """
    if material.answer_kind != "label":
        raise NotApplicableError(f"the answers are {material.answer_kind}, not labels")
    counts = Counter(material.answers)
    spelling = {
        answer: example.answer for answer, example in zip(material.answers, material.all, strict=True)
    }
    rare = {answer for answer, count in counts.items() if count < RARE_EXAMPLES}
    return imbalance(
        [(spelling[answer], count) for answer, count in counts.most_common()],
        [spelling[answer] for answer in counts if answer in rare][:RARE_LISTED],
        [e for e, answer in zip(material.all, material.answers, strict=True) if answer in rare],
    )


def imbalance(
    counts: Sequence[tuple[str, int]], listed: Sequence[str], members: Sequence[Example]
) -> list[Finding]:
    """What follows from the counts.

    Args:
        counts: labels as they are written, the most frequent first.
        listed: the first rare ones.
        members: examples of rare labels that are shown.
    """
    (largest, most), *others = counts
    share = most / sum(count for _, count in counts)
    if not others:
        return [
            Finding(
                check="class_imbalance",
                severity="error",
                score=1.0,
                message=f"every answer is {shown(largest)}",
                fix="add examples of the other answers; there is nothing to tell apart",
            )
        ]
    findings = []
    smallest, least = others[-1]
    if share >= DOMINANT_SHARE or most >= RATIO * least:
        findings.append(
            Finding(
                check="class_imbalance",
                severity="warning",
                score=share,
                message=f"{shown(largest)} is the answer of {share:.0%} of the examples ({most}), "
                f"{shown(smallest)} of {least}; always saying the first scores {share:.1%}",
                fix="add examples of the small classes, and read scores against that baseline",
            )
        )
    rare = sum(count < RARE_EXAMPLES for _, count in counts)
    if rare:
        sizes = dict(counts)
        told = ", ".join(f"{shown(label, 30)} ({sizes[label]})" for label in listed)
        findings.append(
            Finding(
                check="class_imbalance",
                severity="warning",
                score=rare / len(counts),
                message=f"{counted(rare, 'label')} with fewer than {RARE_EXAMPLES} examples: {told}"
                + (", …" if rare > RARE_LISTED else ""),
                fix="add examples of each, merge labels, or correct misspelt ones",
                examples=tuple(members),
            )
        )
    return findings
