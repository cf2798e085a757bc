"""`luthier convert`: examples of any form as any other, in any kind of file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from luthier.errors import DataError, RecipeError
from luthier.examples.columns import Columns as Names
from luthier.examples.example import Example
from luthier.examples.formats import convert_row, recognise_format
from luthier.examples.read import Reading, stream_examples
from luthier.examples.tables import TABLES, Columns, cell, kind_of_file, refuse_cells, writing
from luthier.examples.writing import HOLDS_ALL, WRITTEN, can_be_plain, write_row

# What is written where the user does not say: the form that was read, where it can be.
SAME = {
    "messages": "openai",
    "gemini": "openai",
    "openai preference": "openai-preference",
    "chosen/rejected": "trl-preference",
    "prompt/completion/label": "unpaired",
    "messages/label": "unpaired",
    "sharegpt/label": "unpaired",
    "prompt/completion": "prompt-completion",
    "query/answers/tools": "openai",
    "sharegpt": "sharegpt",
    "alpaca": "alpaca",
    "text": "text",
}


def convert_file(
    source: Path | str, out: Path, *, to: str | None, force: bool, columns: Names | None = None
) -> tuple[int, str, str]:
    """Write the examples of a file, a folder or a data set of the hub as form `to`.

    They are read twice: first everything is tried, so that nothing is written where one cannot be held.

    Args:
        to: a key of `writing.WRITTEN`; the form that was read when None.
        force: replace `out`.

    Returns:
        How many were written, the name of the form that was read, and that of the one written.

    Raises:
        RecipeError: no such form, or no such kind of file; it is there already, or is what is read.
        DataError: an example cannot be read, or not be held; names file and line.
    """
    if to is not None and to not in WRITTEN:
        raise RecipeError(f"no form {to!r}", where="--to", fix=f"use one of {', '.join(WRITTEN)}")
    kind, _ = kind_of_file(out)
    _refuse_to_overwrite(source, out, force=force)
    reading = stream_examples(source, columns=columns)
    if to is None:
        first = next(_examples(reading), None)
        to = SAME.get(reading.format, "luthier" if first is None or first.rejected else "prompt-completion")
    plain = WRITTEN[to].texts and all(can_be_plain(example, to) for example in _examples(reading))
    seen, count = Columns(), 0
    for example in _examples(reading):
        row = write_row(example, to, plain=plain)
        if kind in TABLES:
            refuse_cells(row, kind, example.where)
            _try_cells(example, row, to, plain=plain)
        seen.see(row)
        count += 1
    if not count:
        raise DataError("holds no examples", where=str(source), fix="write one example a line")
    with writing(out, seen) as put:
        for example in _examples(reading):
            put(write_row(example, to, plain=plain))
    return count, reading.format, to


def _examples(reading: Reading) -> Iterator[Example]:
    for item in reading:
        if not isinstance(item, Example):
            raise DataError(item.message, where=item.where, fix=item.fix)
        yield item


def _refuse_to_overwrite(source: Path | str, out: Path, *, force: bool) -> None:
    if out.is_dir():
        raise RecipeError("is a folder", where=str(out), fix="name a file")
    if Path(source).exists() and out.exists() and out.samefile(source):
        raise RecipeError("is what is read", where=str(out), fix="name another file")
    if Path(source).is_dir() and out.resolve().is_relative_to(Path(source).resolve()):
        raise RecipeError("is in the folder that is read", where=str(out), fix="name a file outside of it")
    if out.exists() and not force:
        raise RecipeError("is there already", where=str(out), fix="name another file, or use --force")


def _try_cells(example: Example, row: dict[str, Any], to: str, *, plain: bool) -> None:
    """Read a row back as a table gives it: every list and object is the text of its JSON.

    Raises:
        DataError: something would be read otherwise; other columns count as the same when their texts are.
    """
    cells = {name: cell(value) for name, value in row.items()}
    try:
        form = recognise_format([cells], where=example.where)
        ours, theirs = convert_row(form, row), convert_row(form, cells)
    except DataError as error:
        raise DataError(
            f"a table cannot hold it: {error.message}", where=example.where, fix=HOLDS_ALL
        ) from None
    texts = [{name: cell(value) for name, value in said.fields.items()} for said in (ours, theirs)]
    if ours._replace(fields={}) != theirs._replace(fields={}) or texts[0] != texts[1]:
        raise DataError(
            f"a table of {to} cannot hold it as it is",
            where=example.where,
            fix="write .jsonl, or " + HOLDS_ALL,
        )
