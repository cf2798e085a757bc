"""The same request, or nearly the same, on two sides of the split."""

from __future__ import annotations

from luthier.audit.finding import Finding, Material, NotApplicableError, counted


def find_leakage(material: Material) -> list[Finding]:
    """One finding per request or cluster; score is its similarity (1: the same request on two sides).

    Raises:
        NotApplicableError: there is one side.
    """
    if sum(bool(side) for side in material.sides.values()) < 2:
        raise NotApplicableError("there is one side; Luthier's own split cannot leak")
    findings = []
    for cluster in material.like_requests:
        members = [m for m in cluster.members if _is_used(material, m)]
        sides = {material.side_of[m] for m in members}
        if len(sides) < 2:
            continue
        by_request: dict[str, set[str]] = {}
        for m in members:
            by_request.setdefault(material.requests[m], set()).add(material.side_of[m])
        same = any(len(found) > 1 for found in by_request.values())
        counts = [
            f"{sum(material.side_of[m] == side for m in members)} in {side}"
            for side in material.sides
            if side in sides
        ]
        alike = "the same" if same else f"nearly the same (similarity from {cluster.similarity:.2f})"
        findings.append(
            Finding(
                check="leakage",
                severity="error" if same else "warning",
                score=1.0 if same else cluster.similarity,
                message=f"{alike} input on {counted(len(sides), 'side')}: {', '.join(counts)}",
                fix="keep it on one side, or give one file and let Luthier split it",
                examples=tuple(material.all[m] for m in members),
            )
        )
    return findings


def _is_used(material: Material, member: int) -> bool:
    """Answers that should not be given are trained on, and chosen by, but never asked."""
    return material.all[member].wanted or material.side_of[member] != "test"
