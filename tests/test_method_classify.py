"""Classification heads: numbers by hand, cross-entropy in NumPy, invariants, Transformers' loss, training."""

from __future__ import annotations

import math
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from preferences import gradients, mean_loss
from sklearn.utils.class_weight import compute_class_weight
from tiny_models import relative_error, tiny
from tiny_training import Crash, crash_at, outcome, run, same, settings
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from luthier.chat import ChatFormat, TrainingSequence
from luthier.errors import DataError
from luthier.examples.example import Example, Message
from luthier.methods import Classify, Item, build_method
from luthier.methods.method import read_at_end
from luthier.models import LoadedModel, Model, attach_adapter
from luthier.models.heads import attach_head
from luthier.recipe import Adapter
from luthier.recipe.method_options import ClassifyOptions
from luthier.train import loop
from luthier.train.outputs import outputs_of, score_sequences
from luthier.train.step import MAX_GRAD_NORM, Told, backward_of

LABELS = ("a", "b", "c")
VARIANTS = [Classify(LABELS), Classify(LABELS, (0.5, 2.0, 1.5)), Classify(LABELS, (1.0, 0.0, 3.0))]
Outputs = list[list[torch.Tensor]]


def labelled(label: str | None) -> Item:
    return Item("d:1", (TrainingSequence((3, 4), (0.0, 1.0)),), label=label)


def logits(*values: float) -> list[torch.Tensor]:
    return [torch.tensor(values, dtype=torch.float64).requires_grad_()]


def made_up(count: int = 9, *, seed: int = 0) -> tuple[list[Item], Outputs]:
    """Items of every label, in float64."""
    dice = random.Random(seed)
    items = [labelled(LABELS[i % 3] if i < 3 else dice.choice(LABELS)) for i in range(count)]
    return items, [logits(*(dice.gauss(0, 2) for _ in LABELS)) for _ in items]


def oracle(method: Classify, items: list[Item], outputs: Outputs) -> float:
    """The weighted mean of - log softmax, in float64."""
    weights = [1.0] * 3 if method.class_weights == "equal" else list(method.class_weights)
    losses, weighing = [], []
    for item, (own,) in zip(items, outputs, strict=True):
        z = own.detach().numpy()
        y = LABELS.index(str(item.label))
        losses.append(-weights[y] * np.log(np.exp(z[y]) / np.exp(z).sum()))  # type: ignore[operator]
        weighing.append(weights[y])
    return float(sum(losses) / sum(weighing))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", VARIANTS, ids=str)
def test_the_loss_is_its_formula(method: Classify) -> None:
    for seed in range(5):
        items, outputs = made_up(9, seed=seed)
        assert mean_loss(method, items, outputs).item() == pytest.approx(
            oracle(method, items, outputs), rel=1e-12
        )


def test_by_hand() -> None:
    method = Classify(LABELS)
    assert method.loss([labelled("b")], [logits(1.0, 1.0, 1.0)]).item() == pytest.approx(math.log(3))
    one = method.loss([labelled("a")], [logits(math.log(2), 0.0, 0.0)]).item()
    assert one == pytest.approx(math.log(2))  # 2 / (2 + 1 + 1)
    other = method.loss([labelled("c")], [logits(math.log(2), 0.0, 0.0)]).item()
    assert other == pytest.approx(math.log(4))
    weighted = Classify(LABELS, (3.0, 1.0, 0.5))
    items, outputs = [labelled("a"), labelled("c")], [logits(math.log(2), 0.0, 0.0)] * 2
    assert weighted.loss(items, outputs).item() == pytest.approx(3 * math.log(2) + 0.5 * math.log(4))
    assert weighted.total(items) == 3.5
    assert method.total(items) == 2.0


def test_two_labels_are_logistic_regression() -> None:
    method = Classify(("no", "yes"))
    for gap in (-2.0, 0.0, 0.7):
        loss = method.loss([labelled("yes")], [logits(0.0, gap)]).item()
        assert loss == pytest.approx(math.log1p(math.exp(-gap)))


