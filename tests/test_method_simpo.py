"""SimPO: numbers by hand, the paper's formula in NumPy, invariants, and TRL's own loss."""

from __future__ import annotations

import math
from types import SimpleNamespace

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

from luthier.methods import Item, SimPO

METHODS = [SimPO(), SimPO(beta=0.5, gamma=0.0), SimPO(beta=10.0, gamma=3.0)]


def oracle(method: SimPO, items: list[Item], logps: list[list[torch.Tensor]]) -> float:
    """The paper's formula, in float64."""
    losses = []
    for chosen, rejected in logps:
        rewards = [method.beta / len(v) * v.detach().numpy().sum() for v in (chosen, rejected)]
        losses.append(-np.log(1 / (1 + np.exp(-(rewards[0] - rewards[1] - method.gamma)))))
    assert len(losses) == len(items)
    return float(np.mean(losses))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_loss_is_its_formula(method: SimPO) -> None:
    for seed in range(5):
        items, logps = made_up(7, seed=seed)
        assert mean_loss(method, items, logps).item() == pytest.approx(
            oracle(method, items, logps), rel=1e-12
        )


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_every_preference_loss_keeps_to(method: SimPO) -> None:
    assert check_gradient(method)
    check_micro_batches(method)
    check_plain_items(method)


def test_directions() -> None:
    check_direction(SimPO())
    check_direction(SimPO(gamma=0.0))


def test_ten_steps_down_the_loss_are_trls() -> None:
    pytest.importorskip("trl")
    from trl.experimental.cpo import CPOTrainer

    trainer = SimpleNamespace(
        beta=2.5,
        alpha=0.0,
        simpo_gamma=0.8,
        loss_type="simpo",
        label_smoothing=0.0,
        accelerator=SimpleNamespace(device=torch.device("cpu")),
    )
    items, ours = made_up(6, seed=1)
    theirs = [[values.detach().clone().requires_grad_() for values in own] for own in ours]
    seen = []
    for _ in range(10):
        chosen, rejected = (torch.stack([own[i].mean() for own in theirs]) for i in (0, 1))
        reference = CPOTrainer.cpo_loss(trainer, chosen, rejected)[0].mean()
        mine = mean_loss(SimPO(beta=2.5, gamma=0.8), items, ours)
        assert mine.item() == pytest.approx(reference.item(), rel=1e-10)
        seen.append(mine.item())
        for logps, loss in ((ours, mine), (theirs, reference)):
            flat = [values for own in logps for values in own]
            for values, slope in zip(flat, torch.autograd.grad(loss, flat), strict=True):
                values.data -= 0.1 * slope
    assert seen == sorted(seen, reverse=True) and seen[-1] < seen[0]


def test_equal_means_cost_what_the_margin_asks() -> None:
    for gamma in (0.0, 0.5, 1.0, 2.0):
        item = pair(3, 8)  # the means count, not the lengths
        loss = SimPO(gamma=gamma).loss([item], [constant(item, -0.7, -0.7)])
        assert loss.item() == pytest.approx(math.log(1 + math.exp(gamma)))


def test_by_hand() -> None:
    item = pair(2, 4)
    logps = [constant(item, -0.5, -1.5)]  # a gap of 1 per token
    assert SimPO(beta=2.0, gamma=2.0).loss([item], logps).item() == pytest.approx(math.log(2))
    assert SimPO(beta=2.0, gamma=0.0).loss([item], logps).item() == pytest.approx(math.log1p(math.exp(-2)))
    assert SimPO(beta=1.0, gamma=2.0).loss([item], logps).item() == pytest.approx(math.log1p(math.exp(1)))
    first, second = gradients(logps, SimPO(beta=2.0, gamma=2.0).loss([item], logps))
    torch.testing.assert_close(first, torch.full_like(first, -0.5))  # - beta s(0) / 2 tokens
    torch.testing.assert_close(second, torch.full_like(second, 0.25))  # beta s(0) / 4 tokens


def test_what_every_token_gains_changes_nothing() -> None:
    item = pair(3, 6)
    torch.testing.assert_close(
        SimPO().loss([item], [constant(item, -0.5, -1.5)]), SimPO().loss([item], [constant(item, -0.9, -1.9)])
    )
    longer = pair(6, 12)
    torch.testing.assert_close(
        SimPO().loss([item], [constant(item, -0.5, -1.5)]),
        SimPO().loss([longer], [constant(longer, -0.5, -1.5)]),
    )


def test_swapping_a_pair_turns_its_margin() -> None:
    items, logps = made_up(5)
    method = SimPO(beta=2.0, gamma=0.0)
    turned = method.loss([swapped(item) for item in items], [own[::-1] for own in logps])
    margins = sum(2.0 * (chosen.mean() - rejected.mean()) for chosen, rejected in logps)
    torch.testing.assert_close(turned - method.loss(items, logps), margins)


def test_margins_far_out_are_finite() -> None:
    item = pair(1, 1)
    for gap in (-1e4, 1e4):
        logps = [[values.float().detach().requires_grad_() for values in constant(item, gap, 0.0)]]
        loss = SimPO().loss([item], logps)
        assert math.isfinite(loss.item())
        assert all(bool(slope.isfinite().all()) for slope in gradients(logps, loss))


def test_there_is_no_reference() -> None:
    item, other = pair(2, 3), pair(2, 3, reference=(-5.0, -1.0))
    logps = [constant(item, -0.5, -0.9)]
    assert not SimPO().needs_reference
    assert torch.equal(SimPO().loss([item], logps), SimPO().loss([other], logps))
