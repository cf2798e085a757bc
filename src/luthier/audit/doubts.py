"""What the audit found and nobody can repair without looking: a question for each row that is concerned."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from luthier.audit.cleaning import mask_draft
from luthier.audit.draft import Draft
from luthier.audit.finding import Finding
from luthier.examples.wording import normalise

Verb = Literal["keep", "drop", "edit", "take", "mask"]
VERBS: tuple[Verb, ...] = ("keep", "drop", "edit", "take", "mask")
# Of the whole set: no row is at fault.
OF_THE_WHOLE = ("class_imbalance", "too_few_examples", "prompt_mismatch", "leakage", "synthetic_test")
CONFLICTS = ("label_conflict", "judgement_conflict")
PAIRED = (*CONFLICTS, "near_duplicate", "exact_duplicate")
EVEN_AS_INFO = ("near_duplicate", "label_error")


@dataclass(frozen=True)
class Doubt:
    """One question.

    Attributes:
        draft: the row that is asked about.
        other: the row that it repeats or contradicts, if any.
    """

    finding: Finding
    draft: Draft
    other: Draft | None = None

    @property
    def key(self) -> str:
        """The same in every session, as long as the rows are the same."""
        ids = [self.draft.original.id, self.other.original.id if self.other else ""]
        return hashlib.sha256("\0".join([self.finding.check, *ids]).encode()).hexdigest()[:16]

    @property
    def is_open(self) -> bool:
        """Whether the rows are still there."""
        return not self.draft.dropped and not (self.other and self.other.dropped)


@dataclass(frozen=True)
class Decision:
    """What a person said to a doubt.

    Attributes:
        on_other: whether it is about the other row.
        text: the answer, for `edit` and `take`.
    """

    key: str
    verb: Verb
    on_other: bool = False
    text: str | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Decision:
        """The inverse of `dataclasses.asdict`; other keys are passed over."""
        return cls(row["key"], row["verb"], row.get("on_other", False), row.get("text"))


def find_doubts(findings: Iterable[Finding], drafts: Iterable[Draft]) -> list[Doubt]:
    """The questions, in the order of the findings; none twice."""
    draft_of = {id(draft.example): draft for draft in drafts}
    doubts: dict[str, Doubt] = {}
    for finding in findings:
        if finding.check in OF_THE_WHOLE:
            continue
        if finding.severity == "info" and finding.check not in EVEN_AS_INFO:
            continue
        members = [draft_of[id(example)] for example in finding.examples if id(example) in draft_of]
        for doubt in _pairs(finding, members) if finding.check in PAIRED else _singles(finding, members):
            doubts.setdefault(doubt.key, doubt)
    return list(doubts.values())


def _singles(finding: Finding, members: Sequence[Draft]) -> Iterator[Doubt]:
    return (Doubt(finding, member) for member in members)


def _pairs(finding: Finding, members: Sequence[Draft]) -> Iterator[Doubt]:
    """Each row against the first; of a conflict, each in the minority against the first of the majority."""
    if not members:
        return
    first = members[0]
    rest = list(members[1:])
    if finding.check == "label_conflict":
        answers = [normalise(member.example.answer) for member in members]
        usual = Counter(answers).most_common(1)[0][0]
        first = members[answers.index(usual)]
        rest = [member for member, answer in zip(members, answers, strict=True) if answer != usual]
    yield from (Doubt(finding, member, first) for member in rest)


def decide(doubt: Doubt, decision: Decision) -> bool:
    """Do what was decided; returns False where the row could not be written so."""
    draft = doubt.other if decision.on_other and doubt.other else doubt.draft
    check = doubt.finding.check
    reason = f"by hand: {doubt.finding.message}"
    if decision.verb == "drop":
        draft.drop(check, reason)
    elif decision.verb in ("edit", "take"):
        return decision.text is not None and draft.answer(decision.text, check, reason)
    elif decision.verb == "mask":
        mask_draft(draft)
    return True


def apply_decisions(
    doubts: Sequence[Doubt], decisions: Mapping[str, Decision]
) -> tuple[list[Doubt], list[Doubt]]:
    """Do what was decided; returns the doubts whose rows could not be written so, and those that are left."""
    failed = []
    for doubt in doubts:
        decision = decisions.get(doubt.key)
        if decision and doubt.is_open and not decide(doubt, decision):
            failed.append(doubt)
    return failed, [doubt for doubt in doubts if doubt.is_open and doubt.key not in decisions]
