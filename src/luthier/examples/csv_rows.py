"""Rows of a table: CSV with commas, semicolons, tabs or bars, and TSV.

A quote that is never closed swallows the rows after it. So where a row over several lines cannot be
read, only its first line is given up, and reading goes on with the second.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from io import BufferedIOBase

from luthier.examples.row import LINE_LIMIT_BYTES, Problem, Row, numbered_lines, too_long

DELIMITERS = ",;\t|"
AGAIN_BYTES = 2**28  # read again after open quotes, before the rest of a file is given up
_QUOTES = 'close every quote, and write one inside a cell as ""'
_HEADER = "name the columns in the first line"
_BROKEN = "\udcff"  # stands for bytes that are no UTF-8


class _Lines:
    """Decoded lines of a file for `csv.reader`, which can be gone back to while a row is not finished."""

    def __init__(self, file: BufferedIOBase, name: str) -> None:
        self._lines = numbered_lines(file, name)
        self._row: list[tuple[int, str]] = []  # handed out since the row began
        self._again: deque[tuple[int, str]] = deque()
        self._size = 0
        self._torn = 0  # up to this line rows may begin in the middle of another
        self.number = 0
        self.spent = 0
        self.too_long = False
        self.problem: Problem | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, text = self._again.popleft() if self._again else self._read()
        self._size += len(text)
        if self._size > LINE_LIMIT_BYTES and self._row:
            self._again.appendleft((number, text))
            self.too_long = True
            raise StopIteration
        self.number = number
        self._row.append((number, text))
        return text

    def _read(self) -> tuple[int, str]:
        if self.problem is not None:
            raise StopIteration
        number, line = next(self._lines)
        if isinstance(line, Problem):
            self.problem = line
            raise StopIteration
        # Broken bytes become lone surrogates, which _table_row reports with the row that holds them.
        return number, line.decode("utf-8", "surrogateescape") + "\n"

    def begin_row(self) -> None:
        """What was handed out is done with."""
        self._row, self._size, self.too_long = [], 0, False

    @property
    def row_start(self) -> int:
        """The line on which the row began."""
        return self._row[0][0] if self._row else self.number + 1

    @property
    def is_torn(self) -> bool:
        """Whether the row looks like the end of one whose beginning was given up: its quotes do not pair."""
        return self.row_start <= self._torn and sum(text.count('"') for _, text in self._row) % 2 == 1

    def give_up_first(self) -> bool:
        """Hand out the lines of the row once more, without the first; False if that was done too often."""
        self._again.extendleft(reversed(self._row[1:]))
        self._torn = max(self._torn, self.number)
        self.spent += self._size
        self.begin_row()
        return self.spent <= AGAIN_BYTES

    def take_problem(self) -> Problem | None:
        """A line that could not be had, once; those after it can, unless the stream has ended there."""
        problem, self.problem = self.problem, None
        return problem


def read_table(file: BufferedIOBase, name: str, delimiter: str | None = None) -> Iterator[Row | Problem]:
    """Rows under the header in the first line; a table without a header has none.

    Args:
        delimiter: found from the header when None, or when the header does not have it: of comma, semicolon
            (as Excel writes in many countries), tab and bar the one that makes the most columns.
    """
    csv.field_size_limit(LINE_LIMIT_BYTES)
    lines = _Lines(file, name)
    first = next((line for line in lines if line.strip()), None)
    if first is not None and first.lower().startswith("sep=") and len(first.rstrip("\n")) == 5:
        delimiter, first = first[4], next(lines, None)  # Excel's own way of telling
    where = f"{name}:{max(lines.number, 1)}"
    if first is None:
        yield lines.take_problem() or Problem(where, "has no header", _HEADER)
        return
    header = _header(first, where, delimiter)
    if isinstance(header, Problem):
        yield header
        return
    lines.begin_row()
    yield from _rows(lines, name, *header)


def _rows(lines: _Lines, name: str, names: list[str], delimiter: str) -> Iterator[Row | Problem]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            problem = lines.take_problem()
            if problem is None:
                return
            yield problem
            lines.begin_row()
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            continue
        except csv.Error as error:
            start, several = lines.row_start, lines.number > lines.row_start
            yield _unreadable(f"{name}:{start}", error, several, lines)
            if not lines.give_up_first():
                yield Problem(
                    f"{name}:{start + 1}",
                    "too many quotes are left open; from here on nothing was read",
                    "close them, or write the table anew",
                )
                return
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            continue
        if cells and any(map(str.strip, cells)):
            where = f"{name}:{lines.row_start}"
            if lines.is_torn:
                yield Problem(where, "seems to be the rest of a row above that cannot be read", _QUOTES)
            else:
                yield _table_row(names, cells, where, lines.row_start, lines.number)
        lines.begin_row()


def _unreadable(where: str, error: csv.Error, several: bool, lines: _Lines) -> Problem:
    text = str(error)
    if "unexpected end" in text or lines.too_long or several:
        return Problem(where, "a quote that opens here is not closed where it should be", _QUOTES)
    if "field larger" in text:
        return too_long(where)
    if "new-line" in text:
        return Problem(where, "a bare carriage return outside quotes", "let each line end with a line feed")
    return Problem(where, f"the row cannot be read: {text}", _QUOTES)


def _header(line: str, where: str, delimiter: str | None) -> tuple[list[str], str] | Problem:
    """The names of the columns and the delimiter between them."""
    read: list[tuple[list[str], str]] = []
    given = delimiter or ""
    for mark in given if given and given in line else given + DELIMITERS:
        try:
            read.append((next(csv.reader([line], delimiter=mark, strict=True), []), mark))
        except csv.Error as error:
            problem = Problem(where, f"the header cannot be read: {error}", _HEADER)
    if not read:
        return problem
    cells, mark = max(read, key=lambda found: len(found[0]))
    names = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, start=1)]
    if not any(map(str.strip, cells)):
        return Problem(where, "has no header", _HEADER)
    if not _is_clean("".join(names)):
        return Problem(where, "the header is not UTF-8", "save the file as UTF-8")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        return Problem(where, f"column {twice[0]!r} appears twice", "give every column its own name")
    return names, mark


def _table_row(names: list[str], cells: list[str], where: str, start: int, end: int) -> Row | Problem:
    if len(cells) > len(names) and not any(map(str.strip, cells[len(names) :])):
        cells = cells[: len(names)]  # spreadsheets write empty cells after the last column
    if len(cells) != len(names):
        lines = f" (lines {start} to {end})" if end > start else ""
        message = f"has {len(cells)} cells, expected {len(names)} ({', '.join(names)}){lines}"
        fix = "quote cells that hold the delimiter or a line break"
        if len(names) == 1:
            fix += "; if the first line is a title, take it out: the names of the columns come first"
        return Problem(where, message, fix)
    joined = "".join(cells)
    if "\0" in joined:
        return Problem(where, "holds a NUL byte", "remove it; is this a text file?")
    if not _is_clean(joined):
        return Problem(where, "the row is not UTF-8", "save the file as UTF-8")
    if cells == names:
        return Problem(where, "repeats the header", "leave the line out; were files joined?")
    return Row(start, dict(zip(names, cells, strict=True)))


def _is_clean(text: str) -> bool:
    """Whether no byte of it was broken."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
