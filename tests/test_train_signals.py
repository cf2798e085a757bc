"""SIGTERM and SIGINT: the work under way is given up, what is done is saved, and it is said how to go on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import children
import pytest
import tiny_run
import torch
from tiny_training import make_model, outcome, run, same, settings

from luthier.errors import EXIT_ERROR, StoppedError
from luthier.methods import SFT
from luthier.train import Progress, signals
from luthier.train.checkpoint import Checkpoints
from luthier.train.signals import stopping

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Iterator[None]:
    """Those of a program in the foreground, whatever the tests run in."""
    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    assert {number: signal.getsignal(number) for number in usual} == usual
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def go(folder: Path, **changes: Any) -> Any:
    return outcome(folder, run(folder, model=make_model(num_hidden_layers=1), **changes))


class Signalled(SFT):
    """Gets a signal in the loss of the n-th micro-batch, or while an update is made."""

    def __init__(self, number: int, *, at: int) -> None:
        self.number, self.at, self.seen = number, at, 0

    def loss(self, items: Any, logps: Any) -> torch.Tensor:
        self.seen += 1
        if self.seen == self.at:
            send(self.number)
        return super().loss(items, logps)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, StoppedError), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_gives_up_the_step_and_saves(
    number: int, error: type[BaseException], tmp_path: Path
) -> None:
    expected = go(tmp_path / "whole", micro_tokens=20)
    method = Signalled(number, at=12)
    with pytest.raises(error, match=r"step \d is saved in .*/run/checkpoints"):
        go(tmp_path / "run", method=method, micro_tokens=20)
    assert method.seen == 12, "nothing more was computed"
    assert same(go(tmp_path / "run", micro_tokens=20), expected)


def test_what_it_says() -> None:
    with pytest.raises(StoppedError) as caught, stopping(lambda: "step 3 is saved in train/checkpoints"):
        send(signal.SIGTERM)
        pytest.fail("it goes on")
    assert caught.value.exit_code == EXIT_ERROR
    assert caught.value.render() == (
        "stopped by SIGTERM; step 3 is saved in train/checkpoints\n"
        "Fix: run the same command again, it goes on from there"
    )


def test_an_update_is_never_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes when some of the weights are new: the step is finished first."""
    expected = go(tmp_path / "whole")
    step = torch.optim.AdamW.step
    calls = [0]

    def interrupted(self: Any) -> None:
        calls[0] += 1
        step(self)
        if calls[0] == 3:
            send(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", interrupted)
        with pytest.raises(StoppedError, match="step 3 is saved"):
            go(tmp_path / "run")
    assert same(go(tmp_path / "run"), expected)


def test_a_line_is_never_half_logged(tmp_path: Path) -> None:
    logged: list[Any] = []

    def log(line: Any) -> None:
        if line["step"] == 2:
            send(signal.SIGTERM)
        logged.append(line)

    with pytest.raises(StoppedError, match="step 2 is saved"):
        go(tmp_path, log=log)
    assert [line["step"] for line in logged] == [1, 2]
    go(tmp_path, log=logged.append)
    assert [line["step"] for line in logged if "loss" in line] == list(range(1, 7))


def test_while_it_is_shown_or_scored(tmp_path: Path) -> None:
    """Both may take as long as they like: they are interrupted at once."""

    def stuck(progress: Progress) -> None:
        if progress.step == 2:
            threading.Timer(0.2, send, [signal.SIGTERM]).start()
            time.sleep(60)

    def scoring() -> float:
        threading.Timer(0.2, send, [signal.SIGTERM]).start()
        time.sleep(60)
        return 0.0

    began = time.perf_counter()
    with pytest.raises(StoppedError, match="step 2 is saved"):
        go(tmp_path, show=stuck)
    with pytest.raises(StoppedError, match="step 3 is saved"):
        go(tmp_path, score=scoring)
    assert time.perf_counter() - began < 30


def test_a_signal_at_the_very_end_counts() -> None:
    saved = []
    with pytest.raises(StoppedError), stopping(lambda: str(saved.append("saved"))) as stop:
        with contextlib.suppress(BaseException), stop.held():
            send(signal.SIGTERM)
            saved.append("what was under way")
        saved.append("the rest")
    assert saved == ["what was under way", "the rest", "saved"]


def test_an_exception_that_got_lost_on_the_way_stops_it_later() -> None:
    with pytest.raises(StoppedError), stopping(lambda: "saved") as stop:
        with contextlib.suppress(BaseException):  # what a library might do
            send(signal.SIGTERM)
        with stop.held():
            pytest.fail("it goes on")


def test_a_second_ctrl_c_ends_the_saving_a_second_sigterm_does_not() -> None:
    saved = []

    def save() -> str:
        send(signal.SIGTERM)
        saved.append("still")
        send(signal.SIGINT)
        saved.append("too long")
        return "saved"

    with pytest.raises(KeyboardInterrupt), stopping(save):
        send(signal.SIGINT)
    assert saved == ["still"]


def test_a_signal_before_the_work_begins_stops_it_there(monkeypatch: pytest.MonkeyPatch) -> None:
    install = signals._install

    def interrupted(*given: Any) -> None:
        install(*given)
        send(signal.SIGTERM)

    monkeypatch.setattr(signals, "_install", interrupted)
    with pytest.raises(StoppedError, match="saved"), stopping(lambda: "saved"):
        pytest.fail("it began")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_signal_when_the_work_is_just_over_is_not_lost(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is looked at: what is done is saved. After that: it is for whoever comes next."""
    seen: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    end, check = signals.Stop.end, signals.Stop.check
    over = []

    def ended(self: signals.Stop) -> None:
        end(self)
        over.append(True)
        if moment == "before":
            send(signal.SIGTERM)

    def checked(self: signals.Stop) -> None:
        check(self)
        if over and moment == "after":
            send(signal.SIGTERM)

    monkeypatch.setattr(signals.Stop, "end", ended)
    monkeypatch.setattr(signals.Stop, "check", checked)
    try:
        with (
            pytest.raises(StoppedError) if moment == "before" else contextlib.nullcontext(),
            stopping(lambda: "saved"),
        ):
            pass
        assert seen == ([] if moment == "before" else [signal.SIGTERM])
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_an_error_of_the_work_is_not_hidden_by_a_signal() -> None:
    with pytest.raises(ZeroDivisionError), stopping(lambda: pytest.fail("saved")) as stop, stop.held():
        send(signal.SIGTERM)
        raise ZeroDivisionError


def test_an_ignored_signal_stays_ignored() -> None:
    """As under nohup, and for jobs in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping(lambda: "saved"):
            send(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_handlers_are_left_alone(tmp_path: Path) -> None:
    before, during = signal.getsignal(signal.SIGTERM), []
    show = lambda progress: during.append(signal.getsignal(signal.SIGTERM))  # noqa: E731
    thread = threading.Thread(target=go, args=(tmp_path,), kwargs={"show": show})
    thread.start()
    thread.join(60)
    assert during == [before] * 6


# --- real processes ---------------------------------------------------------------------------------------


def endless(home: str) -> None:
    torch.set_num_threads(1)
    started = Path(home) / "started"
    try:
        go(Path(home), settings=settings(epochs=1000), show=lambda progress: started.touch())
    except StoppedError:
        sys.exit(EXIT_ERROR)


def test_a_process_saves_and_ends_in_seconds(tmp_path: Path) -> None:
    process = children.start(endless, str(tmp_path))
    wait_for(tmp_path / "started")
    began = time.perf_counter()
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == EXIT_ERROR
    assert time.perf_counter() - began < 20
    assert Checkpoints(tmp_path / "checkpoints", "k").load() is not None


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 240
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert path.exists()


@pytest.mark.slow
def test_the_command_says_how_to_go_on(tmp_path: Path) -> None:
    tiny_run.write_model(tmp_path / "model")
    changes = {"train": {"epochs": 400, "batch_tokens": 400, "replay": 0.0}}
    recipe = tiny_run.write_recipe(tmp_path / "work", tmp_path / "model", **changes)
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-c",
        "from luthier.cli.main import main; main()",
        "train",
        recipe,
        "--out",
        out,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        wait_for(out / "train/metrics.jsonl")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode == EXIT_ERROR
    lines = said.decode().strip().splitlines()
    assert lines[-3].startswith("luthier: stopped by SIGTERM; step ")
    assert lines[-2] == "Fix: run the same command again, it goes on from there"
    assert lines[-1] == f"Go on: luthier train {recipe} --out {out}"
    assert list((out / "train/checkpoints").glob("step-*"))
