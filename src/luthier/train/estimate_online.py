"""What a training will take whose steps write their own answers: one step is tried out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from luthier.chat import TrainingSequence
from luthier.forest.logprobs import Model
from luthier.methods.method import Item, Method
from luthier.recipe import Train
from luthier.train.batches import batches_per_epoch, epoch_batches
from luthier.train.estimate import Clock, Estimate, estimate_training
from luthier.train.updates import Updates


def estimate_online(
    model: Model,
    method: Method,
    items: Sequence[Item],
    settings: Train,
    ask: Callable[[list[Item], int], Updates],
    *,
    seed: int,
    clock: Clock = time.perf_counter,
) -> Estimate:
    """The first step's answers are written and its updates planned; every other step is taken to be alike.

    Args:
        items: prompts, and what is imitated beside.
        ask: what a step trains on, as for `train`; it changes nothing.

    Raises:
        TrainingError: as `estimate_training`, or none of the first answers could be scored.
    """
    began = clock()
    steps = batches_per_epoch(items, settings.batch_tokens) * settings.epochs
    first = epoch_batches(items, batch_tokens=settings.batch_tokens, seed=seed, epoch=0)[0]
    model.eval()
    updates = ask([items[i] for i in first], 0)
    asking = clock() - began
    learnt = [item for part in updates.parts for item in part] or [_imitated(items[i]) for i in first]
    once = settings.model_copy(update={"epochs": 1, "max_minutes": None})
    inner = estimate_training(model, method, learnt, [], once, seed=seed, clock=clock)
    limit = float("inf") if settings.max_minutes is None else 60 * settings.max_minutes
    return replace(
        inner,
        steps=steps,
        tokens=steps * inner.tokens,
        trained_tokens=steps * inner.trained_tokens,
        executed_tokens=steps * inner.executed_tokens,
        flops=steps * inner.flops,
        seconds=round(min(steps * (asking + inner.seconds), limit), 3),
        measured_seconds=round(clock() - began, 3),
    )


def _imitated(prompt: Item) -> Item:
    """A stand-in of about the same work, where the first answers are not worth learning from."""
    (sequence,) = prompt.sequences
    weights = (0.0, *[1.0] * (len(sequence.ids) - 1))
    return Item(prompt.where, (TrainingSequence(sequence.ids, weights),))
