"""A run that was interrupted goes on where it stopped, and ends bit for bit like one that was not."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from tiny_training import (
    RATES,
    Crash,
    crash_at,
    make_items,
    make_model,
    metrics,
    outcome,
    run,
    same,
    settings,
    trainable,
)

from luthier.errors import StoppedError
from luthier.forest.logprobs import Model
from luthier.methods import SFT
from luthier.recipe import AdapterKind
from luthier.train import Progress, loop
from luthier.train.checkpoint import Checkpoints

KINDS = get_args(AdapterKind)
ACCUMULATING = 15  # tokens of a micro-batch: four or five of them make a step


@pytest.fixture(autouse=True)
def a_checkpoint_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("luthier.train.saving.COST_FACTOR", 0.0)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # nothing here pulls the real power cord


def model_of(kind: str) -> Model:
    return make_model(kind, num_hidden_layers=1)


def restless(model: Model) -> Callable[[], float]:
    """A score that goes up and down, and that the last bit of any weight changes."""
    return lambda: math.sin(1e4 * sum(float(p.double().sum()) for p in trainable(model).values()))


def go(folder: Path, kind: str, **changes: Any) -> Any:
    """A run, and all that must not depend on interruptions."""
    model = model_of(kind)
    plan = settings(epochs=changes.pop("epochs", 3), patience=changes.pop("patience", None))
    given = {"validation": make_items(4, seed=5), "peak": RATES[kind], "score": restless(model)} | changes
    return outcome(folder, run(folder, model=model, settings=plan, **given))


# --- situations: each interrupts a run in `folder`, and returns how to go on ------------------------


class Terminating(SFT):
    """Gets a SIGTERM in the given micro-batch of the given step, both counted from 1."""

    def __init__(self, step: int, micro: int) -> None:
        self.step, self.micro, self.steps_done, self.seen = step, micro, 0, 0

    def loss(self, items: Any, logps: Any) -> torch.Tensor:
        self.seen += 1
        if (self.steps_done + 1, self.seen) == (self.step, self.micro):
            os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(items, logps)

    def show(self, progress: Progress) -> None:
        self.steps_done, self.seen = progress.step, 0


def mid_accumulation(folder: Path, kind: str, whole: Any) -> int:
    method = Terminating(5, 2)
    with pytest.raises(StoppedError, match="stopped by SIGTERM; step 4 is saved"):
        go(folder, kind, method=method, show=method.show, micro_tokens=ACCUMULATING)
    assert method.seen == 2, "it went on to the end of the step"
    return 5


def end_of_epoch(folder: Path, kind: str, whole: Any) -> int:
    """Stopped while the first epoch is validated: its last step is done, its validation is not."""

    def score() -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0.0

    with pytest.raises(StoppedError, match="step 3 is saved"):
        go(folder, kind, score=score)
    assert "validation_loss" not in metrics(folder)[-1]
    return 3  # shown when it is validated


def packed(folder: Path, kind: str, whole: Any) -> int:
    """Each step in one forest; killed in the middle of the second epoch, and again."""
    for step in (2, 5):
        with pytest.raises(Crash):
            go(folder, kind, show=crash_at(step))
    return 5


def early_stopping(folder: Path, kind: str, whole: Any) -> int:
    """Killed after an epoch that was no better, which is not the last."""
    ends = [line["validation_score"] for line in whole[1] if "validation_score" in line]
    assert whole[2]["stopped"].startswith("no better validation for 2 epochs")
    step = 3 * (len(ends) - 1) + 2
    assert whole[2]["best_step"] < step - 3, "the best weights are older than the interruption"
    with pytest.raises(Crash):
        go(folder, kind, show=crash_at(step), epochs=40, patience=2, validation=[])
    return step


OPTIONS: dict[str, dict[str, Any]] = {
    "mid_accumulation": {"micro_tokens": ACCUMULATING},
    "end_of_epoch": {},
    "packed": {},
    "early_stopping": {"epochs": 40, "patience": 2, "validation": []},
}
SITUATIONS = {f.__name__: f for f in (mid_accumulation, end_of_epoch, packed, early_stopping)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Any]:
    """The outcome of an uninterrupted run, computed once for each kind and options."""
    known: dict[str, Any] = {}

    def find(kind: str, situation: str) -> Any:
        name = f"{kind} {OPTIONS[situation]}"
        if name not in known:
            known[name] = go(tmp_path_factory.mktemp("whole"), kind, **OPTIONS[situation])
        return known[name]

    return find


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_resumed_equals_uninterrupted(
    kind: str, situation: str, tmp_path: Path, whole: Callable[[str, str], Any]
) -> None:
    expected = whole(kind, situation)
    first = SITUATIONS[situation](tmp_path, kind, expected)
    shown: list[Progress] = []
    resumed = go(tmp_path, kind, show=shown.append, **OPTIONS[situation])
    assert shown[0].step == first, "it did not go on from the newest checkpoint"
    assert shown[0].note is not None
    assert shown[0].note.startswith("going on after step ")
    assert same(resumed, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_what_it_says(kind: str) -> None:
    names = " ".join(trainable(model_of(kind)))
    telling = {"dora": "magnitude", "prefix": "prompt", "prompt": "prompt", "full": "embed_tokens"}
    assert telling.get(kind, "lora_A") in names


def test_killed_at_every_step(tmp_path: Path, whole: Callable[[str, str], Any]) -> None:
    for step in range(1, 10):
        with pytest.raises(Crash):
            go(tmp_path, "lora", show=crash_at(step))
    assert same(go(tmp_path, "lora"), whole("lora", "packed"))


def test_a_run_that_was_finished_is_finished_at_once(tmp_path: Path) -> None:
    expected = go(tmp_path, "lora", show=lambda p: None)
    with pytest.raises(Crash):
        go(tmp_path / "again", "lora", show=crash_at(9))
    shown: list[int] = []
    resumed = partial(go, tmp_path / "again", "lora", show=lambda p: shown.append(p.step))
    assert same(resumed(), expected)
    assert same(resumed(), expected)
    assert shown == [9]


def test_a_damaged_checkpoint_costs_one_step(tmp_path: Path, whole: Callable[[str, str], Any]) -> None:
    with pytest.raises(Crash):
        go(tmp_path, "lora", show=crash_at(6))
    (tmp_path / "checkpoints/step-000005/tensors.safetensors").write_bytes(b"")
    shown: list[Progress] = []
    assert same(go(tmp_path, "lora", show=shown.append), whole("lora", "packed"))
    assert shown[0].step == 5
    assert shown[0].note == "going on after step 4; step-000005 cannot be used, step-000004 is whole"


def test_another_key_starts_anew(tmp_path: Path, whole: Callable[[str, str], Any]) -> None:
    with pytest.raises(Crash):
        go(tmp_path, "lora", show=crash_at(6))
    shown: list[Progress] = []

    def show(progress: Progress) -> None:
        shown.append(progress)
        if progress.step == 4:
            raise Crash

    with pytest.raises(Crash):
        go(tmp_path, "lora", show=show, key="other")
    assert shown[0].step == 1
    assert shown[0].note == (
        "starting anew: step-000005, step-000004 cannot be used, or is of another recipe"
    )
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step-000002", "step-000003-validated"]
    assert same(go(tmp_path, "lora", key="other"), whole("lora", "packed"))


def test_no_line_is_logged_twice_but_those_after_the_checkpoint(tmp_path: Path) -> None:
    before: list[Any] = []
    after: list[Any] = []
    with pytest.raises(Crash):
        go(tmp_path, "lora", show=crash_at(5), log=before.append)
    checkpoint = Checkpoints(tmp_path / "checkpoints", "k").load()
    assert checkpoint is not None
    assert checkpoint.step == 4
    go(tmp_path, "lora", log=after.append)
    assert [line for line in before if line["step"] <= 4] + after == metrics(tmp_path)


@pytest.mark.slow  # two threads wait for each other where other work takes the cores
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_with_two_threads(kind: str, tmp_path: Path) -> None:
    """Large enough that torch really divides the work."""

    def large(folder: Path, **changes: Any) -> Any:
        model = make_model(kind, hidden_size=128, intermediate_size=512, num_hidden_layers=1)
        given = {"peak": 1e-3, "settings": settings(epochs=1), "validation": []}
        return outcome(folder, run(folder, model=model, **given, **changes))

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = large(tmp_path / "whole")
        with pytest.raises(Crash):
            large(tmp_path / "run", show=crash_at(2))
        assert same(large(tmp_path / "run"), expected)
    finally:
        torch.set_num_threads(threads)
