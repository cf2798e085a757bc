"""When a training is saved: how much a kill can cost, and how much saving may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from luthier.train import saving
from luthier.train.checkpoint import Checkpoint, Checkpoints
from luthier.train.saving import Saver
from luthier.train.state import Counters, Training


def training_of_one_weight() -> Training:
    """After a step of its optimizer."""
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    optimizer = torch.optim.AdamW([weight])
    optimizer.step()
    return Training({"w": weight}, optimizer, Counters(1, step=1, updates=1))


class Disk:
    """Notes at which second of training it is written to; each time takes `cost` seconds."""

    def __init__(self, patch: pytest.MonkeyPatch, cost: float) -> None:
        self.written: list[float] = []
        self.now = 0.0
        save = Checkpoints.save

        def slow(checkpoints: Checkpoints, content: Checkpoint) -> None:
            save(checkpoints, content)
            self.written.append(content.state["seconds"])
            self.now += cost

        patch.setattr(Checkpoints, "save", slow)
        patch.setattr(saving.time, "perf_counter", lambda: self.now)


def train(saver: Saver, seconds: range) -> None:
    """A step at each of these seconds of training."""
    for second in seconds:
        counters = saver.training.counters
        counters.step, counters.seconds = counters.step + 1, float(second)
        saver.save_if_due(60.0)


@pytest.mark.parametrize(
    ("cost", "written"),
    [
        (0.5, [70, 140, 210, 280, 350]),  # more than a minute after the one before, in steps of ten seconds
        (5.0, [70, 180, 290]),  # more than twenty times five seconds
    ],
)
def test_every_minute_or_a_twentieth_of_the_time(
    cost: float, written: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, cost)
    train(Saver(tmp_path, "k", training_of_one_weight(), []), range(0, 360, 10))
    assert disk.written == written


def test_a_resumed_training_counts_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, 0.0)
    train(Saver(tmp_path, "k", training_of_one_weight(), []), range(0, 100, 10))
    notes: list[str] = []
    again = Saver(tmp_path, "k", training_of_one_weight(), notes)
    again.resume()
    assert notes == ["going on after step 9"]
    train(again, range(80, 150, 10))
    assert disk.written == [70, 140]


def test_a_failed_write_is_not_tried_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []
    saver = Saver(tmp_path, "k", training_of_one_weight(), [])

    def full(*given: Any) -> None:
        tried.append(saver.training.counters.seconds)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoints, "save", full)
    train(saver, range(0, 220, 10))
    assert tried == [70, 140, 210]
