"""The training loop: exact accumulation, determinism, the best epoch, what it writes and says."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import plain_logprobs, tiny, with_lora
from tiny_training import equal, make_items, make_model, metrics, run, settings, trainable
from torch.nn import functional

from luthier.chat import TrainingSequence
from luthier.forest.logprobs import FallbackWarning, can_share
from luthier.methods import SFT, Item
from luthier.models import LoadedModel, attach_adapter
from luthier.recipe import Adapter
from luthier.train import Progress, loop
from luthier.train import step as one_step
from luthier.train.batches import batches_per_epoch, epoch_batches
from luthier.train.loop import validation_loss
from luthier.train.schedule import rate_at
from luthier.train.sharing import sharing_of
from luthier.train.work import plan_training


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
    ours = one_step.summed_loss(model, SFT(), items) / SFT().total(items)
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


def test_it_equals_a_textbook_loop(tmp_path: Path) -> None:
    """Clipping, the rate of each step, Adam's settings, the order of examples: two epochs of plain torch."""
    items, peak = make_items(), 2e-2
    model, _ = run(tmp_path, items=items, validation=[], peak=peak)
    plain = make_model()
    trained = [p for p in plain.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.999), weight_decay=0.0)
    per_epoch = batches_per_epoch(items, 60)
    norms = []
    for step in range(2 * per_epoch):
        epoch, place = divmod(step, per_epoch)
        batch = epoch_batches(items, batch_tokens=60, seed=1, epoch=epoch)[place]
        optimizer.param_groups[0]["lr"] = rate_at(step, steps=2 * per_epoch, peak=peak)
        cross_entropy(plain, [items[i] for i in batch]).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(trained, 1.0)))
        optimizer.step()
        optimizer.zero_grad()
    assert max(norms) > 2 * min(norms) > 2, "the test needs clipping that matters"
    assert [line["grad_norm"] for line in metrics(tmp_path) if "loss" in line] == pytest.approx(
        norms, rel=1e-4
    )
    expected, got = trainable(plain), trainable(model)
    for name, value in expected.items():
        assert float((got[name] - value).norm()) <= 1e-4 * float(value.norm()), name


def with_weights(items: list[Item], weights: list[float]) -> list[Item]:
    """The same items with these weights, in turn, where they had 1."""
    left = iter(weights * 1000)
    return [
        Item(
            item.where,
            tuple(
                TrainingSequence(s.ids, tuple(next(left) if w else 0.0 for w in s.weights))
                for s in item.sequences
            ),
        )
        for item in items
    ]


def test_a_weighted_loss_by_hand() -> None:
    """(0.5 * 3 + 2 * 1 + 1 * 4) / (0.5 + 2 + 1); the first token of a sequence is predicted from nothing."""
    items = [
        Item("a:1", (TrainingSequence((1, 2, 3, 4), (1.0, 0.0, 0.5, 2.0)),)),
        Item("a:2", (TrainingSequence((1, 2), (0.0, 1.0)), TrainingSequence((1, 2), (9.0, 0.0)))),
    ]
    logps = [[torch.tensor([-3.0, -1.0])], [torch.tensor([-4.0]), torch.empty(0)]]
    assert SFT().loss(items, logps).item() == 7.5
    assert SFT().total(items) == 3.5
    assert [item.trained_tokens for item in items] == [2, 1]
    assert items[0].flags == [[False, True, True]]


