"""DPO and its variants: numbers by hand, the papers' formulas in NumPy, invariants, and TRL's own code."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from preferences import (
    check_direction,
    check_gradient,
    check_micro_batches,
    check_plain_items,
    constant,
    gradients,
    made_up,
    mean_loss,
    pair,
    swapped,
)

from luthier.methods import DPO, Item

VARIANTS = [
    DPO(),
    DPO(beta=0.5, label_smoothing=0.2),
    DPO(beta=2.0, loss_type="sigmoid_norm"),
    DPO(beta=0.3, loss_type="ipo"),
    DPO(beta=0.05, loss_type="hinge"),
    DPO(beta=0.4, reference_free=True),
]


def oracle(method: DPO, items: list[Item], logps: list[list[torch.Tensor]]) -> float:
    """The papers' formulas, pair by pair, in float64."""
    losses = []
    for item, (chosen, rejected) in zip(items, logps, strict=True):
        w, l = chosen.detach().numpy(), rejected.detach().numpy()  # noqa: E741 the papers' letter
        ref_w, ref_l = (0.0, 0.0) if method.reference_free else item.reference
        r_w, r_l = w.sum() - ref_w, l.sum() - ref_l
        if method.loss_type in ("ipo", "sigmoid_norm"):
            r_w, r_l = r_w / len(w), r_l / len(l)
        h = r_w - r_l
        p = 1 / (1 + np.exp(-method.beta * h))
        e = method.label_smoothing
        losses.append(
            {
                "ipo": (h - 1 / (2 * method.beta)) ** 2,
                "hinge": max(0.0, 1 - method.beta * h),
            }.get(method.loss_type, -(1 - e) * np.log(p) - e * np.log(1 - p))
        )
    return float(np.mean(losses))


@pytest.mark.parametrize("method", VARIANTS, ids=str)
def test_every_variant_is_its_formula(method: DPO) -> None:
    for seed in range(5):
        items, logps = made_up(7, seed=seed)
        assert mean_loss(method, items, logps).item() == pytest.approx(
            oracle(method, items, logps), rel=1e-12
        )


def trl_loss(method: DPO, items: list[Item], logps: list[list[torch.Tensor]]) -> torch.Tensor:
    """The loss that TRL's trainer computes when a model gives these log-probabilities."""
    pytest.importorskip("trl")
    from trl import DPOTrainer

    rows = [own[0] for own in logps] + [own[1] for own in logps]
    width = max(map(len, rows)) + 1
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    values = torch.zeros(len(rows), width - 1, dtype=torch.float64)
    for i, row in enumerate(rows):
        mask[i, 1 : 1 + len(row)] = 1
        values = values.index_put((torch.tensor([i] * len(row)), torch.arange(len(row))), row)

    class Metrics(dict[str, Any]):
        def __missing__(self, key: str) -> list[float]:
            return []

    zeros = torch.zeros_like(values)
    outputs = SimpleNamespace(log_probs=values, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
    one = SimpleNamespace(
        device=torch.device("cpu"), gather_for_metrics=lambda value: value, gather=lambda value: value
    )
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=one,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[method.loss_type],
        loss_weights=[1.0],
        beta=method.beta,
        label_smoothing=0.0,
        use_weighting=False,
        _metrics={"train": Metrics()},
        _total_train_tokens=0,
        _tp_size=1,
    )
    model = type("Model", (), {"training": True, "__call__": lambda self, **kwargs: outputs})()
    inputs = {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": torch.tensor([item.reference[0] for item in items], dtype=torch.float64),
        "ref_rejected_logps": torch.tensor([item.reference[1] for item in items], dtype=torch.float64),
    }
    loss: torch.Tensor = DPOTrainer._compute_loss(trainer, model, inputs, False)
    return loss


@pytest.mark.parametrize("loss_type", ["sigmoid", "sigmoid_norm", "ipo", "hinge"])
def test_ten_steps_down_the_loss_are_trls(loss_type: Any) -> None:
    """The same start, and each side goes down its own gradient: the losses stay together."""
    method = DPO(beta=0.2, loss_type=loss_type)
    items, ours = made_up(6, seed=1)
    theirs = [[values.detach().clone().requires_grad_() for values in own] for own in ours]
    seen = []
    for _ in range(10):
        mine, reference = mean_loss(method, items, ours), trl_loss(method, items, theirs)
        assert mine.item() == pytest.approx(reference.item(), rel=1e-10)
        seen.append(mine.item())
        for logps, loss in ((ours, mine), (theirs, reference)):
            flat = [values for own in logps for values in own]
            for values, slope in zip(flat, torch.autograd.grad(loss, flat), strict=True):
                values.data -= slope
    assert seen == sorted(seen, reverse=True) and seen[-1] < seen[0]


def test_at_the_start_every_pair_costs_log_2() -> None:
    _, logps = made_up(8)
    same = [pair(len(c), len(r), reference=(c.sum().item(), r.sum().item())) for c, r in logps]
    assert mean_loss(DPO(), same, logps).item() == pytest.approx(0.69314718, abs=1e-8)
    assert mean_loss(DPO(label_smoothing=0.3), same, logps).item() == pytest.approx(math.log(2))
    assert mean_loss(DPO(loss_type="sigmoid_norm"), same, logps).item() == pytest.approx(math.log(2))
    assert mean_loss(DPO(beta=0.1, loss_type="ipo"), same, logps).item() == pytest.approx(25.0)
    assert mean_loss(DPO(loss_type="hinge"), same, logps).item() == pytest.approx(1.0)
    first = gradients(logps, DPO(beta=0.1).loss(same, logps))[0]
    torch.testing.assert_close(first, torch.full_like(first, -0.05))  # - beta / 2 at each token


