"""ORPO: numbers by hand, the paper's formula in NumPy, invariants, and TRL's own odds ratio."""

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

from luthier.methods import ORPO, Item
from luthier.methods.orpo import log_odds

METHODS = [ORPO(), ORPO(beta=1.0), ORPO(beta=0.01)]


def oracle(method: ORPO, items: list[Item], logps: list[list[torch.Tensor]]) -> float:
    """The paper's formula with plain probabilities, in float64."""
    losses = []
    for chosen, rejected in logps:
        p_w, p_l = (np.exp(values.detach().numpy().mean()) for values in (chosen, rejected))
        ratio = (p_w / (1 - p_w)) / (p_l / (1 - p_l))
        losses.append(-np.log(p_w) - method.beta * np.log(ratio / (1 + ratio)))
    assert len(losses) == len(items)
    return float(np.mean(losses))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_loss_is_its_formula(method: ORPO) -> None:
    for seed in range(5):
        items, logps = made_up(7, seed=seed)
        assert mean_loss(method, items, logps).item() == pytest.approx(
            oracle(method, items, logps), rel=1e-12
        )


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_every_preference_loss_keeps_to(method: ORPO) -> None:
    assert check_gradient(method)
    check_micro_batches(method)
    check_plain_items(method)


def test_directions() -> None:
    check_direction(ORPO())
    check_direction(ORPO(beta=5.0))


def test_the_odds_ratio_is_trls() -> None:
    """Ten steps down from the same start: TRL's odds ratio, beside the likelihood of the answer."""
    pytest.importorskip("trl")
    from trl.experimental.orpo import ORPOTrainer

    trainer = SimpleNamespace(beta=0.3, accelerator=SimpleNamespace(device=torch.device("cpu")))
    items, ours = made_up(6, seed=1)
    theirs = [[values.detach().clone().requires_grad_() for values in own] for own in ours]
    seen = []
    for _ in range(10):
        chosen, rejected = (torch.stack([own[i].mean() for own in theirs]) for i in (0, 1))
        odds = ORPOTrainer.odds_ratio_loss(trainer, chosen, rejected)[0]
        mine, reference = mean_loss(ORPO(beta=0.3), items, ours), -chosen.mean() - odds.mean()
        assert mine.item() == pytest.approx(reference.item(), rel=2e-6)  # TRL's ratio is float32
        seen.append(mine.item())
        for logps, loss in ((ours, mine), (theirs, reference)):
            flat = [values for own in logps for values in own]
            for values, slope in zip(flat, torch.autograd.grad(loss, flat), strict=True):
                values.data -= 0.01 * slope
    assert seen == sorted(seen, reverse=True) and seen[-1] < seen[0]


def test_equal_odds_cost_log_2_beside_the_likelihood() -> None:
    for beta in (0.1, 0.5, 2.0):
        item = pair(3, 8)  # the means count, not the lengths
        loss = ORPO(beta=beta).loss([item], [constant(item, -0.7, -0.7)])
        assert loss.item() == pytest.approx(0.7 + beta * 0.69314718, abs=1e-8)


def test_by_hand() -> None:
    item = pair(2, 4)  # p = 3/4 and 1/4: odds 3 and 1/3, their ratio 9, s(log 9) = 9/10
    logps = [constant(item, math.log(0.75), math.log(0.25))]
    assert ORPO(beta=1.0).loss([item], logps).item() == pytest.approx(-math.log(0.75) - math.log(0.9))
    assert ORPO(beta=0.5).loss([item], logps).item() == pytest.approx(-math.log(0.75) - 0.5 * math.log(0.9))
    other = [constant(item, math.log(0.25), math.log(0.75))]
    assert ORPO(beta=1.0).loss([item], other).item() == pytest.approx(-math.log(0.25) - math.log(0.1))
    mean = [[torch.tensor([-0.1, -0.5]).double(), torch.tensor([-0.9] * 4).double()]]
    same = [constant(item, -0.3, -0.9)]
    torch.testing.assert_close(ORPO().loss([item], mean), ORPO().loss([item], same))


def test_log_odds() -> None:
    for p in (1e-12, 0.1, 0.4999, 0.5, 0.5001, 0.9, 0.999):
        mean = torch.tensor(math.log(p), dtype=torch.float64)
        assert log_odds(mean).item() == pytest.approx(math.log(p / (1 - p)), rel=1e-9, abs=1e-9)


def test_swapping_a_pair_is_no_other_loss_only_where_the_odds_are_equal() -> None:
    item = pair(3, 3)
    even, uneven = [constant(item, -0.5, -0.5)], [constant(item, -0.5, -0.9)]
    torch.testing.assert_close(
        ORPO().loss([item], even), ORPO().loss([swapped(item)], [own[::-1] for own in even])
    )
    turned = ORPO().loss([swapped(item)], [own[::-1] for own in uneven])
    odds = [math.log(p / (1 - p)) for p in (math.exp(-0.5), math.exp(-0.9))]
    difference = turned - ORPO().loss([item], uneven)
    assert difference.item() == pytest.approx(0.4 + 0.1 * (odds[0] - odds[1]))


def test_certain_and_hopeless_answers_are_finite() -> None:
    item = pair(2, 2)
    for means in ((0.0, -80.0), (-80.0, 0.0), (0.0, 0.0), (-1e-9, -1e-9), (-500.0, -500.0)):
        logps = [[values.float().detach().requires_grad_() for values in constant(item, *means)]]
        loss = ORPO().loss([item], logps)
        assert math.isfinite(loss.item())
        assert all(bool(slope.isfinite().all()) for slope in gradients(logps, loss))


def test_there_is_no_reference() -> None:
    item, other = pair(2, 3), pair(2, 3, reference=(-5.0, -1.0))
    logps = [constant(item, -0.5, -0.9)]
    assert not ORPO().needs_reference
    assert torch.equal(ORPO().loss([item], logps), ORPO().loss([other], logps))
