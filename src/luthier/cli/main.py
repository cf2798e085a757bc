"""The `luthier` command. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from luthier import __version__
from luthier.cli.check_command import Columns, check
from luthier.cli.collecting import collect
from luthier.cli.convert_command import convert
from luthier.cli.summaries import Format
from luthier.cli.sweeping import sweep
from luthier.errors import (
    EXIT_DO_NOT_SHIP,
    EXIT_ERROR,
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    EXIT_SHIP,
    LuthierError,
    StoppedError,
)

if TYPE_CHECKING:
    from luthier.pipeline import Run

EXIT_CODES = {
    "ship": EXIT_SHIP,
    "do_not_ship": EXIT_DO_NOT_SHIP,
    "inconclusive": EXIT_INCONCLUSIVE,
    "better": EXIT_SHIP,
    "no_worse": EXIT_SHIP,
    "worse": EXIT_DO_NOT_SHIP,
    "undecided": EXIT_INCONCLUSIVE,
}


class Commands(TyperGroup):
    """Commands whose errors become one to three lines and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`--debug` is understood after the command too, where it is typed when something went wrong."""
        rest = [arg for arg in args if arg != "--debug"]
        return super().parse_args(ctx, rest if rest == args else ["--debug", *rest])

    def invoke(self, ctx: Any) -> Any:
        """Run a command; wrong usage is left to the library, which exits with 2."""
        try:
            return super().invoke(ctx)
        except StoppedError as error:
            _fail(f"{error.render()}\nGo on: {shlex.join(['luthier', *sys.argv[1:]])}", error.exit_code)
        except LuthierError as error:
            _fail(error.render(), error.exit_code)
        except KeyboardInterrupt:
            _fail(
                "interrupted; what is finished is kept, the same command goes on from there", EXIT_INTERRUPTED
            )
        except OSError as error:
            _fail(f"{error.filename or 'operating system'}: {error.strerror or error}", EXIT_ERROR)


app = typer.Typer(
    cls=Commands,
    name="luthier",
    help="Fine-tune a language model on your examples and learn, with evidence, whether it was worth it.\n\n"
    "Example: luthier init tickets.jsonl && luthier run tickets.yaml",
    epilog="Exit codes: 0 ship, 1 error, 2 usage, 3 do not ship, 4 inconclusive, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RunFolder = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]
RecipeOrRun = Annotated[Path, typer.Argument(help="A recipe, or a run folder.", metavar="RECIPE|RUN")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="The run folder. Default: runs/NAME beside where you are.")
]
FormatOption = Annotated[Format, typer.Option("--format", help="For other programs: markdown, junit, json.")]


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options that go with every command."""
    _state["debug"] = debug


_state = {"debug": False}


@app.command()
def demo(out: Out = None) -> None:
    """Run the main job on the embedded model and data: support messages to a JSON triage.

    Example: luthier demo --out runs/demo
    """
    from luthier.demo import RECIPE

    _run_all(RECIPE, out or Path("runs/demo"))


@app.command()
def run(
    recipe: RecipeOrRun,
    out: Out = None,
) -> None:
    """Go from examples to a verdict. The same command goes on where a killed run stopped.

    Example: luthier run tickets.yaml --out runs/tickets
    """
    _run_all(recipe, out)


