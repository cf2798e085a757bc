"""Pausing a training, and lending a base: what goes on later is, bit for bit, what was never disturbed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import make_items, make_model, metrics, outcome, run, same, settings, trainable

from luthier.errors import ModelError, TrainingError
from luthier.forest import logprobs
from luthier.models import LoadedModel, attach_adapter
from luthier.models.lending import LentBase
from luthier.recipe import Adapter
from luthier.train import checkpoint

ROWS = [[3, 4, 5, 20, 21, 2], [3, 4, 5, 30, 2], [3, 9, 2]]
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "dora": {"kind": "dora", "rank": 4},
    "chosen layers": {"rank": 4, "layers": "last 1"},
    "prefix": {"kind": "prefix", "virtual_tokens": 4},
    "prompt": {"kind": "prompt", "virtual_tokens": 4},
    "int8": {"rank": 4, "base": "int8"},
}


# --- pausing ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, int]:
    folder = tmp_path_factory.mktemp("whole")
    trained = run(folder)
    return outcome(folder, trained), trained[1]["steps"]


def test_paused_anywhere_and_gone_on_it_is_the_same_training(whole: tuple[Any, int], tmp_path: Path) -> None:
    """Within an epoch, at its end, twice, and at the last step but one."""
    expected, steps = whole
    per_epoch = steps // 2
    for number, pauses in enumerate(([1], [per_epoch], [2, per_epoch + 1], [steps - 1])):
        folder = tmp_path / str(number)
        for until in pauses:
            _, summary = run(folder, until=until)
            assert (summary["steps"], summary["planned_steps"]) == (until, steps)
            assert summary["stopped"] is None
        assert same(outcome(folder, run(folder)), expected), pauses


def test_a_pause_keeps_the_planned_schedule(whole: tuple[Any, int], tmp_path: Path) -> None:
    run(tmp_path, until=5)
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines if "grad_norm" in line] == [1, 2, 3, 4, 5]
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert rates == [line["learning_rate"] for line in whole[0][1] if "learning_rate" in line][:5]


def test_a_paused_model_has_its_own_weights_not_the_best(tmp_path: Path) -> None:
    """At a rate so high that an early epoch is the best: what is measured is the weights as they are."""
    rate = settings(learning_rate=0.5, epochs=3)
    steps = run(tmp_path / "whole", settings=rate)[1]["steps"]
    paused, _ = run(tmp_path / "paused", settings=rate, until=steps - 1)
    newest = checkpoint.Checkpoints(tmp_path / "paused/checkpoints", "k").load()
    assert newest is not None
    for name, value in trainable(paused).items():
        assert torch.equal(value, newest.tensors[f"weight/{name}"])
        assert not torch.equal(value, newest.tensors[f"best/{name}"])


def test_pausing_where_it_is_paused_does_nothing_more(tmp_path: Path) -> None:
    run(tmp_path, until=3)
    before = metrics(tmp_path)
    _, summary = run(tmp_path, until=3)
    assert (summary["steps"], summary["stopped"]) == (3, None)
    assert metrics(tmp_path) == before


def test_the_end_comes_before_a_pause(tmp_path: Path) -> None:
    _, summary = run(tmp_path, until=1000)
    assert summary["stopped"] == "all epochs done"


def test_a_pause_that_cannot_be_saved_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, until=2)


# --- lending ------------------------------------------------------------------------------------------


def loaded_model(tokenizer: Any) -> LoadedModel:
    return LoadedModel(make_model().get_base_model().requires_grad_(False), tokenizer, "tiny")


def anatomy(model: torch.nn.Module) -> dict[str, Any]:
    """Everything that a model is made of: modules, weights bit for bit, flags, attributes."""
    return {
        "modules": [(name, id(module)) for name, module in model.named_modules()],
        "weights": {name: value.detach().clone() for name, value in model.state_dict().items()},
        "places": {name: id(p) for name, p in model.named_parameters()},
        "flags": {name: p.requires_grad for name, p in model.named_parameters()},
        "attributes": set(vars(model)),
        "training": [module.training for module in model.modules()],
    }


def assert_alike(a: dict[str, Any], b: dict[str, Any]) -> None:
    for part in a.keys() - {"weights"}:
        assert a[part] == b[part], part
    assert a["weights"].keys() == b["weights"].keys()
    assert all(torch.equal(a["weights"][name], b["weights"][name]) for name in a["weights"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_comes_back_as_it_was(kind: str, loaded: LoadedModel, tmp_path: Path) -> None:
    base = LentBase(loaded)
    before, scores = anatomy(loaded.model), [v.clone() for v in logprobs(loaded.model, ROWS)]
    adapter = Adapter(**KINDS[kind])
    with base.lent() as lent:
        model = attach_adapter(lent, adapter, seed=0)
        first = trainable(model)
        run(tmp_path, model=model, settings=settings(epochs=1))
        after = trainable(model)
        assert any(not torch.equal(first[name], after[name]) for name in first)
    assert_alike(anatomy(loaded.model), before)
    assert all(torch.equal(a, b) for a, b in zip(logprobs(loaded.model, ROWS), scores, strict=True))
    with base.lent() as lent:  # and what comes next starts as it would on a fresh one
        again = trainable(attach_adapter(lent, adapter, seed=0))
    assert again.keys() == first.keys() and all(torch.equal(again[name], first[name]) for name in first)


@pytest.mark.parametrize("change", ["a weight", "a buffer", "a weight replaced"])
def test_a_base_that_was_changed_is_told(change: str, loaded: LoadedModel) -> None:
    base = LentBase(loaded)
    rotary = loaded.model.get_decoder().rotary_emb  # type: ignore[union-attr]

    def train_the_base() -> None:
        with base.lent() as lent:
            if change == "a weight":
                next(lent.model.parameters()).data[0, 0] += 1e-6  # as PEFT merges: past autograd's eyes
            elif change == "a buffer":
                rotary.inv_freq[0] += 1.0  # type: ignore[index,operator]
            else:
                head = lent.model.get_input_embeddings()
                head.weight = torch.nn.Parameter(head.weight * 2)  # type: ignore[operator]

    if change == "a weight replaced":
        train_the_base()  # the one before is put back
        assert loaded.model.get_input_embeddings().weight.requires_grad is False
    else:
        with pytest.raises(ModelError, match="training changed the base model: 1 of its tensors"):
            train_the_base()


def test_a_base_comes_back_after_an_error_too(loaded: LoadedModel, tmp_path: Path) -> None:
    base = LentBase(loaded)
    logprobs(loaded.model, ROWS)  # whether it shares is tried while it is sound
    before = anatomy(loaded.model)
    bad = [dataclasses.replace(item) for item in make_items()]
    with pytest.raises(TrainingError), base.lent() as lent:
        model = attach_adapter(lent, Adapter(rank=4), seed=0)
        with torch.no_grad():
            next(p for p in model.parameters() if p.requires_grad)[0, 0] = float("nan")
        run(tmp_path, model=model, items=bad)
    assert_alike(anatomy(loaded.model), before)
