"""What is only imitated beside pairs and rollouts (replayed answers): tokens of unequal weight, in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from luthier.chat import TrainingSequence
from luthier.methods import CPT, DPO, GRPO, KTO, ORPO, PPO, RLOO, SFT, BestOf, Distill, Item, Method, SimPO

# an item counts as one, with the weighted mean of its tokens
BY_ITEM = [
    DPO(),
    KTO(desirable_weight=1.0, undesirable_weight=1.0),
    ORPO(),
    SimPO(),
    RLOO(),
    GRPO(loss_type="grpo"),
]
# a token counts by its weight
BY_TOKEN = [SFT(), CPT(), Distill("teacher"), BestOf(), PPO(), GRPO(loss_type="dapo")]
# weights and log-probabilities of the trained tokens, sequence by sequence
GIVEN: list[list[tuple[tuple[float, ...], tuple[float, ...]]]] = [
    [((0.5, 2.0), (-3.0, -0.25))],
    [((2.0,), (-1.5,)), ((0.5, 0.5, 2.0), (-0.5, -4.0, -2.0))],
    [((0.5, 0.5), (-1.0, -2.0))],
]
ITEMS = [
    Item(
        "replay",
        tuple(TrainingSequence(tuple(range(2 + len(w))), (0.0, 0.0, *w)) for w, _ in sequences),
    )
    for sequences in GIVEN
]


def name_of(method: Method) -> str:
    return f"{method.name}-{method.loss_type}" if isinstance(method, GRPO) else method.name


def given_logps() -> list[list[torch.Tensor]]:
    return [[torch.tensor(v, dtype=torch.float64).requires_grad_() for _, v in own] for own in GIVEN]


def outputs(method: Method, logps: list[list[torch.Tensor]]) -> list[list[torch.Tensor]]:
    """With a value beside each, where the method reads them; of what is imitated they are not looked at."""
    if method.head is None:
        return logps
    return [[torch.stack([values, torch.full_like(values, 17.0)], dim=1) for values in own] for own in logps]


def sums() -> tuple[np.ndarray, np.ndarray]:
    """Of each item: its weighted negative log-likelihood, and its weight."""
    rows = [
        [np.concatenate([np.array(sequence[part]) for sequence in own]) for part in (0, 1)] for own in GIVEN
    ]
    return np.array([-(w * v).sum() for w, v in rows]), np.array([w.sum() for w, _ in rows])


@pytest.mark.parametrize("method", BY_ITEM, ids=name_of)
def test_an_item_is_worth_the_weighted_mean_of_its_tokens(method: Method) -> None:
    above, below = sums()
    logps = given_logps()
    loss = method.loss(ITEMS, outputs(method, logps))
    assert loss.item() == pytest.approx((above / below).sum(), rel=1e-12)
    assert method.total(ITEMS) == 3
    slopes = torch.autograd.grad(loss, [values for own in logps for values in own])
    expected = [-w / weight for own, weight in zip(GIVEN, below, strict=True) for ws, _ in own for w in ws]
    assert torch.cat(slopes).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("method", BY_TOKEN, ids=name_of)
def test_a_token_is_worth_its_weight(method: Method) -> None:
    above, below = sums()
    logps = given_logps()
    loss = method.loss(ITEMS, outputs(method, logps))
    assert loss.item() == pytest.approx(above.sum(), rel=1e-12)
    assert method.total(ITEMS) == pytest.approx(below.sum(), rel=1e-12)
    slopes = torch.autograd.grad(loss, [values for own in logps for values in own])
    expected = [-w for own in GIVEN for ws, _ in own for w in ws]
    assert torch.cat(slopes).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("method", [*BY_ITEM, *BY_TOKEN], ids=name_of)
def test_of_all_weights_only_the_proportions_count(method: Method) -> None:
    """Within an item where each counts as one; of all of them where tokens count."""
    heavier = [
        Item(
            "replay",
            tuple(TrainingSequence(s.ids, tuple(3 * weight for weight in s.weights)) for s in item.sequences),
        )
        for item in ITEMS
    ]
    logps = outputs(method, given_logps())
    first, other = (method.loss(items, logps) / method.total(items) for items in (ITEMS, heavier))
    assert other.item() == pytest.approx(first.item(), rel=1e-12)
