"""One step of training: its updates, each the gradient of a whole effective batch in micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from luthier.errors import TrainingError
from luthier.forest import score
from luthier.forest.logprobs import Model
from luthier.methods.method import Item, Method
from luthier.train.batches import Shares
from luthier.train.culprits import all_finite, not_finite
from luthier.train.memory import is_out_of_memory, sum_over
from luthier.train.outputs import outputs_of
from luthier.train.state import Training
from luthier.train.updates import Updates

Measured = tuple[int, Mapping[str, float]]  # trained tokens of a micro-batch, and what a method says of it
MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class ItemLoss:
    """An example's own mean loss per trained token, before the update that it took part in."""

    where: str
    loss: float
    tokens: int


@dataclass(frozen=True)
class Told:
    """What a pass over a batch tells beside its gradient, micro-batch after micro-batch."""

    measured: list[Measured] = field(default_factory=list)
    losses: list[ItemLoss] = field(default_factory=list)

    def clear(self) -> None:
        """Forget it: the pass is made again."""
        self.measured.clear()
        self.losses.clear()


@dataclass(frozen=True)
class Made:
    """What a step's updates came to: mean loss, largest gradient norm, the method's own numbers, the cost.

    Without an update, where a step's own answers were not worth learning from, there is no loss and no norm.
    """

    updates: int
    loss: float | None
    grad_norm: float | None
    numbers: Mapping[str, float]
    losses: Sequence[ItemLoss]
    executed_tokens: int
    micro_tokens: int
    peak_bytes: int


def learn(
    model: Model,
    method: Method,
    training: Training,
    updates: Updates,
    *,
    shares: Shares,
    hold: Callable[[], Any],
) -> Made:
    """Make the updates of a step, one after the other.

    Args:
        hold: called once, before weights change.
    """
    optimizer, number = training.optimizer, training.counters.step + 1
    micro_tokens = training.counters.micro_tokens
    losses: list[float] = []
    norms: list[float] = []
    passes: list[Told] = []
    executed, peak = 0, 0
    for given in updates.parts:
        batch = method.prepare(given, partial(score, model))
        passes.append(Told())
        backward = partial(backward_of, model, method, method.total(batch), number, passes[-1])
        again = partial(_discard, optimizer, passes[-1])
        summed = sum_over(batch, backward, micro_tokens=micro_tokens, shares=shares, again=again)
        norm = torch.nn.utils.clip_grad_norm_(training.parameters.values(), MAX_GRAD_NORM)
        if not torch.isfinite(norm):
            raise _not_finite_gradient(training, batch, backward)
        if not losses:
            hold()
        _update(optimizer, number)
        optimizer.zero_grad()
        losses.append(summed.value)
        norms.append(norm.item())
        executed, peak = executed + summed.executed_tokens, max(peak, summed.peak_bytes)
        micro_tokens = summed.micro_tokens
    if not losses:
        hold()
    loss = sum(losses) / len(losses) if losses else None
    return Made(
        updates=len(losses),
        loss=loss,
        grad_norm=max(norms, default=None),
        numbers=_averaged([measure for own in passes for measure in own.measured]),
        losses=[one for own in passes for one in own.losses],
        executed_tokens=executed,
        micro_tokens=micro_tokens,
        peak_bytes=peak,
    )


def _discard(optimizer: torch.optim.Optimizer, told: Told) -> None:
    """Forget a pass over a batch that will be made again."""
    optimizer.zero_grad()
    told.clear()


def _averaged(measured: Sequence[Measured]) -> dict[str, float]:
    """Means of a step's measures, weighted by trained tokens."""
    names = dict.fromkeys(name for _, numbers in measured for name in numbers)
    means = {}
    for name in names:
        own = [(tokens, numbers[name]) for tokens, numbers in measured if name in numbers]
        means[name] = sum(tokens * value for tokens, value in own) / sum(tokens for tokens, _ in own)
    return means


def summed_loss(model: Model, method: Method, items: Sequence[Item]) -> torch.Tensor:
    """The loss of items, not divided by anything: a scalar with its graph."""
    return method.loss(items, outputs_of(model, method, items))


def backward_of(
    model: Model, method: Method, total: float, step: int, told: Told, micro: Sequence[Item]
) -> float:
    """Add the gradient of a micro-batch's share of the loss; returns that share.

    Args:
        told: gets the method's own numbers of the micro-batch, and the losses of its examples.
    """
    outputs = outputs_of(model, method, micro)
    part = method.loss(micro, outputs) / total
    if not torch.isfinite(part):
        what = f"the loss of step {step} is not finite; the update was not made"
        with torch.no_grad():
            raise not_finite(what, micro, lambda item: all_finite([summed_loss(model, method, [item])]))
    if not part.requires_grad:
        raise TrainingError("no trainable parameter takes part in the loss", fix="freeze fewer layers")
    part.backward()
    with torch.no_grad():
        known = [[values.detach() for values in own] for own in outputs]
        numbers = method.measure(micro, known)
        losses = method.losses(micro, known)
    if numbers:
        told.measured.append((sum(item.trained_tokens for item in micro), numbers))
    if losses:
        told.losses.extend(
            ItemLoss(item.where, loss, item.trained_tokens)
            for item, loss in zip(micro, losses, strict=True)
            if not item.beside
        )
    return part.item()


def _update(optimizer: torch.optim.Optimizer, step: int) -> None:
    """One step; its first makes the moments, which are twice the size of what is trained."""
    try:
        optimizer.step()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"memory ran out in the update of step {step}",
            fix="train less (`adapter: {kind: lora}`, a lower rank, fewer layers), or use a smaller model",
        ) from error


def _not_finite_gradient(
    training: Training, batch: Sequence[Item], backward: Callable[[list[Item]], float]
) -> TrainingError:
    def is_finite(item: Item) -> bool:
        training.optimizer.zero_grad()
        backward([item])
        return all_finite(p.grad for p in training.parameters.values())

    what = f"the gradient of step {training.counters.step + 1} is not finite; the update was not made"
    error = not_finite(what, batch, is_finite)
    training.optimizer.zero_grad()
    return error
