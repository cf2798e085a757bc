"""The training loop: exact accumulation, determinism, refusals, the best epoch, what it writes."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_models import tiny, with_lora
from torch.nn import functional

from luthier.chat import TrainingSequence
from luthier.errors import TrainingError
from luthier.methods import SFT, Item
from luthier.models import LoadedModel, attach_adapter
from luthier.recipe import Adapter, Train
from luthier.train import Progress, loop, train
from luthier.train.loop import validation_loss
from luthier.train.schedule import peak_rate, rate_at

SETTINGS = Train(epochs=2, learning_rate=1e-2, batch_tokens=60)


def make_items(count: int = 14, *, seed: int = 0, start: int = 3) -> list[Item]:
    """Items of unequal lengths and shared prompts; two answers in every third."""
    choose = random.Random(seed)
    items = []
    for line in range(1, count + 1):
        prompt = [start, start + 1, start + 2 + line % 3]
        sequences = []
        for _ in range(1 + (line % 3 == 0)):
            answer = [choose.randrange(20, 60) for _ in range(choose.randrange(1, 12))]
            ids = (*prompt, *answer, 2)
            sequences.append(TrainingSequence(ids, (0.0,) * 3 + (1.0,) * (len(ids) - 3)))
        items.append(Item(f"data.jsonl:{line}", tuple(sequences)))
    return items


def make_model(*, vocab_size: int = 97) -> PeftModel:
    loaded = LoadedModel(tiny("llama", vocab_size=vocab_size).requires_grad_(False), None, "tiny")  # type: ignore[arg-type]
    return attach_adapter(loaded, Adapter(rank=4), seed=7)


def trainable(model: PeftModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def run(folder: Path, *, model: PeftModel | None = None, settings: Train = SETTINGS, **options: Any) -> Any:
    model = make_model() if model is None else model
    given = {
        "items": make_items(),
        "validation": make_items(4, seed=9),
        "seed": 1,
        "key": "k",
        "method": SFT(),
    }
    given |= options
    method, items, validation = given.pop("method"), given.pop("items"), given.pop("validation")
    summary = train(model, method, items, validation, settings, folder=folder, **given)
    return model, summary


def cross_entropy(model: torch.nn.Module, items: list[Item]) -> torch.Tensor:
    """The textbook loss: one padded batch, labels of -100 where nothing is trained, a mean over tokens."""
    rows = [s for item in items for s in item.sequences]
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        trained = torch.tensor(row.weights) > 0
        labels[i, : len(row.ids)][trained] = ids[i, : len(row.ids)][trained]
    mask = torch.tensor([[t < len(row.ids) for t in range(width)] for row in rows]).long()
    logits = model(input_ids=ids, attention_mask=mask).logits
    return functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))


def test_sft_equals_cross_entropy_over_the_batch() -> None:
    model, items = with_lora(tiny("llama")), make_items()
    ours = loop._summed_loss(model, SFT(), items) / SFT().total(items)
    ours.backward()
    got = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    expected = cross_entropy(model, items)
    expected.backward()
    assert ours.item() == pytest.approx(expected.item(), rel=1e-6)
    assert validation_loss(model, SFT(), items) == pytest.approx(expected.item(), rel=1e-6)
    for name, p in model.named_parameters():
        if p.grad is not None:
            assert torch.allclose(got[name], p.grad, rtol=1e-4, atol=1e-6), name


def test_the_first_loss_is_the_base_models(tmp_path: Path) -> None:
    items = make_items()
    run(tmp_path, items=items, settings=Train(epochs=1, learning_rate=1e-2, batch_tokens=10_000))
    assert metrics(tmp_path)[0]["loss"] == pytest.approx(cross_entropy(tiny("llama"), items).item(), rel=1e-6)


@pytest.mark.parametrize("micro_tokens", [1, 20, 45])
def test_micro_batches_equal_one_batch(
    micro_tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MICRO_TOKENS", 100_000)
    whole, _ = run(tmp_path / "whole")
    monkeypatch.setattr(loop, "MICRO_TOKENS", micro_tokens)
    parts, _ = run(tmp_path / "parts")
    for a, b in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "parts"), strict=True):
        for key in a.keys() & {"loss", "grad_norm", "validation_loss"}:
            assert a[key] == pytest.approx(b[key], rel=1e-5)
        assert a.get("tokens") == b.get("tokens")
    wanted, got = trainable(whole), trainable(parts)
    for name, value in wanted.items():
        assert float((got[name] - value).norm()) <= 1e-5 * float(value.norm()), name


def test_training_is_decided_by_the_seed(tmp_path: Path) -> None:
    first, _ = run(tmp_path / "a")
    torch.manual_seed(123)
    random.seed(123)
    again, _ = run(tmp_path / "b")
    other, _ = run(tmp_path / "c", seed=2)
    a, b, c = trainable(first), trainable(again), trainable(other)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_it_learns_and_says_what_it_did(tmp_path: Path) -> None:
    items, shown = make_items(), []
    settings = Train(epochs=12, learning_rate=2e-2, batch_tokens=60)
    _, summary = run(tmp_path, items=items, validation=items, settings=settings, show=shown.append)
    lines = metrics(tmp_path)
    steps = [line for line in lines if "loss" in line]
    ends = [line for line in lines if "validation_loss" in line]
    tokens = sum(item.tokens for item in items)
    per_epoch = round(tokens / 60)
    assert [line["step"] for line in steps] == list(range(1, 12 * per_epoch + 1))
    assert [line["step"] for line in ends] == [per_epoch * (k + 1) for k in range(12)]
    assert ends[-1]["validation_loss"] < 0.5 * steps[0]["loss"]
    assert summary["steps"] == summary["planned_steps"] == 12 * per_epoch
    assert summary["tokens"] == steps[-1]["tokens"] == 12 * tokens
    assert summary["executed_tokens"] < summary["tokens"]
    assert summary["trained_tokens"] == 12 * SFT().total(items)
    assert summary["best_validation_loss"] == min(line["validation_loss"] for line in ends)
    assert summary["stopped"] == "all epochs done"
    assert [line["learning_rate"] for line in steps] == [
        rate_at(k, steps=len(steps), peak=2e-2) for k in range(len(steps))
    ]
    assert [p.step for p in shown] == [line["step"] for line in steps]
    assert isinstance(shown[0], Progress)
    assert not (tmp_path / "checkpoints").exists()


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    model, after = make_model(), {}
    settings = Train(epochs=6, learning_rate=3e-2, batch_tokens=60)

    def remember(progress: Progress) -> None:
        after[progress.step] = trainable(model)

    # held-out answers are of other tokens: what is learnt makes them less likely, sooner or later
    held_out = make_items(6, seed=5)
    _, summary = run(tmp_path, model=model, validation=held_out, settings=settings, show=remember)
    losses = {m["step"]: m["validation_loss"] for m in metrics(tmp_path) if "validation_loss" in m}
    best = min(losses, key=lambda step: losses[step])
    assert best < summary["steps"], "the test needs a run that gets worse"
    assert summary["best_step"] == best
    final = trainable(model)
    assert all(torch.equal(final[name], after[best][name]) for name in final)
    assert validation_loss(model, SFT(), held_out) == pytest.approx(losses[best], rel=1e-6)
    assert not model.training


def test_without_validation_the_last_weights_are_kept(tmp_path: Path) -> None:
    model, after = make_model(), {}
    _, summary = run(
        tmp_path, model=model, validation=[], show=lambda p: after.__setitem__(p.step, trainable(model))
    )
    final = trainable(model)
    assert all(torch.equal(final[name], after[summary["steps"]][name]) for name in final)
    assert summary["best_validation_loss"] is None


def test_only_the_adapter_changes(tmp_path: Path) -> None:
    model = make_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    run(tmp_path, model=model)
    after = dict(model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_time_limit(tmp_path: Path) -> None:
    _, summary = run(
        tmp_path, settings=Train(epochs=50, learning_rate=1e-2, batch_tokens=60, max_minutes=1e-9)
    )
    assert summary["steps"] == 1
    assert summary["best_step"] == 1
    assert "max_minutes" in summary["stopped"]
    assert metrics(tmp_path)[-1]["validation_loss"] == summary["best_validation_loss"]


# Refusals -----------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    model, after = make_model(), {}
    with torch.no_grad():
        model.get_input_embeddings().weight[96] = math.nan
    items = make_items()
    bad = TrainingSequence((3, 4, 96, 20, 2), (0.0, 0.0, 0.0, 1.0, 1.0))
    items[6] = Item("data.jsonl:7", (bad,))
    after[0] = trainable(model)
    with pytest.raises(TrainingError, match=r"the loss of step (\d+) is not finite") as caught:
        run(tmp_path, model=model, items=items, show=lambda p: after.__setitem__(p.step, trainable(model)))
    assert "data.jsonl:7" in caught.value.message
    step = int(caught.value.message.split("step ")[1].split()[0])
    assert max(after) == step - 1
    now = trainable(model)
    assert all(torch.equal(now[name], after[step - 1][name]) for name in now)


class Spiky(SFT):
    """A finite loss with a gradient that is not: the slope of a square root at 0."""

    def loss(self, items: Any, logps: Any) -> torch.Tensor:
        value = super().loss(items, logps)
        return value + (value - value.detach()).abs().sqrt()


def test_a_gradient_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    model = make_model()
    before = trainable(model)
    with pytest.raises(TrainingError, match=r"the gradient of step 1 is not finite.*data.jsonl:"):
        run(tmp_path, model=model, method=Spiky())
    now = trainable(model)
    assert all(torch.equal(now[name], before[name]) for name in now)


def test_a_validation_loss_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    model = make_model()
    with torch.no_grad():
        model.get_input_embeddings().weight[96] = math.nan
    bad = Item("held.jsonl:1", (TrainingSequence((3, 96, 20, 2), (0.0, 0.0, 1.0, 1.0)),))
    with pytest.raises(TrainingError, match="the validation loss is nan"):
        run(tmp_path, model=model, validation=[bad])


def test_dropout_of_the_base_model_stays_off(tmp_path: Path) -> None:
    def dropped() -> PeftModel:
        base = tiny("llama", attention_dropout=0.5).requires_grad_(False)
        return attach_adapter(LoadedModel(base, None, "tiny"), Adapter(rank=4), seed=7)  # type: ignore[arg-type]

    with_dropout, _ = run(tmp_path / "a", model=dropped())
    without, _ = run(tmp_path / "b")
    a, b = trainable(with_dropout), trainable(without)
    assert all(torch.equal(a[name], b[name]) for name in a)


# The learning rate ----------------------------------------------------------------------------------


def test_schedule_by_hand() -> None:
    # 10 steps: one of warm-up (6% rounded up), then 9/10, 8/10, ... down to 1/10 of the peak
    rates = [rate_at(step, steps=10, peak=1.0) for step in range(10)]
    assert rates == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    rates = [rate_at(step, steps=100, peak=2.0) for step in range(100)]
    assert rates[:6] == pytest.approx([2 / 6, 4 / 6, 1.0, 8 / 6, 10 / 6, 2.0])
    assert rates[6] == pytest.approx(2 * 94 / 95)
    assert rates[99] == pytest.approx(2 / 95)
    assert rate_at(0, steps=1, peak=3.0) == 3.0


def test_peak_rate_by_hand() -> None:
    assert peak_rate("auto", hidden_size=2000) == pytest.approx(5e-4)
    # (2000 / 576) ** 0.781 = exp(0.781 * ln 3.47222) = exp(0.781 * 1.244795) = exp(0.972185) = 2.643712
    assert peak_rate("auto", hidden_size=576) == pytest.approx(5e-4 * 2.643712, rel=1e-5)
    assert peak_rate(3e-4, hidden_size=576) == 3e-4
