"""What is said of examples that are the same, found by hashes: duplicates, and conflicts of answers.

The findings are those of the checks of the same names. Texts that they quote are looked up afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from luthier.audit.entry import Flag
from luthier.audit.exact_duplicate import copies_finding
from luthier.audit.finding import Finding, Severity
from luthier.audit.judgement_conflict import judgement_finding, judgements
from luthier.audit.label_conflict import (
    ANSWERS_LISTED,
    accuracy_ceiling,
    conflict_finding,
    conflict_severity,
)
from luthier.audit.ledger import Column, Ledger, Positions, groups
from luthier.examples.answers import AnswerKind
from luthier.examples.example import Example

PLACES = 20  # a finding lists no more; there may be thousands of findings
Found = Mapping[int, Example]


@dataclass(frozen=True)
class Pending:
    """Findings that wait for the examples they name.

    Attributes:
        severity: of the one finding; None where the number of findings is only known when they are made.
        needs: positions of the examples.
        make: from those examples to findings.
    """

    check: str
    severity: Severity | None
    needs: tuple[int, ...]
    make: Callable[[Found], list[Finding]]


def places(members: Positions | Sequence[int]) -> tuple[int, ...]:
    """Positions of the members that a finding lists."""
    return tuple(int(position) for position in members[:PLACES])


def limited(finding: Finding, total: int) -> Finding:
    """The finding with the number of its examples, where it lists fewer."""
    return replace(finding, total=total) if total > len(finding.examples) else finding


def disagreeing(keys: Column, values: Column) -> Positions:
    """Places of the keys that come with more than one value, ascending."""
    order = np.lexsort((values, keys))
    sorted_keys, sorted_values = keys[order], values[order]
    same = sorted_keys[1:] == sorted_keys[:-1]
    several = sorted_keys[1:][same & (sorted_values[1:] != sorted_values[:-1])]
    return np.flatnonzero(np.isin(keys, several))


def draft_exact_duplicates(ledger: Ledger) -> Iterator[Pending]:
    """The findings of `exact_duplicate`, in its order: by request, then by copy."""
    _, first, which = np.unique(ledger.column("request"), return_index=True, return_inverse=True)
    first_asked = first[which]
    found = sorted(groups(ledger.column("copy")), key=lambda own: (first_asked[own[0]], own[0]))
    for members in found:
        yield Pending("exact_duplicate", "warning", places(members), _copies(members))


def _copies(members: Positions) -> Callable[[Found], list[Finding]]:
    def make(examples: Found) -> list[Finding]:
        shown = [examples[m] for m in places(members)]
        return [limited(copies_finding(len(members), shown), len(members))]

    return make


def draft_label_conflicts(ledger: Ledger, kind: AnswerKind) -> Iterator[Pending]:
    """The findings of `label_conflict` for requests that are the same but for case, spaces and marks."""
    wanted = np.flatnonzero(ledger.flags(Flag.WANTED))
    answers = ledger.column("answer")
    if kind == "json":
        structure = ledger.column("structure")
        answers = np.where(structure != 0, structure, answers)
    asked = ledger.column("asked")
    of_conflicts = wanted[disagreeing(asked[wanted], answers[wanted])]
    preferred, long = ledger.flags(Flag.PREFERRED), ledger.flags(Flag.LONG)
    sets, wrong = [], []
    for members in groups(asked[of_conflicts], of_conflicts):
        severity = conflict_severity(
            kind, preferred=bool(preferred[members].all()), free=bool(long[members].any())
        )
        counts = Counter(answers[members].tolist())
        sets.append((members, severity, list(counts.values())))
        if severity != "info":
            wrong.append(counts.total() - max(counts.values()))
    if not sets:
        return
    ceiling = accuracy_ceiling(len(wanted), wrong)
    for members, severity, sizes in sets:
        counts = Counter(answers[members].tolist())
        quoted = [
            (int(members[np.argmax(answers[members] == answer)]), n)
            for answer, n in counts.most_common(ANSWERS_LISTED)
        ]
        needs = (*places(members), *(position for position, _ in quoted))
        yield Pending("label_conflict", severity, needs, _conflict(members, severity, sizes, quoted, ceiling))


def _conflict(
    members: Positions, severity: Severity, sizes: list[int], quoted: list[tuple[int, int]], ceiling: str
) -> Callable[[Found], list[Finding]]:
    def make(examples: Found) -> list[Finding]:
        listed = [(examples[position].answer, n) for position, n in quoted]
        shown = [examples[m] for m in places(members)]
        return [limited(conflict_finding(severity, sizes, listed, ceiling, shown), len(members))]

    return make


def draft_judgement_conflicts(ledger: Ledger) -> Iterator[Pending]:
    """The findings of `judgement_conflict`."""
    answers, positions, good = ledger.judgements()
    both = disagreeing(answers, good.astype(np.int64))
    for entries in groups(answers[both], both):
        members = np.unique(positions[entries])
        n_good = int(good[entries].sum())
        first = int(positions[entries[0]])
        which = int(entries[0] - np.searchsorted(positions, first))
        needs = (*places(members), first)
        make = _judgement(members, (first, which), (n_good, len(entries) - n_good))
        yield Pending("judgement_conflict", "warning", needs, make)


def _judgement(
    members: Positions, first: tuple[int, int], counts: tuple[int, int]
) -> Callable[[Found], list[Finding]]:
    def make(examples: Found) -> list[Finding]:
        answer = list(judgements(examples[first[0]]))[first[1]][0]
        shown = [examples[m] for m in places(members)]
        return [limited(judgement_finding(answer, *counts, shown), len(members))]

    return make
