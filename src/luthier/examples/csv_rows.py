"""Rows of a table: CSV with commas, semicolons or tabs, and TSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path

from luthier.errors import DataError
from luthier.examples.row import LINE_LIMIT_BYTES, Problem, Row, numbered_lines


class _Lines:
    """Decoded lines of a file for `csv.reader`, with the number of lines handed out."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._lines = numbered_lines(file)
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.count, line = next(self._lines)
        # Broken bytes become lone surrogates, which _table_row reports with the row that holds them.
        return "\udcff" if line is None else line.decode("utf-8", "surrogateescape") + "\n"


def read_table(file: BufferedIOBase, path: Path, delimiter: str | None = None) -> Iterator[Row | Problem]:
    """Rows under the header in the first line.

    Args:
        delimiter: found from the header when None: a comma, else a semicolon (as Excel writes in
            many countries), else a tab.

    Raises:
        DataError: the header is missing or names a column twice.
    """
    csv.field_size_limit(LINE_LIMIT_BYTES)
    lines = _Lines(file)
    first = next(lines, "")
    if delimiter is None:
        delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    header = _header(first, path, delimiter)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = lines.count + 1
        where = f"{path}:{line}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Problem(where, _explain(error), 'write a quote inside a cell as ""')
            continue
        if any(cell.strip() for cell in cells):
            yield _table_row(header, cells, where, line)


def _explain(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return "a quote that opens here is never closed; the rest of the file was not read"
    return f"the row cannot be read: {error}"


def _header(line: str, path: Path, delimiter: str) -> list[str]:
    try:
        header = [name.strip() for name in next(csv.reader([line], delimiter=delimiter, strict=True), [])]
    except csv.Error as error:
        raise DataError(
            f"the header cannot be read: {error}", where=f"{path}:1", fix="name the columns in the first line"
        ) from None
    if not any(header):
        raise DataError("has no header", where=f"{path}:1", fix="name the columns in the first line")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(
            f"column {twice[0]!r} appears twice", where=f"{path}:1", fix="give every column its own name"
        )
    return header


def _table_row(header: list[str], cells: list[str], where: str, line: int) -> Row | Problem:
    if len(cells) != len(header):
        message = f"has {len(cells)} cells, expected {len(header)} ({', '.join(header)})"
        return Problem(where, message, "quote cells that hold the delimiter or a line break")
    joined = "".join(cells)
    if "\0" in joined:
        return Problem(where, "holds a NUL byte", "remove it; is this a text file?")
    try:
        joined.encode()
    except UnicodeEncodeError:
        return Problem(where, "the row is not UTF-8, or longer than 16 MiB", "save the file as UTF-8")
    return Row(line, dict(zip(header, cells, strict=True)))
