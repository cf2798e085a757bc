"""What could not be read, by kind: many rows with one fault are one thing to know."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from luthier.examples.row import Problem

PLACES_KEPT = 3
PROBLEMS_TOLD = 100
_DETAIL = re.compile(
    r"'[^']*'|\"[^\"]*\"|\([^()]*\)|-?\d+(?:\.\d+)?"
)  # what differs between rows with one fault


@dataclass
class ProblemKind:
    """Problems that say the same but for names and numbers.

    Attributes:
        message, fix: of the first.
        count: how many there are.
        places: the first few, as `file:line`.
    """

    message: str
    fix: str | None
    count: int
    places: list[str]

    def as_json(self) -> dict[str, Any]:
        """As it stands in `audit.json`."""
        return {"message": self.message, "fix": self.fix, "count": self.count, "places": self.places}


class ProblemKinds:
    """Collects problems by kind; its memory does not grow with their number."""

    def __init__(self, problems: Iterable[Problem] = ()) -> None:
        self._kinds: dict[tuple[str, str | None], ProblemKind] = {}
        self.first: list[Problem] = []
        self.total = 0
        for problem in problems:
            self.add(problem)

    def add(self, problem: Problem) -> None:
        """Count one more."""
        self.total += 1
        if len(self.first) < PROBLEMS_TOLD:
            self.first.append(problem)
        key = _DETAIL.sub("…", problem.message), problem.fix and _DETAIL.sub("…", problem.fix)
        kind = self._kinds.get(key)
        if kind is None:
            self._kinds[key] = ProblemKind(problem.message, problem.fix, 1, [problem.where])
            return
        kind.count += 1
        if len(kind.places) < PLACES_KEPT:
            kind.places.append(problem.where)

    def __iter__(self) -> Iterator[ProblemKind]:
        """The kinds, the most frequent first."""
        return iter(sorted(self._kinds.values(), key=lambda kind: -kind.count))


def tell_problems(kinds: ProblemKinds) -> dict[str, Any]:
    """Keys of `audit.json`: how many rows were `left_out`, the first of them, and all of them by kind."""
    return {
        "left_out": kinds.total,
        "unreadable": [{"where": p.where, "message": p.message, "fix": p.fix} for p in kinds.first],
        "unreadable_kinds": [kind.as_json() for kind in kinds],
    }
