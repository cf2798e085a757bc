"""A table (CSV, TSV, Parquet, or rows of JSON) as examples: which column is asked, which is the answer."""

from __future__ import annotations

import itertools
import json
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.collect.example_row import Row, make_row, refuse_to_overwrite, today, writing
from luthier.collect.tally import NotTakenError, Tally
from luthier.errors import DataError, RecipeError
from luthier.examples.row import Problem
from luthier.examples.row import Row as FileRow
from luthier.examples.rows import read_rows
from luthier.record import explain_os_errors


@dataclass(frozen=True)
class TableOptions:
    """What is made of a table.

    Attributes:
        answer: column of the answer.
        prompt: column of what is asked; None with a template.
        template: what is asked, with `{column}` for the text of a column.
        system: system prompt of every example.
        source, licence: for the provenance; the source is the file's name where None.
    """

    answer: str
    prompt: str | None = None
    template: str | None = None
    system: str | None = None
    source: str | None = None
    licence: str | None = None


def collect_table(file: Path, out: Path, options: TableOptions, *, force: bool = False) -> Tally:
    """Write an example for each row; columns that are not asked for stay beside it.

    Raises:
        RecipeError: `out` is there already, or neither or both of prompt and template are given.
        DataError: the file cannot be read, or a column is not in it.
    """
    if (options.prompt is None) == (options.template is None):
        raise RecipeError(
            "say what is asked, in one way", fix='give --prompt COLUMN, or --template "… {column} …"'
        )
    parts = (
        [(options.prompt, "")] if options.prompt is not None else list(parse_template(options.template or ""))
    )
    refuse_to_overwrite(out, force=force, inputs=[file])
    tally = Tally()
    rows, columns = peek_columns(read_rows(file))
    named = {name: find_column(name, columns, file) for name in (options.answer, *_names(parts))}
    with explain_os_errors(out), writing(out) as write:
        for row in rows:
            if isinstance(row, Problem):
                tally.leave_out_unreadable(row)
                continue
            tally.read += 1
            try:
                write(_example(row.values, parts, named, options, file))
                tally.taken += 1
            except NotTakenError as reason:
                tally.leave_out(str(reason), f"{file}:{row.line}")
    return tally


def parse_template(template: str) -> Iterator[tuple[str | None, str]]:
    """Columns and the texts before them, as (column or None, text); `\\n` is a line break, `{{` a brace.

    Raises:
        RecipeError: a brace is not closed, or no column is named.
    """
    fix = "write a column in braces, as {subject}; a brace of the text itself twice, as {{"
    try:
        parts = list(string.Formatter().parse(template.replace("\\n", "\n")))
    except ValueError as error:
        raise RecipeError(f"--template cannot be read: {error}", fix=fix) from None
    if not any(name for _, name, _, _ in parts):
        raise RecipeError("--template names no column", fix=fix)
    for text, name, spec, conversion in parts:
        column = (
            None
            if name is None
            else name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
        )
        yield column, text


def peek_columns(rows: Iterable[FileRow | Problem]) -> tuple[Iterator[FileRow | Problem], list[str]]:
    """The rows, and the columns of the first one that could be read."""
    rows = iter(rows)
    before = []
    for row in rows:
        before.append(row)
        if isinstance(row, FileRow):
            break
    first = before[-1] if before else None
    columns = list(first.values) if isinstance(first, FileRow) else []
    return itertools.chain(before, rows), columns


def find_column(name: str, columns: Sequence[str], file: Path) -> str:
    """The column called so; capitals are minded where they tell two apart.

    Raises:
        DataError: there is none; lists those that there are.
    """
    alike = [column for column in columns if column.lower() == name.strip().lower()]
    if name in columns or len(alike) == 1:
        return name if name in columns else alike[0]
    raise DataError(
        f"no column {name!r}", where=str(file), fix=f"name one of: {', '.join(columns) or '(none)'}"
    )


def cell_text(value: Any) -> str:
    """What a cell says: the text itself, JSON for lists and objects, nothing for null."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _names(parts: Iterable[tuple[str | None, str]]) -> list[str]:
    return [name for name, _ in parts if name]


def _example(
    values: Mapping[str, Any],
    parts: Sequence[tuple[str | None, str]],
    named: Mapping[str, str],
    options: TableOptions,
    file: Path,
) -> Row:
    cells = {name: cell_text(values.get(column)) for name, column in named.items()}
    if not any(cells[name].strip() for name in _names(parts)):
        raise NotTakenError(f"nothing is asked: {', '.join(_names(parts))} empty")
    if not cells[options.answer].strip():
        raise NotTakenError(f"no answer: {options.answer} empty")
    asked = "".join(text + (cells[name] if name else "") for name, text in parts)
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": cells[options.answer]}]
    if options.system:
        messages.insert(0, {"role": "system", "content": options.system})
    used = set(named.values())
    return make_row(
        messages,
        columns={key: value for key, value in values.items() if key not in used},
        provenance={"source": options.source or file.name, "licence": options.licence, "date": today()},
    )
