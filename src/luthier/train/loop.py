"""The training loop: one for every method, read from top to bottom.

Legend: an *item* is one example as the method sees it, a *batch* one optimizer step's items, a
*micro-batch* what one forest computes at once.

Ready for more machines: the loss is divided by the total of the whole batch, which is known before the
first forward pass, and the order of examples depends on seed and epoch only. Nothing is drawn from a
process's random stream: dropout is off, and no method samples. One that will has to be given seed and step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from luthier.errors import TrainingError
from luthier.forest import logprobs
from luthier.forest.logprobs import Model
from luthier.methods.method import Item, Method
from luthier.recipe import Train
from luthier.train.batches import batches_per_epoch, epoch_batches
from luthier.train.culprits import all_finite, not_finite
from luthier.train.memory import is_out_of_memory, memory_bytes, sum_over
from luthier.train.saving import Saver
from luthier.train.schedule import rate_at
from luthier.train.sharing import sharing_of
from luthier.train.signals import stopping
from luthier.train.state import Counters, Training

MICRO_TOKENS = 1024  # executed at once: about 1.5 GB of activations for a 135M model, and no faster beyond
MAX_GRAD_NORM = 1.0
CHECKPOINT_SECONDS = 60.0  # of training: what a kill can cost


@dataclass(frozen=True)
class Progress:
    """Where training is, after a step, for whoever shows it.

    Attributes:
        epoch: passes over the examples so far.
        loss: of the step just done; `validation_loss` and `validation_score` are the newest there are.
        tokens, trained_tokens, executed_tokens: so far; before sharing, with a loss, really computed.
        seconds: of training so far, without the time in which it is shown.
        note: what the user should know, once.
    """

    step: int
    steps: int
    epoch: float
    loss: float
    validation_loss: float | None
    validation_score: float | None
    tokens: int
    trained_tokens: int
    executed_tokens: int
    seconds: float
    memory_bytes: int
    learning_rate: float
    note: str | None = None


def train(
    model: Model,
    method: Method,
    items: Sequence[Item],
    validation: Sequence[Item],
    settings: Train,
    *,
    peak: float,
    seed: int,
    folder: Path,
    key: str,
    micro_tokens: int = MICRO_TOKENS,
    score: Callable[[], float | None] | None = None,
    log: Callable[[Mapping[str, Any]], None] = lambda line: None,
    show: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Train `model` in place; it ends with the weights of its best epoch.

    The best epoch has the highest validation score, then the lowest validation loss. A run that was
    stopped anywhere goes on from its newest checkpoint and ends bit for bit like one that was not.
    `folder/checkpoints` stays: remove it (`Checkpoints.clear`) when the result is kept elsewhere.

    Args:
        model: what has `requires_grad` is trained; everything else stays as it is.
        peak: the highest learning rate of the schedule.
        folder: gets `metrics.jsonl` and `checkpoints/`.
        key: hash of everything that decides the result; a checkpoint of another key is not resumed.
        micro_tokens: executed at once, at most; halved whenever memory runs out.
        score: the model's validation score as it stands, asked for at the end of every epoch.
        log: gets every line of `metrics.jsonl`; after a kill, those after the checkpoint once more.
        show: called after every step.

    Returns:
        The summary: steps, tokens, seconds, best step, memory and so on.

    Raises:
        TrainingError: loss or gradient is not finite (no update was made with it), an example does
            not fit in memory, or there is nothing to train, or to train on.
        StoppedError: SIGTERM came; what was done is saved.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    _refuse_nothing(parameters, items, settings, validation, score)
    shares = sharing_of(model)
    steps_per_epoch = batches_per_epoch(items, settings.batch_tokens)
    steps = steps_per_epoch * settings.epochs
    optimizer = torch.optim.AdamW(parameters.values(), lr=peak, betas=(0.9, 0.999), weight_decay=0.0)
    training = Training(parameters, optimizer, Counters(micro_tokens))
    notes: list[str] = []
    saver = Saver(folder, key, training, notes)
    saver.resume()
    state = training.counters
    # an epoch is shuffled once, not at each of its steps
    batches_of = lru_cache(maxsize=1)(
        partial(epoch_batches, items, batch_tokens=settings.batch_tokens, seed=seed)
    )

    with stopping(saver.save_now) as stop:
        while True:
            began = time.perf_counter()
            if not _validation_due(state, steps_per_epoch, settings):
                with stop.held():
                    saver.save_if_due(CHECKPOINT_SECONDS)
                if _end(state, steps, settings) is not None:
                    break

                epoch, place = divmod(state.step, steps_per_epoch)
                batch = [items[i] for i in batches_of(epoch=epoch)[place]]
                rate = rate_at(state.step, steps=steps, peak=peak)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                model.eval()  # steps can share prefixes, and resume bit for bit
                total = method.total(batch)
                backward = partial(_backward, model, method, total, state.step + 1)
                summed = sum_over(
                    batch, backward, micro_tokens=state.micro_tokens, shares=shares, again=optimizer.zero_grad
                )
                norm = torch.nn.utils.clip_grad_norm_(parameters.values(), MAX_GRAD_NORM)
                if not torch.isfinite(norm):
                    raise _not_finite_gradient(training, batch, backward)

                with stop.held():
                    _update(optimizer, state.step + 1)
                    optimizer.zero_grad()
                    state.step += 1
                    state.loss = summed.value
                    state.tokens += sum(item.tokens for item in batch)
                    state.trained_tokens += sum(item.trained_tokens for item in batch)
                    state.executed_tokens += summed.executed_tokens
                    state.peak_memory_bytes = max(state.peak_memory_bytes, summed.peak_bytes)
                    if summed.micro_tokens < state.micro_tokens:
                        state.micro_tokens = summed.micro_tokens
                        notes.append(f"out of memory: micro-batch halved to {state.micro_tokens} tokens")
                    state.seconds += time.perf_counter() - began
                    line: dict[str, Any] = {
                        "step": state.step,
                        "epoch": round(state.step / steps_per_epoch, 4),
                        "loss": state.loss,
                        "grad_norm": norm.item(),
                        "learning_rate": rate,
                        "tokens": state.tokens,
                        "executed_tokens": state.executed_tokens,
                        "seconds": round(state.seconds, 3),
                        "memory_bytes": memory_bytes(),
                    }
                    saver.metrics.append(line)
                    log(line)

            began = time.perf_counter()
            if _validation_due(state, steps_per_epoch, settings):
                loss = validation_loss(model, method, validation, micro_tokens=2 * state.micro_tokens)
                graded = None if score is None else score()
                if graded is not None and not math.isfinite(graded):
                    raise TrainingError(f"the validation score is {graded}")
                with stop.held():
                    if state.validated(loss, graded):
                        training.keep_best()
                    line = {
                        "step": state.step,
                        "epoch": round(state.step / steps_per_epoch, 4),
                        "validation_loss": loss,
                        "validation_score": graded,
                    }
                    saver.metrics.append(line)
                    log(line)
            state.seconds += time.perf_counter() - began
            show(
                _progress(
                    state, steps, steps_per_epoch, rate_at(state.step - 1, steps=steps, peak=peak), notes
                )
            )
            notes.clear()

    training.take_best()
    model.eval()
    saver.metrics.sync()
    return {
        "steps": state.step,
        "planned_steps": steps,
        "epochs": settings.epochs,
        "examples": len(items),
        "tokens": state.tokens,
        "trained_tokens": state.trained_tokens,
        "executed_tokens": state.executed_tokens,
        "seconds": round(state.seconds, 2),
        "tokens_per_second": round(state.tokens / state.seconds, 1),
        "best_step": state.best_step,
        "best_validation_loss": state.best_loss,
        "best_validation_score": state.best_score,
        "learning_rate": peak,
        "micro_tokens": state.micro_tokens,
        "trainable_parameters": sum(p.numel() for p in parameters.values()),
        "total_parameters": sum(p.numel() for p in model.parameters()),
        "peak_memory_bytes": state.peak_memory_bytes,
        "stopped": _end(state, steps, settings),
    }


def validation_loss(
    model: Model, method: Method, items: Sequence[Item], *, micro_tokens: int = 2 * MICRO_TOKENS
) -> float | None:
    """Mean loss over held-out items without gradients; None when there are none.

    Raises:
        TrainingError: it is not finite.
    """
    if not items:
        return None
    model.eval()

    def forward(micro: Sequence[Item]) -> float:
        return _summed_loss(model, method, micro).item()

    with torch.inference_mode():
        shares = sharing_of(model)
        mean = sum_over(items, forward, micro_tokens=micro_tokens, shares=shares).value / method.total(items)
        if not math.isfinite(mean):
            raise not_finite(
                "the validation loss is not finite", items, lambda item: math.isfinite(forward([item]))
            )
    return mean


def _summed_loss(model: Model, method: Method, items: Sequence[Item]) -> torch.Tensor:
    sequences = [sequence for item in items for sequence in item.sequences]
    needed = [row for item in items for row in item.flags]
    soft = [teacher for item in items for teacher in item.soft or [None] * len(item.sequences)]
    ids = [list(sequence.ids) for sequence in sequences]
    values = iter(
        logprobs(model, ids, needed=needed, soft=soft if any(item.soft for item in items) else None)
    )
    return method.loss(items, [[next(values) for _ in item.sequences] for item in items])


def _backward(model: Model, method: Method, total: float, step: int, micro: Sequence[Item]) -> float:
    """Add the gradient of a micro-batch's share of the loss; returns that share."""
    part = _summed_loss(model, method, micro) / total
    if not torch.isfinite(part):
        what = f"the loss of step {step} is not finite; the update was not made"
        with torch.no_grad():
            raise not_finite(what, micro, lambda item: all_finite([_summed_loss(model, method, [item])]))
    if not part.requires_grad:
        raise TrainingError("no trainable parameter takes part in the loss", fix="freeze fewer layers")
    part.backward()
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


