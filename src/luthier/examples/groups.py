"""Things that belong together: a union-find over positions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cluster:
    """Texts that are the same or nearly so.

    Attributes:
        members: positions in the sequence that was searched, ascending, at least two.
        similarity: the weakest link that holds the cluster together, 1.0 when all are equal.
    """

    members: tuple[int, ...]
    similarity: float


class Groups:
    """A partition of 0..n-1 that only ever gets coarser; the root of a group is its smallest member."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def root(self, member: int) -> int:
        """The smallest member of the group that `member` is in."""
        parent = self._parent
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    def join(self, a: int, b: int) -> int:
        """Make one group of two; returns its root."""
        low, high = sorted((self.root(a), self.root(b)))
        self._parent[high] = low
        return low

    def clusters(self) -> list[list[int]]:
        """Every group, single members too, by smallest member; members ascending."""
        found: dict[int, list[int]] = {}
        for member in range(len(self._parent)):
            found.setdefault(self.root(member), []).append(member)
        return list(found.values())
