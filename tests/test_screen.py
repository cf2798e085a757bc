"""What is seen while work goes on: bars in a terminal and in a file, and the live view of training."""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from luthier.cli import bars, screen
from luthier.cli.bars import bar, clock
from luthier.pipeline.live import RECENT_SECONDS, TrainingView, course
from luthier.progress import Silent
from luthier.record import Record, write_json
from luthier.train import Progress
from luthier.train.estimate import Estimate

BELOW = "▇▇▆▅▄▃▃▂▂▁▁▁▁▁▁▁  1,612 tokens/s, 68% of this machine's 142 GFLOP/s, 12.1 GB"
DETAIL = "loss 0.412, validation 0.455, score 72%"
ESTIMATE = Estimate(
    steps=100,
    tokens=80_000,
    trained_tokens=20_000,
    executed_tokens=40_000,
    micro_tokens=1024,
    flops=4e12,
    seconds=50.0,
    peak_memory_bytes=2 * 10**9,
    available_bytes=10**10,
    fits=True,
    measured_seconds=1.0,
)


def terminal(width: int) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=width, force_terminal=True, highlight=False), file


def frames(file: io.StringIO) -> list[str]:
    """Everything that was drawn, line by line, without colours and movements."""
    return [
        line for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", file.getvalue())) if line
    ]


# --- in a terminal --------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_bar_with_what_is_under_it_fits_the_terminal(width: int) -> None:
    console, file = terminal(width)
    with bar(console, "tuned: training", 460) as advance:
        for _ in range(3):
            advance(100, DETAIL, below=BELOW, left=4000.0)
            time.sleep(0.6)
    drawn = frames(file)
    assert max(map(len, drawn)) <= width
    shown = "\n".join(drawn)
    assert "300/460" in shown
    assert "1:06:40 left" in shown
    assert "loss 0.412" in shown
    assert BELOW[:50] in shown


@pytest.mark.parametrize("width", [80, 120])
def test_what_is_finished_stays_on_one_line(width: int) -> None:
    console, file = terminal(width)
    with bar(console, "tuned: training", 4) as advance:
        advance(4, "loss 0.412, validation 0.455", below=BELOW)
    last = frames(file)[-1]
    assert last.startswith("✓ tuned: training ━")
    assert "4/4 0:00" in last
    assert "left" not in last
    assert last.rstrip().endswith("loss 0.412, validation 0.455")


def test_in_a_narrow_terminal_the_detail_is_below_while_it_runs() -> None:
    for width, beside in ((80, False), (120, True)):
        console, file = terminal(width)
        with bar(console, "work", 10) as advance:
            advance(1, "detail")
            time.sleep(0.7)
            running = [line for line in frames(file) if "1/10" in line]
        assert ("detail" in running[-1]) is beside


def test_markup_in_names_is_text() -> None:
    console, file = terminal(80)
    with bar(console, "loading [red]x[/red]", None):
        pass
    assert "[red]x[/red]" in frames(file)[-1]


# --- where there is no terminal -------------------------------------------------------------------


def lines_of(monkeypatch: pytest.MonkeyPatch, steps: list[float]) -> list[str]:
    """What a file gets when a hundredth of the work is done at each of these seconds."""
    now = [0.0]
    monkeypatch.setattr(bars, "monotonic", lambda: now[0])
    file = io.StringIO()
    with bar(Console(file=file, width=80, highlight=False), "tuned: training", 100) as advance:
        for second in steps:
            now[0] = second
            advance(1, "loss 0.4", below="500 tokens/s")
    return file.getvalue().splitlines()


def test_a_file_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = lines_of(monkeypatch, [float(second) for second in range(1, 100)])
    assert lines == [
        "tuned: training: 30/100, 0:30, 1:10 left, loss 0.4, 500 tokens/s",
        "tuned: training: 60/100, 1:00, 0:40 left, loss 0.4, 500 tokens/s",
        "tuned: training: 90/100, 1:30, 0:10 left, loss 0.4, 500 tokens/s",
        "tuned: training: done in 1:39, loss 0.4",
    ]


