"""All that changes while training, and how it goes into a checkpoint and comes back, bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from luthier.train.checkpoint import Checkpoint

MOMENTS = {"optimizer.step", "optimizer.exp_avg", "optimizer.exp_avg_sq"}  # AdamW's, from its first step on


@dataclass
class Counters:
    """The plain values.

    Attributes:
        micro_tokens: the budget of a micro-batch; smaller than asked for once memory ran out.
        updates: of the weights; a step makes one, or several, or none.
        validated_step: the step after which the newest validation was made.
        loss, validation_loss, validation_score: the newest.
        best_step, best_loss, best_score: of the weights that will be kept; step 0 is none yet.
        lowest_loss, highest_score: of all validations, at different epochs perhaps.
        stale_epochs: validations since one of these two improved.
        metrics_bytes, losses_bytes: lengths of `metrics.jsonl` and `losses.jsonl`.
    """

    micro_tokens: int
    step: int = 0
    updates: int = 0
    validated_step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    trained_tokens: int = 0
    executed_tokens: int = 0
    loss: float = 0.0
    validation_loss: float | None = None
    validation_score: float | None = None
    best_step: int = 0
    best_loss: float | None = None
    best_score: float | None = None
    lowest_loss: float | None = None
    highest_score: float | None = None
    stale_epochs: int = 0
    peak_memory_bytes: int = 0
    metrics_bytes: int = 0
    losses_bytes: int = 0

    def validated(self, loss: float | None, score: float | None) -> bool:
        """Take in a validation; returns whether the weights are the best so far.

        Best is the highest score, then the lowest loss; without either, the newest.
        """
        self.validated_step = self.step
        self.validation_loss, self.validation_score = loss, score
        lower = loss is not None and (self.lowest_loss is None or loss < self.lowest_loss)
        higher = score is not None and (self.highest_score is None or score > self.highest_score)
        self.lowest_loss = loss if lower else self.lowest_loss
        self.highest_score = score if higher else self.highest_score
        self.stale_epochs = 0 if lower or higher else self.stale_epochs + 1
        best = self.best_step == 0 or _rank(loss, score) > _rank(self.best_loss, self.best_score)
        if best or (loss is None and score is None):
            self.best_step, self.best_loss, self.best_score = self.step, loss, score
            return True
        return False


def _rank(loss: float | None, score: float | None) -> tuple[bool, float, bool, float]:
    return score is not None, score or 0.0, loss is not None, -(loss or 0.0)


class Training:
    """The trainable parameters, their optimizer, the best weights so far (on the CPU), and the counters."""

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        counters: Counters,
    ) -> None:
        self.parameters = parameters
        self.optimizer = optimizer
        self.counters = counters
        self.best: dict[str, torch.Tensor] = {}

    def keep_best(self) -> None:
        """Copy the weights: they are the best so far."""
        for name, parameter in self.parameters.items():
            if name in self.best:
                self.best[name].copy_(parameter.detach())
            else:
                self.best[name] = parameter.detach().to("cpu", copy=True)

    @torch.no_grad()
    def take_best(self) -> None:
        """Give the model the best weights."""
        for name, value in self.best.items():
            self.parameters[name].copy_(value)

    def checkpoint(self) -> Checkpoint:
        """What is to be saved: it shares memory with the training."""
        tensors: dict[str, torch.Tensor] = {f"best/{name}": value for name, value in self.best.items()}
        for name, parameter in self.parameters.items():
            tensors[f"weight/{name}"] = parameter
            for moment, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{moment}/{name}"] = value
        plain: dict[str, Any] = dataclasses.asdict(self.counters)
        step, validated = plain.pop("step"), self.counters.validated_step == self.counters.step
        return Checkpoint(step, validated, tensors, plain)

    def fits(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint is of these parameters, and has all that is needed."""
        state, parameters = checkpoint.state, self.parameters
        if state.keys() | {"step"} != {field.name for field in dataclasses.fields(Counters)}:
            return False
        of_kind: dict[str, set[str]] = {"weight": set(), "best": set()}
        for label, saved in checkpoint.tensors.items():
            kind, name = label.split("/", 1)
            of_kind.setdefault(kind, set()).add(name)
            if name not in parameters:
                return False
            alike = saved.shape == parameters[name].shape and saved.dtype == parameters[name].dtype
            if not (saved.ndim == 0 if kind == "optimizer.step" else alike):
                return False
        weights, best = of_kind.pop("weight"), of_kind.pop("best")
        moments = list(of_kind.values())
        return (
            weights == set(parameters)
            and best == (weights if state["best_step"] else set())
            and of_kind.keys() == (MOMENTS if state["updates"] else set())
            and all(names == moments[0] for names in moments)
        )

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Become what was saved; nothing refers to the checkpoint's memory afterwards."""
        self.counters = Counters(step=checkpoint.step, **checkpoint.state)
        for label, saved in checkpoint.tensors.items():
            kind, name = label.split("/", 1)
            parameter = self.parameters[name]
            if kind == "weight":
                parameter.copy_(saved)
            elif kind == "best":
                self.best[name] = saved.clone()
            else:
                # like AdamW's own: moments lie as the parameter does, the count of steps on the CPU
                own = saved.clone() if kind == "optimizer.step" else torch.empty_like(parameter).copy_(saved)
                self.optimizer.state[parameter][kind.removeprefix("optimizer.")] = own
