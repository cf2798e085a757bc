"""`luthier collect`: what users have, made into examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.errors import DataError, RecipeError

if TYPE_CHECKING:
    from luthier.collect.tally import Tally
    from luthier.recipe.grader_options import Endpoint

collect = typer.Typer(
    help="Turn what you have into examples: logs, tables, edited answers, drafts that you accept.\n\n"
    "Example: luthier collect logs requests.jsonl --out examples.jsonl",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Out = Annotated[Path, typer.Option("--out", "-o", help="The examples, as .jsonl.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]
Source = Annotated[str | None, typer.Option(help="Where they come from, for the card. Default: the file.")]
Licence = Annotated[str | None, typer.Option(help="What allows their use, for the card.")]


@collect.command()
def logs(
    files: Annotated[list[Path], typer.Argument(help="Logs, or folders of them.", metavar="LOGS...")],
    out: Out,
    model: Annotated[str | None, typer.Option(help="Who answered; * stands for any letters.")] = None,
    since: Annotated[str | None, typer.Option(help="Nothing older, as 2026-01-31.")] = None,
    rating: Annotated[
        list[str] | None, typer.Option(help='Only what was rated so, in quotes: "feedback.score>=4".')
    ] = None,
    mask: Annotated[bool, typer.Option("--mask", help="Replace secrets and personal data.")] = False,
    every_turn: Annotated[
        bool, typer.Option("--every-turn", help="An example for each turn, not one for a conversation.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Draw so many.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the drawing.")] = 0,
    source: Source = None,
    licence: Licence = None,
    force: Force = False,
) -> None:
    """Make examples of production logs: requests with their answers, from OpenAI-style APIs and exports.

    Recognised are chat completions, stored completions, batch files (with their input files), the Responses
    API, exports with input and output, and pairs of prompt and completion; streamed answers are joined.
    Failed, refused and cut-off answers are left out and counted. A conversation that grows line by line is
    taken once; an answer in it that was left out is context, and is not trained on.

    Example: luthier collect logs requests.jsonl --rating "score>=4" --mask --out examples.jsonl
    """
    from luthier.collect.log_filters import Wanted, parse_rating, parse_since
    from luthier.collect.logs import LogOptions, collect_logs

    wanted = Wanted(
        model, None if since is None else parse_since(since), tuple(map(parse_rating, rating or ()))
    )
    options = LogOptions(wanted, source, licence, mask, every_turn, limit, seed)
    _tell(collect_logs(files, out, options, force=force), out, "record")


@collect.command()
def table(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, Parquet, or rows of JSON.", metavar="FILE")],
    out: Out,
    answer: Annotated[str, typer.Option(help="Column of the answer.", metavar="COLUMN")],
    prompt: Annotated[str | None, typer.Option(help="Column of what is asked.", metavar="COLUMN")] = None,
    template: Annotated[
        str | None, typer.Option(help=r'What is asked, from columns: "{subject}\n\n{body}".')
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt of every example.")] = None,
    source: Source = None,
    licence: Licence = None,
    force: Force = False,
) -> None:
    """Make examples of a table; its other columns stay beside them.

    Example: luthier collect table tickets.csv --prompt message --answer team --out examples.jsonl
    """
    from luthier.collect.table import TableOptions, collect_table

    options = TableOptions(answer, prompt, template, system, source, licence)
    _tell(collect_table(file, out, options, force=force), out, "row")


@collect.command()
def edits(
    file: Annotated[Path, typer.Argument(help="Drafts and what became of them.", metavar="FILE")],
    out: Out,
    prompt: Annotated[str | None, typer.Option(help="Column of the request.", metavar="COLUMN")] = None,
    before: Annotated[str | None, typer.Option(help="Column of the draft.", metavar="COLUMN")] = None,
    after: Annotated[str | None, typer.Option(help="Column of the edited answer.", metavar="COLUMN")] = None,
    source: Source = None,
    licence: Licence = None,
    force: Force = False,
) -> None:
    """Make preferences of drafts that people edited: the edited answer over the draft.

    Drafts that were kept, or changed in white space alone, are plain examples in NAME.plain.jsonl.

    Example: luthier collect edits sent.csv --before draft --after sent --out preferences.jsonl
    """
    from luthier.cli.screen import console
    from luthier.collect.edits import EditOptions, collect_edits, plain_file

    options = EditOptions(prompt, before, after, source, licence)
    tally, columns = collect_edits(file, out, options, force=force)
    read = f"request {columns.prompt}, draft {columns.before}, edited {columns.after}"
    console.print(f"Columns: {read}", soft_wrap=True, markup=False)
    _tell(tally, out if out.exists() else plain_file(out), "pair")


@collect.command()
def drafts(
    examples: Annotated[
        Path, typer.Option("--from", help="Your examples: shown to the model, and not repeated.")
    ],
    endpoint: Annotated[
        str, typer.Option(help="An OpenAI-compatible API, as https://api.openai.com/v1.", metavar="URL")
    ],
    model: Annotated[str, typer.Option(help="The model, as the endpoint calls it.")],
    out: Out,
    prompts: Annotated[Path | None, typer.Option(help="Requests to answer.", metavar="FILE")] = None,
    like: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Think of so many requests like the examples'.")
    ] = None,
    key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the key.", metavar="NAME")
    ] = None,
    shots: Annotated[int, typer.Option(min=0, max=50, help="Examples shown before each request.")] = 4,
    system: Annotated[
        str | None, typer.Option(help="Told to the model, in place of the examples' own; not kept.")
    ] = None,
    prices: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Of a million tokens, of prompts and of answers: the cost is told."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, max=3600, help="Seconds to wait for one answer.")] = 120,
    seed: Annotated[int, typer.Option(min=0, help="Of the examples shown.")] = 0,
    source: Source = None,
    licence: Licence = None,
    force: Force = False,
) -> None:
    """Have a stronger model write drafts: answers to your requests, or to new ones like your examples'.

    Every reply is kept at once; the same command goes on, and nothing is paid for twice. Drafts are marked
    as synthetic. Read and accept them: luthier collect review.

    Example: luthier collect drafts --from examples.jsonl --like 50 --endpoint http://127.0.0.1:8000/v1
    --model big --out drafts.jsonl
    """
    from luthier.cli.screen import Screen, console
    from luthier.collect.drafts import DraftOptions, collect_drafts

    options = DraftOptions(
        _endpoint(endpoint, model, key_env, timeout), prompts, like, shots, seed, system, source, licence
    )
    drafted = collect_drafts(examples, out, options, force=force, show=Screen())
    tokens = f"{drafted.prompt_tokens} tokens of prompts, {drafted.answer_tokens} of answers"
    if prices is not None:
        cost = (prices[0] * drafted.prompt_tokens + prices[1] * drafted.answer_tokens) / 1e6
        tokens += f": {cost:.4f}"
    console.print(f"Endpoint counted {tokens}", soft_wrap=True, markup=False)
    _tell(drafted.tally, out, "request", then=f"luthier collect review {out} --by NAME")


@collect.command()
def review(
    file: Annotated[Path, typer.Argument(help="Drafts.", metavar="FILE")],
    by: Annotated[str, typer.Option(help="Who reads them.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="What was accepted. Default: NAME.accepted.jsonl.")
    ] = None,
    force: Force = False,
) -> None:
    """Read drafts one by one: accept, edit, reject or skip. Only those you accepted are written.

    Every word is kept at once, in NAME.review.jsonl; the same command goes on. An edit opens your editor
    (VISUAL or EDITOR), or is typed.

    Example: luthier collect review drafts.jsonl --by anna
    """
    from luthier.cli.accepting import review_drafts

    review_drafts(file, out, by, force=force)


def _endpoint(url: str, model: str, key_env: str | None, timeout: float) -> Endpoint:
    """The endpoint of the options.

    Raises:
        RecipeError: they describe none.
    """
    from pydantic import ValidationError

    from luthier.recipe.grader_options import Endpoint

    try:
        return Endpoint(url=url, model=model, key_env=key_env, timeout=timeout)
    except ValidationError as error:
        problem = error.errors()[0]
        option = {"url": "--endpoint", "model": "--model", "key_env": "--key-env"}
        named = option.get(str(problem["loc"][0]) if problem["loc"] else "", "--endpoint")
        said = problem["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{named}: {said}", fix="see: luthier collect drafts --help") from None


def _tell(tally: Tally, out: Path, what: str, then: str | None = None) -> None:
    """Say what was taken, what was not and why, and what comes next.

    Raises:
        DataError: nothing was taken.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from luthier.cli.screen import console

    if tally.left_out:
        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for heading, side in (("left out", "right"), ("why", "left"), ("first", "left")):
            shown.add_column(heading, justify=side, overflow="fold")  # type: ignore[arg-type]
        for reason, count in tally.left_out.most_common():
            shown.add_row(str(count), escape(reason), escape(", ".join(tally.places[reason])))
        console.print(shown)
    if not tally.taken:
        raise DataError(
            f"none of {tally.read} {what}s makes an example, so nothing was written",
            where=str(out),
            fix="see why above" if tally.left_out else "name a file that holds some",
        )
    plural = "" if tally.read == 1 else "s"
    console.print(f"{tally.taken} of {tally.read} {what}{plural} taken: {escape(str(out))}", soft_wrap=True)
    for note, count in tally.notes.items():
        console.print(f"  {count} {note}", soft_wrap=True, markup=False)
    console.print(f"[dim]Next: {escape(then or f'luthier check {out}')}[/dim]", soft_wrap=True)
