"""A file of examples as it is written: taken apart into its rows, and put together with some of them changed.

Where every row has lines of its own (JSON Lines, tables, paragraphs), a row that was not changed keeps its
bytes. A JSON list is written anew, one object a line; Parquet, which is no text, as JSON Lines.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any, Literal, cast

from luthier.examples.compression import Unpacked, packing_named, packing_of
from luthier.examples.csv_rows import DELIMITERS
from luthier.examples.files import DataFile
from luthier.examples.row import BOM, Problem, Row, StreamError
from luthier.examples.rows import BUFFER_BYTES, KINDS, PARQUET, cannot_open, kind_of_text, read_rows

Kind = Literal["lines", "list", "table", "text"]
_MARK = "\ufeff"  # left at the start of a row where files were joined


@dataclass(frozen=True)
class SourceText:
    """A file taken apart.

    Attributes:
        kind: how rows are written.
        items: its rows, and what could not be read, in order.
        nul_lines: lines that held NUL bytes, which were taken out before reading.
        mark_lines: lines that began with a byte order mark.
        head: what stands before the first row, such as a table's header.
        pieces: for each item, its own lines; empty where rows have none of their own.
    """

    kind: Kind
    items: tuple[Row | Problem, ...]
    nul_lines: tuple[int, ...] = ()
    mark_lines: tuple[int, ...] = ()
    head: str = ""
    pieces: tuple[str, ...] = ()

    def write(self, values: Sequence[Mapping[str, Any] | None], touched: Sequence[bool]) -> str:
        """The file with other rows.

        Args:
            values: for each item its row; None leaves it out.
            touched: for each item whether it has to be written anew.
        """
        kept = [n for n, row in enumerate(values) if row is not None]
        if self.kind == "list":
            rows = ",\n  ".join(_dump(values[n]) for n in kept)
            return f"[\n  {rows}\n]\n" if kept else "[]\n"
        if not self.pieces:
            return "".join(_dump(values[n]) + "\n" for n in kept)
        written = [self.head]
        for n in kept:
            piece = self.pieces[n].removeprefix(_MARK)
            if touched[n]:
                body = piece.rstrip("\r\n")
                piece = self._write_row(cast(Mapping[str, Any], values[n]), piece) + piece[len(body) :]
            if not written[-1].endswith("\n") and written[-1]:
                written.append("\n")  # the last line of the file had no end, and is not the last any more
            written.append(piece)
        return "".join(written)

    def _write_row(self, values: Mapping[str, Any], piece: str) -> str:
        if self.kind == "lines":
            return _dump(values)
        if self.kind == "text":
            return str(values["text"])
        line = io.StringIO()
        end = "\r\n" if piece.endswith("\r\n") else "\n"
        names = list(values)
        csv.writer(line, delimiter=_delimiter(self.head, names), lineterminator=end).writerow(values.values())
        return line.getvalue().removesuffix(end)


def take_apart(file: DataFile) -> SourceText:
    """Read a file into its rows and their places.

    Raises:
        DataError: it cannot be read at all, see `rows.read_rows`.
    """
    data, broken = _plain_bytes(file)
    if data.startswith(PARQUET):
        return SourceText("lines", tuple(read_rows(file.path, file.name)))
    nul_lines: tuple[int, ...] = ()
    if b"\0" in data and not _is_utf16(data):
        nul_lines = tuple(n for n, line in enumerate(data.split(b"\n"), 1) if b"\0" in line)
        data = data.replace(b"\0", b"")
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    items = tuple(_rows(data, file))
    if broken is not None:
        items = (*items, broken)
    text = data.removeprefix(BOM).decode("utf-8", "surrogateescape")
    kind = _kind(file, text)
    marks = (1,) if data.startswith(BOM) else ()
    if kind == "list" or not (starts := _starts(items)):
        return SourceText(kind, items, nul_lines, marks)
    head, pieces = _pieces(text, starts)
    joined = (start for start, piece in zip(starts, pieces, strict=True) if piece.startswith(_MARK))
    return SourceText(kind, items, nul_lines, (*marks, *joined), head, pieces)


def line_of(problem: Problem) -> int:
    """The line that a problem names; 1 where it names none."""
    match = re.search(r":(\d+)$", problem.where)
    return int(match[1]) if match else 1


def clean_suffix(path: PurePath) -> str:
    """The ending of a cleaned copy: that of the file, unpacked; JSON Lines for what is no text."""
    inner = path.with_suffix("") if packing_named(path.suffix) else path
    return inner.suffix if KINDS.get(inner.suffix.lower(), "parquet") != "parquet" else ".jsonl"


def _plain_bytes(file: DataFile) -> tuple[bytes, Problem | None]:
    """The content, unpacked, and what is wrong with its end."""
    try:
        with file.path.open("rb") as raw:
            packing = packing_of(raw.read(16))
            raw.seek(0)
            if packing is None:
                return raw.read(), None
            data = bytearray()
            unpacked = Unpacked(raw, packing, file.name)
            try:
                while piece := unpacked.read(2**20):
                    data += piece
            except StreamError as error:
                return bytes(data), error.at(f"{file.name}:{data.count(10) + 1}")
            return bytes(data), None
    except OSError as error:
        raise cannot_open(file.path, file.name, error) from None


def _rows(data: bytes, file: DataFile) -> Iterator[Row | Problem]:
    """The rows of plain bytes, as if they stood in the file."""
    suffix = PurePath(file.path.name)
    inner = suffix.with_suffix("") if packing_named(suffix.suffix) else suffix
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"rows{inner.suffix}"
        copy.write_bytes(data)
        yield from read_rows(copy, file.name)


def _is_utf16(data: bytes) -> bool:
    start = data[:16]
    return start.startswith((b"\xff\xfe", b"\xfe\xff")) or not any(start[::2]) or not any(start[1::2])


def _kind(file: DataFile, text: str) -> Kind:
    named = kind_of_text(file.path, text[:BUFFER_BYTES].encode("utf-8", "surrogateescape"))
    if named in ("csv", "tsv"):
        return "table"
    if named == "text":
        return "text"
    return "list" if text.lstrip().startswith("[") else "lines"


def _starts(items: Sequence[Row | Problem]) -> list[int]:
    """The line on which each item begins; empty where two share one."""
    starts = [item.line if isinstance(item, Row) else line_of(item) for item in items]
    return starts if all(a < b for a, b in pairwise(starts)) else []


def _pieces(text: str, starts: Sequence[int]) -> tuple[str, tuple[str, ...]]:
    lines = text.split("\n")
    lines = [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    ends = [*(start - 1 for start in starts[1:]), len(lines)]
    pieces = ("".join(lines[start - 1 : end]) for start, end in zip(starts, ends, strict=True))
    return "".join(lines[: starts[0] - 1]), tuple(pieces)


def _delimiter(head: str, names: Sequence[str]) -> str:
    """Of a table, the delimiter under which its header has these names."""
    last = head.rstrip("\r\n").rsplit("\n", 1)[-1]
    marks = (head[4] if head.lower().startswith("sep=") and len(head) > 4 else "") + DELIMITERS
    for mark in marks:
        if next(csv.reader([last], delimiter=mark), [])[: len(names)] == list(names):
            return mark
    return max(marks, key=last.count)


def _dump(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False)
