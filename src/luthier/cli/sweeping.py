"""`luthier sweep`: the command, the trials as a table, and where the best one's recipe is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.table import Table


def sweep(
    recipe: Annotated[Path, typer.Argument(help="A recipe.", metavar="RECIPE")],
    over: Annotated[
        list[str],
        typer.Option(
            "--over",
            metavar="KEY=VALUES",
            help="A key of train, adapter or method, with a range 1e-5..1e-3 or a list 4,8,16; repeatable.",
        ),
    ],
    trials: Annotated[
        int | None,
        typer.Option(min=2, help="How many. Default: all combinations of short lists, else 8."),
    ] = None,
    metric: Annotated[
        Literal["validation_loss", "validation_score"] | None,
        typer.Option(
            help="What chooses; a score grades up to 64 validation answers each time. Default: the loss, or "
            "the score where a method learns from its own answers."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A folder. Default: sweeps/NAME beside where you are.")
    ] = None,
) -> None:
    """Train several adapters over one base, stop the hopeless ones early, and write the best one's recipe.

    Trials are compared on the validation side alone. The same command goes on where a killed one stopped.

    Example: luthier sweep tickets.yaml --over train.learning_rate=1e-5..1e-3 --over adapter.rank=4,8,16
    """
    from luthier.recipe import load_recipe
    from luthier.sweep.space import metric_of, read_axes

    asked = load_recipe(recipe)
    metric = metric or metric_of(asked)
    read_axes(over, asked, metric)  # mistakes show before anything heavy is imported
    from luthier.cli.screen import Screen, console
    from luthier.sweep.sweep import run_sweep

    folder = out or Path("sweeps") / asked.name
    result = run_sweep(asked, folder, over, trials=trials, metric=metric, show=Screen())
    console.print()
    console.print(trial_table(result))
    console.print(
        f"{result['steps']} of {result['planned_steps']} planned steps were trained. The metric chose the "
        "best trial, so it flatters it; the test side was not looked at."
    )
    console.print(f"Charts: {folder / 'sweep.html'}", soft_wrap=True)
    console.print(f"Best:   luthier run {folder / 'best.yaml'}", soft_wrap=True)


def trial_table(result: Mapping[str, Any]) -> Table:
    """The trials of a sweep, the best first."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from luthier.sweep.chart import show_value
    from luthier.sweep.page import show_number
    from luthier.sweep.trials import STATES

    keys = [axis["key"] for axis in result["axes"]]
    metric = result["metric"].replace("_", " ")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("trial", *keys, metric, "steps", "sec"):
        table.add_column(heading, justify="right", no_wrap=heading not in keys)
    table.add_column("state")
    rows = {row["number"]: row for row in result["trials"]}
    for number in result["ranking"]:
        row = rows[number]
        reason = f": {row['reason']}" if row["state"] in ("stopped", "failed") else ""
        table.add_row(
            str(number),
            *(escape(show_value(row["changes"][key])) for key in keys),
            show_number(row["value"]),
            f"{row['steps']} of {row['planned_steps']}",
            f"{row['seconds']:.1f}",
            escape(STATES[row["state"]] + reason),
            style="bold" if number == result["best"] else None,
        )
    return table
