"""`luthier collect review`: drafts one by one, and what a person says of each."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from rich.markup import escape
from rich.panel import Panel
from rich.prompt import Prompt
from rich.table import Table
from rich.text import Text

from luthier.cli.ranking import CONTROL
from luthier.cli.screen import console
from luthier.collect.acceptance import (
    Draft,
    Word,
    add_word,
    edited,
    read_drafts,
    read_words,
    undo_word,
    write_accepted,
)
from luthier.collect.example_row import refuse_to_overwrite
from luthier.collect.tally import NotTakenError
from luthier.errors import RecipeError
from luthier.record import explain_os_errors

KEYS = {"a": "accept", "e": "edit", "r": "reject", "s": "skip", "u": "undo", "q": "quit"}
HELP = "a accepts, e edits, r rejects, s skips for now, u takes the last word back, q stops"
END = "."  # a line that ends an answer typed in the terminal


def review_drafts(file: Path, out: Path | None, by: str, *, force: bool) -> None:
    """Ask for a word on every draft that has none; then write those that were accepted.

    Raises:
        RecipeError: nobody is there to ask, or a file to write is something else.
        DataError, RecordError: the drafts or the journal cannot be read.
    """
    by = " ".join(by.split())
    if not by:
        raise RecipeError("--by is empty", fix="say who accepts: --by anna")
    out = out or file.with_name(f"{file.stem}.accepted.jsonl")
    journal = file.with_name(f"{file.stem}.review.jsonl")
    refuse_to_overwrite(out, force=force or journal.exists(), inputs=[file, journal])
    drafts, words = read_drafts(file), read_words(journal)
    if not at_terminal():
        raise RecipeError(
            "drafts are accepted by a person, and nobody is at the terminal",
            where=str(file),
            fix="run it where you can type: there is no way to accept all of them unread",
        )
    try:
        _ask_all(drafts, words, journal, by)
    finally:
        _conclude(drafts, read_words(journal), out)


def at_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()


def _ask_all(drafts: list[Draft], words: list[Word], journal: Path, by: str) -> None:
    known = {draft.key for draft in drafts}
    said = [word for word in words if word.key in known]
    skipped: set[str] = set()
    noun = "draft" if len(drafts) == 1 else "drafts"
    console.print(f"{len(drafts)} {noun}, {len(drafts) - len(said)} to read", soft_wrap=True)
    console.print(f"[dim]{HELP}; every word is kept.[/dim]")
    while True:
        done = {word.key for word in said} | skipped
        draft = next((draft for draft in drafts if draft.key not in done), None)
        if draft is None:
            return
        _show(draft, f"{len(done) + 1} of {len(drafts)}")
        key = _listen()
        if key in (None, "q"):
            return
        if key == "u":
            _undo(journal, said)
        elif key == "s":
            skipped.add(draft.key)
        elif (word := _word(key or "", draft, by)) is not None:
            add_word(journal, word)
            said.append(word)


def _word(key: str, draft: Draft, by: str) -> Word | None:
    """What was said; None where an edit came to nothing."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    if key != "e":
        return Word(draft.key, "accept" if key == "a" else "reject", by, at)
    answer = edit_text(draft.answer)
    try:
        edited(draft, answer)
    except NotTakenError as reason:
        console.print(f"[yellow]Not kept: {escape(str(reason))}.[/yellow]")
        return None
    if answer == draft.answer:
        console.print("[dim]Nothing was changed: accepted as it is.[/dim]")
        return Word(draft.key, "accept", by, at)
    return Word(draft.key, "edit", by, at, answer)


def _listen() -> str | None:
    """A key; None where the input has ended."""
    while True:
        try:
            typed = Prompt.ask(", ".join(KEYS.values()), console=console, default="", show_default=False)
        except EOFError:
            return None
        if (key := typed.strip().lower()[:1]) in KEYS and typed.strip().lower() in (key, KEYS[key]):
            return key
        console.print(f"[yellow]{escape(repr(typed))} is none of them.[/yellow] [dim]{HELP}.[/dim]")


def edit_text(text: str) -> str:
    """A text as somebody changed it: in their editor (VISUAL, EDITOR), else typed anew.

    Raises:
        RecipeError: the editor cannot be started, or fails.
    """
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "")
    if not editor:
        return _typed()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answer.txt"
        path.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*editor, str(path)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            fix = "set VISUAL or EDITOR to another one, or to nothing"
            raise RecipeError(f"the editor {editor[0]!r} failed: {error}", fix=fix) from None
        changed = path.read_text(encoding="utf-8")
    return changed if text.endswith("\n") else changed.removesuffix("\n")


def _typed() -> str:
    console.print(f"[dim]The whole answer anew; a line with {END} alone ends it.[/dim]")
    lines: list[str] = []
    while True:
        try:
            line = input()
        except EOFError:
            break
        if line.strip() == END:
            break
        lines.append(line)
    return "\n".join(lines)


def _undo(journal: Path, said: list[Word]) -> None:
    if not said:
        console.print("[yellow]There is nothing to undo.[/yellow]")
        return
    word = said.pop()
    undo_word(journal, word, at=datetime.now(UTC).isoformat(timespec="seconds"))
    console.print(f"[yellow]Undone: {word.said}[/yellow]")


def _show(draft: Draft, place: str) -> None:
    told = draft.row.get("provenance") or {}
    table = Table.grid(padding=(0, 1))
    for turn in draft.row["messages"][:-1]:
        table.add_row(Text(str(turn.get("role")), style="dim"), _text(turn.get("content")))
    console.print(Panel(table, title=escape(f"{place}: {draft.where}"), title_align="left"))
    writer = f"drafted by {told['model']}" if told.get("model") else "draft"
    console.print(Panel(_text(draft.answer), title=escape(writer), title_align="left"))


def _text(value: object) -> Text:
    return Text(str(value or "").translate(CONTROL))


def _conclude(drafts: list[Draft], words: list[Word], out: Path) -> None:
    known = {draft.key for draft in drafts}
    said = Counter(word.said for word in words if word.key in known)
    with explain_os_errors(out):
        taken = write_accepted(out, drafts, words)
    left = len(drafts) - said.total()
    console.print(
        f"{said['accept']} accepted, {said['edit']} edited, {said['reject']} rejected, {left} left to read",
        soft_wrap=True,
    )
    if taken:
        console.print(f"{taken} examples: {escape(str(out))}", soft_wrap=True)
