"""Examples, in whatever form and kind of file they came, as `Example`s."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from luthier.errors import DataError
from luthier.examples.columns import Columns, check_columns, refuse_absent, rename, suggest_columns
from luthier.examples.example import Example
from luthier.examples.files import DataFile, find_files
from luthier.examples.formats import FORMATS, Format, convert_row, recognise_format
from luthier.examples.identity import example_id
from luthier.examples.row import Problem, Row
from luthier.examples.rows import read_rows

__all__ = ["Loaded", "Problem", "Reading", "example_id", "read_examples", "stream_examples"]

ROWS_TO_RECOGNISE = 20
TITLES = {"sharegpt": "ShareGPT", "alpaca": "Alpaca", "text": "plain text"}


@dataclass(frozen=True)
class Loaded:
    """What a source gave.

    Attributes:
        examples: in the order of the files, and in each of its rows.
        format: name of the form that was recognised, such as `alpaca`; of several files, all of them.
        problems: what could not be read; empty when read strictly.
        passed_over: files of a folder that were not read, with the reason.
        revision: commit of the hub that the files are from.
    """

    examples: tuple[Example, ...]
    format: str
    problems: tuple[Problem, ...] = ()
    passed_over: tuple[Problem, ...] = ()
    revision: str | None = None

    def describe(self) -> str:
        """How it was read, to be shown: `ShareGPT, 3.0 turns on average`."""
        title = ", ".join(TITLES.get(name, name) for name in self.format.split(", "))
        asked = [example for example in self.examples if example.request]
        if not asked:
            return title
        turns = statistics.fmean(sum(m.role != "system" for m in example.messages) for example in asked)
        counts = {
            "with a system prompt": sum(any(m.role == "system" for m in e.messages) for e in asked),
            "with calls of tools": sum(any(m.tool_calls for m in e.messages) for e in asked),
            "with worse answers beside": sum(bool(e.rejected) for e in asked),
            "whose answer should not be given": sum(not e.wanted for e in asked),
        }
        told = [f"{count} {what}" for what, count in counts.items() if count]
        return ", ".join([title, f"{turns:.1f} turns on average", *told])


def read_examples(
    path: Path | str, *, strict: bool = True, columns: Columns | None = None, texts: bool = False
) -> Loaded:
    """Read a file of examples, a folder of them, or `hub:OWNER/NAME[@SPLIT]`; the form is recognised.

    Files are .jsonl, .json, .csv, .tsv, .parquet, .txt or .md, compressed or not.

    Args:
        path: shown in `Example.file` as it is given here.
        strict: stop at the first row that cannot be read; otherwise collect it in `problems`.
        columns: from the user's names of columns to known ones, such as `{"frage": "prompt"}`.
        texts: plain texts are wanted: a column `text` is one, although a label or a summary stands beside it.

    Raises:
        DataError: no such file, not text, nothing recognised, no example, or (strict) a bad row.
    """
    reading = Reading(path, columns=columns or {}, form=None, texts=texts)
    examples: list[Example] = []
    problems: list[Problem] = []
    for item in reading:
        if isinstance(item, Example):
            examples.append(item)
        elif strict:
            raise DataError(item.message, where=item.where, fix=item.fix)
        else:
            problems.append(item)
    if not examples:
        raise _nothing_read(problems, str(path))
    return Loaded(tuple(examples), reading.format, tuple(problems), reading.passed_over, reading.revision)


def stream_examples(
    path: Path | str, *, columns: Columns | None = None, format: str | None = None
) -> Reading:
    """As `read_examples`, one example or problem at a time, so that the number of examples costs no memory.

    Args:
        format: name of the form, where it should not be recognised.

    Raises:
        DataError: nothing can be read: see `read_examples`; bad rows are `Problem`s.
    """
    return Reading(path, columns=columns or {}, form=None if format is None else _form_named(format))


class Reading:
    """A source that is being read; each iteration begins anew and gives `Example`s and `Problem`s.

    Attributes:
        files: what is read, in order.
        passed_over: files of a folder that are not, with the reason.
        revision: commit of the hub that the files are from.
    """

    def __init__(
        self, path: Path | str, *, columns: Columns, form: Format | None, texts: bool = False
    ) -> None:
        try:
            self._columns = check_columns(columns)
        except ValueError as error:
            raise DataError(str(error), where=str(path), fix="correct `columns`") from None
        found = find_files(path)
        self.files = found.files
        self.passed_over = found.passed_over
        self.revision = found.revision
        self._form, self._texts = form, texts
        self._names: dict[str, None] = {}
        problems: list[Problem] = []
        for file in self.files:
            try:
                rows = itertools.islice(self._rows(file), ROWS_TO_RECOGNISE)
                self._recognise(list(rows), file.name)
                return
            except DataError as error:
                if len(self.files) == 1:
                    raise
                problems.append(Problem(error.where or file.name, error.message, error.fix))
        raise _nothing_read(problems, str(path))

    @property
    def format(self) -> str:
        """Name of the form; of several files, those of the files read so far."""
        return ", ".join(self._names)

    def __iter__(self) -> Iterator[Example | Problem]:
        """Every example, and every row or file that cannot be read."""
        once: set[int] = set()  # as numbers, which take half the memory of the ids
        again: Counter[str] = Counter()
        for file in self.files:
            for item in self._read(file):
                if isinstance(item, Example):
                    number = int(item.id, 16)
                    if number in once:
                        again[item.id] += 1
                        yield replace(item, id=f"{item.id}-{again[item.id] + 1}")
                        continue
                    once.add(number)
                yield item

    def _read(self, file: DataFile) -> Iterator[Example | Problem]:
        """One file; of several, one that cannot be read at all is a problem like others."""
        try:
            rows = self._rows(file)
            first = list(itertools.islice(rows, ROWS_TO_RECOGNISE))
            form = self._recognise(first, file.name)
        except DataError as error:
            if len(self.files) == 1:
                raise
            yield Problem(error.where or file.name, error.message, error.fix)
            yield from self._left_out(file)
            return
        for item in itertools.chain(first, rows):
            yield item if isinstance(item, Problem) else _convert(item, form, file.name)

    def _left_out(self, file: DataFile) -> Iterator[Problem]:
        """The rows of a file whose form is not known, so that each of them is counted."""
        try:
            for number, item in enumerate(self._rows(file)):
                if isinstance(item, Problem):
                    yield item
                elif number:
                    yield Problem(
                        f"{file.name}:{item.line}", "is of no known form", "see its file's first row"
                    )
        except DataError:
            return  # as was said already

    def _rows(self, file: DataFile) -> Iterator[Row | Problem]:
        rows = read_rows(file.path, file.name)
        if not self._columns:
            return rows
        return (
            item if isinstance(item, Problem) else rename(item, self._columns, file.name) for item in rows
        )

    def _recognise(self, first: Sequence[Row | Problem], name: str) -> Format:
        rows = [item.values for item in first if isinstance(item, Row)]
        if not rows:
            raise _nothing_read([item for item in first if isinstance(item, Problem)], name)
        refuse_absent(rows, self._columns, name)
        form = self._form or _recognise(rows, name)
        if self._texts and form.needs[0] == "text":
            form = _form_named("text")
        self._names[form.name] = None
        return form


def _recognise(rows: Sequence[dict[str, object]], name: str) -> Format:
    try:
        return recognise_format(rows, where=name)
    except DataError as error:
        fix = suggest_columns(rows) or f"{error.fix}; or map yours with `columns: {{YOURS: KNOWN}}`"
        raise DataError(error.message, where=error.where, fix=fix) from None


def _form_named(name: str) -> Format:
    for form in FORMATS:
        if form.name == name:
            return form
    names = list(dict.fromkeys(form.name for form in FORMATS))
    near = get_close_matches(name, names, n=1)
    raise DataError(
        f"no form {name!r}", fix=f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    )


def _nothing_read(problems: Sequence[Problem], name: str) -> DataError:
    if problems:
        return DataError(problems[0].message, where=problems[0].where, fix=problems[0].fix)
    return DataError("holds no examples", where=name, fix="write one example a line")


def _convert(row: Row, form: Format, file: str) -> Example | Problem:
    try:
        said = convert_row(form, row.values)
    except DataError as error:
        return Problem(f"{file}:{row.line}", error.message, error.fix)
    return Example(
        example_id(said.messages, said.rejected, said.wanted, said.tools),
        said.messages,
        file,
        row.line,
        said.group,
        said.fields,
        said.rejected,
        said.wanted,
        said.tools,
        said.provenance,
    )
