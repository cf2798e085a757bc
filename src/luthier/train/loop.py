"""The training loop: one for every method, read from top to bottom.

Legend: an *item* is one example as the method sees it, a *batch* one optimizer step's items, a
*micro-batch* what one forest computes at once.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import PeftModel

from luthier.errors import TrainingError
from luthier.forest import logprobs
from luthier.forest.packing import executed_tokens
from luthier.methods.method import Item, Method
from luthier.recipe import Train
from luthier.record import write_text
from luthier.train.batches import batches_per_epoch, epoch_batches, micro_batches
from luthier.train.checkpoint import Checkpoint, drop_checkpoints, load_newest, save_checkpoint
from luthier.train.schedule import peak_rate, rate_at

MICRO_TOKENS = 1024  # executed at once: about 1.5 GB of activations for a 135M model, and no faster beyond
MAX_GRAD_NORM = 1.0
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Progress:
    """Where training is, for whoever shows it."""

    step: int
    steps: int
    loss: float
    validation_loss: float | None
    tokens_per_second: float


@dataclass
class _State:
    """What changes while training and is saved in checkpoints."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    trained_tokens: int = 0
    executed_tokens: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    validation_loss: float | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)


def train(
    model: PeftModel,
    method: Method,
    items: Sequence[Item],
    validation: Sequence[Item],
    settings: Train,
    *,
    seed: int,
    folder: Path,
    key: str,
    show: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Train `model` in place; it ends with the weights of the epoch with the lowest validation loss.

    Args:
        model: with trainable parameters; everything else stays as it is.
        folder: gets `metrics.jsonl` and, while training, `checkpoints/`.
        key: hash of everything that decides the result; a checkpoint of another key is not resumed.

    Returns:
        The summary: steps, tokens, seconds, best step, memory and so on.

    Raises:
        TrainingError: loss or gradient is not finite; no update was made with it.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    steps_per_epoch = batches_per_epoch(items, settings.batch_tokens)
    steps = steps_per_epoch * settings.epochs
    peak = peak_rate(settings.learning_rate, hidden_size=model.config.get_text_config().hidden_size)
    optimizer = torch.optim.AdamW(parameters.values(), lr=peak, betas=(0.9, 0.999), weight_decay=0.0)
    best = {name: p.detach().clone() for name, p in parameters.items()}
    checkpoints = folder / "checkpoints"
    state = _resume(checkpoints, key, parameters, optimizer, best)
    stopped = "all epochs done"
    memory = 0
    saved_at = time.perf_counter()
    before = time.perf_counter() - state.seconds
    # an epoch is shuffled once, not at each of its steps
    plan_of = lru_cache(maxsize=1)(
        partial(epoch_batches, items, batch_tokens=settings.batch_tokens, seed=seed)
    )

    while state.step < steps:
        epoch, place = divmod(state.step, steps_per_epoch)
        batch = [items[i] for i in plan_of(epoch=epoch)[place]]
        for group in optimizer.param_groups:
            group["lr"] = rate_at(state.step, steps=steps, peak=peak)

        model.eval()  # a base model's dropout stays off: steps can share prefixes, and resume bit for bit
        total = method.total(batch)
        loss = 0.0
        micros = [[batch[i] for i in indices] for indices in micro_batches(batch, MICRO_TOKENS)]
        for micro in micros:
            part = _summed_loss(model, method, micro) / total
            if not torch.isfinite(part):
                raise _not_finite("loss", state.step, micro)
            part.backward()
            loss += part.item()
            memory = max(memory, memory_bytes())
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), MAX_GRAD_NORM)
        if not torch.isfinite(norm):
            raise _not_finite("gradient", state.step, batch)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        state.step += 1
        state.tokens += sum(item.tokens for item in batch)
        state.trained_tokens += int(total)
        state.executed_tokens += sum(
            executed_tokens([s.ids for item in micro for s in item.sequences]) for micro in micros
        )
        state.seconds = time.perf_counter() - before
        state.lines.append(
            {
                "step": state.step,
                "epoch": round(state.step / steps_per_epoch, 4),
                "loss": loss,
                "grad_norm": norm.item(),
                "learning_rate": optimizer.param_groups[0]["lr"],
                "tokens": state.tokens,
                "executed_tokens": state.executed_tokens,
                "seconds": round(state.seconds, 3),
                "memory_bytes": memory_bytes(),
            }
        )
        out_of_time = settings.max_minutes is not None and state.seconds > 60 * settings.max_minutes
        if out_of_time:
            stopped = f"max_minutes of {settings.max_minutes:g} reached"
        if place == steps_per_epoch - 1 or out_of_time:
            state.validation_loss = validation_loss(model, method, validation)
            state.lines.append(
                {
                    "step": state.step,
                    "epoch": round(state.step / steps_per_epoch, 4),
                    "validation_loss": state.validation_loss,
                    "validation_score": None,
                }
            )
            if state.validation_loss is None or state.validation_loss < state.best_loss:
                state.best_loss = math.inf if state.validation_loss is None else state.validation_loss
                state.best_step = state.step
                for name, p in parameters.items():
                    best[name].copy_(p.detach())
        state.seconds = time.perf_counter() - before
        show(Progress(state.step, steps, loss, state.validation_loss, state.tokens / state.seconds))
        if out_of_time:
            break
        if place == steps_per_epoch - 1 or time.perf_counter() - saved_at > CHECKPOINT_SECONDS:
            _save(checkpoints, key, parameters, optimizer, best, state)
            saved_at = time.perf_counter()

    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(best[name])
    model.eval()
    _write_metrics(folder, state)
    drop_checkpoints(checkpoints)
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
        "best_validation_loss": None if math.isinf(state.best_loss) else state.best_loss,
        "learning_rate": peak,
        "trainable_parameters": sum(p.numel() for p in parameters.values()),
        "total_parameters": sum(p.numel() for p in model.parameters()),
        "peak_memory_bytes": memory,
        "stopped": stopped,
    }


