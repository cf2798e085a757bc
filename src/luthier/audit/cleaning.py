"""Examples repaired: what `remedies` are certain of, and what a person decided of the rest.

The rounds go on until one changes nothing, so that cleaning what was cleaned is without effect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from luthier.audit.draft import Change, Draft, RowReader
from luthier.audit.masking import Placeholders, find_private, veil
from luthier.audit.remedies import (
    copies,
    is_code,
    repair_characters,
    strip_markup,
    tidy_answer,
    usual_spellings,
)
from luthier.audit.secret import offered
from luthier.audit.source_text import SourceText, line_of, take_apart
from luthier.errors import DataError
from luthier.examples.columns import Columns
from luthier.examples.example import Example
from luthier.examples.files import DataFile
from luthier.examples.formats import recognise_format
from luthier.examples.read import ROWS_TO_RECOGNISE
from luthier.examples.row import Problem, Row
from luthier.examples.wording import normalise
from luthier.record import write_jsonl, write_text

UNREADABLE = "unreadable"


@dataclass
class Workpiece:
    """One file that is being cleaned.

    Attributes:
        drafts: by item of the source; None for what could not be read.
        lost: log of what could not be read, and of what the file as a whole was changed in.
    """

    file: DataFile
    source: SourceText
    drafts: list[Draft | None]
    lost: list[Change] = field(default_factory=list)

    @property
    def changes(self) -> list[Change]:
        """Everything that was done, by line."""
        done = [change for draft in self.drafts if draft is not None for change in draft.changes]
        return sorted([*self.lost, *done], key=lambda change: change.line)

    @property
    def kept(self) -> list[Draft]:
        """The rows that are not left out."""
        return [draft for draft in self.drafts if draft is not None and not draft.dropped]

    def text(self) -> str:
        """The cleaned file."""
        live = [draft if draft is not None and not draft.dropped else None for draft in self.drafts]
        values = [None if draft is None else draft.values for draft in live]
        text = self.source.write(values, [draft is not None and draft.is_touched for draft in live])
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def open_workpiece(file: DataFile, columns: Columns | None = None) -> Workpiece:
    """Read a file that is to be cleaned; its rows are not changed yet.

    Raises:
        DataError: the file cannot be read, or holds no row that can.
    """
    source = take_apart(file)
    rows = [item.values for item in source.items[:ROWS_TO_RECOGNISE] if isinstance(item, Row)]
    if not rows:
        first = next((item for item in source.items if isinstance(item, Problem)), None)
        message = first.message if first else "holds no examples"
        raise DataError(message, where=first.where if first else file.name, fix=first.fix if first else None)
    columns = columns or {}
    renamed = [{columns.get(name, name): value for name, value in row.items()} for row in rows]
    reader = RowReader(file.name, recognise_format(renamed, where=file.name), columns)
    piece = Workpiece(file, source, [])
    seen: Counter[str] = Counter()
    for number, item in enumerate(source.items):
        read = item if isinstance(item, Problem) else reader.read(item.line, item.values)
        if isinstance(item, Row) and isinstance(read, Example):
            seen[read.id] += 1
            own = read if seen[read.id] == 1 else replace(read, id=f"{read.id}-{seen[read.id]}")
            piece.drafts.append(Draft(reader, item, own))
            continue
        problem = item if isinstance(item, Problem) else read
        assert isinstance(problem, Problem)
        piece.drafts.append(None)
        before = source.pieces[number].rstrip("\r\n") if source.pieces else ""
        line = line_of(problem)
        piece.lost.append(Change(line, UNREADABLE, "dropped", "", before, None, problem.message))
    for lines, before, what in (
        (source.nul_lines, "\0", "a NUL byte is no text"),
        (source.mark_lines, "\ufeff", "a byte order mark is no part of a row"),
    ):
        piece.lost += [Change(line, "encoding", "changed", "", before, "", what) for line in lines]
    return piece


def clean(pieces: Sequence[Workpiece], *, mask: bool = False) -> None:
    """Repair what is certain; with `mask`, put placeholders for personal data and secrets."""
    while _clean_once(pieces, mask=mask):
        pass


def _clean_once(pieces: Sequence[Workpiece], *, mask: bool) -> bool:
    """One round; returns whether it changed anything."""
    before = _count(pieces)
    drafts = [draft for piece in pieces for draft in piece.kept]
    for draft in drafts:
        reason = "characters that were misread, or that nobody sees"
        draft.rewrite(repair_characters, "encoding", reason)
        if not draft.dropped:
            _strip_markup(draft)
        if mask and not draft.dropped:
            mask_draft(draft)
    drafts = [draft for draft in drafts if not draft.dropped]
    code = is_code(draft.example.answer for draft in drafts)
    for draft in drafts:
        _tidy(draft, code=code)
    _spell_alike(drafts)
    _drop_copies(drafts)
    return _count(pieces) > before


def mask_draft(draft: Draft) -> None:
    """Put placeholders for personal data and secrets in one row."""
    tools = [offered(draft.example)] if draft.example.tools else []
    texts = [*draft.example.texts, *tools]
    if not any(any(find_private(text)) for text in texts):
        return
    placeholders = Placeholders(texts)
    has_secret = any(any(find_private(text, secrets_alone=True)) for text in texts)
    check = "secret" if has_secret else "personal_data"
    reason = "what identifies somebody, or opens something, is replaced"
    draft.rewrite(placeholders.put, check, reason, tools=True)


def _strip_markup(draft: Draft) -> None:
    for number, text in enumerate(strip_markup(draft.example)):
        if text != draft.example.messages[number].content:
            reason = "markers that the chat template adds by itself"
            draft.say(number, text, "special_token", reason)


def _tidy(draft: Draft, *, code: bool) -> None:
    if not draft.example.request:
        return
    reason = "spaces and line ends are tokens that the model learns to write"
    last = draft.example.messages[-1]
    if last.content.strip():
        draft.answer(tidy_answer(last.content, code=code), "inconsistent_answers", reason)
    for number, worse in enumerate(draft.example.rejected):
        draft.reject(number, tidy_answer(worse, code=code), "inconsistent_answers", reason)


def _spell_alike(drafts: Sequence[Draft]) -> None:
    usual = usual_spellings([draft.example for draft in drafts])
    for draft in drafts if usual else ():
        if draft.example.wanted and (spelling := usual.get(normalise(draft.example.answer))):
            reason = f"most answers write this label {spelling!r}"
            draft.answer(spelling, "inconsistent_answers", reason)


def _drop_copies(drafts: Sequence[Draft]) -> None:
    for number, first in copies([draft.example for draft in drafts]).items():
        drafts[number].drop("exact_duplicate", f"the same as {drafts[first].example.where}, which is kept")


def _count(pieces: Iterable[Workpiece]) -> int:
    return sum(len(draft.changes) for piece in pieces for draft in piece.drafts if draft is not None)


def tally(pieces: Iterable[Workpiece]) -> dict[tuple[str, str], int]:
    """Rows by check and action."""
    rows = dict.fromkeys(
        (piece.file.name, change.line, change.check, change.action)
        for piece in pieces
        for change in piece.changes
    )
    return dict(Counter((check, action) for _, _, check, action in rows))


def log_rows(piece: Workpiece, *, masked: bool) -> list[dict[str, Any]]:
    """The log of a file. Secrets are veiled in it, and personal data too where it was masked."""

    def shown(text: str | None) -> str | None:
        if text is None:
            return None
        told = text.encode("utf-8", "backslashreplace").decode()  # bytes that were no UTF-8
        return veil(told, secrets_alone=not masked)

    return [
        {
            "file": piece.file.name,
            "line": change.line,
            "check": change.check,
            "action": change.action,
            "column": change.column,
            "before": shown(change.before),
            "after": shown(change.after),
            "reason": shown(change.reason),
        }
        for change in piece.changes
    ]


def write_clean(piece: Workpiece, path: Path, log: Path, *, masked: bool) -> None:
    """The log, then the cleaned file, each atomically: no copy without its log."""
    write_jsonl(log, log_rows(piece, masked=masked))
    write_text(path, piece.text())
