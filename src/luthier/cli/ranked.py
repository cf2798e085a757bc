"""What `luthier rank` leaves behind: preferences to train on, and how far raters agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from luthier.cli.screen import console
from luthier.errors import RecipeError, RecordError
from luthier.pipeline.sampling import Offer
from luthier.ranking.agreement import measure_agreement
from luthier.ranking.journal import read_lines
from luthier.ranking.judgements import read_judgements
from luthier.ranking.preferences import MARK, preference_rows
from luthier.record import explain_os_errors, write_json, write_jsonl


@dataclass(frozen=True)
class Files:
    """Where a session reads and writes; all but the judgements can be made again."""

    judgements: Path
    answers: Path
    preferences: Path
    agreement: Path

    @classmethod
    def beside(cls, out: Path, preferences: Path | None) -> Files:
        """Names that follow from that of the judgements."""

        def name(kind: str) -> Path:
            return out.with_name(f"{out.stem}.{kind}")

        own = preferences or name("preferences.jsonl")
        return cls(out, name("answers.jsonl"), own, name("agreement.json"))


def refuse_to_overwrite(files: Files, source: Path) -> None:
    """Preferences are written anew: only over a file that held such before."""
    path = files.preferences
    if path in (files.judgements, files.answers, source):
        raise RecipeError("is read, so it cannot be written too", where=str(path), fix="choose another name")
    if path.is_dir():
        raise RecipeError("is a folder", where=str(path), fix="name a file: --preferences pairs.jsonl")
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        rows = read_lines(path)
    except RecordError:
        rows = []
    if not rows or MARK not in rows[0][1]:
        raise RecipeError(
            "is there already, and no preferences of `luthier rank`",
            where=str(path),
            fix="choose another name with --preferences, or remove it",
        )


def conclude(files: Files, offer: Offer) -> None:
    """Write preferences and agreement from all that was said, and show them."""
    questions = offer.questions
    said = read_judgements(files.judgements)
    known = {question.key for question in questions}
    counted = [judgement for judgement in said if judgement.question in known]
    rows, counts = preference_rows(questions, counted)
    found = measure_agreement(questions, counted, seed=offer.seed)
    with explain_os_errors(files.preferences):
        write_jsonl(files.preferences, rows)
        write_json(files.agreement, {**found, "preferences": {"rows": len(rows), **counts}})
    if len(counted) < len(said):
        console.print(
            f"[yellow]{len(said) - len(counted)} judgements are of prompts or answers that are not there "
            "any more: they are kept and do not count.[/yellow]"
        )
    if counted:
        _print_agreement(found)
    told = f"{len(rows)} preferences from {counts['prompts']} prompts, {counts['undecided']} undecided"
    if counts["unreadable"]:
        told += f", {counts['unreadable']} answers left out that look like transcripts"
    console.print(f"{told}: {escape(str(files.preferences))}", soft_wrap=True)


def _print_agreement(found: Mapping[str, Any]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, heading in enumerate(("raters", "prompts", "pairs", "agree", "alpha")):
        table.add_column(heading, justify="right" if place else "left")
    rows = [(", ".join(row["raters"]), row) for row in (found["between"], *found["couples"]) if row["pairs"]]
    rows += [(f"{name}, asked again", row) for name, row in found["again"].items() if row["pairs"]]
    for name, row in rows:
        numbers = (str(row["prompts"]), str(row["pairs"]), _number(row, "agreement"), _number(row, "alpha"))
        table.add_row(escape(name), *numbers)
    if rows:
        console.print(table)
    if not found["between"]["pairs"]:
        console.print(f"[dim]Agreement between raters: none to measure, {found['between']['reason']}.[/dim]")


def _number(row: Mapping[str, Any], name: str) -> str:
    if row[name] is None:
        return "–"
    percent = name == "agreement"
    values = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
    shown = ["" if v is None else f"{100 * v:.0f}%" if percent else f"{v:.2f}" for v in values]
    return shown[0] if row[f"{name}_low"] is None else f"{shown[0]} [{shown[1]}, {shown[2]}]"
