"""`Draft`: a row of a file while it is being repaired, and the log of what was done to it.

A change is made in the row itself and believed only when the row, read again, says what it should. So
columns that are not touched stay as they are, whatever the form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from luthier.audit.row_texts import describe, holds_turns, places, put, rewrite
from luthier.errors import DataError
from luthier.examples.columns import Columns, rename
from luthier.examples.example import Example
from luthier.examples.form import Format, convert_row
from luthier.examples.identity import example_id
from luthier.examples.row import Problem, Row
from luthier.examples.turns import read_text

_TOOLS = ("tools", "functions")
_NOT_SAID = frozenset(("group", "provenance", *_TOOLS))  # read, and no part of what is said


@dataclass(frozen=True)
class Change:
    """One line of the log.

    Attributes:
        check: whose finding it settles; `unreadable` for a row that could not be read.
        column: where in the row; empty for the whole row.
        before, after: the text; after a drop, `after` is None.
    """

    line: int
    check: str
    action: Literal["changed", "dropped"]
    column: str
    before: str
    after: str | None
    reason: str


@dataclass(frozen=True)
class RowReader:
    """How rows of one file are read.

    Attributes:
        name: of the file, as findings show it.
        columns: from the user's names of columns to known ones.
    """

    name: str
    form: Format
    columns: Columns

    def read(self, line: int, values: Mapping[str, Any]) -> Example | Problem:
        """The example that a row is, or what is wrong with it."""
        row = rename(Row(line, dict(values)), self.columns, self.name)
        if isinstance(row, Problem):
            return row
        try:
            said = convert_row(self.form, row.values)
        except DataError as error:
            return Problem(f"{self.name}:{line}", error.message, error.fix)
        return Example(
            example_id(said.messages, said.rejected, said.wanted, said.tools),
            said.messages,
            self.name,
            line,
            said.group,
            said.fields,
            said.rejected,
            said.wanted,
            said.tools,
            said.provenance,
        )

    def is_said(self, column: str) -> bool:
        """Whether a column of the file is a part of what the example says."""
        known = self.columns.get(column, column).lower()
        return known in self.form.columns and known not in _NOT_SAID

    def is_shown(self, column: str) -> bool:
        """Whether a column is a part of what the model sees: what is said, and the tools on offer."""
        return self.is_said(column) or self.columns.get(column, column).lower() in _TOOLS


class Draft:
    """One row that could be read.

    Attributes:
        original: the example as it was read.
        example: the example as it is now.
        values: the row as it is now, under the file's own names of columns.
        dropped: whether the row is left out.
    """

    def __init__(self, reader: RowReader, row: Row, example: Example) -> None:
        self.reader = reader
        self.line = row.line
        self.values: Mapping[str, Any] = row.values
        self.original = self.example = example
        self.changes: list[Change] = []
        self.dropped = False

    @property
    def is_touched(self) -> bool:
        """Whether the row has to be written anew."""
        return any(change.action == "changed" for change in self.changes)

    def drop(self, check: str, reason: str) -> None:
        """Leave the row out."""
        before = json.dumps(self.values, ensure_ascii=False)
        self.dropped = True
        self.changes.append(Change(self.line, check, "dropped", "", before, None, reason))

    def rewrite(self, change: Callable[[str], str], check: str, reason: str, *, tools: bool = False) -> None:
        """Change every text of the row, and of the tools on offer; one that then says nothing is dropped."""
        values = rewrite(self.values, self.reader.is_shown if tools else self.reader.is_said, change)
        if values == self.values:
            return
        read = self.reader.read(self.line, values)
        if isinstance(read, Problem):
            self.drop(check, f"{reason}; then {read.message}")
            return
        self._accept(values, read, check, reason)

    def say(self, number: int, text: str, check: str, reason: str) -> bool:
        """Change what a message says; returns whether the row could be written so."""
        old = self.example.messages[number]
        messages = list(self.example.messages)
        messages[number] = replace(old, content=text)
        return self._replace(
            old.content, text, replace(self.example, messages=tuple(messages)), check, reason
        )

    def answer(self, text: str, check: str, reason: str) -> bool:
        """Change the answer; returns whether the row could be written so."""
        return self.say(len(self.example.messages) - 1, text, check, reason)

    def reject(self, number: int, text: str, check: str, reason: str) -> bool:
        """Change one of the worse answers; returns whether the row could be written so."""
        rejected = list(self.example.rejected)
        old, rejected[number] = rejected[number], text
        return self._replace(old, text, replace(self.example, rejected=tuple(rejected)), check, reason)

    def _replace(self, old: str, new: str, wanted: Example, check: str, reason: str) -> bool:
        if old == new:
            return True
        for place, value in reversed(list(places(self.values, self.reader.is_said))):
            if (written := _written(value, old, new)) is None:
                continue
            values = put(self.values, place, written)
            read = self.reader.read(self.line, values)
            if isinstance(read, Example) and _says(read) == _says(wanted):
                self._accept(values, read, check, reason)
                return True
        return False

    def _accept(self, values: Mapping[str, Any], read: Example, check: str, reason: str) -> None:
        new = dict(places(values, self.reader.is_shown))
        for place, value in places(self.values, self.reader.is_shown):
            if isinstance(value, dict | list) or (isinstance(value, str) and holds_turns(value)):
                continue  # what changed inside is told by itself
            if (after := new.get(place, value)) != value:
                told = describe(place), read_text(value, ""), read_text(after, "")
                self.changes.append(Change(self.line, check, "changed", *told, reason))
        self.values, self.example = values, read


def _written(value: Any, old: str, new: str) -> Any:
    """What a value becomes where it ends with the old text; None where it does not."""
    if isinstance(value, str):
        return value[: len(value) - len(old)] + new if value.endswith(old) else None
    if value is None or read_text(value, "") != old:
        return None
    try:
        parsed = json.loads(new)
    except ValueError:
        return new
    return parsed if type(parsed) is type(value) else new


def _says(example: Example) -> tuple[object, ...]:
    return example.messages, example.rejected, example.wanted, example.tools
