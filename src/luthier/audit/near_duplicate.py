"""Requests on one side that differ in a few words."""

from __future__ import annotations

from collections import defaultdict

from luthier.audit.finding import Finding, Material


def find_near_duplicate_clusters(material: Material) -> list[Finding]:
    """One finding per cluster and side; score is the Jaccard similarity of its weakest link (0.7 to 1)."""
    findings = []
    for cluster in material.like_requests:
        by_side: dict[str, list[int]] = defaultdict(list)
        for m in cluster.members:
            by_side[material.side_of[m]].append(m)
        for members in by_side.values():
            if len({material.requests[m] for m in members}) < 2:
                continue
            findings.append(
                Finding(
                    check="near_duplicate",
                    severity="info",
                    score=cluster.similarity,
                    message=f"{len(members)} inputs are nearly the same, similarity {cluster.similarity:.2f}",
                    fix="keep the ones that differ in what matters; the split keeps them on one side",
                    examples=tuple(material.all[m] for m in members),
                )
            )
    return findings
