"""A file as rows: every line of JSONL, JSON, CSV or TSV, and every paragraph of plain text, becomes a
dictionary or a `Problem` that names it.

Lines are streamed, so a broken one costs only itself.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path

from luthier.errors import DataError
from luthier.examples.csv_rows import read_table
from luthier.examples.json_rows import read_json, read_jsonl
from luthier.examples.paragraphs import read_paragraphs
from luthier.examples.row import Problem, Row

READABLE = ".jsonl, .json (a list), .csv, .tsv, and .txt or .md (plain text), each also with .gz"
_KINDS = {
    **{".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv"},
    **{".txt": "text", ".md": "text"},
}
_FOREIGN = (
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
    (
        b"PAR1",
        "a Parquet file",
        "write it as JSONL: pandas.read_parquet(f).to_json(g, orient='records', lines=True)",
    ),
    (b"PK\x03\x04", "a zip or Excel file", "unpack it, or save the sheet as CSV (UTF-8)"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it: zstd -d"),
    (b"BZh", "compressed with bzip2", "unpack it: bunzip2"),
)


def read_rows(path: Path) -> Iterator[Row | Problem]:
    """The rows of a file in order, streamed.

    Raises:
        DataError: nothing can be read at all: no such file, a folder, another kind of file.
    """
    kind, zipped = _kind(path)
    try:
        with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) if zipped else raw as file:
            yield from _dispatch(kind, file, path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        yield Problem(
            str(path), f"the gzip stream is broken or cut off ({error})", "download or compress it again"
        )
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from None


def _dispatch(kind: str, file: BufferedIOBase, path: Path) -> Iterator[Row | Problem]:
    if kind == "jsonl":
        return read_jsonl(file, path)
    if kind == "json":
        return read_json(file, path)
    if kind == "text":
        return read_paragraphs(file, path)
    return read_table(file, path, "\t" if kind == "tsv" else None)


def _kind(path: Path) -> tuple[str, bool]:
    where = str(path)
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if set(p.suffixes) & set(_KINDS))[:3]
        hint = f"name one of its files, such as {path / inside[0]}" if inside else f"give a file: {READABLE}"
        raise DataError("is a folder, expected a file of examples", where=where, fix=hint)
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError:
        raise DataError(
            "no such file", where=where, fix="check the path; it is relative to the recipe"
        ) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=where) from None
    if not start:
        raise DataError("is empty, expected one example a line", where=where, fix="write examples into it")
    for magic, what, fix in _FOREIGN:
        if start.startswith(magic):
            raise DataError(f"is {what}, expected UTF-8 text", where=where, fix=fix)
    zipped = start.startswith(b"\x1f\x8b")
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if path.suffix == ".gz" and not zipped:
        raise DataError(
            "is named .gz but is not compressed with gzip", where=where, fix="rename it without .gz"
        )
    if suffix.lower() not in _KINDS:
        raise DataError(
            f"unknown kind of file {path.suffix or '(no ending)'!r}",
            where=where,
            fix=f"Luthier reads {READABLE}",
        )
    return _KINDS[suffix.lower()], zipped
