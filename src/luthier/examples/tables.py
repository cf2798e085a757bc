"""Rows into a file: JSON Lines, a JSON list, CSV, TSV or Parquet, compressed or not; whole or not at all."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from luthier.errors import DataError, RecipeError
from luthier.examples.compression import zstd

Row = Mapping[str, Any]
Put = Callable[[Row], None]
KINDS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
PACKINGS = (".gz", ".zst", ".xz", ".bz2")
TABLES = ("csv", "tsv", "parquet")
PARQUET_ROWS = 1000
_INT64 = 2**63


class Columns:
    """What stands in each column, over all rows: names in order, and the kind of each for Parquet."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}

    def see(self, row: Row) -> None:
        """Take note of a row."""
        for name, value in row.items():
            kind, before = _kind_of(value), self.kinds.get(name)
            if before in (None, "null"):
                self.kinds[name] = kind
            elif kind not in (before, "null"):
                numbers = {kind, before} == {"int64", "double"}
                self.kinds[name] = "double" if numbers else "string"


def kind_of_file(path: Path) -> tuple[str, str]:
    """What a name's ending says: the kind of file, and the ending of its compression or "".

    Raises:
        RecipeError: no kind that can be written.
    """
    packing = path.suffix.lower() if path.suffix.lower() in PACKINGS else ""
    kind = KINDS.get((Path(path.stem) if packing else path).suffix.lower())
    if kind is None or (kind == "parquet" and packing):
        packed = f"each also with {', '.join(PACKINGS)}; .parquet is compressed in itself"
        written = ", ".join(ending for ending in KINDS if ending != ".parquet")
        raise RecipeError("no kind of file to write", where=str(path), fix=f"name it {written} ({packed})")
    return kind, packing


def cell(value: Any) -> str:
    """A value as the text of a table's cell: lists and objects as JSON, null as nothing."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, allow_nan=False)


def refuse_cells(row: Row, kind: str, where: str) -> None:
    """Refuse what a table of text cannot hold as it is.

    Raises:
        DataError: a carriage return or NUL in a cell of CSV or TSV, or spaces around a column's name.
    """
    if kind not in ("csv", "tsv"):
        return
    for name, value in row.items():
        if name != name.strip() or not name or set(name) & set("\r\n\0"):
            raise DataError(f"column {name!r} is no name for a table", where=where, fix="rename it")
        if isinstance(value, str) and set(value) & set("\r\0"):
            fix = "write JSONL or Parquet"
            raise DataError(
                f"{name} has a carriage return or NUL, which {kind} cannot hold", where=where, fix=fix
            )


@contextlib.contextmanager
def writing(path: Path, columns: Columns) -> Iterator[Put]:
    """A function that adds a row to a file, which appears whole when the context ends, or not at all.

    Args:
        columns: of all rows that will come.

    Raises:
        OSError: it cannot be written.
    """
    kind, packing = kind_of_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as raw:
            with _packed(raw, packing) as file:
                if kind == "parquet":
                    with _parquet(file, columns) as put:
                        yield put
                else:
                    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
                    with _lines(text, kind, columns) as put:
                        yield put
                    text.flush()
                    text.detach()
            raw.flush()
            os.fsync(raw.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def _packed(raw: IO[bytes], packing: str) -> Iterator[Any]:
    if not packing:
        yield raw
        return
    opened: dict[str, Callable[[], Any]] = {
        ".gz": lambda: gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0),
        ".xz": lambda: lzma.open(raw, "wb"),  # noqa: SIM115 the caller is the context
        ".bz2": lambda: bz2.BZ2File(raw, "wb"),
        ".zst": lambda: zstd().ZstdFile(raw, "wb"),
    }
    with opened[packing]() as file:
        yield file


@contextlib.contextmanager
def _lines(file: io.TextIOWrapper, kind: str, columns: Columns) -> Iterator[Put]:
    if kind in ("csv", "tsv"):
        table = csv.writer(file, delimiter="\t" if kind == "tsv" else ",", lineterminator="\n")
        table.writerow(columns.kinds)
        yield lambda row: table.writerow([cell(row.get(name)) for name in columns.kinds])
        return
    count = 0

    def put(row: Row) -> None:
        nonlocal count
        before = ("" if kind == "jsonl" else "[\n") if not count else ("" if kind == "jsonl" else ",\n")
        after = "\n" if kind == "jsonl" else ""
        file.write(before + json.dumps(row, ensure_ascii=False, allow_nan=False) + after)
        count += 1

    yield put
    if kind == "json":
        file.write("\n]\n" if count else "[]\n")


@contextlib.contextmanager
def _parquet(file: Any, columns: Columns) -> Iterator[Put]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = {"string": pa.string(), "bool": pa.bool_(), "int64": pa.int64(), "double": pa.float64()}
    types = {}
    for name, kind in columns.kinds.items():
        keys = kind.removeprefix("turns:").split(",") if kind.startswith("turns:") else []
        turn = pa.list_(pa.struct([(key, pa.string()) for key in keys]))
        types[name] = turn if keys else plain.get(kind, pa.string())
    schema = pa.schema(list(types.items()))
    waiting: list[Row] = []

    def flush() -> None:
        rows = [
            {name: _parquet_value(row.get(name), types[name] == pa.string()) for name in types}
            for row in waiting
        ]
        table.write_table(pa.Table.from_pylist(rows, schema=schema))
        waiting.clear()

    def put(row: Row) -> None:
        waiting.append(row)
        if len(waiting) == PARQUET_ROWS:
            flush()

    with pq.ParquetWriter(file, schema, compression="zstd") as table:
        yield put
        if waiting:
            flush()


def _parquet_value(value: Any, is_text: bool) -> Any:
    return cell(value) if is_text and value is not None else value


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if -_INT64 <= value < _INT64 else "string"
    if isinstance(value, float):
        return "double"
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        keys = {tuple(item) for item in value}
        texts = all(isinstance(text, str) for item in value for text in item.values())
        if len(keys) == 1 and texts and keys != {()}:
            return "turns:" + ",".join(next(iter(keys)))
    return "string"
