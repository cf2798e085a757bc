"""Before training: what it will cost, and how much to compute at once, from a short measurement.

The plan is exact (`work.py`); seconds and memory come from a few of the plan's own examples, computed
forward and backward on this machine. Weights, gradients and random numbers are as before afterwards.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter

import torch

from luthier.errors import TrainingError
from luthier.forest import logprobs
from luthier.forest.logprobs import Model
from luthier.methods.method import Item, Method
from luthier.models.encoder import is_encoder
from luthier.recipe import Train
from luthier.train.batches import Shares, executed_by
from luthier.train.loop import MICRO_TOKENS
from luthier.train.machine import available_bytes, give_back_memory, used_bytes, watching_memory
from luthier.train.memory import is_out_of_memory
from luthier.train.outputs import outputs_of
from luthier.train.sharing import sharing_of
from luthier.train.step import MAX_GRAD_NORM
from luthier.train.work import Plan, Shape, plan_training, shape_of, work_of

CUDA_MICRO_TOKENS = 8192  # fewer leave a large GPU waiting
LEAST_MICRO_TOKENS = 64
FIRST_TOKENS = 16  # of the first call: slow, as weights are read and threads are started
TINY_TOKENS, SMALL_TOKENS = 64, 256  # of the next two: quick and safe, and enough for a line through them
MEASURE_SECONDS = 6.0  # at most, beyond these,
MEASURE_SHARE = 0.02  # and of the training
MEMORY_SHARE = 0.85  # of what is available: the rest is for what was not foreseen
HEAP_GROWTH = 1.15  # activations in the CPU's heap, after a few steps and freshly: measured with glibc
OPTIMIZER_VALUES = 4_000_000  # of the parameters, on which the optimizer is timed

Clock = Callable[[], float]


@dataclass(frozen=True)
class Estimate:
    """What a training will take, if it goes through all its epochs.

    Attributes:
        tokens, trained_tokens, executed_tokens: before sharing, with a loss, really computed.
        micro_tokens: executed at once, at most.
        flops: floating-point operations of all steps; validation comes on top.
        seconds: of steps and validation losses; validation scores come on top.
        peak_memory_bytes: of the process, or of the accelerator where there is one.
        available_bytes: what could still be taken when this was estimated.
        fits: the peak stays within what is available, with a margin.
        measured_seconds: what the measurement took.
    """

    steps: int
    tokens: int
    trained_tokens: int
    executed_tokens: int
    micro_tokens: int
    flops: float
    seconds: float
    peak_memory_bytes: int
    available_bytes: int
    fits: bool
    measured_seconds: float


def estimate_training(
    model: Model,
    method: Method,
    items: Sequence[Item],
    validation: Sequence[Item],
    settings: Train,
    *,
    seed: int,
    clock: Clock = time.perf_counter,
) -> Estimate:
    """Plan a training, measure, and choose how much is computed at once.

    The micro-batch is the default for the device, which is as fast as any, or the largest power of
    two below it that fits in memory: the same on every start while memory is not short.

    Args:
        model: as it is about to be trained. `items` and the rest: as for `train`.
        clock: in seconds.

    Raises:
        TrainingError: not even one example fits in memory.
    """
    began = clock()
    model.eval()  # as in every step
    shares, shape, device = sharing_of(model), shape_of(model), _device(model)
    state_bytes = _state_bytes(model, device)
    available = available_bytes(device)

    def plan_for(micro_tokens: int) -> Plan:
        return plan_training(items, validation, settings, seed=seed, micro_tokens=micro_tokens, shares=shares)

    def fits(plan: Plan) -> bool:
        need = probe.bytes_per_token * executed_by(plan.largest, shares=shares) + state_bytes
        return need <= MEMORY_SHARE * available

    plan = plan_for(CUDA_MICRO_TOKENS if device.type == "cuda" else MICRO_TOKENS)
    probe = Probe(model, method, shape, shares=shares, clock=clock)
    probe.measure_small(plan.largest)
    chosen = _largest_that_fits(plan, plan_for, fits)
    if chosen is plan:
        # one of the largest always where the training is long: its memory is then known, not extrapolated
        allowed = min(MEASURE_SECONDS, MEASURE_SHARE * probe.seconds_of(plan))
        probe.measure_large(plan.largest, allowed)
        chosen = _largest_that_fits(plan, plan_for, fits)
    seconds = probe.seconds_of(chosen) + chosen.steps * _optimizer_seconds(model, clock)
    peak = probe.loaded_bytes + probe.bytes_per_token * executed_by(chosen.largest, shares=shares)
    limit = float("inf") if settings.max_minutes is None else 60 * settings.max_minutes
    return Estimate(
        steps=chosen.steps,
        tokens=chosen.tokens,
        trained_tokens=chosen.trained_tokens,
        executed_tokens=chosen.executed_tokens,
        micro_tokens=chosen.micro_tokens,
        flops=chosen.flops(shape),
        seconds=round(min(seconds, limit), 3),
        peak_memory_bytes=round(peak + state_bytes),
        available_bytes=available,
        fits=fits(chosen),
        measured_seconds=round(clock() - began, 3),
    )


class Probe:
    """Times examples forward and backward, and watches the memory.

    A micro-batch takes flops / rate + overhead: calls, and reading the weights, cost the same
    however few its tokens are. Two sizes give the two numbers.
    """

    def __init__(self, model: Model, method: Method, shape: Shape, *, shares: Shares, clock: Clock) -> None:
        self.model, self.method, self.shape, self.shares = model, method, shape, shares
        self.clock = clock
        self.device = _device(model)
        self.loaded_bytes = 0
        self.bytes_per_token = 0.0
        self._heap_growth = HEAP_GROWTH if self.device.type == "cpu" else 1.0
        # operations and seconds
        self._tiny = self._small = (0.0, 0.0)
        self._large: list[tuple[float, float]] = []

    def measure_small(self, micro: Sequence[Item]) -> None:
        """Make everything ready with a few tokens, then time a few and some of these items.

        Each twice, of which the quicker counts: a short time is easily disturbed.

        Raises:
            TrainingError: they do not fit in memory.
        """
        few, items = (self._some_of(micro, tokens) for tokens in (TINY_TOKENS, SMALL_TOKENS))
        try:
            _first_call(self.model, items[0])
            gc.collect()
            give_back_memory()
            self.loaded_bytes = used_bytes(self.device)
            self._tiny = min((self._run(few) for _ in range(2)), key=itemgetter(1))
            self._small = min((self._run(items) for _ in range(2)), key=itemgetter(1))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            tokens = executed_by(items, shares=self.shares)
            raise TrainingError(
                f"{tokens} tokens do not fit in memory",
                where=items[0].where,
                fix="use a smaller model or a machine with more memory",
            ) from None

    def measure_large(self, micro: Sequence[Item], allowed_seconds: float) -> None:
        """Time these items as often as it is allowed, three times at most; perhaps not at all."""
        expected = self._seconds(self.shape.step_flops(work_of(micro, shares=self.shares)))
        began = self.clock()
        warm = self.device.type != "cuda"  # there every new size is prepared for
        while len(self._large) < 3 and self.clock() - began + expected <= allowed_seconds:
            try:
                run = self._run(micro)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.bytes_per_token *= 2  # more than was thought: choose again
                return
            if warm:
                self._large.append(run)
            warm = True

    def seconds_of(self, plan: Plan) -> float:
        """Of all micro-batches and validations of a plan."""
        steps = sum(self._seconds(self.shape.step_flops(work)) for work in plan.micros)
        held = sum(self._seconds(self.shape.forward_flops(work)) for work in plan.validation)
        return plan.scale * steps + plan.validations * held

    def _seconds(self, flops: float) -> float:
        """By the line through the two largest sizes that were measured."""
        less, more = self._tiny, self._small
        if self._large:
            less, count = self._small, len(self._large)
            more = sum(flops for flops, _ in self._large) / count, sum(s for _, s in self._large) / count
        slope = (more[1] - less[1]) / max(more[0] - less[0], 1.0)
        # points that noise has moved may give a line without an overhead, or with little else
        slope = min(max(slope, 0.5 * more[1] / more[0]), more[1] / more[0])
        return slope * (flops - more[0]) + more[1]

    def _run(self, items: Sequence[Item]) -> tuple[float, float]:
        """Operations and seconds of these items; their memory is taken note of."""
        work = work_of(items, shares=self.shares)
        give_back_memory()
        with watching_memory(self.device) as watch:
            began = self.clock()
            _forward_and_backward(self.model, self.method, items)
            seconds = self.clock() - began
            grown = max(0, watch.peak_bytes - self.loaded_bytes)
        self.bytes_per_token = self._heap_growth * grown / work.executed
        return self.shape.step_flops(work), max(seconds, 1e-9)

    def _some_of(self, micro: Sequence[Item], tokens: int) -> list[Item]:
        """The shortest items, of so many executed tokens or a few more."""
        chosen: list[Item] = []
        for item in sorted(micro, key=lambda item: item.tokens):
            chosen.append(item)
            if executed_by(chosen, shares=self.shares) >= tokens:
                break
        return chosen


def _first_call(model: Model, item: Item) -> None:
    if is_encoder(model):  # without causal attention there is no shorter row to begin with
        return
    (values,) = logprobs(model, [list(item.sequences[0].ids[:FIRST_TOKENS])])
    if values.requires_grad:
        values.sum().backward()
    model.zero_grad()


def _forward_and_backward(model: Model, method: Method, items: Sequence[Item]) -> None:
    """As in a step, and the gradients are thrown away."""
    try:
        loss = method.loss(items, outputs_of(model, method, items))
        if loss.requires_grad:
            (loss / method.total(items)).backward()
        float(loss.detach())  # waits for the accelerator
    finally:
        model.zero_grad()


def _largest_that_fits(plan: Plan, plan_for: Callable[[int], Plan], fits: Callable[[Plan], bool]) -> Plan:
    """The plan, or one with fewer tokens at once; the smallest where none fits."""
    while not fits(plan) and plan.micro_tokens > LEAST_MICRO_TOKENS:
        plan = plan_for(plan.micro_tokens // 2)
    return plan


def _state_bytes(model: Model, device: torch.device) -> int:
    """What a step keeps beside weights and activations: gradients, two moments, and the best weights.

    The best weights lie on the CPU, so that they take none of an accelerator's memory.
    """
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return trained * (4 if device.type == "cpu" else 3)


def _optimizer_seconds(model: Model, clock: Clock) -> float:
    """Of clipping and one AdamW step, timed on a copy of some of the trained values."""
    trained = [p for p in model.parameters() if p.requires_grad]
    copies: list[torch.nn.Parameter] = []
    left = OPTIMIZER_VALUES
    for parameter in trained:
        copies.append(torch.nn.Parameter(parameter.detach().flatten()[:left].clone()))
        copies[-1].grad = torch.zeros_like(copies[-1])
        left -= copies[-1].numel()
        if left <= 0:
            break
    optimizer = torch.optim.AdamW(copies, lr=0.0)
    seconds = 0.0
    for _ in range(2):  # the first step makes the state
        began = clock()
        torch.nn.utils.clip_grad_norm_(copies, MAX_GRAD_NORM)
        optimizer.step()
        float(copies[0].detach().flatten()[0])  # waits for the accelerator
        seconds = clock() - began
    return seconds * sum(p.numel() for p in trained) / sum(p.numel() for p in copies)


def _device(model: Model) -> torch.device:
    return next(model.parameters()).device
