"""Memory that runs out: micro-batches halve, the step is done again, the batch and its loss stay."""

from __future__ import annotations

import os
import re
import resource
import sys
import weakref
from pathlib import Path
from typing import Any

import children
import psutil
import pytest
import torch
from tiny_training import (
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

from luthier.chat import TrainingSequence
from luthier.errors import TrainingError
from luthier.forest.packing import executed_tokens
from luthier.methods import SFT, Item
from luthier.train import loop
from luthier.train.loop import validation_loss
from luthier.train.memory import is_out_of_memory, sum_over

CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 68719476736 bytes. Error code 12 (Cannot allocate memory)"
)
ERRORS = [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), RuntimeError(CPU)]


class Tight(SFT):
    """Fails, after the forward pass, on micro-batches of more than `room` executed tokens."""

    def __init__(self, room: int, error: BaseException, *, first: int = 0) -> None:
        self.room, self.error, self.first = room, error, first
        self.sizes: list[int] = []

    def loss(self, items: Any, logps: Any) -> torch.Tensor:
        self.sizes.append(executed_tokens([s.ids for item in items for s in item.sequences]))
        if self.sizes[-1] > self.room and len(self.sizes) > self.first:
            raise self.error
        return super().loss(items, logps)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_micro_batches_halve_and_the_loss_stays(error: BaseException, tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", validation=[])
    method, notes = Tight(30, error), []
    model, summary = run(
        tmp_path / "tight", validation=[], method=method, show=lambda progress: notes.append(progress.note)
    )
    assert summary["micro_tokens"] <= 30
    assert notes[0] == f"out of memory: micro-batch halved to {summary['micro_tokens']} tokens"
    assert notes[1:] == [None] * (len(notes) - 1)
    for a, b in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "tight"), strict=True):
        assert a.get("tokens") == b.get("tokens")
        for key in a.keys() & {"loss", "grad_norm"}:
            assert a[key] == pytest.approx(b[key], rel=1e-5)
    wanted, got = trainable(whole), trainable(model)
    assert all(float((got[n] - v).norm()) <= 1e-5 * float(v.norm()) for n, v in wanted.items())
    assert max(method.sizes[-len(method.sizes) // 2 :]) <= 30, "the smaller budget is kept"


def test_gradients_of_the_failed_attempt_are_dropped(tmp_path: Path) -> None:
    """The second micro-batch fails: what the first one added must not be counted twice."""
    plan = {"validation": [], "settings": settings(epochs=1, batch_tokens=10_000)}
    run(tmp_path / "whole", micro_tokens=30, **plan)
    method = Tight(30, MemoryError(), first=1)
    run(tmp_path / "run", micro_tokens=60, method=method, **plan)
    assert method.sizes[0] > 30
    assert method.sizes[1] > 30
    first, second = metrics(tmp_path / "whole")[0], metrics(tmp_path / "run")[0]
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)
    assert second["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-5)


def test_the_halved_budget_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("luthier.train.saving.COST_FACTOR", 0.0)
    monkeypatch.setattr(os, "fsync", lambda handle: None)

    def go(folder: Path, **changes: Any) -> Any:
        return outcome(
            folder, run(folder, **({"validation": [], "method": Tight(30, MemoryError())} | changes))
        )

    whole = go(tmp_path / "whole")
    with pytest.raises(Crash):
        go(tmp_path / "run", show=crash_at(3))
    method = Tight(30, MemoryError())
    assert same(go(tmp_path / "run", method=method), whole)
    assert max(method.sizes) <= 30, "it did not have to run out of memory once more"


def test_an_example_that_does_not_fit_alone_is_named(tmp_path: Path) -> None:
    items = make_items()
    long = TrainingSequence((*range(3, 43), 2), (0.0, *(1.0,) * 40))
    items[4] = Item("data.jsonl:5", (long,))
    model = make_model()
    before = trainable(model)
    with pytest.raises(TrainingError, match="an example of 41 tokens does not fit in memory") as caught:
        run(
            tmp_path,
            model=model,
            items=items,
            settings=settings(batch_tokens=10_000),
            method=Tight(35, MemoryError()),
        )
    assert caught.value.where == "data.jsonl:5"
    assert "shorten it" in (caught.value.fix or "")
    assert all(torch.equal(before[name], value) for name, value in trainable(model).items())


def test_an_update_without_memory_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.optim.AdamW, "step", full)
    with pytest.raises(TrainingError, match="memory ran out in the update of step 1") as caught:
        run(tmp_path)
    assert "fewer layers" in (caught.value.fix or "")
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: [].pop())
    with pytest.raises(IndexError):
        run(tmp_path)


