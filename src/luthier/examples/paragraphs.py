"""Rows of plain text: paragraphs with blank lines between them, each with the line on which it starts."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path

from luthier.examples.row import LINE_LIMIT_BYTES, Problem, Row, numbered_lines


def read_paragraphs(file: BufferedIOBase, path: Path) -> Iterator[Row | Problem]:
    """One row `{"text": ...}` a paragraph, to the letter; a line that cannot be read costs its paragraph."""
    lines: list[str] = []
    start = 0
    problem: Problem | None = None
    for number, line in numbered_lines(file):
        if line is not None and not line.strip():
            yield from _paragraph(start, lines, problem)
            lines, start, problem = [], 0, None
            continue
        start = start or number
        try:
            if line is None:
                limit = f"{LINE_LIMIT_BYTES // 2**20} MiB"
                problem = Problem(f"{path}:{number}", f"the line is longer than {limit}", "break it up")
            else:
                lines.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            what = f"byte {error.start + 1} of the line is not UTF-8"
            problem = Problem(f"{path}:{number}", what, "save the file as UTF-8")
    yield from _paragraph(start, lines, problem)


def _paragraph(start: int, lines: list[str], problem: Problem | None) -> Iterator[Row | Problem]:
    if problem is not None:
        yield problem
    elif lines:
        yield Row(start, {"text": "\n".join(lines)})