def test_what_all_outputs_gain_changes_nothing() -> None:
    items, outputs = made_up()
    raised = [[own[0] + i] for i, own in enumerate(outputs)]
    torch.testing.assert_close(Classify(LABELS).loss(items, raised), Classify(LABELS).loss(items, outputs))


def test_the_gradient_is_probability_less_truth() -> None:
    own = logits(0.3, -1.0, 0.8)
    (slope,) = gradients([own], Classify(LABELS).loss([labelled("b")], [own]))
    expected = torch.softmax(own[0].detach(), 0) - torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(slope, expected)


def test_the_order_of_labels_is_that_of_the_outputs() -> None:
    turned = Classify(("c", "a", "b"))
    one = Classify(LABELS).loss([labelled("c")], [logits(0.1, 0.2, 0.9)])
    other = turned.loss([labelled("c")], [logits(0.9, 0.1, 0.2)])
    assert one.item() == pytest.approx(other.item())
    assert one.item() != pytest.approx(turned.loss([labelled("c")], [logits(0.1, 0.2, 0.9)]).item())


@pytest.mark.parametrize("method", VARIANTS, ids=str)
def test_the_gradient_is_that_of_the_loss(method: Classify) -> None:
    items, outputs = made_up(4, seed=2)
    flat = [own for (own,) in outputs]
    assert torch.autograd.gradcheck(
        lambda *values: method.loss(items, [[own] for own in values]), flat, eps=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("method", VARIANTS, ids=str)
def test_micro_batches_and_order_do_not_matter(method: Classify) -> None:
    items, outputs = made_up(8)
    total = method.total(items)
    whole = method.loss(items, outputs) / total
    for cuts in ([1] * 8, [3, 5], [7, 1]):
        parts, at = [], 0
        for size in cuts:
            parts.append(method.loss(items[at : at + size], outputs[at : at + size]) / total)
            at += size
        torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=0)
        for one, other in zip(gradients(outputs, whole), gradients(outputs, sum(parts)), strict=True):  # type: ignore[arg-type]
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)
    order = [4, 0, 6, 2, 7, 5, 1, 3]
    shuffled = method.loss([items[i] for i in order], [outputs[i] for i in order]) / total
    torch.testing.assert_close(shuffled, whole, rtol=1e-12, atol=0)


def test_sure_outputs_are_finite() -> None:
    for sign in (-1e4, 1e4):
        own = [value.float().detach().requires_grad_() for value in logits(sign, 0.0, 0.0)]
        loss = Classify(LABELS).loss([labelled("a")], [own])
        assert math.isfinite(loss.item()) and bool(gradients([own], loss)[0].isfinite().all())


# labels -------------------------------------------------------------------------------------------


def test_labels_are_those_of_the_training_items() -> None:
    items = [labelled(label) for label in ("late", "broken", "late", "other", "late")]
    settled = Classify().settle(items)
    assert settled.labels == ("broken", "late", "other")
    assert settled.class_weights == "equal"
    assert settled.settle(items) == settled
    given = Classify(("other", "late", "broken", "lost")).settle(items)
    assert given.labels == ("other", "late", "broken", "lost")


def test_balanced_weights_are_scikit_learns() -> None:
    names = ["late"] * 5 + ["broken"] * 2 + ["other"]
    items = [labelled(name) for name in names]
    settled = Classify(class_weights="balanced").settle(items)
    expected = compute_class_weight("balanced", classes=np.array(settled.labels), y=np.array(names))
    assert settled.class_weights == pytest.approx(tuple(expected))
    # every label has the same say, and all of them that of the items
    shares = [sum(settled.total([i]) for i in items if i.label == name) for name in settled.labels]
    assert shares == pytest.approx([8 / 3] * 3)
    unseen = Classify(("broken", "late", "lost", "other"), "balanced").settle(items)
    assert unseen.class_weights == pytest.approx((1.0, 0.4, 0.0, 2.0))


