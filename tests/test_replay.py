"""Replay: what is trained beside the examples, with the base's own distributions where asked for."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from tiny_training import (
    Crash,
    crash_at,
    make_items,
    make_model,
    outcome,
    run,
    same,
    settings,
    trainable,
)

from luthier.errors import DataError, ModelError
from luthier.forest import logprobs, soft_targets
from luthier.methods import SFT, Item
from luthier.pipeline import Run
from luthier.pipeline.models import Models
from luthier.pipeline.replaying import replay_inputs, replay_items
from luthier.progress import Silent
from luthier.recipe import Recipe, load_recipe
from luthier.train import loop
from luthier.train.step import summed_loss


def taught(model: Any, items: list[Item]) -> list[Item]:
    """The items with the model as it stands for their teacher."""
    rows = []
    for item in items:
        ids = [sequence.ids for sequence in item.sequences]
        rows.append(Item(item.where, item.sequences, tuple(soft_targets(model, ids, item.flags))))
    return rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.write_model(tmp_path_factory.mktemp("base") / "model")


def recipe(folder: Path, model: Path, **train: Any) -> Recipe:
    return load_recipe(tiny_run.write_recipe(folder, model, train={"epochs": 1, "batch_tokens": 400} | train))


def gathered(recipe: Recipe, folder: Path, tokens: int = 900) -> list[Item]:
    """The replay beside items of that many tokens."""
    beside: list[Item] = []
    while sum(item.tokens for item in beside) < tokens:
        beside += make_items(1)
    return replay_items(recipe, Models(recipe.model, folder / "adapter", Silent()), Silent(), beside=beside)


def write_general(path: Path, count: int = 30) -> Path:
    rows = [
        [
            {"role": "user", "content": f"Question {n}?"},
            {"role": "assistant", "content": "Because. " * (1 + n % 4)},
        ]
        for n in range(count)
    ]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_base_that_is_taught_by_itself_does_not_move(kind: str, tmp_path: Path) -> None:
    """Answers pull it towards what they happen to say; its own distributions hold it where it is."""
    model = make_model(kind)
    before = trainable(model)
    items = taught(model, make_items(6))
    (value,) = {len(item.soft) == len(item.sequences) for item in items}
    assert value
    torch.cat([v for item in items for v in _values(model, item)]).sum().backward()
    norms = [float(p.grad.norm()) for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    torch.cat([v for item in make_items(6) for v in _values(model, item)]).sum().backward()
    hard = [float(p.grad.norm()) for p in model.parameters() if p.grad is not None]
    assert max(norms) < 1e-4 * max(hard)
    assert trainable(model).keys() == before.keys()


def _values(model: Any, item: Item) -> list[torch.Tensor]:
    ids = [sequence.ids for sequence in item.sequences]
    return logprobs(model, ids, needed=item.flags, soft=item.soft or None)


def test_distributions_hold_the_base_better_than_answers(tmp_path: Path) -> None:
    """Trained on examples and on replay at once: drift, measured on other texts of the base's."""
    drift = {}
    watched = taught(make_model(), make_items(8, seed=77, start=5))
    for loss in ("nothing", "nll", "kl"):
        model = make_model()
        replayed = make_items(14, seed=5, start=5)
        beside = {"nothing": [], "nll": replayed, "kl": taught(model, replayed)}[loss]
        run(tmp_path / loss, model=model, items=make_items() + beside, settings=settings(epochs=2))
        with torch.no_grad():
            drift[loss] = -float(torch.cat([v for item in watched for v in _values(model, item)]).mean())
    assert drift["kl"] < drift["nothing"], "the cross-entropy is lowest at the base itself"
    assert drift["kl"] < drift["nll"]


def test_loss_of_a_mixed_batch_is_the_sum_of_both(tmp_path: Path) -> None:
    model = make_model()
    hard, soft = make_items(3), taught(model, make_items(3, seed=4))
    with torch.no_grad():
        apart = [summed_loss(model, SFT(), part) for part in (hard, soft)]
        together = summed_loss(model, SFT(), [soft[0], *hard, *soft[1:]])
    torch.testing.assert_close(together, apart[0] + apart[1], rtol=1e-6, atol=0)
    assert not torch.isclose(apart[1], summed_loss(model, SFT(), make_items(3, seed=4)))


