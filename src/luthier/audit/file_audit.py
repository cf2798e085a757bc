"""The audit of a source of examples: held in memory while they are few, as a stream when they are many."""

from __future__ import annotations

import contextlib
import gc
import itertools
import tempfile
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from time import monotonic
from typing import Any

from luthier.audit.checks import Audit, audit_examples
from luthier.audit.kept import Sample
from luthier.audit.streaming import SAMPLE_EXAMPLES, audit_stream
from luthier.errors import DataError
from luthier.examples import Loaded, Problem, stream_examples
from luthier.examples.example import Example
from luthier.examples.problems import ProblemKinds
from luthier.examples.read import Reading
from luthier.examples.rows import kind_named
from luthier.progress import Advance

HELD_EXAMPLES = 100_000
PROBLEMS_KEPT = 1000
COLLECTED_OBJECTS = 100_000  # at once; the interpreter's 700 cost a tenth of the time
_FIRST_LINES = 1000  # so that the form is recognised from the same rows
_ADVANCE_EXAMPLES = 2000


@dataclass(frozen=True)
class FileAudit:
    """What a source held, and what the checks found.

    Attributes:
        examples: all of them, or (`streamed`) a sample.
        format: name of the form; `described` in words.
        problems: what could not be read, the first of it; `left_out` counts all, `kinds` by what is wrong.
        passed_over: files of a folder that were not read.
    """

    audit: Audit
    examples: tuple[Example, ...]
    format: str
    described: str
    problems: tuple[Problem, ...]
    left_out: int
    passed_over: tuple[Problem, ...]
    streamed: bool
    kinds: ProblemKinds


def audit_file(
    path: Path | str,
    *,
    strict: bool = True,
    columns: Mapping[str, str] | None = None,
    held_examples: int = HELD_EXAMPLES,
    second_process: bool = False,
    advance: Advance | None = None,
    **options: Any,
) -> FileAudit:
    """Read and audit a file, a folder or a data set of the hub, whatever its size.

    Args:
        strict: stop at the first row that cannot be read; otherwise collect it.
        columns: as for `read_examples`.
        held_examples: with more examples than these, `audit_stream` looks at them.
        second_process: as for `audit_stream`, which starts it; a script needs `if __name__ == "__main__":`.
        advance: told how many examples were read.
        options: as for `audit_examples`.

    Raises:
        DataError: see `read_examples` and `audit_examples`.
    """
    reading = stream_examples(path, columns=columns)
    source = _Source(reading, strict=strict, advance=advance)
    stream = iter(source)
    first = list(itertools.islice(stream, held_examples + 1))
    if not first:
        raise _nothing_read(source.problems, str(path))
    if len(first) <= held_examples:
        audit, examples = audit_examples({"all": first}, **options), tuple(first)
    else:
        sample = Sample(SAMPLE_EXAMPLES)
        rest = _drained(first, stream)
        with _rare_collections():
            audit = audit_stream(
                rest,
                look_up=lambda p: source.look_up(p, columns),
                sample=sample,
                second_process=second_process,
                **options,
            )
        examples = sample.examples()
    streamed = audit.examples > len(examples)
    loaded = Loaded(examples, reading.format, passed_over=reading.passed_over)
    described = loaded.describe() + (f" (of {len(examples):,} examples)" if streamed else "")
    return FileAudit(
        audit,
        examples,
        reading.format,
        described,
        tuple(source.problems),
        source.left_out,
        reading.passed_over,
        streamed,
        source.kinds,
    )


class _Source:
    """A reading that counts, and that remembers the file and line of every example."""

    def __init__(self, reading: Reading, *, strict: bool, advance: Advance | None) -> None:
        self.reading, self.problems, self.left_out = reading, list[Problem](), 0
        self._strict, self._advance = strict, advance
        self._lines = array("q")
        self.kinds = ProblemKinds()

    def __iter__(self) -> Iterator[Example]:
        began = monotonic()
        for item in self.reading:
            if isinstance(item, Problem):
                if self._strict:
                    raise DataError(item.message, where=item.where, fix=item.fix)
                self.left_out += 1
                self.kinds.add(item)
                if len(self.problems) < PROBLEMS_KEPT:
                    self.problems.append(item)
                continue
            self._lines.append(item.line)
            if self._advance is not None and len(self._lines) % _ADVANCE_EXAMPLES == 0:
                rate = len(self._lines) / max(monotonic() - began, 1e-6)
                self._advance(_ADVANCE_EXAMPLES, f"{len(self._lines):,} examples, {rate:,.0f}/s")
            yield item

    def look_up(self, positions: Collection[int], columns: Mapping[str, str] | None) -> dict[int, Example]:
        """Examples by position: from their lines alone where a line is an example, else by reading again."""
        files = self.reading.files
        if len(files) == 1 and kind_named(PurePath(files[0].path)) == "json":
            lines = {position: self._lines[position] for position in positions}
            found = _read_lines(files[0].path, set(lines.values()), columns)
            if all(line in found for line in lines.values()):
                return {p: replace(found[line], file=files[0].name) for p, line in lines.items()}
        wanted, last = set(positions), max(positions)
        again = (item for item in self.reading if isinstance(item, Example))
        return {at: example for at, example in zip(range(last + 1), again, strict=False) if at in wanted}


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for cycles rarely: examples have none, and come and go by the hundred thousand."""
    usual = gc.get_threshold()
    gc.set_threshold(COLLECTED_OBJECTS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _drained(first: list[Example], rest: Iterator[Example]) -> Iterator[Example]:
    """All of them, letting go of the first ones bit by bit."""
    first.reverse()
    while first:
        yield first.pop()
    yield from rest


def _read_lines(path: Path, lines: Collection[int], columns: Mapping[str, str] | None) -> dict[int, Example]:
    """Examples of a file of JSON lines by line, read from a copy that holds these lines alone."""
    with tempfile.TemporaryDirectory() as folder:
        copy, numbers = Path(folder) / "lines.jsonl", [0]
        with path.open("rb") as file, copy.open("wb") as chosen:
            for number, line in enumerate(file, start=1):
                if number in lines or number <= _FIRST_LINES:
                    chosen.write(line)
                    numbers.append(number)
        try:
            read = [e for e in stream_examples(copy, columns=columns) if isinstance(e, Example)]
        except DataError:
            return {}
    return {numbers[example.line]: replace(example, line=numbers[example.line]) for example in read}


def _nothing_read(problems: Sequence[Problem], path: str) -> DataError:
    if problems:
        return DataError(problems[0].message, where=problems[0].where, fix=problems[0].fix)
    return DataError("holds no examples", where=path, fix="write one example a line")
