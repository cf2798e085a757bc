"""The training loop: one for every method, read from top to bottom.

Legend: an *item* is one example as the method sees it, a *batch* one optimizer step's items, a
*micro-batch* what one forest computes at once.

Ready for more machines: the loss is divided by the total of the whole batch, which is known before the
first forward pass, and the order of examples depends on seed and epoch only. Nothing is drawn from a
process's random stream: dropout is off, and a method that samples has its step's own stream.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from luthier.errors import TrainingError
from luthier.forest import score as score_quietly
from luthier.forest.logprobs import Model
from luthier.methods.method import Item, Method
from luthier.recipe import Train
from luthier.train.batches import batches_per_epoch, epoch_batches
from luthier.train.culprits import not_finite
from luthier.train.memory import memory_bytes, sum_over
from luthier.train.saving import Saver
from luthier.train.schedule import rate_at
from luthier.train.sharing import sharing_of
from luthier.train.signals import stopping
from luthier.train.state import Counters, Training
from luthier.train.step import ItemLoss, learn, summed_loss
from luthier.train.updates import Updates, as_given

MICRO_TOKENS = 1024  # executed at once: about 1.5 GB of activations for a 135M model, and no faster beyond
CHECKPOINT_SECONDS = 60.0  # of training: what a kill can cost
LOSS_DIGITS = 6  # of an example's loss in its history


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
    ask: Callable[[list[Item], int], Updates] = as_given,
    score: Callable[[], float | None] | None = None,
    watch: Callable[[], Mapping[str, float | None]] = dict,
    log: Callable[[Mapping[str, Any]], None] = lambda line: None,
    show: Callable[[Progress], None] = lambda progress: None,
    until: int | None = None,
) -> dict[str, Any]:
    """Train `model` in place; it ends with the weights of its best epoch.

    The best epoch has the highest validation score, then the lowest validation loss. A run that was
    stopped anywhere goes on from its newest checkpoint and ends bit for bit like one that was not.
    `folder/checkpoints` stays: remove it (`Checkpoints.clear`) when the result is kept elsewhere.

    Args:
        model: what has `requires_grad` is trained; everything else stays as it is.
        peak: the highest learning rate of the schedule.
        folder: gets `metrics.jsonl`, `losses.jsonl` (each example's loss each time that it was trained on,
            where the method keeps it) and `checkpoints/`.
        key: hash of everything that decides the result; a checkpoint of another key is not resumed.
        micro_tokens: executed at once, at most; halved whenever memory runs out.
        ask: what a step really trains on, from its items and the number of steps before it: the same on
            every call with the same weights. Methods that learn from the model's own answers sample here.
        score: the model's validation score as it stands, asked for at the end of every epoch.
        watch: more numbers of that moment, for the same line of the metrics; asked for after `score`.
        log: gets every line of `metrics.jsonl`; after a kill, those after the checkpoint once more.
        show: called after every step.
        until: pause after so many steps of those that are planned, with a checkpoint: `stopped` of the
            summary is None, and the weights are as they are, not those of the best epoch.

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
                if until is not None and state.step >= until:
                    with stop.held():
                        saver.save()
                    break

                epoch, place = divmod(state.step, steps_per_epoch)
                batch = [items[i] for i in batches_of(epoch=epoch)[place]]
                rate = rate_at(state.step, steps=steps, peak=peak)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                model.eval()  # steps can share prefixes, and resume bit for bit
                updates = ask(batch, state.step)
                with contextlib.ExitStack() as whole:  # from its first update on a step is done as a whole
                    hold = partial(whole.enter_context, stop.held())
                    made = learn(model, method, training, updates, shares=shares, hold=hold)
                    state.step += 1
                    state.updates += made.updates
                    state.loss = state.loss if made.loss is None else made.loss
                    state.tokens += updates.tokens
                    state.trained_tokens += updates.trained_tokens
                    state.executed_tokens += made.executed_tokens
                    state.peak_memory_bytes = max(state.peak_memory_bytes, made.peak_bytes)
                    if made.micro_tokens < state.micro_tokens:
                        state.micro_tokens = made.micro_tokens
                        notes.append(f"out of memory: micro-batch halved to {state.micro_tokens} tokens")
                    state.seconds += time.perf_counter() - began
                    line: dict[str, Any] = {
                        "step": state.step,
                        "epoch": round(state.step / steps_per_epoch, 4),
                        "loss": made.loss,
                        "grad_norm": made.grad_norm,
                        "learning_rate": rate,
                        "tokens": state.tokens,
                        "executed_tokens": state.executed_tokens,
                        "seconds": round(state.seconds, 3),
                        "memory_bytes": memory_bytes(),
                        **updates.numbers,
                        **made.numbers,
                    }
                    saver.metrics.append(line)
                    saver.losses.extend(_histories(made.losses, epoch + 1, state.step))
                    log(line)

            began = time.perf_counter()
            if _validation_due(state, steps_per_epoch, settings):
                loss = validation_loss(model, method, validation, micro_tokens=2 * state.micro_tokens)
                graded = None if score is None else score()
                if graded is not None and not math.isfinite(graded):
                    raise TrainingError(f"the validation score is {graded}")
                watched = watch()
                with stop.held():
                    if state.validated(loss, graded):
                        training.keep_best()
                    line = {
                        "step": state.step,
                        "epoch": round(state.step / steps_per_epoch, 4),
                        "validation_loss": loss,
                        "validation_score": graded,
                        **watched,
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

    if _end(state, steps, settings) is not None:
        training.take_best()
    model.eval()
    saver.sync()
    return {
        "steps": state.step,
        "updates": state.updates,
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


def _histories(losses: Sequence[ItemLoss], epoch: int, step: int) -> list[dict[str, Any]]:
    """Lines of `losses.jsonl`; the loss in nats per token."""
    return [
        {
            "epoch": epoch,
            "step": step,
            "where": one.where,
            "loss": round(one.loss, LOSS_DIGITS),
            "tokens": one.tokens,
        }
        for one in losses
    ]


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
    items = method.prepare(items, partial(score_quietly, model))

    def forward(micro: Sequence[Item]) -> float:
        return summed_loss(model, method, micro).item()

    with torch.inference_mode():
        shares = sharing_of(model)
        mean = sum_over(items, forward, micro_tokens=micro_tokens, shares=shares).value / method.total(items)
        if not math.isfinite(mean):
            raise not_finite(
                "the validation loss is not finite", items, lambda item: math.isfinite(forward([item]))
            )
    return mean


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