def test_short_work_is_one_line_and_a_failure_is_not_called_done(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines_of(monkeypatch, [1.0, 2.0]) == ["tuned: training: done in 0:02, loss 0.4"]
    file = io.StringIO()
    with pytest.raises(ZeroDivisionError), bar(Console(file=file), "work", 3):
        raise ZeroDivisionError
    assert file.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (-3, "0:00")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_silence_takes_what_a_bar_takes() -> None:
    with Silent().task("work", 3) as advance:
        advance(1, "detail", below="below", left=1.0)


# --- the live view --------------------------------------------------------------------------------


class Bar:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str, str, float | None]] = []

    def __call__(self, done: int, detail: str = "", *, below: str = "", left: float | None = None) -> None:
        self.calls.append((done, detail, below, left))


def at(step: int, **changes: Any) -> Progress:
    """A second, 1000 tokens and 500 executed tokens a step; ten steps an epoch."""
    progress = Progress(
        step=step,
        steps=100,
        epoch=step / 10,
        loss=1.0 / step,
        validation_loss=None,
        validation_score=None,
        tokens=1000 * step,
        trained_tokens=100 * step,
        executed_tokens=500 * step,
        seconds=float(step),
        memory_bytes=2_100_000_000,
        learning_rate=1e-3,
    )
    return replace(progress, **changes)


def view(bar: Bar, rate: float | None = 1e11, notes: list[str] | None = None) -> TrainingView:
    now = [0.0]

    def later() -> float:
        now[0] += 1.0
        return now[0]

    return TrainingView(bar, ESTIMATE, rate, [].append if notes is None else notes.append, later)


def test_the_line_by_hand() -> None:
    """500 executed tokens a second at 1e8 operations each (4e12 / 40,000) are half of 1e11."""
    shown = Bar()
    watch = view(shown)
    for step in (1, 2, 3):
        watch(at(step))
    done, detail, below, _ = shown.calls[-1]
    assert (done, detail) == (1, "loss 0.333")
    assert (
        below == f"{course([1.0, 1 / 2, 1 / 3])}  1,000 tokens/s, 50% of this machine's 100 GFLOP/s, 2.1 GB"
    )
    watch(at(4, validation_loss=0.5, validation_score=0.75))
    assert shown.calls[-1][1] == "loss 0.250, validation 0.500, score 75%"
    assert sum(call[0] for call in shown.calls) == 4


def test_without_a_rate_of_the_machine_there_is_no_share_of_it() -> None:
    shown = Bar()
    watch = view(shown, rate=None)
    watch(at(1))
    watch(at(2))
    assert shown.calls[-1][2].endswith("1,000 tokens/s, 2.1 GB")


def test_time_left_begins_with_the_estimate_and_ends_with_what_is_seen() -> None:
    """Estimated half a second a step, seen one: after n steps (n + 3 x 0.5) / (n + 3) a step."""
    shown = Bar()
    watch = view(shown)
    for step in (1, 2, 3, 4, 50):
        watch(at(step))
        assert shown.calls[-1][3] == pytest.approx((100 - step) * (step + 1.5) / (step + 3))


def test_a_run_that_goes_on_is_not_taken_for_a_fast_one() -> None:
    """The first step shown is 61: the sixty before were made by another start, in their own time."""
    shown = Bar()
    watch = view(shown)
    watch(at(61, seconds=1000.0))
    assert shown.calls[0][0] == 61
    assert "tokens/s" not in shown.calls[0][2]
    assert shown.calls[0][3] == pytest.approx(39 * 0.5)
    watch(at(62, seconds=1002.0))
    assert "500 tokens/s" in shown.calls[1][2]
    assert shown.calls[1][3] == pytest.approx(38 * (2 + 1.5) / (1 + 3))


def test_validation_is_no_slow_step() -> None:
    shown = Bar()
    watch = view(shown)
    for step in range(1, 10):
        watch(at(step))
    watch(at(10, seconds=60.0))
    watch(at(11, seconds=61.0))
    assert "1,000 tokens/s" in shown.calls[-1][2]


