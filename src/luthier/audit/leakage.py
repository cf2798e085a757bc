"""The same request, or nearly the same, on two sides of the split."""

from __future__ import annotations

from luthier.audit.finding import Finding, Material, NotApplicableError, counted


def find_leakage(material: Material) -> list[Finding]:
    """One finding per request or cluster; score is its similarity (1: the same request on two sides).

    Requests that look alike and differ in a number, a negation or a telling word get one finding in all,
    without a score and without examples.

    Raises:
        NotApplicableError: there is one side.
    """
    if sum(bool(side) for side in material.sides.values()) < 2:
        raise NotApplicableError("there is one side; Luthier's own split cannot leak")
    findings = []
    for cluster in material.alike.same:
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
    return findings + _only_look_alike(material)


def _only_look_alike(material: Material) -> list[Finding]:
    same = {m for cluster in material.alike.same for m in cluster.members}
    found = []
    for cluster in material.alike.near:
        members = [m for m in cluster.members if m not in same and _is_used(material, m)]
        if len({material.side_of[m] for m in members}) > 1:
            found.append(members)
    if not found:
        return []
    tested = sum(material.side_of[m] == "test" for members in found for m in members)
    return [
        Finding(
            check="leakage",
            severity="info",
            score=None,
            message=f"{counted(len(found), 'group')} of inputs on more than one side look alike but differ "
            f"in a number or a telling word, {tested} of them in test; the first is "
            f"{material.all[found[0][0]].where}",
            fix="where only an order number differs, keep them on one side; else it is no leak",
        )
    ]


def _is_used(material: Material, member: int) -> bool:
    """Answers that should not be given are trained on, and chosen by, but never asked."""
    return material.all[member].wanted or material.side_of[member] != "test"
