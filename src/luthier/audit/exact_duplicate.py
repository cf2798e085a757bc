"""The same request with the same answer, more than once on one side."""

from __future__ import annotations

from collections import defaultdict

from luthier.audit.finding import Finding, Material
from luthier.examples.wording import normalise, own_system


def find_exact_duplicates(material: Material) -> list[Finding]:
    """One finding per set of copies. Case, spaces and sentence marks are not a difference; score is 1."""
    findings = []
    for cluster in material.same_requests:
        copies: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for m in cluster.members:
            system = normalise(own_system(material.all[m]) or "")
            worse = map(normalise, material.all[m].rejected)
            kind = material.side_of[m], str(material.all[m].wanted)
            copies[*kind, system, material.answers[m], *worse].append(m)
        findings += [
            Finding(
                check="exact_duplicate",
                severity="warning",
                score=1.0,
                message=f"the same example {len(members)} times",
                fix="keep one; copies are learnt by heart and count several times in every score",
                examples=tuple(material.all[m] for m in members),
            )
            for members in copies.values()
            if len(members) > 1
        ]
    return findings
