"""A row of a file, a problem in it, and the numbered lines both come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, NamedTuple

LINE_LIMIT_BYTES = 16 * 2**20
BOM = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """One row of a file and the line on which it starts (1 is the first); in Parquet its number."""

    line: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """Something that could not be read: `where` is `file:line`."""

    where: str
    message: str
    fix: str | None = None


class StreamError(Exception):
    """The bytes of a file cannot be had from here on.

    Args:
        message: what is wrong, for a `Problem`.
        fix: what to do about it.
    """

    def __init__(self, message: str, fix: str) -> None:
        self.message = message
        self.fix = fix
        super().__init__(message)

    def at(self, where: str) -> Problem:
        """The problem at `where`; what stands there and after it was not read."""
        return Problem(where, f"{self.message}; from here on nothing was read", self.fix)


def too_long(where: str) -> Problem:
    """A line, or another row, over `LINE_LIMIT_BYTES`."""
    limit = f"{LINE_LIMIT_BYTES // 2**20} MiB"
    return Problem(where, f"the line is longer than {limit}", "shorten it or leave it out")


def numbered_lines(file: BufferedIOBase, name: str) -> Iterator[tuple[int, bytes | Problem]]:
    """Numbered lines without their end, or what is wrong with them; a broken stream ends them.

    Args:
        name: of the file, as problems name it.
    """
    number = 0
    try:
        while line := file.readline(LINE_LIMIT_BYTES):
            number += 1
            if len(line) == LINE_LIMIT_BYTES and not line.endswith(b"\n"):
                while (rest := file.readline(LINE_LIMIT_BYTES)) and not rest.endswith(b"\n"):
                    pass
                yield number, too_long(f"{name}:{number}")
                continue
            if number == 1:
                line = line.removeprefix(BOM)
            yield number, line.rstrip(b"\r\n")
    except StreamError as error:
        yield number + 1, error.at(f"{name}:{number + 1}")


def not_utf8(line: bytes, where: str, error: UnicodeDecodeError) -> Problem:
    """A line with bytes that are no UTF-8."""
    fix = "save the file as UTF-8"
    if b"\0" in line:
        fix += "; it holds NUL bytes too: is it UTF-16, or no text at all?"
    return Problem(where, f"byte {error.start + 1} of the line is not UTF-8", fix)
