"""Labels that dominate, or that are too rare to learn and to test."""

from __future__ import annotations

from collections import Counter

from luthier.audit.finding import Finding, Material, NotApplicableError, counted, shown

DOMINANT_SHARE = 0.8
RATIO = 10.0
RARE_EXAMPLES = 5


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
    (largest, most), *others = counts.most_common()
    share = most / len(material.all)
    if not others:
        return [
            Finding(
                check="class_imbalance",
                severity="error",
                score=1.0,
                message=f"every answer is {shown(spelling[largest])}",
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
                message=f"{shown(spelling[largest])} is the answer of {share:.0%} of the examples ({most}), "
                f"{shown(spelling[smallest])} of {least}; always saying the first scores {share:.1%}",
                fix="add examples of the small classes, and read scores against that baseline",
            )
        )
    rare = [answer for answer, count in counts.items() if count < RARE_EXAMPLES]
    if rare:
        listed = ", ".join(f"{shown(spelling[answer], 30)} ({counts[answer]})" for answer in rare[:5])
        members = [e for e, answer in zip(material.all, material.answers, strict=True) if answer in set(rare)]
        findings.append(
            Finding(
                check="class_imbalance",
                severity="warning",
                score=len(rare) / len(counts),
                message=f"{counted(len(rare), 'label')} with fewer than {RARE_EXAMPLES} examples: {listed}"
                + (", …" if len(rare) > 5 else ""),
                fix="add examples of each, merge labels, or correct misspelt ones",
                examples=tuple(members),
            )
        )
    return findings