def test_by_hand() -> None:
    item = pair(2, 4, reference=(-3.0, -2.0))  # log-ratios 1 and -2, per token 0.5 and -0.5
    logps = [constant(item, -1.0, -1.0)]
    assert DPO(beta=1.0).loss([item], logps).item() == pytest.approx(math.log1p(math.exp(-3)))
    assert DPO(beta=0.5).loss([item], logps).item() == pytest.approx(math.log1p(math.exp(-1.5)))
    assert DPO(beta=1.0, loss_type="sigmoid_norm").loss([item], logps).item() == pytest.approx(
        math.log1p(math.exp(-1))
    )
    assert DPO(beta=1.0, loss_type="ipo").loss([item], logps).item() == pytest.approx(0.25)  # (1 - 1/2)^2
    assert DPO(beta=0.25, loss_type="hinge").loss([item], logps).item() == pytest.approx(0.25)  # 1 - 3/4
    assert DPO(beta=1.0, label_smoothing=0.25).loss([item], logps).item() == pytest.approx(
        math.log1p(math.exp(-3)) + 0.25 * 3
    )
    free = [pair(2, 4)]
    assert DPO(beta=1.0, reference_free=True).loss(free, logps).item() == pytest.approx(
        math.log1p(math.exp(-2))
    )


def test_what_both_answers_gain_together_changes_nothing() -> None:
    item, more = pair(3, 5, reference=(-4.0, -5.0)), pair(3, 5, reference=(-4.7, -5.7))
    logps = [constant(item, -1.0, -0.5)]
    for method in (DPO(), DPO(label_smoothing=0.1), DPO(loss_type="hinge")):
        torch.testing.assert_close(method.loss([item], logps), method.loss([more], logps))
    per_token = pair(3, 5, reference=(-4.0 - 3 * 0.7, -5.0 - 5 * 0.7))
    for kind in ("ipo", "sigmoid_norm"):
        method = DPO(loss_type=kind)
        torch.testing.assert_close(method.loss([item], logps), method.loss([per_token], logps))
        assert method.loss([item], logps).item() != pytest.approx(method.loss([more], logps).item())


def test_swapping_a_pair_turns_its_margin() -> None:
    items, logps = made_up(5)
    other, turned = [swapped(item) for item in items], [own[::-1] for own in logps]
    even = DPO(beta=1.0, label_smoothing=0.5)
    torch.testing.assert_close(even.loss(items, logps), even.loss(other, turned))
    sharp = DPO(beta=1.0)
    margins = sum(
        (c.sum() - i.reference[0]) - (r.sum() - i.reference[1])
        for i, (c, r) in zip(items, logps, strict=True)
    )
    torch.testing.assert_close(sharp.loss(other, turned) - sharp.loss(items, logps), margins)
    assert sharp.loss(other, turned).item() != pytest.approx(sharp.loss(items, logps).item())


def test_the_least_ipo_loss_is_at_half_over_beta() -> None:
    item = pair(4, 4)
    for beta in (0.1, 0.5, 2.0):
        best = [constant(item, 1 / (2 * beta), 0.0)]
        method = DPO(beta=beta, loss_type="ipo")
        assert method.loss([item], best).item() == pytest.approx(0.0, abs=1e-20)
        for step in (-0.1, 0.1):
            near = [constant(item, 1 / (2 * beta) + step, 0.0)]
            assert method.loss([item], near).item() == pytest.approx(0.01)


def test_smoothed_labels_pull_a_sure_pair_back() -> None:
    """The least loss is at s(beta h) = 1 - e: beyond it, the gradient turns round."""
    item, method = pair(1, 1), DPO(beta=1.0, label_smoothing=0.2)
    for gap, sign in ((math.log(4) - 0.5, -1), (math.log(4) + 0.5, 1)):
        logps = [constant(item, gap, 0.0)]
        assert math.copysign(1, gradients(logps, method.loss([item], logps))[0].item()) == sign


@pytest.mark.parametrize("method", VARIANTS, ids=str)
def test_what_every_preference_loss_keeps_to(method: DPO) -> None:
    assert check_gradient(method)
    check_micro_batches(method)
    check_plain_items(method)


def test_directions() -> None:
    check_direction(DPO())
    check_direction(DPO(loss_type="sigmoid_norm"))
    check_direction(DPO(beta=0.001, loss_type="ipo"))
    check_direction(DPO(beta=0.001, loss_type="hinge"))


def test_margins_far_out_are_finite() -> None:
    item = pair(1, 1)
    for gap in (-1e4, 1e4):
        logps = [[values.float().detach().requires_grad_() for values in constant(item, gap, 0.0)]]
        loss = DPO(beta=1.0).loss([item], logps)
        assert math.isfinite(loss.item()) and all(bool(g.isfinite().all()) for g in gradients(logps, loss))
        assert loss.dtype == torch.float32


def test_a_missing_reference_is_never_taken_for_nothing() -> None:
    item = replace(pair(2, 2), reference=())
    with pytest.raises(ValueError, match="without the reference"):
        DPO().loss([item], [constant(item, -1.0, -1.0)])
    assert DPO(reference_free=True).loss([item], [constant(item, -1.0, -1.0)]).item() == pytest.approx(
        math.log(2)
    )


def test_a_reference_is_asked_for_only_where_it_is_used() -> None:
    assert DPO().needs_reference
    assert not DPO(reference_free=True).needs_reference
