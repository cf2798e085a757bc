"""A row of Luthier's own form, checked by the reader that will read it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from luthier.collect.tally import NotTakenError
from luthier.errors import DataError, RecipeError
from luthier.examples.formats import FORMATS, convert_row
from luthier.record import fsync_folder

# columns that say something about an example, or would let it be read as something else
RESERVED = (
    "messages",
    "conversations",
    "chosen",
    "rejected",
    "wanted",
    "tools",
    "provenance",
    "text",
    "system",
)
_FORM = next(form for form in FORMATS if form.name == "messages")

Row = dict[str, Any]


def make_row(
    messages: Sequence[Mapping[str, Any]],
    *,
    provenance: Mapping[str, Any],
    columns: Mapping[str, Any] | None = None,
    tools: Sequence[Any] = (),
    rejected: Sequence[str] = (),
) -> Row:
    """A line of a file of examples.

    Args:
        messages: as OpenAI writes them; the last one is the answer.
        provenance: what the row's own column `provenance` says goes before it.
        columns: kept beside; empty ones and those with a meaning of their own (`RESERVED`) are not.

    Raises:
        NotTakenError: the reader would refuse it.
    """
    row: Row = {"messages": [dict(message) for message in messages]}
    row |= {"tools": list(tools)} if tools else {}
    row |= {"rejected": list(rejected)} if rejected else {}
    for name, value in (columns or {}).items():
        if name.lower() not in RESERVED and value not in (None, "", [], {}):
            row[name] = value
    own = (columns or {}).get("provenance")
    told = {name: value for name, value in provenance.items() if value is not None}
    told |= own if isinstance(own, Mapping) else {}
    row |= {"provenance": told} if told else {}
    try:
        convert_row(_FORM, row)
    except DataError as error:
        raise NotTakenError(re.sub(r"\[\d+\]", "[…]", error.message)) from None
    return row


def today() -> str:
    """The day on which rows that know none are collected, as ISO 8601 in UTC."""
    return datetime.now(UTC).date().isoformat()


def refuse_to_overwrite(out: Path, *, force: bool, inputs: Sequence[Path] = ()) -> None:
    """Nothing that is there is replaced unless the user says so, and never what is read.

    Raises:
        RecipeError: it is there, a folder, or one of the inputs.
    """
    if out.is_dir():
        raise RecipeError("is a folder", where=str(out), fix="name a file: --out examples.jsonl")
    if out.suffix != ".jsonl":
        fix = f"name it .jsonl: --out {out.with_suffix('.jsonl').name}"
        raise RecipeError("examples are written as JSON Lines", where=str(out), fix=fix)
    if any(out.resolve() == path.resolve() for path in inputs):
        raise RecipeError("is read, so it cannot be written too", where=str(out), fix="choose another --out")
    if out.exists() and not force:
        fix = "choose another --out, or replace it with --force"
        raise RecipeError("is there already", where=str(out), fix=fix)


@contextlib.contextmanager
def writing(out: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that adds a row to a file; the file appears whole when the context ends, or not at all.

    Without a row there is no file.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    count = 0
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:

            def write(row: Mapping[str, Any]) -> None:
                nonlocal count
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
                count += 1

            yield write
            file.flush()
            os.fsync(file.fileno())
        if count:
            Path(name).chmod(0o644)
            Path(name).replace(out)
            fsync_folder(out.parent)
    finally:
        Path(name).unlink(missing_ok=True)
