"""Rows of a Parquet file, a few at a time; lists and structs become plain Python."""

from __future__ import annotations

import base64
import datetime
import math
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

from luthier.examples.row import Problem, Row

BATCH_ROWS = 256


def read_parquet(file: BufferedIOBase, name: str) -> Iterator[Row | Problem]:
    """Rows in order; a row's number (1 is the first) stands where other kinds have a line.

    Bytes become Base64, dates ISO 8601; NaN and infinity, which JSON has not, cost their row.

    Args:
        file: with `seek`, since the description of the columns stands at the end.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        table = pq.ParquetFile(file, page_checksum_verification=True)
        names = table.schema_arrow.names
        if len(set(names)) < len(names):
            twice = next(column for column in names if names.count(column) > 1)
            yield Problem(f"{name}:1", f"column {twice!r} appears twice", "give every column its own name")
            return
        for batch in table.iter_batches(batch_size=BATCH_ROWS):
            for values in _plain_rows(batch):
                number += 1
                if isinstance(values, dict):
                    yield _row(values, name, number)
                else:
                    yield Problem(f"{name}:{number}", f"cannot be read: {values}", "write the row again")
    except (pa.ArrowException, OSError, ValueError, OverflowError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        yield Problem(
            f"{name}:{number + 1}",
            f"the Parquet file is broken or cut off ({reason}); from here on nothing was read",
            "write or download it again",
        )


def _plain_rows(batch: Any) -> Iterator[dict[str, Any] | str]:
    """The rows of a batch; where one of them cannot be read, why."""
    try:
        yield from batch.to_pylist()
        return
    except ValueError:  # such as a text that is not UTF-8; none was given out yet
        pass
    for position in range(batch.num_rows):
        try:
            yield batch.slice(position, 1).to_pylist()[0]
        except UnicodeDecodeError:
            yield "a text is not UTF-8"
        except ValueError as error:
            yield " ".join(str(error).split())[:200]


def _row(values: dict[str, Any], name: str, number: int) -> Row | Problem:
    plain: dict[str, Any] = {}
    for key, value in values.items():
        try:
            plain[key] = _plain(value)
        except ValueError as error:
            return Problem(
                f"{name}:{number}", f"column {key!r}: {error}", "write null, or leave the row or column out"
            )
    return Row(number, plain)


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a JSON number")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            return {str(key): _plain(item) for key, item in value}  # a map
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return base64.b64encode(value).decode() if isinstance(value, bytes) else _text(value)


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)
