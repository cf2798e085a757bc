"""Made-up answers of a model with what was known of them, and what every online loss has to keep to."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from luthier.chat import TrainingSequence
from luthier.methods import Item
from luthier.methods.online import Online, Sample

PROMPT = 3


def answer(tokens: int = 4, where: str = "answer") -> Item:
    """An item with one answer of so many tokens, after a prompt of three."""
    ids = tuple(range(PROMPT + tokens))
    return Item(where, (TrainingSequence(ids, (0.0,) * PROMPT + (1.0,) * tokens),))


def numbers(values: Sequence[float]) -> torch.Tensor:
    """A float64 tensor: the tests count in double precision throughout."""
    return torch.tensor(list(values), dtype=torch.float64)


def wrote(
    policy: Sequence[float],
    reward: float = 0.0,
    *,
    reference: Sequence[float] | None = None,
    values: Sequence[float] | None = None,
    finished: bool = True,
) -> Sample:
    """An answer of as many tokens as there are log-probabilities."""
    return Sample(
        answer(len(policy)),
        reward,
        finished,
        numbers(policy),
        None if reference is None else numbers(reference),
        None if values is None else numbers(values),
    )


def made_up(groups: int = 3, samples: int = 4, *, seed: int = 0, longest: int = 7) -> list[list[Sample]]:
    """Answers of unequal lengths, each item with a name of its own; some are cut off."""
    dice = random.Random(seed)

    def one(where: str) -> Sample:
        n = dice.randint(1, longest)
        policy = [-3 * dice.random() - 0.05 for _ in range(n)]
        reference = [logp + dice.gauss(0, 0.4) for logp in policy]
        values = [dice.gauss(0, 1) for _ in range(n)]
        sample = wrote(policy, dice.gauss(0, 2), reference=reference, values=values)
        return replace(sample, item=answer(n, where), finished=dice.random() < 0.7)

    return [[one(f"{g}/{i}") for i in range(samples)] for g in range(groups)]


def flat(groups: Sequence[Sequence[Sample]]) -> list[Sample]:
    """All samples, group after group."""
    return [sample for group in groups for sample in group]


def written(groups: Sequence[Sequence[Sample]]) -> list[list[torch.Tensor]]:
    """The very log-probabilities of the answers when they were written, with gradients."""
    return [[sample.policy.clone().requires_grad_()] for sample in flat(groups)]


def moved(groups: Sequence[Sequence[Sample]], *, seed: int = 0, by: float = 0.3) -> list[list[torch.Tensor]]:
    """Log-probabilities some way from those: ratios on either side of any clipping."""
    dice = random.Random(f"moved/{seed}")
    return [
        [numbers([logp + dice.gauss(0, by) for logp in sample.policy.tolist()]).requires_grad_()]
        for sample in flat(groups)
    ]


def valued(
    groups: Sequence[Sequence[Sample]], logps: list[list[torch.Tensor]], *, seed: int = 0, by: float = 0.3
) -> list[list[torch.Tensor]]:
    """`[T, 2]`: the log-probabilities, and values some way from those of the time of writing."""
    dice = random.Random(f"valued/{seed}")
    both = []
    for sample, (own,) in zip(flat(groups), logps, strict=True):
        assert sample.values is not None
        values = numbers([value + dice.gauss(0, by) for value in sample.values.tolist()])
        both.append([torch.stack([own.detach(), values], dim=1).requires_grad_()])
    return both


def plain(tokens: int = 5, weight: float = 1.0) -> Item:
    """An item that is only imitated."""
    item = answer(tokens, "replay")
    (sequence,) = item.sequences
    weights = tuple(weight * own for own in sequence.weights)
    return replace(item, sequences=(TrainingSequence(sequence.ids, weights),))


def constant(item: Item, mean: float, *, columns: int = 1) -> list[torch.Tensor]:
    """Every log-probability of the item's one answer is `mean`; a value beside it is not looked at."""
    count = sum(item.flags[0])
    if columns == 1:
        return [torch.full((count,), mean, dtype=torch.float64).requires_grad_()]
    return [torch.tensor([[mean, 17.0]] * count, dtype=torch.float64).requires_grad_()]


def mean_loss(method: Online, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
    """The loss of an update, as training divides it."""
    return method.loss(items, logps) / method.total(items)


def gradients(logps: Sequence[Sequence[torch.Tensor]], loss: torch.Tensor) -> list[torch.Tensor]:
    """Of every log-probability."""
    return list(torch.autograd.grad(loss, [values for own in logps for values in own], retain_graph=True))


def descend(logps: Sequence[Sequence[torch.Tensor]], loss: torch.Tensor, rate: float = 1.0) -> None:
    """One step down the gradient, in place."""
    for values, slope in zip([v for own in logps for v in own], gradients(logps, loss), strict=True):
        values.data -= rate * slope


def padded(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """`[B, T]` with zeros after the shorter rows; gradients flow back into them."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def mask_of(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """`[B, T]`, 1 where a row has a token."""
    return padded([torch.ones_like(row, requires_grad=False) for row in rows]).detach()


class Anything:
    """TRL's metrics and accelerator, of which a loss only needs that they can be called."""

    device = torch.device("cpu")
    num_processes = 1

    def gather(self, value: Any) -> Any:
        """One process."""
        return value

    def reduce(self, value: Any, reduction: str = "sum") -> Any:
        """One process."""
        return value


class Metrics(dict[str, Any]):
    """Lists that nobody reads."""

    def __missing__(self, key: str) -> list[float]:
        return []


def check_gradient(method: Online, items: list[Item], logps: list[list[torch.Tensor]]) -> bool:
    """Analytic against numeric gradients, with a plain item among the answers."""
    columns = 2 if method.head else 1
    items = [items[0], plain(3), *items[1:]]
    logps = [logps[0], constant(items[1], -0.7, columns=columns), *logps[1:]]

    def loss(*values: torch.Tensor) -> torch.Tensor:
        return method.loss(items, [[own] for own in values])

    return bool(torch.autograd.gradcheck(loss, [own for (own,) in logps], eps=1e-6, atol=1e-7))


def check_micro_batches(method: Online, items: list[Item], logps: list[list[torch.Tensor]]) -> None:
    """Any way to divide an update, and any order in it, gives the same loss and gradient."""
    items = [*items, plain(9)]
    logps = [*logps, constant(items[-1], -0.4, columns=2 if method.head else 1)]
    total, count = method.total(items), len(items)
    whole = method.loss(items, logps) / total
    slopes = gradients(logps, whole)
    order = random.Random(0).sample(range(count), count)
    for size in (1, 3, count):
        parts = []
        for at in range(0, count, size):
            chosen = order[at : at + size]
            parts.append(method.loss([items[i] for i in chosen], [logps[i] for i in chosen]) / total)
        summed = torch.stack(parts).sum()
        torch.testing.assert_close(summed, whole, rtol=1e-12, atol=1e-15)
        for one, other in zip(slopes, gradients(logps, summed), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


def same(one: float, other: float, rel: float = 1e-10) -> bool:
    """Two float64 results of one formula."""
    return math.isclose(one, other, rel_tol=rel, abs_tol=1e-13)
