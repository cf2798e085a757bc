"""Which drafts a person accepted, as they are or edited. Nothing here accepts a draft by itself.

What is said is kept line by line in a journal beside the drafts; to take the last word back is a line too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from luthier.collect.example_row import Row, make_row, writing
from luthier.collect.tally import NotTakenError
from luthier.errors import DataError, RecordError
from luthier.examples.row import Problem
from luthier.examples.rows import read_rows
from luthier.ranking.journal import append_line, read_lines
from luthier.recipe import digest

Said = Literal["accept", "edit", "reject"]
UNDO = "undo"


@dataclass(frozen=True)
class Draft:
    """A conversation whose answer waits for somebody's word."""

    row: Row
    where: str

    @cached_property
    def key(self) -> str:
        """16 hex digits of the whole conversation."""
        return digest(self.row["messages"])[:16]

    @property
    def answer(self) -> str:
        """What was drafted."""
        return str(self.row["messages"][-1].get("content") or "")


@dataclass(frozen=True)
class Word:
    """What a person said of a draft.

    Attributes:
        key: of the draft.
        answer: what they wrote in its place, where they edited it.
        by: who.
        at: when, as ISO 8601.
    """

    key: str
    said: Said
    by: str
    at: str
    answer: str | None = None


def read_drafts(path: Path) -> list[Draft]:
    """The drafts of a file that nobody has accepted yet, each once.

    Raises:
        DataError: it cannot be read, or holds something else.
    """
    found = []
    fix = "give a file of `luthier collect drafts`"
    for row in read_rows(path):
        where = row.where if isinstance(row, Problem) else f"{path}:{row.line}"
        if isinstance(row, Problem):
            raise DataError(row.message, where=where, fix=row.fix)
        messages = row.values.get("messages")
        if not isinstance(messages, list) or not all(isinstance(turn, Mapping) for turn in messages):
            raise DataError("has no messages", where=where, fix=fix)
        try:
            make_row(messages, provenance={})
        except NotTakenError as reason:
            raise DataError(str(reason), where=where, fix=fix) from None
        if not (row.values.get("provenance") or {}).get("accepted_by"):
            found.append(Draft(row.values, where))
    return list({draft.key: draft for draft in reversed(found)}.values())[::-1]


def read_words(path: Path) -> list[Word]:
    """What stands, in the order it was said.

    Raises:
        RecordError: a line is something else.
    """
    standing: list[Word] = []
    for number, row in read_lines(path):
        try:
            if row["said"] == UNDO:
                standing = [word for word in standing if word.key != row["key"]]
                continue
            if row["said"] not in ("accept", "edit", "reject") or not row["by"]:
                raise ValueError(row["said"])
            if (row["said"] == "edit") != bool(row.get("answer")):
                raise ValueError("an edit has an answer")
            word = Word(row["key"], row["said"], row["by"], row["at"], row.get("answer"))
        except (KeyError, TypeError, ValueError):
            raise RecordError(
                "is no word on a draft", where=f"{path}:{number}", fix="take the line out"
            ) from None
        standing = [*(other for other in standing if other.key != word.key), word]
    return standing


def add_word(path: Path, word: Word) -> None:
    """Write down what was said, durably."""
    append_line(path, {key: value for key, value in asdict(word).items() if value is not None})


def undo_word(path: Path, word: Word, *, at: str) -> None:
    """Write down that a word is taken back."""
    append_line(path, {"key": word.key, "said": UNDO, "by": word.by, "at": at})


def write_accepted(out: Path, drafts: Sequence[Draft], words: Sequence[Word]) -> int:
    """Write the drafts that were accepted, with who did so in their provenance; how many they are."""
    by_key = {word.key: word for word in words}
    rows = [
        _accepted(draft, word)
        for draft in drafts
        if (word := by_key.get(draft.key)) is not None and word.said != "reject"
    ]
    with writing(out) as write:
        for row in rows:
            write(row)
    if not rows:
        out.unlink(missing_ok=True)  # what was accepted before was taken back
    return len(rows)


def edited(draft: Draft, answer: str) -> Row:
    """The draft with another answer.

    Raises:
        NotTakenError: it is none.
    """
    messages: list[Any] = [*draft.row["messages"][:-1], {"role": "assistant", "content": answer}]
    make_row(messages, provenance={})
    return {**draft.row, "messages": messages}


def _accepted(draft: Draft, word: Word) -> Row:
    row = draft.row if word.answer is None else edited(draft, word.answer)
    told: dict[str, Any] = {"accepted_by": word.by, "accepted_at": word.at[:10]}
    told |= {"edited": True} if word.answer is not None else {}
    return {**row, "provenance": {**(row.get("provenance") or {}), **told}}
