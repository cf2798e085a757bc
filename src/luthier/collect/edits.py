"""Drafts and what people made of them: what was changed is a preference, what was not is a plain example."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.collect.example_row import Row, make_row, refuse_to_overwrite, today, writing
from luthier.collect.log_turns import Turn, read_turns, text_turn
from luthier.collect.log_wire import read_wire
from luthier.collect.table import cell_text, find_column, peek_columns
from luthier.collect.tally import NotTakenError, Tally
from luthier.errors import DataError
from luthier.examples.row import Problem
from luthier.examples.rows import read_rows
from luthier.record import explain_os_errors

CHANGED = "preferences: the edited answer over the draft"
UNCHANGED = "plain examples: the draft was kept to the letter"
SPACED = "plain examples: white space alone was changed"

PROMPTS = (
    "prompt", "messages", "input", "question", "request", "instruction", "query", "user", "ticket", "email",
    "message",
)  # fmt: skip
DRAFTS = (
    "before", "draft", "ai_draft", "model_output", "model_answer", "generated", "suggestion", "suggested",
    "original", "rejected", "old", "completion", "output",
)  # fmt: skip
EDITED = (
    "after", "edited", "edited_answer", "final", "final_answer", "corrected", "correction", "human",
    "human_edit", "sent", "revised", "chosen", "new", "edit",
)  # fmt: skip


@dataclass(frozen=True)
class EditOptions:
    """What is made of pairs.

    Attributes:
        prompt, before, after: columns; found by their usual names where None.
        source, licence: for the provenance; the source is the file's name where None.
    """

    prompt: str | None = None
    before: str | None = None
    after: str | None = None
    source: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Columns:
    """Which columns hold the request, the draft, and what became of it."""

    prompt: str
    before: str
    after: str


def plain_file(out: Path) -> Path:
    """Where examples without a worse answer are written: preference methods would refuse them in `out`."""
    return out.with_name(f"{out.stem}.plain.jsonl")


def collect_edits(
    file: Path, out: Path, options: EditOptions | None = None, *, force: bool = False
) -> tuple[Tally, Columns]:
    """Write preferences to `out`, and drafts that were kept to `plain_file(out)`.

    Returns:
        What was taken (`notes` tells changed, unchanged and spaced apart), and the columns that were read.

    Raises:
        RecipeError: a file to write is there already.
        DataError: the file cannot be read, or the columns are not found.
    """
    options = options or EditOptions()
    for path in (out, plain_file(out)):
        refuse_to_overwrite(path, force=force, inputs=[file])
    rows, names = peek_columns(read_rows(file))
    columns = find_edit_columns(names, options, file)
    tally = Tally()
    with explain_os_errors(out), writing(out) as write, writing(plain_file(out)) as write_plain:
        for row in rows:
            if isinstance(row, Problem):
                tally.leave_out_unreadable(row)
                continue
            tally.read += 1
            try:
                _take(row.values, columns, options, file, {True: write, False: write_plain}, tally)
            except NotTakenError as reason:
                tally.leave_out(str(reason), f"{file}:{row.line}")
    if force and not tally.notes[UNCHANGED] + tally.notes[SPACED]:
        plain_file(out).unlink(missing_ok=True)
    return tally, columns


def find_edit_columns(names: Sequence[str], options: EditOptions, file: Path) -> Columns:
    """The columns that the user named, else the first that is called as such columns usually are.

    Raises:
        DataError: one of them is not found; lists those that there are.
    """
    taken: list[str] = []
    found = {}
    for part, usual in (("after", EDITED), ("before", DRAFTS), ("prompt", PROMPTS)):
        given = getattr(options, part)
        lowered = {name.lower().replace(" ", "_"): name for name in names if name not in taken}
        column = next((lowered[name] for name in usual if name in lowered), None)
        if given is not None:
            column = find_column(given, names, file)
        if column is None:
            raise DataError(
                f"no column for the {_SAID[part]} (found {', '.join(names) or 'none'})",
                where=str(file),
                fix=f"name it: --{part} COLUMN",
            )
        taken.append(column)
        found[part] = column
    return Columns(**found)


_SAID = {"after": "edited answer", "before": "draft", "prompt": "request"}


def _take(
    values: Mapping[str, Any],
    columns: Columns,
    options: EditOptions,
    file: Path,
    writers: Mapping[bool, Callable[[Row], None]],
    tally: Tally,
) -> None:
    before, after = cell_text(values.get(columns.before)), cell_text(values.get(columns.after))
    if not before.strip():
        raise NotTakenError("there is no draft")
    if not after.strip():
        raise NotTakenError("nothing was left of the draft")
    asked = read_request(values.get(columns.prompt))
    changed = before.split() != after.split()
    used = (columns.prompt, columns.before, columns.after)
    row = make_row(
        [*asked, text_turn("assistant", after)],
        rejected=[before] if changed else (),
        columns={key: value for key, value in values.items() if key not in used},
        provenance={
            "source": options.source or file.name,
            "licence": options.licence,
            "date": today(),
            "synthetic": False,  # a person read it, and sent it so
            "edited": changed,
        },
    )
    writers[changed](row)
    tally.taken += 1
    tally.notes[CHANGED if changed else UNCHANGED if before == after else SPACED] += 1


def read_request(value: Any) -> list[Turn]:
    """A request as turns, from a text, from turns, or from those as JSON; answers at its end are left away.

    Raises:
        NotTakenError: there is none.
    """
    value = read_wire(value)
    if isinstance(value, Mapping) and isinstance(value.get("messages"), list):
        value = value["messages"]
    turns = read_turns(value) if isinstance(value, list) else [text_turn("user", cell_text(value))]
    for turn in turns:
        turn.pop("refusal", None)
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    if not any(turn["role"] == "user" and turn["content"].strip() for turn in turns):
        raise NotTakenError("nothing is asked")
    return turns
