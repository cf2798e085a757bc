"""Counts of what was found, and the rates they give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from luthier.stats import wilson


@dataclass(frozen=True)
class Tally:
    """What was flagged of what could have been, of one kind.

    Attributes:
        kind: what was planted, or left alone.
        flagged, total: flagged ones, of how many.
        fault: whether flagging is right.
    """

    kind: str
    flagged: int
    total: int
    fault: bool = True


@dataclass(frozen=True)
class Rates:
    """Precision and recall from counts: `found` of `planted`, and `wrong` flagged without cause."""

    found: int
    planted: int
    wrong: int

    @classmethod
    def of(cls, tallies: Iterable[Tally]) -> Rates:
        """Faults and the rest, added up."""
        given = list(tallies)
        return cls(
            sum(tally.flagged for tally in given if tally.fault),
            sum(tally.total for tally in given if tally.fault),
            sum(tally.flagged for tally in given if not tally.fault),
        )

    @property
    def precision(self) -> float:
        """Share of what was flagged that was planted; 0 when nothing was flagged."""
        return self.found / max(1, self.found + self.wrong)

    @property
    def recall(self) -> float:
        """Share of what was planted that was flagged."""
        return self.found / max(1, self.planted)

    def show_precision(self) -> str:
        """As `0.95 [0.93, 0.97] (190/200)`."""
        return share(self.found, self.found + self.wrong)

    def show_recall(self) -> str:
        """As `0.95 [0.93, 0.97] (190/200)`."""
        return share(self.found, self.planted)


def share(part: int, whole: int) -> str:
    """A share with its 95% Wilson interval and its counts."""
    if whole == 0:
        return "-"
    low, high = wilson(part, whole)
    return f"{part / whole:.2f} [{low:.2f}, {high:.2f}] ({part}/{whole})"
