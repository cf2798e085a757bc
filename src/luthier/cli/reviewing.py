"""`luthier review`: the listed answers one by one, and what a person says of each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.markup import escape
from rich.panel import Panel
from rich.prompt import Prompt
from rich.table import Table
from rich.text import Text

from luthier.cli.screen import console
from luthier.evidence.review import (
    DONE,
    JUDGEMENTS,
    Judgement,
    judge,
    measure_progress,
    open_rows,
    read_judgements,
)

KEYS: dict[str, Judgement] = {word[0]: word for word in JUDGEMENTS}
QUIT = "q"


def review_answers(job: Any) -> None:
    """Ask for a judgement of every row that has none yet, and decide again where the verdict waits for it."""
    rows = job.review()
    left = open_rows(rows, read_judgements(job.record))
    console.print(
        f"{len(rows)} answers to read, {len(left)} left; also in {job.record / 'review.md'}", soft_wrap=True
    )
    if left:
        console.print("[dim]a accept, w wrong, u unsure, q stops; what you said is kept.[/dim]")
    said = 0
    for number, row in enumerate(left, start=1):
        _show(row, f"{number} of {len(left)}")
        judgement = _ask("accept, wrong, unsure or quit", [*KEYS, QUIT])
        if judgement is None or judgement == QUIT:
            break
        comment = _ask("comment (enter for none)") or ""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        judge(job.record, row["key"], KEYS[judgement], comment.strip(), at=at)
        said += 1
    _conclude(job, rows, said)


def _conclude(job: Any, rows: list[dict[str, Any]], said: int) -> None:
    progress = measure_progress(rows, read_judgements(job.record))
    console.print(
        f"{progress.judged} of {progress.n} judged, {progress.wrong} wrong, {progress.unsure} unsure: "
        f"{job.record / DONE}",
        soft_wrap=True,
    )
    if job.recipe.stakes != "high" or not (said or not (job.record / "verdict.json").is_file()):
        return
    decided = job.verdict()
    job.card()
    gate = next((gate for gate in decided["gates"] if gate["name"] == "reviewed"), None)
    if gate is not None:
        console.print(f"reviewed: {escape(gate['reason'])}")
    console.print(escape(decided["headline"]))


def _show(row: Mapping[str, Any], place: str) -> None:
    table = Table.grid(padding=(0, 1))
    for label, key in (("request", "prompt"), ("expected", "expected"), ("answer", "answer")):
        table.add_row(Text(label, style="dim"), Text(row[key], style="bold" if key == "answer" else ""))
    confidence = "" if row["confidence"] is None else f"confidence {row['confidence']:.1%}; "
    table.add_row(Text("why", style="dim"), Text(confidence + "; ".join(row["why"]), style="dim"))
    console.print(Panel(table, title=escape(f"{place}: {row['where']}"), title_align="left"))


def _ask(question: str, choices: list[str] | None = None) -> str | None:
    """An answer from the terminal; None where its input has ended."""
    try:
        if choices:
            return Prompt.ask(question, console=console, choices=choices)
        return Prompt.ask(question, console=console, default="", show_default=False)
    except EOFError:
        return None