def test_rates_are_recent() -> None:
    shown = Bar()
    watch = view(shown)
    for step in (1, 2, 3):
        watch(at(step))
    for step in (4, 5, 6):
        watch(at(step, seconds=3 + (step - 3) * RECENT_SECONDS))
    assert f"{1000 / RECENT_SECONDS:,.0f} tokens/s" in shown.calls[-1][2]


def test_words_are_made_twice_a_second_and_the_bar_moves_at_every_step() -> None:
    shown = Bar()
    times = iter([0.0, 0.1, 0.2, 0.6, 0.7])
    watch = TrainingView(shown, ESTIMATE, None, print, lambda: next(times))
    for step in range(1, 6):
        watch(at(step))
    assert [call[0] for call in shown.calls] == [1] * 5
    assert [call[1] for call in shown.calls] == ["loss 1.000"] * 3 + ["loss 0.250"] * 2
    last = TrainingView(shown, ESTIMATE, None, print, lambda: 0.0)
    last(at(99))
    last(at(100))
    assert shown.calls[-1][1] == "loss 0.010"


def test_what_training_has_to_say_is_said() -> None:
    notes: list[str] = []
    watch = view(Bar(), notes=notes)
    watch(at(1))
    watch(at(2, note="out of memory: micro-batch halved to 512 tokens"))
    watch(at(3))
    assert notes == ["out of memory: micro-batch halved to 512 tokens"]


def test_courses() -> None:
    assert course([3.0]) == "▁"
    assert course([1.0, 0.5, 0.0]) == "█▅▁"
    falling = course([1.0 / (1 + i) for i in range(1000)])
    assert len(falling) == 16
    assert falling[0] == "█"
    assert falling[-1] == "▁"
    assert course([2.0] * 50) == "▁" * 16


def test_showing_costs_nothing_that_counts() -> None:
    """Far below a thousandth of the quickest real step, in which a tenth of a second passes."""
    console, _ = terminal(80)
    with bar(console, "tuned: training", 2000) as advance:
        watch = TrainingView(advance, ESTIMATE, 1e11, print)
        began = time.process_time()
        for step in range(1, 501):
            watch(at(step, steps=2000))
        seconds = (time.process_time() - began) / 500
    assert seconds < 1e-3


def test_the_first_of_many_gives_no_guess_of_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer of a batch comes after all have been read: times a hundred, it would be hours."""
    monkeypatch.setattr(bars, "PLAIN_SECONDS", 0.0)
    out = io.StringIO()
    with bar(Console(file=out, width=200), "answering", 100) as advance:
        advance(1)
        advance(20)
    first, second, _ = out.getvalue().splitlines()
    assert "1/100" in first and "left" not in first
    assert "21/100" in second and "left" in second


# --- what training left to be looked at -----------------------------------------------------------


def test_labels_that_training_did_not_believe_take_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.StringIO()
    monkeypatch.setattr(screen, "console", Console(file=file, width=60, highlight=False))
    record = Record(tmp_path)
    screen.print_doubtful(record)  # an older run
    found = [{"examples": [{"file": "/home/ada/[b]tickets.jsonl", "line": line}]} for line in (7, 3, 40, 12)]
    write_json(tmp_path / "train/doubtful.json", {"says": None, "found": []})
    screen.print_doubtful(record)
    assert file.getvalue() == ""
    for shown in (3, 4):
        says = f"{shown} of 90 training labels are doubtful, by what training made of them"
        write_json(tmp_path / "train/doubtful.json", {"says": says, "found": found[:shown]})
        screen.print_doubtful(record)
    told = "training labels are doubtful, by what training made of them: "
    places = "[b]tickets.jsonl:7, [b]tickets.jsonl:3, [b]tickets.jsonl:40"
    assert file.getvalue().splitlines() == [
        f"Labels: 3 of 90 {told}{places} (in the report)",
        f"Labels: 4 of 90 {told}{places} ... (in the report)",
    ]
