"""A file as rows: every line of JSONL, JSON, CSV or TSV, every row of Parquet, and every paragraph of plain
text becomes a dictionary or a `Problem` that names it.

Rows are streamed, so a broken one costs only itself and a large file no memory.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, cast

from luthier.errors import DataError
from luthier.examples.compression import Unpacked, packing_named, packing_of
from luthier.examples.csv_rows import read_table
from luthier.examples.json_rows import read_json
from luthier.examples.paragraphs import read_paragraphs
from luthier.examples.parquet_rows import read_parquet
from luthier.examples.row import BOM, Problem, Row, StreamError
from luthier.examples.strict_json import end_of_json

READABLE = (
    ".jsonl, .json, .csv, .tsv, .parquet, and .txt or .md (plain text), each also with .gz, .bz2, .xz or .zst"
)
KINDS = {
    **dict.fromkeys((".jsonl", ".ndjson", ".jsonlines", ".json"), "json"),
    **{".csv": "csv", ".tsv": "tsv"},
    **{".txt": "text", ".md": "text", ".parquet": "parquet"},
}
BUFFER_BYTES = 2**18
PARQUET = b"PAR1"
_FOREIGN = (
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
    (b"PK\x03\x04", "a zip or Excel file", "unpack it, or save the sheet as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", "save the sheet as CSV (UTF-8)"),
    (b"ARROW1", "an Arrow file", "write it as Parquet: datasets.Dataset.from_file(f).to_parquet(g)"),
    (b"%PDF", "a PDF", "write its text as .txt"),
    (b"SQLite format 3", "a SQLite database", "export the table as CSV"),
    (b"version https://", "a Git LFS pointer", "fetch the file that it stands for: git lfs pull"),
)
_PAGE = (b"<!doctype html", b"<html")


def read_rows(path: Path, name: str | None = None) -> Iterator[Row | Problem]:
    """The rows of a file in order, streamed.

    Args:
        name: of the file, as problems name it; its path when None.

    Raises:
        DataError: nothing can be read at all: no such file, a folder, another kind of file; or it unpacks
            to more than it could honestly hold.
    """
    name = str(path) if name is None else name
    try:
        with path.open("rb", buffering=BUFFER_BYTES) as file:
            yield from _rows(cast(io.BufferedReader, file), path, name)
    except IsADirectoryError:
        raise DataError("is a folder, expected a file of examples", where=name, fix=READABLE) from None
    except OSError as error:
        raise cannot_open(path, name, error) from None


def cannot_open(path: Path, name: str, error: OSError) -> DataError:
    """What to say of a file that the system does not give out."""
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return DataError(
                "is a link to a file that is not there", where=name, fix="mend or remove the link"
            )
        return DataError("no such file", where=name, fix="check the path; it is relative to the recipe")
    denied = isinstance(error, PermissionError)
    fix = f"let yourself read it: chmod +r {path.name}" if denied else "copy the file anew, or leave it out"
    return DataError(f"cannot be read: {error.strerror or error}", where=name, fix=fix)


def kind_of_text(path: PurePath, start: bytes) -> str | None:
    """As `kind_named`; json where lines of JSON objects stand in a file that is named as text or a table."""
    kind = kind_named(path)
    return "json" if kind in ("text", "csv", "tsv") and _begins_with_objects(start) else kind


def _begins_with_objects(start: bytes) -> bool:
    """Whether the first line is an object, or opens a list of them, and the second goes on like it."""
    text = start.removeprefix(BOM).decode("utf-8", "surrogateescape").strip()
    first, _, rest = text.partition("\n")
    if first[:1] == "{":
        return end_of_json(first, 0) == len(first.rstrip()) and rest.lstrip()[:1] in ("", "{")
    return text[:1] == "[" and text[1:].lstrip()[:2] in ('{"', "{\n", "{ ")


def kind_named(path: PurePath) -> str | None:
    """What kind of file a name tells: json, csv, tsv, text, parquet; None when it tells none."""
    return KINDS.get(_inner(path).suffix.lower())


def _inner(path: PurePath) -> PurePath:
    """The path without what says how the file is compressed."""
    return path.with_suffix("") if packing_named(path.suffix) else path


def _rows(file: io.BufferedReader, path: Path, name: str) -> Iterator[Row | Problem]:
    start = file.peek(16)[:16]
    if not start:
        raise DataError("is empty, expected one example a line", where=name, fix="write examples into it")
    packing, named = packing_of(start), packing_named(path.suffix)
    if packing is None and named is not None:
        fix = f"rename it without {path.suffix}"
        raise DataError(
            f"is named {path.suffix} but is not compressed with {named.name}", where=name, fix=fix
        )
    if packing is not None:
        raw = cast(io.RawIOBase, Unpacked(file, packing, name))
        file = io.BufferedReader(raw, BUFFER_BYTES)
        try:
            start = file.peek(16)[:16]
        except StreamError as error:
            yield error.at(f"{name}:1")
            return
        if packing_of(start):
            raise DataError("is compressed twice", where=name, fix=f"unpack it once: {packing.name} -d")
    kind = _kind(start, path, name)
    if kind == "parquet":
        yield from _parquet(file, packing is not None, name)
        return
    lines = _with_line_feeds(file)
    kind = kind_of_text(path, lines.peek(BUFFER_BYTES)) or kind
    if kind == "json":
        yield from read_json(lines, name, whole=_inner(path).suffix.lower() == ".json")
    elif kind == "text":
        yield from read_paragraphs(lines, name)
    else:
        yield from read_table(lines, name, "\t" if kind == "tsv" else None)


def _kind(start: bytes, path: Path, name: str) -> str:
    """What kind of file it is, by its first bytes and its name."""
    kind = kind_named(path)
    if start.startswith(PARQUET):
        return "parquet"
    for magic, what, fix in _FOREIGN:
        if start.startswith(magic):
            raise DataError(f"is {what}, expected UTF-8 text", where=name, fix=fix)
    if len(start) >= 4 and (not any(start[::2]) or not any(start[1::2])) and any(start):
        raise DataError("looks like UTF-16 text, expected UTF-8", where=name, fix="save it as UTF-8")
    if start.lower().startswith(_PAGE) and kind != "text":
        fix = "download the file itself; a server may have answered with a page that says why not"
        raise DataError("is a web page, expected examples", where=name, fix=fix)
    if kind is None and (path.suffix == ".tgz" or _inner(path).suffix == ".tar"):
        raise DataError("is an archive", where=name, fix="unpack it, and give the folder: tar -xf")
    if kind is None:
        raise DataError(
            f"unknown kind of file {path.suffix or '(no ending)'!r}",
            where=name,
            fix=f"Luthier reads {READABLE}",
        )
    if kind == "parquet":
        raise DataError("is named .parquet but is no Parquet file", where=name, fix="write it again")
    return kind


def _parquet(file: io.BufferedReader, packed: bool, name: str) -> Iterator[Row | Problem]:
    if not packed:
        yield from read_parquet(file, name)
        return
    with tempfile.TemporaryFile() as plain:
        try:
            while data := file.read(BUFFER_BYTES):
                plain.write(data)
        except StreamError as error:
            yield error.at(f"{name}:1")
            return
        plain.seek(0)
        yield from read_parquet(cast(io.BufferedReader, plain), name)


class _LineFeeds(io.RawIOBase):
    """A file whose lines end with carriage returns alone, with line feeds in their place."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or part of it; 0 at the end."""
        data = self._file.read1(len(buffer)).replace(b"\r", b"\n")
        buffer[: len(data)] = data
        return len(data)


def _with_line_feeds(file: io.BufferedReader) -> io.BufferedReader:
    """The file; its first buffer tells whether lines end with carriage returns alone, as on old Macs."""
    start = file.peek(BUFFER_BYTES)
    if b"\n" in start or b"\r" not in start.rstrip(b"\r"):
        return file
    return io.BufferedReader(cast(io.RawIOBase, _LineFeeds(file)), BUFFER_BYTES)
