"""`losses.jsonl`: what each example's own loss was whenever it was trained on, once and never missing."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import Crash, crash_at, losses, make_items, make_model, metrics, run, settings

from luthier.chat import TrainingSequence
from luthier.forest import logprobs
from luthier.methods import CPT, DPO, METHODS, SFT, Classify, Distill, Item
from luthier.train import loop

GIVEN = {"sft", "cpt", "classify"}


def by_step(folder: Path) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for row in losses(folder):
        found.setdefault(row["step"], []).append(row)
    return found


def small(folder: Path, **changes: Any) -> Any:
    return run(folder, model=make_model(num_hidden_layers=1), validation=[], **changes)


def mean_loss(model: Any, item: Item) -> float:
    """Minus the mean log-probability of an item's trained tokens, each sequence for itself."""
    values = [
        logprobs(model, [sequence.ids], needed=[[weight > 0 for weight in sequence.weights[1:]]])[0]
        for sequence in item.sequences
    ]
    return -float(torch.cat(values).mean())


def test_every_example_once_in_every_epoch(tmp_path: Path) -> None:
    items = make_items()
    small(tmp_path, items=items)
    rows = losses(tmp_path)
    assert Counter((row["epoch"], row["where"]) for row in rows) == {
        (epoch, item.where): 1 for epoch in (1, 2) for item in items
    }
    tokens = {item.where: item.trained_tokens for item in items}
    assert all(row["tokens"] == tokens[row["where"]] for row in rows)
    assert [row["epoch"] for row in rows] == [1] * len(items) + [2] * len(items)


def test_the_loss_is_that_of_the_weights_before_the_update(tmp_path: Path) -> None:
    items = make_items()
    model = make_model(num_hidden_layers=1).eval()
    with torch.no_grad():
        before = {item.where: mean_loss(model, item) for item in items}
    small(tmp_path, items=items)
    rows = by_step(tmp_path)
    for row in rows[1]:
        assert row["loss"] == pytest.approx(before[row["where"]], abs=2e-6)
    later = [row for step, own in rows.items() if step > 1 for row in own]
    assert any(abs(row["loss"] - before[row["where"]]) > 1e-2 for row in later), "the weights have moved"


@pytest.mark.parametrize("micro_tokens", [15, 1024])
def test_the_tokens_of_a_step_have_its_mean_loss(micro_tokens: int, tmp_path: Path) -> None:
    """Whatever is accumulated: every line of the metrics is the mean over the tokens of its examples."""
    small(tmp_path, micro_tokens=micro_tokens)
    rows = by_step(tmp_path)
    lines = [line for line in metrics(tmp_path) if "loss" in line]
    assert [line["step"] for line in lines] == sorted(rows)
    for line in lines:
        own = rows[line["step"]]
        total = sum(row["tokens"] for row in own)
        mean = sum(row["loss"] * row["tokens"] for row in own) / total
        assert mean == pytest.approx(line["loss"], abs=2e-6)


class Failing(SFT):
    """Runs out of memory once, in the second micro-batch."""

    calls = 0

    def loss(self, items: Any, logps: Any) -> torch.Tensor:
        self.calls += 1
        if self.calls == 2:
            raise MemoryError
        return super().loss(items, logps)


def test_a_pass_that_ran_out_of_memory_leaves_nothing(tmp_path: Path) -> None:
    method = Failing()
    plan = settings(epochs=1, batch_tokens=10_000)
    _, summary = small(tmp_path, settings=plan, method=method, micro_tokens=60)
    assert method.calls > 3
    assert summary["micro_tokens"] < 60
    assert Counter(row["where"] for row in losses(tmp_path)) == {item.where: 1 for item in make_items()}


def test_none_twice_and_none_missing_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("luthier.train.saving.COST_FACTOR", 0.0)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    small(tmp_path / "whole")
    for step in (2, 5):
        with pytest.raises(Crash):
            small(tmp_path / "run", show=crash_at(step))
        # the line of the last step is written, and its checkpoint is not
        assert max(row["step"] for row in losses(tmp_path / "run")) == step
    small(tmp_path / "run")
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_what_is_seen_twice_in_an_epoch_has_two_lines(tmp_path: Path) -> None:
    first, second, *rest = make_items()
    items = [dataclasses.replace(first, repeats=2.0), dataclasses.replace(second, repeats=0.5), *rest]
    small(tmp_path, items=items)
    seen = Counter((row["epoch"], row["where"]) for row in losses(tmp_path))
    assert [seen[epoch, first.where] for epoch in (1, 2)] == [2, 2]
    assert sorted(seen[epoch, second.where] for epoch in (1, 2)) == [0, 1]


def test_what_is_trained_beside_has_no_history(tmp_path: Path) -> None:
    beside = [dataclasses.replace(item, where="replay", beside=True) for item in make_items(3, seed=4)]
    small(tmp_path, items=[*make_items(), *beside])
    assert {row["where"] for row in losses(tmp_path)} == {item.where for item in make_items()}
    assert max(line.get("tokens", 0) for line in metrics(tmp_path)) == 2 * sum(
        i.tokens for i in [*make_items(), *beside]
    )


def test_other_methods_keep_none(tmp_path: Path) -> None:
    method = Distill(teacher="t")
    small(tmp_path, method=method)
    assert metrics(tmp_path)
    assert losses(tmp_path) == []
    keeping = {name for name, own in METHODS.items() if "losses" in vars(own)}
    assert keeping == GIVEN


def test_weights_of_tokens_count() -> None:
    """Two tokens of -1 and -4 nats; the second weighs three times: (1 + 12) / 4."""
    item = Item("a:1", (TrainingSequence((1, 2, 3), (0.0, 1.0, 3.0)),))
    plain = Item("a:2", (TrainingSequence((1, 2), (0.0, 1.0)), TrainingSequence((1, 2, 3), (0.0, 0.0, 1.0))))
    values = [[torch.tensor([-1.0, -4.0])], [torch.tensor([-2.0]), torch.tensor([-5.0])]]
    assert SFT().losses([item, plain], values) == pytest.approx([13 / 4, 7 / 2])
    assert CPT().losses([item, plain], values) == pytest.approx([13 / 4, 7 / 2])
    assert DPO().losses([item, plain], values) == []


def test_a_rare_label_is_as_surprising_as_a_frequent_one() -> None:
    """Outputs (0, ln 3) give the labels a quarter and three quarters, whatever they weigh in the loss."""
    method = Classify(labels=("no", "yes"), class_weights=(5.0, 0.5))
    ends = TrainingSequence((1, 2), (0.0, 1.0))
    items = [Item("a:1", (ends,), label="no"), Item("a:2", (ends,), label="yes")]
    outputs = [[torch.tensor([0.0, 1.0986123])] for _ in items]
    assert method.losses(items, outputs) == pytest.approx([1.3862944, 0.2876821])
