"""What the terminal shows: progress bars, the table of candidates, the verdict."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from luthier.cli.bars import bar
from luthier.cli.summaries import (
    KIND_HEAD,
    SLICE_HEAD,
    kind_rows,
    say_difference,
    say_moved,
    say_wins,
    slice_rows,
)
from luthier.progress import Advance
from luthier.recipe.probe_options import is_share
from luthier.record import Record

console = Console(highlight=False)
DOUBTFUL = "train/doubtful.json"
PLACES_SHOWN = 3
COLOURS = {"ship": "green", "do_not_ship": "red", "inconclusive": "yellow"}
WORDS = {"ship": "SHIP", "do_not_ship": "DO NOT SHIP", "inconclusive": "INCONCLUSIVE"}
WORDS_COMPARED = {"better": "BETTER", "no_worse": "NO WORSE", "worse": "WORSE", "undecided": "UNDECIDED"}


class Screen:
    """Where stages report, on the terminal: one bar at a time."""

    def note(self, text: str) -> None:
        """One dim line."""
        console.print(f"[dim]{escape(text)}[/dim]")

    def task(self, what: str, total: int | None) -> contextlib.AbstractContextManager[Advance]:
        """A bar; it stays on the screen with its time when it is finished."""
        return bar(console, what, total)


def print_result(job: Any, verdict: Mapping[str, Any]) -> None:
    """The end of a run: candidates, forgetting, verdict, and where to look."""
    console.print()
    print_candidates(job.evaluate(), verdict["recommended"])
    print_probes(job.probe())
    if (job.record / "calibration.json").is_file():
        says = job.record.read_json("calibration.json")["abstention"]["says"]
        console.print(f"When to answer: tuned {escape(says)}.")
    print_doubtful(job.record)
    print_verdict(verdict)
    console.print(f"Card:   {job.record / 'card.md'}", soft_wrap=True)
    console.print(f"Report: {job.record / 'report.html'}", soft_wrap=True)


def print_doubtful(record: Record) -> None:
    """One line where training found labels doubtful."""
    told = record.read_json(DOUBTFUL) if (record / DOUBTFUL).is_file() else {"found": []}
    places = [
        f"{Path(place['file']).name}:{place['line']}" for row in told["found"] for place in row["examples"]
    ]
    if places:
        more = " ..." if len(places) > PLACES_SHOWN else ""
        listed = escape(", ".join(places[:PLACES_SHOWN]))
        says = escape(told["says"])
        console.print(f"[yellow]Labels: {says}: {listed}{more} (in the report)[/yellow]", soft_wrap=True)


def print_candidates(scores: Mapping[str, Any], recommended: str | None = None) -> None:
    """Every candidate on the same held-out examples."""
    n = max((row["n"] for row in scores["candidates"].values()), default=0)
    title = f"{escape(scores['metric'])} on {n} held-out examples, 95% intervals"
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    costs = {name: row.get("cost") or {} for name, row in scores["candidates"].items()}
    currency = next((cost["currency"] for cost in costs.values() if cost.get("money") is not None), None)
    for heading in (
        "candidate",
        "score",
        "tuned is better by",
        "p (Holm)",
        "prompt\ntokens",
        "sec",
        *([] if currency is None else [f"{currency} for\n1,000"]),
    ):
        table.add_column(heading, justify="left" if heading == "candidate" else "right", no_wrap=True)
    against = {pair["b"]: pair for pair in scores["paired"] if pair["a"] == "tuned"}
    ranked = sorted(scores["candidates"].items(), key=lambda item: -(item[1]["score"] or 0))
    for name, row in ranked:
        pair = against.get(name)
        table.add_row(
            f"[bold]{name}[/bold]" if name == recommended else name,
            _share(row),
            "" if pair is None else _change(pair),
            "" if pair is None else _p(pair["p_adjusted"]),
            "–" if row["prompt_tokens"] is None else f"{row['prompt_tokens']:.0f}",
            "–" if row["seconds"] is None else f"{row['seconds']:.3f}",
            *([] if currency is None else [_money(costs[name].get("money"))]),
        )
    console.print(table)
    for name, row in ranked:
        if row.get("unscored"):
            console.print(f"[yellow]{row['unscored']} answers of {name} could not be scored[/yellow]")
    smallest = scores.get("detectable_difference")
    if smallest is not None:
        console.print(f"[dim]{n} examples can detect a difference of about {smallest:.0%}.[/dim]")


def print_probes(probes: Mapping[str, Mapping[str, Any]]) -> None:
    """One line per probe: what was lost, with its interval and finding."""
    for name, probe in probes.items():
        change = _change(probe) if is_share(probe["unit"]) else f"{_nats(probe)} {probe['unit']}"
        flips = probe["flips"]
        told = f", {flips['lost']} lost and {flips['gained']} gained" if flips else ""
        colour = {"within_margin": "green", "worse": "red"}.get(probe["finding"], "yellow")
        title = name.replace("_", " ").capitalize()
        reason = f"[{colour}]{escape(probe['reason'])}[/{colour}]"
        console.print(f"{title}: {change} on {probe['n']} items{told}; {reason}.")


def print_verdict(verdict: Mapping[str, Any]) -> None:
    """The decision with its reasons."""
    decision = verdict["decision"]
    lines = [f"[bold]{escape(verdict['headline'])}[/bold]"]
    for gate in verdict["gates"]:
        mark = {True: "[green]passed[/green]", False: "[red]failed[/red]"}.get(
            gate["passed"], "[yellow]undecided[/yellow]"
        )
        lines.append(f"{mark}  {gate['name']}: {escape(gate['reason'])}")
    told = {gate["reason"] for gate in verdict["gates"]}
    lines += [escape(reason) for reason in verdict["reasons"] if reason not in told]
    colour = COLOURS[decision]
    console.print(
        Panel("\n".join(lines), title=f"[{colour}]{WORDS[decision]}[/{colour}]", border_style=colour)
    )


def print_comparison(result: Mapping[str, Any]) -> None:
    """Two runs on the same examples: the difference, what was mended, what broke."""
    decision = result["decision"]
    colour = {"better": "green", "no_worse": "green", "worse": "red"}.get(decision, "yellow")
    for side in ("old", "new"):
        told = result[side]
        console.print(f"{side}: {escape(told['run'])}, {told['candidate']}: {told['score']:.1%}")
    if result["only_old"] or result["only_new"]:
        console.print(
            f"[yellow]left out: {result['only_old']} examples of the old run alone, "
            f"{result['only_new']} of the new one[/yellow]"
        )
    console.print(escape(say_wins(result)))
    for head, rows in ((KIND_HEAD, kind_rows(result)), (SLICE_HEAD, slice_rows(result))):
        if not rows:
            continue
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for place, heading in enumerate(head):
            table.add_column(heading, justify="right" if place else "left")
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
    for line in say_moved(result):
        console.print(escape(line))
    for name in ("lost", "gained"):
        for change in result[name][:3]:
            console.print(
                f"[dim]{name}: {escape(change['input'][:100])!r}: {escape(change['old']['answer'][:80])!r} "
                f"-> {escape(change['new']['answer'][:80])!r}[/dim]"
            )
    console.print(
        Panel(escape(say_difference(result)), title=f"[{colour}]{WORDS_COMPARED[decision]}[/{colour}]")
    )


def _share(row: Mapping[str, Any]) -> str:
    """A score with its interval; a dash where it is undefined."""
    if row["score"] is None:
        return "–"
    bounds = "" if row["low"] is None else f" [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
    return f"{row['score']:.1%}{bounds}"


def _money(value: float | None) -> str:
    """The price of a thousand requests."""
    return "–" if value is None else f"{1000 * value:.3g}"


def _change(row: Mapping[str, Any]) -> str:
    if row["difference"] is None:
        return "–"
    bounds = "" if row["low"] is None else f" [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
    return f"{row['difference']:+.1%}{bounds}"


def _nats(row: Mapping[str, Any]) -> str:
    if row["difference"] is None:
        return "–"
    bounds = "" if row["low"] is None else f" [{row['low']:+.3f}, {row['high']:+.3f}]"
    return f"{row['difference']:+.3f}{bounds}"


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
