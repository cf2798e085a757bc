"""The same request with the same answer, more than once on one side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from luthier.audit.finding import Finding, Material
from luthier.examples.example import Example
from luthier.examples.wording import normalise, own_system


def find_exact_duplicates(material: Material) -> list[Finding]:
    """One finding per set of copies. Case, spaces and sentence marks are not a difference; score is 1."""
    findings = []
    for cluster in material.same_requests:
        copies: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for m in cluster.members:
            copies[material.side_of[m], *copy_key(material.all[m], material.answers[m])].append(m)
        findings += [
            copies_finding(len(members), [material.all[m] for m in members])
            for members in copies.values()
            if len(members) > 1
        ]
    return findings


def copy_key(example: Example, answer: str) -> tuple[str, ...]:
    """What copies share besides the request; `answer` is the normalised one."""
    system = own_system(example)
    return str(example.wanted), normalise(system) if system else "", answer, *map(normalise, example.rejected)


def copies_finding(count: int, members: Sequence[Example]) -> Finding:
    """The finding of `count` copies, of which `members` are shown."""
    return Finding(
        check="exact_duplicate",
        severity="warning",
        score=1.0,
        message=f"the same example {count} times",
        fix="keep one; copies are learnt by heart and count several times in every score",
        examples=tuple(members),
    )
