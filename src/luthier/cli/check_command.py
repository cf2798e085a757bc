"""`luthier check`: its options, and which part of the work is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Columns = Annotated[
    str | None, typer.Option("--columns", help="What your columns are: frage=prompt,antwort=completion.")
]


def check(
    source: Annotated[
        Path, typer.Argument(help="Examples, a recipe, or a run folder.", metavar="DATA|RECIPE|RUN")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The run folder; of a file, where its audit goes: checks/NAME."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="List every finding in full.")] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit with 3 where there are errors, 4 where a check could not run."),
    ] = False,
    show_mask: Annotated[
        bool, typer.Option("--show-mask", help="Show which tokens of the first examples are trained.")
    ] = False,
    model: Annotated[str, typer.Option(help="Whose tokenizer, when checking a file.")] = "smollm2-135m",
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Write a cleaned copy, NAME.clean or --out, and a log of every change."),
    ] = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="With a fix: go through what is doubtful, row by row.")
    ] = False,
    mask: Annotated[
        bool, typer.Option("--mask", help="With a fix: placeholders for personal data and secrets.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="With a fix: replace an earlier copy.")] = False,
    columns: Columns = None,
) -> None:
    """Audit the examples: duplicates, conflicts, leakage, personal data, power, ...

    Prints what was found on one screen, and writes audit.json and a page, audit.html. Exits with 0 whatever
    was found; with --strict errors count, for a CI server.

    Example: luthier check tickets.jsonl --strict
    """
    from luthier.examples.columns import read_columns

    mapped = None if columns is None else read_columns(columns)
    if fix or interactive or mask:
        from luthier.cli.fixing import fix_source

        fix_source(source, out, mask=mask, interactive=interactive, force=force, model=model, columns=mapped)
        return
    from luthier.cli.checking import check_source

    code = check_source(
        source, out, show_mask=show_mask, model=model, every=every, strict=strict, columns=mapped
    )
    raise typer.Exit(code)