def validation_loss(model: PeftModel, method: Method, items: Sequence[Item]) -> float | None:
    """Mean loss over held-out items without gradients; None when there are none.

    Raises:
        TrainingError: it is not finite.
    """
    if not items:
        return None
    model.eval()
    summed = 0.0
    with torch.inference_mode():
        for indices in micro_batches(items, 2 * MICRO_TOKENS):
            summed += _summed_loss(model, method, [items[i] for i in indices]).item()
    mean = summed / method.total(items)
    if not math.isfinite(mean):
        raise TrainingError(f"the validation loss is {mean}", fix="lower train.learning_rate")
    return mean


def memory_bytes() -> int:
    """Memory in use: the accelerator's peak where there is one, else this process's resident set."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return int(psutil.Process().memory_info().rss)


def _summed_loss(model: PeftModel, method: Method, items: Sequence[Item]) -> torch.Tensor:
    sequences = [sequence for item in items for sequence in item.sequences]
    needed = [[weight > 0 for weight in sequence.weights[1:]] for sequence in sequences]
    values = iter(logprobs(model, [list(sequence.ids) for sequence in sequences], needed=needed))
    return method.loss(items, [[next(values) for _ in item.sequences] for item in items])


def _not_finite(what: str, step: int, items: Sequence[Item]) -> TrainingError:
    places = ", ".join(item.where for item in items[:5]) + (" ..." if len(items) > 5 else "")
    return TrainingError(
        f"the {what} of step {step + 1} is not finite; the update was not made. Examples: {places}",
        fix="look at these examples, or lower train.learning_rate",
    )


def _write_metrics(folder: Path, state: _State) -> None:
    write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in state.lines))


def _save(
    folder: Path,
    key: str,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.AdamW,
    best: dict[str, torch.Tensor],
    state: _State,
) -> None:
    tensors = {f"weight/{name}": p for name, p in parameters.items()} | {
        f"best/{name}": value for name, value in best.items()
    }
    for name, p in parameters.items():
        for moment, value in optimizer.state[p].items():
            tensors[f"{moment}/{name}"] = value
    plain = {k: v for k, v in vars(state).items() if k != "step"}
    plain["best_loss"] = None if math.isinf(state.best_loss) else state.best_loss
    save_checkpoint(folder, Checkpoint(state.step, tensors, {"key": key, **plain}))
    _write_metrics(folder.parent, state)


def _resume(
    folder: Path,
    key: str,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.AdamW,
    best: dict[str, torch.Tensor],
) -> _State:
    checkpoint = load_newest(folder, key=key)
    if checkpoint is None:
        drop_checkpoints(folder)  # of another key: their higher steps would push out the new ones
        return _State()
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(checkpoint.tensors[f"weight/{name}"])
            best[name].copy_(checkpoint.tensors[f"best/{name}"])
            optimizer.state[p] = {
                moment: checkpoint.tensors[f"{moment}/{name}"].to(p.device if moment != "step" else "cpu")
                for moment in ("step", "exp_avg", "exp_avg_sq")
            }
    plain = {k: v for k, v in checkpoint.state.items() if k != "key"}
    plain["best_loss"] = math.inf if plain["best_loss"] is None else plain["best_loss"]
    return _State(**plain)