def test_weights_of_tokens_against_a_textbook_loss(tmp_path: Path) -> None:
    """Values and gradients of the weighted mean over rows of their own, in micro-batches of any size."""
    items = with_weights(make_items(), [0.25, 3.0, 1.0, 0.5])
    plan = settings(epochs=1, batch_tokens=10_000)
    run(tmp_path, items=items, validation=items, settings=plan, peak=1e-9)
    plain = make_model()
    terms = [
        weight * value
        for item in items
        for s in item.sequences
        for weight, value in zip(s.weights[1:], plain_logprobs(plain, s.ids), strict=True)
    ]
    loss = -torch.stack(terms).sum() / sum(w for item in items for s in item.sequences for w in s.weights)
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in plain.parameters() if p.grad is not None])
    line, held = metrics(tmp_path)
    assert line["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert line["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
    assert held["validation_loss"] == pytest.approx(loss.item(), rel=1e-5)
    _, parts = run(tmp_path / "parts", items=items, settings=plan, micro_tokens=20)
    assert metrics(tmp_path / "parts")[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert parts["trained_tokens"] == sum(w > 0 for i in items for s in i.sequences for w in s.weights)


class PerExample(SFT):
    """Divided by the number of examples, as preference losses are."""

    def total(self, items: Sequence[Item]) -> float:
        return float(len(items))


def test_trained_tokens_are_tokens_whatever_the_loss_is_divided_by(tmp_path: Path) -> None:
    _, summary = run(tmp_path, method=PerExample())
    assert summary["trained_tokens"] == 2 * sum(item.trained_tokens for item in make_items())


def test_the_first_loss_is_the_base_models(tmp_path: Path) -> None:
    items = make_items()
    run(tmp_path, items=items, settings=settings(epochs=1, batch_tokens=10_000))
    assert metrics(tmp_path)[0]["loss"] == pytest.approx(cross_entropy(tiny("llama"), items).item(), rel=1e-6)


@pytest.mark.parametrize("micro_tokens", [1, 20, 45])
def test_micro_batches_equal_one_batch(micro_tokens: int, tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", micro_tokens=100_000)
    parts, summary = run(tmp_path / "parts", micro_tokens=micro_tokens)
    assert summary["micro_tokens"] == micro_tokens
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
    assert equal(trainable(first), trainable(again))
    assert not equal(trainable(first), trainable(other))


def test_it_learns_and_says_what_it_did(tmp_path: Path) -> None:
    items, shown, logged = make_items(), [], []
    plan = settings(epochs=12, learning_rate=2e-2)
    _, summary = run(
        tmp_path, items=items, validation=items, settings=plan, show=shown.append, log=logged.append
    )
    lines = metrics(tmp_path)
    steps = [line for line in lines if "loss" in line]
    ends = [line for line in lines if "validation_loss" in line]
    tokens = sum(item.tokens for item in items)
    per_epoch = round(tokens / 60)
    assert logged == lines
    assert [line["step"] for line in steps] == list(range(1, 12 * per_epoch + 1))
    assert [line["step"] for line in ends] == [per_epoch * (k + 1) for k in range(12)]
    assert ends[-1]["validation_loss"] < 0.5 * steps[0]["loss"]
    assert summary["steps"] == summary["planned_steps"] == 12 * per_epoch
    assert summary["tokens"] == steps[-1]["tokens"] == 12 * tokens
    assert summary["executed_tokens"] == steps[-1]["executed_tokens"] < summary["tokens"]
    assert summary["trained_tokens"] == 12 * SFT().total(items)
    assert summary["best_validation_loss"] == min(line["validation_loss"] for line in ends)
    assert summary["stopped"] == "all epochs done"
    rates = [rate_at(k, steps=len(steps), peak=2e-2) for k in range(len(steps))]
    assert [line["learning_rate"] for line in steps] == rates
    assert not any((tmp_path / "checkpoints").glob("*")), "it was over in less than a minute"


def test_every_step_is_shown_once(tmp_path: Path) -> None:
    shown: list[Progress] = []
    _, summary = run(tmp_path, show=shown.append, score=lambda: 0.25)
    lines = {line["step"]: line for line in metrics(tmp_path) if "loss" in line}
    ends = {line["step"]: line["validation_loss"] for line in metrics(tmp_path) if "validation_loss" in line}
    first_end = min(ends)
    assert [p.step for p in shown] == list(lines)
    for progress in shown:
        line = lines[progress.step]
        for name in ("loss", "tokens", "executed_tokens", "learning_rate"):
            assert getattr(progress, name) == line[name]
        assert progress.epoch == pytest.approx(line["epoch"], abs=1e-4)
        assert progress.steps == summary["planned_steps"]
        assert progress.seconds >= line["seconds"] - 1e-3
        assert progress.validation_loss == ends.get(progress.step, ends[first_end]) or (
            progress.step < first_end and progress.validation_loss is None
        )
        assert progress.validation_score == (None if progress.step < first_end else 0.25)
        assert progress.memory_bytes > 1e6
        assert progress.note is None
    assert shown[-1].trained_tokens == summary["trained_tokens"]


def test_time_in_which_it_is_shown_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1e-3
        return now[0]

    def slow(progress: Progress) -> None:
        now[0] += 1000.0

    monkeypatch.setattr(loop.time, "perf_counter", clock)
    _, summary = run(tmp_path, show=slow)
    assert summary["seconds"] < 1.0


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    model, after = make_model(), {}

    def remember(progress: Progress) -> None:
        after[progress.step] = trainable(model)

    # held-out answers are of other tokens: what is learnt makes them less likely, sooner or later
    held_out = make_items(6, seed=5)
    plan = settings(epochs=6, learning_rate=3e-2)
    _, summary = run(tmp_path, model=model, validation=held_out, settings=plan, show=remember)
    losses = {m["step"]: m["validation_loss"] for m in metrics(tmp_path) if "validation_loss" in m}
    best = min(losses, key=lambda step: losses[step])
    assert best < summary["steps"], "the test needs a run that gets worse"
    assert summary["best_step"] == best
    assert equal(trainable(model), after[best])
    assert validation_loss(model, SFT(), held_out) == pytest.approx(losses[best], rel=1e-6)
    assert not model.training


def test_without_validation_the_last_weights_are_kept(tmp_path: Path) -> None:
    model, after = make_model(), {}
    _, summary = run(
        tmp_path, model=model, validation=[], show=lambda p: after.__setitem__(p.step, trainable(model))
    )
    assert equal(trainable(model), after[summary["steps"]])
    assert summary["best_step"] == summary["steps"]
    assert summary["best_validation_loss"] is None


def test_only_the_adapter_changes(tmp_path: Path) -> None:
    model = make_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    run(tmp_path, model=model)
    after = dict(model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_dropout_of_the_base_model_stays_off(tmp_path: Path) -> None:
    base = tiny("llama", attention_dropout=0.5).requires_grad_(False)
    dropped = attach_adapter(LoadedModel(base, None, "tiny"), Adapter(rank=4), seed=7)  # type: ignore[arg-type]
    with_dropout, _ = run(tmp_path / "a", model=dropped)
    without, _ = run(tmp_path / "b")
    assert equal(trainable(with_dropout), trainable(without))


@pytest.fixture
def one_row_each() -> Iterator[torch.nn.Module]:
    """A model that cannot share prefixes."""
    base = tiny("stablelm").requires_grad_(False)
    with pytest.warns(FallbackWarning):
        can_share(base)
    yield attach_adapter(LoadedModel(base, None, "tiny"), Adapter(rank=4), seed=7)  # type: ignore[arg-type]


def test_without_sharing_every_token_is_executed(one_row_each: Any, tmp_path: Path) -> None:
    _, summary = run(tmp_path, model=one_row_each)
    assert summary["executed_tokens"] == summary["tokens"]


def test_without_sharing_a_micro_batch_is_counted_in_full(
    one_row_each: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    outputs_of = one_step.outputs_of

    def noted(model: Any, method: Any, items: list[Item]) -> Any:
        sizes.append(sum(item.tokens for item in items) if len(items) > 1 else 0)
        return outputs_of(model, method, items)

    monkeypatch.setattr(one_step, "outputs_of", noted)
    run(tmp_path, model=one_row_each, micro_tokens=30, validation=[])
    assert 20 < max(sizes) <= 30


def test_executed_tokens_are_those_that_were_computed(tmp_path: Path) -> None:
    """A position encoding that depends on the longest row: short rows share, long ones are computed alone."""
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    items = make_items(20)
    limit = sorted(len(s.ids) for i in items for s in i.sequences)[-6]
    base = tiny("llama", rope_parameters=rope, max_position_embeddings=limit).requires_grad_(False)
    model = attach_adapter(LoadedModel(base, None, "tiny"), Adapter(rank=4), seed=7)  # type: ignore[arg-type]
    assert can_share(base)
    validation_loss(model, SFT(), items[:1])  # what is tried once is over
    computed = 0

    def count(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal computed
        computed += output.shape[:-1].numel()

    hook = base.get_input_embeddings().register_forward_hook(count)
    given: dict[str, Any] = {"items": items, "validation": [], "micro_tokens": 80}
    plan = settings(epochs=1, batch_tokens=200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        _, summary = run(tmp_path, model=model, settings=plan, **given)
    hook.remove()
    _, shared = run(tmp_path / "b", settings=plan, **given)
    assert shared["executed_tokens"] < summary["executed_tokens"] < summary["tokens"]
    assert summary["executed_tokens"] == computed
    again = plan_training(items, [], plan, seed=1, micro_tokens=80, shares=sharing_of(model))
    assert again.executed_tokens == computed
