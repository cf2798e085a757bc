"""Made-up pairs with their log-probabilities, and what every preference loss has to keep to."""

from __future__ import annotations

import random
from dataclasses import replace

import torch

from luthier.chat import TrainingSequence
from luthier.methods import Item, Method

PROMPT = 3


def pair(chosen: int = 4, rejected: int = 6, reference: tuple[float, float] = (0.0, 0.0)) -> Item:
    """An item whose answers have so many tokens, after a prompt of three."""
    answers = tuple(
        TrainingSequence(tuple(range(PROMPT + n)), (0.0,) * PROMPT + (1.0,) * n) for n in (chosen, rejected)
    )
    return Item("pair", answers, wanted=(True, False), reference=reference)


def plain(tokens: int = 5) -> Item:
    """An item that is only imitated."""
    return Item("replay", pair(tokens).sequences[:1])


def swapped(item: Item) -> Item:
    """The pair the other way round."""
    return replace(item, sequences=item.sequences[::-1], reference=item.reference[::-1])


def made_up(count: int = 7, *, seed: int = 0) -> tuple[list[Item], list[list[torch.Tensor]]]:
    """Pairs of unequal lengths and float64 log-probabilities of their tokens, with gradients."""
    dice = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    items, logps = [], []
    for _ in range(count):
        lengths = dice.randint(1, 9), dice.randint(1, 9)
        items.append(
            pair(*lengths, reference=(-2 * lengths[0] * dice.random(), -2 * lengths[1] * dice.random()))
        )
        logps.append(
            [
                (-3 * torch.rand(n, dtype=torch.float64, generator=generator) - 0.01).requires_grad_()
                for n in lengths
            ]
        )
    return items, logps


def constant(item: Item, *means: float) -> list[torch.Tensor]:
    """Float64 log-probabilities of the item's sequences, each token having the same."""
    counts = [sum(flags) for flags in item.flags]
    return [
        torch.full((n,), m, dtype=torch.float64).requires_grad_() for n, m in zip(counts, means, strict=True)
    ]


def mean_loss(method: Method, items: list[Item], logps: list[list[torch.Tensor]]) -> torch.Tensor:
    """The loss of a batch, as training divides it."""
    return method.loss(items, logps) / method.total(items)


def gradients(logps: list[list[torch.Tensor]], loss: torch.Tensor) -> list[torch.Tensor]:
    """Of every log-probability."""
    return list(torch.autograd.grad(loss, [values for own in logps for values in own], retain_graph=True))


def check_gradient(method: Method) -> bool:
    """Analytic against numeric gradients, with a plain item among the pairs."""
    items, logps = made_up(3, seed=5)
    items.insert(1, plain())
    logps.insert(1, constant(items[1], -0.7))
    flat = [values for own in logps for values in own]

    def loss(*values: torch.Tensor) -> torch.Tensor:
        left = iter(values)
        return method.loss(items, [[next(left) for _ in item.sequences] for item in items])

    return bool(torch.autograd.gradcheck(loss, flat, eps=1e-6, atol=1e-7))


def check_micro_batches(method: Method) -> None:
    """Any way to divide a batch gives the same loss and gradient, plain items included."""
    items, logps = made_up(6)
    items.append(plain(9))
    logps.append(constant(items[-1], -0.4))
    total = method.total(items)
    whole = method.loss(items, logps) / total
    for cuts in ([1] * 7, [3, 4], [6, 1], [1, 5, 1]):
        parts, at = [], 0
        for size in cuts:
            parts.append(method.loss(items[at : at + size], logps[at : at + size]) / total)
            at += size
        torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=0)
        for one, other in zip(gradients(logps, whole), gradients(logps, sum(parts)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)
    order = [4, 0, 6, 2, 5, 1, 3]
    shuffled = method.loss([items[i] for i in order], [logps[i] for i in order]) / total
    torch.testing.assert_close(shuffled, whole, rtol=1e-12, atol=0)


def check_plain_items(method: Method) -> None:
    """An item without a preference counts as one pair, with its mean negative log-likelihood."""
    items, logps = made_up(2)
    pairs_only = method.loss(items, logps)
    for tokens in (1, 8):
        with_plain = [items[0], plain(tokens), items[1]]
        all_logps = [logps[0], constant(with_plain[1], -0.4), logps[1]]
        assert method.total(with_plain) == 3
        torch.testing.assert_close(
            method.loss(with_plain, all_logps) - pairs_only, torch.tensor(0.4).double()
        )
    alone = method.loss([plain()], [constant(plain(), -0.25)])
    torch.testing.assert_close(alone, torch.tensor(0.25).double())


def check_direction(method: Method) -> None:
    """Every token of the chosen answer is pushed up, every token of the rejected one down."""
    items, logps = made_up(9, seed=3)
    method.loss(items, logps).backward()
    for chosen, rejected in logps:
        assert chosen.grad is not None and rejected.grad is not None
        assert bool((chosen.grad < 0).all()) and bool((rejected.grad > 0).all())
