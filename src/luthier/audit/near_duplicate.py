"""Requests on one side that say the same in slightly other words, or look as if they did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from luthier.audit.finding import Finding, Material, counted
from luthier.examples.groups import Cluster


def find_near_duplicate_clusters(material: Material) -> list[Finding]:
    """One finding per cluster and side; score is the Jaccard similarity of its weakest link (0.5 to 1).

    Requests that look alike and differ in a number, a negation or a telling word get one finding in all,
    without a score and without examples: they are as often meant as not.
    """
    findings = [
        Finding(
            check="near_duplicate",
            severity="info",
            score=cluster.similarity,
            message=f"{len(members)} inputs are nearly the same, similarity {cluster.similarity:.2f}",
            fix="keep the ones that differ in what matters; the split keeps them on one side",
            examples=tuple(material.all[m] for m in members),
        )
        for cluster in material.alike.same
        for members in _by_side(cluster, material)
    ]
    return findings + _only_look_alike(material)


def _only_look_alike(material: Material) -> list[Finding]:
    same = {m: at for at, cluster in enumerate(material.alike.same) for m in cluster.members}
    groups = [
        members
        for cluster in material.alike.near
        for members in _by_side(cluster, material)
        if len({same.get(m, -1 - m) for m in members}) > 1
    ]
    if not groups:
        return []
    first = material.all[max(groups, key=len)[0]]
    return [
        Finding(
            check="near_duplicate",
            severity="info",
            score=None,
            message=f"{counted(len(groups), 'group')} of inputs look alike but differ in a number or a "
            f"telling word, {sum(map(len, groups))} inputs in all; the largest begins at {first.where}",
            fix="nothing, where the difference is meant; the split keeps a group on one side",
        )
    ]


def _by_side(cluster: Cluster, material: Material) -> list[Sequence[int]]:
    """The members on each side, where they are more than one text."""
    by_side: dict[str, list[int]] = defaultdict(list)
    for m in cluster.members:
        by_side[material.side_of[m]].append(m)
    return [members for members in by_side.values() if len({material.requests[m] for m in members}) > 1]
