"""What was taken, what was left out and why."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from luthier.examples.row import Problem

PLACES = 3


class NotTakenError(Exception):
    """A record that makes no example. Its text is the reason, the same for all that are alike."""


@dataclass
class Tally:
    """Counts of what was read.

    Attributes:
        read: records, rows or pairs.
        taken: examples written.
        left_out: how many, by reason.
        places: the first places of each reason, as `file:line`.
        notes: how many of those taken are worth a word, by that word.
    """

    read: int = 0
    taken: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    def leave_out(self, reason: str, where: str) -> None:
        """Count one more record that was not taken."""
        self.left_out[reason] += 1
        known = self.places.setdefault(reason, [])
        if len(known) < PLACES:
            known.append(where)

    def leave_out_unreadable(self, problem: Problem) -> None:
        """Count a row that is broken; details that differ from row to row are not part of the reason."""
        self.read += 1
        what = re.sub(r"\d+", "…", problem.message.partition(":")[0])
        self.leave_out(f"cannot be read: {what}", problem.where)