def test_what_is_no_set_of_labels() -> None:
    with pytest.raises(DataError, match="1 labels are too few"):
        Classify().settle([labelled("a"), labelled("a")])
    with pytest.raises(DataError, match="0 labels are too few"):
        Classify().settle([])
    with pytest.raises(
        DataError, match="the label 'd' is not one of the training answers': a, b, c"
    ) as caught:
        Classify(LABELS).settle([labelled("a"), labelled("d")])
    assert caught.value.where == "d:1"
    with pytest.raises(DataError, match="the label 'd'"):
        Classify(LABELS).total([labelled("d")])
    with pytest.raises(ValueError, match="nothing to imitate"):
        Classify(LABELS).loss([labelled(None)], [logits(1.0, 2.0, 3.0)])
    with pytest.raises(ValueError, match="2 outputs for 3 labels"):
        Classify(LABELS).loss([labelled("a")], [logits(1.0, 2.0)])
    with pytest.raises(ValueError, match="settle"):
        Classify(LABELS, "balanced").total([labelled("a")])


def test_an_item_is_a_prompt_and_its_label(chat: ChatFormat) -> None:
    asked = (Message("user", "what is it?"), Message("assistant", " late\n"))
    (item,) = Classify().items([Example("e", asked, "d.jsonl", 3)], chat, "Be brief.")
    request = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "what is it?"}]
    assert item.sequences[0].ids == tuple(chat.prompt(request))
    assert (item.label, item.where, item.trained_tokens) == ("late", "d.jsonl:3", 1)
    blank = Example("e", (asked[0], Message("assistant", " ")), "d.jsonl", 4)
    with pytest.raises(DataError, match="the label is empty") as caught:
        Classify().items([blank], chat, None)
    assert caught.value.where == "d.jsonl:4"


def test_a_recipe_names_it() -> None:
    assert build_method(ClassifyOptions()) == Classify()
    assert build_method(ClassifyOptions(class_weights="balanced")) == Classify((), "balanced")
    assert (Classify().head, Classify(LABELS).labels, Classify().needs_reference) == (
        "sequence",
        LABELS,
        False,
    )


# training -----------------------------------------------------------------------------------------

NAMES = ("high", "low", "middle")


def requests(count: int, *, seed: int = 0) -> list[Item]:
    """Prompts of random tokens; the label says which of six tokens one of them is."""
    dice = random.Random(seed)
    items = []
    for line in range(1, count + 1):
        place, label = dice.choice(
            [(range(60, 62), "high"), (range(20, 22), "low"), (range(40, 42), "middle")]
        )
        before = [3, 4, *(dice.randrange(80, 84) for _ in range(dice.randrange(1, 5)))]
        items.append(Item(f"d:{line}", (read_at_end([*before, dice.choice(place), 5]),), label=label))
    return items


def classifier(kind: str = "lora") -> Model:
    base = tiny("llama", num_hidden_layers=1).requires_grad_(False)
    loaded = LoadedModel(base, None, "tiny")  # type: ignore[arg-type]
    model = attach_adapter(loaded, Adapter(kind=kind, rank=4), seed=7)  # type: ignore[arg-type]
    attach_head(model, Classify(NAMES), seed=7)
    return model


def accuracy(model: Model, items: list[Item]) -> float:
    found = score_sequences(model, [item.sequences[0].ids for item in items]).argmax(1).tolist()
    return sum(NAMES[i] == item.label for i, item in zip(found, items, strict=True)) / len(items)


def test_the_loss_is_that_of_transformers_classifier() -> None:
    """One padded batch with labels: the same loss and gradients."""
    model, items = classifier("full"), requests(10)
    method = Classify(NAMES)
    twin = AutoModelForSequenceClassification.from_config(model.config).eval()
    twin.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("lm_head")})
    rows = [list(item.sequences[0].ids) for item in items]
    width = max(map(len, rows))
    padded = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    labels = torch.tensor([NAMES.index(str(item.label)) for item in items])
    expected = twin(input_ids=padded, attention_mask=(padded != 0).long(), labels=labels).loss
    ours = method.loss(items, outputs_of(model, method, items)) / method.total(items)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)
    ours.backward()
    expected.backward()
    for name, parameter in twin.named_parameters():
        own = model.get_parameter(name).grad
        assert own is not None and parameter.grad is not None
        assert float((own - parameter.grad).norm()) <= 1e-4 * float(parameter.grad.norm()) + 1e-6, name