def test_a_killed_training_with_a_teacher_ends_bit_for_bit_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("luthier.train.saving.COST_FACTOR", 0.0)
    monkeypatch.setattr(os, "fsync", lambda handle: None)

    def go(folder: Path, **changes: Any) -> Any:
        model = make_model("full")  # its head moves: the teacher's may not
        items = [*make_items(6), *taught(model, make_items(6, seed=3))]
        return outcome(folder, run(folder, model=model, items=items, **changes))

    whole = go(tmp_path / "whole")
    with pytest.raises(Crash):
        go(tmp_path / "killed", show=crash_at(3))
    assert same(go(tmp_path / "killed"), whole)


def test_replay_takes_its_share(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("luthier.candidates.replay.TOKENS", 6)
    plain = gathered(recipe(tmp_path, base, replay=0.4), tmp_path)
    tokens = sum(item.tokens for item in plain)
    assert 600 <= tokens <= 600 + max(item.tokens for item in plain)
    assert not any(item.soft for item in plain)
    kept = gathered(recipe(tmp_path, base, replay=0.4, replay_loss="kl"), tmp_path)
    assert kept == plain, "the same tokens"
    for item in kept:
        (targets,) = item.soft
        assert len(targets.hidden) == item.trained_tokens
    assert gathered(recipe(tmp_path, base, replay=0), tmp_path) == []


def test_general_examples_are_replayed_instead(tmp_path: Path, base: Path) -> None:
    file = write_general(tmp_path / "general.jsonl")
    asked = recipe(tmp_path, base, replay=0.4, replay_data="general.jsonl")
    assert asked.train.replay_data == str(file.resolve())
    items = gathered(asked, tmp_path)
    assert 1 < len(items) < 30
    assert 450 <= sum(item.tokens for item in items) <= 600
    assert items == gathered(asked, tmp_path), "the same again"
    other = gathered(asked.model_copy(update={"seed": 5}), tmp_path)
    assert [item.sequences for item in other] != [item.sequences for item in items]


def test_examples_that_do_not_fit_are_left_out(tmp_path: Path, base: Path) -> None:
    file = write_general(tmp_path / "general.jsonl", 1)
    long = [{"role": "user", "content": "so " * 2000}, {"role": "assistant", "content": "Yes."}]
    file.write_text(json.dumps({"messages": long}) + "\n" + file.read_text())
    asked = recipe(tmp_path, base, replay=0.5, replay_data="general.jsonl")
    assert len(gathered(asked, tmp_path)) == 1
    file.write_text(json.dumps({"messages": long}) + "\n")
    with pytest.raises(DataError, match="no example for replay fits"):
        gathered(asked, tmp_path)


def test_another_file_is_another_training(tmp_path: Path, base: Path) -> None:
    file = write_general(tmp_path / "general.jsonl")
    asked = recipe(tmp_path, base, replay=0.4, replay_data="general.jsonl")
    before = replay_inputs(asked)
    file.write_text(file.read_text() * 2)
    assert replay_inputs(asked) != before
    assert replay_inputs(recipe(tmp_path, base)) == {}


def test_a_run_with_both(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    write_general(tmp_path / "general.jsonl")
    asked = recipe(tmp_path, base, replay=0.3, replay_data="general.jsonl", replay_loss="kl")
    summary = Run(asked, tmp_path / "run").train()
    assert summary["replayed"] > 0
    assert summary["executed_tokens"] > 0


def test_a_head_that_cannot_teach_is_refused(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_general(tmp_path / "general.jsonl")
    module = importlib.import_module("luthier.forest.logprobs")  # the function has the same name
    monkeypatch.setattr(module, "checked_head", lambda base: None)
    asked = recipe(tmp_path, base, replay=0.4, replay_data="general.jsonl", replay_loss="kl")
    with pytest.raises(ModelError, match="cannot be kept") as caught:
        gathered(asked, tmp_path)
    assert "replay_loss: nll" in str(caught.value.fix)
