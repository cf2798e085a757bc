"""`luthier rank`: answers shown one prompt at a time, what a person says of them, and what follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.markup import escape
from rich.panel import Panel
from rich.prompt import Prompt
from rich.table import Table
from rich.text import Text

from luthier.cli.opening import RECIPE_SUFFIXES, open_run
from luthier.cli.ranked import Files, conclude, refuse_to_overwrite
from luthier.cli.screen import Screen, console
from luthier.errors import DataError, RecipeError
from luthier.grade import Grader, build_grader
from luthier.pipeline.sampling import Offer, given_offer, offer_answers, prompt_requests, train_requests
from luthier.pipeline.stages import read_split
from luthier.pipeline.writers import Writer, has_writer, named_writer, run_writer
from luthier.ranking.graded import rank_by_grader
from luthier.ranking.judgements import (
    Judgement,
    add_judgement,
    of_rater,
    read_judgements,
    undo_judgement,
)
from luthier.ranking.kept import Wanted
from luthier.ranking.questions import read_prompts
from luthier.ranking.tasks import Task, open_tasks, plan_tasks
from luthier.ranking.typed import COMMANDS, PAIR, RANKS, Order, parse_pair, parse_ranks
from luthier.recipe import DATA_SUFFIXES

SKIP, UNDO, QUIT = "s", "u", "q"
CONTROL = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\ufffd")  # no escape sequences


@dataclass(frozen=True)
class Session:
    """One rater at one source."""

    files: Files
    offer: Offer
    rater: str
    pairwise: bool
    repeat: float

    def tasks(self, own: Sequence[Judgement]) -> list[Task]:
        """All that the rater is asked."""
        return plan_tasks(
            self.offer.asked,
            own,
            rater=self.rater,
            seed=self.offer.seed,
            pairwise=self.pairwise,
            repeat=self.repeat,
        )


def rank_answers(
    source: Path,
    out: Path,
    rater: str | None,
    *,
    wanted: Wanted,
    pairwise: bool,
    repeat: float,
    preferences: Path | None,
    grader: str | None = None,
) -> None:
    """Ask a rater for all that they have not judged yet; then write preferences and agreement.

    Args:
        grader: a grader that ranks in the place of a person, under its own name.

    Raises:
        RecipeError: an option does not fit the source, or a file to write is something else.
        DataError, RecordError: the source or an earlier file cannot be read.
    """
    files = Files.beside(out, preferences)
    refuse_to_overwrite(files, source)
    if (rater is None) == (grader is None):
        raise RecipeError(
            "who judges is not clear",
            fix="name one: --rater anna, or a program such as --grader python:rules.py:score",
        )
    judge = None if grader is None else build_grader(grader, [], answer_schema=None)
    rater = f"grader {grader}" if rater is None else " ".join(rater.split())
    if not rater:
        raise RecipeError("--rater is empty", fix="say who judges: --rater anna")
    if judge is not None and pairwise:
        raise RecipeError("--pairwise is for people", fix="leave it away: a grader ranks all answers")
    read_judgements(files.judgements)  # a file of another kind is named before anything is sampled
    repeat = repeat if judge is None else 0.0  # a program says the same twice
    session = Session(files, _gather(source, files.answers, wanted), rater, pairwise, repeat)
    if session.offer.alike:
        console.print(f"[dim]{session.offer.alike} prompts are not asked: their answers are the same.[/dim]")
    try:
        if judge is None:
            _ask_all(session)
        else:
            _ask_grader(session, judge)
    except KeyboardInterrupt:
        conclude(files, session.offer)
        raise
    conclude(files, session.offer)


def _gather(source: Path, answers: Path, wanted: Wanted) -> Offer:
    """The prompts of a source with their answers, sampled where there are none."""
    show = Screen()
    if (source.is_file() and source.suffix not in RECIPE_SUFFIXES) or source.suffix in DATA_SUFFIXES:
        prompts = read_prompts(source)
        bare = [prompt for prompt in prompts if not prompt.answers]
        if not bare:
            return given_offer(prompts, wanted)
        if len(bare) < len(prompts):
            fix = "write answers, or leave all answers out to have them sampled"
            raise DataError("no answers, and other prompts have some", where=bare[0].where, fix=fix)

        def writer() -> Writer:
            if wanted.model is None:
                fix = "write answers, or have them sampled: --model smollm2-135m"
                raise RecipeError("these prompts have no answers", where=str(source), fix=fix)
            return named_writer(wanted.model, None, show)

        return offer_answers(answers, lambda seed: prompt_requests(prompts), writer, wanted, show)
    job = open_run(source)
    is_run = source.is_dir()
    split = read_split(job.record) if is_run else job.split()
    own = partial(run_writer, job, tuned=is_run and has_writer(job))
    other = partial(named_writer, wanted.model or "", job, show)
    requests = partial(train_requests, split)
    return offer_answers(answers, requests, other if wanted.model is not None else own, wanted, show)


# --- asking -----------------------------------------------------------------------------------------


def _ask_all(session: Session) -> None:
    """One task after the other, until all are done or the rater stops; every word is kept at once."""
    files, rater = session.files, session.rater
    own = of_rater(read_judgements(files.judgements), rater)
    tasks = session.tasks(own)
    left = open_tasks(tasks, own)
    count = f"{len(session.offer.asked)} prompts, {len(left)} of {len(tasks)} questions left for {rater}"
    console.print(escape(f"{count}: {files.judgements}"), soft_wrap=True)
    if left:
        console.print(f"[dim]{PAIR if session.pairwise else RANKS}; {COMMANDS}; every answer is kept.[/dim]")
    while left:
        task = left[0]
        _show(task, f"{len(tasks) - len(left) + 1} of {len(tasks)}", session.pairwise)
        started = time.monotonic()
        said = _listen(task, session.pairwise)
        if said is None:
            return
        typed, order = said
        if typed == UNDO:
            _undo(files.judgements, own)
        else:
            judgement = _judgement(session, task, typed, order, round(time.monotonic() - started, 1))
            add_judgement(files.judgements, judgement)
            own.append(judgement)
        tasks = session.tasks(own)
        left = open_tasks(tasks, own)


def _ask_grader(session: Session, judge: Grader) -> None:
    """The same questions, put to a program."""
    own = of_rater(read_judgements(session.files.judgements), session.rater)
    left = open_tasks(session.tasks(own), own)
    told = f"{len(session.offer.asked)} prompts, {len(left)} left for {session.rater}"
    console.print(escape(f"{told}: {session.files.judgements}"), soft_wrap=True)
    for task, (typed, order) in zip(left, rank_by_grader(judge, left, session.offer.examples), strict=True):
        add_judgement(session.files.judgements, _judgement(session, task, typed, order, 0.0))


def _listen(task: Task, pairwise: bool) -> tuple[str, Order] | None:
    """What the rater types and the order it means (none for a skip or `u`); None where they stop."""
    read: Callable[[str], Order] = parse_pair if pairwise else partial(parse_ranks, count=len(task.shown))
    what = "better" if pairwise else "ranks"
    while True:
        try:
            typed = Prompt.ask(what, console=console, default="", show_default=False)
        except EOFError:
            return None
        typed = typed.strip().lower()
        if typed == QUIT:
            return None
        if typed in (SKIP, UNDO):
            return typed, ()
        try:
            return typed, read(typed)
        except ValueError as error:
            console.print(f"[yellow]{escape(str(error))}.[/yellow] [dim]{COMMANDS}.[/dim]")


def _judgement(session: Session, task: Task, typed: str, order: Order, seconds: float) -> Judgement:
    return Judgement(
        question=task.question.key,
        rater=session.rater,
        round=task.round,
        shown=task.shown,
        order=tuple(tuple(task.shown[place] for place in level) for level in order),
        typed=typed,
        at=_now(),
        seconds=seconds,
        seed=session.offer.seed,
        model=task.question.source.get("model"),
    )


def _undo(path: Path, own: list[Judgement]) -> None:
    if not own:
        console.print("[yellow]There is nothing to undo.[/yellow]")
        return
    undo_judgement(path, own[-1], at=_now())
    console.print(f"[yellow]Undone: {escape(own.pop().typed)}[/yellow]")


def _show(task: Task, place: str, pairwise: bool) -> None:
    """The prompt, then the answers in the order of the task; nothing tells who wrote them."""
    table = Table.grid(padding=(0, 1))
    if task.question.tools:
        offered = ", ".join(str(tool.get("function", tool).get("name", "?")) for tool in task.question.tools)
        table.add_row(Text("tools", style="dim"), _text(offered))
    for message in task.question.messages:
        table.add_row(Text(message.role, style="dim"), _text(message.text))
    console.print(Panel(table, title=place, title_align="left"))
    for number, key in enumerate(task.shown):
        answer = task.question.by_id[key]
        text = _text(answer.text)
        if answer.cut:
            text.append(" … (cut off)", style="dim")
        name = "ab"[number] if pairwise else str(number + 1)
        console.print(Panel(text, title=f"[bold]{name}[/bold]", title_align="left"))


def _text(text: str) -> Text:
    return Text(text.translate(CONTROL))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