def test_ten_steps_of_it_are_a_textbook_loops(tmp_path: Path) -> None:
    """Plain Transformers and torch's AdamW on the same batches: every loss is the same."""
    items, method = requests(40), Classify(NAMES, (1.0, 2.0, 0.5))
    model = classifier("full")
    twin = AutoModelForSequenceClassification.from_config(model.config).eval()
    twin.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("lm_head")})
    plan = settings(epochs=1, batch_tokens=sum(item.tokens for item in items) // 10, learning_rate=3e-3)
    lines: list[Any] = []
    run(
        tmp_path,
        model=model,
        method=method,
        items=items,
        validation=[],
        settings=plan,
        seed=1,
        log=lines.append,
    )
    found = [line["loss"] for line in lines if "loss" in line]
    optimizer = torch.optim.AdamW(twin.parameters(), lr=3e-3, weight_decay=0.0)
    expected = []
    for step, chosen in enumerate(loop.epoch_batches(items, batch_tokens=plan.batch_tokens, seed=1, epoch=0)):
        rows = [list(items[i].sequences[0].ids) for i in chosen]
        logits = torch.cat([twin(input_ids=torch.tensor([row])).logits for row in rows])
        labels = torch.tensor([NAMES.index(str(items[i].label)) for i in chosen])
        loss = functional.cross_entropy(logits, labels, weight=torch.tensor(method.class_weights))
        expected.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), MAX_GRAD_NORM)
        for group in optimizer.param_groups:
            group["lr"] = loop.rate_at(step, steps=10, peak=3e-3)
        optimizer.step()
    assert len(found) == 10
    assert found == pytest.approx(expected, abs=1e-4)


def test_eight_micro_batches_are_one_batch() -> None:
    model, items, method = classifier(), requests(8), Classify(NAMES, (1.0, 2.0, 0.5))
    total, found, losses = method.total(items), [], []
    for parts in ([items], [[item] for item in items]):
        model.zero_grad()
        losses.append(sum(backward_of(model, method, total, 1, Told(), part) for part in parts))
        found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert all(relative_error(found[1][name], found[0][name]) < 1e-4 for name in found[0])


@pytest.mark.parametrize("kind", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_it_learns_a_rule(kind: str, tmp_path: Path) -> None:
    model, held = classifier(kind), requests(60, seed=9)
    before = accuracy(model, held)
    plan = settings(epochs=8, batch_tokens=100, learning_rate=1e-2 if kind == "lora" else 5e-3)
    items = requests(150)
    method = Classify(class_weights="balanced").settle(items)
    _, summary = run(tmp_path, model=model, method=method, items=items, validation=held[:20], settings=plan)
    assert before < 0.7
    assert accuracy(model, held) >= 0.95
    assert summary["best_validation_loss"] < 0.3
    assert summary["trained_tokens"] == 8 * len(items)


def test_resumed_is_uninterrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("luthier.train.saving.COST_FACTOR", 0.0)
    monkeypatch.setattr(os, "fsync", lambda handle: None)

    def go(folder: Path, **changes: Any) -> Any:
        items = requests(14)
        given: dict[str, Any] = {"method": Classify().settle(items), "items": items, "validation": items[:4]}
        return outcome(
            folder, run(folder, model=classifier(), settings=settings(batch_tokens=30), **given, **changes)
        )

    whole = go(tmp_path / "whole")
    assert any("score" in name for name in whole[0]) and whole[2]["steps"] >= 6
    for step in (2, 5):
        with pytest.raises(Crash):
            go(tmp_path / "run", show=crash_at(step))
    assert same(go(tmp_path / "run"), whole)
