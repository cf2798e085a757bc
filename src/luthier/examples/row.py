"""A row of a file, a problem in it, and the numbered lines both come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any

LINE_LIMIT_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Row:
    """One row of a file and the line on which it starts (1 is the first)."""

    line: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """Something that could not be read: `where` is `file:line`."""

    where: str
    message: str
    fix: str | None = None


def numbered_lines(file: BufferedIOBase) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines without their end; None stands for a line over `LINE_LIMIT_BYTES`."""
    number = 0
    while line := file.readline(LINE_LIMIT_BYTES):
        number += 1
        if len(line) == LINE_LIMIT_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(LINE_LIMIT_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        yield number, line.rstrip(b"\r\n")