def _refuse_nothing(
    parameters: Mapping[str, torch.nn.Parameter],
    items: Sequence[Item],
    settings: Train,
    validation: Sequence[Item],
    score: Callable[[], float | None] | None,
) -> None:
    if not parameters:
        raise TrainingError("nothing to train: every parameter is frozen", fix="freeze fewer layers")
    if not items:
        raise TrainingError("nothing to train on: there are no training examples", fix="lower split.test")
    if settings.patience is not None and not validation and score is None:
        raise TrainingError(
            "train.patience stops when validation no longer improves, and there are no validation examples",
            fix="raise split.validation, or take train.patience out",
        )


def _late(state: Counters, settings: Train) -> bool:
    return settings.max_minutes is not None and state.seconds > 60 * settings.max_minutes


def _validation_due(state: Counters, steps_per_epoch: int, settings: Train) -> bool:
    """At the end of an epoch or of the time, once; also when it was stopped there and goes on."""
    return state.step > state.validated_step and (state.step % steps_per_epoch == 0 or _late(state, settings))


def _end(state: Counters, steps: int, settings: Train) -> str | None:
    """Why training is over, or None."""
    if state.step == steps:
        return "all epochs done"
    if settings.patience is not None and state.stale_epochs >= settings.patience:
        return f"no better validation for {state.stale_epochs} epochs (patience {settings.patience})"
    if _late(state, settings):
        return f"max_minutes of {settings.max_minutes:g} reached"
    return None


def _progress(
    state: Counters, steps: int, steps_per_epoch: int, rate: float, notes: Sequence[str]
) -> Progress:
    return Progress(
        step=state.step,
        steps=steps,
        epoch=state.step / steps_per_epoch,
        loss=state.loss,
        validation_loss=state.validation_loss,
        validation_score=state.validation_score,
        tokens=state.tokens,
        trained_tokens=state.trained_tokens,
        executed_tokens=state.executed_tokens,
        seconds=state.seconds,
        memory_bytes=memory_bytes(),
        learning_rate=rate,
        note="; ".join(notes) or None,
    )
