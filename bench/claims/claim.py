"""What a claim is: a sentence, who says it, which runs it needs, and what they say of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.claims.data import Size
from bench.claims.evidence import Statement
from bench.claims.points import Outcomes, Point


@dataclass(frozen=True)
class Table:
    """A table of the page, with a sentence above it."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Judged:
    """What the runs say.

    Attributes:
        statements: the claim holds when all of them do.
        remarks: sentences computed from the numbers that decide nothing.
    """

    statements: Sequence[Statement]
    tables: Sequence[Table]
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Claim:
    """One section of the page.

    Attributes:
        says: the claim, in one sentence.
        who: where it is said.
        ran: what was run, in a few sentences.
        points: the runs for one seed.
        judge: from the outcomes of every run, by name.
    """

    name: str
    title: str
    says: str
    who: str
    ran: str
    points: Callable[[Size, int], Sequence[Point]]
    judge: Callable[[Outcomes], Judged]