@app.command()
def init(
    data: Annotated[Path, typer.Argument(help="A file of examples.", metavar="DATA")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The recipe. Default: NAME.yaml.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing recipe.")] = False,
    columns: Columns = None,
) -> None:
    """Write a recipe from the data, with comments that explain each choice.

    Example: luthier init tickets.jsonl
    """
    from luthier.cli.starter import write_starter
    from luthier.examples.columns import read_columns

    mapped = None if columns is None else read_columns(columns)
    path = write_starter(data, out or Path(data.name.split(".")[0] + ".yaml"), force=force, columns=mapped)
    typer.echo(f"Wrote {path}. Read it, then: luthier run {path}")


app.command()(check)
app.command()(convert)


@app.command()
def split(recipe: RecipeOrRun, out: Out = None) -> None:
    """Divide the examples leak-safe into train, validation and test.

    Example: luthier split tickets.yaml --out runs/tickets
    """
    job = _open(recipe, out)
    found = job.split()
    for side, examples in found.sides().items():
        bad = len(found.unwanted.get(side, ()))
        more = f" and {bad} whose answer should not be given" if bad else ""
        typer.echo(f"{side:<11}{len(examples):>6} examples{more}  {job.record / 'data' / (side + '.jsonl')}")


@app.command()
def train(recipe: RecipeOrRun, out: Out = None) -> None:
    """Fine-tune, and write the adapter.

    Example: luthier train tickets.yaml --out runs/tickets
    """
    job = _open(recipe, out)
    summary = job.train()
    speed = f"{summary['seconds']:.0f} s ({summary['tokens_per_second']:.0f} tokens/s)"
    typer.echo(f"{summary['steps']} steps in {speed}, best at step {summary['best_step']}")
    typer.echo(f"Adapter: {job.record / 'adapter'}")


app.command()(sweep)
app.add_typer(collect, name="collect")


@app.command()
def evaluate(recipe: RecipeOrRun, out: Out = None) -> None:
    """Ask and grade every candidate on the held-out examples.

    Example: luthier evaluate runs/tickets
    """
    from luthier.cli.screen import print_candidates

    job = _open(recipe, out)
    print_candidates(job.evaluate())


@app.command()
def probe(recipe: RecipeOrRun, out: Out = None) -> None:
    """Measure what tuning cost: forgetting, drift on the base model's own text.

    Example: luthier probe runs/tickets
    """
    from luthier.cli.screen import print_probes

    print_probes(_open(recipe, out).probe())


@app.command()
def verdict(
    folder: RunFolder,
    min_gain: Annotated[
        float | None, typer.Option(min=0, max=1, help="Another gate, for this decision only.")
    ] = None,
    format: FormatOption = Format.text,
) -> None:
    """Decide again from the record alone; the exit code is the decision.

    Example: luthier verdict runs/tickets --format junit
    """
    job = _open(folder)
    decided = job.verdict(min_gain=min_gain)
    if format is Format.text:
        from luthier.cli.screen import print_verdict

        print_verdict(decided)
    else:
        from luthier.cli.summaries import write_verdict

        typer.echo(write_verdict(decided, job.record.path.name, format), nl=False)
    raise typer.Exit(EXIT_CODES[decided["decision"]])


@app.command()
def review(folder: RunFolder) -> None:
    """Judge the answers that a person should read before release, one by one; goes on where you stopped.

    With `stakes: high` the verdict waits for it.

    Example: luthier review runs/tickets
    """
    from luthier.cli.reviewing import review_answers

    review_answers(_open(folder))


@app.command()
def rank(
    source: Annotated[
        Path,
        typer.Argument(
            help="Prompts with answers (.jsonl), a recipe, or a run folder.", metavar="PROMPTS|RECIPE|RUN"
        ),
    ],
    rater: Annotated[str | None, typer.Option(help="Who judges.")] = None,
    grader: Annotated[
        str | None, typer.Option(help="A grader in the place of a person, such as python:FILE.py:FUNCTION.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The judgements; other files are written beside them.")
    ] = Path("judgements.jsonl"),
    answers: Annotated[
        int | None, typer.Option(min=2, max=9, help="Answers sampled for each prompt. Default: 4.")
    ] = None,
    pairwise: Annotated[
        bool, typer.Option("--pairwise", help="Compare two answers at a time: k - 1 questions for k answers.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Prompts. Default: all of a file with answers, else 50.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Who answers: a model, or a run folder. Default: the run's tuned, else its base."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.01, max=5, help="Of the sampling. Default: 1.")
    ] = None,
    repeat: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the prompts that a rater is asked again.")
    ] = 0.1,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of prompts, samples and orders. Default: 0.")
    ] = None,
    preferences: Annotated[
        Path | None, typer.Option(help="What to train on. Default: NAME.preferences.jsonl beside --out.")
    ] = None,
) -> None:
    """Ask people which answers are better; write what they prefer, and how far they agree.

    Prompts of a recipe or a run are those of its training side. Type answers from best to worst (2 1 3, ties
    as 2=1 3, the best alone as 2), or with --pairwise a, b or =; s skips, u takes the last word back, q
    stops. Every word is kept at once; the same command goes on, and another --rater judges the same answers.

    Example: luthier rank runs/tickets --out judgements.jsonl --rater anna
    """
    from luthier.cli.ranking import rank_answers
    from luthier.ranking.kept import Wanted

    rank_answers(
        source,
        out,
        rater,
        wanted=Wanted(answers, limit, temperature, seed, model),
        pairwise=pairwise,
        repeat=repeat,
        preferences=preferences,
        grader=grader,
    )


