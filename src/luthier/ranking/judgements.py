"""`Judgement`: what one person said of the answers to one question, as a line of the judgements file.

Nothing is ever taken out of the file: to undo is a line too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import RecordError
from luthier.ranking.journal import append_line, read_lines

UNDO = "undo"


@dataclass(frozen=True)
class Judgement:
    """What one person said.

    Attributes:
        question: `Question.key`.
        round: 1; 2 where the same was asked again, to see whether the rater says the same.
        shown: ids of the answers, in the order they were shown.
        order: ids from best to worst, tied ones together. An answer that was shown and is not named is worse
            than those that are, and was not compared with others like it. Empty: skipped.
        typed: the rater's own words.
        at: when, as ISO 8601.
        seconds: from showing to saying.
        seed: of the order shown.
        model: who wrote the answers; None where they were given.
    """

    question: str
    rater: str
    round: int
    shown: tuple[str, ...]
    order: tuple[tuple[str, ...], ...]
    typed: str
    at: str
    seconds: float
    seed: int
    model: str | None

    @property
    def said(self) -> str:
        """`ranked`, `best` (the others were not compared), or `skipped`."""
        if not self.order:
            return "skipped"
        return "ranked" if sum(map(len, self.order)) == len(self.shown) else "best"

    def as_row(self) -> dict[str, Any]:
        """The judgement as a line."""
        return {
            "question": self.question,
            "rater": self.rater,
            "round": self.round,
            "said": self.said,
            "order": [list(level) for level in self.order],
            "shown": list(self.shown),
            "typed": self.typed,
            "at": self.at,
            "seconds": self.seconds,
            "seed": self.seed,
            "model": self.model,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Judgement:
        """The inverse of `as_row`.

        Raises:
            KeyError, TypeError, ValueError: it is no such line.
        """
        order = tuple(tuple(map(str, level)) for level in row["order"])
        shown = tuple(map(str, row["shown"]))
        named = [answer for level in order for answer in level]
        if len(set(named)) != len(named) or not set(named) <= set(shown) or row["round"] not in (1, 2):
            raise ValueError("an order of other answers than were shown")
        return cls(
            str(row["question"]),
            str(row["rater"]),
            row["round"],
            shown,
            order,
            str(row["typed"]),
            str(row["at"]),
            float(row["seconds"]),
            int(row["seed"]),
            row["model"],
        )


def read_judgements(path: Path) -> list[Judgement]:
    """What stands, in the order it was said: without what its rater took back.

    Raises:
        RecordError: a line is no judgement.
    """
    standing: list[Judgement] = []
    for number, row in read_lines(path):
        try:
            if row["said"] == UNDO:
                _take_back(standing, row["rater"])
            else:
                standing.append(Judgement.from_row(row))
        except (KeyError, TypeError, ValueError):
            raise RecordError(
                "is no judgement", where=f"{path}:{number}", fix="take the line out, or choose another --out"
            ) from None
    return standing


def add_judgement(path: Path, judgement: Judgement) -> None:
    """Write down what was said, durably."""
    append_line(path, judgement.as_row())


def undo_judgement(path: Path, undone: Judgement, *, at: str) -> None:
    """Write down that the rater takes back the last thing they said, which is `undone`."""
    append_line(path, {"said": UNDO, "rater": undone.rater, "question": undone.question, "at": at})


def of_rater(judgements: Sequence[Judgement], rater: str) -> list[Judgement]:
    """What one of them said."""
    return [judgement for judgement in judgements if judgement.rater == rater]


def _take_back(standing: list[Judgement], rater: str) -> None:
    for place in range(len(standing) - 1, -1, -1):
        if standing[place].rater == rater:
            del standing[place]
            return
