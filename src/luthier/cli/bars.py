"""Long work on the terminal: a bar with a line under it; in a file or a pipe, a line now and then."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from time import monotonic

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from luthier.progress import Advance

ROOMY = 100  # columns from which the bar is long and the detail stands beside it
PLAIN_SECONDS = 30.0  # between lines where there is no terminal
GUESSABLE = (
    0.1  # share that is done before the time left is guessed: the first answer of a batch takes longest
)


@contextlib.contextmanager
def bar(console: Console, what: str, total: int | None) -> Iterator[Advance]:
    """Show work that is under way; what is finished stays, with its time."""
    show = _on_terminal if console.is_terminal else _in_lines
    with show(console, what, total) as advance:
        yield advance


@contextlib.contextmanager
def _on_terminal(console: Console, what: str, total: int | None) -> Iterator[Advance]:
    bars = _Bars(console)
    with bars:
        task = bars.add_task(escape(what), total=total, detail="", left=None)

        def advance(done: int, detail: str = "", *, below: str = "", left: float | None = None) -> None:
            bars.below = below
            bars.update(task, advance=done, detail=detail, left=left)

        yield advance
        bars.below = ""
        bars.update(task, total=total or 1, completed=total or 1)


@contextlib.contextmanager
def _in_lines(console: Console, what: str, total: int | None) -> Iterator[Advance]:
    began = told = monotonic()
    so_far, last = 0, ""

    def say(*parts: str) -> None:
        line = ", ".join(part for part in parts if part)
        console.print(line, markup=False, soft_wrap=True)

    def advance(done: int, detail: str = "", *, below: str = "", left: float | None = None) -> None:
        nonlocal told, so_far, last
        so_far, last, now = so_far + done, detail, monotonic()
        if now - told >= PLAIN_SECONDS and so_far != total:
            told = now
            if left is None and total and so_far >= GUESSABLE * total:
                left = (now - began) / so_far * (total - so_far)
            remaining = "" if left is None else f"{clock(left)} left"
            say(
                f"{what}: {_count(so_far, total)}".removesuffix(": "),
                clock(now - began),
                remaining,
                detail,
                below,
            )

    yield advance
    say(f"{what}: done in {clock(monotonic() - began)}", last)


def clock(seconds: float) -> str:
    """`1:05`, or `2:01:05`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Bars(Progress):
    """One bar, and what is under it; in a narrow terminal the detail is there too."""

    def __init__(self, console: Console) -> None:
        self.below = ""
        self._roomy = console.width >= ROOMY
        super().__init__(
            SpinnerColumn(finished_text="[green]✓[/green]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24 if self._roomy else 8),
            _Counted(),
            _Times(),
            _Detail(beside=self._roomy),
            console=console,
            refresh_per_second=2,  # drawing takes a core from the work that is shown
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, then the lines under it."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            lines = [] if self._roomy or task.finished else [task.fields["detail"]]
            for line in [*lines, self.below]:
                if line:
                    yield Text(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis")


class _Counted(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(_count(round(task.completed), task.total), style="dim")


class _Times(ProgressColumn):
    """Time taken, and time left while there is some."""

    def render(self, task: Task) -> Text:
        taken = task.finished_time if task.finished else task.elapsed
        shown = Text(clock(taken or 0), style="progress.elapsed")
        left = task.fields["left"]
        if left is None and task.total and task.completed >= GUESSABLE * task.total:
            left = task.time_remaining
        if left is not None and not task.finished:
            shown.append(f" {clock(left)} left", style="dim")
        return shown


class _Detail(ProgressColumn):
    """In a narrow terminal only of what is finished, when the time left is gone."""

    def __init__(self, *, beside: bool) -> None:
        super().__init__()
        self._beside = beside

    def render(self, task: Task) -> Text:
        shown = task.fields["detail"] if self._beside or task.finished else ""
        return Text(shown, style="dim", no_wrap=True, overflow="ellipsis")


def _count(done: int, total: float | None) -> str:
    return f"{done}/{round(total)}" if total else ""
