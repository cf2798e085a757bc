"""Rows of plain text: paragraphs with blank lines between them, each with the line on which it starts."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedIOBase

from luthier.examples.row import LINE_LIMIT_BYTES, Problem, Row, not_utf8, numbered_lines


def read_paragraphs(file: BufferedIOBase, name: str) -> Iterator[Row | Problem]:
    """One row `{"text": ...}` a paragraph, to the letter; a line that cannot be read costs its paragraph."""
    lines: list[str] = []
    start = size = 0
    problem: Problem | None = None
    for number, line in numbered_lines(file, name):
        if not isinstance(line, Problem) and not line.strip():
            yield from _paragraph(start, lines, problem)
            lines, start, size, problem = [], 0, 0, None
            continue
        start = start or number
        if isinstance(line, Problem):
            problem = problem or line
            continue
        size += len(line)
        if size > LINE_LIMIT_BYTES:
            limit = f"{LINE_LIMIT_BYTES // 2**20} MiB"
            fix = "leave a blank line between paragraphs"
            problem = problem or Problem(f"{name}:{start}", f"the paragraph is longer than {limit}", fix)
            lines = []
            continue
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            problem = problem or not_utf8(line, f"{name}:{number}", error)
        if b"\0" in line:
            problem = problem or Problem(
                f"{name}:{number}", "holds a NUL byte", "remove it; is this a text file?"
            )
    yield from _paragraph(start, lines, problem)


def _paragraph(start: int, lines: list[str], problem: Problem | None) -> Iterator[Row | Problem]:
    if problem is not None:
        yield problem
    elif lines:
        yield Row(start, {"text": "\n".join(lines)})
