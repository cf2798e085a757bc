"""What stops training before a wrong update: nothing is changed, and the examples are named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import equal, make_items, make_model, metrics, run, settings, trainable

from luthier.chat import TrainingSequence
from luthier.errors import TrainingError
from luthier.forest.logprobs import Model
from luthier.methods import SFT, Item
from luthier.train import loop
from luthier.train.checkpoint import Checkpoints


def poisoned(kind: str = "lora") -> Model:
    """A model in which token 96 has no embedding."""
    model = make_model(kind)
    with torch.no_grad():
        model.get_input_embeddings().weight[96] = math.nan
    return model


def with_poison(items: list[Item], *places: int) -> list[Item]:
    bad = TrainingSequence((3, 4, 96, 20, 2), (0.0, 0.0, 0.0, 1.0, 1.0))
    return [Item(item.where, (bad,)) if i in places else item for i, item in enumerate(items)]


@pytest.fixture(autouse=True)
def a_checkpoint_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("luthier.train.saving.COST_FACTOR", 0.0)
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_loss_that_is_not_finite_stops_before_the_update(kind: str, tmp_path: Path) -> None:
    model, after = poisoned(kind), {}
    after[0] = trainable(model)
    items = with_poison(make_items(), 6)
    with pytest.raises(
        TrainingError, match=r"the loss of step (\d+) is not finite; the update was not made"
    ) as caught:
        run(tmp_path, model=model, items=items, show=lambda p: after.__setitem__(p.step, trainable(model)))
    assert caught.value.message.endswith("Examples: data.jsonl:7"), "only the culprit is named"
    step = int(caught.value.message.split("step ")[1].split()[0])
    assert step > 1, "the test needs a step before it"
    assert max(after) == step - 1
    now = trainable(model)
    assert all(
        torch.equal(now[name], after[step - 1][name]) or name.endswith("embed_tokens.weight") for name in now
    )
    assert [line["step"] for line in metrics(tmp_path)][-1] == step - 1
    checkpoint = Checkpoints(tmp_path / "checkpoints", "k").load()
    assert checkpoint is not None
    assert checkpoint.step == step - 1


def test_after_the_examples_are_mended_it_goes_on_from_the_last_good_step(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole")
    with pytest.raises(TrainingError):
        run(tmp_path / "run", model=poisoned(), items=with_poison(make_items(), 6))
    shown: list[int] = []
    resumed, _ = run(tmp_path / "run", show=lambda p: shown.append(p.step))
    assert shown[0] > 1
    assert equal(trainable(whole), trainable(resumed))


class Spiky(SFT):
    """A finite loss with, for one example, a gradient that is not: the slope of a square root at 0."""

    def __init__(self, where: str | None) -> None:
        self.where = where

    def loss(self, items: Any, logps: Any) -> torch.Tensor:
        value = super().loss(items, logps)
        if self.where is None or self.where in [item.where for item in items]:
            value = value + (value - value.detach()).abs().sqrt()
        return value


@pytest.mark.parametrize(("where", "named"), [("data.jsonl:9", "data.jsonl:9"), (None, "data.jsonl:")])
def test_a_gradient_that_is_not_finite_stops_before_the_update(
    where: str | None, named: str, tmp_path: Path
) -> None:
    model = make_model()
    before = trainable(model)
    plan = settings(batch_tokens=10_000)
    with pytest.raises(TrainingError, match="the gradient of step 1 is not finite") as caught:
        run(tmp_path, model=model, method=Spiky(where), settings=plan, micro_tokens=30)
    assert caught.value.message.split("Examples: ")[1].startswith(named)
    assert ("..." in caught.value.message) == (where is None)
    assert equal(trainable(model), before)
    assert all(p.grad is None for p in model.parameters())


class Overflowing(SFT):
    """Gradients that are finite for each example, and not in sum."""

    def loss(self, items: Any, logps: Any) -> torch.Tensor:
        value = super().loss(items, logps)
        return value + (value - value.detach()) * (1e38 if len(items) > 1 else 1.0)


def test_a_gradient_that_is_finite_for_each_example_names_them_all(tmp_path: Path) -> None:
    items = make_items(3)
    plan = settings(batch_tokens=10_000)
    with pytest.raises(TrainingError, match=r"Examples: data.jsonl:\d, data.jsonl:\d, data.jsonl:\d\n"):
        run(tmp_path, method=Overflowing(), items=items, settings=plan)


def test_a_validation_loss_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    held = with_poison(make_items(4, seed=9), 1)
    with pytest.raises(TrainingError, match=r"the validation loss is not finite.* Examples: data.jsonl:2\n"):
        run(tmp_path, model=poisoned(), validation=held)


def test_a_score_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the validation score is nan"):
        run(tmp_path, score=lambda: math.nan)


def test_nothing_to_train(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="every parameter is frozen"):
        run(tmp_path, model=make_model().requires_grad_(False))


def test_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="there are no training examples"):
        run(tmp_path, items=[])


def test_parameters_that_the_loss_does_not_reach(tmp_path: Path) -> None:
    model = make_model().requires_grad_(False)
    model.register_parameter("aside", torch.nn.Parameter(torch.ones(2)))
    with pytest.raises(TrainingError, match="no trainable parameter takes part in the loss"):
        run(tmp_path, model=model)
