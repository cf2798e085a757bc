"""A file of examples, in whatever form it came, as `Example`s."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from luthier.errors import DataError
from luthier.examples.example import Example, Message
from luthier.examples.formats import Format, convert_row, recognise_format
from luthier.examples.row import Problem, Row
from luthier.examples.rows import read_rows

__all__ = ["Loaded", "Problem", "example_id", "read_examples"]

ROWS_TO_RECOGNISE = 20


@dataclass(frozen=True)
class Loaded:
    """What a file gave.

    Attributes:
        examples: in the order of the file.
        format: name of the form that was recognised, such as `alpaca`.
        problems: what could not be read; empty when read strictly.
    """

    examples: tuple[Example, ...]
    format: str
    problems: tuple[Problem, ...] = ()


def read_examples(path: Path | str, *, strict: bool = True) -> Loaded:
    """Read a .jsonl, .json (a list), .csv, .tsv, .txt or .md file, gzipped or not; its form is recognised.

    Args:
        path: shown in `Example.file` as it is given here.
        strict: stop at the first row that cannot be read; otherwise collect it in `problems`.

    Raises:
        DataError: no such file, not text, nothing recognised, no example, or (strict) a bad row.
    """
    file = str(path)
    rows = read_rows(Path(path))
    first = list(itertools.islice(rows, ROWS_TO_RECOGNISE))
    problems: list[Problem] = []
    format_ = _recognise(first, file)
    examples: list[Example] = []
    seen: Counter[str] = Counter()
    for item in itertools.chain(first, rows):
        read = item if isinstance(item, Problem) else _convert(item, format_, file)
        if isinstance(read, Example):
            seen[read.id] += 1
            examples.append(_with_ordinal(read, seen[read.id]))
        elif strict:
            raise DataError(read.message, where=read.where, fix=read.fix)
        else:
            problems.append(read)
    if not examples:
        raise _nothing_read(problems, file)
    return Loaded(tuple(examples), format_.name, tuple(problems))


def example_id(messages: Sequence[Message], rejected: Sequence[str] = (), wanted: bool = True) -> str:
    """16 hex digits of the sha256 of roles, texts and judgements: the same in every file and run."""
    said: list[object] = [[m.role, m.content] for m in messages]
    if rejected or not wanted:
        said += [{"rejected": list(rejected), "wanted": wanted}]
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()[:16]


def _recognise(first: list[Row | Problem], file: str) -> Format:
    rows = [item.values for item in first if isinstance(item, Row)]
    if rows:
        return recognise_format(rows, where=file)
    raise _nothing_read([item for item in first if isinstance(item, Problem)], file)


def _nothing_read(problems: list[Problem], file: str) -> DataError:
    if problems:
        return DataError(problems[0].message, where=problems[0].where, fix=problems[0].fix)
    return DataError("holds no examples", where=file, fix="write one example a line")


def _convert(row: Row, format_: Format, file: str) -> Example | Problem:
    try:
        said = convert_row(format_, row.values)
    except DataError as error:
        return Problem(f"{file}:{row.line}", error.message, error.fix)
    return Example(
        example_id(said.messages, said.rejected, said.wanted),
        said.messages,
        file,
        row.line,
        said.group,
        said.fields,
        said.rejected,
        said.wanted,
    )


def _with_ordinal(example: Example, ordinal: int) -> Example:
    if ordinal == 1:
        return example
    return replace(example, id=f"{example.id}-{ordinal}")