def test_validation_halves_too() -> None:
    items, model = make_items(), make_model()
    expected = validation_loss(model, SFT(), items)
    method = Tight(30, RuntimeError(CPU))
    assert validation_loss(model, method, items) == pytest.approx(expected, rel=1e-6)
    assert max(method.sizes) > 30


def test_the_size_that_failed_is_halved_not_the_budget() -> None:
    items = make_items()
    tried: list[int] = []

    def compute(micro: list[Item]) -> float:
        tried.append(sum(item.tokens for item in micro))
        if tried[-1] > 100:
            raise MemoryError
        return float(len(micro))

    total = sum(item.tokens for item in items)
    assert 100 < total <= 200
    summed = sum_over(items, compute, micro_tokens=10**6, shares=lambda item: False)
    assert tried[0] == total
    assert summed.micro_tokens == total // 2
    assert (summed.value, summed.executed_tokens) == (14.0, total)


def test_tensors_of_the_failed_attempt_are_freed_before_the_next() -> None:
    """Otherwise half the size would not fit either."""
    alive: list[Any] = []

    class Big:
        pass

    def compute(micro: list[Item]) -> float:
        assert not [ref for ref in alive if ref() is not None]
        local = Big()
        alive.append(weakref.ref(local))
        if len(micro) > 3:
            raise MemoryError
        return 0.0

    sum_over(make_items(), compute, micro_tokens=10**6, shares=lambda item: True)
    assert len(alive) > 3


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), ValueError("out of memory"), KeyError("x")]
)
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)

    def compute(micro: list[Item]) -> float:
        raise error

    with pytest.raises(type(error), match=re.escape(str(error))):
        sum_over(make_items(), compute, micro_tokens=10, shares=lambda item: True)


# --- real -------------------------------------------------------------------------------------------------


def starve(home: str, room_bytes: int) -> None:
    """In a process of its own: a step that needs over 100 MB more than it may have."""
    torch.set_num_threads(1)
    choose = torch.Generator().manual_seed(0)
    items = []
    for line in range(40):
        ids = tuple(torch.randint(3, 90, (50,), generator=choose).tolist())
        items.append(Item(f"data.jsonl:{line}", (TrainingSequence(ids, (0.0, *(1.0,) * 49)),)))
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4}
    plan = settings(epochs=1, batch_tokens=2000)

    def go(name: str, micro_tokens: int) -> dict[str, Any]:
        given = {"items": items, "validation": [], "settings": plan, "micro_tokens": micro_tokens}
        return run(Path(home) / name, model=make_model(**sizes), **given)[1]

    go("warm", 250)
    taken = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (taken + room_bytes, resource.RLIM_INFINITY))
    summary = go("tight", 10**6)
    if not 50 < summary["micro_tokens"] < 2000:
        raise AssertionError(summary["micro_tokens"])


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is enforced on Linux")
def test_a_process_that_may_not_have_more_memory_trains_all_the_same(tmp_path: Path) -> None:
    process = children.start(starve, str(tmp_path), 40_000_000)
    process.join(120)
    assert process.exitcode == 0
    (warm,), (tight,) = metrics(tmp_path / "warm")[:1], metrics(tmp_path / "tight")[:1]
    assert tight["loss"] == pytest.approx(warm["loss"], rel=1e-5)
