"""The questions of `luthier check --interactive`: doubtful rows, and what a person says of each."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.panel import Panel
from rich.prompt import Prompt
from rich.table import Table
from rich.text import Text

from luthier.audit.doubts import Decision, Doubt, Verb
from luthier.audit.draft import Draft
from luthier.audit.finding import counted
from luthier.audit.masking import find_private, veil
from luthier.cli.screen import console
from luthier.examples.answers import is_short

KEYS: dict[str, Verb] = {"k": "keep", "d": "drop", "e": "edit", "t": "take", "m": "mask"}
SWAP, SKIP, UNDO, QUIT = "w", "s", "u", "q"
CONTROL = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\ufffd")  # no escape sequences
LONGEST_SHOWN = 2000
Note = Callable[[Doubt, Mapping[str, Any]], None]


def ask_doubts(doubts: Sequence[Doubt], note: Note, labels: Sequence[str]) -> dict[str, Decision] | None:
    """Ask about each doubt; returns what was decided in this session, None where the person stopped.

    Args:
        note: keeps a decision, or `{"undo": key}`, before the next question.
        labels: what a row may take where no other stands beside it; empty where answers are no labels.
    """
    decided: dict[str, Decision] = {}
    history: list[Doubt] = []
    skipped: set[str] = set()
    console.print(f"{counted(len(doubts), 'question')}; every answer is kept at once.")
    while left := _left(doubts, decided, skipped):
        doubt = left[0]
        said = _ask(doubt, f"{len(doubts) - len(left) + 1} of {len(doubts)}", labels)
        if said is None:
            return None
        if said == UNDO:
            if history:
                last = history.pop()
                skipped.discard(last.key)
                if decided.pop(last.key, None):
                    note(last, {"undo": last.key})
            else:
                console.print("[yellow]There is nothing to undo.[/yellow]")
            continue
        history.append(doubt)
        if isinstance(said, Decision):
            decided[doubt.key] = said
            note(doubt, {**asdict(said), "check": doubt.finding.check, "where": doubt.draft.example.where})
        else:
            skipped.add(doubt.key)
    return decided


def _left(doubts: Sequence[Doubt], decided: Mapping[str, Decision], skipped: set[str]) -> list[Doubt]:
    """Those that are still open: not said, and about rows that were not dropped."""
    gone = set()
    for doubt in doubts:
        if (said := decided.get(doubt.key)) and said.verb == "drop":
            gone.add(id(doubt.other if said.on_other else doubt.draft))
    return [
        doubt
        for doubt in doubts
        if doubt.key not in decided
        and doubt.key not in skipped
        and not {id(doubt.draft), id(doubt.other)} & gone
    ]


def _ask(doubt: Doubt, place: str, labels: Sequence[str]) -> Decision | str | None:
    """A decision, `s` or `u`; None where the person stops."""
    swapped = False
    while True:
        draft, other = (doubt.other, doubt.draft) if swapped and doubt.other else (doubt.draft, doubt.other)
        _show(doubt, draft, other, place)
        keys = _keys(draft, other, labels)
        typed = _type(", ".join(f"{key} {word}" for key, word in keys.items()))
        typed = None if typed is None else typed.lower()
        if typed is None or typed == QUIT:
            return None
        if typed in (SKIP, UNDO):
            return typed
        if typed == SWAP and SWAP in keys:
            swapped = not swapped
        elif typed in KEYS and typed in keys:
            verb = KEYS[typed]
            text = _text_for(verb, draft, other, labels)
            if text is not None or verb not in ("edit", "take"):
                return Decision(doubt.key, verb, swapped, text)
        else:
            console.print(f"[yellow]Type one of {' '.join(keys)}.[/yellow]")


def _keys(draft: Draft, other: Draft | None, labels: Sequence[str]) -> dict[str, str]:
    """The keys that do something here, and what."""
    keys = {"k": "keep", "d": "drop", "e": "edit the answer"}
    if other and other.example.answer != draft.example.answer:
        keys["t"] = "take the other's answer"
    elif other is None and len(labels) > 1:
        keys["t"] = "take another label"
    if any(any(find_private(text)) for text in draft.example.texts):
        keys["m"] = "mask"
    if other:
        keys[SWAP] = "swap sides"
    return keys | {SKIP: "skip", UNDO: "undo", QUIT: "quit"}


def _text_for(verb: Verb, draft: Draft, other: Draft | None, labels: Sequence[str]) -> str | None:
    """The answer that is to be written; None where none was given."""
    if verb == "take":
        return other.example.messages[-1].content if other else _choose(labels)
    if verb != "edit":
        return None
    old = draft.example.messages[-1].content
    if is_short(old):
        typed = _type("answer (enter leaves it)")
        return typed or None
    return edit_text(old)


def edit_text(text: str) -> str | None:
    """The text as the user's editor left it; None where it is as before, empty, or there is no editor."""
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answer.txt"
        file.write_text(text, encoding="utf-8", newline="\n")
        try:
            subprocess.run([*editor, str(file)], check=True)
            edited = file.read_text(encoding="utf-8").rstrip()
        except (OSError, UnicodeDecodeError, subprocess.CalledProcessError) as error:
            console.print(f"[yellow]{escape(str(error))}[/yellow] Set EDITOR to an editor.")
            return None
    return edited if edited and edited != text.rstrip() else None


def _choose(labels: Sequence[str]) -> str | None:
    for number, label in enumerate(labels, start=1):
        console.print(f"{number:>3} {escape(label.translate(CONTROL))}")
    typed = _type("number (enter leaves it)") or ""
    return labels[int(typed) - 1] if typed.isdecimal() and 0 < int(typed) <= len(labels) else None


def _show(doubt: Doubt, draft: Draft, other: Draft | None, place: str) -> None:
    """What was found, and the row; beside it the one that it repeats or contradicts."""
    table = Table.grid(padding=(0, 2), expand=True)
    sides = [draft, other] if other else [draft]
    for _ in sides:
        table.add_column(ratio=1, overflow="fold")
    table.add_row(*(Text(side.example.where, style="dim") for side in sides))
    table.add_row(*(_conversation(side) for side in sides))
    title = escape(f"{place}: {doubt.finding.check}")
    console.print(Panel(table, title=title, title_align="left", subtitle_align="left"))
    console.print(Text(doubt.finding.message.translate(CONTROL), style="yellow"))
    console.print(Text(doubt.finding.fix.translate(CONTROL), style="dim"))


def _conversation(draft: Draft) -> Text:
    text = Text()
    *before, last = draft.example.messages
    for message in before:
        text.append(f"{message.role}: ", style="dim")
        text.append(_readable(message.text) + "\n")
    text.append(f"{last.role}: ", style="dim")
    text.append(_readable(last.text), style="bold")
    for worse in draft.example.rejected:
        text.append("\nrejected: ", style="dim")
        text.append(_readable(worse))
    return text


def _readable(text: str) -> str:
    """A text as it can be shown: secrets veiled, long ones cut in the middle."""
    text = veil(text, secrets_alone=True).translate(CONTROL)
    if len(text) <= LONGEST_SHOWN:
        return text
    half = LONGEST_SHOWN // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters …\n{text[-half:]}"


def _type(question: str) -> str | None:
    """What is typed; None where the input has ended."""
    try:
        return Prompt.ask(question, console=console, default="", show_default=False).strip()
    except EOFError:
        return None