@app.command()
def compare(
    old: Annotated[Path, typer.Argument(help="The run that is in use.", metavar="OLD")],
    new: Annotated[Path, typer.Argument(help="The run that would take its place.", metavar="NEW")],
    candidate: Annotated[
        str | None, typer.Option(help="Whose answers; default: what each run recommends.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(min=0.0001, max=1, help="Largest accepted loss in score; default: the gate min_gain."),
    ] = None,
    format: FormatOption = Format.text,
) -> None:
    """Compare two runs on the examples that both held out: is the newer one no worse, and what moved?

    Exits with 0 when it is better or no worse, 3 when it is worse, 4 when that is undecided.

    Example: luthier compare runs/tickets runs/tickets-2
    """
    from luthier.evidence.comparison import compare_runs
    from luthier.record import Record

    result = compare_runs(Record(old), Record(new), candidate=candidate, margin=margin)
    if format is Format.text:
        from luthier.cli.screen import print_comparison

        print_comparison(result)
    else:
        from luthier.cli.summaries import write_comparison

        typer.echo(write_comparison(result, format), nl=False)
    raise typer.Exit(EXIT_CODES[result["decision"]])


@app.command()
def card(folder: RunFolder) -> None:
    """Write card.md and report.html from the record.

    Example: luthier card runs/tickets
    """
    for path in _open(folder).card():
        typer.echo(path)


@app.command()
def chat(
    folder: RunFolder,
    prompt: Annotated[str | None, typer.Argument(help="One message; without it, a conversation.")] = None,
) -> None:
    """Talk to base and tuned side by side.

    Example: luthier chat runs/tickets "my kettle smokes"
    """
    from luthier.cli.talking import talk

    talk(_open(folder), prompt)


@app.command()
def export(
    folder: RunFolder,
    format: Annotated[str, typer.Option("--format", help="merged: a Transformers folder.")] = "merged",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: RUN/export/FORMAT.")] = None,
) -> None:
    """Write the tuned model for use elsewhere, with tokenizer and chat template.

    Example: luthier export runs/tickets --format merged
    """
    typer.echo(_open(folder).export(format, out))


@app.command()
def doctor(
    fetch: Annotated[bool, typer.Option("--fetch", help="Fetch what is missing.")] = False,
) -> None:
    """Show what is installed, which assets are there, the hardware, and what is missing.

    Example: luthier doctor --fetch
    """
    from luthier.cli.health import print_health

    print_health(fetch=fetch)


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file; default: the screen.")] = None,
) -> None:
    """Export the JSON Schema of recipes, for editors.

    Example: luthier schema --out recipe.schema.json
    """
    import json

    from luthier.recipe import recipe_schema

    text = json.dumps(recipe_schema(), indent=2)
    if out is None:
        typer.echo(text)
    else:
        from luthier.record import explain_os_errors, write_text

        with explain_os_errors(out):
            write_text(out, text + "\n")
        typer.echo(out)


def main() -> None:
    """Entry point."""
    app()


def _fail(text: str, code: int) -> NoReturn:
    if _state["debug"]:
        import traceback

        traceback.print_exc()
    typer.echo(f"luthier: {text}", err=True)
    sys.exit(code)


def _open(source: Path, out: Path | None = None) -> Run:
    from luthier.cli.opening import open_run

    return open_run(source, out)


def _run_all(source: Path, out: Path | None) -> None:
    from luthier.cli.screen import print_result

    job = _open(source, out)
    decided = job.all()
    print_result(job, decided)
    raise typer.Exit(EXIT_CODES[decided["decision"]])
